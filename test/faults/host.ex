defmodule Plausible.Webhooks.Faults.Host do
  @moduledoc false
  # A whole instance on SQLite for measurements: sites 1 and 2, each with one goal.

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Test.TestHost

  @goal 12
  @name :webhooks_measured

  def name, do: @name

  @doc "Starts the instance, linked to the caller, with its default limits and `options`."
  def start(dir, options) do
    host = TestHost.new(spawn_link(&ignore/0))

    for site <- [1, 2],
        do: TestHost.put(host, {:goals, site}, [TestHost.event_goal(@goal, "Goal")])

    defaults = [
      name: @name,
      store: {API.Store.SQLite, path: path(dir)},
      host: {TestHost, host},
      vault: [:binary.copy(<<7>>, 32)],
      policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
      traffic: false
    ]

    children = [{API, Keyword.merge(defaults, options)}]
    {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
    supervisor
  end

  def path(dir), do: Path.join(dir, "measured.db")

  # What the host is told interests nobody here.
  defp ignore, do: receive(do: (_told -> ignore()))

  def create(site, url) do
    attributes = %{url: url, events: ["goal.completed"], goals: [@goal]}
    {:ok, webhook} = API.create_webhook(@name, :owner, site, attributes)
    webhook.id
  end

  @doc "An event of the site that completes its goal. `text` becomes a property of its body."
  def event(site, text) do
    API.events_buffered(@name, [
      %{
        clickhouse_event: %{
          site_id: site,
          name: "Goal",
          hostname: "site#{site}.example",
          pathname: "/",
          session_id: 1,
          timestamp: ~N[2026-11-23 10:15:30],
          "meta.key": ["text"],
          "meta.value": [text]
        }
      }
    ])
  end
end
