defmodule Plausible.Webhooks.Host.Plausible do
  @moduledoc """
  Plausible Analytics as the host: its sites, goals, visitors, permissions, audit log,
  rate limiter, mailer and dashboard. What we take for granted of Plausible is in this
  module and nowhere else; `docs/plausible.md` lists each function with the file it is
  in.

      # lib/plausible/application.ex, after the PubSub and before the endpoint
      {Plausible.Webhooks, Plausible.Webhooks.Host.Plausible.options()}

  That is an instance on `Plausible.Repo`; what it is configured with says `options/1`.
  As an option of `Plausible.Webhooks` by itself: `host: {Plausible.Webhooks.Host.Plausible, []}`.
  The list may hold:

    * `:available?` - a function of a `Plausible.Site` that says whether its plan has
      webhooks; where it has not, nobody may see or change any. What there is goes on
      being sent. Default: every site has them.

  ## Who may do what

  Owners, admins and editors of the site or its team, guests who are editors, and super
  admins manage webhooks and read the log. Everybody else, a viewer too, sees nothing.
  A consolidated view has no webhooks: it receives no events.

  ## What a webhook may tell

  What Plausible's dashboard and API show of the site, and no more:

    * nothing of goals while the team is locked;
    * goals with custom properties only where the plan has those, as
      `Plausible.Stats.Goals` loads them;
    * of custom properties those that `Plausible.Props.allowed_for/1` names, by the plan
      and by the site's `allowed_event_props`;
    * revenue where the plan has revenue goals.

  The Community Edition's plan has everything; a list of allowed properties counts there
  as well. Nobody tells of a change of these: it is in force when the site is read again,
  see `t:Plausible.Webhooks.Host.site/0`, or with
  `Plausible.Webhooks.goals_changed(site.id)`.

  ## Visitors

  One query of `events_v2` for all windows, with what
  `Plausible.Stats.CurrentVisitors` counts: distinct `user_id`, without engagement
  events, of the sites that `Plausible.Sites.site_id_query_filter/1` names. Like there,
  a window begins with the whole second.
  """

  @behaviour Plausible.Webhooks.Host
  @behaviour PlausibleWeb.Live.WebhookSettings.Auth

  import Ecto.Query, only: [dynamic: 2, from: 2]

  alias Plausible.Billing.Feature
  alias Plausible.Webhooks.{Cluster, Store, Telemetry, Updates, Webhook}

  require Logger

  # They are there when we are called, and not when this is compiled.
  @compile {:no_warn_undefined,
            [
              Plausible.Audit.Entry,
              Plausible.Auth,
              Plausible.Billing.Feature.Props,
              Plausible.Billing.Feature.RevenueGoals,
              Plausible.ClickhouseRepo,
              Plausible.ConsolidatedView,
              Plausible.Goals,
              Plausible.Mailer,
              Plausible.Props,
              Plausible.RateLimit,
              Plausible.Repo,
              Plausible.Sites,
              Plausible.Teams.Memberships,
              PlausibleWeb.Email,
              PlausibleWeb.Endpoint,
              PlausibleWeb.UserAuth
            ]}

  @managers [:owner, :admin, :editor]
  @query_timeout_ms 9_000
  # One query's worth; a map with a dynamic number of fields wants names that exist.
  @columns [:w0, :w1, :w2, :w3, :w4, :w5, :w6, :w7]

  # --- as a child of Plausible's supervisor

  @doc """
  The options of `Plausible.Webhooks` for Plausible: its Repo for the store, its PubSub
  for other nodes and for the settings page, and over that what `config :plausible, Plausible.Webhooks` holds
  (`Plausible.Webhooks.Host.Plausible.Config`), and over that what is given. The key
  `:available?` is the host's (see above), every other one of
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

  # Plausible counts from native_stats_start_at: it is moved when a site is reset.
  defp facts(site) do
    site = with_team(site)

    %{
      id: site.id,
      domain: site.domain,
      timezone: site.timezone,
      stats_start_at_ms: unix_ms(site.native_stats_start_at || site.inserted_at),
      events: not locked?(site.team),
      props: Plausible.Props.allowed_for(site),
      revenue: has?(Feature.RevenueGoals, site.team)
    }
  end

  defp locked?(nil), do: false
  defp locked?(team), do: team.locked

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
      scroll_threshold: goal.scroll_threshold || -1,
      custom_props: goal.custom_props || %{},
      currency: goal.currency && to_string(goal.currency)
    }
  end

  # --- visitors

  @impl true
  def visitors(_argument, site_id, windows) do
    counted(site_id, fn site ->
      windows
      |> Enum.chunk_every(length(@columns))
      |> Enum.flat_map(&count(site, Enum.map(&1, fn window -> seconds(window) end)))
    end)
  end

  # Of windows that lie weeks apart: each is a range of the table's primary key, what is
  # between them is not read.
  defp count(site, windows) do
    columns = Enum.zip(@columns, windows)
    in_one = windows |> Enum.map(&within/1) |> Enum.reduce(&dynamic([], ^&2 or ^&1))

    fields =
      Map.new(columns, fn {column, {from, to}} ->
        {column,
         dynamic(
           [e],
           fragment(
             "uniqIf(?, ? >= ? and ? < ?)",
             e.user_id,
             e.timestamp,
             ^from,
             e.timestamp,
             ^to
           )
         )}
      end)

    counts = one(from(e in visits(site), where: ^in_one, select: ^fields))
    Enum.map(columns, fn {column, _window} -> Map.fetch!(counts, column) end)
  end

  defp one(query), do: Plausible.ClickhouseRepo.one(query, timeout: @query_timeout_ms)
  defp all(query), do: Plausible.ClickhouseRepo.all(query, timeout: @query_timeout_ms)

  defp within({from, to}), do: dynamic([e], e.timestamp >= ^from and e.timestamp < ^to)

  defp visits(site) do
    from(e in "events_v2",
      where: ^Plausible.Sites.site_id_query_filter(site),
      where: e.name != "engagement"
    )
  end

  # Timestamps are whole seconds: the one that has begun belongs to the window.
  defp seconds({from_ms, to_ms}),
    do: {naive(Integer.floor_div(from_ms, 1_000)), naive(-Integer.floor_div(-to_ms, 1_000))}

  defp naive(unix_s), do: unix_s |> DateTime.from_unix!() |> DateTime.to_naive()

  @impl true
  def breakdown(_argument, site_id, window, limit) do
    counted(site_id, fn site ->
      visits = from(e in visits(site), where: ^within(seconds(window)))

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
          where: e.name == "pageview",
          group_by: e.pathname,
          order_by: [desc: fragment("uniq(?)", e.user_id), asc: e.pathname],
          limit: ^limit,
          select: %{path: e.pathname, visitors: fragment("uniq(?)", e.user_id)}
        )

      %{sources: all(sources), pages: all(pages)}
    end)
  end

  defp counted(site_id, fun) do
    case find(site_id) do
      nil -> {:error, :no_site}
      site -> {:ok, fun.(site)}
    end
  rescue
    # ClickHouse is away, or is asked for too much. Its message may quote the query.
    error -> {:error, error.__struct__}
  end

  # --- alerts

  # As the e-mail notifier chooses its sites.
  @impl true
  def alerts_allowed?(_argument, site_id) do
    case find(site_id) do
      nil ->
        false

      site ->
        %{team: team} = site = with_team(site)
        team != nil and not locked?(team) and accepts_traffic?(team) and shown?(site)
    end
  end

  defp with_team(site), do: Plausible.Repo.preload(site, :team)

  defp accepts_traffic?(%{accept_traffic_until: nil}), do: true

  defp accepts_traffic?(%{accept_traffic_until: until}),
    do: Date.compare(until, Date.utc_today()) == :gt

  # Consolidated views are Plausible's own edition's.
  defp shown?(site) do
    Plausible.Sites.regular?(site) or
      (exported?(Plausible.ConsolidatedView, :ok_to_display?, 1) and
         Plausible.ConsolidatedView.ok_to_display?(site.team))
  end

  @impl true
  def dashboard_url(_argument, site_id), do: url(site_id, "")

  # The team is named, as in Plausible's e-mails: who belongs to several is taken to the
  # right one.
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
         true <- Plausible.Sites.regular?(site),
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

  # Plausible of 2025 answered the role alone.
  defp role(site, user) do
    case Plausible.Teams.Memberships.site_role(site, user) do
      {:ok, {_team_or_guest_member, role}} -> role
      {:ok, role} -> role
      {:error, :not_a_member} -> nil
    end
  end

  # A window of Plausible's begins with every multiple of its length.
  @impl true
  def check_rate(_argument, key, window_ms, limit) do
    case Plausible.RateLimit.check_rate("webhooks:" <> key, window_ms, limit) do
      {:allow, _count} -> :ok
      {:deny, _limit} -> {:error, window_ms - rem(System.system_time(:millisecond), window_ms)}
    end
  end

  # --- telling

  @impl true
  def webhook_disabled(_argument, webhook, reason) do
    with %{} = site <- find(webhook.site_id) do
      for %{email: address} <- owners(site), do: send_email(address, site, webhook, reason)
    end

    :ok
  end

  defp owners(site) do
    case Plausible.Repo.preload(site, :owners) do
      %{owners: owners} when is_list(owners) -> owners
      _none -> []
    end
  end

  # Text alone: a name is what its owner typed.
  defp send_email(address, site, webhook, reason) do
    email = PlausibleWeb.Email.base_email(%{layout: nil})

    Plausible.Mailer.send(%{
      email
      | to: address,
        subject: "A webhook of #{site.domain} was switched off",
        text_body: """
        We have switched off the webhook #{named(webhook)} to #{Webhook.host(webhook)} of #{site.domain}.

        #{why(reason)}

        Its events are kept. When it works again, a successful test switches it on, and what it has missed can be sent again:
        #{url(site.id, "/settings/webhooks")}
        """
    })
  end

  defp named(%{name: ""} = webhook), do: webhook.id
  defp named(%{name: name}), do: inspect(name)

  defp why(:gone), do: "It answered 410 Gone, which says that it wants no more."
  defp why(_failing), do: "Every attempt of the last days has failed."

  # The audit log is of Plausible's own edition; elsewhere the log has to do.
  @impl true
  def audit(_argument, actor, action, webhook) do
    if exported?(Plausible.Audit.Entry, :new, 3) do
      name = Atom.to_string(action)

      name
      |> Plausible.Audit.Entry.new(webhook, who(actor, webhook))
      |> Plausible.Audit.Entry.include_change(told(webhook))
      |> Plausible.Audit.Entry.persist!()
    else
      Logger.info("webhooks: #{action} of #{webhook.id}, site #{webhook.site_id}")
    end

    :ok
  end

  defp who(actor, webhook) do
    site = find(webhook.site_id)
    team = %{team_id: site && site.team_id}

    case actor do
      %{id: id} -> Map.merge(team, %{user_id: id, actor_type: "user"})
      _system -> Map.merge(team, %{user_id: nil, actor_type: "system"})
    end
  end

  # No secret, and of the URL the host: path and query may hold tokens.
  defp told(webhook) do
    %{
      site_id: webhook.site_id,
      name: webhook.name,
      host: Webhook.host(webhook),
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
  The session of the settings page, for Plausible's `settings_webhooks.html.heex`:

      live_render(@conn, PlausibleWeb.Live.WebhookSettings,
        session: Plausible.Webhooks.Host.Plausible.page_session(@conn))

  `conn` has been through `PlausibleWeb.Plugs.AuthorizeSiteAccess`.
  """
  @spec page_session(Plug.Conn.t()) :: %{String.t() => term()}
  def page_session(%{assigns: %{site: site}}) do
    %{
      "site_id" => site.id,
      "domain" => site.domain,
      "auth" => Atom.to_string(__MODULE__),
      "pubsub" => Atom.to_string(Plausible.PubSub)
    }
  end

  # As Plausible's own live views find the user.
  @impl true
  def actor(session, _socket) do
    case PlausibleWeb.UserAuth.get_user_session(session) do
      {:ok, %{user: %{id: _} = user}} -> {:ok, user}
      _nobody -> :error
    end
  end
end
