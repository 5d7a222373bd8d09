// Command vault-plugin-secrets-jira is a HashiCorp Vault secrets engine that
// hands out Jira credentials which end with their lease. Vault starts it; by
// hand it only tells its version:
//
//	vault-plugin-secrets-jira -version
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/plugin"

	"vault-plugin-secrets-jira/backend"
)

func main() {
	meta := &api.PluginAPIClientMeta{}
	flags := meta.FlagSet()
	version := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(os.Args[1:]); err != nil {
		os.Exit(2) // the flag set has said why
	}
	if *version {
		fmt.Println("vault-plugin-secrets-jira", backend.Version)
		return
	}
	// net/http has a word to say on standard error when a server answers twice,
	// and quotes the answer: a token. Standard error is Vault's log.
	log.SetOutput(io.Discard)
	// A hundred thousand records shall fit into 64 MiB with the rest of the
	// process, of which 25 are the program. Collecting garbage more often than Go
	// does by itself is cheap where there is little to look through.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(40)
	}
	go endWithVault()
	err := plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: backend.Factory,
		// Vault before 1.12 hands the plugin its TLS configuration this way;
		// later ones do without, and the function is not called.
		TLSProviderFunc: api.VaultPluginTLSProvider(meta.GetTLSConfig()),
	})
	if err != nil {
		hclog.New(&hclog.LoggerOptions{Name: "vault-plugin-secrets-jira"}).Error("the plugin ends", "error", err)
		os.Exit(1)
	}
}

// endWithVault ends the process when the one that started it has ended: nobody
// could tell a plugin whose Vault was killed to give up its credentials.
func endWithVault() {
	parent := os.Getppid()
	for range time.Tick(time.Second) {
		if os.Getppid() != parent {
			os.Exit(1)
		}
	}
}
