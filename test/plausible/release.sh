# shellcheck shell=bash disable=SC2154
# For test/plausible/run: a release of the Community Edition in embedded mode and without
# SQLite, as the image of docs/plausible.md has it. It runs as one node and as several.

release=$work/release
# build_release <folder>
build_release() {
  # The pages of a release name the scripts and styles by their digests.
  in_tree env MIX_ENV=ce mix "do" phx.digest + release --overwrite --path "$1"
  # A build without SQLite's headers, as in Plausible's image, has no such library.
  rm -f "$1"/lib/plausible_webhooks-*/priv/plausible_webhooks_sqlite.so
}

# --- One node

# release_environment <node>: the variables that a container would get.
release_environment() {
  echo "RELEASE_NODE=$1@127.0.0.1" RELEASE_DISTRIBUTION=name "RELEASE_COOKIE=webhooks-test" \
    "ERL_EPMD_ADDRESS=127.0.0.1" "RELEASE_TMP=$work/$1.tmp" \
    "SECRET_KEY_BASE=a-secret-of-the-suite-which-is-more-than-64-bytes-long-as-phoenix-wants" \
    "BASE_URL=http://127.0.0.1:$(cat "$work/$1.port")" "HTTP_PORT=$(cat "$work/$1.port")" \
    LISTEN_IP=127.0.0.1 DISABLE_REGISTRATION=false LOG_LEVEL=warning MAILER_ADAPTER=Bamboo.LocalAdapter \
    "DATABASE_URL=$(database_url plausible_release)" \
    "CLICKHOUSE_DATABASE_URL=$(clickhouse_url plausible_release)" \
    "IP_GEOLOCATION_DB=$tree/test/priv/GeoLite2-City-Test.mmdb" \
    WEBHOOKS_ALLOW="127.0.0.0/8:*" WEBHOOKS_ALLOW_HTTP=true WEBHOOKS_RETRY_DELAYS=2,2,60
}
# on <node> [NAME=VALUE...] <command of bin/plausible> <argument...>
on() {
  local node=$1 more=()
  shift
  while [[ $1 == [A-Z]*=* ]]; do more+=("$1") && shift; done
  # shellcheck disable=SC2046
  env -u MIX_ENV $(release_environment "$node") "${more[@]}" "${release_of[$node]:-$release}/bin/plausible" "$@"
}
declare -A release_of=()

# start_node <node> [NAME=VALUE...]: returns when it serves.
start_node() {
  local node=$1 _
  [ -s "$work/$node.port" ] || free_port >"$work/$node.port"
  shift
  mkdir -p "$work/$node.tmp"
  # Not through a function, which would be the process that a signal reaches.
  # shellcheck disable=SC2046
  env -u MIX_ENV $(release_environment "$node") "$@" "${release_of[$node]:-$release}/bin/plausible" start \
    >"$work/$node.log" 2>&1 </dev/null &
  echo $! >"$work/$node.pid"
  for _ in $(seq 300); do
    if curl -fso /dev/null "http://127.0.0.1:$(cat "$work/$node.port")/api/system/health/live" 2>/dev/null ||
      curl -fso /dev/null "http://127.0.0.1:$(cat "$work/$node.port")/api/health" 2>/dev/null; then return; fi
    kill -0 "$(cat "$work/$node.pid")" 2>/dev/null || break
    sleep 1
  done
  tail -n 60 "$work/$node.log"
  return 1
}
stop_node() { stop_server "$work/$1.pid" "${2:--TERM}"; }

# --- What happens in them

receiver_url() { echo "http://127.0.0.1:$(cat "$work/receiver.port")"; }
start_receiver() {
  local _
  "$root/test/peers/run" verify </dev/null >/dev/null 2>&1 || [ $? -eq 1 ] || fail "npm package standardwebhooks is missing"
  cp "$here/receiver.mjs" "$build/peers/"
  : >"$work/received"
  node "$build/peers/receiver.mjs" "$work/receiver.port" "$work/received" >"$work/receiver.log" 2>&1 &
  echo $! >"$work/receiver.pid"
  for _ in $(seq 100); do [ -s "$work/receiver.port" ] && return; sleep 0.1; done
  cat "$work/receiver.log"
  return 1
}
answer() { curl -fsS -X PUT "$(receiver_url)$1" -d "$2"; }

# webhook <node> <path> <attributes>: a webhook of the site, whose secret the receiver knows.
webhook() {
  local secret
  secret=$(on "$1" rpc "
    owner = Plausible.Repo.get_by!(Plausible.Auth.User, email: \"owner@example.com\")
    site = Plausible.Sites.get_by_domain!(\"release.example.com\")
    {:ok, webhook} = Plausible.Webhooks.create_webhook(owner, site.id, Map.merge(%{url: \"$(receiver_url)$2\"}, $3))
    {:ok, [%{key: key}]} = Plausible.Webhooks.reveal_secret(owner, site.id, webhook.id)
    IO.puts(key)" | tail -n 1)
  answer "$2" "{\"secret\": \"$secret\"}"
}
# event <node> <name> [visitor]
event() {
  local status
  status=$(curl -sS -o /dev/null -w '%{http_code}' -H 'content-type: text/plain' \
    -A 'Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0' \
    -H "x-forwarded-for: 82.34.0.${3:-1}" "http://127.0.0.1:$(cat "$work/$1.port")/api/event" \
    -d "{\"n\":\"$2\",\"d\":\"release.example.com\",\"u\":\"https://release.example.com/\"}")
  [ "$status" = 202 ] || fail "POST /api/event on $1 answered $status"
}
# arrived <path> <type> <count> <seconds>: waits until so many different deliveries have
# arrived, and fails if one is not verified.
arrived() {
  local found=0 _
  for _ in $(seq $(($4 * 5))); do
    found=$(node -e '
      const lines = require("fs").readFileSync(process.argv[1], "utf8").split("\n").filter(Boolean).map(JSON.parse);
      const mine = lines.filter((l) => l.path === process.argv[2] && l.body.type === process.argv[3]);
      if (mine.some((l) => !l.verified)) { console.log("unverified"); process.exit(); }
      console.log(new Set(mine.filter((l) => l.status === 200).map((l) => l.id)).size);' "$work/received" "$1" "$2")
    [ "$found" != "$3" ] || return 0
    sleep 0.2
  done
  tail -n 5 "$work/received" >&2
  fail "$found of $3 $2 arrived at $1"
}

setup='
  user = Plausible.Auth.User.new(%{"name" => "Owner", "email" => "owner@example.com",
    "password" => "a long password", "password_confirmation" => "a long password"})
  user = Plausible.Repo.insert!(Ecto.Changeset.put_change(user, :email_verified, true))
  {:ok, %{site: site}} = Plausible.Sites.create(user, %{"domain" => "release.example.com", "timezone" => "Etc/UTC"})
  {:ok, _goal} = Plausible.Goals.create(site, %{"event_name" => "Signup"})
  :ok = Plausible.Site.Cache.refresh_all()'

# The settings page: a stranger is sent to the login; an owner who has logged in there gets
# the page.
test_page() {
  local base page jar=$work/cookies html=$work/page.html status
  base=http://127.0.0.1:$(cat "$work/$1.port")
  page=$base/release.example.com/settings/webhooks
  answered() { status=$(curl -sS -o "$html" -b "$jar" -c "$jar" -w '%{http_code}' "$@"); }
  rm -f "$jar"
  answered "$page"
  [ "$status" = 302 ] || fail "the page answered $status to a stranger, not a redirect to the login"
  answered "$base/login"
  local token
  token=$(grep -oE 'name="_csrf_token"[^>]*value="[^"]+"' "$html" | head -n 1 | sed -E 's/.*value="([^"]+)"/\1/')
  [ -n "$token" ] || fail "the login form has no token"
  answered "$base/login" --data-urlencode "_csrf_token=$token" -d 'email=owner@example.com' \
    --data-urlencode 'password=a long password'
  [ "$status" = 302 ] || fail "the login answered $status"
  answered "$page"
  if [ "$status" != 200 ] || ! grep -q 'id="webhook-settings"' "$html" || ! grep -q "Every goal" "$html"; then
    fail "the page answered $status to its owner, see $html"
  fi
  note "page of the release: a redirect for a stranger, the site's webhooks for its owner, 2 passed"

  # In a browser too, with the scripts and styles that the release serves.
  if [ ! -f "$tree/priv/static/js/app.js" ] || [ ! -f "$tree/priv/static/css/app.css" ]; then return; fi
  answer /ok '{}'
  answer /missing '{"status": 404}'
  status=0
  "$root/test/browser/run" plausible.mjs "$page" owner@example.com 'a long password' "$(receiver_url)" || status=$?
  case $status in
    0) note "page of the release in Chromium: US3.1 to US4.2, light, dark, 390 px, 1 passed" ;;
    77) note "the page of the release was not opened in a browser" ;;
    *) fail "the page of the release fails in Chromium" ;;
  esac
}

test_release() {
  start_receiver
  free_port >"$work/a.port"
  on a eval "Plausible.Release.createdb()" >"$work/migrate.log" 2>&1 && on a eval "Plausible.Release.interweave_migrate()" >>"$work/migrate.log" 2>&1 ||
    { tail -n 40 "$work/migrate.log" >&2 && fail "the release does not migrate"; }
  start_node a
  on a rpc "$setup" >"$work/setup.log" 2>&1 || { cat "$work/setup.log" >&2 && fail "no site could be created"; }
  webhook a /goals '%{name: "Every goal", events: ["goal.completed"]}'
  webhook a /traffic '%{events: ["traffic.spike"], spike_threshold: 5}'
  local visitor
  for visitor in $(seq 10); do event a Signup "$visitor"; done
  arrived /goals goal.completed 10 30
  # Traffic is evaluated each minute.
  arrived /traffic traffic.spike 1 90
  note "release (CE, embedded mode): 10 goals and a spike delivered, 11 passed"

  test_page a
  stop_node a

  start_node a WEBHOOKS_ENABLED=false
  event a Signup
  on a rpc 'nil = Application.get_env(:plausible, Plausible.Webhooks); :ok = Plausible.Webhooks.goals_changed(1)' ||
    fail "the hooks fail where webhooks are off"
  stop_node a
  note "release with WEBHOOKS_ENABLED=false: starts and accepts events, 1 passed"
}

# --- Several nodes

connect() { on "$1" rpc "true = Node.connect(:\"$2@127.0.0.1\")"; }

test_nodes() {
  local n
  for node in a b c; do start_node "$node"; done
  connect a b && connect a c && connect b c
  # A change on one node applies to the next event on the others.
  webhook a /cluster '%{events: ["goal.completed"]}'
  event b Signup
  event c Signup 2
  arrived /cluster goal.completed 2 30

  # When a node is killed, another one delivers what was in its engine.
  answer /cluster '{"status": 503}'
  for n in 3 4 5 6 7; do event c Signup "$n"; done
  sleep_until_tried /cluster 5
  stop_node c -KILL
  answer /cluster '{"status": 200}'
  arrived /cluster goal.completed 7 180
  note "three nodes: a change on one node, events on the others, one node killed, 7 delivered, 7 passed"
  stop_node b
}
# Waits until so many deliveries have been tried without success.
sleep_until_tried() {
  local _
  for _ in $(seq 150); do
    [ "$(grep -c "\"path\":\"$1\".*\"status\":503" "$work/received")" -lt "$2" ] || return 0
    sleep 0.2
  done
  fail "the deliveries to $1 were not tried"
}

# --- A rolling deploy from this version to the next

# The next version is a copy with one more version of the tables.
next_version() {
  local copy=$work/next
  mkdir "$copy"
  (cd "$root" && git ls-files -z | xargs -0 cp --parents -t "$copy" 2>/dev/null) || true
  local migrations=$copy/elixir_wrapper/plausible_webhooks_phoenix/lib/plausible/webhooks/migrations
  sed -i -E 's/@versions %\{1 => V01\}/@versions %{1 => V01, 2 => __MODULE__.V02}/' "$migrations.ex"
  grep -q 'V02' "$migrations.ex" || fail "migrations.ex has changed: release.sh adds no version to it"
  cat >"$migrations/v02.ex" <<'V02'
defmodule Plausible.Webhooks.Migrations.V02 do
  @moduledoc false
  use Ecto.Migration

  def compatible_from, do: 1
  def up(options), do: execute("ALTER TABLE #{options.prefix}.webhooks ADD COLUMN next_version text")
  def down(options), do: execute("ALTER TABLE #{options.prefix}.webhooks DROP COLUMN next_version")
end
V02
  sed -i "s#$phoenix\"#$copy/elixir_wrapper/plausible_webhooks_phoenix\"#" "$tree/mix.exs"
  in_tree env MIX_ENV=ce mix deps.get
  # The path has changed too, and the installer leaves the Tailwind source to its user: 1.
  in_tree env MIX_ENV=ce mix plausible_webhooks.install --yes || [ $? -eq 1 ]
  compgen -G "$tree/priv/repo/migrations/*_upgrade_plausible_webhooks_to_v2.exs" ||
    fail "the installer writes no migration to the next version"
  build_release "$work/release-next"
}
test_rolling_deploy() {
  # Node a runs this version. The new one migrates first, then replaces node b.
  release_of[next]=$work/release-next
  [ -s "$work/next.port" ] || free_port >"$work/next.port"
  on next eval "Plausible.Release.interweave_migrate()" >"$work/migrate-next.log" 2>&1 ||
    { tail -n 40 "$work/migrate-next.log" >&2 && fail "the next version does not migrate"; }
  [ "$(sql plausible_release "SELECT count(*) FROM information_schema.columns WHERE table_name = 'webhooks' AND column_name = 'next_version'")" = 1 ] ||
    fail "the next version's migration did not run"
  event a Signup 8
  arrived /cluster goal.completed 8 30
  start_node next
  connect a next
  event next Signup 9
  event a Signup 10
  arrived /cluster goal.completed 10 30
  stop_node a
  event next Signup 11
  arrived /cluster goal.completed 11 30
  stop_node next
  note "rolling deploy to the next version with a migration: 4 delivered, 4 passed"
}
