defmodule Plausible.Webhooks.Plausible.EdgeCasesTest do
  # The edge cases of the specification, in Plausible as its adopter has it.
  use Plausible.Webhooks.Test.PlausibleCase, async: false

  setup_all do
    plausible!(
      options: [retry_delays_ms: [200, 600, 1_800], jitter_percent: 0, lane_rate_per_s: 40]
    )
  end

  test "Edge 1 an endpoint that cannot be reached for a while is tried again", context do
    goal!(context.site, %{"event_name" => "Signup"})
    webhook!(context, "/down", events: ["goal.completed"])
    HttpReceiver.stop_listening(context.receiver)
    track(context.site, "Signup")

    eventually(fn -> match?([%{attempts: n}] when n >= 2, log(context)) end)
    [%{id: id, last_error: "connection_refused"}] = log(context)

    # Back, at the same address.
    port = context.receiver.port
    spec = Supervisor.child_spec({HttpReceiver, port: port}, id: :again)
    back = HttpReceiver.of(start_supervised!(spec))
    [request] = HttpReceiver.await(back, "/down", 1)
    assert request.headers["webhook-id"] == id
    await_log(context, :delivered, 1)
  end

  test "Edge 2 a URL that is none, or that leads nowhere, is refused when it is saved", context do
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

      assert {:error, %{reason: {:invalid, %{url: why}}}} =
               Webhooks.create_webhook(context.owner, context.site.id, attributes)

      assert is_binary(why)
    end

    assert {:ok, []} = Webhooks.list_webhooks(context.owner, context.site.id)
  end

  test "Edge 3 an answer that is no 2xx is on record, and to be seen", context do
    goal!(context.site, %{"event_name" => "Signup"})
    webhook!(context, "/teapot", events: ["goal.completed"])
    answer = {418, [{"content-type", "text/plain"}], "short and stout"}
    HttpReceiver.script(context.receiver, "/teapot", [answer])
    track(context.site, "Signup")

    [delivery] = await_log(context, :failed, 1)
    assert %{last_status: 418, reason: "http_status", attempts: 4} = delivery
    assert [^delivery] = log(context, %{states: [:failed], status_class: 4})

    {:ok, attempts} = Webhooks.attempts(context.owner, context.site.id, delivery.id)
    assert Enum.map(attempts, & &1.number) == [1, 2, 3, 4]

    for attempt <- attempts do
      assert %{status: 418, response_body: "short and stout"} = attempt
      assert attempt.response_content_type == "text/plain"
    end
  end

  test "Edge 4 a flood reaches the endpoint no faster than it is let", context do
    goal!(context.site, %{"event_name" => "Signup"})
    webhook!(context, "/flood", events: ["goal.completed"])

    1..160
    |> Task.async_stream(&track(context.site, "Signup", visitor: &1), max_concurrency: 8)
    |> Stream.run()

    requests = HttpReceiver.await(context.receiver, "/flood", 160, 20_000)
    times = Enum.map(requests, & &1.at_ms)

    # 40 per second: any 80 of them take a second at least, whatever was saved up before.
    for {first, last} <- Enum.zip(times, Enum.drop(times, 80)), do: assert(last - first >= 900)
    assert length(Enum.uniq_by(requests, & &1.headers["webhook-id"])) == 160
  end

  test "Edge 5 a compromised secret is replaced, everything else stays", context do
    goal!(context.site, %{"event_name" => "Signup"})
    webhook = webhook!(context, "/secret", events: ["goal.completed"], name: "CRM")
    {:ok, [%{key: stolen}]} = Webhooks.reveal_secret(context.owner, context.site.id, webhook.id)

    # With an overlap both sign: receivers change over when they like.
    {:ok, _webhook} =
      Webhooks.rotate_secret(context.owner, context.site.id, webhook.id, 3_600_000)

    {:ok, [%{key: fresh}, %{key: ^stolen}]} =
      Webhooks.reveal_secret(context.owner, context.site.id, webhook.id)

    track(context.site, "Signup")
    [both] = HttpReceiver.await(context.receiver, "/secret", 1)
    assert HttpReceiver.verify(both, [stolen])
    assert HttpReceiver.verify(both, [fresh])

    # Without one the stolen secret is worth nothing from now on.
    {:ok, rotated} = Webhooks.rotate_secret(context.owner, context.site.id, webhook.id, 0)
    {:ok, [%{key: last}]} = Webhooks.reveal_secret(context.owner, context.site.id, webhook.id)
    track(context.site, "Signup")
    [_both, one] = HttpReceiver.await(context.receiver, "/secret", 2)
    assert HttpReceiver.verify(one, [last])
    refute HttpReceiver.verify(one, [stolen, fresh])

    unchanged = [:id, :name, :url, :events, :goals, :headers, :enabled]
    assert Map.take(rotated, unchanged) == Map.take(webhook, unchanged)
  end

  test "Edge 6 what failed is in the log, and is sent again one by one or all at once", context do
    goal!(context.site, %{"event_name" => "Signup"})
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

    # The same ids, over all attempts: a receiver can tell.
    assert MapSet.size(HttpReceiver.ids(context.receiver, "/later")) == 3
    assert HttpReceiver.count(context.receiver, "/later") == 3 * 4 + 3
  end
end
