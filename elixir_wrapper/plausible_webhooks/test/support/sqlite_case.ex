defmodule Plausible.Webhooks.Test.SQLiteCase do
  @moduledoc false
  # A SQLite store on a file of the test's own.

  use ExUnit.CaseTemplate

  alias Plausible.Webhooks.{Id, Vault, Webhook}
  alias Plausible.Webhooks.Store.SQLite
  alias Plausible.Webhooks.Store.SQLite.Connection
  alias Plausible.Webhooks.StoreContract.Promise

  using do
    quote do
      import Plausible.Webhooks.Test.{Eventually, SQLiteCase}
      alias Plausible.Webhooks.Store.SQLite
    end
  end

  setup do
    folder = Path.join(System.tmp_dir!(), "webhooks_file_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(folder) end)
    {:ok, vault} = Vault.new([Vault.generate_key()])
    %{folder: folder, path: Path.join(folder, "webhooks.db"), vault: vault}
  end

  @doc "The `:store` option of an instance whose test has a folder."
  def store(%{tmp_dir: folder}), do: {SQLite, options(Path.join(folder, "webhooks.db"))}

  def options(path, more \\ []) do
    Keyword.merge([path: path, name: :"sqlite_#{System.unique_integer([:positive])}"], more)
  end

  # Starts the process and opens the store; stop/1 ends both.
  def start(options) do
    start_supervised!(SQLite.child_spec(options), id: options[:name])
    SQLite.init(options)
  end

  def start!(options) do
    assert {:ok, store} = start(options)
    store
  end

  def stop(options), do: :ok = stop_supervised(options[:name])

  def again!(options) do
    stop(options)
    start!(options)
  end

  def webhook!(store, fields \\ []) do
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

  def delivery(fields \\ []), do: Promise.a_delivery([created_at_ms: 1] ++ fields)

  def sql!(store, sql, params \\ []) do
    assert {:ok, [rows]} = Connection.write(store.connection, [{sql, params}])
    rows
  end
end
