defmodule Plausible.Webhooks.PeriodicTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Ingest.Traffic
  alias Plausible.Webhooks.Store.PeriodicLease

  @retention_ms 60_000

  defp old!(context) do
    webhook = webhook!(context, "/hook")
    long_ago = System.system_time(:millisecond) - 2 * @retention_ms
    old = delivery(webhook, state: :failed, created_at_ms: long_ago, finished_at_ms: long_ago)
    :ok = Store.accept(context.instance, [old])
    old
  end

  defp traffic!(context) do
    webhook!(context, "/spike", %{events: ["traffic.spike"], spike_threshold: 5})
    TestHost.put(context.host, :visitors, fn -> {:ok, [9]} end)
  end

  test "local: this node's own timers", context do
    context =
      start!(context,
        retention_ms: @retention_ms,
        prune_interval_ms: 20,
        traffic: [tick_ms: 20]
      )

    old = old!(context)
    eventually(fn -> logged(context, old.id).state == nil end)
    traffic!(context)
    HttpReceiver.await(context.receiver, "/spike", 1)
  end

  test "local: a node keeps its leases until it stops", context do
    context = start!(context, prune_interval_ms: 300, traffic: [tick_ms: 20])

    for lease <- ["retention", "traffic"] do
      eventually(fn -> Store.take_lease(context.name, lease, 1, nil) == {:error, :taken} end)
    end

    # The lease is given back at the stop, so no node waits for its end.
    for part <- [Sweeper, Traffic.Evaluator],
        do: :ok = Supervisor.terminate_child(context.supervisor, part)

    Process.sleep(5)

    for lease <- ["retention", "traffic"],
        do: assert({:ok, _token} = Store.take_lease(context.name, lease, 60_000, nil))
  end

  test "another node's lease holds up both", context do
    # The timers wait for long enough to take the turns before them.
    context =
      start!(context,
        retention_ms: @retention_ms,
        prune_interval_ms: 300,
        traffic: [tick_ms: 300]
      )

    {:ok, retention} = Store.take_lease(context.name, "retention", 60_000, nil)
    {:ok, traffic} = Store.take_lease(context.name, "traffic", 60_000, nil)
    old = old!(context)
    traffic!(context)
    # Both timers have asked.
    asked!(context, :take_lease, 4)
    assert logged(context, old.id).state == :failed
    assert HttpReceiver.count(context.receiver, "/spike") == 0
    assert Traffic.evaluate(context.name, System.system_time(:millisecond)) == {:error, :taken}

    :ok = PeriodicLease.give_back(context.name, "retention", retention)
    :ok = PeriodicLease.give_back(context.name, "traffic", traffic)
    eventually(fn -> logged(context, old.id).state == nil end)
    HttpReceiver.await(context.receiver, "/spike", 1)
  end

  test "two manual evaluations on one node do not block each other", context do
    context = start!(context, traffic: [tick_ms: :infinity])
    now_ms = System.system_time(:millisecond)
    for n <- 1..200, do: assert({:ok, _} = Traffic.evaluate(context.name, now_ms + n * 60_000))
  end

  test "pruning and evaluating by hand, between the timers", context do
    context =
      start!(context,
        retention_ms: @retention_ms,
        prune_interval_ms: 3_600_000,
        traffic: [tick_ms: :infinity]
      )

    old = old!(context)
    traffic!(context)
    assert logged(context, old.id).state == :failed
    assert {:ok, 1} = API.prune(context.name)
    assert logged(context, old.id).state == nil
    now_ms = System.system_time(:millisecond)
    assert {:ok, %{fired: 1}} = Traffic.evaluate(context.name, now_ms)
    # The lease is free for another node.
    eventually(fn -> match?({:ok, _token}, Store.take_lease(context.name, "traffic", 1, nil)) end)
  end

  @tag start: [sweep_interval_ms: 60_000]
  test "sweeping by hand brings parked deliveries back", context do
    due = System.system_time(:millisecond) - 1

    :ok =
      Store.accept(context.instance, [delivery(context.webhook, state: :parked, next_at_ms: due)])

    assert :ok = API.sweep(context.name)
    HttpReceiver.await(context.receiver, "/hook", 1)
  end

  @tag start: [sweep_interval_ms: 60_000]
  test "the queue as it is in the store", context do
    assert {:ok, %{pending: 0, parked: 0, overdue_ms: 0}} = API.queue(context.name)
    later = System.system_time(:millisecond) + 60_000

    :ok =
      Store.accept(context.instance, [
        delivery(context.webhook, state: :parked, next_at_ms: later)
      ])

    assert {:ok, %{parked: 1, overdue_ms: 0}} = API.queue(context.name)
    due = System.system_time(:millisecond) - 5_000

    :ok =
      Store.accept(context.instance, [delivery(context.webhook, state: :parked, next_at_ms: due)])

    assert {:ok, %{parked: 2, overdue_ms: overdue_ms}} = API.queue(context.name)
    assert overdue_ms in 5_000..10_000
  end

  test "raises when the instance is not running", context do
    assert API.prune(context.name) == {:error, %Error{reason: :not_running}}
    assert API.sweep(context.name) == {:error, %Error{reason: :not_running}}
    assert API.queue(context.name) == {:error, %Error{reason: :not_running}}
  end
end
