defmodule Plausible.Webhooks.Faults.Flood do
  @moduledoc false
  # What one site can do to another, and to the machine, at the default limits:
  #
  #   beside/3  site 1 sends 5 000 events a second to twenty webhooks; how long an event of site 2
  #             takes from the hook to its receiver, with and without the flood, in turns
  #   alone/3   twenty webhooks of every kind, and floods of small and of large events: how much
  #             memory the VM takes, and how much the log grows
  #
  # The instance is in a VM of its own as well, a new one for each part.

  alias Plausible.Webhooks.Faults.{Elsewhere, Host, Meter}
  alias Plausible.Webhooks.Store.SQLite.Connection
  alias Plausible.Webhooks.Test.{HttpReceiver, OtherVm}

  @webhooks 20
  @events_per_s 5_000
  @other_every_ms 20
  # As much as Plausible lets a visitor put into the properties of one event.
  @large String.duplicate("x", 60_000)
  @patience_ms 5_000
  @full "HTTP/1.1 200 OK\r\ncontent-length: 16384\r\n\r\n" <> String.duplicate("x", 16_384)

  # --- beside

  @doc "`[%{alone: figures, flood: figures}]`, one for each round."
  def beside(dir, seconds, rounds) do
    attackers = OtherVm.start!(nice: 19)
    receivers = OtherVm.start!()
    flooded = for n <- 1..@webhooks, do: Elsewhere.good(attackers, n)
    watched = OtherVm.serve(receivers, __MODULE__, :serve_watched, [])

    for _round <- 1..rounds do
      for {name, flood?} <- [alone: false, flood: true], into: %{} do
        # A new one each time: a flood leaves much to do.
        sent =
          product(dir, :start_beside, [flooded, watched], fn product, _dir ->
            OtherVm.call(product, __MODULE__, :send_beside, [seconds, flood?])
          end)

        {name, figures(sent, OtherVm.call(receivers, __MODULE__, :arrived, []))}
      end
    end
  end

  defp product(dir, start, arguments, fun) do
    dir = Path.join(dir, "#{System.unique_integer([:positive])}")
    File.mkdir_p!(dir)
    product = OtherVm.start!()
    :ok = OtherVm.serve(product, __MODULE__, start, [dir | arguments])
    result = fun.(product, dir)
    OtherVm.kill(product)
    File.rm_rf!(dir)
    result
  end

  def start_beside(dir, flooded, watched) do
    Host.start(dir, [])
    for url <- flooded, do: Host.create(1, url)
    Host.create(2, watched)
    :ok
  end

  @doc "`%{text of an event => when its hook was called}`, in microseconds of the system's clock."
  def send_beside(seconds, flood?) do
    flood =
      if flood?, do: spawn_link(fn -> flood(fn _n -> "flood" end, @events_per_s, now_ms(), 0) end)

    sent =
      for n <- 1..div(seconds * 1_000, @other_every_ms), into: %{} do
        Process.sleep(@other_every_ms)
        at_us = System.os_time(:microsecond)
        text = "e#{n}-#{at_us}"
        :ok = Host.event(2, text)
        {text, at_us}
      end

    if flood do
      Process.unlink(flood)
      Process.exit(flood, :kill)
    end

    # The last ones are on their way.
    Process.sleep(@patience_ms)
    sent
  end

  # As many as are due since `begin`.
  defp flood(text, per_s, begin, sent) do
    due = div((now_ms() - begin) * per_s, 1_000)
    for n <- sent..(due - 1)//1, do: :ok = Host.event(1, text.(n))
    Process.sleep(1)
    flood(text, per_s, begin, max(due, sent))
  end

  def serve_watched do
    :ets.new(__MODULE__, [:named_table, :public])
    receiver = HttpReceiver.start!(keep: false, ip: {127, 0, 2, 1})
    HttpReceiver.script(receiver, "/watched", [&note/1])
    HttpReceiver.url(receiver, "/watched")
  end

  defp note(request) do
    at_us = System.os_time(:microsecond)
    [_all, text] = Regex.run(~r/"text":"([^"]+)"/, request.body)
    :ets.insert_new(__MODULE__, {text, at_us})
    200
  end

  def arrived, do: Map.new(:ets.tab2list(__MODULE__))

  defp figures(sent, arrived) do
    times = for {text, at_us} <- sent, got = arrived[text], do: got - at_us
    sorted = Enum.sort(times)

    at = fn percent ->
      Enum.at(sorted, min(div(length(sorted) * percent, 100), length(sorted) - 1))
    end

    %{p50_us: at.(50), p99_us: at.(99), got: length(sorted), of: map_size(sent)}
  end

  def print_beside(rounds) do
    for name <- [:alone, :flood] do
      words = fn key -> Enum.map_join(rounds, ", ", & &1[name][key]) end

      IO.puts(
        "#{String.pad_trailing("#{name}", 6)} p50 #{words.(:p50_us)} us, p99 #{words.(:p99_us)} us, " <>
          "arrived #{words.(:got)} of #{words.(:of)}"
      )
    end

    for key <- [:p50_us, :p99_us] do
      ratios = for round <- rounds, do: Float.round(round.flood[key] / round.alone[key], 2)
      median = ratios |> Enum.sort() |> Enum.at(div(length(ratios), 2))
      IO.puts("ratio  #{key} #{Enum.join(ratios, ", ")}, median #{median}")
    end
  end

  # --- alone

  @doc "What each case takes: `[{name, figures}]`."
  def alone(rows, dir, seconds) do
    peers = Elsewhere.start(rows, dir)
    at = fn script -> for n <- 1..@webhooks, do: Elsewhere.script(peers.attackers, n, script) end
    silent = at.([:request, :gone])
    full = at.([:request, {:send, @full}, :again])
    busy = at.([:request, {:send, "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"}, :again])

    floods = [
      {"small events, nobody answers", silent, @events_per_s, 10},
      {"large events, nobody answers", silent, @events_per_s, @large},
      {"small events, 16 KiB answers", full, @events_per_s, 10},
      {"large events, 503 at once", busy, @events_per_s, @large}
    ]

    kinds =
      for {kinds, n} <- peers.urls |> Enum.chunk_every(@webhooks) |> Enum.with_index(1),
          do: {"hostile kinds, group #{n}", Enum.map(kinds, &elem(&1, 1)), @events_per_s, 1_000}

    for {name, urls, per_s, bytes} <- floods ++ kinds do
      start = [urls, Map.to_list(peers.options)]

      figures =
        product(dir, :start_alone, start, fn product, dir ->
          OtherVm.call(product, __MODULE__, :flood_alone, [dir, seconds, per_s, bytes])
        end)

      print_alone(name, figures)
      {name, figures}
    end
  end

  def start_alone(dir, urls, options) do
    Host.start(dir, options)
    for url <- urls, do: Host.create(1, url)
    :ok
  end

  def flood_alone(dir, seconds, per_s, bytes) do
    # One event makes everything that is made once.
    :ok = Host.event(1, "first")
    Process.sleep(2_000)
    idle = Meter.memory()
    flood = spawn_link(fn -> flood(text(bytes), per_s, now_ms(), 0) end)
    most = watch(now_ms() + seconds * 1_000, idle)
    Process.unlink(flood)
    Process.exit(flood, :kill)
    file = Host.path(dir)

    [{attempts, answers}] =
      sql("SELECT count(*), coalesce(sum(length(response_body)), 0) FROM attempts")

    [{deliveries}] = sql("SELECT count(*) FROM deliveries")

    size =
      Enum.sum(for path <- [file, file <> "-wal"], File.exists?(path), do: File.stat!(path).size)

    %{
      idle_mib: div(idle, 1_048_576),
      grown_mib: div(most - idle, 1_048_576),
      deliveries: deliveries,
      attempts: attempts,
      answers_kib: div(answers, 1_024),
      file_mib: div(size, 1_048_576)
    }
  end

  defp text(bytes) when is_binary(bytes), do: fn _n -> bytes end
  defp text(bytes), do: fn n -> String.pad_leading("#{n}", bytes, "x") end

  defp watch(until, most) do
    Process.sleep(20)
    most = max(most, Meter.memory())
    if now_ms() < until, do: watch(until, most), else: most
  end

  defp sql(statement) do
    connection = Module.concat(Host.name(), "SQLite")
    {:ok, [rows]} = Connection.read(connection, [{statement, []}])
    rows
  end

  def print_alone(name, figures) do
    IO.puts(
      "#{String.pad_trailing(name, 34)} +#{figures.grown_mib} MiB above #{figures.idle_mib} MiB; " <>
        "#{figures.deliveries} deliveries and #{figures.attempts} attempts on record, " <>
        "#{figures.answers_kib} KiB of answers, file of #{figures.file_mib} MiB"
    )
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
end
