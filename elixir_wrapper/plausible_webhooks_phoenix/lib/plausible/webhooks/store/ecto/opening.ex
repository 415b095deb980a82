defmodule Plausible.Webhooks.Store.Ecto.Opening do
  @moduledoc false
  # Turns options into a handle, and checks the database. The tables belong to the host's
  # migrations.

  alias Plausible.Webhooks.{Migrations, Store, Vault}
  alias Plausible.Webhooks.Store.Ecto.{Database, SQL}

  @defaults [
    repo: nil,
    vault: nil,
    prefix: "public",
    webhooks_per_site_max: 20,
    wait_ms_max: 7 * 86_400_000,
    timeout_ms: 15_000,
    # Tests set the clock of a node wrong.
    clock: nil
  ]

  # MATERIALIZED needs 12; 13 is the oldest that the tests run on.
  @version_min 130_000

  @doc "The fields of the handle."
  @spec check(keyword()) :: {:ok, keyword()} | {:error, term()}
  def check(options) do
    with {:ok, options} <- validate(options),
         :ok <- required(options),
         :ok <- valid(options) do
      {:ok,
       options
       |> Keyword.update!(:prefix, &Migrations.quoted/1)
       |> Keyword.update!(:clock, &(&1 || fn -> System.system_time(:millisecond) end))}
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

  defp valid?({:vault, {:file, path}}), do: is_binary(path)
  defp valid?({:vault, vault}), do: is_struct(vault, Vault)
  defp valid?({:prefix, prefix}), do: Migrations.prefix?(prefix)
  defp valid?({:webhooks_per_site_max, n}), do: is_integer(n) and n > 0
  defp valid?({:wait_ms_max, ms}), do: is_integer(ms) and ms >= 0
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

  # Only the newer version knows how it has changed the tables.
  defp judge({:ok, older, _from}, ours) when older < ours, do: {:error, {:older_schema, older}}
  defp judge({:ok, _there, from}, ours) when from <= ours, do: :ok
  defp judge({:ok, newer, _from}, _ours), do: {:error, {:newer_schema, newer}}
  defp judge(:error, _ours), do: {:error, :foreign_table}

  @doc """
  The time by the database's clock, or by the node's while the database does not answer.
  """
  @spec now_ms(Store.Ecto.handle()) :: integer()
  def now_ms(store) do
    case Database.query(store, :now, "SELECT #{SQL.now_ms()}", []) do
      {:ok, [[now_ms]]} -> now_ms
      {:error, _reason} -> store.clock.()
    end
  end
end
