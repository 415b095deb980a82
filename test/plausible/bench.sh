# shellcheck shell=bash disable=SC2154
# For test/plausible/run: what webhooks cost POST /api/event, in releases of the Community
# Edition on the same databases.
#   WEBHOOKS_BENCH_ROUNDS, WEBHOOKS_BENCH_COUNT   default 15 rounds of 1500 requests per kind
# Four nodes get the same event in turns, each for sites of its kind: a node without the
# package; one with it, for sites without webhooks; for sites with webhooks and goals that
# the event does not complete; for sites with a goal that it completes. A node for each kind,
# because the sessions that Plausible keeps in memory would be three times as many in one
# for three. 40 sites of each kind, so that no webhook reaches its limit of 50 deliveries a
# second.

bench_kinds=(without none other every)
bench_sites=40
# The schedulers must not spin while they wait, since that would count as CPU time.
bench_flags="+sbwt none +sbwtdcpu none +sbwtdio none"

start_bench_receiver() {
  local _
  node "$here/bench.mjs" receive "$work/bench.ports" 8 >"$work/bench-receiver.log" 2>&1 &
  echo $! >"$work/bench-receiver.pid"
  for _ in $(seq 100); do [ -s "$work/bench.ports" ] && return; sleep 0.1; done
  cat "$work/bench-receiver.log"
  return 1
}
start_bench_node() {
  release_of[$1]=$2
  # A turn pays for writing its own events to ClickHouse.
  start_node "$1" "ERL_FLAGS=$bench_flags" CLICKHOUSE_FLUSH_INTERVAL_MS=500 || fail "the node $1 does not start"
}
vm_pid() { on "$1" pid | tail -n 1; }

bench_setup() {
  echo "
  user = Plausible.Auth.User.new(%{\"name\" => \"Owner\", \"email\" => \"bench@example.com\",
    \"password\" => \"a long password\", \"password_confirmation\" => \"a long password\"})
  user = Plausible.Repo.insert!(Ecto.Changeset.put_change(user, :email_verified, true))
  ports = ~w($(cat "$work/bench.ports"))
  for {kind, names} <- [{\"none\", [\"Purchase\"]}, {\"other\", [\"Purchase\", \"Download\", \"Login\"]}, {\"every\", [\"Signup\"]}],
      n <- 0..$((bench_sites - 1)) do
    {:ok, %{site: site}} = Plausible.Sites.create(user, %{\"domain\" => \"#{kind}#{n}.example.com\", \"timezone\" => \"Etc/UTC\"})
    for name <- names, do: {:ok, _goal} = Plausible.Goals.create(site, %{\"event_name\" => name})
    url = \"http://127.0.0.1:#{Enum.at(ports, rem(n, length(ports)))}/#{kind}#{n}\"
    if kind != \"none\", do: {:ok, _webhook} = Plausible.Webhooks.create_webhook(user, site.id, %{url: url, events: [\"goal.completed\"]})
  end
  :ok"
}

# in_request <number of the kind>: the median time of the hook in real requests, and that of
# a request from Plausible's first plug to its answer. Medians, since another program may
# interrupt some of them. Tracing a call takes less than a microsecond of what it measures.
in_request() {
  local node=bench-${bench_kinds[$1]}
  on "$node" rpc '
    parent = self()

    spawn(fn ->
      Process.register(self(), :webhooks_bench)
      me = self()
      :telemetry.attach(:webhooks_bench, [:phoenix, :endpoint, :stop], fn _name, %{duration: time}, _meta, _config -> send(me, {:request, time}) end, nil)
      :erlang.trace_pattern({Plausible.Webhooks, :events_buffered, 1}, [{:_, [], [{:return_trace}]}], [])
      :erlang.trace(:all, true, [:call, :arity, :monotonic_timestamp])
      send(parent, :tracing)

      loop = fn loop, calls, hooks, requests ->
        receive do
          {:trace_ts, pid, :call, _function, at} -> loop.(loop, Map.put(calls, pid, at), hooks, requests)
          {:trace_ts, pid, :return_from, _function, _result, at} -> loop.(loop, calls, [at - Map.fetch!(calls, pid) | hooks], requests)
          {:request, time} -> loop.(loop, calls, hooks, [time | requests])
          {:result, to} -> send(to, {:result, hooks, requests})
        end
      end

      loop.(loop, %{}, [], [])
      :telemetry.detach(:webhooks_bench)
    end)

    receive do: (:tracing -> :ok)' >/dev/null
  node "$here/bench.mjs" load "$work/bench.json" "$1"
  on "$node" rpc '
    send(:webhooks_bench, {:result, self()})
    {hooks, requests} = receive do: ({:result, hooks, requests} -> {hooks, requests})
    median = fn times -> times |> Enum.sort() |> Enum.at(div(length(times), 2)) |> System.convert_time_unit(:native, :nanosecond) end
    {hook, request} = {median.(hooks) / 1_000, median.(requests) / 1_000}
    IO.puts("#{length(hooks)} calls of the hook, median #{Float.round(hook, 1)} us; #{length(requests)} requests, median #{Float.round(request, 1)} us; #{Float.round(100 * hook / request, 1)} %")' | tail -n 1
}

bench_config() {
  local names=("without the package" "no webhooks" "no goal completed" "every event completes a goal")
  local n kind site kinds=
  for n in 0 1 2 3; do
    kind=${bench_kinds[$n]} site=${bench_kinds[$n]}
    [ "$n" -gt 0 ] || site=none
    kinds+="${kinds:+, }{\"name\": \"${names[$n]}\", \"site\": \"$site\", \"deliveries\": $([ "$n" = 3 ] && echo true || echo false),
      \"port\": $(cat "$work/bench-$kind.port"), \"pid\": $(vm_pid "bench-$kind")}"
  done
  cat <<JSON
{"count": ${WEBHOOKS_BENCH_COUNT:-1500}, "rounds": ${WEBHOOKS_BENCH_ROUNDS:-15}, "warm_up": 2000, "concurrency": 8, "sites": $bench_sites,
 "receiver_port": $(cut -d' ' -f1 "$work/bench.ports"),
 "pids": {"postgres": $(cat "$work/postgres.pid"), "clickhouse": $(cat "$work/clickhouse.pid"), "receiver": $(cat "$work/bench-receiver.pid")},
 "kinds": [$kinds]}
JSON
}

bench() {
  local kind node
  start_bench_receiver || fail "the receivers do not start"
  release_of[bench-none]=$release
  free_port >"$work/bench-none.port"
  on bench-none eval "Plausible.Release.createdb(); Plausible.Release.interweave_migrate()" >"$work/bench.log" 2>&1 ||
    { tail -n 40 "$work/bench.log" >&2 && fail "the release does not migrate"; }
  start_bench_node bench-none "$release"
  on bench-none rpc "$(bench_setup)" >"$work/bench-setup.log" 2>&1 || { cat "$work/bench-setup.log" >&2 && fail "no sites could be created"; }
  start_bench_node bench-other "$release"
  start_bench_node bench-every "$release"
  start_bench_node bench-without "$work/release-without"
  for kind in "${bench_kinds[@]}"; do on "bench-$kind" rpc ":ok = Plausible.Site.Cache.refresh_all()" >/dev/null; done
  bench_config >"$work/bench.json"
  node "$here/bench.mjs" measure "$work/bench.json" | tee -a "$summary" || fail "the measurement failed"
  for kind in 1 2 3; do note "in a request of the kind \"${bench_kinds[$kind]}\": $(in_request "$kind")"; done
  for node in without every other none; do stop_node "bench-$node"; done
}
