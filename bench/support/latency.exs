# Times events from the hook to the first byte at the receiver, for the benchmarks of both
# stores. 25 webhooks of 25 sites get 1 000 events a second in total, evenly. Each webhook
# has its own address of 127.0.1.0/24. All limits are the defaults.
defmodule Bench.Latency do
  alias Plausible.Webhooks

  @sites 25
  @per_s 1_000
  @goal %{
    id: 1,
    name: "Signup",
    event_name: "Signup",
    page_path: nil,
    scroll_threshold: -1,
    custom_props: %{},
    currency: nil
  }

  defmodule Host do
    @behaviour Plausible.Webhooks.Host
    @impl true
    def site(_, id),
      do: %{id: id, domain: "site#{id}.example", timezone: "Etc/UTC", stats_start_at_ms: nil}

    @impl true
    def site_by_domain(_, _domain), do: nil
    @impl true
    def goals(goals, site_id) when is_function(goals, 1), do: goals.(site_id)
    def goals(goals, _site_id), do: goals
    @impl true
    def visitors(_, ids, windows),
      do: {:ok, Map.new(ids, &{&1, Enum.map(windows, fn _ -> 0 end)})}

    @impl true
    def breakdown(_, _site_id, _window, _limit), do: {:ok, %{sources: [], pages: []}}
    @impl true
    def alert_sites(_, _ids), do: []
    @impl true
    def dashboard_url(_, _site_id), do: nil
    @impl true
    def can?(_, _actor, _action, _site_id), do: true
    @impl true
    def webhook_disabled(_, _webhook, _reason), do: :ok
    @impl true
    def audit(_, _actor, _action, _webhook), do: :ok
  end

  @doc "Starts an instance on the store, sends for `seconds`, and prints the times."
  def run(store, seconds) do
    {:ok, supervisor} = start(store, [@goal])
    arrived = :ets.new(:arrived, [:public, write_concurrency: true])
    port = listen(arrived)

    for site <- 1..@sites do
      {:ok, _webhook} =
        Webhooks.create_webhook(:system, site, %{
          url: "http://127.0.1.#{site}:#{port}/hook",
          events: ["goal.completed"]
        })
    end

    # The warm-up opens connections, grows files and loads code.
    send_for(2, 0)
    Process.sleep(1_000)
    :ets.delete_all_objects(arrived)
    count = send_for(seconds, 1_000_000)
    wait(arrived, count, 100)
    report(arrived, count, seconds)
    Supervisor.stop(supervisor)
  end

  @doc "Starts an instance on loopback. `goals` are every site's goals, or a function of them."
  def start(store, goals) do
    Webhooks.start_link(
      store: store,
      host: {Host, goals},
      vault: [:binary.copy(<<7>>, 32)],
      policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
      traffic: false
    )
  end

  def event(site, number) do
    %{
      clickhouse_event: %{
        name: "Signup",
        site_id: site,
        hostname: "site#{site}.example",
        pathname: "/register",
        session_id: number,
        timestamp: ~N[2026-11-23 10:15:30],
        scroll_depth: 255,
        "meta.key": ["plan", "n"],
        "meta.value": ["growth", "#{number}-#{:erlang.monotonic_time(:microsecond)}-"],
        referrer: "https://news.ycombinator.com",
        referrer_source: "Hacker News",
        country_code: "EE",
        screen_size: "Desktop",
        operating_system: "GNU/Linux",
        browser: "Firefox"
      }
    }
  end

  # One process per site sends 40 events a second, independently of the others.
  defp send_for(seconds, base) do
    pause_ms = div(1_000 * @sites, @per_s)
    each = div(seconds * @per_s, @sites)

    1..@sites
    |> Enum.map(fn site ->
      Task.async(fn ->
        Process.sleep(:rand.uniform(pause_ms))
        began = System.monotonic_time(:millisecond)

        for n <- 1..each do
          Process.sleep(max(began + n * pause_ms - System.monotonic_time(:millisecond), 0))
          :ok = Webhooks.events_buffered([event(site, base + site * 10_000 + n)])
        end
      end)
    end)
    |> Task.await_many(:infinity)

    each * @sites
  end

  # --- the receiver, which takes the time when the first bytes of a request arrive

  defp listen(arrived) do
    {:ok, socket} =
      :gen_tcp.listen(0, [:binary, active: false, reuseaddr: true, backlog: 1_024, nodelay: true])

    {:ok, port} = :inet.port(socket)
    for _ <- 1..4, do: spawn_link(fn -> accept(socket, arrived) end)
    port
  end

  defp accept(listener, arrived) do
    {:ok, socket} = :gen_tcp.accept(listener)
    pid = spawn(fn -> serve(socket, arrived) end)
    :ok = :gen_tcp.controlling_process(socket, pid)
    accept(listener, arrived)
  end

  defp serve(socket, arrived) do
    with {:ok, bytes} <- :gen_tcp.recv(socket, 0) do
      at = :erlang.monotonic_time(:microsecond)
      request = whole(socket, bytes)
      [_, number, sent] = Regex.run(~r/"n":"(\d+)-(-?\d+)-"/, request)
      :ets.insert(arrived, {String.to_integer(number), at - String.to_integer(sent)})
      :ok = :gen_tcp.send(socket, "HTTP/1.1 204 No Content\r\n\r\n")
      serve(socket, arrived)
    end
  end

  defp whole(socket, bytes) do
    with [head, body] <- :binary.split(bytes, "\r\n\r\n"),
         [_, length] = Regex.run(~r/content-length: (\d+)/i, head),
         true <- byte_size(body) >= String.to_integer(length) do
      bytes
    else
      _more_to_come ->
        {:ok, more} = :gen_tcp.recv(socket, 0)
        whole(socket, bytes <> more)
    end
  end

  defp wait(arrived, count, left) do
    if :ets.info(arrived, :size) < count and left > 0 do
      Process.sleep(100)
      wait(arrived, count, left - 1)
    end
  end

  defp report(arrived, count, seconds) do
    times = Enum.sort(for {_number, us} <- :ets.tab2list(arrived), do: us)

    at = fn percent ->
      Enum.at(times, min(div(length(times) * percent, 1_000), length(times) - 1))
    end

    IO.puts(
      "#{length(times)} of #{count} events in #{seconds} s arrived; hook to first byte: " <>
        "p50 #{ms(at.(500))} ms, p99 #{ms(at.(990))} ms, p99.9 #{ms(at.(999))} ms, " <>
        "worst #{ms(List.last(times))} ms"
    )
  end

  defp ms(us), do: Float.round(us / 1_000, 1)
end
