defmodule Plausible.Webhooks.Test.Observer do
  @moduledoc false
  # Sends `{event, measurements, metadata}` to the process that is its argument.

  @behaviour Plausible.Webhooks.Observer

  @impl true
  def handle_event(event, measurements, metadata, pid),
    do: send(pid, {event, measurements, metadata})
end
