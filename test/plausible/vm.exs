# Runs ExUnit cases inside a Plausible that serves requests:
#
#   mix run --no-start vm.exs FILE...
#
# It runs in the environment test or ce_test of a checkout with webhooks, because only those
# have Plausible's factories. It switches on what those environments switch off: the
# endpoint's server, real database connections, webhooks.
#
#   WEBHOOKS_ROOT     this repository
#   WEBHOOKS_RESULT   the file for the number of passed and failed tests

for app <- [:ex_unit, :inets, :ssl, :public_key], do: Mix.ensure_application!(app)

merge = fn key, options ->
  Application.put_env(:plausible, key, Keyword.merge(Application.get_env(:plausible, key, []), options))
end

{:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
{:ok, port} = :inet.port(socket)
:gen_tcp.close(socket)

merge.(Plausible.Repo, pool: DBConnection.ConnectionPool, pool_size: 10)
endpoint = Application.get_env(:plausible, PlausibleWeb.Endpoint)
http = Keyword.merge(endpoint[:http] || [], ip: {127, 0, 0, 1}, port: port)
merge.(PlausibleWeb.Endpoint, server: true, http: http, url: [scheme: "http", host: "localhost", port: port])
# A super administrator that the cases can name.
Application.put_env(:plausible, :super_admin_user_ids, [1_000_000])
Logger.configure(level: :warning)

root = System.fetch_env!("WEBHOOKS_ROOT")
support = "#{root}/elixir_wrapper/plausible_webhooks/test/support"

for file <- ~w(http_receiver json_schema peer as_user eventually shared_tests scenarios
                scenarios/host scenarios/world
                scenarios/case scenarios/user_stories scenarios/edge_cases scenarios/requirements
                scenarios/success_criteria),
    do: Code.require_file("#{support}/#{file}.ex")

variables = %{"WEBHOOKS_ALLOW" => "127.0.0.0/8:*", "WEBHOOKS_ALLOW_HTTP" => "true"}

config =
  Plausible.Webhooks.Host.Plausible.Config.from_env(
    fn name -> System.get_env(name) || variables[name] end,
    secret_key_base: endpoint[:secret_key_base],
    enabled: true
  )

config = Keyword.merge(config, Plausible.Webhooks.Scenarios.options())
Application.put_env(:plausible, Plausible.Webhooks, config)
for app <- [:ex_machina, :mox], do: {:ok, _apps} = Application.ensure_all_started(app)
Mox.defmock(Plausible.HTTPClient.Mock, for: Plausible.HTTPClient.Interface)

# Plausible of 2025 has none.
if Code.ensure_loaded?(Plausible.DnsLookupInterface),
  do: Mox.defmock(Plausible.DnsLookup.Mock, for: Plausible.DnsLookupInterface)

# Plausible must not ask a public address for icons.
Mox.set_mox_global()
unreachable = {:error, %Mint.TransportError{reason: :econnrefused}}
Mox.stub(Plausible.HTTPClient.Mock, :get, fn _url -> unreachable end)
Mox.stub(Plausible.HTTPClient.Mock, :get, fn _url, _headers -> unreachable end)
{:ok, _apps} = Application.ensure_all_started(:plausible)
{:ok, _apps} = Application.ensure_all_started(:inets)

ExUnit.start(autorun: false, formatters: [ExUnit.CLIFormatter], timeout: 120_000, max_cases: 1)
Code.require_file("#{root}/test/plausible/plausible_host.exs")
for file <- System.argv(), do: Code.require_file(file)

edition = if Plausible.Webhooks.Test.PlausibleHost.enterprise?(), do: "EE", else: "CE"
IO.puts("Plausible #{edition} serves on port #{port}")
%{total: total, failures: failures, skipped: skipped, excluded: excluded} = ExUnit.run()
passed = total - failures - skipped - excluded
File.write!(System.fetch_env!("WEBHOOKS_RESULT"), "#{edition}: #{passed} passed, #{failures} failed\n")
System.halt(if failures == 0 and passed > 0, do: 0, else: 1)
