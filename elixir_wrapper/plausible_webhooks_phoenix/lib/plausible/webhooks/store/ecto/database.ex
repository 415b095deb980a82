defmodule Plausible.Webhooks.Store.Ecto.Database do
  @moduledoc false
  # The host's Repo, asked so that nothing is raised.
  #
  # Every write is one statement, and so a transaction by itself: there is no
  # BEGIN that a node which hangs could leave open, with locks that others wait
  # for, and no second way to the database. Only what is too large for one
  # statement, and what needs a lock first, runs in a transaction of several.
  #
  # An error says whether something may have been written:
  #   :connection_lost, :timeout   not known; the connection went in the middle
  #   everything else              nothing was
  # and, with {:postgres, code}, that it is the values' fault, or, with {:away, code},
  # that it is not.
  # Deadlocks and serialization failures are tried again here. Locks are taken in
  # the order of ids, or not waited for, so there should be none. But the tables live
  # in a database where others may do what they like, and SKIP LOCKED does wait when
  # whoever has changed a row commits in that moment and the next one has the row
  # already (heap_lock_updated_tuple).
  #
  # Neither messages nor details of errors leave this module: they quote values.

  alias Plausible.Webhooks.Store

  @type store :: Store.Ecto.handle()
  @type result :: {:ok, [[term()]]} | {:error, term()}
  @typedoc """
  What a statement is called. A name keeps it prepared on each connection; `nil`
  has it planned anew each time.

  Only what looks nothing up in a table has a name. PostgreSQL soon settles on one
  plan for a prepared statement, and looks at it again only when the table is
  analyzed: on a table that was small then and has grown since, every lookup would
  read all of it. Measured: 200 ms in place of 8 for a batch of 80 attempts beside
  300 000 deliveries. A plan that is made now goes by the size of now.
  """
  @type name :: atom() | nil

  @tries 6
  @pause_ms 10

  @doc """
  Runs one statement, in which `PREFIX` stands for the schema. Its rows.
  """
  @spec query(store(), name(), String.t(), [term()]) :: result()
  def query(store, name, sql, params) do
    guarded(store, @tries, fn -> run(store, name, sql, params) end)
  end

  @doc """
  Runs `fun` in a transaction. It gets what it asks by `query!/4`, which ends the
  transaction where something is wrong.
  """
  @spec transaction(store(), (() -> term())) :: {:ok, term()} | {:error, term()}
  def transaction(%{repo: repo} = store, fun) do
    guarded(store, @tries, fn -> repo.transaction(fun, options(store)) end)
  end

  @doc "Within `transaction/2`: the rows of one statement."
  @spec query!(store(), name(), String.t(), [term()]) :: [[term()]]
  def query!(%{repo: repo} = store, name, sql, params) do
    case run(store, name, sql, params) do
      {:ok, rows} -> rows
      {:error, reason} -> repo.rollback(reason)
    end
  end

  @doc """
  What `encode` makes of the rows; an error for one that is not what its type says.
  """
  @spec encode([term()], (term() -> [term()])) :: {:ok, [[term()]]} | {:error, :invalid_value}
  def encode(rows, encode) do
    {:ok, Enum.map(rows, encode)}
  rescue
    _error -> {:error, :invalid_value}
  end

  defp run(%{repo: repo} = store, name, sql, params) do
    sql = String.replace(sql, "PREFIX", store.prefix)

    with {:ok, %{rows: rows}} <- repo.query(sql, params, cached(name, sql) ++ options(store)),
         do: {:ok, rows || []}
  end

  # The text is part of the name: the same Repo may serve two schemas, or a newer
  # version of this module after an upgrade in the running VM.
  defp cached(nil, _sql), do: []
  defp cached(name, sql), do: [cache_statement: "webhooks_#{name}_#{:erlang.phash2(sql)}"]

  # log: bodies must not be in the host's debug log.
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

      if tries > 1 and again?(reason) and not within_transaction?(store) do
        Process.sleep(:rand.uniform(@pause_ms * (@tries - tries + 1)))
        guarded(store, tries - 1, fun)
      else
        {:error, reason}
      end
    end
  end

  # Nothing was written, and the next time it may well be.
  defp again?({:away, code}), do: code in [:deadlock_detected, :serialization_failure]
  defp again?(_reason), do: false

  # The host's own transaction, if it calls us within one, has failed with us.
  @doc "Does the caller have a transaction of the host's open?"
  @spec in_transaction?(store()) :: boolean()
  def in_transaction?(store), do: in_transaction?(store, false)

  # When it cannot be told, nothing is tried again.
  defp within_transaction?(store), do: in_transaction?(store, true)

  defp in_transaction?(%{repo: repo}, unknown) do
    repo.in_transaction?()
  rescue
    _error -> unknown
  end

  defp reason(%DBConnection.ConnectionError{} = error, elapsed_ms, store) do
    cond do
      # Never got a connection, so nothing was sent.
      Map.get(error, :reason) == :queue_timeout -> :queue_timeout
      elapsed_ms >= store.timeout_ms -> :timeout
      true -> :connection_lost
    end
  end

  # Both say that the connection is gone, and not when: a commit that waits for a
  # standby is ended with admin_shutdown after it is on disk.
  defp reason(%Postgrex.Error{postgres: %{pg_code: "57P" <> _}}, _ms, _store),
    do: :connection_lost

  defp reason(%Postgrex.Error{postgres: %{pg_code: "08" <> _}}, _ms, _store),
    do: :connection_lost

  defp reason(%Postgrex.Error{postgres: %{code: :statement_completion_unknown}}, _ms, _store),
    do: :connection_lost

  # Whoever gives up waiting has the server told, which may answer before the
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

  # Data exceptions, violated constraints, and rows that are too large.
  defp reason(%Postgrex.Error{postgres: %{pg_code: <<class::binary-2, _::binary>>} = error}, _, _)
       when class in ["22", "23", "54"],
       do: {:postgres, error.code}

  defp reason(%Postgrex.Error{postgres: %{code: code}}, _ms, _store), do: {:away, code}
  defp reason(%Postgrex.Error{}, _ms, _store), do: :connection_lost
  defp reason(%DBConnection.EncodeError{}, _ms, _store), do: :invalid_value
  # What a Repo that is not running raises, and what was never meant to be stored.
  defp reason(error, _ms, _store) when is_exception(error), do: {:raised, error.__struct__}
  defp reason(reason, _ms, _store), do: reason
end
