defmodule Plausible.Webhooks.Store.SQLiteDiskTest do
  # A disk that is full, and then is not: a tmpfs of the test's own. The process that mounts it
  # unmounts it when this VM closes its port, however the VM ends.
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks.Store.SQLite.Connection

  @disk_mb 40
  @room_kb 3 * 1_024
  # More than the room that is made first.
  @deliveries 400
  @body ~s({"type":"goal.completed","n":"#{String.duplicate("x", 20_000)}"})

  setup context do
    folder = context.dir <> "-disk"
    filler = if mounted?(folder), do: Path.join(folder, "filler")
    %{dir: folder, filler: filler}
  end

  test "as soon as there is room, deliveries go out, without a restart", context do
    if context.filler,
      do: make_room(context),
      else: IO.puts("no tmpfs can be mounted: not tested")
  end

  test "the write-ahead log gives its room back for what is written next", context do
    if context.filler, do: fill_behind_log(context)
  end

  defp make_room(context) do
    context = start!(context)
    webhook = webhook!(context, "/hook")
    fill(context, 1_024)
    ids = push(context, for(_ <- 1..@deliveries, do: delivery(webhook, body: @body)))
    asked!(context, :accept, 3)
    before = HttpReceiver.count(context.receiver)

    truncate(context.filler, @room_kb)
    HttpReceiver.await(context.receiver, "/hook", before + 30)

    File.rm!(context.filler)
    eventually(fn -> done?(context, ids) end)

    assert Enum.sort(ids) ==
             context.receiver
             |> HttpReceiver.requests()
             |> Enum.map(& &1.headers["webhook-id"])
             |> Enum.sort()
  end

  # The same few pages again and again: the database file needs no more room for them.
  defp fill_behind_log(context) do
    context = start!(context)
    # Every page has its place in the file then.
    move = {"PRAGMA wal_checkpoint(TRUNCATE)", []}
    {:ok, _} = Connection.read(Module.concat(context.name, "SQLite"), [move])
    renew = fn -> Store.heartbeat(context.instance, "owner", 60_000) end
    for _ <- 1..300, do: :ok = renew.()
    fill(context, 0)
    for _ <- 1..300, do: assert(renew.() == :ok)
  end

  defp fill(context, leave_kb) do
    size = (free_kb(context) - leave_kb) * 1_024
    {:ok, file} = :file.open(context.filler, [:write, :raw])
    :ok = :file.allocate(file, 0, size)
    :ok = :file.close(file)
  end

  defp truncate(path, less_kb) do
    size = File.stat!(path).size - less_kb * 1_024
    {:ok, file} = :file.open(path, [:read, :write, :raw])
    {:ok, _} = :file.position(file, size)
    :ok = :file.truncate(file)
    :ok = :file.close(file)
  end

  defp free_kb(context) do
    {output, 0} = System.cmd("df", ["--output=avail", "-k", context.dir])
    output |> String.split() |> List.last() |> String.to_integer()
  end

  defp mounted?(folder) do
    script = """
    mkdir "$1"
    if mount -t tmpfs -o size=#{@disk_mb}m none "$1" 2>/dev/null; then echo yes; else echo no; fi
    cat >/dev/null
    umount -l "$1" 2>/dev/null
    rmdir "$1"
    """

    options = [:binary, line: 20, args: ["-c", script, "sh", folder]]
    port = Port.open({:spawn_executable, "/bin/sh"}, options)
    receive do: ({^port, {:data, {:eol, answer}}} -> answer == "yes")
  end
end
