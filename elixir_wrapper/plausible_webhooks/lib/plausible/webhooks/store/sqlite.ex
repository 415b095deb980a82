defmodule Plausible.Webhooks.Store.SQLite do
  @moduledoc """
  The embedded store: one SQLite file. For one node.

      store: {Plausible.Webhooks.Store.SQLite, path: "/var/lib/webhooks/webhooks.db"}

  Options:

    * `:path` - required. The folder is made (0700) if it is not there; the file is
      made and kept 0600.
    * `:vault` - a `Plausible.Webhooks.Vault` for what is encrypted.
    * `:key_file` - used when no vault is given, default: the path with `.key`
      behind. It is made (0600) for a new database, never for one that holds
      something already. **Keep a copy of it apart from the database's backup**:
      without it secrets, URLs and headers cannot be read.
    * `:webhooks_per_site_max`, `:wait_ms_max` - default: the instance's.
    * `:lock_timeout_ms` - how long the start waits for another process to let go
      of the file, default 5 000.
    * `:name` - the name of the process, default this module.

  Durable: a commit is on disk (`synchronous=FULL`, write-ahead log) before it is
  confirmed. The file is held exclusively: a second VM is refused at its start with
  `:locked`, and a dead VM's lock is gone with its process. `sqlite3` on the command
  line can read the file when nobody has it open.

  Encrypted (AES-256-GCM, bound to the webhook's id): secrets, URLs except for the
  host, header values. In clear: the rest, deliveries' bodies and receivers'
  answers included.

  It has a small NIF of its own over libsqlite3, which is built where SQLite's
  headers are found (Debian: `libsqlite3-dev`, Alpine: `sqlite-dev`). One dirty IO
  scheduler is busy while a statement runs.

  Errors at the start: `{:sqlite_not_available, text}` (the text names what is missing
  and its package), `{:sqlite_too_old, version}` (3.38 is needed), `:locked`, `:not_a_database`, `:foreign_database`,
  `{:newer_schema, version}`, `:corrupt`, `:read_only`, `:disk_full`, `:io_error`,
  `{:folder | :file, path, reason}`, `{:key_file, path, reason}`,
  `{:wrong_vault_keys, reason}`, `{:unreadable_webhook, id, reason}`. Nothing is
  written to a file that is not ours or is newer than we are.

  One connection, whose statements are kept short: reads wait for a write that is
  under way and the other way round, some ten milliseconds at most.
  """

  @behaviour Plausible.Webhooks.Store

  alias Plausible.Webhooks.Store.SQLite.{
    Activity,
    Connection,
    Deliveries,
    Log,
    Retention,
    Webhooks
  }

  alias Plausible.Webhooks.Vault

  @enforce_keys [:connection, :vault, :webhooks_per_site_max]
  defstruct [:connection, :vault, :webhooks_per_site_max]

  @typedoc "The open store."
  @opaque handle :: %__MODULE__{
            connection: GenServer.server(),
            vault: Vault.t(),
            webhooks_per_site_max: pos_integer()
          }

  @defaults [
    path: nil,
    vault: nil,
    key_file: nil,
    webhooks_per_site_max: 20,
    wait_ms_max: 7 * 86_400_000,
    lock_timeout_ms: 5_000,
    name: __MODULE__
  ]

  @impl true
  def child_spec(options) do
    options = Keyword.merge(@defaults, options)
    Connection.child_spec(path: path(options[:path]), name: options[:name])
  end

  @impl true
  def init(options) do
    with {:ok, options} <- check(options),
         path = path(options[:path]),
         :ok <- Connection.open(options[:name], options[:lock_timeout_ms]),
         {:ok, vault} <- vault(options, path),
         :ok <- Webhooks.check_vault(options[:name], vault),
         at_ms = System.system_time(:millisecond) + options[:wait_ms_max],
         :ok <- Deliveries.bring_forward(options[:name], at_ms) do
      {:ok,
       %__MODULE__{
         connection: options[:name],
         vault: vault,
         webhooks_per_site_max: options[:webhooks_per_site_max]
       }}
    end
  end

  defp check(options) do
    case Keyword.validate(options, @defaults) do
      {:ok, options} ->
        case Enum.find(options, &(not valid?(&1))) do
          nil -> {:ok, options}
          {name, _value} -> {:error, {:invalid_option, name}}
        end

      {:error, [unknown | _]} ->
        {:error, {:unknown_option, unknown}}
    end
  end

  # NUL would cut the name short.
  defp valid?({:path, path}),
    do: is_binary(path) and path != "" and not String.contains?(path, "\0")

  defp valid?({:vault, vault}), do: vault == nil or is_struct(vault, Vault)
  defp valid?({:key_file, path}), do: path == nil or is_binary(path)
  defp valid?({:name, name}), do: is_atom(name) and name != nil
  defp valid?({:webhooks_per_site_max, n}), do: is_integer(n) and n > 0
  defp valid?({:wait_ms_max, ms}), do: is_integer(ms) and ms >= 0
  defp valid?({:lock_timeout_ms, ms}), do: is_integer(ms) and ms >= 0

  # Absolute: SQLite gives names like ":memory:" a meaning of their own.
  defp path(path) when is_binary(path), do: Path.expand(path)
  defp path(_other), do: nil

  defp vault(options, path) do
    case {options[:vault], options[:key_file] || path <> ".key"} do
      {nil, file} -> key_file(options[:name], file, Vault.load_file(file))
      {vault, _file} -> {:ok, vault}
    end
  end

  defp key_file(connection, file, {:error, {:key_file, _file, :enoent}} = missing) do
    case Webhooks.sealed?(connection) do
      {:ok, false} -> Vault.create_file(file)
      {:ok, true} -> missing
      {:error, _reason} = error -> error
    end
  end

  defp key_file(_connection, _file, loaded), do: loaded

  @impl true
  def now_ms(%__MODULE__{}), do: System.system_time(:millisecond)

  # --- webhooks

  @impl true
  defdelegate insert_webhook(handle, webhook), to: Webhooks, as: :insert
  @impl true
  defdelegate update_webhook(handle, webhook), to: Webhooks, as: :update

  @impl true
  def delete_webhook(handle, site_id, id) do
    with :ok <- Webhooks.delete(handle, site_id, id),
         do: Retention.delete_log(handle, site_id, id)
  end

  @impl true
  defdelegate get_webhook(handle, id), to: Webhooks, as: :get
  @impl true
  defdelegate get_webhooks(handle, ids), to: Webhooks, as: :some
  @impl true
  defdelegate list_webhooks(handle, site_id), to: Webhooks, as: :list
  @impl true
  defdelegate all_webhooks(handle), to: Webhooks, as: :all
  @impl true
  defdelegate put_health(handle, id, health), to: Webhooks

  # --- deliveries

  @impl true
  defdelegate accept(handle, deliveries), to: Deliveries
  @impl true
  defdelegate record(handle, attempts), to: Deliveries
  @impl true
  defdelegate claim(handle, owner, limit), to: Deliveries
  @impl true
  defdelegate reclaim(handle, owner, from, limit), to: Deliveries
  @impl true
  defdelegate release(handle, owner, ids, next_at_ms), to: Deliveries
  @impl true
  defdelegate heartbeat(handle, owner, lease_ms), to: Deliveries
  @impl true
  defdelegate take_lease(handle, name, lease_ms, token), to: Deliveries
  @impl true
  defdelegate redeliver(handle, owner, ids, states), to: Deliveries
  @impl true
  defdelegate requested(handle, owner, limit), to: Deliveries
  @impl true
  defdelegate recoverable(handle, webhook_id, since_ms, limit), to: Log
  @impl true
  defdelegate cancel_waiting(handle, webhook_id, reason), to: Deliveries
  @impl true
  defdelegate deliveries(handle, site_id, filters, page), to: Log, as: :page
  @impl true
  defdelegate get_delivery(handle, id), to: Deliveries, as: :get
  @impl true
  defdelegate attempts(handle, id), to: Deliveries
  @impl true
  defdelegate counts(handle), to: Deliveries
  @impl true
  defdelegate activity(handle, site_id, webhook_ids, since_ms), to: Activity
  @impl true
  defdelegate waiting(handle, webhook_ids), to: Activity
  @impl true
  defdelegate prune(handle, before_ms, limit), to: Retention

  # --- traffic alerts

  @impl true
  defdelegate alert_states(handle, webhook_ids), to: Webhooks
  @impl true
  defdelegate put_alert_state(handle, state), to: Webhooks

  # --- keys and audit

  @impl true
  defdelegate rekey(handle, limit), to: Webhooks
  @impl true
  defdelegate add_audit(handle, entry), to: Webhooks
  @impl true
  defdelegate audit(handle, site_id, webhook_id, limit), to: Webhooks
end
