defmodule Plausible.Webhooks.PromEx do
  @moduledoc """
  A plugin of [PromEx](https://hexdocs.pm/prom_ex): the events of
  `Plausible.Webhooks.Telemetry` as metrics for Prometheus.

      defmodule MyApp.PromEx do
        use PromEx, otp_app: :my_app

        @impl true
        def plugins, do: [PromEx.Plugins.Beam, Plausible.Webhooks.PromEx]
      end

      {Plausible.Webhooks, observers: [{Plausible.Webhooks.Telemetry, []}], ...}

  Options (`{Plausible.Webhooks.PromEx, poll_rate: 10_000}`): `:instance` (default
  `Plausible.Webhooks`) and `:poll_rate` of the node's gauges in ms (default 10 000). The
  queue's gauges are polled every minute.

  | metric | type | tags |
  |---|---|---|
  | `plausible_webhooks_attempt_duration_milliseconds` | distribution | `status_class` |
  | `plausible_webhooks_attempts_total` | counter | `status_class`, `error` |
  | `plausible_webhooks_deliveries_finished_total` | counter | `state` |
  | `plausible_webhooks_deliveries_accepted_total` | sum | |
  | `plausible_webhooks_deliveries_dropped_total` | sum | `reason` |
  | `plausible_webhooks_deliveries_given_back_total` | sum | |
  | `plausible_webhooks_engine_slow_total` | counter | |
  | `plausible_webhooks_store_failures_total` | counter | `operation` |
  | `plausible_webhooks_webhooks_disabled_total` | counter | `reason` |
  | `plausible_webhooks_node_outbox`, `_journal`, `_waiting`, `_in_flight` | gauge | |
  | `plausible_webhooks_queue_pending`, `_parked`, `_held`, `_overdue_milliseconds` | gauge | |

  No tag names a site, a webhook or a host: there may be too many.
  """

  # PromEx is optional, and need not be there when this module is compiled. A plugin is a
  # module with these three functions.
  @compile {:no_warn_undefined,
            [PromEx.MetricTypes.Event, PromEx.MetricTypes.Polling, Telemetry.Metrics]}

  alias PromEx.MetricTypes.{Event, Polling}
  alias Telemetry.Metrics

  @prefix [:plausible, :webhooks]
  @poll_rate_ms 10_000
  @queue_rate_ms 60_000
  @buckets_ms [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 15_000]

  @doc "Counters and distributions of events."
  @spec event_metrics(keyword()) :: term()
  def event_metrics(_options),
    do: [Event.build(:plausible_webhooks_event_metrics, attempts() ++ counts())]

  @doc "Gauges of this node, and of the queue over all nodes."
  @spec polling_metrics(keyword()) :: term()
  def polling_metrics(options) do
    instance = Keyword.get(options, :instance, Plausible.Webhooks)
    poll_rate_ms = Keyword.get(options, :poll_rate, @poll_rate_ms)
    measure = &{Plausible.Webhooks.Telemetry, &1, [instance]}

    node =
      gauges(
        [:node, :measured],
        for(name <- [:outbox, :journal, :waiting, :in_flight], do: {[:node, name], name})
      )

    queue =
      gauges([:queue, :measured], [
        {[:queue, :pending], :pending},
        {[:queue, :parked], :parked},
        {[:queue, :held], :held},
        {[:queue, :overdue, :milliseconds], :overdue_ms}
      ])

    [
      Polling.build(:plausible_webhooks_node_metrics, poll_rate_ms, measure.(:measure), node),
      Polling.build(:plausible_webhooks_queue_metrics, @queue_rate_ms, measure.(:queue), queue)
    ]
  end

  @doc false
  @spec manual_metrics(keyword()) :: []
  def manual_metrics(_options), do: []

  defp attempts do
    [
      Metrics.distribution(@prefix ++ [:attempt, :duration, :milliseconds],
        event_name: @prefix ++ [:attempt, :stop],
        measurement: :duration,
        unit: {:native, :millisecond},
        tags: [:status_class],
        reporter_options: [buckets: @buckets_ms],
        description: "The duration of attempts."
      ),
      counter(
        [:attempts],
        [:attempt, :stop],
        [:status_class, :error],
        "Attempts by their result."
      ),
      counter([:deliveries, :finished], [:delivery, :stop], [:state], "Deliveries that ended.")
    ]
  end

  defp counts do
    [
      sum([:deliveries, :accepted], [:deliveries, :accepted], [], "Deliveries accepted."),
      sum([:deliveries, :dropped], [:deliveries, :dropped], [:reason], "Deliveries dropped."),
      sum([:deliveries, :given_back], [:engine, :overloaded], [], "Given back to the store."),
      sum([:engine, :slow], [:engine, :slow], [], "Slices above 250 ms of processor time."),
      sum([:store, :failures], [:store, :failed], [:operation], "Failures of the store."),
      sum([:webhooks, :disabled], [:webhook, :disabled], [:reason], "Webhooks disabled.")
    ]
  end

  defp counter(name, event, tags, description) do
    Metrics.counter(@prefix ++ name ++ [:total],
      event_name: @prefix ++ event,
      tags: tags,
      description: description
    )
  end

  defp sum(name, event, tags, description) do
    Metrics.sum(@prefix ++ name ++ [:total],
      event_name: @prefix ++ event,
      measurement: :count,
      tags: tags,
      description: description
    )
  end

  defp gauges(event, names) do
    for {name, measurement} <- names do
      Metrics.last_value(@prefix ++ name,
        event_name: @prefix ++ event,
        measurement: measurement,
        description: "See Plausible.Webhooks.Telemetry."
      )
    end
  end
end
