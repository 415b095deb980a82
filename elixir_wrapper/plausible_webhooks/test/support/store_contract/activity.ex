defmodule Plausible.Webhooks.StoreContract.Activity do
  @moduledoc false
  use Plausible.Webhooks.StoreContract.Promise, about: "activity"

  @hour_ms 3_600_000
  @day_ms 24 * @hour_ms
  @states [:delivered, :failed, :cancelled]

  # An hour's beginning, long enough ago.
  @since_ms 497_222 * @hour_ms

  defp ended!(store, state, finished_at_ms, fields \\ []) do
    accept!(
      store,
      Keyword.merge(
        [state: state, finished_at_ms: finished_at_ms, created_at_ms: finished_at_ms, owner: nil],
        fields
      )
    )
  end

  shared_test "is an entry for each id, also of what has none", store do
    nothing = %{finished: %{}, complete?: true, last: nil}
    assert activity(store, 1, [], 0) == {:ok, %{}}
    ids = ["wh_1", "wh_none" | odd_bytes()]
    assert activity(store, 1, ids, 0) == {:ok, Map.new(ids, &{&1, nothing})}
    assert waiting(store, []) == {:ok, %{}}
    assert waiting(store, ids) == {:ok, Map.new(ids, &{&1, %{count: 0, more?: false}})}
  end

  shared_test "counts each webhook's by the hour in which they finished", store do
    for {state, hours} <- [delivered: [0, 0, 0, 5], failed: [0, 23], cancelled: [5]],
        hour <- hours,
        do: ended!(store, state, @since_ms + hour * @hour_ms)

    # The last moment of an hour, and the first of the next.
    ended!(store, :failed, @since_ms + 8 * @hour_ms - 1)
    ended!(store, :failed, @since_ms + 8 * @hour_ms)
    # Before the window; of another webhook; waiting.
    for state <- @states, do: ended!(store, state, @since_ms - 1)
    ended!(store, :failed, @since_ms, webhook_id: "wh_2")
    for state <- [:pending, :parked], do: accept!(store, state: state, created_at_ms: @since_ms)

    expected =
      for {hour, state, count} <- [
            {0, :delivered, 3},
            {5, :delivered, 1},
            {0, :failed, 1},
            {7, :failed, 1},
            {8, :failed, 1},
            {23, :failed, 1},
            {5, :cancelled, 1}
          ],
          into: %{},
          do: {{@since_ms + hour * @hour_ms, state}, count}

    assert {:ok, figures} = activity(store, 1, ["wh_1", "wh_2", "wh_3"], @since_ms)
    assert %{finished: ^expected, complete?: true} = figures["wh_1"]
    assert figures["wh_2"].finished == %{{@since_ms, :failed} => 1}
    assert figures["wh_3"] == %{finished: %{}, complete?: true, last: nil}
  end

  shared_test "counts by the end, however long ago it was created", store do
    ages = [0, 1, @hour_ms - 1, @hour_ms, @hour_ms + 1, @hour_ms + 2, @day_ms, 29 * @day_ms]

    for {age, i} <- Enum.with_index(ages), at_ms = @since_ms + i * @hour_ms do
      ended!(store, :delivered, at_ms, created_at_ms: at_ms - age)
      # A clock that was slow, or fast, at the end.
      ended!(store, :delivered, @since_ms - 1, created_at_ms: @since_ms - 1 - age)
      ended!(store, :delivered, at_ms, created_at_ms: at_ms + age)
      # Created before the window, ended in its first moment.
      ended!(store, :failed, @since_ms, created_at_ms: @since_ms - age)
    end

    expected =
      for {_age, i} <- Enum.with_index(ages),
          into: %{},
          do: {{@since_ms + i * @hour_ms, :delivered}, 2}

    expected = Map.put(expected, {@since_ms, :failed}, length(ages))

    assert {:ok, %{"wh_1" => %{finished: ^expected, complete?: true}}} =
             activity(store, 1, ["wh_1"], @since_ms)
  end

  shared_test "follows what becomes of them", store do
    since_ms = div(now_ms(store), @hour_ms) * @hour_ms - 23 * @hour_ms
    long_ago_ms = since_ms - 5 * @day_ms
    old = ended!(store, :failed, long_ago_ms)
    new = accept!(store, created_at_ms: now_ms(store))
    parked = accept!(store, created_at_ms: now_ms(store), state: :parked, next_at_ms: 1)
    assert totals(store, since_ms) == %{}
    held = accept!(store, created_at_ms: now_ms(store), state: :held)
    assert waiting(store, ["wh_1"]) == {:ok, %{"wh_1" => %{count: 3, more?: false}}}
    [_] = redeliver!(store, "b", [held.id], [:held])
    :ok = record(store, [an_attempt(held)])
    assert totals(store, since_ms) == %{delivered: 1}
    :ok = record(store, [an_attempt(new)])
    assert totals(store, since_ms) == %{delivered: 2}
    [_] = redeliver!(store, "b", [old.id])
    assert waiting(store, ["wh_1"]) == {:ok, %{"wh_1" => %{count: 2, more?: false}}}
    :ok = record(store, [an_attempt(old, number: 2)])
    assert totals(store, since_ms) == %{delivered: 3}
    [_] = redeliver!(store, "b", [parked.id])
    :ok = record(store, [failed(parked, 1)])
    assert totals(store, since_ms) == %{delivered: 3, failed: 1}
    # Sent again, it has not finished any more.
    [_] = redeliver!(store, "b", [parked.id])
    assert totals(store, since_ms) == %{delivered: 3}
    assert cancel_waiting(store, "wh_1", "x") == {:ok, 1}
    assert totals(store, since_ms) == %{delivered: 3, cancelled: 1}
    assert waiting(store, ["wh_1"]) == {:ok, %{"wh_1" => %{count: 0, more?: false}}}
  end

  defp totals(store, since_ms) do
    {:ok, %{"wh_1" => %{finished: finished, complete?: true}}} =
      activity(store, 1, ["wh_1"], since_ms)

    for {{_hour_ms, state}, count} <- finished, reduce: %{} do
      totals -> Map.update(totals, state, count, &(&1 + count))
    end
  end

  shared_test "names the newest of each, whatever became of it", store do
    for {state, i} <- Enum.with_index([:pending, :parked | @states]) do
      webhook_id = "wh_#{i}"
      accept!(store, webhook_id: webhook_id, created_at_ms: 5)
      newest = accept!(store, webhook_id: webhook_id, created_at_ms: 9, state: state)
      accept!(store, webhook_id: webhook_id, created_at_ms: 7)
      accept!(store, webhook_id: webhook_id, created_at_ms: 99, site_id: 2)
      stored = %{get!(store, newest) | body: nil}
      assert {:ok, %{^webhook_id => %{last: ^stored}}} = activity(store, 1, [webhook_id], 0)
    end

    ids = for i <- 0..4, do: "wh_#{i}"
    {:ok, figures} = activity(store, 1, ids, 0)
    assert for(id <- ids, do: figures[id].last.webhook_id) == ids
    # Of the same moment the one that came last.
    [_first, second] = for _ <- 1..2, do: accept!(store, webhook_id: "wh_9", created_at_ms: 5)
    {:ok, %{"wh_9" => %{last: last}}} = activity(store, 1, ["wh_9"], 0)
    assert last.id == second.id
  end

  shared_test "many of several webhooks are all counted, and the rare among them", store do
    many =
      for i <- 1..12_000 do
        state = Enum.at(@states, rem(i, 3))
        at_ms = @since_ms + rem(i, 24) * @hour_ms + i

        a_delivery(
          webhook_id: "wh_#{rem(i, 2)}",
          state: state,
          created_at_ms: at_ms,
          finished_at_ms: at_ms,
          owner: nil,
          body: ""
        )
      end

    rare = a_delivery(webhook_id: "wh_rare", created_at_ms: @since_ms, state: :parked)
    for batch <- Enum.chunk_every([rare | many], 1_000), do: :ok = accept(store, batch)
    {:ok, figures} = activity(store, 1, ["wh_0", "wh_1", "wh_rare"], @since_ms)

    for webhook_id <- ["wh_0", "wh_1"] do
      expected =
        many
        |> Enum.filter(&(&1.webhook_id == webhook_id))
        |> Enum.frequencies_by(&{div(&1.finished_at_ms, @hour_ms) * @hour_ms, &1.state})

      assert figures[webhook_id].finished == expected
      assert figures[webhook_id].complete?
    end

    assert figures["wh_rare"].last.id == rare.id
  end

  shared_test "an hour of more than is counted had so many at least, and hides no other", store do
    flood =
      for i <- 1..11_000 do
        at_ms = @since_ms + 7 * @hour_ms + i
        fields = [created_at_ms: at_ms, finished_at_ms: at_ms, owner: nil, body: ""]
        a_delivery([state: Enum.at(@states, rem(i, 3))] ++ fields)
      end

    for batch <- Enum.chunk_every(flood, 1_000), do: :ok = accept(store, batch)
    for hour <- [6, 8], do: ended!(store, :failed, @since_ms + hour * @hour_ms)
    ended!(store, :delivered, @since_ms + 9 * @hour_ms, created_at_ms: 1)
    ended!(store, :failed, @since_ms + 3 * @hour_ms, webhook_id: "wh_2")
    {:ok, figures} = activity(store, 1, ["wh_1", "wh_2"], @since_ms)
    {flooded, others} = Enum.split_with(figures["wh_1"].finished, &in_hour?(&1, 7))

    assert Map.new(others) ==
             for(
               {hour, state} <- [{6, :failed}, {8, :failed}, {9, :delivered}],
               into: %{},
               do: {{@since_ms + hour * @hour_ms, state}, 1}
             )

    counted = Enum.sum(for {_hour, count} <- flooded, do: count)
    assert counted in 10_000..11_000
    assert figures["wh_1"].complete? == (counted == 11_000)
    assert figures["wh_2"].finished == %{{@since_ms + 3 * @hour_ms, :failed} => 1}
  end

  defp in_hour?({{hour_ms, _state}, _count}, hour), do: hour_ms == @since_ms + hour * @hour_ms

  shared_test "what waits is counted up to ten thousand", store do
    for n <- [9_999, 1, 1] do
      deliveries = for i <- 1..n, do: a_delivery(state: Enum.at([:pending, :parked], rem(i, 2)))
      for batch <- Enum.chunk_every(deliveries, 1_000), do: :ok = accept(store, batch)
      {:ok, %{"wh_1" => counted}} = waiting(store, ["wh_1", "wh_2"])
      {:ok, %{pending: pending, parked: parked}} = counts(store)
      assert counted == %{count: min(pending + parked, 10_000), more?: pending + parked > 10_000}
    end
  end

  shared_test "numbers that no store holds break nothing", store do
    accept!(store)
    huge = Integer.pow(2, 80)

    for site_id <- [huge, -huge] do
      case activity(store, site_id, ["wh_1"], 0) do
        {:ok, %{"wh_1" => %{last: last}}} -> assert last == nil
        {:error, _reason} -> :ok
      end
    end

    for extreme <- [-9_223_372_036_854_775_808, 9_223_372_036_854_775_807] do
      accept!(store, state: :failed, finished_at_ms: extreme, created_at_ms: -extreme - 1)
      assert {:ok, %{"wh_1" => _}} = activity(store, 1, ["wh_1"], @since_ms)
    end
  end
end
