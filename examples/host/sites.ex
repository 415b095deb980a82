defmodule Demo.Sites do
  @moduledoc """
  Reads sites and their goals from a JSON file. `examples/sites.json` is a complete one;
  fields that are not listed here are an error.

      {"sites": [
        {"id": 1, "domain": "example.com", "timezone": "Europe/Tallinn",
         "dashboard_url": "https://plausible.example/example.com",
         "stats_start_at": "2026-01-01T00:00:00Z",
         "goals": [
           {"id": 1, "event_name": "Signup", "custom_props": {"plan": "growth"}},
           {"id": 2, "name": "Read", "page_path": "/blog/**", "scroll_threshold": 75},
           {"id": 3, "event_name": "Purchase", "currency": "EUR"}],
         "history": [
           {"from": "2026-11-16T10:00:00Z", "to": "2026-11-16T11:00:00Z", "visitors": 900}]}]}

  A site needs `id` and `domain`, a goal `id` and either `event_name` or `page_path`.
  `history` states visitors of earlier times, spread evenly over each period.
  """

  alias Plausible.Webhooks.Native

  @goal [
    id: {:integer, :required},
    name: {:text, nil},
    event_name: {:text, nil},
    page_path: {:path, nil},
    scroll_threshold: {:percent, -1},
    custom_props: {:props, %{}},
    currency: {:currency, nil}
  ]
  @history [
    from: {:time, :required},
    to: {:time, :required},
    visitors: {:integer, :required}
  ]
  @site [
    id: {:integer, :required},
    domain: {:text, :required},
    timezone: {:text, "Etc/UTC"},
    dashboard_url: {:url, nil},
    stats_start_at: {:time, nil},
    goals: {{:list, @goal}, []},
    history: {{:list, @history}, []}
  ]

  @doc "Returns the sites of the file, or what is wrong with it and where."
  @spec read(Path.t()) :: {:ok, [map()]} | {:error, String.t()}
  def read(path) do
    with {:ok, json} <- File.read(path), {:ok, sites} <- parse(json) do
      {:ok, sites}
    else
      {:error, reason} when is_atom(reason) -> {:error, "#{path}: #{:file.format_error(reason)}"}
      {:error, message} -> {:error, "#{path}: #{message}"}
    end
  end

  @spec parse(binary()) :: {:ok, [map()]} | {:error, String.t()}
  def parse(json) do
    case Native.decode(json) do
      {:ok, value} ->
        %{sites: sites} = object(value, [sites: {{:list, @site}, []}], "the file")
        for key <- [:id, :domain], do: unique(sites, key, "sites")
        {:ok, Enum.map(sites, &site/1)}

      {:error, {reason, offset}} ->
        {:error, "is not JSON (#{reason} at byte #{offset})"}
    end
  catch
    {:invalid, message} -> {:error, message}
  end

  defp site(site) do
    unique(site.goals, :id, "the goals of site #{site.id}")

    for %{from: from, to: to} when to <= from <- site.history,
        do: invalid("the history of site #{site.id}", "has a period that ends before it begins")

    %{site | goals: Enum.map(site.goals, &goal/1)}
  end

  defp goal(%{event_name: name, page_path: path} = goal) when name == nil != (path == nil),
    do: %{goal | name: goal.name || name || "Visit #{path}"}

  defp goal(%{id: id}), do: invalid("goal #{id}", "needs either event_name or page_path")

  defp unique(list, key, where) do
    values = Enum.map(list, & &1[key])

    with [value | _others] <- values -- Enum.uniq(values),
         do: invalid(where, "#{key} #{value} is there twice")
  end

  defp object(%{} = object, fields, where) do
    known = Enum.map(fields, fn {key, _field} -> "#{key}" end)

    with [key | _others] <- Map.keys(object) -- known,
         do: invalid("#{where}.#{key}", "is not a field")

    Map.new(fields, fn {key, {type, default}} ->
      case {object["#{key}"], default} do
        {nil, :required} -> invalid("#{where}.#{key}", "is required")
        {nil, default} -> {key, default}
        {value, _default} -> {key, value(type, value, "#{where}.#{key}")}
      end
    end)
  end

  defp object(_other, _fields, where), do: invalid(where, "must be an object")

  defp value({:list, fields}, list, where) when is_list(list),
    do: for({value, n} <- Enum.with_index(list), do: object(value, fields, "#{where}[#{n}]"))

  defp value(:integer, value, _where) when is_integer(value) and value >= 0, do: value
  defp value(:percent, value, _where) when value in -1..100, do: value
  defp value(:text, value, _where) when is_binary(value) and value != "", do: value
  defp value(:path, <<first, _::binary>> = path, _where) when first in [?/, ?*], do: path
  defp value(:url, "http" <> _ = url, _where), do: url
  defp value(:currency, <<_::24>> = currency, _where), do: currency

  defp value(:props, %{} = props, where),
    do: Map.new(props, fn {key, text} -> {key, value(:text, text, "#{where}.#{key}")} end)

  defp value(:time, text, where) when is_binary(text) do
    case DateTime.from_iso8601(text) do
      {:ok, at, _offset} -> DateTime.to_unix(at, :millisecond)
      _error -> invalid(where, "must be a time such as 2026-11-23T10:15:30Z")
    end
  end

  defp value({:list, _fields}, _other, where), do: invalid(where, "must be a list")
  defp value(type, _other, where), do: invalid(where, "is not a valid #{type}")

  @spec invalid(String.t(), String.t()) :: no_return()
  defp invalid(where, message), do: throw({:invalid, "#{where}: #{message}"})
end
