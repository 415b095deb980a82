defmodule Plausible.Webhooks.Store.Ecto.Claims do
  @moduledoc false
  # Who works on what: leases, what a dead owner has left, what is due, what is
  # given back and what is to be sent again.

  alias Plausible.Webhooks.{Delivery, Store}
  alias Plausible.Webhooks.Store.Ecto.{Database, Rows, SQL, Text}

  @type store :: Store.Ecto.handle()

  @columns Enum.map_join(Rows.delivery_columns(), ", ", fn
             {"next_at_ms", _type} -> SQL.to_node("delivery.next_at_ms") <> " AS next_at_ms"
             {name, _type} -> "delivery.#{name}"
           end)
  @due "coalesce(candidate.next_at_ms, candidate.created_at_ms)"

  # --- leases

  @heartbeat """
  INSERT INTO PREFIX.webhook_owners (owner, until_ms) VALUES ($1, #{SQL.now_ms()} + $2::bigint)
  ON CONFLICT (owner) DO UPDATE SET until_ms = excluded.until_ms
  """

  @spec heartbeat(store(), Store.owner(), pos_integer()) :: :ok | {:error, term()}
  def heartbeat(store, owner, lease_ms) do
    params = [Text.encode(owner), lease_ms]
    with {:ok, _rows} <- Database.query(store, :heartbeat, @heartbeat, params), do: :ok
  end

  # --- leases

  # Kept with the leases of owners. The end of the lease is the token: nobody gets a
  # lease before the last one has ended, so no two tokens are the same. Who waits for
  # another one's row looks at it again afterwards.
  @take_lease """
  INSERT INTO PREFIX.webhook_owners AS lease (owner, until_ms)
  VALUES ($1, #{SQL.now_ms()} + $2::bigint)
  ON CONFLICT (owner) DO UPDATE SET until_ms = excluded.until_ms
  WHERE lease.until_ms <= #{SQL.now_ms()} OR lease.until_ms = $3::bigint
  RETURNING until_ms
  """

  @spec take_lease(store(), String.t(), pos_integer(), Store.token() | nil) ::
          {:ok, Store.token()} | {:error, :taken | term()}
  def take_lease(store, name, lease_ms, token) do
    params = [Text.encode("lease/" <> name), lease_ms, token]

    case Database.query(store, :take_lease, @take_lease, params) do
      {:ok, [[until_ms]]} -> {:ok, until_ms}
      {:ok, []} -> {:error, :taken}
      {:error, _reason} = error -> error
    end
  end

  # --- claim

  # Locked rows are somebody else's in this moment and are skipped, so that a claim
  # waits for nobody. Each source gives as many as may be claimed, the oldest due
  # of all are taken; the rest is unlocked by the commit.
  #
  # The dead owners are locked against a renewal of their lease: it comes before
  # and is respected, or afterwards.
  #
  # Planned with its values: with a limit that it does not know the planner sorts
  # all that is parked. OFFSET 0 keeps it from turning the question of each owner
  # into a search through all that is pending, and an order that names the owner is
  # the index's.
  @claim """
  WITH #{SQL.clock(1)},
  dead AS MATERIALIZED (
    SELECT owner FROM PREFIX.webhook_owners
    WHERE until_ms <= (SELECT now_ms FROM clock) AND owner <> $2
      AND EXISTS (SELECT 1 FROM PREFIX.webhook_deliveries AS candidate
        WHERE candidate.state = 0 AND candidate.owner = webhook_owners.owner OFFSET 0)
    FOR SHARE SKIP LOCKED),
  chosen AS MATERIALIZED (
    SELECT id FROM (
      SELECT * FROM (
        SELECT id, #{@due} AS due_ms FROM PREFIX.webhook_deliveries AS candidate
        WHERE state = 1 AND #{@due} <= (SELECT now_ms FROM clock)
        ORDER BY #{@due} LIMIT $3 FOR UPDATE SKIP LOCKED) AS parked
      UNION ALL
      SELECT * FROM (
        SELECT id, #{@due} AS due_ms FROM PREFIX.webhook_deliveries AS candidate
        WHERE state = 0 AND owner IS NULL
        ORDER BY owner, #{@due} LIMIT $3 FOR UPDATE SKIP LOCKED) AS nobodys
      UNION ALL
      SELECT left_behind.* FROM dead CROSS JOIN LATERAL (
        SELECT id, #{@due} AS due_ms FROM PREFIX.webhook_deliveries AS candidate
        WHERE state = 0 AND candidate.owner = dead.owner
        ORDER BY #{@due} LIMIT $3 FOR UPDATE SKIP LOCKED) AS left_behind) AS waiting
    ORDER BY due_ms, id LIMIT $3),
  known AS (
    INSERT INTO PREFIX.webhook_owners (owner, until_ms)
    SELECT $2, 0 WHERE EXISTS (SELECT 1 FROM chosen) ON CONFLICT DO NOTHING),
  delivery AS (
    UPDATE PREFIX.webhook_deliveries AS taken SET state = 0, owner = $2
    FROM chosen WHERE taken.id = chosen.id RETURNING taken.*)
  SELECT #{@columns}, body FROM delivery LEFT JOIN PREFIX.webhook_bodies USING (seq)
  ORDER BY coalesce(delivery.next_at_ms, delivery.created_at_ms), delivery.id
  """

  @spec claim(store(), Store.owner(), pos_integer()) :: {:ok, [Delivery.t()]} | {:error, term()}
  def claim(store, owner, limit) do
    with {:ok, rows} <-
           Database.query(store, nil, @claim, [store.clock.(), Text.encode(owner), limit]),
         do: {:ok, Enum.map(rows, &Rows.to_delivery_with_body/1)}
  end

  # --- reclaim

  @reclaim """
  WITH #{SQL.clock(1)},
  chosen AS MATERIALIZED (
    SELECT id FROM PREFIX.webhook_deliveries AS candidate
    WHERE state = 0 AND owner = $3 AND #{SQL.durably()}
    ORDER BY #{@due} LIMIT $4 FOR UPDATE SKIP LOCKED),
  known AS (
    INSERT INTO PREFIX.webhook_owners (owner, until_ms)
    SELECT $2, 0 WHERE EXISTS (SELECT 1 FROM chosen) ON CONFLICT DO NOTHING),
  delivery AS (
    UPDATE PREFIX.webhook_deliveries AS taken SET owner = $2
    FROM chosen WHERE taken.id = chosen.id RETURNING taken.*)
  SELECT #{@columns}, body FROM delivery LEFT JOIN PREFIX.webhook_bodies USING (seq)
  ORDER BY coalesce(delivery.next_at_ms, delivery.created_at_ms), delivery.id
  """

  @spec reclaim(store(), Store.owner(), Store.owner(), pos_integer()) ::
          {:ok, [Delivery.t()]} | {:error, term()}
  def reclaim(store, owner, from, limit) do
    params = [store.clock.(), Text.encode(owner), Text.encode(from), limit]

    with {:ok, rows} <- Database.query(store, nil, @reclaim, params),
         do: {:ok, Enum.map(rows, &Rows.to_delivery_with_body/1)}
  end

  # --- release

  @release """
  WITH #{SQL.clock(1)},
  #{SQL.locked(2, "state + 0 = 0 AND owner = $3")}
  UPDATE PREFIX.webhook_deliveries AS delivery SET
    state = 1, owner = NULL, next_at_ms = #{SQL.to_database("$4::bigint")}
  FROM locked WHERE delivery.id = locked.id
  """

  @spec release(store(), Store.owner(), [String.t()], integer()) :: :ok | {:error, term()}
  def release(_store, _owner, [], _next_at_ms), do: :ok

  def release(store, owner, ids, next_at_ms) do
    params = [store.clock.(), in_order(ids), Text.encode(owner), next_at_ms]
    with {:ok, _rows} <- Database.query(store, nil, @release, params), do: :ok
  end

  # --- redeliver

  @redeliver """
  WITH #{SQL.clock(1)},
  #{SQL.locked(2, "state + 0 <> 2 OR $4::boolean")},
  known AS (
    INSERT INTO PREFIX.webhook_owners (owner, until_ms)
    SELECT $3, 0 WHERE EXISTS (SELECT 1 FROM locked) ON CONFLICT DO NOTHING),
  delivery AS (
    UPDATE PREFIX.webhook_deliveries AS again SET
      state = 0, owner = $3, schedule_from = attempts, manual = true,
      next_at_ms = NULL, finished_at_ms = NULL, reason = NULL
    FROM locked WHERE again.id = locked.id RETURNING again.*)
  SELECT #{@columns}, body FROM delivery LEFT JOIN PREFIX.webhook_bodies USING (seq)
  """

  @spec redeliver(store(), Store.owner(), [String.t()]) ::
          {:ok, [Delivery.t()]} | {:error, term()}
  def redeliver(_store, _owner, []), do: {:ok, []}

  def redeliver(store, owner, ids) do
    ids = Enum.uniq(ids)
    params = [store.clock.(), in_order(ids), Text.encode(owner), match?([_only], ids)]

    with {:ok, rows} <- Database.query(store, nil, @redeliver, params) do
      found = Map.new(rows, &with_id(Rows.to_delivery_with_body(&1)))
      {:ok, for(id <- ids, delivery = found[id], do: delivery)}
    end
  end

  defp with_id(delivery), do: {delivery.id, delivery}

  defp in_order(ids), do: ids |> Enum.map(&Text.encode/1) |> Enum.uniq() |> Enum.sort()
end
