defmodule Plausible.Webhooks.Store.Ecto.Opening do
  @moduledoc false
  # From options to a handle, and whether the database is one that we can work on.
  # Nothing is written: the tables belong to the host's migrations.

  alias Plausible.Webhooks.{Migrations, Store, Vault}
  alias Plausible.Webhooks.Store.Ecto.{Database, SQL}

  @defaults [
    repo: nil,
    vault: nil,
    prefix: "public",
    webhooks_per_site_max: 20,
    timeout_ms: 15_000,
    # For tests: a node whose clock is wrong.
    clock: nil
  ]

  # MATERIALIZED is of 12; 13 is the oldest that is still in use.
  @version_min 130_000

  @spec check(keyword()) :: {:ok, Store.Ecto.handle()} | {:error, term()}
  def check(options) do
    with {:ok, options} <- validate(options),
         :ok <- required(options),
         :ok <- valid(options) do
      {:ok,
       %Store.Ecto{
         repo: options[:repo],
         prefix: Migrations.quoted(options[:prefix]),
         vault: options[:vault],
         webhooks_per_site_max: options[:webhooks_per_site_max],
         timeout_ms: options[:timeout_ms],
         clock: options[:clock] || fn -> System.system_time(:millisecond) end
       }}
    end
  end

  defp validate(options) do
    with {:error, [unknown | _]} <- Keyword.validate(options, @defaults),
         do: {:error, {:unknown_option, unknown}}
  end

  defp required(options) do
    case Enum.find([:repo, :vault], &(options[&1] == nil)) do
      nil -> :ok
      missing -> {:error, {:missing_option, missing}}
    end
  end

  defp valid(options) do
    case Enum.find(options, &(not valid?(&1))) do
      nil -> :ok
      {name, _value} -> {:error, {:invalid_option, name}}
    end
  end

  defp valid?({:repo, repo}) do
    is_atom(repo) and Code.ensure_loaded?(repo) and function_exported?(repo, :__adapter__, 0) and
      repo.__adapter__() == Ecto.Adapters.Postgres
  end

  defp valid?({:vault, vault}), do: is_struct(vault, Vault)
  defp valid?({:prefix, prefix}), do: Migrations.prefix?(prefix)
  defp valid?({:webhooks_per_site_max, n}), do: is_integer(n) and n > 0
  defp valid?({:timeout_ms, ms}), do: is_integer(ms) and ms > 0
  defp valid?({:clock, clock}), do: clock == nil or is_function(clock, 0)

  @spec open(Store.Ecto.handle()) :: :ok | {:error, term()}
  def open(store) do
    sql = """
    SELECT current_setting('server_version_num')::integer, current_setting('server_encoding'),
      to_regclass('PREFIX.webhooks') IS NOT NULL,
      obj_description(to_regclass('PREFIX.webhooks'), 'pg_class')
    """

    with {:ok, [[version, encoding, there?, comment]]} <- Database.query(store, nil, sql, []) do
      cond do
        version < @version_min -> {:error, {:postgres_too_old, version}}
        encoding != "UTF8" -> {:error, {:unsupported_encoding, encoding}}
        not there? -> {:error, :not_migrated}
        true -> judge(Migrations.version_of(comment), Migrations.current_version())
      end
    end
  end

  # What a newer version has made of the tables it alone can know.
  defp judge({:ok, older, _from}, ours) when older < ours, do: {:error, {:older_schema, older}}
  defp judge({:ok, _there, from}, ours) when from <= ours, do: :ok
  defp judge({:ok, newer, _from}, _ours), do: {:error, {:newer_schema, newer}}
  defp judge(:error, _ours), do: {:error, :foreign_table}

  @doc """
  The database's clock. When it cannot be asked, the node's own: whoever asks for
  the time has to get one.
  """
  @spec now_ms(Store.Ecto.handle()) :: integer()
  def now_ms(store) do
    case Database.query(store, :now, "SELECT #{SQL.now_ms()}", []) do
      {:ok, [[now_ms]]} -> now_ms
      {:error, _reason} -> store.clock.()
    end
  end
end
