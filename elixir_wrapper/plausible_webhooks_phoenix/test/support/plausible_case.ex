defmodule Plausible.Webhooks.Test.PlausibleCase do
  @moduledoc false
  # Tests inside of Plausible: sites, users and events are made and sent the way its
  # users and visitors do it, webhooks arrive at a receiver on loopback.
  #
  #     use Plausible.Webhooks.Test.PlausibleCase
  #     setup_all do: plausible!(options: [retry_delays_ms: [100, 300, 900]])

  use ExUnit.CaseTemplate

  import ExUnit.Assertions

  alias Plausible.Webhooks.Test.{HttpReceiver, PlausibleHost, StoreCase}

  # There when the test runs.
  @compile {:no_warn_undefined,
            [
              Plausible.Auth.User,
              Plausible.ClickhouseRepo,
              Plausible.Event.WriteBuffer,
              Plausible.Goals,
              Plausible.Repo,
              Plausible.Site,
              Plausible.Teams.GuestMembership,
              Plausible.Teams.Membership,
              Plausible.Teams.Team
            ]}

  using do
    quote do
      import Plausible.Webhooks.Test.PlausibleCase

      alias Plausible.Webhooks
      alias Plausible.Webhooks.Test.HttpReceiver

      @moduletag :plausible
    end
  end

  @doc "Plausible runs for the tests of a module: `PlausibleHost.start!/2`."
  def plausible!(given \\ []) do
    supervisor =
      PlausibleHost.start!(Keyword.get(given, :variables, []), Keyword.get(given, :options, []))

    Process.unlink(supervisor)
    ExUnit.Callbacks.on_exit(fn -> stop(supervisor) end)
    :ok
  end

  defp stop(supervisor) do
    ref = Process.monitor(supervisor)
    Supervisor.stop(supervisor)
    receive do: ({:DOWN, ^ref, :process, _pid, _reason} -> :ok)
  end

  setup do
    owner = user!()
    site = site!(team!(owner))
    # An evaluation of the traffic is one of all sites.
    on_exit(fn -> delete_webhooks(site) end)

    %{
      owner: owner,
      site: site,
      receiver: HttpReceiver.of(start_supervised!({HttpReceiver, []}))
    }
  end

  defp delete_webhooks(site) do
    {:ok, webhooks} = Plausible.Webhooks.list_webhooks(:system, site.id)
    for %{id: id} <- webhooks, do: Plausible.Webhooks.delete_webhook(:system, site.id, id)
  end

  # --- people and sites

  def user! do
    insert!(Plausible.Auth.User, email: "user#{unique()}@example.com")
  end

  def team!(owner, fields \\ []) do
    team = insert!(Plausible.Teams.Team, [identifier: Ecto.UUID.generate()] ++ fields)
    member!(team, owner, :owner)
    team
  end

  def member!(team, user, role),
    do: insert!(Plausible.Teams.Membership, team_id: team.id, user_id: user.id, role: role)

  def guest!(site, user, role) do
    membership = member!(%{id: site.team_id}, user, :guest)

    insert!(Plausible.Teams.GuestMembership,
      team_membership_id: membership.id,
      site_id: site.id,
      role: role
    )
  end

  def site!(team, fields \\ []) do
    defaults = [
      domain: "site#{unique()}.example.com",
      team_id: team.id,
      native_stats_start_at: ~N[2020-01-01 00:00:00]
    ]

    insert!(Plausible.Site, Keyword.merge(defaults, fields))
  end

  defp insert!(schema, fields), do: schema |> struct!(fields) |> Plausible.Repo.insert!()

  def goal!(site, attributes) do
    {:ok, goal} = Plausible.Goals.create(site, attributes)
    goal
  end

  # --- webhooks

  @doc "A webhook of the site at a path of the receiver, which checks its signatures."
  def webhook!(context, path, attributes) do
    attributes = Map.merge(%{url: HttpReceiver.url(context.receiver, path)}, Map.new(attributes))

    {:ok, webhook} = Plausible.Webhooks.create_webhook(context.owner, context.site.id, attributes)

    {:ok, secrets} = Plausible.Webhooks.reveal_secret(context.owner, context.site.id, webhook.id)
    HttpReceiver.secrets(context.receiver, path, Enum.map(secrets, & &1.key))
    webhook
  end

  @doc "The bodies that have arrived, once there are so many; each of them was signed."
  def received(context, path, count, timeout_ms \\ 10_000) do
    requests = HttpReceiver.await(context.receiver, path, count, timeout_ms)
    for request <- requests, do: assert(request.verified)
    Enum.map(requests, &Jason.decode!(&1.body))
  end

  @doc "Nothing arrives there in this time."
  def refute_received_at(context, path, wait_ms \\ 300) do
    Process.sleep(wait_ms)
    assert HttpReceiver.requests(context.receiver, path) == []
  end

  # --- visitors

  @doc """
  A visitor's browser sends an event to `POST /api/event`. Options: `:path`, `:props`,
  `:revenue`, `:referrer`, `:scroll_depth`, `:visitor` (who: another user agent).
  """
  def track(site, name, options \\ []) do
    body =
      Jason.encode!(%{
        "n" => name,
        "d" => site.domain,
        "u" => "https://#{site.domain}#{options[:path] || "/"}",
        "r" => options[:referrer],
        "p" => options[:props] || %{},
        "$" => options[:revenue],
        "sd" => options[:scroll_depth]
      })

    agent = to_charlist("visitor #{options[:visitor] || 1}")

    request =
      {~c"#{PlausibleHost.url()}/api/event", [{~c"user-agent", agent}], ~c"text/plain", body}

    {:ok, {{_version, status, _text}, headers, _body}} =
      :httpc.request(:post, request, [timeout: 5_000], [])

    {status, Map.new(headers, fn {name, value} -> {to_string(name), to_string(value)} end)}
  end

  @doc """
  So many visitors of the site, at that time: rows of the events table, as they would be
  there after the visits. Fields: any of the table's.
  """
  def visits!(site, count, at \\ NaiveDateTime.utc_now(), fields \\ %{}) do
    rows =
      for n <- 1..count//1 do
        Map.merge(
          %{
            name: "pageview",
            site_id: site.id,
            user_id: unique() * 1_000_000 + n,
            pathname: "/",
            timestamp: NaiveDateTime.truncate(at, :second)
          },
          fields
        )
      end

    for slice <- Enum.chunk_every(rows, 1_000),
        do: Plausible.ClickhouseRepo.insert_all("events_v2", slice)

    :ok
  end

  @doc "All visitors of the site are gone, now and before."
  def no_visits!(site) do
    Plausible.Event.WriteBuffer.flush()

    Plausible.ClickhouseRepo.query!("DELETE FROM events_v2 WHERE site_id = $1", [site.id],
      log: false
    )

    :ok
  end

  @doc "The evaluation of each minute, now."
  def evaluate!(now_ms \\ System.system_time(:millisecond)) do
    Plausible.Event.WriteBuffer.flush()
    {:ok, summary} = Plausible.Webhooks.Ingest.Traffic.evaluate(Plausible.Webhooks, now_ms)
    summary
  end

  @doc "The deliveries of the site, newest first."
  def log(context, filters \\ %{}) do
    {:ok, %{entries: entries}} =
      Plausible.Webhooks.deliveries(context.owner, context.site.id, filters, %{limit: 200})

    entries
  end

  @doc "Waits until so many deliveries of the site are in this state; they are."
  def await_log(context, state, count) do
    eventually(fn ->
      deliveries = log(context, %{states: [state]})
      length(deliveries) == count && deliveries
    end)
  end

  @doc "Waits until the function answers something."
  def eventually(fun, timeout_ms \\ 10_000), do: StoreCase.eventually(fun, timeout_ms)

  defp unique, do: System.unique_integer([:positive])
end
