defmodule Plausible.Webhooks.Ingest.Traffic.Rules do
  @moduledoc false
  # Decides when traffic is a breach, when the breach is over, and what to do. Pure functions;
  # `Plausible.Webhooks.Ingest.Traffic` explains the rules.

  alias Plausible.Webhooks.Ingest.Payload
  alias Plausible.Webhooks.Store

  @spike_window_s 300
  @drop_window_s 43_200
  # A breach that nobody has seen for this long may have ended.
  @unseen_ms 900_000
  # How often it is recorded that a breach was seen.
  @note_ms 300_000
  # Visitors have to be back to normal for this long.
  @calm_ms 600_000
  @late_ms 86_400_000

  @type kind :: :spike | :drop

  @doc "Whether this many visitors are a breach of the threshold."
  @spec breach?(kind(), pos_integer(), non_neg_integer()) :: boolean()
  def breach?(:spike, threshold, current), do: current >= threshold
  def breach?(:drop, threshold, current), do: current < threshold

  @doc """
  Whether this many visitors are back to normal: away from the threshold by a tenth of it, and
  by one standard deviation of as many visitors who come by chance.

      iex> alias Plausible.Webhooks.Ingest.Traffic.Rules
      iex> {Rules.calm?(:spike, 300, 270), Rules.calm?(:spike, 300, 269)}
      {false, true}
      iex> {Rules.calm?(:spike, 25, 20), Rules.calm?(:spike, 25, 19)}
      {false, true}
      iex> {Rules.calm?(:drop, 1, 0), Rules.calm?(:drop, 1, 2)}
      {false, true}
  """
  @spec calm?(kind(), pos_integer(), non_neg_integer()) :: boolean()
  # A spike of one visitor can only be over with none.
  def calm?(:spike, threshold, current), do: current < max(threshold - margin(threshold), 1)
  def calm?(:drop, threshold, current), do: current >= threshold + margin(threshold)

  defp margin(threshold), do: max(div(threshold, 10), round(:math.sqrt(threshold)))

  @doc """
  What to do for a webhook: `:fire` a new alert, `:notify` of an alert that is on record
  without a notice, `:resolve`, `{:note, changes}` of the state, or `:nothing`.
  """
  @spec decide(kind(), pos_integer(), non_neg_integer(), Store.alert_state() | nil, map()) ::
          :nothing | :fire | :notify | :resolve | {:note, map()}
  def decide(kind, threshold, current, state, %{now_ms: now_ms} = limits) do
    case standing(state, threshold, now_ms) do
      :told ->
        if calm?(kind, threshold, current), do: calm(state, now_ms), else: goes_on(state, now_ms)

      :untold ->
        :notify

      :none ->
        begin(kind, threshold, current, state, limits)

      # Nobody has looked for too long. If there is no breach now, that one has ended.
      :doubtful ->
        if breach?(kind, threshold, current),
          do: begin(kind, threshold, current, state, limits),
          else: :resolve
    end
  end

  # Traffic near the threshold crosses it again and again.
  defp calm(%{calm_since_ms: since_ms}, now_ms) do
    cond do
      # Or the clock was set back.
      since_ms == nil or now_ms < since_ms ->
        {:note, %{calm_since_ms: now_ms, seen_at_ms: now_ms}}

      now_ms - since_ms >= @calm_ms ->
        :resolve

      true ->
        :nothing
    end
  end

  defp goes_on(state, now_ms) do
    if state.calm_since_ms != nil or now_ms - seen_at_ms(state) >= @note_ms,
      do: {:note, %{calm_since_ms: nil, seen_at_ms: now_ms}},
      else: :nothing
  end

  defp begin(kind, threshold, current, state, %{now_ms: now_ms, min_interval_s: interval_s}) do
    if breach?(kind, threshold, current) and not too_soon?(state, now_ms, interval_s * 1_000),
      do: :fire,
      else: :nothing
  end

  defp standing(%{state: :firing} = state, threshold, now_ms) do
    same? = state.threshold in [nil, threshold]

    case state do
      %{notified_at_ms: nil, changed_at_ms: at_ms} ->
        if same? and now_ms - at_ms < @late_ms, do: :untold, else: :none

      _told ->
        if same? and now_ms - seen_at_ms(state) < @unseen_ms, do: :told, else: :doubtful
    end
  end

  defp standing(_armed, _threshold, _now_ms), do: :none

  defp seen_at_ms(state), do: max(state.seen_at_ms || 0, state.notified_at_ms)

  @doc "Whether this kind is evaluated for the webhook."
  @spec watched?(map(), kind()) :: boolean()
  def watched?(webhook, kind), do: webhook.enabled and threshold(webhook, kind) != nil

  @doc "The threshold that is evaluated for the webhook, if there is one."
  @spec threshold(map(), kind()) :: pos_integer() | nil
  def threshold(webhook, kind) do
    threshold = subscribed(webhook, kind)
    if is_integer(threshold), do: threshold
  end

  @doc "Whether the webhook gets this kind from the host's own notifier."
  @spec follows?(map(), kind()) :: boolean()
  def follows?(webhook, kind), do: subscribed(webhook, kind) == :notifier

  defp subscribed(webhook, kind) do
    threshold = if kind == :spike, do: webhook.spike_threshold, else: webhook.drop_threshold
    if "traffic.#{kind}" in webhook.events, do: threshold
  end

  # A notice from the future means that the clock was set back; it delays nothing.
  defp too_soon?(%{notified_at_ms: at_ms}, now_ms, interval_ms) when is_integer(at_ms),
    do: now_ms >= at_ms and now_ms - at_ms < interval_ms

  defp too_soon?(_never, _now_ms, _interval_ms), do: false

  @doc "The seconds in which visitors count as current."
  @spec window_s(kind()) :: pos_integer()
  def window_s(:spike), do: @spike_window_s
  def window_s(:drop), do: @drop_window_s

  @doc "The window of current visitors that ends now."
  @spec window(kind(), integer()) :: Plausible.Webhooks.Host.window()
  def window(kind, now_ms), do: {now_ms - window_s(kind) * 1_000, now_ms}

  @doc """
  The mean of the samples, and the change against it in percent (`nil` against 0).

      iex> Plausible.Webhooks.Ingest.Traffic.Rules.compare(512, [101, 120])
      %{visitors: 110.5, samples: [101, 120], change_percent: 363.3}
  """
  @spec compare(non_neg_integer(), [non_neg_integer(), ...]) :: Payload.baseline()
  def compare(current, samples) do
    mean = Enum.sum(samples) / length(samples)
    change = if mean > 0, do: Float.round((current - mean) / mean * 100, 1)
    %{visitors: Float.round(mean, 1), samples: samples, change_percent: change}
  end

  @doc "Whether this is a count of visitors."
  @spec visitors?(term()) :: boolean()
  def visitors?(count), do: is_integer(count) and count >= 0
end
