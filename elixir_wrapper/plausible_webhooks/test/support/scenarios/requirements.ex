defmodule Plausible.Webhooks.Scenarios.Requirements do
  @moduledoc false
  # The functional requirements of the specification.

  use Plausible.Webhooks.Test.SharedTests
  use Plausible.Webhooks.Scenarios.World

  alias Plausible.Webhooks.JsonSchema
  alias Plausible.Webhooks.Test.Peer

  shared_test "FR-001 a site has several webhooks and each gets its events", context do
    goal!(context, %{event_name: "Signup"})
    for path <- ["/a", "/b", "/c"], do: webhook!(context, path, events: ["goal.completed"])
    track(context, "Signup")
    for path <- ["/a", "/b", "/c"], do: assert([_body] = bodies(context, path, 1))

    # The default limit is 20.
    attributes = %{url: url(context, "/more"), events: ["goal.completed"]}
    for _ <- 4..20, do: {:ok, _webhook} = create_webhook(context, attributes)
    assert {:error, %{reason: :limit_reached}} = create_webhook(context, attributes)
  end

  shared_test "FR-002 a spike that the host's notifier finds reaches webhooks that follow it",
              context do
    webhook!(context, "/follows", events: ["traffic.spike"], spike_threshold: :notifier)
    webhook!(context, "/own", events: ["traffic.spike"], spike_threshold: 11)

    assert :ok = context.host.breach!(context, :spike, %{current_visitors: 10, threshold: 10})
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

  shared_test "FR-003 a drop that the host's notifier finds reaches webhooks that follow it",
              context do
    webhook!(context, "/follows", events: ["traffic.drop"], drop_threshold: :notifier)
    assert :ok = context.host.breach!(context, :drop, %{current_visitors: 4, threshold: 5})
    assert [%{"type" => "traffic.drop", "data" => data}] = bodies(context, "/follows", 1)
    assert %{"current_visitors" => 4, "threshold" => 5} = data
  end

  shared_test "FR-004 goals of every kind are sent; events that complete none are not", context do
    props = %{"plan" => "growth"}
    wanted = if context.goal_props?, do: %{custom_props: props}, else: %{}
    goal!(context, Map.put(wanted, :event_name, "Signup"))
    goal!(context, %{page_path: "/thanks"})
    goal!(context, %{page_path: "/post/*", scroll_threshold: 50})
    webhook!(context, "/goals", events: ["goal.completed"])

    track(context, "signup", props: props)
    if context.goal_props?, do: track(context, "Signup", props: %{"plan" => "starter"})
    track(context, "pageview", path: "/thanks/more")
    track(context, "pageview", path: "/post/1")
    track(context, "engagement", path: "/post/1", scroll_depth: 49)
    track(context, "pageview", domain: "unknown.example", path: "/thanks")
    %{site: other} = context.host.other_site!(context)
    assert track(context, "pageview", domain: other.domain, path: "/thanks") == 202

    track(context, "Signup", props: %{"plan" => "growth", "n" => "1"})
    track(context, "pageview", path: "/thanks")
    track(context, "engagement", path: "/post/1", scroll_depth: 50)

    kinds = for body <- bodies(context, "/goals", 3), do: body["data"]["goal"]["type"]
    assert Enum.sort(kinds) == ["event", "page", "scroll"]
    assert settled(context, "/goals") == 3
  end

  shared_test "FR-005 each type is a POST of JSON that its schema describes", context do
    goal!(context, %{event_name: "Signup"})
    events = ["goal.completed", "traffic.spike", "traffic.drop", "traffic.resolved"]
    thresholds = [spike_threshold: 10, drop_threshold: 1_000]
    webhook = webhook!(context, "/json", [events: events] ++ thresholds)

    track(context, "Signup", props: %{"quote" => ~s("é\u0001 \u2028</script>)})
    now_ms = now_ms()
    visits!(context, 12, now_ms - 1_000)
    assert %{fired: 2} = evaluate!(context, now_ms)
    no_visits!(context)
    for minute <- [1, 11], do: evaluate!(context, now_ms + minute * 60_000)
    {:ok, _} = send_test(context, webhook.id, "webhook.test")

    requests = posts(context, "/json", 5)

    for request <- requests do
      assert request.method == "POST"
      assert request.headers["content-type"] == "application/json"
      assert request.headers["user-agent"] =~ ~r"^Plausible-Webhooks/\d"
      assert JsonSchema.errors(decode(request.body)["type"], request.body) == []
      for personal <- context.personal, do: refute(request.body =~ personal)
    end

    types = for request <- requests, do: decode(request.body)["type"]
    assert Enum.sort(types) == Enum.sort(["webhook.test" | events])
  end

  shared_test "FR-006 a third-party library verifies the signature", context do
    goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/signed", events: ["goal.completed"])
    [key] = secrets(context, webhook)
    track_many(context, "Signup", 1..100, &[props: %{"text" => "é😀 #{&1}"}])

    requests = posts(context, "/signed", 100)
    messages = for request <- requests, do: Peer.message(request, key)

    with {output, status} <- Peer.run("verify", messages, context.tmp_dir) do
      assert {output, status} == {"100 passed, 0 failed\n", 0}

      forged =
        for request <- requests, do: Peer.message(%{request | body: request.body <> " "}, key)

      assert {"0 passed, 100 failed\n", 1} = Peer.run("verify", forged, context.tmp_dir)
    end
  end

  shared_test "FR-007 each webhook chooses its event types and can be disabled", context do
    goal!(context, %{event_name: "Signup"})
    goals = webhook!(context, "/goals", events: ["goal.completed"])
    webhook!(context, "/traffic", events: ["traffic.spike"], spike_threshold: 10)
    visits!(context, 12)
    track(context, "Signup")
    evaluate!(context)
    assert [%{"type" => "goal.completed"}] = bodies(context, "/goals", 1)
    assert [%{"type" => "traffic.spike"}] = bodies(context, "/traffic", 1)

    {:ok, _webhook} = disable_webhook(context, goals.id)
    track(context, "Signup")
    assert settled(context, "/goals") == 1

    {:ok, _webhook} = enable_webhook(context, goals.id)
    track(context, "Signup")
    bodies(context, "/goals", 2)
  end

  shared_test "FR-008 a URL is checked before it is saved, also when it is changed", context do
    webhook = webhook!(context, "/fine", events: ["goal.completed"])

    for url <- ["nonsense", "https://", "gopher://example.com", "https://example.com:25/"] do
      assert {:error, %{reason: {:invalid, %{url: _why}}}} =
               update_webhook(context, webhook.id, %{url: url})
    end

    {:ok, unchanged} = get_webhook(context, webhook.id)
    assert unchanged.url == webhook.url
  end

  shared_test "FR-009 a test sends a sample, a limited number of times a minute", context do
    webhook = webhook!(context, "/test", events: ["goal.completed"])
    test = fn -> send_test(context, webhook.id, "webhook.test") end

    # A minute of the limiter may end in between.
    results = for _ <- 1..21, do: test.()
    {sent, refused} = Enum.split_with(results, &match?({:ok, %{status: 200}}, &1))
    assert length(sent) in 10..20

    for result <- refused,
        do: assert({:error, %{reason: {:rate_limited, ms}}} = result) && assert(ms in 1..60_000)

    assert [%{"data" => %{"message" => message}} | _] = bodies(context, "/test", length(sent))
    assert message =~ context.site.domain
  end

  shared_test "FR-010 the waits between the attempts of a delivery grow", context do
    goal!(context, %{event_name: "Signup"})
    webhook!(context, "/retry", events: ["goal.completed"])
    HttpReceiver.script(context.receiver, "/retry", [503])
    track(context, "Signup")

    requests = posts(context, "/retry", 4)
    times = Enum.map(requests, & &1.at_ms)
    waits = Enum.zip_with(tl(times), times, &(&1 - &2))
    for {wait, least} <- Enum.zip(waits, [190, 590, 1_790]), do: assert(wait >= least)

    # It is the same message, which each attempt signs anew.
    assert MapSet.size(HttpReceiver.ids(context.receiver, "/retry")) == 1
  end

  shared_test "FR-011 every attempt and its outcome are in the log", context do
    goal = goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/log", events: ["goal.completed"])
    answers = [{:then_close, {503, [], "not now"}}, :close, 204]
    HttpReceiver.script(context.receiver, "/log", answers)
    track(context, "Signup")

    [delivery] = await_log(context, :delivered, 1)
    assert %{type: "goal.completed", attempts: 3, last_status: 204} = delivery
    assert {delivery.webhook_id, delivery.goal_id} == {webhook.id, goal.id}

    {:ok, full} = delivery(context, delivery.id)
    [request | _again] = posts(context, "/log", 3)
    assert full.body == request.body

    {:ok, [one, two, three]} = attempts(context, delivery.id)
    assert %{status: 503, response_body: "not now", error: :http_status} = one
    assert %{status: nil, error: error} = two
    assert error in [:connection_reset, :protocol_error]
    assert %{status: 204, error: nil, state: :delivered, remote_ip: "127.0.0.1"} = three
    for attempt <- [one, two, three], do: assert(attempt.total_us > 0)
  end

  shared_test "FR-012 every part of a webhook can be changed", context do
    goal = goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/old", events: ["goal.completed"])

    {:ok, changed} =
      update_webhook(context, webhook.id, %{
        "name" => "Data warehouse",
        "url" => url(context, "/new"),
        "events" => ["goal.completed", "traffic.drop"],
        "goals" => [goal.id],
        "drop_threshold" => "20",
        "headers" => %{"authorization" => "Bearer token"}
      })

    assert {:ok, ^changed} = get_webhook(context, webhook.id)
    assert %{name: "Data warehouse", drop_threshold: 20, goals: [_]} = changed

    HttpReceiver.secrets(context.receiver, "/new", secrets(context, webhook))
    track(context, "Signup")
    [request] = posts(context, "/new", 1)
    assert request.headers["authorization"] == "Bearer token"
  end

  shared_test "FR-013 a deleted webhook leaves nothing in the log", context do
    goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/deleted", events: ["goal.completed"])
    other = webhook!(context, "/other", events: ["goal.completed"])
    track(context, "Signup")
    await_log(context, :delivered, 2)

    :ok = delete_webhook(context, webhook.id)
    assert [%{webhook_id: left}] = log(context)
    assert left == other.id
    [gone, other] = for path <- ["/deleted", "/other"], do: bodies(context, path, 1)
    assert gone == other
  end

  shared_test "FR-014 only users whom the host allows manage or read the webhooks of a site",
              context do
    webhook = webhook!(context, "/mine?token=s3cr3t", events: ["goal.completed"])
    %{managers: managers, readers: readers, others: others} = context.host.people!(context)

    for user <- managers do
      assert {:ok, [_webhook]} = list_webhooks(%{context | user: user})
      assert {:ok, _webhook} = update_webhook(%{context | user: user}, webhook.id, %{name: "CRM"})
    end

    # A reader sees nothing that may hold a secret, and changes nothing.
    for user <- readers do
      assert {:ok, [seen]} = list_webhooks(%{context | user: user})
      refute seen.url =~ "s3cr3t"
      for answer <- changes(%{context | user: user}, webhook.id), do: assert_forbidden(answer)
    end

    for user <- others do
      context = %{context | user: user}
      answers = reads(context, webhook.id) ++ changes(context, webhook.id)
      Enum.each(answers, &assert_forbidden/1)
    end

    # A manager of another site does not find this webhook there.
    elsewhere = Map.merge(context, context.host.other_site!(context))

    for answer <- reads(elsewhere, webhook.id) ++ changes(elsewhere, webhook.id) do
      assert match?({:error, %{reason: :not_found}}, answer) or
               answer in [{:ok, []}, {:ok, %{entries: [], next: nil}}]
    end

    # The host is asked on every call.
    dismissed = List.last(managers)
    :ok = context.host.dismiss!(context, dismissed)
    assert_forbidden(list_webhooks(%{context | user: dismissed}))
  end

  defp assert_forbidden(answer), do: assert({:error, %{reason: :forbidden}} = answer)

  defp reads(context, id),
    do: [list_webhooks(context), get_webhook(context, id), deliveries(context, %{}, %{})]

  defp changes(context, id) do
    [
      update_webhook(context, id, %{name: "stolen"}),
      delete_webhook(context, id),
      disable_webhook(context, id),
      enable_webhook(context, id),
      cancel_held(context, id),
      reveal_secret(context, id),
      rotate_secret(context, id, 0),
      send_test(context, id, "webhook.test"),
      redeliver(context, "msg_1"),
      recover(context, id, DateTime.utc_now())
    ]
  end
end
