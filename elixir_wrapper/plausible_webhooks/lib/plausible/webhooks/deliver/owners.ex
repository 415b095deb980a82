defmodule Plausible.Webhooks.Deliver.Owners do
  @moduledoc false
  # The names under which this node owns deliveries in the store.
  #
  # An owner is one engine under one name. It owns its pending deliveries as long as its
  # lease holds. Each engine takes a new name, and so does an engine that may own
  # deliveries it does not know of:
  #
  #   current  the engine in charge
  #   former   names under which that engine worked before, or under which the Outbox
  #            committed deliveries in doubt. Their deliveries are taken back.
  #   dead     names of engines that are gone. Their leases are ended, so that anyone can
  #            claim their deliveries.

  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Store

  @typedoc """
  The engine in charge: its native reference, the name under which it owns deliveries, its
  table of endpoints (`Plausible.Webhooks.Deliver.Endpoints`), and the offset from Erlang's
  monotonic time to the engine's time.
  """
  @type engine :: %{
          ref: reference(),
          owner: Store.owner(),
          endpoints: :ets.table(),
          time_offset_ms: integer()
        }

  @doc "A new name: readable, and unique in any cluster and over restarts."
  @spec new() :: Store.owner()
  def new do
    random = Base.encode32(:crypto.strong_rand_bytes(10), case: :lower, padding: false)
    "#{node()}/#{System.os_time(:second)}/#{random}"
  end

  @doc "The engine in charge, `nil` while there is none."
  @spec engine(Instance.t()) :: engine() | nil
  def engine(%Instance{tables: %{meta: meta}}) do
    case :ets.lookup(meta, :engine) do
      [{:engine, engine}] -> engine
      [] -> nil
    end
  rescue
    # The tables are gone: the instance has just been stopped.
    ArgumentError -> nil
  end

  @spec put_engine(Instance.t(), engine()) :: :ok
  def put_engine(%Instance{tables: %{meta: meta}}, engine) do
    :ets.insert(meta, {:engine, engine})
    :ok
  end

  @doc "The engine in charge is gone; its name is dead."
  @spec engine_gone(Instance.t()) :: :ok
  def engine_gone(%Instance{tables: %{meta: meta}} = instance) do
    with %{owner: owner} <- engine(instance) do
      :ets.insert(meta, {{:dead_owner, owner}})
      :ets.delete(meta, :engine)
    end

    :ok
  end

  @spec dead(Instance.t()) :: [Store.owner()]
  def dead(instance), do: all(instance, :dead_owner)

  @spec former(Instance.t()) :: [Store.owner()]
  def former(instance), do: all(instance, :former_owner)

  defp all(%Instance{tables: %{meta: meta}}, kind),
    do: :ets.select(meta, [{{{kind, :"$1"}}, [], [:"$1"]}])

  @spec add_former(Instance.t(), Store.owner()) :: :ok
  def add_former(%Instance{tables: %{meta: meta}}, owner) do
    :ets.insert(meta, {{:former_owner, owner}})
    :ok
  end

  @doc "Takes or renews the lease of an owner."
  @spec lease(Instance.t(), Store.owner()) :: :ok | {:error, term()}
  def lease(instance, owner), do: Store.heartbeat(instance, owner, instance.options.lease_ms)

  @doc "Ends the lease of a dead or former owner, and forgets it."
  @spec end_lease(Instance.t(), Store.owner()) :: :ok | {:error, term()}
  def end_lease(%Instance{tables: %{meta: meta}} = instance, owner) do
    with :ok <- Store.heartbeat(instance, owner, 1) do
      :ets.delete(meta, {:dead_owner, owner})
      :ets.delete(meta, {:former_owner, owner})
      :ok
    end
  end
end
