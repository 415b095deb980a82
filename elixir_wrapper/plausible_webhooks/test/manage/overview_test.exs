defmodule Plausible.Webhooks.Manage.OverviewTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API

  @moduletag :capture_log
  @hour_ms 3_600_000

  # A delivery that came to this end so many hours ago.
  defp ended(webhook, state, hours_ago, fields \\ []) do
    at_ms = System.system_time(:millisecond) - hours_ago * @hour_ms
    fields = Keyword.merge([created_at_ms: at_ms], fields)
    delivery(webhook, [state: state, finished_at_ms: at_ms] ++ fields)
  end

  describe "activity" do
    test "is of 24 whole hours, of every webhook of the site", context do
      context = start!(context)
      [busy, idle] = for path <- ["/busy", "/idle"], do: webhook!(context, path)

      :ok =
        Outbox.accept(context.instance, [
          ended(busy, :failed, 0, reason: "timeout", last_error: "timeout"),
          ended(busy, :failed, 2),
          ended(busy, :cancelled, 2),
          ended(busy, :failed, 22),
          # Ended an hour ago, created last week: sent again.
          ended(busy, :delivered, 1, created_at_ms: 1),
          # Out of the window.
          ended(busy, :failed, 24)
        ])

      sent = delivery(busy)
      :ok = Outbox.accept(context.instance, [sent])
      await_state(context, sent.id, :delivered)
      {:ok, activity} = API.activity(context.name, :viewer, 1)
      assert Enum.sort(Map.keys(activity)) == Enum.sort([busy.id, idle.id])

      for {_id, %{hours: hours}} <- activity do
        this_hour = div(System.system_time(:millisecond), @hour_ms) * @hour_ms
        times = Enum.map(hours, & &1.at_ms)
        # The hour may have changed since it was asked.
        assert List.last(times) in [this_hour, this_hour - @hour_ms]
        assert times == for(n <- 23..0//-1, do: List.last(times) - n * @hour_ms)

        for hour <- hours,
            do: assert(Enum.sort(Map.keys(hour)) == [:at_ms, :cancelled, :delivered, :failed])
      end

      figures = activity[busy.id]
      assert %{delivered: 2, failed: 3, cancelled: 1, complete?: true} = figures
      assert %{waiting: 0, waiting_more?: false} = figures

      for state <- [:delivered, :failed, :cancelled] do
        assert figures[state] == figures.hours |> Enum.map(& &1[state]) |> Enum.sum()
      end

      counts = for hour <- figures.hours, do: {hour.delivered, hour.failed, hour.cancelled}
      assert Enum.slice(counts, -3, 3) == [{0, 1, 1}, {1, 0, 0}, {1, 1, 0}]
      assert Enum.at(counts, 1) == {0, 1, 0}
      assert Enum.count(counts, &(&1 == {0, 0, 0})) == 20
      assert %Delivery{body: nil} = figures.last
      assert figures.last.id == sent.id

      assert activity[idle.id] ==
               %{
                 hours: Enum.map(figures.hours, &%{&1 | delivered: 0, failed: 0, cancelled: 0}),
                 delivered: 0,
                 failed: 0,
                 cancelled: 0,
                 complete?: true,
                 waiting: 0,
                 waiting_more?: false,
                 last: nil
               }

      assert {:ok, none} = API.activity(context.name, :other, 2)
      assert none == %{}
    end

    @tag start: []
    test "goes by the store's clock", context do
      in_a_day = ended(context.webhook, :failed, -24)
      :ok = Outbox.accept(context.instance, [ended(context.webhook, :failed, 0), in_a_day])

      # What ended in the hours to come counts as of now.
      assert {:ok, %{} = activity} = activity(context)
      assert %{failed: 2} = List.last(activity[context.webhook.id].hours)
      SwitchStore.set(context.switch, {:clock, 24 * @hour_ms})
      assert {:ok, %{} = activity} = activity(context)
      assert activity[context.webhook.id].failed == 1
      assert %{failed: 1} = List.last(activity[context.webhook.id].hours)
    end

    test "shows what waits, and so does waiting", context do
      context = start!(context)
      webhook = webhook!(context, "/hook")
      HttpReceiver.script(context.receiver, "/hook", [:hang])
      :ok = Outbox.accept(context.instance, deliveries(webhook, 7))
      later = System.system_time(:millisecond) + @hour_ms

      :ok =
        Outbox.accept(context.instance, [
          delivery(webhook, state: :parked, next_at_ms: later),
          ended(webhook, :failed, 0)
        ])

      {:ok, activity} = activity(context)
      assert %{waiting: 8, waiting_more?: false, failed: 1} = activity[webhook.id]

      assert waiting(context, webhook.id) ==
               {:ok, %{count: 8, more?: false}}

      assert waiting(context, "wh_none") ==
               {:error, %Error{reason: :not_found}}

      # It says what happens.
      {:ok, _webhook} = API.disable_webhook(context.name, :owner, 1, webhook.id)
      eventually(fn -> match?({:ok, %{held: 8}}, API.queue(context.name)) end)
      assert {:ok, %{count: 8}} = waiting(context, webhook.id)
      assert {:ok, 8} = cancel_held(context, webhook.id)
      {:ok, activity} = API.activity(context.name, :owner, 1)
      assert %{waiting: 0, cancelled: 8} = activity[webhook.id]
    end
  end

  describe "the request headers of attempts" do
    test "are those that the receiver got, whatever was paused since", context do
      context = start!(context, retry_delays_ms: [10])
      webhook = webhook!(context, "/hook", %{headers: [{"x-token", "t0ken"}]})
      HttpReceiver.script(context.receiver, "/hook", [500, 200])
      [id] = push(context, [delivery(webhook)])
      requests = HttpReceiver.await(context.receiver, "/hook", 2)
      await_state(context, id, :delivered)
      {:ok, _} = disable_webhook(context, webhook.id)
      {:ok, _} = enable_webhook(context, webhook.id)
      assert {:ok, sent} = sent(context, id, true)

      for {%{complete?: true, headers: headers}, request} <- Enum.zip(sent, requests) do
        assert Map.new(headers, fn {name, value} -> {String.downcase(name), value} end) ==
                 request.headers
      end

      assert {:ok, [%{action: "webhook_headers_revealed"} | _]} =
               API.audit_log(context.name, :owner, 1, webhook.id)
    end

    test "hide the owner's values, and what is not known any more", context do
      context = start!(context, retry_delays_ms: [])
      webhook = webhook!(context, "/hook", %{headers: [{"x-token", "t0ken"}]})
      [id] = push(context, [delivery(webhook)])
      await_state(context, id, :delivered)
      assert {:ok, [%{headers: headers, complete?: true}]} = sent(context, id, false)
      assert {"x-token", "…"} in headers
      {:ok, [before | _]} = API.audit_log(context.name, :owner, 1, webhook.id)
      refute before.action == "webhook_headers_revealed"

      {:ok, _} = update_webhook(context, webhook.id, %{headers: []})
      assert {:ok, [%{headers: left, complete?: false}]} = sent(context, id, true)
      names = Enum.map(left, &elem(&1, 0))
      assert names == ~w(content-type user-agent webhook-id webhook-timestamp)
      assert left -- headers == []
    end

    test "are none where no request left", context do
      context = start!(context, retry_delays_ms: [])
      nobody = HttpReceiver.start!()
      url = HttpReceiver.url(nobody, "/")
      HttpReceiver.stop_listening(nobody)
      {:ok, webhook} = create_webhook(context, %{url: url, events: ["goal.completed"]})
      [id] = push(context, [delivery(webhook)])
      await_state(context, id, :failed)
      assert sent(context, id, false) == {:ok, [%{headers: [], complete?: true}]}
    end
  end

  describe "what can be recovered" do
    test "is what a recovery sends", context do
      context = start!(context, recover_max: 5)
      webhook = webhook!(context, "/hook")
      states = [:failed, :cancelled, :failed, :delivered]
      old = for state <- states, do: ended(webhook, state, 3)
      new = for state <- states ++ states, do: ended(webhook, state, 1)
      :ok = Outbox.accept(context.instance, old ++ new)
      {:ok, _webhook} = disable_webhook(context, webhook.id)
      two_hours_ago = DateTime.add(DateTime.utc_now(), -7_200)
      count = &recoverable(context, webhook.id, &1)

      # Also before it is switched on again.
      assert count.(DateTime.utc_now()) == {:ok, %{count: 0, more?: false}}
      assert count.(two_hours_ago) == {:ok, %{count: 5, more?: true}}
      assert count.(0) == {:ok, %{count: 5, more?: true}}
      assert {:error, %Error{reason: {:invalid, %{since: _}}}} = count.("today")
      {:ok, _webhook} = enable_webhook(context, webhook.id)

      assert recover(context, webhook.id, two_hours_ago) ==
               {:ok, %{count: 5, more?: true}}

      eventually(fn -> count.(two_hours_ago) == {:ok, %{count: 1, more?: false}} end)
      assert {:error, %Error{reason: :not_found}} = recoverable(context, "wh_none", 0)
    end
  end

  describe "a site" do
    test "is what the host says", context do
      context = start!(context)
      assert {:ok, %{id: 1, domain: "site1.example"}} = API.site(context.name, :viewer, 1)
      TestHost.put(context.host, {:site, 1}, nil)
      assert API.site(context.name, :viewer, 1) == {:error, %Error{reason: :not_found}}
      TestHost.put(context.host, {:site, 1}, :no_site)
      assert {:error, %Error{reason: {:raised, _text}}} = API.site(context.name, :viewer, 1)
    end

    test "has goals, by name, and nothing else among them", context do
      context = start!(context)

      goals =
        for {name, id} <- [{"b", 1}, {"Ä", 2}, {"A", 3}, {"a", 4}, {"a", 0}], do: goal(id, name)

      TestHost.put(context.host, {:goals, 1}, [:garbage, %{id: "x"} | goals])
      {:ok, sorted} = API.goals(context.name, :viewer, 1)

      assert Enum.map(sorted, &{&1.name, &1.id}) == [
               {"A", 3},
               {"a", 0},
               {"a", 4},
               {"b", 1},
               {"Ä", 2}
             ]

      assert Enum.all?(sorted, &(&1 in goals))
      TestHost.put(context.host, {:goals, 1}, [])
      assert API.goals(context.name, :viewer, 1) == {:ok, []}
      TestHost.put(context.host, {:goals, 1}, :none)
      assert {:error, %Error{reason: {:raised, _text}}} = API.goals(context.name, :viewer, 1)
    end

    defp goal(id, name), do: TestHost.event_goal(id, name)

    test "has the figures that thresholds are held against", context do
      context = start!(context)
      TestHost.put(context.host, :visitors, {:ok, [41, 2_210]})

      assert API.figures(context.name, :viewer, 1) ==
               {:ok,
                %{
                  spike: %{visitors: 41, window_seconds: 300},
                  drop: %{visitors: 2_210, window_seconds: 43_200}
                }}

      for wrong <- [{:ok, [1]}, {:ok, [1, 2, 3]}, {:ok, [1, -1]}, {:ok, [1, "2"]}] do
        TestHost.put(context.host, :visitors, wrong)

        assert API.figures(context.name, :viewer, 1) ==
                 {:error, %Error{reason: :invalid_visitors}}
      end

      TestHost.put(context.host, :visitors, {:error, :statistics_are_away})

      assert API.figures(context.name, :viewer, 1) ==
               {:error, %Error{reason: :statistics_are_away}}
    end

    @tag start: []
    test "whose host raises, exits or dies is an error, and nothing else", context do
      for {does, error} <- [
            {fn -> raise "no" end, {:raised, "no"}},
            {fn -> exit(:no) end, {:exit, :no}},
            {fn -> throw(:no) end, {:throw, :no}},
            {fn -> Process.exit(self(), :kill) end, {:crashed, :killed}}
          ] do
        for key <- [{:site, 1}, {:goals, 1}, :visitors], do: TestHost.put(context.host, key, does)
        assert API.site(context.name, :owner, 1) == {:error, %Error{reason: error}}
        assert API.goals(context.name, :owner, 1) == {:error, %Error{reason: error}}
        assert API.figures(context.name, :owner, 1) == {:error, %Error{reason: error}}

        for call <- [&API.sample/5, &API.send_test/5] do
          assert call.(context.name, :owner, 1, context.webhook.id, "webhook.test") ==
                   {:error, %Error{reason: error}}
        end
      end

      assert HttpReceiver.count(context.receiver) == 0
    end

    @tag timeout: 60_000
    @tag start: []
    test "whose host hangs is given up after ten seconds", context do
      hang = fn -> Process.sleep(:infinity) end
      for key <- [{:site, 1}, {:goals, 1}, :visitors], do: TestHost.put(context.host, key, hang)

      calls = [
        fn -> API.site(context.name, :owner, 1) end,
        fn -> API.goals(context.name, :owner, 1) end,
        fn -> API.figures(context.name, :owner, 1) end,
        fn -> sample(context, context.webhook.id, "goal.completed") end
      ]

      {micros, results} =
        :timer.tc(fn -> calls |> Enum.map(&Task.async/1) |> Task.await_many(60_000) end)

      assert results == List.duplicate({:error, %Error{reason: :timeout}}, 4)
      assert micros >= 10_000_000
    end
  end

  defmodule Raising do
    # A host whose own dependency is gone.
    for {name, arity} <- Plausible.Webhooks.Host.behaviour_info(:callbacks) do
      arguments = Macro.generate_arguments(arity, __MODULE__)
      def unquote(name)(unquote_splicing(arguments)), do: raise("#{inspect(unquote(arguments))}")
    end
  end

  describe "whether the actor may" do
    test "is the host's answer, and false after any error", context do
      context = start!(context)
      name = context.name
      for action <- [:read, :manage], do: assert(API.can?(name, :owner, action, 1))
      assert API.can?(name, :viewer, :read, 1)

      for {actor, action, site_id} <- [
            {:viewer, :manage, 1},
            {:viewer, :read, 2},
            {:confused, :read, 1},
            {nil, :read, 1},
            {:owner, :read, "1"},
            {:owner, :read, Integer.pow(2, 70)},
            {:owner, :destroy, 1},
            {:owner, nil, 1}
          ],
          do: refute(API.can?(name, actor, action, site_id))

      refute API.can?(:nowhere, :owner, :read, 1)

      raising =
        start!(%{context | name: :"#{name}_2", dir: context.dir <> "_2"}, host: {Raising, 1})

      refute API.can?(raising.name, :owner, :read, 1)
      File.rm_rf!(raising.dir)
    end
  end

  @tag start: []
  test "while the store is away it returns errors", context do
    name = context.name

    calls = [
      fn -> API.activity(name, :owner, 1) end,
      fn -> API.waiting(name, :owner, 1, context.webhook.id) end,
      fn -> API.recoverable(name, :owner, 1, context.webhook.id, 0) end,
      fn -> API.request(name, :owner, 1, "msg_1") end,
      fn -> API.sample(name, :owner, 1, context.webhook.id, "webhook.test") end
    ]

    SwitchStore.set(context.switch, :away)
    for call <- calls, do: assert({:error, %Error{reason: :away}} = call.())
    SwitchStore.set(context.switch, :exit)
    for call <- calls, do: assert({:error, %Error{reason: :store_unavailable}} = call.())

    # Whichever of its questions it is.
    for function <- [:list_webhooks, :activity, :waiting] do
      SwitchStore.set(context.switch, {:only, [function], :raise})
      assert API.activity(name, :owner, 1) == {:error, %Error{reason: :store_raised}}
    end

    SwitchStore.set(context.switch, {:only, [:now_ms], :away})
    assert {:ok, %{} = activity} = API.activity(name, :owner, 1)
    assert length(activity[context.webhook.id].hours) == 24
    SwitchStore.set(context.switch, :on)
  end

  test "a wrong type is an ArgumentError", context do
    name = start!(context).name

    for wrong <- [nil, 1.5, "1", [], Integer.pow(2, 70)] do
      for call <- [&API.activity/3, &API.site/3, &API.goals/3, &API.figures/3],
          do: assert_raise(ArgumentError, fn -> call.(name, :owner, wrong) end)
    end

    for wrong <- [nil, 1, [], %{}] do
      for call <- [
            fn -> API.waiting(name, :owner, 1, wrong) end,
            fn -> API.recoverable(name, :owner, 1, wrong, 0) end,
            fn -> API.request(name, :owner, 1, wrong) end,
            fn -> API.sample(name, :owner, 1, wrong, "webhook.test") end
          ],
          do: assert_raise(ArgumentError, call)
    end
  end

  test "the instance may be left out" do
    for {function, arity} <- [
          activity: 2,
          waiting: 3,
          recoverable: 4,
          site: 2,
          goals: 2,
          figures: 2,
          can?: 3,
          check_url: 1,
          request: 3,
          sample: 4
        ] do
      assert function_exported?(API, function, arity)
      assert function_exported?(API, function, arity + 1)
    end
  end
end
