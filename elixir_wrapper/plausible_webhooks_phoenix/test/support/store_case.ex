defmodule Plausible.Webhooks.Test.StoreCase do
  @moduledoc false
  # A store of each test's own: a schema of the one database, with the tables that
  # the migrations make.

  use ExUnit.CaseTemplate

  alias Plausible.Webhooks.Store
  alias Plausible.Webhooks.Test.Repo
  alias Plausible.Webhooks.Vault

  defmodule Migration do
    @moduledoc false
    use Ecto.Migration

    def up, do: Plausible.Webhooks.Migrations.up(version: 1, prefix: prefix())
    def down, do: Plausible.Webhooks.Migrations.down(version: 1, prefix: prefix())
  end

  using do
    quote do
      import Plausible.Webhooks.StoreContract.Promise,
        only: [
          a_webhook: 1,
          a_delivery: 0,
          a_delivery: 1,
          an_attempt: 1,
          an_attempt: 2,
          failed: 2,
          failed: 3,
          at_once: 1
        ]

      import Plausible.Webhooks.Test.StoreCase
      alias Plausible.Webhooks.Store.Ecto, as: Store
      alias Plausible.Webhooks.Test.Repo
    end
  end

  @doc "Makes a schema with the tables; its name."
  def migrated do
    prefix = schema()
    migrate(prefix)
    prefix
  end

  @doc "Makes the tables in a schema."
  def migrate(prefix) do
    [1] = Ecto.Migrator.run(Repo, [{1, Migration}], :up, all: true, prefix: prefix, log: false)
    :ok
  end

  @doc "Makes an empty schema that goes with the test; its name."
  def schema(name \\ "webhooks test ") do
    prefix = "#{name}#{System.unique_integer([:positive])}"
    Repo.query!(~s(CREATE SCHEMA "#{prefix}"))
    on_exit(fn -> Repo.query!(~s(DROP SCHEMA IF EXISTS "#{prefix}" CASCADE)) end)
    prefix
  end

  @doc "A store with these options, in a schema of its own unless they name one."
  def open(options \\ []) do
    options = Keyword.put_new_lazy(options, :prefix, &migrated/0)
    Store.Ecto.init(Keyword.merge([repo: Repo, vault: vault()], options))
  end

  def open!(options \\ []) do
    {:ok, store} = open(options)
    store
  end

  def vault(byte \\ 7) do
    {:ok, vault} = Vault.new([:binary.copy(<<byte>>, 32)])
    vault
  end

  @doc "Rows of a statement in which PREFIX stands for the store's schema."
  def sql!(store, sql, params \\ []) do
    Repo.query!(String.replace(sql, "PREFIX", store.prefix), params).rows
  end
end
