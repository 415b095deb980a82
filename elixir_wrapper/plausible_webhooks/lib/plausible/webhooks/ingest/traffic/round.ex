defmodule Plausible.Webhooks.Ingest.Traffic.Round do
  @moduledoc false
  # One evaluation: each site in a task, and the webhooks of a site one after the other. `site`
  # holds the facts of the site in this round, each of which is asked for once. `done` counts
  # what was done.

  alias Plausible.Webhooks.{Id, Store}
  alias Plausible.Webhooks.Ingest.Payload
  alias Plausible.Webhooks.Ingest.Traffic.{Facts, Rules}
  alias Plausible.Webhooks.Runtime.{Instance, Isolated}

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
          optional(:round_timeout_ms) => pos_integer()
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

  @limits %{concurrency: 4, site_timeout_ms: 20_000, round_timeout_ms: 300_000}
  @states_per_query 500
  @nothing %{fired: 0, resolved: 0, incomplete: 0, errors: []}

  @doc """
  Evaluates the sites, at most `concurrency` (4) at a time and each for at most
  `site_timeout_ms` (20 000). After `round_timeout_ms` (300 000) no further site is begun. A
  host that fails for one site spoils that site only.
  """
  @spec evaluate(context(), [{integer(), [map()]}], integer(), [pid()]) :: summary()
  def evaluate(context, sites, now_ms, callers) do
    context = Map.merge(@limits, context)

    case states(context.instance, sites) do
      {:ok, states} ->
        sites =
          Enum.map(sites, fn {id, webhooks} -> {id, webhooks, of_site(states, webhooks)} end)

        context.instance
        |> Isolated.map(sites, &evaluate_site(context, &1, now_ms),
          concurrency: context.concurrency,
          timeout_ms: context.site_timeout_ms,
          deadline_ms: System.monotonic_time(:millisecond) + context.round_timeout_ms,
          callers: callers
        )
        |> Enum.reduce(summary(sites), &add/2)

      {:error, reason} ->
        Enum.reduce(sites, summary(sites), fn {id, _webhooks}, sum -> failed(sum, id, reason) end)
    end
  end

  # The site's task gets a copy of what it needs, and no more.
  defp of_site(states, webhooks),
    do: Map.take(states, for(w <- webhooks, kind <- [:spike, :drop], do: {w.id, kind}))

  defp summary(sites),
    do: %{sites: length(sites), fired: 0, resolved: 0, incomplete: 0, failed: []}

  defp add({{site_id, _webhooks, _states}, {:ok, done}}, summary) do
    summary = %{
      summary
      | fired: summary.fired + done.fired,
        resolved: summary.resolved + done.resolved,
        incomplete: summary.incomplete + done.incomplete
    }

    Enum.reduce(done.errors, summary, &failed(&2, site_id, &1))
  end

  defp add({{site_id, _webhooks, _states}, {:error, reason}}, summary),
    do: failed(summary, site_id, reason)

  defp failed(summary, site_id, reason),
    do: %{summary | failed: [{site_id, reason} | summary.failed]}

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

  defp evaluate_site(%{instance: instance} = context, {site_id, webhooks, states}, now_ms) do
    with true <- Instance.host(instance, :alerts_allowed?, [site_id]),
         %{} = facts <- Instance.host(instance, :site, [site_id]),
         [_ | _] = watches <- watches(webhooks, facts, now_ms),
         {:ok, current} <- current(instance, site_id, watches, now_ms) do
      site = %{context: context, site: facts, now_ms: now_ms, current: current, facts: %{}}

      {_site, done} =
        Enum.reduce(watches, {site, @nothing}, fn watch, {site, done} ->
          act(watch, Map.get(states, {watch.webhook.id, watch.kind}), site, done)
        end)

      {:ok, done}
    else
      {:error, reason} -> {:error, {:host, reason}}
      nothing when nothing in [false, nil, []] -> {:ok, @nothing}
    end
  end

  defp watches(webhooks, site, now_ms) do
    for webhook <- webhooks,
        kind <- [:spike, :drop],
        threshold = Rules.threshold(webhook, kind),
        kind == :spike or whole_window?(site, Rules.window(:drop, now_ms)),
        do: %{webhook: webhook, kind: kind, threshold: threshold}
  end

  defp whole_window?(%{stats_start_at_ms: nil}, _window), do: false
  defp whole_window?(%{stats_start_at_ms: start_ms}, {from_ms, _to_ms}), do: start_ms <= from_ms

  defp current(instance, site_id, watches, now_ms) do
    kinds = watches |> Enum.map(& &1.kind) |> Enum.uniq()

    case Facts.visitors(instance, site_id, Enum.map(kinds, &Rules.window(&1, now_ms))) do
      {:ok, counts} when length(counts) == length(kinds) ->
        {:ok, Map.new(Enum.zip(kinds, counts))}

      {:error, reason} ->
        {:error, reason}
    end
  end

  # --- one webhook, one kind

  defp act(%{kind: kind, webhook: webhook} = watch, state, site, done) do
    limits = %{now_ms: site.now_ms, min_interval_s: webhook.min_interval_s}

    case Rules.decide(kind, watch.threshold, site.current[kind], state, limits) do
      :nothing -> {site, done}
      :fire -> fire(watch, site, done)
      :notify -> notify(watch, state, site, done)
      :resolve -> resolve(watch, state, site, done)
      {:note, changes} -> note(Map.merge(state, changes), site, done)
    end
  end

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
