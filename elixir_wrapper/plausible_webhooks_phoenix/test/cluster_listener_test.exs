defmodule Plausible.Webhooks.ClusterListenerTest do
  # The messages that each listener passes on, and its behaviour when its source
  # goes away.
  use Plausible.Webhooks.Test.EctoInstanceCase, async: false

  @moduletag :capture_log

  alias Plausible.Webhooks.Cluster

  # Everything that the inbox gets from now on comes here, too.
  defp listen!(context) do
    inbox = Process.whereis(Instance.process(context.instance, :inbox))
    1 = :erlang.trace(inbox, true, [:receive])
    inbox
  end

  defp listener(context, module) do
    {_id, pid, _type, _modules} =
      List.keyfind(Supervisor.which_children(context.supervisor), module, 0)

    pid
  end

  describe "PubSub" do
    setup do
      pubsub = Module.concat(__MODULE__, "PubSub#{System.unique_integer([:positive])}")
      start_supervised!({Phoenix.PubSub, name: pubsub}, id: pubsub)
      %{pubsub: pubsub}
    end

    test "passes on valid messages of other nodes only", context do
      %{pubsub: pubsub, name: name} = context
      context = start!(context, cluster: {Cluster.PubSub, pubsub: pubsub})
      inbox = listen!(context)
      listener = listener(context, Cluster.PubSub)
      topic = Cluster.PubSub.topic(name)
      :ok = Phoenix.PubSub.subscribe(pubsub, topic)

      webhook!(context, "/hook")
      assert_receive {:plausible_webhooks, 1, {:webhook_changed, 1, _id}}

      for garbage <- [:garbage, {:plausible_webhooks, 2, :newer}],
          do: Phoenix.PubSub.broadcast(pubsub, topic, garbage)

      Phoenix.PubSub.broadcast(pubsub, topic, {:plausible_webhooks, 1, {:goals_changed, 4}})
      assert_told(inbox, {:received, {:goals_changed, 4}})
      refute_received {:trace, ^inbox, :receive, {:received, _}}
      assert listener(context, Cluster.PubSub) == listener
    end

    @tag :capture_log
    test "subscribes again to a PubSub that was restarted, and reads everything", context do
      %{pubsub: pubsub, name: name} = context
      context = start!(context, cluster: {Cluster.PubSub, pubsub: pubsub})
      inbox = listen!(context)
      :ok = stop_supervised!(pubsub)
      # Nobody to tell, and that is all.
      webhook!(context, "/hook")
      start_supervised!({Phoenix.PubSub, name: pubsub}, id: pubsub)
      assert_told(inbox, :missed)
      message = {:plausible_webhooks, 1, {:goals_changed, 4}}
      Phoenix.PubSub.broadcast(pubsub, Cluster.PubSub.topic(name), message)
      assert_told(inbox, {:received, {:goals_changed, 4}})
      assert Process.alive?(context.supervisor)
    end
  end

  defp assert_told(inbox, message),
    do: assert_receive({:trace, ^inbox, :receive, ^message})
end
