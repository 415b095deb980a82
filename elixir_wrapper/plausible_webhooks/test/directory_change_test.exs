defmodule Plausible.Webhooks.DirectoryChangeTest do
  # A change that others see later than it is told, and what may not be told at all.
  use Plausible.Webhooks.Test.DirectoryCase, async: true

  alias Plausible.Webhooks.Ingest.Directory.Again

  describe "a change that is told within its transaction" do
    test "is in force when the others see it", %{instance: i} = context do
      start(context)
      commit_in(context, 1_000, {:goals, 1}, [goal(1, "Register")])
      assert Directory.changed(i, 1) == :ok
      assert completed(i, 1, "Register") == []
      Process.sleep(3_000)
      assert completed(i, 1, "Register") == [{1, [{"w1", :active}]}]
    end

    test "is looked for twice", %{instance: i} = context do
      start(context, again_ms: [20, 100])
      World.asked(context.world)
      :ok = Directory.changed(i, 1)
      commit_in(context, 50, {:goals, 1}, [goal(1, "Register")])
      assert eventually(fn -> completed(i, 1, "Register") != [] end)
      Process.sleep(200)
      assert readings(context) == 3
    end

    # Each reading would else be one of the store's and two of the host's.
    test "a hundred times a second costs two readings at most that wait",
         %{instance: i} = context do
      pid = start(context, again_ms: [300, 600])
      for _ <- 1..100, do: :ok = Directory.changed(i, 1)
      World.asked(context.world)
      assert map_size(:sys.get_state(pid).again) == 2
      Process.sleep(1_500)
      # Each of both once more, for the changes since the first.
      assert readings(context) in 2..4
      assert :sys.get_state(pid).again == %{}
    end

    test "is looked for after the last one, however many there are", %{instance: i} = context do
      start(context, again_ms: [200])
      for _ <- 1..5, do: Directory.changed(i, 1) == :ok and Process.sleep(30)
      commit_in(context, 130, {:goals, 1}, [goal(1, "Register")])
      Process.sleep(400)
      assert completed(i, 1, "Register") == [{1, [{"w1", :active}]}]
    end

    test "of sites without webhooks reads nothing later", %{instance: i} = context do
      start(context, again_ms: [20])
      for site_id <- 100..200, do: :ok = Directory.changed(i, site_id)
      World.asked(context.world)
      Process.sleep(100)
      assert World.asked(context.world) == []
    end

    test "of more sites than are noted takes no more memory" do
      noted = Enum.reduce(1..10_050, %{}, &Again.note(&2, &1, 60_000, 0))
      assert map_size(noted) == 10_000
    end

    defp commit_in(%{world: world}, ms, key, value) do
      spawn_link(fn ->
        Process.sleep(ms)
        World.put(world, key, value)
      end)
    end

    defp readings(context),
      do: Enum.count(World.asked(context.world), &match?({:list, 1}, &1))
  end

  describe "what may not be told" do
    defp told(i, site_id), do: Subscriptions.tells(Directory.lookup(i, site_id))

    test "is nothing, when the host says nothing of it", %{instance: i} = context do
      start(context)
      assert %{props: :all, revenue: true} = Directory.lookup(i, 1)
      assert told(i, 1) == %{props: :all, revenue: true}
    end

    test "is in force with the reading, and gone with the next", %{instance: i} = context do
      World.put(context.world, {:site, 1}, Map.merge(site(1), %{props: ["plan"], revenue: false}))
      start(context)
      assert told(i, 1) == %{props: %{"plan" => true}, revenue: false}
      assert completed(i, 1, "Signup") == [{1, [{"w1", :active}]}]

      World.put(context.world, {:site, 1}, Map.merge(site(1), %{props: []}))
      assert Directory.changed(i, 1) == :ok
      assert told(i, 1) == %{props: %{}, revenue: true}

      World.put(context.world, {:site, 1}, site(1))
      assert Directory.refresh_all(i) == :ok
      assert told(i, 1) == %{props: :all, revenue: true}
    end

    test "can be all: then there is nothing to read", %{instance: i} = context do
      start(context)
      World.put(context.world, {:site, 1}, Map.put(site(1), :events, false))
      World.asked(context.world)
      assert Directory.refresh(i, 1) == :ok
      assert Directory.lookup(i, 1) == nil
      refute {:goals, 1} in World.asked(context.world)
      World.put(context.world, {:site, 1}, Map.put(site(1), :events, true))
      assert Directory.refresh(i, 1) == :ok
      assert completed(i, 1, "Signup") == [{1, [{"w1", :active}]}]
    end

    test "stays so while the host is away, for traffic goes on", %{instance: i} = context do
      spike = [events: ["goal.completed", "traffic.spike"], spike_threshold: 3]
      World.put(context.world, :webhooks, [webhook("w1", 1, spike)])
      World.put(context.world, {:site, 1}, Map.put(site(1), :events, false))
      start(context)
      assert [{1, _webhooks}] = Directory.traffic(i)
      World.put(context.world, {:site, 1}, fn -> raise "away" end)
      capture_log(fn -> assert {:error, _} = Directory.refresh(i, 1) end)
      assert Directory.lookup(i, 1) == nil
    end

    @tag :capture_log
    test "that nobody understands leaves what was in force", %{instance: i} = context do
      World.put(context.world, {:site, 1}, Map.put(site(1), :props, ["plan"]))
      start(context)

      for wrong <- [%{props: nil}, %{props: "plan"}, %{events: nil}, %{revenue: 1}] do
        World.put(context.world, {:site, 1}, Map.merge(site(1), wrong))
        assert {:error, _} = Directory.refresh(i, 1)
        assert told(i, 1) == %{props: %{"plan" => true}, revenue: true}
      end
    end

    @tag :capture_log
    test "outlives a crash of the process", %{instance: i} = context do
      limits = %{props: ["plan"], revenue: false}
      World.put(context.world, {:site, 1}, Map.merge(site(1), limits))
      pid = start(context)
      World.put(context.world, {:site, 1}, fn -> raise "away" end)
      Process.exit(pid, :kill)
      assert eventually(fn -> match?({:error, {:raised, _}}, Directory.refresh(i, 1)) end)
      assert told(i, 1) == %{props: %{"plan" => true}, revenue: false}
    end

    test "is not copied by a lookup", %{instance: i} = context do
      names = for n <- 1..300, do: "property #{n} with a name"
      World.put(context.world, {:site, 1}, Map.put(site(1), :props, names))
      start(context)
      assert :erts_debug.flat_size(Directory.lookup(i, 1)) < 100
      assert map_size(told(i, 1).props) == 300
    end
  end
end
