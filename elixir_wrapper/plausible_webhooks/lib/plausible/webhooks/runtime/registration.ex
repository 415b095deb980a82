defmodule Plausible.Webhooks.Runtime.Registration do
  @moduledoc false
  # Makes the instance known under its name. This process is the first to start and the last
  # to stop, so requests find the instance whatever else is being restarted.

  use GenServer

  alias Plausible.Webhooks.Runtime.Instance

  def start_link(name), do: GenServer.start_link(__MODULE__, name)

  @impl true
  def init(name) do
    Process.flag(:trap_exit, true)
    {:ok, name}
  end

  @impl true
  def terminate(reason, name) do
    if Instance.stopping?(reason), do: Instance.retract(name)
  end
end
