# shellcheck shell=bash disable=SC2154
# For test/plausible/run: Plausible's own commands, before the patch and after it, each with
# the same exit status.
#
# They run in the environment dev, as an engineer runs them, if the tree has been compiled
# there (_build/dev), and otherwise in test, where mix phx.server serves nothing. What the
# tree lacks (a download, a program) fails both times.

commands=(
  "deps.get" "compile" "ecto.create" "ecto.migrate" "ecto.rollback -r Plausible.Repo --step 1"
  "ecto.migrate" "run -e :ok" "test test/plausible/goals_test.exs" "format --check-formatted"
  "credo" "phx.routes"
)
commands_environment="test"
if [ -d "$source/_build/dev" ]; then
  commands_environment=dev
  commands+=("phx.server")
fi
[ -z "${WEBHOOKS_SLOW_COMMANDS:-}" ] || commands+=("dialyzer" "setup")

# host_commands <file>: writes the exit status of each command.
host_commands() {
  local command status
  use_databases "commands"
  for command in "${commands[@]}"; do
    status=0
    # Before each command, nothing of this package is compiled, as after a clone. C++ is
    # compiled from nothing by a command that compiles, and by one that only loads its
    # dependencies: the others take the same two ways.
    rm -rf "$tree"/_build/{dev,test}/lib/plausible_webhooks*
    case $command in
      compile | ecto.create) rm -rf "$tree"/_build/plausible_webhooks_native ;;
      # The seeds want empty databases.
      setup) use_databases "$(basename "$1" | tr . _)" ;;
    esac
    run_command "$command" >"$work/command.log" 2>&1 </dev/null || status=$?
    printf '%s %s\n' "$status" "$command" >>"$1"
    { printf '== %s %s\n' "$status" "$command" && tail -n 30 "$work/command.log"; } >>"$1.log"
  done
}
run_command() {
  local environment=(MIX_ENV=test)
  # Without MIX_ENV, so that mix test chooses its own. A checkout has no database of places but
  # the one of Plausible's tests.
  [ "$commands_environment" = test ] ||
    environment=(-u MIX_ENV "HTTP_PORT=$(free_port)" LOG_LEVEL=warning
      "IP_GEOLOCATION_DB=$tree/test/priv/GeoLite2-City-Test.mmdb")
  if [ "$1" = phx.server ]; then
    serve "${environment[@]}"
  else
    # shellcheck disable=SC2086
    in_tree env "${environment[@]}" mix $1
  fi
}
# serve <variables of env...>: 0 if mix phx.server answers a request. Its watchers are in
# its process group, which ends with it.
serve() {
  local port pid status=1 _
  port=$(free_port)
  (cd "$tree" && exec setsid env "$@" "HTTP_PORT=$port" mix phx.server) &
  pid=$!
  for _ in $(seq 1500); do
    if curl -fso /dev/null "http://127.0.0.1:$port/api/health" 2>/dev/null; then status=0 && break; fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.2
  done
  kill -TERM -- "-$pid" 2>/dev/null || true
  wait "$pid" || true
  kill -KILL -- "-$pid" 2>/dev/null || true
  return "$status"
}
compare_commands() {
  if ! cmp -s "$work/commands.before" "$work/commands.after"; then
    diff "$work/commands.before" "$work/commands.after" || true
    cat "$work/commands.after.log" >&2
    fail "with the dependency, some of Plausible's commands exit with another status"
  fi
  note "${#commands[@]} commands of Plausible ($commands_environment) exit with the same status with and without the dependency: $(awk '{print $1}' "$work/commands.after" | sort | uniq -c | awk '{printf "%s times %s; ", $1, $2}')"
}
