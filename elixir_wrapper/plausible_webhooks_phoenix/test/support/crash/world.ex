defmodule Plausible.Webhooks.Test.Crash.World do
  @moduledoc false
  # What a crash test has around it: a PostgreSQL, a schema of it with two webhooks, a
  # receiver, and the VMs that it starts. Every process of it belongs to the test, and
  # so does everything outside of this VM by way of those.

  alias Plausible.Webhooks.{Native, Store, Vault, Webhook}
  alias Plausible.Webhooks.Test.Crash.{Audit, Receiver, VM}
  alias Plausible.Webhooks.Test.{Postgres, Repo, StoreCase}

  import ExUnit.Callbacks, only: [start_supervised!: 2]

  defstruct [:server, :prefix, :dir, :receiver, :told, :sql, :webhooks, :options, :checked]

  @type t :: %__MODULE__{}

  @key :binary.copy(<<7>>, 32)
  @lifetime_ms 7_200_000
  # Numbers of events: so many for each VM.
  @numbers 10_000_000

  # Everything that takes seconds by default takes tenths of one.
  @node [
    retry_delays_ms: [100, 200, 400],
    park_after_ms: 150,
    lease_ms: 1_000,
    sweep_interval_ms: 100,
    timeout_ms: 2_000,
    connect_timeout_ms: 1_000,
    drain_ms: 500,
    lane_in_flight_max: 16,
    lane_rate_per_s: 100_000,
    destination_rate_per_s: 100_000
  ]

  @doc """
  Options: `:server`, an agent that holds the cluster; `:dir`, an empty folder;
  `:node`, options of the instances that are not the usual ones.
  """
  @spec start(keyword()) :: t()
  def start(options) do
    cluster = cluster(options[:server])
    prefix = "crash #{System.unique_integer([:positive])}"
    {:ok, secret} = Native.generate_secret()
    receiver = Receiver.start!(secret)
    dir = options[:dir]

    sql = start_supervised!({Postgrex, connect(cluster)}, id: Postgrex)

    world = %__MODULE__{
      server: options[:server],
      prefix: prefix,
      dir: dir,
      receiver: receiver,
      told: :ets.new(:told, [:public, :set]),
      sql: sql,
      webhooks: make(cluster, prefix, receiver, secret),
      options: Keyword.merge(@node, Keyword.get(options, :node, [])),
      checked: :atomics.new(1, [])
    }

    world
  end

  # Waits out what the tests do to the server.
  defp connect(cluster) do
    Postgres.connect(cluster) ++
      [
        pool_size: 2,
        backoff_min: 20,
        backoff_max: 100,
        queue_target: 10_000,
        queue_interval: 10_000,
        disconnect_on_error_codes: []
      ]
  end

  @doc "The cluster as it is now."
  @spec cluster(pid()) :: Postgres.t()
  def cluster(server), do: Agent.get(server, & &1, 60_000)

  defp make(cluster, prefix, receiver, secret) do
    {:ok, repo} =
      Repo.start_link(Postgres.connect(cluster) ++ [name: nil, pool_size: 2, log: false])

    before = Repo.put_dynamic_repo(repo)
    Repo.query!(~s(CREATE SCHEMA "#{prefix}"))
    :ok = StoreCase.migrate!(prefix, :up)
    {:ok, vault} = Vault.new([@key])
    {:ok, store} = Store.Ecto.init(repo: Repo, prefix: prefix, vault: vault)
    policy = %{https_only: false, allow: ["127.0.0.0/8:*"]}

    ids =
      for {path, attributes} <- [
            {"/hook", %{events: ["goal.completed"]}},
            {"/bad", %{events: ["traffic.spike"], spike_threshold: 1}}
          ] do
        attributes = Map.merge(attributes, %{url: receiver.url <> path, secret: secret})
        {:ok, webhook} = Webhook.new(1, attributes, policy: policy)
        :ok = Store.Ecto.insert_webhook(store, webhook)
        webhook.id
      end

    Repo.put_dynamic_repo(before)
    Supervisor.stop(repo)
    ids
  end

  @doc """
  Starts a VM, without waiting for it. Options: `:connect`, to the database; `:store`;
  `:environment`, `:flags`.
  """
  @spec boot(t(), keyword()) :: VM.t()
  def boot(world, options \\ []) do
    number = System.unique_integer([:positive, :monotonic])

    connect =
      Keyword.get_lazy(options, :connect, fn -> Postgres.connect(cluster(world.server)) end)

    config = %{
      repo: connect ++ [pool_size: 4, log: false],
      store: [prefix: world.prefix, timeout_ms: 2_000] ++ Keyword.get(options, :store, []),
      options:
        [vault: [@key], policy: %{https_only: false, allow: ["127.0.0.0/8:*"]}] ++ world.options,
      webhooks: world.webhooks,
      first: number * @numbers,
      accept_ms: 1_000,
      batch_max: 20,
      lifetime_ms: @lifetime_ms,
      log: if(System.get_env("WEBHOOKS_CRASH_LOG"), do: :warning, else: :none)
    }

    VM.start(
      [config: config, file: Path.join(world.dir, "vm-#{number}"), told: world.told] ++
        Keyword.take(options, [:environment, :flags])
    )
  end

  @doc "Starts a VM and waits for it; tries again where the database is away."
  @spec boot!(t(), keyword()) :: VM.t()
  def boot!(world, options \\ []), do: boot!(world, options, now_ms() + 60_000)

  defp boot!(world, options, deadline) do
    vm = boot(world, options)

    case VM.ready(vm) do
      :ok ->
        vm

      {:error, text} ->
        if now_ms() > deadline, do: raise("a VM did not start: #{text}")
        Process.sleep(100)
        boot!(world, options, deadline)
    end
  end

  # --- waiting

  @doc "How long it took from then until somebody was told of an acceptance by this VM."
  @spec accepts_again(t(), VM.t(), integer()) :: non_neg_integer()
  def accepts_again(world, vm, since_ms, wait_ms \\ 60_000) do
    case :ets.lookup(world.told, {:last, vm}) do
      [{_key, nil, at_ms}] when at_ms > since_ms ->
        at_ms - since_ms

      _not_yet ->
        if now_ms() > since_ms + wait_ms, do: raise("nothing was accepted for #{wait_ms} ms")
        Process.sleep(5)
        accepts_again(world, vm, since_ms, wait_ms)
    end
  end

  @doc """
  Ends the load of these VMs and waits until nothing is left to do; how long that took
  from then.
  """
  @spec clear(t(), [VM.t()], integer()) :: non_neg_integer()
  def clear(world, vms, since_ms, wait_ms \\ 60_000) do
    Enum.each(vms, &VM.idle/1)
    await_clear(world, vms, since_ms, now_ms() + wait_ms)
  end

  defp await_clear(world, vms, since_ms, deadline) do
    waiting = Enum.sum(for vm <- vms, do: VM.stats(vm).outbox) + Audit.waiting(world)

    cond do
      waiting == 0 ->
        now_ms() - since_ms

      now_ms() > deadline ->
        raise "#{waiting} deliveries are stuck: " <> Audit.stuck(world)

      true ->
        Process.sleep(20)
        await_clear(world, vms, since_ms, deadline)
    end
  end

  @doc """
  How long it took from then until none of these owners had anything left to do; `nil`
  where they left nothing.
  """
  @spec taken_over(t(), [String.t()], integer()) :: non_neg_integer() | nil
  def taken_over(world, owners, since_ms),
    do: if(Audit.held(world, owners) > 0, do: await_taken_over(world, owners, since_ms))

  defp await_taken_over(world, owners, since_ms) do
    cond do
      Audit.held(world, owners) == 0 ->
        now_ms() - since_ms

      now_ms() > since_ms + 120_000 ->
        raise "not taken over in two minutes: " <> Audit.stuck(world)

      true ->
        Process.sleep(50)
        await_taken_over(world, owners, since_ms)
    end
  end

  @spec lease_ms(t()) :: pos_integer()
  def lease_ms(world), do: world.options[:lease_ms]

  @spec now_ms() :: integer()
  def now_ms, do: System.monotonic_time(:millisecond)
end
