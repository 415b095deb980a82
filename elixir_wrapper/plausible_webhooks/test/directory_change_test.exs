defmodule Plausible.Webhooks.DirectoryChangeTest do
  # A change that others see later than it is told, and what may not be told at all.
  use Plausible.Webhooks.Test.DirectoryCase, async: true

  alias Plausible.Webhooks.Directory.Again

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
end
