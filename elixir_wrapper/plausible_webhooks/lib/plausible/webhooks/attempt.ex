defmodule Plausible.Webhooks.Attempt do
  @moduledoc """
  The result of one POST of a delivery, or how a delivery ended without one.

  The native engine reports all of it (`Plausible.Webhooks.Native.run_once/2`) except `owner`,
  `site_id` and `destination`.

    * `number` - 1 for the first attempt. 0 if there was no attempt: the delivery was cancelled
      or held while it waited, its webhook is unknown, or it was parked because more deliveries
      wait for its webhook than the engine takes.
    * `state` - the delivery's state from now on: `:delivered`; `:pending` (the engine tries
      again at `next_at_ms`); `:parked` (it left the engine, and the store brings it back at
      `next_at_ms`); `:held` (its webhook was paused); `:failed`; `:cancelled`.
    * `schedule_from` - the delivery's `schedule_from` from now on. It grows when an attempt
      costs no retry: the receiver asked for fewer requests, or closed a kept connection.
    * `status` - the HTTP status, `nil` when there was none.
    * `error` - `nil` when the receiver answered 2xx; otherwise one of `errors/0`:
      `:http_status`, `:redirect`, `:gone`, `:dns_error`, `:dns_timeout`,
      `:blocked_address`, `:connection_refused`, `:connection_reset`,
      `:connection_closed`, `:network_unreachable`, `:connect_timeout`, `:tls_error`,
      `:tls_timeout`, `:timeout`, `:response_too_large`, `:protocol_error`,
      `:cancelled`, `:unknown_webhook`, `:internal`.
    * `detail` - for people, at most 256 bytes of valid UTF-8.
    * `signed_at_s` - the `webhook-timestamp` that was sent, Unix seconds; `nil` if no request
      left.
    * the `*_us` timings are microseconds from the attempt's start to the end of
      that phase; `nil` where the phase was not reached or not needed (a reused
      connection has neither DNS nor connect nor TLS).
    * `response_headers` - at most 4 KiB of the answer's header lines as received (any bytes),
      each with a line end.
    * `response_body` - at most 16 KiB as received (any bytes).
    * `gone` - the receiver answered 410, so the webhook is to be disabled.
    * `retry` - false for a test, which is tried once. The log does not hold it.
    * `owner` - the engine that made the attempt; `nil` in the log.
    * `site_id`, `destination` - those of its webhook, in what observers get; otherwise `nil`.
  """

  @errors ~w(http_status redirect gone dns_error dns_timeout blocked_address connection_refused
             connection_reset connection_closed network_unreachable connect_timeout tls_error tls_timeout timeout
             response_too_large protocol_error cancelled unknown_webhook internal)a

  @doc "Every error class."
  @spec errors() :: [atom()]
  def errors, do: @errors

  @typedoc "An attempt; see above for the fields."
  @type t :: %__MODULE__{
          delivery_id: String.t(),
          webhook_id: String.t(),
          number: non_neg_integer(),
          schedule_from: non_neg_integer(),
          state: Plausible.Webhooks.Delivery.state(),
          status: non_neg_integer() | nil,
          error: atom() | nil,
          detail: String.t() | nil,
          started_at_ms: integer(),
          signed_at_s: integer() | nil,
          dns_us: non_neg_integer() | nil,
          connect_us: non_neg_integer() | nil,
          tls_us: non_neg_integer() | nil,
          first_byte_us: non_neg_integer() | nil,
          total_us: non_neg_integer() | nil,
          remote_ip: String.t() | nil,
          response_headers: binary(),
          response_body: binary(),
          response_truncated: boolean(),
          next_at_ms: integer() | nil,
          gone: boolean(),
          retry: boolean(),
          owner: String.t() | nil,
          site_id: integer() | nil,
          destination: String.t() | nil
        }

  defstruct [
    :delivery_id,
    :webhook_id,
    :number,
    :state,
    :status,
    :error,
    :detail,
    :started_at_ms,
    :signed_at_s,
    :dns_us,
    :connect_us,
    :tls_us,
    :first_byte_us,
    :total_us,
    :remote_ip,
    :next_at_ms,
    :owner,
    :site_id,
    :destination,
    schedule_from: 0,
    response_headers: "",
    response_body: "",
    response_truncated: false,
    gone: false,
    retry: true
  ]
end
