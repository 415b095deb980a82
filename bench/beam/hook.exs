# The whole cost of the hook for an ingestion request: one call of
# `Plausible.Webhooks.events_buffered/1` with one event, on a running instance with SQLite.
# Prints the median and p99 in microseconds, less the cost of reading the clock. Then the
# same for an event that completes many goals at once, with few properties and with the
# most that a visitor can send.
#
#     cd elixir_wrapper/plausible_webhooks
#     MIX_ENV=prod mix run --no-start ../../bench/beam/hook.exs
#
# event_path.exs measures the parts.
Code.require_file("../support/latency.exs", __DIR__)

defmodule Bench.Hook do
  alias Bench.Latency
  alias Plausible.Webhooks

  @calls 50_000
  @with_webhooks 1
  @without 99_999

  def run do
    folder = Path.join(System.tmp_dir!(), "webhooks-hook-#{System.pid()}")
    File.mkdir_p!(folder)

    try do
      {:ok, supervisor} = Latency.start(store(folder), &goals/1)
      measure_all()
      measure_many()
      Supervisor.stop(supervisor)
    after
      File.rm_rf!(folder)
    end
  end

  defp store(folder), do: {Plausible.Webhooks.Store.SQLite, path: "#{folder}/webhooks.db"}

  # Sites and their number of goals, all of which one page view completes.
  @all_at_once %{11 => 1, 12 => 50, 13 => 1_000}

  defp goals(site) when is_map_key(@all_at_once, site),
    do: for(id <- 1..@all_at_once[site], do: %{goal(id) | page_path: "/shop/**"})

  # Goals of every kind; a site has at most this many.
  defp goals(_site) do
    for id <- 1..1_000 do
      goal = goal(id)

      case rem(id, 4) do
        0 -> %{goal | event_name: "Event #{id}"}
        1 -> %{goal | page_path: "/docs/page-#{id}"}
        2 -> %{goal | page_path: "/blog/#{id}/**"}
        3 -> %{goal | page_path: "/shop/*/item-#{id}*", scroll_threshold: 50}
      end
    end
  end

  defp goal(id) do
    %{
      id: id,
      name: "Goal #{id}",
      event_name: nil,
      page_path: nil,
      scroll_threshold: -1,
      custom_props: %{},
      currency: nil
    }
  end

  # Nothing listens there: sending is not part of the hook.
  defp webhook!(site) do
    {:ok, webhook} =
      Webhooks.create_webhook(:system, site, %{
        url: "http://127.0.0.1:1024/",
        events: ["goal.completed"]
      })

    webhook
  end

  defp measure_all do
    webhook!(@with_webhooks)
    IO.puts(String.pad_trailing("us per call", 58) <> "  median     p99")
    article = page("/blog/402/an-article-about-webhooks")
    other = page("/about/the/company/and-its-long-history")
    custom = event("Event 400", "/register", 255)
    reading = event("engagement", "/shop/x/item-403-y", 80)

    measure("a site without webhooks", @without, article)
    measure("1 000 goals, page view that completes none", @with_webhooks, other)
    measure("1 000 goals, custom event that completes none", @with_webhooks, event("x", "/", 255))

    measure(
      "1 000 goals, engagement of a visit that completed it before",
      @with_webhooks,
      reading
    )

    # No more calls than the Outbox holds, with time to empty it.
    measure("1 000 goals, page view that completes one", @with_webhooks, article, 2_000)
    measure("1 000 goals, custom event that completes one", @with_webhooks, custom, 2_000)
  end

  # Plausible accepts 30 properties of 2 000 bytes, and a control character takes six bytes
  # in JSON. The Outbox is emptied after each call. Deliveries for which it has no room
  # count too.
  defp measure_many do
    IO.puts("\nus per call, one page view that completes many goals")

    for {site, goals} <- Enum.sort(@all_at_once),
        {label, bytes} <- [{"2 short properties", 5}, {"30 properties of 2 000 bytes", 2_000}] do
      webhook = webhook!(site)
      count = if bytes == 5, do: 2, else: 30
      event = visit(site, count, bytes)
      hook = fn -> :ok = Webhooks.events_buffered([event]) end
      calls = if goals * bytes > 100_000, do: 3, else: 50
      [_first | times] = for _ <- 0..calls, do: hook |> time(1) |> tap(fn _ns -> drain() end)
      report("#{goals} goals, #{label}", Enum.sort(times), 0)
      :ok = Webhooks.delete_webhook(:system, site, webhook.id)
    end
  end

  defp visit(site, count, bytes) do
    event = %{page("/shop/item") | site_id: site}
    value = String.duplicate(<<1>>, bytes)
    keys = for n <- 1..count, do: "key#{n}"
    %{clickhouse_event: %{event | "meta.key": keys, "meta.value": List.duplicate(value, count)}}
  end

  defp page(path), do: event("pageview", path, 255)

  defp event(name, path, depth) do
    %{clickhouse_event: event} = Latency.event(1, 1)
    %{event | name: name, pathname: path, scroll_depth: depth}
  end

  defp measure(label, site, event, calls \\ @calls) do
    hook = fn ->
      :ok = Webhooks.events_buffered([%{clickhouse_event: %{event | site_id: site}}])
    end

    clock = median(times(fn -> :ok end, @calls))
    times(hook, calls)
    drain()
    times = times(hook, calls)
    drain()
    %{dropped: 0} = Webhooks.stats()
    report(label, times, clock)
  end

  defp median(sorted), do: Enum.at(sorted, div(length(sorted), 2))

  defp report(label, times, clock) do
    p99 = Enum.at(times, div(length(times) * 99, 100))

    columns =
      for ns <- [median(times) - clock, p99 - clock],
          do: String.pad_leading(:erlang.float_to_binary(ns / 1_000, decimals: 2), 8)

    IO.puts(String.pad_trailing(label, 58) <> Enum.join(columns))
  end

  defp drain do
    if Webhooks.stats().outbox > 0 do
      Process.sleep(20)
      drain()
    end
  end

  # Runs in a process of its own, as each request does, with pauses as between requests.
  defp times(fun, calls) do
    Task.async(fn -> Enum.sort(for n <- 1..calls, do: time(fun, n)) end)
    |> Task.await(:infinity)
  end

  # Gives the Outbox time to run. A processor that has slept is slow for some microseconds
  # whatever it does, and one that ingests traffic does not sleep: hence the warm-up calls.
  defp pause(fun) do
    Process.sleep(1)
    for _ <- 1..5, do: fun.()
  end

  defp time(fun, n) do
    if rem(n, 100) == 0, do: pause(fun)
    start = :erlang.monotonic_time(:nanosecond)
    fun.()
    :erlang.monotonic_time(:nanosecond) - start
  end
end

Bench.Hook.run()
