defmodule Plausible.Webhooks.Subscriptions do
  @moduledoc """
  What one site's webhooks want to know, compiled for the path of an ingestion
  request: `Plausible.Webhooks.Directory.lookup/2` returns it by one ETS read.

  It is small whatever the site has. The goals themselves are rows of `table`,
  found by key (see `Plausible.Webhooks.Goals`), because an ETS read copies what
  it returns and a copy of 1 000 goals would cost more than matching them.
  """

  @typedoc "`:disabled`: we disabled it, its events are kept as cancelled."
  @type status :: :active | :disabled
  @type subscriber :: {Plausible.Webhooks.Webhook.id(), status()}
  @type t :: %__MODULE__{
          site_id: integer(),
          domain: String.t() | nil,
          table: :ets.table(),
          generation: pos_integer(),
          index: Plausible.Webhooks.Goals.index(),
          webhooks: %{Plausible.Webhooks.Webhook.id() => status()}
        }

  @enforce_keys [:site_id, :table, :generation, :index, :webhooks]
  defstruct [:site_id, :domain, :table, :generation, :index, :webhooks]
end
