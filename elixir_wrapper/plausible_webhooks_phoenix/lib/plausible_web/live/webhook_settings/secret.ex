defmodule PlausibleWeb.Live.WebhookSettings.Secret do
  @moduledoc false
  # The signing secrets of a webhook: revealed, hidden, and replaced.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.Webhook
  alias PlausibleWeb.Live.WebhookSettings.{Format, Labels, Redacted}

  @doc "Whether the secrets on the page are those that sign. Compares times, not keys."
  @spec current?([map()] | nil, Webhook.t()) :: boolean()
  def current?(nil, _webhook), do: false

  def current?(shown, %{secrets: stored}) do
    times = &Map.take(&1, [:created_at_ms, :expires_at_ms])
    stored = Enum.map(stored, times)
    Enum.all?(shown, &(times.(&1) in stored)) and times.(hd(shown)) == hd(stored)
  end

  @doc "The seconds of an overlap that the form offers."
  @spec overlap(term()) :: {:ok, non_neg_integer()} | {:error, :invalid_overlap}
  def overlap(text) do
    with {seconds, ""} <- is_binary(text) && Integer.parse(text),
         true <- List.keymember?(Labels.overlaps(), seconds, 0) do
      {:ok, seconds}
    else
      _no_such_time -> {:error, :invalid_overlap}
    end
  end

  @spec rotated(non_neg_integer()) :: String.t()
  def rotated(0) do
    "The secret is replaced, and the old one no longer signs. Give the new one to your " <>
      "receiver now."
  end

  def rotated(_seconds), do: "The secret is replaced. Give the new one to your receiver."

  attr(:secrets, :any, required: true, doc: "nil while they are hidden")
  attr(:webhook, Webhook, required: true)
  attr(:zone, :string, required: true)
  attr(:now_ms, :integer, required: true)

  def render(assigns) do
    assigns = assign(assigns, older: older(assigns.webhook, assigns.now_ms))

    ~H"""
    <.section id="webhook-secret" title="Signing secret">
      <:text>
        Your receiver uses it to verify that a request is from us. Anyone who has it can pretend
        to be us. Every reveal is recorded.
      </:text>
      <p :if={@older && @secrets == nil} class="mb-3 text-sm">
        Two secrets sign now; the older one until <%= Format.time(@older, @zone) %> (<%= Format.span(
          @older - @now_ms
        ) %> left).
      </p>
      <div :if={@secrets} class="mb-4 space-y-3">
        <.copy
          :for={{secret, index} <- Enum.with_index(@secrets, 1)}
          id={"webhook-secret-#{index}"}
          label={label(secret, @zone, @now_ms)}
          value={Redacted.unwrap(secret.key)}
        />
      </div>
      <.button :if={@secrets} phx-click="hide">Hide secret</.button>
      <.button :if={@secrets == nil} id="webhook-reveal" phx-click="reveal">Reveal secret</.button>
      <%!-- Nothing in it changes, so the browser alone opens and closes it. --%>
      <details id="webhook-rotate" phx-update="ignore" class="mt-4 text-sm">
        <summary class="inline-block min-h-6 rounded-sm text-indigo-700 dark:text-indigo-300 hover:underline cursor-pointer">
          Replace the secret
        </summary>
        <form id="webhook-rotate-form" phx-submit="rotate" class="mt-3 max-w-md">
          <p class="text-gray-600 dark:text-gray-300">
            The new secret signs from now on. For the time you choose, the old one signs too, so
            that your receiver can change over without a gap. With “not at all”, verification
            fails until your receiver has the new one.
          </p>
          <.field id="webhook-overlap" label="How long the old secret goes on signing" class="mt-3">
            <.select
              id="webhook-overlap"
              name="overlap"
              value={86_400}
              options={Labels.overlaps()}
            />
          </.field>
          <div class="mt-3"><.button type="submit" theme={:primary}>Replace now</.button></div>
        </form>
      </details>
    </.section>
    """
  end

  # When the last of the older secrets expires.
  defp older(webhook, now_ms) do
    webhook
    |> Webhook.live_keys(now_ms)
    |> Enum.map(& &1.expires_at_ms)
    |> Enum.filter(& &1)
    |> Enum.max(fn -> nil end)
  end

  defp label(%{expires_at_ms: nil}, _zone, _now_ms), do: "Secret"

  defp label(%{expires_at_ms: until_ms}, zone, now_ms) do
    left = Format.span(max(until_ms - now_ms, 0))
    "Older secret, signs until #{Format.time(until_ms, zone)} (#{left} left)"
  end
end
