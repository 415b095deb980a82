defmodule Plausible.Webhooks.Deliver.Engine do
  @moduledoc """
  Owns and drives the native engine.

  The process does little else than to call the engine's loop again and again,
  through its own mailbox, so that a supervisor gets a word in between. Everyone
  else talks to the engine by its reference (`current/1`): submitting and changing
  endpoints are safe from any process and are not held up by the loop.

  Deliveries in the store belong to an *owner*: this engine under this id. When
  the process dies, the engine dies with it, and a new one takes a new id; the old
  one is noted as dead, the Sweeper ends its lease, and everything it held comes
  back at once. Nothing has to be known about what was in the engine.

  The native engine's times (when the next attempt is due) are Erlang's monotonic
  time and the offset that the VM had at the engine's start, so that they never leap,
  whatever the clock does. They become the VM's time when they are written
  (`Plausible.Webhooks.Deliver.Recorder`), and the other way round in what is submitted.

  At the stop the requests in flight may finish for `:drain_ms`; the lease is
  ended, and what is left is there for whoever starts next, with its schedule.
  """

  use GenServer

  alias Plausible.Webhooks.{Delivery, Native, Store}
  alias Plausible.Webhooks.Deliver.{Handover, Recorder}
  alias Plausible.Webhooks.Runtime.Instance

  require Logger

  @type t :: %{
          ref: reference(),
          owner: String.t(),
          endpoints: :ets.table(),
          time_offset_ms: integer()
        }

  # The longest slice: a supervisor's shutdown or a new owner waits this long.
  @slice_ms 100
  @lagging_ms 10
  @retry_ms 500

  @doc "The engine in charge, or `nil` while there is none."
  @spec current(Instance.t()) :: t() | nil
  def current(%Instance{tables: %{meta: meta}}) do
    case :ets.lookup(meta, :engine) do
      [{:engine, engine}] -> engine
      [] -> nil
    end
  rescue
    ArgumentError -> nil
  end

  @doc """
  Gives the engine a new owner id, so that rows of the old one that are in no
  engine can be taken back. The engine ignores what it holds already.
  """
  @spec renew_owner(Instance.t()) :: :ok | {:error, term()}
  def renew_owner(instance) do
    owner = new_owner()

    # By the caller: while the engine's process waits, nobody drives.
    with :ok <- lease(instance, owner),
         do: GenServer.call(Instance.process(instance, :engine), {:rename, owner}, 5_000)
  catch
    :exit, _reason -> {:error, :not_running}
  end

  @doc """
  Submits what `fun` finds in the store and the engine may hold already, except
  what the engine has finished while `fun` was looking: that looks in the store as
  if nobody had done it yet. `fun` is to wait first until everything reported before
  is on record. Its own error, or `:timeout`: it is not known who has what it found.
  """
  @spec submit_again(Instance.t(), (() -> {:ok, [Delivery.t()]} | {:error, term()})) ::
          {:ok, [Delivery.t()]} | {:error, term()}
  def submit_again(instance, fun) do
    process = Instance.process(instance, :engine)
    :ok = GenServer.call(process, :watch, 5_000)
    result = fun.()
    found = with {:ok, deliveries} <- result, do: deliveries, else: (_error -> [])
    # What has to be asked of the store is asked here: see renew_owner/1.
    Handover.look_up(instance, current(instance), found)

    with {:ok, owner, [_ | _] = left_over} <-
           GenServer.call(process, {:submit_again, found}, 30_000),
         do: Handover.release(instance, owner, Enum.map(left_over, & &1.id))

    result
  catch
    :exit, _reason -> {:error, :timeout}
  end

  @doc "Owners that are no more; their lease is to be ended."
  @spec dead_owners(Instance.t()) :: [String.t()]
  def dead_owners(%Instance{tables: %{meta: meta}}),
    do: :ets.select(meta, [{{{:dead_owner, :"$1"}}, [], [:"$1"]}])

  @doc """
  Names under which the engine worked before, or for which the Outbox has committed
  what it was in doubt about: what is theirs is to be taken back.
  """
  @spec former_owners(Instance.t()) :: [String.t()]
  def former_owners(%Instance{tables: %{meta: meta}}),
    do: :ets.select(meta, [{{{:former_owner, :"$1"}}, [], [:"$1"]}])

  @doc false
  @spec note_former(Instance.t(), String.t()) :: true
  def note_former(%Instance{tables: %{meta: meta}}, owner),
    do: :ets.insert(meta, {{:former_owner, owner}})

  @doc "Ends the lease of an owner that is no more, and forgets it."
  @spec end_lease(Instance.t(), String.t()) :: :ok | {:error, term()}
  def end_lease(%Instance{tables: %{meta: meta}} = instance, owner) do
    with :ok <- Store.heartbeat(instance, owner, 1) do
      :ets.delete(meta, {:dead_owner, owner})
      :ets.delete(meta, {:former_owner, owner})
      :ok
    end
  end

  @doc "Counters and gauges of the native engine; empty while there is none."
  @spec stats(Instance.t()) :: map()
  def stats(instance) do
    case current(instance) do
      nil -> %{}
      engine -> Native.stats(engine.ref)
    end
  end

  @doc "The engine's options as the native side takes them."
  @spec native_options(map()) :: map()
  def native_options(options) do
    Map.take(options, [
      :policy,
      :retry_delays_ms,
      :jitter_percent,
      :park_after_ms,
      :retry_after_max_ms,
      :timeout_ms,
      :connect_timeout_ms,
      :in_flight_max,
      :descriptors_max,
      :circuit_failures,
      :dns_timeout_ms,
      :response_header_bytes_max,
      :waiting_max,
      :host_in_flight_max,
      :host_rate_per_s,
      :lane_in_flight_max,
      :lane_rate_per_s,
      :response_body_bytes_max,
      :ca_file,
      :user_agent
    ])
  end

  @doc false
  def start_link(name),
    do: GenServer.start_link(__MODULE__, name, name: Instance.process(name, :engine))

  @doc false
  def child_spec(%Instance{name: name, options: options}) do
    %{
      id: __MODULE__,
      start: {__MODULE__, :start_link, [name]},
      shutdown: options.drain_ms + 15_000
    }
  end

  @impl true
  def init(name) do
    Process.flag(:trap_exit, true)
    instance = Instance.fetch!(name)

    time_offset_ms = System.time_offset(:millisecond)
    options = Map.put(native_options(instance.options), :time_offset_ms, time_offset_ms)

    case Native.engine_start(options) do
      {:ok, ref} ->
        endpoints = :ets.new(:webhooks_endpoints, [:set, :public, read_concurrency: true])
        bury(instance)
        send(self(), :drive)

        {:ok,
         take_charge(%{
           name: name,
           ref: ref,
           endpoints: endpoints,
           time_offset_ms: time_offset_ms,
           owner: nil,
           finished: nil
         })}

      {:error, reason} ->
        {:stop, {:engine, reason}}
    end
  end

  @impl true
  def handle_call({:rename, _owner}, _from, %{owner: nil} = state),
    do: {:reply, {:error, :not_in_charge}, state}

  def handle_call({:rename, owner}, _from, state) do
    instance = Instance.fetch!(state.name)
    note_former(instance, state.owner)
    {:reply, :ok, publish(instance, %{state | owner: owner})}
  end

  # Attempts end only while the engine is driven, which is in this process: between
  # two turns it is known of every one.
  def handle_call(:watch, _from, state), do: {:reply, :ok, %{state | finished: MapSet.new()}}

  # Of a predecessor, whose they are.
  def handle_call({:submit_again, _deliveries}, _from, %{finished: nil} = state),
    do: {:reply, {:error, :stopped}, state}

  def handle_call({:submit_again, deliveries}, _from, state) do
    instance = Instance.fetch!(state.name)
    again = Enum.reject(deliveries, &MapSet.member?(state.finished, &1.id))
    result = Handover.submit(instance, current(instance), again)
    result = with {:ok, left_over} <- result, do: {:ok, state.owner, left_over}
    {:reply, result, %{state | finished: nil}}
  end

  @impl true
  def handle_info(:drive, state), do: drive(Instance.fetch!(state.name), state)
  def handle_info(:take_charge, state), do: {:noreply, take_charge(state)}
  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(reason, state) do
    instance = Instance.fetch!(state.name)
    stopping? = Instance.stopping?(reason)
    bury(instance)

    # What is unfinished needs no list: the lease ends below, and the rows keep
    # the time of their next attempt.
    _ = Native.engine_stop(state.ref, if(stopping?, do: instance.options.drain_ms, else: 0))
    fetch_rest(instance, state)

    if stopping? do
      _ = Recorder.flush(instance, 8_000)

      for owner <- [state.owner | former_owners(instance)],
          owner != nil,
          do: end_lease(instance, owner)
    end
  end

  # Without a lease an owner's rows are anybody's: nothing is handed to this
  # engine before the store has its owner.
  defp take_charge(%{owner: nil} = state) do
    instance = Instance.fetch!(state.name)
    owner = new_owner()

    case lease(instance, owner) do
      :ok ->
        publish(instance, %{state | owner: owner})

      {:error, reason} ->
        Logger.warning("webhooks: the store did not take the engine's lease: #{inspect(reason)}")
        Process.send_after(self(), :take_charge, @retry_ms)
        state
    end
  end

  defp take_charge(state), do: state

  defp lease(instance, owner),
    do: Store.heartbeat(instance, owner, instance.options.lease_ms)

  defp publish(instance, state) do
    engine = Map.take(state, [:ref, :owner, :endpoints, :time_offset_ms])
    :ets.insert(instance.tables.meta, {:engine, engine})
    Instance.tell(instance, :sweeper, :sweep)
    Instance.tell(instance, :outbox, :drain)
    state
  end

  # The engine before this one, if it left without a word.
  defp bury(%Instance{tables: %{meta: meta}} = instance) do
    with %{owner: owner} <- current(instance) do
      :ets.insert(meta, {{:dead_owner, owner}})
      :ets.delete(meta, :engine)
    end

    :ok
  end

  # Readable in a table, unique in any cluster and over restarts.
  @doc false
  @spec new_owner() :: String.t()
  def new_owner do
    random = Base.encode32(:crypto.strong_rand_bytes(10), case: :lower, padding: false)
    "#{node()}/#{System.os_time(:second)}/#{random}"
  end

  # An engine that nobody drives starts no new requests: when the Recorder lags
  # behind (a store that is away), that is what keeps memory bounded.
  defp drive(instance, state) do
    if Recorder.room?(instance) do
      turn(instance, state)
    else
      Process.send_after(self(), :drive, @lagging_ms)
      {:noreply, state}
    end
  end

  defp turn(instance, state) do
    case Native.run_once(state.ref, @slice_ms) do
      {:ok, attempts} ->
        report(instance, state, attempts)
        send(self(), :drive)
        {:noreply, note_finished(state, attempts)}

      {:error, :already_driven} ->
        Process.send_after(self(), :drive, @slice_ms)
        {:noreply, state}

      {:error, reason} ->
        {:stop, {:engine, reason}, state}
    end
  end

  defp note_finished(%{finished: nil} = state, _attempts), do: state

  defp note_finished(state, attempts),
    do: %{
      state
      | finished: Enum.reduce(attempts, state.finished, &MapSet.put(&2, &1.delivery_id))
    }

  defp fetch_rest(instance, state) do
    case Native.run_once(state.ref, 0) do
      {:ok, [_ | _] = attempts} ->
        report(instance, state, attempts)
        fetch_rest(instance, state)

      _nothing_left ->
        :ok
    end
  end

  defp report(instance, state, attempts) do
    attempts = Enum.map(attempts, &Map.put(&1, :owner, state.owner))
    Recorder.put(instance, attempts, state.time_offset_ms)
  end
end
