defmodule Plausible.Webhooks.Ingest.HooksTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API

  @moduletag :capture_log

  describe "an event" do
    test "goes to every webhook that wants it, and to no other", context do
      context = start!(context)
      webhook!(context, "/all")
      webhook!(context, "/this", %{goals: [12]})
      webhook!(context, "/that", %{goals: [13]})
      webhook!(context, "/off", %{enabled: false})
      webhook!(context, "/traffic", %{events: ["traffic.spike"], spike_threshold: 10})

      for _ <- 1..3,
          do: API.events_buffered(context.name, [event(), event(2), event(1, %{name: "Other"})])

      settled!(context)
      for path <- ["/all", "/this"], do: assert(HttpReceiver.count(context.receiver, path) == 3)
      assert HttpReceiver.count(context.receiver) == 6
      # Each completion is one POST, with an id of its own.
      assert MapSet.size(HttpReceiver.ids(context.receiver)) == 6
    end

    test "causes no more deliveries than it may, and the rest is counted", context do
      context = start!(context, deliveries_per_event_max: 5, observers: [{Observer, self()}])
      for n <- 1..3, do: webhook!(context, "/hook#{n}")
      goals = for id <- 1..4, do: TestHost.event_goal(id, "Signup")
      TestHost.put(context.host, {:goals, 1}, goals)
      API.goals_changed(context.name, 1)

      API.events_buffered(context.name, [event(), event(2)])
      eventually(fn -> HttpReceiver.count(context.receiver) == 3 end)
      assert_receive {:deliveries_dropped, %{count: 9}, %{reason: :fan_out}}
      assert %{pushed: 3, dropped_by: %{fan_out: 9}} = API.stats(context.name)
    end

    test "that completes many goals is one delivery of each, whole", context do
      context = start!(context)
      webhook!(context, "/hook")
      goals = for id <- 1..120, do: TestHost.event_goal(id, "Signup")
      TestHost.put(context.host, {:goals, 1}, goals)
      API.goals_changed(context.name, 1)
      API.events_buffered(context.name, [event()])
      requests = HttpReceiver.await(context.receiver, "/hook", 120)
      assert Enum.all?(requests, & &1.verified)

      ids =
        for request <- requests do
          assert Plausible.Webhooks.JsonSchema.errors("goal.completed", request.body) == []
          {:ok, %{"data" => %{"goal" => goal}}} = Plausible.Webhooks.Native.decode(request.body)
          goal["id"]
        end

      assert Enum.sort(ids) == Enum.to_list(1..120)
      assert MapSet.size(HttpReceiver.ids(context.receiver)) == 120
    end

    @tag start: []
    test "holds what the host allows, and so do samples", context do
      goal = %{TestHost.event_goal(12, "Signup") | custom_props: %{"plan" => "growth"}}
      TestHost.put(context.host, {:goals, 1}, [%{goal | currency: "EUR"}])
      site = %{id: 1, domain: "site1.example", timezone: "Etc/UTC", stats_start_at_ms: nil}

      told = fn limits ->
        TestHost.put(context.host, {:site, 1}, Map.merge(site, limits))
        API.goals_changed(context.name, 1)
        before = HttpReceiver.count(context.receiver)

        revenue = %{revenue_reporting_amount: "49.00", revenue_reporting_currency: "EUR"}
        keys = %{"meta.key": ["plan", "url"], "meta.value": ["growth", "/x"]}
        API.events_buffered(context.name, [event(1, Map.merge(revenue, keys))])

        {:ok, %{body: sample}} = sample(context, context.webhook.id, "goal.completed")

        for body <- [body_after(context, before), sample], body != nil do
          {:ok, %{"data" => %{"completion" => completion} = data}} =
            Plausible.Webhooks.Native.decode(body)

          {data["goal"]["id"], completion["props"], completion["revenue"] != nil}
        end
      end

      all = %{"plan" => "growth", "url" => "/x"}
      own = %{"plan" => "growth"}
      assert told.(%{}) == [{12, all, true}, {12, own, true}]
      assert told.(%{props: ["plan"], revenue: false}) == [{12, own, false}, {12, own, false}]
      assert told.(%{props: ["url"]}) == [{12, %{"url" => "/x"}, true}, {12, %{}, true}]
      # Nothing of the site's own: an invented goal shows whether the endpoint works.
      assert [{0, _invented, true}] = told.(%{events: false})
      assert told.(%{}) == [{12, all, true}, {12, own, true}]
    end

    defp body_after(context, count) do
      settled!(context)

      if HttpReceiver.count(context.receiver) > count,
        do: List.last(HttpReceiver.requests(context.receiver, "/hook")).body
    end

    test "that was dropped leaves its scroll goal to the next event of the visit", context do
      scroll = %{TestHost.event_goal(13, "Read") | event_name: nil, page_path: "/post"}
      TestHost.put(context.host, {:goals, 1}, [%{scroll | scroll_threshold: 50}])
      context = start!(context, outbox_max: 2)
      for path <- ["/a", "/b"], do: webhook!(context, path)
      engagement = %{name: "engagement", pathname: "/post", scroll_depth: 70, session_id: 9}
      reads = fn -> API.events_buffered(context.name, [event(1, engagement)]) end

      outbox = Process.whereis(Instance.process(context.instance, :outbox))
      :sys.suspend(outbox)
      full = for _ <- 1..2, do: delivery(%{id: "wh_none", site_id: 2}, manual: true)
      Outbox.push(context.instance, full)
      reads.()
      assert API.stats(context.name).dropped == 2
      :sys.resume(outbox)
      eventually(fn -> Outbox.size(context.instance) == 0 end)
      reads.()
      for path <- ["/a", "/b"], do: HttpReceiver.await(context.receiver, path, 1)
      # Once for the visit.
      reads.()
      assert %{dropped: 2, pushed: 4} = API.stats(context.name)
    end

    test "makes no body for which the Outbox has no room", context do
      context = start!(context, outbox_max: 1)
      webhook!(context, "/hook")
      :sys.suspend(Instance.process(context.instance, :outbox))
      for _ <- 1..3, do: API.events_buffered(context.name, [event()])
      assert %{pushed: 1, dropped: 2} = API.stats(context.name)
      :sys.resume(Instance.process(context.instance, :outbox))
    end

    test "that is malformed affects no other event", context do
      context = start!(context, observers: [{Observer, self()}])
      webhook!(context, "/hook")

      garbage = [
        nil,
        1,
        %{},
        %{clickhouse_event: nil},
        %{clickhouse_event: %{site_id: nil}},
        %{clickhouse_event: %{site_id: 1}},
        %{clickhouse_event: %{site_id: "1", name: 5}},
        %{clickhouse_event: %{site_id: self(), name: "Signup"}},
        event(1, %{"meta.key": :garbage, "meta.value": 7}),
        event(1, %{name: <<255, 254>>}),
        event(1, %{timestamp: "yesterday", hostname: <<255>>, referrer: {1, 2}}),
        event(1, %{revenue_reporting_amount: make_ref(), revenue_reporting_currency: "EUR"})
      ]

      assert :ok = API.events_buffered(context.name, garbage ++ [event()])
      assert :ok = API.events_buffered(context.name, [event() | :improper])
      assert :ok = API.events_buffered(context.name, :not_a_list)
      assert :ok = API.events_buffered(:no_such_instance, [event()])
      assert :ok = API.events_buffered(nil, [event()])
      assert :ok = API.events_buffered("name", [event()])

      # Those that complete the goal arrive, whatever else is wrong with them.
      requests = HttpReceiver.await(context.receiver, "/hook", 2)
      assert Enum.all?(requests, & &1.verified)
    end

    test "of another shape is counted", context do
      context = start!(context)
      webhook!(context, "/hook")
      as_strings = %{"clickhouse_event" => %{"site_id" => 1, "name" => "Signup"}}
      site_as_text = put_in(event().clickhouse_event.site_id, "1")
      API.events_buffered(context.name, [as_strings, site_as_text, %{}, nil, event()])
      API.events_buffered(context.name, %{})
      HttpReceiver.await(context.receiver, "/hook", 1)
      assert %{dropped_by: %{malformed_event: 5}} = API.stats(context.name)
    end

    test "that raises is counted, and its request goes on", context do
      context = start!(context, observers: [{Observer, self()}])
      webhook!(context, "/hook")
      # An event whose fields cannot even be looked at.
      broken = %{
        clickhouse_event: %{
          site_id: 1,
          name: "Signup",
          "meta.key": ["a" | "b"],
          "meta.value": ["c" | "d"],
          timestamp: %{__struct__: NaiveDateTime}
        }
      }

      assert :ok = API.events_buffered(context.name, [broken, event()])
      HttpReceiver.await(context.receiver, "/hook", 1)
      assert_receive {:deliveries_dropped, %{count: 1}, %{reason: :hook_error}}
      assert API.stats(context.name).dropped == 1
    end

    test "costs next to nothing for a site without webhooks", context do
      context = start!(context)
      events = List.duplicate(event(2), 1_000)
      API.events_buffered(context.name, events)
      {:reductions, before} = Process.info(self(), :reductions)
      API.events_buffered(context.name, events)
      {:reductions, now} = Process.info(self(), :reductions)
      assert (now - before) / 1_000 < 200
    end
  end

  describe "a change of goals" do
    test "is in force at once", context do
      context = start!(context)
      webhook!(context, "/hook")
      TestHost.put(context.host, {:goals, 1}, [TestHost.event_goal(13, "Purchase")])
      assert :ok = API.goals_changed(context.name, 1)
      API.events_buffered(context.name, [event(), event(1, %{name: "Purchase"})])
      [request] = HttpReceiver.await(context.receiver, "/hook", 1)
      assert request.body =~ "Purchase"
      settled!(context)
      assert HttpReceiver.count(context.receiver) == 1
      assert :ok = API.goals_changed(:no_such_instance, 1)
      assert :ok = API.goals_changed(context.name, :garbage)
    end
  end

  # The host calls us within a transaction of its own: others see the change later.
  test "goals that are announced before their commit apply soon after",
       context do
    context = start!(context)
    webhook!(context, "/hook")
    :ok = API.goals_changed(context.name, 1)
    TestHost.put(context.host, {:goals, 1}, [TestHost.event_goal(13, "Purchase")])

    eventually(fn ->
      API.events_buffered(context.name, [event(1, %{name: "Purchase"})])
      HttpReceiver.count(context.receiver) > 0
    end)
  end

  describe "traffic" do
    test "found by the host goes to webhooks without a threshold of their own", context do
      context = start!(context)
      webhook!(context, "/own", %{events: ["traffic.spike"], spike_threshold: 5})

      attrs = %{events: ["traffic.spike"], spike_threshold: "notifier"}
      webhook!(context, "/follows", attrs)

      info = %{current_visitors: 512, threshold: 300, sources: [], pages: []}
      assert :ok = API.traffic_change(context.name, :spike, 1, info)
      [request] = HttpReceiver.await(context.receiver, "/follows", 1)

      assert {:ok, %{"type" => "traffic.spike", "data" => data}} =
               Plausible.Webhooks.Native.decode(request.body)

      assert %{"current_visitors" => 512, "threshold" => 300} = data
      assert HttpReceiver.count(context.receiver, "/own") == 0

      assert :ok = API.traffic_change(context.name, :spike, 1, %{garbage: true})
      assert :ok = API.traffic_change(context.name, :sideways, 1, info)
      assert :ok = API.traffic_change(:no_such_instance, :spike, 1, info)
    end

    test "is evaluated here, and a notice that was accepted is not sent twice", context do
      context = start!(context, traffic: [tick_ms: :infinity])
      webhook!(context, "/spike", %{events: ["traffic.spike"], spike_threshold: 5})
      TestHost.put(context.host, :visitors, fn -> {:ok, [9]} end)
      now_ms = System.system_time(:millisecond)
      assert {:ok, %{fired: 1}} = Plausible.Webhooks.Ingest.Traffic.evaluate(context.name, now_ms)
      [request] = HttpReceiver.await(context.receiver, "/spike", 1)
      id = request.headers["webhook-id"]
      await_state(context, id, :delivered)

      event = %Plausible.Webhooks.Event{
        type: "traffic.spike",
        site_id: 1,
        occurred_at_ms: now_ms,
        data: %{}
      }

      notice = %{id: id, webhook_id: "wh_x", status: :active, event: event}
      assert :ok = Plausible.Webhooks.Ingest.Hooks.deliver_notice(context.name, notice)
      settled!(context)
      assert HttpReceiver.count(context.receiver) == 1
    end
  end
end
