defmodule Plausible.Webhooks.Faults.Together do
  @moduledoc false
  # Every kind of hostile peer at once, with twenty webhooks each, beside two good webhooks: one
  # on a destination of its own, and one on a destination that it shares with every kind that
  # answers requests. One engine with its default limits. Each good webhook gets
  # @good_per_s deliveries a second, each hostile one a delivery every @again_ms. So the shared
  # destination gets less than its limit of rate, retries included, and a round of twenty seconds
  # meets every kind four times.
  #
  # The peers are elsewhere (`Plausible.Webhooks.Faults.Elsewhere`).
  #
  # The runs with and without the hostile webhooks take turns. The figures of the good ones
  # are times from the submission to the result.

  alias Plausible.Webhooks.{Delivery, Native}
  alias Plausible.Webhooks.Faults.{Elsewhere, Meter}

  @webhooks_per_kind 20
  @good_per_s 40
  @again_ms 100_000
  @slice_ms 100
  @body ~s({"type":"goal.completed"})

  @doc "`[%{alone: figures, together: figures}]`, one for each round."
  def run(rows, dir, seconds, rounds) do
    peers = Elsewhere.start(rows, dir)
    shared = Elsewhere.shared(peers.receivers, rows)
    hostile = hostile(rows, peers.urls, shared)
    goods = %{"good_own" => Elsewhere.good(peers.receivers, 1), "good_shared" => shared <> "good"}

    for _round <- 1..rounds do
      %{
        alone: round(goods, [], peers.options, seconds),
        together: round(goods, hostile, peers.options, seconds)
      }
    end
  end

  defp hostile(rows, urls, shared) do
    on_shared =
      for {row, _script} <- Elsewhere.answering(rows),
          do: {row.kind, shared <> Elsewhere.path(row)}

    all = Map.merge(urls, Map.new(on_shared))
    for {kind, url} <- all, n <- 1..@webhooks_per_kind, do: {"#{:erlang.phash2(kind)}_#{n}", url}
  end

  defp round(goods, hostile, options, seconds) do
    {:ok, engine} = Native.engine_start(options)

    {:ok, key} = Native.generate_secret()

    put = fn {id, url} ->
      :ok = Native.put_endpoint(engine, %{webhook_id: id, url: url, keys: [key]})
    end

    Enum.each(goods, put)
    Enum.each(hostile, put)
    begin = now_us()
    table = :ets.new(:submitted, [:public])
    count = seconds * @good_per_s
    good = spawn_link(fn -> submit_good(engine, Map.keys(goods), table, begin, count) end)
    bad = spawn_link(fn -> submit_hostile(engine, hostile, 1) end)
    memory = Meter.memory()

    state = %{
      engine: engine,
      over_ms: 0.0,
      memory: memory,
      times: %{},
      failed: 0,
      others: 0
    }

    # What is late by as long again is lost.
    state = drive(state, table, 2 * count, begin + 2 * seconds * 1_000_000)
    for pid <- [good, bad], do: Process.exit(pid, :kill)
    Process.unlink(good)
    Process.unlink(bad)
    {:ok, _unfinished} = Native.engine_stop(engine, 0)

    Map.new(goods, fn {id, _url} -> {id, figures(state.times[id] || [], count, begin)} end)
    |> Map.merge(%{
      over_ms: state.over_ms,
      memory: state.memory - memory,
      others: state.others,
      failed: state.failed
    })
  end

  defp submit_good(engine, ids, table, begin, count) do
    Process.flag(:trap_exit, false)

    for n <- 1..count do
      due = begin + div(n * 1_000_000, @good_per_s)
      Process.sleep(max(div(due - now_us(), 1_000), 0))

      for id <- ids do
        delivery = %Delivery{id: "msg_#{id}_#{n}", webhook_id: id, body: @body}
        :ets.insert(table, {delivery.id, now_us()})
        {:ok, 1} = Native.submit(engine, [delivery])
      end
    end

    Process.sleep(:infinity)
  end

  defp submit_hostile(_engine, [], _turn), do: Process.sleep(:infinity)

  defp submit_hostile(engine, hostile, turn) do
    slices = hostile |> Enum.shuffle() |> Enum.chunk_every(20)

    for slice <- slices do
      deliveries =
        for {id, _url} <- slice,
            do: %Delivery{id: "msg_#{id}_#{turn}", webhook_id: id, body: @body}

      _taken = Native.submit(engine, deliveries)
      Process.sleep(div(@again_ms, length(slices)))
    end

    submit_hostile(engine, hostile, turn + 1)
  end

  defp drive(state, table, left, deadline) do
    if left <= 0 or now_us() > deadline do
      state
    else
      {attempts, over_ms} = run_once(state.engine)

      {good, others} = Enum.split_with(attempts, &match?("good" <> _id, &1.webhook_id))
      now = now_us()
      delivered = for %{state: :delivered} = attempt <- good, do: took(attempt, table, now)

      times =
        Enum.reduce(delivered, state.times, fn {id, times_us}, times ->
          Map.update(times, id, [times_us], &[times_us | &1])
        end)

      state = %{
        state
        | over_ms: max(state.over_ms, over_ms),
          memory: max(state.memory, Meter.memory()),
          times: times,
          failed: state.failed + length(good) - length(delivered),
          others: state.others + length(others)
      }

      drive(state, table, left - length(delivered), deadline)
    end
  end

  # By the clock: a look at the processor time of each turn would slow the engine down.
  defp run_once(engine) do
    begin = now_us()
    [:ok, attempts | _slow] = engine |> Native.run_once(@slice_ms) |> Tuple.to_list()
    {attempts, (now_us() - begin) / 1_000 - @slice_ms}
  end

  defp took(attempt, table, now) do
    [{_id, at}] = :ets.lookup(table, attempt.delivery_id)
    {attempt.webhook_id, {now - at, attempt.total_us, now}}
  end

  # Throughput is what came back until the last one was due.
  defp figures(times, count, begin) do
    seconds = div(count, @good_per_s)
    in_time = Enum.count(times, &(elem(&1, 2) <= begin + seconds * 1_000_000))
    got = length(times)

    at = fn part, percent ->
      sorted = times |> Enum.map(&elem(&1, part)) |> Enum.sort()
      Enum.at(sorted, min(div(got * percent, 100), got - 1), :none)
    end

    %{
      p50_us: at.(0, 50),
      p99_us: at.(0, 99),
      attempt_p99_us: at.(1, 99),
      per_s: Float.round(in_time / seconds, 1),
      got: got,
      of: count
    }
  end

  defp now_us, do: System.monotonic_time(:microsecond)

  # --- the figures as text

  def print(rows, rounds) do
    IO.puts(
      "#{length(rows)} kinds, #{@webhooks_per_kind} webhooks each, #{@good_per_s} deliveries/s to each good webhook"
    )

    for {id, text} <- [
          {"good_own", "on a destination of its own"},
          {"good_shared", "on the shared destination"}
        ] do
      IO.puts("good webhook #{text}")
      for run <- [:alone, :together], do: print_run(run, Enum.map(rounds, & &1[run][id]))

      ratio = fn key ->
        each = for round <- rounds, do: ratio(round.together[id][key], round.alone[id][key])
        each ++ ["median #{each |> Enum.sort() |> Enum.at(div(length(each), 2))}"]
      end

      IO.puts(
        "  ratio     p50 #{words(ratio.(:p50_us))}, p99 #{words(ratio.(:p99_us))}, throughput #{words(ratio.(:per_s))}"
      )
    end

    for run <- [:alone, :together] do
      over = rounds |> Enum.map(& &1[run].over_ms) |> Enum.max()
      memory = rounds |> Enum.map(& &1[run].memory) |> Enum.max()
      others = rounds |> Enum.map(& &1[run].others) |> Enum.max()
      failed = rounds |> Enum.map(& &1[run].failed) |> Enum.max()

      IO.puts(
        "#{run}: longest slice #{round(over)} ms beyond what was asked, #{div(memory, 1_048_576)} MiB, #{others} other attempts, " <>
          "#{failed} POSTs of the good webhooks failed"
      )
    end
  end

  defp print_run(run, figures) do
    each = fn key -> words(Enum.map(figures, & &1[key])) end

    IO.puts(
      "  #{String.pad_trailing("#{run}", 9)} p50 #{each.(:p50_us)} us, p99 #{each.(:p99_us)} us, " <>
        "p99 of the POST alone #{each.(:attempt_p99_us)} us, " <>
        "#{each.(:per_s)}/s, delivered #{each.(:got)} of #{each.(:of)}"
    )
  end

  defp ratio(:none, _alone), do: :none
  defp ratio(_together, :none), do: :none
  defp ratio(together, alone), do: Float.round(together / alone, 2)

  defp words(values), do: Enum.join(values, ", ")
end
