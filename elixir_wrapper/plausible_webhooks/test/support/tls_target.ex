defmodule Plausible.Webhooks.Test.TlsTarget do
  @moduledoc false
  # A TLS receiver on 127.0.0.1 that answers every request with 200 and keeps the
  # connection. Its certificate comes from an authority made for it alone.

  @answer "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

  @spec start!(Path.t()) :: %{port: :inet.port_number(), ca_file: Path.t(), pid: pid()}
  def start!(dir) do
    common = [key: {:namedCurve, :secp256r1}, digest: :sha256]
    address = {:Extension, {2, 5, 29, 17}, false, iPAddress: <<127, 0, 0, 1>>}

    chain =
      :public_key.pkix_test_data(%{
        server_chain: %{root: common, peer: [extensions: [address]] ++ common},
        client_chain: %{root: common, peer: common}
      })

    authority = List.first(chain.client_config[:cacerts])
    ca_file = Path.join(dir, "ca.pem")
    pem = :public_key.pem_encode([{:Certificate, authority, :not_encrypted}])
    File.write!(ca_file, pem)

    {:ok, listener} =
      :ssl.listen(0, [
        :binary,
        active: false,
        reuseaddr: true,
        backlog: 1024,
        ip: {127, 0, 0, 1},
        cert: chain.server_config[:cert],
        key: chain.server_config[:key],
        cacerts: chain.server_config[:cacerts]
      ])

    {:ok, {_ip, port}} = :ssl.sockname(listener)
    pid = spawn(fn -> accept(listener) end)
    :ok = :ssl.controlling_process(listener, pid)
    %{port: port, ca_file: ca_file, pid: pid}
  end

  defp accept(listener) do
    case :ssl.transport_accept(listener) do
      {:ok, socket} ->
        pid = spawn(fn -> receive(do: (:go -> greet(socket))) end)
        :ssl.controlling_process(socket, pid)
        send(pid, :go)
        accept(listener)

      {:error, _reason} ->
        :ok
    end
  end

  defp greet(socket) do
    with {:ok, socket} <- :ssl.handshake(socket, 5_000), do: serve(socket, "")
  end

  defp serve(socket, rest) do
    case :ssl.recv(socket, 0, 30_000) do
      {:ok, bytes} -> serve(socket, answer(socket, rest <> bytes))
      {:error, _reason} -> :ok
    end
  end

  # Answers the whole requests in `bytes`; what is left begins the next one.
  defp answer(socket, bytes) do
    with [head, rest] <- :binary.split(bytes, "\r\n\r\n"),
         [_, size] = Regex.run(~r/^content-length: (\d+)/im, head),
         size = String.to_integer(size),
         <<_body::binary-size(size), next::binary>> <- rest do
      :ssl.send(socket, @answer)
      answer(socket, next)
    else
      _incomplete -> bytes
    end
  end
end
