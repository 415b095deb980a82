defmodule Plausible.Webhooks.Ingest.Directory.Table do
  @moduledoc false
  # The directory's two ETS tables, and how an instance finds them.
  #
  #   table    site_id                  => the site's Subscriptions, which is read first
  #            {site_id, generation, _, _} => goals, see Plausible.Webhooks.Ingest.Goals
  #            {site_id, generation, :tells, :props} => the properties that may be told,
  #            unless all may
  #            {:rows, site_id, generation} => the keys of those rows, to delete them
  #   traffic  site_id                  => its webhooks for traffic alerts
  #
  # They belong to the supervisor, which opens them, and are found by persistent_term: to read
  # it copies nothing and takes no lock. Its key is the name of the directory's process,
  # because an atom is found in half the time of a tuple. The term is put once per start and
  # never erased, because each change of a term makes the VM scan all processes.

  alias Plausible.Webhooks.Ingest.{Dedup, Subscriptions}
  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Webhook

  @facts [:domain, :events, :props, :revenue]

  @typedoc "What a traffic alert has to know of a webhook."
  @type traffic_webhook :: %{
          id: String.t(),
          status: Subscriptions.status(),
          events: [String.t()],
          spike_threshold: Webhook.threshold(),
          drop_threshold: Webhook.threshold(),
          min_interval_s: non_neg_integer()
        }
  @type tables :: %{table: :ets.table(), traffic: :ets.table(), dedup: Dedup.t()}

  @doc false
  # What `put/4` needs of a site besides its goals.
  @spec facts() :: [atom()]
  def facts, do: @facts

  @doc false
  # The tables that the calling process has already, or new ones.
  @spec open(Instance.name(), pos_integer()) :: tables()
  def open(instance, dedup_entries_max) do
    with %{table: table} = tables <- tables(instance),
         true <- :ets.info(table, :owner) == self() do
      tables
    else
      _none ->
        options = [:set, :public, read_concurrency: true]

        tables = %{
          table: :ets.new(__MODULE__, options),
          traffic: :ets.new(__MODULE__, options),
          dedup: Dedup.new(dedup_entries_max)
        }

        :persistent_term.put(key(instance), tables)
        tables
    end
  end

  @doc false
  # What a predecessor left in force, as the state of its successor. Rows that belong to
  # nothing in force are deleted.
  @spec inherit(tables()) :: %{integer() => map()}
  def inherit(%{table: table, traffic: traffic}) do
    in_force =
      for {site_id, %Subscriptions{} = s} <-
            :ets.match_object(table, {:_, %{__struct__: Subscriptions}}),
          into: %{},
          do: {site_id, inherited(s)}

    for [site_id, generation] <- :ets.match(table, {{:rows, :"$1", :"$2"}, :_}),
        get_in(in_force, [site_id, :generation]) != generation,
        do: delete_rows(table, site_id, generation)

    for {site_id, _webhooks} <- :ets.tab2list(traffic),
        into: in_force,
        do: {site_id, in_force[site_id] || inherited(%{generation: 0, index: nil})}
  end

  # Neither fingerprint nor digest: everything is read and compiled anew.
  defp inherited(in_force) do
    in_force
    |> Map.take([:generation, :index | @facts])
    |> Map.merge(%{events: true, fingerprint: nil, webhooks: nil, read: 0})
  end

  defp tables(instance), do: :persistent_term.get(key(instance), nil)
  defp key(instance), do: Instance.process(instance, :directory)

  # --- reading: an instance that does not run has nothing

  @doc false
  @spec lookup(Instance.t() | Instance.name(), integer()) :: Subscriptions.t() | nil
  def lookup(instance, site_id) do
    case :ets.lookup(:persistent_term.get(key(instance)).table, site_id) do
      [] -> nil
      [{_site_id, subscriptions}] -> subscriptions
    end
  rescue
    ArgumentError -> nil
  end

  @doc false
  @spec dedup(Instance.t() | Instance.name()) :: Dedup.t() | nil
  def dedup(instance) do
    with %{dedup: dedup} <- tables(instance), do: dedup
  end

  @doc false
  @spec traffic(Instance.name()) :: [{integer(), [traffic_webhook()]}]
  def traffic(instance) do
    :ets.tab2list(:persistent_term.get(key(instance)).traffic)
  rescue
    ArgumentError -> []
  end

  @doc false
  @spec traffic(Instance.name(), integer()) :: [traffic_webhook()]
  def traffic(instance, site_id) do
    case :ets.lookup(:persistent_term.get(key(instance)).traffic, site_id) do
      [{_site_id, webhooks}] -> webhooks
      [] -> []
    end
  rescue
    ArgumentError -> []
  end

  # --- writing

  @doc false
  # Puts the site in force: from the next lookup on.
  @spec put(:ets.table(), integer(), map(), [Webhook.t()]) :: true
  def put(table, site_id, %{generation: generation, index: index} = site, webhooks) do
    statuses =
      for webhook <- webhooks,
          site.events and "goal.completed" in webhook.events,
          into: %{},
          do: {webhook.id, status(webhook)}

    if statuses == %{} do
      :ets.delete(table, site_id)
    else
      subscriptions = %Subscriptions{
        site_id: site_id,
        domain: site.domain,
        table: table,
        generation: generation,
        index: index,
        webhooks: statuses,
        props: site.props,
        revenue: site.revenue
      }

      :ets.insert(table, {site_id, subscriptions})
    end
  end

  @doc false
  @spec put_traffic(:ets.table(), integer(), [Webhook.t()]) :: true
  def put_traffic(traffic, site_id, webhooks) do
    wanting =
      for webhook <- webhooks,
          "traffic.spike" in webhook.events or "traffic.drop" in webhook.events,
          do: traffic_webhook(webhook)

    if wanting == [],
      do: :ets.delete(traffic, site_id),
      else: :ets.insert(traffic, {site_id, wanting})
  end

  defp traffic_webhook(%Webhook{} = webhook) do
    %{
      id: webhook.id,
      status: status(webhook),
      events: webhook.events,
      spike_threshold: webhook.spike_threshold,
      drop_threshold: webhook.drop_threshold,
      min_interval_s: webhook.traffic_min_interval_s
    }
  end

  @doc false
  @spec status(Webhook.t()) :: Subscriptions.status()
  def status(%Webhook{disabled_reason: nil}), do: :active
  def status(%Webhook{}), do: :disabled

  @doc false
  @spec delete(tables() | map(), integer()) :: true
  def delete(%{table: table, traffic: traffic}, site_id) do
    :ets.delete(table, site_id)
    :ets.delete(traffic, site_id)
  end

  @doc false
  # The list of keys first, so that a successor can delete the rows if we are killed.
  @spec put_rows(:ets.table(), integer(), pos_integer(), [tuple()]) :: true
  def put_rows(table, site_id, generation, rows) do
    :ets.insert(table, {{:rows, site_id, generation}, Enum.map(rows, &elem(&1, 0))})
    :ets.insert(table, rows)
  end

  @doc false
  @spec delete_rows(:ets.table(), integer(), pos_integer()) :: :ok
  def delete_rows(table, site_id, generation) do
    for {_key, keys} <- :ets.take(table, {:rows, site_id, generation}),
        key <- keys,
        do: :ets.delete(table, key)

    :ok
  end
end
