defmodule Demo.Summary do
  @moduledoc "What the store has on record at the end, and whether it is what it should be."

  alias Demo.{Narrator, Receiver, Screen}
  alias Plausible.Webhooks

  # The recorded day has two front pages and one broken release.
  @day %{"traffic.spike" => 2, "traffic.drop" => 1}

  @doc "Prints it. `facts`: `tally`, `waited`, `own` (our receiver), `recorded` (our day)."
  def print(webhooks, facts) do
    log = log(webhooks)
    Screen.plain("")
    if Narrator.verbose?(), do: last(log)
    %{dropped: dropped} = Webhooks.stats()
    types = Enum.frequencies_by(log, & &1.delivery.type)
    sent = Enum.flat_map(log, & &1.attempts)
    retries = log |> Enum.map(&max(length(&1.attempts) - 1, 0)) |> Enum.sum()
    states = Enum.frequencies_by(log, & &1.delivery.state)
    delivered = states[:delivered] || 0

    Screen.plain("""
    events          #{facts.tally.events} read, #{facts.tally.broken} skipped
    deliveries      #{length(log)}: #{types["goal.completed"] || 0} completions, \
    #{types["traffic.spike"] || 0} spikes, #{types["traffic.drop"] || 0} drops; #{dropped} dropped
    attempts        #{length(sent)}, #{retries} of them retries; total time median \
    #{percentile(sent, 50)} ms, 99th percentile #{percentile(sent, 99)} ms
    ended           #{Enum.map_join(states, ", ", fn {state, n} -> "#{n} #{state}" end)}\
    """)

    checks =
      [
        {facts.tally.broken == 0, "#{facts.tally.broken} lines of the input were skipped"},
        {facts.waited == :done, "not all deliveries came to an end in time"},
        {log != [], "no event led to a delivery"},
        {delivered == length(log), "#{length(log) - delivered} deliveries did not arrive"},
        {not facts.own or Enum.all?(log, &verified?/1),
         "not every delivery was verified by the receiver"},
        {dropped == 0, "events were dropped"}
      ] ++ if(facts.recorded, do: day(types, retries), else: [])

    judged(for({false, text} <- checks, do: text), facts.own)
  end

  defp judged([], own) do
    Screen.plain("\nEvery delivery arrived#{if own, do: " and was verified", else: ""}.")
    :ok
  end

  defp judged(texts, _own) do
    for text <- texts, do: Screen.plain("\nFAILED: #{text}.")
    {:error, texts}
  end

  defp day(types, retries) do
    expected = for {type, count} <- @day, do: {types[type] == count, "#{type}: not #{count}"}

    [{retries > 0, "no retry was seen"} | expected]
  end

  # Reads the log from the store, page by page, without deliveries of an earlier demo.
  defp log(webhooks) do
    for site <- webhooks |> Map.values() |> Enum.map(& &1.site_id) |> Enum.uniq(),
        delivery <- pages(site, nil),
        is_map_key(webhooks, delivery.webhook_id) do
      {:ok, attempts} = Webhooks.attempts(:system, site, delivery.id)
      # 0: it ended without a request.
      attempts = Enum.filter(attempts, &(&1.number > 0))
      %{delivery: delivery, attempts: attempts, name: webhooks[delivery.webhook_id].name}
    end
  end

  defp pages(site, cursor) do
    {:ok, %{entries: entries, next: next}} =
      Webhooks.deliveries(:system, site, %{}, %{after: cursor, limit: 200})

    entries ++ if next, do: pages(site, next), else: []
  end

  defp last(log) do
    Screen.plain("Delivery log, the last ten of #{length(log)}, read back from the store:")

    for entry <- log |> Enum.sort_by(& &1.delivery.created_at_ms, :desc) |> Enum.take(10) do
      statuses = Enum.map_join(entry.attempts, ", ", &to_string(&1.status || &1.error))

      Screen.plain(
        "  #{entry.delivery.id}  #{String.pad_trailing(entry.delivery.type, 14)}  " <>
          "#{String.pad_trailing(to_string(entry.name), 13)}  " <>
          "#{String.pad_trailing(to_string(entry.delivery.state), 9)}  #{statuses}"
      )
    end

    Screen.plain("")
  end

  defp verified?(%{delivery: delivery, attempts: attempts}) do
    received = Receiver.received(delivery.id)
    length(received) == length(attempts) and Enum.all?(received, &(&1.refused == nil))
  end

  defp percentile([], _percent), do: "-"

  defp percentile(attempts, percent) do
    sorted = attempts |> Enum.map(& &1.total_us) |> Enum.reject(&is_nil/1) |> Enum.sort()
    us = Enum.at(sorted, min(div(length(sorted) * percent, 100), length(sorted) - 1), 0)
    Float.round(us / 1_000, 1)
  end
end
