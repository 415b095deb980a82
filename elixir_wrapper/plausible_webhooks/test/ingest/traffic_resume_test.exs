defmodule Plausible.Webhooks.Ingest.TrafficResumeTest do
  # A webhook that was switched off, or did not want to know, begins anew.
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks.Ingest.Traffic

  @minute_ms 60_000

  setup context do
    context = start!(context, traffic: [tick_ms: :infinity])

    webhook =
      webhook!(context, "/hook", %{
        events: ["traffic.spike"],
        spike_threshold: 10,
        traffic_min_interval_s: 0
      })

    context = Map.merge(context, %{webhook: webhook, now_ms: System.system_time(:millisecond)})
    assert evaluate(context, 0, 500) == 1
    assert evaluate(context, 1, 500) == 0
    context
  end

  defp evaluate(context, minute, visitors) do
    TestHost.put(context.host, :visitors, {:ok, [visitors]})
    at_ms = context.now_ms + minute * @minute_ms
    assert {:ok, %{fired: fired, failed: []}} = Traffic.evaluate(context.name, at_ms)
    fired
  end

  defp update(context, attributes) do
    assert {:ok, _webhook} = update_webhook(context, context.webhook.id, attributes)
  end

  test "when it is switched on again", context do
    {:ok, _} = disable_webhook(context, context.webhook.id)
    assert evaluate(context, 2, 0) == 0
    {:ok, _} = enable_webhook(context, context.webhook.id)
    assert evaluate(context, 3, 500) == 1
    assert evaluate(context, 4, 500) == 0
  end

  test "when it subscribes again", context do
    update(context, %{events: ["goal.completed"]})
    assert evaluate(context, 2, 0) == 0
    update(context, %{events: ["traffic.spike"], spike_threshold: 10})
    assert evaluate(context, 3, 500) == 1
  end

  test "when it has another threshold, and not when it has another name", context do
    update(context, %{name: "CRM", url: context.webhook.url <> "?v=2"})
    assert evaluate(context, 2, 500) == 0
    update(context, %{spike_threshold: 20})
    assert evaluate(context, 3, 500) == 1
    assert HttpReceiver.await(context.receiver, "/hook", 2) |> length() == 2
  end

  test "when it follows the host's notifier no more", context do
    update(context, %{spike_threshold: "notifier"})
    update(context, %{spike_threshold: 10})
    assert evaluate(context, 2, 500) == 1
  end
end
