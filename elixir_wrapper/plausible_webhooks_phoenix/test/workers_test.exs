defmodule Plausible.Webhooks.WorkersTest do
  use Plausible.Webhooks.Test.EctoInstanceCase, async: true

  import ExUnit.CaptureLog

  @moduletag :capture_log

  alias Plausible.Webhooks.Test.ObanTables
  alias Plausible.Webhooks.Workers
  alias Plausible.Webhooks.Store
  alias Plausible.Webhooks.Store.PeriodicLease

  @retention_ms 60_000

  defp start_oban!(context, options \\ []) do
    defaults = [periodic: :oban, traffic: [], retention_ms: @retention_ms]
    start!(context, Keyword.merge(defaults, options))
  end

  # Once inserted, as Oban hands it over.
  defp job(context, inserted_at \\ DateTime.utc_now()),
    do: %Oban.Job{args: %{"instance" => inspect(context.name)}, inserted_at: inserted_at}

  defp spike!(context) do
    webhook!(context, "/spike", %{events: ["traffic.spike"], spike_threshold: 5})
    TestHost.put(context.host, :visitors, fn -> {:ok, [9]} end)
  end

  def tell(_name, measurements, %{instance: name}, {pid, name}),
    do: send(pid, {:measured, measurements})

  def tell(_name, _measurements, _of_another_test, _config), do: :ok

  describe "traffic" do
    test "is evaluated; twice, and late, does it once", context do
      context = start_oban!(context)
      spike!(context)
      assert {:ok, %{fired: 1}} = Workers.Traffic.perform(job(context))
      HttpReceiver.await(context.receiver, "/spike", 1)
      hour_ago = DateTime.add(DateTime.utc_now(), -3_600)
      assert {:ok, :taken} = Workers.Traffic.perform(job(context))
      assert {:ok, :taken} = Workers.Traffic.perform(job(context, hour_ago))
      assert HttpReceiver.count(context.receiver) == 1
    end

    test "is left to the node that is at it", context do
      context = start_oban!(context)
      spike!(context)
      {:ok, token} = Store.take_lease(context.name, "traffic", 60_000, nil)
      assert {:ok, :taken} = Workers.Traffic.perform(job(context))
      PeriodicLease.give_back(context.name, "traffic", token)
      assert HttpReceiver.count(context.receiver) == 0
    end

    test "where none is evaluated the job goes elsewhere, and may begin at once", context do
      context = start_oban!(context, traffic: false)
      assert {:snooze, _seconds} = Workers.Traffic.perform(job(context))
      Process.sleep(5)
      assert {:ok, _token} = Store.take_lease(context.name, "traffic job", 1_000, nil)
    end
  end

  describe "retention" do
    test "deletes what is old; twice does it once", context do
      context = start_oban!(context)
      webhook = webhook!(context, "/hook")
      old_ms = System.system_time(:millisecond) - 2 * @retention_ms
      ended = [state: :failed, created_at_ms: old_ms, finished_at_ms: old_ms]
      old = for _ <- 1..3, do: delivery(webhook, ended)
      new = delivery(webhook, state: :failed)
      :ok = Store.accept(context.instance, [new | old])
      assert {:ok, 3} = Workers.Retention.perform(job(context))
      assert {:ok, 0} = Workers.Retention.perform(job(context))
      assert {:ok, _there} = Store.get_delivery(context.instance, new.id)
    end
  end

  describe "the sweep" do
    test "brings back what is due and tells how the queue stands", context do
      context = start_oban!(context, sweep_interval_ms: 60_000)
      webhook = webhook!(context, "/hook")
      now_ms = System.system_time(:millisecond)
      due = delivery(webhook, state: :parked, next_at_ms: now_ms - 10)
      later = delivery(webhook, state: :parked, next_at_ms: now_ms + 60_000)
      :ok = Store.accept(context.instance, [due, later])
      assert {:ok, %{parked: 1} = queue} = Workers.Sweep.perform(job(context))
      assert queue.overdue_ms < 60_000
      HttpReceiver.await(context.receiver, "/hook", 1)
    end

    test "says when something has been due for too long", context do
      context = start_oban!(context)
      webhook = webhook!(context, "/hook")
      HttpReceiver.script(context.receiver, "/hook", [:hang])
      long_ago = System.system_time(:millisecond) - 600_000
      stuck = delivery(webhook, created_at_ms: long_ago)
      Outbox.push(context.instance, [stuck])
      HttpReceiver.await(context.receiver, "/hook", 1)
      log = capture_log(fn -> {:ok, _} = Workers.Sweep.perform(job(context)) end)
      assert log =~ "[warning]" or log =~ "[warn]"
      assert log =~ "1 deliveries wait, one of them has been due for 60"
    end
  end

  @workers [Workers.Traffic, Workers.Retention, Workers.Sweep]

  describe "an instance that is not running here" do
    test "puts the job off, and gives it up when it is old", context do
      names = [
        inspect(context.name),
        "Plausible.Webhooks",
        "No.Such.Atom#{context.name}",
        ":x1y2z"
      ]

      for worker <- @workers, name <- names do
        young = %{job(context) | args: %{"instance" => name}}
        log = capture_log(fn -> assert {:snooze, 5} = worker.perform(young) end)
        assert log =~ "is not running here"
        old = %{young | inserted_at: DateTime.add(DateTime.utc_now(), -400)}
        log = capture_log(fn -> assert {:cancel, :not_running} = worker.perform(old) end)
        assert log =~ "no node on which"
      end
    end

    @tag :capture_log
    test "nor does a name that is none do harm", context do
      for worker <- @workers do
        assert {:snooze, 5} = worker.perform(%{job(context) | args: %{"instance" => 7}})
        # The default one, which no test starts.
        assert {:snooze, 5} = worker.perform(%Oban.Job{args: %{}})
      end
    end
  end

  describe "in Oban" do
    setup context do
      # Oban's functions take no name that has to be quoted.
      prefix = schema("oban_test_")
      ObanTables.make!(prefix)
      %{oban: Module.concat(context.name, "Oban"), oban_prefix: prefix}
    end

    defp oban!(context, options) do
      defaults = [name: context.oban, repo: Repo, prefix: context.oban_prefix, plugins: []]
      # Leader from the first moment: cron asks.
      alone = [peer: Oban.Peers.Isolated, notifier: Oban.Notifiers.PG, stage_interval: 100]
      defaults = alone ++ defaults
      start_supervised!({Oban, Keyword.merge(defaults, options)})
    end

    defp insert!(context, worker),
      do: Oban.insert!(context.oban, worker.new(%{"instance" => inspect(context.name)}))

    defp state(context, job), do: Repo.reload!(job, prefix: context.oban_prefix).state

    test "jobs run, with the queue and the options as they are", context do
      context = start_oban!(context)
      spike!(context)
      oban!(context, queues: [webhooks: 2])
      jobs = for worker <- @workers, do: insert!(context, worker)
      eventually(fn -> Enum.all?(jobs, &(state(context, &1) == "completed")) end)
      HttpReceiver.await(context.receiver, "/spike", 1)
    end

    # The supervision tree of the documentation.
    test "a host's tree: cron inserts, the queue runs, everything is told", context do
      pubsub = Module.concat(context.name, "PubSub")
      start_supervised!({Phoenix.PubSub, name: pubsub})
      handler = {__MODULE__, context.name}
      measured = [:plausible, :webhooks, :queue, :measured]
      :ok = :telemetry.attach(handler, measured, &__MODULE__.tell/4, {self(), context.name})
      on_exit(fn -> :telemetry.detach(handler) end)

      context =
        start_oban!(context,
          cluster: {Plausible.Webhooks.Cluster.PubSub, pubsub: pubsub},
          observers: [
            {Plausible.Webhooks.Telemetry, []},
            {Plausible.Webhooks.Updates, pubsub: pubsub}
          ]
        )

      start_supervised!({Plausible.Webhooks.Telemetry, instance: context.name})
      :ok = Plausible.Webhooks.Updates.subscribe(pubsub, context.name, 1)
      spike!(context)
      args = %{instance: inspect(context.name)}
      crontab = for worker <- @workers, do: {"* * * * *", worker, args: args}
      oban!(context, queues: [webhooks: 2], plugins: [{Oban.Plugins.Cron, crontab: crontab}])
      # The minute is over.
      context.oban |> Oban.Registry.whereis({:plugin, Oban.Plugins.Cron}) |> send(:evaluate)

      HttpReceiver.await(context.receiver, "/spike", 1)
      assert_receive {:plausible_webhooks, :attempt, %{state: :delivered}}, 10_000
      assert_receive {:measured, %{pending: _, overdue_ms: _}}, 10_000
      completed = fn -> Repo.all(Oban.Job, prefix: context.oban_prefix) end
      eventually(fn -> match?([_, _, _], completed.()) end)
      eventually(fn -> Enum.all?(completed.(), &(&1.state == "completed")) end)
    end

    test "of two that are inserted in the same minute there is one", context do
      oban!(context, queues: [])

      for worker <- @workers do
        %{id: id, conflict?: false} = insert!(context, worker)
        assert %{id: ^id, conflict?: true} = insert!(context, worker)
      end
    end

    test "one that a dead node has left does not keep the next one away", context do
      oban!(context, queues: [])
      left = insert!(context, Workers.Traffic)
      two_minutes_ago = DateTime.add(DateTime.utc_now(), -120)

      left
      |> Ecto.Changeset.change(state: "executing", inserted_at: two_minutes_ago)
      |> Repo.update!(prefix: context.oban_prefix)

      assert %{conflict?: false} = insert!(context, Workers.Traffic)
    end

    test "the lines for cron are what Oban takes", context do
      args = %{instance: inspect(context.name)}

      crontab = [
        {"* * * * *", Workers.Traffic, args: args},
        {"*/10 * * * *", Workers.Retention},
        {"* * * * *", Workers.Sweep, queue: :default}
      ]

      assert oban!(context,
               queues: [webhooks: 2],
               plugins: [{Oban.Plugins.Cron, crontab: crontab}]
             )
    end
  end
end
