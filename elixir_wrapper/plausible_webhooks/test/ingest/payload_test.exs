defmodule Plausible.Webhooks.Ingest.PayloadTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.{Event, JsonSchema, Native}
  alias Plausible.Webhooks.Ingest.{Payload, Subscriptions}
  alias Plausible.Webhooks.Ingest.Payload.Text

  # Decimal and Money are not available here; the code only reads their shape.
  defp decimal(sign, coef, exp), do: %{__struct__: Decimal, sign: sign, coef: coef, exp: exp}

  @now_ms 1_795_428_930_123
  @site %{id: 7, domain: "example.com"}
  @goal %{id: 12, name: "Signup", type: "event", currency: "EUR"}

  defp event(attrs \\ []) do
    %{
      clickhouse_event:
        Map.merge(
          %{
            name: "Signup",
            site_id: 7,
            hostname: "example.com",
            pathname: "/register",
            user_id: 18_446_744_073_709_551_615,
            session_id: 17_446_744_073_709_551_615,
            timestamp: ~N[2026-11-23 10:15:30],
            "meta.key": ["plan"],
            "meta.value": ["growth"],
            scroll_depth: 255,
            revenue_source_amount: decimal(1, 5300, -2),
            revenue_source_currency: "USD",
            revenue_reporting_amount: decimal(1, 4900, -2),
            revenue_reporting_currency: "EUR",
            referrer: "https://news.ycombinator.com",
            referrer_source: "Hacker News",
            utm_source: "hn",
            utm_medium: "",
            utm_campaign: "launch",
            country_code: "EE",
            screen_size: "Desktop",
            operating_system: "GNU/Linux",
            browser: "Firefox"
          },
          Map.new(attrs)
        ),
      request: %{remote_ip: "203.0.113.9", user_agent: "SecretAgent/1.0"}
    }
  end

  defp encode(event, goal \\ @goal, tells \\ %{props: :all, revenue: true}) do
    {:ok, completion} = Payload.completion(event, @now_ms, tells)
    @site |> Payload.goal_completed(goal, completion) |> Payload.encode()
  end

  defp body(event, goal \\ @goal) do
    {:ok, json} = encode(event, goal)
    assert JsonSchema.errors("goal.completed", json) == []
    {:ok, body} = Native.decode(json)
    body
  end

  defp completion(attrs), do: body(event(attrs))["data"]["completion"]

  describe "goal.completed" do
    test "holds the whole completion" do
      assert body(event()) == %{
               "type" => "goal.completed",
               "timestamp" => "2026-11-23T10:15:30.123Z",
               "data" => %{
                 "site" => %{"domain" => "example.com"},
                 "goal" => %{"id" => 12, "name" => "Signup", "type" => "event"},
                 "completion" => %{
                   "event_name" => "Signup",
                   "hostname" => "example.com",
                   "pathname" => "/register",
                   "occurred_at" => "2026-11-23T10:15:30Z",
                   "props" => %{"plan" => "growth"},
                   "revenue" => %{"amount" => "49.00", "currency" => "EUR"},
                   "referrer" => "https://news.ycombinator.com",
                   "source" => "Hacker News",
                   "utm" => %{"source" => "hn", "campaign" => "launch"},
                   "country" => "EE",
                   "device" => "Desktop",
                   "browser" => "Firefox",
                   "os" => "GNU/Linux"
                 }
               }
             }
    end

    test "holds nothing personal" do
      {:ok, json} = encode(event())

      for secret <- ["203.0.113.9", "SecretAgent", "18446744073709551615", "17446744073709551615"],
          do: refute(json =~ secret)
    end

    test "has null for unknown values, and every member" do
      bare = body(%{clickhouse_event: %{name: "Signup"}})["data"]["completion"]

      assert {%{"event_name" => "Signup", "props" => props, "utm" => utm}, rest} =
               Map.split(bare, ["event_name", "props", "utm"])

      assert {props, utm} == {%{}, %{}}
      assert map_size(rest) == 10
      assert rest |> Map.values() |> Enum.uniq() == [nil]
    end

    test "has null for Plausible's placeholders" do
      for {attrs, member} <- [
            {[hostname: "(none)"], "hostname"},
            {[referrer_source: "Direct / None"], "source"},
            {[country_code: <<0, 0>>], "country"},
            {[browser: ""], "browser"},
            {[operating_system: "(not set)"], "os"},
            {[screen_size: nil], "device"}
          ],
          do: assert(completion(attrs)[member] == nil)
    end

    test "money is text and keeps its digits" do
      for {amount, text} <- [
            {decimal(1, 4900, -2), "49.00"},
            {decimal(-1, 5, -3), "-0.005"},
            {decimal(1, 12, 3), "12000"},
            {decimal(1, 0, 0), "0"},
            {decimal(1, 123_456_789_012_345_678_901_234, -3), "123456789012345678901.234"},
            {%{__struct__: Money, amount: decimal(1, 1990, -2), currency: :EUR}, "19.90"},
            {42, "42"},
            {19.99, "19.99"},
            {1.0e-9, "0.0"},
            {"7.50", "7.50"}
          ] do
        assert completion(revenue_reporting_amount: amount)["revenue"]["amount"] == text
      end

      assert completion(revenue_reporting_currency: :EUR)["revenue"]["currency"] == "EUR"
    end

    test "without the goal's currency it has what the visitor paid" do
      assert completion(revenue_reporting_amount: nil)["revenue"] ==
               %{"amount" => "53.00", "currency" => "USD"}
    end

    test "an invalid amount is no revenue" do
      for amount <- [
            nil,
            "",
            "12,50",
            "1e9",
            "NaN",
            decimal(1, :NaN, 0),
            decimal(1, :inf, 0),
            decimal(1, 1, 1_000_000_000),
            1.0e300,
            [],
            %{}
          ] do
        attrs = [revenue_reporting_amount: amount, revenue_source_amount: amount]
        assert completion(attrs)["revenue"] == nil
      end

      for currency <- [nil, "", "EURO", <<0, 0, 0>>, 5] do
        attrs = [revenue_reporting_currency: currency, revenue_source_currency: currency]
        assert completion(attrs)["revenue"] == nil
      end
    end

    test "text in any script and with control characters is unchanged" do
      text = "a\"\\/\b\f\n\r\t\0\x1f é ß 漢字 🦊 \u2028\u2029 👩‍👩‍👧"
      props = ["meta.key": [text], "meta.value": [text]]
      assert completion([pathname: "/" <> text] ++ props)["props"] == %{text => text}
      assert completion(pathname: "/" <> text)["pathname"] == "/" <> text
    end

    test "bytes that are not UTF-8 become U+FFFD and cost nothing else" do
      attrs = [
        pathname: "/caf" <> <<0xE9>>,
        "meta.key": [<<"k", 0xFF>>, "ok"],
        "meta.value": [<<0xF0, 0x9F, 0x98>>, "fine"]
      ]

      completion = completion(attrs)
      assert completion["pathname"] == "/caf\uFFFD"
      assert completion["props"] == %{"k\uFFFD" => "\uFFFD\uFFFD\uFFFD", "ok" => "fine"}

      assert body(event(name: <<"S", 0xC0, 0xAF>>))["data"]["completion"]["event_name"] ==
               "S\uFFFD\uFFFD"

      assert body(event(), %{@goal | name: <<0xED, 0xA0, 0x80>>})["data"]["goal"]["name"] =~
               "\uFFFD"
    end

    test "garbage in any field becomes null or is left out" do
      improper = ["a" | "b"]

      garbage = [
        1,
        1.5,
        :atom,
        [],
        improper,
        %{},
        {},
        self(),
        make_ref(),
        &is_nil/1,
        ~D[2026-01-01]
      ]

      fields = Map.keys(event().clickhouse_event) -- [:name]

      for value <- garbage, field <- fields do
        assert is_map(completion([{field, value}]))
      end
    end

    test "times are in UTC" do
      assert completion(timestamp: ~U[2026-11-23 10:15:30Z])["occurred_at"] ==
               "2026-11-23T10:15:30Z"

      assert completion(timestamp: nil)["occurred_at"] == nil
    end

    test "a body that gets too large has its values cut" do
      keys = for n <- 1..30, do: "key#{n}"
      values = for _ <- 1..30, do: String.duplicate(<<1>>, 2_000)
      event = event("meta.key": keys, "meta.value": values)
      {:ok, json} = encode(event)
      assert byte_size(json) <= 262_144
      assert JsonSchema.errors("goal.completed", json) == []
      {:ok, body} = Native.decode(json)
      props = body["data"]["completion"]["props"]
      assert map_size(props) == 30
      assert props["key1"] == String.duplicate(<<1>>, 500) <> "…"
    end

    test "holds nothing that may not be sent" do
      event = event("meta.key": ["plan", "url"], "meta.value": ["growth", "/x"])

      for {tells, props, revenue?} <- [
            {%{props: %{"url" => true}, revenue: true}, %{"url" => "/x"}, true},
            {%{props: %{}, revenue: false}, %{}, false},
            {%{props: %{"other" => true}, revenue: true}, %{}, true},
            {%{props: :all, revenue: false}, %{"plan" => "growth", "url" => "/x"}, false}
          ] do
        {:ok, json} = encode(event, @goal, tells)
        assert JsonSchema.errors("goal.completed", json) == []
        {:ok, %{"data" => %{"completion" => completion}}} = Native.decode(json)
        assert completion["props"] == props
        assert is_map(completion["revenue"]) == revenue?
      end
    end

    test "is the same as a body made for one goal" do
      {:ok, completion} = Payload.completion(event(), @now_ms)

      for name <- ["Signup", "\"}", "漢字 \\ \u0001", <<0xFF>>],
          domain <- ["example.com", "\"}{"] do
        site = %{@site | domain: domain}
        made = Payload.goal_completed(site, %{@goal | name: name}, completion)
        {:ok, json} = Payload.encode(made)
        assert JsonSchema.errors("goal.completed", json) == []
        {:ok, body} = Native.decode(json)
        assert body["data"]["goal"]["name"] == Text.make_encodable(name)
        assert body["data"]["site"] == %{"domain" => domain}
        assert body["data"]["completion"] == body(event())["data"]["completion"]
      end
    end

    # A visitor chooses the properties, and with them the cost of a request.
    test "a large one is encoded once for all of its goals" do
      keys = for n <- 1..30, do: "key#{n}"
      values = for _ <- 1..30, do: String.duplicate(<<1>>, 2_000)
      event = event("meta.key": keys, "meta.value": values)

      bodies = fn count ->
        {:ok, completion} = Payload.completion(event, @now_ms)

        for id <- 1..count,
            do:
              {:ok, _} =
                Payload.encode(Payload.goal_completed(@site, %{@goal | id: id}, completion))
      end

      best = fn count ->
        Enum.min(for _ <- 1..5, do: elem(:timer.tc(fn -> bodies.(count) end), 0))
      end

      assert best.(200) < 40 * best.(1)
    end

    test "a body that fits is not cut" do
      value = String.duplicate("x", 2_000)
      values = for _ <- 1..30, do: value
      keys = for n <- 1..30, do: "key#{n}"
      assert completion("meta.key": keys, "meta.value": values)["props"]["key1"] == value
    end

    test "a body that cannot be cut to fit is an error" do
      event = event(pathname: String.duplicate("x", 300_000))
      assert encode(event) == {:error, :body_too_large}
    end
  end

  test "a value is cut between characters" do
    assert Text.cut("äöü", 6) == "äöü"
    assert Text.cut("äöü", 5) == "äö…"
    assert Text.cut("🦊🦊", 7) == "🦊…"
    assert Text.cut("🦊🦊", 5) == "🦊…"
  end

  test "the site's domain is the ingestion's, else the directory's" do
    s = %Subscriptions{
      site_id: 7,
      domain: "old.test",
      table: nil,
      generation: 1,
      index: %{},
      webhooks: %{}
    }

    assert Payload.site(s, %{site: %{domain: "new.test"}}) == %{id: 7, domain: "new.test"}

    for event <- [%{}, %{site: nil}, %{site: %{domain: nil}}, nil],
        do: assert(Payload.site(s, event) == %{id: 7, domain: "old.test"})
  end

  describe "traffic" do
    @alert %{
      kind: :spike,
      id: "alr_01KARZ8V9T4C7Q2M5N6P8R0S1T",
      started_at_ms: @now_ms,
      current_visitors: 512,
      threshold: 300,
      window_seconds: 300,
      baseline: %{visitors: 110.5, samples: [101, 120], change_percent: 363.3},
      sources: [%{name: "Hacker News", visitors: 301}],
      pages: [%{path: "/post", visitors: 402}]
    }

    defp traffic(fun, alert, site \\ @site) do
      event = apply(Payload, fun, [site, alert, @now_ms + 5])
      {:ok, json} = Payload.encode(event)
      assert JsonSchema.errors(event.type, json) == []
      {:ok, body} = Native.decode(json)
      body
    end

    test "a spike has figures, threshold, baseline, sources and pages" do
      site = Map.put(@site, :dashboard_url, "https://plausible.test/example.com")
      body = traffic(:traffic_fired, @alert, site)
      assert body["type"] == "traffic.spike"
      assert body["timestamp"] == "2026-11-23T10:15:30.128Z"

      assert body["data"] == %{
               "site" => %{"domain" => "example.com"},
               "alert" => %{
                 "id" => "alr_01KARZ8V9T4C7Q2M5N6P8R0S1T",
                 "status" => "firing",
                 "started_at" => "2026-11-23T10:15:30.123Z"
               },
               "current_visitors" => 512,
               "threshold" => 300,
               "window_seconds" => 300,
               "baseline" => %{
                 "visitors" => 110.5,
                 "method" => "same_weekday_and_time_4w",
                 "samples" => [101, 120],
                 "change_percent" => 363.3
               },
               "top_sources" => [%{"name" => "Hacker News", "visitors" => 301}],
               "top_pages" => [%{"path" => "/post", "visitors" => 402}],
               "dashboard_url" => "https://plausible.test/example.com"
             }
    end

    test "a drop has the same shape; what is missing is null or empty" do
      alert =
        Map.drop(%{@alert | kind: :drop, window_seconds: 43_200}, [:sources, :pages, :baseline])

      body = traffic(:traffic_fired, alert)
      assert %{"baseline" => nil, "top_sources" => [], "top_pages" => []} = body["data"]
      assert Map.keys(body["data"]) == Map.keys(traffic(:traffic_fired, @alert)["data"])
      no_change = %{visitors: 0.0, samples: [0, 0], change_percent: nil}

      assert traffic(:traffic_fired, %{@alert | baseline: no_change})["data"]["baseline"][
               "change_percent"
             ] == nil
    end

    test "the end names the alert and its kind" do
      for kind <- [:spike, :drop] do
        body = traffic(:traffic_resolved, %{@alert | kind: kind})

        assert body["data"]["alert"] == %{
                 "id" => "alr_01KARZ8V9T4C7Q2M5N6P8R0S1T",
                 "kind" => "#{kind}",
                 "status" => "resolved",
                 "started_at" => "2026-11-23T10:15:30.123Z",
                 "resolved_at" => "2026-11-23T10:15:30.128Z"
               }
      end
    end
  end

  describe "schemas" do
    test "there is one for each type, and their examples are valid" do
      assert Enum.sort(JsonSchema.types()) == Enum.sort(Event.types())

      for type <- Event.types() do
        schema = JsonSchema.load!(type)
        assert schema["properties"]["type"] == %{"const" => type}
        assert [_ | _] = schema["examples"]
        for example <- schema["examples"], do: assert(JsonSchema.check(schema, example, "") == [])
      end
    end

    test "the validator finds what is wrong" do
      {:ok, json} = encode(event())
      {:ok, good} = Native.decode(json)
      schema = JsonSchema.load!("goal.completed")

      for {path, value, at} <- [
            {["type"], "goal.done", ".type"},
            {["timestamp"], "yesterday", ".timestamp"},
            {["extra"], 1, ".extra"},
            {["data", "goal", "type"], 1, ".data.goal.type"},
            {["data", "completion", "ip"], "203.0.113.9", ".data.completion.ip"},
            {["data", "completion", "props", "a"], 1, ".data.completion.props.a"},
            {["data", "completion", "utm", "x"], "y", ".data.completion.utm.x"},
            {["data", "completion", "revenue", "amount"], 49, ".data.completion.revenue.amount"},
            {["data", "completion", "revenue", "currency"], "eur",
             ".data.completion.revenue.currency"}
          ] do
        assert [{^at, _message} | _] = JsonSchema.check(schema, put_in(good, path, value), "")
      end

      {_site, without} = pop_in(good, ["data", "site"])
      assert [{".data.site", "is missing"}] = JsonSchema.check(schema, without, "")
      assert [{"", "the validator does not know not"}] = JsonSchema.check(%{"not" => %{}}, 1, "")
    end
  end
end
