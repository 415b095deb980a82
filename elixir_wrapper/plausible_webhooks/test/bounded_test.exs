defmodule Plausible.Webhooks.BoundedTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Runtime.Isolated

  doctest Isolated

  @far 1_000_000_000_000

  defp map(items, fun, opts \\ []) do
    defaults = [concurrency: 3, timeout_ms: 1_000, deadline_ms: @far]
    items |> Isolated.map(fun, Keyword.merge(defaults, opts)) |> Enum.sort()
  end

  test "whatever a function does comes back as a value" do
    assert Isolated.run(fn -> {:ok, 1} end, 1_000) == {:ok, 1}
    assert Isolated.run(fn -> raise "no" end, 1_000) == {:error, {:raised, "no"}}
    assert Isolated.run(fn -> throw(:no) end, 1_000) == {:error, {:throw, :no}}
    assert Isolated.run(fn -> exit(:no) end, 1_000) == {:error, {:exit, :no}}

    assert Isolated.run(fn -> Process.exit(self(), :kill) end, 1_000) ==
             {:error, {:crashed, :killed}}

    assert Isolated.run(fn -> Process.sleep(:infinity) end, 20) == {:error, :timeout}
    refute_received _any
  end

  test "what took too long is ended, not left behind" do
    test = self()
    Isolated.run(fn -> send(test, {:pid, self()}) && Process.sleep(:infinity) end, 20)
    assert_received {:pid, pid}
    ref = Process.monitor(pid)
    assert_receive {:DOWN, ^ref, :process, ^pid, _reason}
  end

  test "dies with who asked for it" do
    test = self()

    {caller, _ref} =
      spawn_monitor(fn ->
        Isolated.run(fn -> send(test, {:pid, self()}) && Process.sleep(:infinity) end, 60_000)
      end)

    assert_receive {:pid, pid}
    ref = Process.monitor(pid)
    Process.exit(caller, :kill)
    assert_receive {:DOWN, ^ref, :process, ^pid, :killed}
  end

  test "every item has its result, some at a time" do
    now = :counters.new(2, [])

    results =
      map(1..20, fn n ->
        :counters.add(now, 1, 1)
        if :counters.get(now, 1) > 3, do: :counters.add(now, 2, 1)
        Process.sleep(5)
        :counters.sub(now, 1, 1)
        n * n
      end)

    assert results == for(n <- 1..20, do: {n, n * n})
    assert :counters.get(now, 2) == 0
    assert map([], & &1) == []
  end

  test "one item spoils nothing for the others" do
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
           ] = map(1..9, fun, timeout_ms: 5_000)

    assert rest == for(n <- 4..9, do: {n, n})
  end

  test "after the deadline nothing is begun" do
    deadline = System.monotonic_time(:millisecond) - 1

    assert map([1, 2], & &1, deadline_ms: deadline) == [
             {1, {:error, :no_time_left}},
             {2, {:error, :no_time_left}}
           ]
  end
end
