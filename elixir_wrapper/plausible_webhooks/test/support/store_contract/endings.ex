defmodule Plausible.Webhooks.StoreContract.Endings do
  @moduledoc false
  use Plausible.Webhooks.StoreContract.Promise, about: "endings"

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
    [delivered, failed, parked, held] =
      for state <- [:delivered, :failed, :parked, :held],
          do: accept!(store, state: state, owner: nil)

    all = ids([delivered, failed, parked, held])
    assert ids(redeliver!(store, "b", all, [:failed, :cancelled])) == [failed.id]
    assert [:delivered, :parked, :held] == Enum.map([delivered, parked, held], &state(store, &1))
    assert [%{state: :pending, owner: "b"}] = redeliver!(store, "b", [held.id], [:held])
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
    for state <- [:pending, :parked, :held, :delivered], do: make.(state, 20, webhook)
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
    held = accept!(store, webhook_id: "wh_x", state: :held)
    delivered = accept!(store, webhook_id: "wh_x", state: :delivered)
    failed = accept!(store, webhook_id: "wh_x", state: :failed, reason: "timeout")
    other = accept!(store, webhook_id: "wh_y")
    untouched = Enum.map([delivered, failed, other], &get!(store, &1))

    assert cancel_waiting(store, "wh_x", "webhook_disabled") == {:ok, 3}

    for delivery <- [pending, parked, held] do
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

  shared_test "what waits for a paused webhook is held, and nothing else", store do
    paused = insert!(store, enabled: false)
    active = insert!(store)
    :ok = heartbeat(store, "living", 60_000)
    of = fn webhook, fields -> accept!(store, [webhook_id: webhook.id] ++ fields) end
    pending = of.(paused, owner: "a", next_at_ms: 5, attempts: 2)
    parked = of.(paused, state: :parked, next_at_ms: 5, attempts: 2)

    others = [
      of.(paused, owner: "living"),
      of.(paused, retry: false),
      of.(paused, state: :failed),
      of.(active, state: :parked, next_at_ms: 9_000_000_000_000)
    ]

    untouched = Enum.map(others, &get!(store, &1))
    assert hold_waiting(store, paused.id) == {:ok, 2}

    for delivery <- [pending, parked],
        do:
          assert(get!(store, delivery) == %{delivery | state: :held, owner: nil, next_at_ms: nil})

    assert Enum.map(others, &get!(store, &1)) == untouched
    # Neither is one of an active webhook, or of none.
    for id <- [active.id, "wh_none" | odd_bytes()],
        do: assert(hold_waiting(store, id) == {:ok, 0})

    assert send_held(store) == {:ok, 0}
    assert {:ok, [%{retry: false}]} = claim(store, "b", 10)
    assert {:ok, %{held: 2}} = counts(store)
  end

  shared_test "what was held is sent once its webhook is not paused, oldest first", store do
    webhook = insert!(store, enabled: false)
    other = insert!(store, enabled: false)
    held = for at <- [30, 10, 20], do: accept!(store, webhook_id: webhook.id, created_at_ms: at)
    kept = accept!(store, webhook_id: other.id)
    {:ok, 3} = hold_waiting(store, webhook.id)
    {:ok, 1} = hold_waiting(store, other.id)
    {:ok, _} = update_webhook(store, %{webhook | enabled: true})
    assert send_held(store) == {:ok, 3}
    assert {:ok, claimed} = claim(store, "b", 10)
    assert Enum.map(claimed, & &1.created_at_ms) == [10, 20, 30]
    assert Enum.sort(ids(claimed)) == Enum.sort(ids(held))
    assert state(store, kept) == :held
    # Of a deleted webhook nothing stays.
    :ok = delete_webhook(store, 1, other.id)
    assert send_held(store) == {:ok, 0}
    assert {:ok, %{held: 0}} = counts(store)
  end

  shared_test "many are held and sent, with the whole schedule", store do
    webhook = insert!(store, enabled: false)
    make = &a_delivery(webhook_id: webhook.id, created_at_ms: &1, attempts: 3, schedule_from: 1)
    :ok = accept(store, Enum.map(1..2_345, make))
    assert hold_waiting(store, webhook.id) == {:ok, 2_345}
    {:ok, _} = update_webhook(store, %{webhook | enabled: true})
    assert send_held(store) == {:ok, 2_345}
    assert {:ok, %{held: 0, parked: 2_345}} = counts(store)
    assert {:ok, [%{attempts: 3, schedule_from: 3, next_at_ms: nil}]} = claim(store, "b", 1)
  end

  shared_test "an engine that lets go of a delivery holds it only for a paused webhook", store do
    paused = insert!(store, enabled: false)
    active = insert!(store)
    :ok = heartbeat(store, "a", 60_000)

    for {webhook_id, becomes} <- [{paused.id, :held}, {active.id, :parked}, {"wh_none", :parked}],
        number <- [0, 1] do
      delivery = accept!(store, webhook_id: webhook_id)
      :ok = record(store, [failed(delivery, number, state: :held, owner: "a")])

      assert %{state: ^becomes, owner: nil, next_at_ms: nil, finished_at_ms: nil, reason: nil} =
               stored = get!(store, delivery)

      assert stored.attempts == number
    end

    # What another node wants sent again goes on.
    delivery = accept!(store, webhook_id: paused.id)
    {:ok, %{requested: [_]}} = redeliver(store, "b", [delivery.id], [:pending])
    :ok = record(store, [failed(delivery, 1, state: :held, owner: "a")])
    assert %{state: :pending, owner: nil} = get!(store, delivery)
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

    # What is held has not finished: its age counts.
    for at <- [99, 100], do: accept!(store, state: :held, created_at_ms: at)
    assert prune(store, 100, 10) == {:ok, 1}
    assert {:ok, %{held: 1}} = counts(store)

    for delivery <- new ++ waiting, do: assert(%{} = get!(store, delivery))
    assert prune(store, 9_000_000_000_000, 100) == {:ok, 4}
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
    assert counts(store) == {:ok, no_counts()}
    now_ms = now_ms(store)
    webhook = insert!(store)
    states = [:pending, :parked, :held, :delivered, :failed, :cancelled]

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
    {:ok, _} = send_held(store)
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
      |> Enum.into(no_counts())
      |> Map.put(:oldest_due_ms, Enum.min(due, fn -> nil end))

    assert counts(store) == {:ok, expected}
  end
end
