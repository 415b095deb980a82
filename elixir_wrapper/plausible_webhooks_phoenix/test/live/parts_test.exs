defmodule PlausibleWeb.Live.WebhookSettings.PartsTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Attempt

  alias PlausibleWeb.Live.WebhookSettings.{
    AttemptResult,
    FailureHints,
    ForeignText,
    Format,
    Labels
  }

  alias PlausibleWeb.Live.WebhookSettings.{Page, Snippets, Webhook}

  doctest ForeignText, import: true
  doctest Format, import: true
  doctest Labels, import: true

  describe "ForeignText" do
    test "what is harmless stays: scripts, emoji, joiners" do
      for text <- ["Tellimus ☕", "日本語", "עברית", "👨‍👩‍👧", "ç̧", "a  b", "<b>", "🙃🤖🥳🫠🦄", "₿", "❤️"],
          do: assert(ForeignText.line(text) == text)
    end

    test "every character that turns or hides is written out" do
      for code <- [
            0..8,
            [0xB, 0xC],
            0xE..0x1F,
            [0x7F],
            0x80..0x9F,
            [0xAD, 0x61C, 0x180E, 0x200B, 0xFEFF],
            0x200E..0x200F,
            0x202A..0x202E,
            0x2060..0x206F,
            [0x2028, 0x2029, 0xE0001, 0xE0020],
            # Letters and marks that show nothing.
            [0x34F, 0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0]
          ],
          code <- code do
        for shown <- [ForeignText.line(<<code::utf8>>), ForeignText.block(<<code::utf8>>)],
            do: assert(shown =~ ~r/\A\[U\+[0-9A-F]{4,6}\]\z/)
      end
    end

    test "bytes that are no text, anywhere, in any number" do
      assert ForeignText.line(<<255>>) == "[0xFF]"
      assert ForeignText.line("ü" <> <<0xC3>>) == "ü[0xC3]"
      assert ForeignText.line(<<0xED, 0xA0, 0x80>>) =~ "[0xED]"
      bytes = :binary.copy(<<200, 13>>, 8_000)
      assert ForeignText.block(bytes) =~ "[0xC8][U+000D]"
      for _ <- 1..200, do: assert(String.valid?(ForeignText.block(:crypto.strong_rand_bytes(64))))
    end

    test "lines" do
      assert ForeignText.block("a\r\nb\n\tc\rd") == "a\nb\n\tc[U+000D]d"
      assert ForeignText.short(String.duplicate("ü", 30), 10) == String.duplicate("ü", 9) <> "…"
      assert ForeignText.line(nil) == ""
      assert ForeignText.line(%{a: 1}) == "%{a: 1}"
    end
  end

  describe "Format" do
    test "local times, there and back" do
      assert Format.from_local("2026-11-23T10:15", "Etc/UTC") == {:ok, 1_795_428_900_000}
      assert Format.from_local("2026-11-23T10:15:30", "Etc/UTC") == {:ok, 1_795_428_930_000}
      assert Format.to_local(1_795_428_930_000, "Etc/UTC") == "2026-11-23T10:15"

      for wrong <- ["", "x", "2026-13-01T00:00", nil, 7, %{}],
          do: assert(Format.from_local(wrong, "Etc/UTC") == :error)

      # No time zone database here: said to be UTC, not taken for it.
      assert Format.zone("Europe/Tallinn") == "Etc/UTC"
      assert Format.time(1_795_428_930_000, "Europe/Tallinn") == "23 Nov 2026, 10:15:30 UTC"
    end

    test "numbers, shares, spans" do
      assert Enum.map([0, 999, 1_000, 1_234_567, -1_500], &Format.number/1) == [
               "0",
               "999",
               "1,000",
               "1,234,567",
               "-1,500"
             ]

      assert Format.percent(0, 5) == "0 %"
      assert Format.percent(5, 5) == "100 %"
      assert Format.percent(999_999, 1_000_000) == "99.9 %"
      assert Format.percent(1, 1_000_000) == "0.1 %"
      assert Format.span(59_000) == "less than a minute"
      assert Format.span(3_600_000) == "1 h"
      assert Format.span(90_061_000) == "1 d 1 h"
      assert Enum.map([0, 1, 42_000, -5], &Format.countdown/1) == ["0:00", "0:01", "0:42", "0:00"]
    end
  end

  describe "Format.json/1" do
    test "is laid out; what it holds stays as it was written" do
      assert Format.json(~s({"a":[1,2.50,{}],"b":"x,{y}:\\"z\\\\","c":[]})) ==
               ~s({\n  "a": [\n    1,\n    2.50,\n    {}\n  ],\n  "b": "x,{y}:\\"z\\\\",\n  "c": []\n})
    end

    test "what is none, or too long, comes back as it is" do
      for text <- ["", "x", "{", "{\"a\":}", <<255>>, ~s({"a":1}]})],
          do: assert(Format.json(text) == text)

      long = ~s(["#{String.duplicate("x", 262_144)}"])
      assert Format.json(long) == long
    end
  end

  describe "what a test says" do
    test "has a text for every result that is no attempt" do
      for {reason, text} <- [
            timeout: "The test is still waiting to be sent.",
            unavailable: "still starting",
            not_found: "no longer exists",
            queue_timeout: "the database did not answer",
            crashed: "Try again in a moment."
          ],
          do: assert(Webhook.refused(reason, nil, __MODULE__) =~ text)

      outcome = AttemptResult.outcome(%Attempt{status: 200, total_us: 1_500, started_at_ms: 0})
      assert outcome == "Delivered: your endpoint answered 200 after 1.5 ms."
    end

    test "what the API refuses is said in words" do
      for {reason, text} <- [
            stale: "Somebody else was changing it",
            limit_reached: "reached its limit of webhooks",
            webhook_disabled: "Switch it on first",
            too_many_secrets: "Too many secrets",
            store_unavailable: "the database did not answer"
          ],
          do: assert(Page.explain(reason) =~ text)

      assert Page.explain({:invalid, %{url: "is required"}}) == "The URL is required."
    end
  end

  describe "FailureHints and Labels" do
    test "every error class has a name, a meaning and something to do" do
      for class <- FailureHints.classes() do
        hint = FailureHints.hint(%Attempt{error: class, status: 500, detail: nil})
        assert %{meaning: <<_, _::binary>>, action: <<_, _::binary>>} = hint
        assert FailureHints.name(class) == FailureHints.name(Atom.to_string(class))
      end

      for status <- 100..599,
          do: assert(%{meaning: _} = FailureHints.hint(:http_status, status, nil))

      assert FailureHints.hint(%Attempt{error: nil}) == nil
      assert FailureHints.name("no such class") == nil
    end

    # The core's names, word for word.
    test "no class of the core is forgotten" do
      core = File.read!(Path.expand("../../../../c_src/core/curl_errors.cpp", __DIR__))
      [names] = Regex.run(~r/kNames = \{([^}]*)\}/, core, capture: :all_but_first)
      named = ~r/"(\w+)"/ |> Regex.scan(names, capture: :all_but_first) |> List.flatten()

      assert Enum.sort(named -- ["none"]) ==
               FailureHints.classes() |> Enum.map(&Atom.to_string/1) |> Enum.sort()
    end

    test "what the TLS library says is told apart" do
      for {detail, meaning} <- [
            {"SSL certificate problem: unable to get local issuer certificate",
             "intermediate certificate"},
            {"SSL certificate problem: unable to verify the first certificate", "intermediate"},
            {"SSL certificate problem: self-signed certificate", "self-signed, or"},
            {"SSL certificate problem: certificate has expired", "has expired"},
            {"SSL: no alternative certificate subject name matches target host name 'x'",
             "does not name this host"},
            {"error:0A00010B:SSL routines::wrong version number", "does not speak TLS"},
            {"something new", "No secure connection"},
            {nil, "No secure connection"}
          ] do
        assert FailureHints.hint(:tls_error, nil, detail).meaning =~ meaning
      end
    end

    test "a subject for what is wrong" do
      assert Labels.invalid(:url, "must begin with https://") ==
               "The URL must begin with https://."

      assert Labels.invalid(:headers, "header 2 has a name that is reserved") ==
               "Extra headers: header 2 has a name that is reserved."

      assert Labels.invalid("nonsense", "is not an attribute") ==
               "What was given is not an attribute."
    end
  end

  describe "Snippets" do
    @secret "whsec_" <> Base.encode64(:binary.copy("k", 32))
    @bodies [
      ~s({"type":"goal.completed"}),
      ~S|{"name":"it's \"quoted\" \\ $x ${y} #{1+1} `id` $(id) %s {{id}} <?php ?> */ -- "}|,
      ~s({"name":"Ünïcødé ☕ 👨‍👩‍👧 \u202Ereversed\u2066"}),
      <<"{\"bytes\":\"", 255, 0, 1, 27, "\"}">>,
      "{\"long\":\"" <> String.duplicate("x", 200_000) <> "\"}"
    ]

    setup do
      dir =
        Path.join(
          System.tmp_dir!(),
          "snippets-#{System.unique_integer([:positive])}-#{System.pid()}"
        )

      File.mkdir_p!(dir)
      on_exit(fn -> File.rm_rf!(dir) end)
      %{dir: dir}
    end

    for {language, command, file} <- [
          {:node, ~w(node), "verify.cjs"},
          {:python, ~w(python3), "verify.py"},
          {:php, ~w(php), "verify.php"},
          {:ruby, ~w(ruby), "verify.rb"},
          {:go, ~w(go run), "verify.go"},
          {:elixir, ~w(elixir), "verify.exs"}
        ] do
      @tag timeout: 300_000
      test "#{language}: as it stands it verifies what is right, and nothing else", %{dir: dir} do
        [command | arguments] = unquote(command)

        if path = System.find_executable(command) do
          for body <- @bodies do
            assert run(
                     dir,
                     unquote(language),
                     path,
                     arguments,
                     unquote(file),
                     request(body),
                     @secret
                   ) =~ ~r/\A(verified [0-9]|verified: true)/
          end

          wrong = "whsec_" <> Base.encode64(:binary.copy("x", 32))

          assert run(
                   dir,
                   unquote(language),
                   path,
                   arguments,
                   unquote(file),
                   request(hd(@bodies)),
                   wrong
                 ) =~ ~r/NOT verified|verified: false/
        else
          IO.puts("#{unquote(language)} is not installed: its snippet was not run")
        end
      end
    end

    defp run(dir, language, path, arguments, file, request, secret) do
      File.write!(Path.join(dir, file), Snippets.verify(language, request))
      environment = [{"WEBHOOK_SECRET", secret}, {"GOCACHE", Path.join(dir, "go")}, {"HOME", dir}]

      {output, _status} =
        System.cmd(path, arguments ++ [file], cd: dir, env: environment, stderr_to_stdout: true)

      output
    end

    defp request(body) do
      timestamp = System.system_time(:second)
      {:ok, signature} = Plausible.Webhooks.Native.sign([@secret], "msg_1", timestamp, body)

      headers = [
        {"content-type", "application/json"},
        {"webhook-id", "msg_1"},
        {"webhook-timestamp", "#{timestamp}"},
        {"webhook-signature", signature}
      ]

      %{url: "http://127.0.0.1/hook", headers: headers, body: body, timestamp: timestamp}
    end

    test "curl: a shell sends exactly these bytes", %{dir: dir} do
      receiver = Plausible.Webhooks.Test.HttpReceiver.start!()
      Plausible.Webhooks.Test.HttpReceiver.secrets(receiver, "/hook", [@secret])

      for body <- @bodies -- [Enum.at(@bodies, 3)] do
        request = %{
          request(body)
          | url: Plausible.Webhooks.Test.HttpReceiver.url(receiver, "/hook?a=it's&b=$(id)")
        }

        request = %{request | headers: request.headers ++ [{"X-A", "it's \"$(id)\" `id`"}]}
        curl = Snippets.curl(request)
        assert curl =~ ~r/\A[\x20-\x7e\n]*\z/
        File.write!(Path.join(dir, "curl.sh"), curl)
        {output, 0} = System.cmd("bash", ["curl.sh"], cd: dir, stderr_to_stdout: true)
        assert output =~ "200"
        received = List.last(Plausible.Webhooks.Test.HttpReceiver.requests(receiver, "/hook"))
        assert received.body == body
        assert received.verified
        assert received.target == "/hook?a=it's&b=$(id)"
        assert received.headers["x-a"] == "it's \"$(id)\" `id`"
      end
    end
  end
end
