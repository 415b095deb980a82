defmodule Demo.Receiver do
  @moduledoc """
  The other side: a small HTTP server that verifies every POST with nothing of
  ours, only Erlang's `:crypto`, and writes down what came.

  `/flaky/...` answers 503 to the first two attempts of each delivery.
  """

  @tolerance_s 300
  @refusals 2

  @doc "Listens on a free port of 127.0.0.1."
  def start! do
    __MODULE__ = :ets.new(__MODULE__, [:named_table, :public, :bag])

    {:ok, listener} =
      :gen_tcp.listen(0, [
        :binary,
        packet: :http_bin,
        active: false,
        reuseaddr: true,
        backlog: 256,
        ip: {127, 0, 0, 1}
      ])

    {:ok, port} = :inet.port(listener)
    spawn_link(fn -> accept(listener) end)
    port
  end

  @doc "Which secret the receiver of a path was given."
  def trust(path, secret), do: :ets.insert(__MODULE__, {{:secret, path}, secret})

  @doc "What came for a delivery, oldest first: `{verified?, status, body}`."
  def received(delivery_id) do
    __MODULE__
    |> :ets.lookup({:received, delivery_id})
    |> Enum.map(fn {_key, _at, result} -> result end)
  end

  defp accept(listener) do
    {:ok, socket} = :gen_tcp.accept(listener)
    pid = spawn(fn -> receive(do: (:go -> serve(socket))) end)
    :ok = :gen_tcp.controlling_process(socket, pid)
    send(pid, :go)
    accept(listener)
  end

  defp serve(socket) do
    with {:ok, {:http_request, :POST, {:abs_path, path}, _version}} <-
           :gen_tcp.recv(socket, 0, 60_000),
         {:ok, headers} <- headers(socket, %{}),
         {:ok, body} <- body(socket, headers["content-length"]) do
      {status, text} = answer(path, headers, body)
      answer = "HTTP/1.1 #{status} #{text}\r\ncontent-length: #{byte_size(text)}\r\n\r\n#{text}"
      :ok = :inet.setopts(socket, packet: :http_bin)
      if :gen_tcp.send(socket, answer) == :ok, do: serve(socket)
    else
      _closed -> :gen_tcp.close(socket)
    end
  end

  defp headers(socket, headers) do
    case :gen_tcp.recv(socket, 0, 10_000) do
      {:ok, {:http_header, _, name, _, value}} ->
        headers(socket, Map.put(headers, String.downcase(to_string(name)), value))

      {:ok, :http_eoh} ->
        {:ok, headers}

      other ->
        other
    end
  end

  defp body(_socket, none) when none in [nil, "0"], do: {:ok, ""}

  defp body(socket, length) do
    :ok = :inet.setopts(socket, packet: :raw)
    :gen_tcp.recv(socket, String.to_integer(length), 10_000)
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

  # Standard Webhooks, as any receiver would write it.
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

  # :crypto.hash_equals/2 wants equal sizes; the size is no secret.
  defp equal?(a, b), do: byte_size(a) == byte_size(b) and :crypto.hash_equals(a, b)
end
