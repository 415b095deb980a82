defmodule Plausible.Webhooks.Deliver.LimitedReceiverTest do
  # Receivers that limit their senders, at their real speed and with the default schedule.
  # Takes more than two minutes: mix test --include long. Prints the figures.
  use Plausible.Webhooks.Test.InstanceCase, async: true

  @moduletag :long
  @moduletag timeout: 900_000
  @goals 60
  @limit_ms 300_000

  test "get all of 60 goals that are completed at once", context do
    limits = [lane_rate_per_s: 50, destination_rate_per_s: 200, sweep_interval_ms: 1_000]
    context = start!(context, limits)
    began_ms = System.monotonic_time(:millisecond)

    answers = %{
      "/one_per_second" => limited(1, 1_000, [{"retry-after", "1"}]),
      "/five_per_two_seconds" => limited(5, 2_000, []),
      "/away" => fn _request ->
        if System.monotonic_time(:millisecond) - began_ms < 60_000,
          do: {503, [{"retry-after", "5"}], ""},
          else: 200
      end
    }

    # Each on a destination of its own.
    webhooks =
      for {path, answer} <- answers, into: %{} do
        receiver = HttpReceiver.of(start_supervised!({HttpReceiver, []}, id: path))
        HttpReceiver.script(receiver, path, [answer])
        {webhook!(%{context | receiver: receiver}, path).id, {path, receiver}}
      end

    for _ <- 1..@goals, do: Plausible.Webhooks.events_buffered(context.name, [event()])

    eventually(fn -> ended?(context) end, @limit_ms)

    for {id, {path, receiver}} <- webhooks do
      states = for %{webhook_id: ^id} = delivery <- all_deliveries(context), do: delivery

      took_ms =
        Enum.max(Enum.map(states, & &1.finished_at_ms)) -
          Enum.min(Enum.map(states, & &1.created_at_ms))

      IO.puts(
        "\n    #{path}: #{inspect(Enum.frequencies_by(states, & &1.state))} in #{took_ms / 1_000} s, " <>
          "#{HttpReceiver.count(receiver)} POSTs"
      )

      assert Enum.frequencies_by(states, & &1.state) == %{delivered: @goals}
    end
  end

  defp ended?(context) do
    {:ok, counts} = Store.counts(context.instance)
    counts.delivered + counts.failed == 3 * @goals
  end

  # So many requests in a window that begins with the first of them.
  defp limited(count, window_ms, headers) do
    never = System.monotonic_time(:millisecond) - window_ms
    window = start_supervised!({Agent, fn -> {0, never} end}, id: make_ref())

    fn _request ->
      Agent.get_and_update(window, fn {seen, since} ->
        now = System.monotonic_time(:millisecond)

        cond do
          now - since >= window_ms -> {200, {1, now}}
          seen < count -> {200, {seen + 1, since}}
          true -> {{429, headers, ""}, {seen, since}}
        end
      end)
    end
  end
end
