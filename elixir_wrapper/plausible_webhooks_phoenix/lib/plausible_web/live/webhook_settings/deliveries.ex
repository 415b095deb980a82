defmodule PlausibleWeb.Live.WebhookSettings.Deliveries do
  @moduledoc false
  # The delivery log. Its address has the filters and the page. While one reads, no row moves:
  # new deliveries are counted, and shown on demand.

  use PlausibleWeb.Live.WebhookSettings.Page

  alias Plausible.Webhooks.Event
  alias PlausibleWeb.Live.WebhookSettings.{ForeignText, Format, Labels, Status}

  @limit 25
  # A refresh looks for the shown rows among these, behind the new ones.
  @refresh_limit 100

  # entries: nil until the first read. fresh: how many newer ones there are.
  @impl true
  def mount(_params, _session, %{assigns: %{context: %{query: query}}} = socket) do
    {:ok,
     socket
     |> assign(page_title: "Deliveries · Webhooks · #{socket.assigns.site.domain}", goals: nil)
     |> assign(filters: filters_of(query), cursor: cursor(query), fresh: 0, next: nil)
     |> assign(entries: nil, webhooks: fetch!(socket, :list_webhooks, []))
     |> load(:goals, :goals, [])
     |> read(@limit)}
  end

  defp cursor(%{"after" => cursor}) when is_binary(cursor), do: cursor
  defp cursor(_query), do: nil

  # A delivery is found by its id alone, whatever else is chosen.
  defp read(%{assigns: %{filters: %{"id" => id} = filters}} = socket, _limit),
    do: load(socket, {:found, filters}, :delivery, [id])

  defp read(%{assigns: %{filters: filters, cursor: cursor, zone: zone}} = socket, limit) do
    page = %{after: cursor, limit: limit, bodies: true}

    load(socket, {:page, filters, cursor, limit}, :deliveries, [
      to_query(filters, zone),
      page
    ])
  end

  @impl true
  def handle_info(:refresh, %{assigns: %{entries: nil}} = socket),
    do: {:noreply, read(socket, @limit)}

  def handle_info(:refresh, socket), do: {:noreply, read(socket, @refresh_limit)}

  # --- events

  @impl true
  def handle_event("filter", params, %{assigns: %{filters: before}} = socket) do
    case filters_of(params["filter"]) do
      # A form that is sent again after a reconnect changes nothing, the page included.
      ^before -> {:noreply, socket}
      filters -> {:noreply, socket |> assign(filters: filters, cursor: nil) |> afresh()}
    end
  end

  def handle_event("fresh", _params, socket), do: {:noreply, afresh(socket)}
  def handle_event(event, params, socket), do: super(event, params, socket)

  defp afresh(%{assigns: %{filters: filters}} = socket) do
    socket
    |> assign(entries: nil, next: nil, fresh: 0)
    |> push_event("webhooks:address", %{to: path(socket, ["deliveries"], filters)})
    |> read(@limit)
  end

  # --- results

  @impl true
  def handle_async({:found, filters}, result, %{assigns: %{filters: filters}} = socket) do
    case loaded(result) do
      {:ok, delivery} -> {:noreply, assign(socket, entries: [delivery], next: nil)}
      {:error, :not_found} -> {:noreply, assign(socket, entries: [], next: nil)}
      {:error, reason} -> {:noreply, not_read(socket, reason)}
    end
  end

  def handle_async(
        {:page, filters, cursor, limit},
        result,
        %{assigns: %{filters: filters, cursor: cursor}} = socket
      ) do
    case loaded(result) do
      {:ok, page} when limit == @limit ->
        {:noreply, assign(socket, entries: page.entries, next: page.next, fresh: 0)}

      {:ok, page} ->
        {:noreply, renewed(socket, page.entries)}

      # A cursor of another log, or none at all.
      {:error, reason} when cursor != nil and reason == :invalid_cursor ->
        {:noreply, socket |> assign(cursor: nil) |> afresh()}

      {:error, reason} ->
        {:noreply, not_read(socket, reason)}
    end
  end

  def handle_async(:goals, result, socket), do: super(:goals, result, socket)
  # The filters have changed since.
  def handle_async(_older, _result, socket), do: {:noreply, socket}

  defp not_read(socket, reason),
    do: socket |> assign(entries: socket.assigns.entries || []) |> failed(reason)

  # Nobody reads an empty page.
  defp renewed(%{assigns: %{entries: shown}} = socket, found) when shown in [nil, []],
    do: assign(socket, entries: Enum.take(found, @limit))

  defp renewed(%{assigns: %{entries: shown}} = socket, found) do
    by_id = Map.new(found, &{&1.id, &1})
    ids = MapSet.new(shown, & &1.id)
    fresh = found |> Enum.take_while(&(not MapSet.member?(ids, &1.id))) |> length()
    assign(socket, entries: Enum.map(shown, &Map.get(by_id, &1.id, &1)), fresh: fresh)
  end

  # --- filters

  @names ~w(id webhook state type goal status since until)
  @class_codes %{"2" => 2, "3" => 3, "4" => 4, "5" => 5, "none" => :none}
  @int64_max 9_223_372_036_854_775_807

  # Values come from outside: what is no text is ignored, and unknown values filter nothing.
  defp filters_of(params) when is_map(params) do
    for name <- @names,
        is_binary(params[name]),
        value = String.trim(params[name]),
        value != "",
        into: %{} do
      {name, value}
    end
  end

  defp filters_of(_no_form), do: %{}

  defp to_query(filters, zone) do
    wanted = %{
      webhook_id: filters["webhook"],
      states: one_of(filters["state"], Keyword.keys(Status.deliveries())),
      types: one_of(filters["type"], Event.types()),
      goal_id: id(filters["goal"] || ""),
      status_class: @class_codes[filters["status"]],
      since_ms: time(filters["since"], zone),
      until_ms: time(filters["until"], zone)
    }

    Map.filter(wanted, fn {_key, value} -> value end)
  end

  defp one_of(name, known), do: Enum.find_value(known, &(to_string(&1) == name && [&1]))

  defp id(text) do
    case byte_size(text) <= 20 and Integer.parse(text) do
      {id, ""} when id in 1..@int64_max -> id
      _other -> nil
    end
  end

  defp time(text, zone) do
    case Format.from_local(text, zone) do
      {:ok, ms} -> ms
      :error -> nil
    end
  end

  # --- markup

  @impl true
  def render(assigns) do
    ~H"""
    <.head title="Deliveries">
      <:subtitle>Every event that was sent, and every attempt, newest first.</:subtitle>
    </.head>
      <.filters filters={@filters} webhooks={@webhooks} goals={@goals} zone={@zone} context={@context} />
      <div class="mt-4 flex flex-wrap items-center justify-between gap-3 min-h-6 text-sm" aria-live="polite">
        <p class="text-gray-600 dark:text-gray-300"><%= total(@entries, @next, @cursor) %></p>
        <.text_link :if={@filters != %{}} id="log-clear" href={path(@context, ["deliveries"])}>
          Clear filters
        </.text_link>
        <.text_link :if={@fresh > 0 and @cursor == nil} id="log-fresh" phx-click="fresh">
          <%= Labels.count(@fresh, "new delivery", "new deliveries") %>: show
        </.text_link>
      </div>
      <.empty :if={@entries == []} title={nothing_title(@filters, @next)}>
        <%= nothing(@filters, @next) %>
      </.empty>
      <.entries
        :if={@entries not in [nil, []]}
        entries={@entries}
        names={Labels.names(@webhooks)}
        context={@context}
        zone={@zone}
        now_ms={@now_ms}
      />
      <nav :if={@next || @cursor} aria-label="Pages of deliveries" class="mt-4 flex flex-wrap gap-2">
        <.button :if={@cursor} href={path(@context, ["deliveries"], @filters)}>← Newest</.button>
        <.button :if={@next} href={path(@context, ["deliveries"], Map.put(@filters, "after", @next))}>
          <%= if @entries == [], do: "Search further back", else: "Older" %> →
        </.button>
      </nav>
    """
  end

  defp total(nil, _next, _cursor), do: "Loading …"
  defp total([], _next, _cursor), do: nil
  defp total(_entries, _next, cursor) when cursor != nil, do: "Older deliveries"
  defp total(entries, nil, _cursor), do: Labels.deliveries(length(entries))

  defp total(entries, _next, _cursor),
    do: String.capitalize(Labels.deliveries(length(entries), true))

  defp nothing_title(filters, nil) when filters == %{}, do: "Nothing has been sent yet"
  defp nothing_title(_filters, nil), do: "No delivery found"
  defp nothing_title(_filters, _next), do: "Nothing found so far"

  defp nothing(filters, nil) when filters == %{},
    do: "Send a test from a webhook's page to see how it looks here."

  defp nothing(%{"id" => _id}, nil),
    do: "No delivery of this site has this webhook-id. Enter the whole id, such as msg_01J…"

  defp nothing(_filters, nil), do: "No delivery matches these filters."
  defp nothing(_filters, _next), do: "You can search further back."

  defp filters(assigns) do
    ~H"""
    <form
      id="log-filters"
      phx-change="filter"
      phx-submit="filter"
      aria-label="Filters"
      class="grid grid-cols-2 gap-3 lg:grid-cols-4"
    >
      <.text_field
        id="log-filter-id"
        label="Search"
        class="col-span-2 lg:col-span-1"
        type="search"
        name="filter[id]"
        value={@filters["id"]}
        placeholder="webhook-id, such as msg_01J…"
        maxlength="100"
        phx-debounce="300"
      />
      <.field
        :for={{name, label, options} <- selects(@webhooks, @goals)}
        id={"log-filter-#{name}"}
        label={label}
      >
        <.select
          id={"log-filter-#{name}"}
          name={"filter[#{name}]"}
          value={@filters[name]}
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
        value={@filters[name]}
        phx-debounce="400"
      />
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
       for({id, name} <- Labels.names(webhooks), do: {id, ForeignText.short(name, 60)})},
      {"state", "State", Status.deliveries()},
      {"type", "Event", for(type <- Event.types(), do: {type, Labels.type(type)})},
      {"goal", "Goal", for(goal <- goals, do: {goal.id, ForeignText.short(goal.name, 60)})},
      {"status", "Answer", @classes}
    ]
  end

  # A table where there is room. On a small screen each row is a block, whose cells say what
  # they are.
  defp entries(assigns) do
    ~H"""
    <table class="mt-2 block md:table w-full text-sm text-left">
      <caption class="sr-only">Deliveries, newest first</caption>
      <thead class="sr-only md:not-sr-only md:table-header-group">
        <tr class="border-b border-gray-200 dark:border-gray-700">
          <th
            :for={column <- ["Time", "Event", "Webhook", "State", "Attempts", "Last answer"]}
            scope="col"
            class="py-3 pr-4 font-semibold whitespace-nowrap"
          >
            <%= column %>
          </th>
        </tr>
      </thead>
      <tbody class="block md:table-row-group divide-y divide-gray-200 dark:divide-gray-700">
        <tr :for={delivery <- @entries} id={delivery.id} class="block md:table-row py-3 md:py-0">
          <td class="block md:table-cell md:py-3 pr-4 whitespace-nowrap">
            <.text_link href={path(@context, ["deliveries", delivery.id])}>
              <span class="sr-only">Open the delivery of</span>
              <.ago ms={delivery.created_at_ms} zone={@zone} now_ms={@now_ms} />
            </.text_link>
          </td>
          <td class="inline-block md:table-cell md:py-3 pr-4 md:max-w-56">
            <%= Labels.type(delivery.type) %>
            <span class="block truncate text-xs text-gray-500 dark:text-gray-400">
              <.foreign text={Labels.about(delivery)} />
            </span>
          </td>
          <td class="inline-block md:table-cell md:py-3 pr-4 md:max-w-40 truncate">
            <.foreign text={@names[delivery.webhook_id]} />
          </td>
          <td class="block md:table-cell py-1 md:py-3 pr-4">
            <Status.delivery delivery={delivery} now_ms={@now_ms} />
          </td>
          <td class="inline-block md:table-cell md:py-3 pr-4">
            <span class="md:sr-only">Attempts:</span> <%= delivery.attempts %>
          </td>
          <td class="inline-block md:table-cell md:py-3"><%= Status.answer(delivery) %></td>
        </tr>
      </tbody>
    </table>
    """
  end
end
