defmodule Plausible.Webhooks.StoreKeeper do
  @moduledoc false
  # Opens the store and makes the instance known; forgets it when the instance
  # stops. A store that cannot be opened stops the start with its reason.

  use GenServer

  alias Plausible.Webhooks.Instance

  def start_link(instance),
    do:
      GenServer.start_link(__MODULE__, instance, name: Instance.process(instance, :store_keeper))

  @impl true
  def init(%Instance{options: %{store: {module, options}, vault: vault}} = instance) do
    Process.flag(:trap_exit, true)
    options = if vault, do: Keyword.put(options, :vault, vault), else: options

    case module.init(options) do
      {:ok, handle} ->
        instance = %{instance | store: {module, handle}}
        Instance.publish(instance)
        {:ok, instance}

      {:error, reason} ->
        {:stop, {:store, reason}}
    end
  end

  @impl true
  def terminate(reason, instance) do
    # After a crash the successor publishes again; requests must not find nothing
    # in between.
    if reason in [:normal, :shutdown] or match?({:shutdown, _}, reason),
      do: Instance.retract(instance)
  end
end
