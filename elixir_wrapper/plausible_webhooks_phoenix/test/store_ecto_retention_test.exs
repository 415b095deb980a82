defmodule Plausible.Webhooks.StoreEctoRetentionTest do
  # What is deleted, by how much at a time, and that nothing is left behind.
  use Plausible.Webhooks.Test.StoreCase, async: true

  alias Plausible.Webhooks.Store.Ecto.Webhooks

  defp webhook!(store, fields \\ []) do
    webhook = a_webhook(fields)
    :ok = Store.insert_webhook(store, webhook)
    webhook
  end

  # With body and attempt, delivered at `finished_at_ms`.
  defp fill!(store, webhook, count, finished_at_ms \\ 9_000_000_000_000) do
    sql!(
      store,
      """
      WITH delivery AS (
        INSERT INTO PREFIX.webhook_deliveries (id, webhook_id, site_id, type, state, attempts,
          schedule_from, created_at_ms, finished_at_ms, last_status, manual, retry)
        SELECT $1 || '_' || i, $1, $2, 'goal.completed', 2, 1, 0, i, $4, 200, false, true
        FROM generate_series(1, $3::integer) AS i RETURNING seq),
      body AS (INSERT INTO PREFIX.webhook_bodies (seq, body) SELECT seq, '' FROM delivery)
      INSERT INTO PREFIX.webhook_attempts (seq, number, maker, state, started_at_ms, response_headers, response_body,
        response_truncated, gone)
      SELECT seq, 1, 0, 2, 0, '', '', false, false FROM delivery
      """,
      [webhook.id, webhook.site_id, count, finished_at_ms]
    )
  end

  defp rows(store) do
    for table <- ~w(deliveries bodies attempts),
        do: hd(hd(sql!(store, "SELECT count(*) FROM PREFIX.webhook_#{table}")))
  end

  defp left_behind(store), do: sql!(store, "SELECT webhook_id FROM PREFIX.webhook_deletions")

  describe "a webhook with a long log" do
    setup do
      store = open!()
      [webhook, other] = [webhook!(store), webhook!(store)]
      fill!(store, webhook, 12_345)
      fill!(store, other, 10)
      %{store: store, webhook: webhook}
    end

    test "is gone at once, the end of its log a bit later", %{store: store, webhook: webhook} do
      assert Store.delete_webhook(store, 1, webhook.id) == :ok
      assert Store.get_webhook(store, webhook.id) == {:error, :not_found}
      assert rows(store) == [2_355, 2_355, 2_355]
      assert left_behind(store) == [[webhook.id]]

      # Whoever goes on until nothing is left deletes that too; the webhook is one.
      assert Store.prune(store, 0, 2_000) == {:ok, 2_000}
      assert Store.prune(store, 0, 2_000) == {:ok, 346}
      assert rows(store) == [10, 10, 10]
      assert left_behind(store) == []
      assert {:ok, %{delivered: 10}} = Store.counts(store)
      assert Store.prune(store, 0, 2_000) == {:ok, 0}
    end

    test "is deleted to the end where somebody died in the middle", %{store: store} = context do
      :ok = Webhooks.delete(store, 1, context.webhook.id)
      assert rows(store) == [12_355, 12_355, 12_355]

      for _ <- 1..24, do: assert(Store.prune(store, 0, 500) == {:ok, 500})
      # What is left, and what is old besides.
      fill!(store, webhook!(store), 300, 7)
      assert Store.prune(store, 8, 500) == {:ok, 500}
      assert Store.prune(store, 8, 500) == {:ok, 146}
      assert rows(store) == [10, 10, 10]
    end

    test "of another site stays as it is", %{store: store, webhook: webhook} do
      assert Store.delete_webhook(store, 2, webhook.id) == {:error, :not_found}
      # A deletion that names this webhook with a site that is not its own.
      sql!(store, "INSERT INTO PREFIX.webhook_deletions VALUES ($1, 2)", [webhook.id])
      for _ <- 1..20, do: Store.prune(store, 0, 1_000)
      assert [12_355 | _] = rows(store)
      assert left_behind(store) == []
    end
  end

  test "a site that is deleted takes its webhooks along, their log follows in slices" do
    sites = schema()
    Repo.query!("CREATE TABLE #{inspect(sites)}.sites (id bigint PRIMARY KEY)")
    Repo.query!("INSERT INTO #{inspect(sites)}.sites VALUES (1), (2)")
    store = open!(prefix: migrated(sites: [table: "sites", prefix: sites]))

    assert Store.insert_webhook(store, a_webhook(site_id: 3)) == {:error, :site_not_found}
    [gone, gone_too, kept] = for site_id <- [1, 1, 2], do: webhook!(store, site_id: site_id)
    for webhook <- [gone, gone_too, kept], do: fill!(store, webhook, 700)
    waiting = a_delivery(webhook_id: gone.id)
    :ok = Store.accept(store, [waiting])

    :ok =
      Store.put_alert_state(store, %{
        webhook_id: gone.id,
        kind: :spike,
        state: :firing,
        alert_id: "alr_1",
        visitors: 512,
        threshold: 300,
        seen_at_ms: nil,
        calm_since_ms: nil,
        changed_at_ms: 1,
        notified_at_ms: nil
      })

    Repo.query!("DELETE FROM #{inspect(sites)}.sites WHERE id = 1")
    assert Store.all_webhooks(store) == {:ok, [kept]}
    assert Store.alert_states(store, [gone.id]) == {:ok, []}
    assert length(left_behind(store)) == 2

    # The log is still there, and goes, with what waits, by no more than asked for.
    assert hd(rows(store)) == 2_101
    for count <- [500, 500, 403], do: assert(Store.prune(store, 0, 500) == {:ok, count})
    assert rows(store) == [700, 700, 700]
    assert left_behind(store) == []
    assert {:ok, %{entries: [_ | _]}} = Store.deliveries(store, 2, %{}, %{})
    assert {:ok, %{delivered: 700, pending: 0}} = Store.counts(store)
  end

  test "pruning waits for nobody" do
    store = open!()
    webhook = webhook!(store)
    fill!(store, webhook, 10, 5)
    test = self()

    {:ok, _} =
      Repo.transaction(fn ->
        sql!(store, "SELECT 1 FROM PREFIX.webhook_deliveries WHERE id = $1 FOR UPDATE", [
          webhook.id <> "_3"
        ])

        Task.await(Task.async(fn -> send(test, Store.prune(store, 6, 100)) end))
      end)

    assert_received {:ok, 9}
    assert Store.prune(store, 6, 100) == {:ok, 1}
  end

  test "nothing is left of what is deleted while attempts of it are recorded" do
    store = open!()

    for _round <- 1..10 do
      deliveries = for _ <- 1..40, do: a_delivery(state: :failed, owner: nil, attempts: 1)
      :ok = Store.accept(store, deliveries)

      at_once([
        fn -> for _ <- 1..8, do: {:ok, _} = Store.prune(store, 9_000_000_000_000, 7) end,
        fn -> for _ <- 1..8, do: {:ok, _} = Store.prune(store, 9_000_000_000_000, 7) end,
        fn -> for d <- deliveries, do: :ok = Store.record(store, [failed(d, 2)]) end,
        fn -> :ok = Store.record(store, Enum.map(Enum.shuffle(deliveries), &failed(&1, 3))) end
      ])

      {:ok, _} = Store.prune(store, 9_000_000_000_000, 100)
    end

    assert rows(store) == [0, 0, 0]

    assert Store.counts(store) == {:ok, no_counts()}
  end

  test "sums are added up, however many, and tell the same" do
    store = open!()
    :ok = Store.accept(store, for(_ <- 1..3, do: a_delivery()))

    sql!(store, """
    INSERT INTO PREFIX.webhook_counts (state, n)
    SELECT i % 5, CASE WHEN i % 2 = 0 THEN 2 ELSE -1 END FROM generate_series(1, 35000) AS i
    """)

    before = Store.counts(store)
    assert {:ok, 0} = Store.prune(store, 0, 10)
    assert [[left]] = sql!(store, "SELECT count(*) FROM PREFIX.webhook_counts")
    assert left <= 25
    assert Store.counts(store) == before

    # Several nodes at once.
    sql!(store, "INSERT INTO PREFIX.webhook_counts SELECT 0, 1 FROM generate_series(1, 5000)")
    {:ok, %{pending: before}} = Store.counts(store)
    at_once(for _ <- 1..5, do: fn -> {:ok, 0} = Store.prune(store, 0, 10) end)
    assert {:ok, %{pending: ^before}} = Store.counts(store)
  end

  test "an owner is forgotten after an hour without work, and found again by its work" do
    store = open!()
    :ok = Store.heartbeat(store, "idle", 60_000)
    :ok = Store.heartbeat(store, "busy", 60_000)
    :ok = Store.heartbeat(store, "recent", 60_000)
    :ok = Store.accept(store, [a_delivery(owner: "busy")])

    sql!(
      store,
      "UPDATE PREFIX.webhook_owners SET until_ms = until_ms - 3700000 WHERE owner <> 'recent'"
    )

    {:ok, 0} = Store.prune(store, 0, 10)

    assert sql!(store, "SELECT owner FROM PREFIX.webhook_owners ORDER BY 1") == [
             ["busy"],
             ["recent"]
           ]

    # As when its last delivery comes in the moment in which it is forgotten.
    sql!(store, "DELETE FROM PREFIX.webhook_owners WHERE owner = 'busy'")
    assert Store.claim(store, "other", 10) == {:ok, []}
    {:ok, 0} = Store.prune(store, 0, 10)
    assert {:ok, [%{owner: "other"}]} = Store.claim(store, "other", 10)
  end

  test "however many webhooks are gone, nothing is left of them when pruning says so" do
    sites = "sites_#{System.unique_integer([:positive])}"
    sql = fn sql -> Repo.query!(sql) end
    sql.("CREATE TABLE #{sites} (id bigint PRIMARY KEY)")
    on_exit(fn -> Repo.query!("DROP TABLE IF EXISTS #{sites} CASCADE") end)
    prefix = migrated(sites: [table: sites, prefix: "public"])
    {:ok, store} = Store.init(repo: Repo, prefix: prefix, vault: vault())
    sql.("INSERT INTO #{sites} SELECT generate_series(1, 50)")
    for site <- 1..50, _ <- 1..6, do: :ok = Store.insert_webhook(store, a_webhook(site_id: site))
    sql.("DELETE FROM #{sites}")
    assert length(left_behind(store)) == 300
    # A limit that is reached says that there may be more.
    assert Store.prune(store, 0, 120) == {:ok, 120}
    assert Store.prune(store, 0, 10_000) == {:ok, 180}
    assert left_behind(store) == []
    assert Store.prune(store, 0, 10_000) == {:ok, 0}
  end

  test "a webhook is not changed within a transaction of the host's" do
    {:ok, store} = Store.init(repo: Repo, prefix: migrated(), vault: vault())
    webhook = a_webhook(site_id: 1)
    :ok = Store.insert_webhook(store, webhook)

    for change <- [
          fn -> Store.insert_webhook(store, a_webhook(site_id: 1)) end,
          fn -> Store.update_webhook(store, %{webhook | name: "New"}) end,
          fn -> Store.delete_webhook(store, 1, webhook.id) end
        ] do
      assert Repo.transaction(fn -> change.() end) == {:ok, {:error, :in_transaction}}
    end

    assert {:ok, [%{name: name}]} = Store.list_webhooks(store, 1)
    assert name == webhook.name
  end
end
