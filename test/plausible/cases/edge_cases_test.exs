defmodule Plausible.Webhooks.RealTree.EdgeCasesTest do
  # The edge cases of the specification, in a real Plausible.
  use Plausible.Webhooks.Test.PlausibleCase, async: false

  setup context do
    goal!(context.site, %{"event_name" => "Signup"})
    :ok
  end

  test "Edge 1 an endpoint that is unreachable for a while gets a retry", context do
    webhook!(context, "/down", events: ["goal.completed"])
    HttpReceiver.stop_listening(context.receiver)
    track(context.site, "Signup")

    eventually(fn -> match?([%{attempts: n}] when n >= 2, log(context)) end)
    [%{id: id, last_error: "connection_refused"}] = log(context)

    back = receiver!(port: context.receiver.port)
    [request] = HttpReceiver.await(back, "/down", 1)
    assert request.headers["webhook-id"] == id
    await_log(context, :delivered, 1)
  end

  test "Edge 2 a malformed or unsafe URL is refused when it is saved", context do
    for url <- [
          "",
          "example.com/hook",
          "https://",
          "ftp://example.com/",
          "javascript:alert(1)",
          "https://exa mple.com/",
          "https://user:secret@example.com/",
          "https://example.com:99999/",
          "https://169.254.169.254/latest/meta-data"
        ] do
      attributes = %{"url" => url, "events" => ["goal.completed"]}
      assert {:error, _reason} = Webhooks.create_webhook(context.owner, context.site.id, attributes)
    end

    assert {:ok, []} = Webhooks.list_webhooks(context.owner, context.site.id)
  end

  test "Edge 3 a response other than 2xx is in the log with each attempt", context do
    webhook!(context, "/teapot", events: ["goal.completed"])
    answer = {418, [{"content-type", "text/plain"}], "short and stout"}
    HttpReceiver.script(context.receiver, "/teapot", [answer])
    track(context.site, "Signup")

    [delivery] = await_log(context, :failed, 1)
    assert %{last_status: 418, reason: "http_status", attempts: 4} = delivery
    {:ok, attempts} = Webhooks.attempts(context.owner, context.site.id, delivery.id)
    assert Enum.map(attempts, & &1.number) == [1, 2, 3, 4]

    for attempt <- attempts,
        do: assert(%{status: 418, response_body: "short and stout"} = attempt)
  end

  test "Edge 4 a flood of events keeps to the rate limit of the endpoint", context do
    webhook!(context, "/flood", events: ["goal.completed"])

    1..200
    |> Task.async_stream(&track(context.site, "Signup", visitor: &1),
      max_concurrency: 8,
      timeout: 30_000
    )
    |> Stream.run()

    requests = HttpReceiver.await(context.receiver, "/flood", 200, 60_000)
    times = Enum.map(requests, & &1.at_ms)

    # The lane sends 50 per second and can save up at most 50, so any 100 take a second.
    for {first, last} <- Enum.zip(times, Enum.drop(times, 100)), do: assert(last - first >= 900)
    assert length(Enum.uniq_by(requests, & &1.headers["webhook-id"])) == 200
  end

  test "Edge 5 a compromised secret is rotated and nothing else changes", context do
    webhook = webhook!(context, "/secret", events: ["goal.completed"], name: "CRM")
    {:ok, [%{key: stolen}]} = Webhooks.reveal_secret(context.owner, context.site.id, webhook.id)

    {:ok, _webhook} = Webhooks.rotate_secret(context.owner, context.site.id, webhook.id, 3_600_000)

    {:ok, [%{key: fresh}, %{key: ^stolen}]} =
      Webhooks.reveal_secret(context.owner, context.site.id, webhook.id)

    track(context.site, "Signup")
    [both] = HttpReceiver.await(context.receiver, "/secret", 1)
    assert HttpReceiver.verify(both, [stolen])
    assert HttpReceiver.verify(both, [fresh])

    {:ok, rotated} = Webhooks.rotate_secret(context.owner, context.site.id, webhook.id, 0)
    {:ok, [%{key: last}]} = Webhooks.reveal_secret(context.owner, context.site.id, webhook.id)
    track(context.site, "Signup")
    [_both, one] = HttpReceiver.await(context.receiver, "/secret", 2)
    assert HttpReceiver.verify(one, [last])
    refute HttpReceiver.verify(one, [stolen, fresh])

    unchanged = [:id, :name, :url, :events, :goals, :headers, :enabled]
    assert Map.take(rotated, unchanged) == Map.take(webhook, unchanged)
  end

  test "Edge 6 failed deliveries are in the log and can be sent again, one or all", context do
    webhook = webhook!(context, "/later", events: ["goal.completed"])
    HttpReceiver.script(context.receiver, "/later", [500])
    since = DateTime.utc_now()
    for visitor <- 1..3, do: track(context.site, "Signup", visitor: visitor)
    [one | _others] = await_log(context, :failed, 3)

    HttpReceiver.script(context.receiver, "/later", [200])
    assert :ok = Webhooks.redeliver(context.owner, context.site.id, one.id)
    await_log(context, :failed, 2)

    assert {:ok, %{count: 2, more?: false}} =
             Webhooks.recover(context.owner, context.site.id, webhook.id, since)

    await_log(context, :delivered, 3)
    assert MapSet.size(HttpReceiver.ids(context.receiver, "/later")) == 3
    assert HttpReceiver.count(context.receiver, "/later") == 3 * 4 + 3
  end
end
