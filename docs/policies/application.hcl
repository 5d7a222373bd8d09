# A program that reads one role. Write one such policy for each role, or template the name.
path "jira/creds/readonly" { capabilities = ["read"] }

# To hold on to a lease, and to give it back.
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/revoke/jira/creds/readonly/*" { capabilities = ["update"] }
