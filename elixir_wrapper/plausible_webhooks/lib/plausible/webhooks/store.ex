defmodule Plausible.Webhooks.Store do
  @moduledoc """
  Where webhooks, deliveries, attempts and alert states are kept: the one place
  whose word counts after a crash.

  Given at the start as `store: {module, options}`. Every callback gets the
  handle that `init/1` returned first. One contract test suite
  (`Plausible.Webhooks.StoreContract`) runs on every implementation.

  A callback that answers `:ok` or `{:ok, _}` to a write has committed it
  durably. `{:error, reason}` means nothing of that call was written. No callback
  raises for what is in the data or for a store that is away.

  Times are Unix milliseconds by the store's clock (`now_ms/1`): with several
  nodes the database's clock decides.
  """

  alias Plausible.Webhooks.{Attempt, Delivery, Webhook}

  @type handle :: term()
  @type error :: {:error, term()}
  @type owner :: String.t()

  @typedoc """
  Filters of the log. All that are given must hold. `states`: any of; `types`:
  any of; `status_class`: 2..5, or `:none` for no answer; `since_ms`/`until_ms`
  by creation time, half-open.
  """
  @type filters :: %{
          optional(:webhook_id) => Webhook.id(),
          optional(:states) => [Delivery.state()],
          optional(:types) => [String.t()],
          optional(:goal_id) => integer(),
          optional(:status_class) => 2..5 | :none,
          optional(:since_ms) => integer(),
          optional(:until_ms) => integer()
        }

  @typedoc """
  Keyset paging, newest first: `after` is the opaque cursor of the last page
  (`nil` for the first). `limit` 1..200.
  """
  @type page :: %{optional(:after) => String.t() | nil, optional(:limit) => 1..200}
  @type page_of(item) :: %{entries: [item], next: String.t() | nil}

  @type alert_state :: %{
          webhook_id: Webhook.id(),
          kind: :spike | :drop,
          state: :armed | :firing,
          alert_id: String.t() | nil,
          changed_at_ms: integer(),
          notified_at_ms: integer() | nil
        }

  @doc "Opens the store, creating or migrating it. The error stops the start."
  @callback init(keyword()) :: {:ok, handle()} | error()
  @doc "A child to supervise, or `nil` when the host already runs the store."
  @callback child_spec(keyword()) :: Supervisor.child_spec() | nil
  @callback now_ms(handle()) :: integer()

  # --- webhooks
  @callback insert_webhook(handle(), Webhook.t()) :: :ok | {:error, :limit_reached} | error()
  @doc """
  Replaces the webhook if `version` is still the stored one, and stores
  `version + 1`. `{:error, :stale}` otherwise, `{:error, :not_found}` if gone.
  """
  @callback update_webhook(handle(), Webhook.t()) ::
              {:ok, Webhook.t()} | {:error, :stale | :not_found} | error()
  @doc "Removes the webhook and its log; the engine cancels what waits."
  @callback delete_webhook(handle(), integer(), Webhook.id()) ::
              :ok | {:error, :not_found} | error()
  @callback get_webhook(handle(), Webhook.id()) ::
              {:ok, Webhook.t()} | {:error, :not_found} | error()
  @callback list_webhooks(handle(), integer()) :: {:ok, [Webhook.t()]} | error()
  @callback all_webhooks(handle()) :: {:ok, [Webhook.t()]} | error()
  @doc "Merges health fields without touching `version`."
  @callback put_health(handle(), Webhook.id(), %{
              optional(:failing_since_ms) => integer() | nil
            }) :: :ok | error()

  # --- deliveries
  @doc """
  The moment of acceptance: inserts the deliveries as they are (`:pending` with
  `owner`, or terminal), in one transaction. A delivery whose id is there already
  is left as it is.
  """
  @callback accept(handle(), [Delivery.t()]) :: :ok | error()

  @doc """
  Writes attempts and moves their deliveries, in one transaction. An attempt with
  `number` 0 only moves the delivery. A delivery already terminal keeps its state
  (the attempt is still written), except that `:delivered` wins over everything.
  `:pending` and `:parked` set `next_at_ms`; `:parked` clears the owner.
  """
  @callback record(handle(), [Attempt.t()]) :: :ok | error()

  @doc """
  Takes over at most `limit` deliveries for `owner`: parked ones whose time has
  come and pending ones whose owner's lease is over (or is nobody's), oldest due
  first. They come back `:pending`, with body. No two owners get the same one.
  """
  @callback claim(handle(), owner(), limit :: pos_integer()) :: {:ok, [Delivery.t()]} | error()

  @doc "Gives pending deliveries back: `:parked`, due at `next_at_ms`, no owner."
  @callback release(handle(), owner(), [String.t()], next_at_ms :: integer()) :: :ok | error()

  @doc "Renews the owner's lease; all its pending deliveries live by it."
  @callback heartbeat(handle(), owner(), lease_ms :: pos_integer()) :: :ok | error()

  @doc """
  Makes `failed`, `cancelled` (and, one by one, `delivered`) deliveries
  `:pending` again for `owner`, same id, `schedule_from` set to `attempts`,
  `manual` true. A parked or pending one is taken over too: a manual redelivery
  replaces the pending retry. Unknown ids are skipped. Returns them with body.
  """
  @callback redeliver(handle(), owner(), [String.t()]) :: {:ok, [Delivery.t()]} | error()

  @doc """
  Ids, oldest first, of the webhook's `failed` and `cancelled` deliveries created
  since then; at most `limit`.
  """
  @callback recoverable(handle(), Webhook.id(), since_ms :: integer(), limit :: pos_integer()) ::
              {:ok, [String.t()]} | error()

  @doc "Cancels the webhook's pending and parked deliveries; returns how many."
  @callback cancel_waiting(handle(), Webhook.id(), reason :: String.t()) ::
              {:ok, non_neg_integer()} | error()

  @doc "The log of a site, newest first, without bodies."
  @callback deliveries(handle(), integer(), filters(), page()) ::
              {:ok, page_of(Delivery.t())} | error()
  @callback get_delivery(handle(), String.t()) ::
              {:ok, Delivery.t()} | {:error, :not_found} | error()
  @doc "Every attempt of a delivery, oldest first."
  @callback attempts(handle(), String.t()) :: {:ok, [Attempt.t()]} | error()

  @doc "How many deliveries are in each state, and when the oldest waiting is due."
  @callback counts(handle()) ::
              {:ok, %{Delivery.state() => non_neg_integer(), oldest_due_ms: integer() | nil}}
              | error()

  @doc "Deletes terminal deliveries (and their attempts) finished before; at most `limit`."
  @callback prune(handle(), before_ms :: integer(), limit :: pos_integer()) ::
              {:ok, non_neg_integer()} | error()

  # --- traffic alerts
  @callback alert_states(handle(), [Webhook.id()]) :: {:ok, [alert_state()]} | error()
  @callback put_alert_state(handle(), alert_state()) :: :ok | error()
end
