defmodule Plausible.Webhooks.PropertiesTest do
  # Submit, put, delete, pause, resume, redeliver, recover, restart, the death of a process and
  # the death of the node, in any order: each accepted delivery ends once. PropEr (Debian's
  # erlang-proper) makes the sequences and shortens one that fails. WEBHOOKS_PROPERTIES says
  # how many there are.
  use ExUnit.Case, async: false

  alias Plausible.Webhooks.Test.{DeliveryMachine, DeliveryRun}

  @count String.to_integer(System.get_env("WEBHOOKS_PROPERTIES", "40"))
  # They wait more than they work.
  @workers 8
  @moduletag timeout: :infinity
  @moduletag :capture_log

  @proper Code.ensure_loaded?(:proper)
  if !@proper, do: IO.puts("PropEr is not installed: no state machine of deliveries")
  if !@proper, do: @moduletag(skip: "PropEr is not installed")

  test "each accepted delivery ends once, whatever happens in whatever order" do
    results =
      1..@workers
      |> Task.async_stream(
        &DeliveryMachine.check(DeliveryRun.worker(&1), div(@count, @workers)),
        timeout: :infinity
      )
      |> Enum.map(fn {:ok, result} -> result end)

    assert Enum.uniq(results) == [:ok]
  end
end
