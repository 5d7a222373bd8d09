# Prometheus, and an alert that asks for the status.
path "jira/metrics" { capabilities = ["read"] }
path "jira/status" { capabilities = ["read"] }
