defmodule Plausible.Webhooks.StoreEctoPlanTest do
  # A plan that PostgreSQL keeps is of the time when it was made. On a table that was
  # empty then, it reads the whole table for one row, and goes on to when the table
  # is large.
  use Plausible.Webhooks.Test.StoreCase, async: true

  # PostgreSQL makes five plans with values before it settles on one without.
  @settled 12

  test "a table that has grown is not read through" do
    store = open!()
    # On one connection, so that it is the same one that has prepared.
    own_repo(pool_size: 1)
    webhook = a_webhook(site_id: 1)
    :ok = Store.insert_webhook(store, webhook)

    for table <- ~w(webhook_deliveries webhook_bodies webhook_attempts webhooks) do
      sql!(store, "ALTER TABLE PREFIX.#{table} SET (autovacuum_enabled = false)")
      sql!(store, "ANALYZE PREFIX.#{table}")
    end

    for _ <- 1..@settled, do: use_all(store, webhook)

    for table <- ~w(deliveries bodies attempts),
        do: sql!(store, "ANALYZE PREFIX.webhook_#{table}")

    for _ <- 1..@settled, do: use_all(store, webhook)

    sql!(store, """
    INSERT INTO PREFIX.webhook_deliveries (id, webhook_id, site_id, type, state, owner, attempts,
      schedule_from, created_at_ms, finished_at_ms, last_status, manual, retry)
    SELECT 'x' || i, 'wh_x', 2, 'goal.completed', state, CASE i % 4 WHEN 0 THEN 'a' END, 1, 0,
      i, CASE WHEN state = 2 THEN 9000000000000 END, 200, false, true
    FROM (SELECT i, i % 2 * 2 AS state FROM generate_series(1, 40000) AS i) AS given
    """)

    sql!(store, "INSERT INTO PREFIX.webhook_bodies SELECT seq, '' FROM PREFIX.webhook_deliveries
      WHERE webhook_id = 'wh_x'")

    sql!(store, """
    INSERT INTO PREFIX.webhook_attempts (seq, number, maker, state, started_at_ms, response_headers, response_body,
      response_truncated, gone)
    SELECT seq, 1, 0, 2, 0, '', '', false, false FROM PREFIX.webhook_deliveries WHERE webhook_id = 'wh_x'
    """)

    # That this owner has nothing pending must not be found by reading everything. Where the
    # two plans cost about the same, the setting makes the planner prefer the wrong one.
    sql!(store, "INSERT INTO PREFIX.webhook_owners VALUES ('gone', 0)")
    sql!(store, "SET random_page_cost = 10")

    # What looks along a log goes by statistics as well, and those are a minute old
    # at most; what is looked up by ids, and the queue, must not depend on them.
    for {name, call} <- calls(store, webhook, deliveries(webhook)),
        name not in [:cancel_waiting, :recoverable, :deliveries] do
      {read, _result} = read_by(store, call)
      assert read < 1_000, "#{name} read #{read} rows"
    end
  end

  defp use_all(store, webhook) do
    for {_name, call} <- calls(store, webhook, deliveries(webhook)), do: call.()
  end

  defp deliveries(webhook), do: for(_ <- 1..5, do: a_delivery(webhook_id: webhook.id))

  # In an order in which each finds something to do.
  defp calls(store, webhook, [first, second | _] = deliveries) do
    [
      accept: fn -> :ok = Store.accept(store, deliveries) end,
      get_delivery: fn -> {:ok, _} = Store.get_delivery(store, first.id) end,
      release: fn -> :ok = Store.release(store, "a", [first.id], 1) end,
      record: fn ->
        :ok = Store.record(store, Enum.map(tl(deliveries), &failed(&1, 1)))
      end,
      attempts: fn -> {:ok, [_]} = Store.attempts(store, second.id) end,
      redeliver: fn ->
        {:ok, %{taken: [_]}} = Store.redeliver(store, "a", [second.id], [:failed])
      end,
      requested: fn -> {:ok, []} = Store.requested(store, "a", 5) end,
      claim: fn -> {:ok, [_ | _]} = Store.claim(store, "b", 5) end,
      claim_suspect: fn -> {:ok, nil} = Store.claim_suspect(store, "b") end,
      heartbeat: fn -> :ok = Store.heartbeat(store, "a", 60_000) end,
      cancel_waiting: fn -> {:ok, _} = Store.cancel_waiting(store, webhook.id, "over") end,
      hold_waiting: fn -> {:ok, 0} = Store.hold_waiting(store, webhook.id) end,
      send_held: fn -> {:ok, 0} = Store.send_held(store) end,
      recoverable: fn -> {:ok, [_ | _]} = Store.recoverable(store, webhook.id, 0, 5) end,
      deliveries: fn -> {:ok, _} = Store.deliveries(store, 1, %{goal_id: 3}, %{limit: 5}) end,
      counts: fn -> {:ok, _} = Store.counts(store) end,
      prune: fn -> {:ok, 2} = Store.prune(store, 8_000_000_000_000, 2) end
    ]
  end

  test "only what looks nothing up is kept prepared" do
    store = open!()
    own_repo(pool_size: 1)
    webhook = a_webhook(site_id: 1)
    :ok = Store.insert_webhook(store, webhook)
    use_all(store, webhook)
    {:ok, webhook} = Store.update_webhook(store, webhook)
    {:ok, ^webhook} = Store.get_webhook(store, webhook.id)
    Store.now_ms(store)

    prepared =
      for [name] <- sql!(store, "SELECT name FROM pg_prepared_statements"),
          [_, what] <- [Regex.run(~r/^webhooks_(\w+)_\d+$/, name)],
          do: what

    assert Enum.sort(prepared) == ~w(accept heartbeat lock_site now)
  end
end
