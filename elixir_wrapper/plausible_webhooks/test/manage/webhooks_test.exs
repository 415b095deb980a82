defmodule Plausible.Webhooks.Manage.WebhooksTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API

  @moduletag :capture_log

  describe "managing webhooks" do
    test "create, list, get, update, delete", context do
      context = start!(context)
      assert {:ok, []} = list_webhooks(context)

      attributes = %{
        "url" => "HTTP://127.0.0.1:8000",
        "events" => ["goal.completed"],
        "name" => "CRM"
      }

      {:ok, created} = create_webhook(context, attributes)
      assert %{site_id: 1, name: "CRM", url: "http://127.0.0.1:8000/", enabled: true} = created
      assert {:ok, ^created} = get_webhook(context, created.id)
      assert {:ok, [^created]} = list_webhooks(context)

      {:ok, updated} = update_webhook(context, created.id, %{name: "ERP"})
      assert updated.version == created.version + 1
      assert %{name: "ERP", url: "http://127.0.0.1:8000/"} = updated
      assert :ok = delete_webhook(context, created.id)
      assert {:error, %Error{reason: :not_found}} = get_webhook(context, created.id)
      assert {:error, %Error{reason: :not_found}} = delete_webhook(context, created.id)

      for entry <- [:webhook_created, :webhook_updated, :webhook_deleted] do
        assert_received {:host, :audit, :owner, ^entry, %Webhook{secrets: [%{key: nil}]}}
      end
    end

    test "invalid attributes are named, and nothing is saved", context do
      context = start!(context)

      for {attributes, field} <- [
            {%{events: ["goal.completed"]}, :url},
            {%{url: "ftp://example.com", events: ["goal.completed"]}, :url},
            {%{url: "http://224.0.0.1/", events: ["goal.completed"]}, :url},
            {%{url: "http://127.0.0.1/", events: ["nonsense"]}, :events},
            {%{url: "http://127.0.0.1/", events: ["traffic.spike"]}, :spike_threshold},
            {%{url: "http://127.0.0.1/", events: ["goal.completed"], headers: %{"host" => "x"}},
             :headers},
            {%{"url" => "http://127.0.0.1/", "events" => ["goal.completed"], "color" => "red"},
             "color"}
          ] do
        assert {:error, %Error{reason: {:invalid, %{^field => text}}}} =
                 create_webhook(context, attributes)

        assert is_binary(text)
      end

      assert {:ok, []} = list_webhooks(context)
      webhook = webhook!(context, "/hook")

      assert {:error, %Error{reason: {:invalid, %{url: _}}}} =
               update_webhook(context, webhook.id, %{url: "x"})

      {:ok, unchanged} = get_webhook(context, webhook.id)
      assert unchanged.version == webhook.version
    end

    @tag start: []
    test "a wrong type is an ArgumentError", context do
      store = Process.whereis(Module.concat(context.name, "SQLite"))
      directory = Process.whereis(Instance.process(context.name, :directory))
      name = context.name
      odd = [1.5, :a, [], %{}, {1}, self(), fn -> 1 end, "1", Integer.pow(2, 70), nil, [1 | 2]]

      for site <- odd do
        for call <- [
              fn -> API.list_webhooks(name, :owner, site) end,
              fn -> API.deliveries(name, :owner, site, %{}, %{}) end,
              fn -> API.get_webhook(name, :owner, site, context.webhook.id) end,
              fn -> API.create_webhook(name, :owner, site, %{}) end,
              fn -> API.webhook_changed(name, site, context.webhook.id) end
            ],
            do: assert_raise(ArgumentError, call)
      end

      for id <- odd -- ["1"] do
        for call <- [
              fn -> API.get_webhook(name, :owner, 1, id) end,
              fn -> API.update_webhook(name, :owner, 1, id, %{}) end,
              fn -> API.delete_webhook(name, :owner, 1, id) end,
              fn -> API.enable_webhook(name, :owner, 1, id) end,
              fn -> API.disable_webhook(name, :owner, 1, id) end,
              fn -> API.reveal_secret(name, :owner, 1, id) end,
              fn -> API.rotate_secret(name, :owner, 1, id, 0) end,
              fn -> API.send_test(name, :owner, 1, id, "webhook.test") end,
              fn -> API.recover(name, :owner, 1, id, 0) end,
              fn -> API.delivery(name, :owner, 1, id) end,
              fn -> API.attempts(name, :owner, 1, id) end,
              fn -> API.redeliver(name, :owner, 1, id) end,
              fn -> API.webhook_changed(name, 1, id) end
            ],
            do: assert_raise(ArgumentError, call)
      end

      for wrong <- [~D[2026-01-01], [1], [a: 1] ++ [2], :a, nil, "x", [{:a, 1} | :b]] do
        assert_raise ArgumentError, fn -> API.deliveries(name, :owner, 1, wrong, %{}) end
        assert_raise ArgumentError, fn -> API.deliveries(name, :owner, 1, %{}, wrong) end
      end

      assert store == Process.whereis(Module.concat(context.name, "SQLite"))
      assert directory == Process.whereis(Instance.process(context.name, :directory))
    end

    test "a site has a limit, and an unknown site has none", context do
      context = start!(context, webhooks_per_site_max: 25)
      for n <- 1..25, do: webhook!(context, "/#{n}")
      attributes = %{url: "http://127.0.0.1/", events: ["goal.completed"]}
      assert {:error, %Error{reason: :limit_reached}} = create_webhook(context, attributes)
      assert {:ok, _} = create_webhook(%{context | site: %{id: 2}}, attributes)
      TestHost.put(context.host, {:site, 1}, nil)
      assert {:error, %Error{reason: :not_found}} = create_webhook(context, attributes)
    end

    @tag start: []
    test "changes at the same time are all made", context do
      results =
        ["url", "name", "goals", "headers"]
        |> Enum.map(fn field ->
          value =
            %{
              "url" => "http://127.0.0.1/x",
              "name" => "n",
              "goals" => [12],
              "headers" => %{"x-a" => "b"}
            }[field]

          Task.async(fn ->
            update_webhook(context, context.webhook.id, %{field => value})
          end)
        end)
        |> Task.await_many(60_000)

      assert Enum.all?(results, &match?({:ok, _}, &1))
      {:ok, changed} = get_webhook(context, context.webhook.id)

      assert %{url: "http://127.0.0.1/x", name: "n", goals: [12], headers: [{"x-a", "b"}]} =
               changed

      assert changed.version == context.webhook.version + 4
    end

    test "who changed it or looked at its secret is on record", context do
      context = start!(context)
      %{id: id} = webhook = webhook!(context, "/hook")
      {:ok, _} = API.reveal_secret(context.name, :owner, 1, id)
      {:ok, _} = API.rotate_secret(context.name, :owner, 1, id, 0)
      audit = fn -> API.audit_log(context.name, :owner, 1, id) end
      {:ok, entries} = audit.()

      assert ~w(webhook_secret_rotated webhook_secret_revealed webhook_created) ==
               Enum.map(entries, & &1.action)

      assert Enum.all?(entries, &match?(%{actor: "owner", site_id: 1, webhook_id: ^id}, &1))
      assert Enum.all?(entries, &(&1.at_ms >= webhook.inserted_at_ms))
      assert {:error, %Error{reason: :forbidden}} = API.audit_log(context.name, :viewer, 1, id)

      # No look that is not on record; the log outlives the webhook.
      SwitchStore.set(context.switch, {:only, [:add_audit], :away})

      assert {:error, %Error{reason: :away}} = API.reveal_secret(context.name, :owner, 1, id)

      SwitchStore.set(context.switch, :on)
      :ok = API.delete_webhook(context.name, :owner, 1, id)
      assert {:ok, [%{action: "webhook_deleted"}, _, _, _]} = audit.()
    end

    test "are encrypted with the first key on demand", context do
      [old, new] = for byte <- [1, 2], do: :binary.copy(<<byte>>, 32)
      context = start!(context, vault: [old])
      webhooks = for n <- 1..3, do: webhook!(context, "/hook#{n}")
      stop!(context)
      context = start!(context, vault: [new, old])
      test = self()

      assert API.rekey(context.name, &send(test, {:progress, &1})) ==
               {:ok, %{rewritten: 3, left: 0}}

      assert_received {:progress, %{rewritten: 3, left: 0}}
      stop!(context)
      context = start!(context, vault: [new])
      assert {:ok, found} = API.list_webhooks(context.name, :owner, 1)
      assert Enum.map(found, & &1.id) == Enum.map(webhooks, & &1.id)
    end

    test "a form that was filled in before another change overwrites nothing", context do
      context = start!(context)
      %{id: id, version: version} = webhook!(context, "/hook")
      change = &API.update_webhook(context.name, :owner, 1, id, &1)

      # Of all that read the same version, the first one wins.
      results =
        1..8
        |> Enum.map(fn n -> Task.async(fn -> change.(%{name: "n#{n}", version: version}) end) end)
        |> Task.await_many(20_000)

      assert [{:ok, %{name: name} = saved}] = Enum.filter(results, &match?({:ok, _}, &1))
      assert Enum.count(results, &match?({:error, %Error{reason: :stale}}, &1)) == 7
      assert {:ok, ^saved} = API.get_webhook(context.name, :owner, 1, id)

      assert {:error, %Error{reason: {:invalid, %{version: _}}}} = change.(%{"version" => "x"})
      newest = to_string(saved.version)
      assert {:ok, %{name: ^name}} = change.(%{"version" => newest, "enabled" => "true"})
    end

    @tag start: []
    test "while the store is away every change returns an error", context do
      SwitchStore.set(context.switch, :away)

      for call <- [
            fn -> list_webhooks(context) end,
            fn -> get_webhook(context, context.webhook.id) end,
            fn -> update_webhook(context, context.webhook.id, %{name: "x"}) end,
            fn -> delete_webhook(context, context.webhook.id) end,
            fn -> reveal_secret(context, context.webhook.id) end,
            fn -> deliveries(context, %{}, %{}) end,
            fn -> recover(context, context.webhook.id, 0) end
          ] do
        assert {:error, %Error{reason: :away}} = call.()
      end

      SwitchStore.set(context.switch, :exit)
      assert {:error, %Error{reason: :store_unavailable}} = list_webhooks(context)
      SwitchStore.set(context.switch, :on)
    end

    @tag start: []
    test "a rotation with an overlap that is not allowed changes nothing", context do
      for wrong <- [-1, 8 * 86_400_000, "1", nil] do
        assert {:error, %Error{reason: :invalid_overlap}} =
                 rotate_secret(context, context.webhook.id, wrong)
      end

      assert {:ok, [_only]} = reveal_secret(context, context.webhook.id)
      assert {:ok, %{secrets: [%{key: nil}]}} = rotate_secret(context, context.webhook.id, 0)
    end
  end

  describe "instances" do
    test "live side by side, each with its own store and names", context do
      context = start!(context)
      other = %{context | name: :"#{context.name}_2", dir: Path.join(context.dir, "2")}
      File.mkdir_p!(other.dir)
      other = start!(other)
      webhook!(context, "/one")
      webhook!(other, "/two")
      API.events_buffered(other.name, [event()])
      HttpReceiver.await(context.receiver, "/two", 1)
      assert HttpReceiver.count(context.receiver, "/one") == 0
      assert {:ok, [_]} = list_webhooks(context)
      stop!(other)
      assert Instance.get(other.name) == nil
      API.events_buffered(context.name, [event()])
      HttpReceiver.await(context.receiver, "/one", 1)
    end

    test "a store that cannot be opened stops the start, with its reason", context do
      Process.flag(:trap_exit, true)
      File.write!(Path.join(context.dir, "webhooks.db"), :binary.copy("not a database ", 1_000))
      assert {:error, reason} = API.start_link(options(context))
      assert inspect(reason) =~ "{:store, :not_a_database}"
      assert Instance.get(context.name) == nil
    end

    test "a store that is coming back is waited for", context do
      for reason <- [:connection_lost, :queue_timeout, :timeout] do
        SwitchStore.set(context.switch, {:starting, reason})
        coming = Task.async(fn -> Process.sleep(700) && SwitchStore.set(context.switch, :on) end)
        context = start!(context)
        Task.await(coming, 60_000)
        assert {:ok, []} = list_webhooks(context)
        stop!(context)
      end
    end

    test "that do not run are named in the error", context do
      assert_raise ArgumentError, ~r/no webhooks instance :nowhere/, fn -> API.stats(:nowhere) end
      assert %{id: id, type: :supervisor} = API.child_spec(name: context.name)
      assert id == context.name
      assert %{id: Plausible.Webhooks} = API.child_spec([])
      assert {:error, {:invalid_option, :options, _}} = API.start_link(:garbage)
      assert %{id: Plausible.Webhooks} = API.child_spec(:garbage)
    end

    test "keep their keys out of what supervisors print", context do
      key = "a key of exactly thirty-two byte"
      assert byte_size(key) == 32
      spec = API.child_spec(options(context, vault: [key]))
      refute inspect(spec) =~ key
      refute to_string(:io_lib.format("~p", [spec])) =~ key
      context = start!(context, vault: [key])
      children = Supervisor.which_children(context.supervisor)

      for {_id, pid, _type, _modules} <- children do
        refute to_string(:io_lib.format("~p", [:sys.get_status(pid)])) =~ key
      end

      refute to_string(:io_lib.format("~p", [:sys.get_status(context.supervisor)])) =~ key
    end

    test "return their counters", context do
      context = start!(context)

      assert %{outbox: 0, journal: 0, dropped: 0, engine: %{in_flight: 0, waiting: 0}} =
               API.stats(context.name)
    end
  end
end
