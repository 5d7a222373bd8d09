#!/usr/bin/env bash
# Prints the path of a Vault to test against: $VAULT_BIN, else the one on the PATH, else one built once from scripts/vault.
#
#   scripts/vault.sh [--cached]    --cached builds nothing: exit 1 if a build would be needed
#
# Vault is under the BUSL: it is a tool of the tests, kept in a cache outside the tree, and no part of what the project ships.
set -euo pipefail

if [ -n "${VAULT_BIN:-}" ]; then
  if [ ! -f "$VAULT_BIN" ] || [ ! -x "$VAULT_BIN" ]; then
    echo "VAULT_BIN is set, but $VAULT_BIN is not an executable file" >&2
    exit 1
  fi
  # Absolute, because the tests run in folders of their own.
  echo "$(cd "$(dirname "$VAULT_BIN")" && pwd)/$(basename "$VAULT_BIN")"
  exit
fi
if type -P vault; then exit; fi

cd "$(dirname "$0")/.."
# "minimal" leaves out the storage and auth plugins that no test here uses.
build=(scripts/vault github.com/hashicorp/vault -tags minimal -ldflags '-s -w')
if scripts/build-once.sh --cached "${build[@]}"; then exit; fi
if [ "${1:-}" = --cached ]; then exit 1; fi
echo "vault: none on the PATH, so it is built from source, once: some ten minutes on two cores of a fresh machine" >&2
exec scripts/build-once.sh "${build[@]}"
