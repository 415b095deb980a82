defmodule Plausible.Webhooks.Test.InstanceStub do
  @moduledoc false
  # An instance that has a store and a host and can run tasks, and nothing else: for the parts
  # that only ask those two.

  use Supervisor

  alias Plausible.Webhooks.Runtime.{Instance, Isolated}
  alias Plausible.Webhooks.Store

  @doc "To be supervised: `{InstanceStub, {name, {module, handle}, {module, argument}}}`."
  def start_link(arguments), do: Supervisor.start_link(__MODULE__, arguments)

  @impl true
  def init({name, {module, handle}, host}) do
    instance = Instance.new(%{name: name, host: host, observers: []})
    Instance.publish(instance)
    :ok = Store.opened(instance, module, handle)
    Supervisor.init([{Isolated, name}], strategy: :one_for_one)
  end
end
