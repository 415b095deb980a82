defmodule Plausible.Webhooks.Ingest.DirectoryChangeTest do
  # Changes that are announced before their commit, and limits on what may be sent.
  use Plausible.Webhooks.Test.DirectoryCase, async: true

  alias Plausible.Webhooks.Ingest.Directory.Rereads

  describe "a change that is announced inside its transaction" do
    test "is found by the later readings, one for each delay", %{instance: i} = context do
      pid = start(context, reread_ms: [20, 100])
      World.asked(context.world)
      reading = :counters.new(1, [])

      # The first reading sees the state before the commit.
      World.put(context.world, {:goals, 1}, fn ->
        :counters.add(reading, 1, 1)
        if :counters.get(reading, 1) == 1, do: [goal(1, "Signup")], else: [goal(1, "Register")]
      end)

      assert Directory.changed(i, 1) == :ok
      assert completed(i, 1, "Register") == []
      eventually(fn -> completed(i, 1, "Register") != [] end)
      eventually(fn -> settled?(pid) end)
      assert Enum.count(World.asked(context.world), &match?({:list, 1}, &1)) == 3
    end

    test "is scheduled once, and once more for later changes" do
      now_ms = System.monotonic_time(:millisecond)
      note = fn noted -> Rereads.note(noted, 1, 5, now_ms) end
      noted = Enum.reduce(1..100, %{}, fn _n, noted -> note.(noted) end)
      assert_receive {:changed, 1, 5}
      noted = Rereads.due(noted, 1, 5, now_ms)
      # For the 99 others.
      assert_receive {:changed, 1, 5}
      assert Rereads.due(noted, 1, 5, now_ms) == %{}
      refute_receive {:changed, 1, 5}, 20
    end

    test "of sites without webhooks reads nothing later", %{instance: i} = context do
      pid = start(context, reread_ms: [20])
      for site_id <- 100..200, do: :ok = Directory.changed(i, site_id)
      World.asked(context.world)
      eventually(fn -> settled?(pid) end)
      assert World.asked(context.world) == []
    end

    test "of more sites than are noted takes no more memory" do
      noted = Enum.reduce(1..10_050, %{}, &Rereads.note(&2, &1, 60_000, 0))
      assert map_size(noted) == 10_000
    end

    # No later reading is to come, and none is under way.
    defp settled?(pid),
      do: match?(%{rereads: r, running: r} when r == %{}, :sys.get_state(pid, 60_000))
  end

  describe "what may not be sent" do
    defp told(i, site_id), do: Subscriptions.tells(Directory.lookup(i, site_id))

    test "is nothing if the host sets no limits", %{instance: i} = context do
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
    test "that is malformed leaves the old limits in force", %{instance: i} = context do
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
      eventually(fn -> match?({:error, {:raised, _}}, Directory.refresh(i, 1)) end)
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
