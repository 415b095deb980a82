defmodule Plausible.Webhooks.RealTree.RequirementsTest do
  # The functional requirements of the specification, in a real Plausible.
  use Plausible.Webhooks.Test.PlausibleCase, async: false

  alias Plausible.Webhooks.JsonSchema
  alias Plausible.Webhooks.Test.Peer

  setup context do
    goal!(context.site, %{"event_name" => "Signup"})
    :ok
  end

  test "FR-001 a site has several webhooks and each gets its events", context do
    for path <- ["/a", "/b", "/c"], do: webhook!(context, path, events: ["goal.completed"])
    track(context.site, "Signup")
    for path <- ["/a", "/b", "/c"], do: assert([_body] = received(context, path, 1))
  end

  test "FR-002 a spike that Plausible's notifier finds reaches webhooks that follow it", context do
    notification!(context.site, :spike, 10)
    webhook!(context, "/follows", events: ["traffic.spike"], spike_threshold: :notifier)
    webhook!(context, "/own", events: ["traffic.spike"], spike_threshold: 11)
    visits!(context.site, 10, NaiveDateTime.utc_now(), referrer_source: "Hacker News")

    notify!()
    assert [%{"type" => "traffic.spike", "data" => data}] = received(context, "/follows", 1)
    assert {data["current_visitors"], data["threshold"]} == {10, 10}
    assert data["top_sources"] == [%{"name" => "Hacker News", "visitors" => 10}]
    assert_receive {:delivered_email, %{subject: subject}}
    assert subject =~ ~r/spike/i

    notify!()
    evaluate!()
    assert settled_count(context, "/follows") == 1
    assert HttpReceiver.count(context.receiver, "/own") == 0
  end

  test "FR-003 a drop that Plausible's notifier finds reaches webhooks that follow it", context do
    notification!(context.site, :drop, 5)
    webhook!(context, "/follows", events: ["traffic.drop"], drop_threshold: :notifier)
    visits!(context.site, 4)

    notify!()
    assert [%{"type" => "traffic.drop", "data" => data}] = received(context, "/follows", 1)
    assert {data["current_visitors"], data["threshold"]} == {4, 5}
    assert_receive {:delivered_email, %{subject: subject}}
    assert subject =~ ~r/drop/i
  end

  test "FR-004 goals of every kind are delivered; events that complete none are not", context do
    plan = %{"event_name" => "Trial", "custom_props" => %{"plan" => "growth"}}
    goal!(context.site, plan)
    goal!(context.site, %{"page_path" => "/thanks"})
    goal!(context.site, %{"page_path" => "/post/*", "scroll_threshold" => 50})
    webhook!(context, "/goals", events: ["goal.completed"])

    # None of these completes a goal.
    track(context.site, "trial", props: %{"plan" => "growth"})
    track(context.site, "Trial", props: %{"plan" => "starter"})
    track(context.site, "pageview", path: "/thanks/more")
    track(context.site, "pageview", path: "/post/1")
    track(context.site, "engagement", path: "/post/1", scroll_depth: 49)
    # Plausible drops an engagement of a visitor who has no session.
    track(context.site, "engagement", path: "/post/1", scroll_depth: 90, visitor: 200)
    assert log(context) == []

    track(context.site, "Trial", props: %{"plan" => "growth", "n" => "1"})
    track(context.site, "pageview", path: "/thanks")
    track(context.site, "engagement", path: "/post/1", scroll_depth: 50)

    kinds = for body <- received(context, "/goals", 3), do: body["data"]["goal"]["type"]
    assert Enum.sort(kinds) == ["event", "page", "scroll"]
    assert settled_count(context, "/goals") == 3
  end

  test "FR-005 each type is a POST of JSON that its schema describes", context do
    events = ["goal.completed", "traffic.spike", "traffic.drop", "traffic.resolved"]

    webhook =
      webhook!(context, "/json", events: events, spike_threshold: 10, drop_threshold: 1_000)

    track(context.site, "Signup", props: %{"quote" => ~s("é \u2028</script>)})
    visits!(context.site, 12)
    now_ms = System.system_time(:millisecond)
    assert %{fired: 2} = evaluate!(now_ms)
    no_visits!(context.site)
    evaluate!(now_ms + 60_000)
    {:ok, _} = Webhooks.send_test(context.owner, context.site.id, webhook.id, "webhook.test")

    requests = HttpReceiver.await(context.receiver, "/json", 5)

    for request <- requests do
      assert request.method == "POST"
      assert request.headers["content-type"] == "application/json"
      assert request.headers["user-agent"] =~ ~r"^Plausible-Webhooks/\d"
      assert JsonSchema.errors(Jason.decode!(request.body)["type"], request.body) == []
      for personal <- ["82.34.", "Mozilla"], do: refute(request.body =~ personal)
    end

    types = for request <- requests, do: Jason.decode!(request.body)["type"]
    assert Enum.sort(types) == Enum.sort(["webhook.test" | events])
  end

  @tag :tmp_dir
  test "FR-006 the npm package standardwebhooks verifies what arrives", context do
    webhook = webhook!(context, "/signed", events: ["goal.completed"])
    {:ok, [%{key: key}]} = Webhooks.reveal_secret(context.owner, context.site.id, webhook.id)
    for n <- 1..100, do: track(context.site, "Signup", props: %{"text" => "é😀 #{n}"}, visitor: n)

    requests = HttpReceiver.await(context.receiver, "/signed", 100)
    messages = for request <- requests, do: Peer.message(request, key)
    assert {"100 passed, 0 failed\n", 0} = Peer.run("verify", messages, context.tmp_dir)

    forged = for request <- requests, do: Peer.message(%{request | body: request.body <> " "}, key)
    assert {"0 passed, 100 failed\n", 1} = Peer.run("verify", forged, context.tmp_dir)
  end

  test "FR-007 each webhook chooses its types and can be switched off", context do
    goals = webhook!(context, "/goals", events: ["goal.completed"])
    webhook!(context, "/traffic", events: ["traffic.spike"], spike_threshold: 10)
    visits!(context.site, 12)
    track(context.site, "Signup")
    evaluate!()
    assert [%{"type" => "goal.completed"}] = received(context, "/goals", 1)
    assert [%{"type" => "traffic.spike"}] = received(context, "/traffic", 1)

    {:ok, _off} = Webhooks.disable_webhook(context.owner, context.site.id, goals.id)
    track(context.site, "Signup")
    assert settled_count(context, "/goals") == 1

    {:ok, _on} = Webhooks.enable_webhook(context.owner, context.site.id, goals.id)
    track(context.site, "Signup")
    received(context, "/goals", 2)
  end

  test "FR-008 a URL is checked before it is saved, also when it is changed", context do
    webhook = webhook!(context, "/fine", events: ["goal.completed"])

    for url <- ["nonsense", "https://", "gopher://example.com", "https://example.com:25/"] do
      assert {:error, _reason} =
               Webhooks.update_webhook(context.owner, context.site.id, webhook.id, %{url: url})
    end

    {:ok, unchanged} = Webhooks.get_webhook(context.owner, context.site.id, webhook.id)
    assert unchanged.url == webhook.url
  end

  test "FR-009 a test sends a sample, and Plausible's rate limiter limits tests", context do
    webhook = webhook!(context, "/test", events: ["goal.completed"])
    test = fn -> Webhooks.send_test(context.owner, context.site.id, webhook.id, "webhook.test") end

    # A window of the rate limiter can end between two of these tests.
    {sent, refused} = Enum.split_with(for(_ <- 1..21, do: test.()), &match?({:ok, %{status: 200}}, &1))
    assert length(sent) in 10..20
    for result <- refused, do: assert({:error, _rate_limited} = result)
    assert [%{"data" => %{"message" => message}} | _] = received(context, "/test", length(sent))
    assert message =~ context.site.domain
  end

  test "FR-010 the waits between attempts grow", context do
    webhook!(context, "/retry", events: ["goal.completed"])
    HttpReceiver.script(context.receiver, "/retry", [503])
    track(context.site, "Signup")

    requests = HttpReceiver.await(context.receiver, "/retry", 4)
    times = Enum.map(requests, & &1.at_ms)
    [first, second, third] = Enum.zip_with(tl(times), times, &(&1 - &2))
    assert first >= 790 and second >= 1_590 and third >= 2_390
    assert MapSet.size(HttpReceiver.ids(context.receiver, "/retry")) == 1
    for request <- requests, do: assert(request.verified)
  end

  test "FR-011 every attempt and its outcome are on record", context do
    webhook = webhook!(context, "/log", events: ["goal.completed"])
    HttpReceiver.script(context.receiver, "/log", [{:then_close, {503, [], "not now"}}, :close, 204])
    track(context.site, "Signup")

    [delivery] = await_log(context, :delivered, 1)
    assert %{type: "goal.completed", attempts: 3, last_status: 204} = delivery
    assert delivery.webhook_id == webhook.id

    {:ok, full} = Webhooks.delivery(context.owner, context.site.id, delivery.id)
    [request | _again] = HttpReceiver.requests(context.receiver, "/log")
    assert full.body == request.body

    {:ok, [one, two, three]} = Webhooks.attempts(context.owner, context.site.id, delivery.id)
    assert %{status: 503, response_body: "not now", error: :http_status} = one
    assert %{status: nil} = two
    assert %{status: 204, error: nil, state: :delivered, remote_ip: "127.0.0.1"} = three
  end

  test "FR-012 every part of a webhook can be changed", context do
    goal = goal!(context.site, %{"event_name" => "Purchase"})
    webhook = webhook!(context, "/old", events: ["goal.completed"])

    {:ok, changed} =
      Webhooks.update_webhook(context.owner, context.site.id, webhook.id, %{
        "name" => "Data warehouse",
        "url" => HttpReceiver.url(context.receiver, "/new"),
        "events" => ["goal.completed", "traffic.drop"],
        "goals" => [goal.id],
        "drop_threshold" => "20",
        "headers" => %{"authorization" => "Bearer token"}
      })

    assert {:ok, ^changed} = Webhooks.get_webhook(context.owner, context.site.id, webhook.id)
    assert %{name: "Data warehouse", drop_threshold: 20, goals: [_]} = changed

    track(context.site, "Purchase")
    [request] = HttpReceiver.await(context.receiver, "/new", 1)
    assert request.headers["authorization"] == "Bearer token"
  end

  test "FR-013 deleted webhooks and deleted sites leave no rows behind", context do
    webhook = webhook!(context, "/deleted", events: ["goal.completed"])
    webhook!(context, "/site", events: ["goal.completed"])
    track(context.site, "Signup")
    received(context, "/deleted", 1)
    await_log(context, :delivered, 2)

    :ok = Webhooks.delete_webhook(context.owner, context.site.id, webhook.id)
    assert [%{webhook_id: other}] = log(context)
    assert other != webhook.id

    {:ok, _site} = Plausible.Site.Removal.run(context.site)
    {:ok, _count} = Webhooks.prune()

    for table <- ~w(webhooks webhook_deliveries) do
      sql = "SELECT count(*) FROM #{table} WHERE site_id = $1"
      assert %{rows: [[0]]} = Plausible.Repo.query!(sql, [context.site.id])
    end
  end

  test "FR-014 owners, admins and editors manage webhooks, and nobody else sees them", context do
    %{site: site, owner: owner} = context
    team = team_of(site)
    webhook = webhook!(context, "/mine", events: ["goal.completed"])

    # Only the Enterprise Edition has super administrators.
    may =
      [owner, member!(team, :admin), member!(team, :editor), guest!(site, :editor)] ++
        if(enterprise?(), do: [%{user!() | id: 1_000_000}], else: [])

    elsewhere = site!(team!(user!()))

    may_not =
      [user!(), member!(team, :viewer), member!(team, :billing), guest!(site, :viewer)] ++
        [guest!(elsewhere, :editor), nil]

    for user <- may do
      assert {:ok, [_webhook]} = Webhooks.list_webhooks(user, site.id)
      assert {:ok, _} = Webhooks.update_webhook(user, site.id, webhook.id, %{name: "renamed"})
    end

    for user <- may_not, answer <- everything(user, site.id, webhook.id),
        do: assert({:error, _forbidden} = answer)

    # A manager of another site does not find this webhook there.
    %{owners: [other]} = Plausible.Repo.preload(elsewhere, :owners)
    assert {:ok, []} = Webhooks.list_webhooks(other, elsewhere.id)
    assert {:error, _not_found} = Webhooks.get_webhook(other, elsewhere.id, webhook.id)
    assert {:error, _not_found} = Webhooks.delete_webhook(other, elsewhere.id, webhook.id)
  end

  defp everything(user, site_id, id) do
    [
      Webhooks.list_webhooks(user, site_id),
      Webhooks.get_webhook(user, site_id, id),
      Webhooks.update_webhook(user, site_id, id, %{name: "stolen"}),
      Webhooks.delete_webhook(user, site_id, id),
      Webhooks.disable_webhook(user, site_id, id),
      Webhooks.reveal_secret(user, site_id, id),
      Webhooks.rotate_secret(user, site_id, id, 0),
      Webhooks.send_test(user, site_id, id, "webhook.test"),
      Webhooks.deliveries(user, site_id, %{}, %{}),
      Webhooks.redeliver(user, site_id, "msg_1"),
      Webhooks.recover(user, site_id, id, DateTime.utc_now())
    ]
  end

  defp notification!(site, type, threshold) do
    Plausible.Factory.insert(:"#{type}_notification",
      site: site,
      threshold: threshold,
      recipients: ["team@example.com"]
    )
  end

  defp notify!, do: :ok = Plausible.Workers.TrafficChangeNotifier.perform(nil)
end
