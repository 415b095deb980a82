defmodule Plausible.Webhooks.StoreContract.Acceptance do
  @moduledoc false
  use Plausible.Webhooks.StoreContract.Promise, about: "accept"

  shared_test "what was accepted comes back as it was", store do
    most = 9_223_372_036_854_775_807

    for delivery <- [
          a_delivery(),
          a_delivery(goal_id: nil, owner: nil, manual: true, retry: false),
          a_delivery(next_at_ms: 5, attempts: 2, schedule_from: 2),
          a_delivery(state: :parked, owner: nil, next_at_ms: 5),
          a_delivery(state: :delivered, owner: nil, finished_at_ms: 5, last_status: 204),
          a_delivery(
            state: :failed,
            owner: nil,
            finished_at_ms: 5,
            reason: "timeout",
            last_error: "timeout"
          ),
          a_delivery(
            state: :cancelled,
            owner: nil,
            finished_at_ms: 5,
            reason: "webhook_disabled"
          ),
          a_delivery(created_at_ms: 0),
          a_delivery(site_id: most, goal_id: most, created_at_ms: most, next_at_ms: most)
        ] do
      assert accept(store, [delivery]) == :ok
      assert get_delivery(store, delivery.id) == {:ok, delivery}
    end
  end

  shared_test "nothing at all is accepted too", store do
    assert accept(store, []) == :ok
    assert {:ok, %{pending: 0}} = counts(store)
  end

  shared_test "a terminal delivery gets a time, and only a pending one keeps its owner", store do
    before_ms = now_ms(store)
    done = accept!(store, state: :cancelled)
    parked = accept!(store, state: :parked)
    assert %{owner: nil, finished_at_ms: finished_at_ms} = get!(store, done)
    assert finished_at_ms in before_ms..now_ms(store)
    assert %{owner: nil, finished_at_ms: nil, state: :parked} = get!(store, parked)
  end

  shared_test "any bytes are kept in body, reason, type, owner and error", store do
    for bytes <- odd_bytes() do
      pending = a_delivery(body: bytes, type: bytes, owner: bytes, last_error: bytes)
      cancelled = a_delivery(state: :cancelled, owner: nil, reason: bytes, finished_at_ms: 1)
      assert accept(store, [pending, cancelled]) == :ok
      assert get_delivery(store, pending.id) == {:ok, pending}
      assert get_delivery(store, cancelled.id) == {:ok, cancelled}
    end
  end

  shared_test "any bytes are kept in ids", store do
    deliveries = for bytes <- odd_bytes(), do: a_delivery(id: bytes, webhook_id: bytes)
    assert accept(store, deliveries) == :ok
    for delivery <- deliveries, do: assert(get_delivery(store, delivery.id) == {:ok, delivery})

    for delivery <- deliveries do
      assert {:ok, %{entries: [entry]}} =
               deliveries(store, 1, %{webhook_id: delivery.webhook_id}, %{})

      assert entry.id == delivery.id
    end

    assert get_delivery(store, "none") == {:error, :not_found}
  end

  shared_test "an id that is there is left as it is, in one batch and over several", store do
    first = a_delivery(body: "first")
    second = %{first | body: "second", state: :failed, site_id: 9, webhook_id: "wh_9"}
    other = a_delivery()

    assert accept(store, [first, second, other, first]) == :ok
    assert accept(store, [second]) == :ok
    assert get_delivery(store, first.id) == {:ok, first}
    assert get_delivery(store, other.id) == {:ok, other}
    assert {:ok, %{pending: 2, failed: 0}} = counts(store)

    # Also once it has moved on.
    :ok = record(store, [an_attempt(first)])
    assert accept(store, [first]) == :ok
    assert state(store, first) == :delivered
  end

  shared_test "a thousand in one batch, and bodies of many megabytes", store do
    thousand = for i <- 1..1_000, do: a_delivery(body: "body #{i}", created_at_ms: i)
    assert accept(store, thousand) == :ok
    assert {:ok, %{pending: 1_000}} = counts(store)
    for delivery <- Enum.take_random(thousand, 20), do: assert(get!(store, delivery) == delivery)

    large =
      for size <-
            [0, 1, 4_095, 4_096, 262_144, 262_144, 1_000_000, 5_000_000, 3] ++
              List.duplicate(262_144, 40) do
        a_delivery(body: :crypto.strong_rand_bytes(size))
      end

    assert accept(store, large) == :ok
    for delivery <- large, do: assert(get!(store, delivery) == delivery)
  end

  shared_test "batches from everywhere at once are all there", store do
    batches = for _ <- 1..20, do: for(_ <- 1..50, do: a_delivery())
    # Every batch twice: the same rows at the same moment.
    results = at_once(for batch <- batches ++ batches, do: fn -> accept(store, batch) end)
    assert Enum.uniq(results) == [:ok]
    assert {:ok, %{pending: 1_000}} = counts(store)

    for delivery <- batches |> Enum.concat() |> Enum.take_random(30),
        do: assert(get!(store, delivery) == delivery)
  end
end
