# shellcheck shell=bash disable=SC2154
# PostgreSQL and ClickHouse for test/plausible/run. They listen on loopback and keep their
# data in $work. The cleanup of test/plausible/run stops them.

free_port() {
  node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); });'
}

# PostgreSQL refuses to run as root.
as_postgres=()
[ "$(id -u)" -ne 0 ] || as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups)

start_postgres() {
  local bin=${WEBHOOKS_POSTGRES_BIN:-} data=$work/postgres _
  [ -n "$bin" ] || bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
  [ -n "$bin" ] || bin=$(dirname "$(command -v initdb)")
  [ -x "$bin/initdb" ] || fail "PostgreSQL's initdb is not installed"
  mkdir "$data"
  [ "$(id -u)" -ne 0 ] || chown postgres "$data"
  "${as_postgres[@]}" "$bin/initdb" -D "$data" --auth=trust --username=postgres --encoding=UTF8 \
    --locale=C --no-sync >/dev/null
  free_port >"$work/postgres.port"
  "${as_postgres[@]}" "$bin/postgres" -D "$data" -h 127.0.0.1 -p "$(cat "$work/postgres.port")" -k "$data" \
    -c fsync=off -c max_connections=200 >"$work/postgres.log" 2>&1 &
  echo $! >"$work/postgres.pid"
  for _ in $(seq 300); do
    if "$bin/pg_isready" -q -h 127.0.0.1 -p "$(cat "$work/postgres.port")"; then return; fi
    kill -0 "$(cat "$work/postgres.pid")" || break
    sleep 0.1
  done
  cat "$work/postgres.log"
  return 1
}
database_url() { echo "postgres://postgres:postgres@127.0.0.1:$(cat "$work/postgres.port")/$1"; }
sql() { psql -qtA "$(database_url "$1")" -c "$2"; }

start_clickhouse() {
  local dir=$build/clickhouse _
  command -v npm >/dev/null || fail "npm is not installed"
  mkdir -p "$dir"
  if [ ! -d "$dir/node_modules/chdb" ] || ! cmp -s "$here/clickhouse/package.json" "$dir/package.json"; then
    rm -rf "$dir/node_modules"
    cp "$here/clickhouse/package.json" "$dir/"
    (cd "$dir" && npm install --no-package-lock --no-audit --no-fund)
  fi
  cp "$here/clickhouse/server.mjs" "$dir/"
  node "$dir/server.mjs" "$work/clickhouse" "$work/clickhouse.port" >"$work/clickhouse.log" 2>&1 &
  echo $! >"$work/clickhouse.pid"
  for _ in $(seq 300); do
    if [ -s "$work/clickhouse.port" ]; then return; fi
    kill -0 "$(cat "$work/clickhouse.pid")" || break
    sleep 0.1
  done
  cat "$work/clickhouse.log"
  return 1
}
clickhouse_url() { echo "http://127.0.0.1:$(cat "$work/clickhouse.port")/$1"; }
