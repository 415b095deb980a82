defmodule Plausible.Webhooks.BackpressureTest do
  # A database that hangs (SIGSTOP) or is gone (SIGKILL), under a host that goes on
  # ingesting: the hook returns at once, what fits is kept and arrives, the rest is
  # counted and said.
  use Plausible.Webhooks.Test.EctoInstanceCase, async: false

  import ExUnit.CaptureLog

  alias Plausible.Webhooks.Telemetry
  alias Plausible.Webhooks.Test.OwnRepo

  @moduletag timeout: 180_000
  @moduletag :capture_log
  @events 6_000
  @outbox_max 2_000
  @away_ms 4_000
  # Who waits for the database waits a hundred times longer than either; what a busy
  # machine takes away shows in the second.
  @p50_us 500
  @p99_us 10_000

  setup context do
    # In a process that ends after the Repo, which would complain.
    server = start_supervised!({Agent, &Postgres.start!/0}, id: :server)
    cluster = Agent.get(server, & &1)
    on_exit(fn -> Postgres.remove(cluster) end)

    # Comes back soon, so that the tests do.
    start_supervised!(
      {OwnRepo,
       Postgres.connect(cluster) ++ [pool_size: 5, log: false, backoff_min: 50, backoff_max: 500]}
    )

    prefix = "webhooks"
    OwnRepo.query!("CREATE SCHEMA #{prefix}")
    :ok = migrate!(prefix, :up, [], OwnRepo)

    context = Map.merge(context, %{repo: OwnRepo, prefix: prefix})
    test = self()
    id = {__MODULE__, context.name}

    :telemetry.attach_many(
      id,
      [[:plausible, :webhooks, :deliveries, :dropped], [:plausible, :webhooks, :store, :failed]],
      &__MODULE__.tell/4,
      test
    )

    on_exit(fn -> :telemetry.detach(id) end)
    %{server: server, prefix: prefix, repo: OwnRepo}
  end

  # :pause!, :resume!, :kill! or :again!
  defp server!(context, function) do
    Agent.update(
      context.server,
      fn cluster ->
        with :ok <- apply(Postgres, function, [cluster]), do: cluster
      end,
      60_000
    )
  end

  def tell(name, measurements, metadata, pid), do: send(pid, {name, measurements, metadata})

  defp start_bounded!(context) do
    start!(context,
      store: {Store.Ecto, repo: OwnRepo, prefix: context.prefix, timeout_ms: 2_000},
      outbox_max: @outbox_max,
      lane_in_flight_max: 64,
      observers: [{Telemetry, []}]
    )
  end

  defp event(n) do
    %{
      clickhouse_event: %{
        site_id: 1,
        name: "Signup",
        hostname: "site1.example",
        pathname: "/#{n}",
        session_id: n,
        timestamp: ~N[2026-11-23 10:15:30],
        "meta.key": [],
        "meta.value": []
      }
    }
  end

  # How long the hook took, call by call, in microseconds; over `for_ms`.
  defp ingest(context, count, for_ms) do
    pause_ms = 10
    per_pause = max(div(count * pause_ms, for_ms), 1)

    1..count
    |> Enum.chunk_every(per_pause)
    |> Enum.flat_map(fn some ->
      Process.sleep(pause_ms)

      for n <- some do
        event = event(n)
        {us, :ok} = :timer.tc(fn -> API.events_buffered(context.name, [event]) end)
        us
      end
    end)
    |> Enum.sort()
  end

  defp percentile(sorted, percent), do: Enum.at(sorted, div(length(sorted) * percent, 100))

  defp dropped_events(sum \\ 0) do
    receive do
      {[:plausible, :webhooks, :deliveries, :dropped], %{count: count}, %{reason: :site_share}} ->
        dropped_events(sum + count)
    after
      1_500 -> sum
    end
  end

  defp lines(log, part), do: log |> String.split("\n") |> Enum.count(&(&1 =~ part))

  defp report(what, times, log) do
    if System.get_env("WEBHOOKS_REPORT") do
      IO.puts(
        "\n#{what}: #{length(times)} calls, p50 #{percentile(times, 50)} us, " <>
          "p99 #{percentile(times, 99)} us, longest #{List.last(times)} us; log lines: " <>
          "ours #{lines(log, "webhooks:")}, errors of the connections #{lines(log, "[error]")}"
      )
    end
  end

  for {how, away, back} <- [{"hangs", :pause!, :resume!}, {"is gone", :kill!, :again!}] do
    test "a database that #{how} does not affect the hook", context do
      %{receiver: receiver} = context = start_bounded!(context)
      webhook!(context, "/hook")
      # Everything has been loaded and run once.
      ingest(context, 100, 100)
      eventually(fn -> HttpReceiver.count(receiver) == 100 end)

      {times, log} =
        with_log(fn ->
          server!(context, unquote(away))
          times = ingest(context, @events, @away_ms)
          # Bounded; one request more may have looked at the same moment.
          assert Outbox.size(context.instance) <= @outbox_max + 1

          stats = API.stats(context.name)
          assert stats.dropped > 0
          assert stats.pushed + stats.dropped == 100 + @events
          assert dropped_events() == stats.dropped
          assert_receive {[:plausible, :webhooks, :store, :failed], %{count: 1}, failed}
          assert failed.operation in [:accept, :claim, :record]
          assert failed.reason in [:timeout, :connection_lost, :queue_timeout]
          # The process of the observers logs after it has called them.
          :sys.get_state(
            Plausible.Webhooks.Runtime.Instance.process(context.name, :observers),
            60_000
          )

          times
        end)

      report("the database #{unquote(how)}", times, log)
      assert percentile(times, 50) < @p50_us
      assert percentile(times, 99) < @p99_us

      # Said, and not once per event.
      assert lines(log, "deliveries dropped (site_share)") in 1..2
      assert lines(log, "the store failed to") in 1..8
      refute log =~ "[error] webhooks"

      # What was kept arrives, and nothing more is lost.
      %{pushed: kept, dropped: dropped} = API.stats(context.name)

      capture_log(fn ->
        server!(context, unquote(back))
        eventually(fn -> API.stats(context.name).accepted == kept end, 60_000)
        eventually(fn -> MapSet.size(HttpReceiver.ids(receiver)) == kept end, 60_000)
        eventually(fn -> match?({:ok, %{delivered: ^kept}}, API.queue(context.name)) end, 60_000)
      end)

      # The last results leave the journal a moment after they are in the table.
      eventually(fn -> match?(%{outbox: 0, journal: 0}, API.stats(context.name)) end)
      assert %{dropped: ^dropped, refused: 0} = API.stats(context.name)
    end
  end

  test "a pool without a free connection does not affect the hook", context do
    context = start_bounded!(context)
    webhook!(context, "/hook")
    ingest(context, 10, 10)
    eventually(fn -> HttpReceiver.count(context.receiver) == 10 end)

    # What the host does with its Repo.
    busy =
      for _ <- 1..5 do
        Task.async(fn -> OwnRepo.query!("SELECT pg_sleep(3)", [], timeout: 10_000) end)
      end

    {times, _log} = with_log(fn -> ingest(context, 1_500, 2_500) end)
    report("the pool is exhausted", times, "")
    assert percentile(times, 50) < @p50_us
    assert percentile(times, 99) < @p99_us
    Task.await_many(busy, 60_000)
    eventually(fn -> MapSet.size(HttpReceiver.ids(context.receiver)) == 1_510 end, 30_000)
    assert %{dropped: 0} = API.stats(context.name)
  end
end
