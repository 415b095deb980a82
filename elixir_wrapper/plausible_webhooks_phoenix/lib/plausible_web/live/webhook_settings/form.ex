defmodule PlausibleWeb.Live.WebhookSettings.Form do
  @moduledoc false
  # The form that adds or edits a webhook. It checks the URL while the user types, and the
  # rest on save. Saving does not check whether the URL can be reached.
  #
  # After a reconnect or a deploy LiveView sends the contents of the form again, as a change
  # (form recovery), to a view that is mounted anew.

  use PlausibleWeb.Live.WebhookSettings.Page

  alias PlausibleWeb.Live.WebhookSettings.{Fields, FormData, Labels}

  # saved: the attributes at the start, nil once they are saved.
  # changed?: somebody else has saved the webhook meanwhile.
  @impl true
  def mount(_params, _session, %{assigns: %{context: context, site: site}} = socket) do
    socket = assign(socket, goals: nil, figures: nil, errors: %{}, changed?: false)

    socket =
      case context.view do
        ["new"] ->
          full? =
            length(fetch!(socket, :list_webhooks, [])) >=
              socket.assigns.options.webhooks_per_site_max

          socket
          |> assign(
            page_title: "Add webhook · #{site.domain}",
            title: "Add webhook",
            full?: full?
          )
          |> open(%FormData{})

        [id, "edit"] ->
          webhook = fetch!(socket, :get_webhook, [id])
          title = "Edit #{Labels.name(webhook)}"

          socket
          |> assign(page_title: "#{title} · #{site.domain}", title: title, full?: false)
          |> open(FormData.edit(webhook))
      end

    {:ok, socket |> load(:goals, :goals, []) |> load(:figures, :figures, [])}
  end

  defp open(socket, form),
    do:
      assign(socket,
        form: form,
        saved: FormData.attributes(form, nil),
        url_check: check(socket, form)
      )

  defp check(%{assigns: %{context: %{instance: instance}}}, form) do
    url = FormData.url(form)
    if url != "", do: Plausible.Webhooks.check_url(instance, url)
  end

  @impl true
  def handle_info(:refresh, %{assigns: %{form: %{id: nil}}} = socket), do: {:noreply, socket}

  def handle_info(:refresh, %{assigns: %{form: form, changed?: changed?}} = socket),
    do: {:noreply, assign(socket, changed?: changed? or changed_elsewhere?(socket, form))}

  defp changed_elsewhere?(socket, form) do
    case call(socket, :get_webhook, [form.id]) do
      {:ok, %{version: version}} -> version != FormData.version(form)
      {:error, reason} -> reason == :not_found
    end
  end

  # --- events

  @impl true
  def handle_event("change", %{"webhook" => params}, %{assigns: %{form: before}} = socket) do
    form = FormData.merge(before, params)
    {:noreply, changed(socket, form)}
  end

  def handle_event("search", %{"search" => text}, socket),
    do: {:noreply, assign(socket, form: FormData.search(socket.assigns.form, text))}

  def handle_event("test_address", _params, %{assigns: %{context: context, form: form}} = socket)
      when is_binary(context.test_address) do
    %{test_address: base, instance: instance, site_id: site_id} = context
    url = PlausibleWeb.WebhookTestAddress.url(socket.endpoint, base, instance, site_id)
    {:noreply, socket |> changed(FormData.merge(form, %{"url" => url})) |> focus("webhook-url")}
  end

  def handle_event("add_header", _params, socket) do
    {form, key} = FormData.add_header(socket.assigns.form)
    {:noreply, socket |> changed(form) |> focus("webhook-header-#{key}-name")}
  end

  def handle_event("remove_header", %{"key" => key}, socket) do
    form = FormData.remove_header(socket.assigns.form, key)
    {:noreply, socket |> changed(form) |> focus("webhook-add-header")}
  end

  def handle_event("reload", _params, %{assigns: %{form: %{id: id}}} = socket) when id != nil do
    continue(socket, call(socket, :get_webhook, [id]), fn webhook ->
      socket |> assign(changed?: false) |> open(FormData.edit(webhook))
    end)
  end

  def handle_event("save", %{"webhook" => params}, %{assigns: %{goals: goals}} = socket) do
    form = FormData.merge(socket.assigns.form, params)
    socket = changed(socket, form)

    case save(socket, form, FormData.attributes(form, if(is_list(goals), do: goals))) do
      {:ok, %{id: id}} ->
        {:noreply,
         socket |> assign(saved: nil) |> go([id], if(form.id, do: "saved", else: "added"))}

      {:error, {:invalid, errors}} ->
        {:noreply, socket |> assign(errors: errors) |> focus(FormData.first_wrong(errors))}

      {:error, :stale} when not socket.assigns.changed? ->
        {:noreply, assign(socket, changed?: true)}

      {:error, reason} ->
        {:noreply, failed(socket, reason)}
    end
  end

  def handle_event(event, params, socket), do: super(event, params, socket)

  defp changed(%{assigns: %{form: before, errors: errors}} = socket, form) do
    assign(socket,
      form: form,
      errors: FormData.still(errors, form, before),
      url_check: check(socket, form)
    )
  end

  defp save(socket, %{id: nil}, attributes), do: call(socket, :create_webhook, [attributes])

  # A user who has seen the notice about another change overwrites that change.
  defp save(%{assigns: %{changed?: true}} = socket, %{id: id}, attributes),
    do: call(socket, :update_webhook, [id, attributes])

  defp save(socket, %{id: id} = form, attributes) do
    attributes = Map.put(attributes, :version, FormData.version(form))
    call(socket, :update_webhook, [id, attributes])
  end

  # --- markup

  @impl true
  def render(assigns) do
    ~H"""
    <.head title={@title} back={path(@context, [])} />
      <.notice :if={@full?} theme={:yellow}>
        This site has all of its <%= @options.webhooks_per_site_max %> webhooks. Delete one to add
        another.
      </.notice>
      <.notice :if={@changed?} theme={:yellow} class="mb-4" role="alert">
        <p>
          Somebody else changed this webhook in the meantime. Saving overwrites their values with
          yours.
        </p>
        <.text_link id="webhook-reload" phx-click="reload">Load their values</.text_link>
      </.notice>
      <%!-- The form of the goal search: Enter in that field must not save. --%>
      <form id="webhook-search-form" phx-submit="search" autocomplete="off"></form>
      <form
        :if={not @full?}
        id="webhook-form"
        phx-change="change"
        phx-submit="save"
        novalidate
        autocomplete="off"
        data-unsaved={@saved && FormData.attributes(@form, nil) != @saved}
        class="space-y-6"
      >
        <input type="hidden" name="webhook[version]" value={@form.params["version"]} />
        <Fields.url
          form={@form}
          errors={@errors}
          check={@url_check}
          test_address?={@context.test_address != nil}
        />
        <.text_field
          id="webhook-name"
          label="Description"
          help="Optional. A name by which you recognize the webhook, for example CRM."
          error={FormData.error(@errors, :name)}
          name="webhook[name]"
          value={@form.params["name"]}
          maxlength="100"
          phx-debounce="300"
        />
        <Fields.events form={@form} errors={@errors} />
        <Fields.goals
          :if={FormData.event?(@form, "goal.completed")}
          form={@form}
          errors={@errors}
          goals={@goals}
        />
        <Fields.threshold
          :for={kind <- [:spike, :drop]}
          :if={FormData.event?(@form, "traffic.#{kind}")}
          kind={kind}
          threshold={@form.params["#{kind}"]}
          error={FormData.error(@errors, :"#{kind}_threshold")}
          figures={@figures}
        />
        <Fields.interval
          :if={FormData.event?(@form, "traffic.spike") or FormData.event?(@form, "traffic.drop")}
          form={@form}
          errors={@errors}
        />
        <Fields.headers form={@form} errors={@errors} />
        <.text_field
          :if={@form.id == nil}
          id="webhook-own-secret"
          label="Signing secret of your own"
          help="Optional. Leave it empty and we create one. Your own secret is whsec_ followed by the Base64 of 24 to 64 bytes."
          error={FormData.error(@errors, :secret)}
          name="webhook[secret]"
          value={@form.params["secret"]}
          maxlength="200"
          phx-debounce="300"
        />
        <div class="flex flex-wrap gap-3">
          <.button type="submit" theme={:primary}>
            <%= if @form.id, do: "Save changes", else: "Add webhook" %>
          </.button>
          <.button id="webhook-cancel" href={path(@context, List.wrap(@form.id))}>Cancel</.button>
        </div>
      </form>
    """
  end
end
