defmodule Plausible.Webhooks.ScenariosEctoTest.Store do
  alias Plausible.Webhooks.Test.{Repo, StoreCase}

  def option(_context),
    do: {Plausible.Webhooks.Store.Ecto, repo: Repo, prefix: StoreCase.migrated()}
end

# The named scenarios on PostgreSQL.
for part <- ~w(UserStories EdgeCases Requirements SuccessCriteria) do
  defmodule Module.concat(Plausible.Webhooks.ScenariosEctoTest, part) do
    use ExUnit.Case, async: true

    use Plausible.Webhooks.Scenarios,
      of: Module.concat(Plausible.Webhooks.Scenarios, part),
      store: {Plausible.Webhooks.ScenariosEctoTest.Store, :option}
  end
end
