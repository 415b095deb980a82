defmodule PlausibleWeb.Live.WebhookSettings.List do
  @moduledoc false
  # The site's webhooks and how they have been doing. Those that need their owner come first.

  use PlausibleWeb.Live.WebhookSettings.Page

  alias Plausible.Webhooks.Webhook
  alias PlausibleWeb.Live.WebhookSettings.{ForeignText, Labels, Status}

  @impl true
  def mount(_params, _session, socket) do
    {:ok,
     socket
     |> assign(page_title: "Webhooks · #{socket.assigns.site.domain}", activity: nil)
     |> assign(webhooks: fetch!(socket, :list_webhooks, []))
     |> load(:activity, :activity, [])}
  end

  @impl true
  def handle_info(:refresh, socket) do
    {:noreply, socket |> load(:webhooks, :list_webhooks, []) |> load(:activity, :activity, [])}
  end

  @impl true
  def handle_async(:webhooks, result, socket),
    do: continue(socket, loaded(result), &assign(socket, webhooks: &1))

  def handle_async(key, result, socket), do: super(key, result, socket)

  # --- markup

  @impl true
  def render(%{webhooks: []} = assigns) do
    ~H"""
    <.head title="Webhooks" />
    <.empty title="Create your first webhook">
        Have Plausible tell your own systems at once when somebody signs up or buys, and when
        traffic spikes or drops. You need a URL that accepts POST requests.
        <:action>
          <.button id="webhooks-add" theme={:primary} href={path(@context, ["new"])}>
            Add webhook
          </.button>
        </:action>
      </.empty>
    """
  end

  def render(assigns) do
    assigns = assign(assigns, max: assigns.options.webhooks_per_site_max)

    ~H"""
    <.head title="Webhooks">
      <:subtitle>
        Signed POST requests to your own systems when a goal is completed or traffic changes.
        <%= length(@webhooks) %> of <%= @max %> webhooks.
      </:subtitle>
      <:actions>
        <.button
          :if={length(@webhooks) < @max}
          id="webhooks-add"
          theme={:primary}
          href={path(@context, ["new"])}
        >
          Add webhook
        </.button>
      </:actions>
      </.head>
      <.notice :if={length(@webhooks) >= @max} class="mb-4">
        This site has all of its <%= @max %> webhooks. Delete one to add another.
      </.notice>
      <.notice :if={match?({:error, _}, @activity)} theme={:yellow} class="mb-4">
        The activity of the last 24 hours cannot be shown now.
      </.notice>
      <table class="block md:table w-full text-sm text-left">
        <caption class="sr-only">Webhooks</caption>
        <thead class="sr-only md:not-sr-only md:table-header-group">
          <tr class="border-b border-gray-200 dark:border-gray-700">
            <th :for={{key, title} <- columns()} scope="col" class="py-3 pr-4 font-semibold" aria-sort={sorted(@context, key)}>
              <a :if={key} href={path(@context, [], sort: key)} class="inline-flex items-center min-h-6 hover:underline"><%= title %></a>
              <span :if={key == nil} class={title == "Actions" && "sr-only"}><%= title %></span>
            </th>
          </tr>
        </thead>
        <tbody class="block md:table-row-group divide-y divide-gray-200 dark:divide-gray-700">
          <.row
            :for={webhook <- in_order(@webhooks, @activity, @context.query["sort"], @now_ms)}
            webhook={webhook}
            activity={is_map(@activity) && @activity[webhook.id] || nil}
            context={@context}
            zone={@zone}
            now_ms={@now_ms}
          />
        </tbody>
      </table>
    """
  end

  defp columns do
    [
      {"name", "Webhook"},
      {"state", "State"},
      {"rate", "Last 24 hours"},
      {"last", "Last delivery"},
      {nil, "Actions"}
    ]
  end

  defp sorted(context, key),
    do: if((context.query["sort"] || "state") == key, do: "ascending", else: nil)

  defp in_order(webhooks, activity, sort, now_ms) do
    activity = if is_map(activity), do: activity, else: %{}

    Enum.sort_by(
      webhooks,
      &{key(sort, &1, activity[&1.id], now_ms), String.downcase(Labels.name(&1)), &1.id}
    )
  end

  defp key("name", _webhook, _activity, _now_ms), do: 0

  defp key("rate", _webhook, %{delivered: good, failed: bad}, _now_ms) when good + bad > 0,
    do: good / (good + bad)

  defp key("rate", _webhook, _unknown, _now_ms), do: 2
  defp key("last", _webhook, %{last: %{created_at_ms: ms}}, _now_ms), do: -ms
  defp key("last", _webhook, _unknown, _now_ms), do: 0
  defp key(_state, webhook, _activity, now_ms), do: Status.rank(Status.of(webhook, now_ms))

  defp row(assigns) do
    assigns =
      assign(assigns,
        name: Labels.name(assigns.webhook),
        last: assigns.activity && assigns.activity.last
      )

    ~H"""
    <tr id={"webhook-#{@webhook.id}"} class="block md:table-row py-3 md:py-0">
      <td class="block md:table-cell md:py-1.5 pr-4 md:max-w-56">
        <a
          href={path(@context, [@webhook.id])}
          title={ForeignText.line(@name)}
          class="block truncate font-medium leading-6 hover:underline"
        >
          <.foreign text={@name} />
        </a>
        <span
          class="block truncate text-xs text-gray-500 dark:text-gray-400"
          title={"#{Webhook.destination(@webhook)}#{Labels.path(@webhook)}"}
        >
          <.foreign text={"#{Webhook.destination(@webhook)}#{Labels.path(@webhook)}"} />
        </span>
        <span class="block truncate text-xs text-gray-500 dark:text-gray-400">
          <%= Enum.map_join(@webhook.events, ", ", &Labels.type/1) %>
        </span>
      </td>
      <td class="inline-block md:table-cell md:py-1.5 py-1 pr-4">
        <Status.webhook webhook={@webhook} now_ms={@now_ms} />
      </td>
      <td class="block md:table-cell md:py-1.5 pr-4"><Status.activity activity={@activity} /></td>
      <td class="inline-block md:table-cell md:py-1.5 pr-4">
        <a
          :if={@last}
          href={path(@context, ["deliveries", @last.id])}
          class="inline-flex items-center gap-x-1.5 min-h-6 hover:underline"
        >
          <.shape tone={Status.tone(@last)} class="size-2.5" />
          <span class="md:sr-only"><%= Status.delivery_name(@last) %></span>
          <.ago ms={@last.created_at_ms} zone={@zone} now_ms={@now_ms} />
        </a>
        <span :if={@activity && @last == nil} class="text-gray-500 dark:text-gray-400">None yet</span>
      </td>
      <td class="inline-block md:table-cell md:py-1.5 text-right">
        <span class="inline-flex">
          <.icon_button
            icon={:edit}
            label={"Edit #{ForeignText.line(@name)}"}
            href={path(@context, [@webhook.id, "edit"])}
          />
        </span>
      </td>
    </tr>
    """
  end
end
