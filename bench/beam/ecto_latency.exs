# From the hook to the first byte at the receiver at 1 000 events a second, on a
# PostgreSQL of its own, with fsync, that ends with this VM:
#
#     cd elixir_wrapper/plausible_webhooks_phoenix
#     MIX_ENV=prod mix run --no-start ../../bench/beam/ecto_latency.exs [SECONDS]
#
# The events are accepted durably in between. See bench/support/latency.exs.
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
