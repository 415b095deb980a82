# How PostgreSQL answers what Store.Ecto asks, on a log of a million deliveries: the
# statements as the store sends them, by EXPLAIN (ANALYZE, BUFFERS). 50 sites, the
# first with half of all; 98 % delivered at once, a rare goal, few alerts, 2 000
# pending, 5 000 parked; over 30 days, or as few as are given.
#
#     cd elixir_wrapper/plausible_webhooks_phoenix
#     MIX_ENV=prod mix run --no-start ../../bench/beam/ecto_plans.exs [ROWS [DAYS]]
#
# A PostgreSQL of its own that ends with this VM. Prints a table (pages of 8 KiB that
# were touched, index entries and rows that were read, milliseconds of the whole call,
# the median of five) and then a plan of each, that of the statement that touches most;
# docs/postgres.md says what to read off.
Code.require_file("../support/ecto.exs", __DIR__)

defmodule Bench.Tables do
  use Ecto.Migration
  def up, do: Plausible.Webhooks.Migrations.up(version: 1)
end

defmodule Bench.Fill do
  # Rows as a month has left them, by SQL.
  alias Bench.Repo

  def fill(rows, days) do
    sql("SELECT setseed(0.5)")

    sql("""
    INSERT INTO webhooks (id, site_id, name, sealed, enabled, events, traffic_min_interval_s,
      version, inserted_at_ms, updated_at_ms)
    SELECT #{webhook("site", "n")}, site, 'x', '', true, '{goal.completed}', 0, 1, 0, 0
    FROM generate_series(1, 50) AS site, generate_series(1, 2) AS n
    """)

    sql(deliveries(rows, days * 86_400_000, System.system_time(:millisecond)))

    sql("""
    INSERT INTO webhook_bodies (seq, body)
    SELECT seq, decode(repeat(md5(seq::text), 41), 'hex') FROM webhook_deliveries
    """)

    sql("""
    INSERT INTO webhook_attempts (seq, number, state, status, started_at_ms, total_us,
      response_body, response_truncated, gone, remote_ip, response_content_type)
    SELECT seq, n, 2, last_status, created_at_ms, 1000, 'ok', false, false, '203.0.113.9',
      'application/json'
    FROM webhook_deliveries, generate_series(1, attempts) AS n
    """)

    # One of three owners is dead.
    sql("""
    INSERT INTO webhook_owners (owner, until_ms)
    SELECT 'node_' || n, CASE WHEN n = 0 THEN 0 ELSE 9000000000000 END
    FROM generate_series(0, 2) AS n
    """)

    sql("VACUUM ANALYZE")
  end

  def webhook(site, n), do: "'wh_' || lpad((#{site} * 10 + #{n})::text, 26, '0')"

  defp deliveries(rows, ms, now_ms) do
    """
    INSERT INTO webhook_deliveries (id, webhook_id, site_id, type, goal_id, state, reason,
      attempts, schedule_from, created_at_ms, next_at_ms, finished_at_ms, owner, last_status,
      last_error, manual, retry)
    SELECT 'msg_' || lpad(to_hex(i), 26, '0'),
      #{webhook("site", "CASE WHEN w < 0.9 THEN 1 ELSE 2 END")}, site, type,
      CASE WHEN type = 'goal.completed' THEN goal END, state,
      CASE WHEN state >= 3 THEN 'http_status' END,
      CASE state WHEN 0 THEN 0 WHEN 1 THEN 2 WHEN 3 THEN 4 ELSE 1 END, 0, at_ms,
      CASE WHEN state = 1 THEN at_ms + 300000 END, CASE WHEN state >= 2 THEN at_ms + 200 END,
      CASE WHEN state = 0 THEN 'node_' || (i % 3) END,
      CASE state WHEN 1 THEN 503 WHEN 2 THEN 200 WHEN 3 THEN 500 END,
      CASE WHEN state IN (1, 3) THEN 'http_status' END, false, true
    FROM (
      SELECT i, CASE WHEN random() < 0.5 THEN 1 ELSE 2 + floor(random() * 49)::int END AS site,
        random() AS w,
        CASE WHEN random() < 0.0001 THEN 'traffic.spike' ELSE 'goal.completed' END AS type,
        CASE WHEN random() < 0.0001 THEN 99 ELSE 1 + floor(random() * 20)::int END AS goal,
        CASE WHEN i > #{rows - 2_000} THEN 0 WHEN i > #{rows - 7_000} THEN 1
          WHEN q < 0.98 THEN 2 WHEN q < 0.997 THEN 3 ELSE 4 END AS state,
        #{now_ms - ms} + (i * #{ms / rows})::bigint AS at_ms
      FROM (SELECT i, random() AS q FROM generate_series(1, #{rows}) AS i) AS x OFFSET 0) AS given
    """
  end

  defp sql(sql), do: Repo.query!(sql, [], timeout: :infinity, log: false)
end

defmodule Bench do
  alias Bench.Repo
  alias Plausible.Webhooks.{Attempt, Delivery, Id, Vault}
  alias Plausible.Webhooks.Store.Ecto, as: Store

  @times 5

  def run(rows, days) do
    {:ok, vault} = Vault.new([Vault.generate_key()])
    {:ok, store} = Store.init(repo: Repo, vault: vault)
    Bench.Fill.fill(rows, days)
    :ok = :telemetry.attach(:statements, [:bench, :repo, :query], &__MODULE__.keep/4, nil)
    :ok = Store.heartbeat(store, "bench", 3_600_000)

    results = for {title, call} <- calls(rows), do: {title, measure(store, call)}
    IO.puts("#{rows} deliveries in #{days} days; #{version()}\n")
    sizes()
    IO.puts("\n| statement | pages | rows read | ms |\n|---|---:|---:|---:|")

    for {title, {ms, statements}} <- results do
      {pages, read} = statements |> Enum.map(&elem(&1, 1)) |> Enum.unzip()
      IO.puts("| #{title} | #{Enum.sum(pages)} | #{Enum.sum(read)} | #{Float.round(ms, 1)} |")
    end

    for {title, {_ms, statements}} <- results do
      {plan, _costs} = Enum.max_by(statements, fn {_plan, {pages, _read}} -> pages end)
      IO.puts("\n#{title}\n\n```\n#{plan}\n```")
    end
  end

  # Each changes what it says in a transaction that is rolled back.
  defp calls(rows) do
    webhook = fn n -> "wh_" <> String.pad_leading("#{10 + n}", 26, "0") end

    id = fn i ->
      "msg_" <> (i |> Integer.to_string(16) |> String.downcase() |> String.pad_leading(26, "0"))
    end

    both = [webhook.(1), webhook.(2)]
    now_ms = System.system_time(:millisecond)
    first_hour_ms = (div(now_ms, 3_600_000) - 23) * 3_600_000
    page = fn filters -> &Store.deliveries(&1, 1, filters, %{}) end
    some = fn n, step -> for i <- 1..n, do: id.(rows - 10_000 - i * step) end

    [
      {"page: all", page.(%{})},
      {"page: a webhook", page.(%{webhook_id: webhook.(2)})},
      {"page: a webhook's failed", page.(%{webhook_id: webhook.(1), states: [:failed]})},
      {"page: failed, cancelled", page.(%{states: [:failed, :cancelled]})},
      {"page: waiting", page.(%{states: [:pending, :parked]})},
      {"page: delivered", page.(%{states: [:delivered]})},
      {"page: answered 5xx", page.(%{status_class: 5})},
      {"page: answered 4xx (there is none)", page.(%{status_class: 4})},
      {"page: no answer", page.(%{status_class: :none})},
      {"page: alerts", page.(%{types: ["traffic.spike"]})},
      {"page: alerts of another type (there is none)", page.(%{types: ["traffic.drop"]})},
      {"page: a goal", page.(%{goal_id: 3})},
      {"page: a rare goal", page.(%{goal_id: 99})},
      {"page: a rare goal of a webhook", page.(%{goal_id: 99, webhook_id: webhook.(1)})},
      {"page: a day of last week",
       page.(%{since_ms: now_ms - 7 * 86_400_000, until_ms: now_ms - 6 * 86_400_000})},
      {"activity, of both webhooks", &Store.activity(&1, 1, both, first_hour_ms)},
      {"waiting, of both", &Store.waiting(&1, both)},
      {"claim of 250", &Store.claim(&1, "bench", 250)},
      {"prune of 500", &Store.prune(&1, now_ms, 500)},
      {"counts", &Store.counts/1},
      {"recoverable, 10 000", &Store.recoverable(&1, webhook.(1), 0, 10_001)},
      {"redeliver of 100", &Store.redeliver(&1, "bench", some.(100, 700))},
      {"release of 100",
       &Store.release(&1, "node_1", Enum.map(0..99, fn i -> id.(rows - 3 * i) end), 1)},
      {"cancel_waiting", &Store.cancel_waiting(&1, webhook.(2), "over")},
      {"get_delivery", &Store.get_delivery(&1, id.(div(rows, 2)))},
      {"attempts", &Store.attempts(&1, id.(div(rows, 2)))},
      {"accept of 500", &Store.accept(&1, for(_ <- 1..500, do: delivery()))},
      {"record of 500",
       &Store.record(
         &1,
         Enum.map(Enum.map(0..499, fn i -> id.(rows - i) end), fn i -> attempt(i) end)
       )}
    ]
  end

  defp delivery do
    %Delivery{
      id: Id.delivery(),
      webhook_id: "wh_00000000000000000000000011",
      site_id: 1,
      type: "goal.completed",
      goal_id: 3,
      body: :crypto.strong_rand_bytes(656),
      owner: "bench",
      created_at_ms: System.system_time(:millisecond)
    }
  end

  defp attempt(id) do
    %Attempt{
      delivery_id: id,
      number: 1,
      state: :delivered,
      status: 200,
      started_at_ms: System.system_time(:millisecond),
      response_body: "ok"
    }
  end

  # --- measuring

  def keep(_event, _measurements, %{query: query, params: params}, _config) do
    case Process.get(:statements) do
      nil -> :ok
      statements -> Process.put(:statements, [{query, params} | statements])
    end
  end

  defp measure(store, call) do
    times =
      for _ <- 1..@times, do: rolled_back(fn -> elem(:timer.tc(fn -> call.(store) end), 0) end)

    statements = rolled_back(fn -> statements(store, call) end)
    ms = times |> Enum.sort() |> Enum.at(div(@times, 2)) |> Kernel./(1_000)
    {ms, Enum.map(statements, &explain/1)}
  end

  defp statements(store, call) do
    Process.put(:statements, [])
    call.(store)

    {statements, _settings} =
      Process.delete(:statements) |> Enum.reverse() |> Enum.flat_map_reduce(nil, &with_settings/2)

    statements
  end

  # What a call has set for itself holds for what it asks then.
  defp with_settings({query, _params} = statement, settings) do
    cond do
      query =~ "set_config(name" -> {[], statement}
      query =~ "webhook_" -> {[{statement, settings}], settings}
      true -> {[], settings}
    end
  end

  defp rolled_back(fun) do
    {:error, result} =
      Repo.transaction(fn -> Repo.rollback(fun.()) end, timeout: :infinity, log: false)

    result
  end

  # Of what triggers do only the time is known to EXPLAIN.
  defp explain({{query, params}, settings}) do
    rolled_back(fn ->
      with {sql, values} <- settings, do: Repo.query!(sql, values, log: false)
      before = read()
      sql = "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) " <> query
      plan = for [line] <- Repo.query!(sql, params, log: false, timeout: :infinity).rows, do: line
      {Enum.map_join(plan, "\n", &String.slice(&1, 0, 110)), {pages(plan), read() - before}}
    end)
  end

  defp pages([_top | lines]) do
    line = Enum.find(lines, "", &(&1 =~ "Buffers:"))
    Enum.sum(for [_all, n] <- Regex.scan(~r/(?:hit|read)=(\d+)/, line), do: String.to_integer(n))
  end

  defp read do
    sql = """
    SELECT sum(pg_stat_get_xact_tuples_returned(oid))::bigint FROM pg_class
    WHERE relname LIKE 'webhook%' AND relkind IN ('r', 'i')
    """

    hd(hd(Repo.query!(sql, [], log: false).rows))
  end

  defp sizes do
    sql = """
    SELECT relname, round(pg_relation_size(oid) / 1048576.0, 1)::text FROM pg_class
    WHERE relname LIKE 'webhook%' AND relkind IN ('r', 'i') AND pg_relation_size(oid) > 65536
    ORDER BY pg_relation_size(oid) DESC
    """

    IO.puts("| table or index | MiB |\n|---|---:|")

    for [name, size] <- Repo.query!(sql, [], log: false).rows,
        do: IO.puts("| #{name} | #{size} |")
  end

  defp version,
    do: hd(hd(Repo.query!("SELECT split_part(version(), ' on ', 1)", [], log: false).rows))
end

rows = Bench.Server.argument(1_000_000)
days = Bench.Server.argument(30, 1)
Bench.Server.run([shared_buffers: "1GB"], 2, Bench.Tables, fn -> Bench.run(rows, days) end)
