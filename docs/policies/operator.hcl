# Who sets the engine up and looks after it. He reads no credential: not creds, not static-creds.
path "jira/config" { capabilities = ["create", "read", "update", "patch", "delete"] }
path "jira/config/*" { capabilities = ["create", "read", "update", "patch", "delete"] }
path "jira/accounts" { capabilities = ["list"] }
path "jira/accounts/*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
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
