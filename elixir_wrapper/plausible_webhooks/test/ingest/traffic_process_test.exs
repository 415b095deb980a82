defmodule Plausible.Webhooks.Ingest.TrafficProcessTest do
  use Plausible.Webhooks.TrafficCase, async: true

  import ExUnit.CaptureLog

  alias Plausible.Webhooks.Ingest.Directory

  describe "the process" do
    test "evaluates what the directory knows, when told", context do
      start(context, [webhook()])
      visit(context.world, 100)
      assert {:ok, %{sites: 1, fired: 1}} = Traffic.evaluate(context.instance, @t)
      assert {:ok, %{fired: 0}} = Traffic.evaluate(context.instance, @t + 1)
      World.put(context.world, :webhooks, [])
      :ok = Directory.refresh(context.instance, 1)
      assert {:ok, %{sites: 0}} = Traffic.evaluate(context.instance, @t + 2)
    end

    test "evaluates by itself", context do
      visit(context.world, 100)
      start(context, [webhook()], tick_ms: 10)
      eventually(fn -> length(World.accepted(context.world)) == 1 end)
    end

    test "says when it does not run", context do
      assert Traffic.evaluate(context.instance, @t) == {:error, :not_running}
    end

    test "reports what failed and goes on", context do
      pid = start(context, [webhook()])
      World.fail(context.world, :visitors, fn -> raise "no ClickHouse" end)
      log = capture_log(fn -> Traffic.evaluate(context.instance, @t) end)
      assert log =~ "the traffic of 1 of 1 sites could not be evaluated, site 1 for one"
      assert log =~ "no ClickHouse"
      assert Process.alive?(pid)
    end

    @tag :capture_log
    test "begins with the sites that the last round left out", context do
      for id <- 2..9, do: site(context.world, id)
      for id <- 1..9, do: visit(context.world, fn _window -> Process.sleep(30) && 100 end, id)
      webhooks = for id <- 1..9, do: webhook(id: "w#{id}", site_id: id)
      start(context, webhooks, concurrency: 1, sites_per_count: 1, round_timeout_ms: 75)
      # One or two of them per round; in the order of the directory the first would
      # use up every round.
      for round <- 1..12, do: Traffic.evaluate(context.instance, @t + round)
      assert length(World.accepted(context.world)) == 9
    end
  end

  describe "the host's notifier" do
    setup context do
      followers = [
        webhook(id: "follows", spike_threshold: :notifier),
        webhook(id: "own", spike_threshold: 5),
        webhook(id: "without", spike_threshold: nil),
        webhook(id: "other", events: ["goal.completed"], spike_threshold: :notifier),
        webhook(id: "drop", events: ["traffic.drop"], drop_threshold: :notifier),
        webhook(id: "elsewhere", site_id: 2, spike_threshold: :notifier)
      ]

      site(context.world, 2)
      start(context, followers)

      %{
        info: %{
          current_visitors: 77,
          threshold: 50,
          sources: [%{dimensions: ["Bing"], metrics: [40]}],
          pages: [%{path: "/x", visitors: 30}],
          at: ~N[2026-11-23 10:00:00]
        }
      }
    end

    test "is followed by webhooks that chose it", context do
      visit(context.world, 40)
      site = %{id: 1, domain: "ignored.test"}
      assert Traffic.change(context.traffic, :spike, site, context.info) == {:ok, 1}
      assert [%{webhook_id: "follows"} = notice] = World.accepted(context.world)

      assert %{
               "site" => %{"domain" => "site1.test"},
               "alert" => %{"started_at" => "2026-11-23T10:00:00.000Z"},
               "current_visitors" => 77,
               "threshold" => 50,
               "baseline" => %{"visitors" => 40.0, "change_percent" => 92.5},
               "top_sources" => [%{"name" => "Bing", "visitors" => 40}],
               "top_pages" => [%{"path" => "/x", "visitors" => 30}]
             } = body(notice)
    end

    test "every call sends a notice", context do
      for _ <- 1..2,
          do: assert({:ok, 1} = Traffic.change(context.traffic, :drop, 1, context.info))

      assert [%{webhook_id: "drop"}, %{webhook_id: "drop"}] = World.accepted(context.world)
    end

    test "a site without followers costs nothing", context do
      World.log(context.world)
      assert Traffic.change(context.traffic, :drop, 2, context.info) == {:ok, 0}
      assert Traffic.change(context.traffic, :spike, 3, context.info) == {:ok, 0}
      assert World.log(context.world) == []
    end

    test "gets an error, never an exception", context do
      for {wrong, what} <- [
            {%{}, :current_visitors},
            {%{current_visitors: "77"}, :current_visitors},
            {%{current_visitors: -1}, :current_visitors},
            {%{current_visitors: 1.5}, :current_visitors},
            {%{current_visitors: 77}, :threshold},
            {%{current_visitors: 77, threshold: "50"}, :threshold},
            {%{current_visitors: 77, threshold: 50, at: 5}, :at},
            {[current_visitors: 77], :info},
            {nil, :info}
          ],
          do:
            assert(
              Traffic.change(context.traffic, :spike, 1, wrong) == {:error, {:invalid, what}}
            )

      assert Traffic.change(context.traffic, :up, 1, context.info) == {:error, {:invalid, :kind}}

      assert Traffic.change(context.traffic, :spike, "1", context.info) ==
               {:error, {:invalid, :site}}

      assert Traffic.change(context.traffic, :spike, nil, context.info) ==
               {:error, {:invalid, :site}}

      rows = %{context.info | sources: [%{name: "Bing", visitors: "40"}]}
      assert {:error, {:raised, _}} = Traffic.change(context.traffic, :spike, 1, rows)
      assert World.accepted(context.world) == []

      World.fail(context.world, :deliver, fn -> {:error, :full} end)

      assert {:error, {:deliver, :full}} =
               Traffic.change(context.traffic, :spike, 1, context.info)

      World.fail(context.world, :site, fn -> Process.sleep(:infinity) end)
      traffic = Map.put(context.traffic, :site_timeout_ms, 50)
      assert {:error, :timeout} = Traffic.change(traffic, :spike, 1, context.info)
    end

    test "without tops of its own gets the host's", context do
      info = Map.take(context.info, [:current_visitors, :threshold])
      assert {:ok, 1} = Traffic.change(context.traffic, :spike, 1, info)
      assert [notice] = World.accepted(context.world)
      assert [%{"name" => "HN"}] = body(notice)["top_sources"]
    end
  end
end
