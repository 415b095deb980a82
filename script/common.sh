# shellcheck shell=bash disable=SC2034
# Paths and helpers for the scripts of this folder, which source this file after
# `set -euo pipefail`.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
wrapper=$root/elixir_wrapper/plausible_webhooks
phoenix=${wrapper}_phoenix
# All build results go here. Set WEBHOOKS_BUILD_DIR to keep the source tree untouched.
build=${WEBHOOKS_BUILD_DIR:-$root/build}

# The BEAM warns without a UTF-8 locale, and Mix needs a home folder that it can write to.
# An empty environment (cron, chroot, CI) may have neither.
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

# stage <name> <command...>: runs the command and shows its output.
stage() {
  local name=$1 status=0
  shift
  say "==> $name"
  "$@" || status=$?
  [ "$status" -eq 0 ] || fail "stage \"$name\" failed (exit status $status)"
}

# quiet_stage <name> <command...>: runs the command and shows its output only if it fails,
# with a progress line every ten seconds. The command gets no input, because stdin may
# belong to a later command. A trap of the caller finds in stage_pid and stage_log what to
# clean up.
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

# phoenix_packages: fetches the packages of the second project from Hex; call it in that
# project's folder. If Hex is not installed or does not answer, it sets phoenix_missing to
# a line that says so. Any other failure ends the script.
phoenix_missing=''
phoenix_packages() {
  local log archives
  log=$(mktemp)
  # Not a pipe: grep -q exits at the first match, and mix then fails on a closed pipe.
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

# configure <preset> <dir> <cmake argument...>: configures, and starts from scratch if that
# fails, because the folder may come from another generator or compiler.
configure() {
  local dir=$2 args=(--preset "$1" -S "$root" -B "$2" -G "$(cmake_generator)" "${@:3}")
  cmake "${args[@]}" || { rm -rf "$dir" && cmake "${args[@]}"; }
}
