defmodule Plausible.Webhooks.NodesAgreeTest do
  # Nodes on one store are told at random to send, to send again, to recover, to pause
  # (which cancels) and to resume, and are killed. Each POST is an attempt on record, unless a
  # kill lost its answer. No attempt is on record twice.
  #
  # Each test prints its counts. WEBHOOKS_NODES_STEPS says how much is done in each (default
  # 80), WEBHOOKS_NODES_SEED how it is chosen; what the nodes make of it also depends on time.
  use Plausible.Webhooks.Test.StoreCase, async: false

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Store.SQLite
  alias Plausible.Webhooks.Test.{ClusterNode, HttpReceiver}

  @moduletag timeout: :infinity
  @steps String.to_integer(System.get_env("WEBHOOKS_NODES_STEPS", "80"))
  @seed String.to_integer(System.get_env("WEBHOOKS_NODES_SEED", "1"))
  @webhooks 4
  @closed [:connection_closed, :connection_reset]
  @wait_ms 120_000

  setup_all do
    ClusterNode.start_names!()
    :ok
  end

  setup do
    :rand.seed(:exsss, @seed)
    receiver = HttpReceiver.of(start_supervised!({HttpReceiver, []}))
    for n <- 1..@webhooks, do: HttpReceiver.script(receiver, "/#{n}", [&answer/1])
    %{receiver: receiver, name: :nodes_agree}
  end

  for nodes <- [2, 3] do
    @nodes nodes
    test "#{nodes} nodes on PostgreSQL record each POST once", context do
      run(context, {Store, repo: Repo, prefix: migrated()}, @nodes)
    end
  end

  @tag :tmp_dir
  test "a node on SQLite records each POST once", %{tmp_dir: dir} = context do
    run(context, {SQLite, path: Path.join(dir, "webhooks.db")}, 1)
  end

  # The content type is on record, and says which POST it answers.
  defp answer(request) do
    answer = {Enum.random([200, 200, 500]), [{"content-type", token(request)}], ""}

    case :rand.uniform(4) do
      1 -> {:then_close, answer}
      2 -> {:delay, :rand.uniform(300), answer}
      _ -> answer
    end
  end

  defp token(request), do: "text/#{request.number}"

  defp run(context, store, count) do
    context = Map.put(context, :store, store)
    nodes = for _ <- 1..count, reduce: [], do: (nodes -> [start!(context, nodes) | nodes])
    ids = for n <- 1..@webhooks, do: create!(context, hd(nodes), "/#{n}")

    begin = %{
      nodes: nodes,
      killed: [],
      webhooks: ids,
      since: System.os_time(:millisecond) - 60_000
    }

    finish =
      Enum.reduce(1..@steps, begin, fn step, state ->
        if rem(step, 20) == 0, do: kill(context, state), else: step(context, state)
      end)

    for id <- ids, do: {:ok, _} = api(context, hd(finish.nodes), :enable_webhook, [:owner, 1, id])
    for node <- finish.nodes, do: eventually(fn -> idle?(context, node) end, @wait_ms)
    check(context, finish)
  end

  # --- the nodes

  # Each has a name of its own, which its POSTs carry.
  defp start!(context, others) do
    agent = "node-#{System.unique_integer([:positive])}"
    node = Map.put(ClusterNode.start!(:agree), :agent, agent)
    for other <- others, do: ClusterNode.connect!(node, other)
    :ok = ClusterNode.call(node, :base, [ClusterNode.connection()])

    options = [
      name: context.name,
      store: context.store,
      vault: [:binary.copy(<<7>>, 32)],
      cluster: {Plausible.Webhooks.Cluster.PubSub, pubsub: ClusterNode.PubSub},
      policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
      user_agent: agent,
      retry_delays_ms: [100, 300, 600],
      park_after_ms: 200,
      jitter_percent: 0,
      circuit_failures: 1_000,
      lease_ms: 1_000,
      sweep_interval_ms: 50,
      traffic: false
    ]

    :ok = ClusterNode.call(node, :up, [options])
    node
  end

  defp create!(context, node, path) do
    attributes = %{url: HttpReceiver.url(context.receiver, path), events: ["goal.completed"]}
    {:ok, %{id: id}} = api(context, node, :create_webhook, [:owner, 1, attributes])
    id
  end

  defp api(context, node, function, arguments),
    do: ClusterNode.call(node, API, function, [context.name | arguments])

  defp idle?(context, node) do
    stats = api(context, node, :stats, [])
    {:ok, queue} = api(context, node, :queue, [])
    {stats.outbox, stats.journal, queue.pending, queue.parked} == {0, 0, 0, 0}
  end

  # --- what is done to them

  defp step(context, %{nodes: nodes} = state) do
    node = Enum.random(nodes)
    webhook = Enum.random(state.webhooks)

    case Enum.random(~w(send send send again again recover pause resume resume)a) do
      :send -> send_events(context, node, :rand.uniform(5))
      :again -> redeliver(context, node)
      :recover -> api(context, node, :recover, [:owner, 1, webhook, state.since])
      :pause -> api(context, node, :disable_webhook, [:owner, 1, webhook])
      :resume -> api(context, node, :enable_webhook, [:owner, 1, webhook])
    end

    state
  end

  defp send_events(context, node, count) do
    events = for _ <- 1..count, do: ClusterNode.event(1, "Signup")
    :ok = api(context, node, :events_buffered, [events])
  end

  # Some of the newest deliveries, whatever their state.
  defp redeliver(context, node) do
    {:ok, %{entries: entries}} = api(context, node, :deliveries, [:owner, 1, %{}, %{limit: 50}])

    for %{id: id} <- Enum.take_random(entries, 5),
        do: api(context, node, :redeliver, [:owner, 1, id])
  end

  # While it has something to do.
  defp kill(context, %{nodes: nodes} = state) do
    {node, others} = List.pop_at(nodes, Enum.random(0..(length(nodes) - 1)))
    before = HttpReceiver.count(context.receiver)
    {:ok, _} = api(context, node, :enable_webhook, [:owner, 1, Enum.random(state.webhooks)])
    send_events(context, node, 20)
    eventually(fn -> HttpReceiver.count(context.receiver) > before + 5 end)
    :ok = ClusterNode.kill!(node)
    %{state | nodes: [start!(context, others) | others], killed: [node.agent | state.killed]}
  end

  # --- what came of it

  # The token that the receiver has put into its answer.
  defp told(%{response_headers: headers}),
    do: ~r/^content-type: (.*)$/mi |> Regex.run(headers) |> List.last()

  defp check(context, state) do
    node = hd(state.nodes)
    deliveries = all(context, node, nil)

    attempts =
      for %{id: id} <- deliveries,
          {:ok, attempts} = api(context, node, :attempts, [:owner, 1, id]),
          %{number: number} = attempt when number > 0 <- attempts,
          do: attempt

    # The receiver had closed the kept connection, and did not read the POST.
    {unread, answered} = Enum.split_with(attempts, &(&1.response_headers == ""))
    recorded = for attempt <- answered, do: {attempt.delivery_id, told(attempt)}
    requests = HttpReceiver.requests(context.receiver)
    posts = for request <- requests, do: {request.headers["webhook-id"], token(request)}
    on_record = MapSet.new(recorded)
    lost = for {request, post} <- Enum.zip(requests, posts), post not in on_record, do: request

    IO.puts(
      "\n    #{length(state.nodes)} nodes, #{length(state.killed)} kills, #{@steps} steps, " <>
        "seed #{@seed}: #{length(deliveries)} deliveries; #{length(posts)} POSTs = " <>
        "#{length(recorded)} attempts on record + #{length(lost)} whose answer a kill has lost; " <>
        "#{length(unread)} attempts met a closed connection"
    )

    assert Enum.uniq(recorded) == recorded
    assert MapSet.subset?(on_record, MapSet.new(posts))
    assert for(%{error: error} <- unread, error not in @closed, do: error) == []
    assert for(r <- lost, r.headers["user-agent"] not in state.killed, do: r) == []
    assert length(posts) == length(recorded) + length(lost)
  end

  defp all(context, node, cursor) do
    options = %{limit: 200, after: cursor}
    {:ok, page} = api(context, node, :deliveries, [:owner, 1, %{}, options])
    if page.next, do: page.entries ++ all(context, node, page.next), else: page.entries
  end
end
