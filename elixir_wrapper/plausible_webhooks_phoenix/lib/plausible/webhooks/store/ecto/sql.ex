defmodule Plausible.Webhooks.Store.Ecto.SQL do
  @moduledoc false
  # Pieces of the statements.
  #
  # Many rows travel as one array per column, so that a statement's text is the
  # same for any number of rows. A statement that moves deliveries locks them first
  # (`locked/2`), in the order of their ids: two statements can wait for each
  # other's rows only in one direction.
  #
  # Times. The database's clock decides. A node says what its own clock shows when
  # it calls; when the two are further apart than `@tolerated_ms`, every time that
  # the node has computed is moved by the difference. Closer than that it is left
  # alone: on the way and in the pool's queue time passes too, which must not be
  # taken for a clock that is wrong.
  #
  # Commits. Where the host, its role or its database does not wait for the disk
  # (`synchronous_commit = off`), ours do: what is accepted must not be gone after a
  # crash of the server, nor may an attempt be, whose delivery would be pending again
  # for an engine that is done with it. `clock/1` sets it for the one transaction, and
  # whatever writes evaluates that by `durably/0`: what nobody reads is not evaluated.

  @tolerated_ms 5_000
  @durable "CASE current_setting('synchronous_commit') WHEN 'off' " <>
             "THEN set_config('synchronous_commit', 'local', true) ELSE '' END IS NOT NULL"

  @type column :: {name :: String.t(), type :: String.t()}

  @doc "The database's clock, as SQL."
  @spec now_ms() :: String.t()
  def now_ms, do: "floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint"

  @doc """
  A table expression `clock` of one row: `now_ms`, and `skew_ms`, what has to be
  added to the calling node's times. The node's clock is parameter `at`. It has the
  transaction wait for the disk.
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

  @doc "A condition that always holds, for the rows that a statement with `clock/1` writes."
  @spec durably() :: String.t()
  def durably, do: "(SELECT now_ms FROM clock) IS NOT NULL"

  @doc "A node's time as the database's. Times far from any calendar stay as they are."
  @spec to_database(String.t()) :: String.t()
  def to_database(time), do: shifted(time, "+")

  @doc "And back."
  @spec to_node(String.t()) :: String.t()
  def to_node(time), do: shifted(time, "-")

  defp shifted(time, sign) do
    "CASE WHEN #{time} BETWEEN -4611686018427387904 AND 4611686018427387903 " <>
      "THEN #{time} #{sign} (SELECT skew_ms FROM clock) ELSE #{time} END"
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
  The rows of deliveries with the ids in parameter `at`, which are in order, as
  long as they fulfil the condition; locked one after the other in that order. Needs
  `clock/1`.

  A lateral subquery with a lock is never turned into another kind of join: each
  row is looked up by its id, however little the planner knows about the table.

  A condition on the state is to be one on `state + 0`. Otherwise a partial index may
  seem as good as that of the ids: what is pending, say, which the planner takes for
  little when it was little at the last look. Measured: all 20 000 of an owner read,
  for each id.
  """
  @spec locked(pos_integer(), String.t()) :: String.t()
  def locked(at, condition) do
    """
    locked AS MATERIALIZED (
      SELECT delivery.id FROM unnest($#{at}::text[]) AS given (id)
      CROSS JOIN LATERAL (
        SELECT id FROM PREFIX.webhook_deliveries AS candidate
        WHERE candidate.id = given.id AND (#{condition}) AND #{durably()}
        FOR UPDATE) AS delivery)
    """
  end

  @doc "The arrays of rows that are lists of values."
  @spec columns([[term()]], pos_integer()) :: [[term()]]
  def columns([], width), do: List.duplicate([], width)
  def columns(rows, _width), do: Enum.zip_with(rows, & &1)

  @doc """
  Splits rows into what one statement carries: at most so many of them, and bytes
  by `size`.
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
