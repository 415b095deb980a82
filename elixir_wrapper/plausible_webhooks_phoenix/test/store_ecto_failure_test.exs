defmodule Plausible.Webhooks.StoreEctoFailureTest do
  # The database is busy, gone, cut off, or goes in the middle of something.
  use Plausible.Webhooks.Test.StoreCase, async: true

  import ExUnit.CaptureLog

  alias Plausible.Webhooks.Test.Postgres

  @moduletag :capture_log

  # Every callback, with arguments that find something or nothing.
  defp all_callbacks(webhook, delivery) do
    [
      insert_webhook: [a_webhook(id: "wh_new")],
      update_webhook: [webhook],
      delete_webhook: [1, "wh_none"],
      get_webhook: [webhook.id],
      list_webhooks: [1],
      all_webhooks: [],
      put_health: [webhook.id, %{failing_since_ms: 1}],
      put_health: [webhook.id, %{}],
      accept: [[a_delivery()]],
      accept: [for(_ <- 1..1_001, do: a_delivery())],
      record: [[an_attempt(delivery)]],
      record: [[failed(delivery, 1), an_attempt(delivery, number: 2)]],
      claim: ["b", 10],
      claim_suspect: ["b"],
      reclaim: ["b", "a", 10],
      take_lease: ["prune", 60_000, nil],
      release: ["a", [delivery.id], 1],
      heartbeat: ["a", 60_000],
      redeliver: ["a", [delivery.id], [:pending]],
      requested: ["a", 10],
      rekey: [10],
      add_audit: [%{site_id: 1, webhook_id: "wh_1", actor: "a", action: "b", at_ms: 1}],
      audit: [1, "wh_1", 10],
      get_webhooks: [[webhook.id]],
      recoverable: [webhook.id, 0, 10],
      cancel_waiting: ["wh_none", "over"],
      hold_waiting: ["wh_none"],
      send_held: [],
      deliveries: [1, %{}, %{}],
      deliveries: [1, %{goal_id: 1, states: [:failed]}, %{}],
      get_delivery: [delivery.id],
      attempts: [delivery.id],
      counts: [],
      activity: [1, [webhook.id], 0],
      waiting: [[webhook.id]],
      prune: [1, 10],
      alert_states: [[webhook.id]],
      put_alert_state: [an_alert(webhook_id: webhook.id, kind: :drop)]
    ]
  end

  defp every_callback_answers(store, error) do
    webhook = a_webhook([])

    for {callback, arguments} <- all_callbacks(webhook, a_delivery()) do
      result = apply(Store, callback, [store | arguments])
      assert match?(^error, result), "#{callback} answered #{inspect(result)}"
    end

    # Whoever asks for the time gets one.
    assert_in_delta Store.now_ms(store), System.system_time(:millisecond), 2_000
  end

  test "every callback is among those that are tried here" do
    tried = all_callbacks(a_webhook([]), a_delivery()) |> Keyword.keys() |> Enum.uniq()

    all =
      for {name, _arity} <- Plausible.Webhooks.Store.behaviour_info(:callbacks),
          name not in [:init, :child_spec, :now_ms],
          do: name

    assert Enum.sort(tried) == Enum.sort(all)
  end

  test "a Repo that does not run is an error, not an exception" do
    store = open!()
    own = own_repo(pool_size: 1)
    assert {:ok, _} = Store.counts(store)
    ref = Process.monitor(own)
    Process.unlink(own)
    Supervisor.stop(own)
    assert_receive {:DOWN, ^ref, :process, _pid, _reason}

    # Ecto forgets it a moment later.
    eventually(fn -> Store.counts(store) == {:error, {:raised, ArgumentError}} end)
    every_callback_answers(store, {:error, {:raised, ArgumentError}})
    assert open(prefix: "any") == {:error, {:raised, ArgumentError}}
    Repo.put_dynamic_repo(:none_of_this_name)
    every_callback_answers(store, {:error, {:raised, RuntimeError}})
    Repo.put_dynamic_repo(Repo)
    assert {:ok, _} = Store.counts(store)
  end

  describe "with no connection to get" do
    test "every callback gives up waiting, and works again when there is one" do
      store = open!()
      own = own_repo(pool_size: 1, queue_target: 20, queue_interval: 20)
      test = self()

      holder =
        Task.async(fn ->
          Repo.put_dynamic_repo(own)

          Repo.checkout(fn ->
            send(test, :held)
            receive do: (:let_go -> :ok)
          end)
        end)

      assert_receive :held
      every_callback_answers(store, {:error, :queue_timeout})
      send(holder.pid, :let_go)
      Task.await(holder, 60_000)

      assert Store.accept(store, [a_delivery()]) == :ok
      # Nothing of all that was written.
      assert count(store) == 1
    end
  end

  defp lock_row(store, delivery) do
    fn ->
      sql!(store, "SELECT 1 FROM PREFIX.webhook_deliveries WHERE id = $1 FOR UPDATE", [
        delivery.id
      ])
    end
  end

  # Somebody else is about to insert the same.
  defp insert_first(store, delivery), do: fn -> :ok = Store.accept(store, [delivery]) end

  describe "a connection that is terminated in the middle" do
    setup do
      store = open!()
      deliveries = Enum.sort_by(for(_ <- 1..20, do: a_delivery()), & &1.id)
      %{store: store, deliveries: deliveries}
    end

    test "of accept", %{store: store, deliveries: deliveries} do
      blocker = insert_first(store, Enum.at(deliveries, 10))
      accept = fn -> Store.accept(store, deliveries) end
      assert while_blocked(blocker, accept, &terminate/1) == {:error, :connection_lost}
      assert count(store) == 0
      assert accept.() == :ok
      assert count(store) == 20
    end

    test "of an accept of several statements", %{store: store} do
      many = Enum.sort_by(for(_ <- 1..2_100, do: a_delivery(body: "")), & &1.id)
      accept = fn -> Store.accept(store, many) end
      blocker = insert_first(store, Enum.at(many, 2_050))
      assert while_blocked(blocker, accept, &terminate/1) == {:error, :connection_lost}
      assert count(store) == 0
      assert accept.() == :ok
      assert {:ok, %{pending: 2_100}} = Store.counts(store)
    end

    test "of record", %{store: store, deliveries: deliveries} do
      :ok = Store.accept(store, deliveries)
      attempts = Enum.map(deliveries, &an_attempt/1)

      for attempts <- [attempts, [failed(hd(deliveries), 1) | attempts]] do
        record = fn -> Store.record(store, attempts) end
        blocker = lock_row(store, Enum.at(deliveries, 10))
        assert while_blocked(blocker, record, &terminate/1) == {:error, :connection_lost}
        assert {:ok, %{pending: 20, delivered: 0}} = Store.counts(store)
        assert Store.attempts(store, hd(deliveries).id) == {:ok, []}
      end

      assert Store.record(store, attempts) == :ok
      assert {:ok, %{pending: 0, delivered: 20}} = Store.counts(store)
    end

    test "of claim", %{store: store, deliveries: deliveries} do
      :ok = Store.accept(store, deliveries)
      # A claim waits for nobody's deliveries, but for its own name.
      blocker = fn -> :ok = Store.heartbeat(store, "b", 60_000) end
      claim = fn -> Store.claim(store, "b", 100) end
      assert while_blocked(blocker, claim, &terminate/1) == {:error, :connection_lost}
      assert {:ok, %{entries: entries}} = Store.deliveries(store, 1, %{}, %{})
      assert Enum.uniq_by(entries, & &1.owner) |> Enum.map(& &1.owner) == ["a"]
      assert {:ok, claimed} = claim.()
      assert Enum.sort(ids(claimed)) == ids(deliveries)
    end

    test "of redeliver, release and cancel", %{store: store, deliveries: deliveries} do
      :ok = Store.accept(store, deliveries)
      before = Store.deliveries(store, 1, %{}, %{})

      for call <- [
            fn -> Store.redeliver(store, "b", ids(deliveries), [:pending, :parked]) end,
            fn -> Store.release(store, "a", ids(deliveries), 1) end,
            fn -> Store.cancel_waiting(store, "wh_1", "over") end
          ] do
        blocker = lock_row(store, Enum.at(deliveries, 10))
        assert while_blocked(blocker, call, &terminate/1) == {:error, :connection_lost}
        assert Store.deliveries(store, 1, %{}, %{}) == before
      end

      assert {:ok, %{taken: [_ | _]}} =
               Store.redeliver(store, "b", ids(deliveries), [:pending, :parked])

      assert Store.cancel_waiting(store, "wh_1", "over") == {:ok, 20}
    end
  end

  test "a statement that takes too long is given up, and may be repeated" do
    store = open!(timeout_ms: 150)
    delivery = a_delivery()
    accept = fn -> Store.accept(store, [delivery, a_delivery(id: "msg_2")]) end

    outcome =
      while_blocked(insert_first(store, delivery), accept, fn _pid ->
        Process.sleep(500)
        :rollback
      end)

    assert outcome == {:error, :timeout}
    # Nobody is left at the server who might do it later.
    waiting = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1"
    eventually(fn -> sql!(store, waiting, ["%#{store.prefix}%"]) == [] end)
    assert accept.() == :ok
    assert {:ok, %{pending: 2}} = Store.counts(store)
  end

  # --- PostgreSQL goes and comes

  describe "PostgreSQL" do
    @tag timeout: 120_000
    test "that is stopped, or killed, and started again is worked with again" do
      cluster = Postgres.start!()
      on_exit(fn -> File.rm_rf!(cluster.folder) end)

      own_repo(
        Postgres.connect(cluster) ++
          [pool_size: 3, backoff_min: 50, backoff_max: 200, queue_target: 20, queue_interval: 20]
      )

      eventually(fn -> match?({:ok, _}, Repo.query("SELECT 1")) end)
      [1] = Ecto.Migrator.run(Repo, [{1, first_migration()}], :up, all: true, log: false)
      {:ok, store} = Store.init(repo: Repo, vault: vault(), timeout_ms: 2_000)
      webhook = a_webhook([])
      :ok = Store.insert_webhook(store, webhook)
      :ok = Store.heartbeat(store, "a", 600_000)

      {cluster, accepted} =
        Enum.reduce([&Postgres.stop!/1, &Postgres.kill!/1, &Postgres.stop!/1], {cluster, []}, fn
          go_away, {cluster, accepted} ->
            delivery = a_delivery()
            :ok = Store.accept(store, [delivery])
            go_away.(cluster)

            for {callback, arguments} <- all_callbacks(webhook, delivery) do
              assert {:error, reason} = apply(Store, callback, [store | arguments])
              assert {callback, reason} in for(r <- away(), do: {callback, r})
            end

            assert is_integer(Store.now_ms(store))
            cluster = Postgres.again!(cluster)
            eventually(fn -> match?({:ok, _}, Store.counts(store)) end)
            {cluster, [delivery | accepted]}
        end)

      # Everything that was confirmed is there, and the lease holds.
      for delivery <- accepted,
          do: assert(Store.get_delivery(store, delivery.id) == {:ok, delivery})

      assert count(store) == 3
      assert {:ok, [%{failing_since_ms: nil}]} = Store.all_webhooks(store)
      assert Store.claim(store, "b", 10) == {:ok, []}
      :ok = Store.record(store, Enum.map(accepted, &an_attempt/1))
      assert {:ok, %{delivered: 3}} = Store.counts(store)
      Postgres.remove(cluster)
    end
  end

  # What an absent database may look like, to the first who notices and to the rest.
  defp away, do: [:connection_lost, :queue_timeout, :timeout]

  defmodule First do
    @moduledoc false
    use Ecto.Migration
    def up, do: Plausible.Webhooks.Migrations.up(version: 1)
  end

  defp first_migration, do: First

  test "neither values nor secrets are in what is logged" do
    store = open!()
    webhook = a_webhook(url: "https://h.example.com/T0S3CRET", name: "T0S3CRET")

    log =
      capture_log(fn ->
        Logger.configure(level: :debug)
        :ok = Store.insert_webhook(store, webhook)
        :ok = Store.accept(store, [a_delivery(body: "T0S3CRET")])
        {:error, _} = Store.insert_webhook(store, webhook)
        {:error, _} = Store.accept(store, [a_delivery(body: nil, reason: "T0S3CRET")])
        {:error, _} = Store.accept(store, [a_delivery(site_id: "T0S3CRET")])
      end)

    refute log =~ "T0S3CRET"
  end
end
