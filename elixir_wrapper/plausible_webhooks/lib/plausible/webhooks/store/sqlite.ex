defmodule Plausible.Webhooks.Store.SQLite do
  @moduledoc """
  The embedded store: one SQLite file. For one node.

      store: {Plausible.Webhooks.Store.SQLite, path: "/var/lib/webhooks/webhooks.db"}

  Options:

    * `:path` - required. The folder is made (0700) if it is not there; the file is
      made and kept 0600.
    * `:vault` - a `Plausible.Webhooks.Vault` for what is encrypted.
    * `:key_file` - used if no vault is given, default: the path followed by `.key`. It is
      made (0600) for an empty database only. **Keep a copy of it apart from the database's
      backup**: without it secrets, URLs and headers cannot be read.
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

  The store has a small NIF of its own on libsqlite3. It is built where SQLite's headers are
  found (Debian: `libsqlite3-dev`, Alpine: `sqlite-dev`). A statement keeps one dirty IO
  scheduler busy.

  Errors at the start: `{:sqlite_not_available, text}` (the text names what is missing
  and its package), `{:sqlite_too_old, version}` (3.38 is needed), `:locked`,
  `:not_a_database`, `:foreign_database`, `{:newer_schema, version}`, `:corrupt`,
  `:read_only`, `:disk_full`, `:io_error`, `{:folder | :file, path, reason}`,
  `{:key_file, path, reason}`, `{:wrong_vault_keys, reason}`,
  `{:unreadable_webhook, id, reason}`. A file of another program or of a newer version is
  left unchanged.

  There is one connection, and its statements are short: reads and writes wait for each
  other, about ten milliseconds at most.
  """

  @behaviour Plausible.Webhooks.Store

  alias Plausible.Webhooks.Store.Sealing

  alias Plausible.Webhooks.Store.SQLite.{
    Activity,
    Connection,
    Deliveries,
    Log,
    Retention,
    Webhooks
  }

  alias Plausible.Webhooks.{Store, Vault}

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
         file = options[:key_file] || path <> ".key",
         held? = fn -> Webhooks.sealed?(options[:name]) end,
         {:ok, vault} <- Sealing.vault(options[:vault] || {:file, file}, held?),
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

  defp valid?({:vault, {:file, path}}), do: is_binary(path)
  defp valid?({:vault, vault}), do: vault == nil or is_struct(vault, Vault)
  defp valid?({:key_file, path}), do: path == nil or is_binary(path)
  defp valid?({:name, name}), do: is_atom(name) and name != nil
  defp valid?({:webhooks_per_site_max, n}), do: is_integer(n) and n > 0
  defp valid?({:wait_ms_max, ms}), do: is_integer(ms) and ms >= 0
  defp valid?({:lock_timeout_ms, ms}), do: is_integer(ms) and ms >= 0

  @doc "See `Plausible.Webhooks.backup/2`. The options are those of the store."
  @spec backup(keyword(), Path.t()) :: :ok | {:error, term()}
  def backup(options, path),
    do: Connection.backup(Keyword.get(options, :name, __MODULE__), path(path))

  # Absolute: SQLite gives names like ":memory:" a meaning of their own.
  defp path(path) when is_binary(path), do: Path.expand(path)
  defp path(_other), do: nil

  @impl true
  def now_ms(%__MODULE__{}), do: System.system_time(:millisecond)

  # --- the operations

  @impl true
  def delete_webhook(handle, site_id, id) do
    with :ok <- Webhooks.delete(handle, site_id, id),
         do: Retention.delete_log(handle, site_id, id)
  end

  operations = [
    {Webhooks,
     ~w(insert_webhook update_webhook get_webhook get_webhooks list_webhooks all_webhooks put_health
        alert_states put_alert_state rekey add_audit audit)a},
    {Deliveries,
     ~w(accept record claim claim_suspect reclaim release heartbeat take_lease redeliver requested
        cancel_waiting hold_waiting send_held get_delivery attempts counts)a},
    {Log, ~w(deliveries recoverable)a},
    {Activity, ~w(activity waiting)a},
    {Retention, [:prune]}
  ]

  for {module, names} <- operations, name <- names do
    arguments = Macro.generate_arguments(Store.arity(name), __MODULE__)
    @impl true
    defdelegate unquote(name)(unquote_splicing(arguments)), to: module
  end
end
