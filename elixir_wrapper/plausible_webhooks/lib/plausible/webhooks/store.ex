defmodule Plausible.Webhooks.Store do
  @moduledoc """
  Where webhooks, deliveries, attempts and alert states are kept: the one place
  whose word counts after a crash.

  Given at the start as `store: {module, options}`. The process of `child_spec/1`
  is started first, then `init/1` is called (again after a restart of that
  process). Every callback gets the handle that `init/1` returned. One contract
  test suite (`Plausible.Webhooks.StoreContract`) runs on every implementation.

  A callback that answers `:ok` or `{:ok, _}` to a write has committed it
  durably. `{:error, reason}` means nothing of that call was written, with two
  exceptions:

    * Reasons of `unknown?/1`, such as `:timeout` and `:connection_lost`: it may be
      done, or be done a while from now. `accept/2` and `record/2` may simply be
      repeated; after `claim/3`, `reclaim/4` and `redeliver/3` the owner may have
      deliveries that it does not know of.
    * `delete_webhook/3`, `cancel_waiting/3` and `prune/3` may have much to do and
      work in slices, so that others are not kept waiting. Part of it may be
      done; repeating the call does the rest.

  Any other reason than those of `away?/1` says of `accept/2` and `record/2` that a
  row is such that it can never be written; it is given up then, where it alone is
  to blame.

  No callback raises for what is in the data or for a store that is away. Any
  bytes may be in a body, an answer, a detail or a name; they come back as they
  were.

  Times are Unix milliseconds by the store's clock (`now_ms/1`): with several
  nodes the database's clock decides.
  """

  alias Plausible.Webhooks.{Attempt, Delivery, Webhook}

  @away ~w(timeout connection_lost queue_timeout store_unavailable not_started locked
           disk_full read_only io_error cannot_open corrupt not_a_database)a

  @type handle :: term()
  @type error :: {:error, term()}
  @typedoc """
  Who works on pending deliveries: one engine. An owner without a lease in force
  (`heartbeat/3`) counts as dead.
  """
  @type owner :: String.t()

  @typedoc "Shows that a turn is one's own."
  @type token :: integer()

  @typedoc """
  Filters of the log. All that are given must hold. `states`: any of; `types`:
  any of (an empty list: none); `status_class`: 2..5 by the last answer, or
  `:none` for deliveries that were tried and got no answer the last time;
  `since_ms`/`until_ms` by creation time, half-open. Another key or value is
  `{:error, {:invalid_filter, key}}`.
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
  (`nil` for the first); `{:error, :invalid_cursor}` for anything else. `limit`
  1..200, default 50; otherwise `{:error, :invalid_limit}`.
  """
  @type page :: %{optional(:after) => String.t() | nil, optional(:limit) => 1..200}

  @typedoc """
  `next` is `nil` when there is nothing after these entries. What is added while
  somebody turns pages is newer than all of them and disturbs none.

  A page may be shorter than `limit`, even empty, and have a `next` all the same:
  what the filters ask for is rare, and one call looks at so many deliveries and no
  more (100 000, or what a second is enough for). `next` goes on from there, maybe
  to find nothing more. Whoever has to know all, or whether there is any, turns
  pages until `next` is `nil`.
  """
  @type page_of(item) :: %{entries: [item], next: String.t() | nil}

  @typedoc """
  What became of a webhook's deliveries. `finished`: how many ended as what, by the
  whole UTC hour (its beginning) in which they did. `complete?`: not when some hour had
  more than a call looks at (10 000; fewer where many webhooks of a site have that
  many); then it is so many at least. `last`: the newest delivery, without body; `nil`
  when there is none, or none among so many of the site's newest (100 000) as a store
  that knows no shorter way looks at.
  """
  @type activity :: %{
          finished: %{{hour_ms :: integer(), Delivery.state()} => pos_integer()},
          complete?: boolean(),
          last: Delivery.t() | nil
        }

  @typedoc """
  At most 10 000 are counted. `more?`: there are more, or there may be: a call looks
  at so much and no more.
  """
  @type waiting :: %{count: 0..10_000, more?: boolean()}

  @typedoc """
  `visitors` and `threshold` are those of the breach; `seen_at_ms`: when it was last
  seen to go on.
  """
  @type alert_state :: %{
          webhook_id: Webhook.id(),
          kind: :spike | :drop,
          state: :armed | :firing,
          alert_id: String.t() | nil,
          visitors: non_neg_integer() | nil,
          threshold: pos_integer() | nil,
          changed_at_ms: integer(),
          notified_at_ms: integer() | nil,
          seen_at_ms: integer() | nil
        }

  @doc """
  Opens the store, creating or migrating it. The options are those that were given
  with it, and `:vault` and `:webhooks_per_site_max` of the instance where they were
  not. The error stops the start, except that `:connection_lost`, `:queue_timeout`
  and `:timeout` get some seconds. A store
  made by a newer version, by somebody else, or with other keys is an error, and
  is left as it is.
  """
  @callback init(keyword()) :: {:ok, handle()} | error()
  @doc "A child to supervise, or `nil` when the host already runs the store."
  @callback child_spec(keyword()) :: Supervisor.child_spec() | nil
  @callback now_ms(handle()) :: integer()

  # --- webhooks
  @doc """
  Adds a webhook. `:limit_reached` when the site has as many as it may (an option
  of the store, default 20), `:already_exists` for an id that is taken.
  """
  @callback insert_webhook(handle(), Webhook.t()) ::
              :ok | {:error, :limit_reached | :already_exists} | error()
  @doc """
  Replaces the webhook (all of it, except `site_id` and `inserted_at_ms`) if
  `version` is still the stored one, and stores `version + 1`. `{:error, :stale}`
  otherwise, `{:error, :not_found}` if it is gone or belongs to another site.
  Returns what is stored now.
  """
  @callback update_webhook(handle(), Webhook.t()) ::
              {:ok, Webhook.t()} | {:error, :stale | :not_found} | error()
  @doc """
  Removes the webhook of that site, its alert states and its log; the engine
  cancels what waits. Of a long log a part may be left to `prune/3`.
  """
  @callback delete_webhook(handle(), integer(), Webhook.id()) ::
              :ok | {:error, :not_found} | error()
  @callback get_webhook(handle(), Webhook.id()) ::
              {:ok, Webhook.t()} | {:error, :not_found} | error()
  @doc "The site's webhooks, oldest first."
  @callback list_webhooks(handle(), integer()) :: {:ok, [Webhook.t()]} | error()
  @callback all_webhooks(handle()) :: {:ok, [Webhook.t()]} | error()
  @doc "Merges health fields without touching `version`."
  @callback put_health(handle(), Webhook.id(), %{
              optional(:failing_since_ms) => integer() | nil
            }) :: :ok | {:error, :not_found} | error()

  # --- deliveries
  @doc """
  The moment of acceptance: inserts the deliveries as they are, in one
  transaction. A delivery whose id is there already is left as it is. Only a
  pending one keeps an owner; a terminal one without `finished_at_ms` gets the
  time of the call. The webhook need not exist (it may just have been deleted).
  """
  @callback accept(handle(), [Delivery.t()]) :: :ok | error()

  @doc """
  Writes attempts and moves their deliveries, one after the other as listed, in
  one transaction. An attempt of an unknown delivery is skipped.

    * An attempt with `number` 0 is not written; it only moves the delivery.
    * Of several with the same number the first one stays.
    * The delivery moves to the attempt's state if it is not terminal yet and the
      attempt is new (its number is 0 or greater than the delivery's `attempts`).
      Otherwise it stays where it is, except that `:delivered` wins over
      everything, at any number. So recording something twice changes nothing.
    * `:pending` and `:parked` set `next_at_ms`; `:pending` keeps the owner,
      everything else clears it. A terminal state sets `finished_at_ms`, and, for
      `:failed` and `:cancelled`, `reason`: the attempt's error, or with number 0
      its detail if there is one.
    * `attempts`, `last_status` and `last_error` follow the attempt with the
      greatest number, also after the end (unless that was `:delivered`).
    * With an attempt that is neither `:delivered` nor `:pending` an engine lets go
      of the delivery. When such a one is not new (another engine was faster, which
      took over or was taken over from), not recorded before, and by the owner of
      a pending delivery (`owner`), that has no owner any more and can be claimed.
  """
  @callback record(handle(), [Attempt.t()]) :: :ok | error()

  @doc """
  Takes over at most `limit` deliveries for `owner`: parked ones whose time has
  come and pending ones whose owner's lease is over (or is nobody's), oldest due
  first (by `next_at_ms`, or creation when that is `nil`). They come back
  `:pending`, with body. No two owners get the same one. What is pending for
  `owner` itself is in its engine and never comes back by this.
  """
  @callback claim(handle(), owner(), limit :: pos_integer()) :: {:ok, [Delivery.t()]} | error()

  @doc """
  Takes over at most `limit` of the pending deliveries of `from`, oldest due first,
  whether its lease is in force or not: for an engine that goes on under another
  name. They come back with body. Fewer than `limit`: nothing is left, except what
  somebody else was changing in this moment.
  """
  @callback reclaim(handle(), owner(), from :: owner(), limit :: pos_integer()) ::
              {:ok, [Delivery.t()]} | error()

  @doc """
  Gives pending deliveries of this owner back: `:parked`, due at `next_at_ms`, no
  owner. Others are left alone.
  """
  @callback release(handle(), owner(), [String.t()], next_at_ms :: integer()) :: :ok | error()

  @doc """
  Renews the owner's lease; all its pending deliveries live by it. A lease of 1 ms
  ends it.
  """
  @callback heartbeat(handle(), owner(), lease_ms :: pos_integer()) :: :ok | error()

  @doc """
  Takes a turn at what only one at a time may do, for `lease_ms` from now:
  `{:error, :taken}` while somebody else has it. With the token of the last time a
  turn is renewed, also after its end, unless somebody else has had it since. A
  lease of 1 ms ends it. The name says what the turn is at, and is no owner's.
  """
  @callback take_turn(handle(), name :: String.t(), lease_ms :: pos_integer(), token() | nil) ::
              {:ok, token()} | {:error, :taken} | error()

  @doc """
  Makes `failed` and `cancelled` deliveries `:pending` again for `owner`, same id,
  `schedule_from` set to `attempts`, `manual` true; `next_at_ms`, `finished_at_ms`
  and `reason` are cleared. A parked or pending one is taken over too: a manual
  redelivery replaces the pending retry. A delivered one only when it is the only
  id given: in a recovery it has arrived in the meantime. Unknown ids are skipped.
  Returns them with body, in the order of the ids.
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

  @doc "The log of a site, newest first, without bodies (`nil`)."
  @callback deliveries(handle(), integer(), filters(), page()) ::
              {:ok, page_of(Delivery.t())} | error()
  @callback get_delivery(handle(), String.t()) ::
              {:ok, Delivery.t()} | {:error, :not_found} | error()
  @doc "Every attempt of a delivery, oldest first."
  @callback attempts(handle(), String.t()) :: {:ok, [Attempt.t()]} | error()

  @doc "How many deliveries are in each state, and when the oldest waiting is due."
  @callback counts(handle()) ::
              {:ok,
               %{
                 pending: non_neg_integer(),
                 parked: non_neg_integer(),
                 delivered: non_neg_integer(),
                 failed: non_neg_integer(),
                 cancelled: non_neg_integer(),
                 oldest_due_ms: integer() | nil
               }}
              | error()

  @doc """
  What became of the deliveries of these webhooks, which are all of one site, in the 24
  hours that begin with `since_ms`, the beginning of an hour; what ended after them is
  there, too. An entry for each id. Bounded, however many deliveries there are: asked
  whenever somebody looks at the page.
  """
  @callback activity(handle(), integer(), [Webhook.id()], since_ms :: integer()) ::
              {:ok, %{Webhook.id() => activity()}} | error()

  @doc "How many deliveries of these webhooks are pending or parked; an entry for each id."
  @callback waiting(handle(), [Webhook.id()]) :: {:ok, %{Webhook.id() => waiting()}} | error()

  @doc """
  Deletes terminal deliveries (and their attempts) finished before; at most
  `limit`. Returns how many; fewer than `limit` when nothing is left to delete.
  What deleted webhooks have left behind is deleted too, and may count.
  """
  @callback prune(handle(), before_ms :: integer(), limit :: pos_integer()) ::
              {:ok, non_neg_integer()} | error()

  # --- traffic alerts
  @doc "What is known of these webhooks; one without a state is not in the list."
  @callback alert_states(handle(), [Webhook.id()]) :: {:ok, [alert_state()]} | error()
  @doc "Puts or replaces the state of one webhook and kind."
  @callback put_alert_state(handle(), alert_state()) :: :ok | {:error, :not_found} | error()

  # --- errors

  @doc """
  Does the reason only say that the store is away, in whatever way? Then it says
  nothing about what was to be written: the same may be written the next time, and
  none of it is given up.

  These are #{Enum.map_join(@away, ", ", &"`#{inspect(&1)}`")}, and whatever a store
  puts into `{:away, reason}`.
  """
  @spec away?(term()) :: boolean()
  def away?({:away, _reason}), do: true
  def away?(reason), do: reason in @away

  @doc """
  May what failed for this reason be done all the same?
  """
  @spec unknown?(term()) :: boolean()
  def unknown?({:raised, _exception}), do: true

  def unknown?(reason),
    do: reason in [:timeout, :connection_lost, :store_unavailable, :store_raised]
end
