defmodule Plausible.Webhooks.Deliver.Recorder do
  @moduledoc """
  Puts attempts on record: in batches, one transaction each.

  The engine writes what it reports into a table that belongs to the supervisor;
  a row leaves it when it is recorded and everyone who wants to know was told.
  So an attempt survives this process, and what was sent is not sent again
  because it was forgotten. While the store is away the table fills up to a bound,
  and from then on the engine is not driven (`room?/1`).

  After the commit: those who wait for a test (`await/3`), the observers
  (`Plausible.Webhooks.Observer`, in a process of their own) and the webhooks'
  health (`Plausible.Webhooks.Deliver.Health`, likewise) are told. None of them can hold
  up the recording.
  """

  use GenServer

  alias Plausible.Webhooks.{Attempt, Store}
  alias Plausible.Webhooks.Deliver.Health
  alias Plausible.Webhooks.Runtime.{Instance, Observers}
  alias Plausible.Webhooks.Store.Batch

  require Logger

  @batch_max 500
  @backlog_max 4_096
  @backoff_ms {50, 5_000}

  @doc """
  Takes attempts from the engine. Their times are by Erlang's monotonic time and
  this offset; the VM's own offset may leap while the store is away, and then they
  go with it.
  """
  @spec put(Instance.t(), [Attempt.t()], time_offset_ms :: integer()) :: :ok
  def put(instance, attempts, time_offset_ms \\ System.time_offset(:millisecond))

  def put(_instance, [], _time_offset_ms), do: :ok

  def put(%Instance{tables: %{journal: journal}} = instance, attempts, time_offset_ms) do
    rows = Enum.map(attempts, &{:erlang.unique_integer([:monotonic]), &1, time_offset_ms})
    :ets.insert(journal, rows)
    wake(instance)
  end

  @doc "May the engine go on?"
  @spec room?(Instance.t()) :: boolean()
  def room?(instance), do: size(instance) < @backlog_max

  @doc "How many attempts wait to be recorded."
  @spec size(Instance.t()) :: non_neg_integer()
  def size(%Instance{tables: %{journal: journal}}), do: :ets.info(journal, :size)

  @doc "Waits until everything that was put before is on record."
  @spec flush(Instance.t(), timeout()) :: :ok | {:error, term()}
  def flush(instance, timeout_ms) do
    GenServer.call(
      Instance.process(instance, :recorder),
      {:flush, timeout_ms},
      timeout_ms + 1_000
    )
  catch
    :exit, _reason -> {:error, :not_running}
  end

  @doc """
  Runs `submit` and waits for the delivery's next attempt, which is on record
  when it comes back.
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

  @doc false
  def start_link(name),
    do: GenServer.start_link(__MODULE__, name, name: Instance.process(name, :recorder))

  @doc false
  def child_spec(name),
    do: %{id: __MODULE__, start: {__MODULE__, :start_link, [name]}, shutdown: 10_000}

  @impl true
  def init(name) do
    Process.flag(:trap_exit, true)
    send(self(), :drain)
    {:ok, %{name: name, failures: 0, timer: nil, flushes: []}}
  end

  @impl true
  def handle_call({:flush, timeout_ms}, from, state) do
    # Rows are taken in the order of their keys.
    mark = :erlang.unique_integer([:monotonic])
    deadline = System.monotonic_time(:millisecond) + timeout_ms
    {:noreply, drain(%{state | flushes: [{mark, deadline, from} | state.flushes]})}
  end

  @impl true
  def handle_info(:drain, %{timer: nil} = state), do: {:noreply, drain(state)}
  def handle_info(:drain, state), do: {:noreply, state}
  def handle_info(:retry, state), do: {:noreply, drain(%{state | timer: nil})}
  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(reason, state) do
    if Instance.stopping?(reason) do
      instance = Instance.fetch!(state.name)
      finish(instance, System.monotonic_time(:millisecond) + 8_000, 0)
    end
  end

  defp finish(instance, deadline, failures) do
    case step(instance, failures) do
      :empty ->
        :ok

      :ok ->
        finish(instance, deadline, 0)

      {:error, reason} ->
        if System.monotonic_time(:millisecond) < deadline do
          Process.sleep(min(backoff(failures), 500))
          finish(instance, deadline, failures + 1)
        else
          # Nothing is lost: their deliveries are still pending in the store.
          Logger.error(
            "webhooks: stopped with #{size(instance)} attempts that the store did not " <>
              "take, their deliveries will be sent again: #{inspect(reason)}"
          )
        end
    end
  end

  defp wake(instance) do
    if Instance.raise_flag(instance, :recorder_awake),
      do: Instance.tell(instance, :recorder, :drain)

    :ok
  end

  defp drain(%{failures: failures} = state) do
    instance = Instance.fetch!(state.name)
    Instance.lower_flag(instance, :recorder_awake)

    case step(instance, failures) do
      :empty ->
        answer_flushes(instance, %{state | failures: 0})

      :ok ->
        wake(instance)
        answer_flushes(instance, %{state | failures: 0})

      {:error, reason} ->
        if failures == 0, do: Observers.store_failed(instance, :record, reason)
        pause(answer_flushes(instance, %{state | failures: failures + 1}))
    end
  end

  defp pause(%{timer: nil} = state),
    do: %{state | timer: Process.send_after(self(), :retry, backoff(state.failures - 1))}

  defp pause(state), do: state

  defp backoff(failures) do
    {first, longest} = @backoff_ms
    min(first * Integer.pow(2, min(failures, 10)), longest)
  end

  defp answer_flushes(_instance, %{flushes: []} = state), do: state

  defp answer_flushes(%Instance{tables: %{journal: journal}}, state) do
    first = :ets.first(journal)
    now = System.monotonic_time(:millisecond)

    waiting =
      Enum.reject(state.flushes, fn {mark, deadline, from} ->
        cond do
          first == :"$end_of_table" or first > mark -> GenServer.reply(from, :ok) == :ok
          now >= deadline -> GenServer.reply(from, {:error, :timeout}) == :ok
          true -> false
        end
      end)

    %{state | flushes: waiting}
  end

  defp step(%Instance{tables: %{journal: journal}} = instance, failures) do
    case :ets.select(journal, [{:"$1", [], [:"$1"]}], @batch_max) do
      :"$end_of_table" -> :empty
      {rows, _continuation} -> record(instance, rows, failures > 0)
    end
  end

  defp record(instance, rows, failed_before?) do
    write = fn rows -> Store.record(instance, Enum.map(rows, &attempt/1)) end

    with {:ok, written, refused} <- Batch.write(rows, write, failed_before?) do
      # Told before forgotten: whoever dies in between is told twice, not never.
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
    Observers.attempts(instance, attempts)
  end

  defp tell_waiters(%Instance{tables: %{waiters: waiters}}, attempts) do
    if :ets.info(waiters, :size) > 0 do
      for attempt <- attempts, {_id, alias} <- :ets.lookup(waiters, attempt.delivery_id) do
        send(alias, {alias, attempt})
      end
    end

    :ok
  end

  # A store that takes other attempts but not this one: what the receiver wrote
  # is the only part of it that we did not make. Without that the delivery at
  # least moves on; if even this is refused, it is only said aloud. What the store
  # is away for stays in the journal.
  defp shorten(instance, row, reason) do
    attempt = attempt(row)

    short = %{
      attempt
      | response_body: "",
        response_content_type: nil,
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
