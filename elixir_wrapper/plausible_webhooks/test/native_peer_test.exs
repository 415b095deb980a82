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

  test "the peer verifies what we sign", %{tmp_dir: tmp_dir} do
    {:ok, old_secret} = Native.generate_secret()

    lines =
      for message <- messages() do
        {:ok, signature} =
          Native.sign([old_secret, message.secret], message.id, message.timestamp, message.body)

        message
        |> Map.take([:id, :timestamp])
        |> Map.merge(%{
          signature: signature,
          body_base64: Base.encode64(message.body),
          secret: message.secret
        })
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

    lines =
      for message <- messages do
        %{
          id: message.id,
          timestamp: message.timestamp,
          body_base64: Base.encode64(message.body),
          secret: message.secret
        }
      end

    with {output, status} <- Peer.run("sign", lines, tmp_dir) do
      assert status == 0
      verify_all(messages, output)
    end
  end

  defp verify_all(messages, output) do
    signed = String.split(output, "\n", trim: true)
    assert length(signed) == length(messages)

    for {line, message} <- Enum.zip(signed, messages) do
      {:ok, %{"signature" => signature}} = Native.decode(line)

      verify = fn body ->
        Native.verify(
          [message.secret],
          message.id,
          message.timestamp,
          signature,
          body,
          message.timestamp,
          0
        )
      end

      assert verify.(message.body) == :ok
      assert verify.(message.body <> "x") == {:error, :no_match}
    end
  end
end
