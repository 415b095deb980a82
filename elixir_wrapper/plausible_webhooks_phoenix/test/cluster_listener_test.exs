defmodule Plausible.Webhooks.ClusterListenerTest do
  # What each listener passes on, and what becomes of it when what it listens to
  # goes away.
  use Plausible.Webhooks.Test.EctoInstanceCase, async: false

  import ExUnit.CaptureLog

  @moduletag :capture_log

  alias Plausible.Webhooks.Cluster

  defp cluster(connection \\ []) do
    connect = Postgres.connect(:persistent_term.get(Postgres))
    channel = "test_#{System.unique_integer([:positive])}"
    [repo: Repo, connection: Keyword.merge(connect, connection), channel: channel]
  end

  # Everything that the inbox gets from now on comes here, too.
  defp listen!(context) do
    inbox = Process.whereis(Instance.process(context.instance, :cluster))
    1 = :erlang.trace(inbox, true, [:receive])
    inbox
  end

  defp listener(context, module) do
    {_id, pid, _type, _modules} =
      List.keyfind(Supervisor.which_children(context.supervisor), module, 0)

    pid
  end

  defp connection(listener), do: :sys.get_state(listener).connection

  defp notify!(options, payload),
    do: Repo.query!("SELECT pg_notify($1, $2)", [options[:channel], payload])

  defp terminate!(options) do
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = $1"
    query = ~s(LISTEN "#{options[:channel]}")
    %{rows: [[true]]} = Repo.query!(sql, [query])
  end

  describe "Postgres" do
    test "passes on what others say, not what we say, and no nonsense", context do
      options = cluster()
      context = start!(context, cluster: {Cluster.Postgres, options})
      inbox = listen!(context)
      listener = listener(context, Cluster.Postgres)

      for payload <- [
            "",
            "garbage",
            "1",
            "1 other",
            "1 other webhook",
            "1 other webhook one wh_1",
            "1 other goals 1x",
            "1 other something newer",
            "2 other goals 7"
          ],
          do: notify!(options, payload)

      webhook!(context, "/hook")
      API.goals_changed(context.name, 1)
      notify!(options, "1 other webhook 3 wh_3")
      notify!(options, "1 other webhook 3 wh_3")
      notify!(options, "1 other goals 4")
      for _twice <- 1..2, do: assert_told(inbox, {:received, {:webhook_changed, 3, "wh_3"}})
      assert_told(inbox, {:received, {:goals_changed, 4}})
      refute_received {:trace, ^inbox, :receive, {:received, _}}
      assert listener(context, Cluster.Postgres) == listener
    end

    test "reads everything anew after a lost connection, and goes on", context do
      options = cluster()
      context = start!(context, cluster: {Cluster.Postgres, options})
      webhook = webhook!(context, "/hook")
      assert Directory.lookup(context.name, 1)
      listener = listener(context, Cluster.Postgres)

      log =
        capture_log(fn ->
          :sys.suspend(listener)
          terminate!(options)
          # Said while nobody listens.
          {:ok, stored} = Store.get_webhook(context.instance, webhook.id)

          {:ok, _} =
            Store.update_webhook(context.instance, %{stored | enabled: false})

          notify!(options, "1 other webhook 1 #{webhook.id}")
          :sys.resume(listener)
          eventually(fn -> Directory.lookup(context.name, 1) == nil end)
        end)

      assert log =~ "the connection that listens is lost"
      inbox = listen!(context)
      notify!(options, "1 other goals 4")
      assert_told(inbox, {:received, {:goals_changed, 4}})
    end

    test "comes up without a database, and listens as soon as there is one", context do
      missing =
        Path.join(System.tmp_dir!(), "no-such-folder-#{System.unique_integer([:positive])}")

      options = cluster(socket_dir: missing)

      log =
        capture_log(fn ->
          context = start!(context, cluster: {Cluster.Postgres, options})
          listener = listener(context, Cluster.Postgres)
          assert connection(listener) == nil
          # The folder of the tests' server, under the name that was missing.
          File.ln_s!(Postgres.connect(:persistent_term.get(Postgres))[:socket_dir], missing)
          on_exit(fn -> File.rm(missing) end)
          eventually(fn -> connection(listener) end)
        end)

      assert log =~ "the connection that listens is lost"
    end

    test "notices a connection that brings nothing", context do
      # As behind a pooler: another database's notifications do not come.
      options = cluster(database: "postgres") ++ [check_ms: 100]

      log =
        capture_log(fn ->
          context = start!(context, cluster: {Cluster.Postgres, options})
          listener = listener(context, Cluster.Postgres)
          first = connection(listener)
          eventually(fn -> connection(listener) not in [first, nil] end)
        end)

      assert log =~ "has not arrived"
      assert log =~ ":connection"
    end

    test "leaves a good connection alone", context do
      context = start!(context, cluster: {Cluster.Postgres, cluster() ++ [check_ms: 50]})
      listener = listener(context, Cluster.Postgres)
      first = connection(listener)
      Process.sleep(500)
      assert connection(listener) == first
    end

    test "a password is not in what supervisors print", context do
      context = start!(context, cluster: {Cluster.Postgres, cluster(password: "hunter2")})
      {:ok, spec} = :supervisor.get_childspec(context.supervisor, Cluster.Postgres)
      refute inspect(spec, limit: :infinity) =~ "hunter2"
      status = :sys.get_status(listener(context, Cluster.Postgres))
      refute inspect(status, limit: :infinity) =~ "hunter2"
    end

    test "that the database cannot be told is an error, and no more", context do
      options = Keyword.put(cluster(), :channel, "")

      assert Cluster.Postgres.tell(context.name, options, {:goals_changed, 1}) ==
               {:error, {:postgres, :invalid_parameter_value}}
    end

    test "options that cannot work stop the start", context do
      Process.flag(:trap_exit, true)

      for wrong <- [
            [repo: nil],
            [repo: String],
            [channel: ""],
            [channel: String.duplicate("x", 64)]
          ] do
        options = options(context, cluster: {Cluster.Postgres, Keyword.merge(cluster(), wrong)})
        assert {:error, {%ArgumentError{message: message}, _stack}} = API.start_link(options)
        assert message =~ "of the cluster"
      end
    end
  end

  describe "PubSub" do
    setup do
      pubsub = Module.concat(__MODULE__, "PubSub#{System.unique_integer([:positive])}")
      start_supervised!({Phoenix.PubSub, name: pubsub}, id: pubsub)
      %{pubsub: pubsub}
    end

    test "passes on what others say, not what we say, and no nonsense", context do
      %{pubsub: pubsub, name: name} = context
      context = start!(context, cluster: {Cluster.PubSub, pubsub: pubsub})
      inbox = listen!(context)
      listener = listener(context, Cluster.PubSub)
      topic = Cluster.PubSub.topic(name)
      :ok = Phoenix.PubSub.subscribe(pubsub, topic)

      webhook!(context, "/hook")
      assert_receive {:plausible_webhooks, 1, {:webhook_changed, 1, _id}}

      for garbage <- [:garbage, {:plausible_webhooks, 2, :newer}],
          do: Phoenix.PubSub.broadcast(pubsub, topic, garbage)

      Phoenix.PubSub.broadcast(pubsub, topic, {:plausible_webhooks, 1, {:goals_changed, 4}})
      assert_told(inbox, {:received, {:goals_changed, 4}})
      refute_received {:trace, ^inbox, :receive, {:received, _}}
      assert listener(context, Cluster.PubSub) == listener
    end

    @tag :capture_log
    test "subscribes again to a PubSub that was restarted, and reads everything", context do
      %{pubsub: pubsub, name: name} = context
      context = start!(context, cluster: {Cluster.PubSub, pubsub: pubsub})
      inbox = listen!(context)
      :ok = stop_supervised!(pubsub)
      # Nobody to tell, and that is all.
      webhook!(context, "/hook")
      start_supervised!({Phoenix.PubSub, name: pubsub}, id: pubsub)
      assert_told(inbox, :missed)
      message = {:plausible_webhooks, 1, {:goals_changed, 4}}
      Phoenix.PubSub.broadcast(pubsub, Cluster.PubSub.topic(name), message)
      assert_told(inbox, {:received, {:goals_changed, 4}})
      assert Process.alive?(context.supervisor)
    end
  end

  defp assert_told(inbox, message),
    do: assert_receive({:trace, ^inbox, :receive, ^message}, 10_000)
end
