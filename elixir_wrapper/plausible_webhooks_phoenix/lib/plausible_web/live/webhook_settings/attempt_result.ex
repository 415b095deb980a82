defmodule PlausibleWeb.Live.WebhookSettings.AttemptResult do
  @moduledoc false
  # The result of an attempt, what it means, and what the receiver answered.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.Attempt
  alias PlausibleWeb.Live.WebhookSettings.{Chart, FailureHints, Format, Redacted}

  @doc "The result in one sentence."
  @spec outcome(Attempt.t()) :: String.t()
  def outcome(%Attempt{error: nil} = attempt),
    do:
      "Delivered: your endpoint answered #{attempt.status} after #{Format.us(attempt.total_us)}."

  def outcome(%Attempt{status: status, error: error}) do
    name = FailureHints.name(error) || FailureHints.name(:internal)

    case {status, error} do
      {nil, _error} -> "Not delivered: #{name}."
      {status, :http_status} -> "Not delivered: #{name} #{status}."
      {status, _error} -> "Not delivered: #{name}, status #{status}."
    end
  end

  attr(:id, :string, required: true)
  attr(:attempt, Attempt, required: true)
  attr(:sent, :any, default: nil, doc: "its request headers, or nil where they are not shown")

  def render(%{attempt: attempt} = assigns) do
    body = Format.json(attempt.response_body)
    size = Format.bytes(byte_size(attempt.response_body))
    label = if attempt.response_truncated, do: "Answer (cut after #{size})", else: "Answer"

    assigns =
      assign(assigns,
        hint: FailureHints.hint(attempt),
        body: body,
        label: label,
        request: Redacted.unwrap(assigns.sent)
      )

    ~H"""
    <div id={@id} class="space-y-4">
      <.notice theme={if @attempt.error, do: :red, else: :green}>
        <p class="font-medium"><%= outcome(@attempt) %></p>
        <p :if={@attempt.detail not in [nil, ""]} class="mt-1"><.foreign text={@attempt.detail} /></p>
        <dl :if={@hint} class="mt-2 space-y-1">
          <div :for={{term, text} <- [{"What it means", @hint.meaning}, {"What to do", @hint.action}]}>
            <dt class="inline font-medium"><%= term %>:</dt>
            <dd class="inline"><%= text %></dd>
          </div>
        </dl>
      </.notice>
      <Chart.timing attempt={@attempt} />
      <.foreign_block :if={@body != ""} id={"#{@id}-answer"} label={@label} text={@body} />
      <p :if={@attempt.status && @body == ""} class="text-sm text-gray-600 dark:text-gray-300">
        The answer had no body.
      </p>
      <.foreign_block
        :if={@request && @request.headers != []}
        id={"#{@id}-request"}
        label="Request headers"
        text={lines(@request.headers)}
      />
      <p :if={@request && not @request.complete?} class="text-sm text-gray-600 dark:text-gray-300">
        The webhook was changed since, so that its URL, its own headers and the signature of this
        attempt are not known any more.
      </p>
      <.foreign_block
        :if={@attempt.response_headers != ""}
        id={"#{@id}-headers"}
        label="Answer headers"
        text={@attempt.response_headers}
      />
      <.facts rows={[{"Address", @attempt.remote_ip}]} />
    </div>
    """
  end

  defp lines(headers),
    do: Enum.map_join(headers, "\n", fn {name, value} -> "#{name}: #{value}" end)
end
