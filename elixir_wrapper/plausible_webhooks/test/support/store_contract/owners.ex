defmodule Plausible.Webhooks.StoreContract.Owners do
  @moduledoc false
  use Plausible.Webhooks.StoreContract.Promise, about: "owners"

  shared_test "parked deliveries are claimed when their time has come, oldest due first", store do
    now_ms = now_ms(store)
    late = accept!(store, state: :parked, next_at_ms: now_ms - 10)
    early = accept!(store, state: :parked, next_at_ms: now_ms - 20, created_at_ms: now_ms)
    middle = accept!(store, state: :parked, next_at_ms: nil, created_at_ms: now_ms - 15)
    future = accept!(store, state: :parked, next_at_ms: now_ms + 60_000)

    assert {:ok, claimed} = claim(store, "b", 10)
    assert ids(claimed) == ids([early, middle, late])

    for {claimed, accepted} <- Enum.zip(claimed, [early, middle, late]) do
      assert claimed == %{accepted | state: :pending, owner: "b"}
      assert get!(store, claimed) == claimed
    end

    assert state(store, future) == :parked
    # Once.
    assert claim(store, "b", 10) == {:ok, []}
    heartbeat(store, "b", 60_000)
    assert claim(store, "c", 10) == {:ok, []}
  end

  shared_test "no more than asked for, the rest the next time", store do
    now_ms = now_ms(store)
    deliveries = for i <- 1..10, do: a_delivery(state: :parked, next_at_ms: now_ms - 100 + i)
    :ok = accept(store, Enum.shuffle(deliveries))
    assert {:ok, first} = claim(store, "b", 4)
    assert {:ok, second} = claim(store, "b", 4)
    assert {:ok, third} = claim(store, "b", 4)
    assert ids(first ++ second ++ third) == ids(deliveries)
    assert length(first) == 4 and length(third) == 2
  end

  shared_test "what is pending is safe while its owner lives", store do
    mine = accept!(store, owner: "a", next_at_ms: 1)
    :ok = heartbeat(store, "a", 60_000)
    assert claim(store, "b", 10) == {:ok, []}
    assert get!(store, mine).owner == "a"
  end

  shared_test "what a dead owner, an unknown one or nobody left pending is claimed", store do
    now_ms = now_ms(store)
    :ok = heartbeat(store, "dead", 1)
    Process.sleep(20)
    # Pending ones are taken before they are due, because no other node sends them.
    dead = accept!(store, owner: "dead", next_at_ms: now_ms + 60_000)
    unknown = accept!(store, owner: "unknown", next_at_ms: 3)
    odd = accept!(store, owner: "", next_at_ms: 2)
    nobody = accept!(store, owner: nil, next_at_ms: 1)
    parked = accept!(store, state: :parked, next_at_ms: 4)

    assert {:ok, claimed} = claim(store, "b", 10)
    assert ids(claimed) == ids([nobody, odd, unknown, parked, dead])
    assert Enum.all?(claimed, &(&1.owner == "b" and &1.state == :pending and &1.body != nil))
    assert List.last(claimed).next_at_ms == now_ms + 60_000
  end

  shared_test "the oldest due come first, whosever they were", store do
    deliveries =
      for i <- 1..60 do
        {owner, state} =
          Enum.at([{"x", :pending}, {"y", :pending}, {nil, :pending}, {nil, :parked}], rem(i, 4))

        a_delivery(owner: owner, state: state, next_at_ms: i)
      end

    :ok = accept(store, Enum.shuffle(deliveries))
    claims = for _ <- 1..7, {:ok, claimed} = claim(store, "b", 9), do: ids(claimed)
    assert Enum.concat(claims) == ids(deliveries)
    assert Enum.map(claims, &length/1) == [9, 9, 9, 9, 9, 9, 6]
  end

  shared_test "a lease can be renewed, and can end", store do
    accept!(store, owner: "a")
    :ok = heartbeat(store, "a", 60_000)
    assert claim(store, "b", 1) == {:ok, []}
    # The newest word counts, also when it is a shorter one.
    :ok = heartbeat(store, "a", 1)
    Process.sleep(20)
    :ok = heartbeat(store, "a", 60_000)
    assert claim(store, "b", 1) == {:ok, []}
    :ok = heartbeat(store, "a", 1)
    Process.sleep(20)
    assert {:ok, [%{owner: "b"}]} = claim(store, "b", 1)
  end

  shared_test "what is pending for the claimer itself stays in its engine", store do
    # With a lease, without one, and after it.
    for lease <- [60_000, 1, nil] do
      owner = "o#{lease}"
      accept!(store, owner: owner)
      if lease, do: :ok = heartbeat(store, owner, lease)
      Process.sleep(20)
      assert {:ok, claimed} = claim(store, owner, 10)
      assert Enum.all?(claimed, &(&1.body != nil))
      assert owner not in Enum.map(claimed, & &1.id)
      assert {:ok, %{entries: entries}} = deliveries(store, 1, %{}, %{})
      assert Enum.count(entries, &(&1.owner == owner)) == 1 + length(claimed)
    end
  end

  shared_test "owners that claim at the same time never share", store do
    now_ms = now_ms(store)

    deliveries =
      for i <- 1..600 do
        case rem(i, 3) do
          0 -> a_delivery(state: :parked, next_at_ms: now_ms - i)
          1 -> a_delivery(owner: "dead", next_at_ms: i)
          2 -> a_delivery(owner: nil, next_at_ms: i)
        end
      end

    :ok = accept(store, deliveries)
    owners = Enum.map(1..6, &"owner_#{&1}")
    for owner <- owners, do: :ok = heartbeat(store, owner, 60_000)

    claims =
      at_once(
        for owner <- owners do
          fn ->
            for _ <- 1..20, {:ok, claimed} = claim(store, owner, 7), delivery <- claimed do
              assert delivery.owner == owner
              delivery.id
            end
          end
        end
      )

    taken = Enum.concat(claims)
    assert length(taken) == 600
    assert Enum.sort(taken) == Enum.sort(ids(deliveries))

    for {owner, ids} <- Enum.zip(owners, claims), id <- Enum.take(ids, 5) do
      assert get!(store, id).owner == owner
    end
  end

  shared_test "what was held under a former name can be taken back, by its lease or not", store do
    for lease_ms <- [60_000, 1] do
      former = "former#{lease_ms}"
      later = accept!(store, owner: former, next_at_ms: 20)
      sooner = accept!(store, owner: former, next_at_ms: 10)
      ended = accept!(store, owner: former)
      :ok = record(store, [an_attempt(ended)])
      others = accept!(store, owner: "other")
      nobodys = accept!(store, owner: nil)
      parked = accept!(store, state: :parked, owner: nil, next_at_ms: 1)
      :ok = heartbeat(store, former, lease_ms)
      Process.sleep(10)

      assert {:ok, [first]} = reclaim(store, "now", former, 1)
      assert first == %{sooner | owner: "now"}
      assert get!(store, sooner) == first
      assert {:ok, [second]} = reclaim(store, "now", former, 10)
      assert second == %{later | owner: "now"}
      assert reclaim(store, "now", former, 10) == {:ok, []}

      for untouched <- [others, nobodys, parked],
          do: assert(get!(store, untouched) == untouched)
    end
  end

  shared_test "who takes back becomes known: what it leaves is claimed", store do
    accept!(store, owner: "former")
    assert {:ok, [%{id: id}]} = reclaim(store, "now", "former", 10)
    assert {:ok, [%{id: ^id, owner: "b"}]} = claim(store, "b", 10)
  end

  shared_test "released deliveries wait for their time, then come to whoever asks", store do
    now_ms = now_ms(store)
    [soon, later, kept] = for _ <- 1..3, do: accept!(store, owner: "a")
    :ok = heartbeat(store, "a", 60_000)
    assert release(store, "a", [soon.id], now_ms) == :ok
    assert release(store, "a", [later.id], now_ms + 60_000) == :ok
    assert get!(store, soon) == %{soon | state: :parked, owner: nil, next_at_ms: now_ms}
    assert {:ok, [%{owner: "b"} = claimed]} = claim(store, "b", 10)
    assert claimed.id == soon.id
    assert %{state: :parked} = get!(store, later)
    assert get!(store, kept) == kept
  end

  shared_test "only its owner can release, and only what is pending", store do
    others = accept!(store, owner: "other")
    nobodys = accept!(store, owner: nil)
    parked = accept!(store, state: :parked, owner: nil, next_at_ms: 5)
    ended = accept!(store, owner: "a")
    mine = accept!(store, owner: "a")
    :ok = record(store, [an_attempt(ended)])
    all = [others, nobodys, parked, ended]
    before = Enum.map(all, &get!(store, &1))

    assert release(store, "a", ["none", mine.id, mine.id | ids(all)], 9) == :ok
    assert Enum.map(all, &get!(store, &1)) == before
    assert %{state: :parked, next_at_ms: 9} = get!(store, mine)
    assert release(store, "a", [], 9) == :ok
    assert release(store, "a", odd_bytes(), 9) == :ok
  end

  shared_test "a thousand are released and claimed in one go", store do
    deliveries = for _ <- 1..1_000, do: a_delivery(body: String.duplicate("x", 700))
    :ok = accept(store, deliveries)
    :ok = release(store, "a", ids(deliveries), 1)
    assert {:ok, %{parked: 1_000, pending: 0}} = counts(store)
    assert {:ok, claimed} = claim(store, "b", 1_000)
    assert Enum.sort(ids(claimed)) == Enum.sort(ids(deliveries))
  end

  # --- turns

  shared_test "a turn is one's own until its lease is over, and then the next one's", store do
    assert {:ok, token} = take_lease(store, "a", 200, nil)
    assert is_integer(token)
    assert take_lease(store, "a", 200, nil) == {:error, :taken}
    assert take_lease(store, "a", 200, token + 1) == {:error, :taken}
    assert {:ok, _token} = take_lease(store, "b", 200, nil)
    Process.sleep(250)
    assert {:ok, next} = take_lease(store, "a", 60_000, nil)
    assert next != token
    # Whoever had it before has not noticed.
    assert take_lease(store, "a", 60_000, token) == {:error, :taken}
  end

  shared_test "a turn is renewed by its token, also late, and ended by it", store do
    {:ok, token} = take_lease(store, "a", 100, nil)
    {:ok, token} = take_lease(store, "a", 100, token)
    Process.sleep(150)
    {:ok, token} = take_lease(store, "a", 60_000, token)
    assert take_lease(store, "a", 1, nil) == {:error, :taken}
    assert {:ok, _token} = take_lease(store, "a", 1, token)
    Process.sleep(10)
    assert {:ok, _token} = take_lease(store, "a", 60_000, nil)
  end

  shared_test "of many who ask for a turn at the same moment one gets it", store do
    for turn <- 1..5 do
      answers = at_once(for _ <- 1..10, do: fn -> take_lease(store, "t#{turn}", 60_000, nil) end)
      assert Enum.count(answers, &match?({:ok, _token}, &1)) == 1
      assert Enum.count(answers, &(&1 == {:error, :taken})) == 9
    end
  end

  shared_test "a turn is no owner, and no owner has a turn", store do
    accept!(store, owner: "a")
    {:ok, _token} = take_lease(store, "a", 60_000, nil)
    assert {:ok, [%{owner: "b"}]} = claim(store, "b", 10)
    heartbeat(store, "c", 60_000)
    assert {:ok, _token} = take_lease(store, "c", 60_000, nil)
  end
end
