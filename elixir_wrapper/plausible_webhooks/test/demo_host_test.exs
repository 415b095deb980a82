defmodule Plausible.Webhooks.DemoHostTest do
  # The small host of examples/host, in which the demo and the scenarios run.
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Ingest.{Dedup, Goals, Subscriptions}

  @examples Path.expand("../../../examples", __DIR__)
  @t 1_795_428_000_000
  @minute 60_000

  defp sites("example.com"), do: %{id: 7, domain: "example.com"}
  defp sites(_other), do: nil

  defp json(term) do
    {:ok, json} = Plausible.Webhooks.Native.encode(term)
    json
  end

  @event %{name: "Signup", domain: "example.com", url: "https://example.com/"}

  defp parse(fields),
    do: @event |> Map.merge(Map.new(fields)) |> json() |> Demo.Events.parse(&sites/1)

  describe "an event" do
    test "has the fields that webhooks look at" do
      url = "https://example.com/blog/caf%C3%A9?utm_source=hn&utm_campaign=x#top"
      props = %{plan: "growth", seats: 3, yearly: true}
      revenue = %{amount: 19.9, currency: "EUR"}

      assert {:ok, %{site: %{id: 7}, clickhouse_event: event}} =
               parse(
                 url: url,
                 props: props,
                 revenue: revenue,
                 referrer: "https://www.google.com/x",
                 at: "2026-11-23T11:15:30.5+01:00"
               )

      assert %{
               name: "Signup",
               site_id: 7,
               hostname: "example.com",
               pathname: "/blog/café",
               timestamp: ~N[2026-11-23 10:15:30],
               scroll_depth: 255,
               referrer_source: "hn",
               utm_campaign: "x",
               revenue_source_amount: "19.9",
               revenue_source_currency: "EUR"
             } = event

      assert Goals.props(event) == %{"plan" => "growth", "seats" => "3", "yearly" => "true"}

      {:ok, event} = parse(referrer: "https://www.google.com/x")
      assert event.clickhouse_event.referrer_source == "google.com"
    end

    test "names its visitor, whose visit lasts a day" do
      ids = fn fields ->
        {:ok, %{clickhouse_event: event}} = parse(fields)
        {event.user_id, event.session_id}
      end

      {user, session} = ids.(visitor: "eva", at: "2026-11-23T10:15:30Z")
      assert {^user, ^session} = ids.(visitor: "eva", at: "2026-11-23T23:15:30Z")
      assert {^user, tomorrow} = ids.(visitor: "eva", at: "2026-11-24T10:15:30Z")
      assert tomorrow != session
      assert ids.([]) != ids.([])
    end

    test "that is wrong is refused with the field and the reason" do
      for {fields, message} <- [
            {[name: nil], "name: is required"},
            {[name: 5], "name: must be text"},
            {[domain: "other.com"], "domain: is not a site of this host"},
            {[url: "/a"], "url: must be an absolute URL"},
            {[props: [1]], "props: must be an object"},
            {[props: %{a: %{b: 1}}], "props.a: must be text, a number or a boolean"},
            {[scroll_depth: 101], "scroll_depth: must be an integer from 0 to 100"},
            {[revenue: %{amount: 1, currency: "euro"}], "revenue: must be"},
            {[at: "yesterday"], "at: must be a time"}
          ] do
        assert {:error, text} = parse(fields)
        assert text =~ message
      end

      assert {:error, "is not JSON" <> _} = Demo.Events.parse("{", &sites/1)
      assert {:error, "is not a JSON object"} = Demo.Events.parse("[1]", &sites/1)
    end
  end

  describe "a file of sites" do
    test "that is wrong is refused with the place and the reason" do
      site = &Map.merge(%{id: 1, domain: "a.test"}, &1)
      goal = &%{sites: [site.(%{goals: [&1]})]}

      for {value, message} <- [
            {[], "the file: must be an object"},
            {%{site: []}, "the file.site: is not a field"},
            {%{sites: 1}, "the file.sites: must be a list"},
            {%{sites: [%{domain: "a"}]}, "the file.sites[0].id: is required"},
            {%{sites: [site.(%{}), site.(%{})]}, "sites: id 1 is there twice"},
            {%{sites: [site.(%{dashboard_url: "javascript:x"})]},
             "dashboard_url: is not a valid url"},
            {%{sites: [site.(%{history: [%{from: "x"}]})]}, "sites[0].history[0].from: must be"},
            {goal.(%{id: 2}), "goal 2: needs either event_name or page_path"},
            {goal.(%{id: 2, event_name: "B", page_path: "/"}), "goal 2: needs either"},
            {goal.(%{id: 2, page_path: "blog"}), "goals[0].page_path: is not a valid path"},
            {goal.(%{id: 2, page_path: "/", scroll_threshold: 101}), "is not a valid percent"},
            {goal.(%{id: 2, event_name: "B", custom_props: %{a: 1}}), "custom_props.a: is not"}
          ] do
        assert {:error, text} = Demo.Sites.parse(json(value))
        assert text =~ message
      end

      assert {:error, "is not JSON" <> _} = Demo.Sites.parse("{")
      assert {:error, "/nowhere: no such file" <> _} = Demo.Sites.read("/nowhere")
    end
  end

  describe "visitors" do
    setup do
      host = Module.concat(__MODULE__, "H#{System.unique_integer([:positive])}")
      iso = &(DateTime.from_unix!(@t + &1 * @minute, :millisecond) |> DateTime.to_iso8601())
      history = [%{from: iso.(-120), to: iso.(-60), visitors: 120}]
      file = json(%{sites: [%{id: 7, domain: "example.com", history: history}]})
      {:ok, sites} = Demo.Sites.parse(file)
      start_supervised!({Demo.Host, name: host, sites: sites})
      %{host: host}
    end

    defp visit(host, visitor, minute, fields \\ []) do
      at = DateTime.from_unix!(@t + minute * @minute, :millisecond) |> DateTime.to_iso8601()
      {:ok, event} = parse([name: "pageview", visitor: visitor, at: at] ++ fields)
      Demo.Host.count(host, event)
    end

    defp window(from, to), do: {@t + from * @minute, @t + to * @minute}

    test "are counted once per window, with those of the history", %{host: host} do
      for minute <- 0..2, do: visit(host, "eva", minute)
      visit(host, "adam", 2)
      visit(host, "reader", 2, name: "engagement")

      windows = [window(0, 3), window(0, 1), window(2, 3), window(3, 9), window(-120, -60)]
      assert Demo.Host.visitors(host, [7], windows) == {:ok, %{7 => [2, 1, 2, 0, 120]}}
      # Windows side by side share no visitor of the history and miss none.
      fives = for n <- 0..11, do: window(-120 + n * 5, -115 + n * 5)
      {:ok, %{7 => counts}} = Demo.Host.visitors(host, [7], fives)
      assert Enum.sum(counts) == 120
      assert Demo.Host.site(host, 7).stats_start_at_ms == @t - 120 * @minute
      assert Demo.Host.visitors(host, [9], [window(0, 3)]) == {:ok, %{9 => [0]}}
    end

    test "have sources and pages, best first", %{host: host} do
      for {visitor, source, page} <- [
            {"1", "HN", "a"},
            {"1", "HN", "b"},
            {"2", "HN", "a"},
            {"3", nil, "a"}
          ],
          do: visit(host, visitor, 0, source: source, url: "https://example.com/#{page}")

      assert Demo.Host.breakdown(host, 7, window(0, 1), 1) ==
               {:ok,
                %{sources: [%{name: "HN", visitors: 2}], pages: [%{path: "/a", visitors: 3}]}}
    end
  end

  # What the demo counts on: the recorded day leads to every goal.
  test "the recorded day completes every goal of its sites, scroll goals once a visit" do
    {:ok, sites} = Demo.Sites.read(Path.join(@examples, "sites.json"))
    by_domain = Map.new(sites, &{&1.domain, &1})

    events =
      @examples
      |> Path.join("events.ndjson")
      |> File.stream!()
      |> Demo.Events.stream(&by_domain[&1])
      |> Enum.map(fn {_line, {:ok, event}} -> event end)

    times = Enum.map(events, & &1.clickhouse_event.timestamp)
    assert times == Enum.sort(times, NaiveDateTime)

    for site <- sites do
      every = completed(site, events, nil)
      assert Enum.sort(Map.keys(every)) == Enum.map(site.goals, & &1.id)
      once = completed(site, events, Dedup.new())
      assert Map.delete(every, 5) == Map.delete(once, 5)
      if site.id == 1, do: assert(every[5] > once[5] and once[5] > 10)
    end
  end

  defp completed(site, events, dedup) do
    table = :ets.new(:goals, [:set])
    {index, rows} = Goals.compile({site.id, 1}, site.goals, [{"w", :all}])
    :ets.insert(table, rows)

    subscriptions = %Subscriptions{
      site_id: site.id,
      table: table,
      generation: 1,
      index: index,
      webhooks: %{"w" => :active}
    }

    events
    |> Enum.filter(&(&1.site.id == site.id))
    |> Enum.flat_map(&Goals.completed(subscriptions, &1, dedup))
    |> Enum.frequencies_by(& &1.goal.id)
  end
end
