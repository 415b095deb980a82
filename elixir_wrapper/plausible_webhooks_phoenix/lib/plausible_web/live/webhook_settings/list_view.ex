defmodule PlausibleWeb.Live.WebhookSettings.ListView do
  @moduledoc false
  # The site's webhooks and their state.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.Webhook
  alias PlausibleWeb.Live.WebhookSettings.{Assigns, ForeignText, Labels, WebhookStatus}

  def render(%{webhooks: []} = assigns) do
    ~H"""
    <div class="flex flex-col items-center py-6 max-w-lg mx-auto text-center">
      <h3 class="text-base font-semibold text-gray-900 dark:text-gray-100">No webhooks yet</h3>
      <p class="mt-1 mb-5 text-sm text-gray-600 dark:text-gray-300">
        Have Plausible tell your systems at once when somebody signs up or buys, and when
        traffic spikes or drops. You need a URL that accepts POST requests; everything else is
        two clicks.
      </p>
      <.button id="webhooks-add" theme={:primary} phx-click="page.new">Add webhook</.button>
    </div>
    """
  end

  def render(assigns) do
    ~H"""
    <div>
      <.button id="webhooks-add" theme={:primary} phx-click="page.new">Add webhook</.button>
      <p :if={match?({:error, _}, @activity)} class="mt-3 text-sm text-gray-700 dark:text-gray-200">
        The activity of the last 24 hours cannot be shown now.
      </p>
      <ul class="mt-4 divide-y divide-gray-200 dark:divide-gray-700">
        <li :for={webhook <- @webhooks} id={"webhook-#{webhook.id}"} class="py-5">
          <.entry
            webhook={webhook}
            activity={is_map(@activity) && @activity[webhook.id]}
            zone={@zone}
            now_ms={@now_ms}
          />
        </li>
      </ul>
    </div>
    """
  end

  defp entry(assigns) do
    ~H"""
    <div class="flex flex-wrap items-start justify-between gap-4">
      <div class="min-w-0 flex-1 basis-64">
        <div class="flex flex-wrap items-center gap-2">
          <h3 class="min-w-0 text-base font-semibold text-gray-900 dark:text-gray-100">
            <.text_button
              phx-click="page.webhook"
              phx-value-id={@webhook.id}
              aria-label={"Open #{ForeignText.line(Assigns.name(@webhook))}"}
              class="break-all"
            >
              <.foreign text={Assigns.name(@webhook)} />
            </.text_button>
          </h3>
          <WebhookStatus.state webhook={@webhook} />
        </div>
        <p class="mt-1 text-sm text-gray-700 dark:text-gray-200 break-all">
          <.foreign text={Webhook.destination(@webhook)} />
        </p>
        <p class="mt-2 flex flex-wrap gap-1.5">
          <.badge :for={type <- @webhook.events} tone={:plain}><%= Labels.type(type) %></.badge>
        </p>
        <p
          :if={text = WebhookStatus.why(@webhook, @zone)}
          class="mt-2 text-sm text-gray-700 dark:text-gray-200"
        >
          <%= text %>
        </p>
      </div>
      <div class="basis-80">
        <WebhookStatus.activity :if={@activity} activity={@activity} zone={@zone} now_ms={@now_ms} />
      </div>
    </div>
    """
  end
end
