defmodule Plausible.Webhooks.Runtime.IsolatedTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Runtime.Isolated

  doctest Isolated

  setup do
    name = :"isolated_#{System.unique_integer([:positive])}"
    start_supervised!({Isolated, name})
    %{name: name}
  end

  defp map(name, items, fun, opts \\ []),
    do: Isolated.map(name, items, fun, Keyword.merge([concurrency: 3, timeout_ms: 30_000], opts))

  test "whatever a function does comes back as a value", %{name: name} do
    assert Isolated.run(name, fn -> {:ok, 1} end, 1_000) == {:ok, 1}
    assert Isolated.run(name, fn -> raise "no" end, 1_000) == {:error, {:raised, "no"}}
    assert Isolated.run(name, fn -> throw(:no) end, 1_000) == {:error, {:throw, :no}}
    assert Isolated.run(name, fn -> exit(:no) end, 1_000) == {:error, {:exit, :no}}

    assert Isolated.run(name, fn -> Process.exit(self(), :kill) end, 1_000) ==
             {:error, {:crashed, :killed}}

    assert Isolated.run(name, fn -> Process.sleep(:infinity) end, 20) == {:error, :timeout}
    refute_received _any
  end

  test "a function that takes too long is killed", %{name: name} do
    test = self()
    Isolated.run(name, fn -> send(test, {:pid, self()}) && Process.sleep(:infinity) end, 20)
    assert_received {:pid, pid}
    ref = Process.monitor(pid)
    assert_receive {:DOWN, ^ref, :process, ^pid, _reason}
  end

  test "dies with its caller", %{name: name} do
    test = self()

    {caller, _ref} =
      spawn_monitor(fn ->
        Isolated.run(
          name,
          fn -> send(test, {:pid, self()}) && Process.sleep(:infinity) end,
          60_000
        )
      end)

    assert_receive {:pid, pid}
    ref = Process.monitor(pid)
    Process.exit(caller, :kill)
    assert_receive {:DOWN, ^ref, :process, ^pid, :killed}
  end

  test "a slow item holds up no other one", %{name: name} do
    test = self()
    # The first item waits for the last one.
    fun = fn
      1 ->
        send(test, {:slow, self()})
        receive(do: (:go -> :slow))

      9 ->
        send(test, :last)
        :fast

      _n ->
        :fast
    end

    task = Task.async(fn -> map(name, 1..9, fun, concurrency: 2) end)
    assert_receive {:slow, pid}
    assert_receive :last
    send(pid, :go)
    assert Task.await(task, 60_000) == [{1, :slow} | for(n <- 2..9, do: {n, :fast})]
  end

  test "a started task tells its result, or that it was killed", %{name: name} do
    %{ref: ref} = Isolated.start(name, fn -> {:done, Process.get(:"$callers")} end, [self()])
    test = self()
    assert_receive {^ref, {:done, [^test]}}
    %{ref: ref, pid: pid} = Isolated.start(name, fn -> Process.sleep(:infinity) end, [])
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^ref, :process, ^pid, :killed}
  end

  test "every item has its result, some at a time", %{name: name} do
    now = :counters.new(2, [])

    results =
      map(name, 1..20, fn n ->
        :counters.add(now, 1, 1)
        if :counters.get(now, 1) > 3, do: :counters.add(now, 2, 1)
        Process.sleep(5)
        :counters.sub(now, 1, 1)
        n * n
      end)

    assert results == for(n <- 1..20, do: {n, n * n})
    assert :counters.get(now, 2) == 0
    assert map(name, [], & &1) == []
  end

  test "a failing item does not affect the others", %{name: name} do
    fun = fn
      1 -> raise "no"
      2 -> Process.exit(self(), :kill)
      3 -> Process.sleep(:infinity)
      n -> n
    end

    assert [
             {1, {:error, {:raised, "no"}}},
             {2, {:error, {:crashed, :killed}}},
             {3, {:error, :timeout}} | rest
           ] = map(name, 1..9, fun, timeout_ms: 5_000)

    assert rest == for(n <- 4..9, do: {n, n})
  end

  test "after the deadline nothing is begun", %{name: name} do
    deadline = System.monotonic_time(:millisecond) - 1

    assert map(name, [1, 2], & &1, deadline_ms: deadline) == [
             {1, {:error, :no_time_left}},
             {2, {:error, :no_time_left}}
           ]
  end
end
