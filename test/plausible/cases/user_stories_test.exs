defmodule Plausible.Webhooks.RealTree.UserStoriesTest do
  # The acceptance scenarios of the specification, in a real Plausible.
  use Plausible.Webhooks.Test.PlausibleCase, async: false

  @minute_ms 60_000
  @week_s 7 * 24 * 3_600

  describe "user story 1: traffic spikes" do
    test "US1.1 when visitors exceed the threshold, a spike is sent", context do
      webhook!(context, "/spike", events: ["traffic.spike"], spike_threshold: 10)
      visits!(context.site, 9)
      assert %{fired: 0} = evaluate!()
      assert log(context) == []

      visits!(context.site, 3)
      assert %{fired: 1} = evaluate!()

      assert [%{"type" => "traffic.spike", "data" => data}] = received(context, "/spike", 1)
      assert data["site"] == %{"domain" => context.site.domain}
      assert data["alert"]["status"] == "firing"
      assert data["current_visitors"] == 12
    end

    test "US1.2 a return to normal sends nothing; the next breach sends a spike", context do
      webhook!(context, "/quiet", events: ["traffic.spike"], spike_threshold: 10)
      all = ["traffic.spike", "traffic.resolved"]
      webhook!(context, "/resolved", events: all, spike_threshold: 10)

      visits!(context.site, 12)
      now_ms = System.system_time(:millisecond)
      assert %{fired: 2} = evaluate!(now_ms)
      assert %{fired: 0, resolved: 0} = evaluate!(now_ms + @minute_ms)

      no_visits!(context.site)
      assert %{fired: 0, resolved: 2} = evaluate!(now_ms + 2 * @minute_ms)
      assert [spike, resolved] = received(context, "/resolved", 2)
      assert {spike["type"], resolved["type"]} == {"traffic.spike", "traffic.resolved"}
      assert spike["data"]["alert"]["id"] == resolved["data"]["alert"]["id"]
      assert settled_count(context, "/quiet") == 1

      visits!(context.site, 15, in_ms(3 * @minute_ms))
      assert %{fired: 2} = evaluate!(now_ms + 3 * @minute_ms + 1_000)
      assert [first, second] = received(context, "/quiet", 2)
      assert first["data"]["alert"]["id"] != second["data"]["alert"]["id"]
      assert second["data"]["current_visitors"] == 15
    end

    test "US1.3 a spike states visitors, threshold and baseline", context do
      webhook!(context, "/baseline", events: ["traffic.spike"], spike_threshold: 10)
      now = NaiveDateTime.utc_now()

      # The baseline comes from the same weekday and time, one to four weeks ago. Other hours
      # and days do not count.
      for {weeks, count} <- [{1, 4}, {2, 6}, {3, 2}],
          do: visits!(context.site, count, NaiveDateTime.add(now, -weeks * @week_s - 60))

      visits!(context.site, 50, NaiveDateTime.add(now, -@week_s - 3_600))
      visits!(context.site, 50, NaiveDateTime.add(now, -24 * 3_600))
      visits!(context.site, 8, now, referrer_source: "Hacker News", pathname: "/post")
      visits!(context.site, 4, now, referrer_source: "", pathname: "/")

      assert %{fired: 1, incomplete: 0} = evaluate!()
      assert [%{"data" => data}] = received(context, "/baseline", 1)
      assert {data["current_visitors"], data["threshold"]} == {12, 10}

      assert %{"method" => "same_weekday_and_time_4w", "samples" => samples, "visitors" => 3.0} =
               data["baseline"]

      assert Enum.sort(samples) == [0, 2, 4, 6]
      assert data["top_sources"] == [%{"name" => "Hacker News", "visitors" => 8}]

      assert data["top_pages"] == [
               %{"path" => "/post", "visitors" => 8},
               %{"path" => "/", "visitors" => 4}
             ]

      assert data["dashboard_url"] =~ "/#{context.site.domain}?__team="
    end
  end

  describe "user story 2: goals" do
    test "US2.1 a completed goal is sent to the webhook that chose it", context do
      signup = goal!(context.site, %{"event_name" => "Signup"})
      goal!(context.site, %{"event_name" => "Purchase"})
      webhook!(context, "/signup", events: ["goal.completed"], goals: [signup.id])

      assert {202, _headers} = track(context.site, "Purchase")
      assert {202, _headers} = track(context.site, "Signup", path: "/register")

      assert [%{"type" => "goal.completed", "data" => data}] = received(context, "/signup", 1)
      assert data["goal"] == %{"id" => signup.id, "name" => "Signup", "type" => "event"}
      assert data["completion"]["pathname"] == "/register"
      assert settled_count(context, "/signup") == 1
    end

    test "US2.2 a webhook for all goals gets the goal's name and the completion", context do
      revenue? = enterprise?()
      currency = if revenue?, do: %{"currency" => "EUR"}, else: %{}
      goal!(context.site, Map.merge(%{"event_name" => "Purchase"}, currency))
      goal!(context.site, %{"page_path" => "/blog/**", "display_name" => "Reads the blog"})
      goal!(context.site, %{"page_path" => "/docs", "scroll_threshold" => 60})
      webhook!(context, "/all", events: ["goal.completed"])

      track(context.site, "Purchase",
        path: "/shop?utm_source=newsletter&utm_campaign=autumn",
        props: %{"plan" => "growth", "seats" => 5},
        revenue: %{"amount" => "49.00", "currency" => "EUR"},
        referrer: "https://news.ycombinator.com"
      )

      track(context.site, "pageview", path: "/blog/2026/webhooks", visitor: 2)
      track(context.site, "pageview", path: "/docs", visitor: 3)

      for depth <- [20, 59, 60, 80, 100],
          do: track(context.site, "engagement", path: "/docs", scroll_depth: depth, visitor: 3)

      bodies = received(context, "/all", 3)
      assert settled_count(context, "/all") == 3

      by_name = Map.new(bodies, &{&1["data"]["goal"]["name"], &1["data"]})
      assert %{"Purchase" => purchase, "Reads the blog" => blog} = by_name
      [docs] = Map.values(Map.drop(by_name, ["Purchase", "Reads the blog"]))
      assert {blog["goal"]["type"], docs["goal"]["type"]} == {"page", "scroll"}
      assert blog["completion"]["pathname"] == "/blog/2026/webhooks"

      assert %{
               "event_name" => "Purchase",
               "props" => %{"plan" => "growth", "seats" => "5"},
               "referrer" => "news.ycombinator.com",
               "utm" => %{"source" => "newsletter", "campaign" => "autumn"}
             } = purchase["completion"]

      assert purchase["completion"]["hostname"] == context.site.domain

      told = purchase["completion"]["revenue"]
      assert told == if(revenue?, do: %{"amount" => "49.00", "currency" => "EUR"})
    end

    test "US2.3 goals in quick succession are sent one by one", context do
      goal!(context.site, %{"event_name" => "Signup"})
      webhook!(context, "/each", events: ["goal.completed"])

      1..40
      |> Task.async_stream(&track(context.site, "Signup", props: %{"n" => &1}, visitor: &1),
        max_concurrency: 8,
        timeout: 30_000
      )
      |> Enum.each(&assert({:ok, {202, _headers}} = &1))

      bodies = received(context, "/each", 40)
      numbers = Enum.map(bodies, & &1["data"]["completion"]["props"]["n"])
      assert Enum.sort(numbers) == Enum.sort(Enum.map(1..40, &to_string/1))
      assert MapSet.size(HttpReceiver.ids(context.receiver, "/each")) == 40
    end

    test "each goal has as many deliveries as the dashboard has conversions", context do
      goal!(context.site, %{"event_name" => "Signup"})
      goal!(context.site, %{"event_name" => "Download"})
      goal!(context.site, %{"page_path" => "/blog/**", "display_name" => "Blog"})
      webhook!(context, "/counted", events: ["goal.completed"])

      for visitor <- 1..12 do
        track(context.site, "pageview", path: "/blog/#{visitor}", visitor: visitor)
        if rem(visitor, 2) == 0, do: track(context.site, "Signup", visitor: visitor)
        if rem(visitor, 3) == 0, do: track(context.site, "Download", visitor: visitor)
        track(context.site, "signup", visitor: visitor)
        track(context.site, "pageview", path: "/about", visitor: visitor)
      end

      bodies = received(context, "/counted", 22)
      assert settled_count(context, "/counted") == 22
      delivered = Enum.frequencies_by(bodies, & &1["data"]["goal"]["name"])
      assert delivered == %{"Signup" => 6, "Download" => 4, "Blog" => 12}
      assert conversions(context.site) == delivered
    end
  end

  describe "user story 3: settings" do
    test "US3.1 a webhook is added with a URL, a secret and event types", context do
      {:ok, webhook} =
        Webhooks.create_webhook(context.owner, context.site.id, %{
          "name" => "CRM",
          "url" => HttpReceiver.url(context.receiver, "/crm"),
          "secret" => "whsec_" <> Base.encode64(:binary.copy(<<5>>, 32)),
          "events" => ["goal.completed", "traffic.spike"],
          "spike_threshold" => "300"
        })

      assert {:ok, [%{key: "whsec_BQUF" <> _}]} =
               Webhooks.reveal_secret(context.owner, context.site.id, webhook.id)

      assert {:ok, [listed]} = Webhooks.list_webhooks(context.owner, context.site.id)
      assert %{name: "CRM", events: ["goal.completed", "traffic.spike"]} = listed
      assert listed.spike_threshold == 300
    end

    test "US3.2 a change applies to the next event", context do
      signup = goal!(context.site, %{"event_name" => "Signup"})
      purchase = goal!(context.site, %{"event_name" => "Purchase"})
      webhook = webhook!(context, "/before", events: ["goal.completed"], goals: [signup.id])
      track(context.site, "Signup")
      received(context, "/before", 1)

      {:ok, _webhook} =
        Webhooks.update_webhook(context.owner, context.site.id, webhook.id, %{
          "url" => HttpReceiver.url(context.receiver, "/after"),
          "goals" => [to_string(purchase.id)]
        })

      track(context.site, "Signup")
      track(context.site, "Purchase")
      assert [request] = HttpReceiver.await(context.receiver, "/after", 1)
      assert Jason.decode!(request.body)["data"]["goal"]["name"] == "Purchase"
      assert settled_count(context, "/before") == 1
      assert HttpReceiver.count(context.receiver) == 2
    end

    test "US3.3 a deleted webhook gets nothing more", context do
      goal!(context.site, %{"event_name" => "Signup"})
      webhook = webhook!(context, "/gone", events: ["goal.completed"])
      track(context.site, "Signup")
      received(context, "/gone", 1)

      assert :ok = Webhooks.delete_webhook(context.owner, context.site.id, webhook.id)
      assert {:ok, []} = Webhooks.list_webhooks(context.owner, context.site.id)
      track(context.site, "Signup")
      assert settled_count(context, "/gone") == 1
    end
  end

  describe "user story 4: test deliveries" do
    test "US4.1 the test button sends a sample", context do
      goal!(context.site, %{"event_name" => "Signup"})
      webhook = webhook!(context, "/test", events: ["goal.completed"])

      for type <- ["webhook.test", "goal.completed", "traffic.spike", "traffic.drop"] do
        assert {:ok, %{state: :delivered, status: 200}} =
                 Webhooks.send_test(context.owner, context.site.id, webhook.id, type)
      end

      assert [%{"type" => "webhook.test"}, %{"data" => goal} | _traffic] =
               received(context, "/test", 4)

      assert goal["goal"]["name"] == "Signup"
      assert goal["site"]["domain"] == context.site.domain
    end

    test "US4.2 a test of a failing endpoint returns the reason", context do
      webhook = webhook!(context, "/broken", events: ["goal.completed"])
      HttpReceiver.script(context.receiver, "/broken", [{500, [], "no database"}])

      assert {:ok, %{state: :failed, status: 500, error: :http_status} = attempt} =
               Webhooks.send_test(context.owner, context.site.id, webhook.id, "webhook.test")

      assert attempt.response_body == "no database"
      nobody = receiver!()
      HttpReceiver.stop_listening(nobody)
      webhook = webhook!(%{context | receiver: nobody}, "/", events: ["goal.completed"])

      assert {:ok, %{state: :failed, status: nil, error: :connection_refused}} =
               Webhooks.send_test(context.owner, context.site.id, webhook.id, "webhook.test")
    end
  end

  describe "user story 5: traffic drops" do
    test "US5.1 when visitors fall below the threshold, a drop is sent", context do
      webhook!(context, "/drop", events: ["traffic.drop"], drop_threshold: 5)
      visits!(context.site, 5, in_ms(-11 * 3_600_000))
      assert %{fired: 0} = evaluate!()

      # An hour later these visits are too old.
      now_ms = System.system_time(:millisecond) + 3_700_000
      visits!(context.site, 4, in_ms(3_600_000))
      assert %{fired: 1} = evaluate!(now_ms)

      assert [%{"type" => "traffic.drop", "data" => data}] = received(context, "/drop", 1)
      assert {data["current_visitors"], data["threshold"]} == {4, 5}
      assert data["window_seconds"] == 43_200
    end
  end

  defp in_ms(ms), do: NaiveDateTime.add(NaiveDateTime.utc_now(), div(ms, 1_000))
end
