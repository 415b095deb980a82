defmodule Plausible.Webhooks.Store.Ecto do
  @moduledoc """
  Webhooks, deliveries and attempts on PostgreSQL (13 or newer), through the host's own
  Ecto Repo. For any number of nodes.

      children = [
        MyApp.Repo,
        {Plausible.Webhooks,
         store: {Plausible.Webhooks.Store.Ecto, repo: MyApp.Repo},
         vault: [System.fetch_env!("WEBHOOKS_KEY")],
         host: {MyApp.WebhooksHost, nil}},
        MyApp.Endpoint
      ]

  `Plausible.Webhooks.Migrations` makes the tables, in a migration of the host that runs
  before the nodes start.

  Options:

    * `:repo` - required: an `Ecto.Repo` on `Ecto.Adapters.Postgres`, started before the
      instance. A few processes write in large batches, so the store occupies two or three
      connections of the pool.
    * `:vault` - required, here or as the instance's option: a `Plausible.Webhooks.Vault`.
      Every node needs the keys that any node encrypts with. `Plausible.Webhooks.rekey/1`
      describes how a key is replaced without a stop.
    * `:prefix` - the schema of the tables, default `"public"`.
    * `:webhooks_per_site_max`, `:wait_ms_max` - default: the instance's.
    * `:timeout_ms` - the time limit of one statement, default 15 000.

  ## The deliveries table is the queue

  A node accepts deliveries as `pending` with its engine as owner, and holds a lease
  (`heartbeat/3`) by the database's clock. Nodes claim parked deliveries that are due, and
  deliveries of owners without a lease, with `FOR UPDATE SKIP LOCKED`: no two nodes get the
  same one.

  Accepted and recorded rows are on disk when the call returns, even where the host's
  commits do not wait for the disk (`synchronous_commit = off`).

  The database's clock decides. When a node's clock differs by more than five seconds, its
  times are corrected on the way in and out.

  ## Tables

  | table | content |
  |---|---|
  | `webhooks` | configuration; URL, headers and secrets are one sealed column |
  | `webhook_deliveries` | the queue and the log, without bodies |
  | `webhook_bodies` | request bodies, apart because a change of state rewrites the row |
  | `webhook_attempts` | every attempt with the receiver's answer |
  | `webhook_owners` | leases, of owners and of periodic work (`lease/...`) |
  | `webhook_alert_states` | traffic alerts |
  | `webhook_counts` | the number of deliveries in each state, as sums to add up |
  | `webhook_deletions` | deleted webhooks whose log is still to be deleted |
  | `webhook_vault_checks` | tells wrong keys from right ones |
  | `webhook_audit` | who did what to a webhook, and when |

  Encrypted (AES-256-GCM, bound to the webhook's id): secrets, URLs except for the host,
  header values. In clear: everything else, including bodies and answers. Text that
  PostgreSQL cannot hold (NUL, invalid UTF-8) is stored as `\\x` and hexadecimal.

  ## Errors

  At the start: `{:missing_option, :repo | :vault}`, `{:unknown_option, name}`,
  `{:invalid_option, name}`, `:not_migrated`, `{:older_schema, version}`,
  `{:newer_schema, version}`, `:foreign_table`, `{:postgres_too_old, version}`,
  `{:unsupported_encoding, name}`, `{:wrong_vault_keys, reason}`,
  `{:unreadable_webhook, id, reason}`, and those below.

  When a webhook is created, changed or deleted inside a transaction of the host
  (`MyApp.Repo.transaction/1`): `:in_transaction`. Call it after the commit.

  From every callback: `:connection_lost` and `:timeout` (a write may have been done),
  `:queue_timeout` (no free connection in the pool), `:disk_full`, `:read_only`,
  `:invalid_value` (a number that no column holds), `{:postgres, code}` and
  `{:postgres, code, constraint}` (the row cannot be written), `{:away, code}` (any other
  error of PostgreSQL), `{:raised, exception}` (for example when the Repo is not running).
  """

  @behaviour Plausible.Webhooks.Store

  alias Plausible.Webhooks.Store.Sealing

  alias Plausible.Webhooks.Store.Ecto.{
    Activity,
    Audit,
    Claims,
    Database,
    Deliveries,
    Keys,
    Log,
    Opening,
    Record,
    Retention,
    Webhooks
  }

  alias Plausible.Webhooks.{Store, Vault}

  @enforce_keys ~w(repo prefix vault webhooks_per_site_max wait_ms_max timeout_ms clock)a
  defstruct @enforce_keys

  @typedoc "`prefix` is quoted. `clock` returns the time by the node's clock."
  @type handle :: %__MODULE__{
          repo: module(),
          prefix: String.t(),
          vault: Vault.t(),
          webhooks_per_site_max: pos_integer(),
          wait_ms_max: non_neg_integer(),
          timeout_ms: pos_integer(),
          clock: (() -> integer())
        }

  @impl true
  def child_spec(_options), do: nil

  @impl true
  def init(options) do
    with {:ok, fields} <- Opening.check(options),
         store = struct!(__MODULE__, fields),
         :ok <- Opening.open(store),
         {:ok, vault} <- Sealing.vault(store.vault, fn -> Keys.held?(store) end),
         store = %{store | vault: vault},
         :ok <- Keys.check(store),
         :ok <- Claims.bring_forward(store) do
      {:ok, store}
    end
  end

  # --- the operations

  for name <- ~w(insert_webhook update_webhook delete_webhook)a do
    [store | _more] = arguments = Macro.generate_arguments(Store.arity(name), __MODULE__)

    @impl true
    def unquote(name)(unquote_splicing(arguments)) do
      outside_transaction(unquote(store), fn ->
        Webhooks.unquote(name)(unquote_splicing(arguments))
      end)
    end
  end

  # The engine and the other nodes learn of a change at once. A transaction of the host that
  # is rolled back would make that wrong, and until one commits they would read the old row.
  defp outside_transaction(store, change) do
    if Database.in_transaction?(store),
      do: {:error, :in_transaction},
      else: change.()
  end

  operations = [
    {Opening, [:now_ms]},
    {Webhooks, ~w(get_webhook get_webhooks list_webhooks all_webhooks put_health alert_states
        put_alert_state)a},
    {Deliveries, ~w(accept cancel_waiting hold_waiting send_held get_delivery attempts counts)a},
    {Record, [:record]},
    {Claims, ~w(claim claim_suspect reclaim release heartbeat take_lease redeliver requested)a},
    {Log, ~w(deliveries recoverable)a},
    {Activity, ~w(activity waiting)a},
    {Retention, [:prune]},
    {Keys, [:rekey]},
    {Audit, ~w(add_audit audit)a}
  ]

  for {module, names} <- operations, name <- names do
    arguments = Macro.generate_arguments(Store.arity(name), __MODULE__)
    @impl true
    defdelegate unquote(name)(unquote_splicing(arguments)), to: module
  end
end
