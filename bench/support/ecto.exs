# Shared by the benchmarks of Store.Ecto: a PostgreSQL server that ends with this VM, and a
# Repo on it.
Code.require_file(
  "../../elixir_wrapper/plausible_webhooks_phoenix/test/support/postgres.ex",
  __DIR__
)

for app <- [:ecto_sql, :postgrex], do: {:ok, _started} = Application.ensure_all_started(app)

defmodule Bench.Repo do
  use Ecto.Repo, otp_app: :plausible_webhooks_phoenix, adapter: Ecto.Adapters.Postgres
end

defmodule Bench.Server do
  alias Plausible.Webhooks.Test.Postgres

  @doc "Runs `work` with the tables of the migration, on a server with the given settings."
  def run(settings, pool_size, tables, work) do
    defaults = [max_wal_size: "8GB", checkpoint_timeout: "30min"]
    cluster = Postgres.start!(Keyword.merge(defaults, settings))
    connect = Postgres.connect(cluster) ++ [pool_size: pool_size, log: false]
    {:ok, repo} = Bench.Repo.start_link(connect)

    try do
      [1] = Ecto.Migrator.run(Bench.Repo, [{1, tables}], :up, all: true, log: false)
      work.()
    after
      Supervisor.stop(repo)
      Postgres.remove(cluster)
    end
  end

  @doc "Returns the number at this place of the command line, or the default."
  def argument(default, at \\ 0) do
    case Enum.at(System.argv(), at) do
      nil -> default
      number -> String.to_integer(number)
    end
  end
end
