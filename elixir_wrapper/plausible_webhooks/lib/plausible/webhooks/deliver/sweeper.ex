defmodule Plausible.Webhooks.Deliver.Sweeper do
  @moduledoc """
  Brings deliveries back from the store into the engine, and keeps the store tidy.

  Every `:sweep_interval_ms`, and whenever somebody tells it to:

    * renews the lease of the engine's owner, before anything else;
    * ends the leases of owners that are no more (a crashed engine of this node),
      once what they reported is on record;
    * claims parked deliveries whose time has come and those that a dead owner has
      left, as long as the engine has room.

  Redeliveries and recoveries go this way too, so that exactly one process moves
  rows from the store to the engine. When it dies in the middle, and when the
  store's answer gets lost, rows may be owned by a living engine that does not have
  them. The engine then gets a new owner id, and all that is in the former one's
  name is taken back and submitted: the engine ignores what it holds already. The
  former lease is kept up until that is done, so that no other node sends the same.

  Every `:prune_interval_ms` it deletes finished deliveries older than
  `:retention_ms`, a slice at a time, if this node holds the lease for it and no job of the
  host does it (`:periodic`).
  """

  use GenServer

  alias Plausible.Webhooks.{Native, Store}
  alias Plausible.Webhooks.Deliver.{Engine, Handover, Recorder}
  alias Plausible.Webhooks.Runtime.{Instance, Observers}
  alias Plausible.Webhooks.Store.PeriodicLease

  @claim_max 250
  # Bodies come along: a slice must not fill the memory.
  @redeliver_max 100
  @prune_max 500
  # New events must find room too.
  @fill_percent 80
  @call_ms 15_000
  @lease "retention"
  @lease_ms_max 600_000

  @doc "Sends deliveries again; returns the ids that are on their way."
  @spec redeliver(Instance.t(), [String.t()]) :: {:ok, [String.t()]} | {:error, term()}
  def redeliver(instance, ids), do: call(instance, {:redeliver, ids})

  @doc "Sweeps now; returns when done."
  @spec sweep(Instance.t()) :: :ok | {:error, term()}
  def sweep(instance), do: call(instance, :sweep)

  @doc """
  Deletes all that is too old, slice by slice, in the caller's process; returns how
  many deliveries it were.
  """
  @spec prune(Instance.t()) :: {:ok, non_neg_integer()} | {:error, term()}
  def prune(instance), do: prune(instance, 0)

  defp call(instance, request) do
    GenServer.call(Instance.process(instance, :sweeper), request, @call_ms)
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _reason -> {:error, :not_running}
  end

  @doc false
  def start_link(name),
    do: GenServer.start_link(__MODULE__, name, name: Instance.process(name, :sweeper))

  @doc false
  def child_spec(name),
    do: %{id: __MODULE__, start: {__MODULE__, :start_link, [name]}, shutdown: 5_000}

  # succession: has a predecessor left something in between? unsure: an answer got
  # lost. Either way the engine is to get a new owner id. hold_until: nothing is
  # claimed before.
  @impl true
  def init(name) do
    Process.flag(:trap_exit, true)
    options = Instance.fetch!(name).options
    Process.send_after(self(), :prune, options.prune_interval_ms)
    send(self(), :tick)

    {:ok,
     %{
       name: name,
       leased_at: nil,
       leased_owner: nil,
       hold_until: nil,
       succession: :open,
       unsure: false,
       lease: nil
     }}
  end

  @impl true
  def handle_call({:redeliver, ids}, _from, state) do
    instance = Instance.fetch!(state.name)
    result = redeliver_now(instance, ids)
    if lost?(result), do: send(self(), :sweep)
    {:reply, result, %{state | unsure: state.unsure or lost?(result)}}
  end

  def handle_call(:sweep, _from, state), do: {:reply, :ok, sweep_now(state)}

  @impl true
  def handle_info(:tick, state) do
    options = Instance.fetch!(state.name).options
    Process.send_after(self(), :tick, options.sweep_interval_ms)
    {:noreply, sweep_now(state)}
  end

  # Told by many at once (an engine that took over, an Outbox without one): once
  # is enough.
  def handle_info(:sweep, state) do
    flush_messages(:sweep)
    {:noreply, sweep_now(state)}
  end

  # The Outbox does not know what became of what it wrote.
  def handle_info(:unsure, state) do
    flush_messages(:unsure)
    {:noreply, sweep_now(%{state | unsure: true})}
  end

  # A slice was full: there is more.
  def handle_info(:more, state) do
    flush_messages(:more)
    {:noreply, bring_back(Instance.fetch!(state.name), state)}
  end

  def handle_info(:prune, state) do
    instance = Instance.fetch!(state.name)
    old_rates(instance)
    {ours?, state} = take_lease(instance, state)

    # One slice at a time: a backlog must not keep deliveries waiting.
    next_ms =
      case ours? and prune_slice(instance) do
        {:ok, @prune_max} -> 100
        _not_ours_or_done_or_away -> instance.options.prune_interval_ms
      end

    Process.send_after(self(), :prune, next_ms)
    {:noreply, state}
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state),
    do: PeriodicLease.give_back(state.name, @lease, state.lease)

  defp flush_messages(message) do
    receive do
      ^message -> flush_messages(message)
    after
      0 -> :ok
    end
  end

  defp lost?({:error, reason}), do: Store.outcome_unknown?(reason)
  defp lost?(_result), do: false

  # --- sweeping

  defp sweep_now(state) do
    instance = Instance.fetch!(state.name)
    state = instance |> succeed(state) |> make_sure(instance)

    case Engine.current(instance) do
      nil ->
        state

      engine ->
        case lease(instance, engine, state) do
          {:ok, state} ->
            end_leases(instance)
            Handover.release_unplaced(instance)
            bring_back(instance, state)

          {:error, _reason} ->
            # Without a lease our own rows would look like a dead owner's.
            state
        end
    end
  end

  # The mark of a predecessor under the same tables: it may have died between the
  # store and the engine.
  defp succeed(_instance, %{succession: :done} = state), do: state

  defp succeed(%Instance{tables: %{meta: meta}}, state) do
    predecessor? = not :ets.insert_new(meta, {:sweeper, self()})
    %{state | succession: :done, unsure: state.unsure or predecessor?}
  end

  # Without an engine there is nobody who could miss something.
  defp make_sure(%{unsure: false} = state, _instance), do: state

  defp make_sure(state, instance) do
    case Engine.current(instance) && Engine.renew_owner(instance) do
      result when result in [nil, :ok] -> %{state | unsure: false}
      {:error, _reason} -> state
    end
  end

  defp lease(instance, engine, state) do
    now = System.monotonic_time(:millisecond)
    lease_ms = instance.options.lease_ms
    due? = state.leased_at == nil or now - state.leased_at >= div(lease_ms, 3)

    if due? or state.leased_owner != engine.owner do
      with :ok <- Store.heartbeat(instance, engine.owner, lease_ms) do
        for owner <- Engine.former_owners(instance),
            do: Store.heartbeat(instance, owner, lease_ms)

        {:ok, hold(%{state | leased_at: now, leased_owner: engine.owner}, state, lease_ms)}
      end
    else
      {:ok, state}
    end
  end

  # When the store was away for so long that leases have ended in the meantime, the
  # nodes come back to it one after the other. The first one must not take over what
  # the others are working on, and perhaps have only not been able to record.
  defp hold(state, %{leased_at: before}, lease_ms) do
    if before != nil and state.leased_at - before >= div(lease_ms * 2, 3),
      do: %{state | hold_until: System.monotonic_time(:millisecond) + lease_ms},
      else: state
  end

  defp holds?(%{hold_until: nil}), do: false
  defp holds?(state), do: System.monotonic_time(:millisecond) < state.hold_until

  # First what the dead one reported: what is on record as delivered does not come
  # back. Only this process renews and ends leases of this node, so that none is
  # renewed after its end.
  defp end_leases(instance) do
    case Engine.dead_owners(instance) do
      [] ->
        :ok

      owners ->
        _ = Recorder.flush(instance, 2_000)
        Enum.each(owners, &Engine.end_lease(instance, &1))
        # A lease of 1 ms has to pass.
        Process.sleep(5)
    end
  end

  # The owner is looked up again: it may have changed since the sweep began.
  defp bring_back(instance, state) do
    with engine when engine != nil <- Engine.current(instance),
         true <- engine.owner == state.leased_owner do
      lost? = take_back(instance, engine, Engine.former_owners(instance))

      # What is still in a former name would be claimed as a dead owner's when that
      # lease has run out over this, and sent beside the engine that has it.
      claims? = not holds?(state) and Engine.former_owners(instance) == []
      lost? = (claims? and claim(instance, engine)) or lost?
      %{state | unsure: state.unsure or lost?}
    else
      _changed -> state
    end
  end

  defp take_back(instance, engine, formers),
    do: formers |> Enum.map(&take_back_from(instance, engine, &1)) |> Enum.any?()

  # Most of it the engine holds, and needs no room for. What it has done and what is
  # only not on record yet would be sent again: until that is written nothing is
  # taken back.
  defp take_back_from(instance, engine, former) do
    limit = min(room(instance, engine, 100), @claim_max)

    result =
      limit > 0 and
        Engine.submit_again(instance, fn ->
          with :ok <- Recorder.flush(instance, 2_000),
               do: Store.reclaim(instance, engine.owner, former, limit)
        end)

    with {:ok, deliveries} <- result do
      if length(deliveries) == limit,
        do: send(self(), :more),
        else: Engine.end_lease(instance, former)
    end

    lost?(result)
  end

  defp claim(instance, engine) do
    limit = min(room(instance, engine, @fill_percent), @claim_max)
    result = if limit > 0, do: Store.claim(instance, engine.owner, limit)

    case result do
      {:ok, deliveries} ->
        Handover.submit_or_release(instance, engine, deliveries)
        if length(deliveries) == limit, do: send(self(), :more)

      {:error, reason} ->
        Observers.store_failed(instance, :claim, reason)

      nil ->
        :ok
    end

    lost?(result)
  end

  defp room(instance, engine, percent) do
    waiting = engine.ref |> Native.stats() |> Map.get(:waiting, 0)
    div(instance.options.waiting_max * percent, 100) - waiting
  end

  # --- sending again

  defp redeliver_now(instance, ids) do
    case Engine.current(instance) do
      nil ->
        {:error, :unavailable}

      engine ->
        ids
        |> Enum.chunk_every(@redeliver_max)
        |> Enum.reduce_while({:ok, []}, fn slice, {:ok, sent} ->
          case Store.redeliver(instance, engine.owner, slice) do
            {:ok, deliveries} ->
              Handover.submit_or_release(instance, engine, deliveries)
              {:cont, {:ok, sent ++ Enum.map(deliveries, & &1.id)}}

            {:error, _reason} = error ->
              {:halt, error}
          end
        end)
    end
  end

  # --- tidying

  defp prune(instance, count) do
    case prune_slice(instance) do
      {:ok, @prune_max} -> prune(instance, count + @prune_max)
      {:ok, rest} -> {:ok, count + rest}
      {:error, _reason} = error -> error
    end
  end

  # Kept until the next time, so that the same node goes on.
  defp take_lease(%Instance{options: %{periodic: :local} = options} = instance, state) do
    lease_ms = min(2 * options.prune_interval_ms, @lease_ms_max)

    case Store.take_lease(instance, @lease, lease_ms, state.lease) do
      {:ok, token} -> {true, %{state | lease: token}}
      {:error, :taken} -> {false, %{state | lease: nil}}
      {:error, _away} -> {false, state}
    end
  end

  defp take_lease(_instance, state), do: {false, state}

  defp prune_slice(instance) do
    before_ms = Instance.now_ms() - instance.options.retention_ms
    Store.prune(instance, before_ms, @prune_max)
  end

  defp old_rates(%Instance{tables: %{rates: rates}}) do
    hour_ago = System.monotonic_time(:millisecond) - 3_600_000
    :ets.select_delete(rates, [{{:_, :"$1", :_}, [{:<, :"$1", hour_ago}], [true]}])
  end
end
