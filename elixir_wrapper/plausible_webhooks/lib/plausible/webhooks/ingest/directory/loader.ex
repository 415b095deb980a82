defmodule Plausible.Webhooks.Ingest.Directory.Loader do
  @moduledoc false
  # Reads and compiles for the directory, in tasks. Writes index rows, which nobody sees before
  # the directory puts the site's entry in force, but never the entry itself.

  require Logger

  alias Plausible.Webhooks.{Host, Store, Webhook}
  alias Plausible.Webhooks.Ingest.{Goals, Subscriptions}
  alias Plausible.Webhooks.Ingest.Directory.Table
  alias Plausible.Webhooks.Runtime.{Instance, Isolated}

  @goals_max 10_000

  @doc false
  # A digest of each site's webhooks. Sites whose digest has changed are read again.
  @spec all(Instance.name(), nil | ([Webhook.t()] -> term())) ::
          {:ok, %{integer() => binary()}} | {:error, term()}
  def all(instance, compare) do
    with {:ok, webhooks} <- Store.all_webhooks(instance) do
      if compare, do: Isolated.guard(fn -> compare.(webhooks) end)

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
  def site(%{instance: instance, site_id: site_id} = job) do
    with {:ok, webhooks} <- Store.list_webhooks(instance, site_id),
         [_ | _] = live <- Enum.filter(webhooks, &live?/1) do
      case facts(job, live) do
        {:ok, facts} -> {:ok, compile(job, live, facts)}
        :gone -> :gone
        {:error, reason} -> {:error, {:host, reason, live}}
      end
    else
      [] -> :gone
      {:error, reason} -> {:error, reason}
    end
  end

  # What traffic alerts need of the site, their evaluation asks for.
  defp facts(job, live) do
    case for w <- live, "goal.completed" in w.events, do: {w.id, w.goals} do
      [] -> {:ok, %{domain: nil, tells: Host.tells(%{}), wishes: [], goals: []}}
      wishes -> Isolated.guard(fn -> goal_facts(job, wishes) end)
    end
  end

  defp goal_facts(%{instance: instance, site_id: site_id}, wishes) do
    case Instance.host(instance, :site, [site_id]) do
      nil ->
        :gone

      %{domain: domain} = site ->
        tells = Host.tells(site)
        wishes = if tells.events, do: wishes, else: []
        goals = if wishes == [], do: [], else: Instance.host(instance, :goals, [site_id])
        goals = Enum.take(goals, @goals_max)
        {:ok, %{domain: domain, tells: tells, wishes: wishes, goals: goals}}
    end
  end

  defp compile(%{site_id: site_id, generation: generation} = job, live, facts) do
    fingerprint = :erlang.md5(:erlang.term_to_binary(facts))

    loaded = %{
      domain: facts.domain,
      events: facts.tells.events,
      props: if(facts.tells.props == :all, do: :all, else: :listed),
      revenue: facts.tells.revenue,
      fingerprint: fingerprint,
      goals?: Enum.any?(live, &("goal.completed" in &1.events)),
      webhooks: live,
      digest: digest(live)
    }

    if fingerprint == job.known do
      loaded
    else
      warn(site_id, Enum.reject(facts.goals, &Goals.goal?/1))
      {index, rows} = Goals.compile({site_id, generation}, facts.goals, facts.wishes)
      Table.put_rows(job.table, site_id, generation, props_rows(job, facts.tells) ++ rows)
      Map.put(loaded, :index, index)
    end
  end

  defp props_rows(_job, %{props: :all}), do: []

  defp props_rows(%{site_id: site_id, generation: generation}, %{props: props}),
    do: [{Subscriptions.props_key(site_id, generation), props}]

  # Once for each change of the goals.
  defp warn(_site_id, []), do: :ok

  defp warn(site_id, [first | _] = no_goals) do
    Logger.warning(
      "webhooks: #{length(no_goals)} of the host's goals for site #{site_id} are not valid " <>
        "(see Plausible.Webhooks.Host) and are left out, the first: " <>
        inspect(first, limit: 5, printable_limit: 100)
    )
  end

  defp live?(%Webhook{enabled: enabled}), do: enabled

  # Of what is compiled: a version that changed only the URL is no reason to read again.
  defp digest(webhooks) do
    webhooks
    |> Enum.map(
      &{&1.id, &1.events, &1.goals, Table.status(&1), &1.spike_threshold, &1.drop_threshold,
       &1.traffic_min_interval_s}
    )
    |> Enum.sort()
    |> :erlang.term_to_binary()
    |> :erlang.md5()
  end
end
