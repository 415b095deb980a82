defmodule Plausible.Webhooks.Scenarios.World do
  @moduledoc false
  # The steps of the scenarios.

  import ExUnit.Assertions
  import Plausible.Webhooks.Test.{AsUser, Eventually}

  alias Plausible.Webhooks
  alias Plausible.Webhooks.Native
  alias Plausible.Webhooks.Test.{HttpReceiver, Peer}

  defmacro __using__(_options) do
    quote do
      import Plausible.Webhooks.Scenarios.World
      import Plausible.Webhooks.Test.{AsUser, Eventually}

      alias Plausible.Webhooks
      alias Plausible.Webhooks.Test.HttpReceiver
    end
  end

  # --- the host

  def goal!(context, goal), do: context.host.goal!(context, goal)

  @doc "Sends a visitor's event and returns the HTTP status."
  def track(context, name, fields \\ []), do: context.host.track(context, name, Map.new(fields))

  @doc "Sends an event of each visitor, several at a time."
  def track_many(context, name, visitors, fields \\ fn _visitor -> [] end) do
    visitors
    |> Task.async_stream(&track(context, name, [visitor: &1] ++ fields.(&1)),
      max_concurrency: 8,
      timeout: 30_000
    )
    |> Enum.each(&assert({:ok, 202} = &1))
  end

  def visits!(context, count, at_ms \\ now_ms(), fields \\ %{}),
    do: context.host.visits!(context, count, at_ms, fields)

  def no_visits!(context), do: context.host.no_visits!(context)

  @doc "Evaluates the traffic now, as happens each minute."
  def evaluate!(context, now_ms \\ now_ms()) do
    :ok = context.host.flush!(context)
    {:ok, summary} = Webhooks.Ingest.Traffic.evaluate(context.name, now_ms)
    summary
  end

  def now_ms, do: System.system_time(:millisecond)

  # --- webhooks

  @doc "A webhook at a path of the receiver, which verifies what arrives there."
  def webhook!(context, path, attributes) do
    attributes = Map.merge(%{url: url(context, path)}, Map.new(attributes))
    {:ok, webhook} = create_webhook(context, attributes)
    HttpReceiver.secrets(context.receiver, path, secrets(context, webhook))
    webhook
  end

  def url(context, path), do: HttpReceiver.url(context.receiver, path)

  @doc "The secrets of a webhook, newest first."
  def secrets(context, webhook) do
    {:ok, secrets} = reveal_secret(context, webhook.id)
    Enum.map(secrets, & &1.key)
  end

  # --- what arrives

  @doc "Waits for `count` POSTs at the path and returns them. Fails if one is not verified."
  def posts(context, path, count) do
    requests = HttpReceiver.await(context.receiver, path, count, 60_000)
    [secret | _older] = HttpReceiver.secrets(context.receiver, path)

    for request <- requests do
      assert request.verified
      message = Peer.message(request, secret)
      Agent.update(context.posts, &Map.put(&1, {context.receiver.pid, request.number}, message))
    end

    requests
  end

  @doc "The bodies of those POSTs."
  def bodies(context, path, count),
    do: context |> posts(path, count) |> Enum.map(&decode(&1.body))

  def decode(json) do
    {:ok, term} = Native.decode(json)
    term
  end

  @doc "The number of POSTs at the path, once every accepted delivery has ended."
  def settled(context, path) do
    eventually(fn -> log(context, %{states: [:pending, :parked]}) == [] end)
    HttpReceiver.count(context.receiver, path)
  end

  @doc "The deliveries of the site, newest first."
  def log(context, filters \\ %{}) do
    # An event is in the outbox before it is in the store.
    eventually(fn -> Webhooks.stats(context.name).outbox == 0 end)
    {:ok, %{entries: entries}} = deliveries(context, filters, %{limit: 200})
    entries
  end

  @doc "The deliveries in this state, once there are `count` of them."
  def await_log(context, state, count) do
    eventually(fn ->
      deliveries = log(context, %{states: [state]})
      length(deliveries) == count && deliveries
    end)
  end

  @doc "Has npm's standardwebhooks verify messages of `Peer.message/2`."
  def verify!([]), do: :ok

  def verify!(messages) do
    dir = Path.join(System.tmp_dir!(), "webhooks-#{System.unique_integer([:positive])}")
    File.mkdir_p!(dir)
    result = Peer.run("verify", messages, dir)
    File.rm_rf!(dir)
    assert result in [:absent, {"#{length(messages)} passed, 0 failed\n", 0}]
  end
end
