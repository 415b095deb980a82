defmodule Plausible.Webhooks.Test.InstanceCase do
  @moduledoc false
  # A whole instance on the real engine and a SQLite file of its own, with a
  # receiver on loopback.
  #
  #     use Plausible.Webhooks.Test.InstanceCase
  #
  #     @tag start: [retry_delays_ms: [10]]
  #     test "...", %{webhook: webhook} = context do
  #
  # The tag starts the instance with these options, and makes a webhook at the path /hook.

  use ExUnit.CaseTemplate

  import Plausible.Webhooks.Test.AsUser, except: [attempts: 2, delivery: 2]
  import Plausible.Webhooks.Test.Eventually

  alias Plausible.Webhooks.{Delivery, Id, Native}
  alias Plausible.Webhooks.Accept.Outbox
  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Test.{AsUser, HttpReceiver, SwitchStore, TestHost}

  using do
    quote do
      import Plausible.Webhooks.Test.AsUser, except: [attempts: 2, delivery: 2]
      import Plausible.Webhooks.Test.{Eventually, InstanceCase}

      alias Plausible.Webhooks.{Attempt, Delivery, Error, Store, Webhook}
      alias Plausible.Webhooks.Accept.Outbox
      alias Plausible.Webhooks.Deliver.{Endpoints, Engine, Handover, Owners, Recorder, Sweeper}
      alias Plausible.Webhooks.Runtime.Instance
      alias Plausible.Webhooks.Test.{HttpReceiver, Observer, SwitchStore, TestHost}
    end
  end

  setup context do
    given = given()
    if options = context[:start], do: start_with_webhook!(given, options), else: given
  end

  @doc "What a test has before it starts an instance: its name, a host, a receiver."
  def given do
    dir =
      Path.join(
        System.tmp_dir!(),
        "webhooks-#{System.unique_integer([:positive])}-#{System.pid()}"
      )

    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)

    # The tables of host and switch must outlive the instance, which is stopped
    # when the test's own process is gone already.
    test = self()
    keeper = start_supervised!({Agent, fn -> {TestHost.new(test), SwitchStore.new()} end})
    {host, switch} = Agent.get(keeper, & &1)

    %{
      dir: dir,
      name: :"webhooks_#{System.unique_integer([:positive])}",
      user: :owner,
      site: %{id: 1},
      receiver: HttpReceiver.of(start_supervised!({HttpReceiver, []})),
      host: host,
      switch: switch
    }
  end

  defp start_with_webhook!(context, options) do
    context = start!(context, options)
    Map.put(context, :webhook, webhook!(context, "/hook"))
  end

  @doc "The options of the test's instance."
  def options(context, options \\ []) do
    store =
      {Plausible.Webhooks.Store.SQLite,
       path: Path.join(context.dir, "webhooks.db"), name: sqlite(context)}

    Keyword.merge(
      [
        name: context.name,
        store: {SwitchStore, switch: context.switch, inner: store},
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

  defp sqlite(context), do: Module.concat(context.name, "SQLite")

  def start!(context, options \\ []) do
    # Temporary: an instance that a test kills stays dead.
    spec = {Plausible.Webhooks, options(context, options)}
    pid = start_supervised!(spec, id: context.name, restart: :temporary)
    Map.merge(context, %{supervisor: pid, instance: Instance.fetch!(context.name)})
  end

  def stop!(context), do: :ok = stop_supervised!(context.name)

  @doc "A webhook of site 1 that wants goals, at a path of the receiver."
  def webhook!(context, path, attributes \\ %{}) do
    {:ok, secret} = Native.generate_secret()
    url = HttpReceiver.url(context.receiver, path)
    defaults = %{url: url, events: ["goal.completed"], secret: secret}
    {:ok, webhook} = create_webhook(context, Map.merge(defaults, attributes))
    HttpReceiver.secrets(context.receiver, path, [secret])
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

  def deliveries(webhook, count), do: for(_ <- 1..count, do: delivery(webhook))

  @doc "Pushes deliveries to the outbox and returns their ids."
  def push(context, deliveries) do
    :ok = Outbox.push(context.instance, deliveries)
    Enum.map(deliveries, & &1.id)
  end

  @doc "Waits until every delivery that was pushed has ended, so that nothing more is sent."
  def settled!(context) do
    eventually(fn ->
      Outbox.size(context.instance) == 0 and
        match?({:ok, %{entries: []}}, deliveries(context, %{states: [:pending, :parked]}, %{}))
    end)
  end

  @doc "Waits until the store was asked to do this `count` times more, whatever it answered."
  def asked!(context, function, count) do
    before = SwitchStore.calls(context.switch, function)
    eventually(fn -> SwitchStore.calls(context.switch, function) >= before + count end)
  end

  @doc "Whether the deliveries of these ids have been delivered."
  def done?(context, ids) do
    states = Map.new(all_deliveries(context), &{&1.id, &1.state})
    Enum.all?(ids, &(states[&1] == :delivered))
  end

  @doc "An ingestion event that completes the goal of its site."
  def event(site_id \\ 1, attributes \\ %{}) do
    %{
      clickhouse_event:
        Map.merge(
          %{
            site_id: site_id,
            name: "Signup",
            hostname: "site#{site_id}.example",
            pathname: "/register",
            session_id: 1,
            timestamp: ~N[2026-11-23 10:15:30],
            "meta.key": ["plan"],
            "meta.value": ["growth"]
          },
          attributes
        )
    }
  end

  @doc "What the log says of a delivery; one without a state while it says nothing."
  def logged(context, id) do
    case AsUser.delivery(context, id) do
      {:ok, delivery} -> delivery
      {:error, %{reason: :not_found}} -> %Delivery{state: nil}
    end
  end

  @doc "The delivery, once it is in this state."
  def await_state(context, id, state) do
    eventually(fn ->
      delivery = logged(context, id)
      if delivery.state == state, do: delivery
    end)
  end

  def attempts(context, id) do
    case AsUser.attempts(context, id) do
      {:ok, attempts} -> attempts
      {:error, %{reason: :not_found}} -> []
    end
  end

  @doc "Every delivery of site 1 that is in the log, newest first."
  def all_deliveries(context, after_cursor \\ nil) do
    {:ok, page} = deliveries(context, %{}, %{after: after_cursor, limit: 200})

    if page.next, do: page.entries ++ all_deliveries(context, page.next), else: page.entries
  end

  @doc "Kills a process of the instance and waits for its successor."
  def kill!(context, part) do
    name = if part == :sqlite, do: sqlite(context), else: Instance.process(context.name, part)

    pid = Process.whereis(name)
    ref = Process.monitor(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^ref, :process, ^pid, _reason} -> :ok
    end

    # Answers when it has begun its work.
    eventually(fn -> Process.whereis(name) not in [nil, pid] end)
    _ = :sys.get_state(name, 60_000)
    :ok
  end
end
