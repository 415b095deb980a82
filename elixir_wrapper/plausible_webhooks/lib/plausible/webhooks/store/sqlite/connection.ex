defmodule Plausible.Webhooks.Store.SQLite.Connection do
  @moduledoc false
  # The one process that speaks to the database file, through the NIF of Native.
  #
  # There is one connection and no second one for reading, because the first one locks the
  # file exclusively. So every statement is short: long work runs in slices, and other
  # requests run in between.
  #
  # A statement runs on a dirty IO scheduler, of which the VM has ten. When this
  # process is killed in the middle of one, SQLite is interrupted and lets go of
  # the file a moment later; until then its successor finds it locked.

  use GenServer

  alias Plausible.Webhooks.Runtime.NativeLibrary
  alias Plausible.Webhooks.Store.SQLite.{Native, Schema}
  alias Plausible.Webhooks.Vault

  @type statement :: {iodata(), [Native.param()]}
  @type server :: GenServer.server()

  # How long a caller waits. An older request is not begun any more.
  @timeout_ms 30_000
  @int64_max 9_223_372_036_854_775_807

  @doc "Runs the statements as one transaction. The rows of each."
  @spec write(server(), [statement()]) :: {:ok, [[tuple()]]} | {:error, term()}
  def write(server, statements), do: call(server, {:write, statements})

  @doc """
  Runs the statement again and again, each time as a transaction, until it returns
  fewer rows than `slice`. Returns the number of all rows.
  """
  @spec write_slices(server(), statement(), pos_integer()) ::
          {:ok, non_neg_integer()} | {:error, term()}
  def write_slices(server, statement, slice), do: write_slices(server, statement, slice, 0)

  defp write_slices(server, statement, slice, done) do
    with {:ok, [rows]} <- write(server, [statement]) do
      case length(rows) do
        ^slice -> write_slices(server, statement, slice, done + slice)
        rest -> {:ok, done + rest}
      end
    end
  end

  @doc "Runs the statements without those of other callers in between."
  @spec read(server(), [statement()]) :: {:ok, [[tuple()]]} | {:error, term()}
  def read(server, statements), do: call(server, {:read, statements})

  @doc """
  Writes a copy of the database to a file that does not exist yet. Other requests wait for it,
  and give up after #{div(@timeout_ms, 1_000)} s as ever.
  """
  @spec backup(server(), Path.t()) :: :ok | {:error, term()}
  def backup(server, path) do
    with :ok <- new_file(path) do
      case written(call(server, {:read, [{"VACUUM INTO ?1", [path]}]}, :infinity), path) do
        :ok ->
          :ok

        error ->
          _ = File.rm(path)
          error
      end
    end
  end

  # SQLite does not wait for the disk here.
  defp written({:ok, _rows}, path) do
    with {:ok, file} <- :file.open(path, [:read, :write, :raw]) do
      result = :file.sync(file)
      :ok = :file.close(file)
      said(result, {:file, path})
    end
  end

  defp written(error, _path), do: error

  @doc """
  Opens the file now, waiting up to `lock_timeout_ms` for another VM to let go of
  it. Requests open it by themselves, without waiting.
  """
  @spec open(server(), non_neg_integer()) :: :ok | {:error, term()}
  def open(server, lock_timeout_ms) do
    deadline_ms = System.monotonic_time(:millisecond) + lock_timeout_ms
    open_until(server, deadline_ms, 20)
  end

  # Asking again and again instead of SQLite's busy_timeout: that would sleep on a
  # dirty scheduler, which is not ours alone.
  defp open_until(server, deadline_ms, pause_ms) do
    with {:error, :locked} <- call(server, :open),
         true <- System.monotonic_time(:millisecond) + pause_ms < deadline_ms do
      Process.sleep(pause_ms)
      open_until(server, deadline_ms, min(2 * pause_ms, 500))
    else
      {:ok, []} -> :ok
      {:error, _reason} = error -> error
      false -> {:error, :locked}
    end
  end

  defp call(server, request, timeout_ms \\ @timeout_ms) do
    GenServer.call(server, {System.monotonic_time(:millisecond), request}, timeout_ms)
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, {:noproc, _call} -> {:error, :not_started}
    :exit, _reason -> {:error, :connection_lost}
  end

  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options) do
    GenServer.start_link(__MODULE__, options[:path], name: options[:name], hibernate_after: 60_000)
  end

  @doc false
  def child_spec(options) do
    # So that the supervisor does not kill it in the middle of a statement.
    %{id: __MODULE__, start: {__MODULE__, :start_link, [options]}, shutdown: 60_000}
  end

  # --- the process

  # leases: of owners that lived before this process did.
  @impl true
  def init(path) do
    Process.flag(:trap_exit, true)
    {:ok, %{path: path, db: nil, leases: :old}}
  end

  @impl true
  def handle_call({asked_at_ms, request}, _from, state) do
    if System.monotonic_time(:millisecond) - asked_at_ms >= @timeout_ms do
      {:reply, {:error, :timeout}, state}
    else
      case opened(state) do
        {:ok, state} ->
          {answer, state} = perform(request, state)
          {:reply, answer, state}

        {:error, reason} ->
          {:reply, {:error, reason}, state}
      end
    end
  end

  # The supervisor's exit goes to terminate/2. Exits of other linked processes are ignored.
  @impl true
  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state), do: close(state)

  # --- opening and closing

  defp opened(%{db: nil, path: path} = state) do
    with :ok <- load_native(),
         :ok <- make_file(path),
         {:ok, db} <- open_file(path) do
      run = fn sql -> execute(db, sql, []) end

      # Closed to others once it is known to be ours; its log inherits that.
      close_to_others = fn -> _ = File.chmod(path, 0o600) end

      with :ok <- Schema.open(run, close_to_others),
           :ok <- end_leases(run, state.leases) do
        {:ok, %{state | db: db, leases: :ours}}
      else
        error ->
          _ = Native.close(db)
          error
      end
    end
  end

  defp opened(state), do: {:ok, state}

  # No other node can have had the file open: an owner with an older lease is dead, or will
  # renew it in a moment. One that has something pending ended without a goodbye.
  defp end_leases(_run, :ours), do: :ok

  defp end_leases(run, :old) do
    forget = """
    DELETE FROM owners WHERE until_ms = 0 OR NOT EXISTS (
      SELECT 1 FROM deliveries WHERE deliveries.owner = owners.owner AND state = 0 AND state <= 1)
    """

    now_ms = System.system_time(:millisecond)

    with {:ok, _rows} <- run.(forget),
         {:ok, _rows} <- run.("UPDATE owners SET until_ms = min(until_ms, #{now_ms})"),
         do: :ok
  end

  defp load_native do
    with {:error, text} <- NativeLibrary.check(Native),
         do: {:error, {:sqlite_not_available, text}}
  end

  # Made here and not by SQLite: it would be readable by everyone for a moment.
  defp make_file(path) do
    folder = Path.dirname(path)

    with :ok <- said(Vault.make_folder(folder), {:folder, folder}) do
      case new_file(path) do
        # What is there may be somebody else's, named by mistake.
        {:error, {:file, ^path, :eexist}} ->
          if File.regular?(path), do: :ok, else: {:error, {:file, path, :not_a_regular_file}}

        result ->
          result
      end
    end
  end

  defp new_file(path) do
    case File.open(path, [:write, :exclusive, :raw]) do
      {:ok, file} ->
        :ok = File.close(file)
        said(File.chmod(path, 0o600), {:file, path})

      error ->
        said(error, {:file, path})
    end
  end

  defp said(:ok, _what), do: :ok
  defp said({:error, reason}, {kind, path}), do: {:error, {kind, path, reason}}

  defp open_file(path) do
    with {:error, _reason} <- Native.open(path), do: {:error, {:file, path, :cannot_open}}
  end

  defp close(%{db: nil} = state), do: state

  defp close(%{db: db} = state) do
    _ = Native.close(db)
    %{state | db: nil}
  end

  # --- statements

  defp perform(:open, state), do: {{:ok, []}, state}
  defp perform({:read, statements}, state), do: {each(state.db, statements, []), state}

  # A commit writes to the write-ahead log. On a full disk that may have no room while the
  # database file has: moving the log there gives its room back.
  defp perform({:write, statements}, state) do
    case write_all(statements, state) do
      {{:error, :disk_full}, %{db: db} = state} when db != nil ->
        if moved?(db), do: write_all(statements, state), else: {{:error, :disk_full}, state}

      written ->
        written
    end
  end

  defp moved?(db) do
    checkpoint = execute(db, "PRAGMA wal_checkpoint(TRUNCATE)", [])
    match?({:ok, [{0, _log_pages, _moved_pages}]}, checkpoint)
  end

  defp write_all([one], state), do: {each(state.db, [one], []), state}

  defp write_all(statements, %{db: db} = state) do
    with {:ok, _rows} <- execute(db, "BEGIN IMMEDIATE", []),
         {:ok, results} <- each(db, statements, []),
         {:ok, _rows} <- execute(db, "COMMIT", []) do
      {{:ok, results}, state}
    else
      error -> {error, rolled_back(state)}
    end
  end

  # ROLLBACK fails if SQLite has rolled back by itself. If it fails and a transaction is still
  # open, the connection is given up, and the next request opens a new one: a transaction must
  # not stay open unnoticed.
  defp rolled_back(%{db: db} = state) do
    with {:error, _reason} <- execute(db, "ROLLBACK", []),
         {:ok, _rows} <- execute(db, "BEGIN", []),
         {:ok, _rows} <- execute(db, "ROLLBACK", []) do
      state
    else
      {:ok, _rows} -> state
      {:error, _reason} -> close(state)
    end
  end

  defp each(_db, [], results), do: {:ok, Enum.reverse(results)}

  defp each(db, [{sql, params} | statements], results) do
    with {:ok, rows} <- execute(db, sql, params), do: each(db, statements, [rows | results])
  end

  # A wrong argument must not end the one process that all callers share.
  defp execute(db, sql, params) do
    if Enum.all?(params, &param?/1) do
      with {:error, reason} <- Native.execute(db, IO.iodata_to_binary(sql), params),
           do: error(reason)
    else
      {:error, :integer_out_of_range}
    end
  rescue
    ArgumentError -> {:error, :invalid_parameter}
  end

  defp param?(value) when is_integer(value), do: abs(value) <= @int64_max
  defp param?(_bytes), do: true

  defp error({code, _text}) when code in [5, 6], do: {:error, :locked}
  defp error({8, _text}), do: {:error, :read_only}
  defp error({10, _text}), do: {:error, :io_error}
  defp error({11, _text}), do: {:error, :corrupt}
  defp error({13, _text}), do: {:error, :disk_full}
  defp error({14, _text}), do: {:error, :cannot_open}
  defp error({26, _text}), do: {:error, :not_a_database}
  defp error({code, text}), do: {:error, {:sqlite, code, text}}
  defp error(reason), do: {:error, reason}
end
