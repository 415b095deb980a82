defmodule PlausibleWeb.Live.WebhookSettings.ListPage do
  @moduledoc false
  # The site's webhooks and how they are doing.

  @behaviour PlausibleWeb.Live.WebhookSettings.Page

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components
  import PlausibleWeb.Live.WebhookSettings.Texts, only: [t: 1, t: 2]

  alias Plausible.Webhooks.Webhook

  alias Phoenix.LiveView.Socket

  alias PlausibleWeb.Live.WebhookSettings.{
    Chart,
    FormPage,
    Format,
    LogPage,
    Page,
    Safe,
    State,
    Texts,
    WebhookPage
  }

  @spec open(Socket.t()) :: Socket.t()
  def open(socket) do
    socket
    |> assign(view: :list, hook: nil, form: nil, detail: nil)
    |> refresh()
  end

  @doc "Reads anew what the list shows, which the other views show parts of."
  @spec refresh(Socket.t()) :: Socket.t()
  def refresh(socket) do
    socket
    |> refresh_webhooks()
    |> State.load(__MODULE__, :activity, :activity, [])
  end

  @doc "The webhooks alone."
  @spec refresh_webhooks(Phoenix.LiveView.Socket.t()) :: Phoenix.LiveView.Socket.t()
  def refresh_webhooks(socket),
    do: State.load(socket, __MODULE__, :webhooks, :list_webhooks, [])

  @impl Page
  def loaded(:webhooks, {:ok, webhooks}, socket),
    do: socket |> assign(webhooks: webhooks) |> FormPage.refreshed() |> WebhookPage.refreshed()

  def loaded(:webhooks, {:error, reason}, socket), do: State.failed(socket, reason)
  def loaded(:activity, {:ok, activity}, socket), do: assign(socket, activity: activity)
  def loaded(:activity, {:error, :forbidden}, socket), do: State.lost(socket)

  # What was known stays.
  def loaded(:activity, {:error, reason}, %{assigns: %{activity: nil}} = socket),
    do: assign(socket, activity: {:error, reason})

  def loaded(:activity, {:error, _reason}, socket), do: socket

  # --- what is shown

  attr(:webhooks, :list, required: true)
  attr(:activity, :any, required: true)
  attr(:zone, :string, required: true)
  attr(:now_ms, :integer, required: true)

  def render(%{webhooks: []} = assigns) do
    ~H"""
    <div class="flex flex-col items-center py-6 max-w-lg mx-auto text-center">
      <.heading id="webhooks-title"><%= t(:empty_title) %></.heading>
      <p class="mt-1 mb-5 text-sm text-gray-600 dark:text-gray-300"><%= t(:empty_text) %></p>
      <.button id="webhooks-add" theme={:primary} phx-click="page.new"><%= t(:add) %></.button>
    </div>
    """
  end

  def render(assigns) do
    ~H"""
    <div>
      <div class="flex flex-wrap items-center justify-between gap-3">
        <.heading id="webhooks-title"><%= t(:title) %></.heading>
        <.button id="webhooks-add" theme={:primary} phx-click="page.new"><%= t(:add) %></.button>
      </div>
      <p :if={match?({:error, _}, @activity)} class="mt-3 text-sm text-gray-700 dark:text-gray-200">
        <%= t(:activity_failed) %>
      </p>
      <ul class="mt-4 divide-y divide-gray-200 dark:divide-gray-700">
        <li :for={webhook <- @webhooks} id={"webhook-#{webhook.id}"} class="py-5">
          <.entry
            webhook={webhook}
            activity={known(@activity, webhook.id)}
            zone={@zone}
            now_ms={@now_ms}
          />
        </li>
      </ul>
    </div>
    """
  end

  defp known(activity, id) when is_map(activity), do: Map.get(activity, id)
  defp known(_activity, _id), do: nil

  defp entry(assigns) do
    ~H"""
    <div class="flex flex-wrap items-start justify-between gap-4">
      <div class="min-w-0 flex-1 basis-64">
        <div class="flex flex-wrap items-center gap-2">
          <h3 class="min-w-0 text-base font-semibold text-gray-900 dark:text-gray-100">
            <.text_button
              phx-click="page.webhook"
              phx-value-id={@webhook.id}
              aria-label={t(:open, name: Safe.line(State.name(@webhook)))}
              class="break-all"
            >
              <.foreign text={State.name(@webhook)} />
            </.text_button>
          </h3>
          <.state webhook={@webhook} />
        </div>
        <p class="mt-1 text-sm text-gray-700 dark:text-gray-200 break-all">
          <.foreign text={Webhook.host(@webhook)} />
        </p>
        <p class="mt-2 flex flex-wrap gap-1.5">
          <.badge :for={type <- @webhook.events} tone={:plain}><%= Texts.type(type) %></.badge>
        </p>
        <p :if={text = why(@webhook, @zone)} class="mt-2 text-sm text-gray-700 dark:text-gray-200">
          <%= text %>
        </p>
      </div>
      <div class="basis-80">
        <.activity :if={@activity} activity={@activity} zone={@zone} now_ms={@now_ms} />
      </div>
    </div>
    """
  end

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
      <span :if={@total == 0}><%= t(:success_none) %></span>
      <span :if={@total > 0}>
        <%= t(:success_24h) %>:
        <span class="font-medium text-gray-900 dark:text-gray-100">
          <%= t(:success_of, percent: Format.percent(@delivered, @total), total: Format.number(@total)) %>
        </span>
        <span :if={@activity[:complete?] == false}>(<%= t(:incomplete) %>)</span>
      </span>
      <span :if={@activity.waiting > 0}>
        <%= t(:waiting_count,
          count: Format.number(@activity.waiting) <> if(@activity.waiting_more?, do: "+", else: "")
        ) %>
      </span>
      <span>
        <%= t(:last_delivery) %>:
        <%= if @activity.last do %>
          <.text_button phx-click="page.delivery" phx-value-id={@activity.last.id}>
            <%= Format.time(@activity.last.created_at_ms, @zone) %>
          </.text_button>
          <LogPage.state delivery={@activity.last} now_ms={@now_ms} />
        <% else %>
          <%= t(:last_none) %>
        <% end %>
      </span>
    </div>
    """
  end

  attr(:webhook, Webhook, required: true)

  def state(assigns) do
    {tone, text} = summary(assigns.webhook)
    assigns = assign(assigns, tone: tone, text: t(text))
    ~H|<.badge tone={@tone}><%= @text %></.badge>|
  end

  defp summary(%{enabled: false}), do: {:gray, :state_paused}
  defp summary(%{disabled_reason: reason}) when reason != nil, do: {:red, :state_disabled}
  defp summary(%{failing_since_ms: since}) when since != nil, do: {:yellow, :state_failing}
  defp summary(_webhook), do: {:green, :state_active}

  @doc "Why it is in that state, and what helps; `nil` for one that is well."
  @spec why(Webhook.t(), String.t()) :: String.t() | nil
  def why(%{enabled: false}, _zone), do: t(:paused_text)

  def why(%{disabled_reason: :gone} = webhook, zone),
    do: t(:disabled_gone, time: Format.time(webhook.disabled_at_ms, zone))

  def why(%{disabled_reason: :failing} = webhook, zone),
    do: t(:disabled_failing, time: Format.time(webhook.disabled_at_ms, zone))

  def why(%{failing_since_ms: since}, zone) when since != nil,
    do: t(:failing_since, time: Format.time(since, zone))

  def why(_webhook, _zone), do: nil
end
