defmodule Plausible.Webhooks.RealTree.SuccessCriteriaTest do
  # The success criteria of the specification, in a real Plausible.
  use Plausible.Webhooks.Test.PlausibleCase, async: false

  @five_minutes_ms 5 * 60_000
  # The pause between two evaluations of traffic.
  @tick_ms 60_000

  setup context do
    goal!(context.site, %{"event_name" => "Signup"})
    :ok
  end

  test "SC-001 a spike arrives within five minutes of the configuration", context do
    visits!(context.site, 12)
    began = now_ms()
    webhook!(context, "/spike", events: ["traffic.spike"], spike_threshold: 10)
    evaluate!()
    assert [%{"type" => "traffic.spike"}] = received(context, "/spike", 1)
    assert now_ms() - began + @tick_ms < @five_minutes_ms
  end

  test "SC-002 a goal arrives within five minutes of the configuration", context do
    began = now_ms()
    goal!(context.site, %{"event_name" => "Purchase"})
    webhook!(context, "/goal", events: ["goal.completed"])
    track(context.site, "Purchase")
    assert [%{"type" => "goal.completed"}] = received(context, "/goal", 1)
    assert now_ms() - began < @five_minutes_ms
  end

  test "SC-003 under normal conditions the first attempt succeeds", context do
    webhook!(context, "/first", events: ["goal.completed"])

    1..150
    |> Task.async_stream(&track(context.site, "Signup", visitor: &1),
      max_concurrency: 8,
      timeout: 30_000
    )
    |> Stream.run()

    deliveries = await_log(context, :delivered, 150)
    assert Enum.count(deliveries, &(&1.attempts == 1)) == 150
  end

  test "SC-004 a test verifies a webhook without waiting for an event", context do
    webhook = webhook!(context, "/button", events: ["traffic.drop"], drop_threshold: 1)

    assert {:ok, %{status: 200, state: :delivered}} =
             Webhooks.send_test(context.owner, context.site.id, webhook.id, "traffic.drop")

    assert [%{"type" => "traffic.drop"}] = received(context, "/button", 1)
  end

  test "SC-005 a POST follows its event within 30 seconds", context do
    webhook!(context, "/latency", events: ["goal.completed"])

    times_ms =
      for n <- 1..50 do
        began = now_ms()
        track(context.site, "Signup", visitor: n)
        %{at_ms: at_ms} = context.receiver |> HttpReceiver.await("/latency", n) |> List.last()
        at_ms - began
      end

    IO.puts("    from the visitor's request to the receiver: median #{Enum.at(Enum.sort(times_ms), 25)} ms")
    assert Enum.max(times_ms) < 30_000
  end

  test "SC-006 a failing delivery is retried three times and then failed", context do
    webhook!(context, "/failing", events: ["goal.completed"])
    HttpReceiver.script(context.receiver, "/failing", [500])
    track(context.site, "Signup")

    assert [%{attempts: 4, last_status: 500}] = await_log(context, :failed, 1)
    assert settled_count(context, "/failing") == 4
  end

  defp now_ms, do: System.system_time(:millisecond)
end
