defmodule Plausible.Webhooks.Store.BatchWriter do
  @moduledoc false
  # A process that writes the rows of a table to the store in batches: the Outbox writes
  # deliveries to accept, the Recorder attempts to record.
  #
  # The table is an ordered set, and rows are taken from its beginning. It belongs to the
  # supervisor, so that rows outlive this process. Whoever inserts rows calls `wake/2`. The
  # writer takes a batch, writes it, and takes the next one. When the store fails, it tries
  # again with growing pauses. At a planned stop it goes on until the table is empty or the
  # time is over.

  use GenServer

  alias Plausible.Webhooks.Runtime.{Instance, Observers}

  require Logger

  @backoff_ms {50, 5_000}
  @stop_ms 8_000

  @type row :: tuple()

  @doc "The rows of the next batch; `[]` when the table is empty."
  @callback take(Instance.t()) :: [row()]
  @doc """
  Writes the rows with `Plausible.Webhooks.Store.Batch.write/3`, so that one bad row does not
  hold up the others. Removes from the table the rows that were written or given up.
  """
  @callback commit(Instance.t(), [row()], failed_before? :: boolean()) :: :ok | {:error, term()}
  @doc "How many rows the table has."
  @callback size(Instance.t()) :: non_neg_integer()
  @doc "Called when a planned stop begins."
  @callback stopping(Instance.t()) :: term()
  @doc "Called when the stop runs out of time with this many rows left. Returns a text to log."
  @callback left_behind(Instance.t(), non_neg_integer()) :: String.t()

  @typedoc "`part` is the process's name in the instance, `operation` the store's function."
  @type writer :: %{
          module: module(),
          part: atom(),
          table: atom(),
          flag: atom(),
          operation: atom()
        }

  @doc "Wakes the writer, if it sleeps. To be called after the rows were inserted."
  # Rows are inserted before the flag is raised, and the writer lowers the flag before it
  # looks. So no row is overlooked, and a busy writer gets no message.
  @spec wake(Instance.t(), writer()) :: :ok
  def wake(instance, %{flag: flag, part: part}) do
    if Instance.raise_flag(instance, flag), do: Instance.tell(instance, part, :drain)
    :ok
  end

  @doc """
  Waits until everything that was inserted before is written. The keys of the table must be
  unique, growing integers.
  """
  @spec flush(Instance.t(), writer(), timeout()) :: :ok | {:error, :timeout | :not_running}
  def flush(instance, %{part: part}, timeout_ms) do
    GenServer.call(Instance.process(instance, part), {:flush, timeout_ms}, timeout_ms + 1_000)
  catch
    :exit, _reason -> {:error, :not_running}
  end

  @doc "A child for the instance with this name."
  @spec child_spec(Instance.name(), writer()) :: Supervisor.child_spec()
  def child_spec(name, writer) do
    start = [__MODULE__, {name, writer}, [name: Instance.process(name, writer.part)]]
    %{id: writer.module, start: {GenServer, :start_link, start}, shutdown: @stop_ms + 2_000}
  end

  @impl true
  def init({name, writer}) do
    Process.flag(:trap_exit, true)
    send(self(), :drain)
    {:ok, %{name: name, writer: writer, failures: 0, timer: nil, flushes: []}}
  end

  @impl true
  def handle_call({:flush, timeout_ms}, from, state) do
    # Rows are taken in the order of their keys.
    mark = :erlang.unique_integer([:monotonic])
    flush = {mark, now_ms() + timeout_ms, from}
    {:noreply, drain(%{state | flushes: [flush | state.flushes]})}
  end

  @impl true
  def handle_info(:drain, %{timer: nil} = state), do: {:noreply, drain(state)}
  # The store is still away.
  def handle_info(:drain, state), do: {:noreply, state}
  def handle_info(:retry, state), do: {:noreply, drain(%{state | timer: nil})}
  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(reason, %{writer: %{module: module}} = state) do
    if Instance.stopping?(reason) do
      instance = Instance.fetch!(state.name)
      module.stopping(instance)
      empty(instance, module, now_ms() + @stop_ms, 0)
    end
  end

  defp empty(instance, module, deadline_ms, failures) do
    case write_batch(instance, module, failures) do
      :empty ->
        :ok

      :ok ->
        empty(instance, module, deadline_ms, 0)

      {:error, reason} ->
        if now_ms() < deadline_ms do
          Process.sleep(min(backoff_ms(failures), 500))
          empty(instance, module, deadline_ms, failures + 1)
        else
          text = module.left_behind(instance, module.size(instance))
          Logger.error("webhooks: stopped with #{text}: #{inspect(reason)}")
        end
    end
  end

  # One batch for each message, so that a flush and a shutdown get their turn.
  defp drain(%{writer: writer, failures: failures} = state) do
    instance = Instance.fetch!(state.name)
    Instance.lower_flag(instance, writer.flag)

    case write_batch(instance, writer.module, failures) do
      {:error, reason} ->
        if failures == 0, do: Observers.store_failed(instance, writer.operation, reason)
        state = answer_flushes(instance, %{state | failures: failures + 1})
        timer = state.timer || Process.send_after(self(), :retry, backoff_ms(failures))
        %{state | timer: timer}

      ok_or_empty ->
        if ok_or_empty == :ok, do: wake(instance, writer)
        answer_flushes(instance, %{state | failures: 0})
    end
  end

  defp write_batch(instance, module, failures) do
    case module.take(instance) do
      [] -> :empty
      rows -> module.commit(instance, rows, failures > 0)
    end
  end

  defp answer_flushes(_instance, %{flushes: []} = state), do: state

  defp answer_flushes(%Instance{tables: tables}, state) do
    first = :ets.first(Map.fetch!(tables, state.writer.table))
    now_ms = now_ms()

    waiting =
      Enum.reject(state.flushes, fn {mark, deadline_ms, from} ->
        cond do
          first == :"$end_of_table" or first > mark -> GenServer.reply(from, :ok) == :ok
          now_ms >= deadline_ms -> GenServer.reply(from, {:error, :timeout}) == :ok
          true -> false
        end
      end)

    %{state | flushes: waiting}
  end

  defp backoff_ms(failures) do
    {first, longest} = @backoff_ms
    min(first * Integer.pow(2, min(failures, 10)), longest)
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
end
