defmodule Plausible.Webhooks.Deliver.Sweeper do
  @ends_max 4

  @moduledoc """
  Brings deliveries back from the store into the engine, and deletes old ones.

  Every `:sweep_interval_ms`, and whenever it is told to, the Sweeper

    * renews the lease of the engine's owner, before anything else;
    * ends the leases of dead owners of this node, once what they reported is on record;
    * claims parked deliveries that are due and those of dead owners, as long as the engine
      has room.

  Redeliveries and recoveries go through the Sweeper too, so that only one process moves rows
  from the store to the engine. A delivery in another node's engine stays there: that node's
  Sweeper finds the request in the store, and sends the delivery again.

  When this process dies in the middle, or the store's answer is lost, a living owner may own
  rows that its engine does not have. The engine then gets a new owner. Everything in the
  former owner's name is taken back and submitted, and the engine ignores what it holds
  already. The former lease is kept until that is done, so that no other node sends the same
  rows.

  ## A delivery that ends its node

  The answer to one delivery might end the VM each time it is sent, and this must not go on
  for ever. The store does not know what was in flight when a VM was killed: recording that
  would take a commit for each attempt. So every delivery that was due in its engine counts one
  end of a node (`ends`). Any attempt on record sets that back to 0. A first end has no consequences: what
  was in flight is sent again, beside everything else. After a second one in a row the
  delivery is a suspect. One suspect at a time is sent on a node, beside the deliveries that
  are not suspects, and the next one follows when its attempt is on record. That claim is a
  commit of its own, so from here on the store knows what was in flight. After
  #{@ends_max} ends, two of them while it was the only suspect under way, the delivery has
  failed (`node_ended`).

  Rejected: a file of what is in flight, which other nodes cannot read; and suspicion after
  the first end, when thousands would wait for each other after an ordinary `kill -9`.

  Every `:prune_interval_ms`, if this node holds the lease for that, it deletes finished and
  held deliveries older than `:retention_ms`, a slice at a time, and looks for held ones of a
  webhook that was resumed by a node that died before it could send them.
  """

  use GenServer

  alias Plausible.Webhooks.{Attempt, Delivery, Native, Store}
  alias Plausible.Webhooks.Deliver.{Engine, Handover, Owners, Recorder}
  alias Plausible.Webhooks.Runtime.{Instance, Observers}
  alias Plausible.Webhooks.Store.PeriodicLease

  @claim_max 250
  # Bodies come along: a slice must not fill the memory.
  @redeliver_max 100
  @prune_max 500
  @undelivered [:pending, :parked, :held, :failed, :cancelled]
  # New events must find room too.
  @fill_percent 80
  @call_ms 15_000
  @lease "retention"
  @lease_ms_max 600_000

  @doc """
  Sends those of the deliveries again that are in one of the states. Returns the ids that are
  on their way.
  """
  @spec redeliver(Instance.t(), [String.t()], [Delivery.state()]) ::
          {:ok, [String.t()]} | {:error, term()}
  def redeliver(instance, ids, states), do: call(instance, {:redeliver, ids, states})

  @doc "Sweeps now; returns when done."
  @spec sweep(Instance.t()) :: :ok | {:error, term()}
  def sweep(instance), do: call(instance, :sweep)

  @doc """
  Deletes finished deliveries that are too old, slice by slice in the caller's process.
  Returns the number deleted.
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

  # unsure: the engine's owner may own rows that the engine does not have, so the engine needs
  # a new owner. claim_from: when to claim again; nil: now.
  @impl true
  def init(name) do
    Process.flag(:trap_exit, true)
    instance = Instance.fetch!(name)
    Process.send_after(self(), :prune, instance.options.prune_interval_ms)
    send(self(), :tick)

    {:ok,
     %{
       name: name,
       leased_at: nil,
       leased_owner: nil,
       claim_from: nil,
       unsure: not :ets.insert_new(instance.tables.meta, {:sweeper, self()}),
       lease: nil
     }}
  end

  @impl true
  def handle_call({:redeliver, ids, states}, _from, state) do
    instance = Instance.fetch!(state.name)
    result = redeliver_now(instance, ids, states)
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

  # Several processes may ask at once (a new engine, an Outbox without one). Once is enough.
  def handle_info(:sweep, state) do
    flush_messages(:sweep)
    {:noreply, sweep_now(state)}
  end

  # The Outbox does not know whether its rows were committed.
  def handle_info(:unsure, state) do
    flush_messages(:unsure)
    {:noreply, sweep_now(%{state | unsure: true})}
  end

  # A slice was full: there is more.
  def handle_info(:more, state) do
    flush_messages(:more)
    {:noreply, bring_back(Instance.fetch!(state.name), state)}
  end

  # A suspect has survived its attempt: the next one, please.
  def handle_info({pid, %Attempt{} = attempt}, state) when pid == self() do
    Recorder.unwatch(Instance.fetch!(state.name), attempt.delivery_id)
    handle_info(:more, state)
  end

  def handle_info(:prune, state) do
    instance = Instance.fetch!(state.name)
    old_rates(instance)
    {ours?, state} = take_lease(instance, state)
    if ours?, do: Store.send_held(instance)

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
    state = make_sure(state, instance)

    case Owners.engine(instance) do
      nil ->
        state

      engine ->
        case lease(instance, engine, state) do
          {:ok, state} ->
            end_leases(instance)
            Handover.release_unplaced(instance)
            bring_back(instance, state)

          {:error, _reason} ->
            # Without a lease this node's rows would look like those of a dead owner.
            state
        end
    end
  end

  # Without an engine nothing can be missing from it.
  defp make_sure(%{unsure: false} = state, _instance), do: state

  defp make_sure(state, instance) do
    case Owners.engine(instance) && Engine.renew_owner(instance) do
      result when result in [nil, :ok] -> %{state | unsure: false}
      {:error, _reason} -> state
    end
  end

  defp lease(instance, engine, state) do
    now = System.monotonic_time(:millisecond)
    lease_ms = instance.options.lease_ms
    due? = state.leased_at == nil or now - state.leased_at >= div(lease_ms, 3)

    if due? or state.leased_owner != engine.owner do
      with :ok <- Owners.lease(instance, engine.owner) do
        Enum.each(Owners.former(instance), &Owners.lease(instance, &1))

        {:ok, hold(%{state | leased_at: now, leased_owner: engine.owner}, state, lease_ms)}
      end
    else
      {:ok, state}
    end
  end

  # If the store was away for so long that leases have ended, the nodes come back to it one
  # after the other. The first one must not take over the others' work.
  defp hold(state, %{leased_at: before}, lease_ms) do
    if before != nil and state.leased_at - before >= div(lease_ms * 2, 3),
      do: %{state | claim_from: System.monotonic_time(:millisecond) + lease_ms},
      else: state
  end

  defp holds?(%{claim_from: nil}), do: false
  defp holds?(state), do: System.monotonic_time(:millisecond) < state.claim_from

  # A dead owner's attempts are recorded first, so that no delivered delivery comes back. Only
  # this process renews and ends the leases of this node, so none is renewed after its end.
  defp end_leases(instance) do
    case Owners.dead(instance) do
      [] ->
        :ok

      owners ->
        _ = Recorder.flush(instance, 2_000)
        Enum.each(owners, &Owners.end_lease(instance, &1))
    end
  end

  # The owner is looked up again: it may have changed since the sweep began.
  defp bring_back(instance, state) do
    with engine when engine != nil <- Owners.engine(instance),
         true <- engine.owner == state.leased_owner do
      lost? = take_back(instance, engine, Owners.former(instance))
      lost? = send_requested(instance, engine) or lost?

      # While rows are owned by a former owner nothing is claimed: if its lease ended now,
      # they would be claimed as a dead owner's and sent beside the engine that has them.
      claims? = not holds?(state) and Owners.former(instance) == []
      lost? = (claims? and claim(instance, engine)) or lost?
      lost? = (claims? and claim_suspect(instance, engine)) or lost?
      %{state | unsure: state.unsure or lost?}
    else
      _changed -> state
    end
  end

  defp take_back(instance, engine, formers),
    do: formers |> Enum.map(&take_back_from(instance, engine, &1)) |> Enum.any?()

  # The engine holds most of these and needs no room for them. Deliveries that it has finished
  # would be sent again, so nothing is taken back until their attempts are on record.
  defp take_back_from(instance, engine, former) do
    limit = min(room(instance, engine, 100), @claim_max)

    result =
      limit > 0 and
        Engine.submit_again(instance, fn ->
          with {:ok, deliveries} <- Store.reclaim(instance, engine.owner, former, limit),
               do: {:ok, %{taken: deliveries}}
        end)

    with {:ok, %{taken: deliveries}} <- result do
      if length(deliveries) == limit,
        do: send(self(), :more),
        else: Owners.end_lease(instance, former)
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

  defp claim_suspect(instance, engine) do
    result = Store.claim_suspect(instance, engine.owner)

    with {:ok, {delivery, ends}} <- result do
      Recorder.watch(instance, delivery.id)

      if ends < @ends_max,
        do: Handover.submit_or_release(instance, engine, [delivery]),
        else: Handover.give_up(instance, delivery)
    end

    lost?(result)
  end

  defp room(instance, engine, percent) do
    waiting = engine.ref |> Native.stats() |> Map.get(:waiting, 0)
    div(instance.options.waiting_max * percent, 100) - waiting
  end

  # --- sending again

  defp redeliver_now(instance, ids, states) do
    ids
    |> Enum.chunk_every(@redeliver_max)
    |> Enum.reduce_while({:ok, []}, fn slice, {:ok, sent} ->
      case redeliver_slice(instance, slice, states) do
        {:ok, more} -> {:cont, {:ok, sent ++ more}}
        {:error, _reason} = error -> {:halt, error}
      end
    end)
  end

  # An attempt may have ended while the store made the delivery pending again. Recording that
  # attempt ends the redelivery, so the redelivery begins once more.
  defp redeliver_slice(instance, ids, states) do
    with %{} = engine <- Owners.engine(instance),
         {:ok, %{taken: taken, requested: requested, finished: finished}} <-
           take_and_submit(instance, engine, ids, states),
         {:ok, _sent} <- redeliver_now(instance, finished, states -- [:delivered]) do
      {:ok, Enum.map(taken, & &1.id) ++ requested}
    else
      nil -> {:error, :unavailable}
      {:error, _reason} = error -> error
    end
  end

  # No engine holds a delivery that has failed or was cancelled, so a recovery of thousands does
  # not wait for ours.
  defp take_and_submit(instance, engine, ids, states) do
    take = fn -> Store.redeliver(instance, engine.owner, ids, states) end

    if states -- [:failed, :cancelled] == [] do
      with {:ok, found} <- take.() do
        Handover.submit_or_release(instance, engine, found.taken)
        {:ok, Map.put(found, :finished, [])}
      end
    else
      Engine.submit_again(instance, take)
    end
  end

  # Deliveries of this engine that another node wants sent again.
  defp send_requested(instance, engine) do
    case Store.requested(instance, engine.owner, @redeliver_max) do
      {:ok, [_ | _] = ids} -> lost?(redeliver_now(instance, ids, @undelivered))
      _none_or_error -> false
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

  # The lease is kept until the next time, so that the same node goes on.
  defp take_lease(%Instance{options: options} = instance, state) do
    lease_ms = min(2 * options.prune_interval_ms, @lease_ms_max)

    case Store.take_lease(instance, @lease, lease_ms, state.lease) do
      {:ok, token} -> {true, %{state | lease: token}}
      {:error, :taken} -> {false, %{state | lease: nil}}
      {:error, _away} -> {false, state}
    end
  end

  defp prune_slice(instance) do
    before_ms = Instance.now_ms() - instance.options.retention_ms
    Store.prune(instance, before_ms, @prune_max)
  end

  defp old_rates(%Instance{tables: %{rates: rates}}) do
    hour_ago = System.monotonic_time(:millisecond) - 3_600_000
    :ets.select_delete(rates, [{{:_, :"$1", :_}, [{:<, :"$1", hour_ago}], [true]}])
  end
end
