defmodule Plausible.Webhooks.Deliver.Recorder do
  @moduledoc """
  Puts attempts on record, in batches of one transaction each.

  The engine writes its attempts into a table that belongs to the supervisor. A row leaves the
  table when it is recorded and everyone who waits for it was told. So an attempt survives a
  crash of this process, and no delivery is sent again because its attempt was forgotten.
  While the store is away the table fills up to a bound; then the engine stops (`room?/1`).

  After the commit the Recorder tells those who wait for a test (`await/4`), the observers
  (`Plausible.Webhooks.Observer`) and `Plausible.Webhooks.Deliver.Health`. The last two have
  processes of their own, so that they cannot hold up the recording.
  """

  @behaviour Plausible.Webhooks.Store.BatchWriter

  alias Plausible.Webhooks.{Attempt, Store}
  alias Plausible.Webhooks.Deliver.{Endpoints, Health}
  alias Plausible.Webhooks.Runtime.{Instance, Observers}
  alias Plausible.Webhooks.Store.{Batch, BatchWriter}

  require Logger

  @batch_max 500
  @backlog_max 4_096
  @writer %{
    module: __MODULE__,
    part: :recorder,
    table: :journal,
    flag: :recorder_awake,
    operation: :record
  }

  @doc """
  Takes attempts from the engine. Their times are Erlang's monotonic time plus this offset. If
  the VM's own offset leaps while the store is away, the recorded times follow it.
  """
  @spec put(Instance.t(), [Attempt.t()], time_offset_ms :: integer()) :: :ok
  def put(instance, attempts, time_offset_ms \\ System.time_offset(:millisecond))

  def put(_instance, [], _time_offset_ms), do: :ok

  def put(%Instance{tables: %{journal: journal}} = instance, attempts, time_offset_ms) do
    rows = Enum.map(attempts, &{:erlang.unique_integer([:monotonic]), &1, time_offset_ms})
    :ets.insert(journal, rows)
    BatchWriter.wake(instance, @writer)
  end

  @doc "Whether there is room for more, so that the engine may go on."
  @spec room?(Instance.t()) :: boolean()
  def room?(instance), do: size(instance) < @backlog_max

  @doc "How many attempts wait to be recorded."
  @impl true
  @spec size(Instance.t()) :: non_neg_integer()
  def size(%Instance{tables: %{journal: journal}}), do: :ets.info(journal, :size)

  @doc "Waits until everything that was put before is on record."
  @spec flush(Instance.t(), timeout()) :: :ok | {:error, term()}
  def flush(instance, timeout_ms), do: BatchWriter.flush(instance, @writer, timeout_ms)

  @doc """
  Runs `submit`, waits until the delivery's next attempt is on record, and returns that
  attempt.
  """
  @spec await(Instance.t(), String.t(), timeout(), (() -> :ok | {:error, term()})) ::
          {:ok, Attempt.t()} | {:error, term()}
  def await(%Instance{tables: %{waiters: waiters}}, delivery_id, timeout_ms, submit) do
    alias = :erlang.alias()
    :ets.insert(waiters, {delivery_id, alias})

    try do
      with :ok <- submit.() do
        receive do
          {^alias, attempt} -> {:ok, attempt}
        after
          timeout_ms -> {:error, :timeout}
        end
      end
    after
      :ets.delete_object(waiters, {delivery_id, alias})
      :erlang.unalias(alias)
    end
  end

  @doc "Sends `{pid, attempt}` to the caller when an attempt of the delivery is on record."
  @spec watch(Instance.t(), String.t()) :: true
  def watch(%Instance{tables: %{waiters: waiters}}, delivery_id),
    do: :ets.insert(waiters, {delivery_id, self()})

  @spec unwatch(Instance.t(), String.t()) :: true
  def unwatch(%Instance{tables: %{waiters: waiters}}, delivery_id),
    do: :ets.delete_object(waiters, {delivery_id, self()})

  @doc false
  def child_spec(name), do: BatchWriter.child_spec(name, @writer)

  @impl true
  def stopping(_instance), do: :ok

  # Their deliveries are still pending in the store.
  @impl true
  def left_behind(_instance, count),
    do: "#{count} attempts that the store did not take, whose deliveries will be sent again"

  @impl true
  def take(%Instance{tables: %{journal: journal}}) do
    case :ets.select(journal, [{:"$1", [], [:"$1"]}], @batch_max) do
      :"$end_of_table" -> []
      {rows, _continuation} -> rows
    end
  end

  @impl true
  def commit(instance, rows, failed_before?) do
    write = fn rows -> Store.record(instance, Enum.map(rows, &attempt/1)) end

    with {:ok, written, refused} <- Batch.write(rows, write, failed_before?) do
      # Tell first, delete then: after a crash in between, attempts are told twice, not lost.
      tell(instance, Enum.map(written, &attempt/1))
      forget(instance, written)
      Instance.count(instance, :recorded, length(written))
      Enum.each(refused, fn {row, reason} -> shorten(instance, row, reason) end)
    end
  end

  defp attempt({_key, attempt, time_offset_ms}) do
    case System.time_offset(:millisecond) - time_offset_ms do
      0 ->
        attempt

      leapt_ms ->
        next_at_ms = attempt.next_at_ms && attempt.next_at_ms + leapt_ms
        %{attempt | started_at_ms: attempt.started_at_ms + leapt_ms, next_at_ms: next_at_ms}
    end
  end

  defp forget(%Instance{tables: %{journal: journal}}, rows),
    do: Enum.each(rows, fn row -> :ets.delete(journal, elem(row, 0)) end)

  defp tell(_instance, []), do: :ok

  defp tell(instance, attempts) do
    tell_waiters(instance, attempts)
    Health.attempts(instance, attempts)

    if instance.options.observers != [],
      do: Observers.attempts(instance, Endpoints.locate(instance, attempts))

    :ok
  end

  defp tell_waiters(%Instance{tables: %{waiters: waiters}}, attempts) do
    if :ets.info(waiters, :size) > 0 do
      for attempt <- attempts, {_id, alias} <- :ets.lookup(waiters, attempt.delivery_id) do
        send(alias, {alias, attempt})
      end
    end

    :ok
  end

  # The store takes other attempts but not this one. The receiver wrote one part of it: the
  # answer. Without the answer the attempt may be accepted, and the delivery moves on. If the
  # store refuses that too, it is logged. While the store is away the row stays.
  defp shorten(instance, row, reason) do
    attempt = attempt(row)

    short = %{
      attempt
      | response_body: "",
        response_headers: "",
        response_truncated: true,
        detail: nil
    }

    case Store.record(instance, [short]) do
      :ok ->
        tell(instance, [short])
        give_up(instance, row)

      {:error, short_reason} ->
        unless Store.away?(short_reason) do
          Logger.error(
            "webhooks: the store refuses attempt #{attempt.number} of " <>
              "#{attempt.delivery_id}: #{inspect(reason)}"
          )

          give_up(instance, row)
        end
    end
  end

  defp give_up(instance, row) do
    forget(instance, [row])
    Instance.count(instance, :refused)
  end
end
