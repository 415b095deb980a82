defmodule Plausible.Webhooks.StoreContract.Endings do
  @moduledoc false
  use Plausible.Webhooks.StoreContract.Promise, about: "endings"

  @none %{pending: 0, parked: 0, delivered: 0, failed: 0, cancelled: 0, oldest_due_ms: nil}

  shared_test "redelivery makes what has failed pending again, with the whole schedule", store do
    for ending <- [:failed, :cancelled] do
      delivery = accept!(store)
      :ok = record(store, [failed(delivery, 3, state: ending)])
      assert [again] = redeliver!(store, "b", [delivery.id])

      assert again == %{
               delivery
               | owner: "b",
                 manual: true,
                 attempts: 3,
                 schedule_from: 3,
                 last_status: 500,
                 last_error: "http_status"
             }

      assert get!(store, delivery) == again
      # Attempts go on counting.
      :ok = record(store, [an_attempt(delivery, number: 4)])
      assert %{state: :delivered, attempts: 4} = get!(store, delivery)
    end
  end

  shared_test "redelivery takes over what waits and no other node has", store do
    dead = accept!(store, owner: "dead", next_at_ms: 5, attempts: 1)
    nobodys = accept!(store, owner: nil, next_at_ms: 5, attempts: 1)
    mine = accept!(store, owner: "b", next_at_ms: 5, attempts: 1)
    parked = accept!(store, state: :parked, next_at_ms: 5, attempts: 1)
    :ok = heartbeat(store, "dead", 1)
    :ok = heartbeat(store, "b", 60_000)
    Process.sleep(20)
    wanted = ids([parked, mine, nobodys, dead])
    assert taken = redeliver!(store, "b", wanted)
    assert ids(taken) == wanted

    for delivery <- taken do
      assert %{state: :pending, owner: "b", manual: true, next_at_ms: nil, schedule_from: 1} =
               delivery
    end
  end

  shared_test "redelivery asks only for the states that are given", store do
    [delivered, failed, parked] =
      for state <- [:delivered, :failed, :parked], do: accept!(store, state: state, owner: nil)

    all = ids([delivered, failed, parked])
    assert ids(redeliver!(store, "b", all, [:failed, :cancelled])) == [failed.id]
    assert [:delivered, :parked] == Enum.map([delivered, parked], &state(store, &1))
    # The same id twice is still one.
    assert [again] = redeliver!(store, "b", [delivered.id, delivered.id], [:delivered])
    assert %{state: :pending, attempts: 0, schedule_from: 0, finished_at_ms: nil} = again
  end

  shared_test "unknown ids are skipped, the others keep their order, a thousand at once", store do
    assert redeliver!(store, "b", []) == []
    assert redeliver!(store, "b", ["none"]) == []
    assert redeliver!(store, "b", odd_bytes()) == []

    deliveries = for _ <- 1..1_000, do: a_delivery(state: :failed, reason: "timeout")
    :ok = accept(store, deliveries)
    wanted = deliveries |> ids() |> Enum.shuffle()
    again = redeliver!(store, "b", ["none" | wanted] ++ ["nor this"])
    assert ids(again) == wanted
    assert {:ok, %{pending: 1_000, failed: 0}} = counts(store)
  end

  shared_test "recoverable are the webhook's failed and cancelled since then, oldest first",
              store do
    webhook = insert!(store)
    other = insert!(store)

    make = fn state, at, webhook ->
      accept!(store, state: state, created_at_ms: at, webhook_id: webhook.id)
    end

    first = make.(:failed, 10, webhook)
    second = make.(:cancelled, 20, webhook)
    third = make.(:failed, 30, webhook)
    for state <- [:pending, :parked, :delivered], do: make.(state, 20, webhook)
    make.(:failed, 20, other)

    assert recoverable(store, webhook.id, 0, 10) == {:ok, ids([first, second, third])}
    assert recoverable(store, webhook.id, 20, 10) == {:ok, ids([second, third])}
    assert recoverable(store, webhook.id, 0, 2) == {:ok, ids([first, second])}
    assert recoverable(store, webhook.id, 31, 10) == {:ok, []}
    assert recoverable(store, "wh_none", 0, 10) == {:ok, []}

    [_] = redeliver!(store, "b", [second.id])
    assert recoverable(store, webhook.id, 0, 10) == {:ok, ids([first, third])}
  end

  shared_test "what waits for a webhook is cancelled, and nothing else", store do
    before_ms = now_ms(store)
    pending = accept!(store, webhook_id: "wh_x", owner: "a", next_at_ms: 5)
    parked = accept!(store, webhook_id: "wh_x", state: :parked, next_at_ms: 5)
    delivered = accept!(store, webhook_id: "wh_x", state: :delivered)
    failed = accept!(store, webhook_id: "wh_x", state: :failed, reason: "timeout")
    other = accept!(store, webhook_id: "wh_y")
    untouched = Enum.map([delivered, failed, other], &get!(store, &1))

    assert cancel_waiting(store, "wh_x", "webhook_disabled") == {:ok, 2}

    for delivery <- [pending, parked] do
      assert %{state: :cancelled, reason: "webhook_disabled", owner: nil, next_at_ms: nil} =
               stored = get!(store, delivery)

      assert stored.finished_at_ms in before_ms..now_ms(store)
      assert stored.body == delivery.body
    end

    assert Enum.map([delivered, failed, other], &get!(store, &1)) == untouched
    assert cancel_waiting(store, "wh_x", "webhook_disabled") == {:ok, 0}
    assert {:ok, [claimed]} = claim(store, "b", 10)
    assert claimed.id == other.id
  end

  shared_test "many are cancelled, with any bytes for a reason", store do
    :ok = accept(store, for(i <- 1..2_345, do: a_delivery(webhook_id: "wh_#{rem(i, 2)}")))
    assert cancel_waiting(store, "wh_1", "it's over") == {:ok, 1_173}
    assert {:ok, %{cancelled: 1_173, pending: 1_172}} = counts(store)

    for bytes <- odd_bytes() do
      delivery = accept!(store, webhook_id: "wh_odd")
      assert cancel_waiting(store, "wh_odd", bytes) == {:ok, 1}
      assert get!(store, delivery).reason == bytes
      assert cancel_waiting(store, bytes, bytes) == {:ok, 0}
    end
  end

  shared_test "pruning deletes what finished before, with attempts and body", store do
    old =
      for state <- [:delivered, :failed, :cancelled],
          do: accept!(store, state: state, finished_at_ms: 99)

    new =
      for state <- [:delivered, :failed, :cancelled],
          do: accept!(store, state: state, finished_at_ms: 100)

    waiting = for state <- [:pending, :parked], do: accept!(store, state: state, created_at_ms: 1)
    for delivery <- old, do: :ok = record(store, [failed(delivery, 1), failed(delivery, 2)])

    # Recorded again, but an ended delivery keeps its time.
    assert prune(store, 99, 10) == {:ok, 0}
    assert prune(store, 100, 10) == {:ok, 3}

    for delivery <- old do
      assert get_delivery(store, delivery.id) == {:error, :not_found}
      assert attempts(store, delivery.id) == {:ok, []}
    end

    for delivery <- new ++ waiting, do: assert(%{} = get!(store, delivery))
    assert prune(store, 9_000_000_000_000, 100) == {:ok, 3}
    assert {:ok, %{pending: 1, parked: 1, delivered: 0, failed: 0, cancelled: 0}} = counts(store)
    # What was pruned may come again.
    assert accept(store, old) == :ok
    assert {:ok, [_ | _]} = {:ok, Enum.map(old, &get!(store, &1))}
    for delivery <- old, do: assert(attempts(store, delivery.id) == {:ok, []})
  end

  shared_test "pruning deletes the oldest first and no more than asked for", store do
    deliveries = for i <- 1..555, do: a_delivery(state: :delivered, owner: nil, finished_at_ms: i)
    :ok = accept(store, Enum.shuffle(deliveries))
    assert prune(store, 1_000, 250) == {:ok, 250}
    assert {:ok, %{delivered: 305}} = counts(store)

    for delivery <- Enum.take(deliveries, 250),
        do: assert({:error, :not_found} = get_delivery(store, delivery.id))

    for delivery <- Enum.drop(deliveries, 250),
        do: assert({:ok, _} = get_delivery(store, delivery.id))

    assert prune(store, 1_000, 305) == {:ok, 305}
    assert prune(store, 1_000, 10) == {:ok, 0}
  end

  shared_test "a redelivered one is not pruned while it waits", store do
    delivery = accept!(store, state: :failed, finished_at_ms: 1)
    [_] = redeliver!(store, "b", [delivery.id])
    assert prune(store, 9_000_000_000_000, 10) == {:ok, 0}
    assert state(store, delivery) == :pending
  end

  shared_test "counts say how many and since when, whatever happened", store do
    assert counts(store) == {:ok, @none}
    now_ms = now_ms(store)
    webhook = insert!(store)
    states = [:pending, :parked, :delivered, :failed, :cancelled]

    deliveries =
      for i <- 1..200 do
        a_delivery(
          state: Enum.random(states),
          owner: Enum.random([nil, "a", "b"]),
          webhook_id: Enum.random([webhook.id, "wh_1"]),
          next_at_ms: Enum.random([nil, now_ms - i, now_ms + i]),
          created_at_ms: now_ms - Enum.random(0..500),
          finished_at_ms: nil
        )
      end

    :ok = accept(store, deliveries)
    check_counts(store, deliveries)

    :ok =
      record(
        store,
        for(
          d <- Enum.take_random(deliveries, 60),
          do: failed(d, 1, state: Enum.random(states), next_at_ms: now_ms + 7)
        )
      )

    check_counts(store, deliveries)
    {:ok, _} = claim(store, "c", 20)
    check_counts(store, deliveries)
    :ok = release(store, "c", deliveries |> ids() |> Enum.take_random(50), now_ms - 1_000)
    check_counts(store, deliveries)
    redeliver!(store, "c", deliveries |> ids() |> Enum.take_random(50))
    check_counts(store, deliveries)
    {:ok, _} = cancel_waiting(store, "wh_1", "x")
    check_counts(store, deliveries)
    {:ok, _} = prune(store, now_ms + 60_000, 30)
    check_counts(store, deliveries)
    :ok = delete_webhook(store, 1, webhook.id)
    check_counts(store, deliveries)
  end

  defp check_counts(store, deliveries) do
    there =
      for %{id: id} <- deliveries, {:ok, delivery} <- [get_delivery(store, id)], do: delivery

    due =
      for %{state: state} = d <- there,
          state in [:pending, :parked],
          do: d.next_at_ms || d.created_at_ms

    expected =
      there
      |> Enum.frequencies_by(& &1.state)
      |> Enum.into(@none)
      |> Map.put(:oldest_due_ms, Enum.min(due, fn -> nil end))

    assert counts(store) == {:ok, expected}
  end
end
