defmodule PlausibleWeb.Live.WebhookSettings.Log do
  @moduledoc false
  # The filters and pages of the log, as the form gives them and as
  # `Plausible.Webhooks.deliveries/5` takes them.

  alias Plausible.Webhooks.Event
  alias PlausibleWeb.Live.WebhookSettings.Format

  @limit 25
  @states ~w(pending parked delivered failed cancelled)a
  @classes %{"2" => 2, "3" => 3, "4" => 4, "5" => 5, "none" => :none}
  @empty %{
    "webhook" => "",
    "state" => "",
    "type" => "",
    "goal" => "",
    "status" => "",
    "since" => "",
    "until" => ""
  }

  @type t :: %__MODULE__{
          filters: %{String.t() => String.t()},
          cursors: [String.t() | nil],
          entries: [Plausible.Webhooks.Delivery.t()] | nil,
          next: String.t() | nil,
          number: non_neg_integer()
        }

  # filters: as they stand in the form.
  # cursors: the cursor of the page that is shown, then those of the newer ones.
  # entries: nil as long as nothing was read.
  # number: of the question, so that the answer to an older one is told from it.
  defstruct filters: @empty, cursors: [nil], entries: nil, next: nil, number: 0

  @spec new(%{String.t() => String.t()}) :: t()
  def new(filters \\ %{}), do: %__MODULE__{filters: Map.merge(@empty, filters)}

  @doc "Other filters: from the newest page on. What is no text is left out."
  @spec filter(t(), term()) :: t()
  def filter(%__MODULE__{} = log, params) when is_map(params) do
    given =
      for {key, value} <- params,
          is_map_key(@empty, key),
          is_binary(value),
          into: %{},
          do: {key, value}

    asked(%{log | filters: Map.merge(log.filters, given), cursors: [nil], entries: nil, next: nil})
  end

  def filter(log, _no_form), do: log

  @spec clear(t()) :: t()
  def clear(log), do: asked(%{log | filters: @empty, cursors: [nil], entries: nil, next: nil})

  @doc "The next older page; the same where there is none."
  @spec older(t()) :: t()
  def older(%{next: nil} = log), do: log
  def older(log), do: asked(%{log | cursors: [log.next | log.cursors]})

  @spec newer(t()) :: t()
  def newer(%{cursors: [_shown, newer | rest]} = log), do: asked(%{log | cursors: [newer | rest]})
  def newer(log), do: log

  @doc "A question of its own, whose answer is told from that to an older one."
  @spec asked(t()) :: t()
  def asked(log), do: %{log | number: log.number + 1}

  @spec filtered?(t()) :: boolean()
  def filtered?(log), do: log.filters != @empty

  @doc """
  The arguments for `Plausible.Webhooks.deliveries/5`. What a form could not have
  given is no filter.
  """
  @spec question(t(), String.t()) :: [map()]
  def question(%__MODULE__{filters: filters, cursors: [cursor | _]}, zone) do
    wanted = %{
      webhook_id: text(filters["webhook"]),
      states: one_of(filters["state"], @states),
      types: filters["type"] in Event.types() && [filters["type"]],
      goal_id: id(filters["goal"]),
      status_class: Map.get(@classes, filters["status"]),
      since_ms: time(filters["since"], zone),
      until_ms: time(filters["until"], zone)
    }

    [Map.filter(wanted, fn {_key, value} -> value end), %{after: cursor, limit: @limit}]
  end

  defp text(""), do: nil
  defp text(text), do: text

  defp one_of(name, known), do: Enum.find_value(known, &(to_string(&1) == name && [&1]))

  # As many digits as an id has at most.
  defp id(text) when byte_size(text) <= 20 do
    case Integer.parse(text) do
      {id, ""} when id > 0 and id <= 9_223_372_036_854_775_807 -> id
      _other -> nil
    end
  end

  defp id(_text), do: nil

  defp time(text, zone) do
    case Format.from_local(text, zone) do
      {:ok, ms} -> ms
      :error -> nil
    end
  end

  @spec states() :: [atom()]
  def states, do: @states

  @doc "Does anything that is shown wait for its next attempt?"
  @spec waiting?(t()) :: boolean()
  def waiting?(%{entries: entries}), do: Enum.any?(entries || [], &waiting_delivery?/1)

  @spec waiting_delivery?(Plausible.Webhooks.Delivery.t()) :: boolean()
  def waiting_delivery?(delivery),
    do: delivery.state in [:pending, :parked] and delivery.next_at_ms != nil
end
