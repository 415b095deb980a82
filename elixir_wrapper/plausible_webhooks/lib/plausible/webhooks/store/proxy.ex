defmodule Plausible.Webhooks.Store.Proxy do
  @moduledoc false
  # The store as `{module, handle}` for those who keep one for life: whatever
  # happens to the real handle, and to the store, is a value here. Holds what they
  # need of the behaviour.

  alias Plausible.Webhooks.Runtime.Instance

  def all_webhooks(name), do: call(name, :all_webhooks, [])
  def list_webhooks(name, site_id), do: call(name, :list_webhooks, [site_id])
  def alert_states(name, ids), do: call(name, :alert_states, [ids])
  def put_alert_state(name, state), do: call(name, :put_alert_state, [state])
  def take_turn(name, turn, lease_ms, token), do: call(name, :take_turn, [turn, lease_ms, token])

  defp call(name, function, arguments) do
    case Instance.get(name) do
      nil -> {:error, :stopped}
      instance -> Instance.store(instance, function, arguments)
    end
  end
end
