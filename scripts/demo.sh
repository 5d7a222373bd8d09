#!/usr/bin/env bash
# A tour of the engine on this machine: a throw-away Vault with the plugin, a simulated Jira, and one token from its making to its end.
#
#   scripts/demo.sh           walk through one lease, then clean up ("make demo")
#   scripts/demo.sh --stay    set up the same and stay until Ctrl-C ("make dev")
#
# With JIRA_URL, JIRA_USERNAME and JIRA_TOKEN set, that Jira and that user take the place of the simulator. bin/ must be built.
set -euo pipefail
cd "$(dirname "$0")/.."
stay=
if [ "${1:-}" = --stay ]; then stay=1; fi

bold='' dim='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' dim=$'\033[2m' red=$'\033[31m' plain=$'\033[0m'; fi
steps=0
step() { steps=$((steps + 1)); printf '\n%s%d. %s%s\n' "$bold" "$steps" "$*" "$plain"; }
note() { printf '   %s\n' "$*"; }
die()  { printf '%s%s%s\n' "$red" "$*" "$plain" >&2; exit 1; }

# All that is set up below lives in one folder and two processes, and ends with this script, however it ends.
tmp=$(cd "$(mktemp -d)" && pwd -P)
vault_pid='' sim_pid=''

alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

# start LOG COMMAND… runs COMMAND in a process group of its own, so that Ctrl-C reaches this script alone, and tokens can be revoked before Vault ends.
start() {
  local log=$1; shift
  set -m
  "$@" </dev/null >"$tmp/$log.out" 2>"$tmp/$log.log" &
  set +m
}

stop() {
  alive "$1" || return 0
  kill -TERM "$1" 2>/dev/null || true
  for _ in {1..50}; do alive "$1" || break; sleep 0.1; done
  kill -KILL -- "-$1" 2>/dev/null || true # the whole group, should anything of it be left
  wait "$1" 2>/dev/null || true
}

clean_up() {
  local status=$?
  trap '' INT TERM HUP PIPE
  set +e # whatever fails from here on, the rest has to be cleaned up, too
  if [ "$status" != 0 ] && [ "$status" -lt 128 ]; then # it failed, and was not ended by a signal
    for log in "$tmp"/*.log; do
      if [ -s "$log" ]; then printf '\n%sThe last lines of %s:%s\n' "$bold" "${log##*/}" "$plain"; tail -n 15 "$log"; fi >&2
    done
  fi
  if [ -n "$mounted" ] && alive "$vault_pid" && ! vault lease revoke -sync -prefix jira/ >"$tmp/revoke" 2>&1; then
    printf '%sSome tokens may still be valid in Jira:%s\n' "$red" "$plain" >&2
    cat "$tmp/revoke" >&2
    if [ "$status" = 0 ]; then status=1; fi
  fi
  stop "$vault_pid"
  stop "$sim_pid"
  rm -rf "$tmp"
  exit "$status"
}
mounted=''
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exec >/dev/null 2>&1; exit 129' HUP # the terminal is gone, and a word to it would be the last

for program in bin/vault-plugin-secrets-jira bin/jira-sim; do
  [ -x "$program" ] || die "$program is missing: run make build, or make demo."
done
if ! vault_bin=$(scripts/vault.sh); then die "There is no Vault to show it with."; fi
CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$tmp/whoami" ./scripts/whoami

# Neither the settings nor the ~/.vault-token of whoever runs this may have a say, nor change.
for name in "${!VAULT_@}"; do unset "$name"; done
vault() { HOME=$tmp "$vault_bin" "$@"; }

# run COMMAND… shows a vault command, runs it and indents its answer.
run() {
  note "${dim}\$ $*${plain}"
  "$@" | sed '/^$/d; s/^/   /'
}

# -- Jira

simulated=''
if [ -z "${JIRA_URL:-}${JIRA_USERNAME:-}${JIRA_TOKEN:-}" ]; then
  simulated=1
  step "Start a simulated Jira"
  start jira-sim bin/jira-sim -context-path /jira
  sim_pid=$!
  until grep -sqx '# ready' "$tmp/jira-sim.out"; do
    alive "$sim_pid" || die "The simulator did not start."
    sleep 0.1
  done
  # shellcheck source=/dev/null
  . "$tmp/jira-sim.out"
  export -n JIRA_TOKEN
  note "It listens on $JIRA_URL, and has a user $JIRA_USERNAME."
else
  for name in JIRA_URL JIRA_USERNAME JIRA_TOKEN; do
    [ -n "${!name:-}" ] || die "$name is not set. Set JIRA_URL, JIRA_USERNAME and JIRA_TOKEN for a Jira of yours, or none of them for the simulator."
  done
  export -n JIRA_TOKEN
  step "Use your Jira"
  note "It is $JIRA_URL; tokens are made for its user $JIRA_USERNAME."
fi

# -- Vault

step "Start a Vault that forgets everything when it stops"
mkdir "$tmp/plugins"
cp bin/vault-plugin-secrets-jira "$tmp/plugins"
VAULT_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export VAULT_TOKEN
# A port is free when Vault can listen on it, so try some. The answer to our random token tells our Vault from anybody else's.
for _ in {1..10}; do
  port=$((20000 + RANDOM % 12000))
  export VAULT_ADDR=http://127.0.0.1:$port
  start vault env HOME="$tmp" VAULT_DEV_ROOT_TOKEN_ID="$VAULT_TOKEN" "$vault_bin" server -dev -dev-no-store-token \
    -dev-listen-address="127.0.0.1:$port" -dev-plugin-dir="$tmp/plugins"
  vault_pid=$!
  while alive "$vault_pid"; do
    if vault token lookup >/dev/null 2>&1; then break 2; fi
    sleep 0.2
  done
  grep -q 'address already in use' "$tmp/vault.out" "$tmp/vault.log" || break
done
alive "$vault_pid" || { cat "$tmp/vault.out" >>"$tmp/vault.log"; die "Vault did not start."; }
note "It listens on $VAULT_ADDR and knows the plugin."

# -- The engine

step "Enable the engine at jira/"
run vault secrets enable -path=jira vault-plugin-secrets-jira
mounted=1

step "Tell it where Jira is"
run vault write jira/config url="$JIRA_URL"

step "Give it the account that tokens are made for, with a token of that user (it comes on stdin, where no process list shows it)"
printf %s "$JIRA_TOKEN" | run vault write jira/accounts/ci-bot username="$JIRA_USERNAME" token=-

step "Say what a reader gets: a personal access token for ten minutes, renewable up to an hour"
run vault write jira/roles/readonly accounts=ci-bot credential_type=pat ttl=10m max_ttl=1h

if [ -n "$stay" ]; then
  step "All is set up. In another terminal:"
  echo
  echo "export VAULT_ADDR=$VAULT_ADDR VAULT_TOKEN=$VAULT_TOKEN"
  if [ -n "$simulated" ]; then echo "export JIRA_ADMIN_USERNAME=$JIRA_ADMIN_USERNAME JIRA_ADMIN_TOKEN=$JIRA_ADMIN_TOKEN   # of the simulated Jira"; fi
  type -P vault >/dev/null || echo "export PATH=\"${vault_bin%/*}:\$PATH\"   # for vault"
  cat <<TRY

   vault read jira/creds/readonly                  # a new token and its lease
   vault read jira/accounts/ci-bot                 # how many tokens it holds, and has room for
   curl -H "Authorization: Bearer \$(vault read -field=token jira/creds/readonly)" $JIRA_URL/rest/api/2/myself
   vault read -format=json jira/status             # is it well
   vault list -detailed jira/tokens                # who holds what
   vault lease revoke -sync -prefix jira/creds/    # end them all
   vault path-help jira                            # what else there is
TRY
  if [ -n "$simulated" ]; then cat <<'TRY'
   vault write jira/config username=$JIRA_ADMIN_USERNAME token=$JIRA_ADMIN_TOKEN   # then roles can have users made:
   vault write jira/roles/throwaway credential_type=ephemeral_user groups=jira-software-users application_keys=jira-software
TRY
  fi
  cat <<TRY

${bold}Ctrl-C ends it, and revokes every token.${plain}
TRY
  trap 'echo; exit 0' INT TERM
  wait "$vault_pid" || true
  die "Vault has stopped by itself."
fi

# -- One token, from its making to its end

step "Read a credential: the engine asks Jira for a new token"
note "${dim}\$ vault read jira/creds/readonly${plain}"
vault read jira/creds/readonly >"$tmp/creds" # not through run: the token is not for show
field() { awk -v name="$1" '$1 == name { print $2 }' "$tmp/creds"; }
token=$(field token)
lease=$(field lease_id)
if [ -z "$token" ] || [ -z "$lease" ]; then die "The answer holds no token or no lease."; fi
sed -E '/^$/d; s/^(token +.{6}).*/\1…/; s/^/   /' "$tmp/creds"
rm "$tmp/creds"

# ask prints Jira's answer to "who am I?".
ask() { printf %s "$token" | "$tmp/whoami" "$JIRA_URL"; }

step "Ask Jira whose token that is"
note "${dim}GET $JIRA_URL/rest/api/2/myself, with Authorization: Bearer ${token:0:6}…${plain}"
answer=$(ask)
note "Jira answers: $answer"
[ "$answer" = "200 $JIRA_USERNAME" ] || die "That should have been: 200 $JIRA_USERNAME"

step "Revoke the lease: the engine deletes the token in Jira"
run vault lease revoke -sync "$lease"

step "Ask Jira again"
answer=$(ask)
note "Jira answers: $answer"
[ "$answer" = 401 ] || die "That should have been: 401"
note "The token is gone from Jira, not only from Vault."

step "Stop it all"
note "$(if [ -n "$simulated" ]; then echo "Vault and the simulated Jira end"; else echo "Vault ends"; fi) with this script. It took $SECONDS seconds."
