defmodule Plausible.Webhooks.Scenarios.EdgeCases do
  @moduledoc false
  # The edge cases of the specification.

  use Plausible.Webhooks.Test.SharedTests
  use Plausible.Webhooks.Scenarios.World

  shared_test "Edge 1 an endpoint that is unreachable for a while gets a retry", context do
    goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/down", events: ["goal.completed"])
    HttpReceiver.stop_listening(context.receiver)
    track(context, "Signup")

    eventually(fn -> match?([%{attempts: n}] when n >= 1, log(context)) end)
    [%{id: id, last_error: "connection_refused"}] = log(context)

    # The endpoint returns at the same address.
    port = context.receiver.port
    child = Supervisor.child_spec({HttpReceiver, port: port}, id: :returned)
    receiver = HttpReceiver.of(ExUnit.Callbacks.start_supervised!(child))
    HttpReceiver.secrets(receiver, "/down", secrets(context, webhook))
    [request] = HttpReceiver.await(receiver, "/down", 1)
    assert request.headers["webhook-id"] == id
    await_log(context, :delivered, 1)
  end

  shared_test "Edge 2 a malformed or unsafe URL is refused when it is saved", context do
    for url <- [
          "",
          "example.com/hook",
          "//example.com",
          "https://",
          "https:///hook",
          "ftp://example.com/",
          "javascript:alert(1)",
          "https://exa mple.com/",
          "https://user:secret@example.com/",
          "https://example.com:99999/",
          "https://example.com:22/",
          "https://[::1",
          "https://169.254.169.254/latest/meta-data",
          "https://" <> String.duplicate("a", 2_100) <> ".example.com"
        ] do
      attributes = %{"url" => url, "events" => ["goal.completed"]}

      assert {:error, %{reason: {:invalid, %{url: why}}}} = create_webhook(context, attributes)

      assert is_binary(why)
    end

    assert {:ok, []} = list_webhooks(context)
  end

  shared_test "Edge 3 a response other than 2xx is in the log with each attempt", context do
    goal!(context, %{event_name: "Signup"})
    webhook!(context, "/teapot", events: ["goal.completed"])
    answer = {418, [{"content-type", "text/plain"}], "short and stout"}
    HttpReceiver.script(context.receiver, "/teapot", [answer])
    track(context, "Signup")

    [delivery] = await_log(context, :failed, 1)
    assert %{last_status: 418, reason: "http_status", attempts: 4} = delivery
    assert [^delivery] = log(context, %{states: [:failed], status_class: 4})

    {:ok, attempts} = attempts(context, delivery.id)
    assert Enum.map(attempts, & &1.number) == [1, 2, 3, 4]

    for attempt <- attempts do
      assert %{status: 418, response_body: "short and stout"} = attempt
      assert attempt.response_headers =~ ~r/^content-type: text\/plain$/mi
    end
  end

  shared_test "Edge 4 a flood of events keeps to the rate limit of the endpoint", context do
    goal!(context, %{event_name: "Signup"})
    webhook!(context, "/flood", events: ["goal.completed"])
    track_many(context, "Signup", 1..150)
    posts(context, "/flood", 150)

    started_ms =
      for delivery <- await_log(context, :delivered, 150) do
        {:ok, [attempt]} = attempts(context, delivery.id)
        attempt.started_at_ms
      end

    # The lane sends 50 a second and saves up at most 50, so any 100 attempts take a second.
    sorted = Enum.sort(started_ms)
    for {first, last} <- Enum.zip(sorted, Enum.drop(sorted, 100)), do: assert(last - first >= 900)
    assert MapSet.size(HttpReceiver.ids(context.receiver, "/flood")) == 150
  end

  shared_test "Edge 5 a compromised secret is rotated and nothing else changes", context do
    goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/secret", events: ["goal.completed"], name: "CRM")
    [stolen] = secrets(context, webhook)
    rotate = &rotate_secret(context, webhook.id, &1)

    # During an overlap both secrets sign, so that receivers change when they can.
    {:ok, _webhook} = rotate.(3_600_000)
    [fresh, ^stolen] = secrets(context, webhook)
    track(context, "Signup")
    [both] = posts(context, "/secret", 1)
    assert HttpReceiver.verify(both, [stolen])
    assert HttpReceiver.verify(both, [fresh])

    # Without an overlap the stolen secret signs nothing more.
    {:ok, rotated} = rotate.(0)
    [last] = secrets(context, webhook)
    track(context, "Signup")
    [_both, one] = HttpReceiver.await(context.receiver, "/secret", 2)
    assert HttpReceiver.verify(one, [last])
    refute HttpReceiver.verify(one, [stolen, fresh])

    unchanged = [:id, :name, :url, :events, :goals, :headers, :enabled]
    assert Map.take(rotated, unchanged) == Map.take(webhook, unchanged)
  end

  shared_test "Edge 6 failed deliveries are in the log and can be sent again, one or all",
              context do
    goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/later", events: ["goal.completed"])
    HttpReceiver.script(context.receiver, "/later", [500])
    since = now_ms()
    track_many(context, "Signup", 1..3)
    [one | _others] = await_log(context, :failed, 3)

    HttpReceiver.script(context.receiver, "/later", [200])
    assert :ok = redeliver(context, one.id)
    await_log(context, :failed, 2)

    assert {:ok, %{count: 2, more?: false}} = recover(context, webhook.id, since)

    await_log(context, :delivered, 3)

    # All attempts of a delivery have one id, by which a receiver recognises it.
    assert MapSet.size(HttpReceiver.ids(context.receiver, "/later")) == 3
    assert length(posts(context, "/later", 15)) == 3 * 4 + 3
  end
end
