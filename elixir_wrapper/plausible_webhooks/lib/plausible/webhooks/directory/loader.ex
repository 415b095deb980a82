defmodule Plausible.Webhooks.Directory.Loader do
  @moduledoc false
  # Reads and compiles for the directory, in processes of its own. Writes index
  # rows (nobody sees them before the directory puts the site's entry in force),
  # never the entry itself.

  alias Plausible.Webhooks.{Goals, Webhook}

  @goals_max 10_000

  @doc false
  # A digest of each site's webhooks: what has changed is read again.
  @spec all({module(), term()}) :: {:ok, %{integer() => binary()}} | {:error, term()}
  def all({store, handle}) do
    with {:ok, webhooks} <- store.all_webhooks(handle) do
      {:ok,
       webhooks
       |> Enum.filter(&live?/1)
       |> Enum.group_by(& &1.site_id)
       |> Map.new(fn {site_id, webhooks} -> {site_id, digest(webhooks)} end)}
    end
  end

  @doc false
  @spec site(map()) ::
          {:ok, map()} | :gone | {:error, {:host, term(), [Webhook.t()]}} | {:error, term()}
  def site(%{store: {store, handle}, site_id: site_id} = job) do
    with {:ok, webhooks} <- store.list_webhooks(handle, site_id),
         [_ | _] = live <- Enum.filter(webhooks, &live?/1) do
      case guard(fn -> facts(job, live) end) do
        {:ok, facts} -> {:ok, compile(job, live, facts)}
        :gone -> :gone
        {:error, reason} -> {:error, {:host, reason, live}}
      end
    else
      [] -> :gone
      {:error, reason} -> {:error, reason}
    end
  end

  defp facts(%{host: {host, arg}, site_id: site_id}, live) do
    case host.site(arg, site_id) do
      nil ->
        :gone

      %{domain: domain} ->
        wishes = for w <- live, "goal.completed" in w.events, do: {w.id, w.goals}
        goals = if wishes == [], do: [], else: host.goals(arg, site_id)
        {:ok, %{domain: domain, wishes: wishes, goals: Enum.take(goals, @goals_max)}}
    end
  end

  defp compile(%{site_id: site_id, generation: generation} = job, live, facts) do
    fingerprint = :erlang.md5(:erlang.term_to_binary(facts))

    loaded = %{
      domain: facts.domain,
      fingerprint: fingerprint,
      webhooks: live,
      digest: digest(live)
    }

    if fingerprint == job.known do
      loaded
    else
      {index, rows} = Goals.compile({site_id, generation}, facts.goals, facts.wishes)
      keys = Enum.map(rows, &elem(&1, 0))
      # First the list of what comes, so that it can be swept if we are killed.
      :ets.insert(job.table, {{:rows, site_id, generation}, keys})
      :ets.insert(job.table, rows)
      Map.put(loaded, :index, index)
    end
  end

  @doc false
  @spec delete_rows(:ets.table(), integer(), pos_integer()) :: :ok
  def delete_rows(table, site_id, generation) do
    for {_key, keys} <- :ets.take(table, {:rows, site_id, generation}),
        key <- keys,
        do: :ets.delete(table, key)

    :ok
  end

  @doc false
  @spec guard((() -> result)) :: result | {:error, term()} when result: term()
  def guard(fun) do
    fun.()
  rescue
    error -> {:error, {:raised, Exception.message(error)}}
  catch
    kind, reason -> {:error, {kind, reason}}
  end

  @doc false
  @spec status(Webhook.t()) :: :active | :disabled
  def status(%Webhook{disabled_reason: nil}), do: :active
  def status(%Webhook{}), do: :disabled

  @doc false
  @spec traffic_webhooks([Webhook.t()]) :: [Plausible.Webhooks.Directory.traffic_webhook()]
  def traffic_webhooks(webhooks) do
    for webhook <- webhooks,
        "traffic.spike" in webhook.events or "traffic.drop" in webhook.events do
      %{
        id: webhook.id,
        status: status(webhook),
        events: webhook.events,
        spike_threshold: webhook.spike_threshold,
        drop_threshold: webhook.drop_threshold,
        min_interval_s: webhook.traffic_min_interval_s
      }
    end
  end

  defp live?(%Webhook{enabled: enabled}), do: enabled

  # Of what is compiled from it; a new version that changed the URL only is no
  # reason to read a site again.
  defp digest(webhooks) do
    webhooks
    |> Enum.map(
      &{&1.id, &1.events, &1.goals, status(&1), &1.spike_threshold, &1.drop_threshold,
       &1.traffic_min_interval_s}
    )
    |> Enum.sort()
    |> :erlang.term_to_binary()
    |> :erlang.md5()
  end
end
