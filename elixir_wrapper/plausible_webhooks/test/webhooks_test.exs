defmodule Plausible.WebhooksTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Id

  @moduletag :capture_log

  defmodule Tell do
    def handle_event(event, measurements, metadata, pid),
      do: send(pid, {event, measurements, metadata})
  end

  defp delivered(context, id) do
    eventually(fn ->
      delivery = logged(context, id)
      if delivery.state == :delivered, do: delivery
    end)
  end

  describe "an event" do
    test "becomes a signed request and is on record", context do
      context = start!(context)
      webhook = webhook!(context, "/hook", %{headers: %{"x-team" => "growth"}})
      assert :ok = API.events_buffered(context.name, [event()])

      assert [request] = HttpReceiver.await(context.receiver, "/hook", 1)
      assert request.verified
      assert request.method == "POST"
      assert request.headers["content-type"] == "application/json"
      assert request.headers["user-agent"] =~ ~r"\APlausible-Webhooks/"
      assert request.headers["x-team"] == "growth"

      id = request.headers["webhook-id"]
      assert "msg_" <> <<_::binary-size(26)>> = id
      delivery = delivered(context, id)

      assert %{webhook_id: webhook_id, goal_id: 12, type: "goal.completed", attempts: 1} =
               delivery

      assert webhook_id == webhook.id
      assert delivery.body == request.body

      assert {:ok, body} = Plausible.Webhooks.Native.decode(request.body)
      assert %{"type" => "goal.completed", "data" => data} = body

      assert %{
               "goal" => %{"id" => 12, "name" => "Signup"},
               "site" => %{"domain" => "site1.example"}
             } = data

      assert [%Attempt{number: 1, status: 200, error: nil, remote_ip: "127.0.0.1"} = attempt] =
               attempts(context, id)

      assert attempt.total_us > 0
    end

    test "goes to every webhook that wants it, and to no other", context do
      context = start!(context)
      webhook!(context, "/all")
      webhook!(context, "/this", %{goals: [12]})
      webhook!(context, "/that", %{goals: [13]})
      webhook!(context, "/off", %{enabled: false})
      webhook!(context, "/traffic", %{events: ["traffic.spike"], spike_threshold: 10})

      for _ <- 1..3,
          do: API.events_buffered(context.name, [event(), event(2), event(1, %{name: "Other"})])

      HttpReceiver.await(context.receiver, "/all", 3)
      HttpReceiver.await(context.receiver, "/this", 3)
      Process.sleep(100)
      assert HttpReceiver.count(context.receiver) == 6
      # Each completion is one POST, with an id of its own.
      assert MapSet.size(HttpReceiver.ids(context.receiver)) == 6
    end

    test "that is garbage costs itself and nothing else", context do
      context = start!(context, observers: [{Tell, self()}])
      webhook!(context, "/hook")

      garbage = [
        nil,
        1,
        %{},
        %{clickhouse_event: nil},
        %{clickhouse_event: %{site_id: nil}},
        %{clickhouse_event: %{site_id: 1}},
        %{clickhouse_event: %{site_id: "1", name: 5}},
        %{clickhouse_event: %{site_id: self(), name: "Signup"}},
        event(1, %{"meta.key": :garbage, "meta.value": 7}),
        event(1, %{name: <<255, 254>>}),
        event(1, %{timestamp: "yesterday", hostname: <<255>>, referrer: {1, 2}}),
        event(1, %{revenue_reporting_amount: make_ref(), revenue_reporting_currency: "EUR"})
      ]

      assert :ok = API.events_buffered(context.name, garbage ++ [event()])
      assert :ok = API.events_buffered(context.name, [event() | :improper])
      assert :ok = API.events_buffered(context.name, :not_a_list)
      assert :ok = API.events_buffered(:no_such_instance, [event()])
      assert :ok = API.events_buffered(nil, [event()])
      assert :ok = API.events_buffered("name", [event()])

      # Those that complete the goal arrive, whatever else is wrong with them.
      requests = HttpReceiver.await(context.receiver, "/hook", 2)
      assert Enum.all?(requests, & &1.verified)
    end

    test "that breaks something is counted, and its request goes on", context do
      context = start!(context, observers: [{Tell, self()}])
      webhook!(context, "/hook")
      # An event whose fields cannot even be looked at.
      broken = %{
        clickhouse_event: %{
          site_id: 1,
          name: "Signup",
          "meta.key": ["a" | "b"],
          "meta.value": ["c" | "d"],
          timestamp: %{__struct__: NaiveDateTime}
        }
      }

      assert :ok = API.events_buffered(context.name, [broken, event()])
      HttpReceiver.await(context.receiver, "/hook", 1)
      assert_receive {:deliveries_dropped, %{count: 1}, %{reason: :hook_error}}, 3_000
      assert API.stats(context.name).dropped == 1
    end

    test "costs next to nothing for a site without webhooks", context do
      context = start!(context)
      events = List.duplicate(event(2), 1_000)
      API.events_buffered(context.name, events)
      {micros, :ok} = :timer.tc(fn -> API.events_buffered(context.name, events) end)
      assert micros / 1_000 < 20
    end
  end

  describe "a change of goals" do
    test "is in force at once", context do
      context = start!(context)
      webhook!(context, "/hook")
      TestHost.put(context.host, {:goals, 1}, [TestHost.event_goal(13, "Purchase")])
      assert :ok = API.goals_changed(context.name, 1)
      API.events_buffered(context.name, [event(), event(1, %{name: "Purchase"})])
      [request] = HttpReceiver.await(context.receiver, "/hook", 1)
      assert request.body =~ "Purchase"
      Process.sleep(50)
      assert HttpReceiver.count(context.receiver) == 1
      assert :ok = API.goals_changed(:no_such_instance, 1)
      assert :ok = API.goals_changed(context.name, :garbage)
    end
  end

  describe "traffic" do
    test "found by the host goes to webhooks without a threshold of their own", context do
      context = start!(context)
      own = webhook!(context, "/own", %{events: ["traffic.spike"], spike_threshold: 5})

      # A webhook that follows the host's notifier has no threshold.
      {:ok, stored} = Instance.store(context.instance, :get_webhook, [own.id])

      follower = %{
        stored
        | id: Id.webhook(),
          spike_threshold: nil,
          url: HttpReceiver.url(context.receiver, "/follows")
      }

      :ok = Instance.store(context.instance, :insert_webhook, [follower])
      :ok = API.webhook_changed(context.name, 1, follower.id)

      info = %{current_visitors: 512, threshold: 300, sources: [], pages: []}
      assert :ok = API.traffic_change(context.name, :spike, 1, info)
      [request] = HttpReceiver.await(context.receiver, "/follows", 1)

      assert {:ok, %{"type" => "traffic.spike", "data" => data}} =
               Plausible.Webhooks.Native.decode(request.body)

      assert %{"current_visitors" => 512, "threshold" => 300} = data
      assert HttpReceiver.count(context.receiver, "/own") == 0

      assert :ok = API.traffic_change(context.name, :spike, 1, %{garbage: true})
      assert :ok = API.traffic_change(context.name, :sideways, 1, info)
      assert :ok = API.traffic_change(:no_such_instance, :spike, 1, info)
    end

    test "is evaluated here, and a notice that was accepted is not sent twice", context do
      context = start!(context, traffic: [tick_ms: :infinity])
      webhook!(context, "/spike", %{events: ["traffic.spike"], spike_threshold: 5})
      TestHost.put(context.host, :visitors, fn -> {:ok, [9]} end)
      now_ms = System.system_time(:millisecond)
      assert {:ok, %{fired: 1}} = Plausible.Webhooks.Traffic.evaluate(context.name, now_ms)
      [request] = HttpReceiver.await(context.receiver, "/spike", 1)
      id = request.headers["webhook-id"]
      delivered(context, id)

      event = %Plausible.Webhooks.Event{
        type: "traffic.spike",
        site_id: 1,
        occurred_at_ms: now_ms,
        data: %{}
      }

      notice = %{id: id, webhook_id: "wh_x", status: :active, event: event}
      assert :ok = Plausible.Webhooks.Hooks.deliver_notice(context.name, notice)
      Process.sleep(100)
      assert HttpReceiver.count(context.receiver) == 1
    end
  end

  describe "permissions" do
    setup context do
      context = start!(context)
      webhook = webhook!(context, "/hook?token=tok", %{headers: %{"x-key" => "key"}})
      delivery = delivery(webhook)
      :ok = Outbox.accept(context.instance, [delivery])
      delivered(context, delivery.id)
      Map.merge(context, %{webhook: webhook, delivery: delivery})
    end

    # {arity-free name, what is needed, call}
    defp calls(%{name: name, webhook: %{id: id}, delivery: delivery}) do
      attributes = %{url: "http://127.0.0.1:8000/", events: ["goal.completed"]}

      [
        {:read, &API.list_webhooks(name, &1, &2)},
        {:read, &API.get_webhook(name, &1, &2, id)},
        {:read, &API.deliveries(name, &1, &2, %{}, %{})},
        {:read, &API.delivery(name, &1, &2, delivery.id)},
        {:read, &API.attempts(name, &1, &2, delivery.id)},
        {:manage, &API.create_webhook(name, &1, &2, attributes)},
        {:manage, &API.update_webhook(name, &1, &2, id, %{name: "x"})},
        {:manage, &API.enable_webhook(name, &1, &2, id)},
        {:manage, &API.disable_webhook(name, &1, &2, id)},
        {:manage, &API.reveal_secret(name, &1, &2, id)},
        {:manage, &API.rotate_secret(name, &1, &2, id, 0)},
        {:manage, &API.send_test(name, &1, &2, id, "webhook.test")},
        {:manage, &API.redeliver(name, &1, &2, delivery.id)},
        {:manage, &API.recover(name, &1, &2, id, 0)},
        {:manage, &API.delete_webhook(name, &1, &2, id)}
      ]
    end

    test "are asked on every call, and refused to everybody else", context do
      before = {all_deliveries(context), API.list_webhooks(context.name, :owner, 1)}

      for {action, call} <- calls(context) do
        flush()
        assert {:error, :forbidden} = call.(:nobody, 1)
        assert_received {:host, :can?, :nobody, ^action, 1}
        assert {:error, :forbidden} = call.(nil, 1)
        # What is not exactly true is no.
        assert {:error, :forbidden} = call.(:confused, 1)
        # A right for another site is none for this one.
        assert {:error, :forbidden} = call.(:other, 1)
        if action == :manage, do: assert({:error, :forbidden} = call.(:viewer, 1))
        if action == :read, do: assert({:ok, _} = call.(:viewer, 1))
      end

      assert before == {all_deliveries(context), API.list_webhooks(context.name, :owner, 1)}
      assert HttpReceiver.count(context.receiver) == 1
    end

    test "for one site do not reach into another", context do
      for {_action, call} <- calls(context) do
        case call.(:other, 2) do
          {:ok, %{entries: entries}} -> assert entries == []
          {:ok, %Webhook{} = created} -> assert created.site_id == 2
          {:ok, webhooks} when is_list(webhooks) -> assert Enum.all?(webhooks, &(&1.site_id == 2))
          other -> assert other == {:error, :not_found}
        end
      end

      assert {:ok, [_]} = API.list_webhooks(context.name, :owner, 1)
      assert HttpReceiver.count(context.receiver) == 1
    end

    test "to read show no secrets: neither keys nor what URL and headers hold", context do
      {:ok, [read]} = API.list_webhooks(context.name, :viewer, 1)
      {:ok, ^read} = API.get_webhook(context.name, :viewer, 1, context.webhook.id)
      assert [%{key: nil, created_at_ms: _}] = read.secrets
      assert read.url == "http://127.0.0.1/…"
      assert read.headers == [{"x-key", "…"}]

      {:ok, managed} = API.get_webhook(context.name, :owner, 1, context.webhook.id)
      assert [%{key: nil}] = managed.secrets
      assert managed.url =~ "token=tok"
      assert managed.headers == [{"x-key", "key"}]
    end

    test "a secret is handed out after it was written to the audit log", context do
      flush()

      {:ok, [%{key: "whsec_" <> _}]} =
        API.reveal_secret(context.name, :owner, 1, context.webhook.id)

      assert_received {:host, :audit, :owner, :webhook_secret_revealed, audited}
      assert [%{key: nil}] = audited.secrets

      TestHost.put(context.host, :audit, fn -> raise "the audit log is away" end)

      assert_raise RuntimeError, fn ->
        API.reveal_secret(context.name, :owner, 1, context.webhook.id)
      end

      # A change that has happened is not taken back by that.
      assert {:ok, %{name: "new"}} =
               API.update_webhook(context.name, :owner, 1, context.webhook.id, %{name: "new"})
    end

    defp flush do
      receive do
        _ -> flush()
      after
        0 -> :ok
      end
    end
  end

  describe "managing webhooks" do
    test "create, list, get, update, delete", context do
      context = start!(context)
      assert {:ok, []} = API.list_webhooks(context.name, :owner, 1)

      attributes = %{
        "url" => "HTTP://127.0.0.1:8000",
        "events" => ["goal.completed"],
        "name" => "CRM"
      }

      {:ok, created} = API.create_webhook(context.name, :owner, 1, attributes)
      assert %{site_id: 1, name: "CRM", url: "http://127.0.0.1:8000/", enabled: true} = created
      assert {:ok, ^created} = API.get_webhook(context.name, :owner, 1, created.id)
      assert {:ok, [^created]} = API.list_webhooks(context.name, :owner, 1)

      {:ok, updated} = API.update_webhook(context.name, :owner, 1, created.id, %{name: "ERP"})
      assert updated.version == created.version + 1
      assert %{name: "ERP", url: "http://127.0.0.1:8000/"} = updated
      assert :ok = API.delete_webhook(context.name, :owner, 1, created.id)
      assert {:error, :not_found} = API.get_webhook(context.name, :owner, 1, created.id)
      assert {:error, :not_found} = API.delete_webhook(context.name, :owner, 1, created.id)

      for entry <- [:webhook_created, :webhook_updated, :webhook_deleted] do
        assert_received {:host, :audit, :owner, ^entry, %Webhook{secrets: [%{key: nil}]}}
      end
    end

    test "what is not valid is named, and nothing is saved", context do
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
        assert {:error, {:invalid, %{^field => text}}} =
                 API.create_webhook(context.name, :owner, 1, attributes)

        assert is_binary(text)
      end

      assert {:ok, []} = API.list_webhooks(context.name, :owner, 1)
      webhook = webhook!(context, "/hook")

      assert {:error, {:invalid, %{url: _}}} =
               API.update_webhook(context.name, :owner, 1, webhook.id, %{url: "x"})

      {:ok, unchanged} = API.get_webhook(context.name, :owner, 1, webhook.id)
      assert unchanged.version == webhook.version
    end

    test "a site has at most so many, and one that is unknown has none", context do
      context = start!(context, webhooks_per_site_max: 3)
      for n <- 1..3, do: webhook!(context, "/#{n}")
      attributes = %{url: "http://127.0.0.1/", events: ["goal.completed"]}
      assert {:error, :limit_reached} = API.create_webhook(context.name, :owner, 1, attributes)
      assert {:ok, _} = API.create_webhook(context.name, :owner, 2, attributes)

      stop!(context)
      context = start!(context)
      for n <- 4..20, do: webhook!(context, "/#{n}")
      assert {:error, :limit_reached} = API.create_webhook(context.name, :owner, 1, attributes)
      TestHost.put(context.host, {:site, 1}, nil)
      assert {:error, :not_found} = API.create_webhook(context.name, :owner, 1, attributes)
    end

    test "changes at the same time are all made", context do
      context = start!(context)
      webhook = webhook!(context, "/hook")

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
            API.update_webhook(context.name, :owner, 1, webhook.id, %{field => value})
          end)
        end)
        |> Task.await_many()

      assert Enum.all?(results, &match?({:ok, _}, &1))
      {:ok, changed} = API.get_webhook(context.name, :owner, 1, webhook.id)

      assert %{url: "http://127.0.0.1/x", name: "n", goals: [12], headers: [{"x-a", "b"}]} =
               changed

      assert changed.version == webhook.version + 4
    end

    test "while the store is away nothing is claimed to be done", context do
      context = start!(context)
      webhook = webhook!(context, "/hook")
      SwitchStore.set(context.switch, :away)

      for call <- [
            fn -> API.list_webhooks(context.name, :owner, 1) end,
            fn -> API.get_webhook(context.name, :owner, 1, webhook.id) end,
            fn -> API.update_webhook(context.name, :owner, 1, webhook.id, %{name: "x"}) end,
            fn -> API.delete_webhook(context.name, :owner, 1, webhook.id) end,
            fn -> API.reveal_secret(context.name, :owner, 1, webhook.id) end,
            fn -> API.deliveries(context.name, :owner, 1, %{}, %{}) end,
            fn -> API.recover(context.name, :owner, 1, webhook.id, 0) end
          ] do
        assert {:error, :away} = call.()
      end

      SwitchStore.set(context.switch, :exit)
      assert {:error, :store_unavailable} = API.list_webhooks(context.name, :owner, 1)
      SwitchStore.set(context.switch, :on)
    end

    test "a rotation with an overlap that is not allowed changes nothing", context do
      context = start!(context)
      webhook = webhook!(context, "/hook")

      for wrong <- [-1, 8 * 86_400_000, "1", nil] do
        assert {:error, :invalid_overlap} =
                 API.rotate_secret(context.name, :owner, 1, webhook.id, wrong)
      end

      assert {:ok, [_only]} = API.reveal_secret(context.name, :owner, 1, webhook.id)

      assert {:ok, %{secrets: [%{key: nil}]}} =
               API.rotate_secret(context.name, :owner, 1, webhook.id, 0)
    end
  end

  describe "a test" do
    test "tells what came of it and is on record", context do
      context = start!(context)
      webhook = webhook!(context, "/hook")

      HttpReceiver.script(context.receiver, "/hook", [
        {201, [{"content-type", "text/plain"}], "thanks"}
      ])

      assert {:ok, %Attempt{} = attempt} =
               API.send_test(context.name, :owner, 1, webhook.id, "webhook.test")

      assert %{state: :delivered, status: 201, number: 1, response_body: "thanks", error: nil} =
               attempt

      assert attempt.response_content_type == "text/plain"
      assert attempt.total_us > 0
      assert [request] = HttpReceiver.requests(context.receiver, "/hook")
      assert request.verified
      assert %{state: :delivered, type: "webhook.test"} = logged(context, attempt.delivery_id)
      assert [_] = attempts(context, attempt.delivery_id)
    end

    test "can be a sample of any type", context do
      context = start!(context)
      webhook = webhook!(context, "/hook")

      for type <- Plausible.Webhooks.Event.types() do
        assert {:ok, %{state: :delivered} = attempt} =
                 API.send_test(context.name, :owner, 1, webhook.id, type)

        request = List.last(HttpReceiver.requests(context.receiver, "/hook"))
        assert {:ok, %{"type" => ^type}} = Plausible.Webhooks.Native.decode(request.body)
        assert logged(context, attempt.delivery_id).type == type
      end

      assert {:error, {:invalid, %{type: _}}} =
               API.send_test(context.name, :owner, 1, webhook.id, "nonsense")

      assert {:error, {:invalid, %{type: _}}} =
               API.send_test(context.name, :owner, 1, webhook.id, nil)
    end

    test "that fails says why, and is not retried", context do
      context =
        start!(context, retry_delays_ms: [10, 10], timeout_ms: 400, connect_timeout_ms: 300)

      webhook = webhook!(context, "/hook")

      for {answer, error} <- [
            {500, :http_status},
            {:hang, :timeout},
            {:close, nil},
            {302, :redirect}
          ] do
        HttpReceiver.script(context.receiver, "/hook", [answer])

        assert {:ok, %{state: :failed} = attempt} =
                 API.send_test(context.name, :owner, 1, webhook.id, "webhook.test")

        if error, do: assert(attempt.error == error), else: assert(attempt.error != nil)
      end

      count = HttpReceiver.count(context.receiver)
      Process.sleep(150)
      assert HttpReceiver.count(context.receiver) == count
      nobody = HttpReceiver.start!()
      new = %{url: HttpReceiver.url(nobody, "/")}
      HttpReceiver.stop_listening(nobody)
      {:ok, _} = API.update_webhook(context.name, :owner, 1, webhook.id, new)

      assert {:ok, %{error: :connection_refused, state: :failed}} =
               API.send_test(context.name, :owner, 1, webhook.id, "webhook.test")
    end

    test "works for a webhook that is switched off, and leaves it off", context do
      context = start!(context)
      webhook = webhook!(context, "/hook", %{enabled: false})

      assert {:ok, %{state: :delivered}} =
               API.send_test(context.name, :owner, 1, webhook.id, "webhook.test")

      assert {:ok, %{enabled: false}} = API.get_webhook(context.name, :owner, 1, webhook.id)
      # And nothing else gets through by that.
      late = delivery(webhook)
      Outbox.push(context.instance, [late])
      eventually(fn -> logged(context, late.id).state == :cancelled end)
      assert HttpReceiver.count(context.receiver) == 1
    end

    test "that succeeds switches on what we had disabled; one that fails does not", context do
      context = start!(context, retry_delays_ms: [])
      webhook = webhook!(context, "/hook")
      webhook_id = webhook.id
      HttpReceiver.script(context.receiver, "/hook", [410, 500, 200])
      Outbox.push(context.instance, [delivery(webhook)])
      assert_receive {:host, :webhook_disabled, ^webhook_id, :gone}, 3_000

      assert {:ok, %{state: :failed}} =
               API.send_test(context.name, :owner, 1, webhook_id, "webhook.test")

      assert {:ok, %{disabled_reason: :gone}} =
               API.get_webhook(context.name, :owner, 1, webhook_id)

      assert {:ok, %{state: :delivered}} =
               API.send_test(context.name, :owner, 1, webhook_id, "webhook.test")

      assert {:ok, %{disabled_reason: nil, enabled: true}} =
               API.get_webhook(context.name, :owner, 1, webhook_id)

      API.events_buffered(context.name, [event()])
      HttpReceiver.await(context.receiver, "/hook", 4)
    end

    test "is rate-limited by site", context do
      context = start!(context, tests_per_minute: 3)
      webhook = webhook!(context, "/hook")

      {:ok, other} =
        API.create_webhook(context.name, :owner, 2, %{
          url: webhook.url,
          events: ["goal.completed"]
        })

      for _ <- 1..3,
          do:
            assert({:ok, _} = API.send_test(context.name, :owner, 1, webhook.id, "webhook.test"))

      assert {:error, {:rate_limited, retry_in_ms}} =
               API.send_test(context.name, :owner, 1, webhook.id, "webhook.test")

      assert retry_in_ms in 1..60_000
      # What is refused for another reason does not count, and other sites do not care.
      assert {:error, :not_found} =
               API.send_test(context.name, :owner, 1, "wh_none", "webhook.test")

      assert {:ok, _} = API.send_test(context.name, :owner, 2, other.id, "webhook.test")
      assert HttpReceiver.count(context.receiver) == 4
    end

    test "passes deliveries that wait, and a queue that is full", context do
      context = start!(context, waiting_max: 10, lane_in_flight_max: 2)
      webhook = webhook!(context, "/slow")
      HttpReceiver.script(context.receiver, "/slow", [{:delay, 200, 200}])
      Outbox.push(context.instance, deliveries(webhook, 60))
      HttpReceiver.await(context.receiver, "/slow", 2)

      {micros, result} =
        :timer.tc(fn -> API.send_test(context.name, :owner, 1, webhook.id, "webhook.test") end)

      assert {:ok, %{state: :delivered}} = result
      assert micros < 2_000_000
    end

    test "while the store is away ends in time", context do
      context = start!(context, timeout_ms: 500, connect_timeout_ms: 500)
      webhook = webhook!(context, "/hook")
      SwitchStore.set(context.switch, {:only, [:accept], :away})

      assert {:error, :timeout} =
               API.send_test(context.name, :owner, 1, webhook.id, "webhook.test")

      SwitchStore.set(context.switch, :on)
      assert HttpReceiver.count(context.receiver) == 0
    end
  end

  describe "the log" do
    setup context do
      context = start!(context, retry_delays_ms: [])
      good = webhook!(context, "/good")
      bad = webhook!(context, "/bad")
      HttpReceiver.script(context.receiver, "/bad", [500])
      :ok = Outbox.push(context.instance, deliveries(good, 5) ++ deliveries(bad, 4))

      eventually(fn ->
        Enum.count(all_deliveries(context), &(&1.state in [:delivered, :failed])) == 9
      end)

      Map.merge(context, %{good: good, bad: bad})
    end

    defp page(context, filters, page \\ %{}),
      do: API.deliveries(context.name, :owner, 1, filters, page)

    test "is filtered and paged", context do
      {:ok, %{entries: failed, next: nil}} = page(context, %{states: [:failed]})
      assert length(failed) == 4
      assert Enum.all?(failed, &(&1.webhook_id == context.bad.id and &1.last_status == 500))
      {:ok, %{entries: [_, _, _, _, _]}} = page(context, webhook_id: context.good.id)
      {:ok, %{entries: []}} = page(context, goal_id: 99)
      {:ok, %{entries: [_, _, _, _]}} = page(context, %{status_class: 5})
      {:ok, %{entries: []}} = page(context, since_ms: DateTime.add(DateTime.utc_now(), 60))

      {:ok, %{entries: first, next: next}} = page(context, %{}, %{limit: 5})
      {:ok, %{entries: second, next: nil}} = page(context, %{}, limit: 5, after: next)
      ids = Enum.map(first ++ second, & &1.id)
      assert length(Enum.uniq(ids)) == 9
    end

    test "says what is wrong with a filter or a page", context do
      for {filters, page, field} <- [
            {%{states: [:lost]}, %{}, :states},
            {%{states: []}, %{}, :states},
            {%{types: ["nonsense"]}, %{}, :types},
            {%{color: :red}, %{}, :color},
            {%{webhook_id: 1}, %{}, :webhook_id},
            {%{since_ms: "today"}, %{}, :since_ms},
            {%{status_class: 7}, %{}, :status_class},
            {%{}, %{limit: 0}, :limit},
            {%{}, %{limit: 201}, :limit},
            {%{}, %{after: 7}, :after},
            {%{}, %{page: 2}, :page}
          ] do
        assert {:error, {:invalid, %{^field => _}}} = page(context, filters, page)
      end

      assert {:error, _} = page(context, %{}, %{after: "garbage"})
    end

    test "one delivery with its body, and its attempts", context do
      {:ok, %{entries: [%{id: id} | _]}} = page(context, %{states: [:failed]})
      assert %{body: ~s({"type":"goal.completed"})} = logged(context, id)
      assert [%Attempt{number: 1, status: 500, error: :http_status}] = attempts(context, id)
      assert {:error, :not_found} = API.delivery(context.name, :owner, 1, "msg_none")
      assert {:error, :not_found} = API.attempts(context.name, :owner, 1, "msg_none")
      assert {:error, :not_found} = API.redeliver(context.name, :owner, 1, "msg_none")
    end

    test "recover brings back what failed since then, bounded", context do
      stop!(context)
      context = start!(context, retry_delays_ms: [], recover_max: 3)
      HttpReceiver.script(context.receiver, "/bad", [200])
      ids = MapSet.new(for d <- all_deliveries(context), d.state == :failed, do: d.id)
      in_an_hour = DateTime.add(DateTime.utc_now(), 3_600)

      assert {:ok, %{count: 0, more?: false}} =
               API.recover(context.name, :owner, 1, context.bad.id, in_an_hour)

      an_hour_ago = DateTime.add(DateTime.utc_now(), -3_600)

      assert {:ok, %{count: 3, more?: true}} =
               API.recover(context.name, :owner, 1, context.bad.id, an_hour_ago)

      eventually(fn -> Enum.count(all_deliveries(context), &(&1.state == :failed)) == 1 end)

      assert {:ok, %{count: 1, more?: false}} =
               API.recover(context.name, :owner, 1, context.bad.id, 0)

      eventually(fn -> Enum.all?(all_deliveries(context), &(&1.state == :delivered)) end)
      assert HttpReceiver.ids(context.receiver, "/bad") == ids

      assert {:error, {:invalid, %{since: _}}} =
               API.recover(context.name, :owner, 1, context.bad.id, "today")

      assert {:error, :not_found} = API.recover(context.name, :owner, 1, "wh_none", 0)
    end

    test "what fails again is brought back once by one recover", context do
      assert {:ok, %{count: 4}} = API.recover(context.name, :owner, 1, context.bad.id, 0)
      eventually(fn -> HttpReceiver.count(context.receiver, "/bad") == 8 end)
      Process.sleep(100)
      assert HttpReceiver.count(context.receiver, "/bad") == 8
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
      assert {:ok, [_]} = API.list_webhooks(context.name, :owner, 1)
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

    test "that are not there are named", context do
      assert_raise ArgumentError, ~r/no webhooks instance :nowhere/, fn -> API.stats(:nowhere) end
      assert %{id: id, type: :supervisor} = API.child_spec(name: context.name)
      assert id == context.name
      assert %{id: Plausible.Webhooks} = API.child_spec([])
      assert {:error, {:invalid_option, :options, _}} = API.start_link(:garbage)
      assert %{id: Plausible.Webhooks} = API.child_spec(:garbage)
    end

    test "tell how they are", context do
      context = start!(context)

      assert %{outbox: 0, journal: 0, dropped: 0, engine: %{in_flight: 0, waiting: 0}} =
               API.stats(context.name)
    end
  end
end
