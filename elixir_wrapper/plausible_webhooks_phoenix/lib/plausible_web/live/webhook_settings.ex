defmodule PlausibleWeb.Live.WebhookSettings do
  @moduledoc """
  The settings page of a site's webhooks, for LiveView 0.20 to 1.1.

      <%= live_render(@conn, PlausibleWeb.Live.WebhookSettings,
        session: %{
          "site_id" => @site.id,
          "auth" => inspect(Plausible.Webhooks.Host.Plausible.Auth),
          "pubsub" => inspect(Plausible.PubSub)
        }
      ) %>

  The session, which `live_render` signs:

    * `"site_id"` - required.
    * `"auth"` - required: the name of a module with the behaviour
      `PlausibleWeb.Live.WebhookSettings.Auth`, which says who is looking. It gets
      the whole session.
    * `"instance"` - of `Plausible.Webhooks`, default that name.
    * `"pubsub"` - of the observer `Plausible.Webhooks.Updates`; without it the page
      reads anew every few seconds.
    * `"copy"` - `true` where the host's script copies what is in the target of a
      `webhooks:copy` event; there are buttons for it then.

  Modules are named as `inspect/1` shows them; only those that exist and have the
  callbacks are taken.

  ## Who sees it

  Whoever may not `:manage` the webhooks (`c:Plausible.Webhooks.Host.can?/4`) finds
  nothing: `PlausibleWeb.Live.WebhookSettings.NotFound`, a 404. It is asked at the
  mount, connected and not, and again on every event and every update, besides what
  each function of `Plausible.Webhooks` asks by itself. What is lost meanwhile takes
  everything off the page.

  ## What it needs of the host

  Tailwind CSS that finds its classes here, with `dark` as a class, and nothing
  else: no hook, no style or script in line, so it holds under a strict
  Content-Security-Policy.
  """

  # What is typed in may hold secrets and tokens: none of the log's business.
  use Phoenix.LiveView, log: false

  import PlausibleWeb.Live.WebhookSettings.Components
  import PlausibleWeb.Live.WebhookSettings.Texts, only: [t: 1]

  alias Phoenix.LiveView.JS
  alias Plausible.Webhooks.Updates

  alias PlausibleWeb.Live.WebhookSettings.{
    Context,
    DeliveryPage,
    FormPage,
    FormView,
    ListPage,
    Log,
    LogPage,
    NotFound,
    State,
    TestPanel,
    WebhookPage,
    WebhookView
  }

  @pages %{
    "form" => FormPage,
    "webhook" => WebhookPage,
    "log" => LogPage,
    "delivery" => DeliveryPage
  }
  # Messages come at the pace of the attempts: what they change is read once for all
  # of them, and less often where they are so many that not each is sent.
  @collect_ms 400
  @flood_ms 2_000
  @poll_ms 5_000
  @second_ms 1_000
  @minute_ms 60_000

  @impl true
  def mount(_params, session, socket) do
    socket = assign(socket, empty())

    case Context.from(session, socket) do
      {:ok, context} -> {:ok, begin(assign(socket, context: context))}
      {:error, :unavailable} -> {:ok, assign(socket, view: :unavailable)}
      {:error, :not_found} -> raise NotFound
    end
  end

  defp empty do
    %{
      context: nil,
      site: nil,
      view: :list,
      lost?: false,
      message: nil,
      focus: nil,
      webhooks: [],
      activity: nil,
      goals: nil,
      figures: nil,
      form: nil,
      hook: nil,
      log: nil,
      detail: nil,
      loading: MapSet.new(),
      again: MapSet.new(),
      collecting?: false,
      ticking: nil,
      pace: nil,
      now_ms: System.system_time(:millisecond)
    }
  end

  # The webhooks are there with the first answer; what takes longer follows.
  defp begin(%{assigns: %{context: context}} = socket) do
    with :ok <- State.permission(socket),
         {:ok, site} <- State.call(socket, :site, []),
         {:ok, webhooks} <- State.call(socket, :list_webhooks, []) do
      if connected?(socket), do: follow(context)
      socket = assign(socket, site: site, webhooks: webhooks)
      if connected?(socket), do: ListPage.refresh(socket), else: socket
    else
      {:error, reason} when reason not in [:forbidden, :not_found] ->
        assign(socket, view: :unavailable)

      _not_theirs ->
        raise NotFound
    end
  end

  defp follow(%{pubsub: nil}), do: Process.send_after(self(), :poll, @poll_ms)
  defp follow(context), do: Updates.subscribe(context.pubsub, context.instance, context.site_id)

  # --- events

  # The role is asked on every one, whatever it does.
  @impl true
  def handle_event(_event, _params, %{assigns: %{context: nil}} = socket),
    do: {:noreply, socket}

  def handle_event(event, params, socket) do
    socket = assign(socket, now_ms: System.system_time(:millisecond))

    socket =
      case State.permission(socket) do
        :ok -> event |> String.split(".", parts: 2) |> dispatch(params, socket) |> tick()
        {:error, reason} -> State.failed(socket, reason)
      end

    {:noreply, socket}
  end

  defp dispatch(["page", event], params, socket), do: page(event, params, socket)

  # An event of a view belongs to that view: what comes late, or is forged, finds
  # nothing that it could change.
  defp dispatch([view, event], params, %{assigns: %{view: shown}} = socket)
       when is_map_key(@pages, view) and is_map(params) do
    if view == Atom.to_string(shown),
      do: Map.fetch!(@pages, view).handle(event, params, socket),
      else: State.say(socket, t(:refused), :bad)
  end

  defp dispatch(_unknown, _params, socket), do: State.say(socket, t(:refused), :bad)

  defp page("list", _params, socket),
    do: socket |> ListPage.open() |> State.hush() |> State.focus("webhooks-title")

  defp page("new", _params, socket), do: FormPage.open_new(socket)

  defp page("log", %{"webhook" => id}, socket) when is_binary(id),
    do: socket |> LogPage.open(%{"webhook" => id}) |> State.focus("log-title")

  defp page("log", _params, socket), do: socket |> LogPage.open() |> State.focus("log-title")
  defp page("delivery", %{"id" => id}, socket), do: DeliveryPage.open(socket, id)

  defp page("webhook", %{"id" => id}, socket) when is_binary(id) do
    case State.call(socket, :get_webhook, [id]) do
      {:ok, webhook} -> WebhookPage.open(socket, webhook)
      {:error, reason} -> State.failed(socket, reason)
    end
  end

  defp page("cancel_form", _params, %{assigns: %{form: %{id: id}}} = socket) when id != nil,
    do: back_to(socket, id)

  defp page("cancel_form", params, socket), do: page("list", params, socket)

  defp page("back", params, %{assigns: %{detail: %{back: back}}} = socket) do
    case back do
      {:webhook, id} -> back_to(socket, id)
      :log -> page("log", %{}, socket)
      :list -> page("list", params, socket)
    end
  end

  defp page(_unknown, _params, socket), do: State.say(socket, t(:refused), :bad)

  # One that is gone, or cannot be read now: there is the list.
  defp back_to(socket, id) do
    case State.call(socket, :get_webhook, [id]) do
      {:ok, webhook} ->
        socket |> assign(form: nil, detail: nil) |> WebhookPage.open(webhook)

      {:error, reason} ->
        socket |> ListPage.open() |> State.focus("webhooks-title") |> State.failed(reason)
    end
  end

  # --- what comes by itself

  @impl true
  def handle_async({page, tag} = key, result, socket) do
    {socket, again?} = State.ended(assign(socket, now_ms: System.system_time(:millisecond)), key)

    socket =
      cond do
        socket.assigns.lost? -> socket
        match?({:ok, _}, result) -> page.loaded(tag, elem(result, 1), socket)
        true -> page.loaded(tag, {:error, :crashed}, socket)
      end

    {:noreply, tick(if(again?, do: collect(socket, @collect_ms), else: socket))}
  end

  @impl true
  def handle_info({:plausible_webhooks, _kind, metadata}, socket) do
    flood? = Map.get(metadata, :missed, 0) > 0
    {:noreply, collect(socket, if(flood?, do: @flood_ms, else: @collect_ms))}
  end

  def handle_info(:collected, socket),
    do: {:noreply, refresh(assign(socket, collecting?: false))}

  def handle_info(:poll, socket) do
    Process.send_after(self(), :poll, @poll_ms)
    {:noreply, refresh(socket)}
  end

  def handle_info({:tick, ref}, %{assigns: %{ticking: ref}} = socket) do
    socket = assign(socket, now_ms: System.system_time(:millisecond), ticking: nil)
    {:noreply, socket |> conceal() |> tick()}
  end

  def handle_info(_other, socket), do: {:noreply, socket}

  # What is revealed does not stay before the eyes of who has lost the right.
  defp conceal(%{assigns: %{view: view}} = socket) when view in [:webhook, :delivery] do
    if State.permission(socket) == {:error, :forbidden}, do: State.lost(socket), else: socket
  end

  defp conceal(socket), do: socket

  defp collect(%{assigns: %{collecting?: true}} = socket, _ms), do: socket

  defp collect(socket, ms) do
    Process.send_after(self(), :collected, ms)
    assign(socket, collecting?: true)
  end

  # Who has lost the right is shown nothing new either.
  defp refresh(%{assigns: %{lost?: true}} = socket), do: socket

  defp refresh(socket) do
    case State.permission(socket) do
      :ok -> socket |> refresh_view() |> tick()
      {:error, :forbidden} -> State.lost(socket)
      {:error, _not_known_now} -> tick(socket)
    end
  end

  # Each view what it shows: the figures of 24 hours are not read for the log.
  defp refresh_view(%{assigns: %{view: :log}} = socket),
    do: socket |> ListPage.refresh_webhooks() |> LogPage.refresh()

  defp refresh_view(%{assigns: %{view: :delivery}} = socket),
    do: socket |> ListPage.refresh_webhooks() |> DeliveryPage.refresh()

  defp refresh_view(%{assigns: %{view: :form}} = socket), do: ListPage.refresh_webhooks(socket)
  defp refresh_view(socket), do: ListPage.refresh(socket)

  # --- the clock

  # Ticks as long as something that is shown counts down, and no longer.
  defp tick(%{assigns: %{ticking: nil} = assigns} = socket) do
    case pace(assigns) do
      nil ->
        socket

      ms ->
        ref = make_ref()
        Process.send_after(self(), {:tick, ref}, ms)
        assign(socket, ticking: ref, pace: ms)
    end
  end

  # One that is to come sooner than the one that is under way.
  defp tick(%{assigns: assigns} = socket) do
    case pace(assigns) do
      ms when is_integer(ms) and ms < assigns.pace -> tick(assign(socket, ticking: nil))
      _as_it_is -> socket
    end
  end

  defp pace(%{view: :log, log: %Log{} = log}), do: if(Log.waiting?(log), do: @second_ms)

  defp pace(%{view: :delivery, detail: %{delivery: delivery}}),
    do: if(Log.waiting_delivery?(delivery), do: @second_ms)

  defp pace(%{view: :webhook, hook: %{test: test}, now_ms: now_ms} = assigns) do
    if TestPanel.wait_ms(test, now_ms) > 0 or last_waiting?(assigns),
      do: @second_ms,
      else: @minute_ms
  end

  defp pace(%{view: :list} = assigns), do: if(last_waiting?(assigns), do: @second_ms)
  defp pace(_nothing_counts), do: nil

  defp last_waiting?(%{activity: activity}) when is_map(activity) do
    Enum.any?(activity, fn {_id, %{last: last}} ->
      last != nil and Log.waiting_delivery?(last)
    end)
  end

  defp last_waiting?(_not_known), do: false

  # --- what is shown

  @impl true
  def render(%{view: view} = assigns) when view in [:lost, :unavailable] do
    ~H"""
    <div id="webhook-settings" class="text-gray-900 dark:text-gray-100">
      <.notice theme={:yellow} role="alert">
        <%= if @view == :lost, do: t(:lost), else: t(:unavailable) %>
      </.notice>
    </div>
    """
  end

  def render(assigns) do
    ~H"""
    <div
      id="webhook-settings"
      class="shadow-sm bg-white dark:bg-gray-900 text-gray-900 dark:text-gray-100 rounded-md"
    >
      <header class="py-4 px-4 sm:px-6 border-b border-gray-200 dark:border-gray-700">
        <p class="text-lg font-semibold"><%= t(:title) %></p>
        <p class="mt-px text-sm text-gray-600 dark:text-gray-300"><%= t(:subtitle) %></p>
        <nav aria-label={t(:tabs)} class="mt-3 flex flex-wrap gap-2">
          <.tab event="page.list" current?={@view in [:list, :form, :webhook]}>
            <%= t(:tab_webhooks) %>
          </.tab>
          <.tab event="page.log" current?={@view in [:log, :delivery]}>
            <%= t(:tab_deliveries) %>
          </.tab>
        </nav>
      </header>
      <.focus focus={@focus} />
      <div class="p-4 sm:p-6">
        <div role="status" aria-live="polite" id="webhook-message">
          <.notice
            :if={@message}
            theme={if @message.tone == :good, do: :green, else: :red}
            class="mb-5"
          >
            <%= @message.text %>
          </.notice>
        </div>
        <%= view(assigns) %>
      </div>
    </div>
    """
  end

  defp view(%{view: :list} = assigns) do
    ~H"""
    <ListPage.render webhooks={@webhooks} activity={@activity} zone={@site.timezone} now_ms={@now_ms} />
    """
  end

  defp view(%{view: :form} = assigns) do
    ~H"""
    <FormView.render form={@form} goals={@goals} figures={@figures} />
    """
  end

  defp view(%{view: :webhook} = assigns) do
    assigns = assign(assigns, webhook: State.webhook(assigns, assigns.hook.id))

    ~H"""
    <WebhookView.render
      :if={@webhook}
      hook={@hook}
      webhook={@webhook}
      activity={@activity}
      zone={@site.timezone}
      now_ms={@now_ms}
      copy?={@context.copy?}
    />
    <div :if={@webhook == nil}>
      <.notice theme={:yellow}><%= t(:gone) %></.notice>
      <div class="mt-3">
        <.button phx-click="page.list"><%= t(:back_to_webhooks) %></.button>
      </div>
    </div>
    """
  end

  defp view(%{view: :log} = assigns) do
    ~H"""
    <LogPage.render
      log={@log}
      webhooks={@webhooks}
      goals={@goals}
      zone={@site.timezone}
      now_ms={@now_ms}
    />
    """
  end

  defp view(%{view: :delivery} = assigns) do
    ~H"""
    <DeliveryPage.render
      detail={@detail}
      webhook={State.webhook(assigns, @detail.delivery.webhook_id)}
      goals={@goals}
      zone={@site.timezone}
      now_ms={@now_ms}
      copy?={@context.copy?}
    />
    """
  end

  attr(:event, :string, required: true)
  attr(:current?, :boolean, required: true)
  slot(:inner_block, required: true)

  defp tab(assigns) do
    ~H"""
    <button
      type="button"
      phx-click={@event}
      aria-current={@current? && "page"}
      class={[
        "rounded-md px-3 py-1.5 text-sm font-medium cursor-pointer focus-visible:outline-none focus-visible:ring-2 focus-visible:ring-indigo-500",
        if(@current?,
          do:
            "bg-indigo-100 text-indigo-900 underline underline-offset-4 dark:bg-gray-700 dark:text-white",
          else: "text-gray-700 hover:bg-gray-100 dark:text-gray-200 dark:hover:bg-gray-800"
        )
      ]}
    >
      <%= render_slot(@inner_block) %>
    </button>
    """
  end

  # An element that is new whenever the focus is to go somewhere, and sends it there.
  defp focus(%{focus: nil} = assigns), do: ~H""

  defp focus(assigns) do
    ~H"""
    <span id={"webhook-focus-#{@focus.number}"} phx-mounted={JS.focus(to: "##{@focus.id}")} hidden>
    </span>
    """
  end
end
