defmodule Plausible.Webhooks.Deliver.RecorderTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  import ExUnit.CaptureLog

  alias Plausible.Webhooks, as: API

  @moduletag :capture_log

  defmodule Tell do
    @behaviour Plausible.Webhooks.Observer

    @impl true
    def handle_event(_event, _measurements, _metadata, :raise), do: raise("as always")
    def handle_event(_event, _measurements, _metadata, :exit), do: exit(:as_always)

    def handle_event(:store_call, _measurements, _metadata, {:hang, _test}), do: :ok

    def handle_event(event, _measurements, _metadata, {:hang, test}) do
      send(test, {:hanging, event, self()})
      Process.sleep(:infinity)
    end
  end

  defp stored(context, webhook) do
    {:ok, stored} = Store.get_webhook(context.instance, webhook.id)
    stored
  end

  describe "recording" do
    @tag start: []
    test "goes on when the store comes back, and sends nothing twice meanwhile", context do
      SwitchStore.set(context.switch, {:only, [:record], :away})
      ids = push(context, deliveries(context.webhook, 100))
      HttpReceiver.await(context.receiver, "/hook", 100)
      eventually(fn -> Recorder.size(context.instance) == 100 end)
      assert Enum.all?(all_deliveries(context), &(&1.state == :pending))
      SwitchStore.set(context.switch, :on)
      eventually(fn -> done?(context, ids) end)
      assert HttpReceiver.count(context.receiver) == 100
    end

    @tag start: []
    test "survives its process, with the store away", context do
      SwitchStore.set(context.switch, {:only, [:record], :away})
      ids = push(context, deliveries(context.webhook, 50))
      HttpReceiver.await(context.receiver, "/hook", 50)
      eventually(fn -> Recorder.size(context.instance) == 50 end)
      kill!(context, :recorder)
      kill!(context, :engine)
      SwitchStore.set(context.switch, :on)
      eventually(fn -> done?(context, ids) end)
      # What was reported is not sent again, though the engine was killed too.
      asked!(context, :claim, 2)
      assert HttpReceiver.count(context.receiver) == 50
    end

    @tag start: []
    test "killed again and again under traffic: nothing is lost", context do
      ids =
        Enum.flat_map(1..6, fn _round ->
          ids = push(context, deliveries(context.webhook, 100))
          Process.sleep(10)
          kill!(context, :recorder)
          ids
        end)

      eventually(fn -> done?(context, ids) end)
      assert HttpReceiver.count(context.receiver) == 600
    end

    @tag start: [retry_delays_ms: []]
    test "an attempt that the store refuses does not hold up the others", context do
      evil = webhook!(context, "/evil")
      HttpReceiver.script(context.receiver, "/evil", [{200, [], "evil"}])

      SwitchStore.set(
        context.switch,
        {:refuse, &(match?(%Attempt{}, &1) and &1.response_body == "evil")}
      )

      [bad] = push(context, [delivery(evil)])
      good = push(context, deliveries(context.webhook, 20))
      eventually(fn -> done?(context, good) end)
      # Without the receiver's answer the store takes this one too.
      eventually(fn -> done?(context, [bad]) end)
      assert [%Attempt{status: 200, response_body: ""}] = attempts(context, bad)
      assert Recorder.size(context.instance) == 0
    end

    @tag start: [retry_delays_ms: []]
    test "a full disk does not make it give up an attempt", context do
      large = webhook!(context, "/large")
      HttpReceiver.script(context.receiver, "/large", [{200, [], "large"}])
      of_large? = &(match?(%Attempt{}, &1) and &1.webhook_id == large.id)
      SwitchStore.set(context.switch, {:refuse, of_large?, :disk_full})
      [kept] = push(context, [delivery(large)])
      good = push(context, deliveries(context.webhook, 20))
      eventually(fn -> HttpReceiver.count(context.receiver) == 21 end)
      asked!(context, :record, 5)
      SwitchStore.set(context.switch, :on)
      eventually(fn -> done?(context, [kept | good]) end)
      assert [%Attempt{status: 200, response_body: "large"}] = attempts(context, kept)
      assert %{refused: 0} = API.stats(context.name)
      assert HttpReceiver.count(context.receiver) == 21
    end

    @tag start: [retry_delays_ms: []]
    test "an attempt without its answer is kept while the store is away", context do
      evil = webhook!(context, "/evil")
      HttpReceiver.script(context.receiver, "/evil", [{200, [], "evil"}])
      test = self()

      # Refused for its answer; and then, without it, there is no connection.
      SwitchStore.set(
        context.switch,
        {:refuse,
         fn
           %Attempt{response_body: "evil"} -> true
           %Attempt{response_truncated: true} -> send(test, :shortened) && exit(:away)
           _other -> false
         end}
      )

      [bad] = push(context, [delivery(evil)])
      push(context, deliveries(context.webhook, 20))
      assert_receive :shortened
      SwitchStore.set(context.switch, {:refuse, &match?(%Attempt{response_body: "evil"}, &1)})

      # Alone it would be taken for a store that is away.
      eventually(fn ->
        push(context, [delivery(context.webhook)])
        done?(context, [bad])
      end)
    end

    @tag start: [retry_delays_ms: [50_000]]
    test "a retry keeps its wait when the VM's clock leaps before it is recorded", context do
      HttpReceiver.script(context.receiver, "/hook", [{:delay, 60_000, 200}])
      [id] = push(context, [delivery(context.webhook)])
      # What is not accepted yet has no record to be moved.
      eventually(fn -> Outbox.size(context.instance) == 0 end)
      now_ms = System.system_time(:millisecond)
      hour_ms = 3_600_000

      before = %Attempt{
        delivery_id: id,
        webhook_id: context.webhook.id,
        number: 1,
        state: :parked,
        error: :timeout,
        started_at_ms: now_ms - hour_ms,
        next_at_ms: now_ms - hour_ms + 70_000
      }

      :ok = Recorder.put(context.instance, [before], System.time_offset(:millisecond) - hour_ms)
      await_state(context, id, :parked)
      assert_in_delta logged(context, id).next_at_ms, now_ms + 70_000, 100
      assert [%{started_at_ms: started_at_ms}] = attempts(context, id)
      assert_in_delta started_at_ms, now_ms, 100
    end

    @tag start: []
    test "a backlog stops the engine, and its end starts it again", context do
      SwitchStore.set(context.switch, {:only, [:record], :away})

      waiting =
        for n <- 1..5_000,
            do: %Attempt{
              delivery_id: "none-#{n}",
              webhook_id: "none",
              number: 1,
              state: :failed,
              error: :timeout,
              started_at_ms: 0
            }

      Recorder.put(context.instance, waiting)
      refute Recorder.room?(context.instance)
      # The call of the engine that is under way ends.
      asked!(context, :claim, 3)
      ids = push(context, deliveries(context.webhook, 10))
      eventually(fn -> Outbox.size(context.instance) == 0 end)
      asked!(context, :claim, 6)
      assert HttpReceiver.count(context.receiver) == 0
      SwitchStore.set(context.switch, :on)
      eventually(fn -> done?(context, ids) end)
    end

    @tag start: []
    test "flush waits for what was there before it", context do
      push(context, deliveries(context.webhook, 200))
      HttpReceiver.await(context.receiver, "/hook", 200)
      eventually(fn -> Recorder.size(context.instance) > 0 or done?(context, []) end)
      assert :ok = Recorder.flush(context.instance, 60_000)

      SwitchStore.set(context.switch, {:only, [:record], :away})

      Recorder.put(context.instance, [
        %Attempt{delivery_id: "x", webhook_id: "x", number: 0, state: :failed}
      ])

      assert {:error, :timeout} = Recorder.flush(context.instance, 100)
      SwitchStore.set(context.switch, :on)
      assert :ok = Recorder.flush(context.instance, 60_000)
      kill!(context, :recorder)
      assert :ok = Recorder.flush(context.instance, 60_000)
    end
  end

  describe "observers" do
    test "get every event with its measurements, never a URL", context do
      context = start!(context, observers: [{Observer, self()}], retry_delays_ms: [10])
      webhook = webhook!(context, "/hook?token=tok", %{})
      HttpReceiver.script(context.receiver, "/hook", [500, 200])
      site_and_id = %{site_id: 1, webhook_id: webhook.id}
      assert_receive {:webhook_changed, %{}, %{change: :created} = created}
      assert Map.take(created, [:site_id, :webhook_id]) == site_and_id

      [id] = push(context, [delivery(webhook)])
      name = context.name
      assert_receive {:deliveries_accepted, %{count: 1}, %{instance: ^name, sites: %{1 => 1}}}
      assert_receive {:attempt, %{total_us: total}, %{delivery_id: ^id, number: 1} = first}

      assert %{
               state: :pending,
               status: 500,
               error: :http_status,
               destination: "127.0.0.1",
               site_id: 1
             } = first

      assert total > 0 and is_integer(first.next_at_ms)
      assert_receive {:attempt, _, %{delivery_id: ^id, number: 2, state: :delivered}}

      assert_receive {:delivery_finished, %{attempts: 2},
                      %{delivery_id: ^id, state: :delivered} = last}

      refute inspect([created, first, last]) =~ "tok"
      assert [%{state: :delivered}] = all_deliveries(context)
    end

    test "one that raises or exits does not disturb others, and is counted", context do
      observers = [{Tell, :raise}, {Tell, :exit}, {Observer, self()}]
      context = start!(context, observers: observers)
      webhook = webhook!(context, "/hook")

      log =
        capture_log(fn ->
          [id] = push(context, [delivery(webhook)])
          assert_receive {:delivery_finished, _, %{delivery_id: ^id}}
        end)

      assert log =~ "as always"
      assert API.stats(context.name).observer_errors >= 4
    end

    test "one that hangs loses events, and nothing else", context do
      context = start!(context, observers: [{Tell, {:hang, self()}}])
      webhook = webhook!(context, "/hook")
      assert_receive {:hanging, :webhook_changed, pid}
      ids = push(context, deliveries(webhook, 300))
      eventually(fn -> done?(context, ids) end)

      attempts =
        for n <- 1..11_000,
            do: %Attempt{
              delivery_id: "none-#{n}",
              webhook_id: "none",
              number: 0,
              state: :failed,
              started_at_ms: 0
            }

      for slice <- Enum.chunk_every(attempts, 1_000), do: Recorder.put(context.instance, slice)
      assert :ok = Recorder.flush(context.instance, 60_000)
      assert API.stats(context.name).notices_dropped > 0
      assert {:message_queue_len, length} = Process.info(pid, :message_queue_len)
      assert length < 10_100
    end
  end

  describe "a receiver that is gone" do
    test "disables its webhook at once; its events are kept and come back", context do
      context =
        start!(context,
          retry_delays_ms: [50],
          lane_in_flight_max: 1,
          observers: [{Observer, self()}]
        )

      webhook = webhook!(context, "/gone")
      # The second request keeps the lane until the webhook is disabled.
      HttpReceiver.script(context.receiver, "/gone", [410, {:delay, 2_000, 410}])
      webhook_id = webhook.id
      [id | waiting] = push(context, deliveries(webhook, 5))
      assert_receive {:host, :webhook_disabled, ^webhook_id, :gone}

      assert_receive {:webhook_disabled, _,
                      %{reason: :gone, destination: "127.0.0.1", webhook_id: ^webhook_id}}

      {:ok, disabled} = get_webhook(context, webhook_id)
      assert %{enabled: true, disabled_reason: :gone} = disabled
      assert is_integer(disabled.disabled_at_ms)
      await_state(context, id, :failed)

      for id <- waiting do
        eventually(fn -> logged(context, id).state in [:cancelled, :failed] end)
      end

      assert Enum.any?(waiting, &(logged(context, &1).reason == "webhook_disabled"))

      # Events while it is disabled: on record, not sent.
      count = HttpReceiver.count(context.receiver)
      API.events_buffered(context.name, [event(), event()])

      kept =
        eventually(fn ->
          with [_, _ | _] = all <- all_deliveries(context),
               true <- length(all) == 7,
               do: all,
               else: (_ -> nil)
        end)

      assert Enum.count(kept, &(&1.state == :cancelled and &1.reason == "webhook_disabled")) >= 2
      settled!(context)
      assert HttpReceiver.count(context.receiver) == count

      # A redelivery has to wait until it is on again.
      assert {:error, %Error{reason: :webhook_disabled}} = redeliver(context, id)
      assert {:error, %Error{reason: :webhook_disabled}} = recover(context, webhook_id, 0)
      HttpReceiver.script(context.receiver, "/gone", [200])
      {:ok, %{disabled_reason: nil}} = enable_webhook(context, webhook_id)
      assert {:ok, %{count: 7, more?: false}} = recover(context, webhook_id, 0)
      eventually(fn -> Enum.all?(all_deliveries(context), &(&1.state == :delivered)) end)
    end

    test "is disabled even if the host that is to be told raises", context do
      context = start!(context, observers: [{Observer, self()}])
      TestHost.put(context.host, :webhook_disabled, fn -> raise "no mail today" end)
      webhook = webhook!(context, "/gone")
      HttpReceiver.script(context.receiver, "/gone", [410])

      log =
        capture_log(fn ->
          push(context, [delivery(webhook)])
          assert_receive {:webhook_disabled, _, %{reason: :gone}}
        end)

      assert log =~ "could not be told"
      # The owner of the next one is told.
      TestHost.put(context.host, :webhook_disabled, :ok)
      other = webhook!(context, "/other")
      other_id = other.id
      HttpReceiver.script(context.receiver, "/other", [410])
      push(context, [delivery(other)])
      assert_receive {:host, :webhook_disabled, ^other_id, :gone}
    end

    test "is disabled even if the store is away when it says so", context do
      context = start!(context)
      webhook = webhook!(context, "/gone")
      HttpReceiver.script(context.receiver, "/gone", [410])
      webhook_id = webhook.id
      SwitchStore.set(context.switch, {:only, [:update_webhook], :away})
      push(context, [delivery(webhook)])
      refute_receive {:host, :webhook_disabled, _, _}, 300
      SwitchStore.set(context.switch, :on)
      assert_receive {:host, :webhook_disabled, ^webhook_id, :gone}
    end
  end

  describe "a receiver that only fails" do
    setup context do
      context = start!(context, retry_delays_ms: [], disable_after_ms: 60_000)
      webhook = webhook!(context, "/fails")
      HttpReceiver.script(context.receiver, "/fails", [500])
      Map.put(context, :webhook, webhook)
    end

    defp fail_once(%{webhook: webhook} = context) do
      [id] = push(context, [delivery(webhook)])
      await_state(context, id, :failed)
    end

    test "is timed by the store's clock: a node that is days ahead disables nothing",
         context do
      day_ms = 86_400_000
      SwitchStore.set(context.switch, {:clock, -10 * day_ms})
      push(context, [delivery(context.webhook)])
      since = eventually(fn -> stored(context, context.webhook).failing_since_ms end)
      assert_in_delta since, System.system_time(:millisecond) - 10 * day_ms, 10_000
      push(context, deliveries(context.webhook, 3))
      eventually(fn -> Enum.count(all_deliveries(context), &(&1.state == :failed)) == 4 end)
      :sys.get_state(Instance.process(context.instance, :health), 60_000)
      assert stored(context, context.webhook).disabled_reason == nil
    end

    defp failing_since(context, ms_ago) do
      since_ms = System.system_time(:millisecond) - ms_ago

      :ok = Store.put_health(context.instance, context.webhook.id, %{failing_since_ms: since_ms})
    end

    test "is noted with its first failure, cleared by a success", context do
      fail_once(context)
      since = eventually(fn -> stored(context, context.webhook).failing_since_ms end)
      fail_once(context)
      assert stored(context, context.webhook).failing_since_ms == since
      HttpReceiver.script(context.receiver, "/fails", [200])
      push(context, [delivery(context.webhook)])
      eventually(fn -> stored(context, context.webhook).failing_since_ms == nil end)
      refute_received {:host, :webhook_disabled, _, _}
    end

    test "is disabled when that has lasted long enough", context do
      webhook_id = context.webhook.id
      failing_since(context, 59_000)
      fail_once(context)
      refute_receive {:host, :webhook_disabled, _, _}, 200

      kill!(context, :health)
      failing_since(context, 61_000)
      Plausible.Webhooks.Deliver.Health.forget(context.instance, webhook_id)
      fail_once(context)
      assert_receive {:host, :webhook_disabled, ^webhook_id, :failing}
      assert %{disabled_reason: :failing} = stored(context, context.webhook)
    end

    test "is not disabled if another node has delivered since", context do
      HttpReceiver.script(context.receiver, "/fails", [200, 500])
      [id] = push(context, [delivery(context.webhook)])
      await_state(context, id, :delivered)
      # As another node would leave it: a success that this node does not know.
      failing_since(context, 120_000)
      fail_once(context)
      eventually(fn -> stored(context, context.webhook).failing_since_ms == nil end)
      refute_received {:host, :webhook_disabled, _, _}
    end

    test "is not disabled if that delivery is pages away", context do
      failing_since(context, 120_000)
      found = %{delivery(context.webhook) | state: :delivered}

      SwitchStore.set(
        context.switch,
        {:answer,
         fn
           :deliveries, [1, %{states: [:delivered]}, %{after: nil}] ->
             {:ok, %{entries: [], next: "one"}}

           :deliveries, [1, %{states: [:delivered]}, %{after: "one"}] ->
             {:ok, %{entries: [], next: "two"}}

           :deliveries, [1, %{states: [:delivered]}, %{after: "two"}] ->
             {:ok, %{entries: [found], next: nil}}

           _function, _arguments ->
             :pass
         end}
      )

      fail_once(context)
      eventually(fn -> stored(context, context.webhook).failing_since_ms == nil end)
      refute_received {:host, :webhook_disabled, _, _}
    end

    test "gets a new chance with a new URL", context do
      webhook_id = context.webhook.id
      failing_since(context, 61_000)
      fail_once(context)
      assert_receive {:host, :webhook_disabled, ^webhook_id, :failing}
      url = HttpReceiver.url(context.receiver, "/works")
      {:ok, updated} = update_webhook(context, webhook_id, %{url: url})
      assert %{disabled_reason: nil, failing_since_ms: nil, disabled_at_ms: nil} = updated
      push(context, [delivery(context.webhook)])
      HttpReceiver.await(context.receiver, "/works", 1)
    end
  end
end
