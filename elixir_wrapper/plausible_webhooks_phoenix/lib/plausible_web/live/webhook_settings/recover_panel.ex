defmodule PlausibleWeb.Live.WebhookSettings.RecoverPanel do
  @moduledoc false
  # Sends again what failed since a time. The panel counts first, so that the user knows
  # what will be sent.

  @behaviour PlausibleWeb.Live.WebhookSettings.View

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.Webhook
  alias PlausibleWeb.Live.WebhookSettings.{Assigns, Format, Labels, View}

  @day_ms 86_400_000

  @doc "The default time: a day ago, in whole minutes as the field has them."
  @spec since(integer()) :: integer()
  def since(now_ms), do: div(now_ms - @day_ms, 60_000) * 60_000

  @impl View
  def loaded({:recover, id}, result, %{assigns: %{webhook: %{id: id} = state}} = socket) do
    Assigns.continue(socket, result, fn %{count: count, more?: more?} ->
      more = if more?, do: "; there are more. Repeat this once these are sent", else: ""
      text = "#{Labels.deliveries(count)} sent again#{more}."
      socket |> assign(webhook: %{state | recoverable: nil}) |> Assigns.say(text)
    end)
  end

  def loaded(
        {:recoverable, id, since},
        result,
        %{assigns: %{webhook: %{id: id, since: since} = state}} = socket
      ) do
    Assigns.continue(socket, result, fn found ->
      socket |> assign(webhook: %{state | recoverable: found}) |> Assigns.say(found_text(found))
    end)
  end

  def loaded(_other_webhook, {:error, :forbidden}, socket), do: Assigns.lost(socket)
  def loaded(_other_webhook, _result, socket), do: socket

  def handle("recover_count", %{"since" => since}, socket, state, %{id: id}) do
    case Format.from_local(since, socket.assigns.zone) do
      {:ok, since_ms} ->
        tag = {:recoverable, id, since_ms}

        socket
        |> assign(webhook: %{state | since: since_ms, recoverable: nil})
        |> Assigns.load(__MODULE__, tag, :recoverable, [id, since_ms])

      :error ->
        Assigns.say(socket, "Enter a date and a time.", :bad)
    end
  end

  def handle("recover", _params, socket, %{recoverable: %{count: count}} = state, %{id: id})
      when count > 0 do
    socket
    |> assign(webhook: %{state | recoverable: nil})
    |> Assigns.load(__MODULE__, {:recover, id}, :recover, [id, state.since])
  end

  def handle(_event, _params, socket, _state, _webhook), do: Assigns.refuse(socket)

  defp found_text(%{count: 0}), do: "Nothing has failed since then."

  defp found_text(%{count: count, more?: true}),
    do: "More than #{Labels.deliveries(count)} to send again; the oldest go first."

  defp found_text(%{count: count}), do: "#{Labels.deliveries(count)} to send again."

  # --- markup

  def render(assigns) do
    since = Format.to_local(assigns.state.since, assigns.zone)
    assigns = assign(assigns, since: since, active?: Webhook.active?(assigns.webhook))

    ~H"""
    <.section
      id="webhook-recover"
      title="Send failed deliveries again"
      text="Sends all deliveries again that failed or were cancelled since a given time, the oldest first. Each keeps its webhook-id."
    >
      <p :if={not @active?} class="text-sm text-gray-700 dark:text-gray-200">
        <%= Assigns.error(:webhook_disabled) %>
      </p>
      <form
        :if={@active?}
        id="webhook-recover-form"
        phx-submit="webhook.recover_count"
        class="flex flex-wrap items-end gap-3"
      >
        <.text_field
          id="webhook-since"
          label={"Since (#{Format.zone(@zone)})"}
          class="min-w-[12rem]"
          type="datetime-local"
          name="since"
          value={@since}
          required
        />
        <.button type="submit">Count</.button>
      </form>
      <div :if={@active? and @state.recoverable} class="mt-3 text-sm text-gray-900 dark:text-gray-100">
        <p><%= found_text(@state.recoverable) %></p>
        <.button
          :if={@state.recoverable.count > 0}
          id="webhook-recover-confirm"
          theme={:primary}
          class="mt-2"
          phx-click="webhook.recover"
        >
          Send <%= Labels.deliveries(@state.recoverable.count) %> again
        </.button>
      </div>
    </.section>
    """
  end
end
