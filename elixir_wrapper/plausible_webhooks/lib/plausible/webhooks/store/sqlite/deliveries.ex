defmodule Plausible.Webhooks.Store.SQLite.Deliveries do
  @moduledoc false
  # Deliveries are accepted, recorded, claimed, released, redelivered and cancelled. Log reads
  # pages of the log, Retention deletes.

  alias Plausible.Webhooks.Store.Columns
  alias Plausible.Webhooks.Store.SQLite.{Connection, Rows, Schema}

  @accepted Enum.zip(
              Columns.delivery() ++ ["body"],
              [:text, :text, :int, :text, :int, :int, :blob, :int, :int, :int, :int, :int] ++
                [:text, :int, :text, :int, :int, :blob]
            )
  @recorded Enum.zip(
              Schema.recorded(),
              [:text, :int, :int, :int, :text, :blob, :int, :int, :int, :int, :int, :int, :int] ++
                [:text, :blob, :blob, :int, :int, :int, :blob, :text, :int, :int, :int]
            )
  @id [{"id", :text}]

  @delivery Enum.join(Columns.delivery(), ", ")
  @body "(SELECT body FROM bodies WHERE delivery = seq)"
  @due "coalesce(next_at_ms, created_at_ms)"

  # Deliveries that one statement cancels, holds or sends: some ten milliseconds.
  @move_slice 1_000

  # --- in

  def accept(handle, deliveries) do
    now_ms = System.system_time(:millisecond)
    statement = "INSERT INTO accepted (#{Rows.names(@accepted)}) #{Rows.select(@accepted)}"

    write_all(
      handle,
      statement,
      Enum.map(deliveries, &Columns.from_delivery(&1, now_ms)),
      @accepted
    )
  end

  def record(handle, attempts) do
    now_ms = System.system_time(:millisecond)
    statement = "INSERT INTO recorded (#{Rows.names(@recorded)}) #{Rows.select(@recorded)}"

    with :ok <- Columns.numbered(attempts) do
      rows = Enum.map(attempts, &(Columns.from_attempt(&1) ++ [now_ms]))
      write_all(handle, statement, rows, @recorded)
    end
  end

  defp write_all(handle, statement, rows, columns) do
    case Rows.pack(rows, columns) do
      [] ->
        :ok

      chunks ->
        statements = Enum.map(chunks, &{statement, &1})
        with {:ok, _rows} <- Connection.write(handle.connection, statements), do: :ok
    end
  end

  @doc "Shortens longer waits to this time: such deliveries were parked while a clock was fast."
  def bring_forward(connection, at_ms) do
    statement = "UPDATE deliveries SET next_at_ms = ?1 WHERE state <= 1 AND next_at_ms > ?1"
    with {:ok, _rows} <- Connection.write(connection, [{statement, [at_ms]}]), do: :ok
  end

  # --- owners

  # Every owner of something pending, found by one step in the index per owner.
  @holders """
  WITH RECURSIVE holders (owner) AS (
    SELECT min(owner) FROM deliveries WHERE state <= 1 AND owner >= ''
    UNION ALL
    SELECT (SELECT min(owner) FROM deliveries WHERE state <= 1 AND owner > holders.owner)
    FROM holders WHERE holders.owner IS NOT NULL
  )
  """

  @live "EXISTS (SELECT 1 FROM owners WHERE owners.owner = ?1 AND until_ms > ?2)"

  # If another node has requested the redelivery, the retry schedule begins anew.
  @take "state = 0, owner = ?1, requested = 0, " <>
          "schedule_from = CASE WHEN requested THEN attempts ELSE schedule_from END, " <>
          "next_at_ms = CASE WHEN NOT requested THEN next_at_ms END"

  def claim(handle, owner, limit) do
    now_ms = System.system_time(:millisecond)

    dead =
      @holders <>
        """
        SELECT owner, coalesce(until_ms, 0) FROM holders LEFT JOIN owners USING (owner)
        WHERE owner NOT IN (?1, '#{Columns.suspects()}') AND coalesce(until_ms, 0) <= ?2
        """

    with {:ok, [dead]} <- Connection.read(handle.connection, [{dead, [owner, now_ms]}]),
         orphans = Enum.flat_map(dead, &orphans(&1, now_ms, limit)),
         statements = orphans ++ [{take(), [owner, now_ms, limit]}],
         {:ok, results} <- Connection.write(handle.connection, statements) do
      {:ok, results |> List.last() |> Enum.map(&with_body/1) |> in_turn()}
    end
  end

  # One more end, unless its owner said goodbye (?3 = 0) or it was not due.
  @ends "ends + (?3 > 0 AND #{@due} <= ?3)"

  # First the suspects of each dead owner are set apart, and its oldest due lose their owner, as
  # many as may be claimed. Then the oldest due without an owner are taken. So no statement
  # sorts more than it takes. A lease that was renewed in the meantime is respected.
  defp orphans({owner, until_ms}, now_ms, limit) do
    suspects = """
    UPDATE deliveries SET owner = '#{Columns.suspects()}', ends = #{@ends}
    WHERE NOT #{@live} AND seq IN (
      SELECT seq FROM deliveries INDEXED BY deliveries_ends
      WHERE owner = ?1 AND ends > 0 AND state = 0 AND #{@ends} > 1)
    """

    others = """
    UPDATE deliveries SET owner = NULL, ends = #{@ends} WHERE NOT #{@live} AND seq IN (
      SELECT seq FROM deliveries WHERE owner = ?1 AND state = 0 AND state <= 1
      ORDER BY #{@due} LIMIT ?4)
    """

    params = [owner, now_ms, until_ms]
    [{suspects, params}, {others, params ++ [limit]}]
  end

  defp take do
    """
    UPDATE deliveries SET #{@take} WHERE seq IN (
      SELECT seq FROM (
        SELECT * FROM (
          SELECT seq, #{@due} AS due FROM deliveries
          WHERE owner IS NULL AND state = 1 AND state <= 1 AND #{@due} <= ?2
          ORDER BY #{@due} LIMIT ?3)
        UNION ALL
        SELECT * FROM (
          SELECT seq, #{@due} AS due FROM deliveries
          WHERE owner IS NULL AND state = 0 AND state <= 1
          ORDER BY #{@due} LIMIT ?3)
      ) ORDER BY due, seq LIMIT ?3)
    RETURNING #{@delivery}, #{@body}
    """
  end

  def claim_suspect(handle, owner) do
    statement = """
    UPDATE deliveries SET #{@take} WHERE seq = (
      SELECT seq FROM deliveries INDEXED BY deliveries_ends
      WHERE owner = '#{Columns.suspects()}' AND ends > 0 AND state = 0
      ORDER BY ends, #{@due} LIMIT 1)
    AND NOT EXISTS (
      SELECT 1 FROM deliveries INDEXED BY deliveries_ends
      WHERE owner = ?1 AND ends > 0 AND state = 0 AND ends > 1)
    RETURNING #{@delivery}, ends, #{@body}
    """

    case Connection.write(handle.connection, [{statement, [owner]}]) do
      {:ok, [[row]]} -> {:ok, {with_body(row), elem(row, tuple_size(row) - 2)}}
      {:ok, [[]]} -> {:ok, nil}
      {:error, _reason} = error -> error
    end
  end

  def reclaim(handle, owner, from, limit) do
    statement = """
    UPDATE deliveries SET #{@take} WHERE seq IN (
      SELECT seq FROM deliveries WHERE owner = ?2 AND state = 0 AND state <= 1
      ORDER BY #{@due} LIMIT ?3)
    RETURNING #{@delivery}, #{@body}
    """

    with {:ok, [rows]} <-
           Connection.write(handle.connection, [{statement, [owner, from, limit]}]),
         do: {:ok, rows |> Enum.map(&with_body/1) |> in_turn()}
  end

  defp in_turn(deliveries),
    do: Enum.sort_by(deliveries, &{&1.next_at_ms || &1.created_at_ms, &1.id})

  def release(handle, owner, ids, next_at_ms) do
    statement = """
    UPDATE deliveries SET state = 1, owner = NULL, requested = 0, next_at_ms = ?4
    WHERE id IN (#{Rows.select(@id)}) AND state = 0 AND owner = ?3
    """

    statements = by_ids(statement, ids, [owner, next_at_ms])
    with {:ok, _results} <- write_some(handle, statements), do: :ok
  end

  def heartbeat(handle, owner, lease_ms) do
    statement = "INSERT OR REPLACE INTO owners (owner, until_ms) VALUES (?1, ?2)"
    params = [owner, if(lease_ms == 1, do: 0, else: System.system_time(:millisecond) + lease_ms)]
    with {:ok, _results} <- Connection.write(handle.connection, [{statement, params}]), do: :ok
  end

  # Kept with the leases of owners. The end of the lease is the token: nobody gets the lease
  # before the last one has ended, so no two tokens are the same.
  @take_lease """
  INSERT INTO owners (owner, until_ms) VALUES (?1, ?2)
  ON CONFLICT (owner) DO UPDATE SET until_ms = excluded.until_ms
  WHERE until_ms <= ?3 OR until_ms = ?4
  RETURNING until_ms
  """

  def take_lease(handle, name, lease_ms, token) do
    now_ms = System.system_time(:millisecond)
    params = ["lease/" <> name, now_ms + lease_ms, now_ms, token]

    case Connection.write(handle.connection, [{@take_lease, params}]) do
      {:ok, [[{until_ms}]]} -> {:ok, until_ms}
      {:ok, [[]]} -> {:error, :taken}
      {:error, _reason} = error -> error
    end
  end

  # --- redelivering, cancelling and holding

  # An expression is about the row as it was before the statement.
  @others """
  (state = 0 AND owner <> ?3 AND EXISTS (
    SELECT 1 FROM owners WHERE owners.owner = deliveries.owner AND until_ms > ?4))
  """

  def redeliver(handle, owner, ids, states) do
    statement = """
    UPDATE deliveries SET
      state = 0, owner = CASE WHEN #{@others} THEN owner ELSE ?3 END, requested = #{@others},
      schedule_from = attempts, manual = 1,
      next_at_ms = NULL, finished_at_ms = NULL, reason = NULL
    WHERE id IN (#{Rows.select(@id)}) AND state IN (#{codes(states)})
    RETURNING #{@delivery}, #{@body}
    """

    params = [owner, System.system_time(:millisecond)]

    with {:ok, results} <- write_some(handle, by_ids(statement, Enum.uniq(ids), params)),
         do:
           {:ok, results |> Enum.concat() |> Enum.map(&with_body/1) |> Columns.taken(owner, ids)}
  end

  defp codes(states), do: Enum.map_join(states, ", ", &elem(Columns.state_code(&1), 1))

  def requested(handle, owner, limit) do
    statement = "SELECT id FROM deliveries WHERE requested AND owner = ?1 LIMIT ?2"

    with {:ok, [rows]} <- Connection.read(handle.connection, [{statement, [owner, limit]}]),
         do: {:ok, Enum.map(rows, &elem(&1, 0))}
  end

  defp by_ids(statement, ids, more) do
    for params <- ids |> Enum.map(&[&1]) |> Rows.pack(@id), do: {statement, params ++ more}
  end

  defp write_some(_handle, []), do: {:ok, []}
  defp write_some(handle, statements), do: Connection.write(handle.connection, statements)

  @paused "EXISTS (SELECT 1 FROM webhooks WHERE webhooks.id = webhook_id AND NOT enabled)"

  def cancel_waiting(handle, webhook_id, reason) do
    set = "state = 4, reason = ?3, finished_at_ms = ?1"
    move(handle, set, "webhook_id = ?2", [webhook_id, {:blob, reason}])
  end

  def hold_waiting(handle, webhook_id) do
    which = "webhook_id = ?2 AND state >= 0 AND retry AND #{@paused}"
    move(handle, "state = -1", which, [webhook_id])
  end

  def send_held(handle) do
    which = "owner IS NULL AND state = -1 AND NOT #{@paused}"
    move(handle, "state = 1, schedule_from = attempts", which, [])
  end

  # Moves waiting deliveries that are in no engine.
  defp move(handle, set, which, params) do
    statement = """
    UPDATE deliveries SET #{set}, owner = NULL, requested = 0, next_at_ms = NULL
    WHERE seq IN (
      SELECT seq FROM deliveries INDEXED BY deliveries_waiting
      WHERE state <= 1 AND #{which} AND NOT EXISTS (
        SELECT 1 FROM owners WHERE owners.owner = deliveries.owner AND until_ms > ?1)
      LIMIT #{@move_slice})
    RETURNING 1
    """

    params = [System.system_time(:millisecond) | params]
    Connection.write_slices(handle.connection, {statement, params}, @move_slice)
  end

  # --- out

  def get_delivery(handle, id) do
    statement = {"SELECT #{@delivery}, #{@body} FROM deliveries WHERE id = ?1", [id]}

    case Connection.read(handle.connection, [statement]) do
      {:ok, [[row]]} -> {:ok, with_body(row)}
      {:ok, [[]]} -> {:error, :not_found}
      {:error, _reason} = error -> error
    end
  end

  def attempts(handle, id) do
    columns = Enum.map_join(Columns.attempt(), ", ", &"attempts.#{&1}")

    statement = """
    SELECT deliveries.webhook_id, #{Schema.number_of("key")}, #{columns}
    FROM deliveries JOIN attempts ON attempts.#{Schema.attempts_of("deliveries.seq")}
    WHERE deliveries.id = ?1 ORDER BY key >> 4, started_at_ms
    """

    with {:ok, [rows]} <- Connection.read(handle.connection, [{statement, [id]}]),
         do: {:ok, Enum.map(rows, &Columns.to_attempt(Tuple.to_list(&1), id))}
  end

  def counts(handle) do
    oldest = fn where ->
      "(SELECT #{@due} FROM deliveries WHERE state <= 1 AND #{where} ORDER BY #{@due} LIMIT 1)"
    end

    due =
      @holders <>
        """
        SELECT min(due) FROM (
          SELECT #{oldest.("owner IS NULL AND state = 0")} AS due
          UNION ALL SELECT #{oldest.("owner IS NULL AND state = 1")}
          UNION ALL SELECT #{oldest.("owner = holders.owner AND state = 0")} FROM holders)
        """

    statements = [{"SELECT state, n FROM state_counts", []}, {due, []}]

    with {:ok, [counts, [{due}]]} <- Connection.read(handle.connection, statements) do
      counts = Map.new(counts, fn {code, n} -> {Columns.state_name(code), n} end)
      {:ok, Map.put(counts, :oldest_due_ms, due)}
    end
  end

  @doc "The columns of a delivery without body, in the order that `delivery/1` takes."
  def columns, do: @delivery

  @doc "The delivery of a row of `columns/0`; further values are ignored."
  def delivery(row), do: row |> Tuple.to_list() |> Columns.to_delivery()

  defp with_body(row), do: %{delivery(row) | body: elem(row, tuple_size(row) - 1)}
end
