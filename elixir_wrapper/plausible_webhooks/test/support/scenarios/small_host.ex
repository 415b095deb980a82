defmodule Plausible.Webhooks.Scenarios.SmallHost do
  @moduledoc false
  # The host of examples/host. The argument is a function that gets the test's context and
  # returns the instance's `:store` option.

  @behaviour Plausible.Webhooks.Scenarios.Host

  import ExUnit.Callbacks, only: [start_supervised!: 1]

  alias Plausible.Webhooks
  alias Plausible.Webhooks.{Native, Scenarios}

  @site %{
    id: 1,
    domain: "example.com",
    dashboard_url: "https://plausible.test/example.com",
    stats_start_at: 1_577_836_800_000,
    owners: ["owner", "admin"],
    viewers: ["viewer"]
  }
  @other_site %{id: 2, domain: "other.example", owners: ["other"]}
  @visitor %{"country" => "EE", "device" => "Desktop", "browser" => "Firefox", "os" => "Linux"}

  @impl true
  def start!(context, store) do
    name = :"scenario_#{System.unique_integer([:positive])}"
    sites = :"#{name}_sites"

    options = [
      name: name,
      store: store.(context),
      host: {Demo.Host, sites},
      vault: [:binary.copy(<<7>>, 32)],
      policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
      sweep_interval_ms: 50,
      drain_ms: 2_000
    ]

    start_supervised!({Demo.Host, name: sites, sites: [@site, @other_site]})
    start_supervised!({Webhooks, options ++ Scenarios.options()})
    ingestion = start_supervised!({Demo.Ingestion, host: sites, webhooks: name})

    %{
      name: name,
      site: @site,
      user: "owner",
      dashboard_url: ~r"^https://plausible.test/example.com$",
      visitor: @visitor,
      personal: ["127.0.0.1", "visitor 1"],
      revenue?: true,
      goal_props?: true,
      sites: sites,
      events_url: ~c"http://127.0.0.1:#{Plausible.Webhooks.Local.Http.port(ingestion)}/event"
    }
  end

  @impl true
  def goal!(context, goal) do
    {name, goal} = Map.pop(goal, :display_name)
    goal = if name, do: Map.put(goal, :name, name), else: goal
    goal = Map.put(goal, :id, System.unique_integer([:positive]))
    Demo.Host.update_site(context.sites, 1, &%{&1 | goals: &1.goals ++ [goal]})
    :ok = Webhooks.goals_changed(context.name, 1)
    goal
  end

  @impl true
  def track(context, name, fields) do
    {path, fields} = Map.pop(fields, :path, "/")
    {visitor, fields} = Map.pop(fields, :visitor, 1)

    event = %{
      name: name,
      domain: @site.domain,
      url: "https://#{@site.domain}#{path}",
      visitor: "visitor #{visitor}"
    }

    {:ok, body} =
      event
      |> Map.merge(fields)
      |> Map.new(fn {field, value} -> {to_string(field), value} end)
      |> Map.merge(@visitor)
      |> Native.encode()

    request = {context.events_url, [], ~c"application/json", body}
    {:ok, {{_version, status, _text}, _headers, _body}} = :httpc.request(:post, request, [], [])
    status
  end

  @impl true
  def visits!(context, count, at_ms, fields) do
    timestamp = at_ms |> DateTime.from_unix!(:millisecond) |> DateTime.to_naive()

    for _ <- 1..count do
      event = %{
        name: "pageview",
        site_id: 1,
        user_id: System.unique_integer(),
        timestamp: NaiveDateTime.truncate(timestamp, :second),
        referrer_source: "",
        pathname: "/"
      }

      Demo.Host.count(context.sites, %{clickhouse_event: Map.merge(event, fields)})
    end

    :ok
  end

  @impl true
  def no_visits!(context) do
    Demo.Host.forget_visitors(context.sites, 1)
    :ok
  end

  @impl true
  def flush!(_context), do: :ok

  @impl true
  def breach!(context, kind, change) do
    change =
      Map.put(change, :sources, [%{name: "Hacker News", visitors: change.current_visitors}])

    Webhooks.traffic_change(context.name, kind, 1, change)
  end

  @impl true
  def other_site!(_context), do: %{site: @other_site, user: "other"}

  @impl true
  def people!(_context) do
    %{
      managers: @site.owners,
      readers: @site.viewers,
      others: ["other", "stranger", nil, %{id: nil}]
    }
  end

  @impl true
  def dismiss!(context, user) do
    Demo.Host.update_site(context.sites, 1, &%{&1 | owners: &1.owners -- [user]})
    :ok
  end
end
