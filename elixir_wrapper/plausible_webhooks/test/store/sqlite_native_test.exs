defmodule Plausible.Webhooks.Store.SQLite.NativeTest do
  # The NIF over libsqlite3: what goes in comes out, what is wrong is said, and no
  # way of ending it hurts anybody.
  use ExUnit.Case, async: true

  import Plausible.Webhooks.Test.Eventually

  alias Plausible.Webhooks.Store.SQLite.Native

  @moduletag :tmp_dir

  setup %{tmp_dir: folder} do
    path = Path.join(folder, "a.db")
    File.touch!(path)
    %{path: path}
  end

  defp open!(path) do
    {:ok, db} = Native.open(path)
    db
  end

  defp rows!(db, sql, params \\ []) do
    assert {:ok, rows} = Native.execute(db, sql, params)
    rows
  end

  @endless "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000000) SELECT max(i) FROM n"

  describe "values" do
    test "come back as they went in", %{path: path} do
      db = open!(path)
      bytes = for(b <- 0..255, into: <<>>, do: <<b>>)

      for value <-
            [0, -1, 9_223_372_036_854_775_807, -9_223_372_036_854_775_808, "", "a", "ä中🎉"] ++
              ["a\0b", bytes, String.duplicate("x", 300_000), nil] do
        assert rows!(db, "SELECT ?1", [value]) == [{value}]
        if is_binary(value), do: assert(rows!(db, "SELECT ?1", [{:blob, value}]) == [{value}])
      end

      types = "SELECT typeof(?1), typeof(?2), typeof(?3), typeof(?4), typeof(?5)"

      assert rows!(db, types, [1, "1", {:blob, "1"}, nil, {:blob, ""}]) ==
               [{"integer", "text", "blob", "null", "blob"}]

      assert rows!(db, "SELECT 1.5, -0.0, 1e300, 9e999, -9e999") ==
               [{1.5, 0.0, 1.0e300, nil, nil}]
    end

    test "in parts of larger binaries, many rows, no rows", %{path: path} do
      db = open!(path)
      <<_::binary-1, part::binary-5, _::binary>> = String.duplicate("abcdefg", 100)
      assert rows!(db, "SELECT ?1", [part]) == [{part}]
      rows!(db, "CREATE TABLE t (i, b)")

      many =
        "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i, zeroblob(10) FROM n"

      assert rows!(db, many) == []
      rows = rows!(db, "SELECT * FROM t ORDER BY i")
      assert length(rows) == 20_000 and List.last(rows) == {20_000, <<0::80>>}
      assert rows!(db, "SELECT * FROM t WHERE i = 0") == []
      assert rows!(db, "  \n ") == []
    end

    test "of a call are not those of the next", %{path: path} do
      db = open!(path)
      assert rows!(db, "SELECT ?1, ?2", ["a", 1]) == [{"a", 1}]
      :erlang.garbage_collect()

      assert {:error, {25, "wrong number of parameters"}} =
               Native.execute(db, "SELECT ?1, ?2", [])

      assert rows!(db, "SELECT ?1, ?2", [nil, nil]) == [{nil, nil}]
    end
  end

  describe "an error" do
    test "in an argument's type raises", %{path: path} do
      db = open!(path)

      for arguments <- [
            [:db, "SELECT 1", []],
            [make_ref(), "SELECT 1", []],
            [db, ~c"SELECT 1", []],
            [db, ["SELECT 1"], []],
            [db, "SELECT 1\0", []],
            [db, String.duplicate(" ", 65_537), []],
            [db, "SELECT 1", nil],
            [db, "SELECT ?1", [1 | 2]],
            [db, "SELECT ?1", [1.5]],
            [db, "SELECT ?1", [:atom]],
            [db, "SELECT ?1", [{:blob, 1}]],
            [db, "SELECT ?1", [{:text, "a"}]],
            [db, "SELECT ?1", [<<1::1>>]],
            [db, "SELECT ?1", [9_223_372_036_854_775_808]],
            [db, "SELECT 1", List.duplicate(1, 65)]
          ] do
        assert_raise ArgumentError, fn -> apply(Native, :execute, arguments) end
      end

      for path <- [nil, ~c"a", "a\0b", 1],
          do: assert_raise(ArgumentError, fn -> Native.open(path) end)

      assert_raise ArgumentError, fn -> Native.close(make_ref()) end
      # Half-bound parameters are gone.
      assert rows!(db, "SELECT ?1", [1]) == [{1}]
    end

    test "in the statement has SQLite's code", %{path: path} do
      db = open!(path)
      rows!(db, "CREATE TABLE t (a NOT NULL)")
      assert {:error, {1, "near \"NONSENSE\": syntax error"}} = Native.execute(db, "NONSENSE", [])
      assert {:error, {1, "no such table: x"}} = Native.execute(db, "SELECT * FROM x", [])

      assert {:error, {19, "NOT NULL constraint failed" <> _}} =
               Native.execute(db, "INSERT INTO t VALUES (?1)", [nil])

      assert {:error, {21, "more than one statement"}} =
               Native.execute(db, "SELECT 1; DROP TABLE t", [])

      assert rows!(db, "SELECT count(*) FROM t;") == [{0}]
    end

    test "in the file is returned", %{path: path} do
      assert {:error, {14, _}} = Native.open(path <> ".not_there")
      File.write!(path, String.duplicate("no database", 1_000))
      db = open!(path)
      assert {:error, {26, _}} = Native.execute(db, "SELECT * FROM sqlite_schema", [])
    end

    test "no other file is reached, no code loaded", %{path: path} do
      db = open!(path)
      assert {:error, {1, _}} = Native.execute(db, "ATTACH ?1 AS other", [path <> "2"])
      refute File.exists?(path <> "2")

      assert {:error, {1, "not authorized"}} =
               Native.execute(db, "SELECT load_extension('x')", [])
    end
  end

  describe "statements" do
    test "are kept by their text and follow a change of the schema", %{path: path} do
      db = open!(path)
      rows!(db, "CREATE TABLE t (a)")
      rows!(db, "INSERT INTO t VALUES (?1)", [1])
      assert rows!(db, "SELECT * FROM t") == [{1}]
      rows!(db, "ALTER TABLE t ADD COLUMN b DEFAULT 2")
      assert rows!(db, "SELECT * FROM t") == [{1, 2}]
      # More than are kept.
      for round <- 1..2, n <- 1..50, do: assert(rows!(db, "SELECT #{n}") == [{n}], "#{round}")
      rows!(db, "DROP TABLE t")
      assert {:error, {1, "no such table: t"}} = Native.execute(db, "SELECT * FROM t", [])
    end

    test "run one at a time: a second caller gets an error", %{path: path} do
      test = self()

      owner =
        spawn(fn ->
          db = open!(path)
          send(test, {:db, db})
          Native.execute(db, @endless, [])
        end)

      assert_receive {:db, db}
      eventually(fn -> Native.execute(db, "SELECT 1", []) == {:error, :busy} end)
      assert Native.close(db) == {:error, :busy}
      Process.exit(owner, :kill)
      # Its death ends the running statement and the connection.
      eventually(fn -> Native.execute(db, "SELECT 1", []) == {:error, :closed} end)
      assert Native.close(db) == :ok
    end
  end

  describe "the end" do
    test "a closed connection stays closed, and closing twice is harmless", %{path: path} do
      db = open!(path)
      rows!(db, "PRAGMA journal_mode = WAL")
      rows!(db, "CREATE TABLE t (a)")
      assert File.exists?(path <> "-wal")
      assert Native.close(db) == :ok
      assert Native.close(db) == :ok
      refute File.exists?(path <> "-wal")
      assert Native.execute(db, "SELECT 1", []) == {:error, :closed}
      assert rows!(open!(path), "SELECT count(*) FROM t") == [{0}]
    end

    test "a process that dies leaves no lock and no half transaction", %{path: path} do
      test = self()

      {owner, monitor} =
        spawn_monitor(fn ->
          db = open!(path)
          rows!(db, "PRAGMA locking_mode = EXCLUSIVE")
          rows!(db, "PRAGMA journal_mode = WAL")
          rows!(db, "CREATE TABLE t (a)")
          rows!(db, "BEGIN IMMEDIATE")
          rows!(db, "INSERT INTO t VALUES (1)")
          send(test, :ready)
          Process.sleep(:infinity)
        end)

      assert_receive :ready
      other = open!(path)
      assert {:error, {5, _}} = Native.execute(other, "SELECT * FROM t", [])
      Process.exit(owner, :kill)
      assert_receive {:DOWN, ^monitor, _, _, _}
      eventually(fn -> Native.execute(other, "SELECT * FROM t", []) == {:ok, []} end)
    end

    test "of many connections at once, with work under way", %{path: path} do
      for round <- 1..20 do
        pids =
          for n <- 1..8 do
            file = "#{path}.#{n}"
            File.touch!(file)

            spawn(fn ->
              db = open!(file)
              _ = Native.execute(db, "CREATE TABLE IF NOT EXISTS t (a)", [])

              for i <- Stream.iterate(0, &(&1 + 1)),
                  do: Native.execute(db, "INSERT INTO t VALUES (?1)", [i])
            end)
          end

        Process.sleep(rem(round * 7, 20))
        for pid <- pids, do: Process.exit(pid, :kill)
      end

      for n <- 1..8 do
        file = "#{path}.#{n}"

        eventually(fn ->
          Native.execute(open!(file), "PRAGMA integrity_check", []) == {:ok, [{"ok"}]}
        end)
      end
    end
  end
end
