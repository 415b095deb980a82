defmodule Plausible.Webhooks.Plausible.RequirementsTest do
  # The functional requirements of the specification, in Plausible as its adopter has it.
  use Plausible.Webhooks.Test.PlausibleCase, async: false

  alias Plausible.Webhooks.JsonSchema
  alias Plausible.Webhooks.Test.Peer

  @compile {:no_warn_undefined,
            [
              Plausible.Mailer,
              Plausible.Repo,
              Plausible.Site.TrafficChangeNotification,
              Plausible.Workers.TrafficChangeNotifier
            ]}

  @moduletag :tmp_dir

  setup_all do
    plausible!(
      variables: [{"WEBHOOKS_PER_SITE_MAX", "3"}],
      options: [retry_delays_ms: [100, 300, 900], jitter_percent: 0]
    )
  end

  test "FR-001 a site has several webhooks, and each gets its events", context do
    goal!(context.site, %{"event_name" => "Signup"})
    for path <- ["/a", "/b", "/c"], do: webhook!(context, path, events: ["goal.completed"])
    track(context.site, "Signup")
    for path <- ["/a", "/b", "/c"], do: assert([_body] = received(context, path, 1))

    attributes = %{url: "https://example.com", events: ["goal.completed"]}

    assert {:error, %{reason: :limit_reached}} =
             Webhooks.create_webhook(context.owner, context.site.id, attributes)
  end

  # As the e-mail: found by the same notifier, at the same threshold, once in 12 hours.
  test "FR-002 a spike that Plausible's notifier finds goes to webhooks that follow it",
       context do
    notification!(context.site, :spike, 10)
    webhook!(context, "/follows", events: ["traffic.spike"], spike_threshold: :notifier)
    webhook!(context, "/own", events: ["traffic.spike"], spike_threshold: 11)
    visits!(context.site, 10, NaiveDateTime.utc_now(), %{referrer_source: "Hacker News"})

    notify!()
    assert [%{"type" => "traffic.spike", "data" => data}] = received(context, "/follows", 1)
    assert {data["current_visitors"], data["threshold"]} == {10, 10}
    assert data["top_sources"] == [%{"name" => "Hacker News", "visitors" => 10}]
    assert [%{subject: subject, text_body: "10 visitors" <> _}] = mails(context.site)
    assert subject =~ "Traffic spike"

    notify!()
    evaluate!()
    refute_received_at(context, "/own")
    assert HttpReceiver.count(context.receiver, "/follows") == 1
  end

  test "FR-003 a drop that Plausible's notifier finds goes to webhooks that follow it",
       context do
    notification!(context.site, :drop, 5)
    webhook!(context, "/follows", events: ["traffic.drop"], drop_threshold: :notifier)
    visits!(context.site, 4)

    notify!()
    assert [%{"type" => "traffic.drop", "data" => data}] = received(context, "/follows", 1)
    assert {data["current_visitors"], data["threshold"]} == {4, 5}
    assert [%{text_body: "4 visitors" <> _}] = mails(context.site)
  end

  test "FR-004 goals of every kind are told, dropped events are not", context do
    goal!(context.site, %{"event_name" => "Signup", "custom_props" => %{"plan" => "growth"}})
    goal!(context.site, %{"page_path" => "/thanks"})
    goal!(context.site, %{"page_path" => "/post/*", "scroll_threshold" => 50})
    webhook!(context, "/goals", events: ["goal.completed"])

    # None of these completes a goal.
    track(context.site, "signup", props: %{"plan" => "growth"})
    track(context.site, "Signup", props: %{"plan" => "starter"})
    track(context.site, "pageview", path: "/thanks/more")
    track(context.site, "engagement", path: "/post/1", scroll_depth: 49)
    assert {202, %{"x-plausible-dropped" => "1"}} = bot(context.site)
    # Without a session there is no visit.
    track(context.site, "engagement", path: "/post/1", scroll_depth: 90, visitor: "none")

    track(context.site, "Signup", props: %{"plan" => "growth", "n" => "1"})
    track(context.site, "pageview", path: "/thanks")
    track(context.site, "engagement", path: "/post/1", scroll_depth: 50)

    kinds = for body <- received(context, "/goals", 3), do: body["data"]["goal"]["type"]
    assert Enum.sort(kinds) == ["event", "page", "scroll"]
    Process.sleep(200)
    assert HttpReceiver.count(context.receiver, "/goals") == 3
  end

  test "FR-005 each type is a POST of JSON that its schema describes", context do
    goal!(context.site, %{"event_name" => "Signup"})
    events = ["goal.completed", "traffic.spike", "traffic.drop", "traffic.resolved"]

    webhook =
      webhook!(context, "/json", events: events, spike_threshold: 10, drop_threshold: 1_000)

    track(context.site, "Signup", props: %{"quote" => ~s("é\u0001 \u2028</script>)})
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
      for personal <- ["127.0.0.1", "visitor 1"], do: refute(request.body =~ personal)
    end

    types = for request <- requests, do: Jason.decode!(request.body)["type"]
    assert Enum.sort(types) == Enum.sort(["webhook.test" | events])
  end

  test "FR-006 somebody else's library verifies what arrives", context do
    goal!(context.site, %{"event_name" => "Signup"})
    webhook = webhook!(context, "/signed", events: ["goal.completed"])
    {:ok, [%{key: key}]} = Webhooks.reveal_secret(context.owner, context.site.id, webhook.id)
    for n <- 1..20, do: track(context.site, "Signup", props: %{"text" => "é😀 #{n}"})

    requests = HttpReceiver.await(context.receiver, "/signed", 20)
    messages = for request <- requests, do: Peer.message(request, key)

    with {output, status} <- Peer.run("verify", messages, context.tmp_dir) do
      assert {output, status} == {"20 passed, 0 failed\n", 0}

      forged =
        for request <- requests, do: Peer.message(%{request | body: request.body <> " "}, key)

      assert {"0 passed, 20 failed\n", 1} = Peer.run("verify", forged, context.tmp_dir)
    end
  end

  test "FR-007 each webhook chooses its types, and may be switched off", context do
    goal!(context.site, %{"event_name" => "Signup"})
    goals = webhook!(context, "/goals", events: ["goal.completed"])
    webhook!(context, "/traffic", events: ["traffic.spike"], spike_threshold: 10)
    visits!(context.site, 12)
    track(context.site, "Signup")
    evaluate!()
    assert [%{"type" => "goal.completed"}] = received(context, "/goals", 1)
    assert [%{"type" => "traffic.spike"}] = received(context, "/traffic", 1)

    {:ok, _off} = Webhooks.disable_webhook(context.owner, context.site.id, goals.id)
    track(context.site, "Signup")
    Process.sleep(200)
    assert HttpReceiver.count(context.receiver, "/goals") == 1

    {:ok, _on} = Webhooks.enable_webhook(context.owner, context.site.id, goals.id)
    track(context.site, "Signup")
    received(context, "/goals", 2)
  end

  test "FR-008 a URL is judged before it is saved, also when it is changed", context do
    webhook = webhook!(context, "/fine", events: ["goal.completed"])

    for url <- ["nonsense", "https://", "gopher://example.com", "https://example.com:25/"] do
      assert {:error, %{reason: {:invalid, %{url: _why}}}} =
               Webhooks.update_webhook(context.owner, context.site.id, webhook.id, %{url: url})
    end

    {:ok, unchanged} = Webhooks.get_webhook(context.owner, context.site.id, webhook.id)
    assert unchanged.url == webhook.url
  end

  test "FR-009 a test delivery is a sample of the site, at Plausible's own rate limit",
       context do
    webhook = webhook!(context, "/test", events: ["goal.completed"])

    test = fn ->
      Webhooks.send_test(context.owner, context.site.id, webhook.id, "webhook.test")
    end

    # A window of the limiter's may end in between.
    results = for _ <- 1..21, do: test.()
    {sent, refused} = Enum.split_with(results, &match?({:ok, %{status: 200}}, &1))
    assert length(sent) in 10..20

    for result <- refused,
        do: assert({:error, %{reason: {:rate_limited, ms}}} = result) && assert(ms in 1..60_000)

    assert [%{"data" => %{"message" => message}} | _] = received(context, "/test", length(sent))
    assert message =~ context.site.domain
  end

  test "FR-010 the waits between the attempts grow", context do
    goal!(context.site, %{"event_name" => "Signup"})
    webhook!(context, "/retry", events: ["goal.completed"])
    HttpReceiver.script(context.receiver, "/retry", [503])
    track(context.site, "Signup")

    requests = HttpReceiver.await(context.receiver, "/retry", 4)
    times = Enum.map(requests, & &1.at_ms)
    [first, second, third] = Enum.zip_with(tl(times), times, &(&1 - &2))
    assert first in 95..290
    assert second in 295..850
    assert third in 895..2_500

    # Tried again, it is the same message, signed anew.
    assert MapSet.size(HttpReceiver.ids(context.receiver, "/retry")) == 1
    for request <- requests, do: assert(request.verified)
  end

  test "FR-011 every attempt and its outcome are on record", context do
    goal = goal!(context.site, %{"event_name" => "Signup"})
    webhook = webhook!(context, "/log", events: ["goal.completed"])

    HttpReceiver.script(context.receiver, "/log", [
      {:then_close, {503, [], "not now"}},
      :close,
      204
    ])

    track(context.site, "Signup")

    [delivery] = await_log(context, :delivered, 1)

    assert %{type: "goal.completed", attempts: 3, last_status: 204} = delivery
    assert {delivery.webhook_id, delivery.goal_id} == {webhook.id, goal.id}

    {:ok, full} = Webhooks.delivery(context.owner, context.site.id, delivery.id)
    [request | _again] = HttpReceiver.requests(context.receiver, "/log")
    assert full.body == request.body

    {:ok, [one, two, three]} = Webhooks.attempts(context.owner, context.site.id, delivery.id)
    assert %{status: 503, response_body: "not now", error: :http_status} = one
    assert %{status: nil, error: error} = two
    assert error in [:connection_reset, :protocol_error]
    assert %{status: 204, error: nil, state: :delivered, remote_ip: "127.0.0.1"} = three
    for attempt <- [one, two, three], do: assert(attempt.total_us > 0)
  end

  test "FR-012 every part of a webhook can be changed", context do
    goal = goal!(context.site, %{"event_name" => "Signup"})
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

    track(context.site, "Signup")
    [request] = HttpReceiver.await(context.receiver, "/new", 1)
    assert request.headers["authorization"] == "Bearer token"
  end

  test "FR-013 a deleted webhook leaves nothing behind, a deleted site neither", context do
    goal!(context.site, %{"event_name" => "Signup"})
    webhook = webhook!(context, "/deleted", events: ["goal.completed"])
    webhook!(context, "/site", events: ["goal.completed"])
    track(context.site, "Signup")
    received(context, "/deleted", 1)
    await_log(context, :delivered, 2)

    :ok = Webhooks.delete_webhook(context.owner, context.site.id, webhook.id)
    assert [%{webhook_id: other}] = log(context)
    assert other != webhook.id

    Plausible.Repo.delete!(context.site)
    {:ok, _count} = Webhooks.prune()
    tables = ~w(webhooks webhook_deliveries)

    for table <- tables do
      sql = "SELECT count(*) FROM #{table} WHERE site_id = $1"
      assert %{rows: [[0]]} = Plausible.Repo.query!(sql, [context.site.id], log: false)
    end
  end

  test "FR-014 owners, admins, editors and super admins manage; nobody else sees anything",
       context do
    %{site: site, owner: owner} = context
    team = Plausible.Repo.preload(site, :team).team
    webhook = webhook!(context, "/mine", events: ["goal.completed"])

    may =
      [owner, %{user!() | id: super_admin_id()}] ++
        for(role <- [:admin, :editor], do: member(team, role)) ++ [guest(site, :editor)]

    elsewhere = site!(team!(user!()))
    may_not = [user!(), member(team, :viewer), member(team, :billing), guest(site, :viewer)]
    may_not = may_not ++ [guest(elsewhere, :editor), nil, "owner", %{id: nil}]

    for user <- may do
      assert {:ok, [_webhook]} = Webhooks.list_webhooks(user, site.id)
      assert {:ok, _} = Webhooks.update_webhook(user, site.id, webhook.id, %{name: "renamed"})
      assert {:ok, [_secret]} = Webhooks.reveal_secret(user, site.id, webhook.id)
    end

    for user <- may_not, answer <- everything(user, site.id, webhook.id) do
      assert match?({:error, %{reason: :forbidden}}, answer)
    end

    # Whoever manages another site finds nothing of this one there.
    %{owners: [other]} = Plausible.Repo.preload(elsewhere, :owners)

    for answer <- everything(other, elsewhere.id, webhook.id) do
      assert match?({:error, %{reason: :not_found}}, answer) or
               answer in [{:ok, []}, {:ok, %{entries: [], next: nil}}]
    end

    # A role that is taken away counts at once.
    Plausible.Repo.delete_all(Plausible.Teams.Membership)
    assert {:error, %Webhooks.Error{reason: :forbidden}} = Webhooks.list_webhooks(owner, site.id)
  end

  defp everything(user, site_id, id) do
    [
      Webhooks.list_webhooks(user, site_id),
      Webhooks.get_webhook(user, site_id, id),
      Webhooks.update_webhook(user, site_id, id, %{name: "stolen"}),
      Webhooks.delete_webhook(user, site_id, id),
      Webhooks.disable_webhook(user, site_id, id),
      Webhooks.enable_webhook(user, site_id, id),
      Webhooks.reveal_secret(user, site_id, id),
      Webhooks.rotate_secret(user, site_id, id, 0),
      Webhooks.send_test(user, site_id, id, "webhook.test"),
      Webhooks.deliveries(user, site_id, %{}, %{}),
      Webhooks.redeliver(user, site_id, "msg_1"),
      Webhooks.recover(user, site_id, id, DateTime.utc_now())
    ]
  end

  defp member(team, role) do
    user = user!()
    member!(team, user, role)
    user
  end

  defp guest(site, role) do
    user = user!()
    guest!(site, user, role)
    user
  end

  defp super_admin_id, do: hd(Application.fetch_env!(:plausible, :super_admin_user_ids))

  defp bot(site) do
    body = Jason.encode!(%{n: "Signup", d: site.domain, u: "https://#{site.domain}/"})
    url = ~c"#{Plausible.Webhooks.Test.PlausibleHost.url()}/api/event"
    request = {url, [{~c"user-agent", ~c"bot"}], ~c"text/plain", body}
    {:ok, {{_version, status, _text}, headers, _body}} = :httpc.request(:post, request, [], [])
    {status, Map.new(headers, fn {name, value} -> {to_string(name), to_string(value)} end)}
  end

  defp notification!(site, type, threshold) do
    Plausible.Repo.insert!(
      struct!(Plausible.Site.TrafficChangeNotification,
        site_id: site.id,
        type: type,
        threshold: threshold,
        recipients: ["#{site.domain}@example.com"]
      )
    )
  end

  defp notify!, do: :ok = Plausible.Workers.TrafficChangeNotifier.perform(nil)

  defp mails(site),
    do: Enum.filter(Plausible.Mailer.sent(), &(&1.to == "#{site.domain}@example.com"))
end
