defmodule PlausibleWeb.Live.WebhookSettings.Webhook do
  @moduledoc false
  # One webhook: a test and its result, its settings, its secret, what the developer of the
  # endpoint needs, and sending again what failed.

  use PlausibleWeb.Live.WebhookSettings.Page

  alias Plausible.Webhooks.{Event, Webhook}

  alias PlausibleWeb.Live.WebhookSettings.{
    AttemptResult,
    ForeignText,
    Format,
    Labels,
    Recover,
    Redacted,
    Request,
    Secret,
    Status
  }

  @impl true
  def mount(_params, _session, %{assigns: %{context: %{view: [id]}}} = socket) do
    {:ok,
     socket
     |> assign(activity: nil, goals: nil, secrets: nil, request: nil, language: :node, held: nil)
     |> assign(test: %{type: "webhook.test", running?: false, result: nil, wait_until_ms: nil})
     |> assign(since_ms: Recover.since(socket.assigns.now_ms), recoverable: nil)
     |> put(fetch!(socket, :get_webhook, [id]))
     |> load(:activity, :activity, [])
     |> load(:goals, :goals, [])}
  end

  defp put(socket, webhook) do
    title = "#{ForeignText.line(Labels.name(webhook))} · Webhooks · #{socket.assigns.site.domain}"
    # Secrets that were revealed are hidden when others sign.
    secrets = if Secret.current?(socket.assigns.secrets, webhook), do: socket.assigns.secrets
    assign(socket, webhook: webhook, page_title: title, secrets: secrets)
  end

  @impl true
  def handle_info(:refresh, %{assigns: %{webhook: %{id: id}}} = socket) do
    case call(socket, :get_webhook, [id]) do
      {:ok, webhook} -> {:noreply, socket |> put(webhook) |> load(:activity, :activity, [])}
      {:error, :not_found} -> {:noreply, redirect(socket, to: path(socket, []))}
      # What is shown stays.
      {:error, _reason} -> {:noreply, socket}
    end
  end

  # --- events

  @impl true
  def handle_event("pause", _params, socket), do: change(socket, :disable_webhook, "Paused.")

  # What is held is sent or cancelled, as the owner says.
  def handle_event("resume", %{"held" => "cancel"}, %{assigns: %{webhook: %{id: id}}} = socket) do
    case call(socket, :cancel_held, [id]) do
      {:ok, _count} ->
        change(socket, :enable_webhook, "Active again; what was held is cancelled.")

      {:error, reason} ->
        {:noreply, failed(socket, reason)}
    end
  end

  def handle_event("resume", %{"held" => _send}, socket), do: resume(socket)

  # A count that cannot be read asks nobody.
  def handle_event("resume", _params, %{assigns: %{webhook: %{id: id, enabled: false}}} = socket) do
    case call(socket, :waiting, [id]) do
      {:ok, %{count: count, more?: more?}} when count > 0 ->
        {:noreply, socket |> assign(held: {count, more?}) |> focus("webhook-resume-send")}

      _none ->
        resume(socket)
    end
  end

  def handle_event("resume", _params, socket), do: resume(socket)

  def handle_event("delete", _params, %{assigns: %{webhook: %{id: id}}} = socket) do
    continue(socket, call(socket, :delete_webhook, [id]), fn :ok -> go(socket, [], "deleted") end)
  end

  def handle_event("test_type", %{"type" => type}, socket) do
    if type in Event.types(),
      do: {:noreply, assign(socket, test: %{socket.assigns.test | type: type}, request: nil)},
      else: {:noreply, socket}
  end

  def handle_event("test", _params, %{assigns: %{test: %{running?: true}}} = socket),
    do: {:noreply, socket}

  def handle_event("test", params, %{assigns: %{test: test, webhook: %{id: id}}} = socket) do
    type = if params["type"] in Event.types(), do: params["type"], else: test.type
    test = %{test | type: type, running?: true, result: nil}
    {:noreply, socket |> assign(test: test) |> load(:test, :send_test, [id, type])}
  end

  def handle_event("request", _params, %{assigns: %{test: test, webhook: %{id: id}}} = socket),
    do: {:noreply, Request.put(socket, call(socket, :sample, [id, test.type]))}

  def handle_event("request_hide", _params, socket), do: {:noreply, assign(socket, request: nil)}

  def handle_event("language", params, socket),
    do: {:noreply, Request.language(socket, params["language"])}

  def handle_event("reveal", _params, %{assigns: %{webhook: %{id: id}}} = socket) do
    continue(socket, call(socket, :reveal_secret, [id]), fn secrets ->
      secrets = for secret <- secrets, do: Map.update!(secret, :key, &Redacted.wrap/1)
      socket |> assign(secrets: secrets) |> focus("webhook-secret-1")
    end)
  end

  def handle_event("hide", _params, socket),
    do: {:noreply, socket |> assign(secrets: nil) |> focus("webhook-reveal")}

  def handle_event("rotate", params, %{assigns: %{webhook: %{id: id}}} = socket) do
    with {:ok, seconds} <- Secret.overlap(params["overlap"]),
         {:ok, webhook} <- call(socket, :rotate_secret, [id, seconds * 1_000]) do
      {:noreply,
       socket |> put(webhook) |> say(Secret.rotated(seconds)) |> focus("webhook-reveal")}
    else
      {:error, reason} -> {:noreply, failed(socket, reason)}
    end
  end

  def handle_event("recover_count", params, %{assigns: %{webhook: %{id: id}}} = socket) do
    case Format.from_local(params["since"], socket.assigns.zone) do
      {:ok, ms} ->
        socket = assign(socket, since_ms: ms, recoverable: nil)
        {:noreply, load(socket, {:recoverable, ms}, :recoverable, [id, ms])}

      :error ->
        {:noreply, say(socket, "Enter a date and a time.", :red)}
    end
  end

  def handle_event("recover", _params, %{assigns: %{webhook: %{id: id}}} = socket) do
    socket = assign(socket, recoverable: nil)
    {:noreply, load(socket, :recover, :recover, [id, socket.assigns.since_ms])}
  end

  def handle_event(event, params, socket), do: super(event, params, socket)

  defp resume(socket), do: change(socket, :enable_webhook, "Active again.")

  defp change(%{assigns: %{webhook: %{id: id}}} = socket, function, text) do
    continue(socket, call(socket, function, [id]), fn webhook ->
      socket |> assign(held: nil) |> put(webhook) |> say(text) |> load(:activity, :activity, [])
    end)
  end

  # --- results

  @impl true
  def handle_async(:test, result, %{assigns: %{test: test, now_ms: now_ms}} = socket) do
    result = loaded(result)

    test =
      case result do
        {:error, {:rate_limited, ms}} ->
          Process.send_after(self(), :refresh, ms)
          %{test | wait_until_ms: now_ms + ms}

        _other ->
          test
      end

    socket = assign(socket, test: %{test | running?: false, result: result})

    if result == {:error, :forbidden},
      do: {:noreply, failed(socket, :forbidden)},
      # A test that arrives switches a webhook on again that we had switched off.
      else: handle_info(:refresh, socket)
  end

  def handle_async({:recoverable, ms}, result, socket) do
    continue(socket, loaded(result), fn found ->
      if socket.assigns.since_ms == ms, do: assign(socket, recoverable: found), else: socket
    end)
  end

  def handle_async(:recover, result, socket),
    do: continue(socket, loaded(result), &say(socket, Recover.sent(&1)))

  def handle_async(key, result, socket), do: super(key, result, socket)

  # --- markup

  @impl true
  def render(assigns) do
    activity = is_map(assigns.activity) && assigns.activity[assigns.webhook.id]

    assigns =
      assign(assigns, activity: activity || nil, active?: Webhook.active?(assigns.webhook))

    ~H"""
    <.head title={Labels.name(@webhook)} back={path(@context, [])}>
      <:subtitle><Status.webhook webhook={@webhook} now_ms={@now_ms} /></:subtitle>
      <:actions>
        <.button href={path(@context, [@webhook.id, "edit"])}>Edit</.button>
        <.button :if={@active?} id="webhook-pause" phx-click="pause">Pause</.button>
        <.button :if={not @active?} id="webhook-resume" phx-click="resume">
          <%= if @webhook.enabled, do: "Switch on", else: "Resume" %>
        </.button>
        <.button
          id="webhook-delete"
          theme={:danger}
          phx-click="delete"
          data-confirm={delete_question(@webhook, @activity)}
        >
          Delete
        </.button>
      </:actions>
    </.head>

      <.notice
        :if={text = Status.why(@webhook, @now_ms, @zone)}
        theme={if @webhook.enabled, do: :yellow, else: :gray}
        class="mb-4"
      >
        <%= text %>
      </.notice>
      <.notice :if={@held && not @active?} id="webhook-held" role="status" class="mb-4">
        <p><%= held(@held) %></p>
        <div class="mt-3 flex flex-wrap gap-2">
          <.button
            id="webhook-resume-send"
            theme={:primary}
            phx-click="resume"
            phx-value-held="send"
          >
            Resume and send them
          </.button>
          <.button id="webhook-resume-cancel" phx-click="resume" phx-value-held="cancel">
            Resume and cancel them
          </.button>
        </div>
      </.notice>
      <.notice
        :if={@context.test_address && String.starts_with?(@webhook.url, @context.test_address)}
        id="webhook-at-test-address"
        class="mb-4"
      >
        This webhook goes to a test address, which is good for an hour. Send a test: the answer
        shows what arrived, and whether its signature fits. When your endpoint is ready, edit the
        URL.
      </.notice>
      <.test
        test={@test}
        webhook={@webhook}
        instance={@context.instance}
        now_ms={@now_ms}
        context={@context}
      />
      <.section id="webhook-settings-shown" title="Settings">
        <div class="grid gap-6 lg:grid-cols-2">
          <%!-- A long URL must not widen the page. --%>
          <div class="min-w-0"><.facts rows={settings(@webhook, @goals)} /></div>
          <div class="space-y-2">
            <Status.activity activity={@activity} />
            <p :if={@activity && @activity.last} class="text-sm text-gray-600 dark:text-gray-300">
              Last delivery:
              <.text_link href={path(@context, ["deliveries", @activity.last.id])}>
                <.ago ms={@activity.last.created_at_ms} zone={@zone} now_ms={@now_ms} />
              </.text_link>
              <Status.delivery delivery={@activity.last} now_ms={@now_ms} />
            </p>
            <.text_link href={path(@context, ["deliveries"], webhook: @webhook.id)}>
              See its deliveries
            </.text_link>
          </div>
        </div>
      </.section>
      <Secret.render secrets={@secrets} webhook={@webhook} zone={@zone} now_ms={@now_ms} />
      <.section id="request" title="For the developer of your endpoint">
        <:text>
          Libraries in every common language verify our requests, which follow
          <.text_link href="https://github.com/standard-webhooks/standard-webhooks">
            Standard Webhooks
          </.text_link>
        </:text>
        <Request.rules options={@options} />
        <div class="mt-4"><Request.render request={@request} language={@language} /></div>
      </.section>
      <Recover.render
        recoverable={@recoverable}
        since_ms={@since_ms}
        active?={@active?}
        zone={@zone}
      />
    """
  end

  defp waiting(%{waiting: count, waiting_more?: more?}) when count > 0,
    do: Labels.deliveries(count, more?)

  defp waiting(_none_or_unknown), do: nil

  defp held({count, more?}),
    do: "#{String.capitalize(Labels.deliveries(count, more?))} held. What shall become of them?"

  defp delete_question(webhook, activity) do
    waiting =
      with text when text != nil <- waiting(activity), do: " This cancels #{text} that wait."

    "Delete #{ForeignText.line(Labels.name(webhook))} and its log?#{waiting} This cannot be undone."
  end

  defp settings(webhook, goals) do
    [
      {"URL", Redacted.wrap(webhook.url)},
      {"Events", Enum.map_join(webhook.events, ", ", &Labels.type/1)},
      {"Goals", "goal.completed" in webhook.events && goals(webhook.goals, goals)},
      {Labels.type("traffic.spike"),
       "traffic.spike" in webhook.events &&
         threshold(webhook.spike_threshold, "from", "in 5 minutes")},
      {Labels.type("traffic.drop"),
       "traffic.drop" in webhook.events &&
         threshold(webhook.drop_threshold, "below", "in 12 hours")},
      {"Alerts", alerts(webhook)},
      # The values may hold tokens; the form shows them.
      {"Extra headers", Enum.map_join(webhook.headers, ", ", &elem(&1, 0))}
    ]
  end

  @names_max 20

  defp goals(:all, _goals), do: "all goals"

  defp goals(ids, goals) when is_list(goals) do
    case for(%{id: id, name: name} <- goals, id in ids, do: name) do
      names when length(names) > @names_max ->
        "#{names |> Enum.take(@names_max) |> Enum.join(", ")} and #{length(names) - @names_max} more"

      names ->
        Enum.join(names, ", ")
    end
  end

  defp goals(ids, _unknown), do: Labels.count(length(ids), "goal")

  defp threshold(:notifier, _from, _window), do: "when the e-mail notification reports it"

  defp threshold(number, from, window),
    do: "#{from} #{Labels.count(number || 0, "visitor")} #{window}"

  defp alerts(%{events: events, traffic_min_interval_s: s}) do
    if s > 0 and ("traffic.spike" in events or "traffic.drop" in events),
      do: "at most one in #{Format.span(s * 1_000)}"
  end

  # --- the test

  defp test(assigns) do
    wait? = (assigns.test.wait_until_ms || 0) > assigns.now_ms
    assigns = assign(assigns, wait?: wait?)

    ~H"""
    <div id="webhook-test" class="rounded-md bg-gray-50 dark:bg-gray-800/50 p-4">
      <form
        id="webhook-test-form"
        phx-change="test_type"
        phx-submit="test"
        class="flex flex-wrap items-end gap-3"
      >
        <.field id="webhook-test-type" label="Send a test" class="flex-1 min-w-48">
          <.select
            id="webhook-test-type"
            name="type"
            value={@test.type}
            options={Enum.map(Enum.reverse(Event.types()), &{&1, "#{Labels.type(&1)} (#{&1})"})}
          />
        </.field>
        <%!-- Not disabled while a test runs: a disabled button loses the focus. --%>
        <.button
          id="webhook-test-send"
          type="submit"
          theme={:primary}
          aria-disabled={@test.running? && "true"}
          disabled={@wait?}
        >
          Send test
        </.button>
      </form>
      <div id="webhook-test-result" role="status" aria-live="polite" class="text-sm">
        <p :if={@test.running?} class="mt-4 text-gray-600 dark:text-gray-300">
          Sending … Your endpoint has 15 seconds to answer.
        </p>
        <.result
          :if={@test.result}
          result={@test.result}
          wait={@wait? && @test.wait_until_ms}
          webhook={@webhook}
          instance={@instance}
          now_ms={@now_ms}
          context={@context}
        />
      </div>
    </div>
    """
  end

  defp result(%{result: {:ok, _attempt}} = assigns) do
    assigns = assign(assigns, attempt: elem(assigns.result, 1))

    ~H"""
    <div class="mt-4">
      <AttemptResult.render attempt={@attempt} id="webhook-test-attempt" />
      <p class="mt-3">
        <.text_link href={path(@context, ["deliveries", @attempt.delivery_id])}>
          Open in the log
        </.text_link>
      </p>
    </div>
    """
  end

  defp result(%{result: {:error, {:rate_limited, _ms}}} = assigns) do
    ~H"""
    <p :if={@wait} class="mt-4">
      Too many tests in a short time. You can send the next one in <.countdown
        until_ms={@wait}
        now_ms={@now_ms}
      />.
    </p>
    """
  end

  defp result(%{result: {:error, reason}} = assigns) do
    assigns = assign(assigns, text: refused(reason, assigns.webhook, assigns.instance))
    ~H|<p class="mt-4 text-red-700 dark:text-red-400"><%= @text %></p>|
  end

  @doc false
  def refused(:timeout, _webhook, _instance),
    do: "The test is still waiting to be sent. The log will show its result."

  def refused(:unavailable, _webhook, _instance),
    do: "The delivery engine is still starting. Try again in a moment."

  # The URL may have become forbidden since it was saved.
  def refused({:not_sent, detail}, webhook, instance) do
    case Plausible.Webhooks.check_url(instance, webhook.url) do
      {:error, text} -> "Not sent. #{Labels.invalid(:url, text)}"
      {:ok, _url} -> "Not sent. The test ended early: #{ForeignText.short(detail, 200)}."
    end
  end

  def refused(reason, _webhook, _instance), do: explain(reason)
end
