defmodule Plausible.Webhooks.StoreContract.Nodes do
  @moduledoc false
  # A change on a node that does not own the delivery. "a" owns and lives; "b" is asked.
  use Plausible.Webhooks.StoreContract.Promise, about: "nodes"

  @all [:pending, :parked, :held, :delivered, :failed, :cancelled]

  defp owned!(store, fields \\ []) do
    :ok = heartbeat(store, "a", 60_000)
    :ok = heartbeat(store, "b", 60_000)
    accept!(store, Keyword.merge([owner: "a", next_at_ms: 5, attempts: 1], fields))
  end

  defp request!(store, delivery) do
    assert redeliver(store, "b", [delivery.id], @all) ==
             {:ok, %{taken: [], requested: [delivery.id]}}
  end

  shared_test "what another node sends is not sent again beside it, but by it", store do
    delivery = owned!(store)
    others = owned!(store)
    request!(store, delivery)
    assert %{state: :pending, owner: "a", manual: true, schedule_from: 1} = get!(store, delivery)
    assert claim(store, "b", 10) == {:ok, []}
    assert requested(store, "b", 10) == {:ok, []}
    assert requested(store, "a", 10) == {:ok, [delivery.id]}
    # Twice is once.
    request!(store, delivery)
    request!(store, others)
    assert {:ok, [_]} = requested(store, "a", 1)
    assert {:ok, [_, _]} = requested(store, "a", 10)

    [again] = redeliver!(store, "a", [delivery.id])
    assert %{owner: "a", manual: true, next_at_ms: nil, schedule_from: 1} = again
    assert requested(store, "a", 10) == {:ok, [others.id]}
  end

  shared_test "what its owner lets go of after a request is anyone's, with the whole schedule",
              store do
    for {state, number} <- [parked: 2, failed: 2, cancelled: 2, cancelled: 0, parked: 0] do
      delivery = owned!(store)
      request!(store, delivery)
      :ok = record(store, [failed(delivery, number, state: state, owner: "a", next_at_ms: 99)])
      made = max(number, 1)

      assert %{state: :pending, owner: nil, reason: nil, next_at_ms: nil, schedule_from: ^made} =
               get!(store, delivery)

      assert requested(store, "a", 10) == {:ok, []}
      assert {:ok, [%{owner: "b", manual: true, attempts: ^made}]} = claim(store, "b", 10)
    end
  end

  shared_test "what its owner delivers after a request has arrived, and a retry keeps the request",
              store do
    delivery = owned!(store)
    request!(store, delivery)
    :ok = record(store, [failed(delivery, 2, state: :pending, owner: "a", next_at_ms: 99)])
    assert %{state: :pending, owner: "a", attempts: 2} = get!(store, delivery)
    assert requested(store, "a", 10) == {:ok, [delivery.id]}
    :ok = record(store, [an_attempt(delivery, number: 3, owner: "a")])
    assert %{state: :delivered, owner: nil} = get!(store, delivery)
    assert requested(store, "a", 10) == {:ok, []}
  end

  shared_test "a request outlives its owner", store do
    for take <- [&reclaim(store, "c", "a", &1), &claim(store, "c", &1)] do
      delivery = owned!(store)
      request!(store, delivery)
      :ok = record(store, [failed(delivery, 2, state: :pending, owner: "a", next_at_ms: 99)])
      :ok = heartbeat(store, "a", 1)
      Process.sleep(20)
      assert {:ok, [again]} = take.(10)
      assert %{owner: "c", manual: true, next_at_ms: nil, attempts: 2, schedule_from: 2} = again
      assert requested(store, "c", 10) == {:ok, []}
    end
  end

  shared_test "a request for what the engine has no room for waits in the store", store do
    delivery = owned!(store)
    request!(store, delivery)
    :ok = release(store, "a", [delivery.id], 1)
    assert %{state: :parked, manual: true} = get!(store, delivery)
    assert requested(store, "a", 10) == {:ok, []}
    assert {:ok, [%{owner: "b"}]} = claim(store, "b", 10)
  end

  shared_test "a recovery leaves alone what another one has begun to send", store do
    delivery = owned!(store, state: :failed)
    ended = [:failed, :cancelled]
    :ok = heartbeat(store, "b", 60_000)

    answers =
      at_once(
        for owner <- ["a", "b"], do: fn -> redeliver!(store, owner, [delivery.id], ended) end
      )

    assert [[], [%{}]] = Enum.sort(answers)
    assert redeliver!(store, "b", [delivery.id], ended) == []
  end

  shared_test "of many who ask for the same one at once, one gets it and the others hand it on",
              store do
    owners = for n <- 1..6, do: "o#{n}"
    for owner <- owners, do: :ok = heartbeat(store, owner, 60_000)

    for _ <- 1..5 do
      delivery = accept!(store, state: :failed)
      asked = for owner <- owners, do: fn -> redeliver(store, owner, [delivery.id], @all) end
      answers = for {:ok, answer} <- at_once(asked), do: answer
      assert length(answers) == 6
      assert [%{owner: owner}] = Enum.flat_map(answers, & &1.taken)
      assert get!(store, delivery).owner == owner
      assert Enum.count(answers, &(&1.requested == [delivery.id])) == 5
    end
  end

  shared_test "what another node has is cancelled by its engine, not behind its back", store do
    delivery = owned!(store, webhook_id: "wh_x")
    accept!(store, webhook_id: "wh_x", owner: "dead")
    accept!(store, webhook_id: "wh_x", owner: nil)
    accept!(store, webhook_id: "wh_x", state: :parked)
    assert cancel_waiting(store, "wh_x", "webhook_disabled") == {:ok, 3}
    assert get!(store, delivery) == delivery
    :ok = heartbeat(store, "a", 1)
    Process.sleep(20)
    assert cancel_waiting(store, "wh_x", "webhook_disabled") == {:ok, 1}
  end
end
