defmodule Plausible.Webhooks.Accept.OutboxTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  @moduletag :capture_log

  import ExUnit.CaptureLog

  defp delivered?(context, count) do
    MapSet.size(HttpReceiver.ids(context.receiver)) == count and
      Enum.count(all_deliveries(context), &(&1.state == :delivered)) == count
  end

  # Of whatever site.
  defp arrived?(context, count) do
    MapSet.size(HttpReceiver.ids(context.receiver)) == count and
      match?({:ok, %{delivered: ^count}}, Store.counts(context.instance))
  end

  defp of_site(deliveries, site_id), do: Enum.map(deliveries, &%{&1 | site_id: site_id})

  @tag start: []
  test "what is pushed is committed in batches, then sent", context do
    pushed = deliveries(context.webhook, 1_200)

    for slice <- Enum.chunk_every(pushed, 3), do: assert(:ok = Outbox.push(context.name, slice))

    eventually(fn -> delivered?(context, 1_200) end)
    assert HttpReceiver.ids(context.receiver) == MapSet.new(pushed, & &1.id)
    assert HttpReceiver.count(context.receiver) == 1_200
    assert Enum.all?(HttpReceiver.requests(context.receiver), & &1.verified)
    # Far fewer transactions than deliveries.
    assert SwitchStore.calls(context.switch, :accept) <= 400
    assert %{pushed: 1_200, accepted: 1_200, dropped: 0} = Plausible.Webhooks.stats(context.name)
  end

  test "sites take turns: a flood delays its own site only", context do
    context = start!(context)
    [flood, other] = for site <- [1, 2], do: %{id: "wh_none", site_id: site}
    outbox = Instance.process(context.instance, :outbox)
    :sys.suspend(outbox)
    Outbox.push(context.instance, deliveries(flood, 1_200))
    late = deliveries(other, 20)
    Outbox.push(context.instance, late)
    first = Outbox.take(context.instance)
    assert Enum.all?(late, fn late -> Enum.any?(first, &(elem(&1, 1).id == late.id)) end)
    # What comes while the table is worked off has its turn at once, too.
    [latest] = deliveries(other, 1)
    Outbox.push(context.instance, [latest])
    assert Enum.any?(Outbox.take(context.instance), &(elem(&1, 1).id == latest.id))
    :sys.resume(outbox)
    eventually(fn -> Outbox.size(context.instance) == 0 end)
  end

  test "a batch to many webhooks costs one reading of them, and later none", context do
    context = start!(context, webhooks_per_site_max: 100)
    webhooks = for n <- 1..60, do: webhook!(context, "/hook#{n}")
    # An engine that knows none of them.
    kill!(context, :engine)
    before = SwitchStore.calls(context.switch, :get_webhook)
    push_to_all = fn -> Outbox.push(context.instance, Enum.map(webhooks, &delivery/1)) end
    push_to_all.()
    eventually(fn -> HttpReceiver.count(context.receiver) == 60 end)
    assert SwitchStore.calls(context.switch, :get_webhook) == before
    assert SwitchStore.calls(context.switch, :get_webhooks) in 1..2

    readings = SwitchStore.calls(context.switch, :get_webhooks)
    push_to_all.()
    eventually(fn -> HttpReceiver.count(context.receiver) == 120 end)
    assert SwitchStore.calls(context.switch, :get_webhooks) == readings
  end

  @tag start: []
  test "a batch has at most 500 deliveries and 8 MiB", context do
    test = self()
    # Asked row by row: a batch begins with the first row of the one after.
    SwitchStore.set(context.switch, {:refuse, fn row -> send(test, {:row, row.body}) == nil end})

    batches = fn pushed, count ->
      :sys.suspend(Instance.process(context.instance, :outbox))
      before = SwitchStore.calls(context.switch, :accept)
      Outbox.push(context.instance, pushed)
      :sys.resume(Instance.process(context.instance, :outbox))
      for _ <- 1..count, do: assert_receive({:row, _body})
      eventually(fn -> Outbox.size(context.instance) == 0 end)
      SwitchStore.calls(context.switch, :accept) - before
    end

    assert batches.(deliveries(context.webhook, 1_001), 1_001) == 3

    body = :binary.copy("x", 256 * 1_024)
    assert batches.(for(_ <- 1..40, do: delivery(context.webhook, body: body)), 40) == 2
    SwitchStore.set(context.switch, :on)
  end

  test "without an instance nothing happens and nothing raises", context do
    assert :ok = Outbox.push(:no_such_instance, [%Delivery{id: "x"}])
    assert :ok = Outbox.push(context.name, [])
    context = start!(context)
    assert :ok = Outbox.push(context.name, [:garbage, nil, %{}])
    assert Outbox.size(context.instance) == 0

    stop!(context)
    # Whoever still holds the instance.
    assert :ok = Outbox.push(context.instance, [%Delivery{id: "x", body: ""}])
    assert {:error, :stopped} = Outbox.accept(context.instance, [%Delivery{id: "x", body: ""}])
  end

  test "a full table drops, counts and logs; manual deliveries pass", context do
    context = start!(context, outbox_max: 10, observers: [{Observer, self()}])
    webhook = webhook!(context, "/hook")

    log =
      capture_log(fn ->
        SwitchStore.set(context.switch, :away)
        Outbox.push(context.instance, deliveries(webhook, 8))
        Outbox.push(context.instance, deliveries(webhook, 5) |> of_site(2))
        Outbox.push(context.instance, deliveries(webhook, 1) |> of_site(3))
        assert Outbox.size(context.instance) == 10

        manual = delivery(webhook, manual: true)
        Outbox.push(context.instance, [manual])
        assert Outbox.size(context.instance) == 11

        assert_receive {:deliveries_dropped, %{count: 4}, %{reason: :outbox_full}}
        refute_received {:deliveries_dropped, _, _}
      end)

    assert log =~ "deliveries dropped (outbox_full): 4"
    stats = Plausible.Webhooks.stats(context.name)
    assert %{dropped: 4, dropped_by: %{outbox_full: 4}, pushed: 11} = stats

    SwitchStore.set(context.switch, :on)
    eventually(fn -> arrived?(context, 11) end)
  end

  @tag start: [outbox_max: 1_000]
  test "a site that floods the table leaves room for the others", context do
    SwitchStore.set(context.switch, :away)

    log =
      capture_log(fn ->
        for _ <- 1..3_000, do: Outbox.push(context.instance, deliveries(context.webhook, 1))
        assert Outbox.size(context.instance) == 800
        assert Outbox.full(context.instance, 1) == :site_share
        assert Outbox.full(context.instance, 2) == nil

        for _ <- 1..3_000,
            do: Outbox.push(context.instance, deliveries(context.webhook, 1) |> of_site(2))

        assert Outbox.size(context.instance) == 960

        for _ <- 1..20,
            do: Outbox.push(context.instance, deliveries(context.webhook, 1) |> of_site(3))

        assert Outbox.size(context.instance) == 980
        # What is dropped is reported once a second.
        observers = Instance.process(context.instance, :observers)
        eventually(fn -> :sys.get_state(observers, 60_000).reported != %{} end)
      end)

    dropped = 3_000 - 800 + 3_000 - 160
    stats = Plausible.Webhooks.stats(context.name)
    assert %{dropped: ^dropped, dropped_by: %{site_share: ^dropped}} = stats
    assert log =~ "deliveries dropped (site_share): "

    # What they hold is given back: by the commit, by a crash in between, too.
    kill!(context, :outbox)
    SwitchStore.set(context.switch, :on)
    eventually(fn -> arrived?(context, 980) end)
    eventually(fn -> :ets.tab2list(context.instance.tables.shares) == [] end)
    SwitchStore.set(context.switch, :away)
    Outbox.push(context.instance, deliveries(context.webhook, 900))
    assert Outbox.size(context.instance) == 800
    SwitchStore.set(context.switch, :on)
    eventually(fn -> arrived?(context, 1_780) end)
  end

  @tag start: [outbox_bytes_max: 1_000_000]
  test "a site's share counts bytes too", context do
    body = :binary.copy("x", 50_000)
    SwitchStore.set(context.switch, :away)
    for _ <- 1..30, do: Outbox.push(context.instance, [delivery(context.webhook, body: body)])
    assert Outbox.size(context.instance) == 16
    Outbox.push(context.instance, deliveries(context.webhook, 10) |> of_site(2))
    assert Outbox.size(context.instance) == 26
    # A call that gave up leaves no row behind.
    theirs = deliveries(context.webhook, 1) |> of_site(3)
    assert {:error, :timeout} = Outbox.accept(context.instance, theirs, 50)
    assert [{3, 0, 0, _round}] = :ets.lookup(context.instance.tables.shares, 3)
    SwitchStore.set(context.switch, :on)
  end

  @tag start: [outbox_bytes_max: 262_144]
  test "the bytes of the bodies are bounded too", context do
    body = :binary.copy("x", 100_000)
    large = fn -> delivery(context.webhook, body: body) end

    for _round <- 1..3 do
      SwitchStore.set(context.switch, :away)
      for _ <- 1..5, do: Outbox.push(context.instance, [large.()])
      # The third one reaches the bound. Further ones are dropped, except manual ones.
      assert Outbox.size(context.instance) == 3
      Outbox.push(context.instance, [%{large.() | manual: true}])
      assert Outbox.size(context.instance) == 4
      kill!(context, :outbox)
      SwitchStore.set(context.switch, :on)
      eventually(fn -> Outbox.size(context.instance) == 0 end)
    end

    assert %{dropped: 6, accepted: 12} = Plausible.Webhooks.stats(context.name)
    SwitchStore.set(context.switch, :away)
    assert {:error, :timeout} = Outbox.accept(context.instance, [large.()], 50)
    SwitchStore.set(context.switch, :on)
    eventually(fn -> Instance.gauge(context.instance, :outbox_bytes) == 0 end)
  end

  @tag start: []
  test "the push does not wait for a store that hangs", context do
    gate = self()

    SwitchStore.set(context.switch, {
      :refuse,
      fn _row ->
        send(gate, {:in_store, self()})

        receive do
          :go -> false
        end
      end
    })

    Outbox.push(context.instance, [delivery(context.webhook)])
    assert_receive {:in_store, outbox}

    # None of these returns if it waits for the store.
    for _ <- 1..1_000, do: Outbox.push(context.instance, [delivery(context.webhook)])
    SwitchStore.set(context.switch, :on)
    send(outbox, :go)
    eventually(fn -> delivered?(context, 1_001) end)
  end

  test "after an outage of the store everything arrives; nothing was sent before",
       context do
    context = start!(context, observers: [{Observer, self()}])
    webhook = webhook!(context, "/hook")

    capture_log(fn ->
      for mode <- [:away, :raise, :exit] do
        SwitchStore.set(context.switch, mode)
        before = HttpReceiver.count(context.receiver)
        Outbox.push(context.instance, deliveries(webhook, 50))
        asked!(context, :accept, 2)
        assert HttpReceiver.count(context.receiver) == before
        SwitchStore.set(context.switch, :on)
        eventually(fn -> HttpReceiver.count(context.receiver) == before + 50 end)
      end
    end)

    eventually(fn -> delivered?(context, 150) end)
    assert_received {:store_failed, _, %{operation: :accept, reason: :away}}
    assert_received {:store_failed, _, %{operation: :accept, reason: :store_raised}}
    assert_received {:store_failed, _, %{operation: :accept, reason: :store_unavailable}}
  end

  @tag start: []
  test "a store that is away is asked again with growing pauses, not in a loop", context do
    SwitchStore.set(context.switch, :away)
    before = SwitchStore.calls(context.switch, :accept)
    # A push during a pause does not shorten it.
    for _ <- 1..300 do
      Outbox.push(context.instance, [delivery(context.webhook)])
      Process.sleep(1)
    end

    assert SwitchStore.calls(context.switch, :accept) - before <= 20
    SwitchStore.set(context.switch, :on)
  end

  test "one row that the store never takes does not hold up the others", context do
    context = start!(context, observers: [{Observer, self()}])
    webhook = webhook!(context, "/hook")
    [bad | good] = Enum.shuffle(deliveries(webhook, 20))
    SwitchStore.set(context.switch, {:refuse, &(match?(%Delivery{}, &1) && &1.id == bad.id)})

    capture_log(fn ->
      Outbox.push(context.instance, Enum.shuffle([bad | good]))
      eventually(fn -> HttpReceiver.count(context.receiver) == 19 end)
      assert HttpReceiver.ids(context.receiver) == MapSet.new(good, & &1.id)

      assert_receive {:deliveries_dropped, %{count: 1}, %{reason: :refused_by_store}}
    end)

    assert Outbox.size(context.instance) == 0
  end

  describe "accept" do
    @tag start: []
    test "returns when it is committed", context do
      some = deliveries(context.webhook, 3)
      assert :ok = Outbox.accept(context.name, some)
      for %{id: id} <- some, do: assert(%{site_id: 1} = logged(context, id))
      HttpReceiver.await(context.receiver, "/hook", 3)
    end

    @tag start: []
    test "returns an error while the store is away, and withdraws the rows", context do
      capture_log(fn ->
        SwitchStore.set(context.switch, :away)

        assert {:error, :timeout} =
                 Outbox.accept(context.instance, [delivery(context.webhook)], 100)

        assert Outbox.size(context.instance) == 0
        # No batch is under way that was taken before.
        outbox = Instance.process(context.instance, :outbox)
        _ = :sys.get_state(outbox, 60_000)
        SwitchStore.set(context.switch, :on)
        send(outbox, :retry)
        _ = :sys.get_state(outbox, 60_000)
      end)

      assert HttpReceiver.count(context.receiver) == 0
      assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0} or flushed?()
    end

    @tag start: [lease_ms: 600_000]
    test "rows in doubt stay until the outcome is known, and are sent", context do
      [first, second] = deliveries(context.webhook, 2)

      capture_log(fn ->
        SwitchStore.set(context.switch, {:lost, [:accept]})
        assert {:error, :timeout} = Outbox.accept(context.instance, [first], 100)
        # Given up by its caller in the very moment of the commit.
        :sys.suspend(Instance.process(context.name, :outbox))
        task = Task.async(fn -> Outbox.accept(context.instance, [second], 300) end)
        Process.sleep(150)
        :sys.resume(Instance.process(context.name, :outbox))
        assert {:error, :timeout} = Task.await(task, 60_000)
        SwitchStore.set(context.switch, :on)
        eventually(fn -> delivered?(context, 2) end)
      end)

      assert Outbox.size(context.instance) == 0
      assert Instance.gauge(context.instance, :outbox_bytes) == 0
    end

    @tag start: [lease_ms: 600_000]
    test "rows in doubt are sent once, whether the outbox or the sweeper finds them first",
         context do
      capture_log(fn ->
        for round <- 1..4 do
          SwitchStore.set(context.switch, {:lost, [:accept, :claim]})
          Outbox.push(context.instance, deliveries(context.webhook, 50))
          Process.sleep(100 * round)
          SwitchStore.set(context.switch, :on)
          eventually(fn -> delivered?(context, 50 * round) end)
          eventually(fn -> Outbox.size(context.instance) == 0 end)
        end

        assert HttpReceiver.count(context.receiver) == 200
      end)
    end

    @tag start: [lease_ms: 600_000]
    test "a delivery is sent even if its caller gives up during the commit", context do
      test = self()

      slow = fn _row ->
        send(test, {:at_it, self()})
        receive do: (:go -> false)
      end

      capture_log(fn ->
        SwitchStore.set(context.switch, {:refuse, slow})

        assert {:error, :timeout} =
                 Outbox.accept(context.instance, [delivery(context.webhook)], 100)

        assert_receive {:at_it, outbox}
        assert Outbox.size(context.instance) == 0
        SwitchStore.set(context.switch, {:lost, [:accept]})
        send(outbox, :go)
        eventually(fn -> Outbox.size(context.instance) == 1 end)
        SwitchStore.set(context.switch, :on)
        eventually(fn -> delivered?(context, 1) end)
      end)
    end

    @tag start: []
    test "a delivery that exists already is not changed", context do
      delivery = delivery(context.webhook)
      assert :ok = Outbox.accept(context.instance, [delivery])
      await_state(context, delivery.id, :delivered)
      assert :ok = Outbox.accept(context.instance, [%{delivery | body: "{}"}])
      assert logged(context, delivery.id).body == delivery.body
    end

    # The mailbox holds only the calls of the host.
    defp flushed? do
      receive do
        {:host, _, _, _, _} -> flushed?()
      after
        0 -> Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
      end
    end
  end

  describe "crashes" do
    @tag start: []
    test "killed again and again under traffic: nothing is lost", context do
      ids =
        for round <- 1..6, into: MapSet.new() do
          some = deliveries(context.webhook, 100)
          {first, second} = Enum.split(some, 50)
          for delivery <- first, do: Outbox.push(context.instance, [delivery])
          if rem(round, 2) == 0, do: Process.sleep(round)
          kill!(context, :outbox)
          for delivery <- second, do: Outbox.push(context.instance, [delivery])
          Enum.map(some, & &1.id)
        end
        |> Enum.reduce(MapSet.new(), fn ids, all -> MapSet.union(all, MapSet.new(ids)) end)

      eventually(fn -> HttpReceiver.ids(context.receiver) == ids end)
      eventually(fn -> delivered?(context, 600) end)
    end

    @tag start: []
    test "killed while the store is away: what waited is committed by its successor", context do
      capture_log(fn ->
        SwitchStore.set(context.switch, :away)
        Outbox.push(context.instance, deliveries(context.webhook, 30))
        kill!(context, :outbox)
        Outbox.push(context.instance, deliveries(context.webhook, 30))
        kill!(context, :outbox)
        SwitchStore.set(context.switch, :on)
        eventually(fn -> delivered?(context, 60) end)
      end)
    end

    @tag start: []
    test "the successor answers callers that wait for an accept", context do
      delivery = delivery(context.webhook)

      capture_log(fn ->
        SwitchStore.set(context.switch, :away)
        task = Task.async(fn -> Outbox.accept(context.instance, [delivery], 60_000) end)
        eventually(fn -> Outbox.size(context.instance) == 1 end)
        kill!(context, :outbox)
        SwitchStore.set(context.switch, :on)
        assert :ok = Task.await(task, 60_000)
      end)
    end
  end

  test "at the stop everything that was pushed is committed", context do
    context = start!(context, drain_ms: 0)
    webhook = webhook!(context, "/slow")
    HttpReceiver.script(context.receiver, "/slow", [{:delay, 200, 200}])
    pushed = deliveries(webhook, 3_000)
    Outbox.push(context.instance, pushed)
    stop!(context)

    HttpReceiver.script(context.receiver, "/slow", [200])
    context = start!(context)
    assert length(all_deliveries(context)) == 3_000

    eventually(
      fn -> HttpReceiver.ids(context.receiver) == MapSet.new(pushed, & &1.id) end,
      15_000
    )

    eventually(fn -> Enum.all?(all_deliveries(context), &(&1.state == :delivered)) end)
  end

  test "a stop while the store is away logs what is lost", context do
    context = start!(context, observers: [{Observer, self()}])
    webhook = webhook!(context, "/hook")

    log =
      capture_log(fn ->
        SwitchStore.set(context.switch, :away)
        Outbox.push(context.instance, deliveries(webhook, 7))
        stop!(context)
      end)

    assert log =~ "stopped with 7 deliveries that the store did not take"
    assert_received {:deliveries_dropped, %{count: 7}, %{reason: :stopping}}
  end
end
