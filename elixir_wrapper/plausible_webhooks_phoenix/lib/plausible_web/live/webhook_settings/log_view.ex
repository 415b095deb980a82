defmodule PlausibleWeb.Live.WebhookSettings.LogView do
  @moduledoc false
  # The delivery log, with filters and pages.

  @behaviour PlausibleWeb.Live.WebhookSettings.View

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Phoenix.LiveView.Socket
  alias Plausible.Webhooks.Event

  alias PlausibleWeb.Live.WebhookSettings.{
    Assigns,
    DeliveryStatus,
    ForeignText,
    Format,
    Labels,
    LogFilters,
    View
  }

  @doc "Opens the log; without filters as it was left."
  @spec open(Socket.t(), %{String.t() => String.t()}) :: Socket.t()
  def open(socket, filters \\ %{}) do
    query = (filters == %{} && socket.assigns.log) || LogFilters.new(filters)

    socket
    |> assign(view: :log, webhook: nil, form: nil, delivery: nil, message: nil)
    |> Assigns.focus("log-title")
    |> Assigns.load(:goals)
    |> read(LogFilters.renumber(query))
  end

  @doc "Reads the shown page again."
  @spec refresh(Socket.t()) :: Socket.t()
  def refresh(%{assigns: %{log: %LogFilters{} = query}} = socket), do: read(socket, query)

  defp read(socket, query) do
    arguments = LogFilters.arguments(query, socket.assigns.zone)

    socket
    |> assign(log: query)
    |> Assigns.load(__MODULE__, {:entries, query.number}, :deliveries, arguments)
  end

  @impl View
  def loaded({:entries, n}, result, %{assigns: %{log: %LogFilters{number: n} = query}} = socket) do
    case result do
      {:ok, %{entries: entries, next: next}} ->
        assign(socket, log: %{query | entries: entries, next: next})

      {:error, reason} ->
        socket
        |> assign(log: %{query | entries: query.entries || []})
        |> Assigns.failed(reason)
    end
  end

  def loaded(_older, _result, socket), do: socket

  # --- events

  @impl View
  def handle("filter", %{"filter" => params}, %{assigns: %{log: query}} = socket),
    do: socket |> assign(message: nil) |> read(LogFilters.filter(query, params))

  def handle("clear", _params, %{assigns: %{log: query}} = socket) do
    socket
    |> assign(message: nil)
    |> read(LogFilters.clear(query))
    |> Assigns.focus("log-filter-webhook")
  end

  def handle("older", _params, %{assigns: %{log: query}} = socket),
    do: socket |> read(LogFilters.older(query)) |> Assigns.focus("log-title")

  def handle("newer", _params, %{assigns: %{log: query}} = socket),
    do: socket |> read(LogFilters.newer(query)) |> Assigns.focus("log-title")

  def handle(_event, _params, socket), do: Assigns.refuse(socket)

  # --- markup

  def render(assigns) do
    ~H"""
    <div>
      <.heading id="log-title">Deliveries</.heading>
      <.filters log={@log} webhooks={@webhooks} goals={@goals} zone={@zone} />
      <p :if={webhook = chosen(@log, @webhooks)} class="mt-3">
        <.text_button phx-click="page.webhook" phx-value-id={webhook.id}>
          Open <%= ForeignText.short(Assigns.name(webhook), 60) %>
        </.text_button>
      </p>
      <div class="mt-5" aria-live="polite">
        <p :if={@log.entries in [nil, []]} class="text-sm text-gray-700 dark:text-gray-200">
          <%= nothing(@log) %>
        </p>
      </div>
      <.entries
        :if={@log.entries not in [nil, []]}
        log={@log}
        webhooks={@webhooks}
        zone={@zone}
        now_ms={@now_ms}
      />
      <nav
        :if={@log.next != nil or length(@log.cursors) > 1}
        aria-label="Pages of deliveries"
        class="mt-4 flex flex-wrap gap-2"
      >
        <.button phx-click="log.newer" disabled={length(@log.cursors) == 1}>← Newer</.button>
        <.button phx-click="log.older" disabled={@log.next == nil}>
          <%= if @log.entries == [], do: "Search further back", else: "Older" %> →
        </.button>
      </nav>
    </div>
    """
  end

  # The log of a single webhook links to it: failed deliveries are sent again there.
  defp chosen(log, webhooks), do: Enum.find(webhooks, &(&1.id == log.filters["webhook"]))

  defp nothing(%{entries: nil}), do: "Loading …"

  defp nothing(%{next: next}) when next != nil,
    do: "Nothing found so far. You can search further back."

  defp nothing(log) do
    if LogFilters.filtered?(log),
      do: "No delivery matches these filters.",
      else:
        "Nothing has been sent yet. Send a test from a webhook's page to see how it looks here."
  end

  defp filters(assigns) do
    ~H"""
    <form
      id="log-filters"
      phx-change="log.filter"
      phx-submit="log.filter"
      aria-label="Filters"
      class="mt-4 grid grid-cols-2 gap-3 lg:grid-cols-4"
    >
      <.field
        :for={{name, label, options} <- selects(@webhooks, @goals)}
        id={"log-filter-#{name}"}
        label={label}
      >
        <.select
          id={"log-filter-#{name}"}
          name={"filter[#{name}]"}
          value={@log.filters[name]}
          options={[{"", "Any"} | options]}
        />
      </.field>
      <.text_field
        :for={{name, label} <- [{"since", "From"}, {"until", "Until"}]}
        id={"log-filter-#{name}"}
        label={"#{label} (#{Format.zone(@zone)})"}
        class="col-span-2 sm:col-span-1"
        type="datetime-local"
        name={"filter[#{name}]"}
        value={@log.filters[name]}
        phx-debounce="400"
      />
      <div class="flex items-end">
        <.button :if={LogFilters.filtered?(@log)} phx-click="log.clear">Clear filters</.button>
      </div>
    </form>
    """
  end

  @classes [
    {"2", "2xx: arrived"},
    {"3", "3xx: redirects"},
    {"4", "4xx: refused"},
    {"5", "5xx: server errors"},
    {"none", "No answer"}
  ]

  defp selects(webhooks, goals) do
    goals = if is_list(goals), do: goals, else: []

    [
      {"webhook", "Webhook",
       for(w <- webhooks, do: {w.id, ForeignText.short(Assigns.name(w), 60)})},
      {"state", "State", for(state <- LogFilters.states(), do: {state, Labels.state(state)})},
      {"type", "Event", for(type <- Event.types(), do: {type, Labels.type(type)})},
      {"goal", "Goal", for(goal <- goals, do: {goal.id, ForeignText.short(goal.name, 60)})},
      {"status", "Answer", @classes}
    ]
  end

  # A table where there is room. On a small screen each row is a block, whose cells say what
  # they are.
  defp entries(assigns) do
    assigns = assign(assigns, names: Map.new(assigns.webhooks, &{&1.id, Assigns.name(&1)}))

    ~H"""
    <table class="mt-2 block md:table w-full text-sm text-left text-gray-700 dark:text-gray-200">
      <caption class="sr-only">Deliveries, newest first</caption>
      <thead class="sr-only md:not-sr-only md:table-header-group">
        <tr class="border-b border-gray-200 dark:border-gray-700">
          <th
            :for={column <- ["Created", "Event", "Webhook", "State", "Attempts", "Last answer"]}
            scope="col"
            class="py-2 pr-4 font-semibold text-gray-900 dark:text-gray-100"
          >
            <%= column %>
          </th>
        </tr>
      </thead>
      <tbody class="block md:table-row-group divide-y divide-gray-200 dark:divide-gray-700">
        <tr :for={delivery <- @log.entries} id={delivery.id} class="block md:table-row py-3 md:py-0">
          <td class="block md:table-cell md:py-3 pr-4 whitespace-nowrap">
            <.text_button phx-click="page.delivery" phx-value-id={delivery.id}>
              <span class="sr-only">Open the delivery of</span> <%= Format.time(
                delivery.created_at_ms,
                @zone
              ) %>
            </.text_button>
          </td>
          <td class="inline-block md:table-cell md:py-3 pr-4"><%= Labels.type(delivery.type) %></td>
          <td class="inline-block md:table-cell md:py-3 pr-4 break-all">
            <.foreign text={ForeignText.short(@names[delivery.webhook_id], 60)} />
          </td>
          <td class="block md:table-cell py-1 md:py-3 pr-4">
            <DeliveryStatus.state delivery={delivery} now_ms={@now_ms} />
          </td>
          <td class="inline-block md:table-cell md:py-3 pr-4">
            <span class="md:sr-only">Attempts:</span> <%= delivery.attempts %>
          </td>
          <td class="inline-block md:table-cell md:py-3"><%= DeliveryStatus.answer(delivery) %></td>
        </tr>
      </tbody>
    </table>
    """
  end
end
