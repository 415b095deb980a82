defmodule Plausible.Webhooks.Test.InstanceStub do
  @moduledoc false
  # An instance that has a store and a host, and no process of its own: for the parts that
  # only ask those two.

  use Agent

  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Store

  @doc "To be supervised: `{InstanceStub, {name, {module, handle}, {module, argument}}}`."
  def start_link({name, {module, handle}, host}) do
    Agent.start_link(fn ->
      instance = Instance.new(%{name: name, host: host, observers: []})
      Instance.publish(instance)
      Store.opened(instance, module, handle)
    end)
  end
end
