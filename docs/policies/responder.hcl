# Who ends credentials in an emergency: one, those of a role, or all.
path "jira/tokens" { capabilities = ["list"] }
path "jira/tokens/*" { capabilities = ["read", "list"] }
path "jira/tokens/+/revoke" { capabilities = ["update"] }
path "sys/leases/revoke-prefix/jira/*" { capabilities = ["update", "sudo"] }
