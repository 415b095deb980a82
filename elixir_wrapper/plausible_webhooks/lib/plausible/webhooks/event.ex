defmodule Plausible.Webhooks.Event do
  @moduledoc """
  Something that happened at a site and that webhooks may subscribe to.
  """

  @types ~w(goal.completed traffic.spike traffic.drop traffic.resolved webhook.test)

  @typedoc "One of `types/0`."
  @type type :: String.t()
  @typedoc "An event. `data` is the body's member of that name. `test`: a user asked for it."
  @type t :: %__MODULE__{
          type: type(),
          site_id: integer(),
          occurred_at_ms: integer(),
          goal_id: integer() | nil,
          data: map(),
          test: boolean()
        }

  # `data` is the `data` member of the JSON body, as `Plausible.Webhooks.Ingest.Payload.encode/1`
  # takes it.
  defstruct [:type, :site_id, :occurred_at_ms, :goal_id, data: %{}, test: false]

  @doc "Every event type."
  @spec types() :: [type()]
  def types, do: @types

  @doc "The types a webhook can subscribe to (`webhook.test` is always sent)."
  @spec subscribable_types() :: [type()]
  def subscribable_types, do: @types -- ["webhook.test"]
end
