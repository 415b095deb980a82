defmodule Plausible.Webhooks.Host.FileTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias Plausible.Webhooks.{Host, Webhook}
  alias Plausible.Webhooks.Host.File.Config

  @examples Path.expand("../../../examples", __DIR__)
  @minute 60_000

  setup context do
    name = Module.concat(__MODULE__, "H#{System.unique_integer([:positive])}")
    path = Path.join(System.tmp_dir!(), "#{inspect(name)}.json")
    on_exit(fn -> File.rm(path) end)
    %{name: name, path: path, line: context.line}
  end

  defp start(%{name: name, path: path}, sites, opts \\ []) do
    write(path, sites)
    start_supervised!({Host.File, [path: path, name: name] ++ opts})
  end

  # Another size, for the time of a change is only known to the second.
  defp write(path, sites) do
    json = if is_binary(sites), do: sites, else: json(%{sites: sites})
    File.write!(path, json <> String.duplicate(" ", :rand.uniform(1_000)))
  end

  defp json(term) do
    {:ok, json} = Plausible.Webhooks.Native.encode(term)
    json
  end

  defp site(id, attrs \\ %{}), do: Map.merge(%{id: id, domain: "site#{id}.test"}, attrs)

  defp visit(site_id, user, at_ms, attrs \\ %{}) do
    at = at_ms |> DateTime.from_unix!(:millisecond) |> DateTime.to_naive()
    event = %{name: "pageview", site_id: site_id, user_id: user, timestamp: at, pathname: "/"}
    %{clickhouse_event: Map.merge(event, attrs)}
  end

  defp visitors(name, windows) do
    {:ok, counts} = Host.File.visitors(name, 1, windows)
    counts
  end

  defp eventually(fun, tries \\ 1_000) do
    cond do
      fun.() -> true
      tries == 0 -> false
      true -> Process.sleep(10) && eventually(fun, tries - 1)
    end
  end

  test "the example file is valid" do
    {:ok, [first, second]} =
      @examples |> Path.join("sites.json") |> File.read!() |> Config.parse()

    assert {first.id, first.domain, length(first.goals)} == {1, "example.com", 10}
    assert {second.id, length(second.goals)} == {2, 2}
  end

  test "tells sites and goals as the file has them", %{name: name} = context do
    start(context, [
      site(1, %{
        timezone: "Europe/Tallinn",
        stats_start_at: "2026-01-01T00:00:00Z",
        dashboard_url: "https://p.test/1",
        goals: [
          %{id: 1, event_name: "Signup", custom_props: %{plan: "x"}, currency: "EUR"},
          %{id: 2, page_path: "/blog/*", scroll_threshold: 0, name: "Read"},
          %{id: 3, page_path: "*"}
        ]
      }),
      site(2)
    ])

    start_ms = 1_767_225_600_000

    assert Host.File.site(name, 1) ==
             %{
               id: 1,
               domain: "site1.test",
               timezone: "Europe/Tallinn",
               stats_start_at_ms: start_ms
             }

    assert Host.File.site_by_domain(name, "site1.test") == Host.File.site(name, 1)
    assert %{timezone: "Etc/UTC", stats_start_at_ms: nil} = Host.File.site(name, 2)
    assert Host.File.site(name, 3) == nil
    assert Host.File.site_by_domain(name, "site3.test") == nil
    assert Host.File.dashboard_url(name, 1) == "https://p.test/1"
    assert Host.File.dashboard_url(name, 2) == nil
    assert Host.File.dashboard_url(name, 3) == nil
    assert Host.File.goals(name, 2) == []
    assert Host.File.goals(name, 3) == []

    assert Host.File.goals(name, 1) == [
             %{
               id: 1,
               name: "Signup",
               event_name: "Signup",
               page_path: nil,
               scroll_threshold: -1,
               custom_props: %{"plan" => "x"},
               currency: "EUR"
             },
             %{
               id: 2,
               name: "Read",
               event_name: nil,
               page_path: "/blog/*",
               scroll_threshold: 0,
               custom_props: %{},
               currency: nil
             },
             %{
               id: 3,
               name: "Visit *",
               event_name: nil,
               page_path: "*",
               scroll_threshold: -1,
               custom_props: %{},
               currency: nil
             }
           ]
  end

  test "names what is wrong, and where" do
    goal = fn goal ->
      %{sites: [site(1), site(2, %{goals: [%{id: 1, event_name: "A"}, goal]})]}
    end

    for {value, message} <- [
          {[], "must be an object"},
          {%{sites: 1}, "sites: must be a list"},
          {%{sits: []}, "sits: is not a field; known are sites"},
          {%{sites: [1]}, "sites[0]: must be an object"},
          {%{sites: [%{domain: "a"}]}, "sites[0].id: is required"},
          {%{sites: [%{id: "1", domain: "a"}]}, "sites[0].id: must be an integer"},
          {%{sites: [%{id: 1}]}, "sites[0].domain: is required"},
          {%{sites: [site(1), site(1)]}, "sites: id 1 is there twice"},
          {%{sites: [site(1), site(2, %{domain: "site1.test"})]},
           "domain site1.test is there twice"},
          {%{sites: [site(1, %{dashboard_url: "javascript:x"})]},
           "sites[0].dashboard_url: must be"},
          {%{sites: [site(1, %{stats_start_at: "soon"})]},
           "sites[0].stats_start_at: must be a time"},
          {goal.(%{id: 1, event_name: "B"}), "sites[1].goals: id 1 is there twice"},
          {goal.(%{id: 2}), "sites[1].goals[1]: needs event_name or page_path"},
          {goal.(%{id: 2, event_name: "B", page_path: "/"}), "sites[1].goals[1]: has both"},
          {goal.(%{id: 2, event_name: ""}), "sites[1].goals[1].event_name: must be text"},
          {goal.(%{id: 2, event_name: "engagement"}), "goals[1].event_name: engagement"},
          {goal.(%{id: 2, page_path: "blog"}), "sites[1].goals[1].page_path: must begin with"},
          {goal.(%{id: 2, page_pth: "/"}), "sites[1].goals[1].page_pth: is not a field"},
          {goal.(%{id: 2, page_path: "/", scroll_threshold: 101}), "scroll_threshold: must be"},
          {goal.(%{id: 2, event_name: "B", scroll_threshold: 5}),
           "scroll_threshold: needs page_path"},
          {goal.(%{id: 2, event_name: "B", currency: "euro"}), "goals[1].currency: must be"},
          {goal.(%{id: 2, event_name: "B", custom_props: %{a: 1}}),
           "custom_props.a: must be text"},
          {goal.(%{id: 2, event_name: "B", custom_props: [1]}),
           "custom_props: must be an object"},
          {%{sites: [site(1, %{history: [%{from: "x"}]})]}, "sites[0].history[0].from: must be"},
          {%{sites: [site(1, %{goals: List.duplicate(1, 1_001)})]}, "goals: has more than 1000"}
        ] do
      assert {:error, text} = Config.parse(json(value))
      assert text =~ message
    end

    assert {:error, "line 3, column " <> _} = Config.parse("{\n\"sites\":\n[}\n]}")
  end

  test "a file that is not there or not valid stops the start", %{name: name, path: path} do
    Process.flag(:trap_exit, true)
    assert {:error, {:invalid_file, text}} = Host.File.start_link(path: path, name: name)
    assert text =~ "no such file"
    write(path, "{")
    assert {:error, {:invalid_file, text}} = Host.File.start_link(path: path, name: name)
    assert text =~ "#{path}: line 1"
  end

  describe "a change of the file" do
    test "is in force by itself, and told site by site", %{name: name} = context do
      test = self()
      on_change = &send(test, {:changed, &1})
      start(context, [site(1), site(2), site(3)], poll_ms: 10, on_change: on_change)
      refute_received {:changed, _}
      write(context.path, [site(1), site(2, %{domain: "new.test"}), site(4)])
      assert eventually(fn -> Host.File.site(name, 4) != nil end)
      for id <- [2, 3, 4], do: assert_receive({:changed, ^id})
      refute_received {:changed, 1}
      assert Host.File.site(name, 3) == nil
      assert Host.File.site_by_domain(name, "site2.test") == nil
      assert Host.File.site_by_domain(name, "new.test").id == 2
    end

    @tag :capture_log
    test "is not missed when the file was read while half of it was there", context do
      start(context, [site(1)], poll_ms: 1)

      for n <- 2..150 do
        whole = json(%{sites: [site(1), site(n)]})
        File.write!(context.path, binary_part(whole, 0, div(byte_size(whole), 2)))
        :timer.sleep(:rand.uniform(3) - 1)
        for _ <- 1..:rand.uniform(2_000), do: :rand.uniform()
        File.write!(context.path, whole <> String.duplicate(" ", n))
        assert eventually(fn -> Host.File.site(context.name, n) != nil end, 100)
      end
    end

    test "a domain that moves to another site goes with it", %{name: name} = context do
      start(context, [site(1), site(2)])
      write(context.path, [site(1, %{domain: "site2.test"}), site(2, %{domain: "site1.test"})])
      assert Host.File.reload(name) == :ok
      assert Host.File.site_by_domain(name, "site1.test").id == 2
      assert Host.File.site_by_domain(name, "site2.test").id == 1
    end

    test "that is not valid changes nothing and is reported once", %{name: name} = context do
      start(context, [site(1)], poll_ms: 10)

      log =
        capture_log(fn ->
          write(context.path, "{\"sites\": [{}]}")
          assert {:error, message} = Host.File.reload(name)
          assert message =~ "sites[0].id: is required"
          Process.sleep(100)
        end)

      assert log |> String.split("what was read before stays in force") |> length() == 2
      assert Host.File.site(name, 1)
      write(context.path, [site(1), site(2)])
      assert eventually(fn -> Host.File.site(name, 2) != nil end)
    end

    @tag :capture_log
    test "survives an on_change that raises", %{name: name} = context do
      start(context, [site(1)], on_change: fn _ -> raise "no" end)
      write(context.path, [site(2)])
      assert Host.File.reload(name) == :ok
      assert Host.File.site(name, 2)
    end
  end

  describe "visitors" do
    @t 1_795_428_000_000

    test "are counted once per window, which is half-open", %{name: name} = context do
      start(context, [site(1), site(2)])
      for at <- [0, 1, 2], do: Host.File.observe(name, visit(1, 5, @t + at * @minute))
      Host.File.observe(name, visit(1, 6, @t + 2 * @minute))
      Host.File.observe(name, visit(2, 7, @t))
      Host.File.observe(name, visit(1, 8, @t, %{name: "engagement"}))
      Host.File.observe(name, visit(1, 9, @t, %{name: "Signup"}))
      window = fn from, to -> {@t + from * @minute, @t + to * @minute} end

      assert visitors(name, [window.(0, 3), window.(0, 1), window.(1, 2), window.(2, 3)]) == [
               3,
               2,
               1,
               2
             ]

      assert visitors(name, [window.(-5, 0), window.(3, 9)]) == [0, 0]
      assert Host.File.visitors(name, 9, [window.(0, 3)]) == {:ok, [0]}
      assert Host.File.site(name, 1).stats_start_at_ms == @t
    end

    test "of the past come from the file", %{name: name} = context do
      iso = &(DateTime.from_unix!(@t + &1 * @minute, :millisecond) |> DateTime.to_iso8601())

      history = [
        %{from: iso.(0), to: iso.(60), visitors: 120},
        %{from: iso.(60), to: iso.(70), visitors: 3}
      ]

      start(context, [site(1, %{history: history})])
      window = fn from, to -> {@t + from * @minute, @t + to * @minute} end

      assert visitors(name, [window.(0, 60), window.(0, 5), window.(55, 60), window.(-60, 200)]) ==
               [120, 10, 10, 123]

      assert visitors(name, [window.(60, 61), window.(61, 63), window.(63, 64)]) == [1, 0, 1]
      # Windows side by side share nobody and leave nobody out.
      fives = for n <- 0..13, do: window.(n * 5, n * 5 + 5)
      assert Enum.sum(visitors(name, fives)) == 123
      assert Host.File.site(name, 1).stats_start_at_ms == @t
    end

    test "come from sources and look at pages", %{name: name} = context do
      start(context, [site(1)])

      for {user, source, page} <- [
            {1, "HN", "/a"},
            {1, "HN", "/b"},
            {2, "HN", "/a"},
            {3, "Bing", "/a"},
            {4, "", "/c"},
            {5, nil, "/c"}
          ] do
        Host.File.observe(name, visit(1, user, @t, %{referrer_source: source, pathname: page}))
      end

      assert Host.File.breakdown(name, 1, {@t, @t + 1}, 2) ==
               {:ok,
                %{
                  sources: [%{name: "HN", visitors: 2}, %{name: "Bing", visitors: 1}],
                  pages: [%{path: "/a", visitors: 3}, %{path: "/c", visitors: 2}]
                }}
    end

    test "are kept within the bound, the latest first", %{name: name} = context do
      start(context, [site(1)], events_max: 50)
      for n <- 1..500, do: Host.File.observe(name, visit(1, n, @t + n))
      assert :ets.info(name, :size) <= 51
      [kept] = visitors(name, [{@t, @t + 1_000}])
      assert kept in 40..50
      assert visitors(name, [{@t + 501 - kept, @t + 501}]) == [kept]
    end

    test "garbage is not counted", %{name: name} = context do
      start(context, [site(1)])
      good = visit(1, 1, @t).clickhouse_event
      garbage = for key <- Map.keys(good), value <- [nil, 1.5, {}, []], do: %{good | key => value}
      for event <- garbage, do: assert(Host.File.observe(name, %{clickhouse_event: event}) == :ok)

      for event <- [nil, %{}, %{clickhouse_event: nil}, %{clickhouse_event: %{name: "x"}}],
          do: assert(Host.File.observe(name, event) == :ok)
    end
  end

  test "the system may do everything, others as the options say", %{name: name} = context do
    start(context, [site(1)], actors: ["eva"])
    assert Host.File.can?(name, :system, :manage, 1)
    assert Host.File.can?(name, "eva", :manage, 1)
    refute Host.File.can?(name, "eva", :manage, 2)
    refute Host.File.can?(name, "adam", :read, 1)
    assert Host.File.alerts_allowed?(name, 1)
  end

  test "anyone may, unless told otherwise", %{name: name} = context do
    start(context, [site(1)])
    assert Host.File.can?(name, "anyone", :manage, 1)
    refute Host.File.can?(name, "anyone", :manage, 2)
  end

  test "tells and audits by the log, without the URL", %{name: name} do
    webhook = %Webhook{id: "wh_1", site_id: 1, url: "https://h.test/secret-token"}

    log =
      capture_log(fn ->
        Host.File.webhook_disabled(name, webhook, :gone)
        Host.File.audit(name, :system, :reveal_secret, webhook)
      end)

    assert log =~ "wh_1 of site 1 was disabled: gone"
    assert log =~ ":system did reveal_secret on wh_1"
    refute log =~ "secret-token"
  end
end
