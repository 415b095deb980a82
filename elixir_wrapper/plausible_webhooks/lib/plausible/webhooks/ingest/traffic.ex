defmodule Plausible.Webhooks.Ingest.Traffic do
  @moduledoc """
  When a site's traffic crosses a threshold, and when that is over.

  Each webhook has, for each kind, a state that the store keeps:

      armed --- breach ---> firing --- back to normal ---> armed

    * A spike is a breach while `current >= threshold`; current visitors are those
      of the last 300 s.
    * A drop is a breach while `current < threshold`; current visitors are those of
      the last 43 200 s (12 hours).

  A breach is over when visitors have been back to normal for ten minutes: away from the
  threshold by a tenth of it, and by its square root, which is one standard deviation of
  visitors who come by chance. That keeps traffic that hovers at the threshold from firing
  again and again.

  A breach gives one notice, when it begins. Its end gives a `traffic.resolved` to webhooks
  that subscribed to that. Between two notices of the same kind to one webhook there is at
  least its minimum interval (12 hours by default). A breach that begins sooner gives its notice
  at the end of the interval, and none if the breach is over by then.

  A breach that was not seen for 15 minutes (nothing was evaluated, or the site's alerts were
  not allowed) may have ended, so the next breach that is seen counts as a new one. The same
  holds when a webhook was switched off and on, subscribed again, or got another threshold.

  A site without statistics for the last 12 hours cannot have a drop. A site whose alerts the
  host does not allow is not evaluated.

  A webhook whose threshold is `:notifier` follows the host's own notifier. It gets a notice
  whenever `change/4` is called, and neither a notice nor a `traffic.resolved` from here.

  ## After a crash

  First the breach is recorded with the alert's id. Then the delivery is accepted under an id
  made from the alert's id. Then the notice is recorded. The next evaluation repeats the notice
  of a breach that has no recorded notice. If its delivery was accepted before, that changes
  nothing, because the id is the same. The notice has the figures of the breach's beginning,
  even if the breach is over by then. A breach older than a day gives no notice any more. A
  `traffic.resolved` may be delivered twice, both times with the alert's id.

  ## The baseline

  The baseline is the mean of the visitors in the same window 7, 14, 21 and 28 days earlier, as
  far as the site has statistics. Days are those of the site's time zone, or of UTC without a
  time zone database (`Calendar.put_time_zone_database/1`). The host is asked for the baseline,
  and for top sources and pages, only when a threshold is crossed. If the host takes longer
  than 4 seconds, the notice is sent without them.
  """

  alias Plausible.Webhooks.Ingest.Traffic.{Evaluator, Follower, Round, Rules}

  @doc """
  Evaluates every site that has webhooks for traffic, in the instance's
  `Plausible.Webhooks.Ingest.Traffic.Evaluator`, and returns when the notices are accepted.
  `now_ms` counts as the present time. `{:error, :taken}`: another node is evaluating.
  """
  @spec evaluate(atom(), integer()) ::
          {:ok, Round.summary()} | {:error, :not_running | :taken | term()}
  defdelegate evaluate(instance, now_ms), to: Evaluator

  # --- the host's own notifier

  @doc """
  Sends a spike or a drop that the host's own notifier has found to the site's webhooks that
  follow it. `site` is the site's id, or a map with `:id`.

  `info` holds `:current_visitors` and `:threshold`, and if known `:sources` and `:pages`
  (as `c:Plausible.Webhooks.Host.breakdown/4` returns them, or rows with `:dimensions` and
  `:metrics`) and `:at` (a `DateTime`, or a `NaiveDateTime` in UTC). Returns the number of
  notices accepted; never raises. `{:error, {:invalid, what}}` names what has the wrong
  type: `:kind`, `:site`, `:info`, or a part of `info`.
  """
  @spec change(Round.context(), Rules.kind(), integer() | map(), map()) ::
          {:ok, non_neg_integer()} | {:error, term()}
  def change(context, kind, %{id: site_id}, info), do: change(context, kind, site_id, info)

  def change(context, kind, site_id, info) do
    cond do
      kind not in [:spike, :drop] -> {:error, {:invalid, :kind}}
      not is_integer(site_id) -> {:error, {:invalid, :site}}
      wrong = wrong(info) -> {:error, {:invalid, wrong}}
      true -> Follower.change(context, kind, site_id, info)
    end
  end

  # Receivers are promised whole numbers, whatever a host calls with.
  defp wrong(%{current_visitors: current} = info) do
    cond do
      not Rules.visitors?(current) -> :current_visitors
      not Rules.visitors?(info[:threshold]) -> :threshold
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
end
