defmodule Plausible.Webhooks.LocalTest do
  # mix plausible_webhooks.listen and mix plausible_webhooks.trigger, each against the other
  # and against what strangers may send.
  use ExUnit.Case, async: false

  alias Mix.Tasks.PlausibleWebhooks.{Listen, Trigger}
  alias Plausible.Webhooks.{Event, Native}
  alias Plausible.Webhooks.Local.{Http, Text}

  doctest Text

  setup do
    shell = Mix.shell()
    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(shell) end)
    {:ok, secret} = Native.generate_secret()
    %{secret: secret}
  end

  # What a task has told: the tasks' shell sends it to the process that calls, the receiver's
  # connections have no such process and send it to themselves.
  defp told do
    receive do
      {:mix_shell, :info, [text]} -> IO.iodata_to_binary(text) <> "\n" <> told()
    after
      0 -> ""
    end
  end

  defp listening(arguments) do
    receiver = Listen.start(["--port", "0" | arguments])
    assert told() =~ ~r"listening on http://127.0.0.1:\d+\nsecret: whsec_"
    "http://localhost:#{Http.port(receiver)}/hook"
  end

  test "each type is sent, verified and answered; the timings are shown", %{secret: secret} do
    url = listening(["--secret", secret])

    for type <- Event.types() do
      Trigger.run([type, "--url", url, "--secret", secret])
      told = told()
      assert told =~ ~s("type": "#{type}")
      assert told =~ ~r/=> 200, .*connect [0-9.]+ ms, .*total [0-9.]+ ms/
    end
  end

  test "another secret is refused, and the task fails", %{secret: secret} do
    url = listening(["--secret", secret])
    {:ok, other} = Native.generate_secret()

    assert catch_exit(Trigger.run(["webhook.test", "--url", url, "--secret", other])) ==
             {:shutdown, 1}

    assert told() =~ "=> 401"
  end

  test "the receiver answers as told", %{secret: secret} do
    url = listening(["--secret", secret, "--status", "429", "--retry-after", "7"])
    {:ok, signature} = Native.sign([secret], "msg_1", System.system_time(:second), "{}")

    headers = [
      {'webhook-id', 'msg_1'},
      {'webhook-timestamp', to_charlist(System.system_time(:second))},
      {'webhook-signature', to_charlist(signature)}
    ]

    {:ok, {{_, status, _}, answered, _}} =
      :httpc.request(:post, {to_charlist(url), headers, 'application/json', "{}"}, [], [])

    assert {status, List.keyfind(answered, 'retry-after', 0)} == {429, {'retry-after', '7'}}
  end

  test "wrong arguments are named, and nothing is sent", %{secret: secret} do
    for arguments <- [[], ["goal.completed"], ["goal.done", "--url", "http://localhost/"]],
        do: assert_raise(Mix.Error, ~r/TYPE --url URL/, fn -> Trigger.run(arguments) end)

    assert_raise Mix.Error, ~r/nothing was sent: scheme/, fn ->
      Trigger.run(["webhook.test", "--url", "ftp://localhost/", "--secret", secret])
    end

    assert_raise Mix.Error, ~r/is not a secret/, fn -> Listen.start(["--secret", "x"]) end
  end

  test "the text of a request moves no cursor" do
    hostile = Text.request("/\e[2J", [{"x", "\e]0;title\a"}], "\u202E{\"a\":\r\n1}" <> <<255>>)
    assert hostile == "    POST /[2J\n    x: ]0;title\n\n    {\"a\":\n    1}\uFFFD"
  end

  test "JSON of any shape survives the indentation" do
    for json <- [
          ~s({"a":{},"b":[],"c":["]}\\"",{"d":-1.5e3}],"e":null,"f":"}{"}),
          ~s([[[1,2],[3]],"x"]),
          ~s({"long":#{inspect(String.duplicate("x", 100))},"o":{"k":[true,false]}})
        ] do
      assert Native.decode(Text.json(json)) == Native.decode(json)
    end

    assert Text.json("no json {") == "no json {"
  end
end
