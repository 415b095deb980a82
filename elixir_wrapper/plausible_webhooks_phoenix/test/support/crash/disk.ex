defmodule Plausible.Webhooks.Test.Crash.Disk do
  @moduledoc false
  # A file system of limited size at a folder, to be filled and emptied: ext4 in a
  # file where loop devices are to be had, else a tmpfs.
  #
  # It is mounted in a mount namespace of its own, which a process keeps that ends
  # with ours: with the last process in it the file system is gone, and the loop
  # device too. Others enter it with `place.command`; we look into it through /proc.

  alias Plausible.Webhooks.Test.Postgres

  @wait_ms 30_000

  @type t :: %{port: port(), kind: String.t(), filler: Path.t(), place: Postgres.place()}

  @mount ~S"""
  image="$1.img"
  if truncate -s "$2M" "$image" && mkfs.ext4 -q -F -m 0 "$image" &&
    mount -o loop "$image" "$1"; then kind=ext4
  elif mount -t tmpfs -o "size=$2m" none "$1"; then kind=tmpfs
  else rm -f "$image"; echo none; exit 0; fi
  rm -f "$image"
  echo "$kind $$"
  exec cat >/dev/null
  """

  @doc "Mounts it over an empty folder. The error says why there is none."
  @spec mount(Path.t(), pos_integer()) :: {:ok, t()} | {:error, String.t()}
  def mount(folder, size_mb) do
    own_namespace = ~S(exec unshare --mount sh -c "$1" sh "$2" "$3" 2>/dev/null)

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        :exit_status,
        line: 100,
        args: ["-c", own_namespace, "sh", @mount, folder, "#{size_mb}"]
      ])

    receive do
      {^port, {:data, {:eol, "none"}}} ->
        {:error, "neither a loop device nor a tmpfs is to be had"}

      {^port, {:data, {:eol, line}}} ->
        {:ok, mounted(port, folder, String.split(line))}

      {^port, {:exit_status, _status}} ->
        {:error, "no mount namespace is to be had"}
    after
      @wait_ms -> {:error, "mounting took too long"}
    end
  end

  defp mounted(port, folder, [kind, pid]) do
    place = %{
      command: [System.find_executable("nsenter"), "--target", pid, "--mount", "--"],
      root: "/proc/#{pid}/root"
    }

    # The file system has its own owner and rights.
    run!(place, ["chown", "--reference=#{Path.dirname(folder)}", folder])
    run!(place, ["chmod", "700", folder])
    run!(place, ["rm", "-rf", Path.join(folder, "lost+found")])
    %{port: port, kind: kind, filler: Path.join(folder, "filler"), place: place}
  end

  @doc "Takes all that is free but so much."
  @spec fill(t(), non_neg_integer()) :: :ok
  def fill(disk, leave_kb) do
    script = ~S"""
    free=$(df --output=avail -k "$(dirname "$1")" | tail -1)
    [ "$free" -le "$2" ] || fallocate -l "$((free - $2))K" "$1" 2>/dev/null ||
      dd if=/dev/zero of="$1" bs=64K count="$(((free - $2) / 64))" 2>/dev/null || true
    """

    run!(disk.place, ["sh", "-c", script, "sh", disk.filler, "#{leave_kb}"])
  end

  @doc "Gives it back."
  @spec empty(t()) :: :ok
  def empty(disk), do: run!(disk.place, ["rm", "-f", disk.filler])

  @spec unmount(t()) :: :ok
  def unmount(disk) do
    if Port.info(disk.port), do: Port.close(disk.port)
    :ok
  end

  defp run!(place, command) do
    [program | args] = place.command ++ command
    {_output, 0} = System.cmd(program, args, stderr_to_stdout: true)
    :ok
  end
end
