defmodule Plausible.Webhooks.Runtime.Isolated do
  @moduledoc false
  # Runs what others wrote (the host, the store) without trusting it: in processes
  # of their own, a few at a time, each for a limited time. It may raise, exit,
  # hang or be killed; the caller gets a value. Not Task: an async task is linked
  # to its caller, and a supervisor of tasks would be one more part to start.

  @doc """
  Calls the function here; whatever it does comes back as a value.

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
  Starts the function in a process of its own and returns its monitor. The result
  comes as the reason of its `:DOWN` message, see `result/1`. `callers` are the
  processes on whose behalf it runs (database sandboxes look there). It dies with
  the process that started it.
  """
  @spec start((() -> term()), [pid()]) :: {pid(), reference()}
  def start(fun, callers) do
    parent = self()

    spawn_monitor(fn ->
      leash(parent, self())
      Process.put(:"$callers", callers)
      exit({__MODULE__, guard(fun)})
    end)
  end

  # A link would do it too, but work both ways: whatever ends the function would
  # end who asked for it.
  defp leash(parent, child) do
    spawn(fn ->
      parent = Process.monitor(parent)
      Process.monitor(child)

      receive do
        {:DOWN, ^parent, :process, _pid, _reason} -> Process.exit(child, :kill)
        {:DOWN, _child, :process, _pid, _reason} -> :ok
      end
    end)
  end

  @doc "What a process of `start/2` ended with, from the reason of its `:DOWN`."
  @spec result(term()) :: term()
  def result({__MODULE__, result}), do: result
  def result(reason), do: {:error, {:crashed, reason}}

  @doc "Runs the function in a process of its own, for at most `timeout_ms`."
  @spec run((() -> result), pos_integer()) :: result | {:error, term()} when result: term()
  def run(fun, timeout_ms) do
    {pid, ref} = start(fun, [self()])
    await(pid, ref, timeout_ms)
  end

  defp await(pid, ref, timeout_ms) do
    receive do
      {:DOWN, ^ref, :process, _pid, reason} -> result(reason)
    after
      timeout_ms ->
        Process.demonitor(ref, [:flush])
        Process.exit(pid, :kill)
        {:error, :timeout}
    end
  end

  @doc """
  Runs the function on every item, `concurrency` at a time, each for at most
  `timeout_ms`; what has not begun by `deadline_ms` (monotonic) is not begun.
  Returns the items with their results, in no particular order.
  """
  @spec map([item], (item -> term()), keyword()) :: [{item, term()}] when item: term()
  def map(items, fun, opts) do
    callers = opts[:callers] || [self()]

    workers =
      for part <- deal(items, opts[:concurrency]) do
        start(fn -> Enum.map(part, &{&1, one(&1, fun, opts, callers)}) end, callers)
      end

    Enum.flat_map(workers, fn {pid, ref} -> await(pid, ref, :infinity) end)
  end

  # Each worker guards its own share; what it runs is guarded once more.
  defp one(item, fun, opts, callers) do
    if System.monotonic_time(:millisecond) < opts[:deadline_ms] do
      {pid, ref} = start(fn -> fun.(item) end, callers)
      await(pid, ref, opts[:timeout_ms])
    else
      {:error, :no_time_left}
    end
  end

  defp deal(items, concurrency) do
    items
    |> Enum.with_index()
    |> Enum.group_by(fn {_item, n} -> rem(n, concurrency) end, &elem(&1, 0))
    |> Map.values()
  end
end
