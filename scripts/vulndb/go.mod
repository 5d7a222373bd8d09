module vault-plugin-secrets-jira/scripts/vulndb

go 1.26.0

// Only its data/osv is used. Nothing is built from it, so "go mod tidy" would remove it.
require golang.org/x/vulndb v0.0.0-20261105234957-e22db6528018
