defmodule Plausible.Webhooks.StoreContract.TwoNodes do
  @moduledoc false
  # Two instances on one store, as two nodes run them, and a receiver that counts: a change on
  # the node that does not own a delivery. Each POST is an attempt on record.
  use Plausible.Webhooks.StoreContract.Promise, about: "two nodes"

  import ExUnit.Callbacks, only: [start_supervised!: 2]
  import Plausible.Webhooks.Test.Eventually

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Accept.Outbox
  alias Plausible.Webhooks.{Cluster, Id}
  alias Plausible.Webhooks.Deliver.Engine
  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.StoreContract.SharedStore
  alias Plausible.Webhooks.Test.{HttpReceiver, TestHost}

  # Tells the other instance.
  defmodule Wire do
    @moduledoc false
    @behaviour Cluster

    @impl true
    def listener(_instance, _options), do: nil

    @impl true
    def tell(_instance, options, message), do: Cluster.received(options[:to], message)
  end

  defp nodes!(store, options \\ []) do
    [a, b] = for _ <- 1..2, do: :"node_#{System.unique_integer([:positive])}"
    host = TestHost.new()

    for {name, other} <- [{a, b}, {b, a}] do
      start_supervised!({API, options(store, host, name, other, options)}, id: name)
    end

    receiver = HttpReceiver.start!()
    %{a: a, b: b, receiver: receiver, webhook: webhook!(a, receiver)}
  end

  defp options(store, host, name, other, options) do
    Keyword.merge(
      [
        name: name,
        store: {SharedStore, store: store},
        host: {TestHost, host},
        cluster: {Wire, to: other},
        policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
        retry_delays_ms: [50_000],
        jitter_percent: 0,
        lane_rate_per_s: 100_000,
        destination_rate_per_s: 1_000_000,
        sweep_interval_ms: 50,
        drain_ms: 2_000,
        traffic: false
      ],
      options
    )
  end

  defp webhook!(name, receiver) do
    attributes = %{url: HttpReceiver.url(receiver, "/hook"), events: ["goal.completed"]}
    {:ok, webhook} = API.create_webhook(name, :owner, 1, attributes)
    webhook
  end

  # Accepted on node a.
  defp send!(nodes, count) do
    deliveries =
      for _ <- 1..count, do: a_delivery(webhook_id: nodes.webhook.id, id: Id.delivery())

    :ok = Outbox.push(Instance.fetch!(nodes.a), deliveries)
    ids(deliveries)
  end

  # Accepted on node a, and waiting in its engine for the second attempt.
  defp waiting!(nodes, count \\ 1) do
    HttpReceiver.script(nodes.receiver, "/hook", List.duplicate(500, count) ++ [200])
    ids = send!(nodes, count)
    eventually(fn -> Enum.all?(ids, &(logged(nodes, &1).attempts == 1)) end)
    ids
  end

  defp logged(nodes, id) do
    case API.delivery(nodes.b, :owner, 1, id) do
      {:ok, delivery} -> delivery
      {:error, _not_yet} -> %Delivery{id: id}
    end
  end

  defp on_record(nodes, id) do
    {:ok, attempts} = API.attempts(nodes.b, :owner, 1, id)
    length(attempts)
  end

  defp idle?(nodes) do
    for name <- [nodes.a, nodes.b], reduce: true do
      idle? ->
        stats = Engine.stats(Instance.fetch!(name))
        idle? and stats[:waiting] == 0 and stats[:in_flight] == 0
    end
  end

  # Each delivery has ended, no engine has anything left, and posts and attempts agree.
  defp settled!(nodes, ids, state) do
    eventually(fn -> Enum.all?(ids, &(logged(nodes, &1).state == state)) end)
    eventually(fn -> idle?(nodes) end)
    agree!(nodes, ids)
  end

  defp agree!(nodes, ids) do
    posts = nodes.receiver |> HttpReceiver.requests() |> Enum.frequencies_by(&id_of/1)
    assert posts == ids |> Map.new(&{&1, on_record(nodes, &1)}) |> Map.reject(&(elem(&1, 1) == 0))
  end

  defp id_of(request), do: request.headers["webhook-id"]

  shared_test "a redelivery sends once what waits on the other node", store do
    nodes = nodes!(store)
    [id] = waiting!(nodes)
    assert :ok = API.redeliver(nodes.b, :owner, 1, id)
    settled!(nodes, [id], :delivered)
    assert HttpReceiver.count(nodes.receiver) == 2
  end

  shared_test "a redelivery of what the other node is sending waits for its end", store do
    nodes = nodes!(store)
    HttpReceiver.script(nodes.receiver, "/hook", [HttpReceiver.hold(self()), 200])
    [id] = send!(nodes, 1)
    assert_receive {:held, request}, 15_000
    assert :ok = API.redeliver(nodes.b, :owner, 1, id)
    HttpReceiver.release(request, 500)
    settled!(nodes, [id], :delivered)
    assert HttpReceiver.count(nodes.receiver) == 2
  end

  shared_test "a recovery on both nodes at once sends each delivery once", store do
    nodes = nodes!(store)
    now_ms = now_ms(store)

    failed =
      for _ <- 1..60 do
        accept!(store, webhook_id: nodes.webhook.id, state: :failed, created_at_ms: now_ms)
      end

    recover = fn name -> fn -> API.recover(name, :owner, 1, nodes.webhook.id, 0) end end
    answers = at_once([recover.(nodes.a), recover.(nodes.b)])
    assert Enum.sum(for {:ok, %{count: count}} <- answers, do: count) == 60
    settled!(nodes, ids(failed), :delivered)
    assert HttpReceiver.count(nodes.receiver) == 60
  end

  shared_test "a pause holds what waits on the other node, and resuming sends it once", store do
    nodes = nodes!(store)
    ids = waiting!(nodes, 5)
    {:ok, _} = API.disable_webhook(nodes.b, :owner, 1, nodes.webhook.id)
    settled!(nodes, ids, :held)
    {:ok, _} = API.enable_webhook(nodes.b, :owner, 1, nodes.webhook.id)
    settled!(nodes, ids, :delivered)
    assert HttpReceiver.count(nodes.receiver) == 10
  end

  shared_test "what the other node was sending is held when it fails", store do
    nodes = nodes!(store)
    HttpReceiver.script(nodes.receiver, "/hook", [HttpReceiver.hold(self()), 200])
    [id] = send!(nodes, 1)
    assert_receive {:held, request}, 15_000
    {:ok, _} = API.disable_webhook(nodes.b, :owner, 1, nodes.webhook.id)
    HttpReceiver.release(request, 500)
    settled!(nodes, [id], :held)
    assert {:ok, 1} = API.cancel_held(nodes.b, :owner, 1, nodes.webhook.id)
    assert %{state: :cancelled, reason: "cancelled_by_owner"} = logged(nodes, id)
  end

  shared_test "a pause that the other node has not heard of loses nothing", store do
    nodes = nodes!(store, cluster: nil)
    ids = waiting!(nodes, 3)
    {:ok, _} = API.disable_webhook(nodes.b, :owner, 1, nodes.webhook.id)
    {:ok, _} = API.enable_webhook(nodes.b, :owner, 1, nodes.webhook.id)
    assert {:ok, %{count: 0}} = API.recover(nodes.b, :owner, 1, nodes.webhook.id, 0)
    for id <- ids, do: :ok = API.redeliver(nodes.b, :owner, 1, id)
    settled!(nodes, ids, :delivered)
    assert HttpReceiver.count(nodes.receiver) == 6
  end

  shared_test "a deleted webhook's deliveries leave the other node's engine", store do
    nodes = nodes!(store)
    waiting!(nodes, 3)
    :ok = API.delete_webhook(nodes.b, :owner, 1, nodes.webhook.id)
    eventually(fn -> idle?(nodes) end)
    assert HttpReceiver.count(nodes.receiver) == 3
    assert {:ok, %{entries: []}} = API.deliveries(nodes.b, :owner, 1, %{}, %{})
  end

  shared_test "what waits on the other node goes to the new URL with the new secret", store do
    nodes = nodes!(store)
    [id] = waiting!(nodes)
    new = HttpReceiver.url(nodes.receiver, "/new")
    {:ok, _} = API.update_webhook(nodes.b, :owner, 1, nodes.webhook.id, %{url: new})
    {:ok, _} = API.rotate_secret(nodes.b, :owner, 1, nodes.webhook.id, 0)
    {:ok, [%{key: key}]} = API.reveal_secret(nodes.b, :owner, 1, nodes.webhook.id)
    HttpReceiver.secrets(nodes.receiver, "/new", [key])
    assert :ok = API.redeliver(nodes.b, :owner, 1, id)
    settled!(nodes, [id], :delivered)
    assert [%{verified: true}] = HttpReceiver.requests(nodes.receiver, "/new")
  end

  shared_test "whatever is asked of either node, posts and attempts agree", store do
    nodes = nodes!(store, retry_delays_ms: [30, 40, 50], circuit_failures: 0)
    ids = send!(nodes, 20)
    answers = for _ <- 1..400, do: Enum.random([200, 200, 500, {:delay, 20, 500}])
    HttpReceiver.script(nodes.receiver, "/hook", answers)

    at_once(
      for name <- [nodes.a, nodes.b, nodes.a, nodes.b] do
        fn -> for _ <- 1..25, do: change(name, nodes.webhook.id, Enum.random(ids)) end
      end
    )

    HttpReceiver.script(nodes.receiver, "/hook", [200])
    {:ok, _} = API.enable_webhook(nodes.a, :owner, 1, nodes.webhook.id)
    ended = fn id -> logged(nodes, id).state in [:delivered, :failed, :cancelled] end
    eventually(fn -> Enum.all?(ids, ended) and idle?(nodes) end)
    agree!(nodes, ids)
  end

  defp change(name, webhook_id, id) do
    case :rand.uniform(10) do
      1 -> Enum.random([&API.disable_webhook/4, &API.cancel_held/4]).(name, :owner, 1, webhook_id)
      10 -> API.disable_webhook(name, :owner, 1, webhook_id)
      n when n in [2, 3] -> API.enable_webhook(name, :owner, 1, webhook_id)
      n when n in [4, 5] -> API.recover(name, :owner, 1, webhook_id, 0)
      _more -> API.redeliver(name, :owner, 1, id)
    end
  end
end
