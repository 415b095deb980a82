defmodule Plausible.Webhooks.Test.PlausibleCase do
  @moduledoc false
  # Cases inside a running Plausible. Plausible's own factories make users, teams and
  # sites. Visitors send events to its endpoint. Deliveries arrive at a receiver on
  # loopback.
  use ExUnit.CaseTemplate

  use Plausible

  import ExUnit.Assertions

  alias Plausible.Webhooks.Test.HttpReceiver

  using do
    quote do
      import Plausible.Webhooks.Test.PlausibleCase

      alias Plausible.Webhooks
      alias Plausible.Webhooks.Test.HttpReceiver
    end
  end

  setup do
    # Bamboo's test adapter sends each e-mail to this process.
    Application.put_env(:bamboo, :shared_test_process, self())
    owner = user!()
    site = site!(team!(owner))
    on_exit(fn -> delete_webhooks(site) end)
    %{owner: owner, site: site, receiver: receiver!()}
  end

  # An evaluation of traffic covers all sites, so a webhook must not outlive its test.
  defp delete_webhooks(site) do
    {:ok, webhooks} = Plausible.Webhooks.list_webhooks(:system, site.id)
    for %{id: id} <- webhooks, do: Plausible.Webhooks.delete_webhook(:system, site.id, id)
  end

  def receiver!(options \\ []) do
    spec = Supervisor.child_spec({HttpReceiver, options}, id: make_ref())
    HttpReceiver.of(ExUnit.Callbacks.start_supervised!(spec))
  end

  @doc "Whether this is the Enterprise Edition."
  def enterprise?, do: on_ee(do: true, else: false)

  # Users, teams and sites

  def user!(options \\ []) do
    defaults = [
      email: "user#{unique()}@example.com",
      trial_expiry_date: Date.add(Date.utc_today(), 30)
    ]

    Plausible.Teams.Test.new_user(Keyword.merge(defaults, options))
  end

  def team!(owner), do: Plausible.Teams.Test.team_of(owner)

  @doc "A public site, so that its dashboard's API answers without a session."
  def site!(team, options \\ []) do
    defaults = [
      team: team,
      public: true,
      domain: "site#{unique()}.example.com",
      native_stats_start_at: ~N[2020-01-01 00:00:00]
    ]

    Plausible.Teams.Test.new_site(Keyword.merge(defaults, options))
  end

  def member!(team, role, user \\ user!()),
    do: Plausible.Teams.Test.add_member(team, user: user, role: role)

  def guest!(site, role, user \\ user!()),
    do: Plausible.Teams.Test.add_guest(site, user: user, role: role)

  def team_of(site), do: Plausible.Repo.preload(site, :team).team

  def goal!(site, attributes) do
    {:ok, goal} = Plausible.Goals.create(site, attributes)
    goal
  end

  def change!(record, fields) do
    record
    |> Plausible.Repo.reload!()
    |> Ecto.Changeset.change(fields)
    |> Plausible.Repo.update!()
  end

  # Webhooks

  @doc "A webhook whose URL is a path of the receiver, which verifies its signatures."
  def webhook!(context, path, attributes) do
    attributes = Map.merge(%{url: HttpReceiver.url(context.receiver, path)}, Map.new(attributes))
    {:ok, webhook} = Plausible.Webhooks.create_webhook(context.owner, context.site.id, attributes)
    {:ok, secrets} = Plausible.Webhooks.reveal_secret(context.owner, context.site.id, webhook.id)
    HttpReceiver.secrets(context.receiver, path, Enum.map(secrets, & &1.key))
    webhook
  end

  @doc "The first `count` bodies that arrive. Fails if a signature is not valid."
  def received(context, path, count, timeout_ms \\ 20_000) do
    requests = HttpReceiver.await(context.receiver, path, count, timeout_ms)
    for request <- requests, do: assert(request.verified)
    Enum.map(requests, &Jason.decode!(&1.body))
  end

  @doc "The number of requests at the path, once every accepted delivery has ended."
  def settled_count(context, path) do
    eventually(fn -> log(context, %{states: [:pending, :parked]}) == [] end)
    HttpReceiver.count(context.receiver, path)
  end

  @doc "The deliveries of the site, newest first."
  def log(context, filters \\ %{}) do
    :ok = flush()

    {:ok, %{entries: entries}} =
      Plausible.Webhooks.deliveries(context.owner, context.site.id, filters, %{limit: 200})

    entries
  end

  # An event is in the outbox before it is in the store.
  defp flush do
    eventually(fn -> Plausible.Webhooks.stats().outbox == 0 end)
    :ok
  end

  @doc "The deliveries in this state, once there are `count` of them."
  def await_log(context, state, count) do
    eventually(fn ->
      deliveries = log(context, %{states: [state]})
      length(deliveries) == count && deliveries
    end)
  end

  # Visitors

  @doc """
  Sends an event to `POST /api/event`. Options: `:path`, `:props`, `:revenue`,
  `:referrer`, `:scroll_depth`, `:visitor` (a number that becomes part of the IP address).
  """
  def track(site, name, options \\ []) do
    post_event(
      %{
        "n" => name,
        "d" => site.domain,
        "u" => "https://#{site.domain}#{options[:path] || "/"}",
        "r" => options[:referrer],
        "p" => options[:props] || %{},
        "$" => options[:revenue],
        "sd" => options[:scroll_depth],
        "e" => options[:scroll_depth] && 1_000
      },
      options[:agent] || firefox(),
      "82.34.#{div(options[:visitor] || 1, 250)}.#{rem(options[:visitor] || 1, 250)}"
    )
  end

  def firefox, do: "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"

  defp post_event(body, agent, address) do
    headers = [
      {~c"user-agent", to_charlist(agent)},
      {~c"x-forwarded-for", to_charlist(address)}
    ]

    request = {~c"#{url()}/api/event", headers, ~c"text/plain", Jason.encode!(body)}
    {:ok, {{_version, status, _text}, answer, _body}} = :httpc.request(:post, request, [timeout: 10_000], [])
    {status, Map.new(answer, fn {name, value} -> {to_string(name), to_string(value)} end)}
  end

  def url do
    {:ok, {_address, port}} = PlausibleWeb.Endpoint.server_info(:http)
    "http://localhost:#{port}"
  end

  @doc "Conversions by goal, from the dashboard's API."
  def conversions(site) do
    :ok = Plausible.Event.WriteBuffer.flush()
    :ok = Plausible.Session.WriteBuffer.flush()
    request = {~c"#{url()}/api/stats/#{site.domain}/conversions?period=day", []}
    {:ok, {{_version, 200, _text}, _headers, body}} = :httpc.request(:get, request, [], body_format: :binary)
    for row <- Jason.decode!(body)["results"], into: %{}, do: {row["name"], row["events"]}
  end

  @doc "Writes the visits of `count` visitors at one time to ClickHouse, one event each."
  def visits!(site, count, at \\ NaiveDateTime.utc_now(), fields \\ %{}) do
    events =
      for n <- 1..count//1 do
        defaults = [user_id: unique() * 1_000 + n, timestamp: NaiveDateTime.truncate(at, :second), pathname: "/"]
        Plausible.Factory.build(:event, Keyword.merge([name: "pageview"] ++ defaults, Enum.to_list(fields)))
      end

    Plausible.TestUtils.populate_stats(site, events)
    :ok
  end

  def no_visits!(site) do
    :ok = Plausible.Event.WriteBuffer.flush()

    Plausible.IngestRepo.query!(
      "ALTER TABLE events_v2 DELETE WHERE site_id = {$0:UInt64} SETTINGS mutations_sync = 2",
      [site.id]
    )

    :ok
  end

  @doc "Evaluates traffic now, as webhooks do every minute."
  def evaluate!(now_ms \\ System.system_time(:millisecond)) do
    Plausible.Event.WriteBuffer.flush()
    {:ok, summary} = Plausible.Webhooks.Ingest.Traffic.evaluate(Plausible.Webhooks, now_ms)
    summary
  end

  @doc "Waits until the function returns a value that is neither nil nor false."
  def eventually(fun, deadline \\ System.monotonic_time(:millisecond) + 20_000) do
    cond do
      result = fun.() ->
        result

      System.monotonic_time(:millisecond) > deadline ->
        flunk("the state that this test waits for did not come")

      true ->
        receive after: (20 -> :ok)
        eventually(fun, deadline)
    end
  end

  # Unique in the database too, which may hold rows of an earlier VM.
  defp unique, do: System.unique_integer([:positive]) + System.os_time(:second) * 1_000
end
