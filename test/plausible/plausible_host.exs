defmodule Plausible.Webhooks.Test.PlausibleHost do
  @moduledoc false
  # The scenarios' host: the running Plausible. Its own factories make users, teams and
  # sites. Visitors send events to its endpoint.

  @behaviour Plausible.Webhooks.Scenarios.Host

  use Plausible

  import Ecto.Query
  import ExUnit.Assertions
  import ExUnit.Callbacks, only: [on_exit: 1]

  alias Plausible.Webhooks

  @impl true
  def start!(_context, _argument) do
    # Bamboo's test adapter sends each e-mail to this process.
    Application.put_env(:bamboo, :shared_test_process, self())
    owner = user!()
    site = site!(team!(owner))
    on_exit(fn -> delete_webhooks(site) end)

    %{
      name: Webhooks,
      site: site,
      user: owner,
      dashboard_url: ~r"/#{site.domain}\?__team=",
      visitor: %{"device" => "Desktop", "browser" => "Firefox", "os" => "GNU/Linux"},
      personal: ["82.34.", "Mozilla"],
      revenue?: enterprise?(),
      goal_props?: goal_props?()
    }
  end

  # An evaluation of traffic covers all sites, so a webhook must not outlive its test.
  defp delete_webhooks(site) do
    {:ok, webhooks} = Webhooks.list_webhooks(:system, site.id)
    for %{id: id} <- webhooks, do: Webhooks.delete_webhook(:system, site.id, id)
  end

  @doc "Whether this is the Enterprise Edition."
  def enterprise?, do: on_ee(do: true, else: false)

  @doc "Whether goals can ask for custom properties. Plausible of 2025 has no such goals."
  def goal_props?, do: Map.has_key?(struct(Plausible.Goal), :custom_props)

  # --- users, teams and sites

  def user!(options \\ []) do
    defaults = [
      email: "user#{unique()}@example.com",
      trial_expiry_date: Date.add(Date.utc_today(), 30)
    ]

    Plausible.Teams.Test.new_user(Keyword.merge(defaults, options))
  end

  def team!(owner), do: Plausible.Teams.Test.team_of(owner)

  @doc "A public site, so that its dashboard's API answers without a session."
  def site!(team, options \\ []) do
    defaults = [
      team: team,
      public: true,
      domain: "site#{unique()}.example.com",
      native_stats_start_at: ~N[2020-01-01 00:00:00]
    ]

    Plausible.Teams.Test.new_site(Keyword.merge(defaults, options))
  end

  def member!(team, role), do: Plausible.Teams.Test.add_member(team, user: user!(), role: role)
  def guest!(site, role), do: Plausible.Teams.Test.add_guest(site, user: user!(), role: role)
  def team_of(site), do: Plausible.Repo.preload(site, :team).team

  @doc "A connection with the user's session."
  def logged_in(user) do
    conn = Plug.Test.init_test_session(Phoenix.ConnTest.build_conn(), %{})
    conn = %{conn | secret_key_base: PlausibleWeb.Endpoint.config(:secret_key_base)}
    {:ok, conn: conn} = Plausible.TestUtils.log_in(%{conn: conn, user: user})
    conn
  end

  def change!(record, fields) do
    record
    |> Plausible.Repo.reload!()
    |> Ecto.Changeset.change(fields)
    |> Plausible.Repo.update!()
  end

  @impl true
  def other_site!(_context) do
    user = user!()
    %{user: user, site: site!(team!(user))}
  end

  @impl true
  def people!(%{site: site, user: owner} = context) do
    team = team_of(site)
    %{site: elsewhere} = other_site!(context)
    # Only the Enterprise Edition has super administrators.
    super_administrators = if enterprise?(), do: [%{user!() | id: 1_000_000}], else: []

    %{
      managers:
        [owner | super_administrators] ++
          [guest!(site, :editor), member!(team, :editor), member!(team, :admin)],
      readers: [],
      others:
        [user!(), member!(team, :viewer), member!(team, :billing), guest!(site, :viewer)] ++
          [guest!(elsewhere, :editor), nil]
    }
  end

  @impl true
  def dismiss!(%{site: site}, user) do
    team_id = team_of(site).id
    membership = from(m in Plausible.Teams.Membership, where: m.user_id == ^user.id and m.team_id == ^team_id)
    {1, _rows} = Plausible.Repo.delete_all(membership)
    :ok
  end

  # --- goals and visitors

  @impl true
  def goal!(context, goal) do
    goal = if enterprise?(), do: goal, else: Map.delete(goal, :currency)
    attributes = Map.new(goal, fn {field, value} -> {to_string(field), value} end)
    {:ok, goal} = Plausible.Goals.create(context.site, attributes)
    goal
  end

  @firefox "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"

  @impl true
  def track(context, name, fields) do
    {status, _dropped?} = ingest(context, name, fields)
    status
  end

  @doc """
  Sends a visitor's event, with the user agent `:agent`. Returns the status, and whether
  Plausible says that it drops the event.
  """
  def ingest(%{site: site}, name, fields) do
    visitor = fields[:visitor] || 1

    body = %{
      "n" => name,
      "d" => fields[:domain] || site.domain,
      "u" => "https://#{site.domain}#{fields[:path] || "/"}",
      "r" => fields[:referrer],
      "p" => fields[:props] || %{},
      "$" => fields[:revenue],
      "sd" => fields[:scroll_depth],
      "e" => fields[:scroll_depth] && 1_000
    }

    headers = [
      {~c"user-agent", to_charlist(fields[:agent] || @firefox)},
      {~c"x-forwarded-for", ~c"82.34.#{div(visitor, 250)}.#{rem(visitor, 250)}"}
    ]

    request = {~c"#{url()}/api/event", headers, ~c"text/plain", Jason.encode!(body)}
    {:ok, {{_version, status, _text}, headers, _body}} = :httpc.request(:post, request, [timeout: 10_000], [])
    {status, {~c"x-plausible-dropped", ~c"1"} in headers}
  end

  def url do
    {:ok, {_address, port}} = PlausibleWeb.Endpoint.server_info(:http)
    "http://localhost:#{port}"
  end

  @impl true
  def visits!(%{site: site}, count, at_ms, fields) do
    timestamp = at_ms |> DateTime.from_unix!(:millisecond) |> DateTime.to_naive()

    events =
      for n <- 1..count do
        defaults = %{name: "pageview", pathname: "/", user_id: unique() * 1_000 + n, timestamp: timestamp}
        Plausible.Factory.build(:event, Map.merge(defaults, fields))
      end

    Plausible.TestUtils.populate_stats(site, events)
    :ok
  end

  @impl true
  def no_visits!(%{site: site}) do
    :ok = Plausible.Event.WriteBuffer.flush()

    Plausible.IngestRepo.query!(
      "ALTER TABLE events_v2 DELETE WHERE site_id = {$0:UInt64} SETTINGS mutations_sync = 2",
      [site.id]
    )

    :ok
  end

  @impl true
  def flush!(_context) do
    :ok = Plausible.Event.WriteBuffer.flush()
    :ok = Plausible.Session.WriteBuffer.flush()
  end

  # Plausible's notifier finds the breach, sends an e-mail, and does not find it again.
  @impl true
  def breach!(%{site: site} = context, kind, %{current_visitors: count, threshold: threshold}) do
    Plausible.Factory.insert(:"#{kind}_notification",
      site: site,
      threshold: threshold,
      recipients: ["team@example.com"]
    )

    visits!(context, count, System.system_time(:millisecond), %{referrer_source: "Hacker News"})
    for _ <- 1..2, do: :ok = Plausible.Workers.TrafficChangeNotifier.perform(nil)
    assert_receive {:delivered_email, %{subject: subject}}
    assert String.downcase(subject) =~ to_string(kind)
    refute_received {:delivered_email, _mail}
    :ok
  end

  @doc "Conversions by goal, from the dashboard's API."
  def conversions(%{site: site} = context) do
    :ok = flush!(context)
    request = {~c"#{url()}/api/stats/#{site.domain}/conversions?period=day", []}
    {:ok, {{_version, 200, _text}, _headers, body}} = :httpc.request(:get, request, [], body_format: :binary)
    for row <- Jason.decode!(body)["results"], into: %{}, do: {row["name"], row["events"]}
  end

  # Unique in the database too, which may hold rows of an earlier VM.
  defp unique, do: System.unique_integer([:positive]) + System.os_time(:second) * 1_000
end
