# The functions of Plausible that the adapter calls, by name. Each one tells the test that
# it was called and answers what the test has set; none imitates Plausible. That the names
# and the answers are Plausible's own, the tests on its real tree show.
defmodule Plausible.Webhooks.Host.PlausibleTest.Answers do
  def set(module, function, answer), do: Process.put({module, function}, answer)

  def answer(module, function, arguments) do
    send(self(), {:called, module, function, arguments})

    case Process.get({module, function}) do
      fun when is_function(fun) -> apply(fun, arguments)
      answer -> answer
    end
  end
end

for {module, functions} <- [
      {Plausible.Audit.Entry, new: 3, include_change: 2, persist!: 1},
      {Plausible.Auth, is_super_admin?: 1},
      {Plausible.Billing.Feature.Props, check_availability: 1},
      {Plausible.Billing.Feature.RevenueGoals, check_availability: 1},
      {Plausible.ClickhouseRepo, all: 2},
      {Plausible.Goals, for_site: 2},
      {Plausible.Mailer, send: 1},
      {Plausible.Props, allowed_for: 1},
      {Plausible.RateLimit, check_rate: 3},
      {Plausible.Repo, all: 1, get: 2, preload: 2},
      {Plausible.Sites, get_by_domain: 1, regular?: 1},
      {Plausible.Teams.Memberships, site_role: 2},
      {PlausibleWeb.Email, base_email: 1},
      {PlausibleWeb.Endpoint, url: 0, path: 1},
      {PlausibleWeb.UserAuth, get_user_session: 1}
    ] do
  defmodule module do
    for {name, arity} <- functions, arguments = Macro.generate_arguments(arity, module) do
      def unquote(name)(unquote_splicing(arguments)) do
        Plausible.Webhooks.Host.PlausibleTest.Answers.answer(
          __MODULE__,
          unquote(name),
          unquote(arguments)
        )
      end
    end
  end
end

for {module, fields} <- [
      {Plausible.Site, [:id, :domain, :timezone, :native_stats_start_at, :inserted_at]},
      {Plausible.Teams.Team, [:id, :locked, :accept_traffic_until]}
    ] do
  defmodule module do
    def __schema__(:fields), do: unquote(fields)
    def __schema__(_source_or_prefix), do: nil
  end
end

defmodule Plausible.Webhooks.Host.PlausibleTest do
  # What the adapter makes of Plausible's answers.
  use ExUnit.Case, async: true

  import Plausible.Webhooks.Host.PlausibleTest.Answers, only: [set: 3]

  alias Plausible.Billing.Feature
  alias Plausible.Webhooks.Host.Plausible, as: Host
  alias Plausible.Webhooks.Webhook

  @team %{locked: false, accept_traffic_until: nil, identifier: "team-1"}
  @site %{
    id: 7,
    domain: "example.com/blog",
    timezone: "Europe/Tallinn",
    native_stats_start_at: ~N[2020-01-01 00:00:00],
    inserted_at: ~N[2025-01-01 00:00:00],
    team_id: 3,
    team: @team,
    owners: [%{email: "owner@example.com"}]
  }

  setup do
    site!(@site)
    set(Plausible.Repo, :preload, fn record, _association -> record end)
    set(Plausible.Sites, :regular?, true)
    set(Plausible.Props, :allowed_for, :all)

    for feature <- [Feature.Props, Feature.RevenueGoals],
        do: set(feature, :check_availability, :ok)

    set(PlausibleWeb.Endpoint, :url, "https://plausible.test")
    set(PlausibleWeb.Endpoint, :path, & &1)
    :ok
  end

  defp site!(site) do
    get = fn Plausible.Site, id -> if site && id == site.id, do: site end
    set(Plausible.Repo, :get, get)
  end

  defp team!(changes), do: site!(%{@site | team: Map.merge(@team, changes)})

  test "a site comes with what its webhooks may send" do
    facts = %{
      id: 7,
      domain: "example.com/blog",
      timezone: "Europe/Tallinn",
      stats_start_at_ms: 1_577_836_800_000,
      events: true,
      props: :all,
      revenue: true
    }

    assert Host.site([], 7) == facts
    set(Plausible.Sites, :get_by_domain, @site)
    assert Host.site_by_domain([], @site.domain) == facts
    assert Host.site([], 8) == nil

    team!(%{locked: true})
    set(Plausible.Props, :allowed_for, ["url"])
    set(Feature.RevenueGoals, :check_availability, {:error, :upgrade_required})
    assert %{events: false, props: ["url"], revenue: false} = Host.site([], 7)

    site!(%{@site | native_stats_start_at: nil, team: nil})
    assert %{events: true, stats_start_at_ms: 1_735_689_600_000} = Host.site([], 7)
  end

  test "goals have a name, and those with custom properties need the feature" do
    goal = %{
      id: 1,
      display_name: nil,
      event_name: nil,
      page_path: "/a",
      scroll_threshold: nil,
      custom_props: nil,
      currency: :EUR
    }

    set(Plausible.Goals, :for_site, [goal, %{goal | event_name: "A", display_name: "B"}])
    assert [%{name: "Visit /a", currency: "EUR"} = first, %{name: "B"}] = Host.goals([], 7)
    assert %{scroll_threshold: -1, custom_props: %{}} = first
    assert_received {:called, _, :for_site, [@site, [include_goals_with_custom_props?: true]]}

    set(Feature.Props, :check_availability, {:error, :upgrade_required})
    Host.goals([], 7)
    assert_received {:called, _, :for_site, [@site, [include_goals_with_custom_props?: false]]}
    assert Host.goals([], 8) == []
  end

  test "fields that Plausible of 2025 lacks are no fault" do
    goal = %{id: 1, display_name: nil, event_name: "Signup", page_path: nil, currency: nil}
    set(Plausible.Goals, :for_site, [goal])
    assert [%{scroll_threshold: -1, custom_props: props}] = Host.goals([], 7)
    assert props == %{}

    for locked? <- [true, false] do
      site!(@site |> Map.put(:locked, locked?) |> Map.put(:team, %{}))
      assert %{events: events?} = Host.site([], 7)
      assert events? == not locked?
    end
  end

  describe "visitors" do
    test "of many windows come in their order, eight to a query" do
      row = Map.new(0..7, &{:"w#{&1}", &1}) |> Map.put(:site_id, 7)
      set(Plausible.ClickhouseRepo, :all, fn _query, _options -> [row] end)
      windows = for n <- 0..9, do: {n * 1_000, (n + 1) * 1_000}
      counts = %{7 => [0, 1, 2, 3, 4, 5, 6, 7, 0, 1], 8 => List.duplicate(0, 10)}
      assert Host.visitors([], [8, 7], windows) == {:ok, counts}
      assert_received {:called, _, :all, [_, [timeout: 9_000, checkout_retries: 0]]}
      assert Host.visitors([], [7], []) == {:ok, %{7 => []}}
    end

    test "include the whole second in which a window begins or ends" do
      set(Plausible.ClickhouseRepo, :all, fn query, _options ->
        text = inspect(query)
        assert text =~ "~N[2026-01-05 10:00:00]" and text =~ "~N[2026-01-05 10:00:02]"
        assert text =~ ~s(e0.name != "engagement")
        [%{site_id: 7, w0: 2}]
      end)

      window = {1_767_607_200_500, 1_767_607_201_500}
      assert Host.visitors([], [7], [window]) == {:ok, %{7 => [2]}}
    end

    test "that cannot be read are an error" do
      set(Plausible.ClickhouseRepo, :all, fn _query, _options -> raise "away" end)
      assert Host.visitors([], [7], [{0, 1}]) == {:error, RuntimeError}
      assert Host.breakdown([], 7, {0, 1}, 3) == {:error, RuntimeError}
    end
  end

  test "alerts have the same conditions as Plausible's e-mails" do
    today = Date.utc_today()
    facts = Map.take(Host.site([], 7), [:id, :domain, :timezone, :stats_start_at_ms])

    for {changes, allowed?} <- [
          {%{}, true},
          {%{locked: true}, false},
          {%{accept_traffic_until: today}, false},
          {%{accept_traffic_until: Date.add(today, 1)}, true}
        ] do
      set(Plausible.Repo, :all, [%{@site | team: Map.merge(@team, changes)}])
      assert Host.alert_sites([], [7, 8]) == if(allowed?, do: [facts], else: [])
    end

    set(Plausible.Repo, :all, [@site])
    set(Plausible.Sites, :regular?, false)
    assert Host.alert_sites([], [7]) == []
  end

  test "owners, admins, editors and super admins manage, others see nothing" do
    set(Plausible.Auth, :is_super_admin?, false)

    can? = fn ->
      for action <- [:read, :manage], uniq: true, do: Host.can?([], %{id: 1}, action, 7)
    end

    # The role came alone in older versions.
    for role <- [:owner, :admin, :editor, :viewer, :billing],
        answer <- [{:ok, {:team_member, role}}, {:ok, {:guest_member, role}}, {:ok, role}] do
      set(Plausible.Teams.Memberships, :site_role, answer)
      assert can?.() == [role in [:owner, :admin, :editor]]
    end

    set(Plausible.Teams.Memberships, :site_role, {:error, :not_a_member})
    assert can?.() == [false]
    set(Plausible.Auth, :is_super_admin?, true)
    assert can?.() == [true]
    refute Host.can?([], %{id: 1}, :read, 8)
    refute Host.can?([available?: &(&1.id == 8)], %{id: 1}, :read, 7)
    for user <- [nil, "owner", %{id: nil}], do: refute(Host.can?([], user, :read, 7))
    assert Host.can?([], :system, :manage, 7)

    set(Plausible.Sites, :regular?, false)
    assert can?.() == [false]
  end

  test "the rate limiter returns the time until the next use" do
    set(Plausible.RateLimit, :check_rate, {:allow, 1})
    assert Host.check_rate([], "key", 60_000, 20) == :ok
    assert_received {:called, _, :check_rate, ["webhooks:key", 60_000, 20]}
    set(Plausible.RateLimit, :check_rate, {:deny, 20})
    assert {:error, ms} = Host.check_rate([], "key", 60_000, 20)
    assert ms in 1..60_000
  end

  describe "of a webhook" do
    @webhook %Webhook{
      id: "wh_1",
      site_id: 7,
      name: "CRM",
      url: "https://example.com/hook?token=s3cr3t",
      headers: [{"authorization", "Bearer s3cr3t"}]
    }

    test "that was disabled its owners get an e-mail" do
      set(PlausibleWeb.Email, :base_email, %{layout: nil, to: nil, subject: nil, text_body: nil})
      assert Host.webhook_disabled([], @webhook, :gone) == :ok
      assert_received {:called, Plausible.Mailer, :send, [mail]}
      assert %{to: "owner@example.com", subject: "A webhook of example.com/blog" <> _} = mail
      assert mail.text_body =~ ~s("CRM" to example.com)
      assert mail.text_body =~ "410 Gone"
      assert mail.text_body =~ "/example.com%2Fblog/settings/webhooks/wh_1?__team=team-1"
      refute mail.text_body =~ "s3cr3t"
    end

    test "each change is in the audit log, without secrets" do
      set(Plausible.Audit.Entry, :new, fn name, %Webhook{}, who -> %{name: name, who: who} end)
      set(Plausible.Audit.Entry, :include_change, &Map.put(&1, :change, &2))
      assert Host.audit([], %{id: 5}, :webhook_updated, @webhook) == :ok
      assert_received {:called, Plausible.Audit.Entry, :persist!, [entry]}
      assert %{name: "webhook_updated", who: %{user_id: 5, team_id: 3}} = entry
      assert %{host: "example.com", header_names: ["authorization"]} = entry.change
      refute inspect(entry) =~ "s3cr3t"
      assert Host.audit([], :system, :webhook_deleted, %{@webhook | site_id: 8}) == :ok
    end
  end

  test "a link names the site in one part, and its team" do
    assert Host.dashboard_url([], 7) == "https://plausible.test/example.com%2Fblog?__team=team-1"
    assert Host.dashboard_url([], 8) == nil
    team!(%{identifier: nil})
    assert Host.dashboard_url([], 7) == "https://plausible.test/example.com%2Fblog"
  end

  test "the page gets its site, and its user from Plausible's session" do
    conn = %Plug.Conn{
      assigns: %{site: @site},
      path_info: ["example.com%2Fblog", "settings", "webhooks", "wh_1", "edit"],
      path_params: %{"view" => ["wh_1", "edit"]}
    }

    # Switched off.
    assert_raise PlausibleWeb.Live.WebhookSettings.NotFound, fn -> Host.page(conn) end
    Application.put_env(:plausible, Plausible.Webhooks, [])
    on_exit(fn -> Application.delete_env(:plausible, Plausible.Webhooks) end)

    assert %{assigns: %{webhooks_session: %{"site_id" => 7} = session}} = page = Host.page(conn)
    # Where Plausible looks for the entry of the sidebar.
    assert List.last(page.path_info) == "webhooks"
    set(PlausibleWeb.UserAuth, :get_user_session, {:ok, %{user: %{id: 5}}})
    assert Host.actor(session, nil) == {:ok, %{id: 5}}
    set(PlausibleWeb.UserAuth, :get_user_session, {:error, :no_valid_token})
    assert Host.actor(session, nil) == :error
  end

  test "given options override the configuration, which overrides the defaults" do
    Application.put_env(:plausible, Plausible.Webhooks, retention_ms: 1, drain_ms: 2)
    on_exit(fn -> Application.delete_env(:plausible, Plausible.Webhooks) end)
    options = Host.options(retention_ms: 60_000, available?: &is_map/1)
    assert {options[:retention_ms], options[:drain_ms]} == {60_000, 2}
    assert {Plausible.Webhooks.Store.Ecto, [repo: Plausible.Repo]} = options[:store]
    assert {Host, [available?: _]} = options[:host]
  end
end
