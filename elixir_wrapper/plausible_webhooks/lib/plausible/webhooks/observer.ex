defmodule Plausible.Webhooks.Observer do
  @moduledoc """
  Receives the events of an instance, for metrics or a live page.

      defmodule MyObserver do
        @behaviour Plausible.Webhooks.Observer

        @impl true
        def handle_event(:attempt, %{total_us: total_us}, %{state: state}, _argument) do
          IO.puts("\#{state} after \#{total_us} us")
        end

        def handle_event(_event, _measurements, _metadata, _argument), do: :ok
      end

      {Plausible.Webhooks, [observers: [{MyObserver, nil}]] ++ options}

  All observers run in one process, one after the other. The instance counts and logs errors
  of an observer. A slow observer loses events, but delays no delivery: at most 10 000 events
  wait, and `Plausible.Webhooks.stats/1` counts the others as `notices_dropped`.

  ## Events

  Times are milliseconds unless the name says otherwise. The metadata of every event has
  `instance`. No event holds a URL, only its host name (`destination`).

  | event | measurements | metadata |
  |---|---|---|
  | `:attempt` | `total_us`, `dns_us`, `connect_us`, `tls_us`, `first_byte_us` (each may be `nil`) | `delivery_id`, `webhook_id`, `site_id`, `destination` (`nil` when not known), `number`, `state`, `status`, `error`, `next_at_ms` |
  | `:delivery_finished` | `attempts` (number of the last one; 0 if there was none) | as above |
  | `:deliveries_accepted` | `count` | `sites`: the number for each site, `%{site_id => count}` |
  | `:deliveries_dropped` | `count` | `reason`: `:outbox_full`, `:site_share` (one site's part of the Outbox is full), `:fan_out` (more than `:deliveries_per_event_max`), `:refused_by_store`, `:payload` (too large, not encodable), `:malformed_event` (no `:clickhouse_event` with a `:site_id`), `:hook_error`, `:stopping` |
  | `:engine_overloaded` | `count` of deliveries given back to the store | |
  | `:engine_slow` | `took_ms`: the processor time, above 250 ms, that a webhook took from all others at once | `webhook_id` (`nil`: several), `site_id` (`nil` when not known) |
  | `:store_call` | `duration_us` | `operation` (a function of `Plausible.Webhooks.Store`), `error` (`nil` if it succeeded) |
  | `:store_failed` | | `operation`, `reason` |
  | `:cluster_failed` | | `reason`: why other nodes were not told of a change |
  | `:webhook_changed` | | `site_id`, `webhook_id`, `change`: `:created`, `:updated`, `:deleted`, `:disabled`, `:enabled`; only on the node that made the change |
  | `:webhook_failing` | | `site_id`, `webhook_id`, `destination`: an attempt failed, and the one before did not |
  | `:webhook_recovered` | | the same: an attempt succeeded, and the one before did not |
  | `:webhook_disabled` | `failing_for_ms` (`nil` unless `:failing`) | `site_id`, `webhook_id`, `destination`, `reason`: `:gone`, `:failing`, `:costly` |

  `:attempt` follows once the attempt is recorded.

  An observer that needs a process of its own returns it from `c:process/2`. The instance
  supervises it.
  """

  @typedoc "See the table above."
  @type event ::
          :attempt
          | :delivery_finished
          | :deliveries_accepted
          | :deliveries_dropped
          | :engine_overloaded
          | :engine_slow
          | :store_call
          | :store_failed
          | :cluster_failed
          | :webhook_changed
          | :webhook_failing
          | :webhook_recovered
          | :webhook_disabled

  @callback handle_event(event(), measurements :: map(), metadata :: map(), argument :: term()) ::
              term()

  @doc """
  A process that runs as long as the instance, or `nil`. The instance restarts the process when
  it ends, and gives up after more than 20 restarts in 10 seconds.
  """
  @callback process(instance :: atom(), argument :: term()) :: Supervisor.child_spec() | nil

  @optional_callbacks process: 2
end
