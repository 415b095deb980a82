defmodule PlausibleWeb.Live.WebhookSettings.Status do
  @moduledoc false
  # The states of webhooks and deliveries, as every view shows them.
  #
  # A webhook is in one state, the first of these that holds:
  #
  # | state | when | leaves by |
  # |---|---|---|
  # | Paused | its owner paused it | resume |
  # | Switched off | we disabled it: 410, failing for days, or costly | a test that arrives, or switching it on |
  # | Failing | attempts have failed, and none has arrived, for 5 minutes or longer | a success |
  # | Active | otherwise | |
  #
  # Tests are not traffic: they do not count in the success rate.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.{Delivery, Webhook}
  alias PlausibleWeb.Live.WebhookSettings.{Chart, FailureHints, Format}

  @failing_after_ms 300_000

  @type state :: :paused | :off | :failing | :active

  @spec of(Webhook.t(), integer()) :: state()
  def of(%{enabled: false}, _now_ms), do: :paused
  def of(%{disabled_reason: reason}, _now_ms) when reason != nil, do: :off

  def of(%{failing_since_ms: since_ms}, now_ms)
      when since_ms != nil and now_ms - since_ms >= @failing_after_ms,
      do: :failing

  def of(_webhook, _now_ms), do: :active

  @states %{
    failing: {:yellow, "Failing", 0},
    off: {:red, "Switched off", 1},
    active: {:green, "Active", 2},
    paused: {:gray, "Paused", 3}
  }

  @doc "Where the state stands in a list: what needs the owner first."
  @spec rank(state()) :: non_neg_integer()
  def rank(state), do: elem(@states[state], 2)

  def webhook(assigns) do
    {tone, text, _rank} = @states[of(assigns.webhook, assigns.now_ms)]
    assigns = assign(assigns, tone: tone, text: text)
    ~H|<.badge tone={@tone}><%= @text %></.badge>|
  end

  @doc "Why the webhook is in its state, and what helps; `nil` for an active one."
  @spec why(Webhook.t(), integer(), String.t()) :: String.t() | nil
  def why(webhook, now_ms, zone) do
    case of(webhook, now_ms) do
      :paused ->
        "Paused: this webhook receives no new events, and they are not kept for it. " <>
          "Deliveries that waited are held until you resume it."

      :off when webhook.disabled_reason == :gone ->
        "Switched off on #{Format.time(webhook.disabled_at_ms, zone)}, because your endpoint " <>
          "answered 410 Gone. A successful test switches it on again."

      :off when webhook.disabled_reason == :costly ->
        "Switched off on #{Format.time(webhook.disabled_at_ms, zone)}, because your endpoint's " <>
          "answers took too much processor time of the server that sends them. Have it answer " <>
          "with a plain 200 and send a test: a success switches the webhook on again. Then you " <>
          "can send again what it missed."

      :off ->
        "Switched off on #{Format.time(webhook.disabled_at_ms, zone)}, because every attempt had " <>
          "failed for days. Fix the endpoint and send a test: a success switches the webhook on " <>
          "again. Then you can send again what it missed."

      :failing ->
        "No attempt has arrived since #{Format.time(webhook.failing_since_ms, zone)}. A webhook " <>
          "that fails for days is switched off."

      :active ->
        nil
    end
  end

  attr(:activity, :any, required: true, doc: "of one webhook; nil while it is not known")

  @doc "The last 24 hours: chart, success rate, and what waits."
  def activity(%{activity: nil} = assigns), do: ~H""

  def activity(assigns) do
    %{delivered: delivered, failed: failed, cancelled: cancelled} = assigns.activity
    assigns = assign(assigns, total: delivered + failed + cancelled, delivered: delivered)

    ~H"""
    <div class="flex flex-wrap items-center gap-x-3 text-sm">
      <Chart.hours activity={@activity} />
      <span class="text-gray-600 dark:text-gray-300" dir="ltr">
        <span :if={@total > 0} class="whitespace-nowrap">
          <span class="font-medium text-gray-900 dark:text-gray-100">
            <%= Format.percent(@delivered, @total) %>
          </span>
          of <%= if @activity.complete?, do: "", else: "at least " %><%= Format.number(@total) %>
        </span>
        <span :if={@total == 0 and @activity.waiting == 0}>No events in 24 h</span>
        <span :if={@activity.waiting > 0} class="block whitespace-nowrap">
          <%= Format.number(@activity.waiting) %><%= if @activity.waiting_more?, do: "+" %> waiting
        </span>
      </span>
    </div>
    """
  end

  # --- deliveries

  @deliveries %{
    delivered: {:green, "Delivered"},
    failed: {:red, "Failed"},
    cancelled: {:gray, "Cancelled"},
    pending: {:yellow, "Sending"},
    parked: {:yellow, "Waiting"},
    held: {:gray, "Held"}
  }

  @doc "The states of a delivery and their names."
  @spec deliveries() :: [{atom(), String.t()}]
  def deliveries,
    do:
      for(
        state <- ~w(pending parked held delivered failed cancelled)a,
        do: {state, elem(@deliveries[state], 1)}
      )

  @doc "The state of a delivery, and the time to the next attempt."
  def delivery(assigns) do
    ~H"""
    <span class="inline-flex flex-wrap items-center gap-x-2">
      <.badge tone={tone(@delivery)}><%= delivery_name(@delivery) %></.badge>
      <span :if={waits?(@delivery)} class="text-xs whitespace-nowrap">
        next attempt in <.countdown until_ms={@delivery.next_at_ms} now_ms={@now_ms} />
      </span>
    </span>
    """
  end

  @spec tone(Delivery.t()) :: atom()
  def tone(delivery), do: elem(@deliveries[shown(delivery)], 0)

  @spec delivery_name(Delivery.t()) :: String.t()
  def delivery_name(delivery), do: elem(@deliveries[shown(delivery)], 1)

  # Between two attempts a delivery waits, in the engine or parked.
  defp shown(%{state: :pending, next_at_ms: next_at_ms}) when next_at_ms != nil, do: :parked
  defp shown(%{state: state}), do: state

  defp waits?(delivery),
    do: delivery.state in [:pending, :parked] and delivery.next_at_ms != nil

  @doc "The last answer of the receiver, or why there is none."
  @spec answer(Delivery.t()) :: String.t()
  def answer(%{attempts: 0, state: state}) when state in [:failed, :cancelled], do: "not sent"
  def answer(%{attempts: 0, last_error: nil}), do: "not tried yet"
  def answer(%{last_status: nil, last_error: error}), do: FailureHints.name(error) || "no answer"
  def answer(%{last_status: status}), do: to_string(status)
end
