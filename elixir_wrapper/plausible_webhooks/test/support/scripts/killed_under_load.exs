# Run by kill_test in a VM of its own, which is killed at a random moment.
# Writes a line for every delivery whose acceptance it was told:
#   A <webhook-id> <number>
# In mode "drain" it makes no load, waits until nothing is left to do, writes the
# log (L <webhook-id> <state>) and ends by itself.
alias Plausible.Webhooks
alias Plausible.Webhooks.{Delivery, Id}
alias Plausible.Webhooks.Accept.Outbox

[mode, dir, url, first] = System.argv()

# Whatever happens to the parent, this VM does not stay.
:timer.apply_after(120_000, :erlang, :halt, [3, [flush: false]])
Logger.configure(level: :error)

{:ok, _} =
  Supervisor.start_link(
    [
      {Demo.Host,
       sites: [%{id: 1, domain: "example.com", goals: [%{id: 1, event_name: "Signup"}]}]},
      {Webhooks,
       store: {Plausible.Webhooks.Store.SQLite, path: Path.join(dir, "webhooks.db")},
       host: {Demo.Host, Demo.Host},
       vault: {:file, Path.join(dir, "webhooks.key")},
       policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
       retry_delays_ms: List.duplicate(300, 10),
       park_after_ms: 250,
       sweep_interval_ms: 100,
       lane_rate_per_s: 100_000,
       destination_rate_per_s: 100_000,
       traffic: false}
    ],
    strategy: :one_for_one
  )

{:ok, webhooks} = Webhooks.list_webhooks(:system, 1)

if webhooks == [] do
  secret = File.read!(Path.join(dir, "secret"))
  attributes = %{url: url, events: ["goal.completed"], secret: secret}
  {:ok, _webhook} = Webhooks.create_webhook(:system, 1, attributes)
end

{:ok, [webhook]} = Webhooks.list_webhooks(:system, 1)

# A committed delivery is in the log even if its caller was not told.
event = fn number ->
  %{
    clickhouse_event: %{
      site_id: 1,
      name: "Signup",
      hostname: "example.com",
      pathname: "/register",
      timestamp: NaiveDateTime.utc_now(),
      "meta.key": ["n"],
      "meta.value": ["#{number}"]
    }
  }
end

load = fn load, number ->
  now_ms = System.system_time(:millisecond)

  delivery = %Delivery{
    id: Id.delivery(now_ms),
    webhook_id: webhook.id,
    site_id: 1,
    type: "goal.completed",
    goal_id: 1,
    body: ~s({"n":"direct-#{number}"}),
    created_at_ms: now_ms
  }

  Webhooks.events_buffered([event.(number)])
  if Outbox.accept(Webhooks, [delivery]) == :ok, do: IO.puts("A #{delivery.id} #{number}")
  load.(load, number + 1)
end

log = fn log, cursor ->
  {:ok, page} = Webhooks.deliveries(:system, 1, %{}, %{after: cursor, limit: 200})
  for delivery <- page.entries, do: IO.puts("L #{delivery.id} #{delivery.state}")
  if page.next, do: log.(log, page.next)
end

drain = fn drain ->
  {:ok, waiting} = Webhooks.deliveries(:system, 1, %{states: [:pending, :parked]}, %{limit: 1})
  if waiting.entries != [], do: Process.sleep(50) && drain.(drain)
end

case mode do
  "load" ->
    IO.puts("READY")
    load.(load, String.to_integer(first))

  "drain" ->
    drain.(drain)
    log.(log, nil)
    IO.puts("DONE")
    System.halt(0)
end
