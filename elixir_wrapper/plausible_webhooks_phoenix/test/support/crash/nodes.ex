defmodule Plausible.Webhooks.Test.Crash.Nodes do
  @moduledoc false
  # Several VMs on one database, under load. A failure strikes one of them every so
  # often:
  #
  #   :kill     kill -9; another one is started in its place
  #   :stop     ends in good order; likewise
  #   :freeze   does nothing at all for longer than its lease, and goes on then as if
  #             nothing had happened
  #   :outage   the database is away for longer than every lease
  #   :cut_off  does not reach the database for longer than its lease, and goes on
  #             sending what it has

  alias Plausible.Webhooks.Test.Crash.{Proxy, VM, World}
  alias Plausible.Webhooks.Test.Postgres

  import ExUnit.Callbacks, only: [start_supervised!: 2]

  @names %{
    kill: "kills",
    stop: "stops",
    freeze: "freezes",
    cut_off: "cut off",
    outage: "outages of the database"
  }

  @type how :: :kill | :stop | :freeze | :cut_off | :outage
  @type plan :: %{
          count: pos_integer(),
          per_s: pos_integer(),
          strikes: [how()],
          interval_ms: pos_integer(),
          more?: (done :: non_neg_integer() -> boolean())
        }

  @doc """
  Runs them by the plan, until nothing is left to do. What struck how often, how long
  it took after each kill that left something behind until others had all of it, how
  long it took in the end until all was clear, and the VMs.
  """
  @spec run(World.t(), plan()) :: %{
          faults: %{String.t() => pos_integer()},
          taken_over: [non_neg_integer()],
          clear_ms: non_neg_integer(),
          vms: [VM.t()]
        }
  def run(world, plan) do
    nodes = for number <- 1..plan.count, do: prepare(world, plan, number)
    nodes = for node <- nodes, do: Map.put(node, :vm, World.boot(world, connect: node.connect))

    for node <- nodes do
      :ok = VM.ready(node.vm)
      load(node.vm, plan)
    end

    {nodes, faults, watches} = strike(world, nodes, plan, [], [])
    vms = Enum.map(nodes, & &1.vm)
    clear_ms = World.clear(world, vms, World.now_ms(), 120_000)

    %{
      faults: Enum.frequencies(faults),
      taken_over: watches |> Task.await_many(120_000) |> Enum.reject(&is_nil/1),
      clear_ms: clear_ms,
      vms: vms
    }
  end

  # Only what is to be cut off goes through a proxy.
  defp prepare(world, plan, number) do
    cluster = World.cluster(world.server)

    if :cut_off in plan.strikes do
      options = [socket: Postgres.socket(cluster), bytes_max: 1, hold_ms: 1..1]
      proxy = Proxy.of(start_supervised!({Proxy, options}, id: {Proxy, number}))
      %{proxy: proxy, connect: Proxy.connect(proxy)}
    else
      soon = [backoff_min: 20, backoff_max: 200]
      %{proxy: nil, connect: Postgres.connect(cluster) ++ soon}
    end
  end

  defp load(vm, plan), do: VM.load(vm, 4, plan.per_s, 1_000_000_000)

  defp strike(world, nodes, plan, faults, watches) do
    if plan.more?.(length(faults)) do
      next_ms = World.now_ms() + plan.interval_ms
      {node, others} = List.pop_at(nodes, Enum.random(0..(length(nodes) - 1)))
      how = Enum.random(plan.strikes)
      {node, watch} = strike(how, world, node, plan)
      Process.sleep(max(next_ms - World.now_ms(), 0))
      strike(world, others ++ [node], plan, [@names[how] | faults], watch ++ watches)
    else
      {nodes, faults, watches}
    end
  end

  defp strike(:freeze, world, node, _plan) do
    ms = longer_than_lease(world)
    VM.freeze(node.vm, ms)
    Process.sleep(ms)
    {node, []}
  end

  defp strike(:cut_off, world, node, _plan) do
    Proxy.set(node.proxy, :refuse)
    Process.sleep(longer_than_lease(world))
    Proxy.set(node.proxy, :pass)
    {node, []}
  end

  defp strike(:outage, world, node, _plan) do
    Agent.update(world.server, &tap(&1, fn cluster -> Postgres.kill!(cluster) end), 60_000)
    Process.sleep(longer_than_lease(world))
    Agent.update(world.server, &Postgres.again!/1, 60_000)
    {node, []}
  end

  defp strike(:stop, world, node, plan) do
    VM.stop(node.vm)
    {again(world, node, plan), []}
  end

  defp strike(:kill, world, node, plan) do
    owners = VM.owners(node.vm)
    began_ms = World.now_ms()
    VM.kill(node.vm)
    watch = Task.async(fn -> World.taken_over(world, owners, began_ms) end)
    {again(world, node, plan), [watch]}
  end

  defp again(world, node, plan) do
    vm = World.boot!(world, connect: node.connect)
    load(vm, plan)
    %{node | vm: vm}
  end

  defp longer_than_lease(world), do: World.lease_ms(world) + :rand.uniform(World.lease_ms(world))
end
