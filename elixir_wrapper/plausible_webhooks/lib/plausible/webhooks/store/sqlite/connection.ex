defmodule Plausible.Webhooks.Store.SQLite.Connection do
  @moduledoc false
  # The one process that speaks to the database file, through the `sqlite3`
  # application (a port driver behind a gen_server, here called the port process).
  #
  # One connection, and no second one for reading: the driver runs every statement
  # on the VM's async threads, of which there is one unless the VM was started
  # with +A, so a second connection would wait for the first one's statement all
  # the same. And it could not open the file: the first one holds it exclusively.
  # Instead every statement is short; what may have much to do works in slices and
  # lets others in between.
  #
  # What the driver does not forgive, and how it is kept from happening:
  #   - Closing the port while a statement runs frees what the statement uses. The
  #     port process is therefore known to nobody else, gets one call at a time
  #     without a time limit, and is closed from here only.
  #   - It takes any message for the answer it waits for. An answer of no known
  #     shape means that question and answer no longer belong together: the
  #     connection is given up, once the statement is over, and the next request
  #     opens a new one.
  #   - A NULL bound as a parameter leaks, integers beyond 64 bits become
  #     anything. Parameters are strings, blobs and 64-bit integers.

  use GenServer

  alias Plausible.Webhooks.Store.SQLite.Schema

  @compile {:no_warn_undefined, :sqlite3}

  @type param :: integer() | binary() | {:blob, binary()}
  @type statement :: {iodata(), [param()]}
  @type server :: GenServer.server()

  # A caller waits that long; a request that is older is not begun any more.
  @timeout_ms 30_000
  @int64_max 9_223_372_036_854_775_807

  @doc "Runs the statements as one transaction. Rows of each, values as the driver gives them."
  @spec write(server(), [statement()]) :: {:ok, [[tuple()]]} | {:error, term()}
  def write(server, statements), do: call(server, {:write, statements})

  @doc "Runs the statements with nobody else's in between."
  @spec read(server(), [statement()]) :: {:ok, [[tuple()]]} | {:error, term()}
  def read(server, statements), do: call(server, {:read, statements})

  @doc """
  Opens the file now, waiting up to `lock_timeout_ms` for another VM to let go of
  it. Requests open it by themselves, without waiting.
  """
  @spec open(server(), non_neg_integer()) :: :ok | {:error, term()}
  def open(server, lock_timeout_ms) do
    deadline_ms = System.monotonic_time(:millisecond) + lock_timeout_ms
    open_until(server, deadline_ms, 20)
  end

  # Asking again and again instead of SQLite's busy_timeout: that would sleep on
  # the async thread, which is not ours alone.
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

  defp call(server, request) do
    GenServer.call(server, {System.monotonic_time(:millisecond), request}, @timeout_ms)
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
    # Never killed in the middle of a statement, if it can be helped.
    %{id: __MODULE__, start: {__MODULE__, :start_link, [options]}, shutdown: 60_000}
  end

  # --- the process

  # db: the port process. leases: of owners that lived before this process did.
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
      with {:ok, state} <- opened(state) do
        {answer, state} = perform(request, state)
        {:reply, answer, state}
      else
        {:error, reason} -> {:reply, {:error, reason}, state}
      end
    end
  end

  @impl true
  def handle_info({:EXIT, db, _reason}, %{db: db} = state), do: {:noreply, %{state | db: nil}}
  # The supervisor's exit goes to terminate/2; what else was linked is no concern.
  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state) do
    # On its own thread now, rather than on a scheduler when the port closes.
    if state.db, do: execute(state.db, "PRAGMA wal_checkpoint(TRUNCATE)", [])
    close(state)
  end

  # --- opening and closing

  defp opened(%{db: nil, path: path} = state) do
    with :ok <- load_driver(),
         :ok <- make_file(path),
         {:ok, db} <- open_file(path) do
      run = fn sql -> execute(db, sql, []) end
      state = %{state | db: db}

      with :ok <- Schema.open(run),
           :ok <- end_leases(run, state.leases) do
        {:ok, %{state | leases: :ours}}
      else
        error ->
          {error, state} = settle(error, state)
          _ = close(state)
          error
      end
    end
  end

  defp opened(state), do: {:ok, state}

  # Nobody else can have had the file open: whoever holds a lease from before this
  # process is dead, or will renew it in a moment.
  defp end_leases(_run, :ours), do: :ok

  defp end_leases(run, :old) do
    with {:ok, _rows} <- run.("DELETE FROM owners"), do: :ok
  end

  # Mix keeps the folders of the applications it knows by name in the code path,
  # and Debian's folder has another name.
  defp load_driver do
    with {:error, _reason} <- Application.ensure_all_started(:sqlite3),
         :ok <- add_code_path(),
         {:error, _reason} <- Application.ensure_all_started(:sqlite3) do
      {:error, :sqlite3_not_available}
    else
      {:ok, _started} -> :ok
      :error -> {:error, :sqlite3_not_available}
    end
  end

  defp add_code_path do
    [to_string(:code.lib_dir()), "*sqlite3-*", "ebin"]
    |> Path.join()
    |> Path.wildcard()
    |> Enum.filter(&File.exists?(Path.join(&1, "sqlite3.app")))
    |> Enum.sort()
    |> List.last()
    |> case do
      nil -> :error
      path -> if Code.append_path(path), do: :ok, else: :error
    end
  end

  # Made here and not by SQLite: it would be readable by everyone for a moment.
  defp make_file(path) do
    folder = Path.dirname(path)

    with :ok <- make_folder(folder) do
      case File.open(path, [:write, :exclusive, :raw]) do
        {:ok, file} ->
          :ok = File.close(file)
          said(File.chmod(path, 0o600), {:file, path})

        {:error, :eexist} ->
          _ = File.chmod(path, 0o600)
          if File.regular?(path), do: :ok, else: {:error, {:file, path, :not_a_regular_file}}

        error ->
          said(error, {:file, path})
      end
    end
  end

  defp make_folder(folder) do
    if File.dir?(folder) do
      :ok
    else
      with :ok <- said(File.mkdir_p(folder), {:folder, folder}),
           do: said(File.chmod(folder, 0o700), {:folder, folder})
    end
  end

  defp said(:ok, _what), do: :ok
  defp said({:error, reason}, {kind, path}), do: {:error, {kind, path, reason}}

  defp open_file(path) do
    case :sqlite3.open(:anonymous, file: String.to_charlist(path)) do
      {:ok, db} ->
        {:ok, db}

      {:error, _text} ->
        {:error, {:file, path, :cannot_open}}
    end
  end

  defp close(%{db: nil} = state), do: state

  defp close(%{db: db} = state) do
    try do
      :sqlite3.close_timeout(db, :infinity)
    catch
      :exit, _reason -> :ok
    end

    receive do
      {:EXIT, ^db, _reason} -> :ok
    after
      1_000 -> :ok
    end

    %{state | db: nil}
  end

  # The statement whose answer was missed is still running, and nobody will say
  # when it has ended. Asked for a number and answered with that number, question
  # and answer belong together again; as long as an older answer comes, the port
  # process is given a moment to be rid of the one behind it.
  defp close_when_idle(%{db: db} = state, pause_ms) do
    Process.sleep(pause_ms)
    number = System.unique_integer([:positive])

    case execute(db, "SELECT #{number}", []) do
      {:ok, [{^number}]} -> close(state)
      {:error, :connection_lost} -> close(state)
      _another_answer -> close_when_idle(state, min(2 * pause_ms, 1_000))
    end
  end

  # --- statements

  defp perform(:open, state), do: {{:ok, []}, state}
  defp perform({:read, statements}, state), do: state.db |> each(statements, []) |> settle(state)
  defp perform({:write, [one]}, state), do: state.db |> each([one], []) |> settle(state)

  defp perform({:write, statements}, %{db: db} = state) do
    result =
      with {:ok, _rows} <- execute(db, "BEGIN IMMEDIATE", []),
           {:ok, results} <- each(db, statements, []),
           {:ok, _rows} <- execute(db, "COMMIT", []) do
        {:ok, results}
      else
        {:error, reason} when reason in [:desynchronized, :connection_lost] -> {:error, reason}
        # It fails where SQLite has rolled back by itself.
        error -> with {:ok, _} <- rolled_back(db), do: error
      end

    settle(result, state)
  end

  defp rolled_back(db) do
    case execute(db, "ROLLBACK", []) do
      {:error, reason} when reason in [:desynchronized, :connection_lost] -> {:error, reason}
      _done_or_needless -> {:ok, []}
    end
  end

  defp settle({:error, :desynchronized}, state) do
    {{:error, :connection_lost}, close_when_idle(state, 10)}
  end

  defp settle({:error, :connection_lost} = lost, state), do: {lost, close(state)}

  defp settle(result, state), do: {result, state}

  defp each(_db, [], results), do: {:ok, Enum.reverse(results)}

  defp each(db, [{sql, params} | statements], results) do
    with {:ok, rows} <- execute(db, sql, params), do: each(db, statements, [rows | results])
  end

  defp execute(db, sql, params) do
    if Enum.all?(params, &param?/1) do
      try do
        answer(db, sql, params)
      catch
        :exit, _reason -> {:error, :connection_lost}
      else
        answer -> understood(answer)
      end
    else
      {:error, :integer_out_of_range}
    end
  end

  # The line break keeps the driver from seeing an INSERT, after which it would ask
  # for the last rowid: at `erlang:halt` from memory that is no longer its own.
  defp answer(db, sql, []), do: :sqlite3.sql_exec_timeout(db, [?\n, sql], :infinity)
  defp answer(db, sql, params), do: :sqlite3.sql_exec_timeout(db, [?\n, sql], params, :infinity)

  defp param?(value) when is_integer(value), do: abs(value) <= @int64_max
  defp param?(_bytes), do: true

  defp understood(:ok), do: {:ok, []}
  defp understood({:rowid, _rowid}), do: {:ok, []}
  defp understood([{:columns, _}, {:rows, rows}]), do: {:ok, rows}
  defp understood([{:columns, _}, {:rows, _}, {:error, code, text}]), do: error(code, text)
  defp understood({:error, code, text}) when is_integer(code), do: error(code, text)
  defp understood(_other), do: {:error, :desynchronized}

  # Primary result codes, https://www.sqlite.org/rescode.html
  defp error(code, _text) when code in [5, 6], do: {:error, :locked}
  defp error(8, _text), do: {:error, :read_only}
  defp error(10, _text), do: {:error, :io_error}
  defp error(11, _text), do: {:error, :corrupt}
  defp error(13, _text), do: {:error, :disk_full}
  defp error(14, _text), do: {:error, :cannot_open}
  defp error(26, _text), do: {:error, :not_a_database}
  defp error(code, text), do: {:error, {:sqlite, code, :erlang.list_to_binary(text)}}
end
