defmodule Plausible.Webhooks.Manage.TestDeliveryTest.LimitedHost do
  # The tests' host, with a rate limiter of its own.
  alias Plausible.Webhooks.Host
  alias Plausible.Webhooks.Test.TestHost

  for {name, arity} <- Host.behaviour_info(:callbacks) -- Host.behaviour_info(:optional_callbacks) do
    arguments = Macro.generate_arguments(arity, __MODULE__)
    defdelegate unquote(name)(unquote_splicing(arguments)), to: TestHost
  end

  def check_rate(host, key, window_ms, limit) do
    [{:pid, pid}] = :ets.lookup(host, :pid)
    send(pid, {:host, :check_rate, key, window_ms, limit})

    case :ets.lookup(host, :rate) do
      [{:rate, answer}] -> answer
      [] -> :ok
    end
  end
end

defmodule Plausible.Webhooks.Manage.TestDeliveryTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API
  alias __MODULE__.LimitedHost

  @moduletag :capture_log

  describe "a test" do
    @tag start: []
    test "returns its result and is on record", context do
      HttpReceiver.script(context.receiver, "/hook", [
        {201, [{"content-type", "text/plain"}], "thanks"}
      ])

      assert {:ok, %Attempt{} = attempt} = send_test(context, context.webhook.id, "webhook.test")

      assert %{state: :delivered, status: 201, number: 1, response_body: "thanks", error: nil} =
               attempt

      assert attempt.response_headers =~ ~r/^content-type: text\/plain$/mi
      assert attempt.total_us > 0
      assert [request] = HttpReceiver.requests(context.receiver, "/hook")
      assert request.verified
      assert %{state: :delivered, type: "webhook.test"} = logged(context, attempt.delivery_id)
      assert [_] = attempts(context, attempt.delivery_id)
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
        assert {:ok, %{state: :failed} = attempt} = send_test(context, webhook.id, "webhook.test")
        if error, do: assert(attempt.error == error), else: assert(attempt.error != nil)
      end

      for type <- ["nonsense", nil] do
        assert {:error, %Error{reason: {:invalid, %{type: _}}}} =
                 send_test(context, webhook.id, type)
      end

      # One request each, and nothing waits.
      eventually(fn -> match?(%{waiting: 0, in_flight: 0}, Engine.stats(context.instance)) end)
      assert HttpReceiver.count(context.receiver) == 4
      nobody = HttpReceiver.start!()
      new = %{url: HttpReceiver.url(nobody, "/")}
      HttpReceiver.stop_listening(nobody)
      {:ok, _} = update_webhook(context, webhook.id, new)

      assert {:ok, %{error: :connection_refused, state: :failed}} =
               send_test(context, webhook.id, "webhook.test")
    end

    test "works for a webhook that is switched off, and leaves it off", context do
      context = start!(context)
      webhook = webhook!(context, "/hook", %{enabled: false})
      assert {:ok, %{state: :delivered}} = send_test(context, webhook.id, "webhook.test")
      assert {:ok, %{enabled: false}} = get_webhook(context, webhook.id)
      # And nothing else gets through by that.
      late = delivery(webhook)
      Outbox.push(context.instance, [late])
      await_state(context, late.id, :held)
      assert HttpReceiver.count(context.receiver) == 1
    end

    @tag start: [retry_delays_ms: []]
    test "that succeeds switches on a disabled webhook; a failure does not", context do
      webhook_id = context.webhook.id
      HttpReceiver.script(context.receiver, "/hook", [410, 500, 200])
      Outbox.push(context.instance, [delivery(context.webhook)])
      assert_receive {:host, :webhook_disabled, ^webhook_id, :gone}
      assert {:ok, %{state: :failed}} = send_test(context, webhook_id, "webhook.test")
      assert {:ok, %{disabled_reason: :gone}} = get_webhook(context, webhook_id)
      assert {:ok, %{state: :delivered}} = send_test(context, webhook_id, "webhook.test")
      assert {:ok, %{disabled_reason: nil, enabled: true}} = get_webhook(context, webhook_id)
      API.events_buffered(context.name, [event()])
      HttpReceiver.await(context.receiver, "/hook", 4)
    end

    @tag start: [tests_per_minute: 3]
    test "is rate-limited by site", context do
      {:ok, other} =
        API.create_webhook(context.name, :owner, 2, %{
          url: context.webhook.url,
          events: ["goal.completed"]
        })

      for _ <- 1..3,
          do: assert({:ok, _} = send_test(context, context.webhook.id, "webhook.test"))

      assert {:error, %Error{reason: {:rate_limited, retry_in_ms}}} =
               send_test(context, context.webhook.id, "webhook.test")

      assert retry_in_ms in 1..60_000
      # What is refused for another reason does not count, and other sites do not care.
      assert {:error, %Error{reason: :not_found}} = send_test(context, "wh_none", "webhook.test")
      assert {:ok, _} = API.send_test(context.name, :owner, 2, other.id, "webhook.test")
      assert HttpReceiver.count(context.receiver) == 4
    end

    test "asks the rate limiter of a host that has one", context do
      context = start!(context, host: {LimitedHost, context.host}, tests_per_minute: 7)
      webhook = webhook!(context, "/hook")
      test = fn -> send_test(context, webhook.id, "webhook.test") end

      assert {:ok, %{status: 200}} = test.()
      assert_received {:host, :check_rate, "test:1", 60_000, 7}
      TestHost.put(context.host, :rate, {:error, 1_234})
      assert test.() == {:error, %Error{reason: {:rate_limited, 1_234}}}
      assert HttpReceiver.count(context.receiver) == 1
    end

    test "overtakes waiting deliveries, and passes a full queue", context do
      context = start!(context, waiting_max: 10, lane_in_flight_max: 2)
      webhook = webhook!(context, "/slow")
      HttpReceiver.script(context.receiver, "/slow", [{:delay, 200, 200}])
      Outbox.push(context.instance, deliveries(webhook, 60))
      HttpReceiver.await(context.receiver, "/slow", 2)
      assert {:ok, %{state: :delivered}} = send_test(context, webhook.id, "webhook.test")
      assert HttpReceiver.count(context.receiver, "/slow") < 60
    end

    @tag start: [timeout_ms: 500, connect_timeout_ms: 500]
    test "while the store is away ends in time", context do
      SwitchStore.set(context.switch, {:only, [:accept], :away})

      assert {:error, %Error{reason: :timeout}} =
               send_test(context, context.webhook.id, "webhook.test")

      SwitchStore.set(context.switch, :on)
      assert HttpReceiver.count(context.receiver) == 0
    end
  end
end
