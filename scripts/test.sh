#!/usr/bin/env bash
# Runs every test: "make test" calls it with bin/ built and PLUGIN_BIN and SIM_BIN set. TESTFLAGS are handed to go test.
#
# The stories run against the Vault that scripts/vault.sh finds or builds. Where none can be had they skip, unless REQUIRE_VAULT=1.
set -euo pipefail
cd "$(dirname "$0")/.."
stories=cmd/vault-plugin-secrets-jira

read -ra flags <<<"-shuffle=on -timeout=20m ${TESTFLAGS:-}"

# The race detector needs a C compiler that compiles, headers included.
if echo '#include <stdlib.h>' | $(go env CC) -x c -c -o /dev/null - 2>/dev/null; then
  flags+=(-race)
  export CGO_ENABLED=1
else
  export CGO_ENABLED=0
  echo "Without the race detector: there is no C compiler."
fi

if VAULT_BIN=$(scripts/vault.sh); then
  export VAULT_BIN
  echo "Vault for the stories: $VAULT_BIN"
elif [ "${REQUIRE_VAULT:-}" = 1 ]; then
  echo "No Vault could be had, and REQUIRE_VAULT=1 asks for one." >&2
  exit 1
else
  unset VAULT_BIN
  echo "Without the stories: no Vault could be had."
fi

# The stories run last and from their own folder: there go test shows what a test prints while it runs. For other packages it keeps that for failures.
# They wait most of the time, so there are more at once than a small machine has cores.
failed=0
go list ./... | grep -v "/$stories\$" | xargs go test "${flags[@]}" || failed=1
go test -C "$stories" -parallel=4 "${flags[@]}" || failed=1
exit "$failed"
