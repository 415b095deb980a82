# Run by native_exit_test in a VM of its own: the whole application, from events to
# the log on SQLite, under load with TLS; then the VM is ended the given way.
alias Plausible.Webhooks

[how, port, ca_file, after_ms] = System.argv()

# A target that never answers must not leave this VM behind.
:timer.apply_after(120_000, :erlang, :halt, [3, [flush: false]])
Logger.configure(level: :error)
# In the test's folder, which the test deletes.
dir = Path.expand("application-#{System.pid()}")
File.mkdir_p!(dir)

defmodule Exiting do
  # An application, so that init:stop/1 ends it in order, as it would end a host's.
  use Application

  @impl true
  def start(_type, [dir, ca_file]) do
    Supervisor.start_link(
      [
        {Demo.Host,
         sites: [%{id: 1, domain: "example.com", goals: [%{id: 1, event_name: "Signup"}]}]},
        {Webhooks,
         store: {Plausible.Webhooks.Store.SQLite, path: Path.join(dir, "webhooks.db")},
         host: {Demo.Host, Demo.Host},
         vault: {:file, Path.join(dir, "webhooks.key")},
         policy: %{https_only: true, allow: ["127.0.0.0/8:*"]},
         ca_file: ca_file,
         lane_in_flight_max: 16,
         lane_rate_per_s: 100_000,
         destination_rate_per_s: 100_000,
         traffic: false}
      ],
      strategy: :one_for_one
    )
  end
end

{:ok, _} = Application.ensure_all_started(:crypto)

:ok =
  :application.load(
    {:application, :exiting, [vsn: ~c"1", modules: [], mod: {Exiting, [dir, ca_file]}]}
  )

:ok = Application.start(:exiting)

for n <- 1..4 do
  {:ok, _webhook} =
    Webhooks.create_webhook(:system, 1, %{
      url: "https://127.0.0.1:#{port}/#{n}",
      events: ["goal.completed"]
    })
end

event = %{
  clickhouse_event: %{
    site_id: 1,
    name: "Signup",
    hostname: "example.com",
    pathname: "/register",
    timestamp: NaiveDateTime.utc_now()
  }
}

load = fn load ->
  Webhooks.events_buffered(List.duplicate(event, 8))
  Process.sleep(1)
  load.(load)
end

for _ <- 1..2, do: spawn(fn -> load.(load) end)

# Only once deliveries really come through: otherwise the test shows nothing.
delivered = fn delivered ->
  {:ok, page} = Webhooks.deliveries(:system, 1, %{states: [:delivered]}, %{limit: 1})
  if page.entries == [], do: delivered.(delivered)
end

delivered.(delivered)
Process.sleep(String.to_integer(after_ms))

case how do
  "halt" -> System.halt(0)
  "halt_noflush" -> :erlang.halt(0, flush: false)
  "init_stop" -> :init.stop(0)
end

Process.sleep(:infinity)
