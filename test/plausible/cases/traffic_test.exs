defmodule Plausible.Webhooks.RealTree.TrafficTest do
  # The figures of traffic alerts against the rows that ClickHouse holds, and what an
  # evaluation costs both databases.
  use Plausible.Webhooks.Scenarios.Case, host: {Plausible.Webhooks.Test.PlausibleHost, nil}

  import Plausible.Webhooks.Test.PlausibleHost, only: [site!: 2, team_of: 1]

  alias Plausible.Webhooks.Ingest.Directory
  alias Plausible.Webhooks.{Store, Webhook}

  @five_minutes 300
  @twelve_hours 43_200
  @week 7 * 86_400

  # In the site's time zone, clocks were set back or forward in the four weeks before, or at
  # the very time a week before.
  @zones [
    {"Etc/UTC", ~U[2026-11-04 10:00:00Z]},
    {"Europe/Tallinn", ~U[2026-11-10 08:30:00Z]},
    {"Europe/Tallinn", ~U[2026-11-01 01:15:00Z]},
    {"Europe/Tallinn", ~U[2026-04-05 00:30:00Z]},
    {"America/New_York", ~U[2026-11-08 06:30:00Z]},
    {"America/New_York", ~U[2026-03-15 06:30:00Z]},
    {"Australia/Lord_Howe", ~U[2026-04-12 15:15:00Z]},
    {"Asia/Kathmandu", ~U[2026-11-04 18:15:00Z]}
  ]
  # How long ago the statistics of a site began; those of a reset site begin anew.
  @ages [100 * @week, 2 * @week + 3_600, 13 * 3_600, 3_600]

  test "visitors, baselines and tops are what the raw rows say", context do
    for {zone, now} <- @zones, %{site: site} = case <- sites!(context, zone, now) do
      for kind <- ["traffic.spike", "traffic.drop"], do: alert!(context, site, kind)
      evaluate!(context, DateTime.to_unix(now, :millisecond))
      rows = rows(site)
      expected = for kind <- kinds(case), into: %{}, do: {kind, expected(kind, case, rows)}
      assert alerts(context, site, map_size(expected)) == expected, inspect({zone, now, case.age})
    end
  end

  defp sites!(context, zone, now) do
    for age <- @ages do
      start = DateTime.add(now, -age)
      attributes = [timezone: zone, native_stats_start_at: DateTime.to_naive(start)]
      site = site!(team_of(context.site), attributes)
      case = %{site: site, zone: zone, now: DateTime.to_unix(now), age: age}
      events!(case)
      case
    end
  end

  # Of about a hundred visitors, in and around each window, also of before a reset.
  defp events!(%{site: site} = case) do
    seed = :erlang.phash2({case.zone, case.now, case.age})

    Plausible.IngestRepo.query!(
      """
      INSERT INTO events_v2 (site_id, timestamp, name, user_id, session_id, hostname, pathname, referrer_source)
      SELECT {$0:UInt64}, toDateTime({$1:Int64} - (number % 5) * {$2:Int64} + intDiv(cityHash64(number, 1, {$3:Int64}), 7) % 57600 - 50400),
        ['pageview', 'Signup', 'engagement'][cityHash64(number, 2) % 3 + 1], cityHash64(number, 3, {$3:Int64}) % 97, 1, 'h',
        concat('/', toString(cityHash64(number, 4) % 7)), ['', 'HN', 'Bing', 'Reddit', 'X'][cityHash64(number, 5) % 5 + 1]
      FROM numbers(20000)
      """,
      [site.id, case.now, @week, seed]
    )
  end

  defp alert!(context, site, event) do
    {:ok, webhook} =
      Webhooks.create_webhook(:system, site.id, %{
        url: url(context, "/#{site.id}"),
        events: [event],
        spike_threshold: if(event == "traffic.spike", do: 1),
        drop_threshold: if(event == "traffic.drop", do: 1_000_000)
      })

    on_exit(fn -> Webhooks.delete_webhook(:system, site.id, webhook.id) end)
  end

  # Twelve hours are not full yet.
  defp kinds(%{age: age}) when age < @twelve_hours, do: ["traffic.spike"]
  defp kinds(_case), do: ["traffic.spike", "traffic.drop"]

  defp alerts(context, site, count) do
    for request <- HttpReceiver.await(context.receiver, "/#{site.id}", count), into: %{} do
      %{"type" => type, "data" => data} = decode(request.body)
      {type, Map.take(data, ["current_visitors", "baseline", "top_sources", "top_pages"])}
    end
  end

  defp expected(kind, case, rows) do
    length = if kind == "traffic.spike", do: @five_minutes, else: @twelve_hours
    current = visitors(rows, case.now, length)

    samples =
      for weeks <- 1..4,
          at = same_time(case, weeks),
          at - length >= case.now - case.age,
          do: visitors(rows, at, length)

    tops = if kind == "traffic.spike", do: within(rows, case.now, length), else: []

    %{
      "current_visitors" => current,
      "baseline" => samples != [] && baseline(current, samples) || nil,
      "top_sources" => tops |> Enum.reject(&(&1.source == "")) |> top(:source, "name"),
      "top_pages" => top(tops, :page, "path")
    }
  end

  defp baseline(current, samples) do
    mean = Enum.sum(samples) / length(samples)

    %{
      "visitors" => Float.round(mean, 1),
      "method" => "same_weekday_and_time_4w",
      "samples" => samples,
      "change_percent" => if(mean > 0, do: Float.round((current - mean) / mean * 100, 1))
    }
  end

  defp visitors(rows, to, length), do: rows |> within(to, length) |> Enum.uniq_by(& &1.user) |> length()
  defp within(rows, to, length), do: Enum.filter(rows, &(&1.at >= to - length and &1.at < to))

  defp top(rows, field, key) do
    rows
    |> Enum.uniq_by(&{&1[field], &1.user})
    |> Enum.frequencies_by(& &1[field])
    |> Enum.sort_by(fn {name, count} -> {-count, name} end)
    |> Enum.take(3)
    |> Enum.map(fn {name, count} -> %{key => name, "visitors" => count} end)
  end

  # The first moment at which the clocks there showed that time or a later one, by
  # PostgreSQL's time zones.
  defp same_time(case, weeks) do
    %{rows: [[at]]} =
      Plausible.Repo.query!(
        """
        SELECT min(candidate) FROM (
          SELECT to_timestamp($1::bigint) AT TIME ZONE $2 - make_interval(days => 7 * $3::integer) AS wanted) AS given,
          LATERAL generate_series($1::bigint - $3 * 604800 - 10800, $1::bigint - $3 * 604800 + 10800, 900) AS candidate
        WHERE to_timestamp(candidate) AT TIME ZONE $2 >= wanted
        """,
        [case.now, case.zone, weeks]
      )

    at
  end

  defp rows(site) do
    %{rows: rows} =
      Plausible.ClickhouseRepo.query!(
        "SELECT user_id, toUnixTimestamp(timestamp), pathname, referrer_source FROM events_v2 " <>
          "WHERE site_id = {$0:UInt64} AND name <> 'engagement'",
        [site.id]
      )

    for [user, at, page, source] <- rows, do: %{user: user, at: at, page: page, source: source}
  end

  # --- the cost

  @sites String.to_integer(System.get_env("WEBHOOKS_SITES", "10000"))
  @statements_max 25

  @tag timeout: :infinity
  test "thresholds of 10 000 sites cost few statements a minute", context do
    # The goals of other tests' webhooks would be read too.
    Plausible.Repo.query!("DELETE FROM webhooks")
    first = site!(team_of(context.site), []).id
    last = first + @sites
    on_exit(fn -> Plausible.Repo.query!("DELETE FROM sites WHERE id BETWEEN $1 AND $2", [first, last]) end)
    many_sites!(first, last)
    many_events!(first, last)
    for id <- (first + 1)..last, do: :ok = Store.insert_webhook(Webhooks, watching(id, context))
    :ok = Directory.refresh_everything(Webhooks)

    # A minute: one reading of the webhooks, one evaluation.
    minute = fn ->
      :ok = Directory.refresh_all(Webhooks)
      {us, summary} = :timer.tc(fn -> evaluate!(context) end)
      assert %{fired: 0, failed: []} = summary
      {div(us, 1_000), summary.sites}
    end

    minute.()
    {{ms, sites}, cost} = cost(minute)
    say = "#{sites} sites: #{ms} ms; PostgreSQL #{length(cost.postgres)} statements, #{cost.postgres_ms} ms of CPU; " <>
      "ClickHouse #{length(cost.clickhouse)} statements, #{cost.clickhouse_ms} ms of CPU"
    IO.puts("\n    an evaluation of " <> say)
    assert sites == @sites
    all = cost.postgres ++ cost.clickhouse
    assert length(all) <= @statements_max, inspect(Enum.frequencies(all), limit: :infinity, pretty: true)
  end

  defp watching(site_id, context) do
    {:ok, key} = Plausible.Webhooks.Native.generate_secret()

    %Webhook{
      id: Plausible.Webhooks.Id.webhook(),
      site_id: site_id,
      url: url(context, "/#{site_id}"),
      events: ["traffic.spike", "traffic.drop"],
      spike_threshold: 1_000_000,
      drop_threshold: if(rem(site_id, 2) == 0, do: 1),
      secrets: [%{key: key, created_at_ms: now_ms(), expires_at_ms: nil}],
      inserted_at_ms: now_ms(),
      updated_at_ms: now_ms()
    }
  end

  defp many_sites!(first, last) do
    Plausible.Repo.query!(
      """
      INSERT INTO sites (id, domain, timezone, team_id, native_stats_start_at, inserted_at, updated_at)
      SELECT many.id, 'many' || many.id || '.example.com', timezone, team_id, '2020-01-01', now(), now()
      FROM sites AS model, generate_series($1::bigint + 1, $2) AS many (id) WHERE model.id = $1
      """,
      [first, last]
    )
  end

  # A hundred of the last day for each site.
  defp many_events!(first, last) do
    Plausible.IngestRepo.query!(
      """
      INSERT INTO events_v2 (site_id, timestamp, name, user_id, session_id, hostname, pathname)
      SELECT {$0:UInt64} + 1 + number % {$1:UInt64}, now() - cityHash64(number) % 86400, 'pageview',
        cityHash64(number, 1) % 50, 1, 'h', '/' FROM numbers({$1:UInt64} * 100)
      """,
      [first, last - first]
    )
  end

  # Statements by telemetry, on every process, without those of the sweeps, which have nothing to
  # do with sites. CPU of PostgreSQL's backends by Linux, of ClickHouse by its own counter.
  defp cost(fun) do
    me = self()
    events = [[:plausible, :repo, :query], [:plausible, :clickhouse_repo, :query]]

    count = fn [_app, repo, _query], _measured, %{query: query}, _config ->
      unless query =~ ~r/webhook_deliveries|webhook_owners \(owner/,
        do: send(me, {:statement, repo, query})
    end

    {postgres_ms, clickhouse_ms} = {postgres_ms(), clickhouse_ms()}
    :ok = :telemetry.attach_many("cost", events, count, nil)
    result = fun.()
    :telemetry.detach("cost")
    [postgres, clickhouse] = for repo <- [:repo, :clickhouse_repo], do: statements(repo, [])
    ms = %{postgres_ms: postgres_ms() - postgres_ms, clickhouse_ms: clickhouse_ms() - clickhouse_ms}
    {result, Map.merge(ms, %{postgres: postgres, clickhouse: clickhouse})}
  end

  defp statements(repo, found) do
    receive do
      {:statement, ^repo, query} -> statements(repo, [String.slice(query, 0, 120) | found])
    after
      0 -> found
    end
  end

  defp postgres_ms do
    %{rows: rows} = Plausible.Repo.query!("SELECT pid FROM pg_stat_activity")

    Enum.sum(
      for [pid] <- rows, {:ok, stat} <- [File.read("/proc/#{pid}/stat")] do
        fields = stat |> String.split(") ") |> List.last() |> String.split(" ")
        10 * Enum.sum(for at <- [11, 12], do: String.to_integer(Enum.at(fields, at)))
      end
    )
  end

  defp clickhouse_ms do
    events = "SELECT value FROM system.events WHERE event = 'OSCPUVirtualTimeMicroseconds'"
    %{rows: rows} = Plausible.ClickhouseRepo.query!(events)
    rows |> List.flatten() |> Enum.sum() |> div(1_000)
  end
end
