defmodule Plausible.Webhooks.Store.Ecto.Record do
  @moduledoc false
  # Writes attempts, which move their deliveries.
  #
  # A statement takes at most one attempt of each delivery, so the rule of the record
  # callback is an expression over two rows. Several attempts of one delivery in a batch,
  # which is rare, go into several statements of one transaction. The first of them locks
  # every delivery of the batch.

  alias Plausible.Webhooks.{Attempt, Store}
  alias Plausible.Webhooks.Store.Columns
  alias Plausible.Webhooks.Store.Ecto.{Database, Deliveries, Rows, SQL}

  @rows_max 1_000
  @bytes_max 16 * 1_048_576

  @columns Rows.attempt()
  @given Rows.recorded()

  # `was_*` is the locked delivery, the rest is the attempt. The lateral subquery looks each
  # delivery up by its id: see SQL.locked/2. `written` are the attempts that were not on
  # record. `again`: the engine has let go of a delivery that another node wants sent again.
  # `becomes`: a delivery is not held if its webhook is not paused, or no longer, since no
  # resume would send it. The webhook is locked only where something is to be held.
  @record """
  WITH #{SQL.clock(1)},
  pair AS MATERIALIZED (
    SELECT given.*, was.* FROM #{SQL.given(@given, 2)}
    CROSS JOIN LATERAL (
      SELECT seq, webhook_id, state AS was_state, attempts AS was_attempts, owner AS was_owner, requested
      FROM PREFIX.webhook_deliveries AS candidate
      WHERE candidate.id = given.id AND #{SQL.durably()}
      FOR UPDATE) AS was),
  written AS (
    INSERT INTO PREFIX.webhook_attempts (seq, maker, #{SQL.names(@columns)})
    SELECT seq, maker, #{SQL.written(@columns)} FROM pair WHERE number > 0
    ON CONFLICT (seq, number, maker) DO NOTHING RETURNING seq),
  judged AS (
    SELECT pair.*, requested AND state NOT IN (0, 2) AS again,
      CASE WHEN state = -1 AND NOT EXISTS (
          SELECT 1 FROM PREFIX.webhooks WHERE webhooks.id = webhook_id AND NOT enabled FOR SHARE)
        THEN 1 ELSE state END AS becomes,
      CASE WHEN was_state > 1 THEN state = 2 AND was_state <> 2
        WHEN number = 0 THEN coalesce(was_owner = reporter, true)
        ELSE state = 2 OR number > was_attempts END AS moves,
      was_state = 0 AND state NOT IN (0, 2) AND number BETWEEN 1 AND was_attempts
        AND coalesce(was_owner = reporter, false) AND seq IN (SELECT seq FROM written) AS lets_go
    FROM pair)
  UPDATE PREFIX.webhook_deliveries AS delivery SET
    state = CASE WHEN NOT moves THEN delivery.state WHEN NOT again THEN becomes ELSE 0 END,
    reason = CASE WHEN NOT moves THEN delivery.reason
      WHEN judged.state >= 3 AND NOT again THEN judged.reason END,
    attempts = greatest(delivery.attempts, number),
    schedule_from = CASE WHEN NOT moves THEN delivery.schedule_from
      WHEN again THEN greatest(delivery.attempts, number)
      ELSE greatest(delivery.schedule_from, began) END,
    requested = delivery.requested AND NOT (moves AND judged.state <> 0),
    ends = CASE WHEN number > 0 THEN 0 ELSE delivery.ends END,
    last_status = CASE WHEN number > 0 AND (moves OR was_state <> 2)
      THEN judged.status ELSE delivery.last_status END,
    last_error = CASE WHEN number > 0 AND (moves OR was_state <> 2)
      THEN judged.error ELSE delivery.last_error END,
    next_at_ms = CASE WHEN NOT moves THEN delivery.next_at_ms
      WHEN judged.state IN (0, 1) AND NOT again THEN #{SQL.to_database("judged.next_at_ms")} END,
    finished_at_ms = CASE WHEN NOT moves THEN delivery.finished_at_ms
      WHEN judged.state >= 2 AND NOT again THEN (SELECT now_ms FROM clock) END,
    owner = CASE WHEN lets_go THEN NULL WHEN NOT moves OR judged.state = 0 THEN delivery.owner END
  FROM judged WHERE delivery.id = judged.id AND (moves OR lets_go OR number > was_attempts)
  """

  @spec record(Store.Ecto.handle(), [Attempt.t()]) :: :ok | {:error, term()}
  def record(store, attempts) do
    with :ok <- Columns.numbered(attempts),
         {:ok, rows} <- Database.encode(attempts, &Rows.from_attempt/1) do
      rows
      |> rounds()
      |> Enum.flat_map(&SQL.chunks(&1, fn row -> size(row) end, @rows_max, @bytes_max))
      |> Enum.map(&{nil, @record, [store.clock.() | SQL.columns(&1, length(@given))]})
      |> Deliveries.write(store)
    end
  end

  @body_at Enum.find_index(@given, &(elem(&1, 0) == "response_body"))
  defp size(row), do: byte_size(Enum.at(row, @body_at))

  # The first attempt of every delivery, then the second ones, and so on. Each round is in
  # the order of ids, in which deliveries are locked.
  defp rounds(rows) do
    {numbered, _seen} =
      Enum.map_reduce(rows, %{}, fn [id | _] = row, seen ->
        {{Map.get(seen, id, 0), row}, Map.update(seen, id, 1, &(&1 + 1))}
      end)

    numbered
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.sort()
    |> Enum.map(fn {_round, rows} -> Enum.sort_by(rows, &hd/1) end)
  end
end
