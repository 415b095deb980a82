defmodule Plausible.Webhooks.Store.SQLiteKeysTest do
  # What the SQLite store encrypts, and with which keys.
  use Plausible.Webhooks.Test.SQLiteCase, async: true

  alias Plausible.Webhooks.Vault

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
          # Shows that the search works: text that is not encrypted is found.
          {file, bytes =~ "hooks.example.com", bytes =~ "visible-name"}
        end
      end

      assert {"webhooks.db-wal", true, true} in search.()
      stop(options)
      assert {"webhooks.db", true, true} in search.()
    end

    test "are bound to their row: exchanged ones are not decrypted", %{path: path} do
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

    test "are encrypted anew on demand, and never by a start", %{path: path} do
      [old, new] = [Vault.generate_key(), Vault.generate_key()]
      vault = fn keys -> with {:ok, vault} <- Vault.new(keys), do: vault end
      options = options(path, vault: vault.([old]))
      webhook = options |> start!() |> webhook!()
      stop(options)

      with_keys = fn keys, fun ->
        options = Keyword.put(options, :vault, vault.(keys))
        store = start!(options)
        assert SQLite.all_webhooks(store) == {:ok, [webhook]}
        result = fun.(store)
        stop(options)
        result
      end

      # A start with the next ring changes nothing, and the old ring still works.
      nothing = fn _store -> :ok end
      :ok = with_keys.([new, old], nothing)
      :ok = with_keys.([old], nothing)
      rekeyed = with_keys.([new, old], &{SQLite.rekey(&1, 10), SQLite.rekey(&1, 10)})
      assert rekeyed == {{:ok, %{rewritten: 1, left: 0}}, {:ok, %{rewritten: 0, left: 0}}}
      :ok = with_keys.([new], nothing)
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

      # Also where the instance names the file.
      gone = path <> ".gone"
      named = Keyword.put(options, :vault, {:file, gone})
      assert start(named) == {:error, {:key_file, gone, :enoent}}
      refute File.exists?(gone)
      stop(named)

      File.write!(path <> ".key", "nonsense")
      assert start(options) == {:error, {:key_file, path <> ".key", {:invalid_key, 1}}}
    end

    test "are in no message and no state that could be printed", %{path: path} do
      store = start!(options(path))
      webhook!(store)
      state = :sys.get_state(store.connection, 60_000)

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
end
