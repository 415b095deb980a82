defmodule Plausible.Webhooks.NativePeerTest do
  use ExUnit.Case, async: false

  alias Plausible.Webhooks.Native
  alias Plausible.Webhooks.Test.Peer

  @moduletag :tmp_dir
  @moduletag timeout: 120_000

  defp encoded(term) do
    {:ok, json} = Native.encode(term)
    json
  end

  defp messages do
    {:ok, secret} = Native.generate_secret()
    now = System.system_time(:second)
    text = "ä€😀\u2028 and plain "

    bodies =
      ["", "{}", ~s("text"), "no JSON", encoded(%{text: :binary.copy(text, 8_000)})] ++
        for n <- 1..200, do: encoded(%{n: n, text: String.slice(text, 0, rem(n, 9))})

    for {body, index} <- Enum.with_index(bodies),
        do: %{id: "msg_#{index}", timestamp: now, body: body, secret: secret}
  end

  # A message as the peer reads it: `test/peers/verify.mjs` describes the lines.
  defp line(message, fields \\ %{}) do
    %{id: message.id, timestamp: message.timestamp, secret: message.secret}
    |> Map.put(:body_base64, Base.encode64(message.body))
    |> Map.merge(fields)
  end

  test "the peer verifies what we sign", %{tmp_dir: tmp_dir} do
    {:ok, old_secret} = Native.generate_secret()

    lines =
      for %{secret: secret, id: id, timestamp: at, body: body} = message <- messages() do
        {:ok, signature} = Native.sign([old_secret, secret], id, at, body)
        line(message, %{signature: signature})
      end

    with {output, status} <- Peer.run("verify", lines, tmp_dir) do
      assert {output, status} == {"#{length(lines)} passed, 0 failed\n", 0}

      [first | rest] = lines
      broken = %{first | body_base64: Base.encode64("other")}

      assert {"#{length(rest)} passed, 1 failed\n", 1} ==
               Peer.run("verify", [broken | rest], tmp_dir)
    end
  end

  test "we verify what the peer signs", %{tmp_dir: tmp_dir} do
    messages = messages()

    with {output, status} <- Peer.run("sign", Enum.map(messages, &line/1), tmp_dir) do
      assert status == 0
      signed = String.split(output, "\n", trim: true)
      assert length(signed) == length(messages)

      for {line, %{secret: secret, id: id, timestamp: at, body: body}} <-
            Enum.zip(signed, messages) do
        {:ok, %{"signature" => signature}} = Native.decode(line)
        assert Native.verify([secret], id, at, signature, body, at, 0) == :ok

        assert Native.verify([secret], id, at, signature, body <> "x", at, 0) ==
                 {:error, :no_match}
      end
    end
  end
end
