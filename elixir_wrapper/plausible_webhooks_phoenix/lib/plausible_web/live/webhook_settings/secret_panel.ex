defmodule PlausibleWeb.Live.WebhookSettings.SecretPanel do
  @moduledoc false
  # The signing secrets of a webhook: revealed, hidden, and replaced.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.Webhook
  alias PlausibleWeb.Live.WebhookSettings.{Assigns, Format, Labels, Redacted}

  @doc "Whether the secrets on the page are those that sign. Compares times, not keys."
  @spec current?([map()], [map()] | nil) :: boolean()
  def current?(_shown, nil), do: false

  def current?(shown, stored) do
    times = &Map.take(&1, [:created_at_ms, :expires_at_ms])
    stored_times = Enum.map(stored, times)

    Enum.all?(shown, &(times.(&1) in stored_times)) and
      hd(shown).created_at_ms == hd(stored).created_at_ms
  end

  def handle("reveal", _params, socket, state, webhook) do
    Assigns.continue(socket, Assigns.call(socket, :reveal_secret, [webhook.id]), fn secrets ->
      secrets = for secret <- secrets, do: Map.update!(secret, :key, &Redacted.wrap/1)
      socket |> assign(webhook: %{state | secrets: secrets}) |> Assigns.focus("webhook-secret-1")
    end)
  end

  def handle("hide", _params, socket, state, _webhook),
    do: socket |> assign(webhook: %{state | secrets: nil}) |> Assigns.focus("webhook-reveal")

  def handle("rotate", _params, socket, state, _webhook),
    do:
      socket
      |> assign(webhook: %{state | panel: :rotate})
      |> Assigns.focus("webhook-rotate-title")

  # Only from the open panel.
  def handle("rotate_confirm", %{"overlap" => text}, socket, %{panel: :rotate} = state, webhook) do
    with {seconds, ""} <- is_binary(text) && Integer.parse(text),
         true <- List.keymember?(Labels.overlaps(), seconds, 0) do
      result = Assigns.call(socket, :rotate_secret, [webhook.id, seconds * 1_000])

      # A revealed secret is no longer the newest.
      socket =
        if match?({:ok, _}, result),
          do: assign(socket, webhook: %{state | panel: nil, secrets: nil}),
          else: socket

      Assigns.changed(socket, result, rotated(seconds), "webhook-reveal")
    else
      _no_such_time -> Assigns.failed(socket, :invalid_overlap)
    end
  end

  def handle(_event, _params, socket, _state, _webhook), do: Assigns.refuse(socket)

  defp rotated(0) do
    "The secret is replaced, and the old one no longer signs. Give the new one to your " <>
      "receiver now."
  end

  defp rotated(_seconds), do: "The secret is replaced. Give the new one to your receiver."

  # --- markup

  def render(assigns) do
    assigns = assign(assigns, older: older(assigns.webhook, assigns.now_ms))

    ~H"""
    <.section
      id="webhook-secret"
      title="Signing secret"
      text="Your receiver uses it to verify that a request is from us. Anyone who has it can pretend to be us. Every reveal is recorded."
    >
      <p
        :if={@older != nil and @state.secrets == nil}
        class="mb-3 text-sm text-gray-700 dark:text-gray-200"
      >
        Two secrets sign now; the older one until <%= Format.time(@older, @zone) %> (<%= Format.span(
          @older - @now_ms
        ) %> left).
      </p>
      <div :if={@state.secrets} class="mb-4 space-y-3">
        <.copy_line
          :for={{secret, index} <- Enum.with_index(@state.secrets, 1)}
          id={"webhook-secret-#{index}"}
          label={label(secret, @zone, @now_ms)}
          value={Redacted.unwrap(secret.key)}
          copy?={@copy?}
        />
        <p :if={not @copy?} class="text-sm text-gray-600 dark:text-gray-300">
          Select the field and copy it. The Tab key selects all of it.
        </p>
      </div>
      <div class="flex flex-wrap gap-2">
        <%= if @state.secrets do %>
          <.button phx-click="webhook.hide">Hide secret</.button>
        <% else %>
          <.button id="webhook-reveal" phx-click="webhook.reveal">Reveal secret</.button>
        <% end %>
        <.button
          id="webhook-rotate"
          phx-click="webhook.rotate"
          aria-expanded={to_string(@state.panel == :rotate)}
        >
          Replace secret
        </.button>
      </div>
      <.rotate :if={@state.panel == :rotate} />
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

  defp rotate(assigns) do
    ~H"""
    <form id="webhook-rotate-form" phx-submit="webhook.rotate_confirm" class="mt-4">
      <.notice role="group" aria-labelledby="webhook-rotate-title">
        <h4 id="webhook-rotate-title" tabindex="-1" class="font-semibold rounded">
          Replace the secret
        </h4>
        <p class="mt-1">
          The new secret signs from now on. For the time you choose, the old one signs too, so that
          your receiver can change over without a gap.
        </p>
        <.field
          id="webhook-overlap"
          label="How long the old secret goes on signing"
          help="Without such a time, verification fails until your receiver has the new secret."
          class="mt-3"
        >
          <.select
            id="webhook-overlap"
            name="overlap"
            value={86_400}
            options={Labels.overlaps()}
            aria-describedby="webhook-overlap-help"
          />
        </.field>
        <div class="mt-3 flex flex-wrap gap-2">
          <.button type="submit" theme={:primary}>Replace now</.button>
          <.button phx-click="webhook.close_panel">Cancel</.button>
        </div>
      </.notice>
    </form>
    """
  end
end
