defmodule Plausible.Webhooks.Store.Ecto.Record do
  @moduledoc false
  # Writes attempts, which move their deliveries.
  #
  # A statement takes at most one attempt of each delivery, so the rule of the record
  # callback is an expression over two rows. Several attempts of one delivery in a batch,
  # which is rare, go into several statements of one transaction. The first of them locks
  # every delivery of the batch.

  alias Plausible.Webhooks.{Attempt, Store}
  alias Plausible.Webhooks.Store.Ecto.{Database, Deliveries, Rows, SQL}

  # More than an engine ever reaches, and within the column's range.
  @number_max 1_048_575
  @rows_max 1_000
  @bytes_max 16 * 1_048_576

  @columns Rows.attempt()
  @given Rows.recorded()

  # `was_*` is the locked delivery, the rest is the attempt. The lateral subquery looks each
  # delivery up by its id: see SQL.locked/2. `recorded` are the attempts of before this
  # statement.
  @record """
  WITH #{SQL.clock(1)},
  pair AS MATERIALIZED (
    SELECT given.*, was.* FROM #{SQL.given(@given, 2)}
    CROSS JOIN LATERAL (
      SELECT seq, state AS was_state, attempts AS was_attempts, owner AS was_owner
      FROM PREFIX.webhook_deliveries AS candidate
      WHERE candidate.id = given.id AND #{SQL.durably()}
      FOR UPDATE) AS was),
  judged AS (
    SELECT pair.*, CASE WHEN was_state <= 1
      THEN state = 2 OR number = 0 OR number > was_attempts
      ELSE state = 2 AND was_state <> 2 END AS moves,
      CASE WHEN was_state = 0 AND state IN (1, 3, 4) AND number BETWEEN 1 AND was_attempts
          AND was_owner = reporter
        THEN NOT EXISTS (
          SELECT 1 FROM PREFIX.webhook_attempts AS recorded
          WHERE recorded.seq = pair.seq AND recorded.number = pair.number
            AND recorded.state = pair.state
            AND recorded.total_us IS NOT DISTINCT FROM pair.total_us)
        ELSE false END AS lets_go
    FROM pair),
  written AS (
    INSERT INTO PREFIX.webhook_attempts (seq, #{SQL.names(@columns)})
    SELECT seq, #{SQL.written(@columns)} FROM pair WHERE number > 0
    ON CONFLICT (seq, number) DO NOTHING)
  UPDATE PREFIX.webhook_deliveries AS delivery SET
    state = CASE WHEN moves THEN judged.state ELSE delivery.state END,
    reason = CASE WHEN NOT moves THEN delivery.reason
      WHEN judged.state >= 3 THEN judged.reason END,
    attempts = greatest(delivery.attempts, number),
    last_status = CASE WHEN number > 0 AND (moves OR was_state <> 2)
      THEN judged.status ELSE delivery.last_status END,
    last_error = CASE WHEN number > 0 AND (moves OR was_state <> 2)
      THEN judged.error ELSE delivery.last_error END,
    next_at_ms = CASE WHEN NOT moves THEN delivery.next_at_ms
      WHEN judged.state <= 1 THEN #{SQL.to_database("judged.next_at_ms")} END,
    finished_at_ms = CASE WHEN NOT moves THEN delivery.finished_at_ms
      WHEN judged.state >= 2 THEN (SELECT now_ms FROM clock) END,
    owner = CASE WHEN lets_go THEN NULL WHEN NOT moves OR judged.state = 0 THEN delivery.owner END
  FROM judged WHERE delivery.id = judged.id AND (moves OR lets_go OR number > was_attempts)
  """

  @spec record(Store.Ecto.handle(), [Attempt.t()]) :: :ok | {:error, term()}
  def record(store, attempts) do
    with :ok <- numbered(attempts),
         {:ok, rows} <- Database.encode(attempts, &Rows.from_attempt/1) do
      rows
      |> rounds()
      |> Enum.flat_map(&SQL.chunks(&1, fn row -> size(row) end, @rows_max, @bytes_max))
      |> Enum.map(&{nil, @record, [store.clock.() | SQL.columns(&1, length(@given))]})
      |> Deliveries.write(store)
    end
  end

  defp numbered(attempts) do
    if Enum.all?(attempts, &(&1.number in 0..@number_max)),
      do: :ok,
      else: {:error, :invalid_attempt_number}
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
