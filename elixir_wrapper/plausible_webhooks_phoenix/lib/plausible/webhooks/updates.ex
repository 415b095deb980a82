defmodule Plausible.Webhooks.Updates do
  @moduledoc """
  Informs live pages through `Phoenix.PubSub` of changes to a site's webhooks.

      children = [
        {Phoenix.PubSub, name: MyApp.PubSub},
        {Plausible.Webhooks,
         [observers: [{Plausible.Webhooks.Updates, pubsub: MyApp.PubSub}]] ++ options}
      ]

      :ok = Plausible.Webhooks.Updates.subscribe(MyApp.PubSub, Plausible.Webhooks, site.id)

      receive do
        {:plausible_webhooks, :attempt, %{delivery_id: id, state: state}} -> {id, state}
      end

  Options of the observer:

    * `:pubsub` - required: the name of the PubSub. While it is not running, no messages are
      sent.

  ## Messages

  `{:plausible_webhooks, kind, map}` on `topic/2` of the site, from every node that shares
  the PubSub. Every map has `site_id` and `missed`.

  | kind | when | map |
  |---|---|---|
  | `:accepted` | new deliveries were accepted | `count` |
  | `:attempt` | an attempt was recorded, or a delivery ended without one (`number` 0) | `delivery_id`, `webhook_id`, `number`, `state`, `status`, `error`, `next_at_ms` |
  | `:webhook_changed` | a webhook was created, changed or deleted; sent by the node that did it | `webhook_id`, `change` |
  | `:webhook_disabled` | a webhook was disabled automatically | `webhook_id`, `reason` |

  No message has a URL, a host or a body. A message says that something should be read again,
  not what it is, so that the reader's permission is checked. Messages can get lost, as those
  of every observer.

  A node sends at most ten messages a second for a site. Messages in between are merged by
  kind, and the last one of each kind is always sent. `missed` is the number of messages of
  that kind that were not sent before it; above 0, anything on the page may have changed. The
  `count` of `:accepted` is the sum over all of them.
  """

  @behaviour Plausible.Webhooks.Observer

  use GenServer

  alias Phoenix.PubSub

  @pause_ms 100
  @kinds %{
    attempt: [:delivery_id, :webhook_id, :number, :state, :status, :error, :next_at_ms],
    webhook_changed: [:webhook_id, :change],
    webhook_disabled: [:webhook_id, :reason]
  }

  @doc """
  The topic of a site's messages.

      iex> Plausible.Webhooks.Updates.topic(Plausible.Webhooks, 12)
      "plausible_webhooks:site:Plausible.Webhooks:12"
  """
  @spec topic(atom(), integer()) :: String.t()
  def topic(instance, site_id), do: "plausible_webhooks:site:#{inspect(instance)}:#{site_id}"

  @doc """
  Subscribes the calling process to a site's messages. The caller checks the permission
  (`Plausible.Webhooks.can?/4`).

      :ok = Plausible.Webhooks.Updates.subscribe(MyApp.PubSub, Plausible.Webhooks, 12)
  """
  @spec subscribe(atom(), atom(), integer()) :: :ok | {:error, term()}
  def subscribe(pubsub, instance, site_id),
    do: PubSub.subscribe(pubsub, topic(instance, site_id))

  # --- the observer

  @impl Plausible.Webhooks.Observer
  def process(instance, options) do
    pubsub = Keyword.fetch!(options, :pubsub)
    %{id: __MODULE__, start: {__MODULE__, :start_link, [{instance, pubsub}]}}
  end

  # A call, so that a flood of events is dropped and counted by the observers' process and
  # does not pile up here.
  @impl Plausible.Webhooks.Observer
  def handle_event(event, measurements, metadata, options) do
    with [_ | _] = messages <- messages(event, measurements, metadata),
         process when process != nil <-
           Process.whereis(name(metadata.instance, Keyword.fetch!(options, :pubsub))) do
      GenServer.call(process, {:tell, messages})
    else
      _nothing_to_tell_or_nobody -> :ok
    end
  end

  defp messages(:deliveries_accepted, _measurements, %{sites: sites}),
    do: for({site_id, count} <- sites, do: {site_id, :accepted, %{count: count}})

  # A delivery that ends with an attempt has its message already.
  defp messages(:delivery_finished, %{attempts: 0}, metadata), do: of_site(:attempt, metadata)
  defp messages(:delivery_finished, _measurements, _metadata), do: []

  defp messages(kind, _measurements, metadata) when is_map_key(@kinds, kind),
    do: of_site(kind, metadata)

  defp messages(_event, _measurements, _metadata), do: []

  # The site of a webhook that is no longer known is unknown too.
  defp of_site(kind, %{site_id: site_id} = metadata) when is_integer(site_id),
    do: [{site_id, kind, Map.take(metadata, Map.fetch!(@kinds, kind))}]

  defp of_site(_kind, _metadata), do: []

  # --- the process

  @doc false
  @spec start_link({atom(), atom()}) :: GenServer.on_start()
  def start_link({instance, pubsub} = args),
    do: GenServer.start_link(__MODULE__, args, name: name(instance, pubsub))

  defp name(instance, pubsub), do: Module.concat([instance, "Updates", pubsub])

  # sites: those that had a message less than a pause ago, with the messages that wait: the
  # kinds in the order of their arrival, and the last one of each.
  @impl GenServer
  def init({instance, pubsub}), do: {:ok, %{instance: instance, pubsub: pubsub, sites: %{}}}

  @impl GenServer
  def handle_call({:tell, messages}, _from, state),
    do: {:reply, :ok, Enum.reduce(messages, state, &tell/2)}

  @impl GenServer
  def handle_info({:next, site_id}, state) do
    case state.sites[site_id] do
      [] -> {:noreply, %{state | sites: Map.delete(state.sites, site_id)}}
      [{kind, map} | rest] -> {:noreply, send_now(state, site_id, kind, map, rest)}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp tell({site_id, kind, map}, state) do
    map = Map.merge(map, %{site_id: site_id, missed: 0})

    case state.sites do
      %{^site_id => waiting} -> put_in(state.sites[site_id], together(waiting, kind, map))
      _not_told_lately -> send_now(state, site_id, kind, map, [])
    end
  end

  # At most one of each kind waits.
  defp together(waiting, kind, map) do
    case List.keyfind(waiting, kind, 0) do
      nil -> waiting ++ [{kind, map}]
      {^kind, before} -> List.keyreplace(waiting, kind, 0, {kind, after_another(map, before)})
    end
  end

  defp after_another(map, before) do
    map = %{map | missed: before.missed + 1}
    if is_map_key(map, :count), do: %{map | count: map.count + before.count}, else: map
  end

  defp send_now(state, site_id, kind, map, rest) do
    broadcast(state, topic(state.instance, site_id), {:plausible_webhooks, kind, map})
    Process.send_after(self(), {:next, site_id}, @pause_ms)
    put_in(state.sites[site_id], rest)
  end

  # Without a PubSub nobody listens.
  defp broadcast(state, topic, message) do
    _ = PubSub.broadcast(state.pubsub, topic, message)
    :ok
  rescue
    ArgumentError -> :ok
  end
end
