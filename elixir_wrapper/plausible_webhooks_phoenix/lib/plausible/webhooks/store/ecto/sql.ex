defmodule Plausible.Webhooks.Store.Ecto.SQL do
  @moduledoc false
  # Parts of the statements.
  #
  # Rows are passed as one array per column, so that the text of a statement is the same for
  # any number of rows. A statement that moves deliveries locks them first (`locked/2`), in
  # the order of their ids, so two statements wait for each other's rows in one direction
  # only.
  #
  # Times: the database's clock decides. A node passes the time by its own clock. When the
  # two clocks differ by more than `@tolerated_ms`, every time that the node computed is
  # shifted by the difference. A smaller difference is ignored: time also passes on the way
  # and in the pool's queue, and must not be taken for a wrong clock.
  #
  # Commits: where the host, its role or its database does not wait for the disk
  # (`synchronous_commit = off`), ours do. An accepted delivery must survive a crash of the
  # server; so must an attempt, whose delivery would otherwise be pending again for an engine
  # that is done with it. `clock/1` sets this for the one transaction. A statement that writes
  # evaluates it by `durably/0`, because PostgreSQL skips expressions that nobody reads.

  alias Plausible.Webhooks.Migrations.V01

  @tolerated_ms 5_000
  @durable "CASE current_setting('synchronous_commit') WHEN 'off' " <>
             "THEN set_config('synchronous_commit', 'local', true) ELSE '' END IS NOT NULL"

  @type column :: {name :: String.t(), type :: String.t()}

  @doc "The database's clock, as SQL."
  @spec now_ms() :: String.t()
  def now_ms, do: "floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint"

  @doc """
  A table expression `clock` of one row: `now_ms`, and `skew_ms`, which is to be added to
  the calling node's times. The node's time is parameter `at`. Makes the transaction wait
  for the disk.
  """
  @spec clock(pos_integer()) :: String.t()
  def clock(at) do
    """
    clock AS MATERIALIZED (
      SELECT now_ms, CASE WHEN abs(now_ms - $#{at}::bigint) > #{@tolerated_ms}
        THEN now_ms - $#{at}::bigint ELSE 0 END AS skew_ms
      FROM (SELECT #{now_ms()} AS now_ms) AS shown WHERE #{@durable})
    """
  end

  @doc "A condition that is always true, for the rows that a statement with `clock/1` writes."
  @spec durably() :: String.t()
  def durably, do: "(SELECT now_ms FROM clock) IS NOT NULL"

  @doc """
  The condition of the indexes of open deliveries: every delivery that no 2xx has ended. The
  planner uses the index only when the condition is word for word the same.
  """
  @spec open() :: String.t()
  defdelegate open(), to: V01

  @doc "A node's time as the database's. Times far from any calendar stay as they are."
  @spec to_database(String.t()) :: String.t()
  def to_database(time), do: shifted(time, "+")

  @doc "The database's time as a node's."
  @spec to_node(String.t()) :: String.t()
  def to_node(time), do: shifted(time, "-")

  defp shifted(time, sign) do
    "CASE WHEN #{time} BETWEEN -4611686018427387904 AND 4611686018427387903 " <>
      "THEN #{time} #{sign} (SELECT skew_ms FROM clock) ELSE #{time} END"
  end

  @doc """
  The columns as SQL, with every time (`_ms`) as the database's. Needs `clock/1`.
  """
  @spec written([column()]) :: String.t()
  def written(columns), do: times(columns, &to_database/1)

  @doc "The columns as SQL, with every time as the node's."
  @spec shown([column()]) :: String.t()
  def shown(columns), do: times(columns, &to_node/1)

  defp times(columns, fun) do
    Enum.map_join(columns, ", ", fn {name, _type} ->
      if String.ends_with?(name, "_ms"), do: "#{fun.(name)} AS #{name}", else: name
    end)
  end

  @doc "One row of parameters, the first of which is parameter `at`."
  @spec values([column()], pos_integer()) :: String.t()
  def values(columns, at) do
    columns
    |> Enum.with_index(at)
    |> Enum.map_join(", ", fn {{name, type}, at} -> "$#{at}::#{type} AS #{name}" end)
  end

  @doc "Rows from arrays, the first of which is parameter `at`: `unnest(...) AS given (...)`."
  @spec given([column()], pos_integer()) :: String.t()
  def given(columns, at) do
    arrays = columns |> Enum.with_index(at) |> Enum.map_join(", ", &array/1)
    "unnest(#{arrays}) AS given (#{names(columns)})"
  end

  defp array({{_name, type}, at}), do: "$#{at}::#{type}[]"

  @spec names([column()]) :: String.t()
  def names(columns), do: Enum.map_join(columns, ", ", &elem(&1, 0))

  @doc """
  Id and owner of the deliveries with the ids in parameter `at`, which are in order, that meet
  the condition; locked one after the other in that order. A table expression of that name;
  needs `clock/1`.

  The planner never turns a lateral subquery with a lock into another kind of join, so each
  row is looked up by its id, however little the planner knows about the table.

  A condition on the state must be one on `state + 0`. Otherwise a partial index, for
  example of pending deliveries, may look as good as the index of ids when it was small at
  the last ANALYZE. Measured: all 20 000 deliveries of an owner read for each id.
  """
  @spec locked(String.t(), pos_integer(), String.t()) :: String.t()
  def locked(name, at, condition) do
    """
    #{name} AS MATERIALIZED (
      SELECT delivery.id, delivery.owner FROM unnest($#{at}::text[]) AS given (id)
      CROSS JOIN LATERAL (
        SELECT id, owner FROM PREFIX.webhook_deliveries AS candidate
        WHERE candidate.id = given.id AND (#{condition}) AND #{durably()}
        FOR UPDATE) AS delivery)
    """
  end

  @doc """
  Whether the owner has pending deliveries.

  The order is that of the index, and OFFSET keeps it. Without the order the planner may
  read the whole table for an owner without pending deliveries, because it expects to find
  one soon. Without OFFSET it may turn the check of each owner into a search through
  everything pending.
  """
  @spec has_pending(String.t()) :: String.t()
  def has_pending(owner) do
    """
    EXISTS (SELECT 1 FROM PREFIX.webhook_deliveries AS candidate
      WHERE candidate.state = 0 AND candidate.owner = #{owner}
      ORDER BY candidate.owner, coalesce(candidate.next_at_ms, candidate.created_at_ms) OFFSET 0)
    """
  end

  @doc "The arrays of rows that are lists of values."
  @spec columns([[term()]], pos_integer()) :: [[term()]]
  def columns([], width), do: List.duplicate([], width)
  def columns(rows, _width), do: Enum.zip_with(rows, & &1)

  @doc """
  Splits rows into batches of one statement each, by their number and their bytes (`size`).
  """
  @spec chunks([row], (row -> non_neg_integer()), pos_integer(), pos_integer()) :: [[row]]
        when row: term()
  def chunks(rows, size, rows_max, bytes_max) do
    Enum.chunk_while(
      rows,
      {[], 0, 0},
      fn row, {chunk, count, bytes} ->
        bytes = bytes + size.(row)

        if count + 1 >= rows_max or bytes >= bytes_max,
          do: {:cont, Enum.reverse([row | chunk]), {[], 0, 0}},
          else: {:cont, {[row | chunk], count + 1, bytes}}
      end,
      fn
        {[], 0, 0} -> {:cont, {[], 0, 0}}
        {chunk, _count, _bytes} -> {:cont, Enum.reverse(chunk), {[], 0, 0}}
      end
    )
  end
end
