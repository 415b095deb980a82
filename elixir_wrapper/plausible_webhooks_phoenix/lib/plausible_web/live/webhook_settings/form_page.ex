defmodule PlausibleWeb.Live.WebhookSettings.FormPage do
  @moduledoc false
  # Adding and editing a webhook. The URL is judged while it is typed, the rest when
  # it is saved. Saving asks nobody whether the URL can be reached. `FormView` shows it.

  @behaviour PlausibleWeb.Live.WebhookSettings.Page

  import Phoenix.Component, only: [assign: 2]
  import PlausibleWeb.Live.WebhookSettings.Texts, only: [t: 1]

  alias Phoenix.LiveView.Socket
  alias Plausible.Webhooks.Webhook
  alias PlausibleWeb.Live.WebhookSettings.{Form, Page, State, WebhookPage}

  # --- coming here

  @spec open_new(Socket.t()) :: Socket.t()
  def open_new(socket), do: open(socket, Form.new())

  @spec open_edit(Socket.t(), Webhook.t()) :: Socket.t()
  def open_edit(socket, webhook), do: open(socket, Form.edit(webhook, State.name(webhook)))

  defp open(socket, form) do
    socket
    |> assign(view: :form, form: judged(socket, form))
    |> State.hush()
    |> State.focus("webhook-form-title")
    |> State.load(__MODULE__, :goals, :goals, [])
    |> State.load(__MODULE__, :figures, :figures, [])
  end

  @impl Page
  def loaded(:goals, {:ok, goals}, socket), do: assign(socket, goals: goals)
  def loaded(:goals, {:error, reason}, socket), do: assign(socket, goals: {:error, reason})
  def loaded(:figures, {:ok, figures}, socket), do: assign(socket, figures: figures)
  def loaded(:figures, {:error, reason}, socket), do: assign(socket, figures: {:error, reason})

  @doc "The webhooks were read anew: was the one in the form changed by others?"
  @spec refreshed(Socket.t()) :: Socket.t()
  def refreshed(%{assigns: %{form: %Form{id: id} = form}} = socket) when id != nil do
    case State.webhook(socket, id) do
      %{version: version} when version == form.version -> socket
      _changed_or_gone -> assign(socket, form: %{form | changed?: true})
    end
  end

  def refreshed(socket), do: socket

  # --- events

  @impl Page
  def handle("change", %{"webhook" => params}, socket) do
    form = socket.assigns.form |> Form.merge(params) |> Form.forgive(socket.assigns.form)
    assign(socket, form: judged(socket, form))
  end

  def handle("search", %{"search" => text}, socket),
    do: assign(socket, form: Form.search(socket.assigns.form, text))

  def handle("add_header", _params, socket) do
    form = Form.add_header(socket.assigns.form)
    {key, _name, _value} = List.last(form.headers)
    socket |> assign(form: form) |> State.focus("webhook-header-#{key}-name")
  end

  def handle("remove_header", %{"key" => key}, socket) do
    socket
    |> assign(form: Form.remove_header(socket.assigns.form, key))
    |> State.focus("webhook-add-header")
  end

  def handle("reload", _params, %{assigns: %{form: %Form{id: id}}} = socket) when id != nil do
    case State.call(socket, :get_webhook, [id]) do
      {:ok, webhook} -> open_edit(socket, webhook)
      {:error, reason} -> State.failed(socket, reason)
    end
  end

  def handle("save", %{"webhook" => params}, socket) do
    form = Form.merge(socket.assigns.form, params)
    attributes = Form.attributes(form, known(socket.assigns.goals))

    case save(socket, form, attributes) do
      {:ok, webhook} ->
        text = if form.id, do: t(:saved), else: t(:created)
        socket |> assign(form: nil) |> WebhookPage.open(webhook) |> State.say(text)

      {:error, {:invalid, errors}} ->
        socket
        |> assign(form: judged(socket, %{form | errors: errors}))
        |> State.hush()
        |> State.focus("webhook-form-errors")

      {:error, :changed_elsewhere} ->
        socket |> assign(form: %{form | changed?: true}) |> State.failed(:changed_elsewhere)

      {:error, reason} ->
        socket |> assign(form: form) |> State.failed(reason)
    end
  end

  def handle(_event, _params, socket), do: State.say(socket, t(:refused), :bad)

  defp save(socket, %{id: nil}, attributes),
    do: State.call(socket, :create_webhook, [attributes])

  # Who has been told of the others' change may put theirs over it.
  defp save(socket, %{id: id, changed?: true}, attributes),
    do: State.call(socket, :update_webhook, [id, attributes])

  defp save(socket, %{id: id, version: version}, attributes) do
    case State.call(socket, :get_webhook, [id]) do
      {:ok, %{version: ^version}} -> State.call(socket, :update_webhook, [id, attributes])
      {:ok, _changed} -> {:error, :changed_elsewhere}
      {:error, _reason} = error -> error
    end
  end

  defp known(goals) when is_list(goals), do: goals
  defp known(_not_yet), do: nil

  defp judged(socket, form) do
    case String.trim(form.url) do
      "" ->
        %{form | url_check: nil}

      url ->
        %{form | url_check: Plausible.Webhooks.check_url(socket.assigns.context.instance, url)}
    end
  end
end
