defmodule Plausible.Webhooks.StoreContract do
  @moduledoc """
  What every `Plausible.Webhooks.Store` must do, as tests.

      defmodule MyStoreTest do
        use ExUnit.Case
        use Plausible.Webhooks.StoreContract, store: MyStore, setup: {__MODULE__, :open}

        def open(_context), do: {:ok, handle}
      end

  `setup` names a function that gets the test's context and returns
  `{:ok, handle}` of an empty store that holds at most `webhooks_per_site_max`
  (default 20) webhooks per site; give the option if it is another number.

  Another Mix project compiles this by adding this file and the folder of the same
  name to its `elixirc_paths`.
  """

  alias Plausible.Webhooks.StoreContract

  @parts [
    StoreContract.Webhooks,
    StoreContract.Acceptance,
    StoreContract.Record,
    StoreContract.Owners,
    StoreContract.Suspects,
    StoreContract.Nodes,
    StoreContract.TwoNodes,
    StoreContract.Endings,
    StoreContract.Log,
    StoreContract.Activity
  ]

  defmacro __using__(options) do
    quote bind_quoted: [options: options, parts: @parts] do
      @contract_store Keyword.fetch!(options, :store)
      @contract_setup Keyword.fetch!(options, :setup)
      @contract_limit Keyword.get(options, :webhooks_per_site_max, 20)

      for part <- parts, {description, function} <- part.shared_tests() do
        @contract_part part
        @contract_function function
        @tag contract: part.about()

        test "#{part.about()}: #{description}", context do
          {module, function} = @contract_setup
          {:ok, handle} = apply(module, function, [context])
          store = {@contract_store, handle, @contract_limit}
          apply(@contract_part, @contract_function, [store])
        end
      end
    end
  end
end
