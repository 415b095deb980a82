defmodule Plausible.Webhooks.Host.File.Config do
  @moduledoc false
  # Reads the file of sites. The first thing that is wrong ends it, with where it
  # stands: a field's path, or line and column where it is not even JSON.

  alias Plausible.Webhooks.Native

  @sites_max 10_000
  @goals_max 1_000

  @type site :: %{
          id: integer(),
          domain: String.t(),
          timezone: String.t(),
          dashboard_url: String.t() | nil,
          stats_start_at_ms: integer() | nil,
          goals: [Plausible.Webhooks.Host.goal()],
          history: [%{from_ms: integer(), to_ms: integer(), visitors: non_neg_integer()}]
        }

  @spec parse(binary()) :: {:ok, [site()]} | {:error, String.t()}
  def parse(json) do
    case Native.decode(json) do
      {:ok, value} ->
        {:ok,
         value |> fields("", ~w(sites)) |> each("", "sites", @sites_max, &site/2) |> unique()}

      {:error, {reason, offset}} ->
        {line, column} = place(json, offset)
        {:error, "line #{line}, column #{column}: is not JSON (#{reason})"}
    end
  catch
    {:invalid, "", message} -> {:error, message}
    {:invalid, "." <> path, message} -> {:error, "#{path}: #{message}"}
  end

  defp invalid(path, message), do: throw({:invalid, path, message})

  defp place(json, offset) do
    before = binary_part(json, 0, min(offset, byte_size(json)))
    lines = String.split(before, "\n")
    {length(lines), byte_size(List.last(lines)) + 1}
  end

  defp unique(sites) do
    for field <- [:id, :domain] do
      values = Enum.map(sites, &Map.fetch!(&1, field))

      case values -- Enum.uniq(values) do
        [] -> :ok
        [twice | _] -> invalid(".sites", "#{field} #{twice} is there twice")
      end
    end

    sites
  end

  defp site(value, path) do
    known = ~w(id domain timezone dashboard_url stats_start_at goals history)
    site = fields(value, path, known)

    goals = each(site, path, "goals", @goals_max, &goal/2)
    ids = Enum.map(goals, & &1.id)
    for id <- ids -- Enum.uniq(ids), do: invalid(path <> ".goals", "id #{id} is there twice")

    %{
      id: required(site, path, "id", &integer(&1, &2, 0..9_223_372_036_854_775_807)),
      domain: required(site, path, "domain", &text/2),
      timezone: optional(site, path, "timezone", &text/2) || "Etc/UTC",
      dashboard_url: optional(site, path, "dashboard_url", &url/2),
      stats_start_at_ms: optional(site, path, "stats_start_at", &time/2),
      goals: goals,
      history: each(site, path, "history", 1_000, &history/2)
    }
  end

  defp goal(value, path) do
    known = ~w(id name event_name page_path scroll_threshold custom_props currency)
    goal = fields(value, path, known)
    event_name = optional(goal, path, "event_name", &event_name/2)
    page_path = optional(goal, path, "page_path", &page_path/2)

    case {event_name, page_path} do
      {nil, nil} -> invalid(path, "needs event_name or page_path")
      {_, nil} -> :ok
      {nil, _} -> :ok
      _both -> invalid(path, "has both event_name and page_path")
    end

    threshold = optional(goal, path, "scroll_threshold", &integer(&1, &2, -1..100)) || -1

    if threshold > -1 and page_path == nil,
      do: invalid(path <> ".scroll_threshold", "needs page_path")

    %{
      id: required(goal, path, "id", &integer(&1, &2, 0..9_223_372_036_854_775_807)),
      name: optional(goal, path, "name", &text/2) || event_name || "Visit #{page_path}",
      event_name: event_name,
      page_path: page_path,
      scroll_threshold: threshold,
      custom_props: optional(goal, path, "custom_props", &props/2) || %{},
      currency: optional(goal, path, "currency", &currency/2)
    }
  end

  defp history(value, path) do
    history = fields(value, path, ~w(from to visitors))
    from_ms = required(history, path, "from", &time/2)
    to_ms = required(history, path, "to", &time/2)
    if to_ms <= from_ms, do: invalid(path <> ".to", "must be later than from")

    %{
      from_ms: from_ms,
      to_ms: to_ms,
      visitors: required(history, path, "visitors", &integer(&1, &2, 0..1_000_000_000))
    }
  end

  # --- shapes

  defp fields(%{} = object, path, known) do
    case Map.keys(object) -- known do
      [] ->
        object

      [unknown | _] ->
        invalid("#{path}.#{unknown}", "is not a field; known are #{Enum.join(known, ", ")}")
    end
  end

  defp fields(_other, path, _known), do: invalid(path, "must be an object")

  defp each(object, path, field, max, fun) do
    path = "#{path}.#{field}"

    case Map.get(object, field, []) do
      list when is_list(list) and length(list) <= max ->
        list |> Enum.with_index() |> Enum.map(fn {value, n} -> fun.(value, "#{path}[#{n}]") end)

      list when is_list(list) ->
        invalid(path, "has more than #{max} entries")

      _other ->
        invalid(path, "must be a list")
    end
  end

  defp required(object, path, field, fun) do
    with nil <- optional(object, path, field, fun), do: invalid("#{path}.#{field}", "is required")
  end

  defp optional(object, path, field, fun) do
    case object do
      %{^field => value} when value != nil -> fun.(value, "#{path}.#{field}")
      _absent -> nil
    end
  end

  # --- values

  defp integer(value, path, first..last//_) do
    if is_integer(value) and value >= first and value <= last,
      do: value,
      else: invalid(path, "must be an integer from #{first} to #{last}")
  end

  defp text(value, path, max \\ 255)
  defp text(value, _path, max) when is_binary(value) and byte_size(value) in 1..max//1, do: value
  defp text(_value, path, max), do: invalid(path, "must be text of 1 to #{max} bytes")

  defp event_name("engagement", path), do: invalid(path, "engagement is no event of its own")
  defp event_name(value, path), do: text(value, path, 120)

  defp page_path(value, path) do
    if text(value, path, 2_000) =~ ~r{\A[/*]},
      do: value,
      else: invalid(path, "must begin with / or *")
  end

  defp url(value, path) do
    if text(value, path, 2_048) =~ ~r{\Ahttps?://.},
      do: value,
      else: invalid(path, "must be an http(s) URL")
  end

  defp currency(value, path) do
    if is_binary(value) and value =~ ~r/\A[A-Z]{3}\z/,
      do: value,
      else: invalid(path, ~s(must be a currency such as "EUR"))
  end

  defp props(%{} = props, path) when map_size(props) <= 3,
    do: Map.new(props, fn {key, value} -> {key, text(value, "#{path}.#{key}", 2_000)} end)

  defp props(_other, path), do: invalid(path, "must be an object of at most 3 pairs")

  defp time(value, path) do
    with true <- is_binary(value),
         {:ok, time, _offset} <- DateTime.from_iso8601(value) do
      DateTime.to_unix(time, :millisecond)
    else
      _not_a_time -> invalid(path, "must be a time such as 2026-11-23T10:15:30Z")
    end
  end
end
