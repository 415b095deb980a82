defmodule Plausible.Webhooks.Scenarios.World do
  @moduledoc false
  # What a scenario runs in: the small host with two sites, its ingestion, an instance,
  # and a receiver. `scenario "words", context do ... end` defines one scenario.
  #
  # Site 1 is example.com: "owner" manages its webhooks, "viewer" reads them. Site 2 is
  # other.example, of "other".

  import ExUnit.Assertions
  import ExUnit.Callbacks, only: [start_supervised!: 1]

  alias Plausible.Webhooks
  alias Plausible.Webhooks.Native
  alias Plausible.Webhooks.Test.{HttpReceiver, Peer}

  defmacro __using__(options) do
    quote do
      import ExUnit.Assertions
      import Plausible.Webhooks.Scenarios.World

      alias Plausible.Webhooks
      alias Plausible.Webhooks.Test.HttpReceiver

      Module.register_attribute(__MODULE__, :all, accumulate: true)
      @before_compile Plausible.Webhooks.Scenarios.World

      @doc "The options of the instance that these scenarios need."
      def options, do: unquote(options)
    end
  end

  defmacro __before_compile__(env) do
    all = env.module |> Module.get_attribute(:all) |> Enum.reverse()
    quote do: def(all, do: unquote(all))
  end

  defmacro scenario(name, context, do: block) do
    function = String.to_atom(name)

    quote do
      @all {unquote(name), unquote(function)}
      def unquote(function)(unquote(context)) do
        unquote(block)
        :ok
      end
    end
  end

  # --- starting

  @site %{
    id: 1,
    domain: "example.com",
    dashboard_url: "https://plausible.test/example.com",
    stats_start_at: 1_577_836_800_000,
    owners: ["owner"],
    viewers: ["viewer"]
  }

  def start!(context, store, options) do
    instance = :"scenario_#{System.unique_integer([:positive])}"
    host = :"#{instance}_host"
    sites = [@site, %{id: 2, domain: "other.example", owners: ["other"]}]

    defaults = [
      name: instance,
      store: store,
      host: {Demo.Host, host},
      vault: [:binary.copy(<<7>>, 32)],
      policy: %{https_only: false, allow_private: true},
      traffic: [tick_ms: :infinity],
      sweep_interval_ms: 50,
      drain_ms: 2_000
    ]

    receiver = HttpReceiver.of(start_supervised!({HttpReceiver, []}))
    start_supervised!({Demo.Host, name: host, sites: sites})
    start_supervised!({Webhooks, Keyword.merge(defaults, options)})
    ingestion = start_supervised!({Demo.Ingestion, host: host, webhooks: instance})

    Map.merge(context, %{
      instance: instance,
      host: host,
      receiver: receiver,
      events_url: ~c"http://127.0.0.1:#{Demo.Http.port(ingestion)}/event"
    })
  end

  @doc "Starts what collects the POSTs of a module's tests."
  def collect_posts! do
    {:ok, posts} = Agent.start(fn -> %{} end)
    posts
  end

  @doc "Has npm's standardwebhooks verify the POSTs that were collected."
  def verify_posts!(posts) do
    messages = Agent.get(posts, &Map.values/1)
    Agent.stop(posts)
    if messages != [], do: verify!(messages)
  end

  defp verify!(messages) do
    dir = Path.join(System.tmp_dir!(), "webhooks-#{System.unique_integer([:positive])}")
    File.mkdir_p!(dir)
    result = Peer.run("verify", messages, dir)
    File.rm_rf!(dir)
    assert result in [:absent, {"#{length(messages)} passed, 0 failed\n", 0}]
  end

  # --- the host

  @doc "Adds a goal to site 1."
  def goal!(context, goal) do
    goal = Map.put(goal, :id, System.unique_integer([:positive]))
    Demo.Host.update_site(context.host, 1, &%{&1 | goals: &1.goals ++ [goal]})
    :ok = Webhooks.goals_changed(context.instance, 1)
    goal
  end

  @doc """
  Sends an event of site 1 as a POST to the host's ingestion and returns the status.
  `fields` are those of `Demo.Events`; `:path` stands for `url`.
  """
  def track(context, name, fields \\ []) do
    {path, fields} = Keyword.pop(fields, :path, "/")

    event = %{
      name: name,
      domain: "example.com",
      url: "https://example.com#{path}",
      visitor: "visitor 1",
      country: "EE",
      device: "Desktop",
      browser: "Firefox",
      os: "Linux"
    }

    {:ok, body} = event |> Map.merge(Map.new(fields)) |> Native.encode()
    request = {context.events_url, [], ~c"application/json", body}
    {:ok, {{_version, status, _text}, _headers, _body}} = :httpc.request(:post, request, [], [])
    status
  end

  @doc "Sends many events at a time, one of each of the numbers."
  def track_many(context, name, numbers, fields \\ fn _number -> [] end) do
    numbers
    |> Task.async_stream(&track(context, name, [visitor: "#{&1}"] ++ fields.(&1)),
      max_concurrency: 8,
      timeout: 30_000
    )
    |> Enum.each(&assert({:ok, 202} = &1))
  end

  @doc "Counts visitors of site 1 at that time, as their events would have been counted."
  def visits!(context, count, at_ms \\ System.system_time(:millisecond), fields \\ %{}) do
    timestamp = at_ms |> DateTime.from_unix!(:millisecond) |> DateTime.to_naive()

    for _ <- 1..count//1 do
      event = %{
        name: "pageview",
        site_id: 1,
        user_id: System.unique_integer(),
        timestamp: NaiveDateTime.truncate(timestamp, :second),
        referrer_source: "",
        pathname: "/"
      }

      Demo.Host.count(context.host, %{clickhouse_event: Map.merge(event, fields)})
    end
  end

  @doc "Evaluates the traffic now, as happens each minute."
  def evaluate!(context, now_ms \\ System.system_time(:millisecond)) do
    {:ok, summary} = Webhooks.Ingest.Traffic.evaluate(context.instance, now_ms)
    summary
  end

  # --- webhooks

  @doc "A webhook of site 1 at a path of the receiver, which verifies what arrives there."
  def webhook!(context, path, attributes) do
    attributes = Map.merge(%{url: url(context, path)}, Map.new(attributes))
    {:ok, webhook} = Webhooks.create_webhook(context.instance, "owner", 1, attributes)
    HttpReceiver.secrets(context.receiver, path, secrets(context, webhook))
    webhook
  end

  def url(context, path), do: HttpReceiver.url(context.receiver, path)

  @doc "The secrets of a webhook, newest first."
  def secrets(context, webhook) do
    {:ok, secrets} = Webhooks.reveal_secret(context.instance, "owner", 1, webhook.id)
    Enum.map(secrets, & &1.key)
  end

  @doc "Waits for so many POSTs at the path and returns them; each one is verified."
  def posts(context, path, count) do
    requests = HttpReceiver.await(context.receiver, path, count)
    [secret | _older] = HttpReceiver.secrets(context.receiver, path)

    for request <- requests do
      assert request.verified
      message = Peer.message(request, secret)
      Agent.update(context.posts, &Map.put(&1, {context.instance, request.number}, message))
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

  @doc "Waits until everything that was accepted has come to an end; how many POSTs there were."
  def settled(context, path) do
    eventually(fn ->
      Webhooks.stats(context.instance).outbox == 0 and
        log(context, %{states: [:pending, :parked]}) == []
    end)

    HttpReceiver.count(context.receiver, path)
  end

  @doc "The deliveries of site 1, newest first."
  def log(context, filters \\ %{}) do
    {:ok, %{entries: entries}} =
      Webhooks.deliveries(context.instance, "owner", 1, filters, %{limit: 200})

    entries
  end

  @doc "Waits until so many deliveries are in the state and returns them."
  def await_log(context, state, count) do
    eventually(fn ->
      deliveries = log(context, %{states: [state]})
      length(deliveries) == count && deliveries
    end)
  end

  @doc "Tries until `fun` returns something true, which it returns."
  def eventually(fun, deadline \\ System.monotonic_time(:millisecond) + 30_000) do
    cond do
      result = fun.() ->
        result

      System.monotonic_time(:millisecond) > deadline ->
        flunk("did not become true in time")

      true ->
        Process.sleep(10)
        eventually(fun, deadline)
    end
  end
end
