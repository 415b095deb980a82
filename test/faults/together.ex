defmodule Plausible.Webhooks.Faults.Together do
  @moduledoc false
  # Every kind of hostile peer at once, with twenty webhooks each, beside two good webhooks: one
  # on a destination of its own, and one on a destination that it shares with every kind that
  # answers requests. One engine with its default limits. Each good webhook gets
  # @good_per_s deliveries a second, each hostile one a delivery every @again_ms.
  #
  # The runs with and without the hostile webhooks take turns. The figures of the good ones
  # are times from the submission to the result.

  alias Plausible.Webhooks.{Delivery, Native}
  alias Plausible.Webhooks.Faults.{Meter, Peers, Wire}

  @webhooks_per_kind 20
  @good_per_s 40
  @again_ms 5_000
  @slice_ms 100
  @ok "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
  @body ~s({"type":"goal.completed"})

  @doc "`[%{alone: figures, together: figures}]`, one for each round."
  def run(rows, dir, seconds, rounds) do
    peers = Peers.start(rows, dir)
    shared = shared(rows)
    own = Peers.serve("http", Wire.counts(), &good/2)
    hostile = hostile(rows, peers, shared)
    goods = %{"good_own" => own.url, "good_shared" => shared.url <> "good"}

    for _round <- 1..rounds do
      %{
        alone: round(goods, [], peers, seconds),
        together: round(goods, hostile, peers, seconds)
      }
    end
  end

  defp good(socket, counts),
    do: Wire.play(:gen_tcp, socket, socket, [:request, {:send, @ok}, :again], counts)

  # A server that plays the script of the path.
  defp shared(rows) do
    scripts = for {row, script} <- answering(rows), into: %{}, do: {path(row), script}
    scripts = Map.put(scripts, "good", [:request, {:send, @ok}, :again])
    Peers.serve("http", Wire.counts(), &Wire.dispatch(&1, scripts, &2))
  end

  defp answering(rows) do
    for %{peer: {:http, [first | _rest] = script}} = row <- rows,
        first in [:request, :head] or (is_tuple(first) and elem(first, 0) == :request),
        do: {row, script}
  end

  defp path(row), do: "k#{:erlang.phash2(row.kind)}"

  defp hostile(rows, peers, shared) do
    on_shared = for {row, _script} <- answering(rows), do: {row.kind, shared.url <> path(row)}
    all = Map.merge(Map.new(rows, &{&1.kind, peers.peers[&1.kind].url}), Map.new(on_shared))
    for {kind, url} <- all, n <- 1..@webhooks_per_kind, do: {"#{:erlang.phash2(kind)}_#{n}", url}
  end

  defp round(goods, hostile, peers, seconds) do
    {:ok, engine} = Native.engine_start(peers.options)

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
      meter: Meter.new(),
      over_ms: 0.0,
      memory: memory,
      times: %{},
      others: 0
    }

    # What is late by as long again is lost.
    state = drive(state, table, 2 * count, begin + 2 * seconds * 1_000_000)
    took_s = (now_us() - begin) / 1_000_000
    for pid <- [good, bad], do: Process.exit(pid, :kill)
    Process.unlink(good)
    Process.unlink(bad)
    {:ok, _unfinished} = Native.engine_stop(engine, 0)

    Map.new(goods, fn {id, _url} -> {id, figures(state.times[id] || [], count, took_s)} end)
    |> Map.merge(%{over_ms: state.over_ms, memory: state.memory - memory, others: state.others})
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
    for slice <- Enum.chunk_every(hostile, 100) do
      deliveries =
        for {id, _url} <- slice,
            do: %Delivery{id: "msg_#{id}_#{turn}", webhook_id: id, body: @body}

      _taken = Native.submit(engine, deliveries)
      Process.sleep(1)
    end

    Process.sleep(@again_ms)
    submit_hostile(engine, hostile, turn + 1)
  end

  defp drive(state, table, left, deadline) do
    if left <= 0 or now_us() > deadline do
      state
    else
      {attempts, over_ms, meter} = Meter.run_once(state.meter, state.engine, @slice_ms)

      {good, others} = Enum.split_with(attempts, &match?("good" <> _id, &1.webhook_id))
      now = now_us()
      delivered = for %{state: :delivered} = attempt <- good, do: took(attempt, table, now)

      times =
        Enum.reduce(delivered, state.times, fn {id, us}, times ->
          Map.update(times, id, [us], &[us | &1])
        end)

      state = %{
        state
        | meter: meter,
          over_ms: max(state.over_ms, over_ms),
          memory: max(state.memory, Meter.memory()),
          times: times,
          others: state.others + length(others)
      }

      drive(state, table, left - length(delivered), deadline)
    end
  end

  defp took(attempt, table, now) do
    [{_id, at}] = :ets.lookup(table, attempt.delivery_id)
    {attempt.webhook_id, now - at}
  end

  defp figures(times, count, took_s) do
    sorted = Enum.sort(times)
    got = length(sorted)
    at = fn percent -> Enum.at(sorted, min(div(got * percent, 100), got - 1), :none) end
    %{p50_us: at.(50), p99_us: at.(99), per_s: Float.round(got / took_s, 1), got: got, of: count}
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
        for round <- rounds, do: ratio(round.together[id][key], round.alone[id][key])
      end

      IO.puts(
        "  ratio     p50 #{words(ratio.(:p50_us))}, p99 #{words(ratio.(:p99_us))}, throughput #{words(ratio.(:per_s))}"
      )
    end

    for run <- [:alone, :together] do
      over = rounds |> Enum.map(& &1[run].over_ms) |> Enum.max()
      memory = rounds |> Enum.map(& &1[run].memory) |> Enum.max()
      others = rounds |> Enum.map(& &1[run].others) |> Enum.max()

      IO.puts(
        "#{run}: longest slice #{round(over)} ms beyond what was asked, #{div(memory, 1_048_576)} MiB, #{others} other attempts"
      )
    end
  end

  defp print_run(run, figures) do
    each = fn key -> words(Enum.map(figures, & &1[key])) end

    IO.puts(
      "  #{String.pad_trailing("#{run}", 9)} p50 #{each.(:p50_us)} us, p99 #{each.(:p99_us)} us, " <>
        "#{each.(:per_s)}/s, delivered #{each.(:got)} of #{each.(:of)}"
    )
  end

  defp ratio(:none, _alone), do: :none
  defp ratio(_together, :none), do: :none
  defp ratio(together, alone), do: Float.round(together / alone, 2)

  defp words(values), do: Enum.join(values, ", ")
end
