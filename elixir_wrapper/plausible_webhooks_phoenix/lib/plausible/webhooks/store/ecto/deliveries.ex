defmodule Plausible.Webhooks.Store.Ecto.Deliveries do
  @moduledoc false
  # Deliveries are accepted, cancelled, held, read and counted. Record moves them by attempts,
  # Claims changes their owners, Log pages through them, Retention deletes them.

  alias Plausible.Webhooks.{Attempt, Delivery, Store, Webhook}
  alias Plausible.Webhooks.Store.Columns
  alias Plausible.Webhooks.Store.Ecto.{Database, Rows, SQL, Text}

  @type store :: Store.Ecto.handle()

  # The limits of one statement. A larger batch takes several, in one transaction.
  @rows_max 1_000
  @bytes_max 16 * 1_048_576
  @move_slice 1_000

  @columns Rows.delivery()
  @names SQL.names(@columns)
  @given Rows.delivery_and_body()

  # --- accept

  @expressions Enum.map_join(@columns, ", ", fn
                 {name, _type} when name in ~w(created_at_ms next_at_ms) ->
                   SQL.to_database(name)

                 {"finished_at_ms", _type} ->
                   "CASE WHEN state >= 2 THEN " <>
                     "coalesce(#{SQL.to_database("finished_at_ms")}, " <>
                     "(SELECT now_ms FROM clock)) END"

                 {name, _type} ->
                   name
               end)

  # An owner is registered with its first delivery, so that claims find owners without a
  # lease without a search through everything pending.
  @accept """
  WITH #{SQL.clock(1)},
  sequence AS MATERIALIZED (
    SELECT pg_get_serial_sequence('PREFIX.webhook_deliveries', 'seq')::regclass AS name),
  given AS MATERIALIZED (
    SELECT nextval(sequence.name) AS seq, given.*
    FROM sequence, #{SQL.given(@given, 2)} WHERE #{SQL.durably()}),
  owners AS (
    INSERT INTO PREFIX.webhook_owners (owner, until_ms)
    SELECT DISTINCT owner, 0 FROM given WHERE owner IS NOT NULL ON CONFLICT DO NOTHING),
  inserted AS (
    INSERT INTO PREFIX.webhook_deliveries (seq, #{@names})
    SELECT seq, #{@expressions} FROM given
    ON CONFLICT (id) DO NOTHING RETURNING seq)
  INSERT INTO PREFIX.webhook_bodies (seq, body)
  SELECT seq, body FROM given WHERE seq IN (SELECT seq FROM inserted)
  """

  # In the order of ids: an insert waits for an uncommitted insert of the same id, and two
  # must not wait for each other.
  @spec accept(store(), [Delivery.t()]) :: :ok | {:error, term()}
  def accept(store, deliveries) do
    with {:ok, rows} <- Database.encode(deliveries, &Rows.from_delivery/1) do
      rows
      |> Enum.uniq_by(&hd/1)
      |> Enum.sort_by(&hd/1)
      |> SQL.chunks(&byte_size(List.last(&1)), @rows_max, @bytes_max)
      |> Enum.map(&{:accept, @accept, [store.clock.() | SQL.columns(&1, length(@given))]})
      |> write(store)
    end
  end

  @doc "Runs statements as one transaction."
  @spec write([{Database.name(), String.t(), [term()]}], store()) :: :ok | {:error, term()}
  def write([], _store), do: :ok

  def write([{name, sql, params}], store), do: Database.run(store, name, sql, params)

  def write(statements, store) do
    result =
      Database.transaction(store, fn ->
        for {name, sql, params} <- statements, do: Database.query!(store, name, sql, params)
      end)

    with {:ok, _results} <- result, do: :ok
  end

  # --- cancel and hold

  # Waiting deliveries that are in no engine. A slice is chosen first and then locked in the
  # order of ids. Deliveries that move between the two are left alone. For `state + 0` see
  # SQL.locked/2. A webhook is locked against a change while its deliveries are held.
  @move """
  WITH #{SQL.clock(1)},
  paused AS MATERIALIZED (
    SELECT id FROM PREFIX.webhooks WHERE NOT enabled AND HELD FOR SHARE),
  chosen AS MATERIALIZED (
    SELECT id FROM PREFIX.webhook_deliveries
    WHERE WHICH AND #{SQL.open()} AND NOT EXISTS (
      SELECT 1 FROM PREFIX.webhook_owners
      WHERE webhook_owners.owner = webhook_deliveries.owner
        AND until_ms > (SELECT now_ms FROM clock))
    LIMIT #{@move_slice}),
  locked AS MATERIALIZED (
    SELECT delivery.id FROM (SELECT id FROM chosen ORDER BY id) AS chosen
    CROSS JOIN LATERAL (
      SELECT id FROM PREFIX.webhook_deliveries AS candidate
      WHERE candidate.id = chosen.id AND candidate.state + 0 STATES FOR UPDATE) AS delivery),
  moved AS (
    UPDATE PREFIX.webhook_deliveries AS delivery SET
      FIELDS, owner = NULL, requested = false, next_at_ms = NULL
    FROM locked WHERE delivery.id = locked.id AND #{SQL.durably()} RETURNING 1)
  SELECT (SELECT count(*) FROM chosen), (SELECT count(*) FROM moved)
  """

  moving = fn parts ->
    Enum.reduce(parts, @move, fn {name, sql}, text -> String.replace(text, name, sql) end)
  end

  @cancel moving.(%{
            "HELD" => "false",
            "WHICH" => "webhook_id = $2 AND state <= 1",
            "STATES" => "<= 1",
            "FIELDS" => "state = 4, reason = $3, finished_at_ms = #{SQL.now_ms()}"
          })

  @hold moving.(%{
          "HELD" => "id = $2",
          "WHICH" =>
            "webhook_id = $2 AND state BETWEEN 0 AND 1 AND retry AND EXISTS (SELECT 1 FROM paused)",
          "STATES" => "BETWEEN 0 AND 1",
          "FIELDS" => "state = -1"
        })

  @send moving.(%{
          "HELD" => "false",
          "WHICH" =>
            "state = -1 AND NOT EXISTS (SELECT 1 FROM PREFIX.webhooks " <>
              "WHERE webhooks.id = webhook_id AND NOT enabled)",
          "STATES" => "= -1",
          "FIELDS" => "state = 1, schedule_from = delivery.attempts"
        })

  @spec cancel_waiting(store(), Webhook.id(), String.t()) ::
          {:ok, non_neg_integer()} | {:error, term()}
  def cancel_waiting(store, webhook_id, reason),
    do: move(store, @cancel, [Text.encode(webhook_id), Text.encode(reason)])

  @spec hold_waiting(store(), Webhook.id()) :: {:ok, non_neg_integer()} | {:error, term()}
  def hold_waiting(store, webhook_id), do: move(store, @hold, [Text.encode(webhook_id)])

  @spec send_held(store()) :: {:ok, non_neg_integer()} | {:error, term()}
  def send_held(store), do: move(store, @send, [])

  defp move(store, sql, params, done \\ 0) do
    with {:ok, [[chosen, moved]]} <- Database.query(store, nil, sql, [store.clock.() | params]) do
      if chosen == @move_slice,
        do: move(store, sql, params, done + moved),
        else: {:ok, done + moved}
    end
  end

  # --- read

  @get """
  SELECT #{@names}, body FROM PREFIX.webhook_deliveries
  LEFT JOIN PREFIX.webhook_bodies USING (seq) WHERE id = $1
  """

  @spec get_delivery(store(), String.t()) :: {:ok, Delivery.t()} | {:error, term()}
  def get_delivery(store, id) do
    with {:ok, rows} <-
           Database.all(store, @get, [Text.encode(id)], &Rows.to_delivery_with_body/1),
         do: if(rows == [], do: {:error, :not_found}, else: {:ok, hd(rows)})
  end

  @attempts """
  SELECT delivery.webhook_id, #{Enum.map_join(Rows.attempt(), ", ", &"attempt.#{elem(&1, 0)}")}
  FROM PREFIX.webhook_deliveries AS delivery JOIN PREFIX.webhook_attempts AS attempt USING (seq)
  WHERE delivery.id = $1 ORDER BY attempt.number, attempt.started_at_ms
  """

  @spec attempts(store(), String.t()) :: {:ok, [Attempt.t()]} | {:error, term()}
  def attempts(store, id) do
    Database.all(store, @attempts, [Text.encode(id)], &Rows.to_attempt(&1, id))
  end

  @due "coalesce(next_at_ms, created_at_ms)"

  # The oldest of each owner is one step into an index, and every owner of a pending
  # delivery is registered.
  @counts """
  SELECT #{Enum.map_join(-1..4, ", ", &"coalesce(sum(n) FILTER (WHERE state = #{&1}), 0)::bigint")},
    (SELECT min(due_ms) FROM (
      (SELECT #{@due} AS due_ms FROM PREFIX.webhook_deliveries
       WHERE state = 1 ORDER BY #{@due} LIMIT 1)
      UNION ALL
      (SELECT #{@due} FROM PREFIX.webhook_deliveries
       WHERE state = 0 AND owner IS NULL ORDER BY owner, #{@due} LIMIT 1)
      UNION ALL
      SELECT oldest.due_ms FROM (
        SELECT owner FROM PREFIX.webhook_owners UNION ALL SELECT '#{Columns.suspects()}'
      ) AS webhook_owners CROSS JOIN LATERAL (
        SELECT #{@due} AS due_ms FROM PREFIX.webhook_deliveries AS delivery
        WHERE delivery.state = 0 AND delivery.owner = webhook_owners.owner
        ORDER BY #{@due} LIMIT 1) AS oldest) AS waiting)
  FROM PREFIX.webhook_counts
  """

  @spec counts(store()) :: {:ok, map()} | {:error, term()}
  def counts(store) do
    with {:ok, [row]} <- Database.query(store, nil, @counts, []) do
      keys = ~w(held pending parked delivered failed cancelled oldest_due_ms)a
      {:ok, keys |> Enum.zip(row) |> Map.new()}
    end
  end
end
