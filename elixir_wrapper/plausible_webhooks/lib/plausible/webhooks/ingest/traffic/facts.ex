defmodule Plausible.Webhooks.Ingest.Traffic.Facts do
  @moduledoc false
  # What a notice holds besides the figures that caused it. The host is asked once per site and
  # kind, and only when there is a notice. Facts that the host does not return in time are
  # missing from the notice.

  alias Plausible.Webhooks.Ingest.Traffic.{Rules, Survey}
  alias Plausible.Webhooks.Runtime.{Instance, Isolated}

  @week_s 7 * 24 * 3_600
  @top 3
  # Much less than the time of a site, because the notice has to be accepted after this.
  @ask_ms 4_000

  @type t :: %{
          baseline: Plausible.Webhooks.Ingest.Payload.baseline() | nil,
          sources: [map()],
          pages: [map()],
          dashboard_url: String.t() | nil,
          complete?: boolean()
        }

  @doc """
  Asks the host for all facts at the same time, except for top sources and pages that `known`
  has already.
  """
  @spec ask(
          Instance.name(),
          Plausible.Webhooks.Host.site(),
          Rules.kind(),
          non_neg_integer(),
          integer(),
          %{optional(:sources) => [map()] | nil, optional(:pages) => [map()] | nil}
        ) :: t()
  def ask(instance, site, kind, current, at_ms, known \\ %{}) do
    questions = %{
      baseline: fn -> baseline(instance, site, kind, current, at_ms) end,
      tops: fn -> tops(instance, site, kind, at_ms, known) end,
      url: fn -> dashboard_url(instance, site) end
    }

    answers = answers(instance, questions)
    %{sources: sources, pages: pages} = known(answers.tops) || %{sources: [], pages: []}

    %{
      baseline: known(answers.baseline),
      sources: known[:sources] || sources,
      pages: known[:pages] || pages,
      dashboard_url: known(answers.url),
      complete?: Enum.all?(Map.values(answers), &match?({:ok, _}, &1))
    }
  end

  @doc "The facts that are a part of the alert."
  @spec told(t()) :: %{
          baseline: Plausible.Webhooks.Ingest.Payload.baseline() | nil,
          sources: [map()],
          pages: [map()]
        }
  def told(facts), do: Map.take(facts, [:baseline, :sources, :pages])

  defp answers(instance, questions) do
    options = [concurrency: map_size(questions), timeout_ms: @ask_ms]

    instance
    |> Isolated.map(Map.to_list(questions), fn {_what, ask} -> ask.() end, options)
    |> Map.new(fn {{what, _ask}, answer} -> {what, answer} end)
  end

  @doc false
  @spec visitors(Instance.t() | Instance.name(), integer(), [Plausible.Webhooks.Host.window()]) ::
          {:ok, [non_neg_integer()]} | {:error, term()}
  def visitors(instance, site_id, windows) do
    with {:ok, counts} <- Survey.visitors(instance, [site_id], windows), do: counts[site_id]
  end

  @doc false
  @spec dashboard_url(Instance.name(), map()) :: {:ok, String.t() | nil} | {:error, term()}
  def dashboard_url(instance, site),
    do: Isolated.guard(fn -> {:ok, Instance.host(instance, :dashboard_url, [site.id])} end)

  @doc false
  @spec known({:ok, value} | {:error, term()}) :: value | nil when value: term()
  def known({:ok, value}), do: value
  def known({:error, _reason}), do: nil

  # For a drop they would say nothing.
  defp tops(_instance, _site, :drop, _at_ms, _known), do: {:ok, nil}

  defp tops(_instance, _site, _kind, _at_ms, %{sources: sources, pages: pages})
       when is_list(sources) and is_list(pages),
       do: {:ok, nil}

  defp tops(instance, site, :spike, at_ms, _known) do
    window = Rules.window(:spike, at_ms)

    case Isolated.guard(fn -> Instance.host(instance, :breakdown, [site.id, window, @top]) end) do
      {:ok, %{sources: sources, pages: pages}} when is_list(sources) and is_list(pages) ->
        if Enum.all?(sources ++ pages, &match?(%{visitors: n} when is_integer(n), &1)),
          do: {:ok, %{sources: Enum.take(sources, @top), pages: Enum.take(pages, @top)}},
          else: {:error, :invalid_breakdown}

      other ->
        {:error, other}
    end
  end

  defp baseline(instance, site, kind, current, at_ms) do
    case windows(kind, site, at_ms) do
      [] -> {:ok, nil}
      windows -> compare(instance, site, current, windows)
    end
  end

  defp compare(instance, site, current, windows) do
    case Isolated.guard(fn -> visitors(instance, site.id, windows) end) do
      {:ok, [_ | _] = samples} -> {:ok, Rules.compare(current, samples)}
      other -> {:error, other}
    end
  end

  defp windows(_kind, %{stats_start_at_ms: nil}, _at_ms), do: []

  defp windows(kind, %{stats_start_at_ms: start_ms} = site, at_ms) do
    for weeks <- 1..4,
        {from_ms, _to_ms} = window = Rules.window(kind, weeks_before(at_ms, weeks, site)),
        from_ms >= start_ms,
        do: window
  end

  # By the site's clocks, which may have been set forward or back meanwhile; by UTC where the
  # time zone is not known.
  defp weeks_before(at_ms, weeks, site) do
    with zone when is_binary(zone) <- Map.get(site, :timezone),
         {:ok, local} <- DateTime.shift_zone(DateTime.from_unix!(at_ms, :millisecond), zone),
         then = NaiveDateTime.add(DateTime.to_naive(local), -weeks * @week_s),
         %DateTime{} = then <- there(DateTime.from_naive(then, zone)) do
      DateTime.to_unix(then, :millisecond)
    else
      _unknown -> at_ms - weeks * @week_s * 1_000
    end
  end

  # An hour that happens twice when clocks change, and one that does not happen.
  defp there({:ok, time}), do: time
  defp there({:ambiguous, first, _second}), do: first
  defp there({:gap, _before, behind}), do: behind
  defp there({:error, _reason}), do: nil
end
