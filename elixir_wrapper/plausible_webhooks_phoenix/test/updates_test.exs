defmodule Plausible.Webhooks.UpdatesTest do
  use Plausible.Webhooks.Test.EctoInstanceCase, async: true

  alias Plausible.Webhooks.Updates

  doctest Updates

  @moduletag :capture_log

  setup context do
    pubsub = Module.concat(context.name, "PubSub")
    start_supervised!({Phoenix.PubSub, name: pubsub}, id: :pubsub)
    %{pubsub: pubsub}
  end

  defp alone!(context) do
    start_supervised!(Updates.process(context.name, pubsub: context.pubsub))
    :ok = Updates.subscribe(context.pubsub, context.name, 1)
    context
  end

  defp tell(context, event, measurements, metadata) do
    metadata = Map.put(metadata, :instance, context.name)
    Updates.handle_event(event, measurements, metadata, pubsub: context.pubsub)
  end

  defp attempt(fields) do
    Map.merge(
      %{
        delivery_id: "msg_1",
        webhook_id: "wh_1",
        site_id: 1,
        destination: "example.com",
        number: 1,
        state: :pending,
        status: 503,
        error: :http_status,
        next_at_ms: 5
      },
      fields
    )
  end

  defp tell_attempt(context, n, site_id \\ 1) do
    tell(context, :attempt, %{total_us: 1}, attempt(%{delivery_id: "msg_#{n}", site_id: site_id}))
  end

  # What arrives until nothing has for a while, with the time.
  defp received(quiet_ms \\ 500) do
    receive do
      {:plausible_webhooks, kind, map} ->
        [{kind, map, System.monotonic_time(:millisecond)} | received(quiet_ms)]
    after
      quiet_ms -> []
    end
  end

  # The same by a process of its own, while this one does something else.
  defp listen(context) do
    test = self()

    listener =
      Task.async(fn ->
        :ok = Updates.subscribe(context.pubsub, context.name, 1)
        send(test, :listening)
        received(1_500)
      end)

    assert_receive :listening
    listener
  end

  describe "each kind" do
    test "is told with what belongs to it, and nothing more", context do
      context = alone!(context)
      about = %{site_id: 1, webhook_id: "wh_1"}

      for {event, measurements, metadata, kind, map} <- [
            {:attempt, %{total_us: 1}, attempt(%{}), :attempt,
             attempt(%{}) |> Map.delete(:destination) |> Map.put(:missed, 0)},
            {:delivery_finished, %{attempts: 0}, attempt(%{number: 0, state: :cancelled}),
             :attempt,
             attempt(%{number: 0, state: :cancelled, missed: 0}) |> Map.delete(:destination)},
            {:deliveries_accepted, %{count: 9}, %{sites: %{1 => 7, 2 => 2}}, :accepted,
             %{site_id: 1, count: 7, missed: 0}},
            {:webhook_changed, %{}, Map.put(about, :change, :updated), :webhook_changed,
             Map.merge(about, %{change: :updated, missed: 0})},
            {:webhook_disabled, %{failing_for_ms: 1},
             Map.merge(about, %{reason: :gone, destination: "x", url: "https://x/secret"}),
             :webhook_disabled, Map.merge(about, %{reason: :gone, missed: 0})}
          ] do
        tell(context, event, measurements, metadata)
        assert_receive {:plausible_webhooks, ^kind, ^map}
      end

      refute_receive {:plausible_webhooks, _kind, _map}, 200
    end

    test "what is no site's, or told already, is told to nobody", context do
      context = alone!(context)
      tell(context, :attempt, %{total_us: 1}, attempt(%{site_id: nil}))
      tell(context, :delivery_finished, %{attempts: 2}, attempt(%{state: :delivered}))
      tell(context, :deliveries_dropped, %{count: 1}, %{reason: :outbox_full})
      tell(context, :store_failed, %{}, %{operation: :accept, reason: :timeout})
      tell(context, :deliveries_accepted, %{count: 1}, %{sites: %{2 => 1}})
      tell_attempt(context, 1, 2)
      refute_receive {:plausible_webhooks, _kind, _map}, 300
    end
  end

  describe "a flooded site" do
    test "gets ten messages a second, and the last always gets out", context do
      start_supervised!(Updates.process(context.name, pubsub: context.pubsub))
      listener = listen(context)
      began = System.monotonic_time(:millisecond)

      for n <- 1..5_000 do
        tell_attempt(context, n)
        tell(context, :deliveries_accepted, %{count: 3}, %{sites: %{1 => 3}})
        if rem(n, 100) == 0, do: Process.sleep(40)
      end

      took = System.monotonic_time(:millisecond) - began
      messages = Task.await(listener, 20_000)
      assert length(messages) <= div(took, 100) + 4
      assert length(messages) >= 8
      times = Enum.map(messages, &elem(&1, 2))
      # A few milliseconds late on a busy machine, and the next is not.
      gaps = Enum.zip_with(times, Enum.drop(times, 10), &(&2 - &1))
      assert gaps != [] and Enum.all?(gaps, &(&1 >= 900))

      # Nothing is left out of the sums.
      attempts = for {:attempt, map, _at} <- messages, do: map
      assert Enum.sum(Enum.map(attempts, &(&1.missed + 1))) == 5_000
      assert List.last(attempts).delivery_id == "msg_5000"

      assert hd(attempts) |> Map.take([:delivery_id, :missed]) == %{
               delivery_id: "msg_1",
               missed: 0
             }

      accepted = for {:accepted, map, _at} <- messages, do: map
      assert Enum.sum(Enum.map(accepted, & &1.count)) == 15_000
      assert Enum.sum(Enum.map(accepted, &(&1.missed + 1))) == 5_000
    end

    test "keeps no kind, and no other site, waiting behind what floods it", context do
      context = alone!(context)
      :ok = Updates.subscribe(context.pubsub, context.name, 2)
      for n <- 1..500, do: tell_attempt(context, n)
      tell(context, :webhook_changed, %{}, %{site_id: 1, webhook_id: "wh_1", change: :deleted})
      for n <- 501..1_000, do: tell_attempt(context, n)
      tell_attempt(context, 1, 2)
      assert_receive {:plausible_webhooks, :attempt, %{site_id: 2}}, 50
      assert_receive {:plausible_webhooks, :webhook_changed, %{change: :deleted, missed: 0}}

      assert [{:attempt, _, _}, {:attempt, %{delivery_id: "msg_1000", missed: 998}, _}] =
               received()
    end

    test "leaves nothing behind", context do
      context = alone!(context)
      for n <- 1..300, do: tell_attempt(context, n, n)
      process = Process.whereis(Module.concat([context.name, "Updates", context.pubsub]))
      assert map_size(:sys.get_state(process, 60_000).sites) > 250
      eventually(fn -> :sys.get_state(process, 60_000).sites == %{} end)
      # The first after a pause is told at once.
      tell_attempt(context, 1)
      assert_receive {:plausible_webhooks, :attempt, _map}, 50
    end
  end

  test "a PubSub that is not running is told nothing, until it is", context do
    process = start_supervised!(Updates.process(context.name, pubsub: context.pubsub))
    stop_supervised!(:pubsub)
    for n <- 1..10, do: tell_attempt(context, n)
    eventually(fn -> :sys.get_state(process, 60_000).sites == %{} end)
    start_supervised!({Phoenix.PubSub, name: context.pubsub}, id: :pubsub)
    :ok = Updates.subscribe(context.pubsub, context.name, 1)
    tell_attempt(context, 11)
    assert_receive {:plausible_webhooks, :attempt, %{delivery_id: "msg_11"}}
  end

  test "without its process nothing is told, and nothing breaks", context do
    assert tell_attempt(context, 1) == :ok
    assert_raise KeyError, fn -> Updates.process(context.name, []) end
  end

  test "a whole life, from the acceptance on, and no secret", context do
    context =
      start!(context,
        observers: [{Updates, pubsub: context.pubsub}],
        retry_delays_ms: [1_000]
      )

    :ok = Updates.subscribe(context.pubsub, context.name, 1)
    HttpReceiver.script(context.receiver, "/path-token", [503, {200, [], "answer-token"}])
    webhook = webhook!(context, "/path-token", %{headers: [{"x-key", "header-token"}]})
    id = webhook.id
    assert_receive {:plausible_webhooks, :webhook_changed, %{webhook_id: ^id} = changed}
    assert changed.change == :created

    sent = delivery(webhook, body: ~s({"x":"body-token"}))
    :ok = Outbox.accept(context.instance, [sent])
    sent_id = sent.id
    assert_receive {:plausible_webhooks, :accepted, %{count: 1} = accepted}
    attempt = %{delivery_id: sent_id, webhook_id: id, site_id: 1, missed: 0}
    assert_receive {:plausible_webhooks, :attempt, %{number: 1, status: 503} = first}
    assert %{state: :pending, error: :http_status, next_at_ms: next_at_ms} = first
    assert is_integer(next_at_ms) and Map.take(first, Map.keys(attempt)) == attempt

    assert_receive {:plausible_webhooks, :attempt, %{number: 2, state: :delivered} = second},
                   5_000

    HttpReceiver.script(context.receiver, "/path-token", [410])
    :ok = Outbox.accept(context.instance, [delivery(webhook)])
    assert_receive {:plausible_webhooks, :webhook_disabled, %{reason: :gone} = disabled}

    # One that ends without an attempt.
    ended = delivery(webhook)
    ended_id = ended.id
    :ok = Outbox.accept(context.instance, [ended])

    assert_receive {:plausible_webhooks, :attempt, %{delivery_id: ^ended_id, number: 0} = last},
                   5_000

    assert last.state == :cancelled
    said = inspect([changed, accepted, first, second, disabled, last], limit: :infinity)
    for secret <- ~w(token whsec_ 127.0.0.1 http:), do: refute(said =~ secret)
  end
end
