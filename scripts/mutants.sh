#!/usr/bin/env bash
# Changes the code in small ways, one at a time, and runs its tests against each change. One that no test notices is a survivor.
#
#   scripts/mutants.sh PACKAGE-DIR…
#
# Fails on a survivor that scripts/mutation/survivors.txt does not list with a reason, and on an entry there that no survivor needs.
set -euo pipefail

# gremlins makes the changes and calls go, whose part this script plays under that name, to mend two faults of gremlins 0.6.0: it takes the
# conditions of a switch's cases for code that no test covers, because Go's coverage does not count them, and leaves them out; and it takes
# a change that does not compile for one that a test noticed.
if [ "${0##*/}" = go ]; then
  if [ "${1:-} ${2:-}" = "test -cover" ]; then
    "$REAL_GO" "$@"
    while [ "$1" != -coverprofile ]; do shift; done
    awk -F: 'NR == 1 { print } NR > 1 && !seen[$1]++ { print $1 ":1.1,1000000.1 1 1" }' "$2" >"$2.all" # all is covered
    exec mv "$2.all" "$2"
  fi
  if [ "${1:-} ${2:-}" = "test -timeout" ]; then
    out=$(mktemp -p "$MUTANTS")
    if "$REAL_GO" test -vet=off -failfast -timeout=2m -ldflags='-s -w' "${@: -1}" >"$out" 2>&1; then exit 0; fi # it lived
    if grep -qE '\[(build|setup) failed\]$' "$out"; then exit 2; fi # not viable
    if grep -q '^panic: test timed out' "$out"; then              # the tests take seconds, so a change that makes one hang was noticed
      sed -n '/^\trunning tests:/,/^$/s/^\t\t/  a test hung: /p' "$out" >>"$MUTANTS/hung"
    fi
    exit 1 # killed
  fi
  exec "$REAL_GO" "$@"
fi

cd "$(dirname "$0")/.."
listed=scripts/mutation/survivors.txt
gremlins=$(scripts/build-once.sh scripts/mutation github.com/go-gremlins/gremlins/cmd/gremlins -ldflags '-s -w')
REAL_GO=$(command -v go)
MUTANTS=$(mktemp -d)
export REAL_GO MUTANTS
trap 'rm -rf "$MUTANTS"' EXIT
ln -s "$PWD/scripts/mutants.sh" "$MUTANTS/go"

# An entry is a line with file, mutator and the changed line of code, the changed operator in «»; below it, indented, is the reason.
if ! awk '/^(#|$)/ { next } /^ / { reason = 1; next } { if (entry && !reason) bad = 1; entry = 1; reason = 0 } END { exit bad || entry && !reason }' "$listed"; then
  echo "$listed: an entry has no reason" >&2
  exit 1
fi

failed=0
for package in "$@"; do
  : >"$MUTANTS/hung"
  PATH=$MUTANTS:$PATH "$gremlins" unleash "./$package" -E '/' --workers "${WORKERS:-$(nproc)}" --timeout-coefficient 10000 \
    --invert-assignments --invert-bitwise --invert-bwassign --invert-logical --invert-loopctrl --remove-self-assignments 2>&1 |
    tee "$MUTANTS/log" |
    awk -v package="$package" '
      / at .*:[0-9]+:[0-9]+$/ { if (/ LIVED /) print; if (++n % 25 == 0) print package ": " n " changes tried"; fflush(); next }
      !/^(Starting|Gathering|Mutation testing|Killed|Timed out|Test efficacy|Mutator coverage|$)/ { print; fflush() }'
  grep -q '^Mutation testing completed' "$MUTANTS/log" || { echo "$package: gremlins did not run to its end" >&2; exit 1; }

  sed -nE 's/^ *(LIVED|NOT COVERED|TIMED OUT) ([A-Z_]+) at (.*):([0-9]+):([0-9]+)$/\2 \3 \4 \5/p' "$MUTANTS/log" |
    while read -r mutator file line column; do
      code=$(sed -n "${line}p" "$package/$file")
      before=$(printf %s "$code" | head -c $((column - 1)) | sed -E 's/^[[:space:]]+//')
      after=$(printf %s "$code" | tail -c "+$column" | sed -E 's/^(break|continue|[^[:alnum:][:space:]"(]+)/«\1»/')
      echo "$package/$file $mutator $before$after"
    done | LC_ALL=C sort >"$MUTANTS/survivors"
  grep "^$package/[^/]* " "$listed" | LC_ALL=C sort >"$MUTANTS/listed" || true

  unlisted=$(LC_ALL=C comm -23 "$MUTANTS/survivors" "$MUTANTS/listed")
  unneeded=$(LC_ALL=C comm -13 "$MUTANTS/survivors" "$MUTANTS/listed")
  count() { grep -cE "^ *$1 [A-Z_]+ at " "$MUTANTS/log" || true; }
  echo "$package: $(count KILLED) killed; $(wc -l <"$MUTANTS/survivors") survived; $(count 'NOT VIABLE') did not compile"
  cat "$MUTANTS/hung"
  if [ -n "$unlisted" ]; then printf 'No test notices, and %s has no reason for:\n%s\n' "$listed" "$unlisted"; failed=1; fi
  if [ -n "$unneeded" ]; then printf '%s lists, but no survivor needs:\n%s\n' "$listed" "$unneeded"; failed=1; fi
done
exit "$failed"
