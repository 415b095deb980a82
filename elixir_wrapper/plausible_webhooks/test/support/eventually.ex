defmodule Plausible.Webhooks.Test.Eventually do
  @moduledoc false

  import ExUnit.Assertions, only: [flunk: 1]

  @doc "Waits until the function returns a value that is neither nil nor false."
  def eventually(fun, timeout_ms \\ 30_000),
    do: try_until(fun, System.monotonic_time(:millisecond) + timeout_ms)

  defp try_until(fun, deadline_ms) do
    cond do
      result = fun.() ->
        result

      System.monotonic_time(:millisecond) >= deadline_ms ->
        flunk("the state that this test waits for did not come")

      true ->
        receive after: (10 -> :ok)
        try_until(fun, deadline_ms)
    end
  end
end
