defmodule PlausibleWeb.Live.WebhookSettings.WebhookView do
  @moduledoc false
  # How one webhook is shown; `WebhookPage` has its events.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components
  import PlausibleWeb.Live.WebhookSettings.Texts, only: [t: 1, t: 2]

  alias Plausible.Webhooks.Webhook

  alias PlausibleWeb.Live.WebhookSettings.{
    Format,
    Hidden,
    ListPage,
    Safe,
    State,
    TestPanel,
    Texts,
    WebhookPage
  }

  attr(:hook, WebhookPage, required: true)
  attr(:webhook, Webhook, required: true)
  attr(:activity, :any, required: true)
  attr(:zone, :string, required: true)
  attr(:now_ms, :integer, required: true)
  attr(:copy?, :boolean, required: true)

  def render(assigns) do
    ~H"""
    <div>
      <.text_button phx-click="page.list">← <%= t(:back_to_webhooks) %></.text_button>
      <.head webhook={@webhook} hook={@hook} />

      <.delete :if={@hook.panel == :delete} webhook={@webhook} waiting={@hook.waiting} />

      <.notice
        :if={text = ListPage.why(@webhook, @zone)}
        theme={if @webhook.enabled, do: :yellow, else: :gray}
        class="mt-4"
      >
        <%= text %>
      </.notice>

      <div class="mt-6 grid gap-6 md:grid-cols-2">
        <.facts rows={settings(@webhook)} />
        <div>
          <ListPage.activity
            :if={is_map(@activity) and @activity[@webhook.id]}
            activity={@activity[@webhook.id]}
            zone={@zone}
            now_ms={@now_ms}
          />
          <div class="mt-2">
            <.text_button phx-click="page.log" phx-value-webhook={@webhook.id}>
              <%= t(:see_deliveries) %>
            </.text_button>
          </div>
        </div>
      </div>

      <TestPanel.render panel={@hook.test} now_ms={@now_ms} copy?={@copy?} />
      <.secret hook={@hook} webhook={@webhook} zone={@zone} now_ms={@now_ms} copy?={@copy?} />
      <.recover hook={@hook} webhook={@webhook} zone={@zone} />
    </div>
    """
  end

  defp head(assigns) do
    ~H"""
    <div class="mt-2 flex flex-wrap items-start justify-between gap-3">
      <div class="min-w-0">
        <.heading id="webhook-title"><.foreign text={State.name(@webhook)} /></.heading>
        <p class="mt-1"><ListPage.state webhook={@webhook} /></p>
      </div>
      <div class="flex flex-wrap gap-2">
        <.button phx-click="webhook.edit"><%= t(:edit) %></.button>
        <.button
          :if={@webhook.enabled and @webhook.disabled_reason == nil}
          id="webhook-pause"
          phx-click="webhook.pause"
        >
          <%= t(:pause) %>
        </.button>
        <.button :if={not @webhook.enabled} id="webhook-resume" phx-click="webhook.resume">
          <%= t(:resume) %>
        </.button>
        <.button
          :if={@webhook.enabled and @webhook.disabled_reason != nil}
          id="webhook-resume"
          phx-click="webhook.resume"
        >
          <%= t(:switch_on) %>
        </.button>
        <.button
          id="webhook-delete"
          theme={:danger}
          phx-click="webhook.delete"
          aria-expanded={to_string(@hook.panel == :delete)}
        >
          <%= t(:delete) %>
        </.button>
      </div>
    </div>
    """
  end

  defp settings(webhook) do
    [
      {t(:url_label), Hidden.wrap(webhook.url)},
      {t(:events_label), Enum.map_join(webhook.events, ", ", &Texts.type/1)},
      {t(:goals_label), "goal.completed" in webhook.events && goals(webhook.goals)},
      {Texts.type("traffic.spike"),
       "traffic.spike" in webhook.events && threshold(webhook.spike_threshold)},
      {Texts.type("traffic.drop"),
       "traffic.drop" in webhook.events && threshold(webhook.drop_threshold)},
      # Values may hold tokens; who wants to see them edits the webhook.
      {t(:headers_label), Enum.map_join(webhook.headers, ", ", &elem(&1, 0))}
    ]
    |> Enum.filter(&elem(&1, 1))
  end

  defp goals(:all), do: t(:all_goals)
  defp goals(ids), do: Texts.goals(length(ids))

  defp threshold(:notifier), do: t(:by_notifier)
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
        <%= t(:delete_title, name: Safe.line(State.name(@webhook))) %>
      </h3>
      <p class="mt-1"><%= t(:delete_text) %></p>
      <p class="mt-1 font-medium" role="status"><%= waiting(@waiting) %></p>
      <div class="mt-3 flex flex-wrap gap-2">
        <.button id="webhook-delete-confirm" theme={:danger} phx-click="webhook.delete_confirm">
          <%= t(:delete_confirm) %>
        </.button>
        <.button phx-click="webhook.close_panel"><%= t(:cancel) %></.button>
      </div>
    </.notice>
    """
  end

  defp waiting(nil), do: t(:loading)
  defp waiting(%{count: 0}), do: t(:delete_waiting_none)

  defp waiting(%{count: count, more?: more?}),
    do: t(:delete_waiting, count: count |> Texts.deliveries(more?) |> String.capitalize())

  # --- the secret

  defp secret(assigns) do
    assigns = assign(assigns, older: older(assigns.webhook, assigns.now_ms))

    ~H"""
    <.section id="webhook-secret" title={t(:secret_title)} text={t(:secret_text)}>
      <p
        :if={@older != nil and @hook.secrets == nil}
        class="mb-3 text-sm text-gray-700 dark:text-gray-200"
      >
        <%= t(:secret_overlap, time: Format.time(@older, @zone), left: Format.span(@older - @now_ms)) %>
      </p>
      <div :if={@hook.secrets} class="mb-4 space-y-3">
        <.copy_line
          :for={{secret, index} <- Enum.with_index(@hook.secrets, 1)}
          id={"webhook-secret-#{index}"}
          label={secret_label(secret, @zone, @now_ms)}
          value={Hidden.shown(secret.key)}
          copy?={@copy?}
        />
        <p class="text-sm text-gray-600 dark:text-gray-300"><%= t(:secret_copy_help) %></p>
      </div>
      <div class="flex flex-wrap gap-2">
        <.button :if={@hook.secrets == nil} id="webhook-reveal" phx-click="webhook.reveal">
          <%= t(:secret_reveal) %>
        </.button>
        <.button :if={@hook.secrets} phx-click="webhook.hide"><%= t(:secret_hide) %></.button>
        <.button
          id="webhook-rotate"
          phx-click="webhook.rotate"
          aria-expanded={to_string(@hook.panel == :rotate)}
        >
          <%= t(:rotate) %>
        </.button>
      </div>
      <.rotate :if={@hook.panel == :rotate} />
    </.section>
    """
  end

  defp rotate(assigns) do
    ~H"""
    <form id="webhook-rotate-form" phx-submit="webhook.rotate_confirm" class="mt-4">
      <.notice role="group" aria-labelledby="webhook-rotate-title">
        <h4 id="webhook-rotate-title" tabindex="-1" class="font-semibold rounded">
          <%= t(:rotate_title) %>
        </h4>
        <p class="mt-1"><%= t(:rotate_text) %></p>
        <.field
          id="webhook-overlap"
          label={t(:rotate_overlap)}
          help={t(:rotate_emergency_text)}
          class="mt-3"
        >
          <.select
            id="webhook-overlap"
            name="overlap"
            value={86_400}
            options={Texts.overlaps()}
            aria-describedby="webhook-overlap-help"
          />
        </.field>
        <div class="mt-3 flex flex-wrap gap-2">
          <.button type="submit" theme={:primary}><%= t(:rotate_confirm) %></.button>
          <.button phx-click="webhook.close_panel"><%= t(:cancel) %></.button>
        </div>
      </.notice>
    </form>
    """
  end

  # When the last of the older secrets ends; keys are hidden, times are not.
  defp older(webhook, now_ms) do
    webhook
    |> Webhook.live_keys(now_ms)
    |> Enum.map(& &1.expires_at_ms)
    |> Enum.filter(& &1)
    |> Enum.max(fn -> nil end)
  end

  defp secret_label(%{expires_at_ms: nil}, _zone, _now_ms), do: t(:secret_current)

  defp secret_label(%{expires_at_ms: until_ms}, zone, now_ms),
    do:
      t(:secret_old,
        time: Format.time(until_ms, zone),
        left: Format.span(max(until_ms - now_ms, 0))
      )

  # --- sending again

  defp recover(assigns) do
    since = Format.to_local(assigns.hook.since, assigns.zone)
    assigns = assign(assigns, since: since, active?: Webhook.active?(assigns.webhook))

    ~H"""
    <.section id="webhook-recover" title={t(:recover_title)} text={t(:recover_text)}>
      <p :if={not @active?} class="text-sm text-gray-700 dark:text-gray-200">
        <%= t(:webhook_disabled) %>
      </p>
      <form
        :if={@active?}
        id="webhook-recover-form"
        phx-submit="webhook.recover_count"
        class="flex flex-wrap items-end gap-3"
      >
        <.field
          id="webhook-since"
          label={t(:recover_since, zone: Format.zone(@zone))}
          class="min-w-[12rem]"
        >
          <.input id="webhook-since" type="datetime-local" name="since" value={@since} required />
        </.field>
        <.button type="submit"><%= t(:recover_count) %></.button>
      </form>
      <div :if={@active? and @hook.recoverable} class="mt-3 text-sm text-gray-900 dark:text-gray-100">
        <p><%= WebhookPage.found_text(@hook.recoverable) %></p>
        <.button
          :if={@hook.recoverable.count > 0}
          id="webhook-recover-confirm"
          theme={:primary}
          class="mt-2"
          phx-click="webhook.recover"
        >
          <%= t(:recover_confirm, count: Texts.deliveries(@hook.recoverable.count)) %>
        </.button>
      </div>
    </.section>
    """
  end
end
