defmodule Plausible.Webhooks.Store.SQLite.Schema do
  @moduledoc false
  # The tables of the file, and their migrations.
  #
  #   deliveries.seq      order of arrival; the log is ordered by (created_at_ms, seq)
  #   deliveries.state    -1 held, 0 pending, 1 parked, 2 delivered, 3 failed, 4 cancelled
  #   bodies, attempts    apart from deliveries, so that neither the log nor a
  #                       change of state reads or rewrites them
  #   deliveries.requested  another node asks the owner to send it again
  #   deliveries.ends     how many ends of a node it may have caused since its last attempt
  #   attempts.key        seq * 2^20 + number * 2^4 + one digit: the attempts of a delivery lie
  #                       side by side in one tree, and so do those that several nodes
  #                       (`maker`) have made under the same number
  #   webhooks.sealed     URL, headers and secrets, encrypted
  #   state_counts        kept by triggers: counting a million rows takes too long
  #   deleted_webhooks    whose log is still to be deleted
  #   vault_check         tells the wrong keys from the right ones
  #   audit               who did what to a webhook
  #
  # No index leads from a webhook to its deliveries: with many webhooks it doubles
  # what every commit writes. The site's index serves, a slice at a time.
  #
  # accept and record write through temporary views whose triggers hold the rules. One
  # statement per batch is a transaction by itself, and takes the rows one after the other, so
  # several attempts of one delivery in a batch need no special care. The views are made anew
  # whenever the file is opened, so they are always those of this version.

  alias Plausible.Webhooks.Store.Columns

  @application_id 0x504C5748
  @key_bits 20
  @maker_bits 4

  @type run :: (iodata() -> {:ok, [tuple()]} | {:error, term()})
  @type migration :: {pos_integer(), [String.t()]}

  @doc "The key range of a delivery's attempts, as SQL over its `seq`."
  @spec attempts_of(String.t()) :: String.t()
  def attempts_of(seq) do
    last = Bitwise.bsl(1, @key_bits) - 1
    "key BETWEEN #{seq} << #{@key_bits} AND (#{seq} << #{@key_bits}) + #{last}"
  end

  @doc "The number in an attempt's key, as SQL."
  @spec number_of(String.t()) :: String.t()
  def number_of(key), do: "(#{key} >> #{@maker_bits}) & #{Columns.number_max()}"

  @doc """
  Prepares a connection: checks what the file is before anything is written to it, calls
  `ours` if the file is a store or empty, then migrates. `run` executes one statement.
  """
  @spec open(run(), (() -> term()), [migration()]) :: :ok | {:error, term()}
  def open(run, ours, migrations \\ migrations()) do
    with :ok <- first_look(run),
         {:ok, version} <- judge(run, newest(migrations)),
         _ = ours.(),
         :ok <- write_ahead(run),
         :ok <- all(run, settings()),
         :ok <- migrate(run, version, migrations),
         do: all(run, temporary())
  end

  # Exclusive before the first read: then there is no shared-memory file, and the lock is taken
  # now and kept, so that a second VM is refused at its start. The kernel releases the lock
  # when the process ends, however it ends.
  defp first_look(run) do
    with :ok <- all(run, ["PRAGMA busy_timeout = 0", "PRAGMA locking_mode = EXCLUSIVE"]),
         {:ok, [{version}]} <- run.("SELECT sqlite_version()"),
         do: new_enough(version)
  end

  # json_each and ->>, upsert, RETURNING.
  defp new_enough(version) do
    case Enum.map(String.split(version, "."), &Integer.parse/1) do
      [{major, ""}, {minor, ""} | _patch] when {major, minor} >= {3, 38} -> :ok
      _other -> {:error, {:sqlite_too_old, version}}
    end
  end

  defp judge(run, newest) do
    with {:ok, [{tables}]} <- run.("SELECT count(*) FROM sqlite_schema"),
         {:ok, [{application_id}]} <- run.("PRAGMA application_id"),
         {:ok, [{version}]} <- run.("PRAGMA user_version") do
      case {application_id, version, tables} do
        {0, 0, 0} -> {:ok, 0}
        {@application_id, version, _} when version in 1..newest//1 -> {:ok, version}
        {@application_id, version, _} -> {:error, {:newer_schema, version}}
        _other -> {:error, :foreign_database}
      end
    end
  end

  defp write_ahead(run) do
    case run.("PRAGMA journal_mode = WAL") do
      {:ok, [{"wal"}]} -> :ok
      {:ok, [{mode}]} -> {:error, {:journal_mode, mode}}
      {:error, _reason} = error -> error
    end
  end

  defp settings do
    [
      "PRAGMA synchronous = FULL",
      "PRAGMA foreign_keys = ON",
      "PRAGMA recursive_triggers = OFF",
      "PRAGMA trusted_schema = OFF",
      "PRAGMA cell_size_check = ON",
      "PRAGMA temp_store = MEMORY",
      "PRAGMA cache_size = -32000",
      # Pages. A checkpoint writes every changed page once, however often it
      # changed, so it should not come too often; but the one commit that runs it
      # takes as long as it takes.
      "PRAGMA wal_autocheckpoint = 2000",
      "PRAGMA journal_size_limit = 67108864"
    ]
  end

  defp migrate(run, version, migrations) do
    case for({to, statements} <- migrations, to > version, do: {to, statements}) do
      [] -> :ok
      due -> in_transaction(run, Enum.flat_map(due, &elem(&1, 1)), newest(migrations))
    end
  end

  defp in_transaction(run, statements, version) do
    marks = ["PRAGMA application_id = #{@application_id}", "PRAGMA user_version = #{version}"]

    with {:error, _reason} = error <-
           all(run, ["BEGIN IMMEDIATE"] ++ statements ++ marks ++ ["COMMIT"]) do
      _ = run.("ROLLBACK")
      error
    end
  end

  defp newest(migrations), do: migrations |> Enum.map(&elem(&1, 0)) |> Enum.max()

  defp all(run, statements) do
    Enum.reduce_while(statements, :ok, fn statement, :ok ->
      case run.(statement) do
        {:ok, _rows} -> {:cont, :ok}
        {:error, _reason} = error -> {:halt, error}
      end
    end)
  end

  @doc "Each migration brings the file to its version. A released one is never changed."
  @spec migrations() :: [migration()]
  def migrations, do: [{1, version_1()}]

  defp version_1 do
    [
      """
      CREATE TABLE webhooks (
        id TEXT PRIMARY KEY NOT NULL,
        site_id INTEGER NOT NULL,
        name TEXT NOT NULL,
        host TEXT,
        sealed BLOB NOT NULL,
        enabled INTEGER NOT NULL,
        events TEXT NOT NULL,
        goals TEXT,
        spike_threshold INTEGER,
        drop_threshold INTEGER,
        traffic_min_interval_s INTEGER NOT NULL,
        disabled_reason TEXT,
        disabled_at_ms INTEGER,
        failing_since_ms INTEGER,
        version INTEGER NOT NULL,
        inserted_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL
      )
      """,
      "CREATE INDEX webhooks_site ON webhooks (site_id)",
      """
      CREATE TABLE deliveries (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        webhook_id TEXT NOT NULL,
        site_id INTEGER NOT NULL,
        type TEXT NOT NULL,
        goal_id INTEGER,
        state INTEGER NOT NULL CHECK (state BETWEEN -1 AND 4),
        reason BLOB,
        attempts INTEGER NOT NULL,
        schedule_from INTEGER NOT NULL,
        created_at_ms INTEGER NOT NULL,
        next_at_ms INTEGER,
        finished_at_ms INTEGER CHECK ((finished_at_ms IS NOT NULL) = (state >= 2)),
        owner TEXT CHECK (owner IS NULL OR state = 0),
        last_status INTEGER,
        last_error TEXT,
        manual INTEGER NOT NULL,
        retry INTEGER NOT NULL,
        requested INTEGER NOT NULL DEFAULT 0 CHECK (requested = 0 OR state = 0),
        ends INTEGER NOT NULL DEFAULT 0
      )
      """,
      """
      CREATE INDEX deliveries_ends
      ON deliveries (owner, ends, coalesce(next_at_ms, created_at_ms))
      WHERE ends > 0 AND state = 0
      """,
      "CREATE INDEX deliveries_requested ON deliveries (owner) WHERE requested",
      "CREATE INDEX deliveries_site ON deliveries (site_id, created_at_ms)",
      """
      CREATE INDEX deliveries_failed ON deliveries (site_id, created_at_ms) WHERE state >= 3
      """,
      """
      CREATE INDEX deliveries_waiting
      ON deliveries (owner, state, coalesce(next_at_ms, created_at_ms), webhook_id)
      WHERE state <= 1
      """,
      """
      CREATE INDEX deliveries_finished ON deliveries (finished_at_ms)
      WHERE finished_at_ms IS NOT NULL
      """,
      """
      CREATE TABLE bodies (
        delivery INTEGER PRIMARY KEY REFERENCES deliveries (seq) ON DELETE CASCADE,
        body BLOB NOT NULL
      )
      """,
      """
      CREATE TABLE attempts (
        key INTEGER PRIMARY KEY,
        maker INTEGER NOT NULL,
        state INTEGER NOT NULL,
        status INTEGER,
        error TEXT,
        detail BLOB,
        started_at_ms INTEGER NOT NULL,
        signed_at_s INTEGER,
        dns_us INTEGER,
        connect_us INTEGER,
        tls_us INTEGER,
        first_byte_us INTEGER,
        total_us INTEGER,
        remote_ip TEXT,
        response_headers BLOB NOT NULL,
        response_body BLOB NOT NULL,
        response_truncated INTEGER NOT NULL,
        next_at_ms INTEGER,
        gone INTEGER NOT NULL
      )
      """,
      "CREATE TABLE state_counts (state INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
      "INSERT INTO state_counts (state, n) VALUES (-1, 0), (0, 0), (1, 0), (2, 0), (3, 0), (4, 0)",
      """
      CREATE TRIGGER deliveries_inserted AFTER INSERT ON deliveries BEGIN
        UPDATE state_counts SET n = n + 1 WHERE state = NEW.state;
      END
      """,
      """
      CREATE TRIGGER deliveries_moved AFTER UPDATE OF state ON deliveries
      WHEN OLD.state <> NEW.state BEGIN
        UPDATE state_counts SET n = n - 1 WHERE state = OLD.state;
        UPDATE state_counts SET n = n + 1 WHERE state = NEW.state;
      END
      """,
      """
      CREATE TRIGGER deliveries_deleted AFTER DELETE ON deliveries BEGIN
        UPDATE state_counts SET n = n - 1 WHERE state = OLD.state;
        DELETE FROM attempts WHERE #{attempts_of("OLD.seq")};
      END
      """,
      "CREATE TABLE owners (owner TEXT PRIMARY KEY NOT NULL, until_ms INTEGER NOT NULL)",
      """
      CREATE TABLE alert_states (
        webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        alert_id TEXT,
        visitors INTEGER,
        threshold INTEGER,
        changed_at_ms INTEGER NOT NULL,
        notified_at_ms INTEGER,
        seen_at_ms INTEGER,
        calm_since_ms INTEGER,
        PRIMARY KEY (webhook_id, kind)
      ) WITHOUT ROWID
      """,
      """
      CREATE TABLE deleted_webhooks (
        id TEXT PRIMARY KEY NOT NULL,
        site_id INTEGER NOT NULL
      ) WITHOUT ROWID
      """,
      """
      CREATE TABLE audit (
        id INTEGER PRIMARY KEY,
        site_id INTEGER NOT NULL,
        webhook_id TEXT NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        at_ms INTEGER NOT NULL
      )
      """,
      "CREATE INDEX audit_webhook ON audit (webhook_id, at_ms)",
      "CREATE TABLE vault_check (id INTEGER PRIMARY KEY CHECK (id = 1), sealed BLOB NOT NULL)"
    ]
  end

  # The engine has let go of a delivery that another node wants sent again.
  @again "(requested AND NEW.state NOT IN (0, 2))"
  # A delivery is not held if its webhook is not paused, or no longer: no resume would send it.
  @resumed "(NEW.state = -1 AND NOT EXISTS (SELECT 1 FROM webhooks " <>
             "WHERE webhooks.id = deliveries.webhook_id AND NOT enabled))"
  @delivery_columns Columns.delivery()
  @attempt_columns Columns.attempt()

  @doc "The columns of the view `recorded`."
  @spec recorded() :: [String.t()]
  def recorded,
    do: ["id", "number"] ++ @attempt_columns ++ ["reason", "reporter", "maker", "began", "now_ms"]

  # changes() is what the statement before it in the same trigger has done.
  # The updates of `recorded` are the rule of the record callback: the first leaves
  # to others what its owner lets go of by an attempt that is not new (and was not
  # on record itself), the second moves the delivery, the third only notes an
  # attempt that moved nothing.
  defp temporary do
    [
      view("accepted", @delivery_columns ++ ["body"]),
      """
      CREATE TEMP TRIGGER accepted_insert INSTEAD OF INSERT ON accepted BEGIN
        INSERT INTO deliveries (#{Enum.join(@delivery_columns, ", ")})
        VALUES (#{new(@delivery_columns)}) ON CONFLICT (id) DO NOTHING;
        INSERT INTO bodies (delivery, body)
        SELECT last_insert_rowid(), NEW.body WHERE changes() = 1;
      END
      """,
      view("recorded", recorded()),
      """
      CREATE TEMP TRIGGER recorded_insert INSTEAD OF INSERT ON recorded BEGIN
        INSERT INTO attempts (key, maker, #{Enum.join(@attempt_columns, ", ")})
        SELECT first + taken, NEW.maker, #{new(@attempt_columns)}
        FROM (SELECT first, #{made("count(*)", "TRUE")} AS taken FROM (
          SELECT (seq << #{@key_bits}) + (NEW.number << #{@maker_bits}) AS first
          FROM deliveries WHERE id = NEW.id AND NEW.number > 0))
        WHERE taken < #{Bitwise.bsl(1, @maker_bits)}
          AND NOT EXISTS #{made("1", "maker = NEW.maker")};

        UPDATE deliveries SET owner = NULL
        WHERE id = NEW.id AND state = 0 AND owner = NEW.reporter
          AND NEW.state NOT IN (0, 2) AND NEW.number BETWEEN 1 AND attempts AND changes() = 1;

        UPDATE deliveries SET
          state = CASE WHEN #{@again} THEN 0 WHEN #{@resumed} THEN 1 ELSE NEW.state END,
          reason = CASE WHEN NEW.state >= 3 AND NOT #{@again} THEN NEW.reason END,
          attempts = max(attempts, NEW.number),
          schedule_from = CASE WHEN #{@again} THEN max(attempts, NEW.number)
            ELSE max(schedule_from, NEW.began) END,
          last_status = CASE WHEN NEW.number > 0 THEN NEW.status ELSE last_status END,
          last_error = CASE WHEN NEW.number > 0 THEN NEW.error ELSE last_error END,
          next_at_ms = CASE WHEN NEW.state IN (0, 1) AND NOT #{@again} THEN NEW.next_at_ms END,
          finished_at_ms = CASE WHEN NEW.state >= 2 AND NOT #{@again} THEN NEW.now_ms END,
          owner = CASE WHEN NEW.state = 0 THEN owner END,
          requested = requested AND NEW.state = 0,
          ends = CASE WHEN NEW.number > 0 THEN 0 ELSE ends END
        WHERE id = NEW.id AND CASE
          WHEN state > 1 THEN NEW.state = 2 AND state <> 2
          WHEN NEW.number = 0
            THEN NEW.reporter IS NULL OR owner IS NULL OR owner = NEW.reporter
          ELSE NEW.state = 2 OR NEW.number > attempts
        END;

        UPDATE deliveries SET
          attempts = NEW.number,
          last_status = CASE WHEN state = 2 THEN last_status ELSE NEW.status END,
          last_error = CASE WHEN state = 2 THEN last_error ELSE NEW.error END
        WHERE id = NEW.id AND attempts < NEW.number;
      END
      """
    ]
  end

  defp made(what, condition) do
    last = Bitwise.bsl(1, @maker_bits) - 1
    "(SELECT #{what} FROM attempts WHERE key BETWEEN first AND first + #{last} AND #{condition})"
  end

  defp view(name, columns) do
    nulls = Enum.map_join(columns, ", ", fn _column -> "NULL" end)
    "CREATE TEMP VIEW #{name} (#{Enum.join(columns, ", ")}) AS SELECT #{nulls}"
  end

  defp new(columns), do: Enum.map_join(columns, ", ", &"NEW.#{&1}")
end
