# Times 1 000 events a second on SQLite, from the hook to the first byte at the receiver:
#
#     cd elixir_wrapper/plausible_webhooks
#     MIX_ENV=prod mix run --no-start ../../bench/beam/latency.exs [SECONDS]
#
# Each event is committed in between. See bench/support/latency.exs.
Code.require_file("../support/latency.exs", __DIR__)

seconds = System.argv() |> List.first("20") |> String.to_integer()
folder = Path.join(System.tmp_dir!(), "webhooks-latency-#{System.pid()}")
File.mkdir_p!(folder)

try do
  Bench.Latency.run({Plausible.Webhooks.Store.SQLite, path: "#{folder}/webhooks.db"}, seconds)
after
  File.rm_rf!(folder)
end
