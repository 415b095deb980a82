defmodule PlausibleWeb.Live.WebhookSettings.LogFilters do
  @moduledoc false
  # The filters and pages of the delivery log, from the form to
  # `Plausible.Webhooks.deliveries/5`.

  alias Plausible.Webhooks.Event
  alias PlausibleWeb.Live.WebhookSettings.Format

  @limit 25
  @states ~w(pending parked delivered failed cancelled)a
  @classes %{"2" => 2, "3" => 3, "4" => 4, "5" => 5, "none" => :none}
  @empty Map.new(~w(webhook state type goal status since until), &{&1, ""})
  @int64_max 9_223_372_036_854_775_807

  @type t :: %__MODULE__{}

  # filters: the values of the form.
  # cursors: the cursor of the shown page, then those of the newer pages.
  # entries: nil until the first read.
  # number: grows with each query, so that the result of an older one is recognized.
  defstruct filters: @empty, cursors: [nil], entries: nil, next: nil, number: 0

  @spec new(%{String.t() => String.t()}) :: t()
  def new(filters \\ %{}), do: %__MODULE__{filters: Map.merge(@empty, filters)}

  @doc "Changes filters, and returns to the newest page. Ignores values that are not text."
  @spec filter(t(), term()) :: t()
  def filter(%__MODULE__{} = query, params) when is_map(params) do
    given =
      Map.filter(params, fn {key, value} -> is_map_key(@empty, key) and is_binary(value) end)

    restart(query, Map.merge(query.filters, given))
  end

  def filter(query, _no_form), do: query

  @spec clear(t()) :: t()
  def clear(query), do: restart(query, @empty)

  defp restart(query, filters),
    do: renumber(%{query | filters: filters, cursors: [nil], entries: nil, next: nil})

  @doc "Goes to the next older page, if there is one."
  @spec older(t()) :: t()
  def older(%{next: nil} = query), do: query
  def older(query), do: renumber(%{query | cursors: [query.next | query.cursors]})

  @spec newer(t()) :: t()
  def newer(%{cursors: [_shown, newer | rest]} = query),
    do: renumber(%{query | cursors: [newer | rest]})

  def newer(query), do: query

  @doc "The query under a number of its own."
  @spec renumber(t()) :: t()
  def renumber(query), do: %{query | number: query.number + 1}

  @spec filtered?(t()) :: boolean()
  def filtered?(query), do: query.filters != @empty

  @doc "The arguments of `Plausible.Webhooks.deliveries/5`. Unknown values filter nothing."
  @spec arguments(t(), String.t()) :: [map()]
  def arguments(%__MODULE__{filters: filters, cursors: [cursor | _]}, zone) do
    wanted = %{
      webhook_id: filters["webhook"] != "" && filters["webhook"],
      states: one_of(filters["state"], @states),
      types: one_of(filters["type"], Event.types()),
      goal_id: id(filters["goal"]),
      status_class: Map.get(@classes, filters["status"]),
      since_ms: time(filters["since"], zone),
      until_ms: time(filters["until"], zone)
    }

    [Map.filter(wanted, fn {_key, value} -> value end), %{after: cursor, limit: @limit}]
  end

  defp one_of(name, known), do: Enum.find_value(known, &(to_string(&1) == name && [&1]))

  defp id(text) do
    case byte_size(text) <= 20 and Integer.parse(text) do
      {id, ""} when id in 1..@int64_max -> id
      _other -> nil
    end
  end

  defp time(text, zone) do
    case Format.from_local(text, zone) do
      {:ok, ms} -> ms
      _no_time -> nil
    end
  end

  @spec states() :: [atom()]
  def states, do: @states
end
