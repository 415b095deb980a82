defmodule Plausible.Webhooks.Ingest.Subscriptions do
  @moduledoc """
  What one site's webhooks subscribe to, compiled for reads during an ingestion request.
  `Plausible.Webhooks.Ingest.Directory.lookup/2` returns it by one ETS read.

  The struct is small, however many goals the site has. The goals are rows of `table`, found
  by key (`Plausible.Webhooks.Ingest.Goals`): an ETS read copies what it returns, and copying
  1 000 goals would cost more than matching them.
  """

  @typedoc "`:disabled`: we disabled the webhook, and its events are kept as cancelled."
  @type status :: :active | :disabled
  @typedoc "A webhook that wants goal completions."
  @type subscriber :: {Plausible.Webhooks.Webhook.id(), status()}
  @typedoc "`:listed`: the properties in the row that `tells/1` reads."
  @type props :: :all | :listed
  @typedoc "Which rows there are for one kind of path goal."
  @type paths :: %{exact: boolean(), any: boolean(), bits: binary() | nil, mask: integer()}
  @typedoc "Which rows there are."
  @type index :: %{event: boolean(), page: paths() | nil, scroll: paths() | nil}
  @typedoc "What may be sent: all properties or those that are keys; revenue or none."
  @type tells :: %{
          required(:props) => :all | %{String.t() => true},
          required(:revenue) => boolean(),
          optional(:events) => boolean()
        }
  @typedoc "A site's subscriptions."
  @type t :: %__MODULE__{
          site_id: integer(),
          domain: String.t() | nil,
          table: :ets.table(),
          generation: pos_integer(),
          index: index(),
          webhooks: %{Plausible.Webhooks.Webhook.id() => status()},
          props: props(),
          revenue: boolean()
        }

  @enforce_keys [:site_id, :table, :generation, :index, :webhooks]
  defstruct [
    :site_id,
    :domain,
    :table,
    :generation,
    :index,
    :webhooks,
    props: :all,
    revenue: true
  ]

  @doc "The key of the row that lists the properties that may be sent."
  @spec props_key(integer(), pos_integer()) :: {integer(), pos_integer(), :tells, :props}
  def props_key(site_id, generation), do: {site_id, generation, :tells, :props}

  @doc """
  What a body of the site may hold. If the properties are listed, reads their row. That row is
  missing when a newer one has just replaced it; then no property may be sent.
  """
  @spec tells(t()) :: tells()
  def tells(%__MODULE__{props: :all, revenue: revenue}), do: %{props: :all, revenue: revenue}

  def tells(%__MODULE__{props: :listed} = subscriptions) do
    case :ets.lookup(
           subscriptions.table,
           props_key(subscriptions.site_id, subscriptions.generation)
         ) do
      [{_key, props}] -> %{props: props, revenue: subscriptions.revenue}
      [] -> %{props: %{}, revenue: subscriptions.revenue}
    end
  end
end
