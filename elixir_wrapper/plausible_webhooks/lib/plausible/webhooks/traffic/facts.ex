defmodule Plausible.Webhooks.Traffic.Facts do
  @moduledoc false
  # What a notice tells beside the figures that caused it. Asked of the host once
  # per site and kind, and only when there is a notice. What the host cannot say
  # is missing; the notice goes out all the same.

  alias Plausible.Webhooks.{Bounded, Source, Traffic}

  @week_ms 7 * 24 * 3_600 * 1_000
  @top 3

  @type t :: %{
          baseline: Plausible.Webhooks.Payload.baseline() | nil,
          sources: [map()],
          pages: [map()],
          dashboard_url: String.t() | nil,
          complete?: boolean()
        }

  @spec ask(
          Source.t(),
          Plausible.Webhooks.Host.site(),
          Traffic.kind(),
          non_neg_integer(),
          integer()
        ) ::
          t()
  def ask(host, site, kind, current, now_ms) do
    baseline = baseline(host, site, kind, current, now_ms)
    tops = if kind == :spike, do: tops(host, site, now_ms), else: {:ok, nil}
    url = dashboard_url(host, site)
    %{sources: sources, pages: pages} = known(tops) || %{sources: [], pages: []}

    %{
      baseline: known(baseline),
      sources: sources,
      pages: pages,
      dashboard_url: known(url),
      complete?: Enum.all?([baseline, tops, url], &match?({:ok, _}, &1))
    }
  end

  @doc false
  # What the host counted, if these are counts.
  @spec visitors(Source.t(), integer(), [Plausible.Webhooks.Host.window()]) ::
          {:ok, [non_neg_integer()]} | {:error, term()}
  def visitors(host, site_id, windows) do
    with {:ok, counts} <- Source.call(host, :visitors, [site_id, windows]) do
      if Enum.all?(counts, &Traffic.visitors?/1),
        do: {:ok, counts},
        else: {:error, :invalid_visitors}
    end
  end

  @doc false
  @spec dashboard_url(Source.t(), map()) :: {:ok, String.t() | nil} | {:error, term()}
  def dashboard_url(host, site),
    do: Bounded.guard(fn -> {:ok, Source.call(host, :dashboard_url, [site.id])} end)

  @doc false
  @spec known({:ok, value} | {:error, term()}) :: value | nil when value: term()
  def known({:ok, value}), do: value
  def known({:error, _reason}), do: nil

  defp tops(host, site, now_ms) do
    window = Traffic.window(:spike, now_ms)

    case Bounded.guard(fn -> Source.call(host, :breakdown, [site.id, window, @top]) end) do
      {:ok, %{sources: sources, pages: pages}} when is_list(sources) and is_list(pages) ->
        if Enum.all?(sources ++ pages, &match?(%{visitors: n} when is_integer(n), &1)),
          do: {:ok, %{sources: Enum.take(sources, @top), pages: Enum.take(pages, @top)}},
          else: {:error, :invalid_breakdown}

      other ->
        {:error, other}
    end
  end

  defp baseline(host, site, kind, current, now_ms) do
    case windows(kind, site, now_ms) do
      [] ->
        {:ok, nil}

      windows ->
        case Bounded.guard(fn -> visitors(host, site.id, windows) end) do
          {:ok, [_ | _] = samples} -> {:ok, Traffic.compare(current, samples)}
          other -> {:error, other}
        end
    end
  end

  defp windows(_kind, %{stats_start_at_ms: nil}, _now_ms), do: []

  defp windows(kind, %{stats_start_at_ms: start_ms}, now_ms) do
    for week <- 1..4,
        {from_ms, _to_ms} = window = Traffic.window(kind, now_ms - week * @week_ms),
        from_ms >= start_ms,
        do: window
  end
end
