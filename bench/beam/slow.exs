# Delivers to many endpoints at once that answer late:
#
#     mix run --no-start bench/beam/slow.exs PORT ENDPOINTS MULTIS hosts|one
#
# With `hosts` each endpoint has an address of its own; with `one` all share one host.
# Prints the wall time, the CPU time per 1 000 deliveries, and the memory per delivery in
# flight beyond that of the idle VM. Each is the median of three rounds.
alias Plausible.Webhooks.{Delivery, Native}

[port, endpoints, multis, where] = System.argv()
endpoints = String.to_integer(endpoints)

status = fn key ->
  [_, kb] = Regex.run(~r/#{key}:\s+(\d+) kB/, File.read!("/proc/self/status"))
  String.to_integer(kb)
end

cpu_ms = fn ->
  [_, rest] = "/proc/self/stat" |> File.read!() |> String.split(") ", parts: 2)

  rest
  |> String.split(" ")
  |> Enum.slice(11, 2)
  |> Enum.map(&String.to_integer/1)
  |> Enum.sum()
  |> Kernel.*(10)
end

before_kb = status.("VmRSS")

{:ok, engine} =
  Native.engine_start(%{
    policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
    in_flight_max: 20_000,
    # This VM does nothing else, so the engine may hold that many sockets.
    descriptors_max: 1_000_000,
    destination_in_flight_max: 20_000,
    destination_rate_per_s: 1_000_000,
    # One multi handle takes far longer than two seconds.
    timeout_ms: 120_000,
    connect_timeout_ms: 120_000,
    retry_delays_ms: [],
    multi_handles: String.to_integer(multis)
  })

if Native.stats(engine).in_flight_max < endpoints do
  IO.puts(:stderr, "the descriptor limit is too small for #{endpoints} in flight (ulimit -n)")
  System.halt(77)
end

{:ok, key} = Native.generate_secret()

for n <- 1..endpoints do
  address = if where == "one", do: "127.0.0.1", else: "127.1.#{div(n, 250)}.#{rem(n, 250) + 1}"

  :ok =
    Native.put_endpoint(engine, %{
      webhook_id: "wh_#{n}",
      url: "http://#{address}:#{port}/#{n}",
      keys: [key]
    })
end

collect = fn collect, left ->
  if left > 0 do
    {:ok, attempts} = Native.run_once(engine, 100)

    for %{state: state, error: error} <- attempts, state != :delivered do
      IO.puts(:stderr, "not delivered: #{error}")
      System.halt(1)
    end

    collect.(collect, left - length(attempts))
  end
end

rounds =
  for round <- 1..3 do
    cpu = cpu_ms.()
    start = System.monotonic_time(:millisecond)

    deliveries =
      for n <- 1..endpoints,
          do: %Delivery{id: "msg_#{round}_#{n}", webhook_id: "wh_#{n}", body: "{}"}

    {:ok, ^endpoints} = Native.submit(engine, deliveries)
    collect.(collect, endpoints)
    {System.monotonic_time(:millisecond) - start, (cpu_ms.() - cpu) * 1_000 / endpoints}
  end

median = fn values -> values |> Enum.sort() |> Enum.at(1) end
wall = rounds |> Enum.map(&elem(&1, 0)) |> median.()
cpu = rounds |> Enum.map(&elem(&1, 1)) |> median.()
kb = (status.("VmHWM") - before_kb) / endpoints

IO.puts(
  "#{endpoints} endpoints (#{where}), #{multis} multis: wall #{wall / 1_000} s, " <>
    "CPU #{round(cpu)} ms per 1 000, #{Float.round(kb, 1)} KB per delivery in flight"
)

Native.engine_stop(engine, 0)
