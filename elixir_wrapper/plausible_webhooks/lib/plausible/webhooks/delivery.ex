defmodule Plausible.Webhooks.Delivery do
  @moduledoc """
  One event on its way to one webhook.

  `id` is the `webhook-id` header; all attempts have the same one. Times are Unix
  milliseconds.

  States: `:pending` (in an engine or about to be), `:parked` (in no engine, until the next
  attempt is due), `:held` (its webhook is paused), and the terminal `:delivered`, `:failed`,
  `:cancelled`.
  """

  @typedoc "See above."
  @type state :: :pending | :parked | :held | :delivered | :failed | :cancelled
  @typedoc "A delivery."
  @type t :: %__MODULE__{
          id: String.t(),
          webhook_id: String.t(),
          site_id: integer(),
          type: String.t(),
          goal_id: integer() | nil,
          body: binary(),
          state: state(),
          reason: String.t() | nil,
          attempts: non_neg_integer(),
          schedule_from: non_neg_integer(),
          created_at_ms: integer(),
          next_at_ms: integer() | nil,
          finished_at_ms: integer() | nil,
          owner: String.t() | nil,
          last_status: non_neg_integer() | nil,
          last_error: String.t() | nil,
          manual: boolean(),
          retry: boolean()
        }

  # attempts: how many attempts were made so far, over all redeliveries.
  # schedule_from: the value of `attempts` from which the retry schedule counts. A redelivery
  #   sets it to `attempts`: the whole schedule applies again, and attempts go on counting.
  # manual: true for a test, a redelivery or a recovery, which a full queue still takes.
  # retry: false for a test, which is tried once.
  defstruct [
    :id,
    :webhook_id,
    :site_id,
    :type,
    :goal_id,
    :body,
    :reason,
    :created_at_ms,
    :next_at_ms,
    :finished_at_ms,
    :owner,
    :last_status,
    :last_error,
    state: :pending,
    attempts: 0,
    schedule_from: 0,
    manual: false,
    retry: true
  ]
end
