defmodule Plausible.Webhooks.TrafficTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias Plausible.Webhooks.{Directory, JsonSchema, Payload, Traffic, Webhook}

  doctest Traffic

  # Store, host and receiver in one. `fail` holds functions that are called instead
  # of what they are named after; the log says what was done, in order.
  defmodule World do
    use Agent

    def start_link(_opts),
      do:
        Agent.start_link(fn ->
          %{
            states: %{},
            visitors: %{},
            accepted: %{},
            log: [],
            fail: %{},
            webhooks: [],
            sites: %{}
          }
        end)

    def put(world, key, value), do: Agent.update(world, &Map.put(&1, key, value))
    def get(world, key), do: Agent.get(world, &Map.fetch!(&1, key))
    def fail(world, what, fun), do: Agent.update(world, &put_in(&1.fail[what], fun))
    def log(world), do: Agent.get_and_update(world, &{Enum.reverse(&1.log), %{&1 | log: []}})

    defp step(world, what, entry, fun) do
      failing = Agent.get_and_update(world, &{&1.fail[what], %{&1 | log: [entry | &1.log]}})
      if failing, do: failing.(), else: fun.()
    end

    # store
    def all_webhooks(world), do: {:ok, get(world, :webhooks)}

    def list_webhooks(world, id),
      do: {:ok, Enum.filter(get(world, :webhooks), &(&1.site_id == id))}

    def alert_states(world, ids) do
      step(world, :alert_states, {:alert_states, length(ids)}, fn ->
        {:ok, for({{id, _kind}, state} <- get(world, :states), id in ids, do: state)}
      end)
    end

    def put_alert_state(world, state) do
      step(world, :put_alert_state, {:state, state.state, state.notified_at_ms != nil}, fn ->
        Agent.update(world, &put_in(&1.states[{state.webhook_id, state.kind}], state))
      end)
    end

    # host; visitors are a function of the window
    def site(world, id), do: step(world, :site, :site, fn -> get(world, :sites)[id] end)
    def goals(_world, _id), do: []
    def alerts_allowed?(world, _id), do: step(world, :alerts_allowed?, :allowed?, fn -> true end)

    def visitors(world, id, windows) do
      step(world, :visitors, {:visitors, length(windows)}, fn ->
        {:ok, Enum.map(windows, &get(world, :visitors)[id].(&1))}
      end)
    end

    def breakdown(world, _id, _window, limit) do
      step(world, :breakdown, {:breakdown, limit}, fn ->
        {:ok, %{sources: [%{name: "HN", visitors: 9}], pages: [%{path: "/a", visitors: 8}]}}
      end)
    end

    def dashboard_url(world, id),
      do: step(world, :dashboard_url, :url, fn -> "https://p.test/#{id}" end)

    # receiver: what a store does with an id that it has
    def deliver(world, notice) do
      step(world, :deliver, {:deliver, notice.event.type}, fn ->
        Agent.update(world, &%{&1 | accepted: Map.put_new(&1.accepted, notice.id, notice)})
      end)
    end

    def accepted(world), do: world |> get(:accepted) |> Map.values()
  end

  @t 1_795_428_000_000
  @minute 60_000
  @hour 60 * @minute
  @week 7 * 24 * @hour

  setup do
    {:ok, world} = World.start_link([])
    instance = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    site(world, 1)

    context = %{
      instance: instance,
      store: {World, world},
      host: {World, world},
      deliver: &World.deliver(world, &1)
    }

    %{world: world, instance: instance, traffic: context}
  end

  defp site(world, id, start_ms \\ @t - 100 * @week) do
    site = %{id: id, domain: "site#{id}.test", timezone: "Etc/UTC", stats_start_at_ms: start_ms}
    World.put(world, :sites, Map.put(World.get(world, :sites), id, site))
    visit(world, 0, id)
  end

  # So many visitors in every window.
  defp visit(world, count, id \\ 1)

  defp visit(world, count, id) when is_integer(count),
    do: visit(world, fn _window -> count end, id)

  defp visit(world, fun, id),
    do: World.put(world, :visitors, Map.put(World.get(world, :visitors), id, fun))

  defp watching(attrs \\ []) do
    Map.merge(
      %{
        id: "w1",
        status: :active,
        events: ["traffic.spike"],
        spike_threshold: 100,
        drop_threshold: nil,
        min_interval_s: 0
      },
      Map.new(attrs)
    )
  end

  defp dropping(attrs \\ []),
    do: watching([events: ["traffic.drop"], spike_threshold: nil, drop_threshold: 20] ++ attrs)

  defp evaluate(context, webhooks \\ [watching()], now_ms \\ @t),
    do: Traffic.evaluate_sites(context.traffic, [{1, List.wrap(webhooks)}], now_ms, [self()])

  # The types of the notices that each number of visitors led to.
  defp notices(context, webhooks, visitors) do
    visitors
    |> Enum.with_index()
    |> Enum.map(fn {count, minute} ->
      visit(context.world, count)
      World.put(context.world, :accepted, %{})
      assert %{failed: []} = evaluate(context, webhooks, @t + minute * @minute)
      context.world |> World.accepted() |> Enum.map(& &1.event.type) |> Enum.sort()
    end)
  end

  defp body(notice) do
    {:ok, json} = Payload.encode(notice.event)
    assert JsonSchema.errors(notice.event.type, json) == []
    {:ok, body} = Plausible.Webhooks.Native.decode(json)
    body["data"]
  end

  describe "US1.1, US5.1: a breach gives a notice" do
    test "a spike at the threshold", context do
      assert notices(context, watching(), [99, 100]) == [[], ["traffic.spike"]]
    end

    test "a drop below the threshold", context do
      assert notices(context, dropping(), [20, 19]) == [[], ["traffic.drop"]]
    end

    test "with thresholds of 1", context do
      assert notices(context, watching(spike_threshold: 1), [0, 1, 1, 0, 1]) ==
               [[], ["traffic.spike"], [], [], ["traffic.spike"]]

      assert notices(context, dropping(id: "w2", drop_threshold: 1), [1, 0, 0, 1, 0]) ==
               [[], ["traffic.drop"], [], [], ["traffic.drop"]]
    end

    test "the windows are the last five minutes and the last twelve hours", context do
      visit(context.world, fn
        {from, to} when to == @t and to - from == 5 * @minute -> 100
        {from, to} when to == @t and to - from == 12 * @hour -> 19
        _baseline -> 50
      end)

      both = watching(events: ["traffic.spike", "traffic.drop"], drop_threshold: 20)
      assert %{fired: 2} = evaluate(context, both)
      data = Map.new(World.accepted(context.world), &{&1.event.type, body(&1)})
      assert %{"current_visitors" => 100, "window_seconds" => 300} = data["traffic.spike"]
      assert %{"current_visitors" => 19, "window_seconds" => 43_200} = data["traffic.drop"]
    end
  end

  describe "US1.2: one notice per breach" do
    test "however long it lasts and however high it goes", context do
      assert notices(context, watching(), [100, 500, 100, 9_999]) == [
               ["traffic.spike"],
               [],
               [],
               []
             ]
    end

    test "nothing on the return to normal, a notice on the next breach", context do
      assert notices(context, watching(), [100, 50, 99, 100]) ==
               [["traffic.spike"], [], [], ["traffic.spike"]]
    end

    test "traffic that hovers at the threshold is one breach", context do
      assert notices(context, watching(), [100, 99, 100, 90, 100, 89, 100]) ==
               [["traffic.spike"], [], [], [], [], [], ["traffic.spike"]]

      assert notices(context, dropping(id: "w2"), [19, 20, 19, 21, 19, 22, 19]) ==
               [["traffic.drop"], [], [], [], [], [], ["traffic.drop"]]
    end

    test "who subscribed to it is told the end, with the alert's id", context do
      wanting = watching(events: ["traffic.spike", "traffic.resolved"])
      assert notices(context, wanting, [100, 120]) == [["traffic.spike"], []]
      state = World.get(context.world, :states)[{"w1", :spike}]
      assert notices(context, wanting, [95, 89, 50]) == [[], ["traffic.resolved"], []]
      visit(context.world, 100)
      evaluate(context, wanting)
      assert World.get(context.world, :states)[{"w1", :spike}].alert_id != state.alert_id
    end

    test "each webhook and kind has a state of its own", context do
      webhooks = [
        watching(),
        watching(id: "w2", spike_threshold: 200),
        watching(id: "w3", events: ["traffic.spike", "traffic.drop"], drop_threshold: 150)
      ]

      assert notices(context, webhooks, [100, 200, 100]) ==
               [
                 ["traffic.drop", "traffic.spike", "traffic.spike"],
                 ["traffic.spike"],
                 ["traffic.drop"]
               ]
    end
  end

  describe "US1.3: the notice tells" do
    test "visitors, threshold, baseline, where from", context do
      visit(context.world, fn
        {_from, to} when to == @t -> 512
        {_from, to} -> 100 + div(@t - to, @week)
      end)

      evaluate(context)
      assert [%{webhook_id: "w1", status: :active} = notice] = World.accepted(context.world)
      data = body(notice)
      assert "alr_" <> ulid = data["alert"]["id"]
      assert notice.id == "msg_" <> ulid

      assert %{
               "site" => %{"domain" => "site1.test"},
               "alert" => %{"status" => "firing", "started_at" => "2026-11-23T10:00:00.000Z"},
               "current_visitors" => 512,
               "threshold" => 100,
               "baseline" => %{
                 "visitors" => 102.5,
                 "samples" => [101, 102, 103, 104],
                 "change_percent" => 399.5
               },
               "top_sources" => [%{"name" => "HN", "visitors" => 9}],
               "top_pages" => [%{"path" => "/a", "visitors" => 8}],
               "dashboard_url" => "https://p.test/1"
             } = data
    end

    test "a baseline of the weeks that the site has, or none", context do
      for {weeks, samples} <- [{100, 4}, {4, 3}, {2.001, 2}, {1.5, 1}, {1, 0}] do
        site(context.world, 1, @t - round(weeks * @week))
        visit(context.world, 100)
        World.put(context.world, :states, %{})
        World.put(context.world, :accepted, %{})
        evaluate(context)
        [notice] = World.accepted(context.world)

        case body(notice)["baseline"] do
          nil -> assert samples == 0
          baseline -> assert length(baseline["samples"]) == samples
        end
      end
    end

    test "no change against a baseline of nobody", context do
      visit(context.world, fn {_from, to} -> if to == @t, do: 100, else: 0 end)
      evaluate(context)
      [notice] = World.accepted(context.world)
      assert %{"visitors" => +0.0, "change_percent" => nil} = body(notice)["baseline"]
    end

    test "asks for nothing of this while there is no breach, and once when there is", context do
      visit(context.world, 99)
      evaluate(context)
      assert World.log(context.world) == [{:alert_states, 1}, :allowed?, :site, {:visitors, 1}]
      visit(context.world, 100)
      evaluate(context, [watching(), watching(id: "w2"), watching(id: "w3")])
      log = World.log(context.world)
      assert Enum.count(log, &(&1 == {:visitors, 4})) == 1
      assert Enum.count(log, &(&1 == {:breakdown, 3})) == 1
      assert Enum.count(log, &match?({:deliver, _}, &1)) == 3
    end
  end

  describe "who is left alone" do
    test "a site for which alerts are not allowed; its states stay", context do
      evaluate(context)
      visit(context.world, 100)
      evaluate(context)
      states = World.get(context.world, :states)
      World.fail(context.world, :alerts_allowed?, fn -> false end)
      visit(context.world, 0)
      assert %{failed: [], resolved: 0} = evaluate(context)
      assert World.get(context.world, :states) == states
    end

    test "a site that is gone", context do
      World.put(context.world, :sites, %{})
      assert %{fired: 0, failed: []} = evaluate(context)
    end

    test "a site too young for a drop", context do
      for {start_ms, fired} <- [{nil, 0}, {@t - 12 * @hour + 1, 0}, {@t - 12 * @hour, 1}] do
        site(context.world, 1, start_ms)
        assert %{fired: ^fired} = evaluate(context, dropping())
      end
    end

    test "a webhook without a threshold, which follows the host's notifier", context do
      visit(context.world, 1_000)
      assert %{fired: 0} = evaluate(context, watching(spike_threshold: nil))
    end

    test "a kind that the webhook did not subscribe to", context do
      visit(context.world, 5)
      assert %{fired: 0} = evaluate(context, watching(drop_threshold: 20))
    end
  end

  describe "the minimum interval" do
    test "holds up a second notice until it is over", context do
      webhook = watching(min_interval_s: 180)

      assert notices(context, webhook, [100, 0, 100, 100, 100]) ==
               [["traffic.spike"], [], [], ["traffic.spike"], []]
    end

    test "a breach that is over by then gives none", context do
      webhook = watching(min_interval_s: 180)
      assert notices(context, webhook, [100, 0, 100, 0, 0]) == [["traffic.spike"], [], [], [], []]
    end

    test "a clock that was set back holds up nothing", context do
      webhook = watching(min_interval_s: 3_600)
      visit(context.world, 100)
      evaluate(context, webhook, @t + 10 * @hour)
      visit(context.world, 0)
      evaluate(context, webhook, @t)
      visit(context.world, 100)
      assert %{fired: 1} = evaluate(context, webhook, @t + @minute)
    end
  end

  describe "after a crash" do
    # Everything that is done for one notice, killed at each step in turn.
    for step <- [:visitors, :put_alert_state, :deliver], nth <- 1..2 do
      test "at call #{nth} of #{step} there is one notice, not none, not two", context do
        visit(context.world, 100)
        counter = :counters.new(1, [])

        die = fn ->
          :counters.add(counter, 1, 1)

          if :counters.get(counter, 1) == unquote(nth),
            do: Process.exit(self(), :kill),
            else: :not_this_time
        end

        World.fail(context.world, unquote(step), fn ->
          if die.() == :not_this_time, do: {:error, :still_away}
        end)

        evaluate(context)
        World.put(context.world, :fail, %{})
        assert %{failed: []} = evaluate(context, [watching()], @t + @minute)
        assert %{fired: 0, failed: []} = evaluate(context, [watching()], @t + 2 * @minute)
        assert [%{event: %{type: "traffic.spike"}}] = World.accepted(context.world)
      end
    end

    test "between acceptance and its record the same delivery is accepted again", context do
      visit(context.world, 100)
      # The second write is the record of the notice.
      counter = :counters.new(1, [])

      World.fail(context.world, :put_alert_state, fn ->
        :counters.add(counter, 1, 1)
        if :counters.get(counter, 1) == 2, do: {:error, :away}, else: :ok
      end)

      # What the failing first write would have stored.
      World.put(context.world, :states, %{
        {"w1", :spike} => %{
          webhook_id: "w1",
          kind: :spike,
          state: :firing,
          alert_id: "alr_01KARZ8V9T4C7Q2M5N6P8R0S1T",
          changed_at_ms: @t - @minute,
          notified_at_ms: nil
        }
      })

      :counters.add(counter, 1, 1)
      assert %{fired: 0, failed: [{1, {:store, :away}}]} = evaluate(context)
      World.put(context.world, :fail, %{})
      assert %{fired: 1} = evaluate(context, [watching()], @t + @minute)
      assert [%{id: "msg_01KARZ8V9T4C7Q2M5N6P8R0S1T"} = notice] = World.accepted(context.world)
      assert body(notice)["alert"]["started_at"] == "2026-11-23T09:59:00.000Z"
    end

    test "a breach on record is told even if it is over by now", context do
      visit(context.world, 100)
      World.fail(context.world, :deliver, fn -> {:error, :full} end)
      assert %{failed: [{1, {:deliver, :full}}]} = evaluate(context)
      World.put(context.world, :fail, %{})
      wanting = watching(events: ["traffic.spike", "traffic.resolved"])
      assert notices(context, wanting, [0, 0, 0]) == [["traffic.spike"], ["traffic.resolved"], []]
    end

    test "nothing is sent before it is on record", context do
      visit(context.world, 100)
      World.fail(context.world, :put_alert_state, fn -> {:error, :away} end)
      assert %{failed: [{1, {:store, :away}}]} = evaluate(context)
      assert World.accepted(context.world) == []
    end

    test "an end that could not be sent is sent again, and is not forgotten", context do
      wanting = watching(events: ["traffic.spike", "traffic.resolved"])
      assert notices(context, wanting, [100]) == [["traffic.spike"]]
      World.fail(context.world, :deliver, fn -> raise "no" end)
      visit(context.world, 0)
      assert %{failed: [{1, {:deliver, {:raised, "no"}}}]} = evaluate(context, wanting)
      World.put(context.world, :fail, %{})
      assert notices(context, wanting, [0, 0]) == [["traffic.resolved"], []]
    end
  end

  describe "a host that fails" do
    test "costs the notice its baseline, not its existence", context do
      visit(context.world, 100)
      calls = :counters.new(1, [])

      World.fail(context.world, :visitors, fn ->
        :counters.add(calls, 1, 1)
        if :counters.get(calls, 1) == 1, do: {:ok, [100]}, else: {:error, :timeout}
      end)

      World.fail(context.world, :breakdown, fn -> raise "no" end)
      World.fail(context.world, :dashboard_url, fn -> exit(:no) end)
      assert %{fired: 1, incomplete: 1, failed: []} = evaluate(context)
      [notice] = World.accepted(context.world)

      assert %{"baseline" => nil, "top_sources" => [], "top_pages" => [], "dashboard_url" => nil} =
               body(notice)
    end

    test "for one site spoils that site only", context do
      for id <- 2..6, do: site(context.world, id)
      for id <- 1..6, do: visit(context.world, 100, id)
      visit(context.world, fn _window -> raise "site 2" end, 2)
      visit(context.world, fn _window -> exit(:site_3) end, 3)
      visit(context.world, fn _window -> Process.sleep(:infinity) end, 4)
      visit(context.world, fn _window -> Process.exit(self(), :kill) end, 5)
      sites = for id <- 1..6, do: {id, [watching(id: "w#{id}")]}
      traffic = Map.put(context.traffic, :site_timeout_ms, 1_500)
      summary = Traffic.evaluate_sites(traffic, sites, @t, [self()])
      assert summary.fired == 2
      assert Enum.sort(Enum.map(summary.failed, &elem(&1, 0))) == [2, 3, 4, 5]
      assert {4, :timeout} in summary.failed
    end

    test "never takes longer than a round", context do
      visit(context.world, fn _window -> Process.sleep(:infinity) end)
      for id <- 2..40, do: site(context.world, id)
      for id <- 2..40, do: visit(context.world, fn _window -> Process.sleep(:infinity) end, id)
      sites = for id <- 1..40, do: {id, [watching(id: "w#{id}")]}
      traffic = Map.merge(context.traffic, %{site_timeout_ms: 50, round_timeout_ms: 200})
      {us, summary} = :timer.tc(fn -> Traffic.evaluate_sites(traffic, sites, @t, []) end)
      assert us < 2_000_000
      reasons = Enum.frequencies_by(summary.failed, &elem(&1, 1))
      assert reasons[:timeout] + reasons[:no_time_left] == 40
      assert reasons[:no_time_left] > 10
    end

    test "a store that is away fails every site and sends nothing", context do
      visit(context.world, 100)
      World.fail(context.world, :alert_states, fn -> {:error, :away} end)
      assert %{fired: 0, failed: [{1, {:store, :away}}]} = evaluate(context)
      assert World.log(context.world) == [{:alert_states, 1}]
    end

    test "a host that answers nonsense is a failure", context do
      for nonsense <- [{:ok, []}, {:ok, [1, 2]}, :what, {:ok, nil}] do
        World.fail(context.world, :visitors, fn -> nonsense end)
        assert %{fired: 0, failed: [{1, _reason}]} = evaluate(context)
      end
    end
  end

  test "a webhook that we disabled gets its notice as one to be kept", context do
    visit(context.world, 100)
    evaluate(context, watching(status: :disabled))
    assert [%{status: :disabled}] = World.accepted(context.world)
  end

  test "many states are asked for in portions", context do
    webhooks = for n <- 1..1_200, do: watching(id: "w#{n}")
    evaluate(context, webhooks)

    assert [{:alert_states, 500}, {:alert_states, 500}, {:alert_states, 200} | _] =
             World.log(context.world)
  end

  describe "the process" do
    defp start(context, webhooks, opts \\ []) do
      World.put(context.world, :webhooks, webhooks)
      opts = Keyword.merge(Map.to_list(context.traffic), opts)
      start_supervised!({Directory, Keyword.take(opts, [:instance, :store, :host])})
      start_supervised!({Traffic, Keyword.put_new(opts, :tick_ms, :infinity)})
    end

    defp webhook(attrs \\ []) do
      struct!(
        %Webhook{
          id: "w1",
          site_id: 1,
          events: ["traffic.spike"],
          spike_threshold: 100,
          traffic_min_interval_s: 0
        },
        attrs
      )
    end

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
      assert eventually(fn -> length(World.accepted(context.world)) == 1 end)
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
    test "comes first to the sites that it did not get to", context do
      for id <- 2..9, do: site(context.world, id)
      for id <- 1..9, do: visit(context.world, fn _window -> Process.sleep(30) && 100 end, id)
      webhooks = for id <- 1..9, do: webhook(id: "w#{id}", site_id: id)
      start(context, webhooks, concurrency: 1, round_timeout_ms: 75)
      # One or two of them per round; in the order of the directory the first would
      # use up every round.
      for round <- 1..12, do: Traffic.evaluate(context.instance, @t + round)
      assert length(World.accepted(context.world)) == 9
    end
  end

  defp eventually(fun, tries \\ 200) do
    cond do
      fun.() -> true
      tries == 0 -> false
      true -> Process.sleep(10) && eventually(fun, tries - 1)
    end
  end

  describe "the host's notifier" do
    setup context do
      followers = [
        webhook(id: "follows", spike_threshold: nil),
        webhook(id: "own", spike_threshold: 5),
        webhook(id: "other", events: ["goal.completed"], spike_threshold: nil),
        webhook(id: "drop", events: ["traffic.drop"], spike_threshold: nil),
        webhook(id: "elsewhere", site_id: 2, spike_threshold: nil)
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

    test "is followed by who has no threshold of their own", context do
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

    test "each call is a notice; the notifier knows when to be silent", context do
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
      assert {:error, {:raised, _}} = Traffic.change(context.traffic, :spike, 1, %{})
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
