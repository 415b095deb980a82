defmodule Plausible.Webhooks.StoreEctoLogTest do
  # What is looked up, and how much is read for it, in a log that is long.
  use Plausible.Webhooks.Test.StoreCase, async: true

  # Deliveries as if they had arrived and been delivered long ago.
  defp fill!(store, count, webhooks \\ 1) do
    sql!(
      store,
      """
      INSERT INTO PREFIX.webhook_deliveries (id, webhook_id, site_id, type, goal_id, state,
        attempts, schedule_from, created_at_ms, finished_at_ms, last_status, manual, retry)
      SELECT 'msg_' || i, 'wh_' || 1 + i % $2, 1, 'goal.completed', CASE WHEN i <= 2 THEN 1 ELSE 0 END, 2,
        1, 0, i, i, 200, false, true
      FROM generate_series(1, $1::bigint) AS i
      """,
      [count, webhooks]
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

  describe "what became of deliveries lately" do
    setup do
      store = open!()
      # All in one hour of long ago; so in turn that an index of one webhook leads all
      # over the table.
      fill!(store, 150_000, 3)
      quiet = a_delivery(created_at_ms: 0, webhook_id: "wh_quiet", state: :failed)
      :ok = Store.accept(store, [quiet])
      sql!(store, "ANALYZE PREFIX.webhook_deliveries")
      %{store: store, quiet: quiet}
    end

    test "is told without reading it all", %{store: store, quiet: quiet} do
      for {ids, since_ms, of, most} <- [
            {["wh_1"], 0, 10_000, 12_000},
            {["wh_1", "wh_2", "wh_3"], 0, 3_333, 13_000},
            {["wh_1"], 2 * 3_600_000, 0, 200},
            {["wh_quiet"], 2 * 3_600_000, 1, 200}
          ] do
        {read, {:ok, figures}} = read_by(store, fn -> Store.activity(store, 1, ids, since_ms) end)
        assert read < most, "#{read} rows read of #{inspect(ids)} since #{since_ms}"

        for id <- ids do
          assert Enum.sum(Map.values(figures[id].finished)) == of
          assert figures[id].complete? == of in [0, 1]
          assert figures[id].last.webhook_id == id
        end
      end

      assert {:ok, %{"wh_quiet" => %{last: last}}} = Store.activity(store, 1, ["wh_quiet"], 0)
      assert last.id == quiet.id
    end

    test "and so is what waits; what has ended is not", %{store: store} do
      sql!(store, "UPDATE PREFIX.webhook_deliveries SET last_status = 500, state = 3")
      sql!(store, "ANALYZE PREFIX.webhook_deliveries")

      {read, {:ok, waiting}} =
        read_by(store, fn -> Store.waiting(store, ["wh_1", "wh_quiet"]) end)

      # As many as are looked at: there may be more.
      assert waiting == %{
               "wh_1" => %{count: 0, more?: true},
               "wh_quiet" => %{count: 0, more?: false}
             }

      assert read < 110_000
    end

    test "and the host's transaction keeps its settings", %{store: store} do
      settings = ["enable_bitmapscan", "enable_seqscan", "enable_sort"]
      show = fn -> for setting <- settings, do: hd(hd(sql!(store, "SHOW #{setting}"))) end

      Repo.transaction(fn ->
        for values <- [["on", "off", "on"], ["off", "on", "off"]] do
          for {name, value} <- Enum.zip(settings, values),
              do: sql!(store, "SET LOCAL #{name} = #{value}")

          {:ok, _} = Store.waiting(store, ["wh_1"])
          {:ok, _} = Store.activity(store, 1, ["wh_1"], 0)
          assert show.() == values
        end
      end)

      assert show.() == ["on", "on", "on"]
    end
  end
end
