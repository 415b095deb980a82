defmodule Plausible.Webhooks.Scenarios.SuccessCriteria do
  @moduledoc false
  # The success criteria of the specification. The times here are upper bounds;
  # script/bench measures them at 1 000 events a second.

  use Plausible.Webhooks.Test.SharedTests
  use Plausible.Webhooks.Scenarios.World

  @five_minutes_ms 5 * 60_000

  shared_test "SC-001 a spike arrives within five minutes of the configuration", context do
    track_many(context, "pageview", 1..12)
    began_ms = now_ms()
    webhook!(context, "/spike", events: ["traffic.spike"], spike_threshold: 10)
    assert %{fired: 1} = evaluate!(context)
    assert [%{"type" => "traffic.spike"}] = bodies(context, "/spike", 1)

    # By default the traffic is evaluated once a minute.
    {:ok, evaluator} =
      Webhooks.Ingest.Traffic.Evaluator.init(instance: nil, store: nil, host: nil, deliver: nil)

    assert now_ms() - began_ms + evaluator.tick_ms < @five_minutes_ms
  end

  shared_test "SC-002 a goal arrives within five minutes of the configuration", context do
    began_ms = now_ms()
    goal!(context, %{event_name: "Signup"})
    webhook!(context, "/goal", events: ["goal.completed"])
    # Goal and webhook apply at once: the event follows without a pause.
    track(context, "Signup")
    assert [%{"type" => "goal.completed"}] = bodies(context, "/goal", 1)
    assert now_ms() - began_ms < @five_minutes_ms
  end

  shared_test "SC-003 under normal conditions the first attempt succeeds", context do
    goal!(context, %{event_name: "Signup"})
    webhook!(context, "/first", events: ["goal.completed"])
    track_many(context, "Signup", 1..100)

    deliveries = await_log(context, :delivered, 100)
    # The specification asks for 95 %.
    assert Enum.count(deliveries, &(&1.attempts == 1)) == 100
    posts(context, "/first", 100)
  end

  shared_test "SC-004 a test verifies a webhook without waiting for an event", context do
    webhook = webhook!(context, "/button", events: ["traffic.drop"], drop_threshold: 1)

    assert {:ok, %{status: 200, state: :delivered, total_us: total_us}} =
             send_test(context, webhook.id, "traffic.drop")

    assert is_integer(total_us)
    assert [%{"type" => "traffic.drop"}] = bodies(context, "/button", 1)
  end

  shared_test "SC-005 an event becomes a POST in less than 30 seconds", context do
    goal!(context, %{event_name: "Signup"})
    webhook!(context, "/latency", events: ["goal.completed"])

    for n <- 1..20 do
      began_ms = now_ms()
      track(context, "Signup", visitor: n)
      arrived = context |> posts("/latency", n) |> List.last()
      assert arrived.at_ms - began_ms < 30_000
    end
  end

  shared_test "SC-006 a failing delivery is retried three times and then failed", context do
    goal!(context, %{event_name: "Signup"})
    webhook!(context, "/failing", events: ["goal.completed"])
    HttpReceiver.script(context.receiver, "/failing", [500])
    track(context, "Signup")

    assert [%{attempts: 4, last_status: 500}] = await_log(context, :failed, 1)
    assert settled(context, "/failing") == 4
    assert length(%Plausible.Webhooks.Options{}.retry_delays_ms) == 3
  end
end
