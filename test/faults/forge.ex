defmodule Plausible.Webhooks.Faults.Forge do
  @moduledoc false
  # TLS peers that no TLS library would be. OTP's ssl does the handshake behind a relay, and
  # tells the secret of its half (SSLKEYLOGFILE's). With that the relay seals records of its
  # own (RFC 8446, 5.2 and 7.1), or cuts the handshake into odd pieces.

  alias Plausible.Webhooks.Faults.{Authority, Wire}

  @alert 21
  @handshake 22
  @data 23
  @answer "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
  @endless_max 64 * 1_048_576
  @flood_bytes 16_384

  defstruct [:socket, :counts, :secret, :key, :iv, number: 0, sent: 0]

  @doc "The TLS server behind the relay."
  def inner(authority) do
    Authority.options(authority,
      versions: [:"tlsv1.3"],
      ciphers: [%{key_exchange: :any, cipher: :aes_128_gcm, mac: :aead, prf: :sha256}],
      session_tickets: :disabled,
      keep_secrets: true
    )
  end

  @doc """
  Shakes hands, reads the request, then plays the acts:

    * `{:data, bytes, size}` - in records of that size
    * `{:record, type, content}`
    * `{:flood, type, content}` - records without an end
    * `{:key_updates, asks?}` - without an end; each one that asks wants one in return
    * `{:raw, bytes}` - not sealed
    * `:gone`
  """
  def play(socket, inner, acts, counts) do
    with {:ok, secret} <- relay_until(socket, inner, :seal, & &1) do
      Wire.count_up(counts, :requests)
      forge = keys(%__MODULE__{socket: socket, counts: counts}, secret)
      Enum.reduce_while(acts, forge, &act/2)
    end

    :gen_tcp.close(socket)
    Wire.count_up(counts, :ended)
  end

  @doc "A good TLS peer whose bytes come by `{:drip, ms}`, or in `:fragments` of one byte."
  def relay(socket, inner, how, counts) do
    with {:ok, _done} <- relay_until(socket, inner, :answer, &pieces(socket, how, &1)),
         do: Wire.count_up(counts, :requests)

    :gen_tcp.close(socket)
    Wire.count_up(counts, :ended)
  end

  # --- the relay

  defp relay_until(socket, inner, then, fun) do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, ip: {127, 0, 0, 1}, active: false])
    {:ok, port} = :inet.port(listener)
    relay = self()

    spawn(fn ->
      {:ok, far} = :gen_tcp.accept(listener)
      server(far, inner, then, relay)
    end)

    {:ok, near} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: true])
    :ok = :inet.setopts(socket, active: true)
    result = relay(socket, near, fun)
    _ = :inet.setopts(socket, active: false)
    :gen_tcp.close(near)
    :gen_tcp.close(listener)
    result
  end

  defp server(far, inner, then, relay) do
    with {:ok, tls} <- :ssl.handshake(far, inner, 15_000),
         {:ok, _request} <- :ssl.recv(tls, 0, 15_000) do
      if then == :answer, do: :ssl.send(tls, @answer)
      {:ok, keylog: lines} = :ssl.connection_information(tls, [:keylog])
      send(relay, {:secrets, self(), secrets(lines)})
      receive do: (:sample -> :ssl.send(tls, "sample"))
      # Not closed: that would send an alert. The relay closes.
      _ = :ssl.recv(tls, 0, 30_000)
    end
  end

  defp secrets(lines) do
    for line <- lines,
        [label, _random, secret] <- [String.split(List.to_string(line))],
        label in ["SERVER_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0"],
        do: Base.decode16!(secret, case: :mixed)
  end

  # OTP 27 names each of the two after the other side. The server's opens what the server
  # seals.
  defp server_secret(secrets, <<@data, 3, 3, size::16, record::binary-size(size), _::binary>>) do
    sealed = binary_part(record, 0, size - 16)
    tag = binary_part(record, size, -16)

    Enum.find(secrets, fn secret ->
      %{key: key, iv: iv} = keys(%__MODULE__{}, secret)
      head = <<@data, 3, 3, size::16>>
      :crypto.crypto_one_time_aead(:aes_128_gcm, key, iv, sealed, head, tag, false) != :error
    end)
  end

  defp relay(socket, near, fun) do
    receive do
      {:tcp, ^socket, bytes} ->
        _ = :gen_tcp.send(near, bytes)
        relay(socket, near, fun)

      {:tcp, ^near, bytes} ->
        with bytes when is_binary(bytes) <- fun.(bytes), do: :gen_tcp.send(socket, bytes)
        relay(socket, near, fun)

      {:secrets, server, secrets} ->
        send(server, :sample)
        receive do: ({:tcp, ^near, sample} -> {:ok, server_secret(secrets, sample)})

      {:tcp_closed, _either} ->
        :closed
    after
      30_000 -> :closed
    end
  end

  defp pieces(socket, {:drip, ms}, bytes) do
    for <<byte <- bytes>>, reduce: :ok do
      :ok ->
        Process.sleep(ms)
        :gen_tcp.send(socket, <<byte>>)

      error ->
        error
    end
  end

  # Only what is not sealed yet can be cut into other records.
  defp pieces(socket, :fragments, <<@handshake, version::16, size::16, rest::binary>>)
       when byte_size(rest) >= size do
    <<content::binary-size(size), rest::binary>> = rest
    records = for <<byte <- content>>, do: <<@handshake, version::16, 1::16, byte>>
    _ = :gen_tcp.send(socket, records)
    pieces(socket, :fragments, rest)
  end

  defp pieces(socket, :fragments, rest), do: :gen_tcp.send(socket, rest)

  # --- sealing

  defp act({:data, bytes, size}, forge) do
    pieces = for <<piece::binary-size(size) <- bytes>>, do: piece
    rest = binary_part(bytes, length(pieces) * size, rem(byte_size(bytes), size))
    all = if rest == "", do: pieces, else: pieces ++ [rest]
    push(forge, Enum.map(all, &{@data, &1}))
  end

  defp act({:record, type, content}, forge), do: push(forge, [{type, content}])
  defp act({:flood, type, content}, forge), do: flood(forge, {type, content})
  defp act({:key_updates, asks?}, forge), do: key_updates(forge, if(asks?, do: 1, else: 0))

  defp act({:raw, bytes}, forge) do
    if :gen_tcp.send(forge.socket, bytes) == :ok, do: {:cont, forge}, else: {:halt, :gone}
  end

  defp act(:gone, forge) do
    case :gen_tcp.recv(forge.socket, 0, 60_000) do
      {:ok, _bytes} -> act(:gone, forge)
      {:error, _reason} -> {:halt, :gone}
    end
  end

  # Many records at a time: one by one the peer would be the slower side.
  defp flood(%{sent: sent}, _record) when sent > @endless_max, do: {:halt, :gone}

  defp flood(forge, {_type, content} = record) do
    count = max(1, div(@flood_bytes, byte_size(content) + 22))

    with {:cont, forge} <- push(forge, List.duplicate(record, count)), do: flood(forge, record)
  end

  defp key_updates(%{sent: sent}, _asks) when sent > @endless_max, do: {:halt, :gone}

  defp key_updates(forge, asks) do
    with {:cont, forge} <- push(forge, [{@handshake, <<24, 1::24, asks>>}]),
         do: forge |> keys(expand(forge.secret, "traffic upd", 32)) |> key_updates(asks)
  end

  defp push(forge, records) do
    {sealed, forge} = Enum.map_reduce(records, forge, &seal/2)
    bytes = IO.iodata_length(sealed)

    if :gen_tcp.send(forge.socket, sealed) == :ok do
      Wire.count_up(forge.counts, :bytes, bytes)
      {:cont, %{forge | sent: forge.sent + bytes}}
    else
      {:halt, :gone}
    end
  end

  defp seal({type, content}, forge) do
    head = <<@data, 3, 3, byte_size(content) + 17::16>>
    nonce = :crypto.exor(forge.iv, <<forge.number::96>>)

    {sealed, tag} =
      :crypto.crypto_one_time_aead(
        :aes_128_gcm,
        forge.key,
        nonce,
        <<content::binary, type>>,
        head,
        true
      )

    {[head, sealed, tag], %{forge | number: forge.number + 1}}
  end

  defp keys(forge, secret) do
    key = expand(secret, "key", 16)
    %{forge | secret: secret, key: key, iv: expand(secret, "iv", 12), number: 0}
  end

  # HKDF-Expand-Label for results of at most one block.
  defp expand(secret, label, size) do
    label = "tls13 " <> label
    info = <<size::16, byte_size(label), label::binary, 0, 1>>
    :crypto.mac(:hmac, :sha256, secret, info) |> binary_part(0, size)
  end

  @doc "A new session ticket, sealed or not."
  def ticket(bytes) do
    ticket = :binary.copy("t", bytes)
    body = <<7_200::32, 0::32, 1, 0, bytes::16, ticket::binary, 0::16>>
    <<4, byte_size(body)::24, body::binary>>
  end

  def alert, do: @alert
  def handshake, do: @handshake
  def data, do: @data

  # --- OpenSSL's own server

  @doc """
  `input` is typed when the request has arrived: a list of texts and pauses. A line that begins
  with `r` asks for a renegotiation.
  """
  def s_server(authority, kind, arguments, input) do
    {wish, arguments} = Enum.split_with(arguments, &is_tuple/1)
    files = Authority.arguments(authority, "s_server_#{:erlang.phash2(kind)}", wish)
    counts = Wire.counts()
    starter = self()

    spawn_link(fn ->
      # Not longer than any run, should nobody be left to end it.
      command = ~w(300 openssl s_server -accept 127.0.0.1:0) ++ files ++ arguments

      port =
        Port.open(
          {:spawn_executable, System.find_executable("timeout")},
          [:binary, :exit_status, :stderr_to_stdout, args: command]
        )

      {:os_pid, pid} = Port.info(port, :os_pid)
      end_with(starter, pid)
      typist(port, "", starter, counts, input)
    end)

    receive do
      {:s_server, number} -> %{url: "https://127.0.0.1:#{number}/", counts: counts, port: number}
    after
      20_000 -> raise "openssl s_server did not start"
    end
  end

  defp end_with(starter, pid) do
    spawn(fn ->
      ref = Process.monitor(starter)
      receive do: ({:DOWN, ^ref, :process, _pid, _reason} -> :ok)
      System.cmd("kill", ["#{pid}"], stderr_to_stdout: true)
    end)
  end

  defp typist(port, seen, starter, counts, input) do
    receive do
      {^port, {:data, bytes}} ->
        seen = seen <> bytes

        cond do
          seen =~ ~r/ACCEPT .*:\d+\n/ ->
            [_line, number] = Regex.run(~r/ACCEPT .*:(\d+)\n/, seen)
            send(starter, {:s_server, String.to_integer(number)})
            typist(port, "", starter, counts, input)

          seen =~ "webhook-signature" ->
            Wire.count_up(counts, :requests)
            Enum.each(input, &type(port, &1))
            typist(port, "", starter, counts, input)

          true ->
            typist(port, tail(seen), starter, counts, input)
        end

      {^port, {:exit_status, _status}} ->
        :ok
    end
  end

  defp tail(seen), do: binary_part(seen, byte_size(seen), -min(byte_size(seen), 4_096))

  defp type(_port, {:wait, ms}), do: Process.sleep(ms)

  # A server that has just ended takes no input; its exit status follows.
  defp type(port, text) do
    Port.command(port, text)
  rescue
    ArgumentError -> false
  end
end
