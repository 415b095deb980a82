defmodule Plausible.Webhooks.StoreEctoCommitTest do
  # A connection that goes while a commit is under way, or before its answer is heard:
  # nobody knows whether it was done, and doing it again must be harmless.
  use Plausible.Webhooks.Test.StoreCase, async: true

  alias Plausible.Webhooks.Test.{CuttingProxy, Postgres}

  @moduletag :capture_log

  # Whoever commits a change of the deliveries waits in the commit, for as long as
  # somebody has the lock.
  defp commit_waits!(store) do
    sql!(store, """
    CREATE FUNCTION PREFIX.wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock_shared(#{lock_key(store)}); RETURN NULL; END $$
    """)

    sql!(store, """
    CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT OR UPDATE ON PREFIX.webhook_deliveries
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION PREFIX.wait_at_commit()
    """)
  end

  defp lock_key(store), do: :erlang.phash2(store.prefix)

  defp hold_commits(store),
    do: fn -> Repo.query!("SELECT pg_advisory_xact_lock(#{lock_key(store)})") end

  describe "in the middle of a commit" do
    test "a connection that is terminated leaves the outcome open; repeating is harmless" do
      store = open!()
      commit_waits!(store)
      many = for _ <- 1..1_200, do: a_delivery(body: "")

      for deliveries <- [[a_delivery()], many] do
        accept = fn -> Store.accept(store, deliveries) end
        before = count(store)

        assert while_blocked(hold_commits(store), accept, &terminate/1) ==
                 {:error, :connection_lost}

        assert count(store) == before
        assert accept.() == :ok
        assert accept.() == :ok
        assert count(store) == before + length(deliveries)
      end

      [first, second | _] = many
      attempts = [an_attempt(first), failed(second, 1, state: :parked, next_at_ms: 5)]

      for record <- [
            fn -> Store.record(store, attempts) end,
            fn -> Store.record(store, attempts ++ [failed(second, 2)]) end
          ] do
        {:ok, before} = Store.get_delivery(store, second.id)

        assert while_blocked(hold_commits(store), record, &terminate/1) ==
                 {:error, :connection_lost}

        assert Store.get_delivery(store, second.id) == {:ok, before}
        assert record.() == :ok
        {:ok, once} = Store.get_delivery(store, second.id)
        assert record.() == :ok
        assert Store.get_delivery(store, second.id) == {:ok, once}
      end

      claim = fn -> Store.claim(store, "b", 5) end
      assert while_blocked(hold_commits(store), claim, &terminate/1) == {:error, :connection_lost}
      assert {:ok, [_, _, _, _, _]} = claim.()
    end
  end

  describe "an answer that gets lost after the commit" do
    setup do
      store = open!()
      {proxy, connect} = CuttingProxy.start!(:persistent_term.get(Postgres))
      # No other question than ours: a connection that idles is asked whether it lives.
      own_repo(connect ++ [pool_size: 2, idle_interval: 600_000])
      assert {:ok, _} = Store.counts(store)
      %{store: store, proxy: proxy}
    end

    # It was done, and nobody was told.
    defp lost(proxy, tag, call) do
      cuts = CuttingProxy.cuts(proxy)
      CuttingProxy.cut(proxy, {:answer, tag})
      result = call.()
      assert CuttingProxy.cuts(proxy) == cuts + 1
      result
    end

    test "of accept is repeated and changes nothing", %{store: store, proxy: proxy} do
      few = for _ <- 1..10, do: a_delivery()
      many = for _ <- 1..1_100, do: a_delivery(body: "x")

      for {deliveries, tag, there} <- [{few, "INSERT", 10}, {many, "COMMIT", 1_110}] do
        accept = fn -> Store.accept(store, deliveries) end
        assert lost(proxy, tag, accept) == {:error, :connection_lost}
        assert count(store) == there
        assert accept.() == :ok
        assert count(store) == there
        assert sql!(store, "SELECT count(*) FROM PREFIX.webhook_bodies") == [[there]]
      end

      assert {:ok, %{pending: 1_110}} = Store.counts(store)
    end

    test "of record is repeated and changes nothing", %{store: store, proxy: proxy} do
      [first, second] = deliveries = for _ <- 1..2, do: a_delivery()
      :ok = Store.accept(store, deliveries)

      for {attempts, tag} <- [
            {[failed(first, 1, state: :pending, next_at_ms: 7), an_attempt(second)], "UPDATE"},
            {[failed(first, 2, state: :pending), failed(first, 3)], "COMMIT"}
          ] do
        record = fn -> Store.record(store, attempts) end
        assert lost(proxy, tag, record) == {:error, :connection_lost}
        there = Enum.map(deliveries, &Store.get_delivery(store, &1.id))
        assert {:ok, [_ | _] = recorded} = Store.attempts(store, first.id)
        assert record.() == :ok
        assert Enum.map(deliveries, &Store.get_delivery(store, &1.id)) == there
        assert Store.attempts(store, first.id) == {:ok, recorded}
      end

      assert {:ok, %{state: :failed, attempts: 3}} = Store.get_delivery(store, first.id)
      assert {:ok, %{state: :delivered}} = Store.get_delivery(store, second.id)
    end

    test "of a claim leaves them with its owner, whose they stay", %{store: store, proxy: proxy} do
      deliveries = for _ <- 1..3, do: a_delivery(owner: "dead")
      :ok = Store.accept(store, deliveries)
      :ok = Store.heartbeat(store, "b", 60_000)

      assert lost(proxy, "SELECT", fn -> Store.claim(store, "b", 10) end) ==
               {:error, :connection_lost}

      # Whoever gets this error owns what it does not know.
      assert {:ok, %{entries: entries}} = Store.deliveries(store, 1, %{}, %{})
      assert Enum.map(entries, & &1.owner) == ["b", "b", "b"]
      assert Store.claim(store, "c", 10) == {:ok, []}
      end_lease!(store, "b")
      assert {:ok, [_, _, _]} = Store.claim(store, "c", 10)
    end

    test "of a change of webhooks is told by the next look", %{store: store, proxy: proxy} do
      webhook = a_webhook([])
      insert = fn -> Store.insert_webhook(store, webhook) end
      assert lost(proxy, "COMMIT", insert) == {:error, :connection_lost}
      assert insert.() == {:error, :already_exists}
      update = fn -> Store.update_webhook(store, %{webhook | name: "new"}) end
      assert lost(proxy, "SELECT", update) == {:error, :connection_lost}
      assert update.() == {:error, :stale}
      assert {:ok, %{name: "new"}} = Store.get_webhook(store, webhook.id)
    end

    test "is another matter than a question that gets lost", %{store: store, proxy: proxy} do
      accept = fn -> Store.accept(store, [a_delivery()]) end
      CuttingProxy.cut(proxy, :question)

      # Newer versions of the pool ask another connection where nothing was done yet.
      case accept.() do
        {:error, :connection_lost} -> assert count(store) == 0
        :ok -> assert count(store) == 1
      end

      assert CuttingProxy.cuts(proxy) == 1
      assert accept.() == :ok
    end
  end
end
