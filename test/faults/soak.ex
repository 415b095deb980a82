defmodule Plausible.Webhooks.Faults.Soak do
  @moduledoc false
  # Many deliveries through one instance, good ones and one webhook for every hostile kind,
  # and what the VM holds at the start, in the middle and at the end. Finished deliveries are
  # deleted after a minute, so the file has reason to stay flat too. The limits of rate are
  # lifted; the others are the defaults.
  #
  # Whatever is wrong, it ends after the given number of minutes.

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.{Delivery, Id}
  alias Plausible.Webhooks.Accept.Outbox
  alias Plausible.Webhooks.Faults.{Elsewhere, Host, Meter}
  alias Plausible.Webhooks.Runtime.Instance

  @good 20
  # A hostile kind gets as much as its broken circuit lets through.
  @hostile_every_ms 5_000
  @batch 250
  @outbox_max 2_000
  @waiting_max 10_000
  # The engine answers its owner between two slices of at most this time.
  @slice_ms 100

  @doc "The samples, first to last, and what is short."
  def run(rows, dir, count, minutes) do
    peers = Elsewhere.start(rows, dir)

    Host.start(
      dir,
      [
        retry_delays_ms: [1_000],
        retry_after_max_ms: 1_000,
        timeout_ms: 2_000,
        connect_timeout_ms: 2_000,
        lane_rate_per_s: 100_000,
        destination_rate_per_s: 1_000_000,
        webhooks_per_site_max: 1_000,
        retention_ms: 60_000,
        prune_interval_ms: 1_000
      ] ++ Map.to_list(peers.options)
    )

    good = for n <- 1..@good, do: Host.create(1, Elsewhere.good(peers.receivers, n))
    hostile = for {_kind, url} <- peers.urls, do: Host.create(1, url)
    longest = :atomics.new(1, signed: true)
    spawn_link(fn -> probe(longest) end)
    deadline = now_ms() + minutes * 60_000
    state = %{good: good, hostile: hostile, count: count, pushed: 0, turn: now_ms(), dir: dir}
    state = Map.merge(state, %{longest: longest, samples: [], deadline: deadline})

    state = state |> push() |> drain()
    samples = Enum.reverse(state.samples)
    {samples, short(state, samples)}
  end

  # --- the load

  defp push(%{pushed: pushed, count: count} = state) when pushed >= count, do: state

  defp push(state) do
    state = state |> hostile() |> sampled(state.pushed / state.count)

    cond do
      now_ms() > state.deadline -> state
      room?() -> state |> send_good() |> push()
      true -> Process.sleep(2) && push(state)
    end
  end

  defp room? do
    stats = API.stats(Host.name())
    stats.outbox < @outbox_max and stats.engine[:waiting] < @waiting_max
  end

  defp send_good(state) do
    count = min(@batch, state.count - state.pushed)
    accept(for n <- 1..count, do: Enum.at(state.good, rem(n, @good)))
    %{state | pushed: state.pushed + count}
  end

  defp hostile(state) do
    if now_ms() < state.turn do
      state
    else
      accept(state.hostile)
      pushed = state.pushed + length(state.hostile)
      %{state | turn: state.turn + @hostile_every_ms, pushed: pushed}
    end
  end

  defp accept(webhook_ids) do
    now_ms = System.system_time(:millisecond)

    deliveries =
      for id <- webhook_ids do
        %Delivery{
          id: Id.delivery(now_ms),
          webhook_id: id,
          site_id: 1,
          type: "goal.completed",
          goal_id: 12,
          body: ~s({"type":"goal.completed"}),
          created_at_ms: now_ms
        }
      end

    :ok = Outbox.push(Host.name(), deliveries)
  end

  # Until nothing waits.
  defp drain(state) do
    {:ok, queue} = API.queue(Host.name())

    if (queue.pending > 0 or queue.parked > 0 or API.stats(Host.name()).outbox > 0) and
         now_ms() < state.deadline do
      Process.sleep(100)
      drain(state)
    else
      sample(state, "end")
    end
  end

  # --- what the VM holds

  # The first sample waits until everything has been used once.
  defp sampled(state, part) do
    case {state.samples, part} do
      {[], part} when part >= 0.05 -> sample(state, "start")
      {[_start], part} when part >= 0.5 -> sample(state, "middle")
      _not_yet -> state
    end
  end

  defp sample(state, name) do
    stats = API.stats(Host.name())

    sample = %{
      name: name,
      deliveries: stats.accepted,
      attempts: stats.engine.attempts,
      rss_mib: div(Meter.memory(), 1_048_576),
      descriptors: length(File.ls!("/proc/self/fd")),
      threads: length(File.ls!("/proc/self/task")),
      processes: :erlang.system_info(:process_count),
      atoms: :erlang.system_info(:atom_count),
      ets_kib: div(:erlang.memory(:ets), 1_024),
      erlang_mib: div(:erlang.memory(:total), 1_048_576),
      file_mib: div(File.stat!(Host.path(state.dir)).size, 1_048_576),
      longest_ms: :atomics.exchange(state.longest, 1, 0),
      slow_slices: stats.engine.slow_slices
    }

    %{state | samples: [sample | state.samples]}
  end

  # How long the engine leaves its owner waiting, beyond the slice that it was asked for. Only
  # slices above 250 ms are reported by the engine itself.
  defp probe(longest) do
    process = Instance.process(Host.name(), :engine)
    begin = now_ms()
    _state = :sys.get_state(process, 120_000)
    over_ms = now_ms() - begin - @slice_ms
    if over_ms > :atomics.get(longest, 1), do: :atomics.put(longest, 1, over_ms)
    Process.sleep(20)
    probe(longest)
  end

  # --- the verdict

  @growth [rss_mib: 64, descriptors: 64, threads: 2, processes: 64, atoms: 200, ets_kib: 8_192]

  defp short(state, samples) do
    stats = API.stats(Host.name())
    {:ok, queue} = API.queue(Host.name())

    grown =
      for [_start, middle, last] <- [samples],
          {key, allowed} <- @growth,
          last[key] > middle[key] + allowed,
          do: "#{key} grew from #{middle[key]} to #{last[key]}"

    over? = now_ms() > state.deadline
    unfinished = queue.pending + queue.parked

    grown ++
      if(stats.dropped > 0 or stats.refused > 0, do: ["dropped or refused"], else: []) ++
      if(unfinished > 0, do: ["#{unfinished} deliveries have not ended"], else: []) ++
      if(over?, do: ["not done in time"], else: [])
  end

  def print({samples, short}) do
    for key <- Map.keys(hd(samples)) -- [:name] do
      cells = for sample <- samples, do: String.pad_leading("#{sample[key]}", 12)
      IO.puts(String.pad_trailing("#{key}", 14) <> Enum.join(cells))
    end

    IO.puts("columns: " <> Enum.map_join(samples, ", ", & &1.name))
    IO.puts(if short == [], do: "flat", else: "SHORT " <> Enum.join(short, "; "))
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
end
