defmodule Plausible.Webhooks.Faults.Rows.Http do
  @moduledoc false
  # Answers, from the status line to the last byte of the body.

  alias Plausible.Webhooks.Faults.Row

  @line "HTTP/1.1 200 OK\r\n"
  @ok "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
  @chunked "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
  @page :binary.copy("p", 16_384)
  # What HTTP allows to be taken either way. The bounds hold all the same.
  @either [:delivered, :protocol_error]
  @broken [:protocol_error, :connection_reset]

  def rows, do: status_lines() ++ interim() ++ statuses() ++ headers() ++ bodies() ++ chunks()

  # Answers every request on a connection with these bytes.
  defp always(bytes), do: {:http, [:request, {:send, bytes}, :again]}
  # Answers and closes.
  defp once(bytes), do: {:http, [:request, {:send, bytes}, :close]}
  defp then_silent(bytes), do: {:http, [:request, {:send, bytes}, :gone]}
  defp then_endless(bytes, more), do: {:http, [:request, {:send, bytes}, {:endless, more}]}
  defp head(lines), do: @line <> Enum.map_join(List.wrap(lines), &(&1 <> "\r\n")) <> "\r\n"

  defp status_lines do
    words = [
      {"HTTP/0.9", "<html>old style</html>\n"},
      {"empty lines only", "\r\n\r\n"},
      {"SSH banner", "SSH-2.0-OpenSSH_9.2\r\n"},
      {"status 000", "HTTP/1.1 000 None\r\n\r\n"},
      {"status of letters", "HTTP/1.1 abc\r\n\r\n"},
      {"version 9.9", "HTTP/9.9 200\r\n\r\n"},
      {"no status", "HTTP/1.1\r\n\r\n"},
      {"Shoutcast", "ICY 200 OK\r\n\r\n"},
      {"status of two digits", "HTTP/1.1 99 Low\r\n\r\n"},
      {"negative status", "HTTP/1.1 -200 OK\r\n\r\n"},
      {"64 NUL bytes", :binary.copy(<<0>>, 64)},
      {"NUL in status line", "HTTP/1.1 200 O\0K\r\ncontent-length: 0\r\n\r\n"},
      {"TLS alert on a plain port", <<21, 3, 1, 0, 2, 2, 40>>},
      {"TLS record on a plain port", <<22, 3, 1, 2, 0, :binary.copy("x", 300)::binary>>},
      {"HTTP/2 SETTINGS", <<0::24, 4, 0, 0::32, 0, 0, 8, 7, 0, 0::32, 0::64>>},
      {"RTSP", "RTSP/1.0 200 OK\r\n\r\n"}
    ]

    many = for {kind, bytes} <- words, do: {kind, once(bytes), :protocol_error}

    Row.all(
      :status_line,
      many ++
        [
          {"nothing, then closed", {:http, [:request, :close]}, :connection_reset},
          {"no answer", {:http, [:request, :gone]}, :timeout, detail: "no answer in time"},
          {"half a status line", then_silent("HTTP/1.1 2"), :timeout},
          {"half a status line, closed", once("HTTP/1.1 2"), @broken},
          # libcurl 8.14 reads three of them.
          {"status of four digits", once("HTTP/1.1 2000 OK\r\n\r\n"),
           [:protocol_error, :delivered]},
          {"status 600", always("HTTP/1.1 600 X\r\ncontent-length: 0\r\n\r\n"),
           [:http_status, :protocol_error]},
          {"status 999", always("HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n"),
           [:http_status, :protocol_error]},
          {"no reason", always("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n"), :delivered},
          {"lower-case protocol", once("http/1.1 200 ok\r\n\r\n"), @either},
          {"two spaces", once("HTTP/1.1  200 OK\r\n\r\n"), @either},
          {"HTTP/1.0", once("HTTP/1.0 200 OK\r\n\r\nok"), :delivered, body: "ok"},
          {"HTTP/2 in plain text", once("HTTP/2 200 OK\r\n\r\n"), @either},
          {"HTTP/3 in plain text", once("HTTP/3 200 OK\r\n\r\n"), @either},
          {"reason of 70 KiB", then_silent("HTTP/1.1 200 " <> :binary.copy("r", 71_680)),
           [:response_too_large, :timeout]},
          {"endless status line", then_endless("HTTP/1.1 200 ", @page), :response_too_large,
           prompt: true},
          {"endless empty lines", then_endless("", :binary.copy("\r\n", 4_096)),
           [:protocol_error, :response_too_large], prompt: true},
          {"bare line feeds", always("HTTP/1.1 200 OK\ncontent-length: 2\n\nok"), :delivered},
          {"bare carriage returns", once("HTTP/1.1 200 OK\rcontent-length: 2\r\rok"), @broken},
          {"banner before the request", {:http, [{:send, "220 mail ESMTP\r\n"}, :request, :gone]},
           :protocol_error}
        ]
    )
  end

  defp interim do
    hints = "HTTP/1.1 103 Early Hints\r\nlink: <a>\r\nretry-after: 99\r\n\r\n"

    Row.all(:interim, [
      {"100, then 200", always("HTTP/1.1 100 Continue\r\n\r\n" <> @ok), :delivered, body: "ok"},
      {"fifty 103, then 200", always(String.duplicate(hints, 50) <> @ok), :delivered, body: "ok"},
      {"endless 100", then_endless("", "HTTP/1.1 100 Continue\r\n\r\n"), :response_too_large,
       prompt: true},
      {"endless 103", then_endless("", String.duplicate(hints, 100)), :response_too_large,
       prompt: true},
      {"endless 102, slowly",
       {:http, [:request, {:endless, "HTTP/1.1 102 Processing\r\n\r\n", 50}]}, :timeout},
      {"102, then silence", then_silent("HTTP/1.1 102 Processing\r\n\r\n"), :timeout},
      {"101 nobody asked for",
       then_silent("HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"),
       :protocol_error, prompt: true},
      {"101 to h2c",
       then_silent("HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"),
       :protocol_error, prompt: true},
      {"100 with a body", once("HTTP/1.1 100 Continue\r\ncontent-length: 5\r\n\r\nhello" <> @ok),
       [:delivered, :protocol_error, :connection_reset]},
      {"200 before the request", {:http, [{:send, @ok}, :request, :close]},
       [:delivered, :protocol_error]},
      {"100 before the request",
       {:http, [{:send, "HTTP/1.1 100 Continue\r\n\r\n"}, :request, {:send, @ok}, :again]},
       [:delivered, :protocol_error]},
      {"413 before the body", {:http, [:head, {:send, answer(413)}, :shutdown, :gone]},
       [:http_status, :connection_reset]},
      {"417", always(answer(417)), :http_status, status: 417}
    ])
  end

  defp answer(status, lines \\ []),
    do:
      "HTTP/1.1 #{status} X\r\ncontent-length: 0\r\n" <>
        Enum.map_join(lines, &(&1 <> "\r\n")) <> "\r\n"

  defp statuses do
    metadata = "location: http://169.254.169.254/latest/meta-data/"

    redirects =
      for status <- [300, 301, 302, 303, 304, 305, 307, 308] do
        {"redirect #{status}", always(answer(status, [metadata])), :redirect,
         status: status, detail: "redirects are not followed"}
      end

    plain =
      for status <- [400, 404, 405, 408, 421, 425, 426, 431, 451, 500, 501, 502, 503, 504, 511] do
        {"status #{status}", always(answer(status)), :http_status, status: status}
      end

    good =
      for status <- [201, 202, 203, 204, 205, 206, 226, 299] do
        {"status #{status}", once("HTTP/1.1 #{status} X\r\n\r\n"), :delivered, status: status}
      end

    Row.all(
      :status,
      redirects ++
        plain ++
        good ++
        [
          {"redirect to a file", always(answer(302, ["location: file:///etc/passwd"])),
           :redirect},
          {"redirect of 60 KiB",
           always(answer(302, ["location: /" <> :binary.copy("l", 61_440)])), :redirect},
          {"redirect without a place", always(answer(302)), :redirect},
          {"location with 201", always(answer(201, [metadata])), :delivered, status: 201},
          {"refresh and location with 200", always(answer(200, [metadata, "refresh: 0;url=/"])),
           :delivered},
          {"401 Basic", always(answer(401, [~s(www-authenticate: Basic realm="x")])),
           :http_status, status: 401},
          {"401 Digest",
           always(answer(401, [~s(www-authenticate: Digest realm="x", nonce="y", qop="auth")])),
           :http_status, status: 401},
          {"401 Negotiate, NTLM",
           always(answer(401, ["www-authenticate: Negotiate", "www-authenticate: NTLM"])),
           :http_status, status: 401},
          {"407 of a proxy", always(answer(407, [~s(proxy-authenticate: Basic realm="x")])),
           :http_status, status: 407},
          {"410", always(answer(410)), :gone, status: 410, retry_in_s: nil}
        ]
    )
  end

  defp headers do
    just_below =
      head(List.duplicate("x-f: " <> :binary.copy("f", 1_017), 60) ++ ["content-length: 0"])

    beyond =
      head(List.duplicate("x-f: " <> :binary.copy("f", 1_017), 70) ++ ["content-length: 0"])

    either =
      for {kind, line} <- [
            {"no colon", "nonsense"},
            {"no name", ": x"},
            {"space before the colon", "x-a : b"},
            {"carriage return in a value", "x-a: b\rc"},
            {"NUL in a value", "x-a: b\0c"},
            {"NUL in a header name", "x-\0a: b"},
            {"transfer coding nobody knows", "transfer-encoding: nonsense"},
            {"negative length", "content-length: -5"},
            {"length of 2^63", "content-length: 9223372036854775808"},
            {"length beyond 64 bits", "content-length: 99999999999999999999999"},
            {"length in hexadecimal", "content-length: 0x2"},
            {"length with a sign", "content-length: +2"},
            {"empty length", "content-length:"},
            {"list of lengths", "content-length: 2, 2"},
            {"two lengths", "content-length: 2\r\ncontent-length: 3"},
            {"length and chunks", "content-length: 2\r\ntransfer-encoding: chunked"}
          ],
          do: {kind, once(head(line) <> "ok"), @either}

    fine =
      for {kind, line} <- [
            {"folded header", "x-a: b\r\n  c\r\n\td"},
            {"content type with escape codes", "content-type: text/\e[31mred\x80\xFF"},
            {"content type of 9 KB", "content-type: " <> :binary.copy("t", 9_000)},
            {"100 cookies", Enum.map_join(1..100, "\r\n", &"set-cookie: a#{&1}=b; path=/")},
            {"cookie of 30 KB", "set-cookie: a=" <> :binary.copy("c", 30_000)},
            {"Alt-Svc", ~s(alt-svc: h3=":1"; ma=86400, h2="evil.example:443")},
            {"HSTS", "strict-transport-security: max-age=31536000; includeSubDomains"},
            {"offers h2c", "upgrade: h2c, websocket\r\nconnection: upgrade"},
            {"keep-alive of 2^64 s", "keep-alive: timeout=18446744073709551616, max=0"},
            {"closing kept open", "connection: close"},
            {"unknown content coding", "content-encoding: nonsense"},
            {"thousand content codings",
             "content-encoding: gzip" <> String.duplicate(", gzip", 999)},
            {"trailer announced", "trailer: content-length, set-cookie"}
          ],
          do: {kind, always(head([line, "content-length: 2"]) <> "ok"), :delivered, body: "ok"}

    Row.all(
      :header,
      either ++
        fine ++
        [
          {"endless headers",
           then_endless(@line, String.duplicate("x-filler: 0123456789\r\n", 400)),
           :response_too_large, prompt: true},
          {"one endless header", then_endless(@line <> "x-filler: ", @page), :response_too_large,
           prompt: true},
          {"endless folded header",
           then_endless(@line <> "x-a: b\r\n", String.duplicate(" c\r\n", 4_096)),
           :response_too_large, prompt: true},
          {"headers that drip", {:http, [:request, {:send, @line}, {:endless, "x-a: b\r\n", 60}]},
           :timeout, detail: "in time"},
          {"headers of 61 KiB", always(just_below), :delivered},
          {"headers of 71 KiB", always(beyond), :response_too_large},
          {"8 000 headers", once(head(List.duplicate("a:b", 8_000)) <> "ok"),
           [:delivered, :response_too_large]},
          {"headers without an end", then_silent(@line <> "x-a: b\r\n"), :timeout},
          {"headers cut off", once(@line <> "x-a: b\r\n"), @broken},
          {"body as gzip",
           always(
             head(["content-encoding: gzip", "content-length: #{byte_size(gzip())}"]) <> gzip()
           ), :delivered, body: gzip()},
          {"cookie sent back?",
           {:http,
            [
              :request,
              {:send, head(["set-cookie: a=b", "content-length: 2"]) <> "ok"},
              {:request, &clean/1},
              {:send, @ok},
              :gone
            ]}, :delivered, first: true}
        ]
    )
  end

  # A second request that carries what the first answer set.
  defp clean(request) do
    if request =~ ~r/^(cookie|authorization|referer|expect|te|accept-encoding|if-none-match):/im,
      do: [{:send, answer(500)}, :close],
      else: :on
  end

  defp bodies do
    long = "content-length: 99999999999"
    drip = [:request, {:send, head(long)}, {:endless, "x", 50}]

    Row.all(:body, [
      {"endless body", then_endless(@line <> "\r\n", @page), :delivered, prompt: true},
      {"endless body with a length", then_endless(head(long), @page), :delivered, prompt: true},
      {"endless 204", then_endless("HTTP/1.1 204 X\r\n" <> long <> "\r\n\r\n", @page), :delivered,
       prompt: true},
      {"endless 500", then_endless("HTTP/1.1 500 X\r\n\r\n", @page), :http_status,
       status: 500, prompt: true},
      {"endless 410", then_endless("HTTP/1.1 410 X\r\n\r\n", @page), :gone,
       retry_in_s: nil, prompt: true},
      {"endless redirect", then_endless("HTTP/1.1 307 X\r\nlocation: /\r\n\r\n", @page),
       :redirect, prompt: true},
      {"body that drips", {:http, drip}, :delivered, prompt: true},
      {"body that never comes", then_silent(head("content-length: 100")), :delivered,
       prompt: true},
      {"half a body, then silence", then_silent(head("content-length: 100") <> "half"),
       :delivered, prompt: true, body: "half"},
      {"500 whose body drips",
       {:http,
        [:request, {:send, "HTTP/1.1 500 X\r\n" <> long <> "\r\n\r\n"}, {:endless, "x", 50}]},
       :http_status, status: 500},
      {"short body after 200", once(head("content-length: 100") <> "short"), :delivered,
       body: "short"},
      {"short body after 500", once("HTTP/1.1 500 X\r\ncontent-length: 100\r\n\r\nshort"),
       :http_status, status: 500, body: "short"},
      {"body of 16 KiB", always(head("content-length: 16384") <> @page), :delivered, body: @page},
      {"body of a byte more", always(head("content-length: 16385") <> @page <> "p"), :delivered,
       body: @page},
      {"body with markup and control bytes", once(head([]) <> "<script>\0\e[2J\xFF</script>"),
       :delivered, body: "<script>\0\e[2J\xFF</script>"},
      {"body after 204", once("HTTP/1.1 204 X\r\n\r\nbody"), :delivered},
      {"body after 205", once("HTTP/1.1 205 X\r\n\r\nbody"), :delivered},
      {"answer byte by byte", {:http, [:request, {:drip, @ok, 2}, :again]}, :delivered,
       body: "ok"},
      {"answer smuggled behind the answer",
       {:http, [:request, {:send, @ok <> answer(500)}, :gone]}, :delivered, first: true},
      {"body longer than said", {:http, [:request, {:send, @ok <> @page}, :gone]}, :delivered,
       first: true}
    ])
  end

  defp chunks do
    bomb = bomb()
    big = Enum.map_join(1..1_000, &"x-trailer-#{&1}: value\r\n")

    codings =
      for coding <- ~w(gzip deflate br zstd compress x-gzip) do
        {"transfer coding #{coding}",
         once(head("transfer-encoding: #{coding}, chunked") <> "2\r\nok\r\n0\r\n\r\n"), @either}
      end

    broken =
      for {kind, rest} <- [
            {"chunk of no size", "zz\r\nbad\r\n"},
            {"chunk of negative size", "-1\r\nbad\r\n"},
            {"chunk of 2^84 bytes", "fffffffffffffffffffff\r\nx\r\n"},
            {"chunk cut off", "5\r\nhel"},
            {"chunk without its line end", "2\r\nokXX0\r\n\r\n"},
            {"chunk size of spaces", "   \r\nok\r\n0\r\n\r\n"},
            {"no last chunk", "2\r\nok\r\n"},
            {"bare line feeds in chunks", "2\nok\n0\n\n"}
          ],
          do: {kind, once(@chunked <> rest), :delivered}

    Row.all(
      :transfer_coding,
      codings ++
        broken ++
        [
          {"five layers of gzip",
           then_silent(
             head(["transfer-encoding: " <> layers("gzip"), "connection: close"]) <> bomb
           ), @either, prompt: true},
          {"five layers of gzip, in chunks",
           then_silent(
             head("transfer-encoding: " <> layers("gzip") <> ", chunked") <>
               "#{Integer.to_string(byte_size(bomb), 16)}\r\n" <> bomb <> "\r\n0\r\n\r\n"
           ), @either, prompt: true},
          {"thousand transfer codings",
           once(head("transfer-encoding: gzip" <> String.duplicate(", gzip", 999)) <> bomb),
           @either},
          {"coding over two headers",
           once(
             head(["transfer-encoding: gzip", "transfer-encoding: chunked"]) <>
               "2\r\nok\r\n0\r\n\r\n"
           ), @either},
          {"chunked twice",
           once(head("transfer-encoding: chunked, chunked") <> "2\r\nok\r\n0\r\n\r\n"), @either},
          {"identity", once(head("transfer-encoding: identity") <> "ok"), @either},
          {"endless chunks", then_endless(@chunked, "4000\r\n" <> @page <> "\r\n"), :delivered,
           prompt: true},
          {"endless chunks of a byte",
           then_endless(@chunked, String.duplicate("1\r\nx\r\n", 2_048)), :delivered,
           prompt: true},
          {"endless chunk extension", then_endless(@chunked <> "2;x=", @page), :delivered,
           prompt: true},
          {"endless chunk extension after 500",
           then_endless("HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n2;x=", @page),
           :http_status, status: 500, prompt: true},
          {"endless chunk extensions, one each",
           then_endless(@chunked, "1;" <> :binary.copy("e", 16_000) <> "\r\nx\r\n"), :delivered,
           prompt: true},
          {"endless chunk size", then_endless(@chunked, :binary.copy("0", 16_384)), :delivered,
           prompt: true},
          {"chunk extension of 32 KiB",
           once(@chunked <> "2;x=" <> :binary.copy("e", 32_768) <> "\r\nok\r\n0\r\n\r\n"),
           :delivered},
          {"endless trailers",
           then_endless(
             @chunked <> "2\r\nok\r\n0\r\n",
             String.duplicate("x-t: 0123456789\r\n", 900)
           ), :delivered, prompt: true},
          {"one endless trailer", then_endless(@chunked <> "2\r\nok\r\n0\r\nx-t: ", @page),
           :delivered, prompt: true},
          {"thousand trailers", always(@chunked <> "2\r\nok\r\n0\r\n" <> big <> "\r\n"),
           :delivered},
          {"trailer that changes the length",
           always(@chunked <> "2\r\nok\r\n0\r\ncontent-length: 9\r\nretry-after: 99\r\n\r\n"),
           :delivered}
        ]
    )
  end

  defp layers(coding), do: Enum.join(List.duplicate(coding, 5), ", ")
  defp gzip, do: :zlib.gzip("what was inside")

  # 256 MiB of nothing, five times compressed.
  defp bomb do
    mebibyte = :binary.copy(<<0>>, 1_048_576)
    z = :zlib.open()
    :ok = :zlib.deflateInit(z, :best_compression, :deflated, 31, 9, :default)
    first = for _ <- 1..256, do: :zlib.deflate(z, mebibyte)
    first = IO.iodata_to_binary([first, :zlib.deflate(z, [], :finish)])
    Enum.reduce(1..4, first, fn _, bytes -> :zlib.gzip(bytes) end)
  end
end
