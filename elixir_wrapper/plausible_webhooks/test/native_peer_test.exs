defmodule Plausible.Webhooks.NativePeerTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Native

  # Installing the peer asks the npm registry, and tests do not leave the machine
  # unless they are told to.
  if System.get_env("WEBHOOKS_PEERS") != "1" do
    @moduletag skip: "needs npm and a network: set WEBHOOKS_PEERS=1"
  end

  @moduletag :tmp_dir
  @moduletag timeout: 120_000

  @peer Path.expand("../../../test/peers/run", __DIR__)

  defp run(verb, messages, tmp_dir) do
    path = Path.join(tmp_dir, verb)
    File.write!(path, Enum.map(messages, &[encode(&1), ?\n]))
    System.cmd("sh", ["-c", "#{@peer} #{verb} < #{path}"])
  end

  defp encode(message) do
    {:ok, json} = Native.encode(message)
    json
  end

  defp messages do
    {:ok, secret} = Native.generate_secret()
    {:ok, {signing, public}} = Native.generate_keypair()
    now = System.system_time(:second)
    text = "ä€😀\u2028 and plain "

    bodies =
      ["", "{}", ~s("text"), "no JSON", encode(%{text: :binary.copy(text, 8_000)})] ++
        for n <- 1..200, do: encode(%{n: n, text: String.slice(text, 0, rem(n, 9))})

    for {body, index} <- Enum.with_index(bodies),
        {sign, verify} <- [{secret, secret}, {signing, public}] do
      %{id: "msg_#{index}", timestamp: now, body: body, sign: sign, verify: verify}
    end
  end

  test "the peer verifies what we sign", %{tmp_dir: tmp_dir} do
    {:ok, old_secret} = Native.generate_secret()

    lines =
      for message <- messages() do
        {:ok, signature} =
          Native.sign([old_secret, message.sign], message.id, message.timestamp, message.body)

        message
        |> Map.take([:id, :timestamp])
        |> Map.merge(%{
          signature: signature,
          body_base64: Base.encode64(message.body),
          secret: message.verify
        })
      end

    assert run("verify", lines, tmp_dir) == {"#{length(lines)} passed, 0 failed\n", 0}

    [first | rest] = lines
    broken = %{first | body_base64: Base.encode64("other")}
    assert run("verify", [broken | rest], tmp_dir) == {"#{length(rest)} passed, 1 failed\n", 1}
  end

  test "we verify what the peer signs", %{tmp_dir: tmp_dir} do
    messages = messages()

    lines =
      for message <- messages do
        %{
          id: message.id,
          timestamp: message.timestamp,
          body_base64: Base.encode64(message.body),
          secret: message.sign
        }
      end

    assert {output, 0} = run("sign", lines, tmp_dir)
    signed = String.split(output, "\n", trim: true)
    assert length(signed) == length(messages)

    for {line, message} <- Enum.zip(signed, messages) do
      {:ok, %{"signature" => signature}} = Native.decode(line)

      verify = fn body ->
        Native.verify(
          [message.verify],
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
