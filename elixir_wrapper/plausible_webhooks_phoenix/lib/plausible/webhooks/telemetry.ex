defmodule Plausible.Webhooks.Telemetry do
  @moduledoc """
  Emits `:telemetry` events.

      {Plausible.Webhooks, observers: [{Plausible.Webhooks.Telemetry, []}], ...}

      :telemetry.attach(
        "webhooks-log",
        [:plausible, :webhooks, :attempt, :stop],
        fn _event, %{duration: duration}, metadata, _config ->
          ms = System.convert_time_unit(duration, :native, :millisecond)
          IO.puts("\#{metadata.destination} answered \#{metadata.status_class} after \#{ms} ms")
        end,
        nil
      )

  Events are emitted after the fact, by a process of their own
  (`Plausible.Webhooks.Observer`): a slow handler loses events, not deliveries.
  `Plausible.Webhooks.Updates` informs live pages.

  ## Events

  All metadata have the `instance`. No event has a URL, a secret, a header or a body; of a
  URL there is only the host name, as `destination`. Durations are in native time units.

  | event | measurements | metadata |
  |---|---|---|
  | `[:plausible, :webhooks, :attempt, :stop]` | `duration`, and where it is known `dns`, `connect`, `tls`, `first_byte` (durations) | `site_id`, `webhook_id`, `delivery_id`, `destination`, `number`, `state`, `status`, `status_class` (`"2xx"` to `"5xx"`, `"none"` without an answer), `error` |
  | `[:plausible, :webhooks, :delivery, :stop]` | `attempts` | `site_id`, `webhook_id`, `delivery_id`, `destination`, `state` (`:delivered`, `:failed`, `:cancelled`), `status`, `status_class`, `error` |
  | `[:plausible, :webhooks, :deliveries, :accepted]` | `count` | |
  | `[:plausible, :webhooks, :deliveries, :dropped]` | `count` | `reason`: `:outbox_full`, `:site_share`, `:fan_out`, `:refused_by_store`, `:payload`, `:malformed_event`, `:hook_error`, `:stopping` |
  | `[:plausible, :webhooks, :engine, :overloaded]` | `count` of deliveries given back to the store | |
  | `[:plausible, :webhooks, :engine, :slow]` | `count` (1), `took_ms`: the processor time, above 250 ms, that a webhook took from all others at once | `webhook_id` (`nil`: several), `site_id` |
  | `[:plausible, :webhooks, :store, :stop]` | `duration` | `operation` (a function of `Plausible.Webhooks.Store`), `error` (`nil` if it succeeded) |
  | `[:plausible, :webhooks, :store, :failed]` | `count` (1) | `operation`, `reason` |
  | `[:plausible, :webhooks, :cluster, :failed]` | `count` (1) | `reason` |
  | `[:plausible, :webhooks, :webhook, :changed]` | `count` (1) | `site_id`, `webhook_id`, `change` |
  | `[:plausible, :webhooks, :webhook, :failing]` | `count` (1) | `site_id`, `webhook_id`, `destination`: an attempt failed, and the one before did not |
  | `[:plausible, :webhooks, :webhook, :recovered]` | `count` (1) | the same: an attempt succeeded, and the one before did not |
  | `[:plausible, :webhooks, :webhook, :disabled]` | `count` (1), `failing_for_ms` (0 unless `:failing`) | `site_id`, `webhook_id`, `destination`, `reason`: `:gone`, `:failing`, `:costly` |
  | `[:plausible, :webhooks, :node, :measured]` | `outbox`, `journal`, `waiting`, `in_flight`, `dropped`, `refused`, `notices_dropped` | |
  | `[:plausible, :webhooks, :queue, :measured]` | `pending`, `parked`, `held`, `delivered`, `failed`, `cancelled`, `overdue_ms` | |

  The last two are measurements, taken at intervals. `measure/1` measures this node:
  deliveries that wait for their commit (`outbox`), attempts that wait to be recorded
  (`journal`), deliveries in the engine (`waiting`, `in_flight`), and what was lost since the
  start. `queue/1` measures the store's queue over all nodes. A child of the host's
  supervisor takes both,

      {Plausible.Webhooks.Telemetry, instance: Plausible.Webhooks, every_ms: 10_000}

  as do `:telemetry_poller` (`measurements: [{Plausible.Webhooks.Telemetry, :measure, []}]`)
  and `Plausible.Webhooks.PromEx`.
  """

  @behaviour Plausible.Webhooks.Observer

  use GenServer

  @every_ms 10_000
  @queue_every_ms 60_000
  @prefix [:plausible, :webhooks]
  @reason_depth 3

  # The telemetry event of each other event of an observer, and its metadata.
  @counted %{
    deliveries_accepted: {[:deliveries, :accepted], []},
    deliveries_dropped: {[:deliveries, :dropped], [:reason]},
    engine_overloaded: {[:engine, :overloaded], []},
    engine_slow: {[:engine, :slow], [:site_id, :webhook_id]},
    store_failed: {[:store, :failed], [:operation, :reason]},
    cluster_failed: {[:cluster, :failed], [:reason]},
    webhook_changed: {[:webhook, :changed], [:site_id, :webhook_id, :change]},
    webhook_failing: {[:webhook, :failing], [:site_id, :webhook_id, :destination]},
    webhook_recovered: {[:webhook, :recovered], [:site_id, :webhook_id, :destination]},
    webhook_disabled: {[:webhook, :disabled], [:site_id, :webhook_id, :destination, :reason]}
  }

  # --- the observer

  @impl Plausible.Webhooks.Observer
  def handle_event(event, measurements, metadata, _options) do
    {name, measurements, shown} = translate(event, measurements, metadata)
    :telemetry.execute(@prefix ++ name, measurements, shown)
  end

  @attempt_keys [
    :instance,
    :site_id,
    :webhook_id,
    :delivery_id,
    :destination,
    :state,
    :status,
    :error
  ]

  defp translate(:attempt, timings, metadata) do
    shown = metadata |> Map.take([:number | @attempt_keys]) |> classified()
    {[:attempt, :stop], durations(timings), shown}
  end

  defp translate(:delivery_finished, %{attempts: attempts}, metadata) do
    shown = metadata |> Map.take(@attempt_keys) |> classified()
    {[:delivery, :stop], %{attempts: attempts}, shown}
  end

  defp translate(:store_call, %{duration_us: duration_us}, metadata) do
    shown = Map.take(metadata, [:instance, :operation, :error])
    duration = System.convert_time_unit(duration_us, :microsecond, :native)
    {[:store, :stop], %{duration: duration}, Map.update!(shown, :error, &plain/1)}
  end

  defp translate(event, measurements, metadata) do
    {name, keys} = Map.fetch!(@counted, event)
    shown = Map.take(metadata, [:instance | keys])
    shown = if is_map_key(shown, :reason), do: Map.update!(shown, :reason, &plain/1), else: shown
    counted = %{count: Map.get(measurements, :count, 1)}

    case measurements do
      %{failing_for_ms: ms} -> {name, Map.put(counted, :failing_for_ms, ms || 0), shown}
      %{took_ms: ms} -> {name, Map.put(counted, :took_ms, ms), shown}
      _other -> {name, counted, shown}
    end
  end

  defp classified(metadata), do: Map.put(metadata, :status_class, status_class(metadata.status))

  defp status_class(status) when is_integer(status) and status in 100..599,
    do: "#{div(status, 100)}xx"

  defp status_class(_no_answer), do: "none"

  defp durations(timings) do
    known = [
      duration: timings[:total_us] || 0,
      dns: timings[:dns_us],
      connect: timings[:connect_us],
      tls: timings[:tls_us],
      first_byte: timings[:first_byte_us]
    ]

    for {name, us} <- known, us != nil, into: %{} do
      {name, System.convert_time_unit(us, :microsecond, :native)}
    end
  end

  # A store may give any term as a reason, and strings in it may quote values.
  defp plain(reason), do: plain(reason, @reason_depth)

  defp plain(reason, _depth) when is_atom(reason) or is_integer(reason), do: reason

  defp plain(reason, depth) when is_tuple(reason) and depth > 0,
    do: reason |> Tuple.to_list() |> Enum.map(&plain(&1, depth - 1)) |> List.to_tuple()

  defp plain(_anything, _depth), do: :other

  # --- measurements

  @doc "Measures this node's queues. Does nothing when the instance is not running."
  @spec measure(atom()) :: :ok
  def measure(instance \\ Plausible.Webhooks) do
    stats = Plausible.Webhooks.stats(instance)

    measurements = %{
      outbox: stats.outbox,
      journal: stats.journal,
      waiting: Map.get(stats.engine, :waiting, 0),
      in_flight: Map.get(stats.engine, :in_flight, 0),
      dropped: stats.dropped,
      refused: stats.refused,
      notices_dropped: stats.notices_dropped
    }

    :telemetry.execute(@prefix ++ [:node, :measured], measurements, %{instance: instance})
  rescue
    # Not running, or just stopped. A poller drops a measurement that raises.
    ArgumentError -> :ok
  end

  @doc "Measures the queue in the store, over all nodes."
  @spec queue(atom()) :: {:ok, %{atom() => non_neg_integer()}} | {:error, term()}
  def queue(instance \\ Plausible.Webhooks) do
    with {:ok, queue} <- Plausible.Webhooks.queue(instance) do
      :telemetry.execute(@prefix ++ [:queue, :measured], queue, %{instance: instance})
      {:ok, queue}
    end
  end

  # --- the process that measures

  @doc false
  def child_spec(options) do
    instance = Keyword.get(options, :instance, Plausible.Webhooks)
    %{id: {__MODULE__, instance}, start: {__MODULE__, :start_link, [options]}}
  end

  @doc """
  Starts a process that measures. Options: `:instance` (default `Plausible.Webhooks`),
  `:every_ms` for the node (default 10 000), `:queue_every_ms` for the queue over all nodes
  (default 60 000; `:infinity` leaves it to another node).
  """
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options) do
    defaults = [
      instance: Plausible.Webhooks,
      every_ms: @every_ms,
      queue_every_ms: @queue_every_ms
    ]

    GenServer.start_link(__MODULE__, Keyword.validate!(options, defaults))
  end

  @impl GenServer
  def init(options) do
    schedule(:measure, options[:every_ms])
    schedule(:queue, options[:queue_every_ms])
    {:ok, options}
  end

  @impl GenServer
  def handle_info(:measure, options) do
    measure(options[:instance])
    schedule(:measure, options[:every_ms])
    {:noreply, options}
  end

  def handle_info(:queue, options) do
    queue(options[:instance])
    schedule(:queue, options[:queue_every_ms])
    {:noreply, options}
  end

  def handle_info(_other, options), do: {:noreply, options}

  defp schedule(_message, :infinity), do: :ok
  defp schedule(message, ms), do: Process.send_after(self(), message, ms)
end
