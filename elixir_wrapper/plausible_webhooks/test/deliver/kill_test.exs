defmodule Plausible.Webhooks.Deliver.KillTest do
  # kill -9 at any moment: what was accepted arrives, under the id it was accepted
  # with. WEBHOOKS_KILLS says how often (default 4).
  use ExUnit.Case, async: false

  alias Plausible.Webhooks.Native
  alias Plausible.Webhooks.Test.HttpReceiver

  @kills String.to_integer(System.get_env("WEBHOOKS_KILLS", "4"))
  @moduletag timeout: 600_000

  setup do
    dir = Path.join(System.tmp_dir!(), "webhooks-kill-#{System.pid()}")
    File.rm_rf!(dir)
    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)

    {:ok, secret} = Native.generate_secret()
    File.write!(Path.join(dir, "secret"), secret)
    receiver = HttpReceiver.start!()
    HttpReceiver.secrets(receiver, "/hook", [secret])
    HttpReceiver.script(receiver, "/hook", [&answer/1])
    %{dir: dir, receiver: receiver, url: HttpReceiver.url(receiver, "/hook")}
  end

  # Some are refused and come again (parked, too), some take a while.
  defp answer(_request) do
    case :rand.uniform(20) do
      1 -> 503
      2 -> {:delay, 30, 200}
      _ -> 200
    end
  end

  test "every accepted delivery arrives, whenever the VM is killed", context do
    accepted =
      for round <- 1..@kills, reduce: [] do
        accepted ->
          lines = run("load", round, context, 100 + :rand.uniform(1_500))
          told = for "A " <> rest <- lines, do: hd(String.split(rest, " "))
          assert told != [] or "READY" in lines, Enum.join(lines, "\n")
          accepted ++ told
      end

    assert length(accepted) > @kills, "no VM told of an acceptance"
    lines = run("drain", 0, context, nil)
    assert "DONE" in lines, Enum.join(lines, "\n")

    log = for "L " <> rest <- lines, do: List.to_tuple(String.split(rest, " "))
    requests = HttpReceiver.requests(context.receiver, "/hook")
    arrived = MapSet.new(requests, & &1.headers["webhook-id"])
    logged = MapSet.new(log, &elem(&1, 0))

    assert Enum.reject(accepted, &(&1 in logged)) == []
    assert Enum.reject(log, &(elem(&1, 1) == "delivered")) == []
    assert MapSet.difference(logged, arrived) |> MapSet.to_list() == []
    assert Enum.all?(requests, & &1.verified)

    # One id for one delivery throughout, and one body.
    by_id = Enum.group_by(requests, & &1.headers["webhook-id"], & &1.body)
    assert Enum.all?(by_id, fn {_id, bodies} -> length(Enum.uniq(bodies)) == 1 end)
    by_body = Enum.group_by(requests, &key(&1.body), & &1.headers["webhook-id"])
    assert Enum.filter(by_body, fn {_key, ids} -> length(Enum.uniq(ids)) > 1 end) == []

    IO.puts(
      "\nkill -9: #{@kills} times; told of #{length(accepted)}, in the log #{length(log)}, " <>
        "arrived #{MapSet.size(arrived)}, requests #{length(requests)}"
    )
  end

  # The part of the body that identifies an event.
  defp key(body) do
    {:ok, body} = Native.decode(body)
    body["n"] || body["data"]["completion"]["props"]["n"]
  end

  # Runs the script; kills it `after_ms` after it is ready. The lines it wrote.
  defp run(mode, round, %{dir: dir, url: url}, after_ms) do
    script = Path.expand("../support/scripts/killed_under_load.exs", __DIR__)
    paths = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])
    arguments = paths ++ [script, mode, dir, url, "#{round * 1_000_000}"]

    port =
      Port.open(
        {:spawn_executable, System.find_executable("elixir")},
        [:binary, :exit_status, :stderr_to_stdout, line: 10_000, cd: dir, args: arguments]
      )

    {:os_pid, pid} = Port.info(port, :os_pid)
    read(port, pid, after_ms, [])
  end

  defp read(port, pid, after_ms, lines) do
    receive do
      {^port, {:data, {:eol, "READY"}}} ->
        Process.send_after(self(), {:kill, port}, after_ms)
        read(port, pid, after_ms, ["READY" | lines])

      {^port, {:data, {_end, line}}} ->
        read(port, pid, after_ms, [line | lines])

      {:kill, ^port} ->
        System.cmd("kill", ["-9", "#{pid}"], stderr_to_stdout: true)
        read(port, pid, after_ms, lines)

      {^port, {:exit_status, _status}} ->
        Enum.reverse(lines)
    after
      130_000 -> flunk("the VM did not end: #{Enum.join(Enum.take(lines, 5), "\n")}")
    end
  end
end
