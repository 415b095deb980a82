defmodule Plausible.Webhooks.StoreEctoLogTest do
  # What is looked up, and how much is read for it, in a log that is long.
  use Plausible.Webhooks.Test.StoreCase, async: true

  # Deliveries as if they had arrived and been delivered long ago.
  defp fill!(store, count) do
    sql!(
      store,
      """
      INSERT INTO PREFIX.webhook_deliveries (id, webhook_id, site_id, type, goal_id, state,
        attempts, schedule_from, created_at_ms, finished_at_ms, last_status, manual, retry)
      SELECT 'msg_' || i, 'wh_1', 1, 'goal.completed', CASE WHEN i <= 2 THEN 1 ELSE 0 END, 2,
        1, 0, i, i, 200, false, true
      FROM generate_series(1, $1::bigint) AS i
      """,
      [count]
    )
  end

  defp turn(store, filters, page, pages) do
    case Store.deliveries(store, 1, filters, page) do
      {:ok, %{entries: entries, next: nil}} ->
        {pages + 1, entries}

      {:ok, %{entries: entries, next: next}} ->
        {pages, rest} = turn(store, filters, %{after: next}, pages + 1)
        {pages, entries ++ rest}
    end
  end

  describe "a long log" do
    setup do
      store = open!()
      # Three times what one call looks at.
      fill!(store, 250_000)
      sql!(store, "ANALYZE PREFIX.webhook_deliveries")
      %{store: store}
    end

    test "is searched so far and no further, and from there on the next time", %{store: store} do
      for filters <- [%{goal_id: 1}, %{goal_id: 1, webhook_id: "wh_1"}] do
        {read, page} = read_by(store, fn -> Store.deliveries(store, 1, filters, %{}) end)
        assert {:ok, %{entries: [], next: next}} = page
        assert is_binary(next)
        assert read in 1..100_000
        {pages, entries} = turn(store, filters, %{}, 0)
        assert pages >= 3
        assert Enum.map(entries, & &1.id) == ["msg_2", "msg_1"]
      end

      # Not of this site, whatever the webhook is.
      assert {:ok, %{entries: []}} = Store.deliveries(store, 2, %{webhook_id: "wh_1"}, %{})
    end

    test "gives at once what is not rare, and what an index knows", %{store: store} do
      alerts =
        for i <- [3, 5, 7], do: a_delivery(created_at_ms: i, type: "traffic.spike", goal_id: nil)

      failed = for i <- [4, 6], do: a_delivery(created_at_ms: i, state: :failed, attempts: 1)
      :ok = Store.accept(store, alerts ++ failed)
      sql!(store, "ANALYZE PREFIX.webhook_deliveries")

      for {filters, found} <- [
            {%{types: ["traffic.spike"]}, alerts},
            {%{types: ["traffic.spike", "traffic.drop"], webhook_id: "wh_1"}, alerts},
            {%{types: ["traffic.drop"]}, []},
            {%{states: [:failed, :cancelled]}, failed},
            {%{states: [:failed], webhook_id: "wh_1"}, failed},
            {%{status_class: :none}, failed},
            {%{webhook_id: "wh_2"}, []},
            {%{since_ms: 4, until_ms: 5}, [hd(failed), a_delivery(id: "msg_4")]}
          ] do
        {read, {pages, entries}} = read_by(store, fn -> turn(store, filters, %{}, 0) end)
        assert {pages, Enum.sort(ids(entries))} == {1, Enum.sort(ids(found))}, inspect(filters)
        assert read < 20, "#{read} rows read for #{inspect(filters)}"
      end

      for filters <- [%{}, %{goal_id: 0}, %{webhook_id: "wh_1"}, %{states: [:delivered]}] do
        {read, {:ok, page}} = read_by(store, fn -> Store.deliveries(store, 1, filters, %{}) end)
        assert length(page.entries) == 50 and is_binary(page.next)
        assert read < 100, "#{read} rows read for #{inspect(filters)}"
      end
    end

    test "tells what of it can be recovered, however much else there is", %{store: store} do
      :ok = Store.insert_webhook(store, a_webhook(id: "wh_1", site_id: 1))
      failed = fn fields -> a_delivery([state: :failed, finished_at_ms: 1] ++ fields) end
      mine = for i <- 1..2_500, do: failed.(created_at_ms: div(i, 3))
      others = for i <- 1..3_000, do: failed.(created_at_ms: i, webhook_id: "wh_2")
      for some <- [mine, others], do: :ok = Store.accept(store, some)
      sql!(store, "ANALYZE PREFIX.webhook_deliveries")

      for {limit, since_ms} <- [{5, 0}, {1_000, 0}, {2_499, 0}, {10_001, 0}, {9, 800}] do
        {read, {:ok, ids}} =
          read_by(store, fn -> Store.recoverable(store, "wh_1", since_ms, limit) end)

        expected = for delivery <- mine, delivery.created_at_ms >= since_ms, do: delivery
        assert length(ids) == min(limit, length(expected))
        assert Enum.uniq(ids) -- ids(expected) == []
        times = for id <- ids, do: Enum.find(mine, &(&1.id == id)).created_at_ms
        assert times == expected |> Enum.map(& &1.created_at_ms) |> Enum.take(limit)
        # Nothing but what is open: one in fifty here.
        assert read < 6_000, "#{read} rows read for #{limit}"
      end

      # Nothing of a webhook that is gone, as long as its log is still there.
      assert Store.recoverable(store, "wh_2", 0, 10) == {:ok, []}
    end
  end
end
