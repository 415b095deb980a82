defmodule Plausible.Webhooks.Source do
  @moduledoc false
  # A store or a host as it was given: a module and what it wants to be told first.

  @type t :: {module(), term()}

  @spec call(t(), atom(), [term()]) :: term()
  def call({module, handle}, function, arguments),
    do: apply(module, function, [handle | arguments])
end
