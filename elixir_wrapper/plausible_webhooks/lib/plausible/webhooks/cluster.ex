defmodule Plausible.Webhooks.Cluster do
  @moduledoc """
  How the nodes of a cluster tell each other that a webhook or a goal has changed.

  An instance gets the module as the option `cluster: {module, options}`, the same on every
  node. The default `nil` is for a single node. Several nodes without a cluster learn of each
  other's changes only by the periodic refresh of `Plausible.Webhooks.Ingest.Directory`.

      {Plausible.Webhooks,
       [cluster: {Plausible.Webhooks.Cluster.PubSub, pubsub: MyApp.PubSub}] ++ options}

  A message says what has changed, but not how: the node that receives it reads the store and
  the host. So a message that arrives twice, late, or after a newer one does no harm. The
  periodic refresh makes up for a lost message.

  ## Implementing one

      defmodule MyCluster do
        @behaviour Plausible.Webhooks.Cluster

        @impl true
        def listener(instance, options), do: {MyCluster.Listener, {instance, options}}

        @impl true
        def tell(instance, _options, message) do
          for node <- Node.list(), do: send({MyCluster.Listener, node}, {instance, message})
          :ok
        end
      end

  The listener calls `received/2` for every message from another node. It calls `missed/1`
  when it begins to listen, and whenever messages may have been lost. Both return at once and
  never raise.
  """

  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Webhook

  @typedoc "The name of an instance."
  @type instance :: atom()
  @typedoc "What has changed."
  @type message ::
          {:webhook_changed, site_id :: integer(), Webhook.id()}
          | {:goals_changed, site_id :: integer()}

  @doc "The process that listens, supervised with the instance; `nil` for none."
  @callback listener(instance(), options :: keyword()) ::
              Supervisor.child_spec() | {module(), term()} | nil

  @doc """
  Sends the message to every other node, but not to this one. The process that made the change
  calls it, once the store has the change. It must not wait for the other nodes.
  """
  @callback tell(instance(), options :: keyword(), message()) :: :ok | {:error, term()}

  @doc "Another node has changed something."
  @spec received(instance(), message()) :: :ok
  def received(instance, message), do: inbox(instance, {:received, message})

  @doc "Messages may have been lost: everything is read again."
  @spec missed(instance()) :: :ok
  def missed(instance), do: inbox(instance, :missed)

  defp inbox(name, message) do
    case Instance.get(name) do
      nil -> :ok
      instance -> Instance.tell(instance, :inbox, message)
    end
  end
end
