defmodule PlausibleWeb.Live.WebhookSettings.WebhookPage do
  @moduledoc false
  # One webhook: tested, paused, deleted; its secret, and what can be sent again.
  #
  # The state is `socket.assigns.hook`. Panels open in the page, one at a time, and
  # give the focus back to the button that opened them.

  @behaviour PlausibleWeb.Live.WebhookSettings.Page

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Texts, only: [t: 1, t: 2]

  alias Plausible.Webhooks.{Event, Webhook}

  alias Phoenix.LiveView.Socket

  alias PlausibleWeb.Live.WebhookSettings.{
    FormPage,
    Format,
    Hidden,
    ListPage,
    Page,
    State,
    TestPanel,
    Texts
  }

  @day_ms 86_400_000

  # Secrets are in it, which no crash report may show.
  @derive {Inspect, only: [:id, :panel]}
  defstruct [:id, :panel, :secrets, :waiting, :recoverable, :since, test: %TestPanel{}]

  @spec open(Socket.t(), Webhook.t()) :: Socket.t()
  def open(socket, %{id: id} = webhook) do
    # The list may not have it yet, or not as it is now.
    webhooks = [webhook | Enum.reject(socket.assigns.webhooks, &(&1.id == id))]
    webhooks = Enum.sort_by(webhooks, &{&1.inserted_at_ms, &1.id})

    socket
    |> assign(view: :webhook, hook: hook(socket, id), webhooks: webhooks)
    |> State.hush()
    |> State.focus("webhook-title")
    |> ListPage.refresh()
  end

  # Since when to send again, as long as nobody has chosen. To the minute, as the
  # field has it.
  defp hook(%{assigns: %{now_ms: now_ms}}, id) do
    since = now_ms - @day_ms
    %__MODULE__{id: id, since: since - rem(since, 60_000)}
  end

  # --- results that came later

  @impl Page
  def loaded({:test, id}, result, %{assigns: %{hook: %{id: id} = hook}} = socket) do
    case result do
      {:error, :forbidden} ->
        State.lost(socket)

      result ->
        now_ms = socket.assigns.now_ms
        refused = refused(socket, id, result)
        {panel, text, tone} = TestPanel.finished(hook.test, result, refused, now_ms)

        socket
        |> assign(hook: %{hook | test: panel})
        |> State.say(revived(socket, id, result, text), tone)
        |> ListPage.refresh()
    end
  end

  def loaded({:sample, id, type}, result, %{assigns: %{hook: %{id: id} = hook}} = socket) do
    case result do
      {:ok, body} when hook.test.type == type ->
        assign(socket, hook: %{hook | test: %{hook.test | sample: body}})

      {:ok, _of_another_type} ->
        socket

      {:error, reason} ->
        State.failed(socket, reason)
    end
  end

  def loaded({:waiting, id}, result, %{assigns: %{hook: %{id: id} = hook}} = socket) do
    case result do
      {:ok, waiting} -> assign(socket, hook: %{hook | waiting: waiting})
      {:error, reason} -> State.failed(socket, reason)
    end
  end

  def loaded({:recover, id}, result, %{assigns: %{hook: %{id: id} = hook}} = socket) do
    case result do
      {:ok, %{count: count, more?: more?}} ->
        text = if more?, do: :recovered_more, else: :recovered
        socket = assign(socket, hook: %{hook | recoverable: nil})
        State.say(socket, t(text, count: Texts.deliveries(count)))

      {:error, reason} ->
        State.failed(socket, reason)
    end
  end

  def loaded(
        {:recoverable, id, since},
        result,
        %{assigns: %{hook: %{id: id, since: since} = hook}} = socket
      ) do
    case result do
      {:ok, found} ->
        text = found_text(found)
        socket |> assign(hook: %{hook | recoverable: found}) |> State.say(text)

      {:error, reason} ->
        State.failed(socket, reason)
    end
  end

  # Of a webhook that is not looked at any more.
  def loaded(_tag, {:error, :forbidden}, socket), do: State.lost(socket)
  def loaded(_tag, _result, socket), do: socket

  defp revived(socket, id, {:ok, %{state: :delivered}}, text) do
    case State.webhook(socket, id) do
      %{disabled_reason: reason} when reason != nil -> "#{text} #{t(:test_revived)}"
      _other -> text
    end
  end

  defp revived(_socket, _id, _result, text), do: text

  # An address that was allowed when it was saved may not be any more.
  defp refused(socket, id, {:error, {:not_sent, _detail}}) do
    with %{url: url} <- State.webhook(socket, id),
         {:error, text} <- Plausible.Webhooks.check_url(socket.assigns.context.instance, url) do
      Texts.invalid(:url, text)
    else
      _nothing -> nil
    end
  end

  defp refused(_socket, _id, _result), do: nil

  defp paused({:ok, %{count: count, more?: more?}}) when count > 0,
    do: t(if(more?, do: :paused_more, else: :paused_some), count: Texts.deliveries(count))

  defp paused(_none_or_not_known), do: t(:paused)

  @doc "What recovering would send, in words."
  @spec found_text(Plausible.Webhooks.Manage.Overview.count()) :: String.t()
  def found_text(%{count: 0}), do: t(:recover_none)

  def found_text(%{count: count, more?: true}),
    do: t(:recover_found_more, count: Texts.deliveries(count))

  def found_text(%{count: count}), do: t(:recover_found, count: Texts.deliveries(count))

  @doc """
  The webhooks were read anew: secrets that are shown and are not the ones any more
  that sign are shown no longer.
  """
  @spec refreshed(Socket.t()) :: Socket.t()
  def refreshed(%{assigns: %{hook: %__MODULE__{id: id, secrets: [_ | _]} = hook}} = socket) do
    case State.webhook(socket, id) do
      %{secrets: stored} ->
        sign = Enum.map(stored, &times/1)

        known? =
          Enum.all?(hook.secrets, &(times(&1) in sign)) and
            newest(hook.secrets) == newest(stored)

        if known?, do: socket, else: assign(socket, hook: %{hook | secrets: nil})

      nil ->
        assign(socket, hook: %{hook | secrets: nil})
    end
  end

  def refreshed(socket), do: socket

  defp times(secret), do: Map.take(secret, [:created_at_ms, :expires_at_ms])
  defp newest([secret | _older]), do: secret.created_at_ms

  # --- events

  @impl Page
  def handle(event, params, %{assigns: %{hook: %__MODULE__{} = hook}} = socket) do
    case State.webhook(socket, hook.id) do
      nil -> socket |> ListPage.open() |> State.say(t(:gone), :bad)
      webhook -> handle(event, params, socket, hook, webhook)
    end
  end

  def handle(_event, _params, socket), do: State.say(socket, t(:refused), :bad)

  defp handle("edit", _params, socket, _hook, webhook) do
    case State.call(socket, :get_webhook, [webhook.id]) do
      {:ok, webhook} -> FormPage.open_edit(socket, webhook)
      {:error, reason} -> State.failed(socket, reason)
    end
  end

  # How many are cancelled is what waited a moment before.
  defp handle("pause", _params, socket, _hook, webhook) do
    waiting = State.call(socket, :waiting, [webhook.id])
    result = State.call(socket, :disable_webhook, [webhook.id])
    changed(socket, result, paused(waiting), "webhook-resume")
  end

  defp handle("resume", _params, socket, _hook, webhook),
    do:
      changed(
        socket,
        State.call(socket, :enable_webhook, [webhook.id]),
        t(:resumed),
        "webhook-pause"
      )

  # --- deleting

  defp handle("delete", _params, socket, hook, webhook) do
    socket
    |> panel(%{hook | waiting: nil}, :delete)
    |> State.focus("webhook-delete-title")
    |> State.load(__MODULE__, {:waiting, webhook.id}, :waiting, [webhook.id])
  end

  # Only what asks for it beforehand.
  defp handle("delete_confirm", _params, socket, %{panel: :delete}, webhook) do
    case State.call(socket, :delete_webhook, [webhook.id]) do
      :ok ->
        socket
        |> assign(webhooks: Enum.reject(socket.assigns.webhooks, &(&1.id == webhook.id)))
        |> ListPage.open()
        |> State.focus("webhooks-title")
        |> State.say(t(:deleted))

      {:error, reason} ->
        State.failed(socket, reason)
    end
  end

  defp handle("close_panel", _params, socket, %{panel: panel} = hook, _webhook) do
    socket = panel(socket, hook, nil)
    if panel in [:delete, :rotate], do: State.focus(socket, "webhook-#{panel}"), else: socket
  end

  # --- the test

  defp handle("test_type", %{"type" => type}, socket, hook, webhook) do
    if type in Event.types() do
      socket = assign(socket, hook: %{hook | test: %{hook.test | type: type}})
      if hook.test.sample, do: sample(socket, webhook, type), else: socket
    else
      State.say(socket, t(:refused), :bad)
    end
  end

  defp handle("test", _params, socket, %{test: %{running?: true}}, _webhook), do: socket

  defp handle("test", params, socket, hook, webhook) do
    type = if params["type"] in Event.types(), do: params["type"], else: hook.test.type
    test = %{hook.test | type: type, running?: true, result: nil}

    socket
    |> assign(hook: %{hook | test: test})
    |> State.say(t(:test_sending))
    |> State.load(__MODULE__, {:test, webhook.id}, :send_test, [webhook.id, type])
  end

  defp handle("sample", _params, socket, hook, webhook),
    do: sample(socket, webhook, hook.test.type)

  defp handle("sample_hide", _params, socket, hook, _webhook),
    do: assign(socket, hook: %{hook | test: %{hook.test | sample: nil}})

  # --- the secret

  defp handle("reveal", _params, socket, hook, webhook) do
    case State.call(socket, :reveal_secret, [webhook.id]) do
      {:ok, secrets} ->
        secrets = for secret <- secrets, do: Map.update!(secret, :key, &Hidden.wrap/1)
        socket |> assign(hook: %{hook | secrets: secrets}) |> State.focus("webhook-secret-1")

      {:error, reason} ->
        State.failed(socket, reason)
    end
  end

  defp handle("hide", _params, socket, hook, _webhook),
    do: socket |> assign(hook: %{hook | secrets: nil}) |> State.focus("webhook-reveal")

  defp handle("rotate", _params, socket, hook, _webhook),
    do: socket |> panel(hook, :rotate) |> State.focus("webhook-rotate-title")

  defp handle(
         "rotate_confirm",
         %{"overlap" => overlap},
         socket,
         %{panel: :rotate} = hook,
         webhook
       ) do
    with {seconds, ""} <- is_binary(overlap) && Integer.parse(overlap),
         true <- List.keymember?(Texts.overlaps(), seconds, 0) do
      text = if seconds == 0, do: t(:rotated_emergency), else: t(:rotated)
      result = State.call(socket, :rotate_secret, [webhook.id, seconds * 1_000])
      # A revealed secret is not the newest any more.
      socket =
        if match?({:ok, _}, result),
          do: panel(socket, %{hook | secrets: nil}, nil),
          else: socket

      changed(socket, result, text, "webhook-reveal")
    else
      _no_such_time -> State.say(socket, t(:invalid_overlap), :bad)
    end
  end

  # --- sending again

  defp handle("recover_count", %{"since" => since}, socket, hook, webhook) do
    case Format.from_local(since, socket.assigns.site.timezone) do
      {:ok, since_ms} ->
        socket
        |> assign(hook: %{hook | since: since_ms, recoverable: nil})
        |> State.load(__MODULE__, {:recoverable, webhook.id, since_ms}, :recoverable, [
          webhook.id,
          since_ms
        ])

      :error ->
        State.say(socket, t(:recover_invalid), :bad)
    end
  end

  # What is asked for is counted first, so that nobody sends what they do not know of.
  defp handle(
         "recover",
         _params,
         socket,
         %{recoverable: %{count: count}, since: since} = hook,
         webhook
       )
       when count > 0 do
    socket
    |> assign(hook: %{hook | recoverable: nil})
    |> State.load(__MODULE__, {:recover, webhook.id}, :recover, [webhook.id, since])
  end

  defp handle(_event, _params, socket, _hook, _webhook),
    do: State.say(socket, t(:refused), :bad)

  defp sample(socket, webhook, type),
    do: State.load(socket, __MODULE__, {:sample, webhook.id, type}, :sample, [webhook.id, type])

  defp panel(socket, hook, panel), do: assign(socket, hook: %{hook | panel: panel})

  defp changed(socket, {:ok, webhook}, text, focus) do
    webhooks = Enum.map(socket.assigns.webhooks, &if(&1.id == webhook.id, do: webhook, else: &1))

    socket |> assign(webhooks: webhooks) |> State.say(text) |> State.focus(focus)
  end

  defp changed(socket, {:error, reason}, _text, _focus), do: State.failed(socket, reason)
end
