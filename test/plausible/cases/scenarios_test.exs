defmodule Plausible.Webhooks.RealTree.ScenariosTest do
  # The named scenarios, in a real Plausible.
  use Plausible.Webhooks.Scenarios, host: {Plausible.Webhooks.Test.PlausibleHost, nil}
end
