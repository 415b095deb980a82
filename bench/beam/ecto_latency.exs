# Times 1 000 events a second on PostgreSQL, from the hook to the first byte at the receiver:
#
#     cd elixir_wrapper/plausible_webhooks_phoenix
#     MIX_ENV=prod mix run --no-start ../../bench/beam/ecto_latency.exs [SECONDS]
#
# Each event is committed in between. The PostgreSQL server runs with fsync and ends with
# this VM. See bench/support/latency.exs.
Code.require_file("../support/ecto.exs", __DIR__)
Code.require_file("../support/latency.exs", __DIR__)

defmodule Bench.Tables do
  use Ecto.Migration
  def up, do: Plausible.Webhooks.Migrations.up(version: 1)
end

seconds = Bench.Server.argument(20)

Bench.Server.run([fsync: "on"], 10, Bench.Tables, fn ->
  Bench.Latency.run({Plausible.Webhooks.Store.Ecto, repo: Bench.Repo}, seconds)
end)
