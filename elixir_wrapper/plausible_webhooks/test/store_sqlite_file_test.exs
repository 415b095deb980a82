defmodule Plausible.Webhooks.StoreSQLiteFileTest do
  # What is the SQLite store's own: its file, its lock, its keys, its failures.
  use ExUnit.Case, async: true
  import Bitwise

  alias Plausible.Webhooks.{Attempt, Delivery, Id, Vault, Webhook}
  alias Plausible.Webhooks.Store.SQLite
  alias Plausible.Webhooks.Store.SQLite.{Connection, Native, Schema}

  setup do
    folder = Path.join(System.tmp_dir!(), "webhooks_file_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(folder) end)
    {:ok, vault} = Vault.new([Vault.generate_key()])
    %{folder: folder, path: Path.join(folder, "webhooks.db"), vault: vault}
  end

  defp options(path, more \\ []) do
    Keyword.merge([path: path, name: :"sqlite_#{System.unique_integer([:positive])}"], more)
  end

  # Starts the process and opens the store; stop/1 ends both.
  defp start(options) do
    start_supervised!(SQLite.child_spec(options), id: options[:name])
    SQLite.init(options)
  end

  defp start!(options) do
    assert {:ok, store} = start(options)
    store
  end

  defp stop(options), do: :ok = stop_supervised(options[:name])

  defp again!(options) do
    stop(options)
    start!(options)
  end

  defp webhook!(store, fields \\ []) do
    webhook =
      struct!(
        %Webhook{
          id: Id.webhook(),
          site_id: 1,
          url: "https://hooks.example.com/services/T0S3CRET/x?key=T0S3CRET",
          events: ["goal.completed"],
          headers: [{"x-token", "T0S3CRET-header"}],
          secrets: [%{key: "whsec_T0S3CRET", created_at_ms: 1, expires_at_ms: nil}],
          inserted_at_ms: 1,
          updated_at_ms: 1
        },
        fields
      )

    :ok = SQLite.insert_webhook(store, webhook)
    webhook
  end

  defp delivery(fields \\ []) do
    struct!(
      %Delivery{
        id: Id.delivery(),
        webhook_id: "wh_1",
        site_id: 1,
        type: "goal.completed",
        body: "{}",
        owner: "a",
        created_at_ms: 1
      },
      fields
    )
  end

  defp sql!(store, sql, params \\ []) do
    assert {:ok, [rows]} = Connection.write(store.connection, [{sql, params}])
    rows
  end

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

  describe "what is not ours" do
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

    test "a place where no file can be is said", %{folder: folder} do
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
      assert us in 30_000..5_000_000
    end

    test "another VM is refused; one that was killed leaves no lock and loses nothing", %{
      path: path,
      vault: vault
    } do
      other = other_vm(path)
      assert start(options(path, vault: vault, lock_timeout_ms: 0)) == {:error, :locked}

      # It accepts until it is killed in the middle, and says what was confirmed.
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
    assert_receive {^port, {:data, {:eol, "open"}}}, 30_000
    %{port: port, os_pid: os_pid, vault: vault}
  end

  defp confirmed_until_killed(%{port: port, os_pid: os_pid}, batches) do
    Port.command(port, "go\n")
    first = for _ <- 1..batches, do: confirmed_line(port)
    {_out, 0} = System.cmd("kill", ["-9", "#{os_pid}"])
    first ++ rest(port)
  end

  defp confirmed_line(port) do
    assert_receive {^port, {:data, {:eol, line}}}, 30_000
    String.split(line)
  end

  defp rest(port) do
    receive do
      {^port, {:data, {:eol, line}}} -> [String.split(line) | rest(port)]
      # A line that the kill has cut: confirmed or not, nobody was told.
      {^port, {:data, {:noeol, _part}}} -> rest(port)
      {^port, {:exit_status, _status}} -> []
    after
      30_000 -> flunk("the other VM is still there")
    end
  end

  describe "secrets" do
    test "cannot be read in any file, at any time", %{folder: folder, path: path} do
      options = options(path)
      store = start!(options)
      webhook = webhook!(store)
      {:ok, webhook} = SQLite.update_webhook(store, %{webhook | name: "visible-name"})

      {:ok, _} =
        SQLite.update_webhook(store, %{
          webhook
          | secrets: [
              %{key: "whsec_T0S3CRET2", created_at_ms: 1, expires_at_ms: 2} | webhook.secrets
            ]
        })

      search = fn ->
        for file <- File.ls!(folder), bytes = File.read!(Path.join(folder, file)) do
          refute bytes =~ "T0S3CRET"
          refute bytes =~ "whsec_"
          refute bytes =~ "/services/"
          refute bytes =~ "x-token"
          # That they would be found: what is in clear is.
          {file, bytes =~ "hooks.example.com", bytes =~ "visible-name"}
        end
      end

      assert {"webhooks.db-wal", true, true} in search.()
      stop(options)
      assert {"webhooks.db", true, true} in search.()
    end

    test "belong to their row: two that changed places are not given out", %{path: path} do
      store = start!(options(path))
      [one, two] = [webhook!(store), webhook!(store, url: "https://two.example.com/")]

      sql!(
        store,
        "UPDATE webhooks SET sealed = (SELECT sealed FROM webhooks WHERE id = ?2) WHERE id = ?1",
        [one.id, two.id]
      )

      reason = {:unreadable_webhook, one.id, :not_authentic}
      assert SQLite.get_webhook(store, one.id) == {:error, reason}
      assert SQLite.list_webhooks(store, 1) == {:error, reason}
      assert SQLite.all_webhooks(store) == {:error, reason}
      assert SQLite.get_webhook(store, two.id) == {:ok, two}
      # It can still be replaced and removed.
      assert {:ok, _} = SQLite.update_webhook(store, one)
      assert {:ok, [_, _]} = SQLite.all_webhooks(store)
    end

    test "need the keys they were encrypted with, and the start says so", %{
      path: path,
      vault: vault
    } do
      options = options(path, vault: vault)
      # Also before the first webhook: with the wrong keys nothing may be added.
      start!(options)
      stop(options)
      {:ok, wrong} = Vault.new([Vault.generate_key()])

      assert start(Keyword.put(options, :vault, wrong)) ==
               {:error, {:wrong_vault_keys, :unknown_key}}

      stop(options)
      start!(options)
    end

    test "are encrypted anew at the start when there is a newer key", %{path: path} do
      [old, new] = [Vault.generate_key(), Vault.generate_key()]
      vault = fn keys -> with {:ok, vault} <- Vault.new(keys), do: vault end
      options = options(path, vault: vault.([old]))
      webhook = options |> start!() |> webhook!()
      stop(options)

      both = Keyword.put(options, :vault, vault.([new, old]))
      assert {:ok, [^webhook]} = both |> start!() |> SQLite.all_webhooks()
      stop(options)

      only_new = Keyword.put(options, :vault, vault.([new]))
      assert {:ok, [^webhook]} = only_new |> start!() |> SQLite.all_webhooks()
      stop(options)
      assert start(options) == {:error, {:wrong_vault_keys, :unknown_key}}
    end

    test "have a key file made for a new database, and never for an old one", %{path: path} do
      options = options(path)
      webhook = options |> start!() |> webhook!()
      stop(options)
      key = File.read!(path <> ".key")

      # The same file again.
      assert {:ok, [^webhook]} = options |> start!() |> SQLite.all_webhooks()
      stop(options)
      assert File.read!(path <> ".key") == key

      File.rm!(path <> ".key")
      missing = {:error, {:key_file, path <> ".key", :enoent}}
      assert start(options) == missing
      refute File.exists?(path <> ".key")
      stop(options)

      elsewhere = path <> ".elsewhere"
      File.write!(elsewhere, key)

      assert {:ok, [^webhook]} =
               options |> Keyword.put(:key_file, elsewhere) |> start!() |> SQLite.all_webhooks()

      stop(options)

      File.write!(path <> ".key", "nonsense")
      assert start(options) == {:error, {:key_file, path <> ".key", {:invalid_key, 1}}}
    end

    test "are in no message and no state that could be printed", %{path: path} do
      store = start!(options(path))
      webhook!(store)
      state = :sys.get_state(store.connection)

      for term <- [
            store,
            state,
            Process.info(Process.whereis(store.connection), [:dictionary, :messages])
          ] do
        refute inspect(term, limit: :infinity, structs: false) =~ "T0S3CRET"
      end

      assert inspect(store) =~ "#Plausible.Webhooks.Vault<1 keys>"
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

  describe "a long log" do
    test "is searched so far and no further, and from there on the next time", %{path: path} do
      store = start!(options(path))

      # A search that finds nothing until its end: three times what one call looks at.
      sql!(store, """
      INSERT INTO deliveries (id, webhook_id, site_id, type, goal_id, state, attempts,
        schedule_from, created_at_ms, finished_at_ms, manual, retry)
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250000)
      SELECT 'msg_' || i, 'wh_1', 1, 'goal.completed', i <= 2, 2, 1, 0, i, i, 0, 1 FROM n
      """)

      assert {:ok, %{entries: [], next: next}} = SQLite.deliveries(store, 1, %{goal_id: 1}, %{})
      assert is_binary(next)

      {pages, entries} = turn(store, %{goal_id: 1}, %{}, 0)
      assert pages >= 3
      assert Enum.map(entries, & &1.id) == ["msg_2", "msg_1"]

      # What is not rare fills its page, and what an index knows is found at once.
      assert {:ok, %{entries: full, next: next}} = SQLite.deliveries(store, 1, %{goal_id: 0}, %{})
      assert length(full) == 50 and is_binary(next)
      assert {1, []} = turn(store, %{states: [:failed]}, %{}, 0)
    end
  end

  defp turn(store, filters, page, pages) do
    case SQLite.deliveries(store, 1, filters, page) do
      {:ok, %{entries: entries, next: nil}} ->
        {pages + 1, entries}

      {:ok, %{entries: entries, next: next}} ->
        {pages, rest} = turn(store, filters, %{after: next}, pages + 1)
        {pages, entries ++ rest}
    end
  end

  describe "failures" do
    test "killed in the middle of a statement, it lets go of the file", %{path: path} do
      store = start!(options(path))
      delivery = delivery()
      :ok = SQLite.accept(store, [delivery])
      old = Process.whereis(store.connection)

      # Hours of work, which nobody will wait for.
      endless = """
      INSERT INTO owners (owner, until_ms)
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000000)
      SELECT 'o', max(i) FROM n
      """

      asking = Task.async(fn -> Connection.write(store.connection, [{endless, []}]) end)

      wait_until(fn ->
        match?(
          {:current_function, {Native, :execute, 3}},
          Process.info(old, :current_function)
        )
      end)

      Process.exit(old, :kill)
      assert Task.await(asking) == {:error, :connection_lost}
      wait_until(fn -> SQLite.get_delivery(store, delivery.id) == {:ok, delivery} end)
      assert sql!(store, "SELECT * FROM owners") == []
      assert sql!(store, "PRAGMA integrity_check") == [{"ok"}]
      assert SQLite.accept(store, [delivery()]) == :ok
    end

    test "the process's death is the end of leases, not of what is pending", %{path: path} do
      options = options(path)
      store = start!(options)
      :ok = SQLite.heartbeat(store, "a", 60_000)
      :ok = SQLite.accept(store, [delivery(owner: "a")])
      old = Process.whereis(store.connection)
      Process.exit(old, :kill)
      wait_until(fn -> Process.whereis(store.connection) not in [nil, old] end)

      # The engine of before may go on: what is its own it does not get twice.
      assert {:ok, []} = eventually(fn -> SQLite.claim(store, "a", 10) end)
      :ok = SQLite.heartbeat(store, "a", 60_000)
      assert SQLite.claim(store, "b", 10) == {:ok, []}
    end

    test "without its process the store is an error, not an exit", %{path: path} do
      options = options(path)
      store = start!(options)
      stop(options)

      for {call, arguments} <- [
            accept: [[delivery()]],
            record: [[%Attempt{delivery_id: "x", number: 1, state: :failed, started_at_ms: 1}]],
            claim: ["a", 1],
            release: ["a", ["x"], 1],
            heartbeat: ["a", 1],
            redeliver: ["a", ["x"]],
            recoverable: ["wh", 0, 1],
            cancel_waiting: ["wh", "x"],
            deliveries: [1, %{}, %{}],
            deliveries: [1, %{goal_id: 1}, %{}],
            get_delivery: ["x"],
            attempts: ["x"],
            counts: [],
            prune: [1, 1],
            get_webhook: ["x"],
            list_webhooks: [1],
            all_webhooks: [],
            insert_webhook: [%Webhook{id: "x", site_id: 1, url: "https://x.example.com/"}],
            update_webhook: [%Webhook{id: "x", site_id: 1, url: "https://x.example.com/"}],
            delete_webhook: [1, "x"],
            put_health: ["x", %{failing_since_ms: 1}],
            alert_states: [["x"]],
            put_alert_state: [
              %{
                webhook_id: "x",
                kind: :drop,
                state: :armed,
                alert_id: nil,
                changed_at_ms: 1,
                notified_at_ms: nil
              }
            ]
          ] do
        assert apply(SQLite, call, [store | arguments]) == {:error, :not_started}
      end
    end

    test "a full disk refuses the batch as a whole, and lets go when there is room", %{path: path} do
      store = start!(options(path))
      before = delivery()
      :ok = SQLite.accept(store, [before])
      [{pages}] = sql!(store, "PRAGMA page_count")
      sql!(store, "PRAGMA max_page_count = #{pages + 20}")

      batch = for _ <- 1..10, do: delivery(body: :crypto.strong_rand_bytes(20_000))
      large = for _ <- 1..40, do: delivery(body: :crypto.strong_rand_bytes(200_000))
      # In one statement, and in a transaction of several.
      assert SQLite.accept(store, batch) == {:error, :disk_full}
      assert SQLite.accept(store, large) == {:error, :disk_full}
      assert {:ok, %{pending: 1}} = SQLite.counts(store)
      assert SQLite.get_delivery(store, before.id) == {:ok, before}

      sql!(store, "PRAGMA max_page_count = 1073741823")
      assert SQLite.accept(store, batch) == :ok
      assert SQLite.accept(store, large) == :ok
      assert {:ok, %{pending: 51}} = SQLite.counts(store)
      assert sql!(store, "PRAGMA integrity_check") == [{"ok"}]
    end

    test "a batch with a row that cannot be is refused as a whole", %{path: path} do
      store = start!(options(path))
      good = for _ <- 1..3, do: delivery()
      assert {:error, {:sqlite, 19, _}} = SQLite.accept(store, good ++ [delivery(body: nil)])
      assert {:error, {:sqlite, 19, _}} = SQLite.accept(store, good ++ [delivery(site_id: nil)])
      assert {:ok, %{pending: 0}} = SQLite.counts(store)
      :ok = SQLite.accept(store, good)

      attempts =
        for d <- good,
            do: %Attempt{delivery_id: d.id, number: 1, state: :delivered, started_at_ms: 1}

      assert {:error, {:sqlite, 19, _}} =
               SQLite.record(store, attempts ++ [%{hd(attempts) | number: 2, response_body: nil}])

      assert SQLite.record(store, attempts ++ [%{hd(attempts) | number: 1_048_576}]) ==
               {:error, :invalid_attempt_number}

      assert {:ok, %{pending: 3, delivered: 0}} = SQLite.counts(store)
      assert SQLite.record(store, attempts) == :ok
    end

    test "a broken transaction leaves none open behind it", %{path: path} do
      store = start!(options(path))
      good = {"INSERT INTO owners (owner, until_ms) VALUES (?1, ?2)", ["o", 1]}

      assert {:error, {:sqlite, 1, "no such table" <> _}} =
               Connection.write(store.connection, [good, {"DELETE FROM not_there", []}])

      assert sql!(store, "SELECT * FROM owners") == []
      # Where SQLite rolls back by itself.
      assert {:error, {:sqlite, _, _}} =
               Connection.write(store.connection, [
                 good,
                 {"INSERT OR ROLLBACK INTO owners SELECT owner, 1 FROM owners", []}
               ])

      assert sql!(store, "SELECT * FROM owners") == []

      assert {:ok, [[], []]} =
               Connection.write(store.connection, [
                 good,
                 {"DELETE FROM owners WHERE owner = 'x'", []}
               ])

      assert sql!(store, "SELECT owner FROM owners") == [{"o"}]
    end

    test "numbers beyond 64 bits are refused", %{path: path} do
      store = start!(options(path))
      huge = Integer.pow(2, 63)

      assert Connection.read(store.connection, [{"SELECT ?1", [huge]}]) ==
               {:error, :integer_out_of_range}

      assert Connection.read(store.connection, [{"SELECT ?1", [huge - 1]}]) ==
               {:ok, [[{huge - 1}]]}

      assert SQLite.prune(store, huge, 10) == {:error, :integer_out_of_range}
    end

    test "what no statement can take is an error, and the process lives on", %{path: path} do
      store = start!(options(path))
      connection = Process.whereis(store.connection)

      for params <- [[1.5], [:a], [%{}], [{1}], [self()], [<<1::1>>], List.duplicate(1, 65)] do
        assert Connection.read(store.connection, [{"SELECT ?1", params}]) ==
                 {:error, :invalid_parameter}
      end

      long = "SELECT '" <> String.duplicate("x", 70_000) <> "'"
      assert Connection.read(store.connection, [{long, []}]) == {:error, :invalid_parameter}
      assert Process.whereis(store.connection) == connection
    end

    test "who has given up waiting is not served any more", %{path: path} do
      store = start!(options(path))
      long_ago = System.monotonic_time(:millisecond) - 30_000
      insert = {"INSERT INTO owners (owner, until_ms) VALUES (?1, ?2)", ["late", 1]}

      assert GenServer.call(store.connection, {long_ago, {:write, [insert]}}) ==
               {:error, :timeout}

      assert sql!(store, "SELECT * FROM owners") == []
    end

    test "a deletion that was cut short is finished by the next pruning", %{path: path} do
      store = start!(options(path))
      webhook = webhook!(store)
      mine = for i <- 1..50, do: delivery(webhook_id: webhook.id, created_at_ms: i)
      other = delivery()
      :ok = SQLite.accept(store, [other | mine])
      # What is done first; then the VM dies.
      :ok = SQLite.Webhooks.delete(store, 1, webhook.id)
      assert {:ok, %{pending: 51}} = SQLite.counts(store)
      assert SQLite.prune(store, 0, 10) == {:ok, 0}
      assert {:ok, %{pending: 1}} = SQLite.counts(store)
      assert SQLite.get_delivery(store, other.id) == {:ok, other}
      assert sql!(store, "SELECT * FROM deleted_webhooks") == []
    end
  end

  defp eventually(fun),
    do:
      Enum.find_value(1..100, fn _ ->
        with({:error, _} <- fun.(), do: Process.sleep(20) && nil)
      end)

  defp wait_until(fun, left \\ 500) do
    cond do
      fun.() -> :ok
      left == 0 -> flunk("it did not happen")
      true -> Process.sleep(10) && wait_until(fun, left - 1)
    end
  end
end
