defmodule Plausible.Webhooks do
  @moduledoc """
  Webhooks for Plausible Analytics: signed POSTs when a goal is completed or when
  traffic spikes or drops. A failed POST is retried, and every attempt is recorded.

  An instance runs as a child of the host's supervisor, after what it uses (the database) and
  before what calls it (the endpoint). So when the host stops, the instance still takes the
  last request's events, and drains afterwards:

      children = [
        MyApp.Repo,
        {Plausible.Webhooks,
         store: {Plausible.Webhooks.Store.SQLite, path: "/var/lib/app/webhooks.db"},
         host: {MyApp.WebhooksHost, []},
         vault: {:file, "/var/lib/app/webhooks.key"}},
        MyApp.Endpoint
      ]

  `Plausible.Webhooks.Options` lists all options.

  The host calls `events_buffered/2`, `traffic_change/4` and `goals_changed/2`; the
  settings page and operators call the rest:

      {:ok, webhook} =
        Plausible.Webhooks.create_webhook(user, site.id, %{
          url: "https://example.com/hook",
          events: ["goal.completed"]
        })

      {:ok, attempt} = Plausible.Webhooks.send_test(user, site.id, webhook.id, "webhook.test")
      attempt.status
      #=> 200

  ## What every function shares

  The first argument is the instance. It may be left out if the instance has the default name,
  `Plausible.Webhooks`. The second is the *actor*. Every call asks the host whether the actor
  may do this (`c:Plausible.Webhooks.Host.can?/4`): reading needs `:read`, everything else
  `:manage`. A webhook or delivery of another site is not found.

  An error is `{:error, %Plausible.Webhooks.Error{}}` with a `reason` and a message. Every
  function may return `:forbidden` (the host says no, whether there is such a site or not),
  `:not_found` (no such site, webhook or delivery), `{:invalid, %{field => text}}` (nothing was
  saved) and the reasons of the store, for example while its database is away. Each function
  lists its own reasons.

  An argument of the wrong type raises `ArgumentError`, unless a form may send it as text: then
  the reason is `{:invalid, errors}`.

  The returned webhooks hold no secrets (`key` is `nil`); `reveal_secret/4` returns them. For
  an actor who may only read, the URL is cut to its host and header values are hidden, since
  both may hold tokens. `Plausible.Webhooks.Manage.Overview` describes what else a settings
  page needs.
  """

  alias Plausible.Webhooks.{Attempt, Delivery, Error, Host, Store, Webhook}
  alias Plausible.Webhooks.Deliver.Sweeper
  alias Plausible.Webhooks.Ingest.Hooks
  alias Plausible.Webhooks.Manage.{Access, Changes, DeliveryLog, Diagnosis, Overview}
  alias Plausible.Webhooks.Manage.{TestDelivery, Webhooks}
  alias Plausible.Webhooks.Runtime.Instance

  require Logger

  @typedoc "The name of an instance."
  @type instance :: atom()
  @typedoc "The host's id of a site."
  @type site_id :: integer()
  @typedoc "How many webhooks were encrypted anew, and how many are left."
  @type rekeyed :: %{rewritten: non_neg_integer(), left: non_neg_integer()}
  @typedoc "Why a call failed."
  @type error :: {:error, Error.t()}

  @doc "Starts an instance under a supervisor; see `Plausible.Webhooks.Options`."
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: name_of(options),
      type: :supervisor,
      start: {Plausible.Webhooks.Supervisor, :start_link, [fn -> options end]}
    }
  end

  # The start reports wrong options; a child_spec cannot return an error.
  defp name_of(options) do
    if Keyword.keyword?(options), do: Keyword.get(options, :name, __MODULE__), else: __MODULE__
  end

  @doc """
  Starts an instance.

  Two errors come before anything starts: `{:invalid_option, name, text}`, and
  `{:native_library, text}`, whose text names the missing library and its package.
  """
  @spec start_link(keyword()) ::
          Supervisor.on_start()
          | {:error, Plausible.Webhooks.Options.error() | {:native_library, String.t()}}
  def start_link(options), do: Plausible.Webhooks.Supervisor.start_link(options)

  # --- the host's hooks

  @doc """
  Takes ingested events from the host. Each goal that one of them completes becomes a delivery
  to every webhook that subscribed to it.

      Plausible.Webhooks.events_buffered(buffered)

  `events` are Plausible's ingestion events: maps with a `:clickhouse_event`, which
  has `:site_id`, `:name` and `:pathname`, and, where they are known, `:hostname`,
  `:timestamp` (`NaiveDateTime` in UTC), `:"meta.key"` and `:"meta.value"` (the
  custom properties, as two lists), `:revenue_reporting_amount` and
  `:revenue_reporting_currency`, `:session_id` and `:scroll_depth` (for scroll
  goals), `:referrer`, `:referrer_source`, `:utm_source` and the other four,
  `:country_code`, `:screen_size`, `:browser`, `:operating_system`.

  Call it in the request. It takes some microseconds for each delivery, waits for nothing and
  never raises. Events of another shape and deliveries that do not fit into the Outbox are
  counted as dropped and reported (`Plausible.Webhooks.Observer`).
  """
  @spec events_buffered(instance(), [map()]) :: :ok
  def events_buffered(instance \\ __MODULE__, events), do: Hooks.events_buffered(instance, events)

  @doc """
  Takes a spike or a drop that the host's own notifier has found. It is sent to the site's
  webhooks that subscribed to that kind with the threshold `:notifier`.

  `site` is the site's id, or a map with `:id`. `Plausible.Webhooks.Ingest.Traffic.change/4` says
  what `info` holds. The function returns when the deliveries are
  committed, within ten seconds. It never raises.
  """
  @spec traffic_change(instance(), :spike | :drop, site_id() | map(), map()) :: :ok
  def traffic_change(instance \\ __MODULE__, kind, site, info),
    do: Hooks.traffic_change(instance, kind, site, info)

  @doc """
  Call this when the goals of a site have changed, or what its webhooks may send about them
  (`t:Plausible.Webhooks.Host.site/0`). The new goals apply when the function returns. If the
  host does not answer, the site is read again later. Other nodes learn of the change too
  (`Plausible.Webhooks.Cluster`). The function never raises.

  Call it after the commit. If it is called earlier, readings 2 and 15 s later find the change.

      Plausible.Webhooks.goals_changed(goal.site_id)
  """
  @spec goals_changed(instance(), site_id()) :: :ok
  def goals_changed(instance \\ __MODULE__, site_id), do: Changes.goals_changed(instance, site_id)

  @doc """
  Call this when something other than these functions has changed the webhook in the store.
  This node then reads the webhook again. Changes by other nodes need no call.
  """
  @spec webhook_changed(instance(), site_id(), Webhook.id()) :: :ok | error()
  def webhook_changed(instance \\ __MODULE__, site_id, webhook_id) do
    if not (Access.site_id?(site_id) and is_binary(webhook_id)),
      do: raise(ArgumentError, "expected the ids of a site and of a webhook")

    run(instance, &Changes.changed_elsewhere(&1, site_id, webhook_id))
  end

  # --- keys

  @doc """
  Encrypts again, with the vault's first key, whatever an older key has encrypted. A start
  never does that. `progress` is called after every 100 webhooks; by default it writes a line
  to the log.

      {:ok, %{rewritten: 250, left: 0}} = Plausible.Webhooks.rekey()

  To replace `old` by `new` without a stop, with any number of nodes:

    1. Give every node the ring `[old, new]`: from now on all can read both.
    2. Give every node `[new, old]`: from now on they encrypt with `new`. Up to here each step
       can be taken back.
    3. Call this function once on any node, until `left` is 0.
    4. Give every node `[new]`.
  """
  @spec rekey(instance(), (rekeyed() -> term())) :: {:ok, rekeyed()} | error()
  def rekey(instance \\ __MODULE__, progress \\ &log_rekey/1),
    do: if_running(instance, &Webhooks.rekey(&1, progress))

  defp log_rekey(%{rewritten: rewritten, left: left}),
    do: Logger.info("webhooks: #{rewritten} webhooks encrypted with the first key, #{left} left")

  @doc """
  Deletes all finished deliveries that are older than `:retention_ms`, slice by slice in the
  caller's process, and returns the number deleted. Several nodes may call it at once.
  """
  @spec prune(instance()) :: {:ok, non_neg_integer()} | error()
  def prune(instance \\ __MODULE__), do: if_running(instance, &Sweeper.prune/1)

  @doc """
  Takes over deliveries that are due and those that dead nodes have left. Every node does this
  by itself each `:sweep_interval_ms`.
  """
  @spec sweep(instance()) :: :ok | error()
  def sweep(instance \\ __MODULE__), do: if_running(instance, &Sweeper.sweep/1)

  @doc """
  Copies the embedded store's database to a file that must not exist yet. The copy is complete
  and needs no write-ahead log. **The key file is not in it**: save that apart. Deliveries wait
  meanwhile, some seconds for each gigabyte. `:not_supported` for other stores: a database has
  tools of its own.

      :ok = Plausible.Webhooks.backup("/backup/webhooks-2026-11-23.db")
  """
  @spec backup(instance(), Path.t()) :: :ok | error()
  def backup(instance \\ __MODULE__, path), do: if_running(instance, &Diagnosis.backup(&1, path))

  @doc """
  How many deliveries are in each state, over all nodes. `overdue_ms` says for how long the
  oldest waiting delivery has been due; it is 0 if none is due.
  """
  @spec queue(instance()) :: {:ok, %{atom() => non_neg_integer()}} | error()
  def queue(instance \\ __MODULE__), do: if_running(instance, &Diagnosis.queue/1)

  @doc "Whether this node accepts and sends: `Plausible.Webhooks.Manage.Diagnosis.health/1`."
  @spec health(instance()) :: :ok | {:degraded, [Diagnosis.reason(), ...]}
  def health(instance \\ __MODULE__), do: instance |> Instance.get() |> Diagnosis.health()

  @doc "Why a webhook does not arrive: `Plausible.Webhooks.Manage.Diagnosis.diagnose/4`."
  @spec diagnose(instance(), Host.actor(), site_id(), Webhook.id()) ::
          {:ok, Diagnosis.t()} | error()
  def diagnose(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &Diagnosis.diagnose(&1, actor, site_id, id))

  defp if_running(name, fun) do
    case Instance.get(name) do
      nil -> answer({:error, :not_running})
      instance -> instance |> fun.() |> answer()
    end
  end

  defp run(name, fun), do: name |> Instance.fetch!() |> fun.() |> answer()

  defp answer({:error, reason}), do: {:error, %Error{reason: reason}}
  defp answer(result), do: result

  # --- webhooks

  @doc "The site's webhooks, oldest first."
  @spec list_webhooks(instance(), Host.actor(), site_id()) :: {:ok, [Webhook.t()]} | error()
  def list_webhooks(instance \\ __MODULE__, actor, site_id),
    do: run(instance, &Webhooks.list(&1, actor, site_id))

  @doc "One webhook."
  @spec get_webhook(instance(), Host.actor(), site_id(), Webhook.id()) ::
          {:ok, Webhook.t()} | error()
  def get_webhook(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &Webhooks.get(&1, actor, site_id, id))

  @doc """
  Creates a webhook, which gets the next event. The attributes are those of
  `Plausible.Webhooks.Webhook.new/3`.

      {:ok, webhook} =
        Plausible.Webhooks.create_webhook(user, site.id, %{
          "url" => "https://example.com/hook",
          "events" => ["goal.completed", "traffic.spike"],
          "spike_threshold" => "300"
        })

  Its own reason: `:limit_reached`, the site has as many webhooks as it may have (20).
  """
  @spec create_webhook(instance(), Host.actor(), site_id(), map()) ::
          {:ok, Webhook.t()} | error()
  def create_webhook(instance \\ __MODULE__, actor, site_id, attributes),
    do: run(instance, &Webhooks.create(&1, actor, site_id, attributes))

  @doc """
  Changes a webhook. The change applies to the next event and to the next attempt of waiting
  deliveries. A new URL ends a disabling as gone or failing.

  With the attribute `version`, the change is saved only if the webhook still has that version.

  Its own reason: `:stale`, others have changed the webhook since, or keep changing it.
  """
  @spec update_webhook(instance(), Host.actor(), site_id(), Webhook.id(), map()) ::
          {:ok, Webhook.t()} | error()
  def update_webhook(instance \\ __MODULE__, actor, site_id, id, attributes),
    do: run(instance, &Webhooks.update(&1, actor, site_id, id, attributes))

  @doc "Deletes a webhook and its log. Its waiting deliveries are no longer sent."
  @spec delete_webhook(instance(), Host.actor(), site_id(), Webhook.id()) :: :ok | error()
  def delete_webhook(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &Webhooks.delete(&1, actor, site_id, id))

  @doc """
  Switches a webhook on, and sends what was held for it; `cancel_held/4` before it cancels that.
  A webhook that was disabled because it was gone or failing is switched on too; `recover/5`
  then sends what it has missed.
  """
  @spec enable_webhook(instance(), Host.actor(), site_id(), Webhook.id()) ::
          {:ok, Webhook.t()} | error()
  def enable_webhook(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &Webhooks.enable(&1, actor, site_id, id))

  @doc """
  Pauses a webhook: it gets no events until it is switched on again, and they are not kept for
  it. Its waiting deliveries are held until then, at most for `:retention_ms`.
  """
  @spec disable_webhook(instance(), Host.actor(), site_id(), Webhook.id()) ::
          {:ok, Webhook.t()} | error()
  def disable_webhook(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &Webhooks.disable(&1, actor, site_id, id))

  @doc "Cancels what is held for a paused webhook, and returns the number."
  @spec cancel_held(instance(), Host.actor(), site_id(), Webhook.id()) ::
          {:ok, non_neg_integer()} | error()
  def cancel_held(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &Webhooks.cancel_held(&1, actor, site_id, id))

  @doc """
  Who did what to the webhook, and when: its last 100 changes, redeliveries and reads of its
  secrets, newest first. Needs `:manage`. Entries are kept for a year longer than the log, even
  if the webhook is deleted.
  """
  @spec audit_log(instance(), Host.actor(), site_id(), Webhook.id()) ::
          {:ok, [Store.audit()]} | error()
  def audit_log(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &Webhooks.audit_log(&1, actor, site_id, id))

  @doc """
  The secrets that sign now, newest first. The call is written to both audit logs, the host's
  and that of the webhook (`audit_log/4`), before it returns the secrets.

      {:ok, [%{key: "whsec_" <> _} | _older]} =
        Plausible.Webhooks.reveal_secret(user, site.id, webhook.id)
  """
  @spec reveal_secret(instance(), Host.actor(), site_id(), Webhook.id()) ::
          {:ok, [Webhook.secret()]} | error()
  def reveal_secret(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &Webhooks.reveal_secret(&1, actor, site_id, id))

  @doc """
  Adds a new secret in front of the older ones. The older ones go on signing for `overlap_ms`
  (0 to 7 days), so that receivers can change over. The call is written to both audit logs.

  Its own reasons: `:invalid_overlap`, `:too_many_secrets` (10).
  """
  @spec rotate_secret(instance(), Host.actor(), site_id(), Webhook.id(), non_neg_integer()) ::
          {:ok, Webhook.t()} | error()
  def rotate_secret(instance \\ __MODULE__, actor, site_id, id, overlap_ms),
    do: run(instance, &Webhooks.rotate_secret(&1, actor, site_id, id, overlap_ms))

  @doc """
  Sends a test and waits for its result: one request, which is not retried, but recorded like
  any other. `type` is one of `Plausible.Webhooks.Event.types/0`; a type other than
  `webhook.test` is sent as a sample. A webhook that is switched off can be tested too. A
  success switches on a webhook that was disabled because it was gone or failing.

      {:ok, %{state: :failed, error: :tls_error, detail: detail}} =
        Plausible.Webhooks.send_test(user, site.id, webhook.id, "webhook.test")

  Its own reasons: `{:rate_limited, retry_in_ms}` (a site may send 10 a minute),
  `:timeout` (still on its way; the log will show the result), `{:not_sent, detail}` (the
  webhook was deleted in the meantime), `:unavailable` (the engine is starting).
  """
  @spec send_test(instance(), Host.actor(), site_id(), Webhook.id(), String.t()) ::
          {:ok, Attempt.t()} | error()
  def send_test(instance \\ __MODULE__, actor, site_id, id, type),
    do: run(instance, &TestDelivery.send_test(&1, actor, site_id, id, type))

  # --- for a settings page: Plausible.Webhooks.Manage.Overview documents each function

  @doc "How each webhook of the site has been doing: `Plausible.Webhooks.Manage.Overview.activity/3`."
  @spec activity(instance(), Host.actor(), site_id()) :: {:ok, Overview.activities()} | error()
  def activity(instance \\ __MODULE__, actor, site_id),
    do: run(instance, &Overview.activity(&1, actor, site_id))

  @doc "How many deliveries wait for a webhook: `Plausible.Webhooks.Manage.Overview.waiting/4`."
  @spec waiting(instance(), Host.actor(), site_id(), Webhook.id()) ::
          {:ok, Overview.count()} | error()
  def waiting(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &Overview.waiting(&1, actor, site_id, id))

  @doc "What `recover/5` would send again: `Plausible.Webhooks.Manage.Overview.recoverable/5`."
  @spec recoverable(instance(), Host.actor(), site_id(), Webhook.id(), DateTime.t() | integer()) ::
          {:ok, Overview.count()} | error()
  def recoverable(instance \\ __MODULE__, actor, site_id, id, since),
    do: run(instance, &Overview.recoverable(&1, actor, site_id, id, since))

  @doc "The site: `Plausible.Webhooks.Manage.Overview.site/3`."
  @spec site(instance(), Host.actor(), site_id()) :: {:ok, Host.site()} | error()
  def site(instance \\ __MODULE__, actor, site_id),
    do: run(instance, &Overview.site(&1, actor, site_id))

  @doc "The site's goals: `Plausible.Webhooks.Manage.Overview.goals/3`."
  @spec goals(instance(), Host.actor(), site_id()) :: {:ok, [Host.goal()]} | error()
  def goals(instance \\ __MODULE__, actor, site_id),
    do: run(instance, &Overview.goals(&1, actor, site_id))

  @doc "The visitors now: `Plausible.Webhooks.Manage.Overview.figures/3`."
  @spec figures(instance(), Host.actor(), site_id()) :: {:ok, Overview.figures()} | error()
  def figures(instance \\ __MODULE__, actor, site_id),
    do: run(instance, &Overview.figures(&1, actor, site_id))

  @doc "Whether `permission/4` returns `:ok`."
  @spec can?(instance(), Host.actor(), Host.action(), site_id()) :: boolean()
  def can?(instance \\ __MODULE__, actor, action, site_id),
    do: action in [:read, :manage] and permission(instance, actor, action, site_id) == :ok

  @doc "What the actor may do: `Plausible.Webhooks.Manage.Overview.permission/4`."
  @spec permission(instance(), Host.actor(), Host.action(), site_id()) :: :ok | error()
  def permission(instance \\ __MODULE__, actor, action, site_id),
    do: if_running(instance, &Overview.permission(&1, actor, action, site_id))

  @doc """
  Checks a URL as saving does: `Plausible.Webhooks.Manage.Overview.check_url/2`. The error is
  the text for the form.
  """
  @spec check_url(instance(), term()) :: {:ok, Overview.checked_url()} | {:error, String.t()}
  def check_url(instance \\ __MODULE__, text),
    do: Overview.check_url(Instance.fetch!(instance), text)

  @doc "A delivery's POST, as it would leave now: `Plausible.Webhooks.Manage.Overview.request/4`."
  @spec request(instance(), Host.actor(), site_id(), String.t()) ::
          {:ok, Overview.request()} | error()
  def request(instance \\ __MODULE__, actor, site_id, delivery_id),
    do: run(instance, &Overview.request(&1, actor, site_id, delivery_id))

  @doc "The request headers of its attempts: `Plausible.Webhooks.Manage.Overview.sent/5`."
  @spec sent(instance(), Host.actor(), site_id(), String.t(), boolean()) ::
          {:ok, [Overview.sent()]} | error()
  def sent(instance \\ __MODULE__, actor, site_id, delivery_id, reveal?),
    do: run(instance, &Overview.sent(&1, actor, site_id, delivery_id, reveal?))

  @doc "What `send_test/5` would send: `Plausible.Webhooks.Manage.Overview.sample/5`."
  @spec sample(instance(), Host.actor(), site_id(), Webhook.id(), String.t()) ::
          {:ok, Overview.request()} | error()
  def sample(instance \\ __MODULE__, actor, site_id, id, type),
    do: run(instance, &Overview.sample(&1, actor, site_id, id, type))

  # --- the log

  @doc """
  The site's deliveries, newest first. The bodies are read only with `bodies: true` in `page`.

      {:ok, %{entries: entries, next: next}} =
        Plausible.Webhooks.deliveries(user, site.id, %{states: [:failed]}, %{limit: 50})

      {:ok, second} =
        Plausible.Webhooks.deliveries(user, site.id, %{states: [:failed]}, %{after: next})

  `filters` are those of `t:Plausible.Webhooks.Store.filters/0` (times as Unix
  milliseconds or `DateTime`), all of which must hold. `next` is `nil` on the last
  page, and only there. Where matches are rare, a page may be short or even empty, because
  the time and the rows of one search are limited (`t:Plausible.Webhooks.Store.page_of/1`).
  """
  @spec deliveries(instance(), Host.actor(), site_id(), map() | keyword(), map() | keyword()) ::
          {:ok, Store.page_of(Delivery.t())} | error()
  def deliveries(instance \\ __MODULE__, actor, site_id, filters, page),
    do: run(instance, &DeliveryLog.deliveries(&1, actor, site_id, filters, page))

  @doc "One delivery, with the body that was sent."
  @spec delivery(instance(), Host.actor(), site_id(), String.t()) :: {:ok, Delivery.t()} | error()
  def delivery(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &DeliveryLog.delivery(&1, actor, site_id, id))

  @doc """
  Every attempt of a delivery, oldest first. The receiver's answer may hold any bytes, at most
  16 KiB of them.

      {:ok, [%{number: 1, status: 503}, %{number: 2, status: 200}]} =
        Plausible.Webhooks.attempts(user, site.id, "msg_01J...")
  """
  @spec attempts(instance(), Host.actor(), site_id(), String.t()) ::
          {:ok, [Attempt.t()]} | error()
  def attempts(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &DeliveryLog.attempts(&1, actor, site_id, id))

  @doc """
  Sends a delivery again, now, under the same `webhook-id`. If it fails, the whole retry
  schedule applies again. It replaces a waiting retry, and a full queue does not refuse it.

      :ok = Plausible.Webhooks.redeliver(user, site.id, "msg_01J...")

  Its own reason: `:webhook_disabled`, switch the webhook on first.
  """
  @spec redeliver(instance(), Host.actor(), site_id(), String.t()) :: :ok | error()
  def redeliver(instance \\ __MODULE__, actor, site_id, id),
    do: run(instance, &DeliveryLog.redeliver(&1, actor, site_id, id))

  @doc """
  Sends again the deliveries that failed or were cancelled and were created since `since` (a
  `DateTime` or Unix milliseconds), oldest first, at most `:recover_max` (10 000). If `more?`
  is true, there are more: call it again.

      {:ok, %{count: 12, more?: false}} =
        Plausible.Webhooks.recover(user, site.id, webhook.id, ~U[2026-11-23 00:00:00Z])

  Its own reason: `:webhook_disabled`, switch the webhook on first.
  """
  @spec recover(instance(), Host.actor(), site_id(), Webhook.id(), DateTime.t() | integer()) ::
          {:ok, %{count: non_neg_integer(), more?: boolean()}} | error()
  def recover(instance \\ __MODULE__, actor, site_id, webhook_id, since),
    do: run(instance, &DeliveryLog.recover(&1, actor, site_id, webhook_id, since))

  @doc "The counters of this node: `Plausible.Webhooks.Manage.Diagnosis.stats/1`."
  @spec stats(instance()) :: map()
  def stats(instance \\ __MODULE__), do: instance |> Instance.fetch!() |> Diagnosis.stats()
end
