# Who ends credentials in an emergency: one, those of a role, or all.
path "jira/tokens" { capabilities = ["list"] }
path "jira/tokens/*" { capabilities = ["read", "list"] }
path "jira/tokens/+/revoke" { capabilities = ["update"] }
path "jira/rotate-root" { capabilities = ["update"] }
path "jira/rotate-account/*" { capabilities = ["update"] }
path "jira/rotate-role/*" { capabilities = ["update"] }
path "jira/status" { capabilities = ["read"] }
path "sys/leases/revoke-prefix/jira" { capabilities = ["update", "sudo"] }
path "sys/leases/revoke-prefix/jira/*" { capabilities = ["update", "sudo"] }
