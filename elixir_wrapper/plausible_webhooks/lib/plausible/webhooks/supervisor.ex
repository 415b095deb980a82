defmodule Plausible.Webhooks.Supervisor do
  @moduledoc false
  # The processes of one instance.
  #
  # The strategy is one for one: no process holds what another one needs to go on. Queued rows
  # are in tables that belong to this supervisor, the store knows who owns which delivery, and
  # each process finds the others by name and copes with their absence. So a crash costs no
  # delivery. After a crash of
  #
  #   Registration  nothing: the instance stays known
  #   Isolated      tasks that run end; whoever waits for one gets an error
  #   Keeper        the store is away for a moment, and everyone tries again
  #   Observers     notices that were waiting are lost
  #   Health        a verdict is lost; the next attempt brings it again
  #   Recorder      attempts are in the journal, and its successor records them
  #   Engine        gets a new owner; the deliveries of the old one come back from the store
  #   Outbox        deliveries are in the queue, and its successor commits them
  #   Inbox         messages of other nodes are lost; the directory's refresh finds out
  #   Directory     its tables are this supervisor's
  #   Sweeper       the engine gets a new owner, and what was on its way comes back
  #   Evaluator     evaluates at its next tick
  #
  # The order is the way of a delivery, backwards. At the stop, which goes from the last to
  # the first, each process still finds the one it hands over to.

  use Supervisor

  alias Plausible.Webhooks.{Native, Options}
  alias Plausible.Webhooks.Accept.Outbox
  alias Plausible.Webhooks.Deliver.{Engine, Health, Recorder, Sweeper}
  alias Plausible.Webhooks.Ingest.{Directory, Hooks}
  alias Plausible.Webhooks.Ingest.Traffic.Evaluator
  alias Plausible.Webhooks.Manage.Changes

  alias Plausible.Webhooks.Runtime.{
    Certificates,
    Instance,
    Isolated,
    NativeLibrary,
    Observers,
    Registration
  }

  alias Plausible.Webhooks.Store.Keeper

  # Options hold keys and perhaps a password. Supervisors print the arguments of their
  # children, but not what a function has closed over.
  @spec start_link(keyword() | (() -> keyword())) ::
          Supervisor.on_start() | {:error, Options.error() | {:native_library, String.t()}}
  def start_link(options) when is_function(options, 0), do: start_link(options.())

  def start_link(options) do
    with :ok <- native_library(), {:ok, options} <- Options.new(options) do
      Certificates.check(options.ca_file)

      Supervisor.start_link(__MODULE__, fn -> options end,
        name: Instance.process(options.name, :supervisor)
      )
    end
  end

  defp native_library do
    with {:error, text} <- NativeLibrary.check(Native), do: {:error, {:native_library, text}}
  end

  @impl true
  def init(options) do
    %Options{name: name} = options = options.()
    instance = Instance.new(options)
    Instance.publish(instance)

    children =
      [
        {Registration, name},
        {Isolated, name},
        store(instance)
      ] ++
        observers(options) ++
        [
          {Observers, name},
          {Health, {name, &Changes.disable/4}},
          {Recorder, name},
          {Engine, instance},
          {Outbox, name}
        ] ++
        cluster(options) ++
        [directory(options), {Sweeper, name}] ++ evaluator(options)

    Supervisor.init(children, strategy: :one_for_one, max_restarts: 20, max_seconds: 10)
  end

  # When the store's own process dies, the handle that the Keeper has opened is useless.
  defp store(%Instance{name: name, options: %{store: {module, options}}}) do
    children = Enum.reject([module.child_spec(options), {Keeper, name}], &is_nil/1)
    options = [strategy: :rest_for_one, max_restarts: 20, max_seconds: 10]

    %{
      id: Keeper,
      type: :supervisor,
      start: {__MODULE__, :start_group, [fn -> {children, options} end]}
    }
  end

  defp directory(%Options{name: name, directory: limits}) do
    options = [instance: name, compare: &Changes.compare(name, &1)] ++ limits
    Supervisor.child_spec({Directory, options}, id: Directory)
  end

  defp evaluator(%Options{traffic: false}), do: []

  defp evaluator(%Options{name: name, traffic: limits}) do
    options = [instance: name, deliver: &Hooks.deliver_notice(name, &1)] ++ limits
    [Supervisor.child_spec({Evaluator, options}, id: Evaluator)]
  end

  # Each observer has a supervisor of its own. If its process ends again and again, that
  # supervisor gives up, and deliveries go on. They start before Observers, which calls them.
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

  # Before the directory: changes during its first reading are not missed.
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
end
