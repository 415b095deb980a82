defmodule Plausible.Webhooks.Manage.Diagnosis do
  @moduledoc """
  What an operator asks at the console: counters, the state of this node, and why a webhook
  does not arrive. Call these functions through `Plausible.Webhooks`.
  """

  alias Plausible.Webhooks.{Attempt, Host, Store, Webhook}
  alias Plausible.Webhooks.Accept.Outbox
  alias Plausible.Webhooks.Deliver.{Engine, Owners, Recorder}
  alias Plausible.Webhooks.Manage.Access
  alias Plausible.Webhooks.Runtime.{Certificates, Instance, Observers}

  @typedoc "See `health/1`."
  @type reason :: :not_running | :store | :engine | :certificates | :outbox | :recorder

  @typedoc """
    * `state` - `:off` (its owner switched it off), `:disabled` (we did), `:failing` (its last
      attempt failed), `:delivering`, `:quiet` (nothing was ever sent to it)
    * `why`, `todo` - what that means here, and what to do about it, as text
    * `destination` - the host name of its URL
    * `waiting` - how many deliveries wait; with `waiting_more?` there are, or may be, more
    * `next_attempt_at` - when the first of them is due; `nil` if none waits
    * `attempts` - the last five, newest first, each `%{at, delivery_id, number, status, error,
      detail, total_ms}`
  """
  @type t :: %{
          state: :off | :disabled | :failing | :delivering | :quiet,
          why: String.t(),
          todo: String.t(),
          destination: String.t() | nil,
          failing_since: DateTime.t() | nil,
          waiting: non_neg_integer(),
          waiting_more?: boolean(),
          next_attempt_at: DateTime.t() | nil,
          attempts: [map()]
        }

  @shown 5

  @doc """
  The counters of this node since its start, and its present state: `outbox` (deliveries that
  wait to be committed), `journal` (attempts that wait to be recorded), `engine` (the engine's
  own counters), `certificates` (whether this machine has certificate authorities to verify
  receivers with), and the numbers of deliveries and attempts that were pushed, accepted,
  recorded, dropped (by reason in `dropped_by`), refused by the store, and missed by slow or
  failing observers.
  """
  @spec stats(Instance.t()) :: map()
  def stats(instance) do
    Map.merge(Instance.counts(instance), %{
      outbox: Outbox.size(instance),
      journal: Recorder.size(instance),
      dropped_by: Observers.dropped(instance),
      engine: Engine.stats(instance),
      certificates: Certificates.found?(instance.options.ca_file)
    })
  end

  @doc "See `Plausible.Webhooks.queue/1`."
  @spec queue(Instance.t()) :: {:ok, %{atom() => non_neg_integer()}} | {:error, term()}
  def queue(instance) do
    with {:ok, counts} <- Store.counts(instance) do
      now_ms = Store.now_ms(instance)
      {due_ms, counts} = Map.pop(counts, :oldest_due_ms)
      {:ok, Map.put(counts, :overdue_ms, max(now_ms - (due_ms || now_ms), 0))}
    end
  end

  @doc "See `Plausible.Webhooks.backup/2`."
  @spec backup(Instance.t(), Path.t()) :: :ok | {:error, term()}
  def backup(%Instance{options: %{store: {Store.SQLite, options}}}, path),
    do: Store.SQLite.backup(options, path)

  def backup(_instance, _path), do: {:error, :not_supported}

  @doc """
  `:ok`, or everything that is wrong with this node:

    * `:not_running` - the instance is not running
    * `:store` - the store does not answer. Events are kept in memory, and then dropped
    * `:engine` - no engine is running: nothing is sent
    * `:certificates` - this machine has no certificate authorities: every HTTPS delivery fails
    * `:outbox` - it is four fifths full: the store does not keep up
    * `:recorder` - so many attempts wait to be recorded that the engine pauses

  A receiver that fails is not a reason. The call asks the store one question.
  """
  @spec health(Instance.t() | nil) :: :ok | {:degraded, [reason(), ...]}
  def health(nil), do: {:degraded, [:not_running]}

  def health(instance) do
    full = div(instance.options.outbox_max * 4, 5)

    wrong = [
      store: not match?({:ok, _counts}, Store.counts(instance)),
      engine: Owners.engine(instance) == nil,
      certificates: not Certificates.found?(instance.options.ca_file),
      outbox: Outbox.size(instance) > full,
      recorder: not Recorder.room?(instance)
    ]

    case for {reason, true} <- wrong, do: reason do
      [] -> :ok
      reasons -> {:degraded, reasons}
    end
  end

  @doc """
  What is known about a webhook's deliveries. Needs `:read`. At the console the actor is
  `:system`.

      iex> {:ok, diagnosis} = Plausible.Webhooks.diagnose(:system, 1, "wh_01J...")
      iex> {diagnosis.state, diagnosis.why}
      {:failing, "the last attempt failed: 503"}
  """
  @spec diagnose(Instance.t(), Host.actor(), integer(), Webhook.id()) ::
          {:ok, t()} | {:error, term()}
  def diagnose(instance, actor, site_id, id) do
    of_webhook = %{webhook_id: id}
    waits = Map.put(of_webhook, :states, [:pending, :parked])

    with :ok <- Access.check(instance, actor, :read, site_id),
         {:ok, webhook} <- Access.webhook(instance, site_id, id),
         {:ok, %{^id => waiting}} <- Store.waiting(instance, [id]),
         {:ok, newest} <- Store.deliveries(instance, site_id, of_webhook, %{limit: @shown}),
         {:ok, first} <- Store.deliveries(instance, site_id, waits, %{limit: 200}),
         {:ok, attempts} <- attempts(instance, newest.entries ++ first.entries) do
      {state, why, todo} = judged(webhook, attempts)

      {:ok,
       %{
         state: state,
         why: why,
         todo: todo,
         destination: Webhook.destination(webhook),
         failing_since: time(webhook.failing_since_ms),
         waiting: waiting.count,
         waiting_more?: waiting.more?,
         next_attempt_at:
           first.entries |> Enum.map(&(&1.next_at_ms || &1.created_at_ms)) |> first(),
         attempts: attempts |> Enum.take(@shown) |> Enum.map(&shown/1)
       }}
    end
  end

  defp first([]), do: nil
  defp first(times), do: times |> Enum.min() |> time()

  # Of the newest deliveries, and of a few that wait, whose last attempts may be newer.
  defp attempts(instance, deliveries) do
    deliveries
    |> Enum.uniq_by(& &1.id)
    |> Enum.take(2 * @shown)
    |> Enum.reduce_while({:ok, []}, fn delivery, {:ok, found} ->
      case Store.attempts(instance, delivery.id) do
        {:ok, attempts} -> {:cont, {:ok, attempts ++ found}}
        {:error, _reason} = error -> {:halt, error}
      end
    end)
    |> case do
      {:ok, attempts} -> {:ok, Enum.sort_by(attempts, & &1.started_at_ms, :desc)}
      error -> error
    end
  end

  defp shown(attempt) do
    attempt
    |> Map.take([:delivery_id, :number, :status, :error, :detail])
    |> Map.merge(%{at: time(attempt.started_at_ms), total_ms: div(attempt.total_us || 0, 1_000)})
  end

  defp time(nil), do: nil
  defp time(ms), do: DateTime.from_unix!(ms, :millisecond)

  @disabled %{
    gone: "its receiver answered 410",
    failing: "it only failed for days",
    costly: "it kept the engine from all other webhooks"
  }

  defp judged(%Webhook{enabled: false}, _attempts) do
    {:off, "its owner switched it off",
     "ask the owner, or Plausible.Webhooks.enable_webhook/3; events of the time in between are not kept"}
  end

  defp judged(%Webhook{disabled_reason: reason} = webhook, _attempts) when reason != nil do
    {:disabled, "disabled at #{time(webhook.disabled_at_ms)}: #{@disabled[reason] || reason}",
     "when the receiver works: a test from the page enables it, or " <>
       "Plausible.Webhooks.enable_webhook/3; recover/4 sends what it missed"}
  end

  defp judged(_webhook, []) do
    {:quiet, "nothing was ever sent to it, or the log is older than the retention",
     "send a test from the page; then check its event types, goals and thresholds, and " <>
       "dropped in Plausible.Webhooks.stats/0"}
  end

  defp judged(_webhook, [%Attempt{error: nil} | _]),
    do: {:delivering, "the last attempt succeeded", "nothing"}

  defp judged(_webhook, [last | _]) do
    result = if last.error == :http_status, do: last.status, else: last.error
    detail = if last.detail, do: " (#{last.detail})", else: ""
    {:failing, "the last attempt failed: #{result}#{detail}", todo(last.error)}
  end

  defp todo(:http_status),
    do: "the receiver refuses: its own log says why; docs/receiving.md explains each answer"

  defp todo(:blocked_address),
    do: "the address is not public: WEBHOOKS_ALLOW lets in private destinations"

  defp todo(error) when error in [:dns_error, :dns_timeout],
    do: "check the host name and this machine's name servers (/etc/resolv.conf)"

  defp todo(error) when error in [:tls_error, :tls_timeout],
    do: "check the receiver's certificate and its chain: openssl s_client -connect HOST:443"

  defp todo(error) when error in [:redirect, :gone],
    do: "the receiver's URL has changed: ask the owner to enter the new one"

  defp todo(:timeout), do: "the receiver has to answer within timeout_ms and work afterwards"

  defp todo(error) when error in [:internal, :unknown_webhook, :cancelled],
    do: "this is not the receiver's fault: check this node's log and Plausible.Webhooks.health/0"

  defp todo(_connection),
    do: "check from this machine whether the receiver can be reached: curl -v"
end
