defmodule Demo.Host do
  @moduledoc """
  A small host: sites, goals, visitors and roles in one ETS table. The demo, the named
  scenarios and the benchmarks run in it.

      children = [
        {Demo.Host, name: MyApp.Sites, sites: [%{id: 1, domain: "example.com"}]},
        {Plausible.Webhooks, host: {Demo.Host, MyApp.Sites}, ...}
      ]

  A site is a map as `Demo.Sites` reads it; `id` and `domain` are required. The owners of
  a site manage its webhooks, its viewers read them, and `:system` may do everything.
  """

  @behaviour Plausible.Webhooks.Host

  use Agent

  require Logger

  @site %{
    timezone: "Etc/UTC",
    dashboard_url: nil,
    stats_start_at: nil,
    history: [],
    goals: [],
    alerts: true,
    owners: [],
    viewers: []
  }
  @goal %{
    event_name: nil,
    page_path: nil,
    scroll_threshold: -1,
    custom_props: %{},
    currency: nil
  }

  @spec start_link(keyword()) :: Agent.on_start()
  def start_link(options) do
    name = Keyword.get(options, :name, __MODULE__)

    Agent.start_link(
      fn ->
        :ets.new(name, [:named_table, :public, :ordered_set, read_concurrency: true])
        Enum.each(options[:sites] || [], &put_site(name, &1))
      end,
      name: name
    )
  end

  @doc "Adds or replaces a site."
  @spec put_site(atom(), map()) :: true
  def put_site(host, site) do
    site = Map.merge(@site, site)
    site = %{site | goals: Enum.map(site.goals, &goal/1)}
    :ets.insert(host, [{{:site, site.id}, site}, {{:domain, site.domain}, site.id}])
  end

  @doc "Changes a site."
  @spec update_site(atom(), integer(), (map() -> map())) :: true
  def update_site(host, site_id, fun), do: put_site(host, fun.(stored(host, site_id)))

  defp goal(goal) do
    goal = Map.merge(@goal, goal)
    Map.put_new(goal, :name, goal.event_name || "Visit #{goal.page_path}")
  end

  defp stored(host, site_id) do
    case :ets.lookup(host, {:site, site_id}) do
      [{_key, site}] -> site
      [] -> nil
    end
  end

  @doc "Counts the visitor of an event of `Demo.Events`. An engagement is not a visit."
  @spec count(atom(), map()) :: :ok
  def count(_host, %{clickhouse_event: %{name: "engagement"}}), do: :ok

  def count(host, %{clickhouse_event: event}) do
    at_ms = event.timestamp |> DateTime.from_naive!("Etc/UTC") |> DateTime.to_unix(:millisecond)
    key = {:visit, event.site_id, at_ms, System.unique_integer()}
    :ets.insert(host, {key, event.user_id, event.referrer_source, event.pathname})
    :ok
  end

  @doc "Forgets the visitors of a site."
  @spec forget_visitors(atom(), integer()) :: true
  def forget_visitors(host, site_id),
    do: :ets.match_delete(host, {{:visit, site_id, :_, :_}, :_, :_, :_})

  # --- the callbacks

  @impl true
  def site(host, site_id) do
    with %{} = site <- stored(host, site_id) do
      site
      |> Map.take([:id, :domain, :timezone, :events, :props, :revenue])
      |> Map.put(:stats_start_at_ms, stats_start_at_ms(host, site))
    end
  end

  defp stats_start_at_ms(host, site) do
    first =
      case :ets.next(host, {:visit, site.id, 0, 0}) do
        {:visit, id, at_ms, _unique} when id == site.id -> [at_ms]
        _none -> []
      end

    stated = Enum.reject([site.stats_start_at | Enum.map(site.history, & &1.from)], &is_nil/1)
    Enum.min(first ++ stated, fn -> nil end)
  end

  @impl true
  def site_by_domain(host, domain) do
    case :ets.lookup(host, {:domain, domain}) do
      [{_key, site_id}] -> site(host, site_id)
      [] -> nil
    end
  end

  @impl true
  def goals(host, site_id) do
    case stored(host, site_id) do
      nil -> []
      site -> site.goals
    end
  end

  @impl true
  def visitors(host, site_ids, windows),
    do: {:ok, Map.new(site_ids, fn id -> {id, Enum.map(windows, &visitors_in(host, id, &1))} end)}

  defp visitors_in(host, site_id, window) do
    history = (stored(host, site_id) || @site).history
    seen = for({user, _source, _page} <- visits(host, site_id, window), uniq: true, do: user)
    length(seen) + Enum.sum(Enum.map(history, &share(&1, window)))
  end

  # Visitor k of n came at from + k * length / n.
  defp share(%{from: from, to: to, visitors: count}, {from_ms, to_ms}) do
    before = fn at_ms ->
      elapsed = (at_ms - from) |> max(0) |> min(to - from)
      div(elapsed * count + to - from - 1, to - from)
    end

    before.(to_ms) - before.(from_ms)
  end

  @impl true
  def breakdown(host, site_id, window, limit) do
    visits = visits(host, site_id, window)
    sources = for {user, source, _page} <- visits, source != "", do: {source, user}
    pages = for {user, _source, page} <- visits, do: {page, user}

    {:ok,
     %{
       sources: for({name, count} <- top(sources, limit), do: %{name: name, visitors: count}),
       pages: for({path, count} <- top(pages, limit), do: %{path: path, visitors: count})
     }}
  end

  defp top(pairs, limit) do
    pairs
    |> Enum.uniq()
    |> Enum.frequencies_by(&elem(&1, 0))
    |> Enum.sort_by(fn {what, count} -> {-count, what} end)
    |> Enum.take(limit)
  end

  defp visits(host, site_id, {from_ms, to_ms}) do
    :ets.select(host, [
      {{{:visit, site_id, :"$1", :_}, :"$2", :"$3", :"$4"},
       [{:>=, :"$1", from_ms}, {:<, :"$1", to_ms}], [{{:"$2", :"$3", :"$4"}}]}
    ])
  end

  @impl true
  def alert_sites(host, site_ids),
    do: for(id <- site_ids, match?(%{alerts: true}, stored(host, id)), do: site(host, id))

  @impl true
  def dashboard_url(host, site_id) do
    with %{dashboard_url: url} <- stored(host, site_id), do: url
  end

  @impl true
  def can?(_host, :system, _action, _site_id), do: true

  def can?(host, user, action, site_id) do
    case stored(host, site_id) do
      nil -> false
      site -> user in site.owners or (action == :read and user in site.viewers)
    end
  end

  @impl true
  def webhook_disabled(_host, webhook, reason) do
    Logger.warning("webhook #{webhook.id} of site #{webhook.site_id} was disabled: #{reason}")
  end

  @impl true
  def audit(_host, user, action, webhook) do
    Logger.info("#{inspect(user)}: #{action} #{webhook.id} of site #{webhook.site_id}")
  end
end
