defmodule Plausible.Webhooks.ScenariosEctoTest do
  # The named scenarios on PostgreSQL.
  use Plausible.Webhooks.Scenarios,
    host: {Plausible.Webhooks.Scenarios.SmallHost, &Plausible.Webhooks.Test.StoreCase.store/1},
    async: true
end
