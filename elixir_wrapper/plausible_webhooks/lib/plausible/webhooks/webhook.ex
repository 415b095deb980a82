defmodule Plausible.Webhooks.Webhook do
  @moduledoc """
  One configured endpoint of one site.

  Times are Unix milliseconds. `secrets` are in clear only in memory: every
  store holds them encrypted by `Plausible.Webhooks.Vault`, and `inspect/1`
  shows neither them nor the URL's path and query.
  """

  alias __MODULE__

  @type id :: String.t()
  @type event_type :: String.t()
  @type secret :: %{
          key: String.t(),
          created_at_ms: integer(),
          expires_at_ms: integer() | nil
        }
  @type disabled_reason :: :gone | :failing

  @type t :: %Webhook{
          id: id(),
          site_id: integer(),
          name: String.t(),
          url: String.t(),
          enabled: boolean(),
          events: [event_type()],
          goals: :all | [integer()],
          spike_threshold: pos_integer() | nil,
          drop_threshold: pos_integer() | nil,
          traffic_min_interval_s: non_neg_integer(),
          headers: [{String.t(), String.t()}],
          secrets: [secret()],
          disabled_reason: disabled_reason() | nil,
          disabled_at_ms: integer() | nil,
          failing_since_ms: integer() | nil,
          version: non_neg_integer(),
          inserted_at_ms: integer(),
          updated_at_ms: integer()
        }

  # `enabled` is what the user wants; `disabled_reason` is what we did (410, or
  # failing for days). A webhook delivers when `enabled` and no disabled_reason.
  # `version` grows with every change: caches and the engine compare it.
  defstruct [
    :id,
    :site_id,
    :url,
    :spike_threshold,
    :drop_threshold,
    :disabled_reason,
    :disabled_at_ms,
    :failing_since_ms,
    :inserted_at_ms,
    :updated_at_ms,
    name: "",
    enabled: true,
    events: [],
    goals: :all,
    traffic_min_interval_s: 0,
    headers: [],
    secrets: [],
    version: 0
  ]
end
