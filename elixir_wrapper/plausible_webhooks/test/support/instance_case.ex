defmodule Plausible.Webhooks.Test.InstanceCase do
  @moduledoc false
  # A whole instance on the real engine and a SQLite file of its own, with a
  # receiver on loopback.
  #
  #     use Plausible.Webhooks.Test.InstanceCase
  #
  #     test "...", context do
  #       start!(context, retry_delays_ms: [10])

  use ExUnit.CaseTemplate

  alias Plausible.Webhooks.{Delivery, Id}
  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Test.{HttpReceiver, SwitchStore, TestHost}

  using do
    quote do
      import Plausible.Webhooks.Test.InstanceCase

      alias Plausible.Webhooks.{Attempt, Delivery, Error, Store, Webhook}
      alias Plausible.Webhooks.Accept.Outbox
      alias Plausible.Webhooks.Deliver.{Endpoints, Engine, Handover, Owners, Recorder, Sweeper}
      alias Plausible.Webhooks.Runtime.Instance
      alias Plausible.Webhooks.Test.{HttpReceiver, SwitchStore, TestHost}
    end
  end

  setup do
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
      receiver: HttpReceiver.of(start_supervised!({HttpReceiver, []})),
      host: host,
      switch: switch
    }
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
        policy: %{https_only: false, allow_private: true},
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
    attributes =
      Map.merge(
        %{url: HttpReceiver.url(context.receiver, path), events: ["goal.completed"]},
        attributes
      )

    {:ok, webhook} = Plausible.Webhooks.create_webhook(context.name, :owner, 1, attributes)
    {:ok, secrets} = Plausible.Webhooks.reveal_secret(context.name, :owner, 1, webhook.id)
    HttpReceiver.secrets(context.receiver, path, Enum.map(secrets, & &1.key))
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
    case Plausible.Webhooks.delivery(context.name, :owner, 1, id) do
      {:ok, delivery} -> delivery
      {:error, %{reason: :not_found}} -> %Delivery{state: nil}
    end
  end

  def attempts(context, id) do
    case Plausible.Webhooks.attempts(context.name, :owner, 1, id) do
      {:ok, attempts} -> attempts
      {:error, %{reason: :not_found}} -> []
    end
  end

  @doc "Every delivery of site 1 that is in the log, newest first."
  def all_deliveries(context, after_cursor \\ nil) do
    {:ok, page} =
      Plausible.Webhooks.deliveries(context.name, :owner, 1, %{}, %{
        after: after_cursor,
        limit: 200
      })

    if page.next, do: page.entries ++ all_deliveries(context, page.next), else: page.entries
  end

  @doc "Tries until `fun` is true."
  def eventually(fun, timeout_ms \\ 15_000) do
    deadline = System.monotonic_time(:millisecond) + timeout_ms
    try_until(fun, deadline)
  end

  defp try_until(fun, deadline) do
    result = fun.()

    cond do
      result ->
        result

      System.monotonic_time(:millisecond) >= deadline ->
        raise ExUnit.AssertionError, message: "did not become true in time"

      true ->
        Process.sleep(10)
        try_until(fun, deadline)
    end
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
    _ = :sys.get_state(name)
    :ok
  end
end
