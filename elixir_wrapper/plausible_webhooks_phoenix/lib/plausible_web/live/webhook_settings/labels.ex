defmodule PlausibleWeb.Live.WebhookSettings.Labels do
  @moduledoc false
  # Names that more than one view shows: webhooks, event types, attributes, counts, times.

  alias Plausible.Webhooks.{Delivery, Native, Webhook}
  alias PlausibleWeb.Live.WebhookSettings.Format

  @types %{
    "goal.completed" => {"Goal completed", "A visitor completed a goal."},
    "traffic.spike" =>
      {"Traffic spike", "The visitors of the last 5 minutes reached a number that you choose."},
    "traffic.drop" =>
      {"Traffic drop", "The visitors of the last 12 hours fell below a number that you choose."},
    "traffic.resolved" =>
      {"Traffic back to normal",
       "A spike or drop is over. Sent only if you choose a spike or drop with a number of visitors."},
    "webhook.test" => {"Test", "A short message that says that it works."}
  }

  @attributes %{
    name: "The description",
    url: "The URL",
    spike_threshold: "The spike's number of visitors",
    drop_threshold: "The drop's number of visitors",
    traffic_min_interval_s: "The interval",
    headers: "Extra headers",
    secret: "The secret",
    enabled: "The state"
  }

  @overlaps [
    {0, "not at all (it has leaked)"},
    {3_600, "1 hour"},
    {21_600, "6 hours"},
    {86_400, "24 hours"},
    {259_200, "3 days"},
    {604_800, "7 days"}
  ]

  @intervals [
    {0, "as often as it happens"},
    {3_600, "in 1 hour"},
    {21_600, "in 6 hours"},
    {43_200, "in 12 hours"},
    {86_400, "in 24 hours"},
    {604_800, "in 7 days"}
  ]

  @doc "The name of a webhook: its description, or the host of its URL."
  @spec name(Webhook.t()) :: String.t()
  def name(%{name: ""} = webhook), do: Webhook.destination(webhook) || "?"
  def name(%{name: name}), do: name

  @doc """
  The names of the webhooks by id. Where several have the same name, each has the path of its
  URL besides.
  """
  @spec names([Webhook.t()]) :: %{String.t() => String.t()}
  def names(webhooks) do
    count = Enum.frequencies_by(webhooks, &name/1)

    Map.new(webhooks, fn webhook ->
      name = name(webhook)
      {webhook.id, if(count[name] > 1, do: name <> path(webhook), else: name)}
    end)
  end

  @doc "The path of the URL, without the query, which may hold a token."
  @spec path(Webhook.t()) :: String.t()
  def path(%{url: url}), do: URI.parse(url).path || ""

  @doc "The name of an event type; an unknown type is its own name."
  @spec type(String.t()) :: String.t()
  def type(type), do: @types |> Map.get(type, {type, ""}) |> elem(0)

  @doc "What a delivery is about, from its body: the goal and the page, or the alert's figure."
  @spec about(Delivery.t()) :: String.t()
  def about(%{body: body}) when is_binary(body) do
    case Native.decode(body) do
      {:ok, %{"data" => %{} = data}} -> about_data(data)
      _no_event -> ""
    end
  end

  def about(_no_body), do: ""

  defp about_data(%{"goal" => %{"name" => name}, "completion" => %{"pathname" => page}}),
    do: "#{name} · #{page}"

  defp about_data(%{"current_visitors" => visitors, "threshold" => threshold})
       when is_integer(visitors) and is_integer(threshold),
       do: "#{count(visitors, "visitor")}, threshold #{Format.number(threshold)}"

  defp about_data(%{"current_visitors" => visitors}) when is_integer(visitors),
    do: count(visitors, "visitor")

  defp about_data(_other), do: ""

  @spec type_help(String.t()) :: String.t()
  def type_help(type), do: @types |> Map.get(type, {type, ""}) |> elem(1)

  @doc """
  An error of an attribute as a sentence, in the words of the form: the API names types and
  values that the form has other words for.
  """
  @spec invalid(atom() | String.t(), String.t()) :: String.t()
  def invalid(:events, "traffic.resolved needs a threshold" <> _),
    do: "“Traffic back to normal” needs a spike or a drop with a number of visitors."

  def invalid(:events, "traffic.resolved needs" <> _),
    do: "“Traffic back to normal” needs a spike or a drop."

  def invalid(:events, _text), do: "Choose at least one event."
  def invalid(:goals, "must be at most" <> _ = text), do: "Goals #{text}."
  def invalid(:goals, _text), do: "Choose at least one goal, or all goals."

  def invalid(kind, "is required" <> _) when kind in [:spike_threshold, :drop_threshold],
    do: "Enter a number of visitors."

  def invalid(:headers, "header " <> _ = text), do: "Extra headers: #{text}."

  def invalid(name, text) do
    text = String.replace_suffix(text, ", or notifier", "")
    "#{Map.get(@attributes, name, "What was given")} #{text}."
  end

  @doc """
  A count with its noun.

      iex> alias PlausibleWeb.Live.WebhookSettings.Labels
      iex> {Labels.count(1, "visitor"), Labels.count(1_200, "delivery", "deliveries")}
      {"1 visitor", "1,200 deliveries"}
  """
  @spec count(integer(), String.t(), String.t() | nil) :: String.t()
  def count(count, noun, plural \\ nil)
  def count(1, noun, _plural), do: "1 #{noun}"
  def count(count, noun, plural), do: "#{Format.number(count)} #{plural || noun <> "s"}"

  @doc "A count of deliveries, with \"more than\" if there are more."
  @spec deliveries(non_neg_integer(), boolean()) :: String.t()
  def deliveries(count, more? \\ false)
  def deliveries(count, false), do: count(count, "delivery", "deliveries")
  def deliveries(count, true), do: "more than #{Format.number(count)} deliveries"

  @doc "For how long an old secret may go on signing: `{seconds, text}`."
  @spec overlaps() :: [{non_neg_integer(), String.t()}]
  def overlaps, do: @overlaps

  @doc "The intervals of alerts: `{seconds, text}`, with the given one among them."
  @spec intervals(String.t()) :: [{non_neg_integer(), String.t()}]
  def intervals(text) do
    case Integer.parse(text) do
      {seconds, ""} when seconds > 0 ->
        Enum.sort(
          Enum.uniq_by(
            @intervals ++ [{seconds, "in #{Format.span(seconds * 1_000)}"}],
            &elem(&1, 0)
          )
        )

      _other ->
        @intervals
    end
  end
end
