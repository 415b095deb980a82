defmodule Plausible.Webhooks.Runtime.ObserversTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API

  @moduletag :capture_log

  defmodule Keeping do
    # An observer with a process of its own.
    @behaviour Plausible.Webhooks.Observer

    @impl true
    def process(_instance, :none), do: nil

    def process(instance, {test, part}) do
      run = fn ->
        send(test, {:started, instance, part, self()})
        if part == :broken, do: exit(:broken), else: Process.sleep(:infinity)
      end

      %{id: __MODULE__, start: {Task, :start_link, [run]}}
    end

    @impl true
    def handle_event(event, _measurements, metadata, {test, part}),
      do: send(test, {event, part, metadata})

    def handle_event(_event, _measurements, _metadata, :none), do: :ok
  end

  test "accepted deliveries are reported by site", context do
    context = start!(context, observers: [{Keeping, {self(), :only}}])
    one = webhook!(context, "/one")

    {:ok, two} =
      API.create_webhook(context.name, :owner, 2, %{url: one.url, events: ["goal.completed"]})

    SwitchStore.set(context.switch, {:only, [:accept], :away})
    # So that they are committed together.
    :ok = Outbox.push(context.instance, deliveries(one, 3) ++ deliveries(two, 2))
    eventually(fn -> SwitchStore.calls(context.switch, :accept) > 0 end)
    SwitchStore.set(context.switch, :on)
    assert_receive {:deliveries_accepted, :only, %{sites: %{1 => 3, 2 => 2} = sites}}
    assert map_size(sites) == 2
  end

  test "a process that an observer needs runs as long as the instance", context do
    name = context.name
    observers = [{Keeping, {self(), :a}}, {Keeping, :none}, {Keeping, {self(), :b}}]
    context = start!(context, observers: observers)
    assert_receive {:started, ^name, :a, first}
    assert_receive {:started, ^name, :b, other}
    Process.exit(first, :kill)
    assert_receive {:started, ^name, :a, second}
    assert second != first and Process.alive?(other)
    refs = for pid <- [second, other], do: Process.monitor(pid)
    stop!(context)
    for ref <- refs, do: assert_received({:DOWN, ^ref, :process, _pid, _reason})
  end

  test "a process that ends again and again is given up, alone", context do
    name = context.name
    observers = [{Keeping, {self(), :broken}}, {Keeping, {self(), :sound}}]
    context = start!(context, observers: observers)
    assert_receive {:started, ^name, :sound, sound}
    for _ <- 1..21, do: assert_receive({:started, ^name, :broken, _pid})
    webhook = webhook!(context, "/hook")
    :ok = Outbox.accept(context.instance, [delivery(webhook)])
    HttpReceiver.await(context.receiver, "/hook", 1)
    assert_receive {:attempt, :sound, _metadata}
    # It still gets its events.
    assert_receive {:attempt, :broken, _metadata}
    refute_received {:started, ^name, :broken, _pid}
    assert Process.alive?(sound) and Process.alive?(context.supervisor)
  end
end
