# shellcheck shell=bash disable=SC2034
# Sourced by the scripts of this folder: where things are, and one line per
# stage. Callers set -euo pipefail.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
wrapper=$root/elixir_wrapper/plausible_webhooks
phoenix=${wrapper}_phoenix
# Everything built goes here; set it to keep the source tree untouched.
build=${WEBHOOKS_BUILD_DIR:-$root/build}

# The BEAM warns without a UTF-8 locale, and Mix wants a home it can write to;
# an empty environment (cron, chroot, CI) or a user without a home has neither.
export LC_ALL=C.UTF-8 LANG=C.UTF-8
if [ ! -w "${HOME:-}" ]; then
  HOME=$(getent passwd "$(id -u)" | cut -d: -f6) || true
  [ -w "$HOME" ] || { HOME=$build/home && mkdir -p "$HOME"; }
  export HOME
fi
export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}

say() { printf '%s\n' "$*"; }
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# stage <name> <command...>: runs the command with its output shown.
stage() {
  local name=$1 status=0
  shift
  say "==> $name"
  "$@" || status=$?
  [ "$status" -eq 0 ] || fail "stage \"$name\" failed (exit status $status)"
}

# quiet_stage: the same for what is only worth reading when it fails; a line
# every ten seconds says that it goes on. The command gets no input (what is there
# may be meant for somebody else), and a caller that is ended meanwhile finds in
# stage_pid and stage_log what to tidy up.
stage_pid='' stage_log=''
quiet_stage() {
  local name=$1 status=0 start=$SECONDS told=0
  shift
  say "==> $name"
  stage_log=$(mktemp)
  "$@" >"$stage_log" 2>&1 </dev/null &
  stage_pid=$!
  while kill -0 "$stage_pid" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - start)) -ge $((told + 10)) ]; then
      told=$((SECONDS - start))
      say "    ... ${told} s: $(tail -n 1 "$stage_log" | cut -c1-100)"
    fi
  done
  wait "$stage_pid" || status=$?
  stage_pid=''
  if [ "$status" -ne 0 ]; then
    cat "$stage_log" >&2
    rm -f "$stage_log"
    fail "stage \"$name\" failed (exit status $status)"
  fi
  rm -f "$stage_log"
}

# phoenix_packages: in the second project's folder, gets its packages, which come from
# Hex. Where there is no Hex, or nobody answers for it, phoenix_missing says so in a
# line. Every other failure is one.
phoenix_missing=''
phoenix_packages() {
  local log archives
  log=$(mktemp)
  # Not by a pipe: grep -q ends at the first match, and mix of writing to nobody.
  archives=$(cd / && mix archive </dev/null 2>/dev/null) || archives=
  if ! grep -Eq '^\* hex(-|$)' <<<"$archives"; then
    phoenix_missing="Hex is not installed; mix local.hex --force and mix local.rebar --force bring it"
  elif ! timeout 300 mix deps.get </dev/null >"$log" 2>&1; then
    grep -Eqi 'failed to fetch|request failed|:econnrefused|:nxdomain|:timeout' "$log" ||
      { cat "$log" >&2 && fail "the packages of $(basename "$phoenix") do not resolve"; }
    phoenix_missing="its packages cannot be fetched from Hex; with a network, or HEX_MIRROR, they can"
  fi
  rm -f "$log"
}

cmake_generator() {
  if command -v ninja >/dev/null 2>&1; then echo Ninja; else echo "Unix Makefiles"; fi
}

# configure <preset> <dir> <cmake argument...>; what the build folder was made
# with may have changed since.
configure() {
  local dir=$2 args=(--preset "$1" -S "$root" -B "$2" -G "$(cmake_generator)" "${@:3}")
  cmake "${args[@]}" || { rm -rf "$dir" && cmake "${args[@]}"; }
}
