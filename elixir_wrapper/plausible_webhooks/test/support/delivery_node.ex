defmodule Plausible.Webhooks.Test.DeliveryNode do
  @moduledoc false
  # The node of a `Plausible.Webhooks.Test.DeliveryRun`: these functions run in the VM that
  # the instance runs in, and return nothing that only this VM understands.

  import Plausible.Webhooks.Test.Eventually

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Accept.Outbox
  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Store
  alias Plausible.Webhooks.Test.TestHost

  def start(name, dir) do
    caller = self()

    {_pid, ref} =
      spawn_monitor(fn ->
        Process.register(self(), holder(name))
        host = TestHost.new(self())

        {:ok, _pid} =
          Supervisor.start_link([{API, options(name, dir, host)}], strategy: :one_for_one)

        send(caller, {:started, name})
        hold()
      end)

    receive do
      {:started, ^name} -> Process.demonitor(ref, [:flush]) && :ok
      {:DOWN, ^ref, :process, _pid, reason} -> {:error, reason}
    end
  end

  # What the host is told interests nobody here.
  defp hold do
    receive do
      {:end, pid} -> send(pid, :ended)
      _told -> hold()
    end
  end

  defp holder(name), do: Module.concat(name, "Holder")

  # The last wait is parked: the store brings the delivery back.
  defp options(name, dir, host) do
    [
      name: name,
      store: {Store.SQLite, path: Path.join(dir, "webhooks.db")},
      host: {TestHost, host},
      vault: [:binary.copy(<<7>>, 32)],
      ca_file: Path.join(dir, "ca.pem"),
      policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
      retry_delays_ms: [5, 10, 60],
      park_after_ms: 40,
      sweep_interval_ms: 20,
      lease_ms: 1_000,
      lane_rate_per_s: 100_000,
      destination_rate_per_s: 100_000,
      timeout_ms: 60_000,
      connect_timeout_ms: 60_000,
      traffic: false
    ]
  end

  @doc "Stops the instance as its host would."
  def stop(name) do
    holder = Process.whereis(holder(name))
    [supervisor] = for pid <- links(holder), is_supervisor?(pid), do: pid
    :ok = Supervisor.stop(supervisor, :normal, 60_000)
    send(holder, {:end, self()})
    receive do: (:ended -> :ok)
    eventually(fn -> Process.whereis(holder(name)) == nil end)
    :ok
  end

  defp links(pid), do: pid |> Process.info(:links) |> elem(1)

  defp is_supervisor?(pid),
    do: is_pid(pid) and match?({:dictionary, [_ | _]}, Process.info(pid, :dictionary))

  @doc "Kills everything at once. None of the processes gets the time to end in order."
  def die(name) do
    case Process.whereis(holder(name)) do
      nil ->
        :ok

      holder ->
        {supervisors, workers} = tree(links(holder))
        # None is told that another one is gone, and none starts anything again.
        for pid <- supervisors, do: :erlang.suspend_process(pid)
        all = workers ++ [holder | supervisors]
        refs = for pid <- all, do: Process.monitor(pid)
        for pid <- all, do: Process.exit(pid, :kill)
        for ref <- refs, do: receive(do: ({:DOWN, ^ref, :process, _pid, _reason} -> :ok))
        Instance.retract(name)
    end
  end

  # {supervisors, workers}
  defp tree(supervisors) do
    children =
      for supervisor <- supervisors,
          {_id, pid, type, _modules} <- Supervisor.which_children(supervisor),
          is_pid(pid),
          do: {type, pid}

    workers = for {:worker, pid} <- children, do: pid

    case for({:supervisor, pid} <- children, do: pid) do
      [] ->
        {supervisors, workers}

      below ->
        tree(below) |> then(fn {more, others} -> {supervisors ++ more, workers ++ others} end)
    end
  end

  @doc "Kills one process, and waits until its successor works."
  def kill(name, part) do
    process =
      if part == :sqlite, do: Module.concat(name, "SQLite"), else: Instance.process(name, part)

    pid = Process.whereis(process)
    if pid, do: Process.exit(pid, :kill)
    eventually(fn -> Process.whereis(process) not in [nil, pid] end)
    _ = :sys.get_state(process, 60_000)
    # The file is free when the last connection to it is.
    eventually(fn -> match?({:ok, _counts}, API.queue(name)) end)
    :ok
  end

  def accept(name, deliveries), do: Outbox.accept(name, deliveries, 60_000)
  def push(name, deliveries), do: Outbox.push(name, deliveries)

  @doc "Whether nothing waits and nothing is on its way, in memory or in the store."
  def idle?(name) do
    stats = API.stats(name)

    stats.outbox == 0 and stats.journal == 0 and stats.engine[:in_flight] == 0 and
      stats.engine[:waiting] == 0 and
      match?({:ok, %{entries: []}}, page(name, %{states: [:pending, :parked]}, nil))
  end

  def counts(name) do
    {:ok, counts} = API.queue(name)
    Map.delete(counts, :overdue_ms)
  end

  @doc "`:on`, `:off` or `:deleted`."
  def status(name, webhook_id) do
    case API.get_webhook(name, :owner, 1, webhook_id) do
      {:ok, %{enabled: true}} -> :on
      {:ok, _webhook} -> :off
      {:error, %{reason: :not_found}} -> :deleted
    end
  end

  @doc "`{delivery, attempts}` of every delivery in the log."
  def log(name), do: log(name, nil)

  defp log(name, cursor) do
    {:ok, page} = page(name, %{}, cursor)

    found =
      for delivery <- page.entries do
        {:ok, attempts} = API.attempts(name, :owner, 1, delivery.id)
        {delivery, attempts}
      end

    if page.next, do: found ++ log(name, page.next), else: found
  end

  defp page(name, filters, cursor),
    do: API.deliveries(name, :owner, 1, filters, %{limit: 200, after: cursor})
end
