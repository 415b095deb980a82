defmodule Plausible.Webhooks.Store.SQLiteFailureTest do
  # What the SQLite store does when something breaks, and how far it searches.
  use Plausible.Webhooks.Test.SQLiteCase, async: true

  alias Plausible.Webhooks.{Attempt, Webhook}
  alias Plausible.Webhooks.Store.SQLite.{Connection, Native}
  alias Plausible.Webhooks.StoreContract.Promise

  describe "a long log" do
    test "is searched so far and no further, and from there on the next time", %{path: path} do
      store = start!(options(path))

      # A search that finds nothing: three times the rows that one call reads.
      for first <- 1..250_000//10_000 do
        sql!(
          store,
          """
          INSERT INTO deliveries (id, webhook_id, site_id, type, goal_id, state, attempts,
            schedule_from, created_at_ms, finished_at_ms, manual, retry)
          WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 + 9999)
          SELECT 'msg_' || i, 'wh_1', 1, 'goal.completed', i <= 2, 2, 1, 0, i, i, 0, 1 FROM n
          """,
          [first]
        )
      end

      assert {:ok, %{entries: [], next: next}} = SQLite.deliveries(store, 1, %{goal_id: 1}, %{})
      assert is_binary(next)

      {pages, entries} = turn(store, %{goal_id: 1}, %{}, 0)
      assert pages >= 3
      assert Enum.map(entries, & &1.id) == ["msg_2", "msg_1"]

      # A common match fills its page, and an index finds its rows at once.
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

      # Hours of work.
      endless = """
      INSERT INTO owners (owner, until_ms)
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000000)
      SELECT 'o', max(i) FROM n
      """

      asking = Task.async(fn -> Connection.write(store.connection, [{endless, []}]) end)

      eventually(fn ->
        match?(
          {:current_function, {Native, :execute, 3}},
          Process.info(old, :current_function)
        )
      end)

      Process.exit(old, :kill)
      assert Task.await(asking, 60_000) == {:error, :connection_lost}
      eventually(fn -> SQLite.get_delivery(store, delivery.id) == {:ok, delivery} end)
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
      eventually(fn -> Process.whereis(store.connection) not in [nil, old] end)

      # The former engine may go on: it does not get its own deliveries twice.
      eventually(fn -> SQLite.claim(store, "a", 10) == {:ok, []} end)
      :ok = SQLite.heartbeat(store, "a", 60_000)
      assert SQLite.claim(store, "b", 10) == {:ok, []}
    end

    test "without its process the store returns an error", %{path: path} do
      options = options(path)
      store = start!(options)
      stop(options)

      for {call, arguments} <- [
            accept: [[delivery()]],
            record: [[%Attempt{delivery_id: "x", number: 1, state: :failed, started_at_ms: 1}]],
            claim: ["a", 1],
            claim_suspect: ["a"],
            release: ["a", ["x"], 1],
            heartbeat: ["a", 1],
            redeliver: ["a", ["x"], [:failed]],
            requested: ["a", 1],
            get_webhooks: [["x"]],
            rekey: [1],
            add_audit: [%{site_id: 1, webhook_id: "x", actor: "a", action: "b", at_ms: 1}],
            audit: [1, "x", 1],
            recoverable: ["wh", 0, 1],
            cancel_waiting: ["wh", "x"],
            hold_waiting: ["wh"],
            send_held: [],
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
            put_alert_state: [Promise.an_alert(webhook_id: "x", kind: :drop)]
          ] do
        assert apply(SQLite, call, [store | arguments]) == {:error, :not_started}
      end
    end

    test "a full disk refuses the whole batch until there is room", %{path: path} do
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

    test "a batch with an invalid row is refused as a whole", %{path: path} do
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

    test "a wrong argument is an error, and the process lives on", %{path: path} do
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

    test "a request whose caller has given up is not run", %{path: path} do
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
end
