defmodule Plausible.Webhooks.Deliver.SweeperTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API

  @moduletag :capture_log

  defp push(context, deliveries) do
    :ok = Outbox.push(context.instance, deliveries)
    Enum.map(deliveries, & &1.id)
  end

  defp done?(context, ids) do
    states = Map.new(all_deliveries(context), &{&1.id, &1.state})
    Enum.all?(ids, &(states[&1] == :delivered))
  end

  # No goodbye: nothing is flushed, no lease is ended.
  defp kill_instance!(context) do
    ref = Process.monitor(context.supervisor)
    Process.exit(context.supervisor, :kill)

    receive do
      {:DOWN, ^ref, :process, _pid, _reason} -> :ok
    end

    for part <- [:outbox, :engine, :recorder, :sweeper, :store] do
      eventually(fn -> Process.whereis(Instance.process(context.name, part)) == nil end)
    end
  end

  test "after a death without a goodbye everything accepted comes back at once", context do
    options = [lease_ms: 600_000, retry_delays_ms: [50_000], lane_in_flight_max: 2]
    context = start!(context, options)
    stuck = webhook!(context, "/stuck")
    HttpReceiver.script(context.receiver, "/stuck", [:hang])
    ids = push(context, deliveries(stuck, 700))
    HttpReceiver.await(context.receiver, "/stuck", 2)
    flaky = webhook!(context, "/flaky")
    HttpReceiver.script(context.receiver, "/flaky", [500])
    [retry] = push(context, [delivery(flaky)])
    eventually(fn -> length(attempts(context, retry)) == 1 end)
    eventually(fn -> length(all_deliveries(context)) == 701 end)
    kill_instance!(context)

    HttpReceiver.script(context.receiver, "/stuck", [200])
    context = start!(context, options)
    eventually(fn -> done?(context, ids) end)
    assert HttpReceiver.ids(context.receiver, "/stuck") == MapSet.new(ids)
    # The retry waits for its time, in the engine.
    assert %{state: :pending, attempts: 1} = logged(context, retry)
    assert Engine.stats(context.instance).waiting == 1
  end

  test "killed again and again while it brings things back: nothing is stuck", context do
    context = start!(context, waiting_max: 50, lane_in_flight_max: 8)
    webhook = webhook!(context, "/slow")
    HttpReceiver.script(context.receiver, "/slow", [{:delay, 2, 200}])
    ids = push(context, deliveries(webhook, 600))

    for _ <- 1..6 do
      Process.sleep(30)
      kill!(context, :sweeper)
    end

    eventually(fn -> done?(context, ids) end, 30_000)
    assert HttpReceiver.ids(context.receiver) == MapSet.new(ids)
  end

  test "a row that it has claimed but not handed over when it dies comes back", context do
    context = start!(context, lease_ms: 600_000)
    webhook = webhook!(context, "/hook")
    engine = Owners.engine(context.instance)
    orphan = delivery(webhook, owner: engine.owner)
    held = delivery(webhook)
    HttpReceiver.script(context.receiver, "/hook", [{:delay, 1_500, 200}, 200])
    push(context, [held])
    HttpReceiver.await(context.receiver, "/hook", 1)

    # Owned by the living engine, and not in it.
    :ok = Store.accept(context.instance, [orphan])
    Process.sleep(200)
    assert HttpReceiver.count(context.receiver) == 1
    kill!(context, :sweeper)
    assert Owners.engine(context.instance).owner != engine.owner
    assert Owners.engine(context.instance).ref == engine.ref
    eventually(fn -> done?(context, [orphan.id, held.id]) end)
    # What the engine held all the while was not sent twice.
    assert HttpReceiver.count(context.receiver) == 2
  end

  describe "when the store's answer gets lost" do
    test "what was claimed comes back, and nothing is sent twice", context do
      context = start!(context, lease_ms: 600_000)
      webhook = webhook!(context, "/hook")
      HttpReceiver.script(context.receiver, "/hook", [{:delay, 1_000, 200}, 200])
      [held] = push(context, [delivery(webhook)])
      HttpReceiver.await(context.receiver, "/hook", 1)

      SwitchStore.set(context.switch, {:lost, [:claim]})
      parked = for delivery <- deliveries(webhook, 300), do: %{delivery | state: :parked}
      :ok = Store.accept(context.instance, parked)

      eventually(fn ->
        Enum.any?(all_deliveries(context), &(&1.id != held and &1.state == :pending))
      end)

      SwitchStore.set(context.switch, :on)
      eventually(fn -> done?(context, [held | Enum.map(parked, & &1.id)]) end)
      assert HttpReceiver.count(context.receiver) == 301
    end

    test "what is taken back from a former name comes back too", context do
      context = start!(context, lease_ms: 600_000)
      webhook = webhook!(context, "/hook")
      SwitchStore.set(context.switch, {:lost, [:claim, :reclaim]})
      parked = for delivery <- deliveries(webhook, 300), do: %{delivery | state: :parked}
      :ok = Store.accept(context.instance, parked)
      eventually(fn -> SwitchStore.calls(context.switch, :reclaim) > 3 end)
      SwitchStore.set(context.switch, :on)
      eventually(fn -> done?(context, Enum.map(parked, & &1.id)) end)
      assert HttpReceiver.count(context.receiver) == 300
    end

    test "nor are we to claim it as a dead one's while it is not taken back", context do
      context = start!(context, lease_ms: 1_000)
      webhook = webhook!(context, "/hook")
      HttpReceiver.script(context.receiver, "/hook", [{:delay, 4_000, 200}])
      [id] = push(context, [delivery(webhook)])
      eventually(fn -> HttpReceiver.count(context.receiver) == 1 end)
      former = logged(context, id).owner

      # An answer got lost, and no way back to the former name is open for longer
      # than its lease.
      SwitchStore.set(context.switch, {:only, [:reclaim], :away})
      Instance.tell(context.instance, :sweeper, :unsure)
      eventually(fn -> Owners.former(context.instance) == [former] end)
      :ok = Store.heartbeat(context.instance, former, 1)
      Process.sleep(1_000)
      assert logged(context, id).owner == former
      SwitchStore.set(context.switch, :on)
      eventually(fn -> Owners.former(context.instance) == [] end)
      eventually(fn -> logged(context, id).state == :delivered end)
      assert HttpReceiver.count(context.receiver) == 1
    end

    test "nobody else gets what the engine holds under its former name", context do
      context = start!(context, lease_ms: 600_000)
      webhook = webhook!(context, "/hook")
      HttpReceiver.script(context.receiver, "/hook", [{:delay, 1_500, 200}])
      ids = push(context, deliveries(webhook, 5))
      HttpReceiver.await(context.receiver, "/hook", 5)
      owner = Owners.engine(context.instance).owner
      SwitchStore.set(context.switch, {:lost, [:claim]})
      :ok = Store.accept(context.instance, [%{delivery(webhook) | state: :parked}])
      eventually(fn -> Enum.all?(all_deliveries(context), &(&1.state == :pending)) end)
      SwitchStore.set(context.switch, :on)

      eventually(fn ->
        assert {:ok, []} = Store.claim(context.instance, "other", 100)
        Owners.engine(context.instance).owner != owner
      end)

      for _ <- 1..20,
          do: assert({:ok, []} = Store.claim(context.instance, "other", 100))

      eventually(fn -> done?(context, ids) end)
      eventually(fn -> Owners.former(context.instance) == [] end)
    end

    test "a redelivery is on its way", context do
      context = start!(context, lease_ms: 600_000)
      webhook = webhook!(context, "/hook")
      now_ms = System.system_time(:millisecond)
      failed = delivery(webhook, state: :failed, finished_at_ms: now_ms)
      :ok = Store.accept(context.instance, [failed])
      SwitchStore.set(context.switch, {:lost, [:redeliver]})

      assert {:error, %Error{reason: :connection_lost}} =
               API.redeliver(context.name, :owner, 1, failed.id)

      eventually(fn -> done?(context, [failed.id]) end)
    end
  end

  test "renews the lease, and takes nothing from an owner that lives", context do
    context = start!(context, lease_ms: 1_000)
    webhook = webhook!(context, "/hook")
    :ok = Store.heartbeat(context.instance, "other", 60_000)
    theirs = delivery(webhook, owner: "other")
    :ok = Store.accept(context.instance, [theirs])
    before = SwitchStore.calls(context.switch, :heartbeat)
    started_ms = System.monotonic_time(:millisecond)
    renewals = fn -> SwitchStore.calls(context.switch, :heartbeat) - before end
    Process.sleep(1_200)
    # Three in a lease; a machine that is busy elsewhere takes longer for them.
    eventually(fn -> renewals.() >= 2 end)
    assert renewals.() <= 2 + div(System.monotonic_time(:millisecond) - started_ms, 250)
    assert HttpReceiver.count(context.receiver) == 0

    # And it is not renewed when the engine is gone for long.
    :ok = Store.heartbeat(context.instance, "other", 1)
    eventually(fn -> done?(context, [theirs.id]) end)
  end

  test "after the store was away for long others get the time to renew their leases", context do
    context = start!(context, lease_ms: 1_500)
    webhook = webhook!(context, "/hook")
    theirs = delivery(webhook, owner: "other")
    :ok = Store.heartbeat(context.instance, "other", 1_000)
    :ok = Store.accept(context.instance, [theirs])
    SwitchStore.set(context.switch, {:only, [:heartbeat], :away})
    Process.sleep(1_700)
    SwitchStore.set(context.switch, :on)
    # They are a little slower than we.
    Process.sleep(200)
    :ok = Store.heartbeat(context.instance, "other", 3_000)
    Process.sleep(2_000)
    assert logged(context, theirs.id).owner == "other"
    # And who does not come back is dead.
    eventually(fn -> done?(context, [theirs.id]) end)
  end

  test "claims nothing without a lease", context do
    context = start!(context, lease_ms: 1_000)
    before = SwitchStore.calls(context.switch, :claim)
    SwitchStore.set(context.switch, {:only, [:heartbeat], :away})
    Process.sleep(1_500)
    claims = SwitchStore.calls(context.switch, :claim)
    Process.sleep(300)
    assert SwitchStore.calls(context.switch, :claim) == claims
    assert claims > before
    SwitchStore.set(context.switch, :on)
    eventually(fn -> SwitchStore.calls(context.switch, :claim) > claims end)
  end

  test "prunes what is old enough, in slices, and nothing else", context do
    context = start!(context, retention_ms: 60_000, retry_delays_ms: [50_000])
    webhook = webhook!(context, "/hook")
    HttpReceiver.script(context.receiver, "/hook", [500])
    [waiting] = push(context, [delivery(webhook)])
    eventually(fn -> length(attempts(context, waiting)) == 1 end)

    long_ago = System.system_time(:millisecond) - 120_000

    old =
      for _ <- 1..1_200 do
        delivery(webhook, state: :cancelled, created_at_ms: long_ago, finished_at_ms: long_ago)
      end

    fresh = delivery(webhook, state: :cancelled, finished_at_ms: System.system_time(:millisecond))
    :ok = Store.accept(context.instance, [fresh | old])
    assert {:ok, 1_200} = Sweeper.prune(context.instance)
    assert SwitchStore.calls(context.switch, :prune) >= 3
    assert Enum.sort(Enum.map(all_deliveries(context), & &1.id)) == Enum.sort([waiting, fresh.id])
    assert {:ok, 0} = Sweeper.prune(context.instance)
  end

  test "prunes by itself", context do
    context = start!(context, retention_ms: 60_000, prune_interval_ms: 50)
    webhook = webhook!(context, "/hook")
    long_ago = System.system_time(:millisecond) - 120_000
    old = for _ <- 1..600, do: delivery(webhook, state: :failed, finished_at_ms: long_ago)
    :ok = Store.accept(context.instance, old)
    eventually(fn -> all_deliveries(context) == [] end)
  end

  describe "redelivery" do
    setup context do
      context = start!(context, retry_delays_ms: [600_000, 600_000], park_after_ms: 60_000)
      webhook = webhook!(context, "/hook")
      Map.put(context, :webhook, webhook)
    end

    test "of what waits in the store replaces the retry", context do
      HttpReceiver.script(context.receiver, "/hook", [500, 200])
      [id] = push(context, [delivery(context.webhook)])
      eventually(fn -> logged(context, id).state == :parked end)
      assert :ok = API.redeliver(context.name, :owner, 1, id)
      eventually(fn -> logged(context, id).state == :delivered end)
      assert [%{number: 1}, %{number: 2, state: :delivered}] = attempts(context, id)

      assert [id, id] ==
               Enum.map(HttpReceiver.requests(context.receiver), & &1.headers["webhook-id"])
    end

    test "of what was delivered sends it once more, and attempts go on counting", context do
      [id] = push(context, [delivery(context.webhook)])
      eventually(fn -> logged(context, id).state == :delivered end)
      assert :ok = API.redeliver(context.name, :owner, 1, id)
      HttpReceiver.await(context.receiver, "/hook", 2)
      eventually(fn -> length(attempts(context, id)) == 2 end)
      assert %{state: :delivered, attempts: 2} = logged(context, id)
    end

    test "that fails gets the whole schedule", context do
      stop!(context)
      context = start!(context, retry_delays_ms: [10, 10])
      HttpReceiver.script(context.receiver, "/hook", [500])
      [id] = push(context, [delivery(context.webhook)])
      eventually(fn -> logged(context, id).state == :failed end)
      assert logged(context, id).attempts == 3
      assert :ok = API.redeliver(context.name, :owner, 1, id)

      eventually(fn ->
        logged(context, id).attempts == 6 and logged(context, id).state == :failed
      end)
    end

    test "passes a full queue", context do
      stop!(context)
      context = start!(context, waiting_max: 10, lane_in_flight_max: 1)
      stuck = webhook!(context, "/stuck")
      HttpReceiver.script(context.receiver, "/stuck", [:hang])

      done =
        delivery(context.webhook, state: :failed, finished_at_ms: System.system_time(:millisecond))

      :ok = Store.accept(context.instance, [done])
      push(context, deliveries(stuck, 30))
      HttpReceiver.await(context.receiver, "/stuck", 1)
      # One has left the queue for the receiver since it was full.
      push(context, [delivery(stuck)])
      eventually(fn -> Engine.stats(context.instance).waiting == 10 end)
      assert :ok = API.redeliver(context.name, :owner, 1, done.id)
      eventually(fn -> logged(context, done.id).state == :delivered end)
    end
  end

  test "redelivery while a retry waits in the engine: one request, and no retry after it",
       context do
    context = start!(context, retry_delays_ms: [50_000])
    webhook = webhook!(context, "/hook")
    HttpReceiver.script(context.receiver, "/hook", [500, 200])
    [id] = push(context, [delivery(webhook)])
    eventually(fn -> length(attempts(context, id)) == 1 end)
    assert :ok = API.redeliver(context.name, :owner, 1, id)
    eventually(fn -> logged(context, id).state == :delivered end)
    # Nothing waits that could be sent.
    assert %{waiting: 0, in_flight: 0} = Engine.stats(context.instance)
    assert HttpReceiver.count(context.receiver) == 2
  end

  test "what is recovered by many hands at once is sent once", context do
    context = start!(context)
    webhook = webhook!(context, "/hook")
    now_ms = System.system_time(:millisecond)
    failed = for _ <- 1..300, do: delivery(webhook, state: :failed, finished_at_ms: now_ms)
    :ok = Store.accept(context.instance, failed)

    results =
      1..4
      |> Enum.map(fn _ ->
        Task.async(fn -> API.recover(context.name, :owner, 1, webhook.id, 0) end)
      end)
      |> Task.await_many(20_000)

    assert Enum.all?(results, &match?({:ok, %{more?: false}}, &1))
    eventually(fn -> done?(context, Enum.map(failed, & &1.id)) end)
    assert HttpReceiver.ids(context.receiver) == MapSet.new(failed, & &1.id)
  end
end
