defmodule Plausible.Webhooks.Local.Trigger do
  @moduledoc """
  Sends one signed sample to any URL, for development: without an instance, a store or a
  webhook. `mix plausible_webhooks.trigger` uses it.
  """

  alias Plausible.Webhooks.{Attempt, Delivery, Id, Native}
  alias Plausible.Webhooks.Ingest.Payload

  @doc """
  The delivery and the result of its only attempt. The URL may be private or local, because
  the caller is the one who sends.
  """
  @spec send(String.t(), String.t(), String.t(), String.t()) ::
          {:ok, Delivery.t(), Attempt.t()} | {:error, atom()}
  def send(type, url, secret, domain) do
    policy = %{https_only: false, allow: allowed(URI.parse(url))}
    delivery = delivery(type, domain)
    endpoint = %{webhook_id: delivery.webhook_id, url: url, keys: [secret]}

    with {:ok, _url} <- Native.check_url(url, policy),
         {:ok, engine} <- Native.engine_start(%{policy: policy}),
         :ok <- Native.put_endpoint(engine, endpoint),
         {:ok, 1} <- Native.submit(engine, [delivery]) do
      attempt = attempt(engine)
      Native.engine_stop(engine, 0)
      {:ok, delivery, attempt}
    end
  end

  # A name lets in no loopback address.
  defp allowed(%URI{host: host, port: port}) when is_binary(host) and is_integer(port) do
    host = if host =~ ":", do: "[#{host}]", else: host
    ["#{host}:#{port}", "127.0.0.0/8:*", "[::1]:*"]
  end

  defp allowed(_no_url), do: []

  defp delivery(type, domain) do
    now_ms = System.system_time(:millisecond)
    site = %{id: 0, domain: domain, dashboard_url: "https://#{domain}/"}
    {:ok, body} = type |> Payload.sample(site, nil, now_ms) |> Payload.encode()

    %Delivery{
      id: Id.delivery(now_ms),
      webhook_id: "wh_trigger",
      site_id: 0,
      type: type,
      body: body,
      created_at_ms: now_ms,
      retry: false
    }
  end

  # The engine's own limits end the attempt.
  defp attempt(engine) do
    case Native.run_once(engine, 100) do
      {:ok, []} -> attempt(engine)
      {:ok, [report]} -> report
    end
  end
end
