defmodule Plausible.Webhooks.Supervisor do
  @moduledoc false
  # The processes of one instance.
  #
  # One for one: no child holds what another one needs to go on. What is queued is
  # in tables of this supervisor, who owns what is in the store, and each child
  # finds the others by name when it needs them and copes with their absence. So a
  # crash costs one process its place in the queue and nobody a delivery:
  #
  #   store keeper  the store is away for a moment; everyone tries again
  #   Notifier      notices that were waiting are lost, nothing else
  #   Health        a verdict is lost; the next attempt brings it again
  #   Recorder      attempts are in the journal; recorded by its successor
  #   Engine        a new owner; the old one's deliveries come back from the store
  #   Outbox        deliveries are in the queue; committed by its successor
  #   Directory     its tables are this supervisor's
  #   Sweeper       the engine gets a new owner id, what was between comes back
  #   Evaluator     looks again at its next turn
  #
  # The order is the way of a delivery, backwards: at the stop, which goes from
  # the last to the first, each one still finds whom it hands over to.

  use Supervisor

  alias Plausible.Webhooks.{
    Directory,
    Engine,
    Health,
    Hooks,
    Instance,
    Notifier,
    Options,
    Outbox,
    Recorder,
    StoreKeeper,
    Sweeper
  }

  alias Plausible.Webhooks.Traffic.Evaluator

  @spec start_link(keyword()) :: Supervisor.on_start() | {:error, Options.error()}
  def start_link(options) do
    with {:ok, options} <- Options.new(options) do
      Supervisor.start_link(__MODULE__, options, name: Instance.process(options.name, :supervisor))
    end
  end

  @impl true
  def init(%Options{name: name} = options) do
    instance = Instance.new(options)

    children = [
      store(instance),
      {Notifier, name},
      {Health, name},
      {Recorder, name},
      {Engine, instance},
      {Outbox, name},
      later(Directory, name),
      {Sweeper, name}
    ]

    children = if options.traffic, do: children ++ [later(Evaluator, name)], else: children
    Supervisor.init(children, strategy: :one_for_one, max_restarts: 20, max_seconds: 10)
  end

  # The keeper's handle is of no use when the store's own process has died.
  defp store(%Instance{options: %{store: {module, options}}} = instance) do
    children = Enum.reject([module.child_spec(options), {StoreKeeper, instance}], &is_nil/1)

    %{
      id: StoreKeeper,
      type: :supervisor,
      start:
        {Supervisor, :start_link,
         [children, [strategy: :rest_for_one, max_restarts: 20, max_seconds: 10]]}
    }
  end

  # These take the store's handle, which is there when their turn has come.
  defp later(module, name) do
    %{id: module, start: {__MODULE__, :start_part, [module, name]}}
  end

  @doc false
  def start_part(Directory, name) do
    instance = Instance.fetch!(name)
    Directory.start_link(parts(instance) ++ instance.options.directory)
  end

  def start_part(Evaluator, name) do
    instance = Instance.fetch!(name)
    deliver = &Hooks.deliver_notice(name, &1)
    Evaluator.start_link(parts(instance) ++ [deliver: deliver] ++ instance.options.traffic)
  end

  defp parts(instance),
    do: [
      instance: instance.name,
      store: instance.store,
      host: instance.options.host
    ]
end
