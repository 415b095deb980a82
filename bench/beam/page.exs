# Times the log of the settings page on a million deliveries: the database and the rendering
# for the first page, for filtered ones, and for one far back.
#
#     cd elixir_wrapper/plausible_webhooks_phoenix
#     MIX_ENV=prod mix run --no-start ../../bench/beam/page.exs [ROWS [DAYS]]
#
# The PostgreSQL server ends with this VM. Prints a table (milliseconds, median and slowest
# of twenty; bytes of HTML), then the plans.
for file <- ~w(ecto.exs ecto_log.exs), do: Code.require_file("../support/#{file}", __DIR__)

defmodule Bench do
  alias Bench.Repo
  alias Plausible.Webhooks.{Vault, Webhook}
  alias Plausible.Webhooks.Store.Ecto, as: Store
  alias PlausibleWeb.Live.WebhookSettings.{Context, Deliveries}

  @times 20

  def run(rows, days) do
    {:ok, vault} = Vault.new([Vault.generate_key()])
    {:ok, store} = Store.init(repo: Repo, vault: vault)
    Bench.Fill.fill(rows, days)
    now_ms = System.system_time(:millisecond)
    goals = for id <- 1..1_000, do: %{id: id, name: "Goal number #{id}"}
    webhooks = for n <- 1..2, do: webhook(n)

    IO.puts("#{rows} deliveries in #{days} days, 1 000 goals; milliseconds\n")

    IO.puts(
      "| page of the log | database, median | slowest | rendering, median | slowest | HTML |"
    )

    IO.puts("|---|---:|---:|---:|---:|---:|")

    shown =
      for {title, log} <- logs(store),
          do: {title, log, measure(store, log, webhooks, goals, now_ms)}

    for {title, _log, {database, rendering, bytes}} <- shown,
        do:
          IO.puts(
            "| #{title} | #{row(database)} | #{row(rendering)} | #{div(bytes, 1_024)} KiB |"
          )

    for {title, log, _figures} <- shown,
        do: IO.puts("\n#{title}\n\n```\n#{plan(store, log)}\n```")
  end

  defp webhook(n) do
    id = "wh_" <> String.pad_leading("#{10 + n}", 26, "0")
    %Webhook{id: id, site_id: 1, url: "https://example.com/", name: "Webhook #{n}"}
  end

  # Each with the filters and the cursor of its query; the last one is the hundredth page.
  defp logs(store) do
    far = Enum.reduce(1..99, nil, fn _n, cursor -> entries(store, {%{}, cursor}).next end)

    [
      {"the first", {%{}, nil}},
      {"a webhook's failed", {%{states: [:failed], webhook_id: webhook(1).id}, nil}},
      {"a rare goal's", {%{goal_id: 99}, nil}},
      {"answered 5xx", {%{status_class: 5}, nil}},
      {"the hundredth", {%{}, far}}
    ]
  end

  defp entries(store, {filters, cursor}) do
    {:ok, page} = Store.deliveries(store, 1, filters, %{after: cursor, limit: 25})
    # The page shows what each delivery is about.
    %{page | entries: for(%{id: id} <- page.entries, do: delivery(store, id))}
  end

  defp delivery(store, id) do
    {:ok, delivery} = Store.get_delivery(store, id)
    delivery
  end

  defp measure(store, log, webhooks, goals, now_ms) do
    database = times(fn -> entries(store, log) end)
    %{entries: entries, next: next} = entries(store, log)

    context = %Context{
      instance: nil,
      site_id: 1,
      actor: nil,
      path: "/webhooks",
      view: ["deliveries"],
      query: %{}
    }

    assigns = %{
      __changed__: nil,
      context: context,
      filters: %{},
      cursor: elem(log, 1),
      entries: entries,
      next: next,
      fresh: 0,
      webhooks: webhooks,
      goals: goals,
      zone: "Etc/UTC",
      now_ms: now_ms
    }

    render = fn ->
      assigns |> Deliveries.render() |> Phoenix.HTML.Safe.to_iodata() |> IO.iodata_length()
    end

    {database, times(render), render.()}
  end

  defp times(fun) do
    fun.()
    times = for(_ <- 1..@times, do: fun |> :timer.tc() |> elem(0)) |> Enum.sort()
    {Enum.at(times, div(@times, 2)), List.last(times)}
  end

  defp row({median, slowest}), do: "#{ms(median)} | #{ms(slowest)}"
  defp ms(us), do: :erlang.float_to_binary(us / 1_000, decimals: 1)

  def keep(_event, _measurements, %{query: query, params: params}, _config),
    do: Process.put(:asked, [{query, params} | Process.get(:asked, [])])

  defp plan(store, log) do
    :ok = :telemetry.attach(:asked, [:bench, :repo, :query], &__MODULE__.keep/4, nil)
    Process.put(:asked, [])
    entries(store, log)
    :telemetry.detach(:asked)

    for {query, params} <- Enum.reverse(Process.get(:asked)), query =~ "webhook_deliveries" do
      sql = "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) " <> query
      rows = Repo.query!(sql, params, log: false, timeout: :infinity).rows
      Enum.map_join(rows, "\n", fn [line] -> String.slice(line, 0, 110) end)
    end
    |> Enum.join("\n\n")
  end
end

rows = Bench.Server.argument(1_000_000)
days = Bench.Server.argument(30, 1)
Bench.Server.run([shared_buffers: "1GB"], 2, Bench.Tables, fn -> Bench.run(rows, days) end)
