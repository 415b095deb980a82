defmodule Plausible.Webhooks.StoreContract.Suspects do
  @moduledoc false
  # What may have ended a node. "n1" to "n5" are engines of nodes that end one after the other.
  use Plausible.Webhooks.StoreContract.Promise, about: "suspects"

  # Its lease runs out by itself.
  defp killed!(store, owner) do
    :ok = heartbeat(store, owner, 2)
    Process.sleep(20)
  end

  defp suspect!(store, fields) do
    delivery = accept!(store, Keyword.put(fields, :owner, "n1"))
    killed!(store, "n1")
    {:ok, _claimed} = claim(store, "n2", 100)
    killed!(store, "n2")
    delivery
  end

  shared_test "a first end of a node has no consequences, and a goodbye does not count", store do
    delivery = accept!(store, owner: "n1", next_at_ms: 1)
    killed!(store, "n1")
    assert {:ok, [%{owner: "n2"}]} = claim(store, "n2", 10)
    :ok = heartbeat(store, "n2", 1)
    assert {:ok, [%{owner: "n3"}]} = claim(store, "n3", 10)
    killed!(store, "n3")
    assert claim(store, "n4", 10) == {:ok, []}
    assert %{state: :pending} = get!(store, delivery)
    assert claim_suspect(store, "n4") == {:ok, {%{delivery | owner: "n4"}, 2}}
    # A goodbye of its owner, and it still is a suspect.
    :ok = heartbeat(store, "n4", 1)
    assert claim(store, "n5", 10) == {:ok, []}
    assert {:ok, {%{owner: "n5"}, 2}} = claim_suspect(store, "n5")
  end

  shared_test "what was not due then is no suspect", store do
    far = now_ms(store) + 600_000
    delivery = suspect!(store, next_at_ms: far)
    assert {:ok, [%{next_at_ms: ^far}]} = claim(store, "n3", 10)
    assert claim_suspect(store, "n4") == {:ok, nil}
    assert get!(store, delivery).owner == "n3"
  end

  shared_test "they go one at a time on a node, the least suspected first", store do
    [first, second] = for n <- 1..2, do: accept!(store, owner: "n1", next_at_ms: n)
    suspect!(store, next_at_ms: 3)
    innocent = accept!(store, owner: nil)
    assert {:ok, [%{}]} = claim(store, "n3", 10)
    assert {:ok, {one, 2}} = claim_suspect(store, "n3")
    assert one.id == first.id
    assert claim_suspect(store, "n3") == {:ok, nil}
    # It ends another node, and its turn comes last.
    killed!(store, "n3")
    assert {:ok, [again]} = claim(store, "n4", 10)
    assert again.id == innocent.id
    assert {:ok, {two, 2}} = claim_suspect(store, "n4")
    assert two.id == second.id
    assert {:ok, {_third, 2}} = claim_suspect(store, "n5")
    assert {:ok, {last, 3}} = claim_suspect(store, "n6")
    assert last.id == first.id
    assert claim_suspect(store, "n7") == {:ok, nil}
  end

  shared_test "an attempt on record clears them, and one without a number does not", store do
    delivery = suspect!(store, next_at_ms: 1)
    assert claim(store, "n3", 10) == {:ok, []}
    {:ok, {_delivery, 2}} = claim_suspect(store, "n3")
    parked = failed(delivery, 0, state: :parked, next_at_ms: 1, owner: "n3")
    :ok = record(store, [parked])
    assert {:ok, [_]} = claim(store, "n4", 10)
    killed!(store, "n4")
    assert claim(store, "n5", 10) == {:ok, []}
    assert {:ok, {_delivery, 3}} = claim_suspect(store, "n5")

    :ok = record(store, [failed(delivery, 1, state: :pending, next_at_ms: 2, owner: "n5")])
    killed!(store, "n5")
    assert {:ok, [%{attempts: 1, next_at_ms: 2}]} = claim(store, "n6", 10)
  end

  shared_test "they are cancelled, sent again and counted like others", store do
    [wanted, unwanted] =
      for {id, n} <- [{"wh_a", 7}, {"wh_b", 8}],
          do: accept!(store, owner: "n1", webhook_id: id, next_at_ms: n)

    suspect!(store, webhook_id: "wh_c", next_at_ms: 9)
    assert claim(store, "n3", 10) == {:ok, []}
    assert {:ok, %{pending: 3, oldest_due_ms: 7}} = counts(store)
    assert cancel_waiting(store, "wh_b", "over") == {:ok, 1}
    assert state(store, unwanted) == :cancelled
    assert [%{owner: "n3", manual: true}] = redeliver!(store, "n3", [wanted.id])
  end
end
