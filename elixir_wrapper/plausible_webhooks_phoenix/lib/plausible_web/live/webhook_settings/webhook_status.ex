defmodule PlausibleWeb.Live.WebhookSettings.WebhookStatus do
  @moduledoc false
  # The state of a webhook and its last 24 hours, as the list and its own view show them.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.Webhook
  alias PlausibleWeb.Live.WebhookSettings.{Chart, DeliveryStatus, Format}

  attr(:webhook, Webhook, required: true)

  def state(assigns) do
    {tone, text} = summary(assigns.webhook)
    assigns = assign(assigns, tone: tone, text: text)
    ~H|<.badge tone={@tone}><%= @text %></.badge>|
  end

  defp summary(%{enabled: false}), do: {:gray, "Paused"}
  defp summary(%{disabled_reason: reason}) when reason != nil, do: {:red, "Switched off"}
  defp summary(%{failing_since_ms: since}) when since != nil, do: {:yellow, "Failing"}
  defp summary(_webhook), do: {:green, "Active"}

  @doc "Why the webhook is in its state, and what helps; `nil` for an active one."
  @spec why(Webhook.t(), String.t()) :: String.t() | nil
  def why(%{enabled: false}, _zone),
    do: "Paused: this webhook receives no new events, and they are not kept for it."

  def why(%{disabled_reason: :gone} = webhook, zone) do
    "Switched off on #{Format.time(webhook.disabled_at_ms, zone)}, because your endpoint " <>
      "answered 410 Gone. A successful test switches it on again."
  end

  def why(%{disabled_reason: :failing} = webhook, zone) do
    "Switched off on #{Format.time(webhook.disabled_at_ms, zone)}, because every attempt had " <>
      "failed for days. Fix the endpoint and send a test: a success switches the webhook on " <>
      "again. Then you can send again what it missed."
  end

  def why(%{failing_since_ms: since}, zone) when since != nil do
    "Every attempt has failed since #{Format.time(since, zone)}. A webhook that fails for days " <>
      "is switched off."
  end

  def why(_webhook, _zone), do: nil

  attr(:activity, :map, required: true)
  attr(:zone, :string, required: true)
  attr(:now_ms, :integer, required: true)

  @doc "The success rate, the chart and the last delivery."
  def activity(assigns) do
    %{delivered: delivered, failed: failed, cancelled: cancelled} = assigns.activity
    assigns = assign(assigns, total: delivered + failed + cancelled, delivered: delivered)

    ~H"""
    <div class="inline-flex flex-col gap-1 text-sm text-gray-700 dark:text-gray-200">
      <Chart.hours activity={@activity} />
      <span :if={@total == 0}>Nothing sent in 24 h</span>
      <span :if={@total > 0}>
        Delivered in 24 h:
        <span class="font-medium text-gray-900 dark:text-gray-100">
          <%= Format.percent(@delivered, @total) %> of <%= Format.number(@total) %>
        </span>
        <span :if={@activity[:complete?] == false}>(counted over the newest deliveries only)</span>
      </span>
      <span :if={@activity.waiting > 0}>
        <%= Format.number(@activity.waiting) %><%= if @activity.waiting_more?, do: "+" %> waiting
      </span>
      <span>
        Last delivery:
        <%= if @activity.last do %>
          <.text_button phx-click="page.delivery" phx-value-id={@activity.last.id}>
            <%= Format.time(@activity.last.created_at_ms, @zone) %>
          </.text_button>
          <DeliveryStatus.state delivery={@activity.last} now_ms={@now_ms} />
        <% else %>
          None yet
        <% end %>
      </span>
    </div>
    """
  end
end
