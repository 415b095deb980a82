defmodule Plausible.Webhooks.Faults.Peers do
  @moduledoc false
  # Starts the peer of each row on a port of its own on 127.0.0.1. A peer is one of:
  #
  #   {:http, script}         plays it on each connection
  #   {:https, script}        the same below https://, without TLS
  #   {:tls, options, script} serves TLS by OTP's ssl, then plays the script inside
  #   {:forged, act}          a TLS 1.3 peer that seals what no TLS library would send
  #   {:relayed, how}         a TLS peer whose bytes come in odd pieces
  #   {:s_server, arguments, input}  OpenSSL's, with what it is typed
  #   {:dns, zone}            a good receiver below a name that this zone answers
  #   {:listen, how}          :backlog (full), :late (accepts late)
  #   :nobody                 a port where nobody listens
  #
  # Everything ends with the process that started it.

  alias Plausible.Webhooks.Faults.{Authority, Forge, Names, Wire}

  @policy %{https_only: false, allow: ["127.0.0.0/8:*"]}
  @listen [:binary, ip: {127, 0, 0, 1}, active: false, reuseaddr: true, nodelay: true]
  # Small, so that what a peer has sent is what was read, nearly.
  @buffers [sndbuf: 16_384, backlog: 1_024]
  @good "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

  @doc "`%{kind => %{url: url, counts: counts}}`, and the options of whoever dials them."
  def start(rows, dir) do
    authority = Authority.new(dir)
    names = Names.start()
    peers = Map.new(rows, &{&1.kind, start_peer(&1.peer, &1.kind, authority, names)})

    options = %{
      policy: @policy,
      ca_file: authority.ca_file,
      dns_servers: "127.0.0.1:#{names.port}"
    }

    %{peers: peers, options: options}
  end

  defp start_peer({:http, script}, _kind, _authority, _names),
    do: serve("http", Wire.counts(), &Wire.play(:gen_tcp, &1, &1, script, &2))

  defp start_peer({:https, script}, _kind, _authority, _names),
    do: serve("https", Wire.counts(), &Wire.play(:gen_tcp, &1, &1, script, &2))

  defp start_peer({:tls, options, script}, _kind, authority, _names) do
    options = Authority.options(authority, options)

    serve("https", Wire.counts(), fn socket, counts ->
      with {:ok, tls} <- :ssl.handshake(socket, options, 10_000),
           do: Wire.play(:ssl, tls, socket, script, counts)
    end)
  end

  defp start_peer({:forged, act}, _kind, authority, _names) do
    inner = Forge.inner(authority)
    serve("https", Wire.counts(), &Forge.play(&1, inner, act, &2))
  end

  defp start_peer({:relayed, how}, _kind, authority, _names) do
    inner = Forge.inner(authority)
    serve("https", Wire.counts(), &Forge.relay(&1, inner, how, &2))
  end

  defp start_peer({:s_server, arguments, input}, kind, authority, _names),
    do: Forge.s_server(authority, kind, arguments, input)

  defp start_peer({:dns, zone}, kind, _authority, names) do
    peer =
      serve("http", Wire.counts(), fn socket, counts ->
        Wire.play(:gen_tcp, socket, socket, [:request, {:send, @good}, :again], counts)
      end)

    host = Names.add(names, kind, zone)
    %{peer | url: String.replace(peer.url, "127.0.0.1", host)}
  end

  defp start_peer({:listen, :backlog}, _kind, _authority, _names) do
    {:ok, listener} = :gen_tcp.listen(0, [backlog: 0] ++ @listen)
    {:ok, port} = :inet.port(listener)
    # One in the queue fills it.
    for _ <- 1..2, do: :gen_tcp.connect({127, 0, 0, 1}, port, [], 200)
    %{url: url("http", port), counts: Wire.counts(), port: port}
  end

  defp start_peer({:listen, {:late, ms, script}}, _kind, _authority, _names) do
    serve("http", Wire.counts(), fn socket, counts ->
      Process.sleep(ms)
      Wire.play(:gen_tcp, socket, socket, script, counts)
    end)
  end

  # Bound, so that nobody else gets the port, and not listening.
  defp start_peer(:nobody, _kind, _authority, _names) do
    {:ok, socket} = :socket.open(:inet, :stream, :tcp)
    :ok = :socket.bind(socket, %{family: :inet, addr: {127, 0, 0, 1}, port: 0})
    {:ok, %{port: port}} = :socket.sockname(socket)
    %{url: url("http", port), counts: Wire.counts(), port: port}
  end

  @doc """
  Accepts for ever, and hands each socket to `fun` in a process of its own. Another address is
  another destination.
  """
  def serve(scheme, counts, fun, ip \\ {127, 0, 0, 1}) do
    {:ok, listener} =
      :gen_tcp.listen(0, @buffers ++ [{:ip, ip} | List.keydelete(@listen, :ip, 0)])

    {:ok, port} = :inet.port(listener)
    for _ <- 1..2, do: spawn_link(fn -> accept(listener, counts, fun) end)
    %{url: url(scheme, port, ip), counts: counts, port: port}
  end

  defp accept(listener, counts, fun) do
    with {:ok, socket} <- :gen_tcp.accept(listener) do
      Wire.count_up(counts, :connections)
      Wire.hand_over(socket, fn -> fun.(socket, counts) end)
      accept(listener, counts, fun)
    end
  end

  defp url(scheme, port, ip \\ {127, 0, 0, 1}), do: "#{scheme}://#{:inet.ntoa(ip)}:#{port}/"
end
