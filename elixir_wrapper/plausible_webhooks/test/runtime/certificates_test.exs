defmodule Plausible.Webhooks.Runtime.CertificatesTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias Plausible.Webhooks.Runtime.Certificates

  test "without certificates the log names the paths that were tried" do
    bundles = ["/no/such/bundle.crt", "/nor/this.pem"]
    refute Certificates.found?(nil, bundles)
    log = capture_log(fn -> Certificates.check(nil, bundles) end)
    assert log =~ "[error]"
    for bundle <- bundles, do: assert(log =~ bundle)
    assert capture_log(fn -> Certificates.check(nil, [__ENV__.file | bundles]) end) == ""
    assert capture_log(fn -> Certificates.check("/a/file/of/ours", bundles) end) == ""
  end

  test "the engine looks in the same places" do
    source = File.read!(Path.expand("../../../../c_src/core/curl_handles.cpp", __DIR__))
    [_all, list] = Regex.run(~r/kSystemBundles = {(.*?)};/s, source)
    named = for [_all, path] <- Regex.scan(~r/"([^"]+)"/, list), do: path
    assert named == Certificates.bundles()
  end
end
