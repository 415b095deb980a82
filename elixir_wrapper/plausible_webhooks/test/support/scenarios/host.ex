defmodule Plausible.Webhooks.Scenarios.Host do
  @moduledoc """
  A host in which the scenarios run. `Plausible.Webhooks.Scenarios.World` calls it.
  """

  @typedoc "What a test gets from ExUnit, merged with what `c:start!/2` returned."
  @type context :: map()

  @typedoc "A site and a user who manages its webhooks."
  @type site :: %{site: %{id: integer(), domain: String.t()}, user: term()}

  @doc """
  Starts an instance and the host around it. Besides a site and its manager, it returns
  what of a body depends on the host.
  """
  @callback start!(context(), argument :: term()) :: %{
              name: Plausible.Webhooks.instance(),
              site: map(),
              user: term(),
              dashboard_url: Regex.t(),
              # What the bodies say of a visitor.
              visitor: %{String.t() => String.t()},
              # What they must not say of a visitor.
              personal: [String.t()],
              revenue?: boolean(),
              goal_props?: boolean()
            }

  @doc "Adds a goal: a map of its fields."
  @callback goal!(context(), map()) :: %{id: integer()}

  @doc """
  Sends an event to the host's ingestion and returns the HTTP status. The fields:
  `:path`, `:visitor` (a number), `:domain`, `:props`, `:revenue`, `:referrer`,
  `:scroll_depth`.
  """
  @callback track(context(), name :: String.t(), fields :: map()) :: 200..599

  @doc "Adds visits of as many visitors. The fields: `:pathname`, `:referrer_source`."
  @callback visits!(context(), count :: pos_integer(), at_ms :: integer(), map()) :: :ok

  @doc "Removes all visits."
  @callback no_visits!(context()) :: :ok

  @doc "Returns when the visits of all events that were sent are counted."
  @callback flush!(context()) :: :ok

  @doc "Has the host find a spike or drop by its own threshold."
  @callback breach!(context(), :spike | :drop, %{
              current_visitors: pos_integer(),
              threshold: pos_integer()
            }) :: :ok

  @doc "Another site."
  @callback other_site!(context()) :: site()

  @doc "Who may manage the webhooks of the site, who may only read them, and who neither."
  @callback people!(context()) :: %{managers: [term()], readers: [term()], others: [term()]}

  @doc "Takes the role of a manager away, who is not the context's user."
  @callback dismiss!(context(), user :: term()) :: :ok
end
