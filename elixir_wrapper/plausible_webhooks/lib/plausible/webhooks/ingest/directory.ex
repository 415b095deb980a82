defmodule Plausible.Webhooks.Ingest.Directory do
  @moduledoc """
  Which site has which webhooks, prepared for reads during an ingestion request.

  `lookup/2` is one ETS read. It returns `nil` for a site whose webhooks want no goal
  completions, otherwise the site's `Plausible.Webhooks.Ingest.Subscriptions`.

  A webhook is in the directory while its owner has it enabled. One that we disabled (its
  receiver answered 410, or failed for days) stays, with the status `:disabled`: its events
  are recorded as cancelled, so that they can be recovered.

  ## How it is kept up to date

    * `refresh/2` reads one site from store and host, and returns when the new state applies.
      Every change of a webhook or a goal calls it, on every node
      (`Plausible.Webhooks.Cluster`).
    * `changed/2` does the same, and reads the site again after each of `reread_ms`: a caller
      inside a transaction announces a change that nobody else sees before the commit.
    * In case a change was not announced, every `refresh_ms` one read of the store compares
      all webhooks, and the host is asked for the goals of at most `sites_per_refresh` sites,
      those first that were read the longest ago.
    * A site that could not be read keeps its last known state, and is tried again after 1 s,
      2 s, and so on up to 60 s. Deleted and paused webhooks still leave at once.

  Tasks read store and host, `concurrency` at a time and each for at most
  `load_timeout_ms`. A task that hangs or raises does not disturb the others. The start waits
  at most `start_wait_ms` for the first reading of everything.

  Options of `start_link/1`: `:instance` (its name), the limits above (60 000,
  [2 000, 15 000] for `reread_ms`, 200, 4, 5 000, 5 000), `:dedup_entries_max`, and
  `:compare`, a function that gets all webhooks each time they were read.
  """

  use GenServer

  require Logger

  alias Plausible.Webhooks.Ingest.{Dedup, Subscriptions}
  alias Plausible.Webhooks.Ingest.Directory.{Loader, Rereads, Table}
  alias Plausible.Webhooks.Runtime.{Instance, Isolated}

  @typedoc "The name of an instance."
  @type instance :: atom()

  @defaults [
    refresh_ms: 60_000,
    reread_ms: [2_000, 15_000],
    sites_per_refresh: 200,
    concurrency: 4,
    load_timeout_ms: 5_000,
    start_wait_ms: 5_000,
    dedup_entries_max: 250_000,
    compare: nil
  ]
  @retry_ms_max 60_000
  # A request that read the old entry just before its replacement has ended by then.
  @sweep_after_ms 5_000
  @second_ms 1_000
  @log_pause_ms 10_000

  # --- for the path of a request

  @doc "The site's compiled subscriptions, or `nil`. One ETS read; never raises."
  @spec lookup(Instance.t() | instance(), integer()) :: Subscriptions.t() | nil
  defdelegate lookup(instance, site_id), to: Table

  @doc "The memory that keeps scroll goals from completing twice."
  @spec dedup(Instance.t() | instance()) :: Dedup.t() | nil
  defdelegate dedup(instance), to: Table

  # --- for everyone else

  @doc "The sites that have a webhook for traffic alerts, with those webhooks."
  @spec traffic(instance()) :: [{site_id :: integer(), [Table.traffic_webhook()]}]
  defdelegate traffic(instance), to: Table

  @doc "The webhooks of one site that are for traffic alerts."
  @spec traffic(instance(), integer()) :: [Table.traffic_webhook()]
  defdelegate traffic(instance, site_id), to: Table

  @doc """
  Reads the site again, and returns when its new state applies. After `{:error, reason}` the
  directory keeps trying in the background.
  """
  @spec refresh(instance(), integer()) :: :ok | {:error, term()}
  def refresh(instance, site_id), do: call(instance, {:refresh, site_id})

  @doc "As `refresh/2`, and reads the site again after each of `reread_ms`."
  @spec changed(instance(), integer()) :: :ok | {:error, term()}
  def changed(instance, site_id), do: call(instance, {:changed, site_id})

  @doc "Does the periodic refresh now, and waits for it."
  @spec refresh_all(instance()) :: :ok | {:error, term()}
  def refresh_all(instance), do: call(instance, :refresh_all)

  @doc "Reads every site again, and waits for it."
  @spec refresh_everything(instance()) :: :ok | {:error, term()}
  def refresh_everything(instance), do: call(instance, :refresh_everything)

  defp call(instance, request) do
    GenServer.call(server(instance), request, 60_000)
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _not_running -> {:error, :not_running}
  end

  defp server(instance), do: Instance.process(instance, :directory)

  @doc false
  def child_spec(opts) do
    %{id: {__MODULE__, Keyword.fetch!(opts, :instance)}, start: {__MODULE__, :start_link, [opts]}}
  end

  @doc "Starts the directory of an instance; see above for the options."
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts) do
    opts = Keyword.merge(@defaults, opts)
    instance = Keyword.fetch!(opts, :instance)
    # In the supervisor that calls us: the tables outlive a crash of the process that fills
    # them, and no event is lost meanwhile.
    tables = Table.open(instance, opts[:dedup_entries_max])

    with {:ok, pid} <- GenServer.start_link(__MODULE__, {tables, opts}, name: server(instance)) do
      await_first_reading(pid, opts[:start_wait_ms])
      {:ok, pid}
    end
  end

  defp await_first_reading(pid, wait_ms) do
    GenServer.call(pid, :refresh_all, wait_ms)
  catch
    :exit, _slow_or_gone ->
      Logger.warning("webhooks: the first reading of sites and goals continues in the background")
  end

  # --- the process

  # sites: what is in force, by site: the fingerprint of what was compiled, the generation of
  #   its rows, a digest of its webhooks, and the number of the reading.
  # wanted: sites to read, with the callers who wait; queue: in which order; running: the
  #   readings under way, by their task. A site's reading has a generation; that of all
  #   webhooks says in its place which sites are to be read besides those that have changed.
  # failures: how often a site's reading has failed in a row, and the timer of the next try.
  # rereads: the later readings after a change, see Rereads.
  # sweeps: callers of refresh_all, and the sites they still wait for.
  @impl true
  def init({tables, opts}) do
    Process.send_after(self(), :tick, opts[:refresh_ms])
    Process.send_after(self(), :second, @second_ms)

    {:ok,
     Map.merge(tables, %{
       opts: Map.new(opts),
       sites: Table.inherit(tables),
       wanted: %{},
       queue: :queue.new(),
       running: %{},
       failures: %{},
       rereads: %{},
       read_all_timer: nil,
       sweeps: [],
       log_at_ms: now_ms(),
       rotate_at_ms: now_ms() + Dedup.window_ms()
     })}
  end

  @impl true
  def handle_call({:refresh, site_id}, from, state),
    do: {:noreply, state |> want(site_id, [from], :urgent) |> pump()}

  def handle_call({:changed, site_id}, from, state) do
    rereads =
      Enum.reduce(state.opts.reread_ms, state.rereads, &Rereads.note(&2, site_id, &1, now_ms()))

    handle_call({:refresh, site_id}, from, %{state | rereads: rereads})
  end

  def handle_call(:refresh_all, from, state), do: {:noreply, read_all(state, [from])}

  def handle_call(:refresh_everything, from, state),
    do: {:noreply, read_all(state, [from], :everything)}

  @impl true
  def handle_info(:tick, state) do
    Process.send_after(self(), :tick, state.opts.refresh_ms)
    {:noreply, read_all(state, [])}
  end

  def handle_info(:second, state) do
    Process.send_after(self(), :second, @second_ms)
    {:noreply, rotate_dedup(state)}
  end

  def handle_info({:retry, site_id}, state),
    do: {:noreply, state |> want(site_id, [], :background) |> pump()}

  def handle_info({:changed, site_id, delay_ms}, state) do
    state = %{state | rereads: Rereads.due(state.rereads, site_id, delay_ms, now_ms())}
    # A site without webhooks is read when it gets one.
    known? = is_map_key(state.sites, site_id) or is_map_key(state.failures, site_id)
    {:noreply, if(known?, do: state |> want(site_id, [], :urgent) |> pump(), else: state)}
  end

  def handle_info(:read_all, state),
    do: {:noreply, read_all(%{state | read_all_timer: nil}, [])}

  def handle_info({:sweep, site_id, generation}, state) do
    Table.delete_rows(state.table, site_id, generation)
    {:noreply, state}
  end

  def handle_info({:too_slow, ref}, state) do
    case state.running do
      %{^ref => job} ->
        _ = Task.shutdown(job.task, :brutal_kill)
        {:noreply, ended(state, ref, {:error, :timeout})}

      _over ->
        {:noreply, state}
    end
  end

  def handle_info({ref, result}, state) when is_reference(ref),
    do: {:noreply, ended(state, ref, result)}

  def handle_info({:DOWN, ref, :process, _pid, reason}, state),
    do: {:noreply, ended(state, ref, {:error, {:crashed, reason}})}

  def handle_info(_other, state), do: {:noreply, state}

  defp rotate_dedup(state) do
    if now_ms() >= state.rotate_at_ms or Dedup.full?(state.dedup) do
      Dedup.rotate(state.dedup)
      %{state | rotate_at_ms: now_ms() + Dedup.window_ms()}
    else
      state
    end
  end

  # --- what is to be read, and by whom

  defp read_all(state, waiters, scope \\ :longest_unread) do
    %{instance: instance, compare: compare} = state.opts
    start_job(state, {:all, scope}, waiters, fn -> Loader.all(instance, compare) end)
  end

  defp want(state, site_id, waiters, urgency) do
    queue =
      case urgency do
        :urgent -> :queue.in_r(site_id, state.queue)
        :background -> :queue.in(site_id, state.queue)
      end

    %{state | queue: queue, wanted: Map.update(state.wanted, site_id, waiters, &(waiters ++ &1))}
  end

  defp pump(state) do
    with true <- map_size(state.running) < state.opts.concurrency,
         {{:value, site_id}, queue} <- :queue.out(state.queue) do
      state = %{state | queue: queue}

      # A site that is being read is read again after that: the change may have come too late
      # for the reading under way.
      if Map.has_key?(state.wanted, site_id) and not being_read?(state, site_id) do
        {waiters, wanted} = Map.pop!(state.wanted, site_id)
        pump(start_site_job(%{state | wanted: wanted}, site_id, waiters))
      else
        pump(state)
      end
    else
      _nothing_to_do -> state
    end
  end

  defp being_read?(state, site_id),
    do: Enum.any?(state.running, fn {_ref, job} -> job.what == site_id end)

  defp start_site_job(state, site_id, waiters) do
    # Never used before, not even by a predecessor.
    generation = System.unique_integer([:positive, :monotonic])

    # The function is copied to its process with everything it refers to. That must not be
    # the state of every site.
    job = %{
      instance: state.opts.instance,
      table: state.table,
      site_id: site_id,
      generation: generation,
      known: get_in(state.sites, [site_id, :fingerprint])
    }

    start_job(state, {site_id, generation}, waiters, fn -> Loader.site(job) end)
  end

  defp start_job(state, {what, generation}, waiters, fun) do
    callers = Enum.map(waiters, fn {pid, _tag} -> pid end)
    task = Isolated.start(state.opts.instance, fun, callers)
    timer = Process.send_after(self(), {:too_slow, task.ref}, state.opts.load_timeout_ms)
    job = %{what: what, task: task, timer: timer, waiters: waiters, generation: generation}
    put_in(state.running[task.ref], job)
  end

  defp ended(state, ref, result) do
    case Map.pop(state.running, ref) do
      {nil, _running} ->
        state

      {job, running} ->
        Process.cancel_timer(job.timer)
        Process.demonitor(ref, [:flush])
        state = %{state | running: running}

        state =
          if job.what == :all, do: all_read(state, job, result), else: read(state, job, result)

        pump(state)
    end
  end

  # --- one site was read

  defp read(state, %{what: site_id} = job, result) do
    state = in_force(state, job, result)
    answer = if match?({:error, _}, result), do: error_of(result), else: :ok
    Enum.each(job.waiters, &GenServer.reply(&1, answer))

    state = %{state | sweeps: Enum.flat_map(state.sweeps, &sweep_without(&1, site_id))}

    if Map.has_key?(state.wanted, site_id),
      do: %{state | queue: :queue.in_r(site_id, state.queue)},
      else: state
  end

  defp error_of({:error, {:host, reason, _webhooks}}), do: {:error, reason}
  defp error_of(error), do: error

  defp sweep_without({waiters, sites}, site_id) do
    sites = MapSet.delete(sites, site_id)

    if MapSet.size(sites) == 0 do
      Enum.each(waiters, &GenServer.reply(&1, :ok))
      []
    else
      [{waiters, sites}]
    end
  end

  defp in_force(state, %{what: site_id}, :gone) do
    Table.delete(state, site_id)
    sweep_later(state, site_id)

    succeeded(%{state | sites: Map.delete(state.sites, site_id)}, site_id)
  end

  defp in_force(state, %{what: site_id} = job, {:ok, loaded}) do
    Table.put_traffic(state.traffic, site_id, loaded.webhooks)
    generation = put_subscriptions(state, job, loaded)

    site =
      loaded
      |> Map.take([:fingerprint, :goals?, :index | Table.facts()])
      |> Map.put_new_lazy(:index, fn -> get_in(state.sites, [site_id, :index]) end)
      |> Map.merge(%{generation: generation, webhooks: loaded.digest, read: job.generation})

    succeeded(%{state | sites: Map.put(state.sites, site_id, site)}, site_id)
  end

  # The host is away but the store answered: a deleted or paused webhook must not get another
  # event.
  defp in_force(state, %{what: site_id} = job, {:error, {:host, reason, webhooks}}) do
    with %{index: %{}} = site <- state.sites[site_id] do
      Table.put(state.table, site_id, site, webhooks)
    end

    Table.put_traffic(state.traffic, site_id, webhooks)
    failed(state, job, reason)
  end

  defp in_force(state, job, {:error, reason}), do: failed(state, job, reason)

  defp failed(state, %{what: site_id} = job, reason) do
    Table.delete_rows(state.table, site_id, job.generation)
    {failures, timer} = Map.get(state.failures, site_id, {0, nil})
    # Only one try is scheduled, however many readings have failed.
    if timer, do: Process.cancel_timer(timer)
    timer = Process.send_after(self(), {:retry, site_id}, retry_ms(failures + 1))

    state = put_in(state.failures[site_id], {failures + 1, timer})
    log_failure(state, site_id, reason)
  end

  defp succeeded(state, site_id) do
    {failed, failures} = Map.pop(state.failures, site_id)
    with {_count, timer} <- failed, do: Process.cancel_timer(timer)
    %{state | failures: failures}
  end

  # A host that is away fails for every site: one line for all of them is enough.
  defp log_failure(state, site_id, reason) do
    if now_ms() >= state.log_at_ms do
      others = map_size(state.failures) - 1

      Logger.warning(
        "webhooks: site #{site_id} could not be read (#{inspect(reason, limit: 5)}), " <>
          "and neither could #{others} others; their last known state applies until the next try"
      )

      %{state | log_at_ms: now_ms() + @log_pause_ms}
    else
      state
    end
  end

  defp retry_ms(failures), do: min(@retry_ms_max, 1_000 * Integer.pow(2, min(failures, 7) - 1))

  defp put_subscriptions(state, %{what: site_id} = job, loaded) do
    case loaded do
      %{index: _new} ->
        sweep_later(state, site_id)
        site = Map.put(loaded, :generation, job.generation)
        Table.put(state.table, site_id, site, loaded.webhooks)
        job.generation

      _unchanged ->
        Table.put(state.table, site_id, state.sites[site_id], loaded.webhooks)
        state.sites[site_id].generation
    end
  end

  defp sweep_later(state, site_id) do
    case state.sites do
      %{^site_id => %{generation: generation}} ->
        Process.send_after(self(), {:sweep, site_id, generation}, @sweep_after_ms)

      _new ->
        :ok
    end
  end

  # --- all webhooks were read

  defp all_read(state, job, {:ok, digests}) do
    changed = for {site_id, digest} <- digests, changed?(state, site_id, digest), do: site_id
    gone = for {site_id, _site} <- state.sites, not Map.has_key?(digests, site_id), do: site_id
    others = if job.generation == :everything, do: Map.keys(digests), else: longest_unread(state)
    sites = Enum.uniq(changed ++ gone ++ others)
    state = Enum.reduce(sites, state, &want(&2, &1, [], :background))

    case {sites, job.waiters} do
      {[], waiters} ->
        Enum.each(waiters, &GenServer.reply(&1, :ok))
        state

      {_sites, []} ->
        state

      {sites, waiters} ->
        %{state | sweeps: [{waiters, MapSet.new(sites)} | state.sweeps]}
    end
  end

  defp all_read(state, job, {:error, reason}) do
    Logger.warning("webhooks: the webhooks could not be read (#{inspect(reason, limit: 5)})")
    Enum.each(job.waiters, &GenServer.reply(&1, {:error, reason}))

    # With nothing in force yet, a whole period is too long to wait.
    if state.sites == %{} and state.read_all_timer == nil,
      do: %{state | read_all_timer: Process.send_after(self(), :read_all, 1_000)},
      else: state
  end

  defp changed?(state, site_id, digest),
    do: get_in(state.sites, [site_id, :webhooks]) != digest

  # Where no webhook wants goals, the host was not asked for anything that could have changed.
  defp longest_unread(state) do
    state.sites
    |> Enum.filter(fn {_site_id, site} -> Map.get(site, :goals?, true) end)
    |> Enum.sort_by(fn {_site_id, site} -> site.read end)
    |> Enum.take(state.opts.sites_per_refresh)
    |> Enum.map(&elem(&1, 0))
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
end
