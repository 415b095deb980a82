defmodule Plausible.Webhooks.StoreEctoTest do
  use Plausible.Webhooks.Test.StoreCase, async: true

  use Plausible.Webhooks.StoreContract,
    store: Plausible.Webhooks.Store.Ecto,
    setup: {__MODULE__, :empty}

  def empty(_context), do: open()
end
