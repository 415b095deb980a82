defmodule Demo.Receiver do
  @moduledoc """
  The receiving side. It verifies every POST with Erlang's `:crypto` alone, which shares
  no code with the sender, and records what arrived.

  `/flaky/...` answers 503 to the first two attempts of each delivery.
  """

  @tolerance_s 300
  @refusals 2

  @doc "Listens on a free port of 127.0.0.1, which it returns."
  def start! do
    __MODULE__ = :ets.new(__MODULE__, [:named_table, :public, :bag])
    {:ok, server} = Demo.Http.start_link(handle: &answer/3)
    Demo.Http.port(server)
  end

  @doc "Sets the secret of a path."
  def trust(path, secret), do: :ets.insert(__MODULE__, {{:secret, path}, secret})

  @doc "Returns the attempts of a delivery, oldest first: `{verified?, status, body}`."
  def received(delivery_id) do
    __MODULE__
    |> :ets.lookup({:received, delivery_id})
    |> Enum.map(fn {_key, _at, result} -> result end)
  end

  defp answer(path, headers, body) do
    verified = verified?(path, headers, body)
    id = headers["webhook-id"]
    before = length(received(id))
    refuse = String.starts_with?(path, "/flaky") and before < @refusals

    {status, text} =
      cond do
        not verified -> {401, "signature"}
        refuse -> {503, "busy"}
        true -> {200, "ok"}
      end

    :ets.insert(__MODULE__, {{:received, id}, before, {verified, status, body}})
    {status, text}
  end

  # Verifies as Standard Webhooks describes it.
  defp verified?(path, headers, body) do
    with [{_key, "whsec_" <> secret}] <- :ets.lookup(__MODULE__, {:secret, path}),
         %{"webhook-id" => id, "webhook-timestamp" => timestamp} <- headers,
         %{"webhook-signature" => signatures} <- headers,
         {seconds, ""} <- Integer.parse(timestamp),
         true <- abs(System.system_time(:second) - seconds) <= @tolerance_s do
      mac = :crypto.mac(:hmac, :sha256, Base.decode64!(secret), "#{id}.#{timestamp}.#{body}")
      expected = "v1," <> Base.encode64(mac)
      signatures |> String.split(" ") |> Enum.any?(&equal?(&1, expected))
    else
      _anything -> false
    end
  end

  # :crypto.hash_equals/2 needs equal sizes. The size is not secret.
  defp equal?(a, b), do: byte_size(a) == byte_size(b) and :crypto.hash_equals(a, b)
end
