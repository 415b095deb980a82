defmodule Plausible.Webhooks.Faults.EngineRun do
  @moduledoc false
  # A row against the native engine alone: one webhook at the peer, another one at a good
  # receiver. Afterwards the first one moves to the good receiver, and has to get through.

  import Plausible.Webhooks.Faults.Judge, only: [check: 2]

  alias Plausible.Webhooks.{Delivery, Native}
  alias Plausible.Webhooks.Faults.{Judge, Meter, Row, Wire}
  alias Plausible.Webhooks.Test.HttpReceiver

  @slice_ms 100
  @slice_over_max_ms 100
  @timeout_ms 4_000
  @connect_timeout_ms 3_000
  # Beyond the attempt's own time, on a machine with other things to do.
  @slack_ms 15_000
  @memory_max 96 * 1_048_576
  @at_once 7

  @doc "`%{kind => result}`; a result holds the figures and the shortfalls."
  def run(rows, peers, receiver) do
    rows
    |> Task.async_stream(&{&1.kind, row(&1, peers, receiver)},
      max_concurrency: @at_once,
      ordered: false,
      timeout: :infinity
    )
    |> Map.new(fn {:ok, result} -> result end)
  end

  def options(peers) do
    Map.merge(peers.options, %{
      retry_delays_ms: [Row.retry_s() * 1_000],
      jitter_percent: 0,
      timeout_ms: @timeout_ms,
      connect_timeout_ms: @connect_timeout_ms
    })
  end

  defp row(row, peers, receiver) do
    peer = peers.peers[row.kind]
    {:ok, engine} = Native.engine_start(options(peers))
    {:ok, key} = Native.generate_secret()
    put = &(:ok = Native.put_endpoint(engine, %{webhook_id: &1, url: &2, keys: [key]}))
    put.("bad", peer.url)
    put.("beside", HttpReceiver.url(receiver, "/beside"))

    state = %{
      engine: engine,
      meter: Meter.new(),
      over_ms: 0.0,
      memory: Meter.memory(),
      got: %{},
      posts: 0
    }

    state = Map.put(state, :idle_memory, state.memory)
    before = Judge.before(peer.counts)

    state = if row.first, do: first(state, peer.counts, before), else: state
    begin = System.monotonic_time(:millisecond)
    state = state |> submit(["bad", "beside"]) |> drive(["bad", "beside"]) |> settle(50)
    ms = System.monotonic_time(:millisecond) - begin
    # What is kept alive may still be written to.
    stats = Native.stats(engine)
    put.("bad", HttpReceiver.url(receiver, "/after"))
    after_ids = if row.held, do: ["beside_after"], else: ["bad_after", "beside_after"]
    state = state |> submit(after_ids) |> drive(after_ids)
    {:ok, _unfinished} = Native.engine_stop(engine, 0)

    figures(row, state, ms)
    |> Map.put(:bytes, Wire.count(peer.counts, :bytes) - before.bytes)
    |> Map.put(:short, shortfalls(row, state, stats, peer.counts, before, after_ids))
  end

  # One good delivery, then whatever the peer does with the idle connection.
  defp first(state, counts, before) do
    state = state |> submit(["bad_first"]) |> drive(["bad_first"])
    wait_for_end(counts, before, 20)
    {state, _attempts} = slice(state, 0)
    state
  end

  # A script that ends closes the connection; others wait for the second request.
  defp wait_for_end(_counts, _before, 0), do: :ok

  defp wait_for_end(counts, before, tries) do
    unless Wire.count(counts, :ended) > before.ended do
      Process.sleep(5)
      wait_for_end(counts, before, tries - 1)
    end
  end

  # Some are tried again at once.
  defp settle(state, 0), do: state

  defp settle(state, tries) do
    if Native.stats(state.engine).in_flight == 0 do
      state
    else
      {state, _attempts} = slice(state, @slice_ms)
      settle(state, tries - 1)
    end
  end

  defp submit(state, ids) do
    deliveries =
      for id <- ids do
        [webhook_id | _more] = String.split(id, "_")
        %Delivery{id: "msg_#{id}", webhook_id: webhook_id, body: ~s({"type":"goal.completed"})}
      end

    {:ok, _count} = Native.submit(state.engine, deliveries)
    state
  end

  defp drive(state, ids), do: drive(state, ids, now_ms() + @timeout_ms + @slack_ms)

  defp drive(state, ids, deadline) do
    if Enum.all?(ids, &is_map_key(state.got, &1)) or now_ms() > deadline do
      state
    else
      {state, _attempts} = slice(state, @slice_ms)
      drive(state, ids, deadline)
    end
  end

  defp slice(state, asked_ms) do
    {attempts, over_ms, meter} = Meter.run_once(state.meter, state.engine, asked_ms)

    # Of several attempts the first one met the fault.
    got =
      attempts
      |> Enum.reverse()
      |> Map.new(&{String.replace_prefix(&1.delivery_id, "msg_", ""), &1})

    {%{
       state
       | meter: meter,
         over_ms: max(state.over_ms, over_ms),
         memory: max(state.memory, Meter.memory()),
         got: Map.merge(got, state.got),
         posts: state.posts + Enum.count(attempts, &(&1.webhook_id == "bad"))
     }, attempts}
  end

  defp now_ms, do: System.monotonic_time(:millisecond)

  defp figures(row, state, ms) do
    attempt = state.got["bad"]

    %{
      kind: row.kind,
      class: if(attempt, do: Judge.class(attempt), else: :none),
      detail: attempt && attempt.detail,
      ms: ms,
      memory: state.memory - state.idle_memory,
      over_ms: state.over_ms
    }
  end

  defp shortfalls(row, state, stats, counts, before, after_ids) do
    attempt = state.got["bad"]

    result =
      if attempt, do: Judge.attempt(row, attempt) ++ time(row, attempt), else: ["no result"]

    first = state.got["bad_first"]
    beside = state.got["beside"]

    result ++
      Judge.peer(row, before, counts, state.posts) ++
      check(
        not row.first or (first != nil and first.state == :delivered),
        "first delivery failed"
      ) ++
      check(beside != nil and beside.state == :delivered, "the one beside failed") ++
      check(
        stats.in_flight == 0 and (stats.waiting == 0 or row.retry_in_s == :any),
        "places kept"
      ) ++
      check(
        state.over_ms <= @slice_over_max_ms * Meter.slack(),
        "slice of #{round(state.over_ms)} ms too long"
      ) ++
      check(
        state.memory - state.idle_memory <= @memory_max * Meter.slack(),
        "#{div(state.memory - state.idle_memory, 1_048_576)} MiB of memory"
      ) ++
      for id <- after_ids,
          not match?(%{state: :delivered}, state.got[id]),
          do: "#{id} failed"
  end

  # A result that is due at once comes well before the attempt's time is over.
  defp time(row, attempt) do
    total_ms = div(attempt.total_us || 0, 1_000)
    max_ms = if row.prompt, do: @timeout_ms - 500, else: @timeout_ms + 1_500
    check(total_ms <= max_ms, "took #{total_ms} ms")
  end
end
