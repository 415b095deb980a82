defmodule Plausible.Webhooks.Store do
  @away ~w(timeout connection_lost queue_timeout store_unavailable not_started locked
           disk_full read_only io_error cannot_open corrupt not_a_database)a

  @moduledoc """
  Stores webhooks, deliveries, attempts and alert states. After a crash, only what the store
  holds counts.

  This module is two things: the behaviour that a store implements, and the facade
  through which everything else calls the store of an instance.

  ## Implementing a store

  An instance gets its store as the option `store: {module, options}`. It starts the process
  of `c:child_spec/1`, then calls `c:init/1`, and calls that again whenever the process was
  restarted. Every other callback gets the handle that `c:init/1` returned. One contract test
  suite (`Plausible.Webhooks.StoreContract`) runs against every implementation.

  A callback that answers a write with `:ok` or `{:ok, _}` has committed it durably.
  `{:error, reason}` means that nothing of the call was written, with two exceptions:

    * After an error for which `outcome_unknown?/1` is true, the write may have happened, or
      may still happen. `accept/2` and `record/2` may be repeated. After
      `claim/3`, `reclaim/4` and `redeliver/4` the owner may own deliveries that it does
      not know of.
    * `delete_webhook/3`, `cancel_waiting/3`, `hold_waiting/2`, `send_held/1` and `prune/3`
      work in slices, so that other callers need not wait. A part may be done. Repeating the
      call does the rest.

  When `accept/2` or `record/2` returns an error for which `away?/1` is false, one of the rows
  can never be written. The caller finds that row and gives it up.

  A callback does not raise because of the data or because the database is away. It
  answers within its own time limit. Bodies, answers, details and names may hold any
  bytes and come back unchanged. Times are Unix milliseconds by the store's clock
  (`c:now_ms/1`): with several nodes that is the database's clock.

  ## Calling the store

  Each function takes the instance, or its name, in place of the handle. It never raises. It
  returns `{:error, :store_unavailable}` while the store is not open yet, `{:error, :stopped}`
  if the instance is not running, and `{:error, :store_raised}` if the store raises.
  Observers get each call with its duration as `:store_call`
  (`Plausible.Webhooks.Observer`).
  """

  import Plausible.Webhooks.Store.Operation

  alias Plausible.Webhooks.{Attempt, Delivery, Webhook}
  alias Plausible.Webhooks.Runtime.{Instance, Observers}

  require Logger

  @typedoc "An instance, or its name."
  @type instance :: Instance.t() | Instance.name()
  @typedoc "What `c:init/1` returned."
  @type handle :: term()
  @typedoc "See `away?/1` and `outcome_unknown?/1` for what a reason means."
  @type error :: {:error, term()}
  @typedoc "The host's id of a site."
  @type site_id :: integer()
  @typedoc """
  A node's engine, which owns the pending deliveries it works on. An owner whose lease
  (`heartbeat/3`) has ended counts as dead.
  """
  @type owner :: String.t()

  @typedoc "Proof that the caller holds a lease of `take_lease/4`."
  @type token :: integer()

  @typedoc """
  Filters of the log, all of which must hold. `states` and `types` match any of their
  entries; an empty list matches nothing. `status_class` is the class of the last answer,
  2..5, or `:none` for deliveries whose last attempt got no answer. `since_ms` (inclusive)
  and `until_ms` (exclusive) limit the time of creation. Anything else is
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
  Which page of the log. `after` is the `next` of the page before, `nil` for the first
  page; anything else is `{:error, :invalid_cursor}`. `limit` is 1..200, 50 by default;
  anything else is `{:error, :invalid_limit}`.
  """
  @type page :: %{optional(:after) => String.t() | nil, optional(:limit) => 1..200}

  @typedoc """
  A page of the log, newest first. Deliveries created while somebody turns pages are
  newer than all of them.

  `next` is `nil` when nothing follows. A page with a `next` may be shorter than `limit`,
  even empty: a call looks at a bounded number of deliveries (100 000, or as many as it
  can in a second), and matches may be rare.
  """
  @type page_of(item) :: %{entries: [item], next: String.t() | nil}

  @typedoc """
  How a webhook's deliveries ended. `finished` counts them by state and by the UTC hour
  in which they ended. `complete?` is false if some hour had more than a call counts (10 000,
  or fewer for a site with many such webhooks); the counts are then minimums. `last` is the
  newest delivery, without body; `nil` if there is none. A store that has no index of a
  webhook's deliveries searches only the site's newest 100 000.
  """
  @type activity :: %{
          finished: %{{hour_ms :: integer(), Delivery.state()} => pos_integer()},
          complete?: boolean(),
          last: Delivery.t() | nil
        }

  @typedoc "At most 10 000 are counted; with `more?` there are, or may be, more."
  @type waiting :: %{count: 0..10_000, more?: boolean()}

  @typedoc """
  Who did what to a webhook, and when. Entries outlive their webhook, and are deleted after a
  year (`prune/3`).
  """
  @type audit :: %{
          site_id: site_id(),
          webhook_id: Webhook.id(),
          actor: String.t(),
          action: String.t(),
          at_ms: integer()
        }

  @typedoc "How many deliveries are in each state, and when the first one that waits is due."
  @type counts :: %{
          pending: non_neg_integer(),
          parked: non_neg_integer(),
          held: non_neg_integer(),
          delivered: non_neg_integer(),
          failed: non_neg_integer(),
          cancelled: non_neg_integer(),
          oldest_due_ms: integer() | nil
        }

  @typedoc """
  `visitors` and `threshold` are those of the breach. `seen_at_ms` is the last time at which
  the breach was seen. `calm_since_ms` is the time since which visitors are back to normal.
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
          seen_at_ms: integer() | nil,
          calm_since_ms: integer() | nil
        }

  # --- the behaviour, and the function of the same name for each operation

  @doc """
  Opens the store, and creates or migrates its tables.

  Gets the options that were given with the store. `:vault`, `:webhooks_per_site_max` and
  `:wait_ms_max` are those of the instance unless they are given. A delivery that would wait
  longer than `:wait_ms_max` from now was parked while the clock was fast; its wait is
  shortened to that.

  An error stops the start; after `:connection_lost`, `:queue_timeout` and `:timeout` the
  instance first tries again for some seconds. A store that a newer version or another program
  made, or that was encrypted with other keys, is an error and is left unchanged. Whatever an
  older key of the vault has encrypted stays as it is (`c:rekey/2`).
  """
  @callback init(keyword()) :: {:ok, handle()} | error()
  @doc "A child to supervise, or `nil` when the host already runs the database."
  @callback child_spec(keyword()) :: Supervisor.child_spec() | nil
  @callback now_ms(handle()) :: integer()

  @doc """
  Adds a webhook. `:limit_reached` when the site has `:webhooks_per_site_max` (20),
  `:already_exists` when the id is taken.
  """
  operation insert_webhook(webhook :: Webhook.t()) ::
              :ok | {:error, :limit_reached | :already_exists} | error()

  @doc """
  Replaces a webhook except for `site_id` and `inserted_at_ms`, if `version` is still the
  stored one, and stores `version + 1`. Returns the stored webhook. `:stale` for another
  version, `:not_found` for a webhook that is deleted or belongs to another site.
  """
  operation update_webhook(webhook :: Webhook.t()) ::
              {:ok, Webhook.t()} | {:error, :stale | :not_found} | error()

  @doc """
  Deletes the site's webhook with its alert states and its log. `prune/3` may have to delete
  the rest of a long log. The engine cancels the deliveries that wait.
  """
  operation delete_webhook(site_id :: site_id(), id :: Webhook.id()) ::
              :ok | {:error, :not_found} | error()

  operation get_webhook(id :: Webhook.id()) ::
              {:ok, Webhook.t()} | {:error, :not_found} | error()

  @doc "Those of the webhooks that exist, in any order."
  operation get_webhooks(ids :: [Webhook.id()]) :: {:ok, [Webhook.t()]} | error()

  @doc "The site's webhooks, oldest first."
  operation list_webhooks(site_id :: site_id()) :: {:ok, [Webhook.t()]} | error()
  operation all_webhooks() :: {:ok, [Webhook.t()]} | error()
  @doc "Sets health fields and leaves `version` as it is."
  operation put_health(
              id :: Webhook.id(),
              health :: %{
                optional(:failing_since_ms) => integer() | nil
              }
            ) :: :ok | {:error, :not_found} | error()

  @doc """
  The moment of acceptance: inserts the deliveries in one transaction. A delivery whose
  id is stored already stays as it is. Only a pending one keeps its owner. A terminal one
  without `finished_at_ms` gets the time of the call. The webhook need not exist: it may
  just have been deleted.
  """
  operation accept(deliveries :: [Delivery.t()]) :: :ok | error()

  @doc """
  Writes attempts and moves their deliveries, in the given order and in one transaction.
  An attempt of an unknown delivery is skipped.

    * An attempt with `number` 0 is not stored. It only moves the delivery, and only if the
      delivery has no other owner than the attempt's `owner`.
    * An attempt's key is its number and its `owner`: two engines that made one with the same
      number are both on record. Of several with the same key, the first one stays.
    * The delivery moves to the attempt's state if it is not terminal yet and the
      attempt is new (its number is 0 or greater than the delivery's `attempts`).
      Otherwise it stays, except that `:delivered` always wins. So recording something
      twice changes nothing.
    * A delivery that moves takes over a greater `schedule_from`.
    * `:held` counts as `:parked` without `next_at_ms` unless the webhook is paused (it is
      stored with `enabled` false). A delivery is held only while its webhook can be resumed.
    * `:pending` and `:parked` set `next_at_ms`. `:pending` keeps the owner, every other
      state clears it. A terminal state sets `finished_at_ms`; `:failed` and `:cancelled`
      also set `reason`: the attempt's error, or its detail if the number is 0 and there
      is one.
    * `attempts`, `last_status` and `last_error` are those of the attempt with the greatest
      number, even if it is recorded after the delivery has ended, unless the delivery ended
      as `:delivered`.
    * An engine lets go of a delivery with an attempt that is neither `:delivered` nor
      `:pending`. When such an attempt is not new and was not recorded before (another
      engine had taken the delivery over and was faster), and its `owner` owns the pending
      delivery, the delivery loses its owner and can be claimed. The same happens, in place of
      the attempt's state, when another node has requested to send it again (`redeliver/4`).
  """
  operation record(attempts :: [Attempt.t()]) :: :ok | error()

  @doc """
  Makes `owner` the owner of at most `limit` deliveries: parked ones that are due, and
  pending ones whose owner has no lease. The oldest due come first (by `next_at_ms`, or
  by creation when that is `nil`). They come back `:pending`, with body. No two owners
  get the same one. What is pending for `owner` already is in its engine and is not
  returned.

  What was due before the lease of its owner ran out may have been what ended that node. At
  the second time without an attempt on record in between it is a suspect. Suspects are left
  to `claim_suspect/2`.
  """
  operation claim(owner :: owner(), limit :: pos_integer()) :: {:ok, [Delivery.t()]} | error()

  @doc """
  Makes `owner` the owner of a suspect, if it does not own one already: of those that have
  been through the fewest ends of a node, the one that has been due longest. Returns it with
  body, and the number of these ends. An attempt on record sets that number back to 0.
  """
  operation claim_suspect(owner :: owner()) ::
              {:ok, {Delivery.t(), ends :: pos_integer()} | nil} | error()

  @doc """
  Makes `owner` the owner of at most `limit` pending deliveries of `from`, oldest due
  first, even while the lease of `from` holds: the same engine goes on under another name.
  They come back with body. Fewer than `limit` means that none is left, except rows that
  another node was changing at that moment.
  """
  operation reclaim(owner :: owner(), from :: owner(), limit :: pos_integer()) ::
              {:ok, [Delivery.t()]} | error()

  @doc """
  Makes pending deliveries of this owner `:parked`, due at `next_at_ms` and owned by
  nobody. Others are left alone.
  """
  operation release(owner :: owner(), ids :: [String.t()], next_at_ms :: integer()) ::
              :ok | error()

  @doc """
  Renews the lease under which the owner holds its deliveries. 1 ms ends it. A lease that runs
  out by itself says that the node ended without a goodbye (`claim/3`).
  """
  operation heartbeat(owner :: owner(), lease_ms :: pos_integer()) :: :ok | error()

  @doc """
  Takes the lease with this name, for work that only one node at a time may do.
  `{:error, :taken}` while another node holds it. Its token renews a lease, even after its
  end if no other node has held it since. 1 ms ends it. A lease and an owner may have the
  same name.
  """
  operation take_lease(name :: String.t(), lease_ms :: pos_integer(), token :: token() | nil) ::
              {:ok, token()} | {:error, :taken} | error()

  @doc """
  Makes those of the deliveries that are in one of the states `:pending` again, under the
  same id. Sets `schedule_from` to `attempts` and `manual` to true, and clears `next_at_ms`,
  `finished_at_ms` and `reason`.

  They become those of `owner` and are returned with body, in the order of the ids
  (`taken`). A pending one of another owner with a lease stays with that owner, whose
  engine has it: two engines must not send the same delivery. It is marked as `requested`,
  and its owner finds it by `requested/3`. The others are skipped.
  """
  operation redeliver(owner :: owner(), ids :: [String.t()], states :: [Delivery.state()]) ::
              {:ok, %{taken: [Delivery.t()], requested: [String.t()]}} | error()

  @doc """
  The ids of at most `limit` pending deliveries of this owner that another node wants sent
  again.
  """
  operation requested(owner :: owner(), limit :: pos_integer()) :: {:ok, [String.t()]} | error()

  @doc """
  The ids of at most `limit` of the webhook's `failed` and `cancelled` deliveries created
  since then, oldest first.
  """
  operation recoverable(webhook_id :: Webhook.id(), since_ms :: integer(), limit :: pos_integer()) ::
              {:ok, [String.t()]} | error()

  @doc """
  Cancels the webhook's deliveries that are in no engine: the held and parked ones, and pending
  ones of no owner with a lease. Returns their number. The engines cancel the others.
  """
  operation cancel_waiting(webhook_id :: Webhook.id(), reason :: String.t()) ::
              {:ok, non_neg_integer()} | error()

  @doc """
  Makes the webhook's deliveries that are in no engine `:held` if it is paused (`enabled` is
  false), except tests. Returns their number. The engines let go of the others.
  """
  operation hold_waiting(webhook_id :: Webhook.id()) :: {:ok, non_neg_integer()} | error()

  @doc """
  Makes held deliveries `:parked` whose webhook is not paused (any more): due at once, the
  oldest first, with the whole retry schedule. Returns their number.
  """
  operation send_held() :: {:ok, non_neg_integer()} | error()

  @doc "A page of the site's log, newest first, without bodies (`nil`)."
  operation deliveries(site_id :: site_id(), filters :: filters(), page :: page()) ::
              {:ok, page_of(Delivery.t())} | error()

  operation get_delivery(id :: String.t()) ::
              {:ok, Delivery.t()} | {:error, :not_found} | error()

  @doc "Every attempt of a delivery, oldest first."
  operation attempts(delivery_id :: String.t()) :: {:ok, [Attempt.t()]} | error()
  operation counts() :: {:ok, counts()} | error()

  @doc """
  How the deliveries of these webhooks, all of one site, ended since `since_ms`, which is the
  beginning of an hour 24 hours ago. Returns an entry for each id. The cost is bounded
  whatever the log holds, because every opening of the page calls it.
  """
  operation activity(site_id :: site_id(), webhook_ids :: [Webhook.id()], since_ms :: integer()) ::
              {:ok, %{Webhook.id() => activity()}} | error()

  @doc "How many deliveries of each of these webhooks are pending, parked or held."
  operation waiting(webhook_ids :: [Webhook.id()]) ::
              {:ok, %{Webhook.id() => waiting()}} | error()

  @doc """
  Deletes at most `limit` terminal deliveries that finished before then, and held ones that
  were created before then, with their attempts. Returns the number deleted; fewer than
  `limit` means that none is left. Also deletes the rest of deleted webhooks' logs, which may
  be counted too, and audit entries that are a year older.
  """
  operation prune(before_ms :: integer(), limit :: pos_integer()) ::
              {:ok, non_neg_integer()} | error()

  @doc "The alert states of these webhooks; a webhook may have none."
  operation alert_states(webhook_ids :: [Webhook.id()]) :: {:ok, [alert_state()]} | error()

  @doc """
  Encrypts at most `limit` webhooks again that are not encrypted with the vault's first key.
  Returns how many it encrypted, and how many are left.
  """
  operation rekey(limit :: pos_integer()) ::
              {:ok, %{rewritten: non_neg_integer(), left: non_neg_integer()}} | error()

  @doc "Adds an entry to the audit log."
  operation add_audit(entry :: audit()) :: :ok | error()

  @doc "The newest entries of the webhook, at most `limit`, the newest first."
  operation audit(site_id :: site_id(), webhook_id :: Webhook.id(), limit :: pos_integer()) ::
              {:ok, [audit()]} | error()

  @doc "Puts or replaces the alert state of one webhook and kind."
  operation put_alert_state(state :: alert_state()) :: :ok | {:error, :not_found} | error()

  # --- the facade

  @doc "The time by the store's clock; by this node's own while the store does not answer."
  @spec now_ms(instance()) :: integer()
  def now_ms(instance) do
    with {:error, _reason} <- call(instance, :now_ms, []), do: Instance.now_ms()
  end

  @doc false
  # The Keeper has opened the store.
  @spec opened(Instance.t(), module(), handle()) :: :ok
  def opened(%Instance{tables: %{meta: meta}}, module, handle) do
    :ets.insert(meta, {:store, module, handle})
    :ok
  end

  @doc false
  @spec opened?(Instance.t()) :: boolean()
  def opened?(%Instance{tables: %{meta: meta}}), do: :ets.member(meta, :store)

  defp call(%Instance{} = instance, function, arguments) do
    case open(instance) do
      {module, handle} ->
        began = System.monotonic_time()
        result = guarded(module, function, [handle | arguments])
        Observers.store_called(instance, function, System.monotonic_time() - began, result)
        result

      nil ->
        {:error, :store_unavailable}
    end
  end

  defp call(name, function, arguments) do
    case Instance.get(name) do
      nil -> {:error, :stopped}
      instance -> call(instance, function, arguments)
    end
  end

  defp open(%Instance{tables: %{meta: meta}}) do
    case :ets.lookup(meta, :store) do
      [{:store, module, handle}] -> {module, handle}
      [] -> nil
    end
  rescue
    # The tables are gone: the instance has just been stopped.
    ArgumentError -> nil
  end

  # Runs in the caller's process. Rejected: a task that could be killed when the store hangs,
  # which would copy every batch. The stores have time limits of their own.
  defp guarded(module, function, arguments) do
    apply(module, function, arguments)
  rescue
    error ->
      # Only the kind: a message may quote what was to be stored.
      Logger.error("webhooks: the store raised #{inspect(error.__struct__)} in #{function}")
      {:error, :store_raised}
  catch
    :exit, _reason -> {:error, :store_unavailable}
    :throw, _value -> {:error, :store_raised}
  end

  @doc false
  # Also takes the store's handle, for stores that pass operations on to their parts.
  @spec arity(atom()) :: pos_integer()
  def arity(operation), do: Keyword.fetch!(__MODULE__.behaviour_info(:callbacks), operation)

  # --- errors

  @doc """
  Whether the reason only says that the store cannot be reached. Then nothing is wrong with
  the rows, and the caller writes them later.

  These are #{Enum.map_join(@away, ", ", &"`#{inspect(&1)}`")}, and whatever a store
  puts into `{:away, reason}`.
  """
  @spec away?(term()) :: boolean()
  def away?({:away, _reason}), do: true
  def away?(reason), do: reason in @away

  @doc "Whether a write that failed for this reason may have happened all the same."
  @spec outcome_unknown?(term()) :: boolean()
  def outcome_unknown?(reason),
    do: reason in [:timeout, :connection_lost, :store_unavailable, :store_raised]
end
