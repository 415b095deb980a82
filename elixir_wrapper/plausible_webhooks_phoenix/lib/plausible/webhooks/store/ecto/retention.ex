defmodule Plausible.Webhooks.Store.Ecto.Retention do
  @moduledoc false
  # What is deleted, in slices; bodies and attempts go with their deliveries by a
  # trigger. And the small things that somebody has to tidy up from time to time.

  alias Plausible.Webhooks.{Store, Webhook}
  alias Plausible.Webhooks.Store.Ecto.{Database, SQL, Text}

  @type store :: Store.Ecto.handle()

  @slice 1_000
  # Sums to add up before it is worth it, and how many at a time.
  @sums_min 100
  @sums_max 10_000
  # How long an owner without a lease and without deliveries is remembered.
  @owner_kept_ms 3_600_000

  # Rows that somebody has locked are left for the next time: deleting waits for
  # nobody.
  @prune """
  WITH #{SQL.clock(1)},
  chosen AS MATERIALIZED (
    SELECT id FROM PREFIX.webhook_deliveries
    WHERE finished_at_ms < (SELECT #{SQL.to_database("$2::bigint")} FROM clock)
    ORDER BY finished_at_ms LIMIT $3 FOR UPDATE SKIP LOCKED),
  gone AS (
    DELETE FROM PREFIX.webhook_deliveries AS delivery USING chosen
    WHERE delivery.id = chosen.id RETURNING 1)
  SELECT count(*) FROM gone
  """

  @spec prune(store(), integer(), pos_integer()) :: {:ok, non_neg_integer()} | {:error, term()}
  def prune(store, before_ms, limit) do
    with :ok <- finish_deletions(store),
         :ok <- tidy(store),
         do: prune(store, before_ms, limit, 0)
  end

  defp prune(store, before_ms, limit, done) do
    slice = min(limit - done, @slice)

    case Database.query(store, nil, @prune, [store.clock.(), before_ms, slice]) do
      {:ok, [[^slice]]} when done + slice < limit -> prune(store, before_ms, limit, done + slice)
      {:ok, [[gone]]} -> {:ok, done + gone}
      {:error, _reason} = error -> error
    end
  end

  # --- the log of a webhook that is gone

  # A slice is chosen first, then locked in the order of ids. The place of the last
  # one is where the next slice begins: what is deleted already is not walked over
  # again.
  @delete_log """
  WITH chosen AS MATERIALIZED (
    SELECT id, created_at_ms, seq FROM PREFIX.webhook_deliveries
    WHERE webhook_id = $1 AND site_id + 0 = $2 AND (created_at_ms, seq) > ($3, $4)
    ORDER BY created_at_ms, seq LIMIT #{@slice}),
  locked AS MATERIALIZED (
    SELECT delivery.id FROM (SELECT id FROM chosen ORDER BY id) AS chosen
    CROSS JOIN LATERAL (
      SELECT id FROM PREFIX.webhook_deliveries AS candidate
      WHERE candidate.id = chosen.id FOR UPDATE) AS delivery),
  gone AS (
    DELETE FROM PREFIX.webhook_deliveries AS delivery USING locked
    WHERE delivery.id = locked.id)
  SELECT created_at_ms, seq, count(*) OVER () FROM chosen
  ORDER BY created_at_ms DESC, seq DESC LIMIT 1
  """

  @forget "DELETE FROM PREFIX.webhook_deletions WHERE webhook_id = $1 AND site_id = $2"
  @int64_min -9_223_372_036_854_775_808

  @doc "Deletes the log of a webhook that is deleted already."
  @spec delete_log(store(), integer(), Webhook.id()) :: :ok | {:error, term()}
  def delete_log(store, site_id, webhook_id),
    do: delete_log(store, [Text.encode(webhook_id), site_id], @int64_min, @int64_min)

  defp delete_log(store, webhook, created_at_ms, seq) do
    case Database.query(store, nil, @delete_log, webhook ++ [created_at_ms, seq]) do
      {:ok, [[created_at_ms, seq, @slice]]} ->
        delete_log(store, webhook, created_at_ms, seq)

      {:ok, _the_rest_or_nothing} ->
        with {:ok, _rows} <- Database.query(store, nil, @forget, webhook), do: :ok

      {:error, _reason} = error ->
        error
    end
  end

  # What a node that died in the middle has left, and what went with a site.
  defp finish_deletions(store) do
    sql = "SELECT webhook_id, site_id FROM PREFIX.webhook_deletions ORDER BY webhook_id LIMIT 100"

    with {:ok, rows} <- Database.query(store, nil, sql, []) do
      Enum.reduce_while(rows, :ok, fn [webhook_id, site_id], :ok ->
        case delete_log(store, site_id, Text.decode(webhook_id)) do
          :ok -> {:cont, :ok}
          {:error, _reason} = error -> {:halt, error}
        end
      end)
    end
  end

  # --- small things

  # Whoever reads sees the sums either before or after.
  @add_up """
  WITH chosen AS MATERIALIZED (
    SELECT ctid AS place FROM PREFIX.webhook_counts
    WHERE (SELECT count(*) FROM (SELECT 1 FROM PREFIX.webhook_counts LIMIT #{@sums_min}) AS counted)
      >= #{@sums_min}
    LIMIT #{@sums_max} FOR UPDATE SKIP LOCKED),
  gone AS (
    DELETE FROM PREFIX.webhook_counts USING chosen WHERE webhook_counts.ctid = chosen.place
    RETURNING state, n)
  INSERT INTO PREFIX.webhook_counts (state, n) SELECT state, sum(n) FROM gone GROUP BY state
  """

  @forget_owners """
  DELETE FROM PREFIX.webhook_owners WHERE owner IN (
    SELECT owner FROM PREFIX.webhook_owners AS candidate
    WHERE until_ms < #{SQL.now_ms()} - #{@owner_kept_ms} AND NOT EXISTS (
      SELECT 1 FROM PREFIX.webhook_deliveries AS delivery
      WHERE delivery.state = 0 AND delivery.owner = candidate.owner)
    ORDER BY owner FOR UPDATE SKIP LOCKED)
  """

  # Every owner of something pending is known, or claims would not find what it
  # has left. An owner could be forgotten in the moment in which it comes back
  # after an hour; here it is found again, by one step into the index per owner.
  @find_owners """
  WITH RECURSIVE holders (owner) AS (
    (SELECT min(owner) FROM PREFIX.webhook_deliveries WHERE state = 0)
    UNION ALL
    SELECT (SELECT min(owner) FROM PREFIX.webhook_deliveries
            WHERE state = 0 AND owner > holders.owner)
    FROM holders WHERE holders.owner IS NOT NULL)
  INSERT INTO PREFIX.webhook_owners (owner, until_ms)
  SELECT owner, 0 FROM holders WHERE owner IS NOT NULL ON CONFLICT DO NOTHING
  """

  defp tidy(store) do
    Enum.reduce_while([@add_up, @forget_owners, @find_owners], :ok, fn sql, :ok ->
      case Database.query(store, nil, sql, []) do
        {:ok, _rows} -> {:cont, :ok}
        {:error, _reason} = error -> {:halt, error}
      end
    end)
  end
end
