defmodule Plausible.Webhooks.Store.SQLiteFileTest do
  # What is the SQLite store's own: its file, its lock, its schema.
  use Plausible.Webhooks.Test.SQLiteCase, async: true
  import Bitwise

  alias Plausible.Webhooks.{Attempt, Vault}
  alias Plausible.Webhooks.Store.SQLite.{Native, Schema}

  describe "the file" do
    test "folder and files are its owner's alone", %{folder: folder, path: path} do
      deep = Path.join([folder, "a", "b"])
      options = options(Path.join(deep, "w.db"))
      store = start!(options)
      :ok = SQLite.accept(store, [delivery()])

      assert (File.stat!(deep).mode &&& 0o777) == 0o700
      assert Enum.sort(File.ls!(deep)) == ["w.db", "w.db-wal", "w.db.key"]

      for file <- File.ls!(deep),
          do: assert((File.stat!(Path.join(deep, file)).mode &&& 0o777) == 0o600)

      # A folder of somebody else's making is left as it is, a file is closed.
      File.mkdir_p!(folder)
      File.chmod!(folder, 0o755)
      File.write!(path, "")
      File.chmod!(path, 0o644)
      start!(options(path))
      assert (File.stat!(folder).mode &&& 0o777) == 0o755
      assert (File.stat!(path).mode &&& 0o777) == 0o600
    end

    test "may have any name", %{folder: folder} do
      for name <- [
            "with space.db",
            "ä 中.db",
            "a'b\"c.db",
            ":memory:",
            "file:x?mode=memory",
            "-x",
            "%00"
          ] do
        options = options(Path.join(folder, name))
        store = start!(options)
        delivery = delivery()
        :ok = SQLite.accept(store, [delivery])
        assert File.regular?(Path.join(folder, name))
        store = again!(options)
        assert SQLite.get_delivery(store, delivery.id) == {:ok, delivery}
        stop(options)
      end
    end

    test "holds everything over a restart", %{path: path} do
      options = options(path)
      store = start!(options)
      webhook = webhook!(store)
      deliveries = for _ <- 1..100, do: delivery()
      :ok = SQLite.accept(store, deliveries)

      :ok =
        SQLite.record(store, [
          %Attempt{
            delivery_id: hd(deliveries).id,
            number: 1,
            state: :delivered,
            status: 200,
            started_at_ms: 1
          }
        ])

      store = again!(options)
      assert SQLite.get_webhook(store, webhook.id) == {:ok, webhook}
      assert {:ok, %{delivered: 1, pending: 99}} = SQLite.counts(store)
      assert {:ok, [%{number: 1}]} = SQLite.attempts(store, hd(deliveries).id)
    end

    test "commits to disk before it says so, by a log beside it", %{path: path} do
      store = start!(options(path))
      assert sql!(store, "PRAGMA journal_mode") == [{"wal"}]
      assert sql!(store, "PRAGMA synchronous") == [{2}]
      assert sql!(store, "PRAGMA locking_mode") == [{"exclusive"}]
      assert sql!(store, "PRAGMA foreign_keys") == [{1}]
      assert sql!(store, "PRAGMA integrity_check") == [{"ok"}]
    end

    test "leases of a former life have ended, what was pending comes back", %{path: path} do
      options = options(path)
      store = start!(options)
      delivery = delivery(owner: "before")
      :ok = SQLite.heartbeat(store, "before", 3_600_000)
      :ok = SQLite.accept(store, [delivery])
      assert SQLite.claim(store, "now", 10) == {:ok, []}
      store = again!(options)
      assert SQLite.claim(store, "now", 10) == {:ok, [%{delivery | owner: "now"}]}
    end
  end

  test "a delivery that a fast clock parked waits at most the longest wait", %{path: path} do
    options = options(path, wait_ms_max: 60_000)
    store = start!(options)
    now_ms = System.system_time(:millisecond)

    [far, near] =
      for ms <- [9_000_000_000, 50_000], do: delivery(state: :parked, next_at_ms: now_ms + ms)

    :ok = SQLite.accept(store, [far, near])
    stop(options)
    store = start!(options)
    {:ok, %{next_at_ms: at_ms}} = SQLite.get_delivery(store, far.id)
    assert at_ms in (now_ms + 60_000)..(System.system_time(:millisecond) + 60_000)
    assert {:ok, %{next_at_ms: kept}} = SQLite.get_delivery(store, near.id)
    assert kept == near.next_at_ms
  end

  describe "a file of another program" do
    test "is refused and left as it is, byte for byte", %{folder: folder, path: path} do
      File.mkdir_p!(folder)
      foreign = Path.join(folder, "foreign.db")
      sqlite!(foreign, ["CREATE TABLE users (id)", "INSERT INTO users VALUES (1)"])
      only_version = Path.join(folder, "version.db")
      sqlite!(only_version, ["PRAGMA user_version = 1"])

      ours = options(path)
      store = start!(ours)
      :ok = SQLite.accept(store, for(_ <- 1..500, do: delivery(body: String.duplicate("x", 500))))
      stop(ours)
      good = File.read!(path)

      newer = Path.join(folder, "newer.db")
      File.write!(newer, good)
      sqlite!(newer, ["PRAGMA user_version = 99"])

      truncated = Path.join(folder, "truncated.db")
      File.write!(truncated, binary_part(good, 0, div(byte_size(good), 2)))

      # The page that holds the schema, after its header.
      garbled = Path.join(folder, "garbled.db")

      File.write!(
        garbled,
        binary_part(good, 0, 100) <>
          :crypto.strong_rand_bytes(3_996) <> binary_part(good, 4_096, byte_size(good) - 4_096)
      )

      text = Path.join(folder, "text.db")
      File.write!(text, String.duplicate("no database at all\n", 100))

      for {file, reason} <- [
            {foreign, :foreign_database},
            {only_version, :foreign_database},
            {newer, {:newer_schema, 99}},
            {truncated, :corrupt},
            {garbled, :corrupt},
            {text, :not_a_database}
          ] do
        before = File.read!(file)
        File.chmod!(file, 0o644)
        options = options(file)
        assert start(options) == {:error, reason}, "for #{file}"

        assert SQLite.accept(
                 %SQLite{connection: options[:name], vault: nil, webhooks_per_site_max: 1},
                 [delivery()]
               ) == {:error, reason}

        stop(options)
        assert File.read!(file) == before
        assert (File.stat!(file).mode &&& 0o777) == 0o644
        refute File.exists?(file <> "-wal")
        refute File.exists?(file <> ".key")
      end
    end

    test "a path that cannot be used is an error", %{folder: folder} do
      File.mkdir_p!(Path.join(folder, "w.db"))
      path = Path.join(folder, "w.db")
      File.chmod!(path, 0o755)
      assert start(options(path)) == {:error, {:file, path, :not_a_regular_file}}
      # Nor is it closed to others.
      assert (File.stat!(path).mode &&& 0o777) == 0o755

      blocked = Path.join(folder, "file")
      File.write!(blocked, "")
      path = Path.join([blocked, "sub", "w.db"])
      assert {:error, {:folder, _folder, :enotdir}} = start(options(path))
      assert {:error, {_kind, _path, _reason}} = start(options("/proc/no_such_place/w.db"))
    end

    test "options are checked", %{path: path} do
      assert SQLite.init(path: path, colour: 1) == {:error, {:unknown_option, :colour}}

      for {name, value} <-
            [
              path: nil,
              path: "",
              path: "a\0b",
              path: :memory,
              vault: "key",
              key_file: 1,
              name: nil
            ] ++
              [name: "x", webhooks_per_site_max: 0, lock_timeout_ms: -1] do
        assert SQLite.init(Keyword.put([path: path], name, value)) ==
                 {:error, {:invalid_option, name}}
      end

      assert SQLite.init(path: path, name: :never_started) == {:error, :not_started}
      assert SQLite.init([]) == {:error, {:invalid_option, :path}}
    end
  end

  describe "the lock" do
    test "a second store on the same file is refused until the first is gone", %{
      path: path,
      vault: vault
    } do
      first = options(path, vault: vault)
      store = start!(first)
      :ok = SQLite.accept(store, [delivery()])

      second = options(path, vault: vault, lock_timeout_ms: 0)
      assert start(second) == {:error, :locked}
      assert {:ok, %{pending: 1}} = SQLite.counts(store)
      :ok = SQLite.accept(store, [delivery()])

      stop(first)
      # Nothing has to be started anew for that.
      assert {:ok, store} = SQLite.init(second)
      assert {:ok, %{pending: 2}} = SQLite.counts(store)
    end

    test "the start waits for it as long as told", %{path: path, vault: vault} do
      first = options(path, vault: vault)
      start!(first)
      second = options(path, vault: vault, lock_timeout_ms: 10_000)
      start_supervised!(SQLite.child_spec(second), id: second[:name])
      waiting = Task.async(fn -> SQLite.init(second) end)
      refute Task.yield(waiting, 200)
      stop(first)
      assert {:ok, %SQLite{}} = Task.await(waiting, 10_000)

      third = options(path, vault: vault, lock_timeout_ms: 150)
      {us, result} = :timer.tc(fn -> start(third) end)
      assert result == {:error, :locked}
      assert us >= 30_000
    end

    test "another VM is refused; one that was killed leaves no lock and loses nothing", %{
      path: path,
      vault: vault
    } do
      other = other_vm(path)
      assert start(options(path, vault: vault, lock_timeout_ms: 0)) == {:error, :locked}

      # It accepts deliveries until it is killed, and prints the confirmed ones.
      confirmed = confirmed_until_killed(other, 40)
      assert confirmed != []

      assert {:ok, store} = start(options(path, vault: other.vault))
      assert {:ok, %{pending: pending}} = SQLite.counts(store)
      # Whole batches of ten: the confirmed ones, and those whose word died with it.
      assert rem(pending, 10) == 0
      assert pending >= 10 * length(confirmed)

      for id <- Enum.concat(confirmed),
          do: assert({:ok, %{body: "body of " <> ^id}} = SQLite.get_delivery(store, id))

      assert sql!(store, "PRAGMA integrity_check") == [{"ok"}]
    end
  end

  # A VM of its own that opens the store and accepts batches, writing the ids of
  # each one to its output once it is confirmed.
  defp other_vm(path) do
    key = Vault.generate_key()
    {:ok, vault} = Vault.new([key])

    script = """
    {:ok, vault} = Plausible.Webhooks.Vault.new([#{inspect(key)}])
    options = [path: #{inspect(path)}, vault: vault]
    store = Plausible.Webhooks.Store.SQLite
    {:ok, _} = Supervisor.start_link([store.child_spec(options)], strategy: :one_for_one)
    {:ok, handle} = store.init(options)
    IO.puts("open")
    IO.gets("")
    Stream.repeatedly(fn ->
      ids = for _ <- 1..10, do: Plausible.Webhooks.Id.delivery()
      :ok = store.accept(handle, for(id <- ids, do: %Plausible.Webhooks.Delivery{
        id: id, webhook_id: "wh_1", site_id: 1, type: "t", body: "body of " <> id, created_at_ms: 1}))
      IO.puts(Enum.join(ids, " "))
    end) |> Stream.run()
    """

    port =
      Port.open({:spawn_executable, System.find_executable("elixir")}, [
        :binary,
        :exit_status,
        {:line, 10_000},
        # Away from the folder of the project, which would pass for the application.
        cd: System.tmp_dir!(),
        args: Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)]) ++ ["-e", script]
      ])

    {:os_pid, os_pid} = Port.info(port, :os_pid)
    assert_receive {^port, {:data, {:eol, "open"}}}
    %{port: port, os_pid: os_pid, vault: vault}
  end

  defp confirmed_until_killed(%{port: port, os_pid: os_pid}, batches) do
    Port.command(port, "go\n")
    first = for _ <- 1..batches, do: confirmed_line(port)
    {_out, 0} = System.cmd("kill", ["-9", "#{os_pid}"])
    first ++ rest(port)
  end

  defp confirmed_line(port) do
    assert_receive {^port, {:data, {:eol, line}}}
    String.split(line)
  end

  defp rest(port) do
    receive do
      {^port, {:data, {:eol, line}}} -> [String.split(line) | rest(port)]
      # The kill has cut the last line, so nobody knows whether it was confirmed.
      {^port, {:data, {:noeol, _part}}} -> rest(port)
      {^port, {:exit_status, _status}} -> []
    after
      30_000 -> flunk("the other VM is still there")
    end
  end

  describe "migrations" do
    test "bring an older file forward, once, and keep what is in it", %{
      folder: folder,
      path: path
    } do
      options = options(path)
      store = start!(options)
      webhook = webhook!(store)
      stop(options)

      later =
        Schema.migrations() ++
          [
            {2, ["ALTER TABLE webhooks ADD COLUMN colour TEXT"]},
            {3, ["UPDATE webhooks SET colour = 'blue'"]}
          ]

      in_file(path, fn run -> assert Schema.open(run, &nothing/0, later) == :ok end)

      in_file(path, fn run ->
        assert Schema.open(run, &nothing/0, later) == :ok
        assert {:ok, [{3}]} = run.("PRAGMA user_version")
        assert run.("SELECT id, colour FROM webhooks") == {:ok, [{webhook.id, "blue"}]}
      end)

      assert start(options) == {:error, {:newer_schema, 3}}
      assert Enum.sort(File.ls!(folder)) == ["webhooks.db", "webhooks.db.key"]
    end

    test "all or none: what breaks in the middle leaves the file as it was", %{path: path} do
      options = options(path)
      start!(options)
      stop(options)
      broken = Schema.migrations() ++ [{2, ["CREATE TABLE extra (x)", "no SQL"]}]

      in_file(path, fn run ->
        assert {:error, {:sqlite, 1, _}} = Schema.open(run, &nothing/0, broken)
        assert {:ok, [{1}]} = run.("PRAGMA user_version")
        assert {:ok, []} = run.("SELECT 1 FROM sqlite_schema WHERE name = 'extra'")
      end)

      start!(options)
    end
  end

  defp nothing, do: nil

  # A connection that is not the store's.
  defp in_file(path, fun) do
    {:ok, db} = Native.open(path)

    fun.(fn sql ->
      case Native.execute(db, sql, []) do
        {:error, {code, text}} -> {:error, {:sqlite, code, text}}
        result -> result
      end
    end)

    :ok = Native.close(db)
  end

  defp sqlite!(path, statements) do
    File.touch!(path)

    in_file(path, fn run ->
      {:ok, _rows} = run.("PRAGMA journal_mode = DELETE")
      for statement <- statements, do: {:ok, _rows} = run.(statement)
    end)
  end
end
