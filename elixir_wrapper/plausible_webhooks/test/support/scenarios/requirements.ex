defmodule Plausible.Webhooks.Scenarios.Requirements do
  @moduledoc false
  # The functional requirements of the specification.

  use Plausible.Webhooks.Scenarios.World,
    webhooks_per_site_max: 3,
    retry_delays_ms: [100, 300, 900],
    jitter_percent: 0

  alias Plausible.Webhooks.JsonSchema
  alias Plausible.Webhooks.Test.Peer

  scenario "FR-001 a site has several webhooks and each gets its events", context do
    goal!(context, %{event_name: "Signup"})
    for path <- ["/a", "/b", "/c"], do: webhook!(context, path, events: ["goal.completed"])
    track(context, "Signup")
    for path <- ["/a", "/b", "/c"], do: assert([_body] = bodies(context, path, 1))

    attributes = %{url: "https://example.com", events: ["goal.completed"]}

    assert {:error, %{reason: :limit_reached}} =
             Webhooks.create_webhook(context.instance, "owner", 1, attributes)
  end

  scenario "FR-002 a spike that the host's notifier finds reaches webhooks that follow it",
           context do
    webhook!(context, "/follows", events: ["traffic.spike"], spike_threshold: :notifier)
    webhook!(context, "/own", events: ["traffic.spike"], spike_threshold: 1)
    sources = [%{name: "Hacker News", visitors: 10}]
    change = %{current_visitors: 10, threshold: 10, sources: sources}

    assert :ok = Webhooks.traffic_change(context.instance, :spike, 1, change)
    assert [%{"type" => "traffic.spike", "data" => data}] = bodies(context, "/follows", 1)
    assert %{"current_visitors" => 10, "threshold" => 10} = data
    assert data["top_sources"] == [%{"name" => "Hacker News", "visitors" => 10}]

    # A threshold of one's own does not follow the notifier, and the other way round.
    assert settled(context, "/own") == 0
    visits!(context, 20)
    assert %{fired: 1} = evaluate!(context)
    bodies(context, "/own", 1)
    assert settled(context, "/follows") == 1
  end

  scenario "FR-003 a drop that the host's notifier finds reaches webhooks that follow it",
           context do
    webhook!(context, "/follows", events: ["traffic.drop"], drop_threshold: :notifier)
    change = %{current_visitors: 4, threshold: 5}
    assert :ok = Webhooks.traffic_change(context.instance, :drop, 1, change)
    assert [%{"type" => "traffic.drop", "data" => data}] = bodies(context, "/follows", 1)
    assert %{"current_visitors" => 4, "threshold" => 5} = data
  end

  scenario "FR-004 goals of every kind are sent; events that complete none are not", context do
    goal!(context, %{event_name: "Signup", custom_props: %{"plan" => "growth"}})
    goal!(context, %{page_path: "/thanks"})
    goal!(context, %{page_path: "/post/*", scroll_threshold: 50})
    webhook!(context, "/goals", events: ["goal.completed"])

    track(context, "signup", props: %{"plan" => "growth"})
    track(context, "Signup", props: %{"plan" => "starter"})
    track(context, "pageview", path: "/thanks/more")
    track(context, "engagement", path: "/post/1", scroll_depth: 49)
    assert track(context, "pageview", domain: "unknown.example", path: "/thanks") == 400
    assert track(context, "pageview", domain: "other.example", path: "/thanks") == 202

    track(context, "Signup", props: %{"plan" => "growth", "n" => "1"})
    track(context, "pageview", path: "/thanks")
    track(context, "engagement", path: "/post/1", scroll_depth: 50)

    kinds = for body <- bodies(context, "/goals", 3), do: body["data"]["goal"]["type"]
    assert Enum.sort(kinds) == ["event", "page", "scroll"]
    assert settled(context, "/goals") == 3
  end

  scenario "FR-005 each type is a POST of JSON that its schema describes", context do
    goal!(context, %{event_name: "Signup"})
    events = ["goal.completed", "traffic.spike", "traffic.drop", "traffic.resolved"]
    thresholds = [spike_threshold: 10, drop_threshold: 1_000]
    webhook = webhook!(context, "/json", [events: events] ++ thresholds)

    track(context, "Signup", props: %{"quote" => ~s("é\u0001 \u2028</script>)})
    now_ms = System.system_time(:millisecond)
    visits!(context, 12, now_ms - 1_000)
    assert %{fired: 2} = evaluate!(context, now_ms)
    Demo.Host.forget_visitors(context.host, 1)
    evaluate!(context, now_ms + 60_000)
    {:ok, _} = Webhooks.send_test(context.instance, "owner", 1, webhook.id, "webhook.test")

    requests = posts(context, "/json", 5)

    for request <- requests do
      assert request.method == "POST"
      assert request.headers["content-type"] == "application/json"
      assert request.headers["user-agent"] =~ ~r"^Plausible-Webhooks/\d"
      assert JsonSchema.errors(decode(request.body)["type"], request.body) == []
      for personal <- ["127.0.0.1", "visitor 1"], do: refute(request.body =~ personal)
    end

    types = for request <- requests, do: decode(request.body)["type"]
    assert Enum.sort(types) == Enum.sort(["webhook.test" | events])
  end

  scenario "FR-006 a third-party library verifies the signature", context do
    goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/signed", events: ["goal.completed"])
    [key] = secrets(context, webhook)
    track_many(context, "Signup", 1..20, &[props: %{"text" => "é😀 #{&1}"}])

    requests = posts(context, "/signed", 20)
    messages = for request <- requests, do: Peer.message(request, key)

    with {output, status} <- Peer.run("verify", messages, context.tmp_dir) do
      assert {output, status} == {"20 passed, 0 failed\n", 0}

      forged =
        for request <- requests, do: Peer.message(%{request | body: request.body <> " "}, key)

      assert {"0 passed, 20 failed\n", 1} = Peer.run("verify", forged, context.tmp_dir)
    end
  end

  scenario "FR-007 each webhook chooses its event types and can be disabled", context do
    goal!(context, %{event_name: "Signup"})
    goals = webhook!(context, "/goals", events: ["goal.completed"])
    webhook!(context, "/traffic", events: ["traffic.spike"], spike_threshold: 10)
    visits!(context, 12)
    track(context, "Signup")
    evaluate!(context)
    assert [%{"type" => "goal.completed"}] = bodies(context, "/goals", 1)
    assert [%{"type" => "traffic.spike"}] = bodies(context, "/traffic", 1)

    {:ok, _webhook} = Webhooks.disable_webhook(context.instance, "owner", 1, goals.id)
    track(context, "Signup")
    assert settled(context, "/goals") == 1

    {:ok, _webhook} = Webhooks.enable_webhook(context.instance, "owner", 1, goals.id)
    track(context, "Signup")
    bodies(context, "/goals", 2)
  end

  scenario "FR-008 a URL is checked before it is saved, also when it is changed", context do
    webhook = webhook!(context, "/fine", events: ["goal.completed"])

    for url <- ["nonsense", "https://", "gopher://example.com", "https://example.com:25/"] do
      assert {:error, %{reason: {:invalid, %{url: _why}}}} =
               Webhooks.update_webhook(context.instance, "owner", 1, webhook.id, %{url: url})
    end

    {:ok, unchanged} = Webhooks.get_webhook(context.instance, "owner", 1, webhook.id)
    assert unchanged.url == webhook.url
  end

  scenario "FR-009 a test sends a sample, a limited number of times a minute", context do
    webhook = webhook!(context, "/test", events: ["goal.completed"])
    test = fn -> Webhooks.send_test(context.instance, "owner", 1, webhook.id, "webhook.test") end

    # A minute of the limiter may end in between.
    results = for _ <- 1..21, do: test.()
    {sent, refused} = Enum.split_with(results, &match?({:ok, %{status: 200}}, &1))
    assert length(sent) in 10..20

    for result <- refused,
        do: assert({:error, %{reason: {:rate_limited, ms}}} = result) && assert(ms in 1..60_000)

    assert [%{"data" => %{"message" => message}} | _] = bodies(context, "/test", length(sent))
    assert message =~ "example.com"
  end

  scenario "FR-010 the waits between the attempts of a delivery grow", context do
    goal!(context, %{event_name: "Signup"})
    webhook!(context, "/retry", events: ["goal.completed"])
    HttpReceiver.script(context.receiver, "/retry", [503])
    track(context, "Signup")

    requests = posts(context, "/retry", 4)
    times = Enum.map(requests, & &1.at_ms)
    waits = Enum.zip_with(tl(times), times, &(&1 - &2))
    for {wait, least} <- Enum.zip(waits, [95, 295, 895]), do: assert(wait >= least)

    # It is the same message, which each attempt signs anew.
    assert MapSet.size(HttpReceiver.ids(context.receiver, "/retry")) == 1
  end

  scenario "FR-011 every attempt and its outcome are in the log", context do
    goal = goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/log", events: ["goal.completed"])
    answers = [{:then_close, {503, [], "not now"}}, :close, 204]
    HttpReceiver.script(context.receiver, "/log", answers)
    track(context, "Signup")

    [delivery] = await_log(context, :delivered, 1)
    assert %{type: "goal.completed", attempts: 3, last_status: 204} = delivery
    assert {delivery.webhook_id, delivery.goal_id} == {webhook.id, goal.id}

    {:ok, full} = Webhooks.delivery(context.instance, "owner", 1, delivery.id)
    [request | _again] = posts(context, "/log", 3)
    assert full.body == request.body

    {:ok, [one, two, three]} = Webhooks.attempts(context.instance, "owner", 1, delivery.id)
    assert %{status: 503, response_body: "not now", error: :http_status} = one
    assert %{status: nil, error: error} = two
    assert error in [:connection_reset, :protocol_error]
    assert %{status: 204, error: nil, state: :delivered, remote_ip: "127.0.0.1"} = three
    for attempt <- [one, two, three], do: assert(attempt.total_us > 0)
  end

  scenario "FR-012 every part of a webhook can be changed", context do
    goal = goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/old", events: ["goal.completed"])

    {:ok, changed} =
      Webhooks.update_webhook(context.instance, "owner", 1, webhook.id, %{
        "name" => "Data warehouse",
        "url" => url(context, "/new"),
        "events" => ["goal.completed", "traffic.drop"],
        "goals" => [goal.id],
        "drop_threshold" => "20",
        "headers" => %{"authorization" => "Bearer token"}
      })

    assert {:ok, ^changed} = Webhooks.get_webhook(context.instance, "owner", 1, webhook.id)
    assert %{name: "Data warehouse", drop_threshold: 20, goals: [_]} = changed

    HttpReceiver.secrets(context.receiver, "/new", secrets(context, webhook))
    track(context, "Signup")
    [request] = posts(context, "/new", 1)
    assert request.headers["authorization"] == "Bearer token"
  end

  scenario "FR-013 a deleted webhook leaves nothing in the log", context do
    goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/deleted", events: ["goal.completed"])
    other = webhook!(context, "/other", events: ["goal.completed"])
    track(context, "Signup")
    await_log(context, :delivered, 2)

    :ok = Webhooks.delete_webhook(context.instance, "owner", 1, webhook.id)
    assert [%{webhook_id: left}] = log(context)
    assert left == other.id
    [gone, other] = for path <- ["/deleted", "/other"], do: bodies(context, path, 1)
    assert gone == other
  end

  scenario "FR-014 only users whom the host allows manage or read the webhooks of a site",
           context do
    webhook = webhook!(context, "/mine?token=s3cr3t", events: ["goal.completed"])
    assert {:ok, [_]} = Webhooks.list_webhooks(context.instance, "owner", 1)

    # A viewer reads, without what may hold a secret, and changes nothing.
    assert {:ok, [seen]} = Webhooks.list_webhooks(context.instance, "viewer", 1)
    refute seen.url =~ "s3cr3t"
    for answer <- changes(context, "viewer", 1, webhook.id), do: assert_forbidden(answer)

    for user <- ["other", "stranger", nil, %{id: nil}],
        answer <- reads(context, user, 1, webhook.id) ++ changes(context, user, 1, webhook.id),
        do: assert_forbidden(answer)

    # Who manages another site does not find this webhook there.
    for answer <-
          reads(context, "other", 2, webhook.id) ++ changes(context, "other", 2, webhook.id) do
      assert match?({:error, %{reason: :not_found}}, answer) or
               answer in [{:ok, []}, {:ok, %{entries: [], next: nil}}]
    end

    # The host is asked on every call.
    Demo.Host.update_site(context.host, 1, &%{&1 | owners: []})
    assert_forbidden(Webhooks.list_webhooks(context.instance, "owner", 1))
  end

  defp assert_forbidden(answer), do: assert({:error, %{reason: :forbidden}} = answer)

  defp reads(%{instance: instance}, user, site_id, id) do
    [
      Webhooks.list_webhooks(instance, user, site_id),
      Webhooks.get_webhook(instance, user, site_id, id),
      Webhooks.deliveries(instance, user, site_id, %{}, %{})
    ]
  end

  defp changes(%{instance: instance}, user, site_id, id) do
    [
      Webhooks.update_webhook(instance, user, site_id, id, %{name: "stolen"}),
      Webhooks.delete_webhook(instance, user, site_id, id),
      Webhooks.disable_webhook(instance, user, site_id, id),
      Webhooks.enable_webhook(instance, user, site_id, id),
      Webhooks.reveal_secret(instance, user, site_id, id),
      Webhooks.rotate_secret(instance, user, site_id, id, 0),
      Webhooks.send_test(instance, user, site_id, id, "webhook.test"),
      Webhooks.redeliver(instance, user, site_id, "msg_1"),
      Webhooks.recover(instance, user, site_id, id, DateTime.utc_now())
    ]
  end
end
