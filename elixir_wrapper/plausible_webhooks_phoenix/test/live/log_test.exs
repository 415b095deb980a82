defmodule PlausibleWeb.Live.WebhookSettings.LogTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  @tab "button[phx-click='page.log']"

  defp open_log(context) do
    view = page!(context)
    click(view, @tab, "Deliveries")
    view
  end

  defp accept!(context, webhook, attributes) do
    delivery = delivery(webhook, attributes)
    :ok = Store.accept(context.instance, [delivery])
    delivery.id
  end

  defp filter(view, filters) do
    view |> form("#log-filters", filter: filters) |> render_change()
    settled(view)
  end

  defp shown(view) do
    Regex.scan(~r/<tr id="(msg_[^"]+)"/, render(view), capture: :all_but_first) |> List.flatten()
  end

  test "says that there is nothing yet, and that nothing fits", context do
    view = context |> start_page!() |> open_log()
    assert render(view) =~ "Nothing has been sent yet."
    filter(view, %{state: "failed"})
    assert render(view) =~ "No delivery matches these filters."
    click(view, "button", "Clear filters")
    assert render(view) =~ "Nothing has been sent yet."
  end

  test "newest first, with what it was, for whom, its state and the last answer", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: "CRM"})
    first = accept!(context, webhook, state: :delivered, attempts: 1, last_status: 204)

    second =
      accept!(context, webhook,
        state: :failed,
        attempts: 4,
        last_error: "tls_error",
        reason: "tls_error"
      )

    view = open_log(context)
    assert shown(view) == [second, first]
    assert text_of(view, "##{first}") =~ ~r/Goal completed CRM Delivered Attempts: 1 204/
    assert text_of(view, "##{second}") =~ ~r/Goal completed CRM Failed Attempts: 4 TLS error/
  end

  test "filters: each alone and together", context do
    goals = for id <- [12, 13], do: TestHost.event_goal(id, "Goal #{id}")
    TestHost.put(context.host, {:goals, 1}, goals)
    context = start_page!(context, sweep_interval_ms: 60_000)
    [one, two] = for name <- ~w(one two), do: webhook!(context, "/#{name}", %{name: name})
    now_ms = System.system_time(:millisecond)

    old =
      accept!(context, one,
        state: :delivered,
        attempts: 1,
        last_status: 200,
        created_at_ms: now_ms - 86_400_000
      )

    failed = accept!(context, one, state: :failed, attempts: 1, last_status: 500, goal_id: 13)
    none = accept!(context, two, state: :failed, attempts: 1, last_error: "timeout")

    spike =
      accept!(context, two,
        state: :parked,
        type: "traffic.spike",
        goal_id: nil,
        next_at_ms: now_ms + 3_600_000
      )

    view = open_log(context)
    assert shown(view) == [spike, none, failed, old]

    iso = fn ms ->
      ms |> DateTime.from_unix!(:millisecond) |> DateTime.to_iso8601() |> String.slice(0, 16)
    end

    for {filters, ids} <- [
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
          {%{webhook: one.id, goal: "12", state: "failed"}, []}
        ] do
      filter(view, filters)
      assert shown(view) == ids, inspect(filters)
      click(view, "button", "Clear filters")
    end
  end

  test "times are the site's", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    accept!(context, webhook, state: :delivered, created_at_ms: 1_795_428_930_000)
    view = open_log(context)
    assert text_of(view, "#log-filters") =~ "From (Etc/UTC)"
    assert render(view) =~ "23 Nov 2026, 10:15:30 UTC"
  end

  test "pages, older and newer, and what comes meanwhile disturbs none", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    now_ms = System.system_time(:millisecond)

    ids =
      for n <- 60..1//-1,
          do: accept!(context, webhook, state: :delivered, created_at_ms: now_ms - n * 1_000)

    ids = Enum.reverse(ids)
    view = open_log(context)
    assert shown(view) == Enum.slice(ids, 0, 25)
    assert has_element?(view, "button[disabled]", "Newer")
    click(view, "button[phx-click='log.older']")
    assert shown(view) == Enum.slice(ids, 25, 25)
    newest = accept!(context, webhook, state: :delivered)
    click(view, "button[phx-click='log.older']")
    assert shown(view) == Enum.slice(ids, 50, 25)
    assert has_element?(view, "button[disabled]", "Older")
    assert forge(view, "log.older", %{}) && shown(view) == Enum.slice(ids, 50, 25)
    click(view, "button[phx-click='log.newer']")
    assert shown(view) == Enum.slice(ids, 25, 25)
    click(view, "button[phx-click='log.newer']")
    assert hd(shown(view)) == newest
    forge(view, "log.newer", %{})
    assert hd(shown(view)) == newest
  end

  test "what happens shows by itself", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    view = open_log(context)
    {:ok, attempt} = API.send_test(context.name, :owner, 1, webhook.id, "webhook.test")
    shows!(view, attempt.delivery_id)
    assert text_of(view, "##{attempt.delivery_id}") =~ "Delivered"
  end

  test "what waits counts down, and nothing ticks where nothing waits", context do
    context = start_page!(context, sweep_interval_ms: 60_000)
    webhook = webhook!(context, "/hook")
    view = open_log(context)
    assert :sys.get_state(view.pid).socket.assigns.ticking == nil

    id =
      accept!(context, webhook,
        state: :parked,
        next_at_ms: System.system_time(:millisecond) + 42_000
      )

    click(view, @tab, "Deliveries")

    [seen] =
      Regex.run(~r/next attempt in 0:(\d\d)/, text_of(view, "##{id}"), capture: :all_but_first)

    eventually(fn -> not (text_of(view, "##{id}") =~ "0:#{seen}") end)
    filter(view, %{state: "failed"})
    eventually(fn -> :sys.get_state(view.pid).socket.assigns.ticking == nil end)
  end

  test "from a webhook's page it shows that webhook's", context do
    context = start_page!(context)
    [one, two] = for name <- ~w(one two), do: webhook!(context, "/#{name}", %{name: name})
    mine = accept!(context, one, state: :delivered)
    accept!(context, two, state: :delivered)
    view = page!(context)
    click(view, "#webhook-#{one.id} h3 button")
    click(view, "button", "See its deliveries")
    assert shown(view) == [mine]
    assert view |> element("#log-filter-webhook option[selected]") |> render() =~ one.id
    # And back, to where what failed is sent again.
    click(view, "button[phx-click='page.webhook']", "Open one")
    assert has_element?(view, "#webhook-recover")
  end

  test "a store that is away is said, and what was shown stays", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    id = accept!(context, webhook, state: :delivered)
    view = open_log(context)
    Repo.query!(~s(ALTER TABLE "#{context.prefix}".webhook_deliveries RENAME TO elsewhere))
    click(view, @tab, "Deliveries")
    assert render(view) =~ "the database did not answer"
    assert shown(view) == [id]
    Repo.query!(~s(ALTER TABLE "#{context.prefix}".elsewhere RENAME TO webhook_deliveries))
  end

  test "filters that no form gives are none", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    id = accept!(context, webhook, state: :delivered)
    view = open_log(context)

    for filter <- [
          %{"state" => "nonsense"},
          %{"goal" => "x"},
          %{"goal" => String.duplicate("9", 30)},
          %{"goal" => "99999999999999999999"},
          %{"status" => "6"},
          %{"since" => "yesterday"},
          %{"type" => "a"},
          %{"state" => ["failed"]},
          %{"webhook" => %{"a" => "b"}},
          "text",
          nil
        ] do
      forge(view, "log.filter", %{"filter" => filter})
      settled(view)
      assert shown(view) == [id], inspect(filter)
      forge(view, "log.clear", %{})
      settled(view)
    end

    forge(view, "log.filter", %{"filter" => %{"webhook" => <<0>>}})
    settled(view)
    assert shown(view) == []
  end
end
