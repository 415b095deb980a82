defmodule PlausibleWeb.Live.WebhookSettings.Form do
  @moduledoc false
  # The values of the form, as they were typed; `Plausible.Webhooks.Webhook` validates them
  # on save. Params come from outside: values of an unexpected shape are ignored.

  alias Plausible.Webhooks.{Event, Webhook}
  alias PlausibleWeb.Live.WebhookSettings.Labels

  @headers_max 20
  @text_max 8_192

  @type threshold :: %{mode: :number | :notifier, value: String.t()}
  @type t :: %__MODULE__{}

  # chosen: ids of goals, including those that the search hides. first: the goals chosen
  #   when the form opened, which are listed first.
  # headers: `{key, name, value}`; no key is used twice, so a field keeps its identity when
  #   one above it is removed.
  # changed?: somebody else has saved the webhook meanwhile.
  # Form values may hold secrets and tokens, which no crash report may show.
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

  @doc "Merges the params of the form into its values."
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

  @doc "Sets the text of the goal search."
  @spec search(t(), term()) :: t()
  def search(%__MODULE__{} = form, text), do: %{form | search: text(text, form.search)}

  defp text(text, _before) when is_binary(text) and byte_size(text) <= @text_max, do: text
  defp text(_other, before), do: before

  # The form always sends an empty event, so that no event at all is a list too.
  defp events(given, _before) when is_list(given),
    do: Enum.filter(Event.subscribable_types(), &(&1 in given))

  defp events(_other, before), do: before

  defp goals("all", _before), do: :all
  defp goals("some", _before), do: :some
  defp goals(_other, before), do: before

  # The params hold only the goals that were shown, each with its new state.
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

  # The fields of the form behind each attribute.
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

  @doc "Drops the errors of fields that have changed since the save that found them."
  @spec drop_outdated_errors(t(), t()) :: t()
  def drop_outdated_errors(form, before) do
    still = fn {attribute, _text} ->
      fields = Map.get(@fields, attribute, [])
      Map.take(form, fields) == Map.take(before, fields)
    end

    %{form | errors: form.errors |> Enum.filter(still) |> Map.new()}
  end

  @doc "The error of an attribute as a sentence, or `nil`."
  @spec error(t(), atom()) :: String.t() | nil
  def error(%{errors: errors}, name) do
    with text when is_binary(text) <- errors[name], do: Labels.invalid(name, text)
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
  read; chosen goals that no longer exist are left out.
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
      # An empty row was added and never filled.
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
    # Without a subscription to goals an empty choice is no error.
    if chosen == [] and "goal.completed" not in form.events, do: :all, else: chosen
  end

  # The threshold of an event that is not subscribed to is not validated.
  defp wanted(%{mode: :notifier}, true), do: :notifier
  defp wanted(%{value: value}, true), do: String.trim(value)
  defp wanted(_threshold, false), do: nil

  @doc "The number of chosen goals that the site no longer has."
  @spec missing(t(), [map()]) :: non_neg_integer()
  def missing(form, goals),
    do: form.chosen |> MapSet.difference(MapSet.new(goals, & &1.id)) |> MapSet.size()

  @doc """
  The goals that match the search, at most `max`, with those first that were chosen when
  the form opened; and the number of further matches.
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
