defmodule Plausible.Webhooks.Store.PeriodicLeaseTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Store.PeriodicLease
  alias Plausible.Webhooks.Test.InstanceStub

  @moduletag :capture_log

  defmodule Leases do
    # Answers as its function says, and tells the test of each call.
    def take_lease({test, fun}, name, lease_ms, token) do
      send(test, {:take, name, lease_ms, token})
      fun.(lease_ms, token)
    end
  end

  # The n-th call is answered by fun.(n, token).
  defp instance(fun) do
    calls = :counters.new(1, [])

    answer = fn _lease_ms, token ->
      :counters.add(calls, 1, 1)
      fun.(:counters.get(calls, 1), token)
    end

    name = :"lease_#{System.unique_integer([:positive])}"
    store = {Leases, {self(), answer}}
    start_supervised!({InstanceStub, {name, store, {Leases, nil}}}, id: name)
    name
  end

  # Runs until the test has seen this many calls of the store.
  defp run(name, lease_ms, fun), do: PeriodicLease.run(name, "x", lease_ms, nil, fun, [])

  defp until_told(test) do
    send(test, {:runs, self()})

    receive do
      :finish -> :done
    end
  end

  defp in_background(fun) do
    test = self()
    spawn_link(fn -> send(test, {:result, fun.(test)}) end)
  end

  test "renews the lease for as long as the function runs" do
    name = instance(fn n, _token -> {:ok, n} end)
    in_background(fn test -> run(name, 60, fn -> until_told(test) end) end)
    assert_receive {:runs, pid}
    for token <- [nil, 1, 2], do: assert_receive({:take, "x", 60, ^token})
    send(pid, :finish)
    assert_receive {:result, {:ok, :done, token}} when token >= 3
  end

  test "does not run while another node holds the lease, nor when nobody knows" do
    test = self()
    run = fn -> send(test, :ran) end
    assert run(instance(fn _n, _token -> {:error, :taken} end), 100, run) == {:error, :taken}
    assert run(instance(fn _n, _token -> {:error, :away} end), 100, run) == {:error, :away}
    assert run(instance(fn _n, _token -> raise "no" end), 100, run) == {:error, :store_raised}
    refute_received :ran
  end

  test "is killed when another node has got the lease" do
    name = instance(fn _n, token -> if token, do: {:error, :taken}, else: {:ok, 1} end)
    in_background(fn test -> run(name, 60, fn -> until_told(test) end) end)
    assert_receive {:runs, pid}
    ref = Process.monitor(pid)
    assert_receive {:result, {:error, :lease_lost}}
    assert_receive {:DOWN, ^ref, :process, _pid, _reason}
  end

  test "is killed when the lease has ended, whether the store is away or hangs" do
    for away <- [fn -> {:error, :away} end, fn -> Process.sleep(:infinity) end] do
      name = instance(fn _n, token -> if token, do: away.(), else: {:ok, 1} end)
      assert run(name, 60, fn -> Process.sleep(:infinity) end) == {:error, :lease_lost}
    end
  end

  test "goes on when the store was away for less than the lease" do
    name = instance(fn n, _token -> if n == 2, do: {:error, :away}, else: {:ok, n} end)
    in_background(fn test -> run(name, 3_000, fn -> until_told(test) end) end)
    assert_receive {:runs, pid}
    # The first renewal fails, the second one works.
    for token <- [nil, 1, 1], do: assert_receive({:take, "x", 3_000, ^token})
    send(pid, :finish)
    assert_receive {:result, {:ok, :done, _token}}
  end

  test "a function that crashes gives the lease back" do
    name = instance(fn _n, _token -> {:ok, 7} end)
    assert {:error, {:raised, "no"}} = run(name, 1_000, fn -> raise "no" end)
    assert_received {:take, "x", 1, 7}
  end
end
