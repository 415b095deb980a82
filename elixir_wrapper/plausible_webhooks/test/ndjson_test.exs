defmodule Plausible.Webhooks.NdjsonTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Ndjson
  alias Plausible.Webhooks.Ingest.{Dedup, Goals, Subscriptions}
  alias Plausible.Webhooks.Host.File.Config

  doctest Ndjson

  @examples Path.expand("../../../examples", __DIR__)

  defp sites("example.com"), do: %{id: 7, domain: "example.com", more: 1}
  defp sites("old.example.com"), do: %{id: 7, domain: "example.com"}
  defp sites(_other), do: nil

  defp parse(line, number \\ 1), do: Ndjson.parse(line, number, &sites/1)

  defp event!(line) do
    assert {:ok, event} = parse(line)
    event
  end

  defp error(line) do
    assert {:error, error} = parse(line, 5)
    Ndjson.message(error)
  end

  describe "reads" do
    test "what the tracker sends" do
      event =
        event!(
          ~s({"n":"Signup","v":29,"u":"https://www.example.com/blog/caf%C3%A9?utm_source=hn&utm_campaign=x#top",) <>
            ~s("d":"example.com","r":"https://news.ycombinator.com/","p":{"plan":"growth","seats":3,"yearly":true,"none":null},) <>
            ~s("$":{"amount":19.9,"currency":"EUR"},"visitor":"v1","at":"2026-11-23T11:15:30.5+01:00"})
        )

      assert event.site == %{id: 7, domain: "example.com"}

      assert %{
               name: "Signup",
               site_id: 7,
               hostname: "example.com",
               pathname: "/blog/café",
               timestamp: ~N[2026-11-23 10:15:30],
               scroll_depth: 255,
               referrer: "https://news.ycombinator.com/",
               referrer_source: "hn",
               utm_source: "hn",
               utm_campaign: "x",
               utm_medium: "",
               revenue_source_amount: "19.9",
               revenue_source_currency: "EUR"
             } = event.clickhouse_event

      assert Goals.props(event.clickhouse_event) ==
               %{"plan" => "growth", "seats" => "3", "yearly" => "true"}
    end

    test "what the Events API takes" do
      event =
        event!(
          ~s({"name":"pageview","url":"https://example.com","domain":"old.example.com",) <>
            ~s("referrer":"https://www.google.com/x","props":"{\\"a\\":\\"b\\"}"})
        )

      assert event.domain == "old.example.com"
      assert event.site.domain == "example.com"
      assert %{pathname: "/", referrer_source: "google.com"} = event.clickhouse_event
      assert Goals.props(event.clickhouse_event) == %{"a" => "b"}
    end

    test "the fields as they are stored" do
      event =
        event!(
          ~s({"name":"engagement","domain":"example.com","hostname":"h","pathname":"/p","timestamp":"2026-11-23T10:15:30",) <>
            ~s("scroll_depth":80,"meta.key":["a"],"meta.value":["b"],"referrer_source":"Bing","country_code":"EE",) <>
            ~s("screen_size":"Mobile","operating_system":"iOS","browser":"Safari"})
        )

      assert %{
               hostname: "h",
               pathname: "/p",
               timestamp: ~N[2026-11-23 10:15:30],
               scroll_depth: 80,
               "meta.key": ["a"],
               "meta.value": ["b"],
               referrer_source: "Bing",
               country_code: "EE",
               screen_size: "Mobile",
               operating_system: "iOS",
               browser: "Safari"
             } = event.clickhouse_event
    end

    test "times in seconds and milliseconds" do
      for at <- [1_795_428_930, 1_795_428_930_999, ~s("2026-11-23T10:15:30Z")] do
        line = ~s({"n":"x","u":"https://example.com/","d":"example.com","at":#{at}})
        assert event!(line).clickhouse_event.timestamp == ~N[2026-11-23 10:15:30]
      end
    end

    test "the same visitor as the same, others as others" do
      ids = fn more, number, day ->
        line =
          ~s({"n":"x","u":"https://example.com/","d":"example.com","at":"2026-11-#{day}T10:15:30Z"#{more}})

        {:ok, %{clickhouse_event: event}} = parse(line, number)
        {event.user_id, event.session_id}
      end

      eva = ~s(,"visitor":"eva")
      {user, session} = ids.(eva, 1, 23)
      assert ids.(eva, 2, 23) == {user, session}
      assert {^user, tomorrow} = ids.(eva, 1, 24)
      assert tomorrow != session
      assert {other, _session} = ids.(~s(,"visitor":"adam"), 1, 23)
      assert other != user
      assert ids.("", 1, 23) != ids.("", 2, 23)
      assert user in 0..0xFFFF_FFFF_FFFF_FFFF and session in 0..0xFFFF_FFFF_FFFF_FFFF
    end

    test "a stream, with blank lines and a byte order mark, keeping the numbers" do
      good = ~s({"n":"x","u":"https://example.com/","d":"example.com"}\n)

      assert [{:ok, _}, {:error, %{line: 3}}, {:ok, _}] =
               ["\uFEFF" <> good, "\n", "{broken\n", "  \r\n", good]
               |> Ndjson.stream(&sites/1)
               |> Enum.to_list()
    end
  end

  test "says which line and which field is wrong" do
    base = ~s("n":"x","d":"example.com","u":"https://example.com/")

    for {line, message} <- [
          {"", "line 5: is not JSON"},
          {"[1]", "line 5: is not a JSON object"},
          {"nonsense", "line 5: is not JSON"},
          {<<"{\"n\":\"", 0xFF, "\"}">>, "line 5: is not JSON"},
          {~s({"d":"example.com"}), "line 5, name: must be text of 1 to 120 bytes"},
          {~s({"n":5}), "line 5, name: must be text of 1 to 120 bytes"},
          {~s({"n":"#{String.duplicate("x", 121)}"}), "line 5, name: must be text of 1 to 120"},
          {~s({"n":"x"}), "line 5, domain: is required"},
          {~s({"n":"x","d":"other.com"}), "line 5, domain: is no site that is known here"},
          {~s({"n":"x","d":"example.com"}), "line 5, url: is required (or pathname)"},
          {~s({"n":"x","d":"example.com","u":"/a"}), "line 5, url: must be an absolute URL"},
          {~s({"n":"x","d":"example.com","u":"http://[::1"}), "line 5, url: must be an absolute"},
          {~s({"n":"x","d":"example.com","pathname":"a"}), "line 5, pathname: must begin with /"},
          {~s({#{base},"p":[1]}), "line 5, props: must be an object"},
          {~s({#{base},"p":"[1]"}), "line 5, props: must be an object"},
          {~s({#{base},"p":{"a":{"b":1}}}),
           "line 5, props.a: must be text of at most 2000 bytes"},
          {~s({#{base},"p":{"":"b"}}), "line 5, props: has a name"},
          {~s({#{base},"sd":101}), "line 5, scroll_depth: must be an integer"},
          {~s({#{base},"sd":"80"}), "line 5, scroll_depth: must be an integer"},
          {~s({#{base},"$":{"amount":"a","currency":"EUR"}}), "line 5, revenue.amount: must be"},
          {~s({#{base},"$":{"amount":1,"currency":"euro"}}), "line 5, revenue: must be"},
          {~s({#{base},"$":5}), "line 5, revenue: must be"},
          {~s({#{base},"at":"yesterday"}), "line 5, at: must be a time"},
          {~s({#{base},"at":-1}), "line 5, at: must be a time"},
          {~s({#{base},"r":{}}), "line 5, referrer: must be text"},
          {~s({#{base},"meta.key":["a"],"meta.value":[]}), "line 5, meta.value: must be as many"},
          {~s({#{base},"country":1}), "line 5, country: must be text"}
        ] do
      assert error(line) =~ message
    end

    too_many = Enum.map_join(1..31, ",", &~s("k#{&1}":1))
    assert error(~s({#{base},"p":{#{too_many}}})) =~ "props: has more than 30 pairs"
    assert error(String.duplicate("x", 1_048_577)) =~ "line 5: is longer than"
  end

  test "a URL that cannot be decoded stays as it is" do
    for path <- ["/%zz", "/%FF", "/%"] do
      line = ~s({"n":"x","d":"example.com","u":"https://example.com#{path}?utm_source=%FF&a=%zz"})

      case parse(line) do
        {:ok, event} -> assert event.clickhouse_event.pathname == path
        {:error, error} -> assert error.field == "url"
      end
    end
  end

  describe "the example" do
    setup do
      {:ok, sites} = @examples |> Path.join("sites.json") |> File.read!() |> Config.parse()
      by_domain = Map.new(sites, &{&1.domain, &1})

      events =
        @examples
        |> Path.join("events.ndjson")
        |> File.stream!()
        |> Ndjson.stream(&by_domain[&1])
        |> Enum.map(fn {:ok, event} -> event end)

      %{sites: sites, events: events}
    end

    test "is valid, in order, and completes every goal of its sites", context do
      times = Enum.map(context.events, & &1.clickhouse_event.timestamp)
      assert times == Enum.sort(times, NaiveDateTime)

      for site <- context.sites do
        completed = complete(site, context.events, nil)
        assert Enum.sort(Map.keys(completed)) == Enum.map(site.goals, & &1.id)
      end
    end

    test "repeats engagement, which completes a scroll goal once",
         %{sites: [site | _]} = context do
      every = complete(site, context.events, nil)
      once = complete(site, context.events, Dedup.new())
      assert every[5] > once[5] and once[5] > 10
      assert Map.delete(every, 5) == Map.delete(once, 5)
    end

    defp complete(site, events, dedup) do
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
end
