defmodule Plausible.Webhooks.Host.File do
  @moduledoc """
  A host for use without Plausible: sites and goals come from a JSON file,
  visitors are counted from the events that `observe/2` is told of.

      children = [
        {Plausible.Webhooks.Host.File,
         path: "sites.json",
         name: MyApp.Sites,
         on_change: &Plausible.Webhooks.goals_changed/1},
        {Plausible.Webhooks, host: {Plausible.Webhooks.Host.File, MyApp.Sites}, ...}
      ]

  Without `observe/2`, which `Plausible.Webhooks.events_buffered/1` does not call,
  there are no visitors, and so no traffic alerts.

  The file (a complete one is `examples/sites.json`; fields that are not listed
  are an error):

      {"sites": [
        {"id": 1, "domain": "example.com", "timezone": "Europe/Tallinn",
         "dashboard_url": "https://plausible.example/example.com",
         "stats_start_at": "2026-01-01T00:00:00Z",
         "goals": [
           {"id": 1, "event_name": "Signup", "custom_props": {"plan": "growth"}},
           {"id": 2, "name": "Read", "page_path": "/blog/**", "scroll_threshold": 75},
           {"id": 3, "event_name": "Purchase", "currency": "EUR"}],
         "history": [
           {"from": "2026-11-16T10:00:00Z", "to": "2026-11-16T11:00:00Z", "visitors": 900}]}]}

  `id`, `domain` and a goal's `event_name` or `page_path` are required. `history`
  tells of visitors before the events that this node sees; they are taken to have
  come evenly over their time.

  Options of `start_link/1`:

    * `:path` - the file. One that is not valid stops the start with the field and
      the reason.
    * `:name` - an atom, for the process and as the host's argument; default this
      module.
    * `:on_change` - called with the id of each site of which something has
      changed; pass `&Plausible.Webhooks.goals_changed/1`.
    * `:poll_ms` - how often the file is looked at, 1 000. A new version that is
      not valid is reported and the last good one stays.
    * `:actors` - who may do everything: a list, or `:all` (the default; without a
      page there is only the operator). `:system` always may.
    * `:events_max` - how many events are kept for counting, 200 000; of a site that
      has more the oldest go first.
  """

  @behaviour Plausible.Webhooks.Host

  use GenServer

  require Logger

  alias Plausible.Webhooks.Host.File.Config

  @defaults [poll_ms: 1_000, actors: :all, events_max: 200_000, on_change: nil]

  # --- starting, changing

  @doc false
  def child_spec(opts) do
    %{id: Keyword.get(opts, :name, __MODULE__), start: {__MODULE__, :start_link, [opts]}}
  end

  @doc "Starts the host; see above for the options."
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts) do
    opts = @defaults |> Keyword.put(:name, __MODULE__) |> Keyword.merge(opts)
    GenServer.start_link(__MODULE__, Map.new(opts), name: opts[:name])
  end

  @doc "Reads the file now. On an error what was read before stays in force."
  @spec reload(atom()) :: :ok | {:error, String.t()}
  def reload(name \\ __MODULE__), do: GenServer.call(name, :reload)

  @doc """
  Counts the event's visitor. `event` is what `Plausible.Webhooks.events_buffered/1`
  takes; engagement is not a visit.
  """
  @spec observe(atom(), map()) :: :ok
  def observe(name \\ __MODULE__, event)

  def observe(name, %{clickhouse_event: %{name: event_name, user_id: user} = event})
      when event_name != "engagement" do
    with %{site_id: site_id, timestamp: %NaiveDateTime{} = at} <- event do
      key = {:visit, site_id, unix_ms(at), :erlang.unique_integer([:monotonic])}
      visit = {key, user, Map.get(event, :referrer_source), Map.get(event, :pathname)}
      :ets.insert(name, visit)
      forget_oldest(name, site_id)
    end

    :ok
  end

  def observe(_name, _event), do: :ok

  defp unix_ms(at), do: at |> DateTime.from_naive!("Etc/UTC") |> DateTime.to_unix(:millisecond)

  defp forget_oldest(name, site_id) do
    [{:limits, events_max, _actors}] = :ets.lookup(name, :limits)

    if :ets.info(name, :size) > events_max do
      case :ets.next(name, {:visit, site_id, 0, 0}) do
        {:visit, ^site_id, _at, _n} = oldest -> :ets.delete(name, oldest)
        _none -> true
      end
    end
  end

  # --- the process: reads the file, owns the table

  # The table comes last: its name must be free again when the start fails.
  @impl true
  def init(opts) do
    seen = stamp(opts.path)

    case parse(opts.path) do
      {:ok, sites} ->
        :ets.new(opts.name, [:ordered_set, :public, :named_table, read_concurrency: true])
        :ets.insert(opts.name, {:limits, opts.events_max, opts.actors})
        put(opts.name, sites)
        Process.send_after(self(), :poll, opts.poll_ms)
        {:ok, %{opts: opts, seen: seen}}

      {:error, message} ->
        {:stop, {:invalid_file, message}}
    end
  end

  @impl true
  def handle_call(:reload, _from, state) do
    case read(state) do
      {:ok, state} -> {:reply, :ok, state}
      {:error, message} -> {:reply, {:error, message}, state}
    end
  end

  @impl true
  def handle_info(:poll, %{opts: opts} = state) do
    Process.send_after(self(), :poll, opts.poll_ms)

    seen = stamp(opts.path)
    if seen == state.seen, do: {:noreply, state}, else: {:noreply, read_or_keep(state, seen)}
  end

  def handle_info(_other, state), do: {:noreply, state}

  # As it was before the reading: half of it may have been there, and the rest since.
  defp read_or_keep(state, seen) do
    case read(state) do
      {:ok, state} ->
        state

      {:error, message} ->
        Logger.error("webhooks: #{message}; what was read before stays in force")
        %{state | seen: seen}
    end
  end

  defp stamp(path) do
    case Elixir.File.stat(path, time: :posix) do
      {:ok, %{mtime: mtime, size: size, inode: inode}} -> {mtime, size, inode}
      {:error, reason} -> reason
    end
  end

  # The stamp is taken first: what is written while we read is read again.
  defp read(%{opts: opts} = state) do
    seen = stamp(opts.path)

    with {:ok, sites} <- parse(opts.path) do
      for site_id <- put(opts.name, sites), do: tell(opts.on_change, site_id)
      {:ok, %{state | seen: seen}}
    end
  end

  defp parse(path) do
    with {:ok, json} <- contents(path),
         {:ok, sites} <- Config.parse(json) do
      {:ok, sites}
    else
      {:error, message} -> {:error, "#{path}: #{message}"}
    end
  end

  defp contents(path) do
    with {:error, reason} <- Elixir.File.read(path), do: {:error, "#{:file.format_error(reason)}"}
  end

  # Returns the sites of which something has changed.
  defp put(name, sites) do
    before = Map.new(:ets.match(name, {{:site, :"$1"}, :"$2"}), fn [id, site] -> {id, site} end)
    now = Map.new(sites, &{&1.id, &1})
    gone = Map.keys(before) -- Map.keys(now)
    changed = for {id, site} <- now, before[id] != site, do: id

    for id <- gone ++ changed,
        %{domain: domain} <- [before[id]],
        do: :ets.delete(name, {:domain, domain})

    for id <- gone, do: :ets.delete(name, {:site, id})

    for id <- changed,
        do: :ets.insert(name, [{{:site, id}, now[id]}, {{:domain, now[id].domain}, id}])

    gone ++ changed
  end

  defp tell(nil, _site_id), do: :ok

  defp tell(on_change, site_id) do
    on_change.(site_id)
  rescue
    error -> Logger.error("webhooks: on_change raised #{Exception.message(error)}")
  end

  # --- the host

  @impl true
  def site(name, site_id) do
    with %{} = site <- stored(name, site_id) do
      site
      |> Map.take([:id, :domain, :timezone])
      |> Map.put(:stats_start_at_ms, stats_start_at_ms(name, site))
    end
  end

  @impl true
  def site_by_domain(name, domain) do
    case :ets.lookup(name, {:domain, domain}) do
      [{_key, id}] -> site(name, id)
      [] -> nil
    end
  end

  @impl true
  def goals(name, site_id) do
    case stored(name, site_id) do
      nil -> []
      site -> site.goals
    end
  end

  defp stored(name, site_id) do
    case :ets.lookup(name, {:site, site_id}) do
      [{_key, site}] -> site
      [] -> nil
    end
  end

  defp stats_start_at_ms(name, site) do
    told = [site.stats_start_at_ms | Enum.map(site.history, & &1.from_ms)]

    seen =
      case :ets.next(name, {:visit, site.id, 0, 0}) do
        {:visit, id, at_ms, _n} when id == site.id -> at_ms
        _none -> nil
      end

    [seen | told] |> Enum.reject(&is_nil/1) |> Enum.min(fn -> nil end)
  end

  @impl true
  def visitors(name, site_id, windows) do
    site = stored(name, site_id)

    {:ok,
     Enum.map(windows, fn {from_ms, to_ms} = window ->
       seen = name |> visits(site_id, window) |> MapSet.new(&elem(&1, 1)) |> MapSet.size()
       seen + told(site, from_ms, to_ms)
     end)}
  end

  # Visitor k of n comes at from + k * length / n.
  defp told(nil, _from_ms, _to_ms), do: 0

  defp told(site, from_ms, to_ms) do
    Enum.reduce(site.history, 0, fn %{visitors: n} = part, sum ->
      length_ms = part.to_ms - part.from_ms

      before = fn at_ms ->
        (at_ms - part.from_ms) |> max(0) |> min(length_ms) |> share(n, length_ms)
      end

      sum + before.(to_ms) - before.(from_ms)
    end)
  end

  defp share(elapsed_ms, n, length_ms), do: div(elapsed_ms * n + length_ms - 1, length_ms)

  @impl true
  def breakdown(name, site_id, window, limit) do
    visits = visits(name, site_id, window)

    sources =
      for {_key, user, source, _page} <- visits, source not in [nil, ""], do: {source, user}

    pages = for {_key, user, _source, page} <- visits, is_binary(page), do: {page, user}

    {:ok,
     %{
       sources: for({name, n} <- top(sources, limit), do: %{name: name, visitors: n}),
       pages: for({path, n} <- top(pages, limit), do: %{path: path, visitors: n})
     }}
  end

  defp top(pairs, limit) do
    pairs
    |> Enum.uniq()
    |> Enum.frequencies_by(&elem(&1, 0))
    |> Enum.sort_by(fn {what, n} -> {-n, what} end)
    |> Enum.take(limit)
  end

  defp visits(name, site_id, {from_ms, to_ms}) do
    {:visit, site_id, from_ms, -1 * Bitwise.bsl(1, 64)}
    |> Stream.iterate(&:ets.next(name, &1))
    |> Stream.drop(1)
    |> Stream.take_while(&match?({:visit, ^site_id, at, _n} when at < to_ms, &1))
    |> Enum.flat_map(&:ets.lookup(name, &1))
  end

  @impl true
  def alerts_allowed?(_name, _site_id), do: true

  @impl true
  def dashboard_url(name, site_id) do
    with %{dashboard_url: url} <- stored(name, site_id), do: url
  end

  @impl true
  def can?(_name, :system, _action, _site_id), do: true

  def can?(name, actor, _action, site_id) do
    [{:limits, _events_max, actors}] = :ets.lookup(name, :limits)
    stored(name, site_id) != nil and (actors == :all or actor in actors)
  end

  @impl true
  def webhook_disabled(_name, webhook, reason) do
    Logger.warning("webhooks: #{webhook.id} of site #{webhook.site_id} was disabled: #{reason}")
  end

  @impl true
  def audit(_name, actor, action, webhook) do
    Logger.info(
      "webhooks: #{inspect(actor)} did #{action} on #{webhook.id} of site #{webhook.site_id}"
    )
  end
end
