# Measures how bad endpoints affect good ones:
#
#     LD_PRELOAD=slow_dns.so mix run --no-start bench/beam/isolation.exs URL
#
# 20 good webhooks get 500 deliveries a second, evenly, for five seconds; each delivery is
# timed from the submission to the result. First alone, then beside 20 webhooks of one bad
# kind with 25 deliveries each. Prints the median and p99, each the median of three rounds.
alias Plausible.Webhooks.{Delivery, Native}

defmodule Isolation do
  @good 20
  @bad 20
  @per_bad 25
  @rounds 3
  @count 2_500
  @pause_us 2_000

  def kinds, do: [:alone, :never_answers, :drips, :dns_hangs]

  def run(url, servers) do
    results = for _ <- 1..@rounds, kind <- kinds(), do: {kind, round(kind, url, servers)}

    for kind <- kinds() do
      [p50, p99, worst] =
        for {^kind, values} <- results do
          values
        end
        |> Enum.zip_with(&Enum.at(Enum.sort(&1), div(@rounds, 2)))

      IO.puts(
        "#{String.pad_trailing("#{kind}", 14)} p50 #{p50} us, p99 #{p99} us, worst #{worst} us"
      )
    end
  end

  # A new engine each time, so that no work of the previous kind is left.
  defp round(kind, url, servers) do
    {:ok, engine} =
      Native.engine_start(%{
        policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
        lane_rate_per_s: 100_000,
        destination_rate_per_s: 100_000,
        timeout_ms: 30_000,
        connect_timeout_ms: 30_000,
        retry_delays_ms: []
      })

    {:ok, key} = Native.generate_secret()
    put = &(:ok = Native.put_endpoint(engine, %{webhook_id: &1, url: &2, keys: [key]}))
    for n <- 1..@good, do: put.("good_#{n}", url)
    table = :ets.new(:submitted, [:public])

    for n <- 1..@bad, kind != :alone do
      put.("bad_#{n}", bad_url(kind, n, servers))

      {:ok, @per_bad} =
        Native.submit(engine, for(m <- 1..@per_bad, do: delivery("bad_#{n}_#{m}", "bad_#{n}")))
    end

    submitter = Task.async(fn -> submit(engine, table, now_us() + 200_000) end)
    latencies = collect(engine, table, @count, [])
    Task.await(submitter)
    {:ok, _unfinished} = Native.engine_stop(engine, 0)
    sorted = Enum.sort(latencies)
    [Enum.at(sorted, div(@count, 2)), Enum.at(sorted, div(@count * 99, 100)), List.last(sorted)]
  end

  defp bad_url(:never_answers, _n, servers), do: "http://127.0.0.2:#{servers.hangs}/"
  defp bad_url(:drips, _n, servers), do: "http://127.0.0.3:#{servers.drips}/"
  defp bad_url(:dns_hangs, n, _servers), do: "http://n#{n}.hangs.example/"

  defp delivery(id, webhook_id),
    do: %Delivery{id: id, webhook_id: webhook_id, body: ~s({"type":"goal.completed"})}

  defp submit(engine, table, start_us) do
    for n <- 1..@count do
      due = start_us + n * @pause_us
      Process.sleep(max(div(due - now_us(), 1_000), 0))
      id = "good_#{n}"
      :ets.insert(table, {id, now_us()})
      {:ok, 1} = Native.submit(engine, [delivery(id, "good_#{rem(n, @good) + 1}")])
    end
  end

  defp collect(_engine, _table, 0, latencies), do: latencies

  defp collect(engine, table, left, latencies) do
    {:ok, attempts} = Native.run_once(engine, 100)
    now = now_us()

    latencies_now =
      for %{delivery_id: "good_" <> _ = id, state: :delivered} <- attempts do
        [{_id, at}] = :ets.lookup(table, id)
        now - at
      end

    collect(engine, table, left - length(latencies_now), latencies_now ++ latencies)
  end

  defp now_us, do: System.monotonic_time(:microsecond)

  # A receiver that never reads, and answers nothing or a byte every 100 ms.
  def server(ip, drips?) do
    {:ok, listener} =
      :gen_tcp.listen(0, [:binary, ip: ip, active: false, backlog: 1_024, reuseaddr: true])

    {:ok, port} = :inet.port(listener)
    spawn_link(fn -> accept(listener, drips?) end)
    port
  end

  defp accept(listener, drips?) do
    {:ok, socket} = :gen_tcp.accept(listener)
    if drips?, do: spawn(fn -> receive(do: (:go -> drip(socket))) end) |> hand_over(socket)
    accept(listener, drips?)
  end

  defp hand_over(pid, socket) do
    :gen_tcp.controlling_process(socket, pid)
    send(pid, :go)
  end

  defp drip(socket) do
    _ = :gen_tcp.send(socket, "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")

    Enum.reduce_while(1..1_000, :ok, fn _, _ ->
      Process.sleep(100)
      if :gen_tcp.send(socket, "x") == :ok, do: {:cont, :ok}, else: {:halt, :closed}
    end)
  end
end

[url] = System.argv()

Isolation.run(url, %{
  hangs: Isolation.server({127, 0, 0, 2}, false),
  drips: Isolation.server({127, 0, 0, 3}, true)
})
