defmodule Plausible.Webhooks.Faults.ProductRun do
  @moduledoc false
  # Every row at once against a whole instance on SQLite with its default limits, and beside
  # them a webhook at a good receiver. One event goes to all of them by the hook. The log has
  # to say what became of each; then each webhook moves to the good receiver, and has to get
  # through.

  import Plausible.Webhooks.Faults.Judge, only: [check: 2]

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Faults.{Judge, Meter, Row, Wire}
  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Test.{HttpReceiver, TestHost}

  @site 1
  @user :owner
  # The goal of the delivery before the fault, of the fault, and of the one after it.
  @first 13
  @fault 12
  @afterwards 14
  @timeout_ms 8_000
  @prompt_ms 5_000
  @patience_ms 60_000
  @memory_max 256 * 1_048_576

  @doc "`%{kind => %{short: [...]}}`, with `:all` for what no row can tell."
  def run(rows, peers, receiver, dir) do
    run = start(peers, dir)
    memory = Meter.memory()
    webhooks = Map.new(rows, &{&1.kind, create(run, peers.peers[&1.kind].url, goals(&1))})
    good = create(run, HttpReceiver.url(receiver, "/product"), [@first, @fault, @afterwards])
    before = Map.new(rows, &{&1.kind, Judge.before(peers.peers[&1.kind].counts)})

    first = for %Row{first: true, kind: kind} <- rows, do: webhooks[kind]
    firsts = event(run, "First", [good | first], %{})
    wait_for_ends(rows, peers, before, 100)
    faults = event(run, "Fault", [good | Map.values(webhooks)], %{})
    grown = Meter.memory() - memory
    results = Map.new(rows, &{&1.kind, judge(run, &1, webhooks[&1.kind], firsts, faults)})
    for %Row{kind: kind} <- rows, do: move(run, webhooks[kind], receiver)
    free = for %Row{held: false, kind: kind} <- rows, do: webhooks[kind]
    last = event(run, "Afterwards", [good | free], %{})

    results =
      Map.new(rows, fn row ->
        id = webhooks[row.kind].id
        sent = sent(run, firsts[id]) + sent(run, faults[id])
        peer = Judge.peer(row, before[row.kind], peers.peers[row.kind].counts, sent)
        through = check(row.held or delivered?(last[id]), "lane shut afterwards")
        {row.kind, %{short: results[row.kind] ++ peer ++ through}}
      end)

    stats = stats(run, 100)
    stop(run)

    Map.put(results, :all, %{
      memory: grown,
      short:
        check(
          Enum.all?([firsts, faults, last], &delivered?(&1[good.id])),
          "the one beside failed"
        ) ++
          check(stats.engine.in_flight == 0, "places kept") ++
          check(stats.dropped == 0 and stats.refused == 0, "dropped or refused") ++
          check(grown <= @memory_max * Meter.slack(), "#{div(grown, 1_048_576)} MiB of memory")
    })
  end

  defp goals(row),
    do: if(row.first, do: [@first, @fault, @afterwards], else: [@fault, @afterwards])

  # --- the instance

  defp start(peers, dir) do
    name = :"faults_#{System.unique_integer([:positive])}"
    # What the host is told interests nobody here.
    host = TestHost.new(spawn_link(&ignore/0))

    goals = [{@first, "First"}, {@fault, "Fault"}, {@afterwards, "Afterwards"}]

    TestHost.put(
      host,
      {:goals, @site},
      for({id, text} <- goals, do: TestHost.event_goal(id, text))
    )

    options = [
      name: name,
      store: {API.Store.SQLite, path: Path.join(dir, "faults.db")},
      host: {TestHost, host},
      vault: [:binary.copy(<<7>>, 32)],
      retry_delays_ms: [Row.retry_s() * 1_000],
      jitter_percent: 0,
      timeout_ms: @timeout_ms,
      connect_timeout_ms: @timeout_ms - 2_000,
      webhooks_per_site_max: 1_000,
      traffic: false,
      observers: [{__MODULE__, self()}]
    ]

    options = Map.to_list(peers.options) ++ options
    {:ok, supervisor} = Supervisor.start_link([{API, options}], strategy: :one_for_one)
    %{name: name, supervisor: supervisor, instance: Instance.fetch!(name)}
  end

  defp stop(run), do: Supervisor.stop(run.supervisor, :normal, 30_000)

  defp ignore, do: receive(do: (_any -> ignore()))

  @doc false
  def handle_event(:attempt, _times, metadata, pid), do: send(pid, {:attempt, metadata})
  def handle_event(_other, _measurements, _metadata, _pid), do: :ok

  defp create(run, url, goals) do
    attributes = %{url: url, events: ["goal.completed"], goals: goals}
    {:ok, webhook} = API.create_webhook(run.name, @user, @site, attributes)
    webhook
  end

  defp move(run, webhook, receiver) do
    attributes = %{url: HttpReceiver.url(receiver, "/moved")}
    {:ok, moved} = API.update_webhook(run.name, @user, @site, webhook.id, attributes)

    if moved.disabled_reason != nil,
      do: {:ok, _webhook} = API.enable_webhook(run.name, @user, @site, webhook.id)
  end

  # --- an event, and its attempts by webhook

  defp event(run, name, webhooks, got) do
    :ok =
      API.events_buffered(run.name, [
        %{
          clickhouse_event: %{
            site_id: @site,
            name: name,
            hostname: "site1.example",
            pathname: "/",
            session_id: 1,
            timestamp: ~N[2026-11-23 10:15:30]
          }
        }
      ])

    collect(Enum.map(webhooks, & &1.id), got, now_ms() + @patience_ms)
  end

  defp collect(ids, got, deadline) do
    if Enum.all?(ids, &is_map_key(got, &1)) do
      got
    else
      receive do
        {:attempt, metadata} ->
          collect(ids, Map.put_new(got, metadata.webhook_id, metadata), deadline)
      after
        max(deadline - now_ms(), 0) -> got
      end
    end
  end

  defp now_ms, do: System.monotonic_time(:millisecond)

  defp wait_for_ends(_rows, _peers, _before, 0), do: :ok

  defp wait_for_ends(rows, peers, before, tries) do
    waiting =
      Enum.filter(rows, fn row ->
        row.first and Wire.count(peers.peers[row.kind].counts, :ended) == before[row.kind].ended
      end)

    # Scripts that go on do not end.
    if waiting != [] do
      Process.sleep(5)
      wait_for_ends(waiting, peers, before, tries - 1)
    end
  end

  defp sent(_run, nil), do: 0

  defp sent(run, %{delivery_id: id}) do
    {:ok, attempts} = API.attempts(run.name, @user, @site, id)
    length(attempts)
  end

  # When nothing is in flight any more.
  defp stats(run, tries) do
    stats = API.stats(run.name)

    if stats.engine.in_flight > 0 and tries > 0 do
      Process.sleep(50)
      stats(run, tries - 1)
    else
      stats
    end
  end

  # --- what the log says

  defp judge(run, row, webhook, firsts, faults) do
    first = not row.first or delivered?(firsts[webhook.id])
    check(first, "first delivery failed") ++ logged(run, row, webhook, faults[webhook.id])
  end

  defp logged(_run, _row, _webhook, nil), do: ["no result"]

  defp logged(run, row, webhook, %{delivery_id: id}) do
    {:ok, delivery} = API.delivery(run.name, @user, @site, id)
    {:ok, [attempt | more]} = API.attempts(run.name, @user, @site, id)
    {:ok, webhook} = API.get_webhook(run.name, @user, @site, webhook.id)
    reason = if Judge.class(attempt) == :gone, do: :gone
    total_ms = div(attempt.total_us || 0, 1_000)
    last = List.last([attempt | more])

    Judge.attempt(row, attempt) ++
      check(more == [] or row.retry_in_s == :any, "#{length(more)} more attempts") ++
      check(delivery.state == last.state, "the delivery is #{delivery.state}") ++
      check(delivery.last_status == last.status, "last status #{delivery.last_status}") ++
      check(delivery.last_error == text(last.error), "last error #{delivery.last_error}") ++
      check(webhook.disabled_reason == reason, "disabled: #{inspect(webhook.disabled_reason)}") ++
      check(
        total_ms <= if(row.prompt, do: @prompt_ms, else: @timeout_ms + 2_000),
        "took #{total_ms} ms"
      )
  end

  defp text(nil), do: nil
  defp text(error), do: Atom.to_string(error)

  defp delivered?(%{state: :delivered}), do: true
  defp delivered?(_other), do: false
end
