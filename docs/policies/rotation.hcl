# A job that rotates by hand what disable_automated_rotation leaves to it. It is told nothing.
path "jira/rotate-root" { capabilities = ["update"] }
path "jira/rotate-account/*" { capabilities = ["update"] }
path "jira/rotate-role/*" { capabilities = ["update"] }
