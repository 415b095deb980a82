defmodule Plausible.Webhooks.NativeUrlTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Native

  @https "https://example.com/"

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

      assert {:ok, %{host: "xn--bcher-kva.example", host_unicode: "bücher.example"}} =
               Native.check_url("https://Bücher.example/", %{})
    end

    test "the Unicode form is what was typed in" do
      :rand.seed(:exsss, {1, 2, 3})
      alphabets = [~c"äöüéèñçåøðþ", ?а..?я, ?ぁ..?ん, 0x4E00..0x4FFF, 0x5D0..0x5EA]

      outcomes =
        for _ <- 1..2_000 do
          alphabet = Enum.random(alphabets)
          label = for _ <- 1..Enum.random(1..12), into: "", do: <<Enum.random(alphabet)::utf8>>

          with {:ok, %{host: "xn--" <> _} = url} <-
                 Native.check_url("https://#{label}.example/", %{}),
               do: assert(url.host_unicode == label <> ".example")
        end

      assert Enum.count(outcomes, &(&1 == true)) > 1_000
      assert Enum.all?(outcomes, &(&1 in [true, {:error, :invalid_host}]))
    end

    test "returns its own result unchanged" do
      for text <- ~w(http://134744072:8080/%7E?x http://example.com?ä http://a_b.example.com./) do
        assert {:ok, url} = Native.check_url(text, %{https_only: false})
        assert Native.check_url(url.url, %{https_only: false}) == {:ok, url}
      end
    end

    test "every reason" do
      for {text, reason} <- [
            {@https <> String.duplicate("a", 2048), :too_long},
            {"https://example.com/ x", :malformed},
            {"https://example.com/\xff", :malformed},
            {"ftp://example.com/", :scheme},
            {"http://example.com/", :https_required},
            {"https://u:p@example.com/", :user_info},
            {"https://example.com/#x", :fragment},
            {"https://[fe80::1%25eth0]/", :zone_id},
            {"https:///x", :missing_host},
            {"https://foo.123/", :invalid_host},
            {"https://localhost/", :local_name},
            {"https://2130706433/", :blocked_address},
            {"https://example.com:25/", :blocked_port}
          ] do
        assert Native.check_url(text, %{}) == {:error, reason}, text
      end
    end

    test "policy keys" do
      for {url, policy, expected} <- [
            {"http://example.com/", %{https_only: false}, :ok},
            {"https://10.0.0.1/", %{allow: ["10.0.0.0/8", "fd00::/8:8443"]}, :ok},
            {"https://[fd00::1]:8443/", %{allow: ["10.0.0.0/8", "fd00::/8:8443"]}, :ok},
            {"https://[fd00::1]/", %{allow: ["fd00::/8:8443"]}, :blocked_address},
            {"https://192.168.0.1/", %{allow: ["10.0.0.0/8"]}, :blocked_address},
            {"https://10.0.0.1:8443/", %{allow: ["10.0.0.0/8"]}, :blocked_address},
            {"https://n8n:5678/", %{allow: ["n8n:5678"]}, :ok},
            {"https://n8n/", %{allow: ["n8n:5678"]}, :local_name},
            {"https://example.com:25/", %{allow: ["example.com:25"]}, :ok},
            {"https://example.com:6379/", %{}, :blocked_port},
            {@https, %{allow: ["10.0.0.1/8"]}, :invalid_allow},
            {@https, %{allow: ["0.0.0.0/0:*"]}, :allows_everything},
            {@https, %{allow: List.duplicate("10.0.0.0/8", 256)}, :ok},
            {@https, %{allow: List.duplicate("10.0.0.0/8", 257)}, :too_many_entries}
          ] do
        case Native.check_url(url, policy) do
          {:ok, _url} -> assert expected == :ok, url
          {:error, reason} -> assert reason == expected, url
        end
      end
    end

    test "wrong types and unknown keys raise" do
      for policy <- [
            nil,
            [],
            [https_only: false],
            %{https_only: nil},
            %{allow_private: true},
            %{allow: "10.0.0.0/8"},
            %{allow: [~c"10.0.0.0/8"]},
            %{allow: ["10.0.0.0/8" | "x"]},
            %{ports: [443]},
            %{"https_only" => false},
            %{https_only: false, unknown: 1}
          ] do
        assert_raise ArgumentError, fn -> Native.check_url(@https, policy) end
      end

      for text <- [nil, :a, ~c"https://example.com/", [@https], <<1::7>>] do
        assert_raise ArgumentError, fn -> Native.check_url(text, %{}) end
      end
    end
  end

  describe "check_headers/1" do
    test "names the first invalid header and the reason" do
      good = [{"Authorization", "Bearer x"}, {"X-Api-Key", "a b"}]
      assert Native.check_headers([]) == :ok
      assert Native.check_headers(good) == :ok

      for {header, reason} <- [
            {{"X-Y\r\nHost", "x"}, :invalid_header_name},
            {{"webhook_signature", "x"}, :reserved_header},
            {{"X-Y", "a\r\nb: c"}, :invalid_header_value},
            {{"X-Y", String.duplicate("a", 4097)}, :invalid_header_value},
            {{"x_api_key", "y"}, :duplicate_header}
          ] do
        assert Native.check_headers(good ++ [header]) == {:error, {reason, 2}}
      end

      many = for i <- 1..21, do: {"X-#{i}", "x"}
      assert Native.check_headers(Enum.take(many, 20)) == :ok
      assert Native.check_headers(many ++ [:anything]) == {:error, {:too_many_headers, 20}}

      large = for i <- 1..3, do: {"X-#{i}", String.duplicate("a", 4096)}
      assert Native.check_headers(large) == {:error, {:headers_too_large, 2}}
    end

    test "wrong types raise" do
      pairs = ["A", {"A"}, {"A", 1}, {:a, "b"}, {"A", ~c"b"}, {"A", "b", "c"}]

      for headers <- [nil, %{}, {"A", "b"}, [{"A", "b"} | "x"] | Enum.map(pairs, &[&1])] do
        assert_raise ArgumentError, fn -> Native.check_headers(headers) end
      end
    end
  end
end
