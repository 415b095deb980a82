defmodule PlausibleWeb.Live.WebhookSettings.TestPanel do
  @moduledoc false
  # The test: what is sent, and what came of it, in place.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components
  import PlausibleWeb.Live.WebhookSettings.Texts, only: [t: 1, t: 2]

  alias Plausible.Webhooks.{Attempt, Event}
  alias PlausibleWeb.Live.WebhookSettings.{Chart, Format, Json, Safe, Texts}
  alias PlausibleWeb.Live.WebhookSettings.Texts.Failures

  @excerpt 2_048

  @type t :: %__MODULE__{
          type: String.t(),
          running?: boolean(),
          result: Attempt.t() | nil,
          wait_until_ms: integer() | nil,
          sample: binary() | nil
        }

  @derive {Inspect, only: [:type, :running?]}
  defstruct type: "webhook.test", running?: false, result: nil, wait_until_ms: nil, sample: nil

  @doc """
  The panel as it is after a result; and what is said of it, for who does not see it
  appear. `refused`: what is held against the URL by now, or `nil`.
  """
  @spec finished(t(), {:ok, Attempt.t()} | {:error, term()}, String.t() | nil, integer()) ::
          {t(), String.t(), :good | :bad}
  def finished(panel, result, refused, now_ms) do
    panel = %{panel | running?: false, result: nil, wait_until_ms: nil}

    case result do
      {:ok, %Attempt{} = attempt} ->
        {%{panel | result: attempt}, outcome(attempt), tone(attempt)}

      {:error, {:rate_limited, retry_in_ms}} ->
        text = t(:test_wait, wait: Format.countdown(retry_in_ms))
        {%{panel | wait_until_ms: now_ms + retry_in_ms}, text, :bad}

      {:error, :timeout} ->
        {panel, t(:test_timeout), :bad}

      {:error, :unavailable} ->
        {panel, t(:test_unavailable), :bad}

      {:error, {:not_sent, detail}} ->
        why = refused || t(:test_ended, detail: Safe.short(detail, 200))
        {panel, t(:test_not_sent, why: why), :bad}

      {:error, reason} ->
        {panel, PlausibleWeb.Live.WebhookSettings.State.error(reason), :bad}
    end
  end

  defp tone(%{error: nil}), do: :good
  defp tone(_attempt), do: :bad

  @doc "In one sentence."
  @spec outcome(Attempt.t()) :: String.t()
  def outcome(%Attempt{error: nil} = attempt),
    do: t(:test_delivered, status: attempt.status, time: Format.us(attempt.total_us))

  def outcome(%Attempt{} = attempt), do: t(:test_failed, what: what(attempt))

  @doc "What went wrong, in a few words; the status where there was one."
  @spec what(Attempt.t()) :: String.t()
  def what(%{status: nil, error: error}), do: Failures.name(error) || Failures.name(:internal)

  def what(%{status: status, error: :http_status}),
    do: "#{Failures.name(:http_status)} #{status}"

  def what(%{status: status, error: error}), do: "#{Failures.name(error)}, status #{status}"

  @doc "How long until the next test may go, 0 for at once."
  @spec wait_ms(t(), integer()) :: non_neg_integer()
  def wait_ms(%{wait_until_ms: nil}, _now_ms), do: 0
  def wait_ms(%{wait_until_ms: until_ms}, now_ms), do: max(until_ms - now_ms, 0)

  attr(:panel, :map, required: true)
  attr(:now_ms, :integer, required: true)
  attr(:copy?, :boolean, required: true)

  def render(assigns) do
    assigns =
      assign(assigns, types: Event.types(), wait_ms: wait_ms(assigns.panel, assigns.now_ms))

    ~H"""
    <.section id="webhook-test" title={t(:test_title)} text={t(:test_text)}>
      <form
        id="webhook-test-form"
        phx-change="webhook.test_type"
        phx-submit="webhook.test"
        class="flex flex-wrap items-end gap-3"
      >
        <.field id="webhook-test-type" label={t(:test_type)} class="flex-1 min-w-[12rem]">
          <.select
            id="webhook-test-type"
            name="type"
            value={@panel.type}
            options={Enum.map(Enum.reverse(@types), &{&1, "#{Texts.type(&1)} (#{&1})"})}
          />
        </.field>
        <.button
          id="webhook-test-send"
          type="submit"
          theme={:primary}
          disabled={@panel.running? or @wait_ms > 0}
        >
          <%= t(:test_send) %>
        </.button>
      </form>
      <div class="mt-2">
        <.text_button :if={@panel.sample == nil} phx-click="webhook.sample">
          <%= t(:test_sample) %>
        </.text_button>
        <.text_button :if={@panel.sample != nil} phx-click="webhook.sample_hide">
          <%= t(:test_sample_hide) %>
        </.text_button>
      </div>
      <div :if={@panel.sample} class="mt-2">
        <.copy_block
          id="webhook-test-sample"
          label={t(:request_body)}
          value={Safe.block(Json.pretty(@panel.sample))}
          copy?={@copy?}
        />
      </div>
      <p :if={@panel.running?} class="mt-4 text-sm text-gray-700 dark:text-gray-200">
        <%= t(:test_sending) %>
      </p>
      <p :if={@wait_ms > 0} class="mt-4 text-sm text-gray-700 dark:text-gray-200">
        <%= t(:test_wait, wait: Format.countdown(@wait_ms)) %>
      </p>
      <div :if={@panel.result} id="webhook-test-result" class="mt-4">
        <.attempt attempt={@panel.result} id="webhook-test-attempt" />
        <div class="mt-3">
          <.text_button phx-click="page.delivery" phx-value-id={@panel.result.delivery_id}>
            <%= t(:test_open) %>
          </.text_button>
        </div>
      </div>
    </.section>
    """
  end

  attr(:attempt, Attempt, required: true)
  attr(:id, :string, required: true)

  @doc "What came of an attempt, what that means, and what the receiver answered."
  def attempt(assigns) do
    assigns =
      assign(assigns, hint: Failures.hint(assigns.attempt), excerpt: excerpt(assigns.attempt))

    ~H"""
    <div id={@id} class="space-y-4">
      <.notice theme={if @attempt.error, do: :red, else: :green}>
        <p class="font-semibold"><%= outcome(@attempt) %></p>
        <p :if={@attempt.detail not in [nil, ""]} class="mt-1"><.foreign text={@attempt.detail} /></p>
        <dl :if={@hint} class="mt-2 space-y-1">
          <div>
            <dt class="inline font-medium"><%= t(:meaning) %>:</dt>

            <dd class="inline"><%= @hint.meaning %></dd>
          </div>
          <div>
            <dt class="inline font-medium"><%= t(:action) %>:</dt>

            <dd class="inline"><%= @hint.action %></dd>
          </div>
        </dl>
      </.notice>
      <Chart.timing attempt={@attempt} />
      <.foreign_block
        :if={@excerpt != ""}
        id={"#{@id}-answer"}
        label={answer_label(@attempt)}
        text={@excerpt}
      />
      <p
        :if={@attempt.status && @attempt.response_body == ""}
        class="text-sm text-gray-700 dark:text-gray-200"
      >
        <%= t(:answer_empty) %>
      </p>
      <.facts rows={[
        {t(:remote_ip), @attempt.remote_ip},
        {t(:content_type), @attempt.response_content_type}
      ]} />
    </div>
    """
  end

  defp excerpt(%{response_body: body}), do: binary_part(body, 0, min(byte_size(body), @excerpt))

  defp answer_label(%{response_body: body, response_truncated: truncated?}) do
    if truncated? or byte_size(body) > @excerpt,
      do: "#{t(:answer)} (#{t(:answer_cut, size: Format.bytes(min(byte_size(body), @excerpt)))})",
      else: t(:answer)
  end
end
