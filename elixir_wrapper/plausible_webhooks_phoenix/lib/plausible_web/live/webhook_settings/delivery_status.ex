defmodule PlausibleWeb.Live.WebhookSettings.DeliveryStatus do
  @moduledoc false
  # The state of a delivery and its last answer, as the list and the log show them.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.Delivery
  alias PlausibleWeb.Live.WebhookSettings.{FailureHints, Format, Labels}

  @tones %{delivered: :green, failed: :red, cancelled: :gray, pending: :yellow, parked: :yellow}

  attr(:delivery, Delivery, required: true)
  attr(:now_ms, :integer, required: true)

  @doc "The state, and the time to the next attempt."
  def state(assigns) do
    assigns = assign(assigns, tone: @tones[assigns.delivery.state])

    ~H"""
    <span class="inline-flex flex-wrap items-center gap-x-2">
      <.badge tone={@tone}><%= Labels.state(shown(@delivery)) %></.badge>
      <span :if={counts_down?(@delivery)} class="text-xs whitespace-nowrap">
        <%= next(@delivery.next_at_ms - @now_ms) %>
      </span>
    </span>
    """
  end

  # Between two attempts a delivery waits, in the engine or parked.
  defp shown(%{state: :pending, next_at_ms: next_at_ms}) when next_at_ms != nil, do: :parked
  defp shown(%{state: state}), do: state

  defp next(ms) when ms <= 0, do: "next attempt any moment"
  defp next(ms), do: "next attempt in #{Format.countdown(ms)}"

  @doc "Whether the delivery waits for its next attempt."
  @spec counts_down?(Delivery.t()) :: boolean()
  def counts_down?(delivery),
    do: delivery.state in [:pending, :parked] and delivery.next_at_ms != nil

  @doc "The last answer of the receiver, or why there is none."
  @spec answer(Delivery.t()) :: String.t()
  def answer(%{attempts: 0, state: state}) when state in [:failed, :cancelled], do: "not sent"
  def answer(%{attempts: 0, last_error: nil}), do: "not tried yet"
  def answer(%{last_status: nil, last_error: error}), do: FailureHints.name(error) || "no answer"
  def answer(%{last_status: status}), do: to_string(status)
end
