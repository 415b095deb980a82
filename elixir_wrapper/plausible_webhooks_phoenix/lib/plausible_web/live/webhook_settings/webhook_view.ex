defmodule PlausibleWeb.Live.WebhookSettings.WebhookView do
  @moduledoc false
  # One webhook: its settings, and panels for a test, the secret and recovery. Only one of
  # the panels that ask for a confirmation is open at a time; it gives the focus back to the
  # button that opened it.

  @behaviour PlausibleWeb.Live.WebhookSettings.View

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Phoenix.LiveView.Socket
  alias Plausible.Webhooks.Webhook

  alias PlausibleWeb.Live.WebhookSettings.{
    Assigns,
    ForeignText,
    Format,
    Labels,
    RecoverPanel,
    Redacted,
    SecretPanel,
    TestPanel,
    View,
    WebhookStatus
  }

  # panel: `:delete`, `:rotate` or nil. since: the start of the time to recover.
  # The state holds secrets, which no crash report may show.
  @derive {Inspect, only: [:id, :panel]}
  defstruct [:id, :panel, :secrets, :waiting, :recoverable, :since, test: %TestPanel{}]

  @spec open(Socket.t(), Webhook.t()) :: Socket.t()
  def open(socket, %{id: id} = webhook) do
    # The list may not have this version of the webhook yet.
    webhooks = [webhook | Enum.reject(socket.assigns.webhooks, &(&1.id == id))]
    webhooks = Enum.sort_by(webhooks, &{&1.inserted_at_ms, &1.id})
    state = %__MODULE__{id: id, since: RecoverPanel.since(socket.assigns.now_ms)}

    socket
    |> assign(view: :webhook, webhook: state, webhooks: webhooks)
    |> Assigns.focus("webhook-title")
  end

  @doc "Compares the secrets on the page with the webhooks, which were read again."
  @spec refreshed(Socket.t()) :: Socket.t()
  def refreshed(%{assigns: %{webhook: %{id: id, secrets: [_ | _]} = state}} = socket) do
    stored = with %{secrets: secrets} <- Assigns.webhook(socket, id), do: secrets
    if SecretPanel.current?(state.secrets, stored), do: socket, else: hide_secrets(socket, state)
  end

  def refreshed(socket), do: socket

  defp hide_secrets(socket, state), do: assign(socket, webhook: %{state | secrets: nil})

  @impl View
  def loaded({:waiting, id}, result, %{assigns: %{webhook: %{id: id} = state}} = socket),
    do: Assigns.continue(socket, result, &assign(socket, webhook: %{state | waiting: &1}))

  def loaded(_other_webhook, {:error, :forbidden}, socket), do: Assigns.lost(socket)
  def loaded(_other_webhook, _result, socket), do: socket

  # --- events

  @impl View
  def handle(event, params, %{assigns: %{webhook: %__MODULE__{} = state}} = socket) do
    case Assigns.webhook(socket, state.id) do
      nil -> Assigns.open(socket, {:list, nil}, Assigns.error(:not_found), :bad)
      webhook -> handle(event, params, socket, state, webhook)
    end
  end

  def handle(_event, _params, socket), do: Assigns.refuse(socket)

  defp handle("edit", _params, socket, _state, webhook) do
    result = Assigns.call(socket, :get_webhook, [webhook.id])
    Assigns.continue(socket, result, &Assigns.open(socket, {:edit, &1}))
  end

  # Pausing cancels the deliveries that are counted here.
  defp handle("pause", _params, socket, _state, webhook) do
    waiting = Assigns.call(socket, :waiting, [webhook.id])
    result = Assigns.call(socket, :disable_webhook, [webhook.id])
    Assigns.changed(socket, result, paused(waiting), "webhook-resume")
  end

  defp handle("resume", _params, socket, _state, webhook) do
    result = Assigns.call(socket, :enable_webhook, [webhook.id])
    Assigns.changed(socket, result, "Active again.", "webhook-pause")
  end

  defp handle("delete", _params, socket, state, webhook) do
    socket
    |> assign(webhook: %{state | panel: :delete, waiting: nil})
    |> Assigns.focus("webhook-delete-title")
    |> Assigns.load(__MODULE__, {:waiting, webhook.id}, :waiting, [webhook.id])
  end

  # Only from the open panel, which asks for the confirmation.
  defp handle("delete_confirm", _params, socket, %{panel: :delete}, webhook) do
    Assigns.continue(socket, Assigns.call(socket, :delete_webhook, [webhook.id]), fn :ok ->
      webhooks = Enum.reject(socket.assigns.webhooks, &(&1.id == webhook.id))
      socket |> assign(webhooks: webhooks) |> Assigns.open({:list, nil}, "Webhook deleted.")
    end)
  end

  defp handle("close_panel", _params, socket, %{panel: panel} = state, _webhook) do
    socket = assign(socket, webhook: %{state | panel: nil})
    if panel, do: Assigns.focus(socket, "webhook-#{panel}"), else: socket
  end

  @panels %{
    "test_type" => TestPanel,
    "test" => TestPanel,
    "sample" => TestPanel,
    "sample_hide" => TestPanel,
    "reveal" => SecretPanel,
    "hide" => SecretPanel,
    "rotate" => SecretPanel,
    "rotate_confirm" => SecretPanel,
    "recover_count" => RecoverPanel,
    "recover" => RecoverPanel
  }

  defp handle(event, params, socket, state, webhook) when is_map_key(@panels, event),
    do: @panels[event].handle(event, params, socket, state, webhook)

  defp handle(_event, _params, socket, _state, _webhook), do: Assigns.refuse(socket)

  defp paused({:ok, %{count: count, more?: more?}}) when count > 0,
    do:
      "Paused. Cancelled #{Labels.deliveries(count, more?)} that waited; you can send them again later."

  defp paused(_none_or_unknown), do: "Paused."

  # --- markup

  def render(%{webhook: state} = assigns) do
    assigns = assign(assigns, state: state, webhook: Assigns.webhook(assigns, state.id))
    if assigns.webhook, do: shown(assigns), else: gone(assigns)
  end

  defp gone(assigns) do
    ~H"""
    <div>
      <.notice theme={:yellow}><%= Assigns.error(:not_found) %></.notice>
      <div class="mt-3">
        <.button phx-click="page.list">All webhooks</.button>
      </div>
    </div>
    """
  end

  defp shown(assigns) do
    ~H"""
    <div>
      <.text_button phx-click="page.list">← All webhooks</.text_button>
      <.head webhook={@webhook} state={@state} />

      <.delete :if={@state.panel == :delete} webhook={@webhook} waiting={@state.waiting} />

      <.notice
        :if={text = WebhookStatus.why(@webhook, @zone)}
        theme={if @webhook.enabled, do: :yellow, else: :gray}
        class="mt-4"
      >
        <%= text %>
      </.notice>

      <div class="mt-6 grid gap-6 md:grid-cols-2">
        <.facts rows={settings(@webhook)} />
        <div>
          <WebhookStatus.activity
            :if={is_map(@activity) and @activity[@webhook.id]}
            activity={@activity[@webhook.id]}
            zone={@zone}
            now_ms={@now_ms}
          />
          <div class="mt-2">
            <.text_button phx-click="page.log" phx-value-webhook={@webhook.id}>
              See its deliveries
            </.text_button>
          </div>
        </div>
      </div>

      <TestPanel.render panel={@state.test} now_ms={@now_ms} copy?={@copy?} />
      <SecretPanel.render
        state={@state}
        webhook={@webhook}
        zone={@zone}
        now_ms={@now_ms}
        copy?={@copy?}
      />
      <RecoverPanel.render state={@state} webhook={@webhook} zone={@zone} />
    </div>
    """
  end

  defp head(assigns) do
    ~H"""
    <div class="mt-2 flex flex-wrap items-start justify-between gap-3">
      <div class="min-w-0">
        <.heading id="webhook-title"><.foreign text={Assigns.name(@webhook)} /></.heading>
        <p class="mt-1"><WebhookStatus.state webhook={@webhook} /></p>
      </div>
      <div class="flex flex-wrap gap-2">
        <.button phx-click="webhook.edit">Edit</.button>
        <%= if Webhook.active?(@webhook) do %>
          <.button id="webhook-pause" phx-click="webhook.pause">Pause</.button>
        <% else %>
          <.button id="webhook-resume" phx-click="webhook.resume">
            <%= if @webhook.enabled, do: "Switch on", else: "Resume" %>
          </.button>
        <% end %>
        <.button
          id="webhook-delete"
          theme={:danger}
          phx-click="webhook.delete"
          aria-expanded={to_string(@state.panel == :delete)}
        >
          Delete
        </.button>
      </div>
    </div>
    """
  end

  defp settings(webhook) do
    Enum.filter(
      [
        {"URL", Redacted.wrap(webhook.url)},
        {"Events", Enum.map_join(webhook.events, ", ", &Labels.type/1)},
        {"Goals", "goal.completed" in webhook.events && goals(webhook.goals)},
        {Labels.type("traffic.spike"),
         "traffic.spike" in webhook.events && threshold(webhook.spike_threshold)},
        {Labels.type("traffic.drop"),
         "traffic.drop" in webhook.events && threshold(webhook.drop_threshold)},
        # The values may hold tokens; the form shows them.
        {"Extra headers", Enum.map_join(webhook.headers, ", ", &elem(&1, 0))}
      ],
      &elem(&1, 1)
    )
  end

  defp goals(:all), do: "all goals"
  defp goals(ids), do: Labels.count(length(ids), "goal")

  defp threshold(:notifier), do: "follows the e-mail notification"
  defp threshold(number), do: Format.number(number || 0)

  defp delete(assigns) do
    ~H"""
    <.notice
      theme={:red}
      class="mt-4"
      id="webhook-delete-panel"
      role="group"
      aria-labelledby="webhook-delete-title"
    >
      <h3 id="webhook-delete-title" tabindex="-1" class="font-semibold rounded break-words">
        Delete <%= ForeignText.line(Assigns.name(@webhook)) %>?
      </h3>
      <p class="mt-1">This deletes the webhook and its log. It cannot be undone.</p>
      <p class="mt-1 font-medium" role="status"><%= waiting(@waiting) %></p>
      <div class="mt-3 flex flex-wrap gap-2">
        <.button id="webhook-delete-confirm" theme={:danger} phx-click="webhook.delete_confirm">
          Delete webhook and log
        </.button>
        <.button phx-click="webhook.close_panel">Cancel</.button>
      </div>
    </.notice>
    """
  end

  defp waiting(nil), do: "Loading …"
  defp waiting(%{count: 0}), do: "Nothing is waiting to be sent."

  defp waiting(%{count: count, more?: more?}),
    do:
      "#{count |> Labels.deliveries(more?) |> String.capitalize()} waiting now will be cancelled."
end
