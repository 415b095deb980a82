defmodule Plausible.Webhooks.Store.Columns do
  @moduledoc """
  The columns of the tables, in order, and the values in them. Every store uses these, so that
  all stores write the same.

  A store maps these values to what its database takes (`true` to 1, a list to an array or
  to text), and back.
  """

  alias Plausible.Webhooks.{Attempt, Delivery, Vault, Webhook}
  alias Plausible.Webhooks.Webhook.Sealed

  # What waits is at most 1, what has ended at least 2, what has not arrived at least 3.
  @states %{held: -1, pending: 0, parked: 1, delivered: 2, failed: 3, cancelled: 4}
  @state_names Map.new(@states, fn {name, code} -> {code, name} end)

  # Atoms are never made from stored text.
  @errors Map.new(Attempt.errors(), &{Atom.to_string(&1), &1})
  @disabled_reasons %{"gone" => :gone, "failing" => :failing, "costly" => :costly}
  @kinds %{"spike" => :spike, "drop" => :drop}
  @alert_states %{"armed" => :armed, "firing" => :firing}

  @doc "The number that stands for a delivery's state: terminal from 2, not delivered from 3."
  @spec state_code(term()) :: {:ok, -1..4} | :error
  def state_code(state), do: Map.fetch(@states, state)

  @spec state_name(-1..4) :: Delivery.state()
  def state_name(code), do: Map.fetch!(@state_names, code)

  # --- deliveries

  @doc "The owner of suspects, which has no lease and no engine (`c:Plausible.Webhooks.Store.claim_suspect/2`)."
  @spec suspects() :: String.t()
  def suspects, do: "suspects"

  @delivery ~w(id webhook_id site_id type goal_id state reason attempts schedule_from
               created_at_ms next_at_ms finished_at_ms owner last_status last_error manual
               retry)a

  @doc "The columns of a delivery, without its body."
  @spec delivery() :: [String.t()]
  def delivery, do: Enum.map(@delivery, &Atom.to_string/1)

  @doc """
  The values of `delivery/0`, followed by the body. A terminal delivery without
  `finished_at_ms` has finished at `now_ms`.
  """
  # Written out, as from_attempt/1 is: this is what every delivery passes.
  @spec from_delivery(Delivery.t(), integer() | nil) :: [term()]
  def from_delivery(%Delivery{} = delivery, now_ms) do
    code = Map.fetch!(@states, delivery.state)

    [
      delivery.id,
      delivery.webhook_id,
      delivery.site_id,
      delivery.type,
      delivery.goal_id,
      code,
      delivery.reason,
      delivery.attempts,
      delivery.schedule_from,
      delivery.created_at_ms,
      delivery.next_at_ms,
      if(code >= 2, do: delivery.finished_at_ms || now_ms),
      if(code == 0, do: delivery.owner),
      delivery.last_status,
      delivery.last_error,
      delivery.manual,
      delivery.retry,
      delivery.body
    ]
  end

  @doc "The delivery of a row of `delivery/0`; further values are ignored."
  @spec to_delivery([term()]) :: Delivery.t()
  def to_delivery(values) do
    delivery = struct!(Delivery, Enum.zip(@delivery, values))
    %{manual: manual, retry: retry, state: state} = delivery
    %{delivery | manual: true?(manual), retry: true?(retry), state: state_name(state)}
  end

  @doc """
  The result of `redeliver` from the rows that it has changed: the deliveries that the owner
  has now, in the order of the ids, and the ids of those that stay with another owner.
  """
  @spec taken([Delivery.t()], Plausible.Webhooks.Store.owner(), [String.t()]) ::
          %{taken: [Delivery.t()], requested: [String.t()]}
  def taken(deliveries, owner, ids) do
    changed = Map.new(deliveries, &{&1.id, &1})
    in_order = for id <- Enum.uniq(ids), delivery = changed[id], do: delivery
    {taken, others} = Enum.split_with(in_order, &(&1.owner == owner))
    %{taken: taken, requested: Enum.map(others, & &1.id)}
  end

  # --- attempts

  @attempt ~w(state status error detail started_at_ms signed_at_s dns_us connect_us tls_us first_byte_us
              total_us remote_ip response_headers response_body response_truncated
              next_at_ms gone)a
  @number_max 65_535
  @makers 2_147_483_648

  @doc "The columns of an attempt, without delivery and number."
  @spec attempt() :: [String.t()]
  def attempt, do: Enum.map(@attempt, &Atom.to_string/1)

  @doc "Attempts are counted up to this, which is more than an engine ever reaches."
  @spec number_max() :: pos_integer()
  def number_max, do: @number_max

  @doc "Whether the store can hold these numbers."
  @spec numbered([Attempt.t()]) :: :ok | {:error, :invalid_attempt_number}
  def numbered(attempts) do
    if Enum.all?(attempts, &(&1.number in 0..@number_max)),
      do: :ok,
      else: {:error, :invalid_attempt_number}
  end

  @doc """
  The delivery's id, the number, the values of `attempt/0`, the reason of a delivery that
  ends with this attempt, the owner whose engine reports it, a number that stands for that
  owner in the attempt's key, and where the delivery's schedule begins.
  """
  @spec from_attempt(Attempt.t()) :: [term()]
  def from_attempt(%Attempt{} = attempt) do
    error = attempt.error && Atom.to_string(attempt.error)

    [
      attempt.delivery_id,
      attempt.number,
      Map.fetch!(@states, attempt.state),
      attempt.status,
      error,
      attempt.detail,
      attempt.started_at_ms,
      attempt.signed_at_s,
      attempt.dns_us,
      attempt.connect_us,
      attempt.tls_us,
      attempt.first_byte_us,
      attempt.total_us,
      attempt.remote_ip,
      attempt.response_headers,
      attempt.response_body,
      attempt.response_truncated,
      attempt.next_at_ms,
      attempt.gone,
      reason(attempt, error),
      attempt.owner,
      :erlang.phash2(attempt.owner, @makers),
      Map.get(attempt, :schedule_from, 0)
    ]
  end

  defp reason(%Attempt{number: 0} = attempt, error), do: attempt.detail || error
  # The attempt was under way when its webhook was switched off.
  defp reason(%Attempt{state: :cancelled}, _error), do: "webhook_disabled"
  defp reason(_attempt, error), do: error

  @doc "The attempt of a row of webhook id, number and the values of `attempt/0`."
  @spec to_attempt([term()], String.t()) :: Attempt.t()
  def to_attempt(values, delivery_id) do
    attempt = struct!(Attempt, Enum.zip([:webhook_id, :number | @attempt], values))

    %{
      attempt
      | delivery_id: delivery_id,
        state: state_name(attempt.state),
        error: attempt.error && Map.get(@errors, attempt.error, :internal),
        response_truncated: true?(attempt.response_truncated),
        gone: true?(attempt.gone)
    }
  end

  # --- webhooks

  @webhook ~w(id site_id name host sealed enabled events goals spike_threshold drop_threshold
              traffic_min_interval_s disabled_reason disabled_at_ms failing_since_ms version
              inserted_at_ms updated_at_ms)a

  @doc """
  The columns of a webhook. `host` is for people who look into the table; `sealed` holds
  URL, headers and secrets, encrypted.
  """
  @spec webhook() :: [String.t()]
  def webhook, do: Enum.map(@webhook, &Atom.to_string/1)

  @doc "The values of `webhook/0`: `events` as a list, `goals` as a list or `nil` for all."
  @spec from_webhook(Webhook.t(), Vault.t()) :: [term()]
  def from_webhook(%Webhook{} = webhook, vault) do
    stored =
      Map.merge(Map.from_struct(webhook), %{
        host: Webhook.destination(webhook),
        sealed: Sealed.seal(vault, webhook),
        goals: if(webhook.goals != :all, do: webhook.goals),
        spike_threshold: threshold_code(webhook.spike_threshold),
        drop_threshold: threshold_code(webhook.drop_threshold),
        disabled_reason: webhook.disabled_reason && Atom.to_string(webhook.disabled_reason)
      })

    Enum.map(@webhook, &Map.fetch!(stored, &1))
  end

  @doc "The webhook of a row of `webhook/0`."
  @spec to_webhook([term()], Vault.t()) ::
          {:ok, Webhook.t()} | {:error, {:unreadable_webhook, Webhook.id(), term()}}
  def to_webhook(values, vault) do
    stored = Map.new(Enum.zip(@webhook, values))

    case Sealed.open(vault, stored.sealed, stored.id) do
      {:ok, %{url: _, headers: _, secrets: _} = opened} ->
        webhook = struct(Webhook, Map.merge(stored, opened))

        {:ok,
         %{
           webhook
           | enabled: true?(webhook.enabled),
             goals: webhook.goals || :all,
             spike_threshold: threshold(webhook.spike_threshold),
             drop_threshold: threshold(webhook.drop_threshold),
             disabled_reason: Map.get(@disabled_reasons, webhook.disabled_reason)
         }}

      {:error, reason} ->
        {:error, {:unreadable_webhook, stored.id, reason}}
    end
  end

  @doc "All webhooks of the rows, or the first error."
  @spec to_webhooks([[term()]], Vault.t()) ::
          {:ok, [Webhook.t()]} | {:error, {:unreadable_webhook, Webhook.id(), term()}}
  def to_webhooks(rows, vault) do
    webhooks = Enum.map(rows, &to_webhook(&1, vault))

    with nil <- Enum.find(webhooks, &match?({:error, _}, &1)),
         do: {:ok, Enum.map(webhooks, &elem(&1, 1))}
  end

  defp threshold_code(:notifier), do: 0
  defp threshold_code(threshold), do: threshold

  defp threshold(0), do: :notifier
  defp threshold(threshold), do: threshold

  # --- alert states

  @alert_state ~w(webhook_id kind state alert_id visitors threshold changed_at_ms
                  notified_at_ms seen_at_ms calm_since_ms)a

  @spec alert_state() :: [String.t()]
  def alert_state, do: Enum.map(@alert_state, &Atom.to_string/1)

  @doc "The values of `alert_state/0`."
  @spec from_alert_state(Plausible.Webhooks.Store.alert_state()) :: [term()]
  def from_alert_state(state) do
    stored = %{state | kind: Atom.to_string(state.kind), state: Atom.to_string(state.state)}
    Enum.map(@alert_state, &Map.fetch!(stored, &1))
  end

  @doc "The alert state of a row of `alert_state/0`."
  @spec to_alert_state([term()]) :: Plausible.Webhooks.Store.alert_state()
  def to_alert_state(values) do
    state = Map.new(Enum.zip(@alert_state, values))
    %{state | kind: Map.fetch!(@kinds, state.kind), state: Map.fetch!(@alert_states, state.state)}
  end

  # --- audit

  @audit ~w(site_id webhook_id actor action at_ms)a
  @audit_ms 31_536_000_000

  @spec audit() :: [String.t()]
  def audit, do: Enum.map(@audit, &Atom.to_string/1)

  @doc "The values of `audit/0`."
  @spec from_audit(Plausible.Webhooks.Store.audit()) :: [term()]
  def from_audit(entry), do: Enum.map(@audit, &Map.fetch!(entry, &1))

  @doc "The entry of a row of `audit/0`."
  @spec to_audit([term()]) :: Plausible.Webhooks.Store.audit()
  def to_audit(values), do: Map.new(Enum.zip(@audit, values))

  @doc "The time before which audit entries are deleted, given that time for deliveries."
  @spec audit_before_ms(integer()) :: integer()
  def audit_before_ms(before_ms), do: before_ms - @audit_ms

  defp true?(value), do: value in [true, 1]
end
