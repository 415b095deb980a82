defmodule Plausible.Webhooks.Scenarios.UserStories do
  @moduledoc false
  # The acceptance scenarios of the user stories.
  use Plausible.Webhooks.Test.SharedTests
  use Plausible.Webhooks.Scenarios.World

  @minute_ms 60_000
  @hour_ms 60 * @minute_ms
  @week_ms 7 * 24 * @hour_ms

  # --- user story 1: traffic spikes

  shared_test "US1.1 when visitors exceed the threshold, a spike is sent", context do
    webhook!(context, "/spike", events: ["traffic.spike"], spike_threshold: 10)
    track_many(context, "pageview", 1..9)
    assert %{fired: 0} = evaluate!(context)
    assert settled(context, "/spike") == 0

    track_many(context, "pageview", 10..12)
    assert %{fired: 1} = evaluate!(context)

    assert [%{"type" => "traffic.spike", "data" => data}] = bodies(context, "/spike", 1)
    assert data["site"] == %{"domain" => context.site.domain}
    assert data["alert"]["status"] == "firing"
    assert data["current_visitors"] == 12
  end

  shared_test "US1.2 a return to normal sends nothing; the next breach sends a spike", context do
    wanted = [spike_threshold: 10, traffic_min_interval_s: 0]
    webhook!(context, "/quiet", [events: ["traffic.spike"]] ++ wanted)
    webhook!(context, "/resolved", [events: ["traffic.spike", "traffic.resolved"]] ++ wanted)

    now_ms = now_ms()
    visits!(context, 12, now_ms - 1_000)
    assert %{fired: 2} = evaluate!(context, now_ms)
    # Traffic that stays high is no second breach.
    assert %{fired: 0, resolved: 0} = evaluate!(context, now_ms + @minute_ms)

    no_visits!(context)
    assert %{fired: 0, resolved: 0} = evaluate!(context, now_ms + 2 * @minute_ms)
    # Traffic counts as normal again after ten minutes.
    assert %{fired: 0, resolved: 2} = evaluate!(context, now_ms + 12 * @minute_ms)
    # Two POSTs at once may arrive in either order.
    by_type = context |> bodies("/resolved", 2) |> Map.new(&{&1["type"], &1["data"]["alert"]})
    assert by_type["traffic.spike"]["id"] == by_type["traffic.resolved"]["id"]
    assert settled(context, "/quiet") == 1

    visits!(context, 15, now_ms + 13 * @minute_ms - 1_000)
    assert %{fired: 2} = evaluate!(context, now_ms + 13 * @minute_ms)
    assert [first, second] = bodies(context, "/quiet", 2)
    assert first["data"]["alert"]["id"] != second["data"]["alert"]["id"]
    assert second["data"]["current_visitors"] == 15
  end

  shared_test "US1.3 a spike states visitors, threshold and baseline", context do
    webhook!(context, "/baseline", events: ["traffic.spike"], spike_threshold: 10)
    now_ms = now_ms()

    # The baseline is the same weekday and time of the last four weeks, and nothing else.
    for {weeks, count} <- [{1, 4}, {2, 6}, {3, 2}],
        do: visits!(context, count, now_ms - weeks * @week_ms - @minute_ms)

    visits!(context, 50, now_ms - @week_ms - @hour_ms)
    visits!(context, 50, now_ms - 24 * @hour_ms)

    page = fn path, source -> %{pathname: path, referrer_source: source} end
    visits!(context, 8, now_ms - 1_000, page.("/post", "Hacker News"))
    visits!(context, 4, now_ms - 1_000, page.("/", ""))

    assert %{fired: 1, incomplete: 0} = evaluate!(context, now_ms)
    assert [%{"data" => data}] = bodies(context, "/baseline", 1)

    assert %{"current_visitors" => 12, "threshold" => 10, "window_seconds" => 300} = data

    assert data["baseline"] == %{
             "visitors" => 3.0,
             "method" => "same_weekday_and_time_4w",
             "samples" => [4, 6, 2, 0],
             "change_percent" => 300.0
           }

    assert data["top_sources"] == [%{"name" => "Hacker News", "visitors" => 8}]

    assert data["top_pages"] ==
             [%{"path" => "/post", "visitors" => 8}, %{"path" => "/", "visitors" => 4}]

    assert data["dashboard_url"] =~ context.dashboard_url
  end

  # --- user story 2: goals

  shared_test "US2.1 a completed goal is sent to the webhooks that chose it", context do
    signup = goal!(context, %{event_name: "Signup"})
    goal!(context, %{event_name: "Purchase"})
    webhook!(context, "/signup", events: ["goal.completed"], goals: [signup.id])

    assert track(context, "Purchase") == 202
    assert track(context, "Signup", path: "/register") == 202

    assert [%{"type" => "goal.completed", "data" => data}] = bodies(context, "/signup", 1)
    assert data["goal"] == %{"id" => signup.id, "name" => "Signup", "type" => "event"}
    assert data["completion"]["pathname"] == "/register"
    assert settled(context, "/signup") == 1
  end

  shared_test "US2.2 a webhook for all goals gets the goal's name and the completion", context do
    goal!(context, %{event_name: "Purchase", currency: "EUR"})
    goal!(context, %{page_path: "/blog/**", display_name: "Reads the blog"})
    goal!(context, %{page_path: "/docs", scroll_threshold: 60})
    webhook!(context, "/all", events: ["goal.completed"])

    track(context, "Purchase",
      path: "/shop?utm_source=newsletter&utm_campaign=autumn",
      props: %{"plan" => "growth", "seats" => 5},
      revenue: %{"amount" => "49.00", "currency" => "EUR"},
      referrer: "https://news.ycombinator.com"
    )

    track(context, "pageview", path: "/blog/2026/webhooks", visitor: 2)
    track(context, "pageview", path: "/docs", visitor: 3)
    # A visit reports its depth again and again, and completes the goal once.
    for depth <- [20, 59, 60, 80, 100],
        do: track(context, "engagement", path: "/docs", scroll_depth: depth, visitor: 3)

    by_type = context |> bodies("/all", 3) |> Map.new(&{&1["data"]["goal"]["type"], &1["data"]})
    assert settled(context, "/all") == 3
    assert %{"event" => purchase, "page" => blog, "scroll" => _docs} = by_type
    assert {purchase["goal"]["name"], blog["goal"]["name"]} == {"Purchase", "Reads the blog"}
    assert blog["completion"]["pathname"] == "/blog/2026/webhooks"

    assert %{
             "event_name" => "Purchase",
             "props" => %{"plan" => "growth", "seats" => "5"},
             "source" => "newsletter",
             "utm" => %{"source" => "newsletter", "campaign" => "autumn"}
           } = completion = purchase["completion"]

    assert completion["hostname"] == context.site.domain
    assert completion["referrer"] =~ "news.ycombinator.com"
    assert Map.take(completion, Map.keys(context.visitor)) == context.visitor
    revenue = %{"amount" => "49.00", "currency" => "EUR"}
    assert completion["revenue"] == if(context.revenue?, do: revenue)
  end

  shared_test "US2.3 goals in quick succession are sent one by one", context do
    goal!(context, %{event_name: "Signup"})
    webhook!(context, "/each", events: ["goal.completed"])
    track_many(context, "Signup", 1..40, &[props: %{"n" => &1}])

    numbers =
      for body <- bodies(context, "/each", 40), do: body["data"]["completion"]["props"]["n"]

    assert Enum.sort(numbers) == Enum.sort(Enum.map(1..40, &to_string/1))
    assert MapSet.size(HttpReceiver.ids(context.receiver, "/each")) == 40
  end

  # --- user story 3: configuration

  shared_test "US3.1 a webhook is added with a URL, a secret and event types", context do
    {:ok, webhook} =
      create_webhook(context, %{
        "name" => "CRM",
        "url" => url(context, "/crm"),
        "secret" => "whsec_" <> Base.encode64(:binary.copy(<<5>>, 32)),
        "events" => ["goal.completed", "traffic.spike"],
        "spike_threshold" => "300"
      })

    assert ["whsec_BQUF" <> _] = secrets(context, webhook)
    assert {:ok, [listed]} = list_webhooks(context)
    assert %{name: "CRM", events: ["goal.completed", "traffic.spike"]} = listed
    assert listed.spike_threshold == 300
  end

  shared_test "US3.2 a change applies to the next event", context do
    signup = goal!(context, %{event_name: "Signup"})
    purchase = goal!(context, %{event_name: "Purchase"})
    webhook = webhook!(context, "/before", events: ["goal.completed"], goals: [signup.id])
    HttpReceiver.secrets(context.receiver, "/after", secrets(context, webhook))
    track(context, "Signup")
    posts(context, "/before", 1)

    {:ok, _webhook} =
      update_webhook(context, webhook.id, %{
        "url" => url(context, "/after"),
        "goals" => [to_string(purchase.id)]
      })

    track(context, "Signup")
    track(context, "Purchase")
    assert [%{"data" => %{"goal" => %{"name" => "Purchase"}}}] = bodies(context, "/after", 1)
    assert {settled(context, "/before"), settled(context, "/after")} == {1, 1}
  end

  shared_test "US3.3 a deleted webhook is gone and gets nothing more", context do
    goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/gone", events: ["goal.completed"])
    track(context, "Signup")
    posts(context, "/gone", 1)

    assert :ok = delete_webhook(context, webhook.id)
    assert {:ok, []} = list_webhooks(context)
    track(context, "Signup")
    assert settled(context, "/gone") == 1
  end

  # --- user story 4: tests

  shared_test "US4.1 a test sends a sample of the chosen type", context do
    goal!(context, %{event_name: "Signup"})
    webhook = webhook!(context, "/test", events: ["goal.completed"])

    for type <- ["webhook.test", "goal.completed", "traffic.spike", "traffic.drop"] do
      assert {:ok, %{state: :delivered, status: 200}} = send_test(context, webhook.id, type)
    end

    assert [%{"type" => "webhook.test"}, %{"data" => sample} | _] = bodies(context, "/test", 4)
    assert sample["goal"]["name"] == "Signup"
    assert sample["site"]["domain"] == context.site.domain
  end

  shared_test "US4.2 a test of a failing endpoint returns the reason at once", context do
    webhook = webhook!(context, "/broken", events: ["goal.completed"])
    HttpReceiver.script(context.receiver, "/broken", [{500, [], "no database"}])
    test = &send_test(context, &1.id, "webhook.test")

    assert {:ok, %{state: :failed, status: 500, error: :http_status} = attempt} = test.(webhook)
    assert attempt.response_body == "no database"

    unreachable = HttpReceiver.start!()
    :ok = HttpReceiver.stop_listening(unreachable)
    attributes = %{url: HttpReceiver.url(unreachable, "/"), events: ["goal.completed"]}
    {:ok, webhook} = create_webhook(context, attributes)
    assert {:ok, %{state: :failed, status: nil, error: :connection_refused}} = test.(webhook)
  end

  # --- user story 5: traffic drops

  shared_test "US5.1 when visitors fall below the threshold, a drop is sent", context do
    webhook!(context, "/drop", events: ["traffic.drop"], drop_threshold: 5)
    now_ms = now_ms()
    visits!(context, 5, now_ms - 11 * @hour_ms)
    assert %{fired: 0} = evaluate!(context, now_ms)

    # More than an hour later these visits are older than twelve hours.
    later_ms = now_ms + @hour_ms + @minute_ms
    visits!(context, 4, later_ms - @minute_ms)
    assert %{fired: 1} = evaluate!(context, later_ms)

    assert [%{"type" => "traffic.drop", "data" => data}] = bodies(context, "/drop", 1)

    assert %{"current_visitors" => 4, "threshold" => 5, "window_seconds" => 43_200} = data
  end
end
