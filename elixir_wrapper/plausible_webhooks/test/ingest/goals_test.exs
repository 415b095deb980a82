defmodule Plausible.Webhooks.Ingest.GoalsTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Ingest.{Dedup, Glob, Goals, Subscriptions}

  doctest Goals

  defp goal(id, attrs) do
    Map.merge(
      %{
        id: id,
        name: "Goal #{id}",
        event_name: nil,
        page_path: nil,
        scroll_threshold: -1,
        custom_props: %{},
        currency: nil
      },
      Map.new(attrs)
    )
  end

  defp subscriptions(goals, wishes \\ [{"wh_1", :all}], statuses \\ nil) do
    table = :ets.new(:goals, [:set])
    {index, rows} = Goals.compile({7, 1}, goals, wishes)
    :ets.insert(table, rows)

    %Subscriptions{
      site_id: 7,
      domain: "example.com",
      table: table,
      generation: 1,
      index: index,
      webhooks: statuses || Map.new(wishes, fn {id, _goals} -> {id, :active} end)
    }
  end

  defp event(name, attrs \\ []), do: %{clickhouse_event: Map.merge(%{name: name}, Map.new(attrs))}
  defp pageview(path, attrs \\ []), do: event("pageview", [pathname: path] ++ attrs)

  defp engagement(path, depth, attrs \\ []),
    do: event("engagement", [pathname: path, scroll_depth: depth] ++ attrs)

  defp ids(subscriptions, event, dedup \\ nil),
    do: subscriptions |> Goals.completed(event, dedup) |> Enum.map(& &1.goal.id) |> Enum.sort()

  describe "event goals" do
    test "match the name exactly, case and all" do
      s = subscriptions([goal(1, event_name: "Signup"), goal(2, event_name: "404")])
      assert ids(s, event("Signup")) == [1]
      assert ids(s, event("404")) == [2]
      for other <- ["signup", "Signup ", "Sign", ""], do: assert(ids(s, event(other)) == [])
    end

    test "system goals and names in any script are ordinary names" do
      names = ["Outbound Link: Click", "File Download", "Form: Submission", "Käyttäjä 🦊", "a*b|c"]
      s = subscriptions(Enum.map(Enum.with_index(names), fn {n, i} -> goal(i, event_name: n) end))
      for {name, id} <- Enum.with_index(names), do: assert(ids(s, event(name)) == [id])
      assert ids(s, event("aXb")) == []
    end

    test "every event completes again" do
      s = subscriptions([goal(1, event_name: "Signup")])
      dedup = Dedup.new()
      for _ <- 1..3, do: assert(ids(s, event("Signup", session_id: 5), dedup) == [1])
    end
  end

  describe "page goals" do
    test "match a pageview of exactly this path, and nothing else" do
      s = subscriptions([goal(1, page_path: "/a|/b"), goal(2, page_path: "/register")])
      assert ids(s, pageview("/register")) == [2]
      assert ids(s, pageview("/a|/b")) == [1]
      assert ids(s, pageview("/a")) == []
      assert ids(s, pageview("/register/")) == []
      assert ids(s, event("Signup", pathname: "/register")) == []
      assert ids(s, engagement("/register", 100)) == []
    end

    test "one star and two cross slashes" do
      for pattern <- ["/blog/*", "/blog/**", "/blog/***"] do
        s = subscriptions([goal(1, page_path: pattern)])
        assert ids(s, pageview("/blog/")) == [1]
        assert ids(s, pageview("/blog/2026/11/webhooks")) == [1]
        assert ids(s, pageview("/blog")) == []
        assert ids(s, pageview("/en/blog/x")) == []
      end
    end

    test "regular expression characters are literal" do
      s = subscriptions([goal(1, page_path: "/a.b+(c)[d]{2}?^$\\*")])
      assert ids(s, pageview("/a.b+(c)[d]{2}?^$\\xyz")) == [1]
      assert ids(s, pageview("/aXb+(c)[d]{2}?^$\\xyz")) == []
    end

    test "a bar next to a star is an alternation without a group" do
      s = subscriptions([goal(1, page_path: "/a*|/m|/b*z")])
      assert ids(s, pageview("/a-and-anything")) == [1]
      assert ids(s, pageview("/x/m/y")) == [1]
      assert ids(s, pageview("/x/b-and-z")) == [1]
      assert ids(s, pageview("/b-and-zz-top")) == []
    end

    test "a goal whose alternatives all match completes once" do
      s = subscriptions([goal(1, page_path: "/abc*|*def*|*abc*")])
      assert ids(s, pageview("/abc/def/abc")) == [1]
    end

    # The oracle is the regular expression that Plausible makes: all escaped but `|`,
    # stars turned into `.*`, anchors around the whole.
    test "agrees with the regular expression of the statistics on random patterns" do
      :rand.seed(:exsss, {1, 2, 3})
      alphabet = ~w(a b / * * | . é)

      for _ <- 1..3_000 do
        pattern = random(alphabet, 8) <> "*" <> random(alphabet, 8)
        path = "/" <> random(~w(a b / a b . é), 14)

        source =
          pattern |> Regex.escape() |> String.replace("\\|", "|") |> String.replace("\\*", ".*")

        expected = Regex.match?(Regex.compile!("^#{source}$", "s"), path)
        s = subscriptions([goal(1, page_path: pattern), goal(2, page_path: "/never-*-seen")])

        assert ids(s, pageview(path)) == if(expected, do: [1], else: []),
               "#{inspect(pattern)} on #{inspect(path)}, expected #{expected}"
      end
    end

    defp random(alphabet, max),
      do: Enum.map_join(1..:rand.uniform(max), fn _ -> Enum.random(alphabet) end)

    test "the index never hides a match, whatever the other goals are" do
      :rand.seed(:exsss, {4, 5, 6})

      patterns =
        for id <- 1..1_000, do: {id, random(~w(/a /b bc /de * x y), 6) <> Enum.random(["*", ""])}

      s = subscriptions(for {id, pattern} <- patterns, do: goal(id, page_path: pattern))

      for _ <- 1..300 do
        path = random(~w(/a /b bc /de x y), 12)

        expected =
          for {id, pattern} <- patterns,
              (case Glob.parse(pattern) do
                 :exact -> pattern == path
                 branches -> Enum.any?(branches, &Glob.match?(&1, path))
               end),
              do: id

        assert ids(s, pageview(path)) == Enum.sort(expected)
      end
    end

    test "hostile patterns cost no more than their length" do
      goals =
        for id <- 1..100 do
          goal(id, page_path: "/" <> String.duplicate("*a", 120) <> "#{id}*b")
        end

      s = subscriptions(goals)

      work = fn length ->
        reductions(fn -> pageview("/" <> String.duplicate("a", length)) |> then(&ids(s, &1)) end)
      end

      # Backtracking would take longer than the universe is old.
      assert work.(2_000) < 3 * work.(1_000)
    end

    defp reductions(fun) do
      {:reductions, before} = Process.info(self(), :reductions)
      assert fun.() == []
      {:reductions, now} = Process.info(self(), :reductions)
      now - before
    end
  end

  describe "scroll goals" do
    setup do
      %{s: subscriptions([goal(1, page_path: "/docs/*", scroll_threshold: 60)])}
    end

    test "need an engagement event that is deep enough and measured", %{s: s} do
      assert ids(s, engagement("/docs/x", 60)) == [1]
      assert ids(s, engagement("/docs/x", 100)) == [1]

      for depth <- [0, 59, 101, 255, nil, "80", 60.5],
          do: assert(ids(s, engagement("/docs/x", depth)) == [])

      assert ids(s, engagement("/blog/x", 80)) == []
      assert ids(s, pageview("/docs/x", scroll_depth: 80)) == []
    end

    test "a threshold of 0 is a scroll goal, -1 a page goal" do
      s = subscriptions([goal(1, page_path: "/a", scroll_threshold: 0), goal(2, page_path: "/a")])
      assert [%{goal: %{id: 1, type: "scroll"}}] = Goals.completed(s, engagement("/a", 0), nil)
      assert [%{goal: %{id: 2, type: "page"}}] = Goals.completed(s, pageview("/a"), nil)
    end

    test "complete once per goal, session and path", %{s: s} do
      dedup = Dedup.new()
      assert ids(s, engagement("/docs/x", 50, session_id: 1), dedup) == []
      assert ids(s, engagement("/docs/x", 70, session_id: 1), dedup) == [1]
      assert ids(s, engagement("/docs/x", 90, session_id: 1), dedup) == []
      assert ids(s, engagement("/docs/y", 90, session_id: 1), dedup) == [1]
      assert ids(s, engagement("/docs/x", 90, session_id: 2), dedup) == [1]
      long = "/docs/" <> String.duplicate("x", 300)
      assert ids(s, engagement(long <> "1", 90, session_id: 1), dedup) == [1]
      assert ids(s, engagement(long <> "2", 90, session_id: 1), dedup) == [1]
      assert ids(s, engagement(long <> "2", 95, session_id: 1), dedup) == []
    end

    test "without a session nothing is held back", %{s: s} do
      dedup = Dedup.new()

      for attrs <- [[], [session_id: nil], [session_id: 0]],
          _ <- 1..2,
          do: assert(ids(s, engagement("/docs/x", 90, attrs), dedup) == [1])
    end
  end

  describe "custom properties" do
    test "every pair must hold, exactly" do
      goals = [
        goal(1, event_name: "Buy", custom_props: %{"plan" => "growth", "paid" => "true"}),
        goal(2, page_path: "/p*", custom_props: %{"author" => "Eva"}),
        goal(3, page_path: "/p", scroll_threshold: 50, custom_props: %{"author" => "Eva"})
      ]

      s = subscriptions(goals)
      buy = &event("Buy", "meta.key": &1, "meta.value": &2)
      assert ids(s, buy.(["paid", "plan", "x"], ["true", "growth", "y"])) == [1]
      assert ids(s, buy.(["plan"], ["growth"])) == []
      assert ids(s, buy.(["paid", "plan"], ["true", "Growth"])) == []
      assert ids(s, buy.(["paid", "plan"], ["true"])) == []
      assert ids(s, event("Buy")) == []
      eva = ["meta.key": ["author"], "meta.value": ["Eva"]]
      assert ids(s, pageview("/p", eva)) == [2]
      assert ids(s, engagement("/p", 70, eva)) == [3]
      assert ids(s, engagement("/p", 70)) == []
    end

    test "if a name occurs twice, the first one counts" do
      s = subscriptions([goal(1, event_name: "Buy", custom_props: %{"plan" => "b"})])
      assert ids(s, event("Buy", "meta.key": ["plan", "plan"], "meta.value": ["b", "c"])) == [1]
      assert ids(s, event("Buy", "meta.key": ["plan", "plan"], "meta.value": ["c", "b"])) == []
    end
  end

  describe "webhooks" do
    test "each gets the goals it chose, and all of them with :all" do
      goals = [goal(1, event_name: "A"), goal(2, event_name: "A"), goal(3, page_path: "/a")]
      s = subscriptions(goals, [{"all", :all}, {"two", [2]}, {"none", []}, {"gone", [99]}])

      assert [
               %{goal: %{id: 1}, webhooks: [{"all", :active}]},
               %{goal: %{id: 2}, webhooks: [{"all", :active}, {"two", :active}]}
             ] = s |> Goals.completed(event("A"), nil) |> Enum.sort_by(& &1.goal.id)
    end

    test "a goal that nobody chose is not compiled" do
      assert {%{event: false, page: nil, scroll: nil}, []} =
               Goals.compile({7, 1}, [goal(1, event_name: "A")], [{"w", [2]}])
    end

    test "the status is current, and a deleted webhook gets nothing" do
      wishes = [{"a", :all}, {"b", :all}, {"c", :all}]
      s = subscriptions([goal(1, event_name: "A")], wishes, %{"a" => :active, "b" => :disabled})

      assert [%{webhooks: [{"a", :active}, {"b", :disabled}]}] =
               Goals.completed(s, event("A"), nil)

      assert Goals.completed(%{s | webhooks: %{}}, event("A"), nil) == []
    end

    test "a deleted webhook leaves no key in the memory" do
      dedup = Dedup.new()
      goals = [goal(1, page_path: "/a", scroll_threshold: 10)]
      s = subscriptions(goals, [{"a", :all}], %{})
      assert ids(s, engagement("/a", 50, session_id: 1), dedup) == []
      s = %{s | webhooks: %{"a" => :active}}
      assert ids(s, engagement("/a", 50, session_id: 1), dedup) == [1]
    end
  end

  test "garbage completes nothing and raises nothing" do
    goals = [
      goal(1, event_name: "A", custom_props: %{"a" => "b"}),
      goal(2, page_path: "/a*"),
      goal(3, page_path: "/a", scroll_threshold: 5)
    ]

    s = subscriptions(goals)
    dedup = Dedup.new()
    improper = ["a" | "b"]
    values = [nil, 1, 1.5, "x", <<255>>, :a, [], improper, %{}, {}, self(), fn -> :x end]

    for a <- values, b <- values do
      for event <- [
            a,
            %{clickhouse_event: a},
            event(a, pathname: b),
            event("A", "meta.key": a, "meta.value": b),
            pageview(a, session_id: b),
            engagement("/a", a, session_id: b),
            engagement(a, 50, session_id: b)
          ] do
        assert is_list(Goals.completed(s, event, dedup))
      end
    end

    goals = [nil, %{}, %{id: 1}, goal(1, event_name: ""), goal(2, page_path: nil) | goals]
    assert {_index, rows} = Goals.compile({7, 1}, goals, [{"w", :all}])
    assert length(rows) == 3
  end

  test "1 000 goals cost little per event" do
    goals =
      for id <- 1..1_000 do
        case rem(id, 4) do
          0 -> goal(id, event_name: "Event #{id}")
          1 -> goal(id, page_path: "/docs/page-#{id}")
          2 -> goal(id, page_path: "/blog/#{id}/**")
          3 -> goal(id, page_path: "/shop/*/item-#{id}*", scroll_threshold: 50)
        end
      end

    s = subscriptions(goals)
    event = pageview("/blog/402/an-article-about-webhooks")
    assert ids(s, event) == [402]

    {:reductions, before} = Process.info(self(), :reductions)
    for _ <- 1..100, do: Goals.completed(s, event, nil)
    {:reductions, now} = Process.info(self(), :reductions)
    assert (now - before) / 100 < 1_000
  end
end
