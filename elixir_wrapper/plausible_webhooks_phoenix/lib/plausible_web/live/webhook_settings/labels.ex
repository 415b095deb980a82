defmodule PlausibleWeb.Live.WebhookSettings.Labels do
  @moduledoc false
  # Names that more than one view shows: event types, states, attributes, counts, times.

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
    "webhook.test" => {"Test", "Only a greeting."}
  }

  @states %{
    pending: "Sending",
    parked: "Waiting",
    delivered: "Delivered",
    failed: "Failed",
    cancelled: "Cancelled"
  }

  @attributes %{
    name: "The description",
    url: "The URL",
    events: "Events",
    goals: "Goals",
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

  @doc "The name of an event type; an unknown type is its own name."
  @spec type(String.t()) :: String.t()
  def type(type), do: @types |> Map.get(type, {type, ""}) |> elem(0)

  @spec type_help(String.t()) :: String.t()
  def type_help(type), do: @types |> Map.get(type, {type, ""}) |> elem(1)

  @doc "The name of a delivery's state."
  @spec state(atom()) :: String.t()
  def state(state), do: Map.fetch!(@states, state)

  @doc "An error of an attribute as a sentence. Errors of headers name the header."
  @spec invalid(atom() | String.t(), String.t()) :: String.t()
  def invalid(:headers, "header " <> _ = text), do: "Extra headers: #{text}."
  def invalid(name, text), do: "#{Map.get(@attributes, name, "What was given")} #{text}."

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
  @spec intervals(term()) :: [{non_neg_integer(), String.t()}]
  def intervals(seconds) do
    if is_integer(seconds) and seconds > 0 and not List.keymember?(@intervals, seconds, 0),
      do: Enum.sort([{seconds, "in #{Format.span(seconds * 1_000)}"} | @intervals]),
      else: @intervals
  end
end
