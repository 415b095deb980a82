# Compares how many deliveries per second Store.Ecto accepts and records with a plain
# Repo.insert_all of the same rows, into tables with the same definition and indexes but
# without triggers. 1, 2 and 4 writers write batches of 500; the two sides take turns, and
# the figures are medians of the rounds.
#
#     cd elixir_wrapper/plausible_webhooks_phoenix
#     MIX_ENV=prod mix run --no-start ../../bench/beam/ecto_accept.exs [ROUNDS]
#
# The PostgreSQL server runs with fsync and ends with this VM. Prints the rows per second
# and the ratio of the two for each number of writers.
Code.require_file("../support/ecto.exs", __DIR__)

defmodule Bench.Tables do
  use Ecto.Migration

  def up do
    Plausible.Webhooks.Migrations.up(version: 1)

    for table <- ~w(deliveries bodies attempts) do
      execute("CREATE TABLE plain_#{table} (LIKE webhook_#{table} INCLUDING ALL)")
      execute("ALTER TABLE plain_#{table} SET (autovacuum_vacuum_scale_factor = 0.02)")
    end
  end
end

defmodule Bench do
  alias Bench.Repo
  alias Plausible.Webhooks.{Attempt, Delivery, Id, Vault}
  alias Plausible.Webhooks.Store.Ecto, as: Store
  alias Plausible.Webhooks.Store.Ecto.Rows

  @batch 500
  @batches 24
  @delivery_columns Enum.map(Rows.delivery_columns(), &String.to_atom(elem(&1, 0)))
  @attempt_columns Enum.map(Rows.attempt_columns(), &String.to_atom(elem(&1, 0)))

  def run(rounds) do
    {:ok, vault} = Vault.new([Vault.generate_key()])
    {:ok, store} = Store.init(repo: Repo, vault: vault)
    :ok = Store.heartbeat(store, "bench", 3_600_000)
    for writers <- [1, 2, 4], do: round(store, writers, 0)

    results =
      for number <- 1..rounds, writers <- [1, 2, 4], result <- round(store, writers, number) do
        result
      end

    IO.puts("\nmedians of #{rounds} rounds, rows/s in batches of #{@batch}")
    IO.puts("          writers   Store.Ecto   insert_all   ratio")
    for what <- [:accept, :record], writers <- [1, 2, 4], do: summary(results, what, writers)
  end

  defp summary(results, what, writers) do
    [ours, plain] =
      for how <- [:store, :plain] do
        median(for {^what, ^how, ^writers, rate} <- results, do: rate)
      end

    ratios = ratios(results, what, writers)

    :io.format("~-10s ~7B ~12B ~12B    ~.2f  (~.2f to ~.2f)~n", [
      what,
      writers,
      round(ours),
      round(plain),
      median(ratios),
      Enum.min(ratios),
      Enum.max(ratios)
    ])
  end

  # Compared pair by pair, because other load on the machine affects both sides.
  defp ratios(results, what, writers) do
    [ours, plain] =
      for how <- [:store, :plain], do: for({^what, ^how, ^writers, rate} <- results, do: rate)

    Enum.zip_with(ours, plain, &(&1 / &2))
  end

  defp median(values), do: values |> Enum.sort() |> Enum.at(div(length(values), 2))

  # The side that goes first in one round goes second in the next.
  defp round(store, writers, number) do
    batches = for _ <- 1..writers, do: for(_ <- 1..div(@batches, writers), do: deliveries(@batch))

    attempts = for own <- batches, do: for(batch <- own, do: Enum.map(batch, &attempt/1))
    ways = if rem(number, 2) == 0, do: [:store, :plain], else: [:plain, :store]
    accepts = for how <- ways, do: {:accept, how, writers, accept(how, store, batches)}
    records = for how <- ways, do: {:record, how, writers, record(how, store, attempts)}

    for {what, how, _, rate} <- accepts ++ records,
        do: IO.write("#{what} #{how} #{round(rate)}  ")

    IO.puts("(#{writers} writers, round #{number})")
    accepts ++ records
  end

  defp accept(:store, store, batches),
    do: rate(batches, fn batch -> :ok = Store.accept(store, batch) end)

  defp accept(:plain, _store, batches) do
    batches
    |> rows(fn delivery ->
      {body, row} = delivery |> Rows.from_delivery() |> List.pop_at(-1)
      {@delivery_columns |> Enum.zip(row) |> Map.new(), body}
    end)
    |> rate(fn batch ->
      {:ok, _} =
        Repo.transaction(
          fn ->
            {rows, bodies} = Enum.unzip(batch)

            {@batch, inserted} =
              Repo.insert_all("plain_deliveries", rows, returning: [:seq], log: false)

            bodies = Enum.zip_with(inserted, bodies, &%{seq: &1.seq, body: &2})
            Repo.insert_all("plain_bodies", bodies, log: false)
          end,
          log: false
        )
    end)
  end

  defp record(:store, store, attempts),
    do: rate(attempts, fn batch -> :ok = Store.record(store, batch) end)

  # Only the attempts: updating the deliveries has no plain counterpart.
  defp record(:plain, _store, attempts) do
    attempts
    |> rows(fn attempt ->
      values = attempt |> Rows.from_attempt() |> tl() |> Enum.drop(-1)

      @attempt_columns
      |> Enum.zip(values)
      |> Map.new()
      |> Map.put(:seq, :erlang.unique_integer([:positive]))
    end)
    |> rate(fn batch -> {@batch, _} = Repo.insert_all("plain_attempts", batch, log: false) end)
  end

  defp rows(batches, fun),
    do: for(own <- batches, do: for(batch <- own, do: Enum.map(batch, fun)))

  defp rate(batches, write) do
    gate = make_ref()

    tasks =
      for own <- batches do
        Task.async(fn ->
          receive do: (^gate -> Enum.each(own, write))
        end)
      end

    start = System.monotonic_time(:microsecond)
    Enum.each(tasks, &send(&1.pid, gate))
    Task.await_many(tasks, 600_000)
    us = System.monotonic_time(:microsecond) - start
    length(batches) * length(hd(batches)) * @batch * 1_000_000 / us
  end

  defp deliveries(n) do
    now_ms = System.system_time(:millisecond)

    for i <- 1..n do
      %Delivery{
        id: Id.delivery(),
        webhook_id: "wh_01k0000000000000000000000#{rem(i, 10)}",
        site_id: rem(i, 50),
        type: "goal.completed",
        goal_id: rem(i, 100),
        body: :crypto.strong_rand_bytes(328) |> Base.encode16(),
        owner: "bench",
        created_at_ms: now_ms
      }
    end
  end

  defp attempt(delivery) do
    %Attempt{
      delivery_id: delivery.id,
      webhook_id: delivery.webhook_id,
      number: 1,
      state: :delivered,
      status: 200,
      started_at_ms: delivery.created_at_ms,
      first_byte_us: 5_000,
      total_us: 5_100,
      remote_ip: "203.0.113.9",
      response_headers: "content-type: application/json\n",
      response_body: ~s({"ok":true})
    }
  end
end

settings = [fsync: "on", shared_buffers: "512MB"]
rounds = Bench.Server.argument(7)
Bench.Server.run(settings, 6, Bench.Tables, fn -> Bench.run(rounds) end)
