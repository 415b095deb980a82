defmodule PlausibleWeb.Live.WebhookSettings.LogPage do
  @moduledoc false
  # The deliveries, by filters and pages.

  @behaviour PlausibleWeb.Live.WebhookSettings.Page

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components
  import PlausibleWeb.Live.WebhookSettings.Texts, only: [t: 1, t: 2]

  alias Plausible.Webhooks.{Delivery, Event}
  alias Phoenix.LiveView.Socket
  alias PlausibleWeb.Live.WebhookSettings.{FormPage, Format, Log, Page, Safe, State, Texts}
  alias PlausibleWeb.Live.WebhookSettings.Texts.Failures

  @spec open(Socket.t(), %{String.t() => String.t()}) :: Socket.t()
  def open(socket, filters \\ %{}) do
    log = if filters == %{}, do: socket.assigns.log || Log.new(), else: Log.new(filters)

    socket
    |> assign(view: :log, hook: nil, form: nil, detail: nil)
    |> State.hush()
    |> State.load(FormPage, :goals, :goals, [])
    |> ask(Log.asked(log))
  end

  @doc "The page that is shown, read anew."
  @spec refresh(Socket.t()) :: Socket.t()
  def refresh(%{assigns: %{log: %Log{} = log}} = socket), do: ask(socket, log)

  defp ask(socket, log) do
    [filters, page] = Log.question(log, socket.assigns.site.timezone)

    socket
    |> assign(log: log)
    |> State.load(__MODULE__, {:entries, log.number}, :deliveries, [filters, page])
  end

  @impl Page
  def loaded(
        {:entries, number},
        result,
        %{assigns: %{log: %Log{number: number} = log}} = socket
      ) do
    case result do
      {:ok, %{entries: entries, next: next}} ->
        assign(socket, log: %{log | entries: entries, next: next})

      {:error, reason} ->
        socket |> assign(log: %{log | entries: log.entries || []}) |> State.failed(reason)
    end
  end

  def loaded(_older, _result, socket), do: socket

  # --- events

  @impl Page
  def handle("filter", %{"filter" => params}, %{assigns: %{log: %Log{} = log}} = socket),
    do: socket |> State.hush() |> ask(Log.filter(log, params))

  def handle("clear", _params, %{assigns: %{log: %Log{} = log}} = socket),
    do: socket |> State.hush() |> ask(Log.clear(log)) |> State.focus("log-filter-webhook")

  def handle("older", _params, %{assigns: %{log: %Log{} = log}} = socket),
    do: socket |> ask(Log.older(log)) |> State.focus("log-title")

  def handle("newer", _params, %{assigns: %{log: %Log{} = log}} = socket),
    do: socket |> ask(Log.newer(log)) |> State.focus("log-title")

  def handle(_event, _params, socket), do: State.say(socket, t(:refused), :bad)

  # --- what is shown

  attr(:log, Log, required: true)
  attr(:webhooks, :list, required: true)
  attr(:goals, :any, required: true)
  attr(:zone, :string, required: true)
  attr(:now_ms, :integer, required: true)

  def render(assigns) do
    ~H"""
    <div>
      <.heading id="log-title"><%= t(:log_title) %></.heading>
      <.filters log={@log} webhooks={@webhooks} goals={@goals} zone={@zone} />
      <p :if={webhook = chosen(@log, @webhooks)} class="mt-3">
        <.text_button phx-click="page.webhook" phx-value-id={webhook.id}>
          <%= t(:open, name: Safe.short(State.name(webhook), 60)) %>
        </.text_button>
      </p>
      <div class="mt-5" aria-live="polite">
        <p :if={@log.entries == nil} class="text-sm text-gray-700 dark:text-gray-200">
          <%= t(:loading) %>
        </p>
        <p :if={@log.entries == []} class="text-sm text-gray-700 dark:text-gray-200">
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
        aria-label={t(:log_pages)}
        class="mt-4 flex flex-wrap gap-2"
      >
        <.button phx-click="log.newer" disabled={length(@log.cursors) == 1}>
          ← <%= t(:log_newer) %>
        </.button>
        <.button phx-click="log.older" disabled={@log.next == nil}>
          <%= if @log.entries == [], do: t(:log_further), else: t(:log_older) %> →
        </.button>
      </nav>
    </div>
    """
  end

  # The one webhook whose deliveries are shown, where it is one: there what failed is
  # sent again.
  defp chosen(log, webhooks), do: Enum.find(webhooks, &(&1.id == log.filters["webhook"]))

  defp nothing(%{next: next}) when next != nil, do: t(:log_none_yet)
  defp nothing(log), do: if(Log.filtered?(log), do: t(:log_none), else: t(:log_empty))

  defp filters(assigns) do
    ~H"""
    <form
      id="log-filters"
      phx-change="log.filter"
      phx-submit="log.filter"
      aria-label={t(:log_filters)}
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
          options={options}
        />
      </.field>
      <.field
        :for={{name, label} <- [{"since", :filter_since}, {"until", :filter_until}]}
        class="col-span-2 sm:col-span-1"
        id={"log-filter-#{name}"}
        label={t(label, zone: Format.zone(@zone))}
      >
        <.input
          id={"log-filter-#{name}"}
          type="datetime-local"
          name={"filter[#{name}]"}
          value={@log.filters[name]}
          phx-debounce="400"
        />
      </.field>
      <div class="flex items-end">
        <.button :if={Log.filtered?(@log)} phx-click="log.clear"><%= t(:filter_clear) %></.button>
      </div>
    </form>
    """
  end

  defp selects(webhooks, goals) do
    any = {"", t(:filter_any)}
    classes = for class <- ~w(2 3 4 5 none), do: {class, t(:"class_#{class}")}

    [
      {"webhook", t(:filter_webhook),
       [any | Enum.map(webhooks, &{&1.id, Safe.short(State.name(&1), 60)})]},
      {"state", t(:filter_state), [any | Enum.map(Log.states(), &{&1, Texts.state(&1)})]},
      {"type", t(:filter_type), [any | Enum.map(Event.types(), &{&1, Texts.type(&1)})]},
      {"goal", t(:filter_goal), [any | goal_options(goals)]},
      {"status", t(:filter_status), [any | classes]}
    ]
  end

  defp goal_options(goals) when is_list(goals),
    do: Enum.map(goals, &{&1.id, Safe.short(&1.name, 60)})

  defp goal_options(_not_known), do: []

  # A table where there is room; below that every row is a block, whose cells say
  # what they are.
  defp entries(assigns) do
    names = Map.new(assigns.webhooks, &{&1.id, State.name(&1)})
    assigns = assign(assigns, names: names)

    ~H"""
    <table class="mt-2 block md:table w-full text-sm text-left text-gray-700 dark:text-gray-200">
      <caption class="sr-only"><%= t(:log_caption) %></caption>
      <thead class="sr-only md:not-sr-only md:table-header-group">
        <tr class="border-b border-gray-200 dark:border-gray-700">
          <th
            :for={
              column <-
                ~w(column_time column_event column_webhook column_state column_attempts column_answer)a
            }
            scope="col"
            class="py-2 pr-4 font-semibold text-gray-900 dark:text-gray-100"
          >
            <%= t(column) %>
          </th>
        </tr>
      </thead>
      <tbody class="block md:table-row-group divide-y divide-gray-200 dark:divide-gray-700">
        <tr :for={delivery <- @log.entries} id={delivery.id} class="block md:table-row py-3 md:py-0">
          <td class="block md:table-cell md:py-3 pr-4 whitespace-nowrap">
            <.text_button phx-click="page.delivery" phx-value-id={delivery.id}>
              <span class="sr-only"><%= t(:delivery_open) %></span> <%= Format.time(
                delivery.created_at_ms,
                @zone
              ) %>
            </.text_button>
          </td>
          <td class="inline-block md:table-cell md:py-3 pr-4"><%= Texts.type(delivery.type) %></td>
          <td class="inline-block md:table-cell md:py-3 pr-4 break-all">
            <.foreign text={Safe.short(@names[delivery.webhook_id], 60)} />
          </td>
          <td class="block md:table-cell py-1 md:py-3 pr-4">
            <.state delivery={delivery} now_ms={@now_ms} />
          </td>
          <td class="inline-block md:table-cell md:py-3 pr-4">
            <span class="md:sr-only"><%= t(:column_attempts) %>:</span> <%= delivery.attempts %>
          </td>
          <td class="inline-block md:table-cell md:py-3"><%= answer(delivery) %></td>
        </tr>
      </tbody>
    </table>
    """
  end

  attr(:delivery, Delivery, required: true)
  attr(:now_ms, :integer, required: true)

  @doc "The state of a delivery, and when the next attempt comes."
  def state(assigns) do
    ~H"""
    <span class="inline-flex flex-wrap items-center gap-x-2">
      <.badge tone={tone(@delivery.state)}><%= Texts.state(shown(@delivery)) %></.badge>
      <span :if={Log.waiting_delivery?(@delivery)} class="text-xs whitespace-nowrap">
        <%= next(@delivery.next_at_ms - @now_ms) %>
      </span>
    </span>
    """
  end

  # Between two attempts it waits, wherever that is.
  defp shown(%{state: :pending, next_at_ms: next_at_ms}) when next_at_ms != nil, do: :parked
  defp shown(%{state: state}), do: state

  defp tone(:delivered), do: :green
  defp tone(:failed), do: :red
  defp tone(:cancelled), do: :gray
  defp tone(_waiting), do: :yellow

  defp next(ms) when ms <= 0, do: t(:next_attempt_now)
  defp next(ms), do: t(:next_attempt, wait: Format.countdown(ms))

  @doc "What the receiver said the last time, or what kept it from saying anything."
  @spec answer(Delivery.t()) :: String.t()
  def answer(%{attempts: 0, state: state}) when state in [:failed, :cancelled], do: t(:not_sent)
  def answer(%{attempts: 0, last_error: nil}), do: t(:not_tried)
  def answer(%{last_status: nil, last_error: error}), do: Failures.name(error) || t(:no_answer)
  def answer(%{last_status: status}), do: to_string(status)
end
