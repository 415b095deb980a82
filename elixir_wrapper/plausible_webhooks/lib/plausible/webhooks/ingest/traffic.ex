defmodule Plausible.Webhooks.Ingest.Traffic do
  # Not seen for so long, a breach may have ended.
  @unseen_ms 900_000

  @moduledoc """
  When a site's traffic crosses a threshold, and when that is over.

  Each webhook has, for each kind, a state that the store keeps:

      armed --- breach ---> firing --- back to normal ---> armed

    * A spike is a breach while `current >= threshold`; current visitors are those
      of the last 300 s. It is over when they are below the threshold by more
      than a tenth of it.
    * A drop is a breach while `current < threshold`; current visitors are those of
      the last 43 200 s (12 hours). It is over when they are above the threshold by
      at least a tenth of it.

  The tenth (rounded down: none for a threshold under 10) keeps traffic that
  hovers at the threshold from firing again and again.

  One breach gives one notice, when it begins; its end gives a `traffic.resolved`
  to webhooks that subscribed to that, and nothing to others. With a minimum
  interval a webhook gets no notice sooner than that after its last one of the
  same kind: a breach that is over by then gives none, one that still holds is
  told then.

  A breach is the same one only as long as somebody is looking. One that was not seen
  for #{div(@unseen_ms, 60_000)} minutes (nothing was evaluated, or alerts of the site were not
  allowed) may have ended meanwhile: what is seen then is a new one. So it is when the
  webhook was switched off and on, when it subscribed anew, and when its threshold
  was changed: it is told of a breach that goes on, by the new threshold.

  A site that has no statistics of 12 hours yet cannot drop. A site of which the
  host says that alerts are not allowed is left alone.

  A webhook with `:notifier` for a threshold follows the host's own notifier: it gets
  a notice whenever `change/4` is called, and none from here, nor a
  `traffic.resolved`.

  ## What a crash does

  A breach is first put on record with the alert's id, then the delivery is
  accepted, under an id made from the alert's, then the notice is put on record. At
  the next evaluation a breach without a notice is told again, which changes
  nothing if the delivery had been accepted: it is the same one. It tells the
  figures of when it began, also when it is over by then; after a day it is not told
  any more. The delivery of a `traffic.resolved` may come twice; both have the
  alert's id.

  ## The baseline

  The visitors of the same window 7, 14, 21 and 28 days earlier by the clocks of the
  site's time zone (in UTC where there is no time zone database,
  `Calendar.put_time_zone_database/1`), as far as the site has statistics of then, and
  their mean. The host is asked for it, and for the top sources and pages, only when
  a threshold is crossed. What it cannot say within
  4 seconds is missing; the notice goes out all the same.
  """

  alias Plausible.Webhooks.{Event, Store}
  alias Plausible.Webhooks.Ingest.{Directory, Payload}

  @spike_window_s 300
  @drop_window_s 43_200
  # So often it is put on record that a breach was seen.
  @note_ms 300_000
  @late_ms 86_400_000

  @type kind :: :spike | :drop
  @typedoc """
  One delivery to be accepted. `id` becomes the `webhook-id`; accepting the same
  id twice must change nothing. `:disabled`: to be kept as cancelled.
  """
  @type notice :: %{
          id: String.t(),
          webhook_id: String.t(),
          status: :active | :disabled,
          event: Event.t()
        }
  @typedoc """
  What an evaluation works with. `deliver` returns `:ok` when the delivery is
  committed. It must not depend on being called from a certain process.
  """
  @type context :: %{
          required(:instance) => atom(),
          required(:deliver) => (notice() -> :ok | {:error, term()}),
          optional(:concurrency) => pos_integer(),
          optional(:site_timeout_ms) => pos_integer(),
          optional(:round_timeout_ms) => pos_integer()
        }
  @typedoc "What an evaluation did. `failed` are sites, `incomplete` notices without baseline or tops."
  @type summary :: %{
          sites: non_neg_integer(),
          fired: non_neg_integer(),
          resolved: non_neg_integer(),
          failed: [{integer(), term()}],
          incomplete: non_neg_integer()
        }

  @doc false
  defdelegate child_spec(opts), to: Plausible.Webhooks.Ingest.Traffic.Evaluator

  @doc "Starts the evaluator of an instance: `Plausible.Webhooks.Ingest.Traffic.Evaluator`."
  @spec start_link(keyword()) :: GenServer.on_start()
  defdelegate start_link(opts), to: Plausible.Webhooks.Ingest.Traffic.Evaluator

  # --- the state machine

  @doc "Whether this many visitors are a breach of the threshold."
  @spec breach?(kind(), pos_integer(), non_neg_integer()) :: boolean()
  def breach?(:spike, threshold, current), do: current >= threshold
  def breach?(:drop, threshold, current), do: current < threshold

  @doc """
  Whether this many visitors end a breach.

      iex> alias Plausible.Webhooks.Ingest.Traffic
      iex> {Traffic.over?(:spike, 300, 270), Traffic.over?(:spike, 300, 269)}
      {false, true}
      iex> {Traffic.over?(:drop, 1, 0), Traffic.over?(:drop, 1, 1)}
      {false, true}
  """
  @spec over?(kind(), pos_integer(), non_neg_integer()) :: boolean()
  def over?(:spike, threshold, current), do: current < threshold - div(threshold, 10)
  def over?(:drop, threshold, current), do: current >= threshold + div(threshold, 10)

  @doc """
  What is to be done about a webhook: `:fire` a new alert, `:notify` of one that is
  on record without a notice, `:resolve`, `:note` that the breach goes on, or
  `:nothing`.
  """
  @spec decide(kind(), pos_integer(), non_neg_integer(), Store.alert_state() | nil, map()) ::
          :nothing | :fire | :notify | :resolve | :note
  def decide(kind, threshold, current, state, %{now_ms: now_ms} = limits) do
    case standing(state, threshold, now_ms) do
      :told ->
        cond do
          over?(kind, threshold, current) -> :resolve
          now_ms - seen_at_ms(state) >= @note_ms -> :note
          true -> :nothing
        end

      :untold ->
        :notify

      :none ->
        begin(kind, threshold, current, state, limits)

      # Nobody knows of it any more. If there is none now, that one has ended.
      :doubtful ->
        if breach?(kind, threshold, current),
          do: begin(kind, threshold, current, state, limits),
          else: :resolve
    end
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

  @doc false
  # Is this kind evaluated for the webhook?
  @spec watched?(map(), kind()) :: boolean()
  def watched?(webhook, kind), do: webhook.enabled and threshold(webhook, kind) != nil

  @doc false
  @spec threshold(map(), kind()) :: pos_integer() | nil
  def threshold(webhook, kind) do
    threshold = subscribed(webhook, kind)
    if is_integer(threshold), do: threshold
  end

  @doc false
  # Does the webhook get this kind from the host's own notifier?
  @spec follows?(map(), kind()) :: boolean()
  def follows?(webhook, kind), do: subscribed(webhook, kind) == :notifier

  defp subscribed(webhook, kind) do
    threshold = if kind == :spike, do: webhook.spike_threshold, else: webhook.drop_threshold
    if "traffic.#{kind}" in webhook.events, do: threshold
  end

  # A notice from the future is a clock that was set back: it holds up nothing.
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

  # --- evaluation

  @doc """
  Evaluates, in the process `Plausible.Webhooks.Ingest.Traffic.Evaluator` of the instance,
  every site that has webhooks for traffic, and returns when the notices are
  accepted. `now_ms` is the time to be taken for now. `{:error, :taken}`: another
  node evaluates in this moment.
  """
  @spec evaluate(atom(), integer()) ::
          {:ok, summary()} | {:error, :not_running | :taken | term()}
  defdelegate evaluate(instance, now_ms), to: Plausible.Webhooks.Ingest.Traffic.Evaluator

  @doc """
  Evaluates the given sites, at most `concurrency` (4) at a time, each for at most
  `site_timeout_ms` (20 000); after `round_timeout_ms` (300 000) no further one is
  begun. A host that fails for one site spoils that site only.
  """
  @spec evaluate_sites(context(), [{integer(), [Directory.traffic_webhook()]}], integer(), [pid()]) ::
          summary()
  defdelegate evaluate_sites(context, sites, now_ms, callers),
    to: Plausible.Webhooks.Ingest.Traffic.Round,
    as: :evaluate

  @doc """
  The mean of the samples, and the change against it in percent (`nil` against 0).

      iex> Plausible.Webhooks.Ingest.Traffic.compare(512, [101, 120])
      %{visitors: 110.5, samples: [101, 120], change_percent: 363.3}
  """
  @spec compare(non_neg_integer(), [non_neg_integer(), ...]) :: Payload.baseline()
  def compare(current, samples) do
    mean = Enum.sum(samples) / length(samples)
    change = if mean > 0, do: Float.round((current - mean) / mean * 100, 1)
    %{visitors: Float.round(mean, 1), samples: samples, change_percent: change}
  end

  # --- the host's own notifier

  @doc """
  The host's notifier has found a spike or a drop of its own: tells the site's
  webhooks that follow it. `site` is the site's id, or a map with `:id`.

  `info` holds `:current_visitors` and `:threshold`, and if known `:sources` and
  `:pages` (as of `Plausible.Webhooks.Host.breakdown/4`, or rows with `:dimensions`
  and `:metrics`) and `:at` (`DateTime` or `NaiveDateTime` in UTC). Returns how many notices were
  accepted; never raises. `{:error, {:invalid, what}}` names what is of the wrong
  type: `:kind`, `:site`, `:info`, or a part of `info`.
  """
  @spec change(context(), kind(), integer() | map(), map()) ::
          {:ok, non_neg_integer()} | {:error, term()}
  def change(context, kind, %{id: site_id}, info), do: change(context, kind, site_id, info)

  def change(context, kind, site_id, info) do
    cond do
      kind not in [:spike, :drop] -> {:error, {:invalid, :kind}}
      not is_integer(site_id) -> {:error, {:invalid, :site}}
      wrong = wrong(info) -> {:error, {:invalid, wrong}}
      true -> Plausible.Webhooks.Ingest.Traffic.Follower.change(context, kind, site_id, info)
    end
  end

  # Receivers are promised whole numbers, whatever a host calls with.
  defp wrong(%{current_visitors: current} = info) do
    cond do
      not visitors?(current) -> :current_visitors
      not visitors?(info[:threshold]) -> :threshold
      not at?(info[:at]) -> :at
      true -> nil
    end
  end

  defp wrong(%{}), do: :current_visitors
  defp wrong(_info), do: :info

  defp at?(nil), do: true
  defp at?(%NaiveDateTime{}), do: true
  defp at?(%DateTime{}), do: true
  defp at?(_other), do: false

  @doc false
  @spec visitors?(term()) :: boolean()
  def visitors?(count), do: is_integer(count) and count >= 0
end
