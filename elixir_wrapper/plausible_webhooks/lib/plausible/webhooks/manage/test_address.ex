defmodule Plausible.Webhooks.Manage.TestAddress do
  @moduledoc """
  Receives at a test address: a URL on this installation that answers with what arrived and
  whether its signature fits, so that an owner sees the whole way before any receiver exists.

  Nothing is kept here. The answer is on record as that of any receiver is, in the log of the
  site, bounded and kept as that log is, for whichever node the request has reached. A request
  that is not a delivery of the site learns only that. Rejected: a list of requests in memory,
  which every node would have to share, and which strangers could fill.
  """

  alias Plausible.Webhooks.{Native, Webhook}
  alias Plausible.Webhooks.Manage.{Access, TestDelivery}
  alias Plausible.Webhooks.Runtime.Instance

  @per_minute 60
  @tolerance_s 300
  @shown ~w(host accept content-type content-length user-agent webhook-id webhook-timestamp
            webhook-signature)
  @body_bytes_max 8_192

  @doc "The status and the text of the answer to a POST."
  @spec answer(Instance.name(), integer(), [{String.t(), String.t()}], binary()) ::
          {pos_integer(), String.t()}
  def answer(name, site_id, headers, body) do
    with %Instance{} = instance <- Instance.get(name),
         :ok <- TestDelivery.within_rate(instance, {:test_address, site_id}, @per_minute),
         {:ok, delivery} <- Access.delivery(instance, site_id, header(headers, "webhook-id")),
         {:ok, webhook} <- Access.webhook(instance, site_id, delivery.webhook_id) do
      case verify(webhook, headers, body) do
        :ok ->
          {200, "The signature fits.\n\n" <> arrived(headers, body)}

        {:error, why} ->
          {400, "The signature does not fit: #{why}.\n\n" <> arrived(headers, body)}
      end
    else
      {:error, {:rate_limited, _ms}} -> {429, "Too many requests in a minute."}
      {:error, :not_found} -> {404, "This is not a delivery of the site."}
      _not_running_or_away -> {503, "Webhooks are not available at the moment."}
    end
  end

  defp header(headers, name), do: headers |> List.keyfind(name, 0, {name, ""}) |> elem(1)

  defp verify(webhook, headers, body) do
    now_ms = Instance.now_ms()
    keys = webhook |> Webhook.live_keys(now_ms) |> Enum.map(& &1.key)

    [id, time, signature] =
      Enum.map(~w(id timestamp signature), &header(headers, "webhook-#{&1}"))

    case Integer.parse(time) do
      {at, ""} -> Native.verify(keys, id, at, signature, body, div(now_ms, 1_000), @tolerance_s)
      _no_number -> {:error, :invalid_timestamp}
    end
  end

  # The owner's own values may be tokens, and the answer is stored in clear.
  defp arrived(headers, body) do
    lines =
      for {name, value} <- headers,
          do: "#{name}: #{if name in @shown, do: value, else: "(#{byte_size(value)} bytes)"}\n"

    "#{lines}\n#{binary_part(body, 0, min(byte_size(body), @body_bytes_max))}"
  end
end
