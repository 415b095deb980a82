defmodule Plausible.Webhooks.Cluster.PubSub do
  @moduledoc """
  Informs other nodes of changes through `Phoenix.PubSub`.

      children = [
        MyApp.Repo,
        {Phoenix.PubSub, name: MyApp.PubSub},
        {Plausible.Webhooks,
         cluster: {Plausible.Webhooks.Cluster.PubSub, pubsub: MyApp.PubSub},
         store: {Plausible.Webhooks.Store.Ecto, repo: MyApp.Repo},
         vault: [System.fetch_env!("WEBHOOKS_KEY")],
         host: {MyApp.WebhooksHost, nil}},
        MyApp.Endpoint
      ]

  Options:

    * `:pubsub` - required: the name of a PubSub that starts before the instance.

  Instances of the same name share a topic (`topic/1`). A message is
  `{:plausible_webhooks, 1, message}` with a `t:Plausible.Webhooks.Cluster.message/0`: ids,
  no URL and no secret.

  A change takes effect on the other nodes within milliseconds. The periodic refresh of the
  directory makes up for messages that a network split has lost, within 60 s.
  """

  @behaviour Plausible.Webhooks.Cluster

  use GenServer

  alias Phoenix.PubSub
  alias Plausible.Webhooks.Cluster

  require Logger

  @version 1
  @retry_ms 1_000

  @doc """
  The topic of an instance.

      iex> Plausible.Webhooks.Cluster.PubSub.topic(Plausible.Webhooks)
      "plausible_webhooks:cluster:Plausible.Webhooks"
  """
  @spec topic(atom()) :: String.t()
  def topic(instance), do: "plausible_webhooks:cluster:#{inspect(instance)}"

  @impl Cluster
  def listener(instance, options) do
    pubsub = Keyword.fetch!(options, :pubsub)
    %{id: __MODULE__, start: {__MODULE__, :start_link, [{instance, pubsub}]}}
  end

  # Not to this node's own listener: the change has taken effect here.
  @impl Cluster
  def tell(instance, options, message) do
    pubsub = Keyword.fetch!(options, :pubsub)
    message = {:plausible_webhooks, @version, message}

    case Process.whereis(name(instance)) do
      nil -> PubSub.broadcast(pubsub, topic(instance), message)
      own -> PubSub.broadcast_from(pubsub, own, topic(instance), message)
    end
  end

  @doc false
  @spec start_link({atom(), atom()}) :: GenServer.on_start()
  def start_link({instance, _pubsub} = args),
    do: GenServer.start_link(__MODULE__, args, name: name(instance))

  defp name(instance), do: Module.concat(instance, "ClusterListener")

  # A missing PubSub stops neither the start nor the instance: the periodic refresh remains.
  @impl GenServer
  def init({instance, pubsub}) do
    state = %{instance: instance, pubsub: pubsub, registry: nil}
    {:ok, subscribe(state)}
  end

  @impl GenServer
  def handle_info({:plausible_webhooks, @version, message}, state) do
    Cluster.received(state.instance, message)
    {:noreply, state}
  end

  def handle_info(:subscribe, state), do: {:noreply, subscribe(state)}

  # The subscription ended with the registry.
  def handle_info({:DOWN, ref, :process, _pid, _reason}, %{registry: ref} = state),
    do: {:noreply, later(%{state | registry: nil})}

  def handle_info(_other, state), do: {:noreply, state}

  # The registry has the PubSub's name. It is monitored before the subscription, so that its
  # end is never missed.
  defp subscribe(%{instance: instance, pubsub: pubsub} = state) do
    ref = Process.monitor(pubsub)

    try do
      :ok = PubSub.subscribe(pubsub, topic(instance))
    rescue
      _error in [ArgumentError, MatchError] ->
        Process.demonitor(ref, [:flush])
        later(state)
    else
      :ok ->
        Cluster.missed(instance)
        %{state | registry: ref}
    end
  end

  defp later(state) do
    Logger.warning("webhooks: #{inspect(state.pubsub)} is not running; trying again")
    Process.send_after(self(), :subscribe, @retry_ms)
    state
  end
end
