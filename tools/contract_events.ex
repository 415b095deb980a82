# The events whose bodies are the examples of tools/contract.ex.
defmodule Contract.Events do
  alias Plausible.Webhooks.Ingest.Payload
  alias Plausible.Webhooks.Native

  @at_ms 1_795_428_930_123

  @doc "Bodies of events of this type, as Payload makes them, decoded."
  def bodies(type) do
    for event <- events(type) do
      {:ok, json} = Payload.encode(event)
      {:ok, body} = Native.decode(json)
      body
    end
  end

  @site %{id: 1, domain: "example.com", dashboard_url: "https://plausible.io/example.com"}

  defp events("goal.completed") do
    for {goal, event} <- [
          {%{id: 12, name: "Signup", type: "event"},
           %{
             name: "Signup",
             hostname: "example.com",
             pathname: "/register",
             "meta.key": ["plan"],
             "meta.value": ["growth"],
             revenue_reporting_amount: "49.00",
             revenue_reporting_currency: "EUR",
             referrer: "https://news.ycombinator.com",
             referrer_source: "Hacker News",
             country_code: "EE",
             screen_size: "Desktop",
             browser: "Firefox",
             operating_system: "GNU/Linux"
           }},
          {%{id: 5, name: "Read a blog article", type: "scroll"},
           %{
             name: "engagement",
             pathname: "/blog/webhooks-in-depth",
             utm_source: "newsletter",
             utm_campaign: "november"
           }}
        ] do
      event = Map.put(event, :timestamp, ~N[2026-11-23 10:15:30])
      {:ok, completion} = Payload.completion(%{clickhouse_event: event}, @at_ms)
      Payload.goal_completed(@site, goal, completion)
    end
  end

  defp events("webhook.test"), do: [Payload.sample("webhook.test", @site, nil, @at_ms)]

  defp events("traffic.spike"), do: [Payload.traffic_fired(@site, spike(), @at_ms)]

  defp events("traffic.drop") do
    drop = %{
      kind: :drop,
      id: "alr_01KAT9QK3W8F6H2J4N5P7R9S1V",
      started_at_ms: @at_ms,
      current_visitors: 19,
      threshold: 20,
      window_seconds: 43_200,
      baseline: %{visitors: 0.0, samples: [0], change_percent: nil}
    }

    [Payload.traffic_fired(%{@site | dashboard_url: nil}, drop, @at_ms)]
  end

  defp events("traffic.resolved"),
    do: [Payload.traffic_resolved(@site, %{spike() | current_visitors: 240}, @at_ms + 1_530_000)]

  defp spike do
    %{
      kind: :spike,
      id: "alr_01KARZ8V9T4C7Q2M5N6P8R0S1T",
      started_at_ms: @at_ms,
      current_visitors: 512,
      threshold: 300,
      window_seconds: 300,
      baseline: %{visitors: 110.5, samples: [101, 120], change_percent: 363.3},
      sources: [%{name: "Hacker News", visitors: 301}],
      pages: [%{path: "/post", visitors: 402}]
    }
  end
end
