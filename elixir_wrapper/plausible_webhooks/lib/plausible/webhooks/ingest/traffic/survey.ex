defmodule Plausible.Webhooks.Ingest.Traffic.Survey do
  @moduledoc false
  # Which of many sites are to be evaluated, and their current visitors, from few questions to
  # the host. A question that fails loses its sites for this round, and no others.

  alias Plausible.Webhooks.Host
  alias Plausible.Webhooks.Ingest.Traffic.Rules
  alias Plausible.Webhooks.Runtime.{Instance, Isolated}

  @sites_per_reading 10_000

  @type watch :: %{webhook: map(), kind: Rules.kind(), threshold: pos_integer()}
  @type surveyed :: %{
          site: Host.alert_site(),
          watches: [watch(), ...],
          current: %{Rules.kind() => non_neg_integer()}
        }
  @type failed :: {site_id :: integer(), reason :: term()}

  @doc """
  Returns the sites that have something to evaluate, and the sites that failed. At most
  `sites_per_count` are counted at once. `options` are those of `Isolated.map/4`.
  """
  @spec sites(Instance.name(), [{integer(), [map()]}], integer(), pos_integer(), keyword()) ::
          {[surveyed()], [failed()]}
  def sites(instance, sites, now_ms, sites_per_count, options) do
    readings = questions(Enum.map(sites, &elem(&1, 0)), @sites_per_reading, :facts)
    {facts, unread} = ask(instance, readings, options, &read(instance, &1))

    watched =
      for {id, webhooks} <- sites,
          site = facts[id],
          [_ | _] = watches <- [watches(webhooks, site, now_ms)],
          do: %{site: site, watches: watches, kinds: kinds(watches)}

    # Twelve hours are read only of those sites that watch for a drop.
    by_kinds = Enum.group_by(watched, & &1.kinds, & &1.site.id)

    counts =
      Enum.flat_map(by_kinds, fn {kinds, ids} -> questions(ids, sites_per_count, kinds) end)

    {visitors, uncounted} = ask(instance, counts, options, &count(instance, &1, now_ms))

    surveyed =
      for %{site: site, watches: watches, kinds: kinds} <- watched,
          {:ok, counts} <- [visitors[site.id]],
          do: %{site: site, watches: watches, current: Map.new(Enum.zip(kinds, counts))}

    invalid = for {id, {:error, reason}} <- visitors, do: {id, {:host, reason}}
    {surveyed, unread ++ uncounted ++ invalid}
  end

  @doc "What the host counted of each site, where these are counts."
  @spec visitors(Instance.t() | Instance.name(), [integer()], [Host.window()]) ::
          {:ok, %{integer() => {:ok, [non_neg_integer()]} | {:error, :invalid_visitors}}}
          | {:error, term()}
  def visitors(instance, ids, windows) do
    with {:ok, %{} = counts} <- Instance.host(instance, :visitors, [ids, windows]) do
      {:ok, Map.new(ids, &{&1, valid(counts[&1], length(windows))})}
    else
      {:error, _reason} = error -> error
      _nonsense -> {:error, :invalid_visitors}
    end
  end

  defp valid(counts, windows) do
    if is_list(counts) and length(counts) == windows and Enum.all?(counts, &Rules.visitors?/1),
      do: {:ok, counts},
      else: {:error, :invalid_visitors}
  end

  defp questions(ids, per_question, what),
    do: for(part <- Enum.chunk_every(ids, per_question), do: {part, what})

  defp ask(instance, questions, options, fun) do
    instance
    |> Isolated.map(questions, fun, options)
    |> Enum.reduce({%{}, []}, fn
      {_question, {:ok, answers}}, {all, failed} ->
        {Map.merge(all, answers), failed}

      {{ids, _what}, {:error, reason}}, {all, failed} ->
        {all, Enum.map(ids, &{&1, reason}) ++ failed}
    end)
  end

  defp read(instance, {ids, :facts}),
    do: {:ok, Map.new(Instance.host(instance, :alert_sites, [ids]), &{&1.id, &1})}

  defp count(instance, {ids, kinds}, now_ms) do
    with {:error, reason} <- visitors(instance, ids, Enum.map(kinds, &Rules.window(&1, now_ms))),
         do: {:error, {:host, reason}}
  end

  defp kinds(watches), do: watches |> Enum.map(& &1.kind) |> Enum.uniq() |> Enum.sort()

  defp watches(webhooks, site, now_ms) do
    for webhook <- webhooks,
        kind <- [:spike, :drop],
        threshold = Rules.threshold(webhook, kind),
        kind == :spike or whole_window?(site, Rules.window(:drop, now_ms)),
        do: %{webhook: webhook, kind: kind, threshold: threshold}
  end

  defp whole_window?(%{stats_start_at_ms: nil}, _window), do: false
  defp whole_window?(%{stats_start_at_ms: start_ms}, {from_ms, _to_ms}), do: start_ms <= from_ms
end
