defmodule PlausibleWeb.Live.WebhookSettings.Form do
  @moduledoc false
  # What stands in the form: text as it was typed in, until
  # `Plausible.Webhooks.Webhook` judges it. Params come from outside: what has
  # another shape than a form gives is left out.

  alias Plausible.Webhooks.{Event, Webhook}

  @headers_max 20
  @text_max 8_192

  @type threshold :: %{mode: :number | :notifier, value: String.t()}
  @type t :: %__MODULE__{
          id: Webhook.id() | nil,
          version: non_neg_integer() | nil,
          title: String.t() | nil,
          name: String.t(),
          url: String.t(),
          events: [String.t()],
          goals: :all | :some,
          chosen: MapSet.t(integer()),
          first: MapSet.t(integer()),
          search: String.t(),
          spike: threshold(),
          drop: threshold(),
          interval: String.t(),
          headers: [{pos_integer(), String.t(), String.t()}],
          next_header: pos_integer(),
          secret: String.t(),
          errors: %{(atom() | String.t()) => String.t()},
          url_check: nil | {:ok, map()} | {:error, String.t()},
          changed?: boolean()
        }

  # chosen: goals by id, also those that the search does not show. first: those that
  #   were chosen at the beginning, which are listed first.
  # headers: `{key, name, value}`; a key is never used twice, so that a field
  #   keeps its identity when one above it is removed.
  # changed?: somebody else has saved the webhook meanwhile.
  # What is typed in may hold secrets and tokens, which no crash report may show.
  @derive {Inspect, only: [:id]}
  defstruct [
    :id,
    :version,
    :title,
    :url_check,
    name: "",
    url: "",
    events: ["goal.completed"],
    goals: :all,
    chosen: MapSet.new(),
    first: MapSet.new(),
    search: "",
    spike: %{mode: :number, value: ""},
    drop: %{mode: :number, value: ""},
    interval: "0",
    headers: [],
    next_header: 1,
    secret: "",
    errors: %{},
    changed?: false
  ]

  @spec new() :: t()
  def new, do: %__MODULE__{}

  @spec edit(Webhook.t(), String.t()) :: t()
  def edit(%Webhook{} = webhook, title) do
    chosen = if webhook.goals == :all, do: MapSet.new(), else: MapSet.new(webhook.goals)

    headers =
      for {{name, value}, key} <- Enum.with_index(webhook.headers, 1), do: {key, name, value}

    %__MODULE__{
      id: webhook.id,
      version: webhook.version,
      title: title,
      name: webhook.name,
      url: webhook.url,
      events: webhook.events,
      goals: if(webhook.goals == :all, do: :all, else: :some),
      chosen: chosen,
      first: chosen,
      spike: threshold(webhook.spike_threshold),
      drop: threshold(webhook.drop_threshold),
      interval: to_string(webhook.traffic_min_interval_s),
      headers: headers,
      next_header: length(headers) + 1
    }
  end

  defp threshold(:notifier), do: %{mode: :notifier, value: ""}
  defp threshold(value), do: %{mode: :number, value: to_string(value)}

  @doc "What was typed in, over what stands there."
  @spec merge(t(), term()) :: t()
  def merge(%__MODULE__{} = form, params) when is_map(params) do
    %{
      form
      | name: text(params["name"], form.name),
        url: text(params["url"], form.url),
        events: events(params["events"], form.events),
        goals: goals(params["goals"], form.goals),
        chosen: chosen(params["goal"], form.chosen),
        spike: threshold(params["spike"], form.spike),
        drop: threshold(params["drop"], form.drop),
        interval: text(params["interval"], form.interval),
        headers: headers(params["headers"], form.headers),
        secret: text(params["secret"], form.secret)
    }
  end

  def merge(form, _no_form), do: form

  @doc "Which goals are looked for."
  @spec search(t(), term()) :: t()
  def search(%__MODULE__{} = form, text), do: %{form | search: text(text, form.search)}

  defp text(text, _before) when is_binary(text) and byte_size(text) <= @text_max, do: text
  defp text(_other, before), do: before

  # An empty one is always sent, so that none at all is a list too.
  defp events(given, _before) when is_list(given),
    do: Enum.filter(Event.subscribable_types(), &(&1 in given))

  defp events(_other, before), do: before

  defp goals("all", _before), do: :all
  defp goals("some", _before), do: :some
  defp goals(_other, before), do: before

  # Only those that were shown are given, each with what it is now.
  defp chosen(given, before) when is_map(given) do
    Enum.reduce(given, before, fn {id, checked}, chosen ->
      case is_binary(id) and Integer.parse(id) do
        {id, ""} when checked == "true" -> MapSet.put(chosen, id)
        {id, ""} -> MapSet.delete(chosen, id)
        _no_id -> chosen
      end
    end)
  end

  defp chosen(_other, before), do: before

  defp threshold(%{} = given, before) do
    mode =
      case given["mode"] do
        "notifier" -> :notifier
        "number" -> :number
        _other -> before.mode
      end

    %{mode: mode, value: text(given["value"], before.value)}
  end

  defp threshold(_other, before), do: before

  defp headers(given, before) when is_map(given) do
    for {key, name, value} <- before do
      case given[to_string(key)] do
        %{} = pair -> {key, text(pair["name"], name), text(pair["value"], value)}
        _other -> {key, name, value}
      end
    end
  end

  defp headers(_other, before), do: before

  # The fields of the form that an attribute comes from.
  @fields %{
    name: [:name],
    url: [:url],
    events: [:events, :spike, :drop],
    goals: [:goals, :chosen, :events],
    spike_threshold: [:spike, :events],
    drop_threshold: [:drop, :events],
    traffic_min_interval_s: [:interval],
    headers: [:headers],
    secret: [:secret]
  }

  @doc "What was wrong and has been changed since is not held against it until it is saved."
  @spec forgive(t(), t()) :: t()
  def forgive(form, before) do
    still = fn {attribute, _text} ->
      fields = Map.get(@fields, attribute, [])
      Map.take(form, fields) == Map.take(before, fields)
    end

    %{form | errors: form.errors |> Enum.filter(still) |> Map.new()}
  end

  @spec add_header(t()) :: t()
  def add_header(%{headers: headers, next_header: key} = form) do
    if length(headers) < @headers_max,
      do: %{form | headers: headers ++ [{key, "", ""}], next_header: key + 1},
      else: form
  end

  @spec remove_header(t(), term()) :: t()
  def remove_header(form, key),
    do: %{
      form
      | headers: Enum.reject(form.headers, fn {known, _, _} -> to_string(known) == key end)
    }

  @spec headers_max() :: pos_integer()
  def headers_max, do: @headers_max

  @doc """
  The attributes of the webhook. `goals` are the site's, or `nil` when they cannot be
  read: a chosen one that does not exist any more is left out.
  """
  @spec attributes(t(), [map()] | nil) :: map()
  def attributes(form, goals) do
    attributes = %{
      name: form.name,
      url: String.trim(form.url),
      events: form.events,
      goals: wanted_goals(form, goals),
      spike_threshold: wanted(form.spike, "traffic.spike" in form.events),
      drop_threshold: wanted(form.drop, "traffic.drop" in form.events),
      traffic_min_interval_s: form.interval,
      # A row in which nothing stands was only added.
      headers:
        for({_key, name, value} <- form.headers, name != "" or value != "", do: {name, value})
    }

    if form.id == nil and form.secret != "",
      do: Map.put(attributes, :secret, String.trim(form.secret)),
      else: attributes
  end

  defp wanted_goals(%{goals: :all}, _goals), do: :all
  defp wanted_goals(form, nil), do: MapSet.to_list(form.chosen)

  defp wanted_goals(form, goals) do
    chosen = for %{id: id} <- goals, MapSet.member?(form.chosen, id), do: id
    # Not subscribed to goals: an empty choice says nothing and spoils nothing.
    if chosen == [] and "goal.completed" not in form.events, do: :all, else: chosen
  end

  # What is not subscribed to is kept if it is valid, and no reason to refuse.
  defp wanted(%{mode: :notifier}, true), do: :notifier
  defp wanted(%{value: value}, true), do: String.trim(value)
  defp wanted(_threshold, false), do: nil

  @doc "How many chosen goals the site does not have any more."
  @spec missing(t(), [map()]) :: non_neg_integer()
  def missing(form, goals),
    do: form.chosen |> MapSet.difference(MapSet.new(goals, & &1.id)) |> MapSet.size()

  @doc """
  The goals to show for the search, at most `max`, those first that were chosen at
  the beginning; and how many more there are.
  """
  @spec shown_goals(t(), [map()], pos_integer()) :: {[map()], non_neg_integer()}
  def shown_goals(form, goals, max) do
    search = form.search |> String.trim() |> String.downcase()

    found =
      Enum.filter(goals, &(search == "" or String.contains?(String.downcase(&1.name), search)))

    {first, others} = Enum.split_with(found, &MapSet.member?(form.first, &1.id))
    {shown, more} = Enum.split(first ++ others, max)
    {shown, length(more)}
  end
end
