#!/usr/bin/env bash
# Prints the path of a program that the project uses but does not ship, pinned by a module of its own, and builds it first if it must.
#
#   scripts/build-once.sh [--cached] MODULE-DIR PACKAGE [go build flags]
#
# The program is kept outside the tree, under a name that tells everything it was made from, so it is built once per machine and change of pin.
# --cached builds nothing: exit 1 if a build would be needed. Only the path goes to stdout; progress goes to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."

cached_only=
if [ "${1:-}" = --cached ]; then cached_only=1; shift; fi
module=$1 package=$2; shift 2
flags=(-trimpath "$@")
export CGO_ENABLED=0 # no C compiler needed, and none of its differences between machines

name=${package##*/}
# The version of the module that holds the package, from its line in go.mod.
version=$(awk -v p="$package/" '{ sub(/^require /, "") } $2 ~ /^v/ && index(p, $1 "/") == 1 { print $2; exit }' "$module/go.mod")
made_from=$({ cat "$module/go.mod" "$module/go.sum"; go env -C "$module" GOVERSION GOOS GOARCH; echo "$package ${flags[*]}"; } | git hash-object --stdin)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/vault-plugin-secrets-jira
program=$cache/$name-$version-${made_from:0:12}/$name

# A build is renamed into place as its last step, so what is there is whole.
if [ -x "$program" ]; then echo "$program"; exit; fi
if [ -n "$cached_only" ]; then exit 1; fi

say() { printf '%s\n' "$name: $*" >&2; }

# Two runs at once build once. Where there is no flock (macOS) they build twice, and the second rename replaces the first.
mkdir -p "$cache"
if command -v flock >/dev/null; then
  exec 9>"$cache/$name.lock"
  flock -n 9 || say "another run is building it; waiting"
  until flock -w 20 9; do say "still waiting for the other run (${SECONDS}s)"; done
  if [ -x "$program" ]; then echo "$program"; exit; fi
fi

# Everything half done lives in one folder, go's own scratch files included. It lies in the cache, so that the last rename stays on one file system.
work=$(mktemp -d "$cache/.building.XXXXXX")
go_pid=
cleanup() {
  trap '' INT TERM HUP
  if [ -n "$go_pid" ]; then
    kill -TERM -- "-$go_pid" 2>/dev/null || true
    wait "$go_pid" || true
  fi
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
export GOTMPDIR=$work

# run WHAT LIMIT PATTERN COMMAND… shows how many lines of its stderr match PATTERN while COMMAND runs: a rewritten line on a terminal, a line every 20 s elsewhere.
run() {
  local what=$1 limit=$2 pattern=$3 start=$SECONDS shown=$SECONDS line; shift 3
  : >"$work/log"
  set -m # a process group of its own: go and its compilers end together when asked
  "$@" >"$work/out" 2>"$work/log" 9>&- &
  set +m
  go_pid=$!
  while kill -0 "$go_pid" 2>/dev/null; do
    line="$what $(grep -cE "$pattern" "$work/log" || true) of $limit ($((SECONDS - start))s)"
    if [ -t 2 ]; then
      printf '\r\033[K%s: %s' "$name" "$line" >&2
    elif [ $((SECONDS - shown)) -ge 20 ]; then
      say "$line"; shown=$SECONDS
    fi
    sleep 0.5
  done
  if [ -t 2 ]; then printf '\r\033[K' >&2; fi
  if ! wait "$go_pid"; then
    go_pid=
    tail -n 20 "$work/log" >&2
    say "failed while $what; above are its last lines"
    exit 1
  fi
  go_pid=
  say "$what $(grep -cE "$pattern" "$work/log" || true): done in $((SECONDS - start))s"
}

# Listing the packages fetches the modules they come from, and tells which of them Go's own cache lacks: what the build has to do.
to_build='{{if and .Stale (ne .StaleReason "not installed but available in build cache")}}{{.ImportPath}}{{end}}'
run "modules downloaded:" "at most $(grep -cE '^(require|	)' "$module/go.mod")" '^go: downloading' \
  go list -C "$module" -deps "${flags[@]}" -f "$to_build" "$package"
run "packages compiled:" "$(grep -c . "$work/out" || true)" '^[^#: ]+$' \
  go build -C "$module" -v "${flags[@]}" -o "$work/$name" "$package"

mkdir -p "${program%/*}"
mv "$work/$name" "$program"
echo "$program"
