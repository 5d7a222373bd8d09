# Who looks, and changes nothing: who holds what, what Jira has, and whether all is well.
path "jira/tokens" { capabilities = ["list"] }
path "jira/tokens/" { capabilities = ["read", "list"] }
path "jira/tokens/+" { capabilities = ["read"] }
path "jira/accounts" { capabilities = ["list"] }
path "jira/accounts/+" { capabilities = ["read"] }
path "jira/accounts/+/tokens" { capabilities = ["read"] }
path "jira/roles" { capabilities = ["list"] }
path "jira/roles/+" { capabilities = ["read"] }
path "jira/static-roles" { capabilities = ["list"] }
path "jira/static-roles/+" { capabilities = ["read"] }
path "jira/tidy-status" { capabilities = ["read"] }
path "jira/status" { capabilities = ["read"] }
path "jira/metrics" { capabilities = ["read"] }
