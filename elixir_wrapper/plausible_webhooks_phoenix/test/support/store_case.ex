defmodule Plausible.Webhooks.Test.StoreCase do
  @moduledoc false
  # A store of each test's own: a schema of the one database, with the tables that
  # the migrations make.

  use ExUnit.CaseTemplate

  alias Plausible.Webhooks.Store
  alias Plausible.Webhooks.Test.{Postgres, Repo}
  alias Plausible.Webhooks.Vault

  defmodule Migration do
    @moduledoc false
    # The host's. What it asks for is the test's, by the schema.
    use Ecto.Migration

    def up, do: Plausible.Webhooks.Migrations.up(options())
    def down, do: Plausible.Webhooks.Migrations.down(options())

    def ask(prefix, options), do: :persistent_term.put({__MODULE__, prefix}, options)
    defp options, do: [prefix: prefix()] ++ :persistent_term.get({__MODULE__, prefix()})
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

  @doc "Makes a schema with the tables; its name. Options as of `Migrations.up/1`."
  def migrated(options \\ []) do
    prefix = schema()
    migrate!(prefix, :up, options)
    prefix
  end

  @doc "Runs the host's migration in a schema."
  def migrate!(prefix, direction, options \\ [], repo \\ Repo) do
    Migration.ask(prefix, options)
    migrations = [{1, Migration}]
    [1] = Ecto.Migrator.run(repo, migrations, direction, all: true, prefix: prefix, log: false)
    :ok
  end

  @doc "Makes an empty schema that goes with the test; its name."
  def schema(name \\ "webhooks test ") do
    prefix = "#{name}#{System.unique_integer([:positive])}"
    Repo.query!(~s(CREATE SCHEMA "#{prefix}"))
    on_exit(fn -> Repo.query!(~s(DROP SCHEMA IF EXISTS "#{prefix}" CASCADE)) end)
    prefix
  end

  @doc """
  Has the calling process use connections of its own, of the tests' database unless
  the options say another; returns the Repo.
  """
  def own_repo(options) do
    cluster = :persistent_term.get(Postgres)

    options =
      Keyword.merge(Postgres.connect(cluster) ++ [name: nil, log: false, pool_size: 1], options)

    repo = start_supervised!({Repo, options}, id: make_ref())
    Repo.put_dynamic_repo(repo)
    repo
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

  @doc """
  How many rows and index entries of deliveries, bodies and attempts were read by
  `fun`, and its result.
  """
  def read_by(store, fun) do
    {:ok, result} =
      Repo.transaction(fn ->
        before = read(store)
        result = fun.()
        {read(store) - before, result}
      end)

    result
  end

  defp read(store) do
    [[read]] =
      sql!(store, """
      SELECT sum(pg_stat_get_xact_tuples_returned(given.oid))::bigint FROM (
        SELECT table_oid AS oid FROM unnest(ARRAY['PREFIX.webhook_deliveries',
          'PREFIX.webhook_bodies', 'PREFIX.webhook_attempts']::regclass[]) AS tables (table_oid)
        UNION ALL
        SELECT indexrelid FROM pg_index WHERE indrelid IN ('PREFIX.webhook_deliveries'::regclass,
          'PREFIX.webhook_bodies'::regclass, 'PREFIX.webhook_attempts'::regclass)) AS given
      """)

    read
  end
end
