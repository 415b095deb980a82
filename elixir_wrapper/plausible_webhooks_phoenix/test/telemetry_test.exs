defmodule Plausible.Webhooks.TelemetryTest do
  use Plausible.Webhooks.Test.EctoInstanceCase, async: true

  alias Plausible.Webhooks.Telemetry

  @moduletag :capture_log
  @names [
    [:attempt, :stop],
    [:delivery, :stop],
    [:deliveries, :accepted],
    [:deliveries, :dropped],
    [:engine, :overloaded],
    [:engine, :slow],
    [:store, :failed],
    [:cluster, :failed],
    [:webhook, :changed],
    [:webhook, :failing],
    [:webhook, :recovered],
    [:webhook, :disabled],
    [:node, :measured],
    [:queue, :measured]
  ]

  setup context do
    id = {__MODULE__, context.name}
    names = for name <- @names, do: [:plausible, :webhooks | name]
    :telemetry.attach_many(id, names, &__MODULE__.tell/4, {self(), context.name})
    on_exit(fn -> :telemetry.detach(id) end)
    :ok
  end

  # Other tests' instances speak at the same time.
  def tell([:plausible, :webhooks | name], measurements, metadata, {pid, instance}) do
    if metadata.instance == instance, do: send(pid, {name, measurements, metadata})
  end

  # What an observer is told comes out as the documented event.
  defp event(context, event, measurements, metadata) do
    metadata = Map.put(metadata, :instance, context.name)
    Telemetry.handle_event(event, measurements, metadata, [])
    assert_received {[_ | _] = name, measurements, metadata}
    assert metadata.instance == context.name
    {name, measurements, Map.delete(metadata, :instance)}
  end

  defp attempt(changes) do
    Map.merge(
      %{
        delivery_id: "msg_1",
        webhook_id: "wh_1",
        site_id: 1,
        destination: "example.com",
        number: 2,
        state: :failed,
        status: 503,
        error: :http_status,
        next_at_ms: 5
      },
      changes
    )
  end

  describe "each event" do
    test "an attempt, with durations in native units and the class of its status", context do
      timings = %{total_us: 2_000, dns_us: 10, connect_us: nil, tls_us: nil, first_byte_us: 900}
      {name, measurements, metadata} = event(context, :attempt, timings, attempt(%{}))
      assert name == [:attempt, :stop]
      native = &System.convert_time_unit(&1, :microsecond, :native)

      assert measurements == %{
               duration: native.(2_000),
               dns: native.(10),
               first_byte: native.(900)
             }

      assert metadata == attempt(%{status_class: "5xx"}) |> Map.delete(:next_at_ms)

      for {status, class} <- [
            {200, "2xx"},
            {301, "3xx"},
            {410, "4xx"},
            {nil, "none"},
            {999, "none"}
          ] do
        {_name, measurements, metadata} =
          event(context, :attempt, %{total_us: nil}, attempt(%{status: status}))

        assert {measurements, metadata.status_class} == {%{duration: 0}, class}
      end
    end

    test "the others", context do
      delivery = attempt(%{}) |> Map.drop([:number, :next_at_ms])

      for {event, measurements, metadata, expected} <- [
            {:delivery_finished, %{attempts: 4}, attempt(%{}),
             {[:delivery, :stop], %{attempts: 4}, Map.put(delivery, :status_class, "5xx")}},
            {:deliveries_accepted, %{count: 7}, %{sites: %{1 => 7}},
             {[:deliveries, :accepted], %{count: 7}, %{}}},
            {:deliveries_dropped, %{count: 7}, %{reason: :outbox_full},
             {[:deliveries, :dropped], %{count: 7}, %{reason: :outbox_full}}},
            {:engine_overloaded, %{count: 7}, %{}, {[:engine, :overloaded], %{count: 7}, %{}}},
            {:engine_slow, %{took_ms: 400}, %{site_id: 1, webhook_id: "wh_1"},
             {[:engine, :slow], %{count: 1, took_ms: 400}, %{site_id: 1, webhook_id: "wh_1"}}},
            {:store_failed, %{}, %{operation: :accept, reason: :timeout},
             {[:store, :failed], %{count: 1}, %{operation: :accept, reason: :timeout}}},
            {:cluster_failed, %{}, %{reason: :timeout},
             {[:cluster, :failed], %{count: 1}, %{reason: :timeout}}},
            {:webhook_changed, %{}, %{site_id: 1, webhook_id: "wh_1", change: :updated},
             {[:webhook, :changed], %{count: 1},
              %{site_id: 1, webhook_id: "wh_1", change: :updated}}},
            {:webhook_failing, %{}, %{site_id: 1, webhook_id: "wh_1", destination: "x.test"},
             {[:webhook, :failing], %{count: 1},
              %{site_id: 1, webhook_id: "wh_1", destination: "x.test"}}},
            {:webhook_disabled, %{failing_for_ms: nil},
             %{site_id: 1, webhook_id: "wh_1", destination: "x.test", reason: :gone},
             {[:webhook, :disabled], %{count: 1, failing_for_ms: 0},
              %{site_id: 1, webhook_id: "wh_1", destination: "x.test", reason: :gone}}}
          ] do
        assert event(context, event, measurements, metadata) == expected
        # What an observer may be told some day does not come out by itself.
        more = Map.put(metadata, :url, "https://x.test/secret")
        assert event(context, event, measurements, more) == expected
      end
    end

    test "a reason shows no values", context do
      for {reason, shown} <- [
            {{:postgres, :unique_violation, "webhooks_pkey"},
             {:postgres, :unique_violation, :other}},
            {"INSERT secret", :other},
            {%{message: "secret"}, :other},
            {{{{{:deep}}}}, {{{:other}}}},
            {{:exit, {:timeout, ["secret"]}}, {:exit, {:timeout, :other}}}
          ] do
        metadata = %{operation: :accept, reason: reason}
        assert {_name, _count, %{reason: ^shown}} = event(context, :store_failed, %{}, metadata)
        assert {_name, _count, %{reason: ^shown}} = event(context, :cluster_failed, %{}, metadata)
      end
    end
  end

  test "a whole life, and never a URL, a secret, a header or a body", context do
    observers = [{Telemetry, []}]
    context = start!(context, observers: observers, retry_delays_ms: [20], outbox_max: 6)

    HttpReceiver.script(context.receiver, "/path-token", [503, {200, [], "answer-token"}])
    HttpReceiver.script(context.receiver, "/gone-token", [410])
    headers = [{"x-key", "header-token"}]
    webhook = webhook!(context, "/path-token?query-token=1", %{headers: headers})
    gone = webhook!(context, "/gone-token")
    {:ok, secrets} = API.reveal_secret(context.name, :owner, 1, webhook.id)
    id = webhook.id
    assert_receive {[:webhook, :changed], _, %{webhook_id: ^id, change: :created} = created}

    path = "/path-token?query-token=1"
    HttpReceiver.script(context.receiver, path, [503, {200, [], "answer-token"}])
    delivery = delivery(webhook, body: ~s({"x":"body-token"}))
    Outbox.push(context.instance, [delivery, delivery(gone)])
    assert_receive {[:deliveries, :accepted], %{count: _}, _}
    attempt = %{webhook_id: id, number: 1, state: :pending, status_class: "5xx"}
    assert_receive {[:attempt, :stop], %{duration: first_us}, first}
    assert_receive {[:attempt, :stop], _, second}
    assert_receive {[:attempt, :stop], _, third}
    all = [first, second, third]
    assert Enum.any?(all, &(Map.take(&1, Map.keys(attempt)) == attempt))
    assert Enum.any?(all, &(&1.webhook_id == id and &1.state == :delivered and &1.number == 2))
    assert first_us > 0
    assert_receive {[:delivery, :stop], %{attempts: _}, stopped}
    assert_receive {[:delivery, :stop], %{attempts: _}, _}
    assert_receive {[:webhook, :disabled], _, %{reason: :gone} = disabled}

    :sys.suspend(Instance.process(context.instance, :outbox))
    Outbox.push(context.instance, for(_ <- 1..8, do: delivery(webhook)))
    assert_receive {[:deliveries, :dropped], %{count: 3}, %{reason: :site_share}}
    Telemetry.measure(context.name)
    assert_receive {[:node, :measured], %{outbox: 5, dropped: 3, journal: 0} = node, _}

    others = [:in_flight, :notices_dropped, :refused, :waiting]
    assert Enum.sort(Map.keys(node)) == Enum.sort(others ++ [:outbox, :dropped, :journal])
    :sys.resume(Instance.process(context.instance, :outbox))
    assert {:ok, _} = Telemetry.queue(context.name)
    assert_receive {[:queue, :measured], %{pending: _, parked: _, overdue_ms: _}, _}

    said = inspect([created, stopped, disabled | all], limit: :infinity)

    for token <-
          ~w(path-token query-token gone-token header-token answer-token body-token whsec_),
        do: refute(said =~ token)

    for %{key: key} <- secrets, do: refute(said =~ key)
  end

  describe "measuring" do
    test "is repeated by a process: the node, and the queue over all nodes", context do
      context = start!(context)
      start_supervised!({Telemetry, instance: context.name, every_ms: 20, queue_every_ms: 20})
      for _ <- 1..3, do: assert_receive({[:node, :measured], %{outbox: 0, waiting: 0}, _})
      assert_receive {[:queue, :measured], %{pending: 0}, _}
    end

    test "survives an instance that does not run, or was just stopped", context do
      assert Telemetry.measure(context.name) == :ok
      assert {:error, %API.Error{reason: :not_running}} = Telemetry.queue(context.name)
      options = [instance: context.name, every_ms: 5, queue_every_ms: 5]
      measuring = start_supervised!({Telemetry, options})
      started = start!(context)
      assert_receive {[:node, :measured], _, _}
      stop_supervised!(started.name)
      # Two measurements without the instance.
      1 = :erlang.trace(measuring, true, [:receive])
      for _ <- 1..2, do: assert_receive({:trace, ^measuring, :receive, :measure})
      assert %{} = Map.new(:sys.get_state(measuring, 60_000))
    end
  end
end
