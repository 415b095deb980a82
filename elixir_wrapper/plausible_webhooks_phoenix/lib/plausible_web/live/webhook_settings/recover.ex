defmodule PlausibleWeb.Live.WebhookSettings.Recover do
  @moduledoc false
  # Sends again what failed since a time. It counts first, so that the user knows what will be
  # sent.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias PlausibleWeb.Live.WebhookSettings.{Format, Labels, Page}

  @day_ms 86_400_000

  @doc "The default time: a day ago, in whole minutes as the field has them."
  @spec since(integer()) :: integer()
  def since(now_ms), do: div(now_ms - @day_ms, 60_000) * 60_000

  @spec sent(map()) :: String.t()
  def sent(%{count: count, more?: more?}) do
    more = if more?, do: "; there are more. Repeat this once these are sent", else: ""
    "#{Labels.deliveries(count)} sent again#{more}."
  end

  attr(:recoverable, :any, required: true, doc: "nil until it is counted")
  attr(:since_ms, :integer, required: true)
  attr(:active?, :boolean, required: true)
  attr(:zone, :string, required: true)

  def render(assigns) do
    ~H"""
    <.section id="webhook-recover" title="Send failed deliveries again">
      <:text>
        Sends all deliveries again that failed or were cancelled since a given time, the oldest
        first. Each keeps its webhook-id. Tests are not sent again.
      </:text>
      <p :if={not @active?} class="text-sm"><%= Page.explain(:webhook_disabled) %></p>
      <form
        :if={@active?}
        id="webhook-recover-form"
        phx-submit="recover_count"
        class="flex flex-wrap items-end gap-3"
      >
        <.text_field
          id="webhook-since"
          label={"Since (#{Format.zone(@zone)})"}
          class="min-w-48"
          type="datetime-local"
          name="since"
          value={Format.to_local(@since_ms, @zone)}
          required
        />
        <.button type="submit">Count</.button>
      </form>
      <div :if={@active? and @recoverable} role="status" class="mt-3 text-sm">
        <p><%= found(@recoverable) %></p>
        <p :if={@recoverable.count > 0} class="mt-2">
          <.button id="webhook-recover-confirm" theme={:primary} phx-click="recover">
            Send <%= Labels.deliveries(@recoverable.count) %> again
          </.button>
        </p>
      </div>
    </.section>
    """
  end

  defp found(%{count: 0}), do: "Nothing has failed since then."

  defp found(%{count: count, more?: true}),
    do: "More than #{Labels.deliveries(count)} to send again; the oldest go first."

  defp found(%{count: count}), do: "#{Labels.deliveries(count)} to send again."
end
