defmodule Plausible.Webhooks.Store.Ecto.Retention do
  @moduledoc false
  # Deletes in slices. A trigger deletes bodies and attempts with their deliveries. Also adds
  # up the counts and forgets owners.

  alias Plausible.Webhooks.{Store, Webhook}
  alias Plausible.Webhooks.Store.Columns
  alias Plausible.Webhooks.Store.Ecto.{Database, SQL, Text}

  @type store :: Store.Ecto.handle()

  @slice 1_000
  # The deliveries that the deletion of a webhook deletes at once, in the caller's process.
  # Later prunings delete the rest.
  @at_once_max 10_000
  # The least number of counts worth adding up, the most per statement, the most statements.
  @sums_min 100
  @sums_max 10_000
  @sums_rounds_max 20
  # How long an owner without a lease and without deliveries is kept.
  @owner_kept_ms 3_600_000

  # Locked rows are left for the next time: pruning never waits. What is held has not finished,
  # and goes by its creation.
  @prune """
  WITH #{SQL.clock(1)},
  chosen AS MATERIALIZED (
    SELECT * FROM (
      SELECT id FROM PREFIX.webhook_deliveries
      WHERE finished_at_ms < (SELECT #{SQL.to_database("$2::bigint")} FROM clock)
      ORDER BY finished_at_ms LIMIT $3 FOR UPDATE SKIP LOCKED) AS finished
    UNION ALL
    SELECT * FROM (
      SELECT id FROM PREFIX.webhook_deliveries
      WHERE state = -1 AND created_at_ms < (SELECT #{SQL.to_database("$2::bigint")} FROM clock)
      ORDER BY created_at_ms LIMIT $3 FOR UPDATE SKIP LOCKED) AS held
    LIMIT $3),
  gone AS (
    DELETE FROM PREFIX.webhook_deliveries AS delivery USING chosen
    WHERE delivery.id = chosen.id RETURNING 1)
  SELECT count(*) FROM gone
  """

  # The logs of deleted webhooks come first and count towards the limit: a caller that goes
  # on until nothing is left covers them too, and no call takes longer than another.
  @spec prune(store(), integer(), pos_integer()) :: {:ok, non_neg_integer()} | {:error, term()}
  def prune(store, before_ms, limit) do
    audit = "DELETE FROM PREFIX.webhook_audit WHERE at_ms < $1"

    with :ok <- tidy(store),
         :ok <- Database.run(store, nil, audit, [Columns.audit_before_ms(before_ms)]),
         {:ok, left_behind} <- finish_deletions(store, limit),
         do: prune(store, before_ms, limit, left_behind)
  end

  defp prune(_store, _before_ms, limit, done) when done >= limit, do: {:ok, done}

  defp prune(store, before_ms, limit, done) do
    slice = min(limit - done, @slice)

    case Database.query(store, nil, @prune, [store.clock.(), before_ms, slice]) do
      {:ok, [[^slice]]} -> prune(store, before_ms, limit, done + slice)
      {:ok, [[gone]]} -> {:ok, done + gone}
      {:error, _reason} = error -> error
    end
  end

  # --- the log of a deleted webhook

  # A slice is chosen first, then locked in the order of ids. The next slice begins at the
  # place of its last row, and does not walk over deleted rows again.
  @delete_log """
  WITH chosen AS MATERIALIZED (
    SELECT id, site_id, created_at_ms, seq FROM PREFIX.webhook_deliveries
    WHERE webhook_id = $1 AND (created_at_ms, seq) > ($3, $4)
    ORDER BY created_at_ms, seq LIMIT $5),
  locked AS MATERIALIZED (
    SELECT delivery.id FROM (SELECT id FROM chosen WHERE site_id = $2 ORDER BY id) AS chosen
    CROSS JOIN LATERAL (
      SELECT id FROM PREFIX.webhook_deliveries AS candidate
      WHERE candidate.id = chosen.id FOR UPDATE) AS delivery),
  gone AS (
    DELETE FROM PREFIX.webhook_deliveries AS delivery USING locked
    WHERE delivery.id = locked.id RETURNING 1)
  SELECT (SELECT count(*) FROM gone), count(*) OVER (), created_at_ms, seq FROM chosen
  ORDER BY created_at_ms DESC, seq DESC LIMIT 1
  """

  @forget "DELETE FROM PREFIX.webhook_deletions WHERE webhook_id = $1 AND site_id = $2"
  @int64_min -9_223_372_036_854_775_808

  @doc "Deletes the log of a deleted webhook, or the first part of a long one."
  @spec delete_log(store(), integer(), Webhook.id()) :: :ok | {:error, term()}
  def delete_log(store, site_id, webhook_id) do
    with {:ok, _count} <- log_slices(store, [Text.encode(webhook_id), site_id], @at_once_max),
         do: :ok
  end

  defp log_slices(store, webhook, limit),
    do: log_slices(store, webhook, limit, 0, [@int64_min, @int64_min])

  # At the limit it is unknown whether there is more; the next call finds out.
  defp log_slices(_store, _webhook, limit, done, _place) when done >= limit, do: {:ok, done}

  defp log_slices(store, webhook, limit, done, place) do
    slice = min(limit - done, @slice)

    case Database.query(store, nil, @delete_log, webhook ++ place ++ [slice]) do
      {:ok, [[gone, ^slice | place]]} ->
        log_slices(store, webhook, limit, done + gone, place)

      {:ok, rows} ->
        # The webhook counts as one, so that a caller that goes on until less than the
        # limit is deleted also covers webhooks without a log.
        with {:ok, _rows} <- Database.query(store, nil, @forget, webhook),
             do: {:ok, done + gone(rows) + 1}

      {:error, _reason} = error ->
        error
    end
  end

  defp gone([[gone, _chosen | _place]]), do: gone
  defp gone([]), do: 0

  @left_behind """
  SELECT webhook_id, site_id FROM PREFIX.webhook_deletions ORDER BY webhook_id, site_id LIMIT 100
  """

  # Logs that were too long to delete at once, that a dead node has left, or whose webhook
  # was deleted with its site.
  defp finish_deletions(store, limit, done \\ 0)
  defp finish_deletions(_store, limit, done) when done >= limit, do: {:ok, done}

  defp finish_deletions(store, limit, done) do
    with {:ok, [_ | _] = rows} <- Database.query(store, nil, @left_behind, []),
         {:ok, done} <- finish_some(store, rows, limit, done) do
      finish_deletions(store, limit, done)
    else
      {:ok, []} -> {:ok, done}
      {:error, _reason} = error -> error
    end
  end

  defp finish_some(store, rows, limit, done) do
    Enum.reduce_while(rows, {:ok, done}, fn webhook, {:ok, done} ->
      case log_slices(store, webhook, limit - done) do
        {:ok, count} when done + count < limit -> {:cont, {:ok, done + count}}
        {:ok, count} -> {:halt, {:ok, done + count}}
        {:error, _reason} = error -> {:halt, error}
      end
    end)
  end

  # --- counts and owners

  # A reader sees the counts of before or of after.
  @add_up """
  WITH chosen AS MATERIALIZED (
    SELECT ctid AS place FROM PREFIX.webhook_counts
    WHERE (SELECT count(*) FROM (SELECT 1 FROM PREFIX.webhook_counts LIMIT #{@sums_min}) AS counted)
      >= #{@sums_min}
    LIMIT #{@sums_max} FOR UPDATE SKIP LOCKED),
  gone AS (
    DELETE FROM PREFIX.webhook_counts USING chosen WHERE webhook_counts.ctid = chosen.place
    RETURNING state, n),
  added AS (
    INSERT INTO PREFIX.webhook_counts (state, n) SELECT state, sum(n) FROM gone GROUP BY state)
  SELECT count(*) FROM gone
  """

  @forget_owners """
  DELETE FROM PREFIX.webhook_owners WHERE owner IN (
    SELECT owner FROM PREFIX.webhook_owners AS holder
    WHERE until_ms < #{SQL.now_ms()} - #{@owner_kept_ms}
      AND NOT #{SQL.has_pending("holder.owner")}
    ORDER BY owner FOR UPDATE SKIP LOCKED)
  """

  # Every owner of a pending delivery must be registered, or claims would not find its
  # deliveries. An owner that returns after an hour may be forgotten at that very moment;
  # this finds it again, by one step into the index per owner.
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
    with :ok <- add_up(store, @sums_rounds_max),
         {:ok, _rows} <- Database.query(store, nil, @forget_owners, []),
         {:ok, _rows} <- Database.query(store, nil, @find_owners, []),
         do: :ok
  end

  # Every statement that changes states leaves some counts, thousands in a minute.
  defp add_up(_store, 0), do: :ok

  defp add_up(store, rounds) do
    case Database.query(store, nil, @add_up, []) do
      {:ok, [[@sums_max]]} -> add_up(store, rounds - 1)
      {:ok, _less} -> :ok
      {:error, _reason} = error -> error
    end
  end
end
