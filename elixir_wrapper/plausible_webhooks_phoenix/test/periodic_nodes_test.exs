defmodule Plausible.Webhooks.PeriodicNodesTest do
  # Periodic work with two VMs on one PostgreSQL: one at a time, and the other one
  # when that is gone.
  use Plausible.Webhooks.Test.StoreCase, async: false

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Test.{ClusterNode, HttpReceiver}

  @moduletag timeout: 120_000
  @moduletag :capture_log
  @name WebhooksPeriodic
  @lease_ms 1_500
  @rounds 20

  setup do
    ClusterNode.start_names!()
    connect = ClusterNode.connection()

    [a, b] =
      for name <- [:a, :b] do
        node = ClusterNode.start!(name)
        :ok = ClusterNode.call(node, :base, [connect])
        node
      end

    ClusterNode.connect!(a, b)
    prefix = schema("periodic_test_")
    migrate!(prefix, :up)
    %{a: a, b: b, prefix: prefix, receiver: HttpReceiver.start!()}
  end

  defp up!(node, context, options) do
    defaults = [
      name: @name,
      store: {Store, repo: Repo, prefix: context.prefix},
      vault: [:binary.copy(<<7>>, 32)],
      cluster: {Plausible.Webhooks.Cluster.PubSub, pubsub: ClusterNode.PubSub},
      policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
      sweep_interval_ms: 200
    ]

    :ok = ClusterNode.call(node, :up, [Keyword.merge(defaults, options)])
    ClusterNode.call(node, :put, [@name, :visitors, &ClusterNode.spike/0])
  end

  defp spike!(node, receiver) do
    attributes = %{
      url: HttpReceiver.url(receiver, "/spike"),
      events: ["traffic.spike"],
      spike_threshold: 5
    }

    {:ok, webhook} = ClusterNode.call(node, API, :create_webhook, [@name, :owner, 1, attributes])
    webhook
  end

  defp asked(node), do: ClusterNode.call(node, :asked, [])

  test "one node evaluates; when it dies, the other takes over", context do
    %{a: a, b: b, receiver: receiver} = context
    options = [traffic: [tick_ms: 100, lease_ms: @lease_ms]]
    up!(a, context, options)
    eventually(fn -> asked(a) >= 0 end, 5_000)
    webhook = spike!(a, receiver)
    eventually(fn -> asked(a) > 3 end, 10_000)
    up!(b, context, options)
    ClusterNode.call(b, :await, [@name, {:version, webhook.id, 0}])
    already = asked(a)
    eventually(fn -> asked(a) > already + 5 end, 30_000)
    assert asked(b) == 0
    assert HttpReceiver.count(receiver, "/spike") == 1

    died = System.monotonic_time(:millisecond)
    ClusterNode.kill!(a)
    eventually(fn -> asked(b) > 0 end, 10_000)
    took_ms = System.monotonic_time(:millisecond) - died
    if System.get_env("WEBHOOKS_REPORT"), do: IO.puts("\ntaken over after #{took_ms} ms")
    assert took_ms < @lease_ms + 2_000
    # It goes on where the other one stopped: the same breach is not sent again.
    eventually(fn -> asked(b) > 3 end, 30_000)
    assert HttpReceiver.count(receiver, "/spike") == 1
  end

  test "two nodes that evaluate at the same moment alert once", context do
    %{a: a, b: b, receiver: receiver} = context
    for node <- [a, b], do: up!(node, context, traffic: [tick_ms: 600_000])
    spike!(a, receiver)
    # The first node to evaluate has to know the webhook.
    for node <- [a, b],
        do: assert(is_integer(ClusterNode.call(node, :await, [@name, {:watched, 1}])))

    results =
      for _round <- 1..@rounds, node <- [a, b] do
        Task.async(fn ->
          now_ms = System.system_time(:millisecond)
          ClusterNode.call(node, Plausible.Webhooks.Ingest.Traffic, :evaluate, [@name, now_ms])
        end)
      end
      |> Task.await_many(60_000)

    assert Enum.count(results, &match?({:ok, %{fired: 1}}, &1)) == 1
    assert Enum.all?(results, &(match?({:ok, %{fired: _}}, &1) or &1 == {:error, :taken}))
    HttpReceiver.await(receiver, "/spike", 1)
    assert HttpReceiver.count(receiver, "/spike") == 1
  end
end
