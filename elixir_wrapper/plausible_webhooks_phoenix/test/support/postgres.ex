defmodule Plausible.Webhooks.Test.Postgres do
  @moduledoc false
  # A PostgreSQL of the tests' own: a cluster in a temporary folder, reachable by a
  # socket in it and by nothing else, gone with this VM however that ends.
  #
  # Environment: WEBHOOKS_POSTGRES_BIN, the folder of initdb and postgres, when the
  # newest under /usr/lib/postgresql or the one in the PATH is not wanted.

  @start_ms 30_000

  @type t :: %{
          folder: Path.t(),
          bin: Path.t(),
          settings: keyword(),
          place: place(),
          port: port() | nil
        }

  @typedoc """
  Where the cluster's data is: what a command has to begin with to see it there, and
  what a path has to begin with to be seen from here.
  """
  @type place :: %{command: [String.t()], root: Path.t()}

  @here %{command: [], root: ""}

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

  @doc "An empty folder for a cluster; the server's data is to be in `data` of it."
  @spec folder!() :: Path.t()
  def folder! do
    folder = Path.join(System.tmp_dir!(), "webhooks-pg-#{System.pid()}-#{unique()}")
    File.mkdir_p!(Path.join(folder, "data"))
    own(folder)
    folder
  end

  @doc """
  Makes and starts a cluster with a database `webhooks`. Options: `:folder` and
  `:place`, when its data are not simply in the folder; `:initdb`, more arguments.
  """
  @spec start!(keyword(), keyword()) :: t()
  def start!(settings \\ [], options \\ []) do
    folder = Keyword.get_lazy(options, :folder, &folder!/0)

    cluster = %{
      folder: folder,
      bin: bin!(),
      settings: Keyword.merge(@settings, settings),
      place: Keyword.get(options, :place, @here),
      port: nil
    }

    initdb = [
      "--pgdata=#{data(cluster)}",
      "--auth=trust",
      "--username=postgres",
      "--encoding=UTF8",
      "--locale=C",
      "--no-sync",
      "--no-instructions"
    ]

    run!(cluster, "initdb", initdb ++ Keyword.get(options, :initdb, []))

    cluster = again!(cluster)
    run!(cluster, "createdb", ["-h", folder, "-U", "postgres", "webhooks"])
    cluster
  end

  @doc "Starts the cluster's server, after `kill!/2` or after it has ended by itself."
  @spec again!(t()) :: t()
  def again!(cluster), do: again!(cluster, deadline())

  # As whoever supervises a server does: one that ends at once, because not all of its
  # predecessor's children are gone, is started again.
  defp again!(cluster, deadline) do
    if cluster.port, do: close(cluster)
    settings = Enum.flat_map(cluster.settings, fn {key, value} -> ["-c", "#{key}=#{value}"] end)

    # The shell outlives the server and learns of our end by the end of its input:
    # nothing is left then, unless it has been told that there is more to come.
    script = """
    "$@" >>"$0/log" 2>&1 & server=$!
    exec 2>/dev/null
    read -r last
    kill -QUIT $server 2>/dev/null; wait $server
    [ "$last" = keep ] || rm -rf "$0"
    """

    program = Path.join(cluster.bin, "postgres")

    server =
      cluster.place.command ++
        as_user([program, "-D", data(cluster), "-k", cluster.folder | settings])

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        args: ["-c", script, cluster.folder | server]
      ])

    cluster = %{cluster | port: port}
    # It may not have written its number yet.
    ended_from = System.monotonic_time(:millisecond) + 1_000

    case wait_until_ready(cluster, ended_from, deadline) do
      :ok -> cluster
      :ended -> again!(cluster, deadline)
    end
  end

  @doc "The server and everything it has started stand still: it answers nobody."
  @spec pause!(t()) :: :ok
  def pause!(cluster), do: signal(cluster, "-STOP")

  @doc "And go on."
  @spec resume!(t()) :: :ok
  def resume!(cluster), do: signal(cluster, "-CONT")

  defp signal(cluster, signal) do
    pid = server_pid(cluster)
    {children, _status} = System.cmd("pgrep", ["-P", pid])
    System.cmd("kill", [signal, pid | String.split(children)], stderr_to_stdout: true)
    :ok
  end

  @doc """
  `kill -9`: of the server and everything it has started (`:all`), or of the server
  alone (`:server`), whose children notice it and end by themselves.
  """
  @spec kill!(t(), :all | :server) :: :ok
  def kill!(cluster, which \\ :all) do
    pid = server_pid(cluster)
    # One that it starts in between would be left to wait for locks of the dead.
    if which == :all, do: System.cmd("kill", ["-STOP", pid], stderr_to_stdout: true)
    {children, _status} = System.cmd("pgrep", ["-P", pid])
    children = String.split(children)
    killed = if which == :all, do: [pid | children], else: [pid]
    System.cmd("kill", ["-9" | killed], stderr_to_stdout: true)
    close(cluster)
    # The next server does not start before the last of them is gone.
    Enum.each(children, &wait_until_gone(&1))
  end

  @doc "Does the server run?"
  @spec running?(%{:folder => Path.t(), :place => place(), optional(term()) => term()}) ::
          boolean()
  def running?(cluster) do
    case File.read(postmaster_pid(cluster)) do
      {:ok, text} -> text |> String.split("\n") |> hd() |> running_pid?()
      {:error, _reason} -> false
    end
  end

  defp server_pid(cluster),
    do: postmaster_pid(cluster) |> File.read!() |> String.split("\n") |> hd()

  defp postmaster_pid(cluster),
    do: cluster.place.root <> Path.join(data(cluster), "postmaster.pid")

  @doc "Has the server stop as an operator does: whoever is connected is cut off."
  @spec stop!(t()) :: :ok
  def stop!(cluster) do
    pid = server_pid(cluster)
    {_output, 0} = System.cmd("kill", ["-INT", pid])
    wait_until_gone(pid)
    close(cluster)
  end

  @doc "Stops the server and removes the cluster."
  @spec remove(t()) :: :ok
  def remove(cluster) do
    # One that stands still would not stop.
    if File.exists?(Path.join(data(cluster), "postmaster.pid")), do: resume!(cluster)
    close(cluster)
    File.rm_rf!(cluster.folder)
    :ok
  end

  defp close(%{port: port} = cluster) do
    if Port.info(port) do
      # Its end is told when the shell has waited for the server.
      ref = Port.monitor(port)
      keep(port)
      receive do: ({:DOWN, ^ref, :port, ^port, _reason} -> :ok)
    end

    with {:ok, text} <- File.read(postmaster_pid(cluster)),
         do: text |> String.split("\n") |> hd() |> wait_until_gone()

    :ok
  end

  # Where the server is dead already the shell ends as soon as it is told, and the port
  # may be closed before we close it.
  defp keep(port) do
    Port.command(port, "keep\n")
    Port.close(port)
  rescue
    ArgumentError -> true
  end

  @doc """
  Starts a cluster that an agent holds, for a test that kills it and starts it again;
  it is gone after the test, or after all of them when called in `setup_all`.
  """
  @spec supervised!(keyword(), keyword()) :: pid()
  def supervised!(settings \\ [], options \\ []) do
    options = Keyword.put_new_lazy(options, :folder, &folder!/0)
    folder = options[:folder]

    # The server learns of the agent's end, which is before this.
    ExUnit.Callbacks.on_exit(fn ->
      cluster = %{folder: folder, place: Keyword.get(options, :place, @here)}
      wait_while(fn -> running?(cluster) end)
      File.rm_rf!(folder)
    end)

    start = {Agent, fn -> start!(settings, options) end}
    ExUnit.Callbacks.start_supervised!(start, id: {__MODULE__, folder})
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
    [command | args] = cluster.place.command ++ as_user([Path.join(cluster.bin, program) | args])

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

  defp wait_until_ready(cluster, ended_from, deadline) do
    pg_isready = Path.join(cluster.bin, "pg_isready")
    args = ["-q", "-h", cluster.folder, "-U", "postgres"]
    {_output, status} = System.cmd(pg_isready, args, stderr_to_stdout: true)
    now = System.monotonic_time(:millisecond)

    cond do
      status == 0 ->
        :ok

      now > deadline ->
        raise "PostgreSQL did not start: #{File.read!(Path.join(cluster.folder, "log"))}"

      now > ended_from and not running?(cluster) ->
        :ended

      true ->
        Process.sleep(50)
        wait_until_ready(cluster, ended_from, deadline)
    end
  end

  defp wait_until_gone(pid), do: wait_while(fn -> running_pid?(pid) end)

  # Not for ever: what comes next says what is wrong.
  defp wait_while(still?, deadline \\ deadline()) do
    if still?.() and System.monotonic_time(:millisecond) < deadline do
      Process.sleep(10)
      wait_while(still?, deadline)
    end
  end

  defp deadline, do: System.monotonic_time(:millisecond) + @start_ms

  # A zombie is gone: its parent may be slow to say so.
  defp running_pid?(pid) do
    case File.read("/proc/#{pid}/stat") do
      {:ok, stat} -> not (stat =~ ~r/\) [ZX] /)
      {:error, _reason} -> false
    end
  end

  defp unique, do: System.unique_integer([:positive])
end
