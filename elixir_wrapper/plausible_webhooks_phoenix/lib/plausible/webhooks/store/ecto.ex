defmodule Plausible.Webhooks.Store.Ecto do
  @moduledoc """
  Webhooks, deliveries and attempts on PostgreSQL (13 or newer), through the host's
  own Ecto Repo. For any number of nodes.

      children = [
        MyApp.Repo,
        {Plausible.Webhooks,
         store: {Plausible.Webhooks.Store.Ecto, repo: MyApp.Repo},
         vault: [System.fetch_env!("WEBHOOKS_KEY")],
         host: {MyApp.WebhooksHost, nil}},
        MyApp.Endpoint
      ]

  The tables are made by `Plausible.Webhooks.Migrations`, in a migration of the host,
  which runs before the nodes that need it start. Nodes of the release before may go
  on meanwhile, and start again, where the newer version says so.

  Options:

    * `:repo` - required: an `Ecto.Repo` on `Ecto.Adapters.Postgres`, started before
      this. Deliveries are written by few processes in large batches: two or three
      connections of its pool are busy with it, no more.
    * `:vault` - required, here or as the instance's option: a
      `Plausible.Webhooks.Vault`. Every node needs the same keys. To change the key
      without a stop, first give every node the new key as the second one, then as
      the first, then leave out the old one.
    * `:prefix` - the schema of the tables, default `"public"`.
    * `:webhooks_per_site_max` - default: the instance's.
    * `:timeout_ms` - how long one statement may take, default 15 000.

  ## The queue is the table

  A node accepts deliveries as `pending` with itself as owner and works on them. It
  holds a lease (`heartbeat/3`) by the database's clock. What an owner without a
  lease has left, and what is parked and due, is claimed by whichever node asks
  first (`FOR UPDATE SKIP LOCKED`); no two get the same one.

  What is accepted or recorded is on disk when the call returns, also where the host
  has commits that do not wait for it (`synchronous_commit = off`).

  Only the database's clock decides. A node whose clock is wrong by more than five
  seconds has its times corrected on the way in and out.

  ## What is where

  | table | |
  |---|---|
  | `webhooks` | configuration; URL, headers and secrets are one sealed column |
  | `webhook_deliveries` | the queue and the log, without bodies |
  | `webhook_bodies` | what is sent; apart, since a change of state rewrites the row |
  | `webhook_attempts` | every attempt, with what the receiver answered |
  | `webhook_owners` | leases, of owners and of turns (`turn/...`) |
  | `webhook_alert_states` | traffic alerts |
  | `webhook_counts` | how many deliveries are in each state, as sums to add up |
  | `webhook_deletions` | webhooks that are gone and whose log is still to be deleted |
  | `webhook_vault_checks` | tells the wrong keys from the right ones |

  Encrypted (AES-256-GCM, bound to the webhook's id): secrets, URLs except for the
  host, header values. In clear: the rest, deliveries' bodies and receivers'
  answers included. Text that PostgreSQL cannot hold (NUL, no UTF-8) is kept as
  `\\x` and hexadecimal.

  ## Errors

  At the start: `{:missing_option, :repo | :vault}`, `{:unknown_option, name}`,
  `{:invalid_option, name}`, `:not_migrated`, `{:older_schema, version}`,
  `{:newer_schema, version}`, `:foreign_table`, `{:postgres_too_old, version}`,
  `{:unsupported_encoding, name}`, `{:wrong_vault_keys, reason}`,
  `{:unreadable_webhook, id, reason}`, and those below.

  Creating, changing and deleting a webhook inside a transaction of the host's
  (`MyApp.Repo.transaction/1`): `:in_transaction`. Do it after the commit.

  From every callback: `:connection_lost` and `:timeout` (of a write it is not known
  whether it was done), `:queue_timeout` (the pool had no connection to give),
  `:disk_full`, `:read_only`, `:invalid_value` (a number that no column holds),
  `{:postgres, code}` and `{:postgres, code, constraint}` (what was to be written is
  not possible), `{:away, code}` (every other error of PostgreSQL),
  `{:raised, exception}` (for one, that the Repo is not running).
  """

  @behaviour Plausible.Webhooks.Store

  alias Plausible.Webhooks.Store.Ecto.{
    Activity,
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

  alias Plausible.Webhooks.Vault

  @enforce_keys [:repo, :prefix, :vault, :webhooks_per_site_max, :timeout_ms, :clock]
  defstruct @enforce_keys

  @typedoc "`prefix` is quoted already; `clock` shows what the node takes for the time."
  @opaque handle :: %__MODULE__{
            repo: module(),
            prefix: String.t(),
            vault: Vault.t(),
            webhooks_per_site_max: pos_integer(),
            timeout_ms: pos_integer(),
            clock: (() -> integer())
          }

  @impl true
  def child_spec(_options), do: nil

  @impl true
  def init(options) do
    with {:ok, store} <- Opening.check(options),
         :ok <- Opening.open(store),
         :ok <- Keys.check(store) do
      {:ok, store}
    end
  end

  @impl true
  defdelegate now_ms(store), to: Opening

  # --- webhooks

  @impl true
  def insert_webhook(store, webhook),
    do: by_itself(store, fn -> Webhooks.insert(store, webhook) end)

  @impl true
  def update_webhook(store, webhook),
    do: by_itself(store, fn -> Webhooks.update(store, webhook) end)

  @impl true
  def delete_webhook(store, site_id, id) do
    by_itself(store, fn ->
      with :ok <- Webhooks.delete(store, site_id, id),
           do: Retention.delete_log(store, site_id, id)
    end)
  end

  # What a webhook is now is told at once to the engine and to other nodes: a
  # transaction of the host's that is rolled back would make a lie of it, and one
  # that commits later lets them read what was there before.
  defp by_itself(store, change) do
    if Database.in_transaction?(store),
      do: {:error, :in_transaction},
      else: change.()
  end

  @impl true
  defdelegate get_webhook(store, id), to: Webhooks, as: :get
  @impl true
  defdelegate list_webhooks(store, site_id), to: Webhooks, as: :list
  @impl true
  defdelegate all_webhooks(store), to: Webhooks, as: :all
  @impl true
  defdelegate put_health(store, id, health), to: Webhooks

  # --- deliveries

  @impl true
  defdelegate accept(store, deliveries), to: Deliveries
  @impl true
  defdelegate record(store, attempts), to: Record
  @impl true
  defdelegate claim(store, owner, limit), to: Claims
  @impl true
  defdelegate reclaim(store, owner, from, limit), to: Claims
  @impl true
  defdelegate release(store, owner, ids, next_at_ms), to: Claims
  @impl true
  defdelegate heartbeat(store, owner, lease_ms), to: Claims
  @impl true
  defdelegate take_lease(store, name, lease_ms, token), to: Claims
  @impl true
  defdelegate redeliver(store, owner, ids), to: Claims
  @impl true
  defdelegate recoverable(store, webhook_id, since_ms, limit), to: Log
  @impl true
  defdelegate cancel_waiting(store, webhook_id, reason), to: Deliveries
  @impl true
  defdelegate deliveries(store, site_id, filters, page), to: Log, as: :page
  @impl true
  defdelegate get_delivery(store, id), to: Deliveries, as: :get
  @impl true
  defdelegate attempts(store, id), to: Deliveries
  @impl true
  defdelegate counts(store), to: Deliveries
  @impl true
  defdelegate activity(store, site_id, webhook_ids, since_ms), to: Activity
  @impl true
  defdelegate waiting(store, webhook_ids), to: Activity
  @impl true
  defdelegate prune(store, before_ms, limit), to: Retention

  # --- traffic alerts

  @impl true
  defdelegate alert_states(store, webhook_ids), to: Webhooks
  @impl true
  defdelegate put_alert_state(store, state), to: Webhooks
end
