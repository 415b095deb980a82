defmodule Plausible.Webhooks.Host.Plausible do
  @moduledoc """
  Plausible Analytics as the host: its sites, goals, visitors, permissions, audit log,
  rate limiter, mailer and dashboard. Every function of Plausible that this package calls is
  called here; `docs/plausible.md` lists each one with its file.

      # lib/plausible/application.ex, after PubSub and before the endpoint
      {Plausible.Webhooks, Plausible.Webhooks.Host.Plausible.options()}

  `options/1` returns the options of an instance on `Plausible.Repo`. As a single option of
  `Plausible.Webhooks`: `host: {Plausible.Webhooks.Host.Plausible, []}`. The list may hold:

    * `:available?` - a function that says whether the plan of a `Plausible.Site` includes
      webhooks. If it does not, nobody may see or change webhooks; existing ones still send.
      Default: every plan includes webhooks.

  ## Permissions

  Owners, admins and editors of the site or its team, guests who are editors, and super
  admins manage webhooks and read the log. Everybody else, including viewers, sees nothing.
  A consolidated view has no webhooks, because it receives no events.

  ## What a webhook sends

  Only what Plausible's dashboard and API show of the site:

    * no goals while the team is locked;
    * goals with custom properties only if the plan includes them, as
      `Plausible.Stats.Goals` loads them;
    * the custom properties that `Plausible.Props.allowed_for/1` returns, by the plan and by
      the site's `allowed_event_props`;
    * revenue only if the plan includes revenue goals.

  The plan of the Community Edition includes everything; a list of allowed properties
  applies there as well. Plausible does not announce changes of plans and allowed properties.
  Such a change takes effect when the site is read again (see
  `t:Plausible.Webhooks.Host.site/0`), or with `Plausible.Webhooks.goals_changed(site.id)`.

  ## Visitors

  One query of `events_v2` for all sites and windows counts what
  `Plausible.Stats.CurrentVisitors` counts: distinct `user_id`, without engagement events. As
  there, a window begins with a whole second.
  """

  @behaviour Plausible.Webhooks.Host
  @behaviour PlausibleWeb.Live.WebhookSettings.Auth

  import Ecto.Query, only: [dynamic: 2, from: 2]

  alias Plausible.Billing.Feature
  alias Plausible.Webhooks.{Cluster, Store, Telemetry, Updates, Webhook}
  alias Plausible.Webhooks.Host.Plausible.Email

  require Logger

  # Plausible compiles after this package.
  @compile {:no_warn_undefined,
            [
              Plausible.Audit.Entry,
              Plausible.Auth,
              Plausible.Billing.Feature.Props,
              Plausible.Billing.Feature.RevenueGoals,
              Plausible.ClickhouseRepo,
              Plausible.Goals,
              Plausible.Props,
              Plausible.RateLimit,
              Plausible.Repo,
              Plausible.Site,
              Plausible.Sites,
              Plausible.Teams.Memberships,
              PlausibleWeb.Endpoint,
              PlausibleWeb.UserAuth
            ]}

  @managers [:owner, :admin, :editor]
  # A query that has taken too long is not sent again: DBConnection would do so three times.
  @query_options [timeout: 9_000, checkout_retries: 0]
  # The windows of one query: the fields of a dynamic map need existing atoms.
  @columns [:w0, :w1, :w2, :w3, :w4, :w5, :w6, :w7]

  # --- as a child of Plausible's supervisor

  @doc """
  The options of `Plausible.Webhooks` for Plausible: its Repo for the store, its PubSub for
  other nodes and for the settings page. `config :plausible, Plausible.Webhooks`
  (`Plausible.Webhooks.Host.Plausible.Config`) overrides them, and `overrides` overrides
  both. `:available?` is an option of the host (see above), every other key one of
  `Plausible.Webhooks.Options`.

      {Plausible.Webhooks, Plausible.Webhooks.Host.Plausible.options()}
  """
  @spec options(keyword()) :: keyword()
  def options(overrides \\ []) do
    configured = Application.get_env(:plausible, Plausible.Webhooks) || []
    {host, given} = configured |> Keyword.merge(overrides) |> Keyword.split([:available?])

    Keyword.merge(
      [
        store: {Store.Ecto, repo: Plausible.Repo},
        host: {__MODULE__, host},
        cluster: {Cluster.PubSub, pubsub: Plausible.PubSub},
        observers: [{Telemetry, []}, {Updates, pubsub: Plausible.PubSub}]
      ],
      given
    )
  end

  # --- sites and goals

  @impl true
  def site(_argument, site_id) do
    with %{} = site <- find(site_id), do: facts(site)
  end

  @impl true
  def site_by_domain(_argument, domain) do
    with %{} = site <- Plausible.Sites.get_by_domain(domain), do: facts(site)
  end

  defp find(site_id), do: Plausible.Repo.get(Plausible.Site, site_id)

  defp facts(site) do
    site = with_team(site)

    Map.merge(alert_site(site), %{
      events: not locked?(site),
      props: Plausible.Props.allowed_for(site),
      revenue: has?(Feature.RevenueGoals, site.team)
    })
  end

  # A reset of the site moves native_stats_start_at, from which Plausible counts.
  defp alert_site(site) do
    %{
      id: site.id,
      domain: site.domain,
      timezone: site.timezone,
      stats_start_at_ms: unix_ms(site.native_stats_start_at || site.inserted_at)
    }
  end

  # In January 2025 the site was locked, and not the team.
  defp locked?(%{team: %{locked: locked}}), do: locked
  defp locked?(site), do: Map.get(site, :locked) == true

  defp has?(feature, team), do: feature.check_availability(team) == :ok

  defp unix_ms(nil), do: nil

  defp unix_ms(%NaiveDateTime{} = at),
    do: at |> DateTime.from_naive!("Etc/UTC") |> DateTime.to_unix(:millisecond)

  @impl true
  def goals(_argument, site_id) do
    case find(site_id) do
      nil -> []
      site -> site |> with_team() |> counted_goals() |> Enum.map(&goal/1)
    end
  end

  defp counted_goals(site) do
    Plausible.Goals.for_site(site,
      include_goals_with_custom_props?: has?(Feature.Props, site.team)
    )
  end

  defp goal(goal) do
    %{
      id: goal.id,
      name: goal.display_name || goal.event_name || "Visit #{goal.page_path}",
      event_name: goal.event_name,
      page_path: goal.page_path,
      # Plausible of January 2025 has no scroll goals, and that of June no custom properties.
      scroll_threshold: Map.get(goal, :scroll_threshold) || -1,
      custom_props: Map.get(goal, :custom_props) || %{},
      currency: goal.currency && to_string(goal.currency)
    }
  end

  # --- visitors

  @impl true
  def visitors(_argument, site_ids, windows) do
    counted(fn ->
      counts =
        windows
        |> Enum.map(&seconds/1)
        |> Enum.chunk_every(length(@columns))
        |> Enum.map(&count(site_ids, &1))

      Map.new(site_ids, &{&1, Enum.flat_map(counts, fn by_site -> Map.fetch!(by_site, &1) end)})
    end)
  end

  # Windows may be weeks apart. Each is a range of the table's primary key, so nothing between
  # them is read. Sites without visitors have no row.
  defp count(site_ids, windows) do
    columns = Enum.zip(@columns, windows)
    nobody = List.duplicate(0, length(windows))
    in_one = windows |> Enum.map(&within/1) |> Enum.reduce(&dynamic([], ^&2 or ^&1))

    fields =
      Map.new(columns, fn {column, window} ->
        {column, dynamic([e], fragment("uniqIf(?, ?)", e.user_id, ^within(window)))}
      end)

    fields = Map.put(fields, :site_id, dynamic([e], e.site_id))
    visits = from(e in visits(site_ids), where: ^in_one, group_by: e.site_id, select: ^fields)

    for row <- all(visits), into: Map.new(site_ids, &{&1, nobody}) do
      {row.site_id, Enum.map(columns, fn {column, _window} -> Map.fetch!(row, column) end)}
    end
  end

  defp all(query), do: Plausible.ClickhouseRepo.all(query, @query_options)

  defp within({from, to}), do: dynamic([e], e.timestamp >= ^from and e.timestamp < ^to)

  # A consolidated view has no rows of its own. It has no webhooks either.
  defp visits(site_ids),
    do: from(e in "events_v2", where: e.site_id in ^site_ids, where: e.name != "engagement")

  # Consolidated views came after June 2025, and this function with them.
  defp regular?(site),
    do: not exported?(Plausible.Sites, :regular?, 1) or Plausible.Sites.regular?(site)

  # Timestamps are whole seconds. The second in which the window ends belongs to it.
  defp seconds({from_ms, to_ms}),
    do: {naive(Integer.floor_div(from_ms, 1_000)), naive(-Integer.floor_div(-to_ms, 1_000))}

  defp naive(unix_s), do: unix_s |> DateTime.from_unix!() |> DateTime.to_naive()

  @impl true
  def breakdown(_argument, site_id, window, limit) do
    counted(fn ->
      visits = from(e in visits([site_id]), where: ^within(seconds(window)))

      sources =
        from(e in visits,
          where: e.referrer_source != "",
          group_by: e.referrer_source,
          order_by: [desc: fragment("uniq(?)", e.user_id), asc: e.referrer_source],
          limit: ^limit,
          select: %{name: e.referrer_source, visitors: fragment("uniq(?)", e.user_id)}
        )

      pages =
        from(e in visits,
          group_by: e.pathname,
          order_by: [desc: fragment("uniq(?)", e.user_id), asc: e.pathname],
          limit: ^limit,
          select: %{path: e.pathname, visitors: fragment("uniq(?)", e.user_id)}
        )

      %{sources: all(sources), pages: all(pages)}
    end)
  end

  defp counted(fun) do
    {:ok, fun.()}
  rescue
    # ClickHouse is away or overloaded. The message may quote the query.
    error -> {:error, error.__struct__}
  end

  # --- alerts

  # The columns that are read of a site, as far as this version of Plausible has them.
  @site_columns [:id, :domain, :timezone, :native_stats_start_at, :inserted_at] ++
                  [:consolidated, :locked]
  @team_columns [:id, :accept_traffic_until, :locked]

  # The e-mail notifier chooses its sites by the same conditions. One statement, whatever the
  # number of sites: preloads would be a second one.
  @impl true
  def alert_sites(_argument, site_ids) do
    columns =
      columns(Plausible.Site, @site_columns) ++
        [team: columns(Plausible.Teams.Team, @team_columns)]

    sites =
      from(s in Plausible.Site,
        join: t in assoc(s, :team),
        where: s.id in ^site_ids,
        preload: [team: t],
        select: struct(s, ^columns)
      )

    for site <- Plausible.Repo.all(sites),
        not locked?(site) and accepts_traffic?(site.team) and regular?(site),
        do: alert_site(site)
  end

  defp columns(schema, names) do
    existing = schema.__schema__(:fields)
    Enum.filter(names, &(&1 in existing))
  end

  defp with_team(site), do: Plausible.Repo.preload(site, :team)

  defp accepts_traffic?(%{accept_traffic_until: nil}), do: true

  defp accepts_traffic?(%{accept_traffic_until: until}),
    do: Date.compare(until, Date.utc_today()) == :gt

  @impl true
  def dashboard_url(_argument, site_id), do: url(site_id, "")

  # With the team, as in Plausible's e-mails, for users who belong to several teams.
  defp url(site_id, path) do
    with %{} = site <- find(site_id) do
      path = PlausibleWeb.Endpoint.path("/#{URI.encode_www_form(site.domain)}#{path}")
      PlausibleWeb.Endpoint.url() <> path <> team_query(with_team(site).team)
    end
  end

  defp team_query(%{identifier: identifier}) when is_binary(identifier),
    do: "?__team=#{identifier}"

  defp team_query(_no_team), do: ""

  # --- permissions

  @impl true
  def can?(_argument, :system, _action, _site_id), do: true

  def can?(argument, %{id: id} = user, _action, site_id) when is_integer(id) do
    with %{} = site <- find(site_id),
         true <- regular?(site),
         true <- available?(argument, site) do
      role(site, user) in @managers or Plausible.Auth.is_super_admin?(user) == true
    else
      _no_site_or_not_available -> false
    end
  end

  def can?(_argument, _nobody, _action, _site_id), do: false

  defp available?(argument, site) do
    case Keyword.get(argument, :available?) do
      nil -> true
      fun -> fun.(site) == true
    end
  end

  # Plausible of 2025 returned the role alone.
  defp role(site, user) do
    case Plausible.Teams.Memberships.site_role(site, user) do
      {:ok, {_team_or_guest_member, role}} -> role
      {:ok, role} -> role
      {:error, :not_a_member} -> nil
    end
  end

  # Plausible's windows begin at the multiples of their length.
  @impl true
  def check_rate(_argument, key, window_ms, limit) do
    case Plausible.RateLimit.check_rate("webhooks:" <> key, window_ms, limit) do
      {:allow, _count} -> :ok
      {:deny, _limit} -> {:error, window_ms - rem(System.system_time(:millisecond), window_ms)}
    end
  end

  # --- notices and audit

  @impl true
  def webhook_disabled(_argument, webhook, reason) do
    with %{} = site <- find(webhook.site_id) do
      link = url(site.id, "/settings/webhooks/#{webhook.id}")

      for %{email: to} <- owners(site),
          do: Email.webhook_disabled(to, site, webhook, reason, link)
    end

    :ok
  end

  defp owners(site) do
    case Plausible.Repo.preload(site, :owners) do
      %{owners: owners} when is_list(owners) -> owners
      _none -> []
    end
  end

  @impl true
  def actor_name(_argument, %{email: email}) when is_binary(email), do: email
  def actor_name(_argument, actor) when is_atom(actor), do: Atom.to_string(actor)
  def actor_name(_argument, _other), do: "unknown"

  # Only the Enterprise Edition has an audit log. Elsewhere there is a line in the log, and our
  # own audit (`Plausible.Webhooks.audit_log/4`).
  @impl true
  def audit(_argument, actor, action, webhook) do
    if exported?(Plausible.Audit.Entry, :new, 3) do
      name = Atom.to_string(action)

      name
      |> Plausible.Audit.Entry.new(webhook, audit_actor(actor, webhook))
      |> Plausible.Audit.Entry.include_change(audited(webhook))
      |> Plausible.Audit.Entry.persist!()
    else
      Logger.info("webhooks: #{action} of #{webhook.id}, site #{webhook.site_id}")
    end

    :ok
  end

  defp audit_actor(actor, webhook) do
    site = find(webhook.site_id)
    team = %{team_id: site && site.team_id}

    case actor do
      %{id: id} -> Map.merge(team, %{user_id: id, actor_type: "user"})
      _system -> Map.merge(team, %{user_id: nil, actor_type: "system"})
    end
  end

  # No secret, and only the host of the URL: path and query may hold tokens.
  defp audited(webhook) do
    %{
      site_id: webhook.site_id,
      name: webhook.name,
      host: Webhook.destination(webhook),
      enabled: webhook.enabled,
      events: webhook.events,
      goals: if(webhook.goals == :all, do: "all", else: webhook.goals),
      spike_threshold: threshold(webhook.spike_threshold),
      drop_threshold: threshold(webhook.drop_threshold),
      header_names: Enum.map(webhook.headers, fn {name, _value} -> name end)
    }
  end

  defp threshold(:notifier), do: "notifier"
  defp threshold(threshold), do: threshold

  defp exported?(module, function, arity),
    do: Code.ensure_loaded?(module) and function_exported?(module, function, arity)

  # --- the settings page

  @doc """
  Prepares the response of the settings page, in the action of Plausible's `SiteController`:
  assigns `webhooks_session` for `PlausibleWeb.Live.WebhookSettings.live/2` and the title.
  While webhooks are switched off, the response is a 404.

      render(Plausible.Webhooks.Host.Plausible.page(conn), "settings_webhooks.html", ...)

  `conn` has passed `PlausibleWeb.Plugs.AuthorizeSiteAccess`. Plausible marks the entry of the
  sidebar by the end of the path, so `path_info` ends where the page is mounted. Plausible's
  pages have no Content-Security-Policy, so the page brings its script.
  """
  @spec page(Plug.Conn.t()) :: Plug.Conn.t()
  def page(%{assigns: %{site: site}} = conn) do
    Application.get_env(:plausible, Plausible.Webhooks) ||
      raise PlausibleWeb.Live.WebhookSettings.NotFound

    segments = List.wrap(conn.path_params["view"])

    session = %{
      "site_id" => site.id,
      "auth" => Atom.to_string(__MODULE__),
      "pubsub" => Atom.to_string(Plausible.PubSub)
    }

    %{conn | path_info: Enum.drop(conn.path_info, -length(segments))}
    |> Plug.Conn.assign(:title, "Webhooks · #{site.domain}")
    |> Plug.Conn.assign(:webhooks_session, session)
  end

  # Plausible's own live views find the user the same way.
  @impl true
  def actor(session, _socket) do
    case PlausibleWeb.UserAuth.get_user_session(session) do
      {:ok, %{user: %{id: _} = user}} -> {:ok, user}
      _nobody -> :error
    end
  end
end
