# The cost of webhooks for an ingestion request, from the hook to the body: the median and
# p99 of one call in nanoseconds, less the cost of reading the clock.
#
#     cd elixir_wrapper/plausible_webhooks
#     MIX_ENV=prod mix run --no-start ../../bench/beam/event_path.exs

alias Plausible.Webhooks.Webhook
alias Plausible.Webhooks.Ingest.{Dedup, Directory, Goals, Payload}
alias Plausible.Webhooks.Runtime.{Instance, Isolated}
alias Plausible.Webhooks.Store

defmodule World do
  # The store and the host. Sites 1 to 10 000 have webhooks.
  def all_webhooks(_), do: {:ok, Enum.map(1..10_000, &webhook/1)}
  def list_webhooks(_, id), do: {:ok, [webhook(id)]}
  def site(_, id), do: %{id: id, domain: "site#{id}.example", stats_start_at_ms: nil}
  def goals(_, id), do: Map.get(:persistent_term.get(:goals), id, [])
  defp webhook(id), do: %Webhook{id: "wh_#{id}", site_id: id, events: ["goal.completed"]}
end

defmodule Bench do
  @warm_up 20_000
  @calls 100_000

  def goal(id, attrs) do
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
      attrs
    )
  end

  def measure(label, fun, calls \\ @calls) do
    for _ <- 1..min(@warm_up, calls), do: fun.()
    clock = times(fn -> :ok end, calls) |> elem(0)
    {median, p99} = times(fun, calls)

    columns =
      for ns <- [median - clock, p99 - clock], do: ns |> to_string() |> String.pad_leading(9)

    IO.puts(String.pad_trailing(label, 58) <> Enum.join(columns))
  end

  defp times(fun, calls) do
    # Runs in a process of its own, as each request does.
    task =
      Task.async(fn ->
        sorted = Enum.sort(for _ <- 1..calls, do: time(fun))
        {Enum.at(sorted, div(calls, 2)), Enum.at(sorted, div(calls * 99, 100))}
      end)

    Task.await(task, :infinity)
  end

  defp time(fun) do
    start = :erlang.monotonic_time(:nanosecond)
    fun.()
    :erlang.monotonic_time(:nanosecond) - start
  end
end

mixed =
  for id <- 1..1_000 do
    case rem(id, 4) do
      0 -> Bench.goal(id, %{event_name: "Event #{id}"})
      1 -> Bench.goal(id, %{page_path: "/docs/page-#{id}"})
      2 -> Bench.goal(id, %{page_path: "/blog/#{id}/**"})
      3 -> Bench.goal(id, %{page_path: "/shop/*/item-#{id}*", scroll_threshold: 50})
    end
  end

goals = %{
  1 => mixed,
  2 => for(id <- 1..1_000, do: Bench.goal(id, %{page_path: "/blog/2026/#{id}/**"})),
  3 => for(id <- 1..1_000, do: Bench.goal(id, %{page_path: "**/thank-you-#{id}/*done*"})),
  4 =>
    for(
      id <- 1..1_000,
      do: Bench.goal(id, %{page_path: "*#{<<97 + rem(id, 26)>>}*#{<<97 + div(id, 39)>>}*"})
    ),
  5 =>
    for(
      id <- 1..1_000,
      do: Bench.goal(id, %{page_path: "/" <> String.duplicate("*a", 120) <> "*#{id}*b"})
    ),
  6 => [Bench.goal(1, %{event_name: "Signup"}), Bench.goal(2, %{page_path: "/blog/*"})]
}

:persistent_term.put(:goals, goals)

# An instance that has a store and a host, and can run tasks.
instance = Instance.new(%{name: :bench, host: {World, nil}, observers: []})
Instance.publish(instance)
:ok = Store.opened(instance, World, nil)
{:ok, _pid} = Supervisor.start_link([{Isolated, :bench}], strategy: :one_for_one)

{us, {:ok, _pid}} =
  :timer.tc(fn ->
    Directory.start_link(
      instance: :bench,
      start_wait_ms: 60_000,
      load_timeout_ms: 60_000,
      refresh_ms: 3_600_000
    )
  end)

IO.puts("10 000 sites with webhooks, read and compiled in #{div(us, 1_000)} ms")
{us, _} = :timer.tc(fn -> Goals.compile({1, 1}, mixed, [{"wh_1", :all}]) end)
IO.puts("1 000 goals of mixed kinds compiled in #{us} us")
IO.puts(String.pad_trailing("\nns per call", 58) <> "   median      p99")

event = fn attrs ->
  base = %{
    name: "pageview",
    site_id: 1,
    hostname: "example.com",
    pathname: "/",
    session_id: 1,
    timestamp: ~N[2026-11-23 10:15:30],
    scroll_depth: 255,
    "meta.key": ["plan", "author"],
    "meta.value": ["growth", "Eva"],
    referrer: "https://news.ycombinator.com",
    referrer_source: "Hacker News",
    country_code: "EE",
    screen_size: "Desktop",
    operating_system: "GNU/Linux",
    browser: "Firefox"
  }

  %{clickhouse_event: Map.merge(base, attrs)}
end

page = &event.(%{pathname: &1})
dedup = Directory.dedup(:bench)

run = fn site_id, event ->
  case Directory.lookup(:bench, site_id) do
    nil -> []
    subscriptions -> Goals.completed(subscriptions, event, dedup)
  end
end

custom = event.(%{name: "Event 400"})
article = page.("/blog/402/an-article-about-webhooks")
other = page.("/about/the/company/and-its-long-history")
reading = event.(%{name: "engagement", pathname: "/shop/x/item-403-y", scroll_depth: 80})

Bench.measure("a site without webhooks", fn -> run.(99_999, article) end)
Bench.measure("2 goals, none completed", fn -> run.(6, other) end)
Bench.measure("1 000 goals, custom event that completes one", fn -> run.(1, custom) end)

Bench.measure("1 000 goals, custom event that completes none", fn ->
  run.(1, event.(%{name: "x"}))
end)

Bench.measure("1 000 goals, page view that completes one", fn -> run.(1, article) end)
Bench.measure("1 000 goals, page view that completes none", fn -> run.(1, other) end)
Bench.measure("1 000 goals, engagement seen before", fn -> run.(1, reading) end)

Bench.measure("1 000 paths with one beginning, one completed", fn ->
  run.(2, page.("/blog/2026/777/title"))
end)

Bench.measure("1 000 paths that begin with a star, one completed", fn ->
  run.(3, page.("/x/thank-you-321/is/done"))
end)

IO.puts("\nhostile: 1 000 patterns made to be slow")
letters = page.("/abcdefghijklmnopqrstuvwxyz/abcdefghijklmnopqrstuvwxyz")
Bench.measure("single letters between stars, all completed", fn -> run.(4, letters) end, 2_000)
long = page.("/" <> String.duplicate("a", 1_999))
Bench.measure("120 stars each, on a path of 2 000 bytes", fn -> run.(5, long) end, 2_000)

IO.puts("\nthe body")
[%{goal: goal}] = run.(1, article)
site = %{id: 1, domain: "example.com"}
now_ms = 1_795_428_930_123
{:ok, completion} = Payload.completion(article, now_ms)
made = Payload.goal_completed(site, goal, completion)

Bench.measure("what all goals of an event share, encoded", fn ->
  Payload.completion(article, now_ms)
end)

Bench.measure("body of one of them", fn -> {:ok, _json} = Payload.encode(made) end)

Bench.measure("the whole path: lookup, match, body", fn ->
  [%{goal: goal}] = run.(1, article)

  {:ok, completion} = Payload.completion(article, now_ms)
  {:ok, _json} = site |> Payload.goal_completed(goal, completion) |> Payload.encode()
end)

fresh = Dedup.new()

Bench.measure("remembering a key that is new", fn ->
  Dedup.first_time?(fresh, {1, 2, :erlang.unique_integer(), "/blog/some/path"})
end)
