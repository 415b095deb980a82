defmodule Plausible.Webhooks.Supervisor do
  @moduledoc false
  # The processes of one instance.
  #
  # One for one: no child holds what another one needs to go on. What is queued is
  # in tables of this supervisor, who owns what is in the store, and each child
  # finds the others by name when it needs them and copes with their absence. So a
  # crash costs one process its place in the queue and nobody a delivery:
  #
  #   Registration  nothing; the instance stays known
  #   StoreKeeper   the store is away for a moment; everyone tries again
  #   Notifier      notices that were waiting are lost, nothing else
  #   Health        a verdict is lost; the next attempt brings it again
  #   Recorder      attempts are in the journal; recorded by its successor
  #   Engine        a new owner; the old one's deliveries come back from the store
  #   Outbox        deliveries are in the queue; committed by its successor
  #   Inbox         messages of other nodes are lost; the directory's refresh finds out
  #   Directory     its tables are this supervisor's
  #   Sweeper       the engine gets a new owner id, what was between comes back
  #   Evaluator     looks again at its next turn
  #
  # The order is the way of a delivery, backwards: at the stop, which goes from
  # the last to the first, each one still finds whom it hands over to.

  use Supervisor

  alias Plausible.Webhooks.Options
  alias Plausible.Webhooks.Accept.Outbox
  alias Plausible.Webhooks.Deliver.{Engine, Health, Recorder, Sweeper}
  alias Plausible.Webhooks.Ingest.{Directory, Hooks}
  alias Plausible.Webhooks.Manage.Changes
  alias Plausible.Webhooks.Runtime.{Instance, Observers, Registration}
  alias Plausible.Webhooks.Store.Keeper

  alias Plausible.Webhooks.Ingest.Traffic.Evaluator

  # Options hold keys and perhaps a password. Supervisors print the arguments of
  # their children, but not what a function has closed over.
  @spec start_link(keyword() | (() -> keyword())) ::
          Supervisor.on_start() | {:error, Options.error()}
  def start_link(options) when is_function(options, 0), do: start_link(options.())

  def start_link(options) do
    with {:ok, options} <- Options.new(options) do
      Supervisor.start_link(__MODULE__, fn -> options end,
        name: Instance.process(options.name, :supervisor)
      )
    end
  end

  @impl true
  def init(options) do
    %Options{name: name} = options = options.()
    instance = Instance.new(options)
    Instance.publish(instance)

    children =
      [
        {Registration, name},
        store(instance)
      ] ++
        observers(options) ++
        [
          {Observers, name},
          {Health, name},
          {Recorder, name},
          {Engine, instance},
          {Outbox, name}
        ] ++
        cluster(options) ++
        [later(Directory, name), {Sweeper, name}] ++
        if(options.traffic, do: [later(Evaluator, name)], else: [])

    Supervisor.init(children, strategy: :one_for_one, max_restarts: 20, max_seconds: 10)
  end

  # What the keeper has opened is of no use when the store's own process has died.
  defp store(%Instance{name: name, options: %{store: {module, options}}}) do
    children = Enum.reject([module.child_spec(options), {Keeper, name}], &is_nil/1)
    options = [strategy: :rest_for_one, max_restarts: 20, max_seconds: 10]

    %{
      id: Keeper,
      type: :supervisor,
      start: {__MODULE__, :start_group, [fn -> {children, options} end]}
    }
  end

  # Each in a group of its own, which is given up when its process ends again and
  # again: deliveries go on. Before the notifier, which calls them.
  defp observers(%Options{name: name, observers: observers}) do
    for {{module, argument}, n} <- Enum.with_index(observers),
        function_exported?(module, :process, 2),
        process = module.process(name, argument) do
      group = {[process], [strategy: :one_for_one, max_restarts: 20, max_seconds: 10]}

      %{
        id: {:observer, n},
        type: :supervisor,
        restart: :temporary,
        start: {__MODULE__, :start_group, [fn -> group end]}
      }
    end
  end

  # Before the directory: what changes after its first reading began is heard of.
  defp cluster(%Options{cluster: nil}), do: []

  defp cluster(%Options{name: name, cluster: {module, options}}) do
    Enum.reject(
      [{Plausible.Webhooks.Manage.Inbox, name}, module.listener(name, options)],
      &is_nil/1
    )
  end

  @doc false
  def start_group(group) do
    {children, options} = group.()
    Supervisor.start_link(children, options)
  end

  # Their options are looked up when they start, for the same reason.
  defp later(module, name),
    do: %{id: module, start: {__MODULE__, :start_part, [module, name]}}

  @doc false
  def start_part(Directory, name) do
    options = Instance.fetch!(name).options
    compare = &Changes.compare(name, &1)
    Directory.start_link([instance: name, compare: compare] ++ options.directory)
  end

  def start_part(Evaluator, name) do
    options = Instance.fetch!(name).options
    deliver = &Hooks.deliver_notice(name, &1)
    traffic = if options.periodic == :local, do: options.traffic, else: untimed(options.traffic)
    Evaluator.start_link([instance: name, deliver: deliver] ++ traffic)
  end

  defp untimed(traffic), do: Keyword.put(traffic, :tick_ms, :infinity)
end
