defmodule Plausible.Webhooks.RealTree.AdapterTest do
  # Compares what the adapter reads with Plausible's own answers.
  use Plausible.Webhooks.Scenarios.Case, host: {Plausible.Webhooks.Test.PlausibleHost, nil}

  import Plausible.Webhooks.Test.PlausibleHost, only: [team_of: 1, change!: 2, enterprise?: 0, goal_props?: 0, conversions: 1]

  alias Plausible.Webhooks.Host.Plausible, as: Host

  describe "sites and goals" do
    test "a site is found by id and by domain", %{site: site} do
      facts = Host.site([], site.id)
      assert facts.domain == site.domain
      assert facts.stats_start_at_ms == 1_577_836_800_000
      assert facts.events
      assert Host.site_by_domain([], site.domain) == facts
      assert Host.site([], site.id + 1_000_000) == nil
      assert Host.site_by_domain([], "elsewhere.example") == nil
      assert Host.goals([], site.id + 1_000_000) == []
    end

    test "a created, changed or deleted goal takes effect at once", context do
      webhook!(context, "/goals", events: ["goal.completed"])
      track(context, "Signup")
      assert log(context) == []

      goal = goal!(context, %{event_name: "Signup"})
      track(context, "Signup")
      assert [%{"data" => %{"goal" => %{"name" => "Signup"}}}] = bodies(context, "/goals", 1)

      {:ok, goal} = Plausible.Goals.update(goal, %{"display_name" => "Registration"})
      track(context, "Signup")
      assert [_, %{"data" => %{"goal" => renamed}}] = bodies(context, "/goals", 2)
      assert renamed["name"] == "Registration"

      :ok = Plausible.Goals.delete(goal.id, context.site)
      track(context, "Signup")

      Plausible.Goals.batch_create_event_goals(["Batch"], context.site)
      Plausible.Goals.create_outbound_links(context.site)
      found = %{"goal_type" => "event", "event_name" => "Found"}
      {:ok, _} = Plausible.Goals.find_or_create(context.site, found)

      for name <- ["Batch", "Outbound Link: Click", "Found"], do: track(context, name)
      names = for body <- bodies(context, "/goals", 5), do: body["data"]["goal"]["name"]
      assert Enum.sort(Enum.drop(names, 2)) == ["Batch", "Found", "Outbound Link: Click"]

      Plausible.Goals.delete_outbound_links(context.site)
      track(context, "Outbound Link: Click")
      assert settled(context, "/goals") == 5
    end
  end

  describe "events" do
    setup context do
      goal!(context, %{event_name: "Signup"})
      goal!(context, %{page_path: "/blog/**", display_name: "Blog"})
      webhook!(context, "/goals", events: ["goal.completed"])
      :ok
    end

    test "have as many deliveries as the dashboard has conversions", context do
      goal!(context, %{event_name: "Download"})

      for visitor <- 1..12 do
        track(context, "pageview", path: "/blog/#{visitor}", visitor: visitor)
        if rem(visitor, 2) == 0, do: track(context, "Signup", visitor: visitor)
        if rem(visitor, 3) == 0, do: track(context, "Download", visitor: visitor)
        track(context, "signup", visitor: visitor)
        track(context, "pageview", path: "/about", visitor: visitor)
      end

      names = for body <- bodies(context, "/goals", 22), do: body["data"]["goal"]["name"]
      assert settled(context, "/goals") == 22
      assert Enum.frequencies(names) == %{"Signup" => 6, "Download" => 4, "Blog" => 12}
      assert conversions(context) == Enum.frequencies(names)
    end

    test "that Plausible drops complete nothing", context do
      goal!(context, %{page_path: "/post/*", scroll_threshold: 50})
      # This visitor has no session.
      track(context, "engagement", path: "/post/1", scroll_depth: 90, visitor: 200)
      assert log(context) == []
    end

    test "leave no rows behind once the site is deleted (FR-013)", context do
      track(context, "Signup")
      await_log(context, :delivered, 1)
      {:ok, _site} = Plausible.Site.Removal.run(context.site)
      {:ok, _count} = Webhooks.prune()

      for table <- ~w(webhooks webhook_deliveries) do
        sql = "SELECT count(*) FROM #{table} WHERE site_id = $1"
        assert %{rows: [[0]]} = Plausible.Repo.query!(sql, [context.site.id])
      end
    end
  end

  describe "visitors" do
    test "are as many as Plausible counts", %{site: site} = context do
      now_ms = now_ms()
      visits!(context, 7, now_ms)
      visits!(context, 5, now_ms - 200_000, %{user_id: 77})
      visits!(context, 3, now_ms - 3_600_000)
      visits!(context, 2, now_ms - 13 * 3_600_000)

      windows = [{now_ms - 300_000, now_ms + 1_000}, {now_ms - 43_200_000, now_ms + 1_000}]
      assert {:ok, counts} = Host.visitors([], [site.id], windows)
      assert [five_minutes, twelve_hours] = counts[site.id]
      assert five_minutes == Plausible.Stats.Clickhouse.current_visitors(site)
      assert twelve_hours == Plausible.Stats.Clickhouse.current_visitors_12h(site)
      assert {five_minutes, twelve_hours} == {8, 11}
    end

    test "are returned in the order of the windows", %{site: site} = context do
      start_ms = DateTime.to_unix(~U[2026-01-05 10:00:00Z], :millisecond)
      for n <- 1..11, do: visits!(context, n, start_ms + n * 60_000)
      windows = for n <- 11..0//-1, do: {start_ms + n * 60_000, start_ms + (n + 1) * 60_000}
      assert Host.visitors([], [site.id], windows) == {:ok, %{site.id => Enum.to_list(11..0//-1)}}
      assert Host.visitors([], [site.id], []) == {:ok, %{site.id => []}}
    end

    test "come from the top sources and pages; direct visits are no source", %{site: site} = context do
      now_ms = now_ms()

      for {source, page, count} <- [
            {"Google", "/a", 5},
            {"Hacker News", "/b", 4},
            {"Reddit", "/c", 3},
            {"Bing", "/d", 2},
            {"", "/", 9}
          ],
          do: visits!(context, count, now_ms, %{referrer_source: source, pathname: page})

      assert {:ok, %{sources: sources, pages: pages}} =
               Host.breakdown([], site.id, {now_ms - 300_000, now_ms + 1_000}, 3)

      assert sources == [
               %{name: "Google", visitors: 5},
               %{name: "Hacker News", visitors: 4},
               %{name: "Reddit", visitors: 3}
             ]

      assert Enum.map(pages, & &1.path) == ["/", "/a", "/b"]
    end
  end

  describe "alerts" do
    setup context do
      webhook!(context, "/alert", events: ["traffic.spike"], spike_threshold: 10)
      visits!(context, 12)
      %{team: team_of(context.site)}
    end

    test "are not sent for a locked team", context do
      change!(context.team, locked: true)
      evaluate!(context)
      assert log(context) == []

      change!(context.team, locked: false)
      evaluate!(context)
      bodies(context, "/alert", 1)
    end

    test "are not sent while traffic is refused", context do
      change!(context.team, accept_traffic_until: Date.utc_today())
      evaluate!(context)
      assert log(context) == []

      change!(context.team, accept_traffic_until: Date.add(Date.utc_today(), 1))
      evaluate!(context)
      bodies(context, "/alert", 1)
    end
  end

  # What this version of Plausible does not have is not tested.
  if enterprise?() and goal_props?() do
    describe "what the plan or the owner hides" do
      setup context do
        goal!(context, %{event_name: "Purchase", currency: "EUR"})

        goal!(context, %{
          event_name: "Purchase",
          display_name: "Growth purchase",
          custom_props: %{"plan" => "growth"}
        })

        webhook!(context, "/hook", events: ["goal.completed"])
        :ok
      end

      test "a trial shows everything", context do
        everything = ["email", "plan"]

        assert purchase(context, 2) == [
                 {"Growth purchase", everything, true},
                 {"Purchase", everything, true}
               ]
      end

      test "a plan without custom properties and revenue hides both", context do
        Plausible.Factory.insert(:growth_subscription, team: team_of(context.site))
        change!(team_of(context.site), trial_expiry_date: Date.add(Date.utc_today(), -1))
        :ok = Webhooks.goals_changed(context.site.id)
        assert purchase(context, 1) == [{"Purchase", [], false}]
      end

      test "a property that the owner does not show is not sent", context do
        change!(context.site, allowed_event_props: ["author", "plan"])
        :ok = Webhooks.goals_changed(context.site.id)
        assert [{"Growth purchase", ["plan"], true}, {"Purchase", ["plan"], true}] = purchase(context, 2)
      end

      # The bodies of one purchase, as `{goal, properties, revenue?}`.
      defp purchase(context, count) do
        before = HttpReceiver.count(context.receiver, "/hook")

        track(context, "Purchase",
          props: %{"plan" => "growth", "email" => "eva@example.com"},
          revenue: %{"amount" => "49.00", "currency" => "EUR"}
        )

        context
        |> bodies("/hook", before + count)
        |> Enum.drop(before)
        |> Enum.map(fn %{"data" => %{"goal" => goal, "completion" => completion}} ->
          {goal["name"], Enum.sort(Map.keys(completion["props"])), completion["revenue"] != nil}
        end)
        |> Enum.sort()
      end
    end
  end

  if enterprise?() and Code.ensure_loaded?(Plausible.ConsolidatedView) do
    test "a consolidated view has no webhooks and no alerts", context do
      team = team_of(context.site)
      Plausible.Webhooks.Test.PlausibleHost.site!(team)
      view = Plausible.Teams.Test.new_consolidated_view(team)
      assert [%{id: id}] = Host.alert_sites([], [view.id, context.site.id])
      assert id == context.site.id
      refute Host.can?([], context.user, :manage, view.id)
    end
  end

  if enterprise?() and Code.ensure_loaded?(Plausible.Audit.Entry) do
    test "the audit log records every change without secrets", context do
      webhook = webhook!(context, "/hook?token=s3cr3t", events: ["goal.completed"], name: "CRM")
      {:ok, _} = rotate_secret(context, webhook.id, 0)
      :ok = delete_webhook(context, webhook.id)

      entries =
        Plausible.Audit.Entry
        |> Plausible.Repo.all()
        |> Enum.filter(&(&1.entity_id == webhook.id))

      assert Enum.sort(Enum.map(entries, & &1.name)) ==
               Enum.sort(~w(webhook_created webhook_secret_revealed webhook_secret_rotated webhook_deleted))

      for entry <- entries do
        assert entry.user_id == context.user.id
        refute inspect(entry) =~ "s3cr3t"
        refute inspect(entry) =~ "whsec_"
      end
    end
  end

  test "the owners get an e-mail when a webhook is disabled", context do
    goal!(context, %{event_name: "Signup"})
    webhook!(context, "/gone", events: ["goal.completed"], name: "<b>CRM</b>")
    HttpReceiver.script(context.receiver, "/gone", [410])
    track(context, "Signup")

    assert_receive {:delivered_email, mail}, 20_000
    assert mail.subject =~ context.site.domain
    assert mail.text_body =~ "410"
    assert mail.text_body =~ "/settings/webhooks"
  end

  test "webhooks start after the Repo and stop after the endpoint" do
    ids = for {id, _pid, _type, _modules} <- Supervisor.which_children(Plausible.Supervisor), do: id
    position = fn id -> Enum.find_index(ids, &(&1 == id)) end
    endpoint = Enum.find([PlausibleWeb.Endpoint, SiteEncrypt.Phoenix], position)
    # which_children/1 lists the last child first.
    if endpoint, do: assert(position.(endpoint) < position.(Plausible.Webhooks))
    assert position.(Plausible.Webhooks) < position.(Plausible.Repo)
  end

  test "the sidebar has the entry only where webhooks are configured", context do
    conn = %{assigns: %{site: context.site, site_role: :owner, current_user: context.user, current_team: nil}}
    sidebar = fn -> for %{key: key} <- PlausibleWeb.LayoutView.site_settings_sidebar(conn), do: key end
    with_webhooks = sidebar.()
    configured = Application.fetch_env!(:plausible, Plausible.Webhooks)
    on_exit(fn -> Application.put_env(:plausible, Plausible.Webhooks, configured) end)
    Application.put_env(:plausible, Plausible.Webhooks, nil)
    assert with_webhooks -- sidebar.() == ["Webhooks"]
  end
end
