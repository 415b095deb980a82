defmodule Plausible.Webhooks.Test.EctoInstanceCase do
  @moduledoc false
  # A whole instance on Store.Ecto, with tables of its own and a receiver on
  # loopback.
  #
  #     use Plausible.Webhooks.Test.EctoInstanceCase
  #
  #     test "...", context do
  #       context = start!(context, retry_delays_ms: [10])

  use ExUnit.CaseTemplate

  alias Plausible.Webhooks.{Delivery, Id, Store}
  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Test.{HttpReceiver, Repo, TestHost}

  using do
    quote do
      import Plausible.Webhooks.Test.{EctoInstanceCase, StoreCase}

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
    # The host's table outlives the instance, which is stopped when the test's own
    # process is gone already.
    test = self()
    keeper = start_supervised!({Agent, fn -> TestHost.new(test) end})

    %{
      name: :"Elixir.Webhooks#{System.unique_integer([:positive])}",
      host: Agent.get(keeper, & &1),
      receiver: HttpReceiver.of(start_supervised!({HttpReceiver, []}))
    }
  end

  def options(context, options \\ []) do
    repo = Map.get(context, :repo, Repo)
    prefix = context[:prefix] || Plausible.Webhooks.Test.StoreCase.migrated()

    Keyword.merge(
      [
        name: context.name,
        store: {Store.Ecto, repo: repo, prefix: prefix},
        host: {TestHost, context.host},
        vault: [:binary.copy(<<7>>, 32)],
        policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
        jitter_percent: 0,
        lane_rate_per_s: 100_000,
        destination_rate_per_s: 1_000_000,
        sweep_interval_ms: 50,
        drain_ms: 2_000,
        traffic: false
      ],
      options
    )
  end

  def start!(context, options \\ []) do
    context = Map.put_new_lazy(context, :prefix, &Plausible.Webhooks.Test.StoreCase.migrated/0)
    spec = {Plausible.Webhooks, options(context, options)}
    pid = start_supervised!(spec, id: context.name, restart: :temporary)
    Map.merge(context, %{supervisor: pid, instance: Instance.fetch!(context.name)})
  end

  @doc "A webhook of site 1 that wants goals, at a path of the receiver."
  def webhook!(context, path, attributes \\ %{}) do
    url = HttpReceiver.url(context.receiver, path)
    attributes = Map.merge(%{url: url, events: ["goal.completed"]}, attributes)
    {:ok, webhook} = Plausible.Webhooks.create_webhook(context.name, :owner, 1, attributes)
    webhook
  end

  def delivery(webhook, attributes \\ []) do
    now_ms = System.system_time(:millisecond)

    struct!(
      %Delivery{
        id: Id.delivery(now_ms),
        webhook_id: webhook.id,
        site_id: webhook.site_id,
        type: "goal.completed",
        goal_id: 12,
        body: ~s({"type":"goal.completed"}),
        created_at_ms: now_ms
      },
      attributes
    )
  end
end
