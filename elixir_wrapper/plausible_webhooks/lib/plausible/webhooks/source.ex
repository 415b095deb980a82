defmodule Plausible.Webhooks.Source do
  @moduledoc false
  # Where a store or a host is found: `{module, handle}`, or a function that says
  # so, for a store that is opened anew after a crash and has another handle then.

  @type t :: {module(), term()} | (() -> {module(), term()} | nil)

  @spec call(t(), atom(), [term()]) :: term()
  def call(source, function, arguments) do
    case at(source) do
      {module, handle} -> apply(module, function, [handle | arguments])
      nil -> {:error, :not_open}
    end
  end

  defp at(source) when is_function(source, 0), do: source.()
  defp at(source), do: source
end
