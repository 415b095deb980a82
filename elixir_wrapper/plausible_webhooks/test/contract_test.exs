defmodule Plausible.Webhooks.ContractTest do
  # The schemas, the OpenAPI and AsyncAPI documents, and the code of the receivers' guide.
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.{Event, Native}
  alias Plausible.Webhooks.Ingest.Payload
  alias Plausible.Webhooks.Test.Peer

  @top Path.expand("../../..", __DIR__)
  Code.require_file(Path.join(@top, "tools/contract.ex"))

  test "the files in docs are up to date" do
    # apply/3: the compiler knows no module of tools/.
    assert apply(Contract, :stale, []) == [],
           "run mix run --no-start -r ../../tools/contract.ex -e 'Contract.write()'"
  end

  test "independent validators accept the documents, real bodies, and bodies of the future" do
    documents =
      for(type <- Event.types(), do: document("schema", read("schemas/#{type}.json"))) ++
        [document("openapi", read("openapi.json")), document("asyncapi", read("asyncapi.json"))]

    lines = documents ++ bodies() ++ Enum.map(bodies(), &of_the_future/1)
    dir = Path.join(System.tmp_dir!(), "contract-#{System.pid()}")
    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)

    with {output, status} <- Peer.run("validate", lines, dir) do
      assert {output, status} == {"#{length(lines)} passed, 0 failed\n", 0},
             File.read!(Path.join(dir, "validate.stderr"))

      # Neither a title nor a version, no data.
      wrong =
        for line <- Enum.drop(documents, 5) ++ bodies(),
            do: %{line | document: String.replace(line.document, ~r/"(info|data)"/, ~s("other"))}

      assert {"5 passed, #{length(wrong)} failed\n", 1} ==
               Peer.run("validate", Enum.take(documents, 5) ++ wrong, dir)
    end
  end

  test "the test vector of receiving.md is signed as it says" do
    [secret, id, timestamp, signature] =
      for name <- ~w(secret webhook-id webhook-timestamp webhook-signature) do
        [_all, value] = Regex.run(~r/^#{name} +(\S+)$/m, read("receiving.md"))
        value
      end

    [_all, body] = Regex.run(~r/^body +(\S.*)$/m, read("receiving.md"))
    assert Native.sign([secret], id, String.to_integer(timestamp), body) == {:ok, signature}
  end

  defp read(name), do: File.read!(Path.join([@top, "docs", name]))
  defp document(kind, text), do: %{kind: kind, document: text}

  defp bodies do
    site = %{id: 1, domain: "exämple.com", dashboard_url: "https://plausible.io/x"}

    for type <- Event.types() do
      {:ok, body} = type |> Payload.sample(site, nil, 1_795_428_930_123) |> Payload.encode()
      %{kind: "body", document: body, type: type}
    end
  end

  # New members at each level, and values that are not there today.
  defp of_the_future(%{document: document} = line) do
    future =
      document
      |> String.replace("{\"", "{\"new\":\"☕\",\"")
      |> String.replace(~s("type":"event"), ~s("type":"purchase"))
      |> String.replace("same_weekday_and_time_4w", "median_8w")

    %{line | document: future}
  end
end
