defmodule Plausible.Webhooks.Deliver.Engine do
  @moduledoc """
  Owns and drives the native engine.

  The process calls the engine's loop again and again. Between two calls it reads its mailbox,
  so that a supervisor's messages get through. Every other process uses the engine by its
  reference (`Plausible.Webhooks.Deliver.Owners.engine/1`): any process may submit deliveries
  and change endpoints, and does not wait for the loop.

  When the process dies, the engine dies with it, and the next engine takes a new owner. The
  Sweeper ends the lease of the dead owner, and everything it owned comes back at once.
  Nobody needs to know what was in the engine.

  The native engine's times are Erlang's monotonic time plus the offset that the VM had when
  the engine started. So they never leap, whatever the clock does. The Recorder converts them
  to the VM's time (`Plausible.Webhooks.Deliver.Recorder`), and `submit` converts them back.

  When the process stops, requests in flight have `:drain_ms` to finish. Then the lease ends,
  and the next engine to start takes what is left, with its schedule.
  """

  use GenServer

  alias Plausible.Webhooks.{Attempt, Delivery, Native}
  alias Plausible.Webhooks.Deliver.{AnswerBudget, Endpoints, Handover, Health, Owners, Recorder}
  alias Plausible.Webhooks.Runtime.{Instance, Observers}

  require Logger

  # The longest slice: a supervisor's shutdown or a new owner waits this long.
  @slice_ms 100
  @lagging_ms 10
  @retry_ms 500
  @native_options ~w(policy retry_delays_ms jitter_percent park_after_ms retry_after_max_ms
                     timeout_ms connect_timeout_ms dns_servers in_flight_max descriptors_max
                     circuit_failures response_header_bytes_max response_body_bytes_max
                     waiting_max waiting_bytes_max lane_waiting_bytes_max lane_in_flight_max lane_rate_per_s
                     destination_in_flight_max destination_rate_per_s ca_file user_agent)a

  @doc """
  Gives the engine a new owner. Deliveries that the old owner owns and no engine has can then
  be taken back. The engine ignores those that it holds already.
  """
  @spec renew_owner(Instance.t()) :: :ok | {:error, term()}
  def renew_owner(instance) do
    owner = Owners.new()

    # The caller asks the store: while the engine's process waits, nobody drives.
    with :ok <- Owners.lease(instance, owner),
         do: GenServer.call(Instance.process(instance, :engine), {:rename, owner}, 5_000)
  catch
    :exit, _reason -> {:error, :not_running}
  end

  @doc """
  Submits the deliveries that `fun` takes in the store, some of which the engine may hold
  already. Leaves out those that the engine finishes while `fun` runs, since the store does
  not know that yet. `fun` is called once everything reported before is on record. After an
  error of the store nobody knows who owns the deliveries that `fun` took.

  Returns the result of `fun`, with the ids that were `finished` meanwhile.
  """
  @spec submit_again(Instance.t(), (() -> {:ok, found} | {:error, term()})) ::
          {:ok, found} | {:error, term()}
        when found: %{
               required(:taken) => [Delivery.t()],
               optional(:requested | :finished) => [String.t()]
             }
  def submit_again(instance, fun) do
    process = Instance.process(instance, :engine)
    :ok = GenServer.call(process, :watch, 5_000)
    result = with :ok <- recorded(instance), do: fun.()
    taken = taken(result)
    # Reads from the store here and not in the engine's process: see renew_owner/1.
    Handover.look_up(instance, Owners.engine(instance), taken)
    finished = submit_unfinished(instance, process, taken)
    with {:ok, found} <- result, do: {:ok, Map.put(found, :finished, finished)}
  catch
    :exit, _reason -> {:error, :timeout}
  end

  defp taken({:ok, found}), do: found.taken
  defp taken({:error, _reason}), do: []

  # Nothing was taken, so the outcome is known.
  defp recorded(instance) do
    with {:error, _reason} <- Recorder.flush(instance, 2_000), do: {:error, {:away, :recorder}}
  end

  defp submit_unfinished(instance, process, taken) do
    case GenServer.call(process, {:submit_again, taken}, 30_000) do
      {:ok, owner, left_over, finished} ->
        if left_over != [], do: Handover.release(instance, owner, Enum.map(left_over, & &1.id))
        finished

      # What a stopped engine owns comes back by itself.
      {:error, :stopped} ->
        []
    end
  end

  @doc "Counters and gauges of the native engine; empty while there is none."
  @spec stats(Instance.t()) :: map()
  def stats(instance) do
    case Owners.engine(instance) do
      nil -> %{}
      engine -> Native.stats(engine.ref)
    end
  end

  @doc "The engine's options as the native side takes them."
  @spec native_options(map()) :: map()
  def native_options(options), do: Map.take(options, @native_options)

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
        Owners.engine_gone(instance)
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
    Owners.add_former(instance, state.owner)
    {:reply, :ok, publish(instance, %{state | owner: owner})}
  end

  # Attempts end only while this process drives the engine. So between two calls of the loop
  # it knows every attempt that has ended.
  def handle_call(:watch, _from, state), do: {:reply, :ok, %{state | finished: MapSet.new()}}

  # They belong to a predecessor.
  def handle_call({:submit_again, _deliveries}, _from, %{finished: nil} = state),
    do: {:reply, {:error, :stopped}, state}

  def handle_call({:submit_again, deliveries}, _from, state) do
    instance = Instance.fetch!(state.name)
    {finished, again} = Enum.split_with(deliveries, &MapSet.member?(state.finished, &1.id))
    result = Handover.submit(instance, Owners.engine(instance), again)

    result =
      with {:ok, left_over} <- result,
           do: {:ok, state.owner, left_over, Enum.map(finished, & &1.id)}

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
    Owners.engine_gone(instance)

    # What is unfinished needs no list: the lease ends below, and the rows keep the time of
    # their next attempt.
    _ = Native.engine_stop(state.ref, if(stopping?, do: instance.options.drain_ms, else: 0))
    fetch_rest(instance, state)

    if stopping? do
      _ = Recorder.flush(instance, 8_000)

      for owner <- [state.owner | Owners.former(instance)],
          owner != nil,
          do: Owners.end_lease(instance, owner)
    end
  end

  # Without a lease anyone may claim the owner's rows. So this engine gets nothing before the
  # store has its lease.
  defp take_charge(%{owner: nil} = state) do
    instance = Instance.fetch!(state.name)
    owner = Owners.new()

    case Owners.lease(instance, owner) do
      :ok ->
        publish(instance, %{state | owner: owner})

      {:error, reason} ->
        Logger.warning("webhooks: the engine's lease was not stored: #{inspect(reason)}")
        Process.send_after(self(), :take_charge, @retry_ms)
        state
    end
  end

  defp take_charge(state), do: state

  defp publish(instance, state) do
    Owners.put_engine(instance, Map.take(state, [:ref, :owner, :endpoints, :time_offset_ms]))
    Instance.tell(instance, :sweeper, :sweep)
    Instance.tell(instance, :outbox, :drain)
    state
  end

  # An engine that nobody drives starts no new requests. That keeps memory bounded when the
  # Recorder lags behind, because the store is away.
  defp drive(instance, state) do
    if Recorder.room?(instance) do
      run_once(instance, state)
    else
      Process.send_after(self(), :drive, @lagging_ms)
      {:noreply, state}
    end
  end

  defp run_once(instance, state) do
    case Native.run_once(state.ref, @slice_ms) do
      {:ok, attempts} ->
        report(instance, state, attempts)
        report_slow(instance, state)
        send(self(), :drive)
        {:noreply, note_finished(state, attempts)}

      {:error, :already_driven} ->
        Process.send_after(self(), :drive, @slice_ms)
        {:noreply, state}

      {:error, reason} ->
        {:stop, {:engine, reason}, state}
    end
  end

  # Work for one webhook takes a few milliseconds at most, whatever its receiver does. This
  # guards against causes that are not known.
  defp report_slow(instance, state) do
    for {webhook_id, took_ms} <- Native.slow_slices(state.ref) do
      site_id = webhook_id && Endpoints.site_id(state.endpoints, webhook_id)
      Observers.slow(instance, site_id, webhook_id, took_ms)
      if webhook_id, do: Health.slow(instance, webhook_id)
    end
  end

  defp note_finished(%{finished: nil} = state, _attempts), do: state

  defp note_finished(state, attempts) do
    finished = Enum.reduce(attempts, state.finished, &MapSet.put(&2, &1.delivery_id))
    %{state | finished: finished}
  end

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
    attempts =
      for attempt <- attempts do
        site_id = Endpoints.site_id(state.endpoints, attempt.webhook_id)
        attempt = AnswerBudget.spend(instance, site_id, attempt)
        attempt |> Map.put(:owner, state.owner) |> let_go(state.endpoints)
      end

    Recorder.put(instance, attempts, state.time_offset_ms)
  end

  # The engine cancels what waits or is under way when the webhook is paused, switched off or
  # deleted.
  defp let_go(%Attempt{state: :cancelled} = attempt, endpoints) do
    {becomes, reason} = Endpoints.let_go(endpoints, attempt.webhook_id)
    detail = if attempt.number == 0, do: attempt.detail || reason, else: attempt.detail
    %{attempt | state: becomes, detail: detail}
  end

  defp let_go(attempt, _endpoints), do: attempt
end
