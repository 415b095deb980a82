defmodule PlausibleWeb.Live.WebhookSettings.DeliveryView do
  @moduledoc false
  # One delivery: its body and its attempts, how to send it again, and how to verify it.

  @behaviour PlausibleWeb.Live.WebhookSettings.View

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Phoenix.LiveView.Socket

  alias PlausibleWeb.Live.WebhookSettings.{
    Assigns,
    AttemptResult,
    DeliveryStatus,
    FailureHints,
    ForeignText,
    Format,
    Labels,
    Redacted,
    Snippets,
    View
  }

  # request: what would be sent now, nil while it is hidden.
  # gone?: the delivery was deleted while it was shown.
  # URL and headers may hold tokens, which no crash report may show.
  @derive {Inspect, only: [:id]}
  defstruct [:id, :delivery, :attempts, :request, :back, language: :node, gone?: false]

  @gone "This delivery no longer exists."

  @doc "Opens a delivery of this site."
  @spec open(Socket.t(), term()) :: Socket.t()
  def open(socket, id) when is_binary(id) do
    case Assigns.call(socket, :delivery, [id]) do
      {:ok, delivery} ->
        state = %__MODULE__{id: id, delivery: delivery, back: back(socket.assigns)}

        socket
        |> assign(view: :delivery, delivery: state, form: nil, message: nil)
        |> Assigns.focus("delivery-title")
        |> Assigns.load(__MODULE__, {:attempts, id}, :attempts, [id])
        |> Assigns.load(:goals)

      {:error, reason} ->
        failed(socket, reason)
    end
  end

  def open(socket, _no_id), do: Assigns.refuse(socket)

  defp back(%{view: :webhook, webhook: %{id: id}}), do: {:webhook, id}
  defp back(%{view: :list}), do: :list
  defp back(_log), do: :log

  @doc "Reads the delivery again."
  @spec refresh(Socket.t()) :: Socket.t()
  def refresh(%{assigns: %{delivery: %__MODULE__{id: id}}} = socket) do
    socket
    |> Assigns.load(__MODULE__, {:delivery, id}, :delivery, [id])
    |> Assigns.load(__MODULE__, {:attempts, id}, :attempts, [id])
  end

  @impl View
  def loaded({what, id}, result, %{assigns: %{delivery: %__MODULE__{id: id} = state}} = socket) do
    case result do
      {:ok, value} -> assign(socket, delivery: Map.replace!(state, what, value))
      {:error, :not_found} -> assign(socket, delivery: %{state | gone?: true})
      {:error, reason} -> failed(socket, reason)
    end
  end

  def loaded(_tag, {:error, :forbidden}, socket), do: Assigns.lost(socket)
  def loaded(_of_another, _result, socket), do: socket

  defp failed(socket, :not_found), do: Assigns.say(socket, @gone, :bad)
  defp failed(socket, reason), do: Assigns.failed(socket, reason)

  # --- events

  @impl View
  def handle("redeliver", _params, %{assigns: %{delivery: %{id: id}}} = socket) do
    case Assigns.call(socket, :redeliver, [id]) do
      :ok -> socket |> refresh() |> Assigns.say("On its way again.")
      {:error, reason} -> failed(socket, reason)
    end
  end

  def handle("request", _params, %{assigns: %{delivery: state}} = socket) do
    case Assigns.call(socket, :request, [state.id]) do
      {:ok, request} ->
        socket
        |> assign(delivery: %{state | request: request})
        |> Assigns.focus("delivery-request-title")

      {:error, :not_found} ->
        text = "The webhook no longer exists, so there is no URL and no secret to sign with."
        Assigns.say(socket, text, :bad)

      {:error, reason} ->
        failed(socket, reason)
    end
  end

  def handle("request_hide", _params, %{assigns: %{delivery: state}} = socket) do
    socket
    |> assign(delivery: %{state | request: nil})
    |> Assigns.focus("delivery-request-show")
  end

  def handle("language", %{"language" => name}, %{assigns: %{delivery: state}} = socket) do
    case Snippets.language(name) do
      nil -> Assigns.refuse(socket)
      language -> assign(socket, delivery: %{state | language: language})
    end
  end

  def handle(_event, _params, socket), do: Assigns.refuse(socket)

  # --- markup

  def render(%{delivery: %__MODULE__{delivery: delivery} = state} = assigns) do
    assigns =
      assign(assigns,
        state: state,
        delivery: delivery,
        webhook: Assigns.webhook(assigns, delivery.webhook_id),
        gone: @gone,
        body: ForeignText.block(Format.json(delivery.body || ""))
      )

    ~H"""
    <div>
      <.text_button phx-click="page.back">
        ← <%= if @state.back == :log, do: "Back to the deliveries", else: "All webhooks" %>
      </.text_button>
      <div class="mt-2 flex flex-wrap items-start justify-between gap-3">
        <div class="min-w-0">
          <.heading id="delivery-title"><%= Labels.type(@delivery.type) %></.heading>
          <p class="mt-1"><DeliveryStatus.state delivery={@delivery} now_ms={@now_ms} /></p>
        </div>
        <.button id="delivery-redeliver" theme={:primary} phx-click="delivery.redeliver">
          Send again
        </.button>
      </div>
      <.notice :if={@state.gone?} theme={:yellow} class="mt-4" role="alert"><%= @gone %></.notice>
      <div class="mt-4"><.facts rows={facts(@delivery, @webhook, @goals, @zone)} /></div>
      <p :if={@webhook} class="mt-3">
        <.text_button phx-click="page.webhook" phx-value-id={@webhook.id}>
          Open <%= ForeignText.short(Assigns.name(@webhook), 60) %>
        </.text_button>
      </p>
      <.attempts attempts={@state.attempts} zone={@zone} />
      <.section id="delivery-body" title="What was sent">
        <.copy_block id="delivery-body-text" label="Body" value={@body} copy?={@copy?} />
      </.section>
      <.section
        id="delivery-request"
        title="Request"
        text="As it would be sent now: every attempt is signed anew with its own time. Requests older than five minutes are refused by receivers that verify."
      >
        <.request request={@state.request} language={@state.language} copy?={@copy?} />
      </.section>
    </div>
    """
  end

  defp facts(delivery, webhook, goals, zone) do
    Enum.filter(
      [
        {"webhook-id", delivery.id},
        {"Webhook", webhook && Assigns.name(webhook)},
        {"Goal", delivery.goal_id && goal(delivery.goal_id, goals)},
        {"Created", Format.time(delivery.created_at_ms, zone)},
        {"Attempts", to_string(delivery.attempts)},
        {"Last answer", DeliveryStatus.answer(delivery)},
        # An error class, or a sentence.
        {"Why",
         delivery.state in [:failed, :cancelled] &&
           (FailureHints.name(delivery.reason) || delivery.reason)}
      ],
      &elem(&1, 1)
    )
  end

  defp goal(id, goals) when is_list(goals) do
    with %{name: name} <- Enum.find(goals, "#{id}", &(&1.id == id)), do: name
  end

  defp goal(id, _unknown), do: to_string(id)

  defp attempts(assigns) do
    ~H"""
    <.section id="delivery-attempts" title="Attempts">
      <p :if={@attempts in [nil, []]} class="text-sm text-gray-700 dark:text-gray-200">
        <%= if @attempts, do: "No attempt yet.", else: "Loading …" %>
      </p>
      <ol :if={@attempts not in [nil, []]} class="space-y-6">
        <li :for={attempt <- Enum.reverse(@attempts)} id={"attempt-#{attempt.number}"}>
          <h4 class="mb-2 text-sm font-semibold text-gray-900 dark:text-gray-100">
            Attempt <%= attempt.number %>
            <span class="font-normal text-gray-700 dark:text-gray-200">
              <%= Format.time(attempt.started_at_ms, @zone) %>
            </span>
          </h4>
          <AttemptResult.render attempt={attempt} id={"attempt-#{attempt.number}-result"} />
        </li>
      </ol>
    </.section>
    """
  end

  defp request_rows(request) do
    for {name, value} <- [{"URL", request.url} | request.headers],
        do: {name, Redacted.wrap(value)}
  end

  defp request(%{request: nil} = assigns) do
    ~H"""
    <.button id="delivery-request-show" phx-click="delivery.request">
      Show request, curl and verification code
    </.button>
    """
  end

  defp request(assigns) do
    ~H"""
    <div class="flex flex-wrap gap-2">
      <.button phx-click="delivery.request">Sign again with the current time</.button>
      <.button phx-click="delivery.request_hide">Hide request</.button>
    </div>
    <div class="mt-4 space-y-5">
      <.facts rows={request_rows(@request)} />
      <.copy_block
        id="delivery-curl"
        label="Reproduce it with curl"
        value={Snippets.curl(@request)}
        copy?={@copy?}
      />
      <form id="delivery-language" phx-change="delivery.language">
        <p class="text-sm font-medium text-gray-900 dark:text-gray-100">Verify it in your language</p>
        <p class="mt-0.5 text-sm text-gray-600 dark:text-gray-300">
          The code has the values of this delivery. Run it with the secret in the environment
          variable WEBHOOK_SECRET.
        </p>
        <.field id="delivery-language-select" label="Language" class="mt-2 max-w-xs">
          <.select
            id="delivery-language-select"
            name="language"
            value={@language}
            options={Snippets.languages()}
          />
        </.field>
      </form>
      <.copy_block
        id="delivery-verify"
        label="Code"
        value={Snippets.verify(@language, @request)}
        copy?={@copy?}
      />
    </div>
    """
  end
end
