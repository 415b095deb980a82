defmodule Plausible.Webhooks.StoreEctoClockTest do
  # Nodes whose clocks are wrong by hours, ahead and behind, beside one that is right.
  use Plausible.Webhooks.Test.StoreCase, async: true

  @hour 3_600_000
  @skews [-72 * @hour, -3 * @hour, 3 * @hour, 72 * @hour]
  # What may pass between two looks at a clock.
  # Far below the smallest skew.
  @slack 60_000

  setup do
    %{right: open!()}
  end

  defp wrong(store, skew_ms),
    do: %{store | clock: fn -> System.system_time(:millisecond) + skew_ms end}

  # A node's actions use the node's own time.
  defp now(store), do: store.clock.()

  defp assert_close(ms, expected_ms), do: assert_in_delta(ms, expected_ms, @slack)

  test "what a wrong node accepts is created and due when it is", %{right: right} do
    for skew <- @skews do
      node = wrong(right, skew)
      fresh = a_delivery(created_at_ms: now(node), next_at_ms: now(node) + 60_000)

      ended =
        a_delivery(created_at_ms: now(node), state: :cancelled, finished_at_ms: now(node) - 5_000)

      :ok = Store.accept(node, [fresh, ended])

      assert {:ok, stored} = Store.get_delivery(right, fresh.id)
      assert_close(stored.created_at_ms, now(right))
      assert_close(stored.next_at_ms, now(right) + 60_000)
      assert {:ok, stored} = Store.get_delivery(right, ended.id)
      assert_close(stored.finished_at_ms, now(right) - 5_000)
    end
  end

  test "a retry comes when it is due, whoever parked it and whoever asks", %{right: right} do
    for skew <- @skews,
        {parks, claims} <- [{wrong(right, skew), right}, {right, wrong(right, skew)}] do
      [due, later] = for _ <- 1..2, do: a_delivery(created_at_ms: now(parks))
      :ok = Store.accept(parks, [due, later])

      :ok =
        Store.record(parks, [
          failed(due, 1, state: :parked, next_at_ms: now(parks) - 10, started_at_ms: now(parks)),
          failed(later, 1, state: :parked, next_at_ms: now(parks) + 60_000)
        ])

      assert {:ok, [claimed]} = Store.claim(claims, "b", 10)
      assert claimed.id == due.id
      # By the clock of who has it now.
      assert_close(claimed.next_at_ms, now(claims))
      assert {:ok, [attempt]} = Store.attempts(claims, due.id)
      assert attempt.next_at_ms <= now(right) + @slack

      # Given back, for another time.
      :ok = Store.release(claims, "b", [due.id], now(claims) - 1)
      assert {:ok, [%{id: id}]} = Store.claim(parks, "c", 10)
      assert id == due.id
      {:ok, _} = Store.cancel_waiting(right, due.webhook_id, "over")
    end
  end

  test "what waits in an engine keeps its time when another node takes it", %{right: right} do
    for skew <- @skews do
      node = wrong(right, skew)
      delivery = a_delivery(owner: "dead", created_at_ms: now(node))
      :ok = Store.accept(node, [delivery])

      :ok =
        Store.record(node, [failed(delivery, 1, state: :pending, next_at_ms: now(node) + 30_000)])

      assert {:ok, [claimed]} = Store.claim(right, "b", 10)
      assert_close(claimed.next_at_ms, now(right) + 30_000)
      end_lease!(right, "b")
      opposite = wrong(right, -skew)
      assert {:ok, [claimed]} = Store.claim(opposite, "c", 10)
      assert_close(claimed.next_at_ms, now(opposite) + 30_000)

      assert {:ok, %{taken: [again]}} =
               Store.redeliver(opposite, "c", [delivery.id], [
                 :parked,
                 :pending,
                 :failed,
                 :cancelled
               ])

      assert again.next_at_ms == nil

      :ok =
        Store.record(opposite, [an_attempt(delivery, number: 2, started_at_ms: now(opposite))])

      assert {:ok, ended} = Store.get_delivery(right, delivery.id)
      assert_close(ended.finished_at_ms, now(right))
      assert {:ok, attempts} = Store.attempts(right, delivery.id)
      assert_close(List.last(attempts).started_at_ms, now(right))
    end
  end

  test "what is kept is not pruned by a clock that is ahead", %{right: right} do
    delivery = a_delivery(created_at_ms: now(right))
    :ok = Store.accept(right, [delivery])
    :ok = Store.record(right, [an_attempt(delivery)])
    ahead = wrong(right, 1_000 * @hour)
    assert Store.prune(ahead, now(ahead) - 100 * @hour, 10) == {:ok, 0}
    behind = wrong(right, -1_000 * @hour)
    assert Store.prune(behind, now(behind) + 2_000, 10) == {:ok, 1}
  end

  test "a webhook has failed, and an alert was sent, that long ago for everybody", %{right: right} do
    for skew <- @skews do
      node = wrong(right, skew)
      webhook = a_webhook(inserted_at_ms: now(node), updated_at_ms: now(node))
      :ok = Store.insert_webhook(node, webhook)
      :ok = Store.put_health(node, webhook.id, %{failing_since_ms: now(node) - 60_000})

      assert {:ok, seen} = Store.get_webhook(right, webhook.id)
      assert_close(seen.failing_since_ms, now(right) - 60_000)
      assert_close(seen.inserted_at_ms, now(right))
      opposite = wrong(right, -skew)
      assert {:ok, seen} = Store.get_webhook(opposite, webhook.id)
      assert_close(seen.failing_since_ms, now(opposite) - 60_000)

      # Read, changed and written anew by one after the other, it does not wander.
      for store <- [node, opposite, right, opposite, node] do
        {:ok, webhook} = Store.get_webhook(store, webhook.id)
        {:ok, stored} = Store.update_webhook(store, %{webhook | disabled_at_ms: now(store)})
        assert_close(stored.failing_since_ms, now(store) - 60_000)
        assert_close(stored.inserted_at_ms, now(store))
      end

      assert {:ok, [seen]} = Store.list_webhooks(right, webhook.site_id)
      assert_close(seen.failing_since_ms, now(right) - 60_000)
      assert_close(seen.disabled_at_ms, now(right))
      assert_close(seen.inserted_at_ms, now(right))

      :ok =
        Store.put_alert_state(
          node,
          an_alert(
            webhook_id: webhook.id,
            state: :firing,
            alert_id: "alr_1",
            changed_at_ms: now(node) - 1_000,
            notified_at_ms: now(node)
          )
        )

      assert {:ok, [state]} = Store.alert_states(opposite, [webhook.id])
      assert_close(state.changed_at_ms, now(opposite) - 1_000)
      assert_close(state.notified_at_ms, now(opposite))
      :ok = Store.delete_webhook(right, webhook.site_id, webhook.id)
    end
  end

  test "a clock that is set back while its node works changes nothing", %{right: right} do
    clock = :counters.new(1, [])
    node = %{right | clock: fn -> System.system_time(:millisecond) + :counters.get(clock, 1) end}
    :ok = Store.heartbeat(node, "a", 60_000)
    [first, second] = for _ <- 1..2, do: a_delivery(created_at_ms: now(node))
    :ok = Store.accept(node, [first])
    :counters.put(clock, 1, -5 * @hour)
    :ok = Store.accept(node, [%{second | created_at_ms: now(node)}])
    assert Store.claim(right, "b", 10) == {:ok, []}
    :ok = Store.record(node, [failed(first, 1, state: :parked, next_at_ms: now(node) - 1)])
    assert {:ok, [_]} = Store.claim(right, "b", 10)
    assert {:ok, %{entries: entries}} = Store.deliveries(right, 1, %{}, %{})
    for entry <- entries, do: assert_close(entry.created_at_ms, now(right))
    assert_close(Store.now_ms(node), now(right))
  end

  test "a difference of seconds is left alone, to the millisecond", %{right: right} do
    for skew <- [-4_000, -1, 0, 1, 4_000] do
      node = wrong(right, skew)
      delivery = a_delivery(created_at_ms: 123, next_at_ms: 456)
      :ok = Store.accept(node, [delivery])
      assert Store.get_delivery(node, delivery.id) == {:ok, delivery}
    end
  end

  test "times far from any calendar stay what they are", %{right: right} do
    for skew <- @skews, ms <- [-9_223_372_036_854_775_808, 9_223_372_036_854_775_807] do
      delivery = a_delivery(created_at_ms: ms, next_at_ms: ms)
      :ok = Store.accept(wrong(right, skew), [delivery])
      assert Store.get_delivery(right, delivery.id) == {:ok, delivery}
    end
  end
end
