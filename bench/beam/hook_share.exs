# What share of an ingestion request the hook is: the time that the server takes for a
# request, from its first byte to its answer, as Bandit tells it. Without and with
# webhooks, in the host in miniature (which does less for an event than Plausible, and
# asks PostgreSQL where Plausible has a cache), and beside the least that such a request
# can be: JSON is read, 202 is answered.
#
#     cd elixir_wrapper/plausible_webhooks_phoenix
#     MIX_ENV=test mix run --no-start ../../bench/beam/hook_share.exs
Application.ensure_all_started(:mix)
ExUnit.start(autorun: false)

for app <- [:inets, :ecto_sql, :postgrex, :phoenix, :phoenix_live_view, :bandit, :phoenix_pubsub],
    do: {:ok, _apps} = Application.ensure_all_started(app)

Logger.configure(level: :warning)

alias Plausible.Webhooks.Test.{PlausibleCase, PlausibleHost, Postgres, Repo}

defmodule Bench.Least do
  import Plug.Conn
  def init(opts), do: opts

  def call(conn, _opts) do
    {:ok, body, conn} = read_body(conn)
    {:ok, _event} = Jason.decode(body)
    send_resp(conn, 202, "ok")
  end
end

defmodule Bench.Share do
  @requests 3_000

  def median_us(url, body, requests \\ @requests) do
    table = :ets.new(:times, [:public, :duplicate_bag])

    :telemetry.attach(
      "bench",
      [:bandit, :request, :stop],
      fn _event, %{duration: time}, _metadata, _config -> :ets.insert(table, {:time, time}) end,
      nil
    )

    {:ok, socket} = connect(url)
    for _ <- 1..requests, do: request(socket, body)
    :gen_tcp.close(socket)
    :telemetry.detach("bench")
    times = Enum.sort(for {:time, time} <- :ets.tab2list(table), do: time)
    :ets.delete(table)
    System.convert_time_unit(Enum.at(times, div(length(times), 2)), :native, :nanosecond) / 1_000
  end

  defp connect("http://127.0.0.1:" <> port),
    do:
      :gen_tcp.connect({127, 0, 0, 1}, String.to_integer(port), [
        :binary,
        active: false,
        nodelay: true
      ])

  defp request(socket, body) do
    head =
      "POST /api/event HTTP/1.1\r\nhost: plausible.test\r\nuser-agent: visitor\r\n" <>
        "content-type: text/plain\r\ncontent-length: #{byte_size(body)}\r\n\r\n"

    :ok = :gen_tcp.send(socket, [head, body])
    {:ok, "HTTP/1.1 202" <> _answer} = :gen_tcp.recv(socket, 0, 5_000)
  end
end

cluster = Postgres.start!()
:persistent_term.put(Postgres, cluster)
{:ok, repo} = Repo.start_link(Postgres.connect(cluster) ++ [pool_size: 2, log: false])
supervisor = PlausibleHost.start!()

{:ok, least} =
  Bandit.start_link(plug: Bench.Least, ip: {127, 0, 0, 1}, port: 0, startup_log: false)

{:ok, {_ip, port}} = ThousandIsland.listener_info(least)

owner = PlausibleCase.user!()
without = PlausibleCase.site!(PlausibleCase.team!(owner))
site = PlausibleCase.site!(PlausibleCase.team!(owner))
PlausibleCase.goal!(site, %{"event_name" => "Signup"})

{:ok, _webhook} =
  Plausible.Webhooks.create_webhook(owner, site.id, %{
    url: "http://127.0.0.1:1024/",
    events: ["goal.completed"]
  })

body = fn site, name ->
  Jason.encode!(%{
    n: name,
    d: site.domain,
    u: "https://#{site.domain}/register",
    p: %{plan: "growth"}
  })
end

# Three rounds in turn; what the first one warms up is not counted.
rows = [
  {"the least: JSON is read, 202 is answered", "http://127.0.0.1:#{port}", body.(site, "Signup")},
  {"host in miniature, a site without webhooks", PlausibleHost.url(), body.(without, "Signup")},
  {"host in miniature, no goal completed", PlausibleHost.url(), body.(site, "Other")},
  {"host in miniature, a goal completed and delivered", PlausibleHost.url(),
   body.(site, "Signup")}
]

results =
  for round <- 0..3,
      {label, url, body} <- rows,
      do: {round, label, Bench.Share.median_us(url, body)}

IO.puts(String.pad_trailing("us per request in the server, median", 58) <> "  rounds")

for {label, _url, _body} <- rows do
  medians = for {round, ^label, us} <- results, round > 0, do: us
  [_, median, _] = Enum.sort(medians)
  IO.puts(String.pad_trailing(label, 58) <> String.pad_leading("#{round(median)}", 8))
end

Supervisor.stop(least)
Process.unlink(supervisor)
Supervisor.stop(supervisor)
Supervisor.stop(repo)
Postgres.remove(cluster)
