defmodule PlausibleWeb.Live.WebhookSettings.Request do
  @moduledoc false
  # What the developer of an endpoint needs: the rules, a request as it would be sent now with
  # its headers and body, a curl command, and code that verifies it.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.{Components, Page}

  alias Phoenix.LiveView.Socket
  alias PlausibleWeb.Live.WebhookSettings.{ForeignText, Format, Labels, Redacted, Snippets}

  # URL and headers may hold tokens, which no crash report may show.
  @doc "Keeps the result of `Plausible.Webhooks.request/4` or `sample/5`."
  @spec put(Socket.t(), {:ok, map()} | {:error, term()}) :: Socket.t()
  def put(socket, {:ok, request}),
    do: socket |> assign(request: Redacted.wrap(request)) |> focus("request-title")

  def put(socket, {:error, reason}), do: failed(socket, reason)

  @doc "Chooses the language of the code. Ignores names that the form does not have."
  @spec language(Socket.t(), term()) :: Socket.t()
  def language(socket, name) do
    case Snippets.language(name) do
      nil -> socket
      language -> assign(socket, language: language)
    end
  end

  @doc "What applies to every request of the instance with these options."
  def rules(assigns), do: ~H|<.facts rows={rules_of(@options)} />|

  defp rules_of(options) do
    [
      {"Method and body", "POST, application/json, UTF-8"},
      {"webhook-id", "the delivery, the same in every attempt: remember it and ignore repeats"},
      {"webhook-timestamp", "Unix seconds of this attempt: refuse more than 5 minutes"},
      {"webhook-signature",
       "one or more v1,<Base64> of HMAC-SHA256 over id.timestamp.body, one for each secret"},
      {"Answer",
       "any status from 200 to 299 within #{Format.span_s(options.timeout_ms)}; redirects are not followed"},
      {"Retries", retries(options.retry_delays_ms)},
      {"Stop", "410 Gone switches the webhook off"},
      {"Log", "kept for #{Format.span(options.retention_ms)}"}
    ]
  end

  defp retries([]), do: "none"

  defp retries(delays),
    do:
      "#{Labels.count(length(delays), "retry", "retries")}, " <>
        "after #{Enum.map_join(delays, ", ", &Format.span_s/1)}"

  attr(:request, :any, required: true, doc: "nil while it is hidden")
  attr(:language, :atom, required: true)

  def render(%{request: nil} = assigns) do
    ~H"""
    <.button id="request-show" phx-click="request">Show request and verification code</.button>
    """
  end

  def render(assigns) do
    assigns = assign(assigns, request: Redacted.unwrap(assigns.request))

    ~H"""
    <div class="space-y-5">
      <div class="flex flex-wrap gap-2">
        <.button phx-click="request">Sign again with the current time</.button>
        <.button phx-click="request_hide">Hide request</.button>
      </div>
      <.facts rows={rows(@request)} />
      <.copy id="request-body" label="Body" value={ForeignText.block(Format.json(@request.body))} />
      <.copy id="request-curl" label="Send it with curl" value={Snippets.curl(@request)} />
      <form id="request-language" phx-change="language">
        <.field
          id="request-language-select"
          label="Verify it in your language"
          help="The code has the values of this request. Run it with the secret in the environment variable WEBHOOK_SECRET."
          class="max-w-md"
        >
          <.select
            id="request-language-select"
            name="language"
            value={@language}
            options={Snippets.languages()}
          />
        </.field>
      </form>
      <.copy id="request-verify" label="Code" value={Snippets.verify(@language, @request)} />
    </div>
    """
  end

  defp rows(request) do
    for {name, value} <- [{"URL", request.url} | request.headers],
        do: {name, Redacted.wrap(value)}
  end
end
