defmodule PlausibleWeb.Live.WebhookSettings.Page do
  @moduledoc false
  # What the views share: who may see them, calls of `Plausible.Webhooks`, updates, messages
  # to the user, and the frame around each view.
  #
  #     use PlausibleWeb.Live.WebhookSettings.Page
  #
  # makes a module a LiveView whose `mount/3` finds `context`, `site`, `zone` and `now_ms`
  # among its assigns. `handle_info(:refresh, socket)` reads again what the view shows.

  use Phoenix.Component

  import Phoenix.LiveView
  import PlausibleWeb.Live.WebhookSettings.Components

  alias Phoenix.LiveView.{JS, Socket}
  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Updates
  alias PlausibleWeb.Live.WebhookSettings.{Context, Labels, NotFound, Unavailable}

  # Messages arrive at the pace of the attempts. One read covers all messages of a pause,
  # and the pause is longer when there are too many messages to send each.
  @collect_ms 400
  @flood_ms 2_000
  # Messages may get lost, and no message tells of a permission that is lost.
  @poll_ms 60_000
  @poll_without_pubsub_ms 5_000

  @script_path Path.join([__DIR__, "../../../../priv/static/webhooks_page.js"])
  @external_resource @script_path
  @script File.read!(@script_path)

  defmacro __using__(_options) do
    quote do
      # Form values may hold secrets and tokens, which must not reach the log.
      use Phoenix.LiveView, log: false, layout: {PlausibleWeb.Live.WebhookSettings.Page, :frame}

      import PlausibleWeb.Live.WebhookSettings.{Components, Page}

      on_mount(PlausibleWeb.Live.WebhookSettings.Page)

      @impl true
      def handle_async(key, result, socket), do: {:noreply, keep(socket, key, result)}

      # An event that a view does not have does nothing.
      @impl true
      def handle_event(_event, _params, socket), do: {:noreply, socket}

      defoverridable handle_async: 3, handle_event: 3
    end
  end

  # A view that fails to mount connects again and fails again, with a crash in the log each
  # time. The address answers once.
  def on_mount(:default, _params, session, socket) do
    mount_view(session, socket)
  rescue
    error in Unavailable ->
      if connected?(socket),
        do: {:halt, redirect(socket, to: session["path"])},
        else: reraise(error, __STACKTRACE__)
  end

  defp mount_view(session, socket) do
    context = Context.from!(session, socket)

    socket =
      assign(socket,
        context: context,
        loading: MapSet.new(),
        again?: false,
        focus: nil,
        leaving?: false
      )

    if permission(context) != :ok, do: not_permitted!(permission(context))
    site = fetch!(socket, :site, [])
    if connected?(socket), do: follow(context)

    {:cont,
     socket
     |> assign(site: site, zone: site.timezone, message: done(context.query["done"]))
     |> assign(options: Instance.fetch!(context.instance).options, refreshing?: false)
     |> now()
     |> attach_hook(:webhooks, :handle_event, &event/3)
     |> attach_hook(:webhooks, :handle_info, &info/2)
     |> attach_hook(:webhooks, :handle_async, &async/3)}
  end

  defp not_permitted!({:error, :forbidden}), do: raise(NotFound)
  defp not_permitted!(_unknown), do: raise(Unavailable)

  defp follow(%{pubsub: nil}), do: Process.send_after(self(), :poll, @poll_without_pubsub_ms)

  defp follow(context) do
    Process.send_after(self(), :poll, @poll_ms)
    Updates.subscribe(context.pubsub, context.instance, context.site_id)
  end

  defp now(socket), do: assign(socket, now_ms: System.system_time(:millisecond))

  # --- hooks: the permission is asked for before every event and every update

  defp event("dismiss", _params, socket), do: {:halt, assign(socket, message: nil)}

  defp event(_event, _params, socket) do
    case permission(socket.assigns.context) do
      :ok -> {:cont, socket |> now() |> assign(message: nil)}
      {:error, reason} -> {:halt, failed(socket, reason)}
    end
  end

  defp info({:plausible_webhooks, _kind, metadata}, socket) do
    flood? = Map.get(metadata, :missed, 0) > 0
    {:halt, collect(socket, if(flood?, do: @flood_ms, else: @collect_ms))}
  end

  defp info(:poll, socket) do
    ms = if socket.assigns.context.pubsub, do: @poll_ms, else: @poll_without_pubsub_ms
    Process.send_after(self(), :poll, ms)
    {:halt, collect(socket, 0)}
  end

  # A refresh on the way would not find what was just deleted.
  defp info(:refresh, %{assigns: %{leaving?: true}} = socket), do: {:halt, socket}

  defp info(:refresh, socket) do
    socket = socket |> now() |> assign(refreshing?: false)

    case permission(socket.assigns.context) do
      :ok -> {:cont, socket}
      {:error, :forbidden} -> {:halt, failed(socket, :forbidden)}
      # What is shown stays while nobody can be asked.
      {:error, _unknown} -> {:halt, socket}
    end
  end

  defp info({:go, to}, socket), do: {:halt, redirect(socket, to: to)}
  defp info(_other, socket), do: {:halt, socket}

  defp async(key, _result, %{assigns: %{loading: loading, again?: again?}} = socket) do
    socket = socket |> now() |> assign(loading: MapSet.delete(loading, key), again?: false)
    {:cont, if(again?, do: collect(socket, @collect_ms), else: socket)}
  end

  defp collect(%{assigns: %{refreshing?: true}} = socket, _ms), do: socket

  defp collect(socket, ms) do
    Process.send_after(self(), :refresh, ms)
    assign(socket, refreshing?: true)
  end

  # --- calls

  # On any other error than :forbidden the answer is unknown: the actor keeps what is shown,
  # and the event does nothing.
  defp permission(%{instance: instance, actor: actor, site_id: site_id}),
    do: reason(Plausible.Webhooks.permission(instance, actor, :manage, site_id))

  defp reason({:error, %Plausible.Webhooks.Error{reason: reason}}), do: {:error, reason}
  defp reason(result), do: result

  @doc """
  Calls a function of `Plausible.Webhooks` as this actor and for this site. Returns the
  reason of an error.
  """
  @spec call(Socket.t() | Context.t(), atom(), [term()]) :: term()
  def call(%Socket{assigns: %{context: context}}, function, arguments),
    do: call(context, function, arguments)

  # The function calls the host, whose database may be away.
  def call(%{instance: instance, actor: actor, site_id: site_id}, function, arguments) do
    reason(apply(Plausible.Webhooks, function, [instance, actor, site_id | arguments]))
  rescue
    error -> {:error, {:raised, error.__struct__}}
  catch
    :exit, _reason -> {:error, :exit}
  end

  @doc "Calls a function at the mount, where nothing can be shown without its result."
  @spec fetch!(Socket.t(), atom(), [term()]) :: term()
  def fetch!(socket, function, arguments) do
    case call(socket, function, arguments) do
      {:ok, result} -> result
      {:error, reason} when reason in [:not_found, :forbidden] -> raise NotFound
      {:error, _reason} -> raise Unavailable
    end
  end

  @doc """
  Calls a function in a process of its own, once the view is connected. `handle_async/3` gets
  the result. While the same load runs, another one only asks for a refresh afterwards, so
  that a slow database is not asked in parallel.
  """
  @spec load(Socket.t(), term(), atom(), [term()]) :: Socket.t()
  def load(%{assigns: %{loading: loading, context: context}} = socket, key, function, arguments) do
    cond do
      not connected?(socket) ->
        socket

      MapSet.member?(loading, key) ->
        assign(socket, again?: true)

      true ->
        socket
        |> assign(loading: MapSet.put(loading, key))
        |> start_async(key, fn -> call(context, function, arguments) end)
    end
  end

  @doc "Keeps the result of a load under its key. What was known stays when a read fails."
  @spec keep(Socket.t(), atom(), {:ok, term()} | {:exit, term()}) :: Socket.t()
  def keep(socket, key, result) do
    case loaded(result) do
      {:ok, value} -> assign(socket, key, value)
      {:error, :forbidden} -> failed(socket, :forbidden)
      error when :erlang.map_get(key, socket.assigns) == nil -> assign(socket, key, error)
      _error -> socket
    end
  end

  @doc "Continues with a result, or shows its error."
  @spec continue(Socket.t(), :ok | {:ok, term()} | {:error, term()}, (term() -> Socket.t())) ::
          {:noreply, Socket.t()}
  def continue(_socket, :ok, fun), do: {:noreply, fun.(:ok)}
  def continue(_socket, {:ok, result}, fun), do: {:noreply, fun.(result)}
  def continue(socket, {:error, reason}, _fun), do: {:noreply, failed(socket, reason)}

  @doc "The result of a load, or an error if its process ended."
  @spec loaded({:ok, term()} | {:exit, term()}) :: {:ok, term()} | :ok | {:error, term()}
  def loaded({:ok, result}), do: result
  def loaded({:exit, _reason}), do: {:error, :crashed}

  # --- addresses

  @doc "The address of a view, from the segments behind the mount point."
  @spec path(Socket.t() | Context.t(), [String.t()], Enumerable.t()) :: String.t()
  def path(at, segments, query \\ [])

  def path(%Socket{assigns: %{context: context}}, segments, query),
    do: path(context, segments, query)

  def path(%{path: path}, segments, query) do
    query = Enum.reject(query, fn {_name, value} -> value in [nil, ""] end)
    encoded = for segment <- segments, do: "/" <> URI.encode(segment, &URI.char_unreserved?/1)
    Enum.join([path | encoded]) <> if(query == [], do: "", else: "?" <> URI.encode_query(query))
  end

  @doc """
  Leaves for another view, which says what was done. The markup is sent first: it no longer
  has unsaved edits, about which the browser would ask.
  """
  @spec go(Socket.t(), [String.t()], String.t()) :: Socket.t()
  def go(socket, segments, done) do
    send(self(), {:go, path(socket, segments, done: done)})
    assign(socket, leaving?: true)
  end

  @done %{
    "added" => "Webhook added. Copy its secret to your receiver, then send a test.",
    "saved" => "Saved. The change applies from the next event.",
    "deleted" => "Webhook deleted."
  }

  defp done(name) when is_map_key(@done, name), do: %{text: @done[name], tone: :green}
  defp done(_other), do: nil

  # --- messages

  @doc "Shows a message."
  @spec say(Socket.t(), String.t(), :green | :red) :: Socket.t()
  def say(socket, text, tone \\ :green), do: assign(socket, message: %{text: text, tone: tone})

  @doc "Moves the focus to an element once the page has changed."
  @spec focus(Socket.t(), String.t()) :: Socket.t()
  def focus(socket, id), do: assign(socket, focus: {id, System.unique_integer([:positive])})

  @doc """
  Shows an error of the API. When the permission is lost, the page reloads and finds nothing:
  nothing of the site stays in this process.
  """
  @spec failed(Socket.t(), term()) :: Socket.t()
  def failed(%{assigns: %{context: context}} = socket, :forbidden),
    do: redirect(socket, to: path(context, context.view))

  def failed(socket, reason), do: say(socket, explain(reason), :red)

  @errors %{
    not_found: "This webhook no longer exists.",
    stale: "Somebody else was changing it at the same time. Try again.",
    webhook_disabled: "The webhook is switched off or paused. Switch it on first.",
    too_many_secrets:
      "Too many secrets sign at the same time. " <>
        "Wait until an older one expires, or choose a shorter time.",
    invalid_overlap: "Choose one of the times.",
    crashed: "That did not work. Try again in a moment."
  }

  @doc "An error of the API in words."
  @spec explain(term()) :: String.t()
  def explain({:invalid, errors}),
    do: Enum.map_join(errors, " ", fn {field, text} -> Labels.invalid(field, text) end)

  def explain(reason) when is_map_key(@errors, reason), do: @errors[reason]
  def explain(:limit_reached), do: "This site has reached its limit of webhooks."

  def explain(_from_the_store),
    do: "That did not work: the database did not answer. Try again in a moment."

  # --- the frame

  @doc "The layout of every view: messages, the lost connection, and the tabs."
  def frame(assigns) do
    deliveries? = List.first(assigns.context.view) == "deliveries"
    assigns = assign(assigns, script: @script, deliveries?: deliveries?)

    ~H"""
    <div id="webhook-settings" data-now={@now_ms} class="leading-5 text-gray-900 dark:text-gray-100">
      <.toast message={@message} />
      <.focus_now :if={@focus} focus={@focus} />
      <p
        id="webhook-offline"
        role="alert"
        hidden
        phx-disconnected={JS.remove_attribute("hidden")}
        phx-connected={JS.set_attribute({"hidden", ""})}
        class="mb-4 rounded-md bg-yellow-100 dark:bg-yellow-900/40 p-4 text-sm"
      >
        The connection is lost. What you have typed is kept, and sent when the connection is back.
      </p>
      <div class="shadow-sm bg-white dark:bg-gray-900 rounded-md mb-6 p-4 sm:p-6 sm:pt-4">
        <nav
          aria-label="Webhook settings"
          class="flex gap-6 text-sm font-medium border-b border-gray-200 dark:border-gray-700"
        >
          <.tab href={path(@context, [])} current?={not @deliveries?}>Webhooks</.tab>
          <.tab href={path(@context, ["deliveries"])} current?={@deliveries?}>Deliveries</.tab>
        </nav>
        <%= @inner_content %>
      </div>
      <script :if={@context.script == :page} nonce={@context.nonce}>
        <%= Phoenix.HTML.raw(@script) %>
      </script>
    </div>
    """
  end

  attr(:title, :string, required: true)
  attr(:back, :string, default: nil, doc: "the address of the list")
  slot(:subtitle)
  slot(:actions)

  @doc "The head of a view."
  def head(assigns) do
    ~H"""
    <p :if={@back} class="mt-4"><.text_link href={@back}>← Back to the list</.text_link></p>
    <div class="my-4 flex flex-wrap items-start justify-between gap-3">
      <div class="min-w-0">
        <h2 id="webhooks-title" class="text-lg font-medium leading-7 break-words">
          <.foreign text={@title} />
        </h2>
        <div class="text-sm mt-px text-gray-500 dark:text-gray-400"><%= render_slot(@subtitle) %></div>
      </div>
      <div class="flex flex-wrap gap-2"><%= render_slot(@actions) %></div>
    </div>
    """
  end

  attr(:title, :string, required: true)
  slot(:inner_block, required: true)
  slot(:action)

  @doc "What a view shows that has nothing to show."
  def empty(assigns) do
    ~H"""
    <div class="flex flex-col items-center py-6 max-w-md mx-auto text-center">
      <h3 class="text-base font-medium leading-7"><%= @title %></h3>
      <p class="mt-1 text-sm text-gray-500 dark:text-gray-400"><%= render_slot(@inner_block) %></p>
      <div :if={@action != []} class="mt-4"><%= render_slot(@action) %></div>
    </div>
    """
  end

  defp tab(assigns) do
    ~H"""
    <a
      href={@href}
      aria-current={@current? && "page"}
      class={[
        "-mb-px py-2.5 border-b-2",
        if(@current?,
          do: "border-indigo-600 text-indigo-700 dark:border-indigo-400 dark:text-indigo-300",
          else: "border-transparent text-gray-600 hover:text-gray-900 dark:text-gray-300 dark:hover:text-white"
        )
      ]}
    >
      <%= render_slot(@inner_block) %>
    </a>
    """
  end

  # Over the page, so that it is seen wherever the user has scrolled to.
  defp toast(assigns) do
    ~H"""
    <div
      id="webhook-message"
      role="status"
      aria-live="polite"
      class="fixed z-50 top-4 inset-x-4 sm:left-auto sm:w-96"
    >
      <div
        :if={@message}
        class="flex items-start gap-3 rounded-lg bg-white dark:bg-gray-800 p-4 text-sm shadow-lg ring-1 ring-black/10 dark:ring-white/20"
      >
        <.shape tone={@message.tone} class="mt-0.5 size-4" />
        <p class="flex-1 min-w-0 break-words"><%= @message.text %></p>
        <button
          type="button"
          phx-click="dismiss"
          aria-label="Dismiss"
          class="size-6 shrink-0 rounded-sm text-gray-500 hover:text-gray-700 dark:text-gray-300 cursor-pointer"
        >
          ✕
        </button>
      </div>
    </div>
    """
  end

  # A new element for each move of the focus; it moves the focus when it is mounted.
  defp focus_now(assigns) do
    {target, number} = assigns.focus
    assigns = assign(assigns, target: target, number: number)

    ~H"""
    <span id={"webhook-focus-#{@number}"} phx-mounted={JS.focus(to: "##{@target}")} hidden></span>
    """
  end
end
