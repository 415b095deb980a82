defmodule PlausibleWeb.Live.WebhookSettings do
  @moduledoc """
  The settings page of a site's webhooks, for LiveView 0.20 to 1.1.

      <%= live_render(@conn, PlausibleWeb.Live.WebhookSettings,
        session: %{
          "site_id" => @site.id,
          "auth" => inspect(MyApp.WebhooksAuth),
          "pubsub" => inspect(MyApp.PubSub)
        }
      ) %>

  The session, which `live_render` signs:

    * `"site_id"` - required.
    * `"auth"` - required: the name of a module with the behaviour
      `PlausibleWeb.Live.WebhookSettings.Auth`, which returns the actor. It gets the whole
      session.
    * `"instance"` - the name of the instance, default `Plausible.Webhooks`.
    * `"pubsub"` - the PubSub of the observer `Plausible.Webhooks.Updates`. Without it the
      page reads everything again every few seconds.
    * `"copy"` - `"page"`: the page has buttons to copy, and brings their script inline.
      `true`: it has the buttons, and the host loads `priv/static/webhooks_copy.js` of this
      package. Default: no buttons.
    * `"nonce"` - the nonce of the inline script, for a host with a
      Content-Security-Policy.

  Modules are named as `inspect/1` prints them.

  ## Permissions

  Users without `:manage` (`c:Plausible.Webhooks.Host.can?/4`) get a 404
  (`PlausibleWeb.Live.WebhookSettings.NotFound`). The page asks at the mount, connected and
  not, and again on every event and every update; each function of `Plausible.Webhooks` asks
  too. When the permission is lost, the page removes everything it shows.

  ## What the host provides

  Tailwind CSS that scans this package for classes, with `dark` as a class. The page has no
  hook, no inline style, and no inline script unless `"copy"` asks for it, so it works under
  a strict Content-Security-Policy.
  """

  # Form values may hold secrets and tokens, which must not reach the log.
  use Phoenix.LiveView, log: false

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Phoenix.LiveView.JS
  alias Plausible.Webhooks.Updates

  alias __MODULE__.{Assigns, Context, DeliveryStatus, DeliveryView, FormView, ListView, LogView}
  alias __MODULE__.{NotFound, TestPanel, WebhookView}

  # A view renders with the assigns of the page.
  @views %{
    list: ListView,
    form: FormView,
    webhook: WebhookView,
    log: LogView,
    delivery: DeliveryView
  }
  # Messages arrive at the pace of the attempts. One read covers all messages of a pause,
  # and the pause is longer when there are too many messages to send each.
  @collect_ms 400
  @flood_ms 2_000
  @poll_ms 5_000
  @second_ms 1_000
  @minute_ms 60_000

  @copy_script_path Path.join([__DIR__, "../../../priv/static/webhooks_copy.js"])
  @external_resource @copy_script_path
  @copy_script File.read!(@copy_script_path)

  @empty %{
    context: nil,
    zone: nil,
    copy?: false,
    view: :list,
    lost?: false,
    message: nil,
    focus: nil,
    webhooks: [],
    activity: nil,
    goals: nil,
    figures: nil,
    form: nil,
    webhook: nil,
    log: nil,
    delivery: nil,
    loading: MapSet.new(),
    repeat: MapSet.new(),
    open: nil,
    collecting?: false,
    ticking: nil,
    pace: nil
  }

  @impl true
  def mount(_params, session, socket) do
    socket = socket |> assign(@empty) |> now()

    case Context.from(session, socket) do
      {:ok, context} -> {:ok, open(assign(socket, context: context, copy?: context.copy != nil))}
      {:error, :unavailable} -> {:ok, assign(socket, view: :unavailable)}
      {:error, :not_found} -> raise NotFound
    end
  end

  defp now(socket), do: assign(socket, now_ms: System.system_time(:millisecond))

  # The webhooks are in the first answer. The slower figures follow.
  defp open(%{assigns: %{context: context}} = socket) do
    with :ok <- Assigns.permission(socket),
         {:ok, site} <- Assigns.call(socket, :site, []),
         {:ok, webhooks} <- Assigns.call(socket, :list_webhooks, []) do
      if connected?(socket), do: follow(context)
      socket = assign(socket, zone: site.timezone, webhooks: webhooks)
      if connected?(socket), do: refresh_list(socket), else: socket
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

  @impl true
  def handle_event(_event, _params, %{assigns: %{context: nil}} = socket), do: {:noreply, socket}

  def handle_event(event, params, socket) do
    socket = now(socket)

    case Assigns.permission(socket) do
      :ok ->
        {:noreply,
         event |> String.split(".", parts: 2) |> dispatch(params, socket) |> opened() |> tick()}

      {:error, reason} ->
        {:noreply, Assigns.failed(socket, reason)}
    end
  end

  defp dispatch(["page", event], params, socket), do: page(event, params, socket)

  # A view handles its events only while it is shown: late and forged events find nothing
  # to change. The list has no events of its own.
  defp dispatch([view, event], params, %{assigns: %{view: shown}} = socket)
       when is_map_key(@views, shown) and shown != :list and is_map(params) do
    if view == Atom.to_string(shown),
      do: Map.fetch!(@views, shown).handle(event, params, socket),
      else: Assigns.refuse(socket)
  end

  defp dispatch(_unknown, _params, socket), do: Assigns.refuse(socket)

  defp page("list", _params, socket), do: Assigns.open(socket, {:list, nil})
  defp page("new", _params, socket), do: FormView.open_new(socket)

  defp page("log", %{"webhook" => id}, socket) when is_binary(id),
    do: LogView.open(socket, %{"webhook" => id})

  defp page("log", _params, socket), do: LogView.open(socket)
  defp page("delivery", %{"id" => id}, socket), do: DeliveryView.open(socket, id)

  defp page("webhook", %{"id" => id}, socket) when is_binary(id) do
    result = Assigns.call(socket, :get_webhook, [id])
    Assigns.continue(socket, result, &Assigns.open(socket, {:webhook, &1}))
  end

  defp page("cancel_form", _params, %{assigns: %{form: %{id: id}}} = socket) when id != nil,
    do: back_to_webhook(socket, id)

  defp page("cancel_form", params, socket), do: page("list", params, socket)

  defp page("back", params, %{assigns: %{delivery: %{back: back}}} = socket) do
    case back do
      {:webhook, id} -> back_to_webhook(socket, id)
      view -> page(Atom.to_string(view), params, socket)
    end
  end

  defp page(_unknown, _params, socket), do: Assigns.refuse(socket)

  # When the webhook is gone or unreadable, the list is shown.
  defp back_to_webhook(socket, id) do
    case Assigns.call(socket, :get_webhook, [id]) do
      {:ok, webhook} -> Assigns.open(socket, {:webhook, webhook})
      {:error, reason} -> socket |> open_view(:list, nil) |> Assigns.failed(reason)
    end
  end

  defp opened(%{assigns: %{open: nil}} = socket), do: socket

  defp opened(%{assigns: %{open: {{view, argument}, message}}} = socket),
    do: socket |> assign(open: nil) |> open_view(view, argument) |> assign(message: message)

  defp open_view(socket, :webhook, webhook),
    do: socket |> closed() |> WebhookView.open(webhook) |> refresh_list()

  defp open_view(socket, :edit, webhook), do: FormView.open_edit(socket, webhook)

  defp open_view(socket, :list, nil) do
    socket
    |> closed()
    |> assign(view: :list)
    |> Assigns.focus("webhooks-title")
    |> refresh_list()
  end

  defp closed(socket), do: assign(socket, webhook: nil, form: nil, delivery: nil)

  # --- results and messages

  @impl true
  def handle_async({view, tag} = key, result, socket) do
    {socket, repeat?} = socket |> now() |> Assigns.ended(key)

    socket =
      case result do
        _any when socket.assigns.lost? -> socket
        {:ok, result} -> view.loaded(tag, result, socket)
        {:exit, _reason} -> view.loaded(tag, {:error, :crashed}, socket)
      end

    # Views compare what they hold with the webhooks that were read.
    socket =
      if key == {Assigns, :webhooks},
        do: socket |> FormView.refreshed() |> WebhookView.refreshed(),
        else: socket

    {:noreply, tick(if(repeat?, do: collect(socket, @collect_ms), else: socket))}
  end

  @impl true
  def handle_info({:plausible_webhooks, _kind, metadata}, socket) do
    flood? = Map.get(metadata, :missed, 0) > 0
    {:noreply, collect(socket, if(flood?, do: @flood_ms, else: @collect_ms))}
  end

  def handle_info(:collected, socket), do: {:noreply, refresh(assign(socket, collecting?: false))}

  def handle_info(:poll, socket) do
    Process.send_after(self(), :poll, @poll_ms)
    {:noreply, refresh(socket)}
  end

  def handle_info({:tick, ref}, %{assigns: %{ticking: ref}} = socket),
    do: {:noreply, socket |> now() |> assign(ticking: nil) |> conceal() |> tick()}

  def handle_info(_other, socket), do: {:noreply, socket}

  # A revealed secret does not stay on the page of a user who lost the permission.
  defp conceal(%{assigns: %{view: view}} = socket) when view in [:webhook, :delivery] do
    if Assigns.permission(socket) == {:error, :forbidden}, do: Assigns.lost(socket), else: socket
  end

  defp conceal(socket), do: socket

  defp collect(%{assigns: %{collecting?: true}} = socket, _ms), do: socket

  defp collect(socket, ms) do
    Process.send_after(self(), :collected, ms)
    assign(socket, collecting?: true)
  end

  defp refresh(%{assigns: %{lost?: true}} = socket), do: socket

  defp refresh(socket) do
    case Assigns.permission(socket) do
      :ok -> socket |> refresh_view(socket.assigns.view) |> tick()
      {:error, :forbidden} -> Assigns.lost(socket)
      {:error, _unknown} -> tick(socket)
    end
  end

  # Reads what the view shows: the log needs no figures of 24 hours.
  defp refresh_view(socket, :log), do: socket |> Assigns.load_webhooks() |> LogView.refresh()

  defp refresh_view(socket, :delivery),
    do: socket |> Assigns.load_webhooks() |> DeliveryView.refresh()

  defp refresh_view(socket, :form), do: Assigns.load_webhooks(socket)
  defp refresh_view(socket, _list_or_webhook), do: refresh_list(socket)

  defp refresh_list(socket), do: socket |> Assigns.load_webhooks() |> Assigns.load(:activity)

  # --- the clock

  # Ticks only while something on the page counts down. A sooner tick replaces the one
  # under way.
  defp tick(%{assigns: %{ticking: ticking} = assigns} = socket) do
    ms = pace(assigns)

    if ms == nil or (ticking != nil and ms >= assigns.pace) do
      socket
    else
      ref = make_ref()
      Process.send_after(self(), {:tick, ref}, ms)
      assign(socket, ticking: ref, pace: ms)
    end
  end

  defp pace(%{view: :log, log: log}),
    do: if(Enum.any?(log.entries || [], &DeliveryStatus.counts_down?/1), do: @second_ms)

  defp pace(%{view: :delivery, delivery: %{delivery: delivery}}),
    do: if(DeliveryStatus.counts_down?(delivery), do: @second_ms)

  defp pace(%{view: :webhook, webhook: %{test: test}, now_ms: now_ms} = assigns) do
    if TestPanel.wait_ms(test, now_ms) > 0 or last_counts_down?(assigns),
      do: @second_ms,
      else: @minute_ms
  end

  defp pace(%{view: :list} = assigns), do: if(last_counts_down?(assigns), do: @second_ms)
  defp pace(_nothing_counts_down), do: nil

  defp last_counts_down?(%{activity: activity}) when is_map(activity),
    do:
      Enum.any?(activity, fn {_id, %{last: last}} -> last && DeliveryStatus.counts_down?(last) end)

  defp last_counts_down?(_unknown), do: false

  # --- markup

  @impl true
  def render(%{view: view} = assigns) when view in [:lost, :unavailable] do
    ~H"""
    <div id="webhook-settings" class="text-gray-900 dark:text-gray-100">
      <.notice theme={:yellow} role="alert">
        <%= if @view == :lost do %>
          You can no longer manage this site's webhooks. If you need to, ask an owner of the site.
        <% else %>
          Webhooks cannot be shown at the moment. Reload the page later.
        <% end %>
      </.notice>
    </div>
    """
  end

  def render(assigns) do
    assigns =
      assign(assigns, view_module: Map.fetch!(@views, assigns.view), copy_script: @copy_script)

    ~H"""
    <div
      id="webhook-settings"
      class="shadow-sm bg-white dark:bg-gray-900 text-gray-900 dark:text-gray-100 rounded-md"
    >
      <header class="py-4 px-4 sm:px-6 border-b border-gray-200 dark:border-gray-700">
        <.heading id="webhooks-title">Webhooks</.heading>
        <p class="mt-px text-sm text-gray-600 dark:text-gray-300">
          Signed POST requests to your own systems when a goal is completed or traffic changes.
        </p>
        <nav aria-label="Parts of the webhook settings" class="mt-3 flex flex-wrap gap-2">
          <.tab event="page.list" current?={@view in [:list, :form, :webhook]}>Webhooks</.tab>
          <.tab event="page.log" current?={@view in [:log, :delivery]}>Deliveries</.tab>
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
        <%= @view_module.render(assigns) %>
      </div>
      <script :if={@context.copy == :page} nonce={@context.nonce}>
        <%= Phoenix.HTML.raw(@copy_script) %>
      </script>
    </div>
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

  # A new element for each move of the focus; it moves the focus when it is mounted.
  defp focus(%{focus: nil} = assigns), do: ~H""

  defp focus(assigns) do
    ~H"""
    <span id={"webhook-focus-#{@focus.number}"} phx-mounted={JS.focus(to: "##{@focus.id}")} hidden>
    </span>
    """
  end
end
