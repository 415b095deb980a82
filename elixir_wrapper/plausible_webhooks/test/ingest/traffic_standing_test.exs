defmodule Plausible.Webhooks.Ingest.TrafficStandingTest do
  # How long a breach counts as the same one, and the figures of a late notice.
  use Plausible.Webhooks.TrafficCase, async: true

  defp types(context), do: for(notice <- World.accepted(context.world), do: notice.event.type)

  defp at(context, minute, visitors, webhooks \\ [watching()]) do
    visit(context.world, visitors)
    World.put(context.world, :accepted, %{})
    assert %{failed: []} = evaluate(context, webhooks, @t + minute * @minute)
    types(context)
  end

  describe "a breach" do
    test "that lasts a day is sent once, and rarely recorded", context do
      assert at(context, 0, 500) == ["traffic.spike"]
      World.log(context.world)
      for minute <- 1..(24 * 60), do: assert(at(context, minute, 500) == [])

      writes = for {:state, :firing, true} = entry <- World.log(context.world), do: entry
      assert length(writes) in 200..300
      assert at(context, 24 * 60 + 1, 0) == []
      assert at(context, 24 * 60 + 11, 0) == []
      assert at(context, 24 * 60 + 12, 500) == ["traffic.spike"]
    end

    test "that was not seen for 15 minutes counts as a new one", context do
      assert at(context, 0, 500) == ["traffic.spike"]
      assert at(context, 14, 500) == []
      assert at(context, 14 + 15, 500) == ["traffic.spike"]
      assert at(context, 14 + 16, 500) == []
    end

    test "that ended while nobody looked is over", context do
      wanting = watching(events: ["traffic.spike", "traffic.resolved"])
      assert at(context, 0, 500, [wanting]) == ["traffic.spike"]
      assert at(context, 60, 0, [wanting]) == ["traffic.resolved"]
      assert at(context, 61, 0, [wanting]) == []
      assert at(context, 62, 500, [wanting]) == ["traffic.spike"]
    end

    test "after a change of the threshold is sent with the new one", context do
      assert at(context, 0, 500) == ["traffic.spike"]
      assert at(context, 1, 500, [watching(spike_threshold: 400)]) == ["traffic.spike"]
      assert [%{event: %{data: %{threshold: 400}}}] = World.accepted(context.world)
      assert at(context, 2, 500, [watching(spike_threshold: 400)]) == []

      # The threshold is now above the visitors, so the breach has ended.
      wanting = watching(spike_threshold: 900, events: ["traffic.spike", "traffic.resolved"])
      assert at(context, 3, 500, [wanting]) == ["traffic.resolved"]
      assert at(context, 4, 1_000, [wanting]) == ["traffic.spike"]
    end

    test "keeps its webhook's interval even if it is in doubt", context do
      rarely = [watching(min_interval_s: 7_200)]
      assert at(context, 0, 500, rarely) == ["traffic.spike"]
      assert at(context, 60, 500, rarely) == []
      assert at(context, 120, 500, rarely) == ["traffic.spike"]
    end

    test "that could not be sent is sent later with its own figures", context do
      visit(context.world, fn {_from_ms, to_ms} -> if to_ms == @t, do: 500, else: 40 end)
      World.fail(context.world, :deliver, fn -> {:error, :full} end)
      assert %{failed: [{1, {:deliver, :full}}]} = evaluate(context)

      World.put(context.world, :fail, %{})
      visit(context.world, fn {_from_ms, to_ms} -> if to_ms > @t, do: 0, else: 40 end)
      assert %{fired: 1} = evaluate(context, [watching()], @t + 10 * @minute)
      assert [notice] = World.accepted(context.world)

      assert %{"current_visitors" => 500, "threshold" => 100, "baseline" => baseline} =
               body(notice)

      assert baseline["visitors"] == 40.0
      assert body(notice)["alert"]["started_at"] == "2026-11-23T10:00:00.000Z"
    end

    test "that could not be sent for a day is given up", context do
      visit(context.world, 500)
      World.fail(context.world, :deliver, fn -> {:error, :full} end)
      evaluate(context)
      World.put(context.world, :fail, %{})
      assert at(context, 24 * 60 + 1, 0) == []
    end
  end

  describe "a host that is slow" do
    test "gives a notice without the facts that came too late", context do
      now_visits = fn {_from_ms, to_ms} ->
        if to_ms == @t, do: 500, else: Process.sleep(:infinity)
      end

      visit(context.world, now_visits)
      World.fail(context.world, :breakdown, fn -> Process.sleep(:infinity) end)
      assert %{fired: 1, incomplete: 1, failed: []} = evaluate(context)
      assert [notice] = World.accepted(context.world)

      assert %{"current_visitors" => 500, "baseline" => nil, "top_sources" => []} = body(notice)
      # The facts that came in time are in the notice.
      assert body(notice)["dashboard_url"] == "https://p.test/1"
    end

    test "is not asked for facts that its notifier has sent", context do
      start(context, [webhook(spike_threshold: :notifier)])
      visit(context.world, fn _window -> Process.sleep(:infinity) end)

      row = &%{dimensions: [&1], metrics: [9]}
      info = %{current_visitors: 500, threshold: 300, sources: [row.("HN")], pages: [row.("/")]}
      World.log(context.world)
      assert {:ok, 1} = Traffic.change(context.traffic, :spike, 1, info)
      refute {:breakdown, 3} in World.log(context.world)

      assert [notice] = World.accepted(context.world)
      assert %{"baseline" => nil, "top_sources" => [%{"name" => "HN"}]} = body(notice)
    end
  end

  describe "the baseline" do
    # Clocks that are set back by an hour on the Sunday before @t.
    defmodule Zones do
      @behaviour Calendar.TimeZoneDatabase
      # 2026-11-22 01:00 UTC
      @set_back 63_962_528_400

      @impl true
      def time_zone_period_from_utc_iso_days(days, "Test/Zone") do
        {:ok, if(seconds(days) < @set_back, do: summer(), else: winter())}
      end

      def time_zone_period_from_utc_iso_days(_days, _zone), do: {:error, :time_zone_not_found}

      @impl true
      def time_zone_periods_from_wall_datetime(naive, "Test/Zone") do
        {seconds, _parts} = NaiveDateTime.to_gregorian_seconds(naive)

        cond do
          seconds < @set_back + 3_600 -> {:ok, summer()}
          seconds < @set_back + 7_200 -> {:ambiguous, summer(), winter()}
          true -> {:ok, winter()}
        end
      end

      def time_zone_periods_from_wall_datetime(_naive, _zone),
        do: {:error, :time_zone_not_found}

      defp seconds({days, {parts, per_day}}), do: days * 86_400 + div(parts * 86_400, per_day)
      defp summer, do: %{std_offset: 3_600, utc_offset: 3_600, zone_abbr: "TST"}
      defp winter, do: %{std_offset: 0, utc_offset: 3_600, zone_abbr: "TT"}
    end

    test "is of the same time by the clocks of the site", context do
      sites = World.get(context.world, :sites)
      World.put(context.world, :sites, put_in(sites[1].timezone, "Test/Zone"))
      visit(context.world, fn {from_ms, _to_ms} -> div(from_ms, @minute) end)
      ago = fn weeks, hour -> div(@t - weeks * @week - hour * @hour, @minute) - 5 end

      # Nobody knows of zones: by UTC.
      assert samples(context, @t) == for(weeks <- 1..4, do: ago.(weeks, 0))

      before = Calendar.get_time_zone_database()
      Calendar.put_time_zone_database(Zones)
      on_exit(fn -> Calendar.put_time_zone_database(before) end)

      # 11:00 of now was 09:00 UTC in summer, and is 10:00 UTC in winter.
      assert samples(context, @t + @hour) == for(weeks <- 1..4, do: ago.(weeks, 0))
    end

    defp samples(context, at_ms) do
      World.put(context.world, :accepted, %{})
      World.put(context.world, :states, %{})
      assert %{fired: 1} = evaluate(context, [watching(spike_threshold: 1)], at_ms)
      [notice] = World.accepted(context.world)
      body(notice)["baseline"]["samples"]
    end
  end
end
