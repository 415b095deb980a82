defmodule Plausible.Webhooks.Ingest.Traffic.Round do
  @moduledoc false
  # One evaluation: first a survey of all sites, then each site where something has to be done
  # in a task, and its webhooks one after the other. `site` holds the facts of the site in this
  # round, each of which is asked for once. `done` counts what was done.

  alias Plausible.Webhooks.{Id, Store}
  alias Plausible.Webhooks.Ingest.Payload
  alias Plausible.Webhooks.Ingest.Traffic.{Facts, Rules, Survey}
  alias Plausible.Webhooks.Runtime.Isolated

  @typedoc """
  One delivery to be accepted. `id` becomes the `webhook-id`; accepting the same id twice
  must change nothing. The delivery of a `:disabled` webhook is kept as cancelled.
  """
  @type notice :: %{
          id: String.t(),
          webhook_id: String.t(),
          status: :active | :disabled,
          event: Plausible.Webhooks.Event.t()
        }

  @typedoc """
  The input of an evaluation. `deliver` returns `:ok` when the delivery is committed. Any
  process may call it.
  """
  @type context :: %{
          required(:instance) => atom(),
          required(:deliver) => (notice() -> :ok | {:error, term()}),
          optional(:concurrency) => pos_integer(),
          optional(:site_timeout_ms) => pos_integer(),
          optional(:round_timeout_ms) => pos_integer(),
          optional(:sites_per_count) => pos_integer()
        }

  @typedoc """
  The result of an evaluation. `failed` lists sites, `incomplete` counts notices without
  baseline or top lists.
  """
  @type summary :: %{
          sites: non_neg_integer(),
          fired: non_neg_integer(),
          resolved: non_neg_integer(),
          failed: [{integer(), term()}],
          incomplete: non_neg_integer()
        }

  @limits %{
    concurrency: 4,
    site_timeout_ms: 20_000,
    round_timeout_ms: 300_000,
    sites_per_count: 1_000
  }
  @states_per_query 10_000
  @nothing %{fired: 0, resolved: 0, incomplete: 0, errors: []}

  @doc """
  Evaluates the sites. The visitors of up to `sites_per_count` (1 000) sites are asked for at
  once. Then the sites where something has to be done follow one by one. Both are done
  `concurrency` (4) at a time, each for at most `site_timeout_ms` (20 000). After
  `round_timeout_ms` (300 000) nothing more is begun. Counting stops at half of that time, so
  that time is left to act on the counts.
  """
  @spec evaluate(context(), [{integer(), [map()]}], integer(), [pid()]) :: summary()
  def evaluate(context, sites, now_ms, callers) do
    %{instance: instance} = context = Map.merge(@limits, context)
    [half, whole] = for part <- [2, 1], do: options(context, callers, part)

    case states(instance, sites) do
      {:ok, states} ->
        {surveyed, failed} = Survey.sites(instance, sites, now_ms, context.sites_per_count, half)

        acting =
          for site <- surveyed, [_ | _] = acts <- [acts(site, states, now_ms)], do: {site, acts}

        instance
        |> Isolated.map(acting, &evaluate_site(context, &1, now_ms), whole)
        |> Enum.reduce(summary(sites, failed), &add/2)

      {:error, reason} ->
        summary(sites, for({id, _webhooks} <- sites, do: {id, reason}))
    end
  end

  defp options(context, callers, part) do
    [
      concurrency: context.concurrency,
      timeout_ms: context.site_timeout_ms,
      deadline_ms: System.monotonic_time(:millisecond) + div(context.round_timeout_ms, part),
      callers: callers
    ]
  end

  defp summary(sites, failed),
    do: %{sites: length(sites), fired: 0, resolved: 0, incomplete: 0, failed: failed}

  defp add({{%{site: site}, _acts}, {:ok, done}}, summary) do
    %{
      summary
      | fired: summary.fired + done.fired,
        resolved: summary.resolved + done.resolved,
        incomplete: summary.incomplete + done.incomplete,
        failed: Enum.map(done.errors, &{site.id, &1}) ++ summary.failed
    }
  end

  defp add({{%{site: site}, _acts}, {:error, reason}}, summary),
    do: %{summary | failed: [{site.id, reason} | summary.failed]}

  defp states(instance, sites) do
    sites
    |> Enum.flat_map(fn {_site_id, webhooks} -> Enum.map(webhooks, & &1.id) end)
    |> Enum.chunk_every(@states_per_query)
    |> Enum.reduce_while({:ok, %{}}, fn ids, {:ok, states} ->
      case Store.alert_states(instance, ids) do
        {:ok, found} ->
          {:cont, {:ok, Enum.into(found, states, &{{&1.webhook_id, &1.kind}, &1})}}

        {:error, reason} ->
          {:halt, {:error, {:store, reason}}}
      end
    end)
  end

  # What has to be done for a site, if anything.
  defp acts(%{watches: watches, current: current}, states, now_ms) do
    for %{kind: kind, webhook: webhook} = watch <- watches,
        state <- [Map.get(states, {webhook.id, kind})],
        limits = %{now_ms: now_ms, min_interval_s: webhook.min_interval_s},
        what = Rules.decide(kind, watch.threshold, current[kind], state, limits),
        what != :nothing,
        do: {what, watch, state}
  end

  defp evaluate_site(context, {%{site: site, current: current}, acts}, now_ms) do
    site = %{context: context, site: site, now_ms: now_ms, current: current, facts: %{}}
    {_site, done} = Enum.reduce(acts, {site, @nothing}, &act/2)
    {:ok, done}
  end

  # --- one webhook, one kind

  defp act({:fire, watch, _state}, {site, done}), do: fire(watch, site, done)
  defp act({:notify, watch, state}, {site, done}), do: notify(watch, state, site, done)
  defp act({:resolve, watch, state}, {site, done}), do: resolve(watch, state, site, done)

  defp act({{:note, changes}, _watch, state}, {site, done}),
    do: note(Map.merge(state, changes), site, done)

  # Recorded, so that after a pause it is known how long nothing was evaluated.
  defp note(state, site, done) do
    case put_state(site, state) do
      :ok -> {site, done}
      {:error, reason} -> {site, error(done, reason)}
    end
  end

  # Recorded before anything is sent, so that a crash does not lose the alert's id.
  defp fire(%{kind: kind, threshold: threshold, webhook: webhook} = watch, site, done) do
    state = %{
      webhook_id: webhook.id,
      kind: kind,
      state: :firing,
      # By the clock and not by now_ms: ids sort by the time at which they were made.
      alert_id: Id.alert(),
      visitors: site.current[kind],
      threshold: threshold,
      changed_at_ms: site.now_ms,
      notified_at_ms: nil,
      seen_at_ms: site.now_ms,
      calm_since_ms: nil
    }

    case put_state(site, state) do
      :ok -> notify(watch, state, site, done)
      {:error, reason} -> {site, error(done, reason)}
    end
  end

  # The figures are those of the breach, which may be over when the notice is sent.
  defp notify(%{kind: kind, webhook: webhook} = watch, state, site, done) do
    current = state.visitors || site.current[kind]
    {facts, site} = facts(kind, current, state.changed_at_ms, site)

    alert =
      Map.merge(
        Facts.told(facts),
        alert(kind, state.threshold || watch.threshold, state, current)
      )

    event = Payload.traffic_fired(site_of(site, facts.dashboard_url), alert, site.now_ms)
    told = %{state | notified_at_ms: site.now_ms, seen_at_ms: site.now_ms}

    with :ok <- deliver(site.context, webhook, firing_id(state.alert_id), event),
         :ok <- put_state(site, told) do
      incomplete = if facts.complete?, do: 0, else: 1
      {site, %{done | fired: done.fired + 1, incomplete: done.incomplete + incomplete}}
    else
      {:error, reason} -> {site, error(done, reason)}
    end
  end

  defp resolve(%{webhook: webhook} = watch, state, site, done) do
    sent =
      if "traffic.resolved" in webhook.events, do: send_resolved(watch, state, site), else: :ok

    with :ok <- sent,
         :ok <- put_state(site, armed(state, site)) do
      {site, %{done | resolved: done.resolved + 1}}
    else
      {:error, reason} -> {site, error(done, reason)}
    end
  end

  defp armed(state, site),
    do: %{state | state: :armed, changed_at_ms: site.now_ms, calm_since_ms: nil}

  defp send_resolved(%{kind: kind, threshold: threshold, webhook: webhook}, state, site) do
    url = Facts.known(Facts.dashboard_url(site.context.instance, site.site))
    alert = alert(kind, threshold, state, site.current[kind])
    event = Payload.traffic_resolved(site_of(site, url), alert, site.now_ms)
    deliver(site.context, webhook, Id.delivery(), event)
  end

  defp facts(kind, current, at_ms, %{facts: known} = site) do
    facts =
      Map.get_lazy(known, {kind, current, at_ms}, fn ->
        Facts.ask(site.context.instance, site.site, kind, current, at_ms)
      end)

    {facts, %{site | facts: Map.put(known, {kind, current, at_ms}, facts)}}
  end

  defp site_of(%{site: site}, url), do: %{id: site.id, domain: site.domain, dashboard_url: url}

  defp put_state(%{context: %{instance: instance}}, state) do
    with {:error, reason} <- Store.put_alert_state(instance, state),
         do: {:error, {:store, reason}}
  end

  defp error(done, reason), do: %{done | errors: [reason | done.errors]}

  # --- also for alerts that the host found

  @doc false
  @spec alert(Rules.kind(), pos_integer() | nil, map(), non_neg_integer()) :: Payload.alert()
  def alert(kind, threshold, state, current) do
    %{
      kind: kind,
      id: state.alert_id,
      started_at_ms: state.changed_at_ms,
      current_visitors: current,
      threshold: threshold,
      window_seconds: Rules.window_s(kind)
    }
  end

  @doc false
  # The same alert always makes the same delivery.
  @spec firing_id(String.t()) :: String.t()
  def firing_id("alr_" <> rest), do: "msg_" <> rest

  @doc false
  @spec deliver(context(), map(), String.t(), Plausible.Webhooks.Event.t()) ::
          :ok | {:error, term()}
  def deliver(context, webhook, id, event) do
    notice = %{id: id, webhook_id: webhook.id, status: webhook.status, event: event}

    with {:error, reason} <- Isolated.guard(fn -> context.deliver.(notice) end),
         do: {:error, {:deliver, reason}}
  end
end
