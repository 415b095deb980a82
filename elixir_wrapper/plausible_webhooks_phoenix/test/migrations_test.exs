defmodule Plausible.Webhooks.MigrationsTest do
  # The tables come, go and come again in the host's migrations, as the host asks.
  use Plausible.Webhooks.Test.StoreCase, async: true

  alias Plausible.Webhooks.Migrations

  # Tables, columns, indexes, constraints, triggers and functions of a schema, without
  # its name and without what PostgreSQL numbers.
  defp objects(prefix) do
    objects =
      for sql <- [
            "SELECT table_name || '.' || column_name || ' ' || data_type || coalesce(' ' || collation_name, '') ||
             ' ' || is_nullable || ' ' || is_identity FROM information_schema.columns WHERE table_schema = $1",
            "SELECT indexdef FROM pg_indexes WHERE schemaname = $1",
            "SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
             WHERE connamespace = $1::text::regnamespace",
            "SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid
             WHERE NOT tgisinternal AND relnamespace = $1::text::regnamespace",
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = $1::text::regnamespace",
            "SELECT c.relname || ' ' || coalesce(array_to_string(reloptions, ','), '') || ' ' || coalesce(
             obj_description(c.oid), '') FROM pg_class AS c WHERE relnamespace = $1::text::regnamespace AND relkind = 'r'"
          ],
          [text] <- Repo.query!(sql, [name(sql, prefix)]).rows,
          # The migrations' own.
          not (text =~ "schema_migrations"),
          do: String.replace(text, prefix, "SCHEMA")

    Enum.sort(objects)
  end

  defp name(sql, prefix), do: if(sql =~ "regnamespace", do: inspect(prefix), else: prefix)

  defp fill!(prefix) do
    store = open!(prefix: prefix)
    webhook = a_webhook([])
    :ok = Store.insert_webhook(store, webhook)
    deliveries = for _ <- 1..1_200, do: a_delivery(webhook_id: webhook.id)
    :ok = Store.accept(store, deliveries)
    :ok = Store.record(store, Enum.map(Enum.take(deliveries, 700), &failed(&1, 1)))
    :ok = Store.heartbeat(store, "a", 60_000)
    {store, webhook, deliveries}
  end

  test "up, down and up again, with data, gives the same tables" do
    prefix = schema()
    assert Migrations.migrated_version(Repo, prefix: prefix) == 0
    first = nil

    for _round <- 1..3, reduce: first do
      first ->
        migrate!(prefix, :up)
        assert Migrations.migrated_version(Repo, prefix: prefix) == Migrations.current_version()
        made = objects(prefix)
        assert length(made) > 60
        if first, do: assert(made == first)

        {store, webhook, deliveries} = fill!(prefix)
        assert Store.get_webhook(store, webhook.id) == {:ok, webhook}
        assert {:ok, %{pending: 500, failed: 700}} = Store.counts(store)
        assert {:ok, [_ | _]} = Store.recoverable(store, webhook.id, 0, 10)
        assert {:ok, %{attempts: 1}} = Store.get_delivery(store, hd(deliveries).id)

        migrate!(prefix, :down)
        assert objects(prefix) == []
        assert Migrations.migrated_version(Repo, prefix: prefix) == 0
        assert open(prefix: prefix) == {:error, :not_migrated}
        made
    end
  end

  test "a second up and a second down do nothing" do
    prefix = migrated()
    made = objects(prefix)
    {store, webhook, _deliveries} = fill!(prefix)
    in_migration(fn -> Migrations.up(prefix: prefix) end)
    assert objects(prefix) == made
    assert Store.get_webhook(store, webhook.id) == {:ok, webhook}

    empty = schema()
    in_migration(fn -> Migrations.down(prefix: empty) end)
    assert objects(empty) == []
  end

  test "tables of a newer release are left unchanged" do
    prefix = migrated()
    newer = Migrations.current_version() + 1
    Repo.query!("COMMENT ON TABLE #{inspect(prefix)}.webhooks IS '#{Migrations.word(newer, 1)}'")
    made = objects(prefix)
    in_migration(fn -> Migrations.up(prefix: prefix) end)
    assert objects(prefix) == made

    assert_raise RuntimeError, ~r/version #{newer}/, fn ->
      in_migration(fn -> Migrations.down(prefix: prefix) end)
    end

    assert objects(prefix) == made
  end

  test "a migration that fails leaves nothing behind" do
    prefix = schema()

    assert_raise Postgrex.Error, fn ->
      in_migration(fn -> Migrations.up(prefix: prefix, sites: "no_such_table") end)
    end

    assert objects(prefix) == []
    assert Migrations.migrated_version(Repo, prefix: prefix) == 0
  end

  test "several schemas of one database are independent" do
    [one, two] = for _ <- 1..2, do: migrated()
    {store, _webhook, _deliveries} = fill!(one)
    assert {:ok, %{pending: 0}} = Store.counts(open!(prefix: two))
    migrate!(two, :down)
    assert {:ok, %{pending: 500}} = Store.counts(store)
    assert objects(two) == []
  end

  test "a missing schema is made, except for public" do
    prefix = "webhooks made #{System.unique_integer([:positive])}"
    on_exit(fn -> Repo.query!("DROP SCHEMA IF EXISTS #{inspect(prefix)} CASCADE") end)
    in_migration(fn -> Migrations.up(prefix: prefix) end)
    assert Migrations.migrated_version(Repo, prefix: prefix) == Migrations.current_version()

    # The default is public. Runs in a database of its own.
    Repo.query!("CREATE DATABASE of_public")
    own_repo(database: "of_public", pool_size: 2)
    in_migration(fn -> Migrations.up() end)
    assert Migrations.migrated_version(Repo) == Migrations.current_version()
    assert {:ok, _} = Store.init(repo: Repo, vault: vault())
    in_migration(fn -> Migrations.down() end)
    assert objects("public") == []
  end

  describe "the host's sites" do
    setup do
      prefix = schema()
      name = inspect(prefix)
      Repo.query!("CREATE TABLE #{name}.sites (id bigserial PRIMARY KEY, number integer UNIQUE)")
      Repo.query!("INSERT INTO #{name}.sites VALUES (1, 101), (2, 102)")
      %{sites: prefix}
    end

    test "are referred to by name, column and schema, and take webhooks with them", context do
      %{sites: sites} = context

      for {reference, one, two, column} <- [
            {[table: "sites", prefix: sites], 1, 2, "id"},
            {[table: :sites, prefix: sites, column: "id"], 1, 2, "id"},
            {[table: "sites", prefix: sites, column: "number"], 101, 102, "number"}
          ] do
        prefix = migrated(sites: reference)
        store = open!(prefix: prefix)
        [gone, kept] = for id <- [one, two], do: a_webhook(site_id: id)
        for webhook <- [gone, kept], do: :ok = Store.insert_webhook(store, webhook)
        assert Store.insert_webhook(store, a_webhook(site_id: 77)) == {:error, :site_not_found}

        Repo.query!("DELETE FROM #{inspect(sites)}.sites WHERE #{column} = $1", [one])
        assert Store.all_webhooks(store) == {:ok, [kept]}
        Repo.query!("INSERT INTO #{inspect(sites)}.sites VALUES (1, 101)")

        # And they let go of the sites again.
        migrate!(prefix, :down)
        Repo.query!("DELETE FROM #{inspect(sites)}.sites WHERE #{column} = $1", [two])
        Repo.query!("INSERT INTO #{inspect(sites)}.sites VALUES (2, 102)")
      end
    end

    test "are found in the schema public by name alone" do
      Repo.query!("CREATE DATABASE of_sites")
      own_repo(database: "of_sites", pool_size: 2)
      Repo.query!("CREATE TABLE sites (id bigint PRIMARY KEY)")
      Repo.query!("INSERT INTO sites VALUES (1)")

      for {reference, prefix} <- [{"sites", "public"}, {:sites, "elsewhere"}] do
        in_migration(fn -> Migrations.up(prefix: prefix, sites: reference) end)
        {:ok, store} = Store.init(repo: Repo, vault: vault(), prefix: prefix)
        assert Store.insert_webhook(store, a_webhook(site_id: 1)) == :ok
        assert Store.insert_webhook(store, a_webhook(site_id: 2)) == {:error, :site_not_found}
      end
    end

    test "are found as the host's own queries find them, where it has a schema of its own", %{
      sites: sites
    } do
      # A trap: a table of the same name in public.
      Repo.query!("CREATE DATABASE of_search_path")
      own_repo(database: "of_search_path", pool_size: 2)
      Repo.query!("CREATE TABLE public.sites (id bigint PRIMARY KEY)")
      Repo.query!("INSERT INTO public.sites VALUES (1)")
      Repo.query!("CREATE SCHEMA #{inspect(sites)}")
      Repo.query!("CREATE TABLE #{inspect(sites)}.sites (id bigint PRIMARY KEY)")
      Repo.query!("INSERT INTO #{inspect(sites)}.sites VALUES (2)")
      path = "#{inspect(sites)}, public"
      own_repo(database: "of_search_path", pool_size: 2, parameters: [search_path: path])
      assert Repo.query!("SELECT id FROM sites").rows == [[2]]

      in_migration(fn -> Migrations.up(prefix: sites, sites: "sites") end)
      {:ok, store} = Store.init(repo: Repo, vault: vault(), prefix: sites)
      assert Store.insert_webhook(store, a_webhook(site_id: 2)) == :ok
      assert Store.insert_webhook(store, a_webhook(site_id: 1)) == {:error, :site_not_found}
    end

    test "can be written to until the very end of the migration", %{sites: sites} do
      # Whoever writes to them at that moment makes the migration wait, not fail.
      prefix = schema()
      reference = [table: "sites", prefix: sites]

      migrated =
        while_blocked(
          fn -> Repo.query!("INSERT INTO #{inspect(sites)}.sites VALUES (3, 103)") end,
          fn -> migrate!(prefix, :up, sites: reference) end,
          fn pid ->
            # A transaction sees the rows of its first read.
            Repo.query!("SELECT pg_stat_clear_snapshot()")
            sql = "SELECT query FROM pg_stat_activity WHERE pid = $1"
            [[query]] = Repo.query!(sql, [pid]).rows
            assert query =~ "FOREIGN KEY"
            :commit
          end
        )

      assert migrated == :ok
      assert Migrations.migrated_version(Repo, prefix: prefix) == 1
    end

    test "may be unknown: no reference, any site" do
      store = open!()
      assert Store.insert_webhook(store, a_webhook(site_id: -5)) == :ok
    end
  end

  describe "options that are wrong" do
    test "are reported before anything is made" do
      prefix = schema()
      newest = Migrations.current_version()

      for {options, message} <- [
            {[version: 0], ~r/no version 0/},
            {[version: newest + 1], ~r/no version #{newest + 1}; the newest is #{newest}/},
            {[version: "1"], ~r/no version "1"/},
            {[version: nil], ~r/no version nil/},
            {[prefix: nil], ~r/not a usable name/},
            {[prefix: :public], ~r/not a usable name/},
            {[prefix: ~s(a"; DROP TABLE x; --)], ~r/not a usable name/},
            {[prefix: "a'b"], ~r/not a usable name/},
            {[prefix: ""], ~r/not a usable name/},
            {[prefix: String.duplicate("x", 64)], ~r/not a usable name/},
            {[sites: ~s(sites" --)], ~r/not a usable name/},
            {[sites: [table: "sites", column: "a'b"]], ~r/not a usable name/},
            {[sites: [column: "id"]], ~r/not a usable name/},
            {[sites: [tabel: "sites"]], ~r/unknown keys \[:tabel\]/},
            {[colour: "blue"], ~r/unknown keys \[:colour\]/}
          ],
          direction <- [:up, :down] do
        assert_raise ArgumentError, message, fn ->
          in_migration(fn ->
            apply(Migrations, direction, [[prefix: prefix] |> Keyword.merge(options)])
          end)
        end
      end

      assert objects(prefix) == []
      assert_raise ArgumentError, fn -> Migrations.migrated_version(Repo, prefix: "a'b") end
    end
  end

  describe "concurrently" do
    test "is accepted outside a transaction, and has no effect on new tables" do
      prefix = schema()
      in_migration(fn -> Migrations.up(prefix: prefix, concurrently: true) end)
      assert objects(prefix) == objects(migrated())

      other = schema()
      outside_of_a_transaction(fn -> Migrations.up(prefix: other, concurrently: true) end)
      assert objects(other) == objects(prefix)
      outside_of_a_transaction(fn -> Migrations.down(prefix: other, concurrently: true) end)
      assert objects(other) == []
    end

    test "is how a later version adds an index, while others write, and again if broken off" do
      prefix = migrated()
      {store, _webhook, _deliveries} = fill!(prefix)
      options = %{prefix: inspect(prefix), concurrently: true}

      add = fn ->
        Migrations.Index.create(options, "webhook_colour", "webhook_deliveries (goal_id, seq)")
      end

      valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"
      index = "#{inspect(prefix)}.webhook_colour"

      # Somebody has written and not committed: it waits, and is broken off.
      outcome =
        while_blocked(
          fn -> :ok = Store.accept(store, [a_delivery()]) end,
          fn ->
            try do
              outside_of_a_transaction(add)
            rescue
              error in Postgrex.Error -> error.postgres.code
            end
          end,
          fn pid ->
            # Who writes meanwhile does not wait.
            assert Task.await(Task.async(fn -> Store.accept(store, [a_delivery()]) end)) == :ok
            Repo.query!("SELECT pg_cancel_backend($1)", [pid])
            :wait
          end
        )

      assert outcome == :query_canceled
      assert Repo.query!(valid, [index]).rows == [[false]]
      outside_of_a_transaction(add)
      assert Repo.query!(valid, [index]).rows == [[true]]
    end
  end

  # --- a migration of the test's own

  defp in_migration(fun), do: run_migration(fun, [])

  defp outside_of_a_transaction(fun),
    do: run_migration(fun, disable_ddl_transaction: true, disable_migration_lock: true)

  # A module of each one's own: what it may do is an attribute.
  defp run_migration(fun, attributes) do
    number = System.unique_integer([:positive])
    module = Module.concat(__MODULE__, "Migration#{number}")
    :persistent_term.put(module, fun)

    body =
      quote do
        use Ecto.Migration

        for {name, value} <- unquote(attributes),
            do: Module.put_attribute(__MODULE__, name, value)

        def up, do: :persistent_term.get(__MODULE__).()
        def down, do: :ok
      end

    Module.create(module, body, Macro.Env.location(__ENV__))
    Ecto.Migrator.run(Repo, [{number, module}], :up, all: true, log: false, prefix: numbers())
    :ok
  end

  # Where the migrations that have run are noted.
  defp numbers do
    Repo.query!("CREATE SCHEMA IF NOT EXISTS numbers")
    "numbers"
  end

  defmodule Anew do
    use Ecto.Migration

    def up do
      Migrations.down(prefix: prefix())
      Migrations.up(prefix: prefix())
    end

    def down, do: Migrations.down(prefix: prefix())
  end

  test "down and up in one migration make the tables anew" do
    prefix = migrated()
    Repo.query!(~s(DELETE FROM "#{prefix}".schema_migrations))
    assert [2] = Ecto.Migrator.run(Repo, [{2, Anew}], :up, all: true, prefix: prefix, log: false)
    assert Migrations.migrated_version(Repo, prefix: prefix) == 1
  end

  test "a role that owns the schema and may not make one is enough" do
    schema = schema("webhooks_own_")
    role = "webhooks_role_#{System.unique_integer([:positive])}"
    Repo.query!("CREATE ROLE #{role} LOGIN")
    on_exit(fn -> Repo.query!("DROP OWNED BY #{role}") && Repo.query!("DROP ROLE #{role}") end)
    Repo.query!(~s(ALTER SCHEMA "#{schema}" OWNER TO #{role}))
    own_repo(username: role, pool_size: 2)
    migrate!(schema, :up)
    assert Migrations.migrated_version(Repo, prefix: schema) == 1
  end
end
