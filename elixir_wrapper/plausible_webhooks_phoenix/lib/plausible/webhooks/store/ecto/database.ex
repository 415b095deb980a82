defmodule Plausible.Webhooks.Store.Ecto.Database do
  @moduledoc false
  # Statements through the host's Repo, which never raise.
  #
  # Every write is one statement, and therefore a transaction by itself: a node that hangs
  # cannot leave a BEGIN open with locks that others wait for, and a write is one round
  # trip. Only writes that are too large for one statement, or that need a lock first, run
  # in a transaction of several.
  #
  # An error says whether something may have been written:
  #   :connection_lost, :timeout   unknown; the connection ended in the middle
  #   everything else              nothing was
  # {:postgres, code} blames the values, {:away, code} does not.
  #
  # Deadlocks and serialization failures are retried here. There should be none, because
  # locks are taken in the order of ids or not waited for. But other code shares the
  # database, and SKIP LOCKED does wait when a row's changer commits at that moment and the
  # next one has the row already (heap_lock_updated_tuple).
  #
  # Messages and details of errors quote values, so neither leaves this module.

  alias Plausible.Webhooks.Store

  @type store :: Store.Ecto.handle()
  @type result :: {:ok, [[term()]]} | {:error, term()}
  @typedoc """
  The name of a statement. A named statement stays prepared on each connection; `nil` has it
  planned anew each time.

  Only statements that look nothing up in a table have a name. PostgreSQL soon settles on
  one plan for a prepared statement, and reconsiders it only when the table is analyzed. On
  a table that has grown since, every lookup would read all of it: 200 ms instead of 8 were
  measured for a batch of 80 attempts beside 300 000 deliveries.
  """
  @type name :: atom() | nil

  @tries 6
  @pause_ms 10

  @doc """
  Runs one statement, in which `PREFIX` stands for the schema. Returns its rows.
  """
  @spec query(store(), name(), String.t(), [term()]) :: result()
  def query(store, name, sql, params) do
    guarded(store, @tries, fn -> execute(store, name, sql, params) end)
  end

  @doc "Runs one statement for its effect."
  @spec run(store(), name(), String.t(), [term()]) :: :ok | {:error, term()}
  def run(store, name, sql, params),
    do: with({:ok, _rows} <- query(store, name, sql, params), do: :ok)

  @doc "Runs one statement. Returns each row as `fun` maps it."
  @spec all(store(), String.t(), [term()], ([term()] -> item)) :: {:ok, [item]} | {:error, term()}
        when item: term()
  def all(store, sql, params, fun),
    do: with({:ok, rows} <- query(store, nil, sql, params), do: {:ok, Enum.map(rows, fun)})

  @doc """
  Runs `fun` in a transaction. It calls `query!/4`, which rolls back on an error.
  """
  @spec transaction(store(), (() -> term())) :: {:ok, term()} | {:error, term()}
  def transaction(%{repo: repo} = store, fun) do
    guarded(store, @tries, fn -> repo.transaction(fun, options(store)) end)
  end

  @doc "Within `transaction/2`: the rows of one statement."
  @spec query!(store(), name(), String.t(), [term()]) :: [[term()]]
  def query!(%{repo: repo} = store, name, sql, params) do
    case execute(store, name, sql, params) do
      {:ok, rows} -> rows
      {:error, reason} -> repo.rollback(reason)
    end
  end

  @doc """
  Encodes the rows; `{:error, :invalid_value}` for a value of another type.
  """
  @spec encode([term()], (term() -> [term()])) :: {:ok, [[term()]]} | {:error, :invalid_value}
  def encode(rows, encode) do
    {:ok, Enum.map(rows, encode)}
  rescue
    _error -> {:error, :invalid_value}
  end

  defp execute(%{repo: repo} = store, name, sql, params) do
    sql = String.replace(sql, "PREFIX", store.prefix)

    with {:ok, %{rows: rows}} <- repo.query(sql, params, cached(name, sql) ++ options(store)),
         do: {:ok, rows || []}
  end

  # The text is part of the name: the same Repo may serve two schemas, or a newer version
  # of this module after a code upgrade.
  defp cached(nil, _sql), do: []
  defp cached(name, sql), do: [cache_statement: "webhooks_#{name}_#{:erlang.phash2(sql)}"]

  # No log: bodies must not reach the host's debug log.
  defp options(store),
    do: [timeout: store.timeout_ms, log: false, telemetry_options: [plausible_webhooks: true]]

  # --- errors

  defp guarded(store, tries, fun) do
    started = System.monotonic_time(:millisecond)

    result =
      try do
        fun.()
      rescue
        error -> {:error, error}
      catch
        :exit, _reason -> {:error, :connection_lost}
      end

    with {:error, error} <- result do
      reason = reason(error, System.monotonic_time(:millisecond) - started, store)

      if tries > 1 and retry?(reason) and not within_transaction?(store) do
        Process.sleep(:rand.uniform(@pause_ms * (@tries - tries + 1)))
        guarded(store, tries - 1, fun)
      else
        {:error, reason}
      end
    end
  end

  # Nothing was written, and another try may succeed.
  defp retry?({:away, code}), do: code in [:deadlock_detected, :serialization_failure]
  defp retry?(_reason), do: false

  @doc "Whether the caller is inside a transaction of the host."
  @spec in_transaction?(store()) :: boolean()
  def in_transaction?(store), do: in_transaction?(store, false)

  # A transaction of the host has failed with our statement, so there is no retry. Nor is
  # there one when the Repo cannot tell.
  defp within_transaction?(store), do: in_transaction?(store, true)

  defp in_transaction?(%{repo: repo}, unknown) do
    repo.in_transaction?()
  rescue
    _error -> unknown
  end

  defp reason(%DBConnection.ConnectionError{} = error, elapsed_ms, store) do
    cond do
      # Nothing was sent without a connection.
      Map.get(error, :reason) == :queue_timeout -> :queue_timeout
      elapsed_ms >= store.timeout_ms -> :timeout
      true -> :connection_lost
    end
  end

  # Both say that the connection is gone, and not when: admin_shutdown ends a commit that
  # waits for a standby after it is on disk.
  defp reason(%Postgrex.Error{postgres: %{pg_code: "57P" <> _}}, _ms, _store),
    do: :connection_lost

  defp reason(%Postgrex.Error{postgres: %{pg_code: "08" <> _}}, _ms, _store),
    do: :connection_lost

  defp reason(%Postgrex.Error{postgres: %{code: :statement_completion_unknown}}, _ms, _store),
    do: :connection_lost

  # After the timeout the driver cancels the statement, and the server may answer before the
  # connection is closed.
  defp reason(%Postgrex.Error{postgres: %{code: :query_canceled}}, elapsed_ms, store)
       when elapsed_ms >= store.timeout_ms,
       do: :timeout

  defp reason(%Postgrex.Error{postgres: %{code: :disk_full}}, _ms, _store), do: :disk_full

  defp reason(%Postgrex.Error{postgres: %{code: :read_only_sql_transaction}}, _ms, _store),
    do: :read_only

  defp reason(%Postgrex.Error{postgres: %{code: code, constraint: constraint}}, _ms, _store)
       when is_binary(constraint),
       do: {:postgres, code, constraint}

  # Data exceptions, constraint violations, and rows that are too large.
  defp reason(%Postgrex.Error{postgres: %{pg_code: <<class::binary-2, _::binary>>} = error}, _, _)
       when class in ["22", "23", "54"],
       do: {:postgres, error.code}

  defp reason(%Postgrex.Error{postgres: %{code: code}}, _ms, _store), do: {:away, code}
  defp reason(%Postgrex.Error{}, _ms, _store), do: :connection_lost
  defp reason(%DBConnection.EncodeError{}, _ms, _store), do: :invalid_value
  # Raised by a Repo that is not running, and for values of the wrong type.
  defp reason(error, _ms, _store) when is_exception(error), do: {:raised, error.__struct__}
  defp reason(reason, _ms, _store), do: reason
end
