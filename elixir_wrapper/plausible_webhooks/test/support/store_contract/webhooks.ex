defmodule Plausible.Webhooks.StoreContract.Webhooks do
  @moduledoc false
  use Plausible.Webhooks.StoreContract.Promise, about: "webhooks"

  shared_test "come back as they went in, whatever is in them", store do
    most = 9_223_372_036_854_775_807

    for {fields, index} <-
          Enum.with_index([
            [],
            [goals: :all, events: [], headers: [], secrets: [], spike_threshold: nil, name: ""],
            [goals: []],
            [goals: Enum.to_list(1..1_000) ++ [most]],
            [spike_threshold: 1, drop_threshold: 1_000_000_000, traffic_min_interval_s: 604_800],
            [enabled: false, disabled_reason: :gone, disabled_at_ms: 5, failing_since_ms: 0],
            [disabled_reason: :failing, disabled_at_ms: most, version: 12],
            [disabled_reason: :costly, disabled_at_ms: 5],
            [name: ~s(a "b" 'c' ä 🦊), url: "https://xn--bcher-kva.example/%F0?q=%00&x='"],
            [headers: for(i <- 1..20, do: {"x-#{i}", String.duplicate("v", 600)})],
            [
              secrets:
                for(i <- 1..10, do: %{key: "whsec_#{i}", created_at_ms: i, expires_at_ms: i})
            ],
            [site_id: 0],
            [site_id: most]
          ]) do
      webhook = insert!(store, [id: "wh_#{index}"] ++ fields)
      assert get_webhook(store, webhook.id) == {:ok, webhook}
      assert {:ok, listed} = list_webhooks(store, webhook.site_id)
      assert webhook in listed
    end

    assert {:ok, all} = all_webhooks(store)
    assert length(all) == 13
  end

  shared_test "an id is taken once", store do
    webhook = insert!(store)
    assert insert_webhook(store, %{webhook | name: "other"}) == {:error, :already_exists}
    assert insert_webhook(store, %{webhook | site_id: 2}) == {:error, :already_exists}
    assert all_webhooks(store) == {:ok, [webhook]}
  end

  shared_test "are listed by site, oldest first", store do
    # Neither in the order of their ids nor of their arrival.
    third = insert!(store, id: "wh_a", inserted_at_ms: 30)
    first = insert!(store, id: "wh_c", inserted_at_ms: 10)
    second = insert!(store, id: "wh_b", inserted_at_ms: 20)
    other = insert!(store, id: "wh_d", site_id: 2)

    assert list_webhooks(store, 1) == {:ok, [first, second, third]}
    assert list_webhooks(store, 2) == {:ok, [other]}
    assert list_webhooks(store, 3) == {:ok, []}
    assert {:ok, all} = all_webhooks(store)
    assert Enum.sort(ids(all)) == ["wh_a", "wh_b", "wh_c", "wh_d"]
  end

  shared_test "a site has as many as it may, also when they come all at once", store do
    limit = webhooks_max(store)
    results = at_once(for _ <- 1..(2 * limit), do: fn -> insert_webhook(store, a_webhook()) end)
    assert Enum.frequencies(results) == %{:ok => limit, {:error, :limit_reached} => limit}
    assert {:ok, webhooks} = list_webhooks(store, 1)
    assert length(webhooks) == limit

    # Another site is not concerned, and there is room again after a deletion.
    insert!(store, site_id: 2)
    assert insert_webhook(store, a_webhook()) == {:error, :limit_reached}
    :ok = delete_webhook(store, 1, hd(webhooks).id)
    insert!(store)
  end

  shared_test "update replaces everything but site and birth, and counts the version", store do
    webhook = insert!(store, version: 3)
    other = insert!(store)

    changed = %{
      webhook
      | name: "New",
        url: "https://other.example.com/",
        enabled: false,
        events: ["traffic.drop"],
        goals: :all,
        spike_threshold: nil,
        drop_threshold: :notifier,
        traffic_min_interval_s: 60,
        headers: [{"a", "b"}],
        secrets: [%{key: "whsec_2", created_at_ms: 8, expires_at_ms: 9}],
        disabled_reason: :failing,
        disabled_at_ms: 10,
        failing_since_ms: 9,
        updated_at_ms: 11
    }

    assert update_webhook(store, %{changed | inserted_at_ms: 1}) == {:ok, %{changed | version: 4}}
    assert get_webhook(store, webhook.id) == {:ok, %{changed | version: 4}}

    # And back: a value can become nil again.
    assert update_webhook(store, %{webhook | version: 4}) == {:ok, %{webhook | version: 5}}
    assert get_webhook(store, webhook.id) == {:ok, %{webhook | version: 5}}
    assert get_webhook(store, other.id) == {:ok, other}
  end

  shared_test "an update of another version than the stored one changes nothing", store do
    webhook = insert!(store)
    {:ok, second} = update_webhook(store, %{webhook | name: "second"})
    assert update_webhook(store, %{webhook | name: "late"}) == {:error, :stale}
    assert update_webhook(store, %{second | version: 99}) == {:error, :stale}
    assert get_webhook(store, webhook.id) == {:ok, second}
  end

  shared_test "of updates at the same moment one wins", store do
    webhook = insert!(store)

    results =
      at_once(for i <- 1..10, do: fn -> update_webhook(store, %{webhook | name: "#{i}"}) end)

    assert [{:ok, winner}] = Enum.filter(results, &match?({:ok, _}, &1))
    assert Enum.count(results, &(&1 == {:error, :stale})) == 9
    assert get_webhook(store, webhook.id) == {:ok, winner}
  end

  shared_test "what is gone or another site's is not found", store do
    webhook = insert!(store)
    assert update_webhook(store, %{webhook | site_id: 2}) == {:error, :not_found}
    assert update_webhook(store, a_webhook()) == {:error, :not_found}
    assert delete_webhook(store, 2, webhook.id) == {:error, :not_found}
    assert delete_webhook(store, 1, "wh_none") == {:error, :not_found}
    assert get_webhook(store, "wh_none") == {:error, :not_found}
    assert put_health(store, "wh_none", %{failing_since_ms: 1}) == {:error, :not_found}
    assert put_health(store, "wh_none", %{}) == {:error, :not_found}
    assert get_webhook(store, webhook.id) == {:ok, webhook}

    assert delete_webhook(store, 1, webhook.id) == :ok
    assert delete_webhook(store, 1, webhook.id) == {:error, :not_found}
    assert get_webhook(store, webhook.id) == {:error, :not_found}
    assert update_webhook(store, webhook) == {:error, :not_found}
    for odd <- odd_bytes(), do: assert(get_webhook(store, odd) == {:error, :not_found})
  end

  shared_test "health is merged beside the version", store do
    webhook = insert!(store, version: 3)
    assert put_health(store, webhook.id, %{failing_since_ms: 77}) == :ok
    assert get_webhook(store, webhook.id) == {:ok, %{webhook | failing_since_ms: 77}}
    assert put_health(store, webhook.id, %{}) == :ok
    assert get_webhook(store, webhook.id) == {:ok, %{webhook | failing_since_ms: 77}}
    assert put_health(store, webhook.id, %{failing_since_ms: nil}) == :ok
    assert get_webhook(store, webhook.id) == {:ok, webhook}
  end

  shared_test "with a webhook its log and alert states go, and nobody else's", store do
    mine = insert!(store, id: "wh_mine")
    other = insert!(store, id: "wh_other")

    # Many, and mixed with the other's: deletion works in slices.
    deliveries =
      for i <- 1..2_500 do
        webhook = if rem(i, 5) == 0, do: other, else: mine
        state = Enum.at([:pending, :parked, :delivered, :failed, :cancelled], rem(i, 7) - 2)
        a_delivery(webhook_id: webhook.id, state: state, created_at_ms: 1_000 + div(i, 3))
      end

    elsewhere = a_delivery(webhook_id: mine.id, site_id: 2)
    :ok = accept(store, [elsewhere | deliveries])
    [first | _] = deliveries
    last_of_other = List.last(deliveries)
    :ok = record(store, [an_attempt(first), an_attempt(last_of_other)])

    for webhook <- [mine, other],
        do: :ok = put_alert_state(store, an_alert(webhook_id: webhook.id))

    assert delete_webhook(store, 1, mine.id) == :ok

    assert {:ok, [%{webhook_id: "wh_other"}]} = alert_states(store, [mine.id, other.id])
    assert get_delivery(store, first.id) == {:error, :not_found}
    assert attempts(store, first.id) == {:ok, []}
    assert {:ok, [_]} = attempts(store, last_of_other.id)
    assert {:ok, %{entries: []}} = deliveries(store, 1, %{webhook_id: mine.id}, %{})
    assert {:ok, %{} = counts} = counts(store)
    assert counts |> Map.delete(:oldest_due_ms) |> Map.values() |> Enum.sum() == 501
    assert get!(store, elsewhere).body == elsewhere.body

    # Late deliveries and attempts for it are no errors.
    late = accept!(store, webhook_id: mine.id)
    assert record(store, [an_attempt(first), an_attempt(late)]) == :ok
    assert state(store, late) == :delivered
    assert attempts(store, first.id) == {:ok, []}
  end

  shared_test "alert states are put, replaced and listed", store do
    webhook = insert!(store)
    other = insert!(store)

    spike = an_alert(webhook_id: webhook.id)

    drop = %{spike | kind: :drop, state: :firing, alert_id: "alr_1", notified_at_ms: 2}
    assert alert_states(store, [webhook.id]) == {:ok, []}
    assert alert_states(store, []) == {:ok, []}

    for state <- [spike, drop, %{spike | webhook_id: other.id}] do
      assert put_alert_state(store, state) == :ok
    end

    assert {:ok, states} = alert_states(store, [webhook.id, "wh_none", webhook.id])
    assert Enum.sort_by(states, & &1.kind) == [drop, spike]

    fired = %{
      spike
      | state: :firing,
        alert_id: "alr_2",
        visitors: nil,
        threshold: nil,
        changed_at_ms: 3,
        notified_at_ms: 4,
        seen_at_ms: 5,
        calm_since_ms: 6
    }

    assert put_alert_state(store, fired) == :ok
    assert {:ok, states} = alert_states(store, [webhook.id])
    assert Enum.sort_by(states, & &1.kind) == [drop, fired]

    # Back to what it was: nil again.
    assert put_alert_state(store, spike) == :ok

    assert {:ok, states} = alert_states(store, [webhook.id])
    assert spike in states

    assert put_alert_state(store, %{spike | webhook_id: "wh_none"}) == {:error, :not_found}
    assert alert_states(store, ["wh_none"]) == {:ok, []}
    many = Enum.map(1..2_000, &"wh_#{&1}")
    assert {:ok, [_]} = alert_states(store, many ++ [other.id])
  end

  # --- audit and keys

  shared_test "the audit of a webhook lists its newest entries first", store do
    entry = fn at_ms, fields ->
      Map.merge(
        %{site_id: 1, webhook_id: "wh_a", actor: "jane", action: "seen", at_ms: at_ms},
        fields
      )
    end

    entries = for n <- 1..5, do: entry.(now_ms(store) + n, %{actor: "actor #{n}"})
    for entry <- Enum.shuffle(entries), do: :ok = add_audit(store, entry)

    for bytes <- odd_bytes(),
        do: :ok = add_audit(store, entry.(9, %{actor: bytes, webhook_id: "wh_b"}))

    :ok = add_audit(store, entry.(9, %{site_id: 2}))
    assert audit(store, 1, "wh_a", 3) == {:ok, entries |> Enum.reverse() |> Enum.take(3)}
    assert {:ok, odd} = audit(store, 1, "wh_b", 100)
    assert Enum.sort(Enum.map(odd, & &1.actor)) == Enum.sort(odd_bytes())
    assert audit(store, 1, "wh_none", 10) == {:ok, []}
  end

  shared_test "audit entries are deleted a year after the log", store do
    year_ms = 365 * 86_400_000
    before_ms = now_ms(store)
    entry = %{site_id: 1, webhook_id: "wh_a", actor: "jane", action: "seen", at_ms: 0}
    kept = %{entry | at_ms: before_ms - year_ms + 60_000}

    for entry <- [kept, %{entry | at_ms: before_ms - year_ms - 60_000}],
        do: :ok = add_audit(store, entry)

    {:ok, _count} = prune(store, before_ms, 10)
    assert audit(store, 1, "wh_a", 10) == {:ok, [kept]}
  end

  shared_test "what the first key has encrypted needs no other", store do
    for _ <- 1..3, do: insert!(store)
    assert rekey(store, 10) == {:ok, %{rewritten: 0, left: 0}}
  end
end
