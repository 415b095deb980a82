defmodule Plausible.Webhooks.TurnTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Store.PeriodicLease

  # The store: answers as its function says.
  defmodule Store do
    def take_turn(fun, name, lease_ms, token), do: fun.(name, lease_ms, token)
  end

  defp store(fun), do: {Store, fun}

  defp recorded(fun) do
    test = self()

    store(fn name, lease_ms, token ->
      send(test, {:take, name, lease_ms, token})
      fun.(lease_ms, token)
    end)
  end

  test "runs, with the turn, and renews it as long as it takes" do
    store = recorded(fn _lease_ms, token -> {:ok, (token || 0) + 1} end)
    run = fn -> Process.sleep(250) && :done end
    assert {:ok, :done, token} = PeriodicLease.run(store, "x", 120, nil, run, [])
    assert token >= 4
    assert_received {:take, "x", 120, nil}
    assert_received {:take, "x", 120, 1}
    assert_received {:take, "x", 120, 2}
  end

  test "does not run when somebody else has the turn, nor when nobody knows" do
    run = fn -> send(self(), :ran) end

    for reason <- [:taken, :away] do
      assert {:error, ^reason} =
               PeriodicLease.run(
                 store(fn _, _, _ -> {:error, reason} end),
                 "x",
                 100,
                 nil,
                 run,
                 []
               )
    end

    assert {:error, {:raised, "no"}} =
             PeriodicLease.run(store(fn _, _, _ -> raise "no" end), "x", 100, nil, run, [])

    refute_received :ran
  end

  test "is stopped when somebody else has got the turn" do
    test = self()
    store = store(fn _, _, token -> if token, do: {:error, :taken}, else: {:ok, 1} end)

    run = fn ->
      send(test, {:runs, self()})
      Process.sleep(:infinity)
    end

    assert {:error, :turn_lost} = PeriodicLease.run(store, "x", 60, nil, run, [])
    assert_received {:runs, pid}
    refute Process.alive?(pid)
  end

  test "is stopped when the lease is over, away or hanging as the store may be" do
    for away <- [fn -> {:error, :away} end, fn -> Process.sleep(:infinity) end] do
      store = store(fn _, _, token -> if token, do: away.(), else: {:ok, 1} end)
      began = System.monotonic_time(:millisecond)
      run = fn -> Process.sleep(:infinity) end
      assert {:error, :turn_lost} = PeriodicLease.run(store, "x", 300, nil, run, [])
      assert (System.monotonic_time(:millisecond) - began) in 250..700
    end
  end

  test "goes on when the store was away for less than the lease" do
    away = :counters.new(1, [])

    store =
      store(fn _, _, token ->
        :counters.add(away, 1, 1)
        if token && :counters.get(away, 1) == 2, do: {:error, :away}, else: {:ok, 1}
      end)

    assert {:ok, :done, 1} =
             PeriodicLease.run(store, "x", 300, nil, fn -> Process.sleep(400) && :done end, [])
  end

  test "what crashes gives its turn back" do
    store = recorded(fn _lease_ms, _token -> {:ok, 7} end)

    assert {:error, {:raised, "no"}} =
             PeriodicLease.run(store, "x", 1_000, nil, fn -> raise "no" end, [])

    assert_received {:take, "x", 1, 7}
  end
end
