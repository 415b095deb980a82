defmodule Plausible.Webhooks.Runtime.Isolated do
  @moduledoc false
  # Runs code of others (the host, the store) without trusting it: in tasks of the instance's
  # Task.Supervisor, a few at a time, each for a limited time. A function may raise, exit,
  # hang or be killed; the caller gets a value. Tasks die with their caller.

  alias Plausible.Webhooks.Runtime.Instance

  @doc "A supervisor of tasks, to be started before everyone who runs some."
  @spec child_spec(Instance.name()) :: Supervisor.child_spec()
  def child_spec(name), do: Task.Supervisor.child_spec(name: Instance.process(name, :tasks))

  @doc """
  Calls the function in this process, and turns a raise, throw or exit into a value.

      iex> Plausible.Webhooks.Runtime.Isolated.guard(fn -> raise "no" end)
      {:error, {:raised, "no"}}
  """
  @spec guard((() -> result)) :: result | {:error, term()} when result: term()
  def guard(fun) do
    fun.()
  rescue
    error -> {:error, {:raised, Exception.message(error)}}
  catch
    kind, reason -> {:error, {kind, reason}}
  end

  @doc """
  Starts the function as a task. Its result comes as the message `{task.ref, result}`, or
  `:DOWN` if the task was killed. `callers` are the processes on whose behalf it runs:
  database sandboxes look there.
  """
  @spec start(Instance.t() | Instance.name(), (() -> term()), [pid()]) :: Task.t()
  def start(instance, fun, callers) do
    caller = self()

    Task.Supervisor.async_nolink(Instance.process(instance, :tasks), fn ->
      run_for(caller, callers, fun)
    end)
  end

  defp run_for(caller, callers, fun) do
    task = self()
    spawn(fn -> end_with(caller, task) end)
    Process.put(:"$callers", callers)
    guard(fun)
  end

  # A link would do that too, but it works both ways: whatever kills the task would kill its
  # caller.
  defp end_with(caller, task) do
    caller = Process.monitor(caller)
    Process.monitor(task)

    receive do
      {:DOWN, ^caller, :process, _pid, _reason} -> Process.exit(task, :kill)
      {:DOWN, _task, :process, _pid, _reason} -> :ok
    end
  end

  @doc "Runs the function in a task, for at most `timeout_ms`."
  @spec run(Instance.t() | Instance.name(), (() -> result), pos_integer()) ::
          result | {:error, term()}
        when result: term()
  def run(instance, fun, timeout_ms) do
    [{_fun, result}] = map(instance, [fun], & &1.(), concurrency: 1, timeout_ms: timeout_ms)
    result
  end

  @doc """
  Runs the function on every item, `:concurrency` at a time, each for at most `:timeout_ms`.
  Begins no item after `:deadline_ms` (monotonic time; default: no deadline). Returns the
  items with their results. `:callers` as for `start/3`.
  """
  @spec map(Instance.t() | Instance.name(), [item], (item -> term()), keyword()) ::
          [{item, term()}]
        when item: term()
  def map(instance, items, fun, options) do
    caller = self()
    callers = options[:callers] || [caller | Process.get(:"$callers", [])]
    # In Erlang's term order an atom is greater than any number.
    deadline_ms = Keyword.get(options, :deadline_ms, :never)

    one = fn item -> run_before(deadline_ms, caller, callers, fn -> fun.(item) end) end

    stream_options = [
      max_concurrency: options[:concurrency],
      timeout: options[:timeout_ms],
      on_timeout: :kill_task
    ]

    instance
    |> Instance.process(:tasks)
    |> Task.Supervisor.async_stream_nolink(items, one, stream_options)
    |> Enum.zip_with(items, fn result, item -> {item, result(result)} end)
  end

  defp run_before(deadline_ms, caller, callers, fun) do
    if System.monotonic_time(:millisecond) < deadline_ms,
      do: run_for(caller, callers, fun),
      else: {:error, :no_time_left}
  end

  defp result({:ok, result}), do: result
  defp result({:exit, :timeout}), do: {:error, :timeout}
  defp result({:exit, reason}), do: {:error, {:crashed, reason}}
end
