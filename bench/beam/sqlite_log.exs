# Times what a settings page asks of Store.SQLite, on a log of a million deliveries over 30
# days, or of the given number of rows and days. 50 sites, the first with half of all
# deliveries; 98 % delivered, 2 000 pending, 5 000 parked. The database is in a temporary
# folder.
#
#     cd elixir_wrapper/plausible_webhooks
#     MIX_ENV=prod mix run ../../bench/beam/sqlite_log.exs [ROWS [DAYS]]
#
# Prints the milliseconds of the whole call, the median of five, and the longest wait of
# another caller for the one connection during it.
defmodule Bench do
  alias Plausible.Webhooks.Store.SQLite
  alias Plausible.Webhooks.{Vault, Webhook}

  @times 5
  @hour_ms 3_600_000

  def run(rows, days) do
    folder = Path.join(System.tmp_dir!(), "webhooks_bench_#{System.pid()}")
    {:ok, vault} = Vault.new([Vault.generate_key()])
    options = [path: Path.join(folder, "webhooks.db"), vault: vault, name: :bench]
    %{start: {module, function, arguments}} = SQLite.child_spec(options)
    {:ok, pid} = apply(module, function, arguments)

    try do
      {:ok, store} = SQLite.init(options)
      now_ms = System.system_time(:millisecond)
      fill(store, rows, days, now_ms)

      IO.puts(
        "#{rows} deliveries in #{days} days\n\n| call | ms | others waited, ms |\n|---|---:|---:|"
      )

      for {title, call} <- calls(now_ms) do
        {ms, waited_ms} = measure(store, call)
        IO.puts("| #{title} | #{Float.round(ms, 1)} | #{Float.round(waited_ms, 1)} |")
      end
    after
      GenServer.stop(pid, :normal, 60_000)
      File.rm_rf!(folder)
    end
  end

  # One webhook of the first site has a single delivery, the oldest.
  defp calls(now_ms) do
    first_hour_ms = (div(now_ms, @hour_ms) - 23) * @hour_ms
    both = ["wh_1_1", "wh_1_2"]
    page = fn filters -> &SQLite.deliveries(&1, 1, filters, %{}) end

    [
      {"page: all", page.(%{})},
      {"page: a webhook", page.(%{webhook_id: "wh_1_2"})},
      {"page: a webhook that has hardly any", page.(%{webhook_id: "wh_1_3"})},
      {"page: failed, cancelled", page.(%{states: [:failed, :cancelled]})},
      {"page: waiting", page.(%{states: [:pending, :parked]})},
      {"page: a goal", page.(%{goal_id: 3})},
      {"page: answered 5xx", page.(%{status_class: 5})},
      {"page: answered 4xx (there is none)", page.(%{status_class: 4})},
      {"page: alerts", page.(%{types: ["traffic.spike"]})},
      {"page: a day of last week",
       page.(%{since_ms: now_ms - 7 * 24 * @hour_ms, until_ms: now_ms - 6 * 24 * @hour_ms})},
      {"activity, of both webhooks", &SQLite.activity(&1, 1, both, first_hour_ms)},
      {"activity, of one that has hardly any",
       &SQLite.activity(&1, 1, ["wh_1_3"], first_hour_ms)},
      {"waiting, of both", &SQLite.waiting(&1, both)},
      {"recoverable, 10 000", &SQLite.recoverable(&1, "wh_1_1", 0, 10_001)}
    ]
  end

  # --- measuring

  defp measure(store, call) do
    others = spawn_link(fn -> wait(store, 0) end)

    times =
      for _ <- 1..@times do
        {us, {:ok, _answer}} = :timer.tc(fn -> call.(store) end)
        us
      end

    send(others, {:longest, self()})

    receive do
      {:longest, us} ->
        {times |> Enum.sort() |> Enum.at(div(@times, 2)) |> Kernel./(1_000), us / 1_000}
    end
  end

  defp wait(store, longest_us) do
    {us, {:ok, _webhooks}} = :timer.tc(fn -> SQLite.list_webhooks(store, 99) end)

    receive do
      {:longest, asker} -> send(asker, {:longest, max(us, longest_us)})
    after
      1 -> wait(store, max(us, longest_us))
    end
  end

  # --- the log of a month, written by SQL

  defp fill(store, rows, days, now_ms) do
    for n <- 1..3, do: :ok = SQLite.insert_webhook(store, webhook("wh_1_#{n}", now_ms))
    start_ms = now_ms - days * 24 * @hour_ms
    sql!(store, deliveries(rows, start_ms, days * 24 * @hour_ms / rows))
    sql!(store, "UPDATE deliveries SET webhook_id = 'wh_1_3' WHERE seq = (
      SELECT min(seq) FROM deliveries WHERE site_id = 1)")
  end

  defp webhook(id, now_ms) do
    url = "https://example.com/hook"
    fields = [id: id, site_id: 1, url: url, events: ["goal.completed"]]
    struct!(Webhook, fields ++ [inserted_at_ms: now_ms, updated_at_ms: now_ms])
  end

  defp deliveries(rows, start_ms, step_ms) do
    """
    INSERT INTO deliveries (id, webhook_id, site_id, type, goal_id, state, attempts,
      schedule_from, created_at_ms, next_at_ms, finished_at_ms, owner, last_status, manual, retry)
    WITH RECURSIVE numbers (i) AS (
      SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < #{rows}),
    drawn AS MATERIALIZED (
      SELECT i, CASE WHEN random() % 2 = 0 THEN 1 ELSE 2 + abs(random() % 49) END AS site,
        CASE WHEN abs(random() % 10) < 9 THEN 1 ELSE 2 END AS webhook,
        CASE WHEN random() % 10000 = 0 THEN 'traffic.spike' ELSE 'goal.completed' END AS type,
        1 + abs(random() % 20) AS goal, abs(random() % 1000) AS q,
        #{start_ms} + CAST(i * #{step_ms} AS INTEGER) AS at_ms FROM numbers),
    given AS (
      SELECT *, CASE WHEN i > #{rows - 2_000} THEN 0 WHEN i > #{rows - 7_000} THEN 1
        WHEN q < 980 THEN 2 WHEN q < 997 THEN 3 ELSE 4 END AS state FROM drawn)
    SELECT printf('msg_%026x', i), printf('wh_%d_%d', site, webhook), site, type,
      CASE type WHEN 'goal.completed' THEN goal END, state, state > 0, 0, at_ms,
      CASE state WHEN 1 THEN at_ms + 300000 END, CASE WHEN state >= 2 THEN at_ms + 200 END,
      CASE state WHEN 0 THEN 'node' END, CASE state WHEN 2 THEN 200 WHEN 3 THEN 500 END, 0, 1
    FROM given
    """
  end

  # Longer than any other statement may take.
  defp sql!(%{connection: connection}, sql) do
    asked_at_ms = System.monotonic_time(:millisecond)
    request = {asked_at_ms, {:write, [{sql, []}]}}
    {:ok, [_rows]} = GenServer.call(connection, request, :infinity)
  end
end

[rows, days] =
  for {default, at} <- [{1_000_000, 0}, {30, 1}],
      do: System.argv() |> Enum.at(at, to_string(default)) |> String.to_integer()

Bench.run(rows, days)
