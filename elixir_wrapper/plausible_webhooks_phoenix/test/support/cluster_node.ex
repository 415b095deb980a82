defmodule Plausible.Webhooks.Test.ClusterNode do
  @moduledoc false
  # VMs of their own that share the tests' PostgreSQL: the nodes of a cluster.
  #
  # They are told what to do over their standard input, so that it works while the
  # network between them is cut. Among them they are connected by distribution,
  # under an epmd of the tests' own. Everything ends with the test.
  #
  # What runs there is in this module, since test scripts are not: `up/1` starts what
  # a host would, and the rest asks it.

  alias Plausible.Webhooks.Deliver.Owners
  alias Plausible.Webhooks.Ingest.{Directory, Goals}
  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Test.{Postgres, Repo, TestHost}

  @boot_ms 60_000

  # --- in the test's VM

  @doc "Starts epmd for the nodes; it ends with the calling process."
  def start_names! do
    port = free_port()
    :persistent_term.put({__MODULE__, :epmd_port}, port)

    script = """
    "$0" -port #{port} -address 127.0.0.1 >/dev/null 2>&1 & epmd=$!
    cat >/dev/null
    kill $epmd
    """

    epmd = System.find_executable("epmd") || raise("epmd is missing")
    Port.open({:spawn_executable, "/bin/sh"}, [:binary, args: ["-c", script, epmd]])
    wait_for_names(port, 500)
  end

  # Free a moment ago, and as a rule still so.
  defp free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :ok = :gen_tcp.close(socket)
    port
  end

  defp wait_for_names(_port, 0), do: raise("epmd did not start")

  defp wait_for_names(port, tries) do
    case :gen_tcp.connect({127, 0, 0, 1}, port, []) do
      {:ok, socket} ->
        :gen_tcp.close(socket)

      {:error, _reason} ->
        Process.sleep(20)
        wait_for_names(port, tries - 1)
    end
  end

  @doc "Boots a VM that ends with the calling process."
  def start!(name) do
    epmd_port = :persistent_term.get({__MODULE__, :epmd_port})
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])

    arguments =
      [~c"-setcookie", ~c"webhooks", ~c"-start_epmd", ~c"false"] ++
        [~c"-kernel", ~c"dist_auto_connect", ~c"never"] ++
        [~c"-kernel", ~c"prevent_overlapping_partitions", ~c"false"]

    {:ok, peer, node} =
      :peer.start_link(%{
        name: String.to_charlist("#{name}-#{System.unique_integer([:positive])}"),
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        env: [{~c"ERL_EPMD_PORT", Integer.to_charlist(epmd_port)}],
        args: arguments ++ paths,
        wait_boot: @boot_ms
      })

    node = %{peer: peer, name: node}

    for app <- [:plausible_webhooks_phoenix, :phoenix_pubsub],
        do: {:ok, _} = call(node, Application, :ensure_all_started, [app])

    call(node, Logger, :configure, [[level: :error]])
    node
  end

  @doc "Calls a function there."
  def call(%{peer: peer}, module \\ __MODULE__, function, arguments),
    do: :peer.call(peer, module, function, arguments, @boot_ms)

  def connect!(a, b), do: true = call(a, :net_kernel, :connect_node, [b.name])

  @doc "Cuts the network between the two."
  def disconnect!(a, b), do: true = call(a, :erlang, :disconnect_node, [b.name])

  # --- in the node's VM

  @doc """
  Starts, once, the Repo and a PubSub, and then an instance; a host of its own keeps
  the goals.
  """
  def up(instance_options) do
    stay(fn ->
      host = TestHost.new()
      options = [host: {TestHost, host}] ++ instance_options
      :persistent_term.put({__MODULE__, options[:name]}, host)
      Supervisor.start_link([{Plausible.Webhooks, options}], strategy: :one_for_one)
    end)
  end

  @doc "The Repo and the PubSub of a node, until it ends."
  def base(connect) do
    children = [
      {Repo, connect ++ [pool_size: 4, log: false]},
      {Phoenix.PubSub, name: __MODULE__.PubSub}
    ]

    stay(fn -> Supervisor.start_link(children, strategy: :one_for_one) end)
  end

  # Calls come in processes that end with the answer; what is to stay needs one that
  # does not.
  defp stay(start) do
    caller = self()

    spawn(fn ->
      Process.flag(:trap_exit, true)
      send(caller, {:started, start.()})
      Process.sleep(:infinity)
    end)

    receive do
      {:started, {:ok, _pid}} -> :ok
      {:started, error} -> error
    end
  end

  def put_goal(name, site_id, id, event_name),
    do: put(name, {:goals, site_id}, [TestHost.event_goal(id, event_name)])

  @doc "What the host of this node's instance answers."
  def put(name, key, value) do
    TestHost.put(:persistent_term.get({__MODULE__, name}), key, value)
    :ok
  end

  @doc "Visitors that are a spike, and counts who asks."
  def spike do
    :counters.add(asked_counter(), 1, 1)
    {:ok, [9]}
  end

  @doc "How often the visitors were asked for on this node."
  def asked, do: :counters.get(asked_counter(), 1)

  defp asked_counter do
    case :persistent_term.get({__MODULE__, :asked}, nil) do
      nil ->
        :persistent_term.put({__MODULE__, :asked}, :counters.new(1, []))
        asked_counter()

      counter ->
        counter
    end
  end

  @doc "Ends the VM as `kill -9` does."
  def kill!(node) do
    System.cmd("kill", ["-9", call(node, System, :pid, [])])
    :ok
  end

  @doc """
  Waits until this node has it in force; the wall clock's time of it in microseconds.

      {:version, webhook_id, version}   the engine has the endpoint, at least so new
      {:gone, webhook_id}               the engine has it no more
      {:listed, site_id, webhook_id, status}  events of the site go to it, or nil
      {:goal, site_id, event_name}      such an event completes a goal
      {:watched, site_id}               its traffic is evaluated
  """
  def await(name, what, timeout_ms \\ 10_000) do
    await_until(name, what, System.monotonic_time(:millisecond) + timeout_ms)
  end

  defp await_until(name, what, deadline) do
    cond do
      in_force?(name, what) ->
        System.os_time(:microsecond)

      System.monotonic_time(:millisecond) > deadline ->
        {:error, {:not_in_force, what}}

      true ->
        Process.sleep(1)
        await_until(name, what, deadline)
    end
  end

  defp in_force?(name, {:version, id, version}) do
    case endpoint(name, id) do
      [{_id, known, _status, _checked, _site, _host}] when is_integer(known) -> known >= version
      _other -> false
    end
  end

  defp in_force?(name, {:gone, id}),
    do: match?([{_id, :deleted, _status, _checked, _site, _host}], endpoint(name, id))

  defp in_force?(name, {:listed, site_id, id, status}) do
    case Directory.lookup(name, site_id) do
      nil -> status == nil
      subscriptions -> subscriptions.webhooks[id] == status
    end
  end

  defp in_force?(name, {:goal, site_id, event_name}) do
    case Directory.lookup(name, site_id) do
      nil -> false
      subscriptions -> Goals.completed(subscriptions, event(site_id, event_name), nil) != []
    end
  end

  defp in_force?(name, {:watched, site_id}), do: Directory.traffic(name, site_id) != []

  defp endpoint(name, id) do
    %{endpoints: endpoints} = name |> Instance.fetch!() |> Owners.engine()
    :ets.lookup(endpoints, id)
  end

  @doc "An ingestion event of that name."
  def event(site_id, event_name) do
    %{
      clickhouse_event: %{
        site_id: site_id,
        name: event_name,
        hostname: "site#{site_id}.example",
        pathname: "/",
        session_id: 1,
        timestamp: ~N[2026-11-23 10:15:30],
        "meta.key": [],
        "meta.value": []
      }
    }
  end

  @doc "The connection of the tests' PostgreSQL."
  def connection, do: Postgres.connect(:persistent_term.get(Postgres))
end
