# What the hook costs an ingestion request, the whole of it:
# `Plausible.Webhooks.events_buffered/1` with one event, on an instance that runs, to
# SQLite. Median and p99 of one call in microseconds, less the cost of reading the clock.
#
#     cd elixir_wrapper/plausible_webhooks
#     MIX_ENV=prod mix run --no-start ../../bench/beam/hook.exs
#
# Its parts one by one: event_path.exs.
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
      {:ok, supervisor} = Latency.start(store(folder), goals())
      measure_all()
      Supervisor.stop(supervisor)
    after
      File.rm_rf!(folder)
    end
  end

  defp store(folder), do: {Plausible.Webhooks.Store.SQLite, path: "#{folder}/webhooks.db"}

  # Of every kind, and a site has no more.
  defp goals do
    for id <- 1..1_000 do
      goal = %{
        id: id,
        name: "Goal #{id}",
        event_name: nil,
        page_path: nil,
        scroll_threshold: -1,
        custom_props: %{},
        currency: nil
      }

      case rem(id, 4) do
        0 -> %{goal | event_name: "Event #{id}"}
        1 -> %{goal | page_path: "/docs/page-#{id}"}
        2 -> %{goal | page_path: "/blog/#{id}/**"}
        3 -> %{goal | page_path: "/shop/*/item-#{id}*", scroll_threshold: 50}
      end
    end
  end

  defp measure_all do
    # Nobody listens there: what is sent is none of the hook's concern.
    {:ok, _webhook} =
      Webhooks.create_webhook(:system, @with_webhooks, %{
        url: "http://127.0.0.1:1024/",
        events: ["goal.completed"]
      })

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

    # As many as the Outbox takes, with time to empty it.
    measure("1 000 goals, page view that completes one", @with_webhooks, article, 2_000)
    measure("1 000 goals, custom event that completes one", @with_webhooks, custom, 2_000)
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

    {clock, _p99} = times(fn -> :ok end, @calls)
    times(hook, calls)
    drain()
    {median, p99} = times(hook, calls)
    drain()
    %{dropped: 0} = Webhooks.stats()

    columns =
      for ns <- [median - clock, p99 - clock],
          do: String.pad_leading(:erlang.float_to_binary(ns / 1_000, decimals: 2), 8)

    IO.puts(String.pad_trailing(label, 58) <> Enum.join(columns))
  end

  defp drain do
    if Webhooks.stats().outbox > 0 do
      Process.sleep(20)
      drain()
    end
  end

  # A process of its own, as each request is; a pause now and then, as between requests.
  defp times(fun, calls) do
    Task.async(fn ->
      times = for n <- 1..calls, do: time(fun, n)
      sorted = Enum.sort(times)
      {Enum.at(sorted, div(calls, 2)), Enum.at(sorted, div(calls * 99, 100))}
    end)
    |> Task.await(:infinity)
  end

  defp time(fun, n) do
    if rem(n, 100) == 0, do: Process.sleep(1)
    start = :erlang.monotonic_time(:nanosecond)
    fun.()
    :erlang.monotonic_time(:nanosecond) - start
  end
end

Bench.Hook.run()
