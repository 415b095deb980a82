defmodule Plausible.Webhooks.StoreEctoOpeningTest do
  # What the store is given at the start: options, tables, keys.
  use Plausible.Webhooks.Test.StoreCase, async: true

  alias Plausible.Webhooks.{Migrations, Vault}

  defp comment!(prefix, text),
    do: Repo.query!("COMMENT ON TABLE #{inspect(prefix)}.webhooks IS #{text}")

  # Everything that is in the schema, to see that nothing has changed.
  defp contents(prefix) do
    tables =
      Repo.query!("SELECT table_name FROM information_schema.tables WHERE table_schema = $1", [
        prefix
      ]).rows

    for [table] <- Enum.sort(tables),
        do: {table, Repo.query!("SELECT * FROM #{inspect(prefix)}.#{table} ORDER BY 1").rows}
  end

  describe "options" do
    test "are checked, and the first that is wrong is named" do
      assert Store.init([]) == {:error, {:missing_option, :repo}}
      assert Store.init(repo: Repo) == {:error, {:missing_option, :vault}}
      assert Store.init(vault: vault()) == {:error, {:missing_option, :repo}}
      assert open(prefix: "p", colour: 1) == {:error, {:unknown_option, :colour}}

      for {name, value} <- [
            repo: "MyRepo",
            repo: NoSuchModule,
            repo: String,
            vault: "key",
            vault: %{},
            prefix: nil,
            prefix: :public,
            prefix: "",
            prefix: ~s(a"b),
            prefix: "a'b",
            prefix: "a\\b",
            prefix: "a\0b",
            prefix: <<255>>,
            prefix: String.duplicate("x", 64),
            prefix: String.duplicate("ä", 32),
            webhooks_per_site_max: 0,
            webhooks_per_site_max: 1.5,
            timeout_ms: 0,
            timeout_ms: :infinity,
            clock: 5,
            clock: &Function.identity/1
          ] do
        assert open(Keyword.put([prefix: "p"], name, value)) == {:error, {:invalid_option, name}}
      end
    end

    test "take the host's schema by any name" do
      for name <- ["with space", "ä 中", "sel;ect", "UPPER", "$1", "PREFIX", "100%"] do
        prefix = "#{name} #{System.unique_integer([:positive])}"
        Repo.query!("CREATE SCHEMA #{inspect(prefix)}")
        on_exit(fn -> Repo.query!("DROP SCHEMA #{inspect(prefix)} CASCADE") end)
        migrate!(prefix, :up)
        store = open!(prefix: prefix)
        delivery = a_delivery()
        :ok = Store.accept(store, [delivery])
        assert Store.get_delivery(store, delivery.id) == {:ok, delivery}
        assert {:ok, %{pending: 1}} = Store.counts(store)
      end
    end
  end

  describe "tables" do
    test "that are not there, or somebody else's, are said and left alone" do
      assert open(prefix: "no such schema") == {:error, :not_migrated}
      empty = schema()
      assert open(prefix: empty) == {:error, :not_migrated}
      assert contents(empty) == []

      Repo.query!("CREATE TABLE #{inspect(empty)}.webhooks (id integer)")
      assert open(prefix: empty) == {:error, :foreign_table}

      for text <- [
            "'a table of ours'",
            "'plausible_webhooks version 1'",
            "'plausible_webhooks version 0, compatible from 1'",
            "'plausible_webhooks version one, compatible from 1'",
            "'my plausible_webhooks version 1, compatible from 1'",
            "'plausible_webhooks version 1, compatible from 1 and more'",
            "NULL"
          ] do
        comment!(empty, text)
        assert open(prefix: empty) == {:error, :foreign_table}
      end

      assert contents(empty) == [{"webhooks", []}]
    end

    test "that are newer are worked with when the newer version says so" do
      # As an old node meets them in a rolling deploy: migrated, with more than it knows.
      prefix = migrated()
      ours = Migrations.current_version()
      name = inspect(prefix)
      Repo.query!("ALTER TABLE #{name}.webhook_deliveries ADD COLUMN colour text DEFAULT 'blue'")
      Repo.query!("ALTER TABLE #{name}.webhooks ADD COLUMN colour text")
      Repo.query!("CREATE TABLE #{name}.webhook_colours (id integer)")

      for word <- [
            Migrations.word(ours + 1, ours),
            Migrations.word(ours + 7, 1),
            Migrations.word(ours + 1, ours) <> "; and what nobody has thought of yet"
          ] do
        comment!(prefix, "'#{word}'")
        store = open!(prefix: prefix)
        webhook = a_webhook([])
        :ok = Store.insert_webhook(store, webhook)
        assert {:ok, %{version: 1}} = Store.update_webhook(store, webhook)
        delivery = a_delivery(webhook_id: webhook.id, owner: "dead")
        :ok = Store.accept(store, [delivery])
        assert {:ok, [claimed]} = Store.claim(store, "b", 10)
        assert claimed == %{delivery | owner: "b"}
        :ok = Store.record(store, [an_attempt(delivery)])
        assert {:ok, %{entries: [%{state: :delivered}]}} = Store.deliveries(store, 1, %{}, %{})
        assert Store.delete_webhook(store, 1, webhook.id) == :ok
      end
    end

    test "that are newer are refused otherwise, and left as they are" do
      prefix = migrated()
      newer = Migrations.current_version() + 1
      before = contents(prefix)

      for from <- [newer, newer + 1] do
        comment!(prefix, "'#{Migrations.word(newer, from)}'")
        assert open(prefix: prefix) == {:error, {:newer_schema, newer}}
      end

      assert contents(prefix) == before
      assert Migrations.migrated_version(Repo, prefix: prefix) == newer
    end

    test "carry the word that an older release will look for" do
      version = Migrations.current_version()
      prefix = migrated()

      [[comment]] =
        Repo.query!("SELECT obj_description($1::text::regclass)", ["#{inspect(prefix)}.webhooks"]).rows

      assert comment == "plausible_webhooks version #{version}, compatible from 1"
      assert Migrations.version_of(comment) == {:ok, version, 1}
    end
  end

  test "a database of another encoding is refused: it does not hold every text" do
    Repo.query!(
      "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    )

    own_repo(database: "latin")
    assert open(prefix: "public") == {:error, {:unsupported_encoding, "LATIN1"}}
  end

  # --- keys

  defp ring(keys) do
    {:ok, vault} = Vault.new(keys)
    vault
  end

  defp sealed(prefix) do
    for table <- ["webhooks", "webhook_vault_checks"],
        [sealed] <- Repo.query!("SELECT sealed FROM #{inspect(prefix)}.#{table}").rows,
        do: sealed
  end

  describe "a key" do
    setup do
      [old, new] = for _ <- 1..2, do: Vault.generate_key()
      %{prefix: migrated(), old: old, new: new}
    end

    test "that is another one is refused, whether there are webhooks or not", context do
      %{prefix: prefix, old: old, new: new} = context
      store = open!(prefix: prefix, vault: ring([old]))
      wrong = {:error, {:wrong_vault_keys, :unknown_key}}
      assert open(prefix: prefix, vault: ring([new])) == wrong
      :ok = Store.insert_webhook(store, a_webhook([]))
      before = sealed(prefix)
      assert open(prefix: prefix, vault: ring([new])) == wrong
      assert sealed(prefix) == before
    end

    test "is replaced over nodes without a stop", %{prefix: prefix, old: old, new: new} do
      webhooks = for i <- 1..5, do: a_webhook(inserted_at_ms: i)
      all = fn store -> Store.all_webhooks(store) end
      start = fn keys -> open!(prefix: prefix, vault: ring(keys)) end
      node = start.([old])
      for webhook <- webhooks, do: :ok = Store.insert_webhook(node, webhook)

      # Every node gets the new one as second, one after the other: nothing changes.
      before = sealed(prefix)
      second = start.([old, new])
      assert sealed(prefix) == before

      # Then as first: what is stored stays as it is, and the nodes that have not had their
      # turn read what the others write.
      first = start.([new, old])
      assert sealed(prefix) == before
      assert all.(start.([old])) == {:ok, webhooks}
      {:ok, changed} = Store.update_webhook(first, %{hd(webhooks) | name: "by the new key"})
      webhooks = [changed | tl(webhooks)]
      assert all.(second) == {:ok, webhooks}

      # On demand it is encrypted anew, by many hands too, and can be taken back.
      for {ring, store} <- [{[new, old], first}, {[old, new], second}, {[new, old], first}] do
        assert {:ok, %{left: left}} = Store.rekey(store, 2)
        assert left in 2..3

        assert Enum.all?(
                 at_once(for _ <- 1..3, do: fn -> Store.rekey(store, 9) end),
                 &match?({:ok, _}, &1)
               )

        assert Store.rekey(store, 9) == {:ok, %{rewritten: 0, left: 0}}
        assert Enum.all?(sealed(prefix), &String.starts_with?(&1, Vault.prefix(ring(ring))))
        assert all.(first) == {:ok, webhooks}
      end

      # At the end the old one is of no use to anybody.
      assert all.(start.([new])) == {:ok, webhooks}

      assert open(prefix: prefix, vault: ring([old])) ==
               {:error, {:wrong_vault_keys, :unknown_key}}
    end

    test "is not given up while a webhook cannot be read", %{prefix: prefix, old: old, new: new} do
      store = open!(prefix: prefix, vault: ring([old]))
      [one, two] = for i <- 1..2, do: a_webhook(inserted_at_ms: i)
      for webhook <- [one, two], do: :ok = Store.insert_webhook(store, webhook)

      # Two that have changed places.
      swap = "UPDATE PREFIX.webhooks AS w SET sealed = o.sealed FROM PREFIX.webhooks AS o
        WHERE w.id = $1 AND o.id = $2"

      sql!(store, swap, [one.id, two.id])
      reason = {:unreadable_webhook, one.id, :not_authentic}
      assert Store.get_webhook(store, one.id) == {:error, reason}
      assert Store.all_webhooks(store) == {:error, reason}
      assert Store.get_webhook(store, two.id) == {:ok, two}
      before = sealed(prefix)
      assert open(prefix: prefix, vault: ring([new, old])) == {:error, reason}
      assert sealed(prefix) == before
      # It can still be replaced.
      assert {:ok, _} = Store.update_webhook(store, one)
      assert {:ok, [_, _]} = Store.all_webhooks(open!(prefix: prefix, vault: ring([new, old])))
    end

    test "of a webhook that is changed in the meantime is left to whoever changes it", context do
      %{prefix: prefix, old: old, new: new} = context
      store = open!(prefix: prefix, vault: ring([old, new]))
      webhook = a_webhook([])
      :ok = Store.insert_webhook(store, webhook)
      newest = open!(prefix: prefix, vault: ring([new, old]))

      # It waits for a change that is not committed yet, and then what it has read is no more.
      for end_by <- [:rollback, :commit] do
        # The store itself does not let a transaction of ours be around it.
        change = fn ->
          newer = %{webhook | name: "newer", url: "https://n.example/"}
          Store.Webhooks.update_webhook(store, newer)
        end

        rekey = fn -> Store.rekey(newest, 10) end
        assert {:ok, %{}} = while_blocked(change, rekey, fn _pid -> end_by end)
        assert {:ok, [stored]} = Store.all_webhooks(newest)
        assert stored.url == if(end_by == :commit, do: "https://n.example/", else: webhook.url)

        sql!(store, "UPDATE PREFIX.webhooks SET sealed = $1", [
          Plausible.Webhooks.Webhook.Sealed.seal(ring([old]), webhook)
        ])
      end
    end
  end

  test "a key file is made for new tables, and never for those that hold something" do
    prefix = migrated()
    folder = Path.join(System.tmp_dir!(), "webhooks_key_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(folder) end)
    file = Path.join(folder, "webhooks.key")
    store = open!(prefix: prefix, vault: {:file, file})
    assert {:ok, vault} = Vault.load_file(file)
    assert vault == store.vault
    File.rm!(file)
    assert open(prefix: prefix, vault: {:file, file}) == {:error, {:key_file, file, :enoent}}
    refute File.exists?(file)
  end

  test "what a fast clock has parked is due no later than the longest wait" do
    store = open!(wait_ms_max: 60_000)
    now_ms = Store.now_ms(store)

    [far, near] =
      for ms <- [9_000_000_000, 50_000], do: a_delivery(state: :parked, next_at_ms: now_ms + ms)

    :ok = Store.accept(store, [far, near])
    again = open!(prefix: unquoted(store), wait_ms_max: 60_000)
    {:ok, %{next_at_ms: at_ms}} = Store.get_delivery(again, far.id)
    assert at_ms in (now_ms + 60_000)..(Store.now_ms(store) + 60_000)
    assert {:ok, %{next_at_ms: kept}} = Store.get_delivery(again, near.id)
    assert kept == near.next_at_ms
  end

  defp unquoted(store), do: String.trim(store.prefix, ~s("))
end
