defmodule PlausibleWeb.Live.WebhookSettings.Assigns do
  @moduledoc false
  # What the views share: calls of `Plausible.Webhooks`, data that more than one view shows,
  # messages to the user, the focus, and the way from one view to another.

  @behaviour PlausibleWeb.Live.WebhookSettings.View

  import Phoenix.Component, only: [assign: 2]
  import Phoenix.LiveView, only: [start_async: 3]

  alias Phoenix.LiveView.Socket
  alias Plausible.Webhooks.Webhook
  alias PlausibleWeb.Live.WebhookSettings.{Labels, View}

  @doc """
  Whether the actor may still manage the webhooks; asked on every event. On any other error
  the answer is unknown: the actor keeps what is shown, and the event does nothing.
  """
  @spec permission(Socket.t()) :: :ok | {:error, :forbidden | term()}
  def permission(%{assigns: %{context: context}}) do
    %{instance: instance, actor: actor, site_id: site_id} = context
    reason(Plausible.Webhooks.permission(instance, actor, :manage, site_id))
  end

  defp reason({:error, %Plausible.Webhooks.Error{reason: reason}}), do: {:error, reason}
  defp reason(result), do: result

  @doc """
  Calls a function of `Plausible.Webhooks` as this actor and for this site. Returns the
  reason of an error.
  """
  @spec call(Socket.t() | map(), atom(), [term()]) :: term()
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

  @doc """
  Does the same in a process of its own, and calls `view.loaded(tag, result, socket)`. A
  second load with the same view and tag waits for the first one, and at most one waits.
  """
  @spec load(Socket.t(), module(), term(), atom(), [term()]) :: Socket.t()
  def load(socket, view, tag, function, arguments) do
    %{loading: loading, repeat: repeat, context: context} = socket.assigns
    key = {view, tag}

    if MapSet.member?(loading, key) do
      assign(socket, repeat: MapSet.put(repeat, key))
    else
      socket
      |> assign(loading: MapSet.put(loading, key))
      |> start_async(key, fn -> call(context, function, arguments) end)
    end
  end

  @doc "Reads the webhooks again."
  @spec load_webhooks(Socket.t()) :: Socket.t()
  def load_webhooks(socket), do: load(socket, __MODULE__, :webhooks, :list_webhooks, [])

  @doc "Reads the site's activity, goals or current figures again."
  @spec load(Socket.t(), :activity | :goals | :figures) :: Socket.t()
  def load(socket, what), do: load(socket, __MODULE__, what, what, [])

  @impl View
  def loaded(what, {:ok, result}, socket), do: assign(socket, [{what, result}])
  def loaded(_what, {:error, :forbidden}, socket), do: lost(socket)
  def loaded(:webhooks, {:error, reason}, socket), do: failed(socket, reason)
  # Known figures stay.
  def loaded(:activity, {:error, _reason}, socket) when socket.assigns.activity != nil,
    do: socket

  def loaded(what, {:error, reason}, socket), do: assign(socket, [{what, {:error, reason}}])

  @doc "Notes that a load has ended. Returns whether another one waits."
  @spec ended(Socket.t(), {module(), term()}) :: {Socket.t(), boolean()}
  def ended(%{assigns: %{loading: loading, repeat: repeat}} = socket, key) do
    {assign(socket, loading: MapSet.delete(loading, key), repeat: MapSet.delete(repeat, key)),
     MapSet.member?(repeat, key)}
  end

  @doc "Shows a message in the live region."
  @spec say(Socket.t(), String.t(), :good | :bad) :: Socket.t()
  def say(socket, text, tone \\ :good), do: assign(socket, message: %{text: text, tone: tone})

  @type target :: {:list, nil} | {:webhook | :edit, Webhook.t()}

  @doc """
  Asks the page to open another view after this event, with a message. Views do not call
  each other.
  """
  @spec open(Socket.t(), target(), String.t() | nil, :good | :bad) :: Socket.t()
  def open(socket, target, text \\ nil, tone \\ :good),
    do: assign(socket, open: {target, text && %{text: text, tone: tone}})

  @doc "Answers an event that the page does not send."
  @spec refuse(Socket.t()) :: Socket.t()
  def refuse(socket), do: say(socket, "That is not possible.", :bad)

  @doc "Moves the focus to an element once the page has changed."
  @spec focus(Socket.t(), String.t()) :: Socket.t()
  def focus(socket, id),
    do: assign(socket, focus: %{id: id, number: System.unique_integer([:positive])})

  @doc "Continues with a result of the API, or shows its error."
  @spec continue(Socket.t(), :ok | {:ok, term()} | {:error, term()}, (term() -> Socket.t())) ::
          Socket.t()
  def continue(socket, {:error, reason}, _fun), do: failed(socket, reason)
  def continue(_socket, {:ok, result}, fun), do: fun.(result)
  def continue(_socket, :ok, fun), do: fun.(:ok)

  @doc "Shows an error of the API. Clears the page when the actor has lost the permission."
  @spec failed(Socket.t(), term()) :: Socket.t()
  def failed(socket, :forbidden), do: lost(socket)
  def failed(socket, reason), do: say(socket, error(reason), :bad)

  @errors %{
    not_found: "This webhook no longer exists.",
    limit_reached: "This site has reached its limit of webhooks. Delete one to add another.",
    stale: "Somebody else was changing it at the same time. Try again.",
    changed_elsewhere:
      "Somebody else changed this webhook in the meantime. " <>
        "Saving overwrites their values with yours.",
    webhook_disabled: "The webhook is switched off or paused. Switch it on first.",
    too_many_secrets:
      "Too many secrets sign at the same time. " <>
        "Wait until an older one expires, or choose a shorter time.",
    invalid_overlap: "Choose one of the times.",
    crashed: "That did not work. Try again in a moment."
  }

  @spec error(term()) :: String.t()
  def error({:invalid, errors}),
    do: Enum.map_join(errors, " ", fn {field, text} -> Labels.invalid(field, text) end)

  def error(reason) when is_map_key(@errors, reason), do: @errors[reason]

  def error(_from_the_store),
    do: "That did not work: the database did not answer. Try again in a moment."

  @doc "Shows the result of a change of a webhook, and moves the focus after a success."
  @spec changed(Socket.t(), {:ok, Webhook.t()} | {:error, term()}, String.t(), String.t()) ::
          Socket.t()
  def changed(socket, result, text, focus) do
    continue(socket, result, fn %{id: id} = webhook ->
      webhooks = Enum.map(socket.assigns.webhooks, &if(&1.id == id, do: webhook, else: &1))
      socket |> assign(webhooks: webhooks) |> say(text) |> focus(focus)
    end)
  end

  @doc "Removes everything that belongs to the site from this process."
  @spec lost(Socket.t()) :: Socket.t()
  def lost(socket) do
    empty = for key <- ~w(activity goals form webhook log delivery message)a, do: {key, nil}
    assign(socket, [lost?: true, view: :lost, webhooks: []] ++ empty)
  end

  @doc "The webhook of that id among those that are shown, or `nil`."
  @spec webhook(Socket.t() | map(), term()) :: Webhook.t() | nil
  def webhook(%Socket{assigns: assigns}, id), do: webhook(assigns, id)
  def webhook(%{webhooks: webhooks}, id), do: Enum.find(webhooks, &(&1.id == id))

  @doc "The name of a webhook: its description, or the host of its URL."
  @spec name(Webhook.t()) :: String.t()
  def name(%{name: ""} = webhook), do: "Webhook for #{Webhook.destination(webhook) || "?"}"
  def name(%{name: name}), do: name
end
