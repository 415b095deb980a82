defmodule Plausible.Webhooks.Deliver.SweeperTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  @moduletag :capture_log

  # No goodbye: nothing is flushed, no lease is ended.
  defp kill_instance!(context) do
    ref = Process.monitor(context.supervisor)
    Process.exit(context.supervisor, :kill)

    receive do
      {:DOWN, ^ref, :process, _pid, _reason} -> :ok
    end

    # Its processes are named after it, and so are their successors.
    prefix = Atom.to_string(Module.concat([context.name])) <> "."
    ours? = &String.starts_with?(Atom.to_string(&1), prefix)
    eventually(fn -> not Enum.any?(Process.registered(), ours?) end)
  end

  test "after a crash of the VM all accepted deliveries come back at once", context do
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

  # The receiver does not answer, so these deliveries are under way whenever the VM ends.
  test "a delivery that may have ended the VM four times has failed, and harms no other",
       context do
    options = [lease_ms: 600_000, retry_delays_ms: [], timeout_ms: 120_000]
    context = start!(context, options)
    [poison, good] = for path <- ["/poison", "/good"], do: webhook!(context, path)
    HttpReceiver.script(context.receiver, "/poison", [:hang])
    [first, second] = push(context, deliveries(poison, 2))
    HttpReceiver.await(context.receiver, "/poison", 2)

    restart = fn context ->
      kill_instance!(context)
      context = start!(context, options)
      [id] = push(context, [delivery(good)])
      await_state(context, id, :delivered)
      context
    end

    # Both together, then one at a time: each twice.
    context =
      for count <- [4, 5, 6, 7, 8], reduce: context do
        context ->
          context = restart.(context)
          requests = HttpReceiver.await(context.receiver, "/poison", count)
          assert length(requests) == count
          context
      end

    context = restart.(context)
    for id <- [first, second], do: await_state(context, id, :failed)
    assert %{reason: "node_ended", attempts: 0} = logged(context, first)
    requests = HttpReceiver.requests(context.receiver, "/poison")
    assert Enum.frequencies_by(requests, & &1.headers["webhook-id"]) == %{first => 4, second => 4}
  end

  test "a suspect that is answered is followed by the next one", context do
    options = [lease_ms: 600_000, sweep_interval_ms: 60_000]
    context = start!(context, options)
    webhook = webhook!(context, "/hook", %{})
    HttpReceiver.script(context.receiver, "/hook", [:hang])
    ids = push(context, deliveries(webhook, 30))
    HttpReceiver.await(context.receiver, "/hook", 8)

    context =
      for count <- [16, nil], reduce: context do
        context ->
          kill_instance!(context)
          if count == nil, do: HttpReceiver.script(context.receiver, "/hook", [200])
          context = start!(context, options)
          if count, do: HttpReceiver.await(context.receiver, "/hook", count)
          context
      end

    eventually(fn -> done?(context, ids) end)
    assert Enum.all?(ids, &(logged(context, &1).attempts == 1))
  end

  test "killed again and again while it claims: no delivery is stuck", context do
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

  @tag start: [lease_ms: 600_000]
  test "a row that it has claimed but not handed over when it dies comes back", context do
    engine = Owners.engine(context.instance)
    orphan = delivery(context.webhook, owner: engine.owner)
    held = delivery(context.webhook)
    HttpReceiver.script(context.receiver, "/hook", [HttpReceiver.hold(self()), 200])
    push(context, [held])
    assert_receive {:held, request}

    # Owned by the living engine, and not in it.
    :ok = Store.accept(context.instance, [orphan])
    asked!(context, :claim, 4)
    assert HttpReceiver.count(context.receiver) == 1
    kill!(context, :sweeper)
    assert Owners.engine(context.instance).owner != engine.owner
    assert Owners.engine(context.instance).ref == engine.ref
    HttpReceiver.release(request, 200)
    eventually(fn -> done?(context, [orphan.id, held.id]) end)
    # What the engine held all the while was not sent twice.
    assert HttpReceiver.count(context.receiver) == 2
  end

  describe "when the store's answer gets lost" do
    @tag start: [lease_ms: 600_000]
    test "claimed deliveries come back, and nothing is sent twice", context do
      HttpReceiver.script(context.receiver, "/hook", [HttpReceiver.hold(self()), 200])
      [held] = push(context, [delivery(context.webhook)])
      assert_receive {:held, request}

      SwitchStore.set(context.switch, {:lost, [:claim]})
      parked = for delivery <- deliveries(context.webhook, 300), do: %{delivery | state: :parked}
      :ok = Store.accept(context.instance, parked)

      eventually(fn ->
        Enum.any?(all_deliveries(context), &(&1.id != held and &1.state == :pending))
      end)

      SwitchStore.set(context.switch, :on)
      eventually(fn -> done?(context, Enum.map(parked, & &1.id)) end)
      HttpReceiver.release(request, 200)
      await_state(context, held, :delivered)
      assert HttpReceiver.count(context.receiver) == 301
    end

    @tag start: [lease_ms: 600_000]
    test "deliveries taken back from a former owner come back too", context do
      SwitchStore.set(context.switch, {:lost, [:claim, :reclaim]})
      parked = for delivery <- deliveries(context.webhook, 300), do: %{delivery | state: :parked}
      :ok = Store.accept(context.instance, parked)
      eventually(fn -> SwitchStore.calls(context.switch, :reclaim) > 3 end)
      SwitchStore.set(context.switch, :on)
      eventually(fn -> done?(context, Enum.map(parked, & &1.id)) end)
      assert HttpReceiver.count(context.receiver) == 300
    end

    @tag start: [lease_ms: 1_000]
    test "a former owner's deliveries are not claimed as a dead one's", context do
      HttpReceiver.script(context.receiver, "/hook", [HttpReceiver.hold(self())])
      [id] = push(context, [delivery(context.webhook)])
      assert_receive {:held, request}
      former = logged(context, id).owner

      # An answer got lost, and no way back to the former name is open for longer
      # than its lease.
      SwitchStore.set(context.switch, {:only, [:reclaim], :away})
      Instance.tell(context.instance, :sweeper, :unsure)
      eventually(fn -> Owners.former(context.instance) == [former] end)
      :ok = Store.heartbeat(context.instance, former, 1)
      asked!(context, :reclaim, 10)
      assert logged(context, id).owner == former
      HttpReceiver.release(request, 200)
      SwitchStore.set(context.switch, :on)
      eventually(fn -> Owners.former(context.instance) == [] end)
      await_state(context, id, :delivered)
      assert HttpReceiver.count(context.receiver) == 1
    end

    @tag start: [lease_ms: 600_000]
    test "no other node gets what the engine holds under its former name", context do
      HttpReceiver.script(context.receiver, "/hook", [{:delay, 1_500, 200}])
      ids = push(context, deliveries(context.webhook, 5))
      HttpReceiver.await(context.receiver, "/hook", 5)
      owner = Owners.engine(context.instance).owner
      SwitchStore.set(context.switch, {:lost, [:claim]})
      :ok = Store.accept(context.instance, [%{delivery(context.webhook) | state: :parked}])
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

    @tag start: [lease_ms: 600_000]
    test "a redelivery is sent", context do
      now_ms = System.system_time(:millisecond)
      failed = delivery(context.webhook, state: :failed, finished_at_ms: now_ms)
      :ok = Store.accept(context.instance, [failed])
      SwitchStore.set(context.switch, {:lost, [:redeliver]})
      assert {:error, %Error{reason: :connection_lost}} = redeliver(context, failed.id)
      eventually(fn -> done?(context, [failed.id]) end)
    end
  end

  @tag start: [lease_ms: 1_000]
  test "renews the lease, and takes nothing from an owner that lives", context do
    :ok = Store.heartbeat(context.instance, "other", 60_000)
    theirs = delivery(context.webhook, owner: "other")
    :ok = Store.accept(context.instance, [theirs])
    before = SwitchStore.calls(context.switch, :heartbeat)
    started_ms = System.monotonic_time(:millisecond)
    renewals = fn -> SwitchStore.calls(context.switch, :heartbeat) - before end
    # Three in a lease; a machine that is busy elsewhere takes longer for them.
    eventually(fn -> renewals.() >= 4 end)
    assert renewals.() <= 2 + div(System.monotonic_time(:millisecond) - started_ms, 250)
    assert HttpReceiver.count(context.receiver) == 0

    # And it is not renewed when the engine is gone for long.
    :ok = Store.heartbeat(context.instance, "other", 1)
    eventually(fn -> done?(context, [theirs.id]) end)
  end

  @tag start: [lease_ms: 1_500]
  test "after the store was away for long others get the time to renew their leases", context do
    theirs = delivery(context.webhook, owner: "other")
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
    # An owner that does not come back is dead.
    eventually(fn -> done?(context, [theirs.id]) end)
  end

  test "claims nothing without a lease", context do
    context = start!(context, lease_ms: 1_000)
    before = SwitchStore.calls(context.switch, :claim)
    SwitchStore.set(context.switch, {:only, [:heartbeat], :away})
    eventually(fn -> SwitchStore.calls(context.switch, :claim) > before end)
    # A claim needs a lease of which enough is left: after some renewals there is none.
    asked!(context, :heartbeat, 10)
    claims = SwitchStore.calls(context.switch, :claim)
    asked!(context, :heartbeat, 4)
    assert SwitchStore.calls(context.switch, :claim) == claims
    SwitchStore.set(context.switch, :on)
    eventually(fn -> SwitchStore.calls(context.switch, :claim) > claims end)
  end

  @tag start: [retention_ms: 60_000, retry_delays_ms: [50_000]]
  test "prunes what is old enough, in slices, and nothing else", context do
    HttpReceiver.script(context.receiver, "/hook", [500])
    [waiting] = push(context, [delivery(context.webhook)])
    eventually(fn -> length(attempts(context, waiting)) == 1 end)

    long_ago = System.system_time(:millisecond) - 120_000

    old =
      for _ <- 1..1_200 do
        delivery(context.webhook,
          state: :cancelled,
          created_at_ms: long_ago,
          finished_at_ms: long_ago
        )
      end

    fresh =
      delivery(context.webhook,
        state: :cancelled,
        finished_at_ms: System.system_time(:millisecond)
      )

    :ok = Store.accept(context.instance, [fresh | old])
    assert {:ok, 1_200} = Sweeper.prune(context.instance)
    assert SwitchStore.calls(context.switch, :prune) >= 3
    assert Enum.sort(Enum.map(all_deliveries(context), & &1.id)) == Enum.sort([waiting, fresh.id])
    assert {:ok, 0} = Sweeper.prune(context.instance)
  end

  @tag start: [retention_ms: 60_000, prune_interval_ms: 50]
  test "prunes by itself", context do
    long_ago = System.system_time(:millisecond) - 120_000
    old = for _ <- 1..600, do: delivery(context.webhook, state: :failed, finished_at_ms: long_ago)
    :ok = Store.accept(context.instance, old)
    eventually(fn -> all_deliveries(context) == [] end)
  end

  describe "redelivery" do
    setup context do
      context = start!(context, retry_delays_ms: [600_000, 600_000], park_after_ms: 60_000)
      webhook = webhook!(context, "/hook")
      Map.put(context, :webhook, webhook)
    end

    test "of a parked delivery replaces the retry", context do
      HttpReceiver.script(context.receiver, "/hook", [500, 200])
      [id] = push(context, [delivery(context.webhook)])
      await_state(context, id, :parked)
      assert :ok = redeliver(context, id)
      await_state(context, id, :delivered)
      assert [%{number: 1}, %{number: 2, state: :delivered}] = attempts(context, id)

      assert [id, id] ==
               Enum.map(HttpReceiver.requests(context.receiver), & &1.headers["webhook-id"])
    end

    test "of a delivered one sends it again, and attempts go on counting", context do
      [id] = push(context, [delivery(context.webhook)])
      await_state(context, id, :delivered)
      assert :ok = redeliver(context, id)
      HttpReceiver.await(context.receiver, "/hook", 2)
      eventually(fn -> length(attempts(context, id)) == 2 end)
      assert %{state: :delivered, attempts: 2} = logged(context, id)
    end

    test "that fails gets the whole schedule", context do
      stop!(context)
      context = start!(context, retry_delays_ms: [10, 10])
      HttpReceiver.script(context.receiver, "/hook", [500])
      [id] = push(context, [delivery(context.webhook)])
      await_state(context, id, :failed)
      assert logged(context, id).attempts == 3
      assert :ok = redeliver(context, id)

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
      assert :ok = redeliver(context, done.id)
      await_state(context, done.id, :delivered)
    end
  end

  @tag start: [retry_delays_ms: [50_000]]
  test "redelivery while a retry waits in the engine: one request, and no retry after it",
       context do
    HttpReceiver.script(context.receiver, "/hook", [500, 200])
    [id] = push(context, [delivery(context.webhook)])
    eventually(fn -> length(attempts(context, id)) == 1 end)
    assert :ok = redeliver(context, id)
    await_state(context, id, :delivered)
    # Nothing waits that could be sent.
    assert %{waiting: 0, in_flight: 0} = Engine.stats(context.instance)
    assert HttpReceiver.count(context.receiver) == 2
  end

  @tag start: []
  test "several recoveries at once send a delivery once", context do
    now_ms = System.system_time(:millisecond)

    failed =
      for _ <- 1..300, do: delivery(context.webhook, state: :failed, finished_at_ms: now_ms)

    :ok = Store.accept(context.instance, failed)

    results =
      1..4
      |> Enum.map(fn _ ->
        Task.async(fn -> recover(context, context.webhook.id, 0) end)
      end)
      |> Task.await_many(60_000)

    assert Enum.all?(results, &match?({:ok, %{more?: false}}, &1))
    eventually(fn -> done?(context, Enum.map(failed, & &1.id)) end)
    assert HttpReceiver.ids(context.receiver) == MapSet.new(failed, & &1.id)
  end
end
