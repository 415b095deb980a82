defmodule Plausible.Webhooks.TrafficCase do
  @moduledoc """
  A site whose visitors a test sets, with a store and a receiver that fail on
  demand, to watch what the evaluation of traffic does.
  """

  use ExUnit.CaseTemplate

  alias Plausible.Webhooks.{JsonSchema, Webhook}
  alias Plausible.Webhooks.Ingest.{Directory, Payload, Traffic}
  alias Plausible.Webhooks.Test.InstanceStub

  # Store, host and receiver in one. `fail` holds functions that are called instead
  # of what they are named after; the log says what was done, in order.
  defmodule World do
    @moduledoc false
    use Agent

    def start_link(_opts),
      do:
        Agent.start_link(fn ->
          %{
            states: %{},
            visitors: %{},
            accepted: %{},
            log: [],
            fail: %{},
            webhooks: [],
            sites: %{}
          }
        end)

    def put(world, key, value), do: Agent.update(world, &Map.put(&1, key, value))
    def get(world, key), do: Agent.get(world, &Map.fetch!(&1, key))
    def fail(world, what, fun), do: Agent.update(world, &put_in(&1.fail[what], fun))
    def log(world), do: Agent.get_and_update(world, &{Enum.reverse(&1.log), %{&1 | log: []}})

    defp step(world, what, entry, fun) do
      failing = Agent.get_and_update(world, &{&1.fail[what], %{&1 | log: [entry | &1.log]}})
      if failing, do: failing.(), else: fun.()
    end

    # store
    def all_webhooks(world), do: {:ok, get(world, :webhooks)}

    def list_webhooks(world, id),
      do: {:ok, Enum.filter(get(world, :webhooks), &(&1.site_id == id))}

    def alert_states(world, ids) do
      step(world, :alert_states, {:alert_states, length(ids)}, fn ->
        {:ok, for({{id, _kind}, state} <- get(world, :states), id in ids, do: state)}
      end)
    end

    def put_alert_state(world, state) do
      step(world, :put_alert_state, {:state, state.state, state.notified_at_ms != nil}, fn ->
        Agent.update(world, &put_in(&1.states[{state.webhook_id, state.kind}], state))
      end)
    end

    # Needed for the lease alone.
    def take_lease(world, name, lease_ms, token) do
      case get(world, :fail)[:take_lease] do
        nil -> {:ok, token || 1}
        fun -> fun.(name, lease_ms, token)
      end
    end

    # host; visitors are a function of the window
    def site(world, id), do: step(world, :site, :site, fn -> get(world, :sites)[id] end)
    def goals(_world, _id), do: []

    def alert_sites(world, ids) do
      step(world, :alert_sites, {:alert_sites, length(ids)}, fn ->
        world |> get(:sites) |> Map.take(ids) |> Map.values()
      end)
    end

    def visitors(world, ids, windows) do
      step(world, :visitors, {:visitors, length(ids), length(windows)}, fn ->
        visitors = get(world, :visitors)
        {:ok, Map.new(ids, &{&1, Enum.map(windows, visitors[&1])})}
      end)
    end

    def breakdown(world, _id, _window, limit) do
      step(world, :breakdown, {:breakdown, limit}, fn ->
        {:ok, %{sources: [%{name: "HN", visitors: 9}], pages: [%{path: "/a", visitors: 8}]}}
      end)
    end

    def dashboard_url(world, id),
      do: step(world, :dashboard_url, :url, fn -> "https://p.test/#{id}" end)

    # receiver: what a store does with an id that it has
    def deliver(world, notice) do
      step(world, :deliver, {:deliver, notice.event.type}, fn ->
        Agent.update(world, &%{&1 | accepted: Map.put_new(&1.accepted, notice.id, notice)})
      end)
    end

    def accepted(world), do: world |> get(:accepted) |> Map.values()
  end

  @t 1_795_428_000_000
  @minute 60_000
  @hour 60 * @minute
  @week 7 * 24 * @hour

  using do
    quote do
      import Plausible.Webhooks.Test.Eventually
      import Plausible.Webhooks.TrafficCase

      alias Plausible.Webhooks.Ingest.Traffic
      alias Plausible.Webhooks.TrafficCase.World

      @t 1_795_428_000_000
      @minute 60_000
      @hour 60 * @minute
      @week 7 * 24 * @hour
    end
  end

  setup do
    {:ok, world} = World.start_link([])
    instance = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    site(world, 1)
    start_supervised!({InstanceStub, {instance, {World, world}, {World, world}}})

    context = %{
      instance: instance,
      deliver: &World.deliver(world, &1)
    }

    %{world: world, instance: instance, traffic: context}
  end

  def site(world, id, start_ms \\ @t - 100 * @week) do
    site = %{id: id, domain: "site#{id}.test", timezone: "Etc/UTC", stats_start_at_ms: start_ms}
    World.put(world, :sites, Map.put(World.get(world, :sites), id, site))
    visit(world, 0, id)
  end

  # So many visitors in every window.
  def visit(world, count, id \\ 1)

  def visit(world, count, id) when is_integer(count),
    do: visit(world, fn _window -> count end, id)

  def visit(world, fun, id),
    do: World.put(world, :visitors, Map.put(World.get(world, :visitors), id, fun))

  def watching(attrs \\ []) do
    Map.merge(
      %{
        id: "w1",
        status: :active,
        events: ["traffic.spike"],
        spike_threshold: 100,
        drop_threshold: nil,
        min_interval_s: 0
      },
      Map.new(attrs)
    )
  end

  def dropping(attrs \\ []),
    do: watching([events: ["traffic.drop"], spike_threshold: nil, drop_threshold: 20] ++ attrs)

  def evaluate(context, webhooks \\ [watching()], now_ms \\ @t),
    do: evaluate_sites(context, [{1, List.wrap(webhooks)}], now_ms)

  def evaluate_sites(context, sites, now_ms \\ @t),
    do: Traffic.Round.evaluate(context.traffic, sites, now_ms, [self()])

  # The types of the notices that each number of visitors led to, in the minute or the minutes
  # in which there were so many: `100` or `{100, minutes}`.
  def notices(context, webhooks, visitors) do
    {types, _minute} =
      Enum.map_reduce(visitors, 0, fn
        {count, minutes}, minute -> during(context, webhooks, count, minute, minutes)
        count, minute -> during(context, webhooks, count, minute, 1)
      end)

    types
  end

  defp during(context, webhooks, count, minute, minutes) do
    visit(context.world, count)
    World.put(context.world, :accepted, %{})

    for minute <- minute..(minute + minutes - 1),
        do: assert(%{failed: []} = evaluate(context, webhooks, @t + minute * @minute))

    types = context.world |> World.accepted() |> Enum.map(& &1.event.type) |> Enum.sort()
    {types, minute + minutes}
  end

  def body(notice) do
    {:ok, json} = Payload.encode(notice.event)
    assert JsonSchema.errors(notice.event.type, json) == []
    {:ok, body} = Plausible.Webhooks.Native.decode(json)
    body["data"]
  end

  def start(context, webhooks, opts \\ []) do
    World.put(context.world, :webhooks, webhooks)
    opts = Keyword.merge(Map.to_list(context.traffic), opts)

    ExUnit.Callbacks.start_supervised!({Directory, Keyword.take(opts, [:instance])})

    ExUnit.Callbacks.start_supervised!(
      {Traffic.Evaluator, Keyword.put_new(opts, :tick_ms, :infinity)}
    )
  end

  def webhook(attrs \\ []) do
    struct!(
      %Webhook{
        id: "w1",
        site_id: 1,
        events: ["traffic.spike"],
        spike_threshold: 100,
        traffic_min_interval_s: 0
      },
      attrs
    )
  end
end
