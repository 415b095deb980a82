defmodule PlausibleWeb.Live.WebhookSettings.DeliveryPage do
  @moduledoc false
  # One delivery: what was sent, what came of it each time, and how to send it again
  # or to verify it oneself.

  @behaviour PlausibleWeb.Live.WebhookSettings.Page

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components
  import PlausibleWeb.Live.WebhookSettings.Texts, only: [t: 1, t: 2]

  alias Phoenix.LiveView.Socket

  alias PlausibleWeb.Live.WebhookSettings.{
    FormPage,
    Format,
    Hidden,
    Json,
    LogPage,
    Page,
    Safe,
    Snippets,
    State,
    TestPanel,
    Texts
  }

  alias PlausibleWeb.Live.WebhookSettings.Texts.Failures

  # request: what would be sent now, nil as long as nobody wants to see it.
  # gone?: it was deleted while it was looked at.
  # URL and headers may hold tokens, which no crash report may show.
  @derive {Inspect, only: [:id]}
  defstruct [:id, :delivery, :attempts, :request, :back, language: :node, gone?: false]

  @doc "Opens a delivery, if there is one of that id at this site."
  @spec open(Socket.t(), term()) :: Socket.t()
  def open(socket, id) when is_binary(id) do
    case State.call(socket, :delivery, [id]) do
      {:ok, delivery} ->
        detail = %__MODULE__{id: id, delivery: delivery, back: back(socket.assigns)}

        socket
        |> assign(view: :delivery, detail: detail, form: nil)
        |> State.hush()
        |> State.focus("delivery-title")
        |> State.load(__MODULE__, {:attempts, id}, :attempts, [id])
        |> State.load(FormPage, :goals, :goals, [])

      {:error, reason} ->
        failed(socket, reason)
    end
  end

  def open(socket, _no_id), do: State.say(socket, t(:refused), :bad)

  # To where the way back leads.
  defp back(%{view: :webhook, hook: %{id: id}}), do: {:webhook, id}
  defp back(%{view: :list}), do: :list
  defp back(_log), do: :log

  @doc "Read anew."
  @spec refresh(Socket.t()) :: Socket.t()
  def refresh(%{assigns: %{detail: %__MODULE__{id: id}}} = socket) do
    socket
    |> State.load(__MODULE__, {:delivery, id}, :delivery, [id])
    |> State.load(__MODULE__, {:attempts, id}, :attempts, [id])
  end

  @impl Page
  def loaded({what, id}, result, %{assigns: %{detail: %__MODULE__{id: id} = detail}} = socket) do
    case {what, result} do
      {:delivery, {:ok, delivery}} -> assign(socket, detail: %{detail | delivery: delivery})
      {:attempts, {:ok, attempts}} -> assign(socket, detail: %{detail | attempts: attempts})
      {_what, {:error, :not_found}} -> assign(socket, detail: %{detail | gone?: true})
      {_what, {:error, reason}} -> failed(socket, reason)
    end
  end

  def loaded(_tag, {:error, :forbidden}, socket), do: State.lost(socket)
  def loaded(_of_another, _result, socket), do: socket

  defp failed(socket, :not_found), do: State.say(socket, t(:delivery_gone), :bad)
  defp failed(socket, reason), do: State.failed(socket, reason)

  # --- events

  @impl Page
  def handle("redeliver", _params, %{assigns: %{detail: %__MODULE__{id: id}}} = socket) do
    case State.call(socket, :redeliver, [id]) do
      :ok -> socket |> refresh() |> State.say(t(:redelivered))
      {:error, reason} -> failed(socket, reason)
    end
  end

  def handle("request", _params, %{assigns: %{detail: %__MODULE__{} = detail}} = socket) do
    case State.call(socket, :request, [detail.id]) do
      {:ok, request} ->
        socket
        |> assign(detail: %{detail | request: request})
        |> State.focus("delivery-request-title")

      {:error, :not_found} ->
        State.say(socket, t(:request_gone), :bad)

      {:error, reason} ->
        failed(socket, reason)
    end
  end

  def handle("request_hide", _params, %{assigns: %{detail: %__MODULE__{} = detail}} = socket) do
    socket
    |> assign(detail: %{detail | request: nil})
    |> State.focus("delivery-request-show")
  end

  def handle(
        "language",
        %{"language" => name},
        %{assigns: %{detail: %__MODULE__{} = detail}} = socket
      ) do
    case Snippets.language(name) do
      nil -> State.say(socket, t(:refused), :bad)
      language -> assign(socket, detail: %{detail | language: language})
    end
  end

  def handle(_event, _params, socket), do: State.say(socket, t(:refused), :bad)

  # --- what is shown

  attr(:detail, __MODULE__, required: true)
  attr(:webhook, :any, required: true, doc: "`nil` when it was deleted")
  attr(:goals, :any, required: true)
  attr(:zone, :string, required: true)
  attr(:now_ms, :integer, required: true)
  attr(:copy?, :boolean, required: true)

  def render(assigns) do
    assigns = assign(assigns, delivery: assigns.detail.delivery)

    ~H"""
    <div>
      <.text_button phx-click="page.back">
        ← <%= if @detail.back == :log, do: t(:back_to_deliveries), else: t(:back_to_webhooks) %>
      </.text_button>
      <div class="mt-2 flex flex-wrap items-start justify-between gap-3">
        <div class="min-w-0">
          <.heading id="delivery-title"><%= Texts.type(@delivery.type) %></.heading>
          <p class="mt-1"><LogPage.state delivery={@delivery} now_ms={@now_ms} /></p>
        </div>
        <.button id="delivery-redeliver" theme={:primary} phx-click="delivery.redeliver">
          <%= t(:redeliver) %>
        </.button>
      </div>
      <.notice :if={@detail.gone?} theme={:yellow} class="mt-4" role="alert">
        <%= t(:delivery_gone) %>
      </.notice>
      <div class="mt-4"><.facts rows={facts(@delivery, @webhook, @goals, @zone)} /></div>
      <p :if={@webhook} class="mt-3">
        <.text_button phx-click="page.webhook" phx-value-id={@webhook.id}>
          <%= t(:open, name: Safe.short(State.name(@webhook), 60)) %>
        </.text_button>
      </p>
      <.attempts attempts={@detail.attempts} zone={@zone} />
      <.body_section delivery={@delivery} copy?={@copy?} />
      <.request request={@detail.request} language={@detail.language} copy?={@copy?} />
    </div>
    """
  end

  defp facts(delivery, webhook, goals, zone) do
    [
      {t(:delivery_id), delivery.id},
      {t(:column_webhook), webhook && State.name(webhook)},
      {t(:filter_goal), goal(delivery.goal_id, goals)},
      {t(:column_time), Format.time(delivery.created_at_ms, zone)},
      {t(:column_attempts), to_string(delivery.attempts)},
      {t(:column_answer), LogPage.answer(delivery)},
      {t(:delivery_reason), delivery.state in [:failed, :cancelled] && reason(delivery)}
    ]
    |> Enum.filter(&elem(&1, 1))
  end

  # An error class, or a sentence.
  defp reason(%{reason: reason}), do: Failures.name(reason) || reason

  defp goal(nil, _goals), do: nil

  defp goal(id, goals) when is_list(goals) do
    with %{name: name} <- Enum.find(goals, "#{id}", &(&1.id == id)), do: name
  end

  defp goal(id, _not_known), do: to_string(id)

  defp attempts(assigns) do
    ~H"""
    <.section id="delivery-attempts" title={t(:attempts_title)}>
      <p :if={@attempts == nil} class="text-sm text-gray-700 dark:text-gray-200">
        <%= t(:loading) %>
      </p>
      <p :if={@attempts == []} class="text-sm text-gray-700 dark:text-gray-200">
        <%= t(:attempts_none) %>
      </p>
      <ol :if={@attempts not in [nil, []]} class="space-y-6">
        <li :for={attempt <- Enum.reverse(@attempts)} id={"attempt-#{attempt.number}"}>
          <h4 class="mb-2 text-sm font-semibold text-gray-900 dark:text-gray-100">
            <%= t(:attempt_n, n: attempt.number) %>
            <span class="font-normal text-gray-700 dark:text-gray-200">
              <%= Format.time(attempt.started_at_ms, @zone) %>
            </span>
          </h4>
          <TestPanel.attempt attempt={attempt} id={"attempt-#{attempt.number}-result"} />
        </li>
      </ol>
    </.section>
    """
  end

  defp body_section(assigns) do
    assigns = assign(assigns, shown: Safe.block(Json.pretty(assigns.delivery.body || "")))

    ~H"""
    <.section id="delivery-body" title={t(:sent_title)}>
      <.copy_block id="delivery-body-text" label={t(:request_body)} value={@shown} copy?={@copy?} />
    </.section>
    """
  end

  defp request_rows(request) do
    for {name, value} <- [{t(:request_url), request.url} | request.headers],
        do: {name, Hidden.wrap(value)}
  end

  defp request(%{request: nil} = assigns) do
    ~H"""
    <.section id="delivery-request" title={t(:request_title)} text={t(:request_text)}>
      <.button id="delivery-request-show" phx-click="delivery.request">
        <%= t(:request_show) %>
      </.button>
    </.section>
    """
  end

  defp request(assigns) do
    ~H"""
    <.section id="delivery-request" title={t(:request_title)} text={t(:request_text)}>
      <div class="flex flex-wrap gap-2">
        <.button phx-click="delivery.request"><%= t(:request_fresh) %></.button>
        <.button phx-click="delivery.request_hide"><%= t(:request_hide) %></.button>
      </div>
      <div class="mt-4 space-y-5">
        <.facts rows={request_rows(@request)} />
        <.copy_block
          id="delivery-curl"
          label={t(:curl_title)}
          value={Snippets.curl(@request)}
          copy?={@copy?}
        />
        <form id="delivery-language" phx-change="delivery.language">
          <p class="text-sm font-medium text-gray-900 dark:text-gray-100"><%= t(:verify_title) %></p>
          <p class="mt-0.5 text-sm text-gray-600 dark:text-gray-300"><%= t(:verify_text) %></p>
          <.field id="delivery-language-select" label={t(:verify_language)} class="mt-2 max-w-xs">
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
          label={t(:verify_code)}
          value={Snippets.verify(@language, @request)}
          copy?={@copy?}
        />
      </div>
    </.section>
    """
  end
end
