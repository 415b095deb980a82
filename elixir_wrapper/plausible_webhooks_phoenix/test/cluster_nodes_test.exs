defmodule Plausible.Webhooks.ClusterNodesTest do
  # Two VMs on one PostgreSQL: a change on one applies on the other.
  #
  # Unless a test is about the periodic refresh, it is ten minutes away, so that
  # only messages can have done it.
  use Plausible.Webhooks.Test.StoreCase, async: false

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Cluster
  alias Plausible.Webhooks.Test.{ClusterNode, HttpReceiver}

  @moduletag timeout: 180_000
  @rounds 5
  @within_us 1_000_000
  @key :binary.copy(<<7>>, 32)
  @instances [pubsub: WebhooksPubSub, net: WebhooksNet]

  setup_all do
    ClusterNode.start_names!()
    [a, b] = for name <- [:a, :b], do: ClusterNode.start!(name)
    ClusterNode.connect!(a, b)
    connect = ClusterNode.connection()
    for node <- [a, b], do: :ok = ClusterNode.call(node, :base, [connect])
    prefixes = for {kind, _name} <- @instances, into: %{}, do: {kind, migrated_for_all(kind)}

    for node <- [a, b], {kind, name} <- @instances do
      :ok = ClusterNode.call(node, :up, [options(kind, name, prefixes[kind])])
    end

    %{a: a, b: b, receiver: HttpReceiver.start!()}
  end

  defp migrated_for_all(kind) do
    prefix = "cluster #{kind}"
    Repo.query!(~s(CREATE SCHEMA "#{prefix}"))
    migrate!(prefix, :up)
    prefix
  end

  defp options(kind, name, prefix) do
    [
      name: name,
      store: {Store, repo: Repo, prefix: prefix},
      vault: [@key],
      cluster: {Cluster.PubSub, pubsub: ClusterNode.PubSub},
      directory: [refresh_ms: if(kind == :net, do: 300, else: 600_000)],
      policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
      retry_delays_ms: [1_500],
      jitter_percent: 0,
      traffic: false
    ]
  end

  defp api(node, function, arguments), do: ClusterNode.call(node, API, function, arguments)
  defp in_force!(node, name, what), do: time!(ClusterNode.call(node, :await, [name, what, 8_000]))
  defp time!(at_us) when is_integer(at_us), do: at_us

  defp create!(node, name, url) do
    attributes = %{url: url, events: ["goal.completed"]}
    {:ok, webhook} = api(node, :create_webhook, [name, :owner, 1, attributes])
    webhook
  end

  # From the moment in which the change was called on one node.
  defp took(name, changed_on, seen_on, change, what) do
    began = ClusterNode.call(changed_on, System, :os_time, [:microsecond])
    result = change.()
    what = if is_function(what), do: what.(result), else: what
    us = in_force!(seen_on, name, what) - began
    {result, us}
  end

  defp round(name, a, b, receiver) do
    url = HttpReceiver.url(receiver, "/hook")

    {webhook, created} =
      took(name, a, b, fn -> create!(a, name, url) end, &{:listed, 1, &1.id, :active})

    id = webhook.id

    version = fn {:ok, changed} -> {:version, id, changed.version} end
    rotate = fn -> api(a, :rotate_secret, [name, :owner, 1, id, 0]) end
    move = fn -> api(a, :update_webhook, [name, :owner, 1, id, %{url: url <> "2"}]) end
    {_result, rotated} = took(name, a, b, rotate, version)
    {_result, moved} = took(name, a, b, move, version)

    pause = fn -> api(a, :disable_webhook, [name, :owner, 1, id]) end
    resume = fn -> api(a, :enable_webhook, [name, :owner, 1, id]) end
    {_result, paused} = took(name, a, b, pause, {:listed, 1, id, nil})
    {_result, resumed} = took(name, a, b, resume, {:listed, 1, id, :active})

    # A host's goals are in its database; here each node has its own.
    event_name = "Order #{System.unique_integer([:positive])}"
    for node <- [a, b], do: ClusterNode.call(node, :put_goal, [name, 1, 13, event_name])
    goals = fn -> api(a, :goals_changed, [name, 1]) end
    {:ok, goals} = took(name, a, b, goals, {:goal, 1, event_name})

    delete = fn -> api(a, :delete_webhook, [name, :owner, 1, id]) end
    {:ok, deleted} = took(name, a, b, delete, {:gone, id})

    %{
      created: created,
      rotated: rotated,
      moved: moved,
      paused: paused,
      resumed: resumed,
      goals: goals,
      deleted: deleted
    }
  end

  test "a change on one node is in force on the other within a second", context do
    %{a: a, b: b, receiver: receiver} = context

    # In both directions.
    rounds =
      for n <- 1..@rounds do
        {from, to} = if rem(n, 2) == 1, do: {a, b}, else: {b, a}
        round(@instances[:pubsub], from, to, receiver)
      end

    for change <- Map.keys(hd(rounds)) do
      times = rounds |> Enum.map(& &1[change]) |> Enum.sort()
      report(change, times)
      assert List.last(times) < @within_us, "#{change} took #{inspect(times)} us"
    end
  end

  defp report(change, times) do
    if System.get_env("WEBHOOKS_REPORT") do
      [median, longest] = [Enum.at(times, div(length(times), 2)), List.last(times)]

      IO.puts("\n#{change}: median #{median} us, longest #{longest} us of #{length(times)}")
    end
  end

  test "waiting deliveries of the other node get the new URL and the new secret", context do
    %{a: a, b: b, receiver: receiver} = context
    name = @instances[:pubsub]
    HttpReceiver.script(receiver, "/waits", [503])
    webhook = create!(a, name, HttpReceiver.url(receiver, "/waits"))
    in_force!(b, name, {:listed, 1, webhook.id, :active})

    ClusterNode.call(b, :put_goal, [name, 1, 14, "Waits"])
    api(b, :goals_changed, [name, 1])
    api(b, :events_buffered, [name, [ClusterNode.event(1, "Waits")]])
    HttpReceiver.await(receiver, "/waits", 1)

    {:ok, _} = api(a, :rotate_secret, [name, :owner, 1, webhook.id, 0])
    url = HttpReceiver.url(receiver, "/moved")
    {:ok, _} = api(a, :update_webhook, [name, :owner, 1, webhook.id, %{url: url}])
    {:ok, secrets} = api(a, :reveal_secret, [name, :owner, 1, webhook.id])
    HttpReceiver.secrets(receiver, "/moved", Enum.map(secrets, & &1.key))

    assert [%{verified: true} = moved] = HttpReceiver.await(receiver, "/moved", 1)
    assert [first] = HttpReceiver.requests(receiver, "/waits")
    assert first.headers["webhook-id"] == moved.headers["webhook-id"]
    :ok = api(a, :delete_webhook, [name, :owner, 1, webhook.id])
  end

  test "during a network split the periodic refresh finds the change", context do
    %{a: a, b: b, receiver: receiver} = context
    name = @instances[:net]
    url = HttpReceiver.url(receiver, "/net")
    webhook = create!(a, name, url)
    in_force!(b, name, {:listed, 1, webhook.id, :active})

    ClusterNode.disconnect!(a, b)
    on_exit(fn -> ClusterNode.connect!(a, b) end)
    assert ClusterNode.call(a, Node, :list, []) == []
    {:ok, moved} = api(a, :update_webhook, [name, :owner, 1, webhook.id, %{url: url <> "2"}])
    in_force!(b, name, {:version, webhook.id, moved.version})
    {:ok, _} = api(a, :disable_webhook, [name, :owner, 1, webhook.id])
    in_force!(b, name, {:listed, 1, webhook.id, nil})
    :ok = api(a, :delete_webhook, [name, :owner, 1, webhook.id])
    in_force!(b, name, {:gone, webhook.id})

    # The other way would have said nothing, so nothing but the refresh did it.
    name = @instances[:pubsub]
    webhook = create!(a, name, url)

    assert {:error, {:not_in_force, _}} =
             ClusterNode.call(b, :await, [name, {:listed, 1, webhook.id, :active}, 1_000])

    ClusterNode.connect!(a, b)
    :ok = api(a, :delete_webhook, [name, :owner, 1, webhook.id])
    in_force!(b, name, {:gone, webhook.id})
  end
end
