defmodule Plausible.Webhooks.Test.EctoInstanceCase do
  @moduledoc false
  # An instance as in the first project's InstanceCase, on Store.Ecto with tables of its own.
  # A test may set `repo` and `prefix` in its context.

  use ExUnit.CaseTemplate

  alias Plausible.Webhooks.Store
  alias Plausible.Webhooks.Test.{InstanceCase, Repo, StoreCase}

  using do
    quote do
      import Plausible.Webhooks.Test.InstanceCase,
        only: [delivery: 1, delivery: 2, webhook!: 2, webhook!: 3]

      import Plausible.Webhooks.Test.{EctoInstanceCase, Eventually, StoreCase}

      alias Plausible.Webhooks, as: API
      alias Plausible.Webhooks.{Delivery, Store}
      alias Plausible.Webhooks.Accept.Outbox
      alias Plausible.Webhooks.Deliver.Engine
      alias Plausible.Webhooks.Ingest.Directory
      alias Plausible.Webhooks.Runtime.Instance
      alias Plausible.Webhooks.Test.{HttpReceiver, Postgres, Repo, TestHost}
    end
  end

  setup do
    InstanceCase.given()
  end

  def start!(context, options \\ []) do
    prefix = Map.get_lazy(context, :prefix, &StoreCase.migrated/0)
    store = {Store.Ecto, repo: Map.get(context, :repo, Repo), prefix: prefix}
    options = Keyword.put_new(options, :store, store)
    InstanceCase.start!(Map.put(context, :prefix, prefix), options)
  end
end
