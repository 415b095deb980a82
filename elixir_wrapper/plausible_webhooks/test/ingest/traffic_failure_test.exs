defmodule Plausible.Webhooks.Ingest.TrafficFailureTest do
  use Plausible.Webhooks.TrafficCase, async: true

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
          visitors: 120,
          threshold: 100,
          seen_at_ms: nil,
          calm_since_ms: nil,
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

    test "a recorded breach is sent even if it is over", context do
      visit(context.world, 100)
      World.fail(context.world, :deliver, fn -> {:error, :full} end)
      assert %{failed: [{1, {:deliver, :full}}]} = evaluate(context)
      World.put(context.world, :fail, %{})
      wanting = watching(events: ["traffic.spike", "traffic.resolved"])

      assert notices(context, wanting, [0, {0, 11}, 0]) ==
               [["traffic.spike"], ["traffic.resolved"], []]
    end

    test "nothing is sent before it is on record", context do
      visit(context.world, 100)
      World.fail(context.world, :put_alert_state, fn -> {:error, :away} end)
      assert %{failed: [{1, {:store, :away}}]} = evaluate(context)
      assert World.accepted(context.world) == []
    end

    test "an end that could not be sent is sent again, and is not forgotten", context do
      wanting = watching(events: ["traffic.spike", "traffic.resolved"])
      assert notices(context, wanting, [100, {0, 10}]) == [["traffic.spike"], []]
      World.fail(context.world, :deliver, fn -> raise "no" end)
      later = &evaluate(context, wanting, @t + &1 * @minute)
      assert %{failed: [{1, {:deliver, {:raised, "no"}}}]} = later.(11)
      World.put(context.world, :fail, %{})
      assert %{resolved: 1} = later.(12)
      assert %{resolved: 0} = later.(13)
    end
  end

  describe "a host that fails" do
    test "gives a notice without baseline", context do
      visit(context.world, 100)
      calls = :counters.new(1, [])

      World.fail(context.world, :visitors, fn ->
        :counters.add(calls, 1, 1)
        if :counters.get(calls, 1) == 1, do: {:ok, %{1 => [100]}}, else: {:error, :timeout}
      end)

      World.fail(context.world, :breakdown, fn -> raise "no" end)
      World.fail(context.world, :dashboard_url, fn -> exit(:no) end)
      assert %{fired: 1, incomplete: 1, failed: []} = evaluate(context)
      [notice] = World.accepted(context.world)

      assert %{"baseline" => nil, "top_sources" => [], "top_pages" => [], "dashboard_url" => nil} =
               body(notice)
    end

    test "to count some sites affects those only", context do
      for id <- 2..6, do: site(context.world, id)
      for id <- 1..6, do: visit(context.world, 100, id)
      visit(context.world, fn _window -> raise "site 2" end, 2)
      visit(context.world, fn _window -> exit(:site_3) end, 3)
      visit(context.world, fn _window -> Process.sleep(:infinity) end, 4)
      visit(context.world, fn _window -> Process.exit(self(), :kill) end, 5)
      sites = for id <- 1..6, do: {id, [watching(id: "w#{id}")]}
      traffic = Map.merge(context.traffic, %{site_timeout_ms: 1_500, sites_per_count: 1})
      summary = Traffic.Round.evaluate(traffic, sites, @t, [self()])
      assert summary.fired == 2
      assert Enum.sort(Enum.map(summary.failed, &elem(&1, 0))) == [2, 3, 4, 5]
      assert {4, :timeout} in summary.failed
    end

    test "never takes longer than a round", context do
      visit(context.world, fn _window -> Process.sleep(:infinity) end)
      for id <- 2..40, do: site(context.world, id)
      for id <- 2..40, do: visit(context.world, fn _window -> Process.sleep(:infinity) end, id)
      sites = for id <- 1..40, do: {id, [watching(id: "w#{id}")]}
      limits = %{site_timeout_ms: 50, round_timeout_ms: 200, sites_per_count: 1}
      traffic = Map.merge(context.traffic, limits)
      summary = Traffic.Round.evaluate(traffic, sites, @t, [])
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
      for counts <- [[], [1, 2], [-1], nil],
          do: nonsense(context, :visitors, {:ok, %{1 => counts}})

      for nonsense <- [{:ok, []}, {:ok, %{}}, :what], do: nonsense(context, :visitors, nonsense)
      for nonsense <- [[:site], nil], do: nonsense(context, :alert_sites, nonsense)
    end
  end

  defp nonsense(context, callback, answer) do
    World.put(context.world, :fail, %{callback => fn -> answer end})
    assert %{fired: 0, failed: [{1, _reason}]} = evaluate(context)
  end

  test "a webhook that we disabled gets its notice as one to be kept", context do
    visit(context.world, 100)
    evaluate(context, watching(status: :disabled))
    assert [%{status: :disabled}] = World.accepted(context.world)
  end

  test "many sites are asked for in portions, and by what they watch", context do
    facts = &%{id: &1, domain: "example.com", timezone: "Etc/UTC", stats_start_at_ms: 0}
    World.put(context.world, :sites, Map.new(1..11_000, &{&1, facts.(&1)}))
    World.put(context.world, :visitors, Map.new(1..11_000, &{&1, fn _window -> 50 end}))
    both = [events: ["traffic.spike", "traffic.drop"], drop_threshold: 20]
    attrs = &if(&1 <= 1_500, do: both, else: [])
    sites = for id <- 1..11_000, do: {id, [watching([id: "w#{id}"] ++ attrs.(id))]}
    assert %{sites: 11_000, failed: [], fired: 0} = evaluate_sites(context, sites)

    assert Enum.frequencies(World.log(context.world)) == %{
             {:alert_states, 10_000} => 1,
             {:alert_states, 1_000} => 1,
             {:alert_sites, 10_000} => 1,
             {:alert_sites, 1_000} => 1,
             {:visitors, 1_000, 2} => 1,
             {:visitors, 500, 2} => 1,
             {:visitors, 1_000, 1} => 9,
             {:visitors, 500, 1} => 1
           }
  end
end
