defmodule Plausible.Webhooks.Manage.ClusterTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  import ExUnit.CaptureLog

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Cluster
  alias Plausible.Webhooks.Ingest.Directory

  # Tells the test's process instead of other nodes.
  defmodule Wire do
    @behaviour Plausible.Webhooks.Cluster

    @impl true
    def listener(_instance, _options), do: nil

    @impl true
    def tell(instance, options, message) do
      case options[:answer] do
        nil ->
          send(options[:to], {:told, instance, message})
          :ok

        answer ->
          answer.()
      end
    end
  end

  defp start_node!(context, options \\ []),
    do: start!(context, Keyword.put_new(options, :cluster, {Wire, to: self()}))

  # As another node does it: in the store, without a word to anyone here.
  defp change_elsewhere(context, webhook, changes) do
    {:ok, stored} = Store.get_webhook(context.instance, webhook.id)

    {:ok, changed} = Store.update_webhook(context.instance, struct!(stored, changes))

    changed
  end

  defp delete_elsewhere(context, webhook),
    do: :ok = Store.delete_webhook(context.instance, 1, webhook.id)

  # One that waits in the engine for its second attempt.
  defp waiting!(context, webhook, path) do
    HttpReceiver.script(context.receiver, path, [503])
    delivery = delivery(webhook)
    :ok = Outbox.push(context.instance, [delivery])
    HttpReceiver.await(context.receiver, path, 1)
    eventually(fn -> logged(context, delivery.id).attempts == 1 end)
    delivery
  end

  # One whose first attempt is under way.
  defp held!(context, webhook, path) do
    HttpReceiver.script(context.receiver, path, [HttpReceiver.hold(self())])
    delivery = delivery(webhook)
    :ok = Outbox.push(context.instance, [delivery])
    assert_receive {:held, request}
    {delivery, request}
  end

  # The engine knows the webhook's endpoint in this version.
  defp knows!(context, webhook, version) do
    eventually(fn ->
      %{endpoints: endpoints} = Owners.engine(context.instance)
      match?([{_id, ^version, _, _, _, _}], :ets.lookup(endpoints, webhook.id))
    end)
  end

  describe "telling" do
    test "whatever changes a webhook or a goal tells the others", context do
      context = start_node!(context)
      name = context.name
      %{id: id} = webhook!(context, "/hook")
      assert_received {:told, ^name, {:webhook_changed, 1, ^id}}

      changes = [
        fn -> {:ok, _} = API.update_webhook(name, :owner, 1, id, %{name: "CRM"}) end,
        fn -> {:ok, _} = API.rotate_secret(name, :owner, 1, id, 0) end,
        fn -> {:ok, _} = API.disable_webhook(name, :owner, 1, id) end,
        fn -> {:ok, _} = API.enable_webhook(name, :owner, 1, id) end,
        fn -> :ok = API.delete_webhook(name, :owner, 1, id) end
      ]

      for change <- changes do
        change.()
        assert_received {:told, ^name, {:webhook_changed, 1, ^id}}
        refute_received {:told, _, _}
      end

      :ok = API.goals_changed(name, 2)
      assert_received {:told, ^name, {:goals_changed, 2}}
    end

    test "a webhook that we disable by ourselves too", context do
      context = start_node!(context)
      %{id: id} = webhook = webhook!(context, "/gone")
      assert_received {:told, _, {:webhook_changed, 1, ^id}}
      HttpReceiver.script(context.receiver, "/gone", [410])
      Outbox.push(context.instance, [delivery(webhook)])
      assert_receive {:told, _, {:webhook_changed, 1, ^id}}
    end

    test "a cluster that fails is logged, and the change succeeds", context do
      for answer <- [fn -> {:error, :away} end, fn -> raise "no" end, fn -> exit(:no) end] do
        context =
          context
          |> Map.put(:name, :"webhooks_#{System.unique_integer([:positive])}")
          |> Map.put(:dir, Path.join(context.dir, "#{System.unique_integer([:positive])}"))

        File.mkdir_p!(context.dir)

        log =
          capture_log(fn ->
            context =
              start_node!(context,
                cluster: {Wire, answer: answer},
                observers: [{Observer, self()}]
              )

            assert %{name: ""} = webhook!(context, "/hook")
            assert :ok = API.goals_changed(context.name, 1)
            assert_receive {:cluster_failed, %{}, %{reason: _}}
            :sys.get_state(Instance.process(context.instance, :observers), 60_000)
          end)

        assert log =~ "could not be told of a change"
        refute log =~ "[error] webhooks: other nodes"
      end
    end
  end

  describe "hearing" do
    test "a new URL is where the next attempt goes", context do
      context = start_node!(context, retry_delays_ms: [10])
      webhook = webhook!(context, "/old")
      {delivery, request} = held!(context, webhook, "/old")

      changed =
        change_elsewhere(context, webhook, url: HttpReceiver.url(context.receiver, "/new"))

      :ok = Cluster.received(context.name, {:webhook_changed, 1, webhook.id})
      knows!(context, webhook, changed.version)
      HttpReceiver.release(request, 503)
      HttpReceiver.await(context.receiver, "/new", 1)
      await_state(context, delivery.id, :delivered)
      assert HttpReceiver.count(context.receiver, "/old") == 1
    end

    test "what waits for a webhook that was deleted is not sent", context do
      context = start_node!(context, retry_delays_ms: [50_000])
      webhook = webhook!(context, "/hook")
      waiting!(context, webhook, "/hook")
      delete_elsewhere(context, webhook)
      :ok = Cluster.received(context.name, {:webhook_changed, 1, webhook.id})
      eventually(fn -> Engine.stats(context.instance).waiting == 0 end)
      assert HttpReceiver.count(context.receiver, "/hook") == 1
      eventually(fn -> Directory.lookup(context.name, 1) == nil end)
    end

    test "a webhook of another node gets the next event, and one it paused does not", context do
      context = start_node!(context)
      webhook = webhook!(context, "/hook")
      change_elsewhere(context, webhook, enabled: false)
      :ok = Cluster.received(context.name, {:webhook_changed, 1, webhook.id})
      eventually(fn -> Directory.lookup(context.name, 1) == nil end)

      change_elsewhere(context, webhook, enabled: true)
      :ok = Cluster.received(context.name, {:webhook_changed, 1, webhook.id})
      eventually(fn -> Directory.lookup(context.name, 1) != nil end)
      :ok = API.events_buffered(context.name, [event()])
      HttpReceiver.await(context.receiver, "/hook", 1)
    end

    test "goals", context do
      context = start_node!(context)
      webhook!(context, "/hook")
      TestHost.put(context.host, {:goals, 1}, [TestHost.event_goal(13, "Order")])
      :ok = Cluster.received(context.name, {:goals_changed, 1})
      order = event(1, %{name: "Order"})

      eventually(fn ->
        :ok = API.events_buffered(context.name, [order])
        HttpReceiver.count(context.receiver, "/hook") > 0
      end)
    end

    test "goals that are to be seen later than they are told of, soon after", context do
      context = start_node!(context)
      webhook!(context, "/hook")
      asked = SwitchStore.calls(context.switch, :list_webhooks)
      :ok = Cluster.received(context.name, {:goals_changed, 1})
      eventually(fn -> SwitchStore.calls(context.switch, :list_webhooks) > asked end)
      TestHost.put(context.host, {:goals, 1}, [TestHost.event_goal(13, "Order")])

      eventually(fn ->
        :ok = API.events_buffered(context.name, [event(1, %{name: "Order"})])
        HttpReceiver.count(context.receiver, "/hook") > 0
      end)
    end

    test "twice, out of order, or nonsense: no harm", context do
      context = start_node!(context)
      webhook = webhook!(context, "/old")
      inbox = Process.whereis(Instance.process(context.instance, :inbox))
      url = HttpReceiver.url(context.receiver, "/new")
      message = {:webhook_changed, 1, webhook.id}

      # The message of the older version comes last; both lead to the current state.
      change_elsewhere(context, webhook, name: "older")
      change_elsewhere(context, webhook, url: url)

      nonsense = [
        {:webhook_changed, "1", webhook.id},
        {:webhook_changed, 2, webhook.id},
        {:webhook_changed, 1, "wh_none"},
        {:goals_changed, nil},
        {:something_newer, 1},
        :garbage
      ]

      for message <- [message, message] ++ nonsense ++ [message],
          do: :ok = Cluster.received(context.name, message)

      send(inbox, :garbage)
      eventually(fn -> :sys.get_state(inbox, 60_000).job == nil end)
      Outbox.push(context.instance, [delivery(webhook)])
      HttpReceiver.await(context.receiver, "/new", 1)
      assert HttpReceiver.count(context.receiver, "/old") == 0
      assert Process.whereis(Instance.process(context.instance, :inbox)) == inbox
      assert :ok = Cluster.received(:no_such_instance, message)
      assert :ok = Cluster.missed(:no_such_instance)
    end

    test "a flood is read once, as everything", context do
      context = start_node!(context)
      webhook = webhook!(context, "/hook")
      change_elsewhere(context, webhook, enabled: false)
      before = SwitchStore.calls(context.switch, :get_webhook)
      inbox = Process.whereis(Instance.process(context.instance, :inbox))
      :sys.suspend(inbox)
      for n <- 1..5_000, do: Cluster.received(context.name, {:webhook_changed, 1, "wh_#{n}"})
      :sys.resume(inbox)
      eventually(fn -> Directory.lookup(context.name, 1) == nil end)
      eventually(fn -> :sys.get_state(inbox, 60_000).job == nil end)
      # The one that was begun before it was a flood.
      assert SwitchStore.calls(context.switch, :get_webhook) - before <= 2
    end

    test "after a gap everything is read, goals included", context do
      context = start_node!(context, directory: [sites_per_refresh: 0], retry_delays_ms: [3_000])
      webhook = webhook!(context, "/old")
      waiting!(context, webhook, "/old")
      change_elsewhere(context, webhook, url: HttpReceiver.url(context.receiver, "/new"))
      TestHost.put(context.host, {:goals, 1}, [TestHost.event_goal(13, "Order")])
      :ok = Cluster.missed(context.name)
      HttpReceiver.await(context.receiver, "/new", 1)
      :ok = API.events_buffered(context.name, [event(1, %{name: "Order"})])
      HttpReceiver.await(context.receiver, "/new", 2)
    end

    @tag :capture_log
    test "while the store is away nothing is lost", context do
      context = start_node!(context)
      webhook = webhook!(context, "/old")
      Outbox.push(context.instance, [delivery(webhook)])
      HttpReceiver.await(context.receiver, "/old", 1)
      change_elsewhere(context, webhook, url: HttpReceiver.url(context.receiver, "/new"))
      SwitchStore.set(context.switch, {:only, [:get_webhook], :away})
      :ok = Cluster.received(context.name, {:webhook_changed, 1, webhook.id})
      inbox = Process.whereis(Instance.process(context.instance, :inbox))
      eventually(fn -> :sys.get_state(inbox, 60_000).timer != nil end)
      SwitchStore.set(context.switch, :on)

      eventually(fn ->
        Outbox.push(context.instance, [delivery(webhook)])
        HttpReceiver.count(context.receiver, "/new") > 0
      end)
    end
  end

  describe "the periodic refresh, without a message" do
    test "finds a new URL for what waits, and a webhook that is gone", context do
      context = start_node!(context, directory: [refresh_ms: 50], retry_delays_ms: [10])
      moved = webhook!(context, "/old")
      gone = webhook!(context, "/gone")
      {_delivery, to_old} = held!(context, moved, "/old")
      {_delivery, to_gone} = held!(context, gone, "/gone")
      changed = change_elsewhere(context, moved, url: HttpReceiver.url(context.receiver, "/new"))

      delete_elsewhere(context, gone)
      knows!(context, moved, changed.version)
      knows!(context, gone, :deleted)
      HttpReceiver.release(to_old, 503)
      HttpReceiver.release(to_gone, 503)
      HttpReceiver.await(context.receiver, "/new", 1)
      eventually(fn -> Engine.stats(context.instance).waiting == 0 end)
      assert HttpReceiver.count(context.receiver, "/gone") == 1
    end

    test "leaves alone what is newer than its reading", context do
      context = start_node!(context, cluster: nil)
      old = webhook!(context, "/old")
      {:ok, before} = Store.all_webhooks(context.instance)

      {:ok, _} =
        update_webhook(context, old.id, %{
          url: HttpReceiver.url(context.receiver, "/new")
        })

      added = webhook!(context, "/added")
      for id <- [old, added], do: Outbox.push(context.instance, [delivery(id)])
      HttpReceiver.await(context.receiver, "/added", 1)
      # What a reading began with before both of them.
      Plausible.Webhooks.Manage.Changes.compare(context.name, before)
      for id <- [old, added], do: Outbox.push(context.instance, [delivery(id)])
      HttpReceiver.await(context.receiver, "/added", 2)
      HttpReceiver.await(context.receiver, "/new", 2)
      assert HttpReceiver.count(context.receiver, "/old") == 0
    end
  end
end
