# Runs one client of the comparison in a VM of its own:
#
#     mix run --no-start bench/beam/delivery.exs engine|httpc|event URL COUNT
#
# The client sends signed POSTs of 656 bytes to one receiver, with keep-alive and 64 in
# flight. Prints deliveries per second and this VM's CPU time per 1 000 deliveries.
Code.require_file("../../examples/host/host.ex", __DIR__)

alias Plausible.Webhooks
alias Plausible.Webhooks.{Delivery, Native}

defmodule Bench do
  @in_flight 64
  @warm_up 2_000

  def in_flight, do: @in_flight

  @doc "Measures `work.(count)` after a warm-up."
  def measure(name, count, work) do
    work.(@warm_up)
    cpu = cpu_ms()
    start = System.monotonic_time(:microsecond)
    work.(count)
    seconds = (System.monotonic_time(:microsecond) - start) / 1_000_000
    cpu = cpu_ms() - cpu
    IO.puts("#{name} #{round(count / seconds)} #{Float.round(cpu * 1_000 / count, 1)}")
  end

  # The user and system time of the whole process, in clock ticks of 10 ms.
  defp cpu_ms do
    [_, rest] = "/proc/self/stat" |> File.read!() |> String.split(") ", parts: 2)
    [user, system] = rest |> String.split(" ") |> Enum.slice(11, 2)
    (String.to_integer(user) + String.to_integer(system)) * 10
  end

  def body(n) do
    {:ok, body} =
      Native.encode(%{
        type: "goal.completed",
        timestamp: "2026-11-23T10:15:30.123Z",
        data: %{
          site: %{domain: "example.com"},
          goal: %{id: 12, name: "Signup", type: "event"},
          completion: %{
            event_name: "Signup",
            hostname: "example.com",
            pathname: "/register/#{n}",
            occurred_at: "2026-11-23T10:15:30Z",
            props: %{plan: "growth", seats: "12", note: String.duplicate("x", 102)},
            revenue: %{amount: "49.00", currency: "EUR"},
            referrer: "https://news.example/item?id=1",
            source: "News",
            utm: %{utm_source: "news", utm_medium: "web"},
            country: "EE",
            device: "Desktop",
            browser: "Firefox",
            os: "GNU/Linux"
          }
        }
      })

    body
  end
end

[kind, url, count] = System.argv()
count = String.to_integer(count)
policy = %{https_only: false, allow: ["127.0.0.0/8:*"]}
secret = :crypto.strong_rand_bytes(32)
many = 1_000_000

case kind do
  "engine" ->
    {:ok, engine} =
      Native.engine_start(%{
        policy: policy,
        lane_in_flight_max: Bench.in_flight(),
        lane_rate_per_s: many,
        destination_rate_per_s: many,
        waiting_max: many
      })

    key = "whsec_" <> Base.encode64(secret)
    :ok = Native.put_endpoint(engine, %{webhook_id: "wh", url: url, keys: [key]})

    collect = fn collect, left ->
      if left > 0 do
        {:ok, attempts} = Native.run_once(engine, 100)
        true = Enum.all?(attempts, &(&1.state == :delivered))
        collect.(collect, left - length(attempts))
      end
    end

    # Queues only enough to keep the requests in flight going, because the other client
    # has no queue.
    room = fn room ->
      if Native.stats(engine).waiting > 1_000 do
        Process.sleep(1)
        room.(room)
      end
    end

    Bench.measure("engine", count, fn count ->
      # Each delivery gets its own body, which is encoded within the measured time.
      submitter =
        Task.async(fn ->
          for part <- Enum.chunk_every(1..count, 100) do
            deliveries =
              for n <- part,
                  do: %Delivery{
                    id: "msg_#{System.unique_integer([:positive])}",
                    webhook_id: "wh",
                    body: Bench.body(n)
                  }

            room.(room)
            {:ok, 100} = Native.submit(engine, deliveries)
          end
        end)

      collect.(collect, count)
      Task.await(submitter, :infinity)
    end)

  "httpc" ->
    {:ok, _} = Application.ensure_all_started(:inets)

    :ok =
      :httpc.set_options(
        max_sessions: Bench.in_flight(),
        max_keep_alive_length: many,
        keep_alive_timeout: 120_000
      )

    request = fn n ->
      body = Bench.body(n)
      id = "msg_#{System.unique_integer([:positive])}"
      timestamp = Integer.to_string(System.system_time(:second))
      mac = :crypto.mac(:hmac, :sha256, secret, [id, ?., timestamp, ?., body])

      headers = [
        {~c"webhook-id", to_charlist(id)},
        {~c"webhook-timestamp", to_charlist(timestamp)},
        {~c"webhook-signature", to_charlist("v1," <> Base.encode64(mac))}
      ]

      {:ok, {{_, 204, _}, _, _}} =
        :httpc.request(:post, {to_charlist(url), headers, ~c"application/json", body}, [],
          body_format: :binary
        )
    end

    Bench.measure("httpc", count, fn count ->
      1..Bench.in_flight()
      |> Enum.map(fn worker ->
        Task.async(fn ->
          for n <- 1..div(count, Bench.in_flight()), do: request.(worker * many + n)
        end)
      end)
      |> Task.await_many(:infinity)
    end)

  "event" ->
    Logger.configure(level: :error)
    dir = Path.join(System.tmp_dir!(), "webhooks-bench-#{System.pid()}")
    File.mkdir_p!(dir)

    {:ok, supervisor} =
      Supervisor.start_link(
        [
          {Demo.Host,
           sites: [%{id: 1, domain: "example.com", goals: [%{id: 1, event_name: "Signup"}]}]},
          {Webhooks,
           store: {Webhooks.Store.SQLite, path: Path.join(dir, "webhooks.db")},
           host: {Demo.Host, Demo.Host},
           vault: {:file, Path.join(dir, "webhooks.key")},
           policy: policy,
           lane_in_flight_max: Bench.in_flight(),
           lane_rate_per_s: 100_000,
           destination_rate_per_s: many,
           outbox_max: many,
           waiting_max: many,
           traffic: false}
        ],
        strategy: :one_for_one
      )

    attributes = %{url: url, events: ["goal.completed"]}
    {:ok, _webhook} = Webhooks.create_webhook(:system, 1, attributes)

    event = fn n ->
      %{
        clickhouse_event: %{
          site_id: 1,
          name: "Signup",
          hostname: "example.com",
          pathname: "/register/#{n}",
          timestamp: ~N[2026-11-23 10:15:30],
          "meta.key": ["plan", "note"],
          "meta.value": ["growth", String.duplicate("x", 180)],
          referrer: "https://news.example/item?id=1",
          referrer_source: "News",
          country_code: "EE"
        }
      }
    end

    Bench.measure("event", count, fn count ->
      before = Webhooks.stats().recorded

      wait = fn wait, target ->
        if Webhooks.stats().recorded < target do
          Process.sleep(1)
          wait.(wait, target)
        end
      end

      for n <- 1..count do
        Webhooks.events_buffered([event.(n)])
        # The log never falls further behind than this.
        if rem(n, 500) == 0, do: wait.(wait, before + n - 2_000)
      end

      wait.(wait, before + count)
    end)

    {:ok, %{entries: []}} =
      Webhooks.deliveries(:system, 1, %{states: [:pending, :parked, :failed, :cancelled]}, %{})

    0 = Webhooks.stats().dropped
    Supervisor.stop(supervisor)
    File.rm_rf!(dir)
end
