defmodule Plausible.Webhooks.NativeEngineInputTest do
  # What an engine is given is judged before it is copied: a normal scheduler must not
  # be held by the size of a refused value.
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Native

  @large_bytes 50_000_000

  setup do
    {:ok, engine} = Native.engine_start(%{})
    on_exit(fn -> Native.engine_stop(engine, 0) end)
    {:ok, secret} = Native.generate_secret()
    endpoint = %{webhook_id: "wh_1", url: "https://example.com/", keys: [secret]}
    %{engine: engine, endpoint: endpoint, large: :binary.copy("a", @large_bytes)}
  end

  defp least_us(fun), do: Enum.min(for _ <- 1..5, do: fun |> :timer.tc() |> elem(0))

  test "large values are refused faster than one of them could be copied", context do
    %{engine: engine, endpoint: endpoint, large: large} = context
    copy_us = least_us(fn -> :binary.copy(large) end)

    for {change, reason} <- [
          {%{headers: for(n <- 1..20, do: {"X-#{n}", large})}, :invalid_header_value},
          {%{headers: [{large, "x"}]}, :invalid_header_name},
          {%{webhook_id: large}, :invalid_webhook_id},
          {%{url: large}, :too_long},
          {%{keys: ["whsec_" <> large]}, :invalid_key}
        ] do
      endpoint = Map.merge(endpoint, change)
      put = fn -> assert Native.put_endpoint(engine, endpoint) == {:error, reason} end
      assert least_us(put) < copy_us, inspect(reason)
    end
  end

  test "headers are judged as check_headers/1 does", %{engine: engine, endpoint: endpoint} do
    good = for n <- 1..20, do: {"X-#{n}", "a b"}
    assert Native.put_endpoint(engine, Map.put(endpoint, :headers, good)) == :ok

    for headers <- [[{"Host", "x"}], good ++ [{"X-21", "x"}], [{"X", "1"}, {"x", "2"}]] do
      {:error, {reason, _index}} = Native.check_headers(headers)
      assert Native.put_endpoint(engine, Map.put(endpoint, :headers, headers)) == {:error, reason}
    end

    for headers <- [nil, [{"X", 1}], [{"X", "1"} | "x"], %{}] do
      assert_raise ArgumentError, fn ->
        Native.put_endpoint(engine, Map.put(endpoint, :headers, headers))
      end
    end
  end
end
