defmodule Plausible.Webhooks.Deliver.EngineTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  import ExUnit.CaptureLog

  alias Plausible.Webhooks.Deliver.Health
  alias Plausible.Webhooks.Native
  alias Plausible.Webhooks.Runtime.Observers

  @moduletag :capture_log

  alias Plausible.Webhooks, as: API

  defp state(context, id), do: logged(context, id).state

  test "a failure is retried by the schedule, every attempt signed anew and on record", context do
    context = start!(context, retry_delays_ms: [1_100, 20])
    webhook = webhook!(context, "/flaky")
    HttpReceiver.script(context.receiver, "/flaky", [:reset, 503, 200])
    [id] = push(context, [delivery(webhook)])

    [first, second, third] = HttpReceiver.await(context.receiver, "/flaky", 3)
    for request <- [first, second, third], do: assert(request.verified)
    assert [id, id, id] == Enum.map([first, second, third], & &1.headers["webhook-id"])
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    assert second.at_ms - first.at_ms >= 1_090

    await_state(context, id, :delivered)

    assert [
             %Attempt{number: 1, state: :pending, status: nil, error: :connection_reset},
             %Attempt{number: 2, state: :pending, status: 503, error: :http_status},
             %Attempt{number: 3, state: :delivered, status: 200, error: nil}
           ] = attempts(context, id)
  end

  test "a wait that is too long for the engine is parked and comes back", context do
    context = start!(context, retry_delays_ms: [300], park_after_ms: 100)
    webhook = webhook!(context, "/busy")
    HttpReceiver.script(context.receiver, "/busy", [503, 200])
    [id] = push(context, [delivery(webhook)])

    await_state(context, id, :parked)
    assert logged(context, id).owner == nil
    assert eventually(fn -> Engine.stats(context.instance).waiting == 0 end)

    [first, second] = HttpReceiver.await(context.receiver, "/busy", 2)
    assert second.at_ms - first.at_ms >= 300
    await_state(context, id, :delivered)
    assert [%Attempt{number: 1, state: :parked}, %Attempt{number: 2}] = attempts(context, id)
  end

  @tag start: []
  test "a waiting retry keeps its wait when the VM's clock leaps", context do
    engine = Owners.engine(context.instance)
    leapt = %{engine | time_offset_ms: engine.time_offset_ms - 3_600_000}
    due_ms = System.system_time(:millisecond) + 500
    later = delivery(context.webhook, next_at_ms: due_ms + 3_600_000)
    assert {:ok, []} = Handover.submit(context.instance, leapt, [later])
    [request] = HttpReceiver.await(context.receiver, "/hook", 1)
    assert request.at_ms >= due_ms - 10
  end

  @tag start: []
  test "an attempt names the owner of the engine", context do
    :ok = Outbox.push(context.instance, [delivery(context.webhook)])
    eventually(fn -> Enum.any?(all_deliveries(context), &(&1.state == :delivered)) end)
    owner = Owners.engine(context.instance).owner
    assert [[%Attempt{number: 1, owner: ^owner}]] = SwitchStore.last(context.switch, :record)
  end

  describe "a change of the webhook, while an attempt is under way," do
    setup context do
      context = start!(context, retry_delays_ms: [10])
      webhook = webhook!(context, "/old")
      HttpReceiver.script(context.receiver, "/old", [HttpReceiver.hold(self()), 200])
      [id] = push(context, [delivery(webhook)])
      assert_receive {:held, request}
      Map.merge(context, %{webhook: webhook, id: id, request: request})
    end

    test "of its URL goes with the next attempt", context do
      new = %{url: HttpReceiver.url(context.receiver, "/new")}
      {:ok, _} = update_webhook(context, context.webhook.id, new)
      HttpReceiver.release(context.request, 500)
      assert [request] = HttpReceiver.await(context.receiver, "/new", 1)
      assert request.headers["webhook-id"] == context.id
      await_state(context, context.id, :delivered)
      assert HttpReceiver.count(context.receiver, "/old") == 1
    end

    test "of its secret: both sign during the overlap, the old one not after", context do
      %{name: name, webhook: webhook} = context
      {:ok, [%{key: old}]} = API.reveal_secret(name, :owner, 1, webhook.id)
      {:ok, _} = API.rotate_secret(name, :owner, 1, webhook.id, 60_000)
      {:ok, [%{key: new}, %{key: ^old}]} = API.reveal_secret(name, :owner, 1, webhook.id)
      HttpReceiver.release(context.request, 500)
      [_first, both] = HttpReceiver.await(context.receiver, "/old", 2)
      assert HttpReceiver.verify(both, [old])
      assert HttpReceiver.verify(both, [new])

      {:ok, _} = API.rotate_secret(name, :owner, 1, webhook.id, 1)

      eventually(fn ->
        match?({:ok, [_newest]}, API.reveal_secret(name, :owner, 1, webhook.id))
      end)

      {:ok, [%{key: newest}]} = API.reveal_secret(name, :owner, 1, webhook.id)
      push(context, [delivery(webhook)])
      [_, _, after_overlap] = HttpReceiver.await(context.receiver, "/old", 3)
      refute HttpReceiver.verify(after_overlap, [old, new])
      assert HttpReceiver.verify(after_overlap, [newest])
    end
  end

  test "the answers to a site's webhooks have a budget; attempts do not", context do
    context = start!(context, answer_bytes_per_day: 24 * 10_000)
    HttpReceiver.script(context.receiver, "/hook", [{200, [], String.duplicate("x", 4_000)}])
    webhook = webhook!(context, "/hook")
    ids = push(context, deliveries(webhook, 5))
    eventually(fn -> Enum.all?(ids, &(state(context, &1) == :delivered)) end)
    kept = for id <- ids, [%{status: 200} = attempt] = attempts(context, id), do: attempt
    assert Enum.count(kept, &(byte_size(&1.response_body) == 4_000)) == 2
    assert Enum.count(kept, &(&1.response_body == "" and &1.response_truncated)) == 3
  end

  @tag start: []
  test "a webhook that was changed without notice is read again", context do
    [id] = push(context, [delivery(context.webhook)])
    await_state(context, id, :delivered)

    # As another node would do it.
    {:ok, stored} = Store.get_webhook(context.instance, context.webhook.id)
    url = HttpReceiver.url(context.receiver, "/moved")
    {:ok, _} = Store.update_webhook(context.instance, %{stored | url: url})
    assert :ok = API.webhook_changed(context.name, 1, context.webhook.id)
    push(context, [delivery(context.webhook)])
    assert [_] = HttpReceiver.await(context.receiver, "/moved", 1)
  end

  @tag start: []
  test "an endpoint that the engine refuses fails its deliveries on record", context do
    # Stored when the policy still allowed it.
    {:ok, stored} = Store.get_webhook(context.instance, context.webhook.id)

    {:ok, _} = Store.update_webhook(context.instance, %{stored | url: "http://224.0.0.1/"})

    API.webhook_changed(context.name, 1, context.webhook.id)
    [id] = push(context, [delivery(context.webhook)])
    await_state(context, id, :failed)
    assert %{attempts: 0, reason: "refused: blocked_address"} = logged(context, id)
  end

  @tag start: []
  test "a delivery that can never be sent does not take the others with it", context do
    bad = delivery(context.webhook, body: :binary.copy("x", 1_048_576))
    good = deliveries(context.webhook, 5)
    :sys.suspend(Instance.process(context.instance, :outbox))
    push(context, Enum.shuffle([bad | good]))
    :sys.resume(Instance.process(context.instance, :outbox))
    eventually(fn -> done?(context, Enum.map(good, & &1.id)) end)
    await_state(context, bad.id, :failed)
    assert logged(context, bad.id).reason == "refused: body_too_large"
    assert HttpReceiver.count(context.receiver) == 5
  end

  test "a full engine gives deliveries back to the store, and all of them arrive",
       context do
    context = start!(context, waiting_max: 20, lane_in_flight_max: 4)
    webhook = webhook!(context, "/slow")
    HttpReceiver.script(context.receiver, "/slow", [{:delay, 5, 200}])
    ids = push(context, deliveries(webhook, 400))
    eventually(fn -> HttpReceiver.ids(context.receiver) == MapSet.new(ids) end, 30_000)
    eventually(fn -> done?(context, ids) end)
    assert HttpReceiver.count(context.receiver) == 400
    assert SwitchStore.calls(context.switch, :release) > 0
  end

  test "deliveries that cannot be given back to the store are remembered", context do
    context = start!(context, waiting_max: 5, lane_in_flight_max: 1)
    webhook = webhook!(context, "/slow")
    HttpReceiver.script(context.receiver, "/slow", [{:delay, 20, 200}])
    SwitchStore.set(context.switch, {:only, [:release], :away})
    ids = push(context, deliveries(webhook, 40))
    eventually(fn -> SwitchStore.calls(context.switch, :release) > 0 end)
    SwitchStore.set(context.switch, :on)
    eventually(fn -> done?(context, ids) end)
  end

  describe "a crash" do
    test "of the engine under traffic loses nothing that was accepted", context do
      context = start!(context, lane_in_flight_max: 16)
      webhook = webhook!(context, "/slow")
      HttpReceiver.script(context.receiver, "/slow", [{:delay, 3, 200}])
      owner = Owners.engine(context.instance).owner

      ids =
        for _round <- 1..4, reduce: [] do
          ids ->
            pushed = push(context, deliveries(webhook, 150))
            Process.sleep(20)
            kill!(context, :engine)
            pushed ++ ids
        end

      assert Owners.engine(context.instance).owner != owner
      eventually(fn -> done?(context, ids) end, 30_000)
      assert HttpReceiver.ids(context.receiver) == MapSet.new(ids)
      assert Owners.dead(context.instance) == []
    end

    @tag start: [retry_delays_ms: [30_000], lease_ms: 600_000]
    test "brings back what waits for a retry without waiting for the lease", context do
      HttpReceiver.script(context.receiver, "/hook", [500, 200])
      [id] = push(context, [delivery(context.webhook)])
      eventually(fn -> length(attempts(context, id)) == 1 end)
      due_at_ms = logged(context, id).next_at_ms

      kill!(context, :engine)
      # Back in an engine, and its schedule stands.
      eventually(fn ->
        Engine.stats(context.instance)[:waiting] == 1 and
          logged(context, id).owner == Owners.engine(context.instance).owner
      end)

      assert logged(context, id).next_at_ms == due_at_ms
      assert HttpReceiver.count(context.receiver) == 1
    end

    @tag start: []
    test "while the store is away: the engine takes charge when it is back", context do
      SwitchStore.set(context.switch, :away)
      kill!(context, :engine)
      assert Owners.engine(context.instance) == nil
      assert Engine.stats(context.instance) == %{}
      ids = push(context, deliveries(context.webhook, 20))
      SwitchStore.set(context.switch, :on)
      eventually(fn -> done?(context, ids) end)
    end

    @tag start: []
    test "of everything, one after the other, under traffic", context do
      HttpReceiver.script(context.receiver, "/hook", [{:delay, 2, 200}])
      test = self()

      writer =
        spawn_link(fn ->
          ids =
            for _ <- 1..300 do
              delivery = delivery(context.webhook)
              Outbox.push(context.name, [delivery])
              Process.sleep(3)
              delivery.id
            end

          send(test, {:ids, ids})
        end)

      for part <- [
            :recorder,
            :observers,
            :sweeper,
            :health,
            :outbox,
            :engine,
            :directory,
            :store
          ] do
        kill!(context, part)
        Process.sleep(60)
      end

      ids =
        receive do
          {:ids, ids} -> ids
        after
          20_000 -> flunk("the writer #{inspect(writer)} did not end")
        end

      eventually(fn -> done?(context, ids) end, 30_000)
      assert HttpReceiver.ids(context.receiver) == MapSet.new(ids)
    end
  end

  describe "the stop" do
    test "lets requests in flight finish and loses nothing", context do
      context = start!(context, lane_in_flight_max: 10)
      webhook = webhook!(context, "/slow")
      HttpReceiver.script(context.receiver, "/slow", [{:delay, 300, 200}])
      ids = push(context, deliveries(webhook, 10))
      HttpReceiver.await(context.receiver, "/slow", 10)
      stop!(context)

      context = start!(context)
      assert done?(context, ids)
      asked!(context, :claim, 4)
      assert HttpReceiver.count(context.receiver) == 10
    end

    test "leaves the rest to the next engine, with its schedule", context do
      context = start!(context, retry_delays_ms: [1_000], lane_in_flight_max: 2, drain_ms: 100)
      flaky = webhook!(context, "/flaky")
      HttpReceiver.script(context.receiver, "/flaky", [500, 200])
      stuck = webhook!(context, "/stuck")
      HttpReceiver.script(context.receiver, "/stuck", [:hang])
      [retry] = push(context, [delivery(flaky)])
      hanging = push(context, deliveries(stuck, 5))
      eventually(fn -> length(attempts(context, retry)) == 1 end)
      HttpReceiver.await(context.receiver, "/stuck", 2)
      stop!(context)

      HttpReceiver.script(context.receiver, "/stuck", [200])
      context = start!(context)
      eventually(fn -> done?(context, [retry | hanging]) end)
      # Uses the recorded times, because a busy receiver notes a request late.
      [first, second] = attempts(context, retry)
      assert first.next_at_ms - first.started_at_ms >= 1_000
      assert second.started_at_ms - first.next_at_ms >= -10
      assert MapSet.new(hanging) == HttpReceiver.ids(context.receiver, "/stuck")
    end
  end

  test "the stop ends the lease, so that another node need not wait for it", context do
    context = start!(context)
    owner = Owners.engine(context.instance).owner
    assert [^owner, 30_000] = SwitchStore.last(context.switch, :heartbeat)
    stop!(context)
    assert [^owner, 1] = SwitchStore.last(context.switch, :heartbeat)
  end

  test "of endpoints that are put at the same moment, the newest stays", context do
    context = start!(context)
    webhook = webhook!(context, "/0")
    test = self()

    # Every submitter finds no endpoint and reads the webhook again.
    pushers =
      for _ <- 1..4 do
        spawn_link(fn ->
          Enum.reduce_while(Stream.cycle([0]), 0, fn _, _ ->
            engine = Owners.engine(context.instance)
            :ets.delete(engine.endpoints, webhook.id)

            Handover.submit(context.instance, engine, [
              delivery(webhook)
            ])

            receive do
              :stop -> {:halt, send(test, :stopped)}
            after
              1 -> {:cont, 0}
            end
          end)
        end)
      end

    for n <- 1..40 do
      change = %{url: HttpReceiver.url(context.receiver, "/#{n}")}
      {:ok, _} = update_webhook(context, webhook.id, change)
    end

    Enum.each(pushers, &send(&1, :stop))
    for _ <- pushers, do: assert_receive(:stopped)
    eventually(fn -> Engine.stats(context.instance).waiting == 0 end)
    before = HttpReceiver.count(context.receiver, "/40")
    push(context, deliveries(webhook, 5))
    HttpReceiver.await(context.receiver, "/40", before + 5)
  end

  test "a late reader does not put an old endpoint", context do
    context = start!(context)
    old = webhook!(context, "/old")
    {:ok, old} = Store.get_webhook(context.instance, old.id)
    new = %{url: HttpReceiver.url(context.receiver, "/new")}
    {:ok, _} = update_webhook(context, old.id, new)
    :ok = Endpoints.changed(context.instance, old)
    push(context, [delivery(old)])
    HttpReceiver.await(context.receiver, "/new", 1)

    # Not even one that is no more.
    :ok = delete_webhook(context, old.id)
    :ok = Endpoints.changed(context.instance, old)
    push(context, [delivery(old)])
    eventually(fn -> Outbox.size(context.instance) == 0 end)
    eventually(fn -> match?(%{waiting: 0, in_flight: 0}, Engine.stats(context.instance)) end)
    assert HttpReceiver.count(context.receiver) == 1
  end

  # No receiver is known that makes the engine's loop work that long, so the test reports it.
  test "a webhook that took too much processor time is disabled at the third time", context do
    context = start!(context, observers: [{Observer, self()}])
    %{id: id} = webhook = webhook!(context, "/costly")
    assert Native.slow_slices(Owners.engine(context.instance).ref) == []
    for _ <- 1..2, do: Health.slow(context.instance, id)
    other = webhook!(context, "/other")
    Health.slow(context.instance, other.id)
    :sys.get_state(Instance.process(context.instance, :health), 60_000)
    assert {:ok, %{disabled_reason: nil}} = get_webhook(context, id)

    SwitchStore.set(context.switch, {:only, [:update_webhook], :away})
    Health.slow(context.instance, id)
    # What it answers meanwhile changes nothing.
    push(context, [delivery(webhook)])
    HttpReceiver.await(context.receiver, "/costly", 1)
    SwitchStore.set(context.switch, :on)
    assert_receive {:host, :webhook_disabled, ^id, :costly}, 60_000

    assert_receive {:webhook_disabled, %{failing_for_ms: nil},
                    %{webhook_id: ^id, reason: :costly}},
                   60_000

    assert {:ok, %{disabled_reason: :costly, enabled: true}} = get_webhook(context, id)
    assert {:ok, %{disabled_reason: nil}} = get_webhook(context, other.id)
    {:ok, %{disabled_reason: nil}} = enable_webhook(context, id)
  end

  test "a slow slice is an event, and a line in the log", context do
    context = start!(context, observers: [{Observer, self()}])

    log =
      capture_log(fn ->
        for whom <- ["wh_1", nil], do: Observers.slow(context.instance, 1, whom, 300)
        assert_receive {:engine_slow, %{took_ms: 300}, %{site_id: 1, webhook_id: "wh_1"}}, 60_000
        assert_receive {:engine_slow, %{took_ms: 300}, %{webhook_id: nil}}, 60_000
        :sys.get_state(Instance.process(context.instance, :observers), 60_000)
      end)

    assert log =~ "the engine was busy for 300 ms with webhook wh_1"
    assert log =~ "with several webhooks"
  end

  test "an invalid webhook id is not looked up" do
    {:ok, engine} = Native.engine_start(%{})
    assert Native.delete_endpoint(engine, String.duplicate("x", 255)) == :ok
    long = String.duplicate("x", 256)
    assert Native.delete_endpoint(engine, long) == {:error, :invalid_webhook_id}
    assert_raise ArgumentError, fn -> Native.delete_endpoint(engine, nil) end
    assert {:ok, []} = Native.engine_stop(engine, 0)
  end

  test "an engine that cannot start stops the start, with the reason", context do
    Process.flag(:trap_exit, true)
    path = Path.join(context.dir, "garbage.pem")
    File.write!(path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    assert {:error, {:shutdown, {:failed_to_start_child, Engine, {:engine, _reason}}}} =
             API.start_link(options(context, ca_file: path))

    assert {:error, {:invalid_option, :in_flight_max, _}} =
             API.start_link(options(context, in_flight_max: 0))

    assert Instance.get(context.name) == nil
  end
end
