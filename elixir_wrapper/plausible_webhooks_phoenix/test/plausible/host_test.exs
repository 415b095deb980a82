defmodule Plausible.Webhooks.Plausible.HostTest do
  # What the adapter asks of Plausible, and what Plausible's own functions say.
  use Plausible.Webhooks.Test.PlausibleCase, async: false

  alias Plausible.Webhooks.Host.Plausible, as: Host

  @compile {:no_warn_undefined,
            [
              Plausible.Audit.Entry,
              Plausible.ClickhouseRepo,
              Plausible.Goals,
              Plausible.Mailer,
              Plausible.Repo,
              Plausible.Site,
              Plausible.Stats.Clickhouse,
              Plausible.Teams.Team
            ]}

  setup_all do: plausible!(options: [retry_delays_ms: [20, 20, 20], jitter_percent: 0])

  describe "sites and goals" do
    test "a site is known by id and by domain; what is none is nil", %{site: site} do
      facts = Host.site([], site.id)
      assert %{domain: domain, timezone: "Etc/UTC"} = facts
      assert domain == site.domain
      assert facts.stats_start_at_ms == 1_577_836_800_000
      assert %{events: true, props: :all, revenue: true} = facts
      assert Host.site_by_domain([], site.domain) == facts
      assert Host.site([], site.id + 1_000_000) == nil
      assert Host.site_by_domain([], "elsewhere.example") == nil
      assert Host.goals([], site.id + 1_000_000) == []
    end

    test "goals of every kind come as they are kept", %{site: site} do
      purchase = goal!(site, %{"event_name" => "Purchase", "currency" => "EUR"})

      scroll =
        goal!(site, %{
          "page_path" => "/docs/**",
          "scroll_threshold" => 75,
          "display_name" => "Reads",
          "custom_props" => %{"plan" => "growth"}
        })

      assert Enum.sort_by(Host.goals([], site.id), & &1.id) == [
               %{
                 id: purchase.id,
                 name: "Purchase",
                 event_name: "Purchase",
                 page_path: nil,
                 scroll_threshold: -1,
                 custom_props: %{},
                 currency: "EUR"
               },
               %{
                 id: scroll.id,
                 name: "Reads",
                 event_name: nil,
                 page_path: "/docs/**",
                 scroll_threshold: 75,
                 custom_props: %{"plan" => "growth"},
                 currency: nil
               }
             ]
    end

    test "a goal that is made, changed or deleted counts from then on", context do
      webhook!(context, "/goals", events: ["goal.completed"])
      track(context.site, "Signup")

      goal = goal!(context.site, %{"event_name" => "Signup"})
      track(context.site, "Signup")
      assert [%{"data" => %{"goal" => %{"name" => "Signup"}}}] = received(context, "/goals", 1)

      {:ok, goal} = Plausible.Goals.update(goal, %{"display_name" => "Registration"})
      track(context.site, "Signup")
      assert [_, %{"data" => %{"goal" => goal_told}}] = received(context, "/goals", 2)
      assert goal_told["name"] == "Registration"

      :ok = Plausible.Goals.delete(goal.id, context.site)
      track(context.site, "Signup")

      # By every other way to a goal.
      Plausible.Goals.batch_create_event_goals(["Batch"], context.site)
      Plausible.Goals.create_outbound_links(context.site)

      {:ok, _} =
        Plausible.Goals.find_or_create(context.site, %{
          "goal_type" => "event",
          "event_name" => "Found"
        })

      for name <- ["Batch", "Outbound Link: Click", "Found"], do: track(context.site, name)
      names = for body <- received(context, "/goals", 5), do: body["data"]["goal"]["name"]
      assert Enum.sort(Enum.drop(names, 2)) == ["Batch", "Found", "Outbound Link: Click"]

      Plausible.Goals.delete_outbound_links(context.site)
      track(context.site, "Outbound Link: Click")
      Process.sleep(200)
      assert HttpReceiver.count(context.receiver, "/goals") == 5
    end
  end

  describe "visitors" do
    test "are those that Plausible counts", %{site: site} do
      now = NaiveDateTime.utc_now()
      visits!(site, 7, now)
      visits!(site, 5, NaiveDateTime.add(now, -200), %{user_id: 77})
      visits!(site, 3, NaiveDateTime.add(now, -3_600))
      visits!(site, 2, NaiveDateTime.add(now, -13 * 3_600))
      visits!(site, 9, now, %{name: "engagement"})
      visits!(site, 4, now, %{site_id: site.id + 1_000_000})

      now_ms = System.system_time(:millisecond)

      assert {:ok, [five_minutes, twelve_hours]} =
               Host.visitors([], site.id, [
                 {now_ms - 300_000, now_ms},
                 {now_ms - 43_200_000, now_ms}
               ])

      assert five_minutes == Plausible.Stats.Clickhouse.current_visitors(site)
      assert twelve_hours == Plausible.Stats.Clickhouse.current_visitors_12h(site)
      assert {five_minutes, twelve_hours} == {8, 11}
    end

    test "of many windows come in their order, each its own", %{site: site} do
      at = ~N[2026-01-05 10:00:00]
      for n <- 0..11, do: visits!(site, n, NaiveDateTime.add(at, n * 60))
      start_ms = DateTime.to_unix(DateTime.from_naive!(at, "Etc/UTC"), :millisecond)
      windows = for n <- 11..0//-1, do: {start_ms + n * 60_000, start_ms + (n + 1) * 60_000}
      assert Host.visitors([], site.id, windows) == {:ok, Enum.to_list(11..0//-1)}
      assert Host.visitors([], site.id, []) == {:ok, []}
    end

    test "a second that has begun belongs to the window", %{site: site} do
      visits!(site, 1, ~N[2026-01-05 10:00:00])
      visits!(site, 1, ~N[2026-01-05 10:00:01])
      visits!(site, 1, ~N[2026-01-05 10:00:02])
      from_ms = 1_767_607_200_500
      assert {:ok, [2]} = Host.visitors([], site.id, [{from_ms, from_ms + 1_000}])
      assert {:ok, [1]} = Host.visitors([], site.id, [{from_ms, from_ms + 500}])
    end

    test "of a consolidated view are those of its sites, of no site an error", context do
      team = Plausible.Repo.preload(context.site, :team).team
      view = site!(team, consolidated: true)
      visits!(context.site, 3)
      visits!(site!(team), 4)
      now_ms = System.system_time(:millisecond)
      assert Host.visitors([], view.id, [{now_ms - 300_000, now_ms}]) == {:ok, [7]}
      assert {:error, :no_site} = Host.visitors([], view.id + 1_000_000, [{0, 1}])
    end

    test "that cannot be counted are an error, not a crash", context do
      Plausible.ClickhouseRepo.query!("ALTER TABLE events_v2 RENAME TO away", [], log: false)

      try do
        assert {:error, Postgrex.Error} = Host.visitors([], context.site.id, [{0, 1_000}])
        assert {:error, Postgrex.Error} = Host.breakdown([], context.site.id, {0, 1_000}, 3)
      after
        Plausible.ClickhouseRepo.query!("ALTER TABLE away RENAME TO events_v2", [], log: false)
      end
    end

    test "top sources and pages are the best ones, without direct visits", %{site: site} do
      now = NaiveDateTime.utc_now()

      for {source, page, count} <- [
            {"Google", "/a", 5},
            {"Hacker News", "/b", 4},
            {"Reddit", "/c", 3},
            {"Bing", "/d", 2},
            {"", "/", 9}
          ],
          do: visits!(site, count, now, %{referrer_source: source, pathname: page})

      visits!(site, 20, now, %{name: "Signup", pathname: "/signup"})
      now_ms = System.system_time(:millisecond)

      assert Host.breakdown([], site.id, {now_ms - 300_000, now_ms}, 3) ==
               {:ok,
                %{
                  sources: [
                    %{name: "Google", visitors: 5},
                    %{name: "Hacker News", visitors: 4},
                    %{name: "Reddit", visitors: 3}
                  ],
                  pages: [
                    %{path: "/", visitors: 9},
                    %{path: "/a", visitors: 5},
                    %{path: "/b", visitors: 4}
                  ]
                }}
    end
  end

  describe "alerts, as the e-mail notifier has it," do
    setup context do
      webhook!(context, "/alert", events: ["traffic.spike"], spike_threshold: 10)
      visits!(context.site, 12)
      %{team: Plausible.Repo.preload(context.site, :team).team}
    end

    test "are not for the sites of a locked team", context do
      change!(context.team, locked: true)
      evaluate!()
      refute_received_at(context, "/alert")

      change!(context.team, locked: false)
      evaluate!()
      received(context, "/alert", 1)
    end

    test "are not where traffic is refused", context do
      change!(context.team, accept_traffic_until: Date.utc_today())
      evaluate!()
      refute_received_at(context, "/alert")

      change!(context.team, accept_traffic_until: Date.add(Date.utc_today(), 1))
      evaluate!()
      received(context, "/alert", 1)
    end

    test "are for a consolidated view when it may be shown", context do
      view = site!(context.team, consolidated: true)
      refute Host.alerts_allowed?([], view.id)
      site!(context.team)
      assert Host.alerts_allowed?([], view.id)
      refute Host.alerts_allowed?([], view.id + 1_000_000)
    end

    defp change!(team, fields),
      do:
        team
        |> Plausible.Repo.reload!()
        |> Ecto.Changeset.change(fields)
        |> Plausible.Repo.update!()
  end

  describe "permissions" do
    test "a consolidated view has no webhooks", context do
      view = site!(%{id: context.site.team_id}, consolidated: true)
      refute Host.can?([], context.owner, :manage, view.id)
      refute Host.can?([], context.owner, :read, view.id)
      refute Host.can?([], context.owner, :manage, view.id + 1_000_000)
    end

    test "a plan without webhooks has none to see", context do
      assert Host.can?(
               [available?: fn _site -> true end],
               context.owner,
               :manage,
               context.site.id
             )

      refute Host.can?([available?: fn _site -> false end], context.owner, :read, context.site.id)

      only = [available?: &(&1.domain == context.site.domain)]
      assert Host.can?(only, context.owner, :manage, context.site.id)
    end
  end

  describe "what Plausible is told" do
    test "every change is in the audit log, without secrets", context do
      webhook = webhook!(context, "/hook?token=s3cr3t", events: ["goal.completed"], name: "CRM")
      headers = %{"authorization" => "Bearer s3cr3t"}
      attributes = %{headers: headers}

      {:ok, _} = Webhooks.update_webhook(context.owner, context.site.id, webhook.id, attributes)

      {:ok, _} = Webhooks.rotate_secret(context.owner, context.site.id, webhook.id, 0)
      :ok = Webhooks.delete_webhook(context.owner, context.site.id, webhook.id)

      entries =
        Plausible.Audit.Entry
        |> Plausible.Repo.all()
        |> Enum.filter(&(&1.entity_id == webhook.id))
        |> Enum.sort_by(& &1.datetime, NaiveDateTime)

      assert Enum.map(entries, & &1.name) ==
               ~w(webhook_created webhook_secret_revealed webhook_updated
                  webhook_secret_rotated webhook_deleted)

      for entry <- entries do
        assert entry.entity == "Plausible.Webhooks.Webhook"
        assert {entry.actor_type, entry.user_id} == {:user, context.owner.id}
        assert entry.team_id == context.site.team_id
        assert %{"name" => "CRM", "host" => "127.0.0.1"} = entry.change
        refute inspect(entry) =~ "s3cr3t"
        refute inspect(entry) =~ "whsec_"
      end

      assert List.last(entries).change["header_names"] == ["authorization"]
    end

    test "the owners get an e-mail when a webhook is switched off", context do
      goal!(context.site, %{"event_name" => "Signup"})
      webhook!(context, "/gone", events: ["goal.completed"], name: "<b>CRM</b>")
      HttpReceiver.script(context.receiver, "/gone", [410])
      track(context.site, "Signup")

      mail =
        eventually(fn ->
          Enum.find(Plausible.Mailer.sent(), &(&1.to == context.owner.email))
        end)

      assert mail.subject == "A webhook of #{context.site.domain} was switched off"
      assert mail.text_body =~ ~s("<b>CRM</b>" to 127.0.0.1)
      assert mail.text_body =~ "410 Gone"

      assert mail.text_body =~
               "https://plausible.test/#{context.site.domain}/settings/webhooks?__team="

      assert mail.html_body == nil
    end

    test "a domain with a path is one part of the dashboard's address", context do
      site = site!(%{id: context.site.team_id}, domain: "example.com/blog-#{context.site.id}")
      url = Host.dashboard_url([], site.id)
      assert url =~ "https://plausible.test/example.com%2Fblog-#{context.site.id}?__team="
      assert Host.dashboard_url([], site.id + 1_000_000) == nil
    end
  end

  describe "as a child of Plausible's supervisor" do
    test "what is given wins over the configuration, that over the defaults" do
      options = Host.options(retention_ms: 60_000, available?: &is_map/1)
      assert options[:retention_ms] == 60_000
      assert options[:retry_delays_ms] == [20, 20, 20]
      assert {Plausible.Webhooks.Store.Ecto, [repo: Plausible.Repo]} = options[:store]
      assert {Host, [available?: available?]} = options[:host]
      assert available?.(%{})
    end

    # The PubSub is above it, the endpoint below: it is there for the last request.
    test "it stops after the endpoint and before the Repo" do
      ids =
        for {id, _pid, _type, _modules} <- Supervisor.which_children(Plausible.Supervisor), do: id

      position = fn id -> Enum.find_index(ids, &(&1 == id)) end
      # which_children/1 lists the last one first.
      assert position.(PlausibleWeb.Endpoint) < position.(Plausible.Webhooks)
      assert position.(Plausible.Webhooks) < position.(Plausible.Repo)
    end
  end
end
