defmodule PlausibleWeb.Live.WebhookSettings.LogTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  defp filter(view, filters), do: change(view, "#log-filters", filter: filters)

  defp shown(view) do
    Regex.scan(~r/<tr id="(msg_[^"]+)"/, render(view), capture: :all_but_first) |> List.flatten()
  end

  test "says that there is nothing yet, and that nothing fits", context do
    view = context |> start_page!() |> page!("/deliveries")
    assert render(view) =~ "Nothing has been sent yet"
    filter(view, %{state: "failed"})
    assert render(view) =~ "No delivery matches these filters."
    assert link_of(view, "#log-clear") == "/deliveries"
  end

  test "newest first, with what it was about, for whom, its state and the last answer",
       context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: "CRM"})

    body =
      ~s({"type":"goal.completed","data":{"goal":{"name":"Signup"},"completion":{"pathname":"/register"}}})

    first =
      accept!(context, webhook, state: :delivered, attempts: 1, last_status: 204, body: body)

    alert = ~s({"type":"traffic.spike","data":{"current_visitors":512,"threshold":300}})
    failed = [state: :failed, attempts: 4, last_error: "tls_error", reason: "tls_error"]
    second = accept!(context, webhook, [type: "traffic.spike", body: alert] ++ failed)
    view = page!(context, "/deliveries")
    assert shown(view) == ids([second, first])

    assert text_of(view, "##{first.id}") =~
             ~r/Goal completed Signup · \/register CRM Delivered Attempts: 1 204/

    assert text_of(view, "##{second.id}") =~
             ~r/Traffic spike 512 visitors, threshold 300 CRM Failed Attempts: 4 TLS error/

    assert link_of(view, "##{first.id} a") == "/deliveries/#{first.id}"
    assert render(view) =~ "2 deliveries"
  end

  test "webhooks of the same name are told apart by their paths", context do
    context = start_page!(context)
    for path <- ~w(/a /b), do: webhook!(context, path)
    options = text_of(page!(context, "/deliveries"), "#log-filter-webhook")
    assert options =~ "127.0.0.1/a" and options =~ "127.0.0.1/b"
  end

  test "filters: each alone and together, in the form and in the address", context do
    goals = for id <- [12, 13], do: TestHost.event_goal(id, "Goal #{id}")
    TestHost.put(context.host, {:goals, 1}, goals)
    context = start_page!(context, sweep_interval_ms: 60_000)
    [one, two] = for name <- ~w(one two), do: webhook!(context, "/#{name}", %{name: name})
    now_ms = System.system_time(:millisecond)
    day_ago = [attempts: 1, last_status: 200, created_at_ms: now_ms - 86_400_000]
    old = accept!(context, one, [state: :delivered] ++ day_ago)
    failed = accept!(context, one, state: :failed, attempts: 1, last_status: 500, goal_id: 13)
    none = accept!(context, two, state: :failed, attempts: 1, last_error: "timeout")
    later = [goal_id: nil, next_at_ms: now_ms + 3_600_000]
    spike = accept!(context, two, [state: :parked, type: "traffic.spike"] ++ later)
    view = page!(context, "/deliveries")
    assert shown(view) == ids([spike, none, failed, old])

    iso = fn ms ->
      ms |> DateTime.from_unix!(:millisecond) |> DateTime.to_iso8601() |> String.slice(0, 16)
    end

    cleared = Map.new(~w(id webhook state type goal status since until)a, &{&1, ""})

    for {filters, found} <- [
          {%{webhook: one.id}, [failed, old]},
          {%{state: "failed"}, [none, failed]},
          {%{state: "parked"}, [spike]},
          {%{type: "traffic.spike"}, [spike]},
          {%{goal: "13"}, [failed]},
          {%{status: "5"}, [failed]},
          {%{status: "2"}, [old]},
          {%{status: "none"}, [none]},
          {%{since: iso.(now_ms - 3_600_000)}, [spike, none, failed]},
          {%{until: iso.(now_ms - 3_600_000)}, [old]},
          {%{webhook: two.id, state: "failed", status: "none"}, [none]},
          {%{webhook: one.id, goal: "12", state: "failed"}, []},
          {%{id: " #{old.id} "}, [old]},
          {%{id: "msg_nothing"}, []}
        ] do
      filter(view, Map.merge(cleared, filters))
      assert shown(view) == ids(found), inspect(filters)
      assert_push_event(view, "webhooks:address", %{to: "/sites/1/webhooks" <> address}, 1_000)
      assert shown(page!(context, address)) == ids(found), address
    end
  end

  test "a form that a browser sends again after a reconnect restores filters, not pages",
       context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    now_ms = System.system_time(:millisecond)
    for n <- 30..1//-1, do: accept!(context, webhook, state: :failed, created_at_ms: now_ms - n)
    failed = page!(context, "/deliveries?state=failed")
    older = link_of(failed, "nav[aria-label='Pages of deliveries'] a")
    view = page!(context, older)
    assert length(shown(view)) == 5
    filter(view, %{state: "failed"})
    assert length(shown(view)) == 5
    view = page!(context, "/deliveries")
    filter(view, %{state: "delivered"})
    assert shown(view) == []
  end

  test "times are the site's, relative with the absolute one as a tooltip", context do
    context = start_page!(context)
    two_hours_ago = System.system_time(:millisecond) - 7_300_000
    accept!(context, webhook!(context, "/hook"), state: :delivered, created_at_ms: two_hours_ago)
    view = page!(context, "/deliveries")
    assert text_of(view, "#log-filters") =~ "From (Etc/UTC)"
    assert text_of(view, "tbody time") == "2 h ago"
    assert view |> element("tbody time") |> render() =~ ~r/title="\d+ \w+ \d{4}, [\d:]+ UTC"/
  end

  test "pages have addresses, and what comes meanwhile disturbs none", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    now_ms = System.system_time(:millisecond)

    all =
      for n <- 60..1//-1,
          do: accept!(context, webhook, state: :delivered, created_at_ms: now_ms - n * 1_000).id

    all = Enum.reverse(all)
    nav = "nav[aria-label='Pages of deliveries'] a"
    view = page!(context, "/deliveries")
    assert shown(view) == Enum.slice(all, 0, 25)
    assert render(view) =~ "More than 25 deliveries"
    second = page!(context, link_of(view, nav))
    assert shown(second) == Enum.slice(all, 25, 25)
    newest = accept!(context, webhook, state: :delivered)
    third = page!(context, link_of(second, nav <> ":last-child"))
    assert shown(third) == Enum.slice(all, 50, 25)
    first = page!(context, link_of(third, nav))
    assert hd(shown(first)) == newest.id
    # A cursor that is none leads to the newest page.
    assert shown(page!(context, "/deliveries?after=nonsense")) == shown(first)
  end

  test "what comes while one reads is counted, and moves no row", context do
    context = start_page!(context, retry_delays_ms: [])
    webhook = webhook!(context, "/hook")
    HttpReceiver.script(context.receiver, "/hook", [500, 200])
    view = page!(context, "/deliveries")
    first = sent!(context, webhook)
    eventually(fn -> shown(view) == [first.id] end)
    others = for _ <- 1..3, do: sent!(context, webhook)
    shows!(view, "3 new deliveries: show")
    assert shown(view) == [first.id]
    # The state of a shown row is current.
    :ok = API.redeliver(context.name, :owner, 1, first.id)
    eventually(fn -> text_of(view, "##{first.id}") =~ "Delivered" end)
    click(view, "#log-fresh")
    assert Enum.sort(shown(view)) == Enum.sort([first.id | ids(others)])
    refute has_element?(view, "#log-fresh")
  end

  test "from a webhook's page it shows that webhook's", context do
    context = start_page!(context)
    [one, two] = for name <- ~w(one two), do: webhook!(context, "/#{name}", %{name: name})
    mine = accept!(context, one, state: :delivered)
    accept!(context, two, state: :delivered)
    link = link_of(page!(context, "/#{one.id}"), "#webhook-settings-shown a[href*='deliveries?']")
    view = page!(context, link)
    assert shown(view) == [mine.id]
    assert view |> element("#log-filter-webhook option[selected]") |> render() =~ one.id
  end

  test "a store that is away is said, and what was shown stays", context do
    context = start_page!(context)
    delivery = accept!(context, webhook!(context, "/hook"), state: :delivered)
    view = page!(context, "/deliveries")
    Repo.query!(~s(ALTER TABLE "#{context.prefix}".webhook_deliveries RENAME TO elsewhere))
    send(view.pid, :refresh)
    settled(view)
    assert message(view) =~ "the database did not answer"
    assert shown(view) == [delivery.id]
    Repo.query!(~s(ALTER TABLE "#{context.prefix}".elsewhere RENAME TO webhook_deliveries))
  end

  test "filters that no form gives are none", context do
    context = start_page!(context)
    delivery = accept!(context, webhook!(context, "/hook"), state: :delivered)
    view = page!(context, "/deliveries?state[]=failed&goal=x&status=6&type=a&since=yesterday")
    assert shown(view) == [delivery.id]

    for filter <- [
          %{"state" => "nonsense"},
          %{"goal" => String.duplicate("9", 30)},
          %{"goal" => "99999999999999999999"},
          %{"state" => ["failed"]},
          %{"webhook" => %{"a" => "b"}},
          "text",
          nil
        ] do
      forge(view, "filter", %{"filter" => filter})
      settled(view)
      assert shown(view) == [delivery.id], inspect(filter)
    end

    for filter <- [%{"webhook" => <<0>>}, %{"id" => <<0, 255>>}] do
      forge(view, "filter", %{"filter" => filter})
      settled(view)
      assert shown(view) == []
    end
  end
end
