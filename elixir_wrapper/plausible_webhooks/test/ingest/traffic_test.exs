defmodule Plausible.Webhooks.Ingest.TrafficTest do
  use Plausible.Webhooks.TrafficCase, async: true

  doctest Traffic.Rules

  describe "US1.1, US5.1: a breach gives a notice" do
    test "a spike at the threshold", context do
      assert notices(context, watching(), [99, 100]) == [[], ["traffic.spike"]]
    end

    test "a drop below the threshold", context do
      assert notices(context, dropping(), [20, 19]) == [[], ["traffic.drop"]]
    end

    test "with thresholds of 1", context do
      assert notices(context, watching(spike_threshold: 1), [0, 1, 1, {0, 11}, 1]) ==
               [[], ["traffic.spike"], [], [], ["traffic.spike"]]

      assert notices(context, dropping(id: "w2", drop_threshold: 1), [1, 0, 0, {2, 11}, 0]) ==
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
      assert notices(context, watching(), [100, {50, 11}, 99, 100]) ==
               [["traffic.spike"], [], [], ["traffic.spike"]]
    end

    test "traffic that hovers at the threshold is one breach", context do
      spike = notices(context, watching(), [100, 99, {90, 20}, 100, {89, 10}, 90, {89, 11}, 100])
      assert spike == [["traffic.spike"], [], [], [], [], [], [], ["traffic.spike"]]

      drop =
        notices(context, dropping(id: "w2"), [19, 20, {23, 20}, 19, {24, 10}, 23, {24, 11}, 19])

      assert drop == [["traffic.drop"], [], [], [], [], [], [], ["traffic.drop"]]
    end

    # Random visitors per five minutes, over 30 days.
    test "traffic near its threshold gives at most two notices a day", _context do
      :rand.seed(:exsss, {1, 2, 3})

      for {mean, threshold} <- [{20, 25}, {100, 110}, {10, 12}, {500, 510}, {3, 5}, {20, 30}] do
        fired = simulate(mean, threshold, fn _minute -> 1 end)
        per_day = Enum.frequencies_by(fired, &div(&1, 1_440))
        assert Enum.all?(per_day, fn {_day, count} -> count <= 2 end), "#{mean}, #{threshold}"
      end
    end

    test "traffic far from its threshold is told within the minute, and nothing else", _context do
      :rand.seed(:exsss, {1, 2, 3})
      surges = for day <- 0..29, do: day * 1_440 + 600
      surge = fn minute -> if rem(minute, 1_440) in 600..630, do: 10, else: 1 end

      for {mean, threshold} <- [{20, 60}, {100, 200}, {500, 800}] do
        fired = simulate(mean, threshold, surge)
        assert length(fired) == 30
        # The window is five minutes long: the threshold is crossed within it.
        for {at, began} <- Enum.zip(fired, surges), do: assert((at - began) in 0..3)
      end
    end

    test "webhooks that subscribed get the end, with the alert's id", context do
      wanting = watching(events: ["traffic.spike", "traffic.resolved"])
      assert notices(context, wanting, [100, 120]) == [["traffic.spike"], []]
      state = World.get(context.world, :states)[{"w1", :spike}]
      assert notices(context, wanting, [95, {89, 11}, 50]) == [[], ["traffic.resolved"], []]
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

      assert notices(context, webhooks, [100, {200, 11}, 100]) ==
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

      assert World.log(context.world) == [
               {:alert_states, 1},
               {:alert_sites, 1},
               {:visitors, 1, 1}
             ]

      visit(context.world, 100)
      evaluate(context, [watching(), watching(id: "w2"), watching(id: "w3")])
      log = World.log(context.world)
      assert Enum.count(log, &(&1 == {:visitors, 1, 4})) == 1
      assert Enum.count(log, &(&1 == {:breakdown, 3})) == 1
      assert Enum.count(log, &match?({:deliver, _}, &1)) == 3
    end
  end

  describe "no notice" do
    test "a site for which alerts are not allowed; its states stay", context do
      evaluate(context)
      visit(context.world, 100)
      evaluate(context)
      states = World.get(context.world, :states)
      World.fail(context.world, :alert_sites, fn -> [] end)
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

    test "a webhook that follows the host's notifier", context do
      visit(context.world, 1_000)
      assert %{fired: 0} = evaluate(context, watching(spike_threshold: :notifier))
      assert %{fired: 0} = evaluate(context, watching(spike_threshold: nil))
    end

    test "a kind that the webhook did not subscribe to", context do
      visit(context.world, 5)
      assert %{fired: 0} = evaluate(context, watching(drop_threshold: 20))
    end
  end

  describe "the minimum interval" do
    test "holds up a second notice until it is over", context do
      webhook = watching(min_interval_s: 13 * 60)

      assert notices(context, webhook, [100, {0, 11}, 100, 100, 100]) ==
               [["traffic.spike"], [], [], ["traffic.spike"], []]
    end

    test "a breach that is over by then gives none", context do
      webhook = watching(min_interval_s: 13 * 60)

      assert notices(context, webhook, [100, {0, 11}, 100, 0, 0]) ==
               [["traffic.spike"], [], [], [], []]
    end

    test "a clock that was set back holds up nothing", context do
      webhook = watching(min_interval_s: 3_600)
      visit(context.world, 100)
      evaluate(context, webhook, @t + 10 * @hour)
      visit(context.world, 0)
      for minute <- 0..10, do: evaluate(context, webhook, @t + minute * @minute)
      visit(context.world, 100)
      assert %{fired: 1} = evaluate(context, webhook, @t + 11 * @minute)
    end
  end

  # The minutes in which a webhook with the default interval got a spike.
  defp simulate(mean, threshold, factor) do
    limits = %{min_interval_s: %Plausible.Webhooks.Webhook{}.traffic_min_interval_s}
    first = {[], List.duplicate(div(mean, 5), 5), nil}

    {fired, _window, _state} =
      Enum.reduce(0..(30 * 1_440 - 1), first, fn minute, {fired, window, state} ->
        window = [poisson(mean / 5 * factor.(minute)) | Enum.take(window, 4)]
        limits = Map.put(limits, :now_ms, @t + minute * @minute)

        case Traffic.Rules.decide(:spike, threshold, Enum.sum(window), state, limits) do
          :nothing -> {fired, window, state}
          :fire -> {[minute | fired], window, told(threshold, limits.now_ms)}
          {:note, changes} -> {fired, window, Map.merge(state, changes)}
          :resolve -> {fired, window, %{state | state: :armed, calm_since_ms: nil}}
        end
      end)

    Enum.reverse(fired)
  end

  defp told(threshold, now_ms) do
    times = Map.new([:changed_at_ms, :notified_at_ms, :seen_at_ms], &{&1, now_ms})
    Map.merge(times, %{state: :firing, threshold: threshold, calm_since_ms: nil})
  end

  # By the normal distribution where there are many.
  defp poisson(mean) when mean > 30,
    do: max(round(mean + :math.sqrt(mean) * :rand.normal()), 0)

  defp poisson(mean), do: poisson(:math.exp(-mean), 1.0, -1)
  defp poisson(limit, product, count) when product <= limit, do: max(count, 0)
  defp poisson(limit, product, count), do: poisson(limit, product * :rand.uniform(), count + 1)
end
