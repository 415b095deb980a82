defmodule Plausible.Webhooks.Test.DirectoryCase do
  @moduledoc false
  # A directory whose store and host give the answers of the test.

  use ExUnit.CaseTemplate

  alias Plausible.Webhooks.Ingest.{Directory, Goals}
  alias Plausible.Webhooks.Test.{InstanceStub, TestHost}
  alias Plausible.Webhooks.Webhook

  # Store and host in one: an Agent that answers from its state, and counts calls.
  # A function as an answer is called (to raise, to hang).
  defmodule World do
    @moduledoc false
    use Agent

    def start_link(state), do: Agent.start_link(fn -> Map.put_new(state, :asked, []) end)
    def put(world, key, value), do: Agent.update(world, &Map.put(&1, key, value))

    def asked(world),
      do: Agent.get_and_update(world, &{Enum.reverse(&1.asked), %{&1 | asked: []}})

    defp answer(world, what, key) do
      value =
        Agent.get_and_update(world, fn state ->
          {Map.get(state, key), %{state | asked: [what | state.asked]}}
        end)

      if is_function(value), do: value.(), else: value
    end

    def all_webhooks(world) do
      with webhooks when is_list(webhooks) <- answer(world, :all, :webhooks), do: {:ok, webhooks}
    end

    def list_webhooks(world, site_id) do
      with webhooks when is_list(webhooks) <- answer(world, {:list, site_id}, :webhooks),
           do: {:ok, Enum.filter(webhooks, &(&1.site_id == site_id))}
    end

    def site(world, site_id), do: answer(world, {:site, site_id}, {:site, site_id})
    def goals(world, site_id), do: answer(world, {:goals, site_id}, {:goals, site_id})
  end

  using do
    quote do
      import ExUnit.CaptureLog
      import Plausible.Webhooks.Test.{DirectoryCase, Eventually}

      alias Plausible.Webhooks.Ingest.{Directory, Goals, Subscriptions}
      alias Plausible.Webhooks.Test.DirectoryCase.World
      alias Plausible.Webhooks.Webhook
    end
  end

  defdelegate goal(id, name), to: TestHost, as: :event_goal

  def webhook(id, site_id, attrs \\ []) do
    struct!(
      %Webhook{id: id, site_id: site_id, url: "https://x.test", events: ["goal.completed"]},
      attrs
    )
  end

  def site(id),
    do: %{id: id, domain: "site#{id}.test", timezone: "Etc/UTC", stats_start_at_ms: nil}

  setup context do
    {:ok, world} =
      World.start_link(%{
        :webhooks => [webhook("w1", 1)],
        {:site, 1} => site(1),
        {:site, 2} => site(2),
        {:goals, 1} => [goal(1, "Signup")],
        {:goals, 2} => [goal(2, "Order")]
      })

    instance = Module.concat(context.module, "I#{System.unique_integer([:positive])}")
    start_supervised!({InstanceStub, {instance, {World, world}, {World, world}}})
    %{world: world, instance: instance}
  end

  def start(%{instance: instance}, opts \\ []),
    do: start_supervised!({Directory, [instance: instance] ++ opts})

  def completed(instance, site_id, name) do
    case Directory.lookup(instance, site_id) do
      nil ->
        nil

      subscriptions ->
        for %{goal: goal, webhooks: webhooks} <-
              Goals.completed(subscriptions, %{clickhouse_event: %{name: name}}, nil),
            do: {goal.id, webhooks}
    end
  end
end
