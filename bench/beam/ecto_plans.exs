# Runs the statements of Store.Ecto under EXPLAIN (ANALYZE, BUFFERS), on a log of a million
# deliveries over 30 days, or of the given number of rows and days. 50 sites, the first with
# half of all deliveries; 98 % delivered at once, a rare goal, few alerts, 2 000 pending,
# 5 000 parked.
#
#     cd elixir_wrapper/plausible_webhooks_phoenix
#     MIX_ENV=prod mix run --no-start ../../bench/beam/ecto_plans.exs [ROWS [DAYS]]
#
# The PostgreSQL server ends with this VM. Prints a table: the pages of 8 KiB touched, the
# index entries and rows read, and the milliseconds of the whole call, the median of five.
# Then prints a plan for each call, that of its statement that touches most pages.
# docs/postgres.md explains the results.
for file <- ~w(ecto.exs ecto_log.exs), do: Code.require_file("../support/#{file}", __DIR__)

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

  # Each runs in a transaction that is rolled back.
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
      {"redeliver of 100", &Store.redeliver(&1, "bench", some.(100, 700), [:failed, :parked])},
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

  # The settings that a call makes apply to its later statements.
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

  # Of triggers, EXPLAIN reports only the time.
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
