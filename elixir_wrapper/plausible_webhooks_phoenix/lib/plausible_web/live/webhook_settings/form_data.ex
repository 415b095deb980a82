defmodule PlausibleWeb.Live.WebhookSettings.FormData do
  @moduledoc false
  # The params of the form, as they were typed; `Plausible.Webhooks.Webhook` validates them
  # on save. The browser holds all of them, and sends them again after a reconnect or a
  # deploy. Params come from outside: values of an unexpected shape are ignored.

  alias Plausible.Webhooks.{Event, Webhook}
  alias PlausibleWeb.Live.WebhookSettings.Labels

  @headers_max 20
  @text_max 8_192

  @type t :: %__MODULE__{}

  # goal: by id "true" or "false", including goals that the search hides.
  # headers: by a key that is not used twice, so that a field keeps its identity when one
  #   above it is removed.
  # version: that of the webhook that was edited.
  @params %{
    "version" => "0",
    "name" => "",
    "url" => "",
    "events" => ["goal.completed"],
    "goals" => "all",
    "goal" => %{},
    "spike" => %{"mode" => "number", "value" => ""},
    "drop" => %{"mode" => "number", "value" => ""},
    "interval" => "0",
    "headers" => %{},
    "secret" => ""
  }
  @header %{"name" => "", "value" => ""}

  # first: the goals chosen when the form opened, which are listed first.
  # Params may hold secrets and tokens, which no crash report may show.
  @derive {Inspect, only: [:id]}
  defstruct id: nil, params: @params, first: [], search: ""

  @spec edit(Webhook.t()) :: t()
  def edit(%Webhook{} = webhook) do
    ids = if webhook.goals == :all, do: [], else: webhook.goals

    headers =
      for {{name, value}, key} <- Enum.with_index(webhook.headers, 1),
          into: %{},
          do: {"#{key}", %{"name" => name, "value" => value}}

    params = %{
      "version" => "#{webhook.version}",
      "name" => webhook.name,
      "url" => webhook.url,
      "events" => webhook.events,
      "goals" => if(webhook.goals == :all, do: "all", else: "some"),
      "goal" => Map.new(ids, &{"#{&1}", "true"}),
      "spike" => threshold(webhook.spike_threshold),
      "drop" => threshold(webhook.drop_threshold),
      "interval" => "#{webhook.traffic_min_interval_s}",
      "headers" => headers,
      "secret" => ""
    }

    %__MODULE__{id: webhook.id, params: params, first: ids}
  end

  defp threshold(:notifier), do: %{"mode" => "notifier", "value" => ""}
  defp threshold(value), do: %{"mode" => "number", "value" => to_string(value)}

  @doc "Merges what the browser sent."
  @spec merge(t(), term()) :: t()
  def merge(%__MODULE__{params: params} = form, given) when is_map(given),
    do: %{form | params: merged(params, given)}

  def merge(form, _no_form), do: form

  defp merged(params, given), do: Map.new(params, fn {k, v} -> {k, taken(k, v, given[k])} end)

  # Shown goals come with their new state, and hidden ones only if they are chosen.
  defp taken("goal", before, %{} = given) do
    for {id, chosen} when is_binary(chosen) <- given, integer(id), into: before, do: {id, chosen}
  end

  # Rows that the server does not know were added before a reconnect.
  defp taken("headers", before, %{} = given) do
    rows =
      for {key, %{} = row} <- given, integer(key), into: before do
        {key, merged(before[key] || @header, row)}
      end

    rows |> Enum.sort_by(&integer(elem(&1, 0))) |> Enum.take(@headers_max) |> Map.new()
  end

  defp taken(_name, %{} = before, %{} = given), do: merged(before, given)

  defp taken(_name, before, given) when is_list(before) and is_list(given),
    do: Enum.filter(Event.subscribable_types(), &(&1 in given))

  defp taken(_name, before, given)
       when is_binary(before) and is_binary(given) and byte_size(given) <= @text_max,
       do: given

  defp taken(_name, before, _other), do: before

  defp integer(text) do
    with true <- is_binary(text) and byte_size(text) <= 18,
         {number, ""} when number > 0 <- Integer.parse(text),
         do: number,
         else: (_other -> nil)
  end

  @doc "Sets the text of the goal search."
  @spec search(t(), term()) :: t()
  def search(%__MODULE__{search: before} = form, text),
    do: %{form | search: taken("search", before, text)}

  # --- values

  @spec event?(t(), String.t()) :: boolean()
  def event?(form, type), do: type in form.params["events"]

  @doc "The ids of the chosen goals."
  @spec chosen(t()) :: MapSet.t(pos_integer())
  def chosen(%{params: %{"goal" => goals}}),
    do: for({id, "true"} <- goals, into: MapSet.new(), do: String.to_integer(id))

  @spec version(t()) :: non_neg_integer()
  def version(form), do: integer(form.params["version"]) || 0

  @doc "The rows of headers, in the order in which they were added."
  @spec headers(t()) :: [{String.t(), %{String.t() => String.t()}}]
  def headers(form), do: Enum.sort_by(form.params["headers"], &integer(elem(&1, 0)))

  @spec full?(t()) :: boolean()
  def full?(form), do: map_size(form.params["headers"]) >= @headers_max

  @doc "Adds a row if there is room, and returns the key of the last one."
  @spec add_header(t()) :: {t(), String.t()}
  def add_header(form) do
    {last, _row} = form |> headers() |> List.last({"0", nil})
    key = if full?(form), do: last, else: "#{String.to_integer(last) + 1}"
    {update_in(form.params["headers"], &Map.put_new(&1, key, @header)), key}
  end

  @spec remove_header(t(), term()) :: t()
  def remove_header(form, key), do: update_in(form.params["headers"], &Map.delete(&1, key))

  @doc "The URL; `example.com/hook` means https."
  @spec url(t()) :: String.t()
  def url(form) do
    url = String.trim(form.params["url"])
    if url =~ ~r"\A[^\s/:@]+\.[^\s/:@]+(:\d+)?([/?].*)?\z", do: "https://" <> url, else: url
  end

  @doc """
  The attributes of the webhook. `goals` are the site's, or `nil` when they cannot be
  read; chosen goals that no longer exist are left out.
  """
  @spec attributes(t(), [map()] | nil) :: map()
  def attributes(%{params: params} = form, goals) do
    attributes = %{
      name: params["name"],
      url: url(form),
      events: params["events"],
      goals: if(params["goals"] == "some", do: wanted_goals(form, goals), else: :all),
      spike_threshold: wanted(params["spike"], event?(form, "traffic.spike")),
      drop_threshold: wanted(params["drop"], event?(form, "traffic.drop")),
      traffic_min_interval_s: params["interval"],
      # An empty row was added and never filled.
      headers: for({_key, row} <- headers(form), row != @header, do: {row["name"], row["value"]})
    }

    if form.id == nil and params["secret"] != "",
      do: Map.put(attributes, :secret, String.trim(params["secret"])),
      else: attributes
  end

  defp wanted_goals(form, nil), do: form |> chosen() |> Enum.sort()

  defp wanted_goals(form, goals) do
    chosen = for %{id: id} <- goals, MapSet.member?(chosen(form), id), do: id
    # Without a subscription to goals an empty choice is no error.
    if chosen == [] and not event?(form, "goal.completed"), do: :all, else: chosen
  end

  # The threshold of an event that is not subscribed to is not validated.
  defp wanted(_threshold, false), do: nil
  defp wanted(%{"mode" => "notifier"}, true), do: :notifier
  defp wanted(%{"value" => value}, true), do: String.trim(value)

  @doc """
  The goals that match the search, at most `max`, with those first that were chosen when
  the form opened; and the number of further matches.
  """
  @spec shown_goals(t(), [map()], pos_integer()) :: {[map()], non_neg_integer()}
  def shown_goals(form, goals, max) do
    search = form.search |> String.trim() |> String.downcase()
    found = Enum.filter(goals, &String.contains?(String.downcase(&1.name), search))
    {first, others} = Enum.split_with(found, &(&1.id in form.first))
    {shown, more} = Enum.split(first ++ others, max)
    {shown, length(more)}
  end

  # --- errors

  # Attributes in the order of the form, the field that gets the focus, and the params behind
  # each.
  @attributes [
    url: {"webhook-url", ["url"]},
    name: {"webhook-name", ["name"]},
    events: {"webhook-events", ["events", "spike", "drop"]},
    goals: {"webhook-goals", ["goals", "goal", "events"]},
    spike_threshold: {"webhook-spike-value", ["spike", "events"]},
    drop_threshold: {"webhook-drop-value", ["drop", "events"]},
    traffic_min_interval_s: {"webhook-interval", ["interval"]},
    headers: {"webhook-headers", ["headers"]},
    secret: {"webhook-own-secret", ["secret"]}
  ]

  @doc "The field of the first error, in the order of the form."
  @spec first_wrong(map()) :: String.t()
  def first_wrong(errors) do
    Enum.find_value(@attributes, "webhook-form", fn {name, {field, _params}} ->
      is_map_key(errors, name) && field
    end)
  end

  @doc "The errors without those of params that have changed since."
  @spec still(map(), t(), t()) :: map()
  def still(errors, form, before) do
    Map.filter(errors, fn {name, _text} ->
      {_field, params} = @attributes[name] || {nil, []}
      Map.take(form.params, params) == Map.take(before.params, params)
    end)
  end

  @doc "The error of an attribute as a sentence, or `nil`."
  @spec error(map(), atom()) :: String.t() | nil
  def error(errors, name) do
    with text when is_binary(text) <- errors[name], do: Labels.invalid(name, text)
  end
end
