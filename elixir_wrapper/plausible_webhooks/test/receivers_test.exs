defmodule Plausible.Webhooks.ReceiversTest do
  # The receivers of docs/receivers, as a developer runs them: 100 deliveries of a whole
  # instance, and five forgeries. A receiver whose language or library is not installed says
  # so in one line.
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks.Native

  @moduletag timeout: 180_000
  @docs Path.expand("../../../docs/receivers", __DIR__)
  @peers Path.expand("../../../test/peers/run", __DIR__)

  # The library's folder names where a developer's own copy of the library is.
  @receivers [
    {"Node.js", "exec node receiver.cjs"},
    {"Node.js with standardwebhooks", "exec #{@peers} receiver"},
    {"Python", "exec python3 receiver.py"},
    {"Python with standardwebhooks", "cd library && exec python3 receiver.py"},
    {"PHP", "exec php -S 127.0.0.1:$PORT receiver.php"},
    {"PHP with standard-webhooks",
     "cd library && php -r 'require \"vendor/autoload.php\";' >/dev/null && " <>
       "exec php -S 127.0.0.1:$PORT receiver.php"},
    {"Ruby", "exec ruby receiver.rb"},
    {"Ruby with standardwebhooks", "cd library && exec ruby receiver.rb"},
    {"Go", "go build -o receiver receiver.go verify.go && exec ./receiver"},
    {"Go with standardwebhooks",
     "cd library && go mod init receiver && GOPROXY=off go mod tidy && " <>
       "go build -o receiver && exec ./receiver"},
    {"Elixir", "exec elixir receiver.exs"}
  ]

  for {name, command} <- @receivers do
    test "#{name}: accepts 100 deliveries and refuses 5 forgeries", context do
      context = start!(context)
      {:ok, secret} = Native.generate_secret()

      case listening(unquote(command), secret, context.dir) do
        {:ok, url} -> tried(context, url, secret)
        {:missing, why} -> IO.puts("\nreceiver #{unquote(name)} did not run: #{why}")
      end
    end
  end

  defp tried(context, url, secret) do
    {:ok, webhook} =
      create_webhook(context, %{url: url, events: ["goal.completed"], secret: secret})

    for n <- 1..100 do
      plan = "☕ \"#{n}\" \u2028 </script>"
      :ok = Plausible.Webhooks.events_buffered(context.name, [event(1, %{"meta.value": [plan]})])
    end

    eventually(
      fn ->
        entries = all_deliveries(context)
        length(entries) == 100 and Enum.all?(entries, &(&1.state == :delivered))
      end,
      60_000
    )

    [delivery | _] = entries = all_deliveries(context)
    assert Enum.map(entries, & &1.attempts) == List.duplicate(1, 100)

    {:ok, request} = request(context, delivery.id)
    assert request.body =~ "☕"
    assert post(request.url, request.headers, request.body) == 204
    assert webhook.id == delivery.webhook_id

    for {forgery, headers, body} <- forgeries(request),
        do: assert({forgery, post(request.url, headers, body)} == {forgery, 401})
  end

  defp forgeries(%{headers: headers, body: body, timestamp: timestamp}) do
    {:ok, other} = Native.generate_secret()
    id = headers |> Map.new() |> Map.fetch!("webhook-id")
    {:ok, signature} = Native.sign([other], id, timestamp, body)

    [
      {:body, headers, String.replace(body, "goal.completed", "goal.completes")},
      {:id, put(headers, "webhook-id", "msg_00000000000000000000000000"), body},
      {:timestamp, put(headers, "webhook-timestamp", to_string(timestamp + 1)), body},
      {:key, put(headers, "webhook-signature", signature), body},
      {:unsigned, Enum.reject(headers, fn {name, _} -> name =~ "webhook-" end), body}
    ]
  end

  defp put(headers, name, value), do: List.keystore(headers, name, 0, {name, value})

  defp post(url, headers, body) do
    headers = for {name, value} <- headers, do: {to_charlist(name), to_charlist(value)}
    request = {to_charlist(url), headers, 'application/json', body}
    {:ok, {{_version, status, _text}, _headers, _body}} = :httpc.request(:post, request, [], [])
    status
  end

  # Runs the receiver in a copy of the folder until the test ends.
  defp listening(command, secret, dir) do
    File.cp_r!(@docs, Path.join(dir, "receivers"))
    port = free_port()
    environment = %{"WEBHOOK_SECRET" => secret, "PORT" => "#{port}", "GOCACHE" => "#{dir}/go"}

    program =
      Port.open({:spawn_executable, System.find_executable("sh")}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        args: ["-c", command],
        cd: Path.join(dir, "receivers"),
        env: for({name, value} <- environment, do: {to_charlist(name), to_charlist(value)})
      ])

    {:os_pid, pid} = Port.info(program, :os_pid)
    on_exit(fn -> System.cmd("kill", ["-KILL", "#{pid}"], stderr_to_stdout: true) end)

    with :ok <- started(program, ""), do: {:ok, "http://127.0.0.1:#{port}/hook"}
  end

  defp started(program, output) do
    receive do
      {^program, {:data, data}} ->
        output = output <> data
        if output =~ ~r/listening|started/, do: :ok, else: started(program, output)

      {^program, {:exit_status, _status}} ->
        lines = String.split(output, "\n", trim: true)
        reason = ~r/did not run|cannot|failed|no module|not found/i
        {:missing, Enum.find(lines, List.last(lines), &(&1 =~ reason))}
    after
      120_000 -> flunk("the receiver does not listen: #{output}")
    end
  end

  defp free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :gen_tcp.close(socket)
    port
  end
end
