defmodule PlausibleWeb.Live.WebhookSettings.Delivery do
  @moduledoc false
  # One delivery: its body and its attempts, how to send it again, and how to verify it.

  use PlausibleWeb.Live.WebhookSettings.Page

  alias PlausibleWeb.Live.WebhookSettings.{
    AttemptResult,
    FailureHints,
    ForeignText,
    Format,
    Labels,
    Redacted,
    Request,
    Status
  }

  @gone "This delivery no longer exists."

  # webhook: nil when it is gone.
  @impl true
  def mount(_params, _session, %{assigns: %{context: %{view: [_deliveries, id]}}} = socket) do
    delivery = fetch!(socket, :delivery, [id])
    title = "#{Labels.type(delivery.type)} · Webhooks · #{socket.assigns.site.domain}"

    {:ok,
     socket
     |> assign(page_title: title, delivery: delivery, attempts: fetch!(socket, :attempts, [id]))
     |> assign(webhook: webhook(socket, delivery), request: nil, language: :node)
     |> sent(false)}
  end

  # The values of the owner's own headers are shown on demand, as a secret is.
  defp sent(%{assigns: %{delivery: %{id: id}}} = socket, revealed?) do
    case call(socket, :sent, [id, revealed?]) do
      {:ok, sent} -> assign(socket, sent: Redacted.wrap(sent), revealed?: revealed?)
      {:error, reason} -> socket |> assign(sent: nil, revealed?: false) |> not_possible(reason)
    end
  end

  defp webhook(socket, delivery) do
    case call(socket, :get_webhook, [delivery.webhook_id]) do
      {:ok, webhook} -> webhook
      {:error, _gone} -> nil
    end
  end

  @impl true
  def handle_info(:refresh, socket), do: {:noreply, renewed(socket)}

  defp renewed(%{assigns: %{delivery: %{id: id}, attempts: before}} = socket) do
    with {:ok, delivery} <- call(socket, :delivery, [id]),
         {:ok, attempts} <- call(socket, :attempts, [id]) do
      socket = assign(socket, delivery: delivery, attempts: attempts)
      if attempts == before, do: socket, else: sent(socket, false)
    else
      {:error, reason} -> not_possible(socket, reason)
    end
  end

  defp not_possible(socket, :not_found), do: say(socket, @gone, :red)
  defp not_possible(socket, reason), do: failed(socket, reason)

  # --- events

  @impl true
  def handle_event("redeliver", _params, %{assigns: %{delivery: %{id: id}}} = socket) do
    case call(socket, :redeliver, [id]) do
      :ok -> {:noreply, socket |> renewed() |> say("On its way again.")}
      {:error, reason} -> {:noreply, not_possible(socket, reason)}
    end
  end

  def handle_event("request", _params, %{assigns: %{delivery: %{id: id}}} = socket) do
    case call(socket, :request, [id]) do
      {:error, :not_found} ->
        text = "The webhook no longer exists, so there is no URL and no secret to sign with."
        {:noreply, say(socket, text, :red)}

      result ->
        {:noreply, Request.put(socket, result)}
    end
  end

  def handle_event("reveal", _params, socket),
    do: {:noreply, socket |> sent(true) |> focus("delivery-attempts-title")}

  def handle_event("request_hide", _params, socket),
    do: {:noreply, socket |> assign(request: nil) |> focus("request-show")}

  def handle_event("language", params, socket),
    do: {:noreply, Request.language(socket, params["language"])}

  def handle_event(event, params, socket), do: super(event, params, socket)

  # --- markup

  @impl true
  def render(assigns) do
    ~H"""
    <.head title={Labels.type(@delivery.type)} back={path(@context, ["deliveries"])}>
      <:subtitle><Status.delivery delivery={@delivery} now_ms={@now_ms} /></:subtitle>
      <:actions>
        <.button id="delivery-redeliver" theme={:primary} phx-click="redeliver">Send again</.button>
      </:actions>
    </.head>
      <.facts rows={facts(@delivery, @zone)} />
      <p :if={@webhook} class="mt-3">
        <.text_link href={path(@context, [@webhook.id])}>
          Open <%= ForeignText.short(Labels.name(@webhook), 60) %>
        </.text_link>
      </p>
      <.section id="delivery-attempts" title="Attempts">
        <p :if={@attempts == []} class="text-sm">No attempt yet.</p>
        <.attempts
          :if={@attempts != []}
          attempts={Enum.reverse(with_sent(@attempts, @sent))}
          revealed?={@revealed?}
          zone={@zone}
        />
        <.button
          :if={not @revealed? and @webhook && @webhook.headers != [] && @attempts != []}
          id="delivery-reveal"
          phx-click="reveal"
        >
          Reveal the values of your own headers
        </.button>
      </.section>
      <.section id="delivery-body" title="What was sent">
        <.copy
          id="delivery-body-text"
          label="Body"
          value={ForeignText.block(Format.json(@delivery.body || ""))}
        />
      </.section>
      <.section id="request" title="Request">
        <:text>
          As it would be sent now: every attempt is signed anew with its own time. Receivers that
          verify refuse requests older than five minutes.
        </:text>
        <Request.render request={@request} language={@language} />
      </.section>
    """
  end

  defp facts(delivery, zone) do
    [
      {"webhook-id", delivery.id},
      {"About", Labels.about(delivery)},
      {"Created", Format.time(delivery.created_at_ms, zone)},
      {"Attempts", to_string(delivery.attempts)},
      {"Last answer", Status.answer(delivery)},
      {"Why", delivery.state in [:held, :failed, :cancelled] && why(delivery.reason)}
    ]
  end

  # An error class, a reason of ours, or a sentence.
  defp why(nil), do: "the webhook is paused; resume it to send or to cancel what is held"
  defp why("cancelled_by_owner"), do: "cancelled when the webhook was resumed"
  defp why("webhook_disabled"), do: "the webhook was switched off"
  defp why("webhook_deleted"), do: "the webhook was deleted"
  defp why("node_ended"), do: "our server stopped each time that it was being sent"
  defp why(reason), do: FailureHints.name(reason) || reason

  # An attempt that was made since the headers were read has none yet.
  defp with_sent(attempts, sent) do
    sent = Redacted.unwrap(sent) || []
    Enum.with_index(attempts, &{&1, Redacted.wrap(Enum.at(sent, &2))})
  end

  # The last attempt is open. An attempt never changes, so the browser alone opens and closes
  # the others.
  defp attempts(assigns) do
    ~H"""
    <ol class="divide-y divide-gray-200 dark:divide-gray-700">
      <li :for={{{attempt, sent}, index} <- Enum.with_index(@attempts)} class="py-2">
        <details
          id={"attempt-#{attempt.number}#{if @revealed?, do: "-revealed"}"}
          open={index == 0}
          phx-update="ignore"
        >
          <summary class="flex flex-wrap items-center gap-x-3 min-h-8 rounded-sm text-sm cursor-pointer">
            <.shape tone={if attempt.error, do: :red, else: :green} class="size-3" />
            <span class="font-medium">Attempt <%= attempt.number %></span>
            <span><%= AttemptResult.outcome(attempt) %></span>
            <time dir="ltr" class="text-gray-600 dark:text-gray-300">
              <%= Format.time(attempt.started_at_ms, @zone) %>
            </time>
          </summary>
          <div class="mt-3 mb-4">
            <AttemptResult.render
              attempt={attempt}
              sent={sent}
              id={"attempt-#{attempt.number}-result"}
            />
          </div>
        </details>
      </li>
    </ol>
    """
  end
end
