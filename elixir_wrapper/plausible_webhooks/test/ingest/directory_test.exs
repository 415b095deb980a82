defmodule Plausible.Webhooks.Ingest.DirectoryTest do
  use Plausible.Webhooks.Test.DirectoryCase, async: true

  test "everything is in force when the start returns", %{instance: i, world: world} = context do
    World.put(world, :webhooks, [webhook("w1", 1), webhook("w2", 2, goals: [2])])
    start(context)
    assert %Subscriptions{domain: "site1.test"} = Directory.lookup(i, 1)
    assert completed(i, 1, "Signup") == [{1, [{"w1", :active}]}]
    assert completed(i, 2, "Order") == [{2, [{"w2", :active}]}]
    assert Directory.lookup(i, 3) == nil
  end

  test "an instance that does not run has no subscriptions" do
    assert Directory.lookup(:no_such_instance, 1) == nil
    assert Directory.traffic(:no_such_instance) == []
    assert Directory.traffic(:no_such_instance, 1) == []
    assert Directory.dedup(:no_such_instance) == nil
    assert Directory.refresh(:no_such_instance, 1) == {:error, :not_running}
  end

  test "after the stop a lookup finds nothing", %{instance: i} do
    child = {Directory, instance: i}
    supervisor = start_supervised!({DynamicSupervisor, strategy: :one_for_one})
    {:ok, _pid} = DynamicSupervisor.start_child(supervisor, child)
    assert Directory.lookup(i, 1)
    :ok = stop_supervised(DynamicSupervisor)
    assert Directory.lookup(i, 1) == nil
    assert Directory.traffic(i) == []
  end

  test "a lookup reads one row and copies little", %{instance: i, world: world} = context do
    World.put(world, {:goals, 1}, for(n <- 1..1_000, do: goal(n, "Goal #{n}")))
    start(context)
    assert :erts_debug.flat_size(Directory.lookup(i, 1)) < 100
    assert completed(i, 1, "Goal 500") == [{500, [{"w1", :active}]}]
  end

  describe "refresh" do
    test "brings in a new webhook, a changed goal, a new domain", %{instance: i} = context do
      start(context)
      World.put(context.world, :webhooks, [webhook("w1", 1), webhook("w9", 2)])
      World.put(context.world, {:goals, 1}, [goal(1, "Register")])
      World.put(context.world, {:site, 1}, %{site(1) | domain: "new.test"})
      assert Directory.lookup(i, 2) == nil
      assert Directory.refresh(i, 2) == :ok
      assert completed(i, 2, "Order") == [{2, [{"w9", :active}]}]
      assert Directory.refresh(i, 1) == :ok
      assert completed(i, 1, "Signup") == []
      assert completed(i, 1, "Register") == [{1, [{"w1", :active}]}]
      assert Directory.lookup(i, 1).domain == "new.test"
    end

    test "takes out what was deleted, paused or unsubscribed", %{instance: i} = context do
      start(context)

      for webhooks <- [[], [webhook("w1", 1, enabled: false)], [webhook("w1", 1, events: [])]] do
        World.put(context.world, :webhooks, [webhook("w1", 1)])
        assert Directory.refresh(i, 1) == :ok
        assert Directory.lookup(i, 1)
        World.put(context.world, :webhooks, webhooks)
        assert Directory.refresh(i, 1) == :ok
        assert Directory.lookup(i, 1) == nil
      end
    end

    test "keeps a webhook that we disabled, and says so", %{instance: i} = context do
      start(context)
      World.put(context.world, :webhooks, [webhook("w1", 1, disabled_reason: :gone)])
      assert Directory.refresh(i, 1) == :ok
      assert completed(i, 1, "Signup") == [{1, [{"w1", :disabled}]}]
    end

    test "takes out a site that is no more", %{instance: i} = context do
      start(context)
      World.put(context.world, {:site, 1}, nil)
      assert Directory.refresh(i, 1) == :ok
      assert Directory.lookup(i, 1) == nil
    end

    test "sees the last change when changes come faster than readings",
         %{instance: i} = context do
      start(context)

      tasks =
        for n <- 1..20 do
          World.put(context.world, {:goals, 1}, [goal(n, "Signup")])
          Task.async(fn -> Directory.refresh(i, 1) end)
        end

      assert Enum.uniq(Task.await_many(tasks, 60_000)) == [:ok]
      assert completed(i, 1, "Signup") == [{20, [{"w1", :active}]}]
    end

    test "a change in the middle of a reading is read after it", %{instance: i} = context do
      start(context)
      test = self()

      World.put(context.world, {:goals, 1}, fn ->
        send(test, {:reading, self()})
        receive do: (:go_on -> [goal(7, "Signup")])
      end)

      first = Task.async(fn -> Directory.refresh(i, 1) end)
      assert_receive {:reading, reader}
      World.put(context.world, {:goals, 1}, [goal(8, "Signup")])
      second = Task.async(fn -> Directory.refresh(i, 1) end)
      assert Task.yield(second, 50) == nil
      send(reader, :go_on)
      assert Task.await_many([first, second]) == [:ok, :ok]
      assert completed(i, 1, "Signup") == [{8, [{"w1", :active}]}]
    end

    test "leaves no rows of earlier generations behind", %{instance: i} = context do
      pid = start(context)
      table = Directory.lookup(i, 1).table
      size = :ets.info(table, :size)

      for n <- 1..5 do
        generation = Directory.lookup(i, 1).generation
        World.put(context.world, {:goals, 1}, [goal(n, "Goal #{n}")])
        :ok = Directory.refresh(i, 1)
        # What is due in some seconds.
        send(pid, {:sweep, 1, generation})
      end

      :sys.get_state(pid, 60_000)
      assert :ets.info(table, :size) == size
      assert completed(i, 1, "Goal 5") == [{5, [{"w1", :active}]}]
    end

    test "does not compile again what has not changed", %{instance: i} = context do
      start(context)
      generation = Directory.lookup(i, 1).generation
      :ok = Directory.refresh(i, 1)
      assert Directory.lookup(i, 1).generation == generation
    end

    test "passes the caller on to the host's tasks", %{instance: i} = context do
      start(context)
      test = self()
      World.put(context.world, {:goals, 1}, fn -> send(test, Process.get(:"$callers")) && [] end)
      :ok = Directory.refresh(i, 1)
      assert_received [^test]
    end
  end

  describe "when store or host fail" do
    @tag :capture_log
    test "the start does not fail, and what is missing comes later", %{instance: i} = context do
      World.put(context.world, :webhooks, {:error, :away})
      start(context, start_wait_ms: 100)
      assert Directory.lookup(i, 1) == nil
      World.put(context.world, :webhooks, [webhook("w1", 1)])
      eventually(fn -> completed(i, 1, "Signup") == [{1, [{"w1", :active}]}] end)
    end

    test "a host that hangs holds up the start for a while only", %{instance: i} = context do
      World.put(context.world, {:goals, 1}, fn -> Process.sleep(:infinity) end)

      log =
        capture_log(fn ->
          start(context, start_wait_ms: 50, load_timeout_ms: 100)
          assert Directory.refresh(i, 1) == {:error, :timeout}
        end)

      assert log =~ "continues in the background"
      assert log =~ "site 1 could not be read (:timeout)"
      World.put(context.world, {:goals, 1}, [goal(1, "Signup")])
      eventually(fn -> completed(i, 1, "Signup") != nil end)
    end

    test "a site keeps what it had, and the others go on", %{instance: i} = context do
      World.put(context.world, :webhooks, [webhook("w1", 1), webhook("w2", 2)])
      start(context)
      World.put(context.world, {:goals, 1}, fn -> raise "no database" end)
      World.put(context.world, {:goals, 2}, [goal(2, "Other")])

      assert capture_log(fn ->
               assert {:error, {:raised, "no database"}} = Directory.refresh(i, 1)
             end) =~ "no database"

      assert Directory.refresh(i, 2) == :ok
      assert completed(i, 1, "Signup") == [{1, [{"w1", :active}]}]
      assert completed(i, 2, "Other") == [{2, [{"w2", :active}]}]
    end

    @tag :capture_log
    test "after many failed readings one retry is scheduled", %{instance: i} = context do
      start(context)
      World.put(context.world, {:goals, 1}, fn -> raise "away" end)
      for _ <- 1..20, do: assert({:error, _} = Directory.refresh(i, 1))
      directory = Plausible.Webhooks.Runtime.Instance.process(i, :directory)
      %{failures: %{1 => {tries, timer}}} = :sys.get_state(directory)
      assert tries >= 20
      # One timer for each of them would have read the site by now.
      assert Process.read_timer(timer) > 30_000
      test = self()
      World.put(context.world, {:goals, 1}, fn -> send(test, :read) && [] end)
      refute_receive :read, 1_500
      assert Directory.refresh(i, 1) == :ok
      assert Process.read_timer(timer) == false
    end

    test "a host that is away does not fill the log", %{instance: i} = context do
      sites = 5_001..5_030
      World.put(context.world, :webhooks, for(s <- sites, do: webhook("w#{s}", s)))
      for s <- sites, do: World.put(context.world, {:site, s}, fn -> raise "away" end)
      log = capture_log(fn -> start(context) && Directory.refresh_all(i) end)
      assert length(Regex.scan(~r/site 50\d\d could not be read/, log)) == 1
    end

    @tag :capture_log
    test "a paused webhook leaves even while the host is away", %{instance: i} = context do
      World.put(context.world, :webhooks, [webhook("w1", 1), webhook("w2", 1)])
      start(context)
      World.put(context.world, {:goals, 1}, fn -> exit(:away) end)
      World.put(context.world, :webhooks, [webhook("w1", 1), webhook("w2", 1, enabled: false)])
      assert {:error, _} = Directory.refresh(i, 1)
      assert completed(i, 1, "Signup") == [{1, [{"w1", :active}]}]
    end

    @tag :capture_log
    test "a host process that is killed counts as a failure", %{instance: i} = context do
      start(context)
      World.put(context.world, {:goals, 1}, fn -> Process.exit(self(), :kill) end)
      assert {:error, {:crashed, :killed}} = Directory.refresh(i, 1)
      assert completed(i, 1, "Signup")
    end

    @tag :capture_log
    test "a crash of the process leaves the subscriptions in force", %{instance: i} = context do
      pid = start(context)
      World.put(context.world, :webhooks, fn -> Process.sleep(50) && [webhook("w1", 1)] end)
      Process.exit(pid, :kill)
      for _ <- 1..100, do: assert(completed(i, 1, "Signup") == [{1, [{"w1", :active}]}])
      eventually(fn -> Directory.refresh(i, 1) == :ok end)
      assert completed(i, 1, "Signup") == [{1, [{"w1", :active}]}]
    end
  end

  @tag :capture_log
  test "a successor takes out what its predecessor left behind", %{instance: i} = context do
    spike = [events: ["traffic.spike"], spike_threshold: 3]
    World.put(context.world, :webhooks, [webhook("w1", 1), webhook("w2", 2, spike)])
    pid = start(context)
    table = Directory.lookup(i, 1).table
    # What a loader that was killed with it had begun.
    :ets.insert(table, [{{:rows, 1, 999}, [{1, 999, :event, "x"}]}, {{1, 999, :event, "x"}, []}])
    size = :ets.info(table, :size)
    World.put(context.world, :webhooks, [])
    Process.exit(pid, :kill)
    eventually(fn -> Directory.lookup(i, 1) == nil and Directory.traffic(i) == [] end)
    # Only the rows of the site's last generation wait for their sweep.
    assert :ets.info(table, :size) < size - 2
    refute :ets.member(table, {1, 999, :event, "x"})
  end

  describe "the periodic reading" do
    test "finds changes that were not announced", %{instance: i} = context do
      start(context)
      World.put(context.world, :webhooks, [webhook("w2", 2)])
      assert Directory.refresh_all(i) == :ok
      assert Directory.lookup(i, 1) == nil
      assert completed(i, 2, "Order") == [{2, [{"w2", :active}]}]
      World.put(context.world, {:goals, 2}, [goal(2, "Bought")])
      assert Directory.refresh_all(i) == :ok
      assert completed(i, 2, "Bought") == [{2, [{"w2", :active}]}]
    end

    test "finds deleted webhooks without reading other sites", %{instance: i} = context do
      World.put(context.world, :webhooks, [webhook("w1", 1), webhook("w2", 2)])
      start(context, sites_per_refresh: 0)
      World.put(context.world, :webhooks, [webhook("w1", 1)])
      World.asked(context.world)
      assert Directory.refresh_all(i) == :ok
      assert Directory.lookup(i, 2) == nil
      assert World.asked(context.world) == [:all, {:list, 2}]
    end

    test "runs by itself", %{instance: i} = context do
      start(context, refresh_ms: 20)
      World.put(context.world, {:goals, 1}, [goal(3, "Signup")])
      eventually(fn -> completed(i, 1, "Signup") == [{3, [{"w1", :active}]}] end)
    end

    test "logs invalid goals once, and goes on with the others", %{instance: i} = context do
      goals = [%{"id" => 1, "event_name" => "Signup"}, goal(2, "Bought"), %{id: 3}, :garbage]
      World.put(context.world, {:goals, 1}, goals)

      log =
        capture_log(fn ->
          start(context)
          for _ <- 1..3, do: :ok = Directory.refresh_all(i)
        end)

      assert completed(i, 1, "Bought") == [{2, [{"w1", :active}]}]
      assert [_, rest] = String.split(log, "3 of the host's goals for site 1 are not valid")
      assert rest =~ ~s("event_name")
    end

    test "asks the host for a bounded number of sites, in turns", %{instance: i} = context do
      sites = 1..10
      World.put(context.world, :webhooks, for(s <- sites, do: webhook("w#{s}", s)))

      for s <- sites do
        World.put(context.world, {:site, s}, site(s))
        World.put(context.world, {:goals, s}, [])
      end

      start(context, sites_per_refresh: 4)
      World.asked(context.world)

      asked =
        for _ <- 1..5 do
          :ok = Directory.refresh_all(i)
          for {:goals, s} <- World.asked(context.world), do: s
        end

      assert Enum.map(asked, &length/1) == [4, 4, 4, 4, 4]
      assert asked |> List.flatten() |> Enum.frequencies() |> Map.values() |> Enum.uniq() == [2]
    end

    test "the host is not asked of sites without webhooks for goals", %{instance: i} = context do
      spike = webhook("w1", 1, events: ["traffic.spike"], spike_threshold: 300)
      World.put(context.world, :webhooks, [spike])
      start(context, [])
      for _ <- 1..2, do: :ok = Directory.refresh_all(i)
      assert Enum.uniq(World.asked(context.world)) -- [:all] == [list: 1]
      assert [{1, [%{id: "w1"}]}] = Directory.traffic(i)
    end

    test "a change of the URL alone is no reason to ask", %{instance: i} = context do
      start(context, sites_per_refresh: 0)
      World.asked(context.world)
      World.put(context.world, :webhooks, [webhook("w1", 1, url: "https://y.test", version: 9)])
      assert Directory.refresh_all(i) == :ok
      assert World.asked(context.world) == [:all]
    end
  end

  test "webhooks for traffic are listed with what an alert needs", %{instance: i} = context do
    spike = [events: ["traffic.spike", "traffic.resolved"], spike_threshold: 300]
    drop = [events: ["traffic.drop", "goal.completed"], drop_threshold: 5]

    World.put(context.world, :webhooks, [
      webhook("w1", 1),
      webhook("w2", 1, spike ++ [traffic_min_interval_s: 60]),
      webhook("w3", 2, drop ++ [disabled_reason: :failing]),
      webhook("w4", 2, events: ["traffic.resolved"])
    ])

    start(context)

    assert [{1, [%{id: "w2", status: :active, spike_threshold: 300, min_interval_s: 60}]}, two] =
             Enum.sort(Directory.traffic(i))

    assert {2, [%{id: "w3", status: :disabled, drop_threshold: 5}]} = two
    assert Directory.traffic(i, 2) == elem(two, 1)
    # A site whose webhooks are for traffic only costs the hook nothing.
    World.put(context.world, :webhooks, [webhook("w2", 1, spike)])
    :ok = Directory.refresh(i, 1)
    assert Directory.lookup(i, 1) == nil
    assert [%{id: "w2"}] = Directory.traffic(i, 1)
  end

  test "the memory of scroll goals turns by itself when it is full", %{instance: i} = context do
    start(context, dedup_entries_max: 10)
    dedup = Directory.dedup(i)
    alias Plausible.Webhooks.Ingest.Dedup
    for n <- 1..11, do: Dedup.first_time?(dedup, {1, 1, n, "/"})
    assert Dedup.full?(dedup)
    eventually(fn -> not Dedup.full?(dedup) end)
  end
end
