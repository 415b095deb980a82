defmodule Plausible.Webhooks.CrashTest do
  # Nothing that was accepted is lost, whatever breaks: whole VMs under load on a real
  # PostgreSQL, and what can happen to both. Each mode prints one line.
  #
  # WEBHOOKS_CRASH_ROUNDS says how often things break in each mode (default 1).
  # WEBHOOKS_CRASH_C4=1 runs three nodes with the default lease: 300 000 deliveries, a kill
  # every ten seconds. WEBHOOKS_CRASH_LOG=1 shows what a VM that did not start has said.
  use ExUnit.Case, async: false

  alias Plausible.Webhooks.Test.Crash.{Audit, Clock, Disk, Nodes, Proxy, Report, VM, World}
  alias Plausible.Webhooks.Test.Postgres

  @rounds String.to_integer(System.get_env("WEBHOOKS_CRASH_ROUNDS", "1"))
  @moduletag :crash
  @moduletag :capture_log
  @moduletag timeout: :infinity
  @endless 1_000_000_000

  setup_all do
    %{server: Postgres.supervised!()}
  end

  setup do
    dir = Path.join(System.tmp_dir!(), "webhooks-crash-#{System.pid()}")
    File.rm_rf!(dir)
    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)
    %{dir: dir}
  end

  test "a. the VM is killed", context do
    world = World.start(server: context.server, dir: context.dir)

    {_vm, times} =
      rounds(world, World.boot!(world), fn vm ->
        VM.kill(vm)
        over_ms = World.now_ms()
        vm = World.boot!(world)
        load(vm)
        {vm, over_ms}
      end)

    report(world, "a. kill -9 of the VM", %{"kills" => @rounds}, times)
  end

  test "b. PostgreSQL is killed", context do
    world = World.start(server: context.server, dir: context.dir)
    {vm, times} = rounds(world, World.boot!(world), fn vm -> {vm, restart_server(world, 500)} end)
    report(world, "b. kill -9 of PostgreSQL", %{"kills" => @rounds}, times, vm)
  end

  test "c. both are killed", context do
    world = World.start(server: context.server, dir: context.dir)

    {_vm, times} =
      rounds(world, World.boot!(world), fn vm ->
        killing = Task.async(fn -> VM.kill(vm) end)
        over_ms = restart_server(world, 0)
        Task.await(killing, 60_000)
        vm = World.boot!(world)
        load(vm)
        {vm, over_ms}
      end)

    report(world, "c. kill -9 of both", %{"kills" => @rounds}, times)
  end

  test "d. connections are cut anywhere", context do
    world = World.start(server: context.server, dir: context.dir)
    socket = context.server |> World.cluster() |> Postgres.socket()
    options = [socket: socket, bytes_max: 60_000, hold_ms: 500..4_000]
    proxy = Proxy.of(start_supervised!({Proxy, options}))

    {vm, times} =
      rounds(world, World.boot!(world, connect: Proxy.connect(proxy)), fn vm ->
        Proxy.set(proxy, :break)
        Process.sleep(500 + :rand.uniform(2_500))
        if :rand.uniform(3) == 1, do: Proxy.set(proxy, :refuse) && Process.sleep(1_500)
        Proxy.set(proxy, :pass)
        {vm, World.now_ms()}
      end)

    assert Proxy.broken(proxy) > 0
    faults = %{"times" => @rounds, "connections" => Proxy.broken(proxy)}
    report(world, "d. connections cut", faults, times, vm)
  end

  test "e. the pool is exhausted", context do
    world = World.start(server: context.server, dir: context.dir)

    {vm, times} =
      rounds(world, World.boot!(world), fn vm ->
        hog_ms = 1_000 + :rand.uniform(2_000)
        VM.hog(vm, hog_ms)
        Process.sleep(hog_ms)
        {vm, World.now_ms()}
      end)

    report(world, "e. the pool exhausted", %{"times" => @rounds}, times, vm)
  end

  test "f. the disk is full", context do
    folder = Postgres.folder!()

    case Disk.mount(Path.join(folder, "data"), 160 + 8 * @rounds) do
      {:ok, disk} -> disk_full(context, folder, disk)
      {:error, why} -> File.rm_rf!(folder) && IO.puts("\nf. the disk full: skipped, #{why}")
    end
  end

  defp disk_full(context, folder, disk) do
    settings = [min_wal_size: "2MB", max_wal_size: "4MB", shared_buffers: "16MB"]
    start = [folder: folder, place: disk.place, initdb: ["--wal-segsize=1"]]
    server = Postgres.supervised!(settings, start)
    world = World.start(server: server, dir: context.dir)
    died = :counters.new(1, [])

    {vm, times} =
      rounds(world, World.boot!(world), fn vm ->
        Disk.fill(disk, Enum.random([0, 0, 256, 2_048]))
        Process.sleep(500 + :rand.uniform(2_000))
        Disk.empty(disk)

        # Where the write-ahead log finds no room the server ends itself.
        unless Postgres.running?(World.cluster(server)) do
          :counters.add(died, 1, 1)
          Agent.update(server, &Postgres.again!/1, 60_000)
        end

        {vm, World.now_ms()}
      end)

    faults = %{"times (#{disk.kind})" => @rounds, "ends of the server" => :counters.get(died, 1)}
    report(world, "f. the disk full", faults, times, vm)
    Disk.unmount(disk)
  end

  test "g. the clock is set", context do
    case Clock.build(context.dir) do
      {:ok, clock} -> clock_set(context, clock)
      {:error, why} -> IO.puts("\ng. the clock set: skipped, #{why}")
    end
  end

  # With Erlang's time that follows the clock slowly, and with one that leaps with it.
  defp clock_set(context, clock) do
    world = World.start(server: context.server, dir: context.dir)

    times =
      for {flags, rounds} <- [
            {"+C no_time_warp", half(@rounds)},
            {"+C multi_time_warp", @rounds - half(@rounds)}
          ] do
        vm = World.boot!(world, environment: Clock.environment(clock), flags: flags)

        {vm, times} =
          rounds(world, vm, rounds, fn vm ->
            Clock.set(clock, Enum.random([-1, 1]) * :rand.uniform(6 * 3_600_000))
            {vm, World.now_ms()}
          end)

        assert_nothing_refused(vm)
        VM.kill(vm)
        times
      end

    assert Audit.hasty(world) == []
    report(world, "g. the clock set by hours", %{"times" => @rounds}, Enum.concat(times))
  end

  defp half(n), do: n - div(n, 2)

  for {count, name} <- [{2, "two"}, {3, "three"}] do
    test "h. a failure strikes one of #{name} nodes", context do
      world = World.start(server: context.server, dir: context.dir)

      nodes(world, "h. #{unquote(name)} nodes", %{
        count: unquote(count),
        per_s: 400,
        strikes: [:kill, :kill, :kill, :kill, :stop, :freeze, :cut_off],
        interval_ms: 500,
        more?: &(&1 <= @rounds)
      })
    end
  end

  test "i. the database is away for longer than the leases of two nodes", context do
    world = World.start(server: context.server, dir: context.dir)

    nodes(world, "i. outage, two nodes", %{
      count: 2,
      per_s: 400,
      strikes: [:outage],
      interval_ms: 3_000,
      more?: &(&1 < @rounds)
    })
  end

  if System.get_env("WEBHOOKS_CRASH_C4") do
    test "three nodes with the default lease, one killed every ten seconds", context do
      usual = [lease_ms: 30_000, sweep_interval_ms: 1_000]
      retries = [retry_delays_ms: [1_000, 2_000, 4_000], park_after_ms: 1_500]
      world = World.start(server: context.server, dir: context.dir, node: usual ++ retries)

      taken_over =
        nodes(world, "three nodes with the default lease", %{
          count: 3,
          per_s: 400,
          strikes: [:kill],
          interval_ms: 10_000,
          more?: fn _done -> Audit.accepted(world) < 300_000 end
        })

      assert taken_over != [] and Enum.max(taken_over) <= 60_000
    end
  end

  defp nodes(world, mode, plan) do
    came = Nodes.run(world, plan)
    counts = Audit.check_all!(world)
    for vm <- came.vms, do: assert_nothing_refused(vm)
    times = [{"taken over after", came.taken_over}, {"all clear after", [came.clear_ms]}]
    Report.line(mode, came.faults, counts, times)
    came.taken_over
  end

  # --- rounds

  # Load, something breaks, load, quiet; then everything has to be as it should.
  # `fault` returns the VM to go on with, and when the fault was over.
  defp rounds(world, vm, count \\ @rounds, fault) do
    Enum.reduce(1..count//1, {vm, []}, fn _round, {vm, times} ->
      load(vm)
      Process.sleep(100 + :rand.uniform(500))
      {vm, over_ms} = fault.(vm)
      again_ms = World.accepts_again(world, vm, over_ms)
      Process.sleep(100)
      clear_ms = World.clear(world, [vm], over_ms)
      Audit.check!(world)
      {vm, [{again_ms, clear_ms} | times]}
    end)
  end

  defp load(vm), do: VM.load(vm, 4, 1_000, @endless)

  defp restart_server(world, down_ms) do
    which = Enum.random([:all, :server])
    Agent.update(world.server, &tap(&1, fn cluster -> Postgres.kill!(cluster, which) end), 60_000)
    if down_ms > 0, do: Process.sleep(:rand.uniform(down_ms))
    over_ms = World.now_ms()
    Agent.update(world.server, &Postgres.again!/1, 60_000)
    over_ms
  end

  # --- in the end

  defp report(world, mode, faults, times, survivor \\ nil) do
    counts = Audit.check_all!(world)

    # A VM that survived everything also reports what it dropped.
    if survivor do
      dropped = assert_nothing_refused(survivor)
      assert counts.events + dropped == VM.idle(survivor)
    end

    Report.line(mode, faults, counts, [
      {"accepts again after", Enum.map(times, &elem(&1, 0))},
      {"all clear after", Enum.map(times, &elem(&1, 1))}
    ])
  end

  # Nothing in this load is such that a store could not take it.
  defp assert_nothing_refused(vm) do
    stats = VM.stats(vm)
    assert stats.refused == 0
    assert Map.keys(stats.dropped_why) -- [:outbox_full, :site_share] == []
    stats.dropped_why |> Map.values() |> Enum.sum()
  end
end
