defmodule PlausibleWeb.Live.WebhookSettings.FormView do
  @moduledoc false
  # The form that adds or edits a webhook. It checks the URL while the user types, and the
  # rest on save. Saving does not check whether the URL can be reached.

  @behaviour PlausibleWeb.Live.WebhookSettings.View

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Phoenix.LiveView.Socket
  alias Plausible.Webhooks.Webhook
  alias PlausibleWeb.Live.WebhookSettings.{Assigns, ForeignText, Form, FormFields, Labels, View}

  # --- opening

  @spec open_new(Socket.t()) :: Socket.t()
  def open_new(socket), do: open(socket, Form.new())

  @spec open_edit(Socket.t(), Webhook.t()) :: Socket.t()
  def open_edit(socket, webhook), do: open(socket, Form.edit(webhook, Assigns.name(webhook)))

  defp open(socket, form) do
    socket
    |> assign(view: :form, form: checked(socket, form), message: nil)
    |> Assigns.focus("webhook-form-title")
    |> Assigns.load(:goals)
    |> Assigns.load(:figures)
  end

  @impl View
  def loaded(_tag, _result, socket), do: socket

  @doc "Compares the form with the webhooks, which were read again."
  @spec refreshed(Socket.t()) :: Socket.t()
  def refreshed(%{assigns: %{form: %Form{id: id} = form}} = socket) when id != nil do
    case Assigns.webhook(socket, id) do
      %{version: version} when version == form.version -> socket
      _changed_or_gone -> assign(socket, form: %{form | changed?: true})
    end
  end

  def refreshed(socket), do: socket

  # --- events

  @impl View
  def handle("change", %{"webhook" => params}, %{assigns: %{form: before}} = socket) do
    form = before |> Form.merge(params) |> Form.drop_outdated_errors(before)
    assign(socket, form: checked(socket, form))
  end

  def handle("search", %{"search" => text}, socket),
    do: assign(socket, form: Form.search(socket.assigns.form, text))

  def handle("add_header", _params, socket) do
    form = Form.add_header(socket.assigns.form)
    {key, _name, _value} = List.last(form.headers)
    socket |> assign(form: form) |> Assigns.focus("webhook-header-#{key}-name")
  end

  def handle("remove_header", %{"key" => key}, socket) do
    socket
    |> assign(form: Form.remove_header(socket.assigns.form, key))
    |> Assigns.focus("webhook-add-header")
  end

  def handle("reload", _params, %{assigns: %{form: %Form{id: id}}} = socket) when id != nil do
    result = Assigns.call(socket, :get_webhook, [id])
    Assigns.continue(socket, result, &open_edit(socket, &1))
  end

  def handle("save", %{"webhook" => params}, %{assigns: %{goals: goals}} = socket) do
    form = Form.merge(socket.assigns.form, params)

    case save(socket, form, Form.attributes(form, if(is_list(goals), do: goals))) do
      {:ok, webhook} ->
        text =
          if form.id,
            do: "Saved. The change applies from the next event.",
            else: "Webhook added. Copy its secret to your receiver, then send a test."

        Assigns.open(socket, {:webhook, webhook}, text)

      {:error, {:invalid, errors}} ->
        socket
        |> assign(form: checked(socket, %{form | errors: errors}), message: nil)
        |> Assigns.focus("webhook-form-errors")

      {:error, reason} ->
        changed? = form.changed? or reason == :changed_elsewhere
        socket |> assign(form: %{form | changed?: changed?}) |> Assigns.failed(reason)
    end
  end

  def handle(_event, _params, socket), do: Assigns.refuse(socket)

  defp save(socket, %{id: nil}, attributes),
    do: Assigns.call(socket, :create_webhook, [attributes])

  # The user has seen the notice about the other change, and overwrites it.
  defp save(socket, %{id: id, changed?: true}, attributes),
    do: Assigns.call(socket, :update_webhook, [id, attributes])

  defp save(socket, %{id: id, version: version}, attributes) do
    case Assigns.call(socket, :get_webhook, [id]) do
      {:ok, %{version: ^version}} -> Assigns.call(socket, :update_webhook, [id, attributes])
      {:ok, _changed} -> {:error, :changed_elsewhere}
      {:error, _reason} = error -> error
    end
  end

  defp checked(socket, form) do
    url = String.trim(form.url)
    instance = socket.assigns.context.instance
    %{form | url_check: if(url != "", do: Plausible.Webhooks.check_url(instance, url))}
  end

  # --- markup

  def render(assigns) do
    ~H"""
    <div>
      <.heading id="webhook-form-title">
        <%= if @form.id, do: "Edit #{ForeignText.line(@form.title)}", else: "Add webhook" %>
      </.heading>
      <.notices form={@form} />
      <%!-- The form of the goal search: Enter in that field must not save. --%>
      <form id="webhook-search-form" phx-submit="form.search" autocomplete="off"></form>
      <form
        id="webhook-form"
        phx-change="form.change"
        phx-submit="form.save"
        novalidate
        autocomplete="off"
        class="mt-4 space-y-6"
      >
        <.url form={@form} />
        <.text_field
          id="webhook-name"
          label="Description"
          help="Optional. A name by which you recognize the webhook, for example CRM."
          error={Form.error(@form, :name)}
          name="webhook[name]"
          value={@form.name}
          maxlength="100"
          phx-debounce="300"
        />
        <FormFields.events form={@form} />
        <FormFields.goals :if={"goal.completed" in @form.events} form={@form} goals={@goals} />
        <FormFields.threshold
          :for={kind <- [:spike, :drop]}
          :if={"traffic.#{kind}" in @form.events}
          kind={kind}
          threshold={Map.fetch!(@form, kind)}
          error={Form.error(@form, :"#{kind}_threshold")}
          figures={@figures}
        />
        <FormFields.interval
          :if={"traffic.spike" in @form.events or "traffic.drop" in @form.events}
          form={@form}
        />
        <FormFields.headers form={@form} />
        <.text_field
          :if={@form.id == nil}
          id="webhook-secret"
          label="Signing secret of your own"
          help="Optional. Leave it empty and we create one. Your own secret is whsec_ followed by the Base64 of 24 to 64 bytes."
          error={Form.error(@form, :secret)}
          name="webhook[secret]"
          value={@form.secret}
          autocomplete="off"
          maxlength="200"
          phx-debounce="300"
        />
        <div class="flex flex-wrap gap-3">
          <.button type="submit" theme={:primary} phx-disable-with="Loading …">
            <%= if @form.id, do: "Save changes", else: "Add webhook" %>
          </.button>
          <.button phx-click="page.cancel_form">Cancel</.button>
        </div>
      </form>
    </div>
    """
  end

  defp notices(assigns) do
    ~H"""
    <.notice :if={@form.changed?} theme={:yellow} class="mt-4" role="alert">
      <p><%= Assigns.error(:changed_elsewhere) %></p>
      <.text_button phx-click="form.reload">Load their values</.text_button>
    </.notice>

    <div id="webhook-form-errors" tabindex="-1" class="mt-4 rounded-md">
      <.notice :if={@form.errors != %{}} theme={:red} role="alert">
        <p class="font-semibold">Not saved yet</p>
        <ul class="mt-1 list-disc pl-5">
          <li :for={{name, text} <- @form.errors}><%= Labels.invalid(name, text) %></li>
        </ul>
      </.notice>
    </div>
    """
  end

  defp url(assigns) do
    ~H"""
    <.text_field
      id="webhook-url"
      label="URL"
      help="Where we send POST requests with a JSON body. You can save it before anything answers there."
      error={Form.error(@form, :url)}
      type="url"
      name="webhook[url]"
      value={@form.url}
      describe="webhook-url-check"
      inputmode="url"
      maxlength="2100"
      required
      phx-debounce="300"
    >
      <div id="webhook-url-check" aria-live="polite" class="mt-1.5 text-sm break-words">
        <.url_check check={@form.url_check} saved_error={Form.error(@form, :url)} />
      </div>
    </.text_field>
    """
  end

  defp url_check(%{check: {:ok, %{host: host, port: port, host_unicode: unicode}}} = assigns) do
    name = if unicode, do: "#{ForeignText.line(unicode)} (written #{host} in DNS)", else: host
    assigns = assign(assigns, name: name, port: port)

    ~H"""
    <p class="text-green-800 dark:text-green-300">
      We will deliver to <%= @name %>, port <%= @port %>.
    </p>
    """
  end

  # The error of the last save is below the field already.
  defp url_check(%{check: {:error, text}, saved_error: saved} = assigns) do
    assigns = assign(assigns, text: Labels.invalid(:url, text))

    if saved == assigns.text do
      ~H""
    else
      ~H"""
      <p class="text-red-700 dark:text-red-300"><%= @text %></p>
      """
    end
  end

  defp url_check(assigns), do: ~H""
end
