# For the operator, who sets the engine up and looks after it. The operator reads no credential: not creds, not
# static-creds, and not by sending what is stored to another host. That last needs confirm_destination=true, which is
# denied here. A token with this policy and without the denied_parameters can move the engine to another host, and
# with it every stored secret: grant that for the move alone.
path "jira/config" {
  capabilities      = ["create", "read", "update", "patch", "delete"]
  denied_parameters = { "confirm_destination" = [] }
}
path "jira/config/*" { capabilities = ["create", "read", "update", "patch", "delete"] }
path "jira/accounts" { capabilities = ["list"] }
path "jira/accounts/*" {
  capabilities      = ["create", "read", "update", "patch", "delete", "list"]
  denied_parameters = { "confirm_destination" = [] }
}
path "jira/roles" { capabilities = ["list"] }
path "jira/roles/*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
path "jira/static-roles" { capabilities = ["list"] }
path "jira/static-roles/*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
path "jira/rotate-root" { capabilities = ["update"] }
path "jira/rotate-account/*" { capabilities = ["update"] }
path "jira/rotate-role/*" { capabilities = ["update"] }
path "jira/tidy" { capabilities = ["update"] }
path "jira/tidy-status" { capabilities = ["read"] }
path "jira/tidy-cancel" { capabilities = ["update"] }
path "jira/tokens" { capabilities = ["list"] }
path "jira/tokens/*" { capabilities = ["read", "list", "delete"] }
path "jira/status" { capabilities = ["read"] }
path "jira/metrics" { capabilities = ["read"] }

# To end its leases. To mount it and to take it down is for who looks after Vault: sys/mounts, sys/plugins.
path "sys/leases/revoke-prefix/jira" { capabilities = ["update", "sudo"] }
path "sys/leases/revoke-prefix/jira/*" { capabilities = ["update", "sudo"] }
