defmodule PlausibleWeb.Live.WebhookSettings.TestPanel do
  @moduledoc false
  # Sends a test and shows its result in place.

  @behaviour PlausibleWeb.Live.WebhookSettings.View

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.{Attempt, Event, Webhook}

  alias PlausibleWeb.Live.WebhookSettings.{
    Assigns,
    AttemptResult,
    ForeignText,
    Format,
    Labels,
    View
  }

  @type t :: %__MODULE__{}

  @derive {Inspect, only: [:type, :running?]}
  defstruct type: "webhook.test", running?: false, result: nil, wait_until_ms: nil, sample: nil

  # --- events

  def handle("test_type", %{"type" => type}, socket, state, webhook) do
    cond do
      type not in Event.types() -> Assigns.refuse(socket)
      state.test.sample -> socket |> put(state, type: type) |> load_sample(webhook, type)
      true -> put(socket, state, type: type)
    end
  end

  def handle("test", _params, socket, %{test: %{running?: true}}, _webhook), do: socket

  def handle("test", params, socket, state, %{id: id}) do
    type = if params["type"] in Event.types(), do: params["type"], else: state.test.type

    socket
    |> put(state, type: type, running?: true, result: nil)
    |> Assigns.say("Sending … Your endpoint has 15 seconds to answer.")
    |> Assigns.load(__MODULE__, {:test, id}, :send_test, [id, type])
  end

  def handle("sample", _params, socket, state, webhook),
    do: load_sample(socket, webhook, state.test.type)

  def handle("sample_hide", _params, socket, state, _webhook), do: put(socket, state, sample: nil)
  def handle(_event, _params, socket, _state, _webhook), do: Assigns.refuse(socket)

  defp put(socket, state, changes),
    do: assign(socket, webhook: %{state | test: struct!(state.test, changes)})

  defp load_sample(socket, %{id: id}, type),
    do: Assigns.load(socket, __MODULE__, {:sample, id, type}, :sample, [id, type])

  @impl View
  def loaded({:test, _id}, {:error, :forbidden}, socket), do: Assigns.lost(socket)

  def loaded({:test, id}, result, %{assigns: %{webhook: %{id: id} = state}} = socket) do
    {attempt, wait_until_ms} =
      case result do
        {:ok, attempt} -> {attempt, nil}
        {:error, {:rate_limited, ms}} -> {nil, socket.assigns.now_ms + ms}
        {:error, _reason} -> {nil, nil}
      end

    good? = match?({:ok, %{error: nil}}, result)

    socket
    |> put(state, running?: false, result: attempt, wait_until_ms: wait_until_ms)
    |> Assigns.say(
      text(result, Assigns.webhook(socket, id), socket.assigns.context.instance),
      if(good?, do: :good, else: :bad)
    )
    |> Assigns.load_webhooks()
    |> Assigns.load(:activity)
  end

  def loaded({:sample, id, type}, result, %{assigns: %{webhook: %{id: id} = state}} = socket) do
    Assigns.continue(socket, result, fn body ->
      if state.test.type == type, do: put(socket, state, sample: body), else: socket
    end)
  end

  def loaded(_other_webhook, {:error, :forbidden}, socket), do: Assigns.lost(socket)
  def loaded(_other_webhook, _result, socket), do: socket

  @doc "The result for the live region: a screen reader does not see the panel change."
  @spec text({:ok, Attempt.t()} | {:error, term()}, Webhook.t() | nil, atom()) :: String.t()
  def text({:ok, %{state: :delivered} = attempt}, %{disabled_reason: reason}, _instance)
      when reason != nil,
      do: "#{AttemptResult.outcome(attempt)} The webhook is switched on again."

  def text({:ok, attempt}, _webhook, _instance), do: AttemptResult.outcome(attempt)

  def text({:error, {:rate_limited, ms}}, _webhook, _instance), do: wait_text(ms)

  def text({:error, :timeout}, _webhook, _instance),
    do: "The test is still waiting to be sent. The log will show its result."

  def text({:error, :unavailable}, _webhook, _instance),
    do: "The delivery engine is still starting. Try again in a moment."

  # The URL may have become forbidden since it was saved.
  def text({:error, {:not_sent, detail}}, webhook, instance) do
    with %{url: url} <- webhook,
         {:error, text} <- Plausible.Webhooks.check_url(instance, url) do
      "Not sent. #{Labels.invalid(:url, text)}"
    else
      _allowed -> "Not sent. The test ended early: #{ForeignText.short(detail, 200)}."
    end
  end

  def text({:error, reason}, _webhook, _instance), do: Assigns.error(reason)

  @doc "The time until the next test may be sent, 0 for at once."
  @spec wait_ms(t(), integer()) :: non_neg_integer()
  def wait_ms(%{wait_until_ms: nil}, _now_ms), do: 0
  def wait_ms(%{wait_until_ms: until_ms}, now_ms), do: max(until_ms - now_ms, 0)

  defp wait_text(ms) do
    "Too many tests in a short time. You can send the next one in #{Format.countdown(ms)}."
  end

  # --- markup

  def render(assigns) do
    assigns = assign(assigns, wait_ms: wait_ms(assigns.panel, assigns.now_ms))

    ~H"""
    <.section
      id="webhook-test"
      title="Send a test"
      text="Sends one POST now, whatever the state of the webhook, and does not retry it."
    >
      <form
        id="webhook-test-form"
        phx-change="webhook.test_type"
        phx-submit="webhook.test"
        class="flex flex-wrap items-end gap-3"
      >
        <.field id="webhook-test-type" label="What to send" class="flex-1 min-w-[12rem]">
          <.select
            id="webhook-test-type"
            name="type"
            value={@panel.type}
            options={Enum.map(Enum.reverse(Event.types()), &{&1, "#{Labels.type(&1)} (#{&1})"})}
          />
        </.field>
        <.button
          id="webhook-test-send"
          type="submit"
          theme={:primary}
          disabled={@panel.running? or @wait_ms > 0}
        >
          Send test
        </.button>
      </form>
      <div class="mt-2">
        <.text_button :if={@panel.sample == nil} phx-click="webhook.sample">
          Show the request body
        </.text_button>
        <.text_button :if={@panel.sample != nil} phx-click="webhook.sample_hide">
          Hide the request body
        </.text_button>
      </div>
      <div :if={@panel.sample} class="mt-2">
        <.copy_block
          id="webhook-test-sample"
          label="Body"
          value={ForeignText.block(Format.json(@panel.sample))}
          copy?={@copy?}
        />
      </div>
      <p :if={@panel.running?} class="mt-4 text-sm text-gray-700 dark:text-gray-200">
        Sending … Your endpoint has 15 seconds to answer.
      </p>
      <p :if={@wait_ms > 0} class="mt-4 text-sm text-gray-700 dark:text-gray-200">
        <%= wait_text(@wait_ms) %>
      </p>
      <div :if={@panel.result} id="webhook-test-result" class="mt-4">
        <AttemptResult.render attempt={@panel.result} id="webhook-test-attempt" />
        <div class="mt-3">
          <.text_button phx-click="page.delivery" phx-value-id={@panel.result.delivery_id}>
            Open in the log
          </.text_button>
        </div>
      </div>
    </.section>
    """
  end
end
