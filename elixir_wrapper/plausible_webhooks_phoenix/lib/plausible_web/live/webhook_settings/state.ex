defmodule PlausibleWeb.Live.WebhookSettings.State do
  @moduledoc false
  # What the parts of the page share: how they call `Plausible.Webhooks`, what they
  # tell the user, where the focus goes.

  import Phoenix.Component, only: [assign: 2]
  import Phoenix.LiveView, only: [start_async: 3]

  alias Phoenix.LiveView.Socket
  alias PlausibleWeb.Live.WebhookSettings.Texts

  @doc """
  May the actor still manage the webhooks? Asked on every event. An error is neither
  yes nor no: whoever cannot be asked about keeps what they have, and does nothing.
  """
  @spec permission(Socket.t()) :: :ok | {:error, :forbidden | term()}
  def permission(%{assigns: %{context: context}}) do
    %{instance: instance, actor: actor, site_id: site_id} = context
    Plausible.Webhooks.Manage.Overview.permission(instance, actor, :manage, site_id)
  end

  @doc "A function of `Plausible.Webhooks`, as this actor and for this site."
  @spec call(Socket.t() | map(), atom(), [term()]) :: term()
  def call(%Socket{assigns: %{context: context}}, function, arguments),
    do: call(context, function, arguments)

  # The host is asked in it, whose database may be away.
  def call(%{instance: instance, actor: actor, site_id: site_id}, function, arguments) do
    apply(Plausible.Webhooks, function, [instance, actor, site_id | arguments])
  rescue
    error -> {:error, {:raised, error.__struct__}}
  catch
    :exit, _reason -> {:error, :exit}
  end

  @doc """
  The same in a process of its own; `page.loaded(tag, result, socket)` gets the
  result. While it runs another one for the same key is not begun, but remembered,
  so that the last one always gets out.
  """
  @spec load(Socket.t(), module(), term(), atom(), [term()]) :: Socket.t()
  def load(socket, page, tag, function, arguments) do
    %{loading: loading, again: again, context: context} = socket.assigns
    key = {page, tag}

    if MapSet.member?(loading, key) do
      assign(socket, again: MapSet.put(again, key))
    else
      socket
      |> assign(loading: MapSet.put(loading, key))
      |> start_async(key, fn -> call(context, function, arguments) end)
    end
  end

  @doc "That it has ended; and whether it was asked for again meanwhile."
  @spec ended(Socket.t(), {module(), term()}) :: {Socket.t(), boolean()}
  def ended(socket, key) do
    %{loading: loading, again: again} = socket.assigns

    socket =
      assign(socket, loading: MapSet.delete(loading, key), again: MapSet.delete(again, key))

    {socket, MapSet.member?(again, key)}
  end

  @spec loading?(map(), module(), term()) :: boolean()
  def loading?(assigns, page, tag), do: MapSet.member?(assigns.loading, {page, tag})

  @doc "Says something in the live region."
  @spec say(Socket.t(), String.t(), :good | :bad) :: Socket.t()
  def say(socket, text, tone \\ :good), do: assign(socket, message: %{text: text, tone: tone})

  @spec hush(Socket.t()) :: Socket.t()
  def hush(socket), do: assign(socket, message: nil)

  @doc "The focus goes there once the page has changed."
  @spec focus(Socket.t(), String.t()) :: Socket.t()
  def focus(socket, id),
    do: assign(socket, focus: %{id: id, number: System.unique_integer([:positive])})

  @doc "Tells of an error that the API gave; takes everything away from who may no more."
  @spec failed(Socket.t(), term()) :: Socket.t()
  def failed(socket, :forbidden), do: lost(socket)
  def failed(socket, reason), do: say(socket, error(reason), :bad)

  @spec error(term()) :: String.t()
  def error(:not_found), do: Texts.t(:gone)
  def error(:limit_reached), do: Texts.t(:limit_reached)

  def error(reason)
      when reason in [
             :stale,
             :changed_elsewhere,
             :webhook_disabled,
             :too_many_secrets,
             :invalid_overlap,
             :crashed
           ],
      do: Texts.t(reason)

  def error({:invalid, errors}),
    do: Enum.map_join(errors, " ", fn {f, t} -> Texts.invalid(f, t) end)

  def error(_stores), do: Texts.t(:failed)

  @doc "Nothing of the site's stays in this process."
  @spec lost(Socket.t()) :: Socket.t()
  def lost(socket) do
    assign(socket,
      lost?: true,
      view: :lost,
      webhooks: [],
      activity: nil,
      goals: nil,
      form: nil,
      hook: nil,
      log: nil,
      detail: nil,
      message: nil
    )
  end

  @doc "The webhook of that id among those that are shown, or `nil`."
  @spec webhook(Socket.t() | map(), term()) :: struct() | nil
  def webhook(%Socket{assigns: assigns}, id), do: webhook(assigns, id)
  def webhook(%{webhooks: webhooks}, id), do: Enum.find(webhooks, &(&1.id == id))

  @doc "What a webhook is called: its description, or the host it sends to."
  @spec name(struct()) :: String.t()
  def name(%{name: ""} = webhook),
    do: Texts.t(:unnamed, host: Plausible.Webhooks.Webhook.host(webhook) || "?")

  def name(%{name: name}), do: name
end
