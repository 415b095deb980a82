# Serves the settings page of one site with a day of realistic traffic, for pictures of it.
#
#     cd elixir_wrapper/plausible_webhooks_phoenix
#     MIX_ENV=test mix run --no-start ../../tools/screenshots/serve.exs [PORT]
#
# The log is written straight into the store, so that it may name real-looking receivers: no
# request leaves this machine, but for tests that the page sends to the receiver on loopback.
# The PostgreSQL server ends with this VM. Then, elsewhere:
#
#     test/browser/run pictures.mjs http://127.0.0.1:PORT/sites/1/webhooks docs/screenshots
for app <- ~w(bandit ecto_sql postgrex inets plausible_webhooks_phoenix)a, do: {:ok, _} = Application.ensure_all_started(app)

alias Plausible.Webhooks.{Attempt, Delivery, Id, Store}
alias Plausible.Webhooks.Runtime.Instance
alias Plausible.Webhooks.Store.Ecto, as: EctoStore
alias Plausible.Webhooks.Test.{HttpReceiver, Postgres, Repo, TestHost}

defmodule AddWebhooks do
  use Ecto.Migration
  def up, do: Plausible.Webhooks.Migrations.up(version: 1)
end

port = System.argv() |> List.first("4100") |> String.to_integer()
cluster = Postgres.start!()
{:ok, _repo} = Repo.start_link(Postgres.connect(cluster) ++ [pool_size: 10, log: false])
[1] = Ecto.Migrator.run(Repo, [{1, AddWebhooks}], :up, all: true, log: false)
{:ok, receiver} = HttpReceiver.start_link([])
receiver = HttpReceiver.of(receiver)
{:ok, _pubsub} = Supervisor.start_link([{Phoenix.PubSub, name: Demo.PubSub}], strategy: :one_for_one)

host = TestHost.new()
goals = Enum.with_index(["Signup", "Purchase", "Newsletter", "Visit /pricing", "Demo requested"], 12)
TestHost.put(host, {:goals, 1}, for({name, id} <- goals, do: TestHost.event_goal(id, name)))
TestHost.put(host, :visitors, {:ok, [41, 2_210]})

TestHost.put(host, {:site, 1}, %{
  id: 1,
  domain: "acme.example",
  timezone: "Etc/UTC",
  stats_start_at_ms: nil
})

{:ok, _pid} =
  Plausible.Webhooks.start_link(
    name: Shown,
    store: {EctoStore, repo: Repo},
    host: {TestHost, host},
    vault: [:binary.copy(<<7>>, 32)],
    policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
    observers: [{Plausible.Webhooks.Updates, pubsub: Demo.PubSub}],
    tests_per_minute: 1_000,
    sweep_interval_ms: 60_000,
    traffic: false
  )

instance = Instance.fetch!(Shown)
HttpReceiver.script(receiver, "/events", [{200, [{"content-type", "application/json"}], ~s({"received":true})}])

webhook = fn attributes ->
  {:ok, webhook} = Plausible.Webhooks.create_webhook(Shown, :owner, 1, attributes)
  webhook
end

crm =
  webhook.(%{
    name: "CRM",
    url: "https://crm.acme.example/hooks/plausible",
    events: ["goal.completed"],
    goals: [12, 16],
    headers: [{"Authorization", "Bearer 7f3a"}]
  })

orders = webhook.(%{name: "Orders", url: "https://api.acme.example/v1/orders/events", events: ["goal.completed"], goals: [13]})

alerts =
  webhook.(%{
    name: "On-call",
    url: "https://alerts.acme.example/in/traffic",
    events: ["traffic.spike", "traffic.drop", "traffic.resolved"],
    spike_threshold: 300,
    drop_threshold: 500
  })

old = webhook.(%{name: "Old warehouse", url: "https://etl.acme.example/plausible", events: ["goal.completed"]})
webhook.(%{name: "Staging", url: HttpReceiver.url(receiver, "/events"), events: ["goal.completed"]})
{:ok, _} = Plausible.Webhooks.disable_webhook(Shown, :owner, 1, old.id)

now_ms = System.system_time(:millisecond)
hour_ms = 3_600_000
:rand.seed(:exsss, {1, 2, 3})

body = fn
  "goal.completed", name, page, at_ms ->
    at = DateTime.from_unix!(at_ms, :millisecond)

    ~s({"type":"goal.completed","timestamp":"#{DateTime.to_iso8601(at)}","data":{"site":{"domain":"acme.example"},) <>
      ~s("goal":{"id":12,"name":"#{name}","type":"event"},"completion":{"event_name":"#{name}","hostname":"acme.example",) <>
      ~s("pathname":"#{page}","occurred_at":"#{DateTime.to_iso8601(DateTime.truncate(at, :second))}","props":{"plan":"growth"},) <>
      ~s("referrer":"https://news.ycombinator.com/","source":"Hacker News","utm":{},"country":"EE","device":"Desktop","browser":"Firefox","os":"Linux"}}})

  type, visitors, threshold, at_ms ->
    at = DateTime.from_unix!(at_ms, :millisecond)

    ~s({"type":"#{type}","timestamp":"#{DateTime.to_iso8601(at)}","data":{"site":{"domain":"acme.example"},) <>
      ~s("current_visitors":#{visitors},"threshold":#{threshold},"window_seconds":300}})
end

attempt = fn delivery, number, at_ms, fields ->
  struct!(
    %Attempt{
      delivery_id: delivery.id,
      webhook_id: delivery.webhook_id,
      number: number,
      state: :delivered,
      status: 200,
      started_at_ms: at_ms,
      dns_us: 1_800,
      connect_us: 14_600,
      tls_us: 41_900,
      first_byte_us: 86_000 + :rand.uniform(40_000),
      total_us: 140_000 + :rand.uniform(30_000),
      remote_ip: "203.0.113.24",
      response_headers: "content-type: application/json\nserver: nginx\n",
      response_body: ~s({"received":true})
    },
    fields
  )
end

busy = [error: :http_status, status: 503, state: :parked, response_body: ~s({"error":"deploying"})]
late = [error: :timeout, status: nil, state: :parked, first_byte_us: nil, total_us: 15_020_000, response_body: ""]

send_one = fn webhook, type, about, more, ago_ms, failures ->
  at_ms = now_ms - ago_ms
  goal_id = with {_name, id} <- List.keyfind(goals, about, 0), do: id
  delivery = %Delivery{id: Id.delivery(at_ms), webhook_id: webhook.id, site_id: 1, type: type, goal_id: goal_id, body: body.(type, about, more, at_ms), created_at_ms: at_ms}
  :ok = Store.accept(instance, [delivery])
  failures = Enum.with_index(failures, 1)
  waits = [0, 10_000, 600_000, 14_400_000]

  failed =
    for {fields, number} <- failures do
      last? = number == 4
      fields = if last?, do: Keyword.put(fields, :state, :failed), else: fields ++ [next_at_ms: now_ms + hour_ms]
      attempt.(delivery, number, at_ms + Enum.at(waits, number - 1), fields)
    end

  good = if length(failures) < 4 and (failures == [] or ago_ms > 700_000), do: [attempt.(delivery, length(failures) + 1, at_ms + Enum.at(waits, length(failures)), [])], else: []
  :ok = Store.record(instance, failed ++ good)
end

pages = ["/pricing", "/", "/blog/launch", "/register", "/docs/start"]

for hour <- 23..0//-1, _n <- 1..(4 + round(9 * :math.sin(:math.pi() * (24 - hour) / 24))) do
  ago_ms = hour * hour_ms + :rand.uniform(hour_ms - 120_000) + 60_000
  failures = if hour in 7..8 and :rand.uniform() < 0.4, do: [busy, late] |> Enum.take(:rand.uniform(2)), else: []
  name = Enum.random(["Signup", "Signup", "Demo requested"])
  send_one.(crm, "goal.completed", name, Enum.random(pages), ago_ms, failures)
  if :rand.uniform() < 0.5, do: send_one.(orders, "goal.completed", "Purchase", "/checkout/done", ago_ms - 1_000, if(hour in 7..8 and :rand.uniform() < 0.5, do: [late, late, busy, late], else: []))
end

send_one.(alerts, "traffic.spike", 512, 300, 5 * hour_ms, [])
send_one.(alerts, "traffic.resolved", 180, 300, 4 * hour_ms + 1_200_000, [])
send_one.(alerts, "traffic.drop", 212, 500, 90 * 60_000, [])
send_one.(crm, "goal.completed", "Signup", "/register", 45_000, [])
send_one.(crm, "goal.completed", "Demo requested", "/pricing", 20_000, [])

# They finished when they were sent, not when this script wrote them.
Repo.query!("UPDATE webhook_deliveries SET finished_at_ms = created_at_ms + 240 WHERE finished_at_ms IS NOT NULL")

page = %{instance: Shown, pubsub: Demo.PubSub, actors: %{"owner" => :owner}}
{:ok, _web} = Demo.Web.start_link(http: [ip: {127, 0, 0, 1}, port: port], server: true, page: page)
IO.puts("http://127.0.0.1:#{port}/sites/1/webhooks")
Process.sleep(:infinity)
