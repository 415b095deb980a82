defmodule Plausible.Webhooks.Test.StoreCase do
  @moduledoc false
  # A store of each test's own: a schema of the one database, with the tables that
  # the migrations make.

  use ExUnit.CaseTemplate

  import Plausible.Webhooks.Test.Eventually

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
          no_counts: 0,
          an_alert: 1,
          an_attempt: 1,
          an_attempt: 2,
          failed: 2,
          failed: 3,
          at_once: 1
        ]

      import Plausible.Webhooks.Test.{Eventually, StoreCase}
      alias Plausible.Webhooks.Store.Ecto, as: Store
      alias Plausible.Webhooks.Test.Repo
    end
  end

  @doc "The `:store` option of an instance."
  def store(_context), do: {Store.Ecto, repo: Repo, prefix: migrated()}

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
    elsewhere? = options[:hostname] || options[:socket_dir]
    connect = if elsewhere?, do: [], else: Postgres.connect(:persistent_term.get(Postgres))
    options = Keyword.merge(connect ++ [name: nil, log: false, pool_size: 1], options)
    repo = start_supervised!({Repo, options}, id: make_ref())
    Repo.put_dynamic_repo(repo)
    # A pool that gives up soon gives up while it connects, too.
    eventually(fn -> match?({:ok, _result}, Repo.query("SELECT 1")) end)
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

  @doc "Ends an owner's lease, and waits until it is over by the database's clock."
  def end_lease!(store, owner) do
    :ok = Store.Ecto.heartbeat(store, owner, 1)

    over =
      "SELECT until_ms <= extract(epoch FROM clock_timestamp()) * 1000 - 1 " <>
        "FROM PREFIX.webhook_owners WHERE owner = $1"

    eventually(fn -> sql!(store, over, [Store.Ecto.Text.encode(owner)]) == [[true]] end)
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

  @doc "The ids of deliveries."
  def ids(deliveries), do: Enum.map(deliveries, & &1.id)

  @doc "How many deliveries there are."
  def count(store), do: hd(hd(sql!(store, "SELECT count(*) FROM PREFIX.webhook_deliveries")))

  @doc """
  Runs `block` in a transaction of another connection and then `call`, which has to
  wait for it; its result. `act` gets the server process that waits, and says what
  becomes of the transaction: `:commit` or `:rollback`, or `:wait`, a rollback after
  the call has come to its end.
  """
  def while_blocked(block, call, act) do
    {_ended, {end_by, task_or_result}} =
      Repo.transaction(fn ->
        block.()
        [[blocker]] = Repo.query!("SELECT pg_backend_pid()").rows
        task = Task.async(call)

        case act.(waits_for(blocker)) do
          :wait -> Repo.rollback({:wait, Task.await(task, 60_000)})
          :rollback -> Repo.rollback({:rollback, task})
          :commit -> {:commit, task}
        end
      end)

    if end_by == :wait, do: task_or_result, else: Task.await(task_or_result, 60_000)
  end

  defp waits_for(blocker) do
    sql = "SELECT pid FROM pg_stat_activity WHERE $1::integer = ANY(pg_blocking_pids(pid))"
    eventually(fn -> List.first(Repo.query!(sql, [blocker]).rows) end) |> hd()
  end

  @doc "Ends a server process; what it was doing is not waited for."
  def terminate(pid) do
    [[true]] = Repo.query!("SELECT pg_terminate_backend($1)", [pid]).rows
    :wait
  end
end
