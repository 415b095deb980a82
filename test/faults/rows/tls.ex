defmodule Plausible.Webhooks.Faults.Rows.Tls do
  @moduledoc false
  # Peers that are not who they say, or whose TLS is weak, broken or endless.

  alias Plausible.Webhooks.Faults.{Forge, Row}

  @ok "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
  @answer [:request, {:send, @ok}, :again]
  @tls12 :"tlsv1.2"
  @refused [:tls_error]
  # The peer's end may be seen before its reason.
  @cut [:tls_error, :connection_reset]
  # What is too much may be noticed by OpenSSL or by the byte budget.
  @flooded @cut ++ [:response_too_large, :protocol_error]

  def rows, do: certificates() ++ versions() ++ handshakes() ++ sealed() ++ servers()

  defp tls(options \\ [], script \\ @answer), do: {:tls, options, script}

  defp certificates do
    long = fn key, value -> tls([{key, value}]) end

    Row.all(:certificate, [
      {"good certificate", tls(), :delivered, body: "ok"},
      {"good, of an authority below", tls(issuer: :middle), :delivered},
      {"expired", tls(days: {-30, -2}), @refused, detail: "expired"},
      {"not yet valid", tls(days: {3, 30}), @refused, detail: "not yet valid"},
      {"of another address", tls(names: [{:iPAddress, <<127, 0, 0, 2>>}]), @refused,
       detail: "name|address"},
      {"of a name instead of the address", tls(names: [dNSName: ~c"hook.example"]), @refused,
       detail: "name|address"},
      {"with the address as a name", tls(names: [dNSName: ~c"127.0.0.1"]), @refused,
       detail: "name|address"},
      {"with the address as common name alone", tls(names: [], common_name: "127.0.0.1"),
       [:tls_error, :delivered]},
      {"NUL in the common name", tls(names: [], common_name: "127.0.0.1\0.evil.example"),
       @refused},
      {"NUL in an alternative name", tls(names: [dNSName: ~c"127.0.0.1\0.evil.example"]),
       @refused},
      {"self-signed", tls(issuer: :self), @refused, detail: "self|issuer"},
      {"of an authority nobody knows", tls(issuer: :stranger), @refused, detail: "issuer|self"},
      {"incomplete chain", tls(issuer: :middle, incomplete: true), @refused, detail: "issuer"},
      {"name constraint broken", tls(issuer: :constrained), @refused},
      {"RSA of 1024 bits", long.(:key, {:rsa, 1_024}), @refused},
      {"signed with SHA-1", tls(issuer: :middle, digest: :sha), @refused},
      {"certificate asked of us", tls(verify: :verify_peer, fail_if_no_peer_cert: false),
       :delivered},
      {"certificate demanded of us", tls(verify: :verify_peer, fail_if_no_peer_cert: true), @cut},
      {"certificate demanded, TLS 1.2",
       tls(versions: [@tls12], verify: :verify_peer, fail_if_no_peer_cert: true), @cut}
    ])
  end

  defp versions do
    suite = fn exchange, more ->
      tls(
        [
          versions: [@tls12],
          key: :rsa,
          ciphers: [%{key_exchange: exchange, cipher: :aes_256_gcm, mac: :aead, prf: :sha384}]
        ] ++ more
      )
    end

    # Nobody has to know that this is no prime.
    group = {:DHParameter, Bitwise.bsl(1, 9_999) + 1_234_567, 2, :asn1_NOVALUE}
    huge = :public_key.der_encode(:DHParameter, group)

    Row.all(:version, [
      {"TLS 1.2", tls(versions: [@tls12]), :delivered},
      {"TLS 1.1", tls(versions: [:"tlsv1.1"]), @refused},
      {"TLS 1.0", tls(versions: [:tlsv1]), @refused},
      {"ECDHE", suite.(:ecdhe_rsa, []), :delivered},
      {"no ECDHE", suite.(:rsa, []), @refused},
      {"DHE", suite.(:dhe_rsa, []), @refused},
      {"DHE with a modulus of 10 000 bits", suite.(:dhe_rsa, dh: huge), @refused},
      {"another protocol chosen", tls(alpn_preferred_protocols: ["h2", "http/1.1"]), :delivered}
    ])
  end

  defp record(type, bytes), do: <<type, 3, 3, byte_size(bytes)::16, bytes::binary>>
  defp alert(level, code), do: record(21, <<level, code>>)

  defp handshakes do
    # After the ClientHello.
    hello = fn acts -> {:https, [{:wait, 20} | acts]} end
    random = :binary.copy("r", 32)

    server_hello =
      record(
        22,
        <<2, 45::24, 3, 3, random::binary, 0, 0xC02F::16, 0, 5::16, 0xFF01::16, 1::16, 0>>
      )

    certificate = <<11, 0xFFFFFF::24, 0xFFFFFC::24>>

    alerts =
      for {name, code} <- [
            handshake_failure: 40,
            unrecognized_name: 112,
            internal_error: 80,
            protocol_version: 70,
            insufficient_security: 71,
            unknown: 255
          ] do
        {"alert #{name}", hello.([{:send, alert(2, code)}, :gone]), @cut,
         detail: "alert|SSL routines"}
      end

    Row.all(
      :handshake,
      alerts ++
        [
          {"plain HTTP on the port", hello.([{:send, "HTTP/1.1 400 X\r\n\r\n"}, :close]),
           @refused, detail: "wrong version"},
          {"SSH on the port", {:https, [{:send, "SSH-2.0-OpenSSH_9.2\r\n"}, :gone]}, @refused},
          {"TLS: reset at once", {:https, [:reset]}, @cut},
          {"TLS: closed at once", {:https, [:close]}, @cut},
          {"closed after the ClientHello", hello.([:close]), @cut},
          {"reset after the ClientHello", hello.([:reset]), @cut},
          {"closed within the ServerHello",
           hello.([{:send, binary_part(server_hello, 0, 20)}, :close]), @cut},
          {"mute", {:https, [:gone]}, :tls_timeout, detail: "TLS handshake"},
          {"ServerHello, then mute", hello.([{:send, server_hello}, :gone]), :tls_timeout},
          {"endless warnings", hello.([{:endless, alert(1, 112)}]), @flooded, prompt: true},
          {"warnings that drip", hello.([{:endless, alert(1, 90), 100}]), @cut ++ [:tls_timeout]},
          {"endless empty records", hello.([{:endless, record(22, "")}]), @flooded, prompt: true},
          {"endless change of cipher", hello.([{:endless, record(20, <<1>>)}]), @flooded,
           prompt: true},
          {"endless hello requests", hello.([{:endless, record(22, <<0, 0::24>>)}]), @flooded,
           prompt: true},
          {"hello requests that drip", hello.([{:endless, record(22, <<0, 0::24>>), 50}]),
           @cut ++ [:tls_timeout]},
          {"endless record", hello.([{:send, <<22, 3, 3, 0xFFFF::16>>}, {:endless, random}]),
           @flooded, prompt: true},
          {"ServerHello of 16 MiB",
           hello.([{:endless, record(22, <<2, 0xFFFFFF::24>> <> :binary.copy("h", 16_000))}]),
           @flooded, prompt: true},
          {"endless certificate",
           hello.([
             {:send, server_hello},
             {:send, record(22, certificate)},
             {:endless, record(22, :binary.copy("c", 16_000))}
           ]), @flooded, prompt: true},
          {"endless zeros", hello.([{:endless, :binary.copy(<<0>>, 16_384)}]), @flooded,
           prompt: true},
          {"SSLv2", hello.([{:send, <<0x80, 0x2E, 1, 3, 3, 0::320>>}, :gone]), @cut},
          {"handshake that drips", {:relayed, {:drip, 20}}, :tls_timeout},
          {"handshake in records of a byte", {:relayed, :fragments}, [:delivered | @cut]}
        ]
    )
  end

  # After a good handshake.
  defp sealed do
    data = Forge.data()
    handshake = Forge.handshake()
    alert = Forge.alert()
    line = "HTTP/1.1 200 OK\r\n"

    Row.all(:sealed, [
      {"answer in records of a byte", {:forged, [{:data, @ok, 1}, :gone]}, :delivered,
       body: "ok"},
      {"endless tickets", {:forged, [{:flood, handshake, Forge.ticket(200)}]}, @flooded,
       prompt: true},
      {"tickets that are long", {:forged, [{:flood, handshake, Forge.ticket(16_000)}]}, @flooded,
       prompt: true},
      {"endless tickets within the headers",
       {:forged, [{:data, line, 99}, {:flood, handshake, Forge.ticket(200)}]},
       @cut ++ [:timeout, :response_too_large], prompt: true},
      {"endless tickets after the headers",
       {:forged,
        [{:data, line <> "content-length: 9\r\n\r\n", 99}, {:flood, handshake, Forge.ticket(200)}]},
       :delivered, prompt: true},
      {"endless tickets before the answer",
       {:forged,
        List.duplicate({:record, handshake, Forge.ticket(64)}, 20) ++ [{:data, @ok, 99}, :gone]},
       :delivered},
      {"endless new keys", {:forged, [{:key_updates, false}]}, @flooded, prompt: true},
      {"endless new keys, asked of us", {:forged, [{:key_updates, true}]}, @flooded,
       prompt: true},
      {"endless empty data", {:forged, [{:flood, data, ""}]}, @flooded, prompt: true},
      {"endless sealed warnings", {:forged, [{:flood, alert, <<1, 90>>}]}, @flooded,
       prompt: true},
      {"endless headers in records of a byte",
       {:forged, [{:data, line <> "x: ", 99}, {:flood, data, "y"}]}, [:timeout | @flooded]},
      {"endless body in records of a byte",
       {:forged, [{:data, line <> "\r\n", 99}, {:flood, data, "y"}]}, :delivered, prompt: true},
      {"fatal alert instead of an answer", {:forged, [{:record, alert, <<2, 80>>}, :gone]}, @cut},
      {"fatal alert within the body",
       {:forged,
        [{:data, line <> "content-length: 9\r\n\r\nab", 99}, {:record, alert, <<2, 80>>}, :gone]},
       :delivered},
      {"end of stream instead of an answer", {:forged, [{:record, alert, <<1, 0>>}, :gone]},
       :connection_reset},
      {"closed without a farewell", {:forged, []}, @cut},
      {"cut without a farewell within the body", {:forged, [{:data, line <> "\r\nab", 99}]},
       :delivered},
      {"forged record", {:forged, [{:raw, <<23, 3, 3, 0, 40>> <> :binary.copy("f", 40)}, :gone]},
       @cut},
      {"record too long",
       {:forged, [{:raw, <<23, 3, 3, 0x8000::16>> <> :binary.copy("f", 4_000)}, :gone]}, @cut},
      {"plain text after the handshake", {:forged, [{:raw, @ok}, :gone]}, @cut},
      {"certificate request after the handshake",
       {:forged, [{:record, handshake, <<13, 3::24, 0, 0::16>>}, :gone]}, @cut},
      {"unknown message after the handshake",
       {:forged, [{:record, handshake, <<99, 4::24, 0::32>>}, :gone]}, @cut},
      {"message of 16 MiB after the handshake",
       {:forged,
        [
          {:record, handshake, <<4, 0xFFFFFF::24>>},
          {:flood, handshake, :binary.copy("m", 16_000)}
        ]}, @flooded, prompt: true}
    ])
  end

  # Of OpenSSL.
  defp servers do
    answer = [{:wait, 50}, "HTTP/1.1 200 OK\n", "content-length: 0\n", "\n"]
    renegotiate = List.duplicate([{:wait, 3}, "r\n"], 200) |> List.flatten()

    Row.all(:openssl, [
      {"OpenSSL's server", {:s_server, ["-tls1_3"], answer}, :delivered},
      {"a renegotiation", {:s_server, ["-tls1_2"], ["r\n" | answer]},
       [:delivered | @cut] ++ [:timeout]},
      {"renegotiation storm", {:s_server, ["-tls1_2"], renegotiate ++ answer},
       [:delivered | @cut] ++ [:timeout]},
      {"100 strange certificates", {:s_server, [{:chain, 100}, "-tls1_2"], answer},
       [:delivered | @cut]},
      {"1 000 strange certificates", {:s_server, [{:chain, 1_000}, "-tls1_2"], answer}, @cut,
       prompt: true},
      {"2 000 tickets", {:s_server, ~w(-tls1_3 -num_tickets 2000), answer},
       [:delivered | @flooded]}
    ])
  end
end
