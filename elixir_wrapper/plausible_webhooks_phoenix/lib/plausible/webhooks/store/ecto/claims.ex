defmodule Plausible.Webhooks.Store.Ecto.Claims do
  @moduledoc false
  # Leases, and the owners of deliveries: claimed, reclaimed, released and redelivered.

  alias Plausible.Webhooks.{Delivery, Store}
  alias Plausible.Webhooks.Store.Columns
  alias Plausible.Webhooks.Store.Ecto.{Database, Rows, SQL, Text}

  @type store :: Store.Ecto.handle()

  @columns Enum.map_join(Rows.delivery(), ", ", fn
             {"next_at_ms", _type} -> SQL.to_node("delivery.next_at_ms") <> " AS next_at_ms"
             {name, _type} -> "delivery.#{name}"
           end)
  @due "coalesce(candidate.next_at_ms, candidate.created_at_ms)"

  # Makes parameter 2 the owner of the rows `chosen`, and registers that owner. What another
  # node has requested to be sent again begins its schedule anew.
  @take """
  known AS (
    INSERT INTO PREFIX.webhook_owners (owner, until_ms)
    SELECT $2, 0 WHERE EXISTS (SELECT 1 FROM chosen) ON CONFLICT DO NOTHING),
  delivery AS (
    UPDATE PREFIX.webhook_deliveries AS taken SET state = 0, FIELDS
    FROM chosen WHERE taken.id = chosen.id RETURNING taken.*)
  SELECT #{@columns}, ends, body FROM delivery LEFT JOIN PREFIX.webhook_bodies USING (seq)
  """
  @anew "owner = $2, requested = false, " <>
          "schedule_from = CASE WHEN requested THEN attempts ELSE schedule_from END, " <>
          "next_at_ms = CASE WHEN NOT requested THEN next_at_ms END"
  take_oldest = fn fields ->
    String.replace(@take, "FIELDS", fields) <>
      "ORDER BY coalesce(delivery.next_at_ms, delivery.created_at_ms), delivery.id"
  end

  @take_oldest take_oldest.(@anew)

  # --- leases

  @heartbeat """
  INSERT INTO PREFIX.webhook_owners (owner, until_ms)
  VALUES ($1, CASE $2::bigint WHEN 1 THEN 0 ELSE #{SQL.now_ms()} + $2::bigint END)
  ON CONFLICT (owner) DO UPDATE SET until_ms = excluded.until_ms
  """

  @spec heartbeat(store(), Store.owner(), pos_integer()) :: :ok | {:error, term()}
  def heartbeat(store, owner, lease_ms),
    do: Database.run(store, :heartbeat, @heartbeat, [Text.encode(owner), lease_ms])

  # Kept with the leases of owners. The end of the lease is the token: nobody gets a
  # lease before the last one has ended, so no two tokens are the same. A statement that
  # waited for the row checks it again.
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

  # --- what waits too long

  @bring_forward """
  UPDATE PREFIX.webhook_deliveries SET next_at_ms = #{SQL.now_ms()} + $1::bigint
  WHERE state <= 1 AND next_at_ms > #{SQL.now_ms()} + $1::bigint
  """

  @doc "Nothing waits beyond `:wait_ms_max`: what does was parked by a clock that was fast."
  @spec bring_forward(store()) :: :ok | {:error, term()}
  def bring_forward(store), do: Database.run(store, nil, @bring_forward, [store.wait_ms_max])

  # --- claim

  # A claim skips locked rows, so it never waits. Each of the three sources yields up to the
  # limit, and the oldest due of all are taken; the commit unlocks the rest.
  #
  # Dead owners are locked against a renewal of their lease: it happens before, and is
  # respected, or after.
  #
  # Planned with its values: with an unknown limit the planner sorts everything parked.
  # An order that names the owner is that of the index.
  #
  # `@ends`: one more, unless the owner said goodbye (0) or the delivery was not due.
  @ends "candidate.ends + CASE WHEN dead.until_ms > 0 AND #{@due} <= dead.until_ms " <>
          "THEN 1 ELSE 0 END"
  @claim """
  WITH #{SQL.clock(1)},
  dead AS MATERIALIZED (
    SELECT owner, until_ms FROM PREFIX.webhook_owners
    WHERE until_ms <= (SELECT now_ms FROM clock)
      AND owner <> $2 AND owner <> '#{Columns.suspects()}'
      AND #{SQL.has_pending("webhook_owners.owner")}
    FOR SHARE SKIP LOCKED),
  suspected AS (
    UPDATE PREFIX.webhook_deliveries AS delivery
    SET owner = '#{Columns.suspects()}', ends = suspect.ends
    FROM (
      SELECT candidate.* FROM dead CROSS JOIN LATERAL (
        SELECT id, #{@ends} AS ends FROM PREFIX.webhook_deliveries AS candidate
        WHERE state = 0 AND candidate.owner = dead.owner AND ends > 0 AND #{@ends} > 1
        ORDER BY candidate.owner, candidate.ends, #{@due} FOR UPDATE SKIP LOCKED) AS candidate
      ) AS suspect
    WHERE delivery.id = suspect.id AND #{SQL.durably()}),
  chosen AS MATERIALIZED (
    SELECT id, ends FROM (
      SELECT * FROM (
        SELECT id, ends, #{@due} AS due_ms FROM PREFIX.webhook_deliveries AS candidate
        WHERE state = 1 AND #{@due} <= (SELECT now_ms FROM clock)
        ORDER BY #{@due} LIMIT $3 FOR UPDATE SKIP LOCKED) AS parked
      UNION ALL
      SELECT * FROM (
        SELECT id, ends, #{@due} AS due_ms FROM PREFIX.webhook_deliveries AS candidate
        WHERE state = 0 AND owner IS NULL
        ORDER BY owner, #{@due} LIMIT $3 FOR UPDATE SKIP LOCKED) AS unowned
      UNION ALL
      SELECT left_behind.* FROM dead CROSS JOIN LATERAL (
        SELECT id, #{@ends} AS ends, #{@due} AS due_ms
        FROM PREFIX.webhook_deliveries AS candidate
        WHERE state = 0 AND candidate.owner = dead.owner AND #{@ends} <= 1
        ORDER BY #{@due} LIMIT $3 FOR UPDATE SKIP LOCKED) AS left_behind) AS waiting
    ORDER BY due_ms, id LIMIT $3),
  #{take_oldest.("ends = chosen.ends, " <> @anew)}
  """

  @spec claim(store(), Store.owner(), pos_integer()) :: {:ok, [Delivery.t()]} | {:error, term()}
  def claim(store, owner, limit) do
    params = [store.clock.(), Text.encode(owner), limit]
    Database.all(store, @claim, params, &Rows.to_delivery_with_body/1)
  end

  @claim_suspect """
  WITH #{SQL.clock(1)},
  chosen AS MATERIALIZED (
    SELECT id FROM PREFIX.webhook_deliveries AS candidate
    WHERE state = 0 AND owner = '#{Columns.suspects()}' AND ends > 0 AND #{SQL.durably()}
      AND NOT EXISTS (
        SELECT 1 FROM PREFIX.webhook_deliveries AS held
        WHERE held.state = 0 AND held.owner = $2 AND held.ends > 1)
    ORDER BY owner, ends, #{@due} LIMIT 1 FOR UPDATE SKIP LOCKED),
  #{@take_oldest}
  """

  @spec claim_suspect(store(), Store.owner()) ::
          {:ok, {Delivery.t(), pos_integer()} | nil} | {:error, term()}
  def claim_suspect(store, owner) do
    read = &{Rows.to_delivery_with_body(&1), Enum.at(&1, -2)}

    with {:ok, found} <-
           Database.all(store, @claim_suspect, [store.clock.(), Text.encode(owner)], read),
         do: {:ok, List.first(found)}
  end

  # --- reclaim

  @reclaim """
  WITH #{SQL.clock(1)},
  chosen AS MATERIALIZED (
    SELECT id FROM PREFIX.webhook_deliveries AS candidate
    WHERE state = 0 AND owner = $3 AND #{SQL.durably()}
    ORDER BY #{@due} LIMIT $4 FOR UPDATE SKIP LOCKED),
  #{@take_oldest}
  """

  @spec reclaim(store(), Store.owner(), Store.owner(), pos_integer()) ::
          {:ok, [Delivery.t()]} | {:error, term()}
  def reclaim(store, owner, from, limit) do
    params = [store.clock.(), Text.encode(owner), Text.encode(from), limit]
    Database.all(store, @reclaim, params, &Rows.to_delivery_with_body/1)
  end

  # --- release

  @release """
  WITH #{SQL.clock(1)},
  #{SQL.locked("locked", 2, "state + 0 = 0 AND owner = $3")}
  UPDATE PREFIX.webhook_deliveries AS delivery SET
    state = 1, owner = NULL, requested = false, next_at_ms = #{SQL.to_database("$4::bigint")}
  FROM locked WHERE delivery.id = locked.id
  """

  @spec release(store(), Store.owner(), [String.t()], integer()) :: :ok | {:error, term()}
  def release(_store, _owner, [], _next_at_ms), do: :ok

  def release(store, owner, ids, next_at_ms) do
    params = [store.clock.(), in_order(ids), Text.encode(owner), next_at_ms]
    Database.run(store, nil, @release, params)
  end

  # --- redeliver

  @restart "owner = CASE WHEN others THEN taken.owner ELSE $2 END, requested = others, " <>
             "schedule_from = attempts, manual = true, next_at_ms = NULL, " <>
             "finished_at_ms = NULL, reason = NULL"

  @redeliver """
  WITH #{SQL.clock(1)},
  #{SQL.locked("locked", 3, "state + 0 = ANY($4::smallint[])")},
  chosen AS MATERIALIZED (
    SELECT id, EXISTS (
      SELECT 1 FROM PREFIX.webhook_owners AS other
      WHERE other.owner = locked.owner AND other.owner <> $2
        AND until_ms > (SELECT now_ms FROM clock)) AS others
    FROM locked),
  #{String.replace(@take, "FIELDS", @restart)}
  """

  @spec redeliver(store(), Store.owner(), [String.t()], [Delivery.state()]) ::
          {:ok, %{taken: [Delivery.t()], requested: [String.t()]}} | {:error, term()}
  def redeliver(_store, owner, [], _states), do: {:ok, Columns.taken([], owner, [])}

  def redeliver(store, owner, ids, states) do
    codes = Enum.map(states, &elem(Columns.state_code(&1), 1))
    params = [store.clock.(), Text.encode(owner), in_order(ids), codes]

    with {:ok, deliveries} <-
           Database.all(store, @redeliver, params, &Rows.to_delivery_with_body/1),
         do: {:ok, Columns.taken(deliveries, owner, ids)}
  end

  @requested "SELECT id FROM PREFIX.webhook_deliveries WHERE requested AND owner = $1 LIMIT $2"

  @spec requested(store(), Store.owner(), pos_integer()) :: {:ok, [String.t()]} | {:error, term()}
  def requested(store, owner, limit) do
    Database.all(store, @requested, [Text.encode(owner), limit], fn [id] -> Text.decode(id) end)
  end

  defp in_order(ids), do: ids |> Enum.map(&Text.encode/1) |> Enum.uniq() |> Enum.sort()
end
