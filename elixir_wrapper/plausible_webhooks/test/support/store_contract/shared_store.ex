defmodule Plausible.Webhooks.StoreContract.SharedStore do
  @moduledoc false
  # An open store that several instances use: `{SharedStore, store: store}`.

  alias Plausible.Webhooks.Store

  @behaviour Store

  @impl true
  def init(options) do
    {module, handle, _webhooks_max} = Keyword.fetch!(options, :store)
    {:ok, {module, handle}}
  end

  @impl true
  def child_spec(_options), do: nil

  for {name, arity} <- Store.behaviour_info(:callbacks) -- [init: 1, child_spec: 1] do
    arguments = Macro.generate_arguments(arity - 1, __MODULE__)

    @impl true
    def unquote(name)({module, handle}, unquote_splicing(arguments)),
      do: module.unquote(name)(handle, unquote_splicing(arguments))
  end
end
