defmodule PlausibleWeb.Live.WebhookSettings.AttemptResult do
  @moduledoc false
  # The result of an attempt, what it means, and what the receiver answered.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.Attempt
  alias PlausibleWeb.Live.WebhookSettings.{Chart, FailureHints, Format}

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

  def render(%{attempt: attempt} = assigns) do
    body = Format.json(attempt.response_body)
    size = Format.bytes(byte_size(attempt.response_body))
    label = if attempt.response_truncated, do: "Answer (cut after #{size})", else: "Answer"
    assigns = assign(assigns, hint: FailureHints.hint(attempt), body: body, label: label)

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
      <.facts rows={[
        {"Address", @attempt.remote_ip},
        {"Content type", @attempt.response_content_type}
      ]} />
    </div>
    """
  end
end
