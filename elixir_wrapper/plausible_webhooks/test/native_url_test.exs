defmodule Plausible.Webhooks.NativeUrlTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Native

  describe "check_url/2" do
    test "returns what will be dialled" do
      assert Native.check_url("HTTPS://Example.COM.:8443/a/../b?c", %{}) ==
               {:ok,
                %{
                  url: "https://example.com:8443/b?c",
                  scheme: "https",
                  host: "example.com",
                  host_unicode: nil,
                  port: 8443
                }}

      assert {:ok, %{host: "2606:4700::1111", port: 443, url: "https://[2606:4700::1111]/"}} =
               Native.check_url("https://[2606:4700:0::1111]", %{})
    end

    test "international names come back in punycode, whatever the locale" do
      assert {:ok,
              %{
                host: "xn--bcher-kva.example",
                host_unicode: "bücher.example",
                url: "https://xn--bcher-kva.example/"
              }} = Native.check_url("https://Bücher.example/", %{})

      assert Native.check_url("https://１２７.0.0.1/", %{}) == {:error, :invalid_host}
      assert Native.check_url("https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", %{}) == {:error, :local_name}
    end

    test "the Unicode form is what was typed in" do
      :rand.seed(:exsss, {1, 2, 3})
      alphabets = [~c"äöüéèñçåøðþ", ?а..?я, ?ぁ..?ん, 0x4E00..0x4FFF, 0x5D0..0x5EA]

      found =
        for _ <- 1..2_000, reduce: 0 do
          found ->
            alphabet = Enum.random(alphabets)
            label = for _ <- 1..Enum.random(1..12), into: "", do: <<Enum.random(alphabet)::utf8>>

            case Native.check_url("https://#{label}.example/", %{}) do
              {:ok, %{host: "xn--" <> _, host_unicode: unicode}} ->
                assert unicode == label <> ".example"
                found + 1

              {:error, :invalid_host} ->
                found
            end
        end

      assert found > 1_000
    end

    test "gives the same again for what it returned" do
      for text <- [
            "http://134744072:8080/%7E?x",
            "http://example.com?ä",
            "http://a_b.example.com./"
          ] do
        assert {:ok, url} = Native.check_url(text, %{https_only: false})
        assert Native.check_url(url.url, %{https_only: false}) == {:ok, url}
      end
    end

    test "every reason" do
      for {text, reason} <- [
            {"https://example.com/" <> String.duplicate("a", 2048), :too_long},
            {"https://example.com/ x", :malformed},
            {"https://example.com/\xff", :malformed},
            {"https:/example.com", :malformed},
            {"ftp://example.com/", :scheme},
            {"", :scheme},
            {"http://example.com/", :https_required},
            {"https://u:p@example.com/", :user_info},
            {"https://example.com/#x", :fragment},
            {"https://[fe80::1%25eth0]/", :zone_id},
            {"https:///x", :missing_host},
            {"https://foo.123/", :invalid_host},
            {"https://localhost/", :local_name},
            {"https://2130706433/", :blocked_address},
            {"https://[::ffff:127.0.0.1]/", :blocked_address},
            {"https://example.com:25/", :blocked_port}
          ] do
        assert Native.check_url(text, %{}) == {:error, reason}, text
      end
    end

    test "policy keys" do
      assert {:ok, _} = Native.check_url("http://example.com/", %{https_only: false})
      assert {:ok, _} = Native.check_url("https://example.com/", %{https_only: true})
      assert {:ok, _} = Native.check_url("https://10.0.0.1/", %{allow_private: true})
      assert {:ok, _} = Native.check_url("https://n8n/", %{allow_private: true})

      assert Native.check_url("https://169.254.169.254/", %{allow_private: true}) ==
               {:error, :blocked_address}

      assert {:ok, _} =
               Native.check_url("https://10.0.0.1/", %{allow: ["10.0.0.0/8", "fd00::/8"]})

      assert {:ok, _} =
               Native.check_url("https://[fd00::1]/", %{allow: ["10.0.0.0/8", "fd00::/8"]})

      assert Native.check_url("https://192.168.0.1/", %{allow: ["10.0.0.0/8"]}) ==
               {:error, :blocked_address}

      assert {:ok, _} = Native.check_url("https://example.com:25/", %{ports: [25]})
      assert Native.check_url("https://example.com/", %{ports: [8443]}) == {:error, :blocked_port}

      policy = %{https_only: false, allow_private: false, allow: [], ports: []}
      assert {:ok, _} = Native.check_url("http://example.com:8080/", policy)
    end

    test "an invalid block, and too many" do
      for block <- ["", "10.0.0.1/8", "10.0.0.0/33", "example.com", "10.0.0.0/8 "] do
        assert Native.check_url("https://example.com/", %{allow: [block]}) ==
                 {:error, :invalid_cidr}
      end

      policy = %{allow: List.duplicate("10.0.0.0/8", 257)}
      assert Native.check_url("https://example.com/", policy) == {:error, :too_many_entries}
      assert {:ok, _} = Native.check_url("https://example.com/", %{ports: Enum.to_list(443..698)})

      assert Native.check_url("https://example.com/", %{ports: Enum.to_list(443..699)}) ==
               {:error, :too_many_entries}
    end

    test "wrong types and unknown keys raise" do
      for policy <- [
            nil,
            [],
            [https_only: false],
            %{https_only: 1},
            %{https_only: nil},
            %{allow_private: "true"},
            %{allow: "10.0.0.0/8"},
            %{allow: [~c"10.0.0.0/8"]},
            %{allow: ["10.0.0.0/8" | "x"]},
            %{ports: [0]},
            %{ports: [65_536]},
            %{ports: ["443"]},
            %{ports: 443},
            %{"https_only" => false},
            %{https: true},
            %{https_only: false, unknown: 1}
          ] do
        assert_raise ArgumentError, fn -> Native.check_url("https://example.com/", policy) end
      end

      for text <- [nil, :a, ~c"https://example.com/", ["https://example.com/"], <<1::7>>] do
        assert_raise ArgumentError, fn -> Native.check_url(text, %{}) end
      end
    end

    test "no bytes crash it" do
      :rand.seed(:exsss, {1, 2, 3})

      pieces = [
        "https://",
        "http:",
        "/",
        "//",
        "[",
        "]",
        ":",
        "@",
        "%",
        "..",
        "xn--",
        "é",
        "。",
        "1",
        "x"
      ]

      for _ <- 1..20_000 do
        text = Enum.map_join(1..:rand.uniform(8), fn _ -> Enum.random(pieces) end)
        result = Native.check_url("https://" <> text, %{})
        assert match?({:ok, %{url: _}}, result) or match?({:error, _}, result)
        assert match?({_, _}, Native.check_url(:rand.bytes(:rand.uniform(60)), %{}))
      end
    end
  end

  describe "check_headers/1" do
    test "what may be added" do
      assert Native.check_headers([]) == :ok

      assert Native.check_headers([{"Authorization", "Bearer x"}, {"X-Api-Key", "a b"}]) == :ok
    end

    test "the first at fault, and why" do
      good = {"X-Good", "x"}

      for {header, reason} <- [
            {{"", "x"}, :invalid_header_name},
            {{"X Y", "x"}, :invalid_header_name},
            {{"X-Y\r\nHost", "x"}, :invalid_header_name},
            {{"Host", "x"}, :reserved_header},
            {{"webhook_signature", "x"}, :reserved_header},
            {{"X-Y", ""}, :invalid_header_value},
            {{"X-Y", "a\r\nb: c"}, :invalid_header_value},
            {{"X-Y", <<0>>}, :invalid_header_value},
            {{"X-Y", "é"}, :invalid_header_value},
            {{"X-Y", String.duplicate("a", 4097)}, :invalid_header_value},
            {{"x_good", "y"}, :duplicate_header}
          ] do
        assert Native.check_headers([good, header]) == {:error, {reason, 1}}
      end
    end

    test "how many, and how much" do
      many = for i <- 1..21, do: {"X-#{i}", "x"}
      assert Native.check_headers(Enum.take(many, 20)) == :ok
      assert Native.check_headers(many) == {:error, {:too_many_headers, 20}}
      assert Native.check_headers(many ++ [:anything]) == {:error, {:too_many_headers, 20}}

      large = for i <- 1..3, do: {"X-#{i}", String.duplicate("a", 4096)}
      assert Native.check_headers(large) == {:error, {:headers_too_large, 2}}
    end

    test "wrong types raise" do
      for headers <- [
            nil,
            %{},
            {"A", "b"},
            ["A"],
            [{"A"}],
            [{"A", 1}],
            [{:a, "b"}],
            [{"A", ~c"b"}],
            [{"A", "b", "c"}],
            [{"A", "b"} | "x"]
          ] do
        assert_raise ArgumentError, fn -> Native.check_headers(headers) end
      end
    end
  end
end
