defmodule Plausible.Webhooks.Test.Postgres do
  @moduledoc false
  # A PostgreSQL of the tests' own: a cluster in a temporary folder, reachable by a
  # socket in it and by nothing else, gone with this VM however that ends.
  #
  # Environment: WEBHOOKS_POSTGRES_BIN, the folder of initdb and postgres, when the
  # newest under /usr/lib/postgresql or the one in the PATH is not wanted.

  @start_ms 30_000

  @type t :: %{folder: Path.t(), bin: Path.t(), settings: keyword(), port: port() | nil}

  # A commit that is lost with the machine's power is no concern of these tests.
  @settings [
    listen_addresses: "",
    fsync: "off",
    max_connections: "150",
    shared_buffers: "128MB",
    max_wal_size: "2GB",
    deadlock_timeout: "200ms",
    log_min_messages: "fatal"
  ]

  @doc "Makes and starts a cluster with a database `webhooks`."
  @spec start!(keyword()) :: t()
  def start!(settings \\ []) do
    bin = bin!()
    folder = Path.join(System.tmp_dir!(), "webhooks-pg-#{System.pid()}-#{unique()}")
    File.mkdir_p!(Path.join(folder, "data"))
    cluster = %{folder: folder, bin: bin, settings: Keyword.merge(@settings, settings), port: nil}
    own(folder)

    run!(cluster, "initdb", [
      "--pgdata=#{data(cluster)}",
      "--auth=trust",
      "--username=postgres",
      "--encoding=UTF8",
      "--locale=C",
      "--no-sync",
      "--no-instructions"
    ])

    cluster = again!(cluster)
    run!(cluster, "createdb", ["-h", folder, "-U", "postgres", "webhooks"])
    cluster
  end

  @doc "Starts the cluster's server, after `kill!/1` or `stop!/1`."
  @spec again!(t()) :: t()
  def again!(cluster) do
    settings = Enum.flat_map(cluster.settings, fn {key, value} -> ["-c", "#{key}=#{value}"] end)

    # The shell outlives the server and learns of our end by the end of its input:
    # nothing is left then, unless it has been told that there is more to come.
    script = """
    "$@" >>"$0/log" 2>&1 & server=$!
    read -r last
    kill -QUIT $server 2>/dev/null; wait $server
    [ "$last" = keep ] || rm -rf "$0"
    """

    server =
      as_user([
        Path.join(cluster.bin, "postgres"),
        "-D",
        data(cluster),
        "-k",
        cluster.folder | settings
      ])

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        args: ["-c", script, cluster.folder | server]
      ])

    wait_until_ready(cluster, System.monotonic_time(:millisecond) + @start_ms)
    %{cluster | port: port}
  end

  @doc "As `kill -9`: the server and everything it has started."
  @spec kill!(t()) :: :ok
  def kill!(cluster) do
    {:ok, text} = File.read(Path.join(data(cluster), "postmaster.pid"))
    [pid | _] = String.split(text, "\n")
    {children, _status} = System.cmd("pgrep", ["-P", pid])
    System.cmd("kill", ["-9", pid | String.split(children)], stderr_to_stdout: true)
    close(cluster)
  end

  @doc "Has the server stop as an operator does: whoever is connected is cut off."
  @spec stop!(t()) :: :ok
  def stop!(cluster) do
    {:ok, text} = File.read(Path.join(data(cluster), "postmaster.pid"))
    {_output, 0} = System.cmd("kill", ["-INT", hd(String.split(text, "\n"))])
    wait_until_gone(cluster, System.monotonic_time(:millisecond) + @start_ms)
    close(cluster)
  end

  @doc "Stops the server and removes the cluster."
  @spec remove(t()) :: :ok
  def remove(cluster) do
    close(cluster)
    File.rm_rf!(cluster.folder)
    :ok
  end

  defp close(%{port: port} = cluster) do
    if Port.info(port) do
      # Its end is told when the shell has waited for the server.
      ref = Port.monitor(port)
      Port.command(port, "keep\n")
      Port.close(port)
      receive do: ({:DOWN, ^ref, :port, ^port, _reason} -> :ok)
    end

    wait_until_gone(cluster, System.monotonic_time(:millisecond) + @start_ms)
  end

  @doc "Options of a Repo, or of Postgrex."
  @spec connect(t()) :: keyword()
  def connect(cluster) do
    [socket_dir: cluster.folder, database: "webhooks", username: "postgres"]
  end

  @doc "Where the server's socket is."
  @spec socket(t()) :: Path.t()
  def socket(cluster), do: Path.join(cluster.folder, ".s.PGSQL.5432")

  defp data(cluster), do: Path.join(cluster.folder, "data")

  defp bin! do
    candidates =
      [System.get_env("WEBHOOKS_POSTGRES_BIN")] ++
        Enum.sort_by(Path.wildcard("/usr/lib/postgresql/*/bin"), &version/1, :desc) ++
        [System.find_executable("initdb") && Path.dirname(System.find_executable("initdb"))]

    Enum.find(candidates, &(&1 && File.exists?(Path.join(&1, "initdb")))) ||
      raise "no PostgreSQL server found: install it (Debian: postgresql), or say where initdb " <>
              "is with WEBHOOKS_POSTGRES_BIN"
  end

  defp version(path) do
    case path |> Path.dirname() |> Path.basename() |> Integer.parse() do
      {version, _rest} -> version
      :error -> 0
    end
  end

  # PostgreSQL does not run as root.
  defp own(folder) do
    if root?() do
      {_, 0} = System.cmd("chown", ["-R", user(), folder])
    end

    File.chmod!(Path.join(folder, "data"), 0o700)
  end

  defp as_user(command) do
    if root?() do
      [System.find_executable("setpriv") || raise("setpriv is missing (Debian: util-linux)")] ++
        ["--reuid=#{user()}", "--regid=#{group()}", "--clear-groups"] ++ command
    else
      command
    end
  end

  defp run!(cluster, program, args) do
    [command | args] = as_user([Path.join(cluster.bin, program) | args])

    case System.cmd(command, args, stderr_to_stdout: true, cd: cluster.folder) do
      {_output, 0} -> :ok
      {output, status} -> raise "#{program} ended with #{status}: #{output}"
    end
  end

  defp root?, do: match?({"0\n", 0}, System.cmd("id", ["-u"]))

  defp user do
    case System.cmd("id", ["-u", "postgres"], stderr_to_stdout: true) do
      {_uid, 0} -> "postgres"
      _no_such_user -> "nobody"
    end
  end

  defp group, do: "id" |> System.cmd(["-gn", user()]) |> elem(0) |> String.trim()

  defp wait_until_ready(cluster, deadline) do
    pg_isready = Path.join(cluster.bin, "pg_isready")

    case System.cmd(pg_isready, ["-q", "-h", cluster.folder], stderr_to_stdout: true) do
      {_output, 0} ->
        :ok

      _not_yet ->
        if System.monotonic_time(:millisecond) > deadline,
          do: raise("PostgreSQL did not start: #{File.read!(Path.join(cluster.folder, "log"))}")

        Process.sleep(50)
        wait_until_ready(cluster, deadline)
    end
  end

  defp wait_until_gone(cluster, deadline) do
    pid_file = Path.join(data(cluster), "postmaster.pid")

    with {:ok, text} <- File.read(pid_file),
         [pid | _] = String.split(text, "\n"),
         true <- File.exists?("/proc/#{pid}"),
         true <- System.monotonic_time(:millisecond) < deadline do
      Process.sleep(20)
      wait_until_gone(cluster, deadline)
    else
      _gone -> :ok
    end
  end

  defp unique, do: System.unique_integer([:positive])
end
