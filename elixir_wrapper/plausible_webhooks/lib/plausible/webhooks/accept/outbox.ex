defmodule Plausible.Webhooks.Accept.Outbox do
  @moduledoc """
  Accepts deliveries: commits what is pushed to the store, in batches, and then hands it to
  the engine.

  A request process only writes into a table, which takes about a microsecond per delivery,
  and wakes the Outbox if it sleeps. It never waits, never touches the disk and never
  raises. The table belongs to the supervisor, so a crash of this process loses nothing. A
  row leaves the table when it is committed and handed over. Committing a row twice does no
  harm: the store keeps the first row with an id.

  The table is bounded (`:outbox_max` deliveries, `:outbox_bytes_max` of bodies). What does
  not fit is dropped, counted and reported (`Plausible.Webhooks.Observer`, `Logger`). While
  the store is away the table keeps what arrives.

  A site may hold at most four times what is still free. So one site alone gets four fifths
  of the table, several sites that flood it share it evenly, and sites that send little
  always find room. Sites take turns: a row's key begins with the round in which its site is
  served, so the table begins with one row of each site, and a flood delays only its own
  site.
  """

  @behaviour Plausible.Webhooks.Store.BatchWriter

  alias Plausible.Webhooks.{Delivery, Store}
  alias Plausible.Webhooks.Deliver.{Handover, Owners}
  alias Plausible.Webhooks.Runtime.{Instance, Observers}
  alias Plausible.Webhooks.Store.{Batch, BatchWriter}

  @batch_deliveries_max 500
  @batch_bytes_max 8 * 1_048_576
  @share 4
  @writer %{
    module: __MODULE__,
    part: :outbox,
    table: :queue,
    flag: :outbox_awake,
    operation: :accept
  }

  @typedoc "An instance, or its name."
  @type instance :: Instance.t() | Instance.name()

  @doc """
  Takes deliveries from a request process. Always returns `:ok`: deliveries that do not fit
  are counted as dropped. A full table still takes a `manual` delivery.
  """
  @spec push(instance(), [Delivery.t()]) :: :ok
  def push(instance, deliveries) do
    _dropped = offer(instance, deliveries)
    :ok
  end

  @doc "As `push/2`. Returns the deliveries that were dropped."
  @spec offer(instance(), [Delivery.t()]) :: [Delivery.t()]
  def offer(_instance, []), do: []

  def offer(%Instance{} = instance, deliveries) do
    deliveries = for %Delivery{} = delivery <- deliveries, do: delivery

    if Instance.flag?(instance, :closed) do
      Observers.dropped(instance, :stopping, length(deliveries))
      deliveries
    else
      # Usually all of them are of one site.
      deliveries |> Enum.chunk_by(& &1.site_id) |> Enum.flat_map(&offer_some(instance, &1))
    end
  catch
    # Usually the tables are gone, because the instance has just stopped.
    _kind, _reason ->
      Observers.dropped(instance, :hook_error, 1)
      deliveries
  end

  def offer(name, deliveries) do
    case Instance.get(name) do
      nil -> []
      instance -> offer(instance, deliveries)
    end
  end

  @doc """
  Why a delivery of this site would be dropped now, unless it is manual. `nil` if there is
  room.
  """
  @spec full(Instance.t(), integer()) :: nil | :outbox_full | :site_share
  def full(instance, site_id) do
    if room(instance, site_id) == 0, do: why_full(instance)
  end

  @doc """
  Takes deliveries and waits until they are committed and handed over.

  After `{:error, :timeout}` the deliveries may still be committed; then they are sent. Any
  other error means that at least one of them was not accepted.
  """
  @spec accept(instance(), [Delivery.t()], timeout()) :: :ok | {:error, term()}
  def accept(instance, deliveries, timeout_ms \\ 5_000)

  def accept(%Instance{} = instance, deliveries, timeout_ms) do
    if Instance.flag?(instance, :closed) do
      {:error, :stopped}
    else
      alias = :erlang.alias()
      keys = Enum.flat_map(deliveries, &keys(instance, &1.site_id, 1))
      enqueue(instance, Enum.zip_with(keys, deliveries, &{&1, &2, alias, false}))
      deadline = System.monotonic_time(:millisecond) + timeout_ms
      result = await(keys, alias, deadline, :ok)
      :erlang.unalias(alias)
      if result == {:error, :timeout}, do: withdraw(instance, keys)
      result
    end
  rescue
    ArgumentError -> {:error, :stopped}
  end

  def accept(name, deliveries, timeout_ms),
    do: accept(Instance.fetch!(name), deliveries, timeout_ms)

  @doc "How many deliveries wait to be committed."
  @impl true
  @spec size(Instance.t()) :: non_neg_integer()
  def size(%Instance{tables: %{queue: queue}}), do: :ets.info(queue, :size)

  @doc false
  def child_spec(name), do: BatchWriter.child_spec(name, @writer)

  # --- in the caller's process

  defp offer_some(instance, [%Delivery{site_id: site_id} | _] = deliveries) do
    {kept, dropped} = fitting(deliveries, room(instance, site_id))
    rows = Enum.zip_with(keys(instance, site_id, length(kept)), kept, &{&1, &2, nil, false})
    enqueue(instance, rows)
    Instance.count(instance, :pushed, length(kept))
    if dropped != [], do: Observers.dropped(instance, why_full(instance), length(dropped))
    dropped
  end

  # How many more deliveries a site may have in the table. The sizes are read, not reserved:
  # requests at the same moment may together exceed the bounds by what they carry. Rejected:
  # an exact count, which leaks when a process dies between two steps.
  defp room(%Instance{options: options} = instance, site_id) do
    free = options.outbox_max - size(instance)
    bytes_free = options.outbox_bytes_max - Instance.gauge(instance, :outbox_bytes)

    {held, bytes_held} =
      case :ets.lookup(instance.tables.shares, site_id) do
        [{_site_id, held, bytes_held, _round}] -> {held, bytes_held}
        [] -> {0, 0}
      end

    if free <= 0 or bytes_free <= 0 or bytes_held >= @share * bytes_free,
      do: 0,
      # The largest number that keeps the site within its share of what is free afterwards,
      # rounded up.
      else: max(div(@share * free - held + @share, @share + 1), 0)
  end

  defp why_full(%Instance{options: options} = instance) do
    if size(instance) >= options.outbox_max or
         Instance.gauge(instance, :outbox_bytes) >= options.outbox_bytes_max,
       do: :outbox_full,
       else: :site_share
  end

  defp fitting(deliveries, room) when length(deliveries) <= room, do: {deliveries, []}

  defp fitting(deliveries, room) do
    {manual, others} = Enum.split_with(deliveries, & &1.manual)
    {kept, dropped} = Enum.split(others, max(room - length(manual), 0))
    {manual ++ kept, dropped}
  end

  # The rounds that come after the site's last one, and not before the round that is served.
  defp keys(_instance, _site_id, 0), do: []

  defp keys(%Instance{tables: %{shares: shares}} = instance, site_id, count) do
    served = Instance.gauge(instance, :outbox_round)
    # The first change only raises the site's round to the one that is served.
    changes = [{4, -1, served - 1, served - 1}, {4, count + 1}]
    [_raised, last] = :ets.update_counter(shares, site_id, changes, {site_id, 0, 0, served})
    for round <- (last - count + 1)..last, do: {round, :erlang.unique_integer([:monotonic])}
  end

  defp enqueue(_instance, []), do: :ok

  defp enqueue(%Instance{tables: %{queue: queue}} = instance, rows) do
    weigh(instance, rows, 1)
    :ets.insert(queue, rows)
    BatchWriter.wake(instance, @writer)
  end

  defp weigh(%Instance{tables: %{shares: shares}} = instance, rows, sign) do
    for {site_id, rows} <- Enum.group_by(rows, &elem(&1, 1).site_id) do
      bytes = sign * bytes(rows)
      Instance.add_gauge(instance, :outbox_bytes, bytes)
      change = [{2, sign * length(rows)}, {3, bytes}]
      :ets.update_counter(shares, site_id, change, {site_id, 0, 0, 0})
    end
  end

  defp bytes(rows), do: Enum.reduce(rows, 0, &(byte_size(elem(&1, 1).body) + &2))

  defp await([], _alias, _deadline, result), do: result

  defp await([key | rest], alias, deadline, result) do
    timeout_ms = max(deadline - System.monotonic_time(:millisecond), 0)

    receive do
      {^alias, ^key, :ok} -> await(rest, alias, deadline, result)
      {^alias, ^key, error} -> await(rest, alias, deadline, error)
    after
      timeout_ms -> {:error, :timeout}
    end
  end

  # A row that may be committed stays until that is known: nobody else would send it.
  defp withdraw(%Instance{tables: %{queue: queue}} = instance, keys) do
    for key <- keys, [{_key, _delivery, _reply, false} = row] <- [:ets.lookup(queue, key)] do
      if :ets.select_delete(queue, [{{key, :_, :_, false}, [], [true]}]) == 1,
        do: weigh(instance, [row], -1)
    end
  end

  # --- the process

  @impl true
  def stopping(instance), do: Instance.raise_flag(instance, :closed)

  @impl true
  def left_behind(instance, count) do
    Observers.dropped(instance, :stopping, count)
    "#{count} deliveries that the store did not take"
  end

  # A crash may have left the sums wrong. When the table is empty they can be corrected.
  @impl true
  def take(%Instance{tables: %{queue: queue}} = instance) do
    case :ets.select(queue, [{:"$1", [], [:"$1"]}], @batch_deliveries_max) do
      :"$end_of_table" ->
        Instance.put_gauge(instance, :outbox_bytes, 0)
        :ets.delete_all_objects(instance.tables.shares)
        []

      {[{{round, _number}, _, _, _} | _] = rows, _continuation} ->
        Instance.put_gauge(instance, :outbox_round, round)
        at_most_bytes(rows, 0, [])
    end
  end

  defp at_most_bytes([row | rest], bytes, taken) do
    bytes = bytes + bytes([row])

    if taken != [] and bytes > @batch_bytes_max,
      do: Enum.reverse(taken),
      else: at_most_bytes(rest, bytes, [row | taken])
  end

  defp at_most_bytes([], _bytes, taken), do: Enum.reverse(taken)

  # The owner is read before the commit. If its engine dies in between, the rows come back
  # from the store with those that it held already. Without an engine the rows have no
  # owner, and the Sweeper claims them.
  #
  # A row in doubt may already be committed in the engine's name, and the Sweeper may have
  # brought it back. If it were handed over again, it would be sent twice. Such rows get an
  # owner of their own, under which the Sweeper finds those that are committed now.
  @impl true
  def commit(instance, rows, failed_before?) do
    engine = Owners.engine(instance)
    doubt = if Enum.any?(rows, &elem(&1, 3)), do: Owners.new()
    rows = Enum.map(rows, &own(&1, engine, doubt))

    write = fn rows ->
      Store.accept(instance, Enum.map(rows, &elem(&1, 1)))
    end

    case Batch.write(rows, write, failed_before?) do
      {:ok, written, refused} ->
        hand_over(instance, engine, written, doubt)
        finish(instance, written, refused)

        if length(written) + length(refused) < length(rows),
          do: doubt(instance, (rows -- written) -- Enum.map(refused, &elem(&1, 0)))

        :ok

      {:error, reason} = error ->
        if Store.outcome_unknown?(reason), do: doubt(instance, rows)
        error
    end
  end

  # Also brings back rows that were withdrawn meanwhile. They are at most one batch, because
  # only the first batch is tried again.
  defp doubt(%Instance{tables: %{queue: queue}} = instance, rows) do
    Instance.tell(instance, :sweeper, :unsure)

    for {key, delivery, _reply, false} = row <- rows do
      if not :ets.update_element(queue, key, {4, true}) and
           :ets.insert_new(queue, {key, delivery, nil, true}),
         do: weigh(instance, [row], 1)
    end
  end

  defp own({key, %Delivery{state: :pending} = delivery, reply, in_doubt?}, engine, doubt) do
    owner = if in_doubt?, do: doubt, else: engine && engine.owner
    {key, %{delivery | owner: owner}, reply, in_doubt?}
  end

  defp own(row, _engine, _doubt), do: row

  defp hand_over(instance, engine, rows, doubt) do
    if doubt, do: Owners.add_former(instance, doubt)
    if doubt || engine == nil, do: Instance.tell(instance, :sweeper, :sweep)

    if engine do
      ours = for {_key, %Delivery{state: :pending} = delivery, _, false} <- rows, do: delivery
      Handover.submit_or_release(instance, engine, ours)
    end

    :ok
  end

  defp finish(%Instance{tables: %{queue: queue}} = instance, written, refused) do
    Enum.each(written, fn {key, _delivery, reply, _in_doubt?} ->
      answer(reply, key, :ok)
      :ets.delete(queue, key)
    end)

    Enum.each(refused, fn {{key, _delivery, reply, _in_doubt?}, reason} ->
      answer(reply, key, {:error, reason})
      :ets.delete(queue, key)
    end)

    done = written ++ Enum.map(refused, &elem(&1, 0))
    weigh(instance, done, -1)
    Instance.count(instance, :accepted, length(written))
    if written != [], do: Observers.accepted(instance, Enum.map(written, &elem(&1, 1)))
    if refused != [], do: Observers.dropped(instance, :refused_by_store, length(refused))
    :ok
  end

  defp answer(nil, _key, _result), do: :ok
  defp answer(alias, key, result), do: send(alias, {alias, key, result})
end
