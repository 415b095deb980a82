defmodule Plausible.Webhooks.Test.PlausibleHost do
  @moduledoc false
  # Plausible in miniature (test/host) as an adopter has it: copied, changed by the
  # installer, compiled, with a database of its own on the tests' PostgreSQL. All of it
  # once per VM; it runs while a test module that asked for it does.

  alias Plausible.Webhooks.Test.{Postgres, Repo}

  # Compiled by the tests.
  @compile {:no_warn_undefined, [Plausible.Application, PlausibleWeb.Endpoint]}

  @host Path.expand("../host", __DIR__)
  @database "plausible"

  @doc "The changed tree."
  @spec tree() :: Path.t()
  def tree, do: once(:tree, &install!/0)

  @doc "A copy of the tree as it is before; gone after the test."
  @spec copy!() :: Path.t()
  def copy! do
    folder = Path.join(System.tmp_dir!(), "webhooks-host-#{System.pid()}-#{unique()}")
    File.cp_r!(@host, folder)
    folder
  end

  @doc """
  Starts Plausible, with these variables of the environment besides those it needs, and
  with these options of `Plausible.Webhooks` besides what comes of the variables.
  """
  @spec start!([{String.t(), String.t()}], keyword()) :: pid()
  def start!(variables \\ [], options \\ []) do
    # Each request is none of the test's news.
    quiet = [Phoenix.Endpoint.Supervisor, Phoenix.Logger]
    for module <- quiet, do: Logger.put_module_level(module, :warning)

    once(:compiled, &compile!/0)
    configure!(variables)
    configured = Application.fetch_env!(:plausible, Plausible.Webhooks)
    Application.put_env(:plausible, Plausible.Webhooks, Keyword.merge(configured, options))
    once(:database, &create_database!/0)
    {:ok, supervisor} = Plausible.Application.start(:normal, [])
    supervisor
  end

  @doc "What its own config/runtime.exs makes of these variables, as a release does."
  @spec configuration([{String.t(), String.t()}], atom()) :: keyword()
  def configuration(variables, env) do
    before = for {name, _value} <- variables, do: {name, System.get_env(name)}
    System.put_env(variables)

    try do
      Config.Reader.read!("#{tree()}/config/runtime.exs", env: env, target: :host)
    after
      Enum.each(before, fn
        {name, nil} -> System.delete_env(name)
        {name, value} -> System.put_env(name, value)
      end)
    end
  end

  @doc "Where its endpoint listens."
  @spec url() :: String.t()
  def url do
    {:ok, {_ip, port}} = PlausibleWeb.Endpoint.server_info(:http)
    "http://127.0.0.1:#{port}"
  end

  defp once(what, fun) do
    case :persistent_term.get({__MODULE__, what}, nil) do
      nil ->
        result = fun.()
        :persistent_term.put({__MODULE__, what}, result)
        result

      known ->
        known
    end
  end

  defp install! do
    folder = copy!()
    ExUnit.after_suite(fn _result -> File.rm_rf!(folder) end)

    # What it says is for who runs it.
    ExUnit.CaptureIO.capture_io(fn ->
      :ok = Mix.Tasks.PlausibleWebhooks.Install.run(["--yes", "--root", folder])
    end)

    folder
  end

  defp compile! do
    case Kernel.ParallelCompiler.compile(Path.wildcard("#{tree()}/lib/**/*.ex")) do
      {:ok, modules, []} -> modules
      {:ok, _modules, warnings} -> raise "the host compiles with warnings: #{inspect(warnings)}"
      {:error, errors, _warnings} -> raise "the host does not compile: #{inspect(errors)}"
    end
  end

  defp configure!(variables) do
    [
      {"DATABASE_SOCKET_DIR", :persistent_term.get(Postgres).folder},
      {"DATABASE_NAME", @database},
      # Nobody.
      {"ADMIN_USER_ID", "1000000"},
      {"BASE_URL", "https://plausible.test"},
      {"SECRET_KEY_BASE", String.duplicate("a secret of 64 bytes, not used elsewhere ", 2)},
      {"WEBHOOKS_ALLOW_PRIVATE", "true"},
      {"WEBHOOKS_ALLOW_HTTP", "true"}
      | variables
    ]
    |> configuration(:prod)
    |> Application.put_all_env()

    Application.put_env(:phoenix, :json_library, Jason)
  end

  defp create_database! do
    Repo.query!("CREATE DATABASE #{@database}")

    {:ok, _done, _apps} =
      Ecto.Migrator.with_repo(Plausible.Repo, fn repo ->
        # One connection: a statement says where the next ones go.
        repo.checkout(fn ->
          for statement <- structure(), do: repo.query!(statement, [], log: false)
          repo.query!("SET search_path TO public", [], log: false)
        end)

        Ecto.Migrator.run(repo, "#{tree()}/priv/repo/migrations", :up, all: true, log: false)
      end)

    :created
  end

  defp structure do
    "#{tree()}/priv/ingest_repo/structure.sql"
    |> File.read!()
    |> String.split(~r/;\s*\n/)
    |> Enum.reject(&(String.trim(&1) == ""))
  end

  defp unique, do: System.unique_integer([:positive])
end
