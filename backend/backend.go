// Package backend is the Jira secrets engine: its paths, its leases, and what
// keeps the two in step with Jira.
//
// [Factory] makes an engine for Vault. The way of a token, from a read to its
// end, is in path_creds.go, mint.go and secret.go; what Vault's requests
// leave undone is done by worker.go, with what has to be asked again in
// settle.go. What is written down meanwhile is in package ledger, and how Jira
// is asked in package jira.
//
// Every handler runs inside edge (edge.go), which is the only place where an
// error becomes an HTTP status. Storage keys are spelled in storage.go alone.
package backend

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/ledger"
)

// Version is the engine's version: semantic, with a leading v. The build sets
// it with -ldflags -X; Vault refuses a plugin whose version is not the one it
// was registered with.
var Version = "v0.1.0-dev"

const (
	// patience bounds what one request waits for Jira, undoing what it takes to
	// clean up after one that failed. Vault holds its state lock meanwhile, so
	// both together are 20 s; what is not done then is the worker's.
	patience = 15 * time.Second
	undoing  = 5 * time.Second
)

type backend struct {
	*framework.Backend
	now       func() time.Time
	storage   logical.Storage // for what nobody has requested
	ledger    *ledger.Ledger
	sites     sites
	mount     mountID
	decoded   decoded
	readable  readable
	worker    worker
	tidying   tidying
	rotations rotations
	reviews   reviews

	logger  atomic.Pointer[mounted]
	metrics *metrics
	events  events
	checks  checks
	debts   debts

	// resources keeps config, accounts and roles in step with each other and
	// with the ledger: whoever writes one of them holds it, whoever writes an
	// intent that relies on them reads under it. It is never held while Jira
	// is asked.
	resources sync.RWMutex

	unread           atomic.Pointer[error] // why the ledger could not be read so far
	background       context.Context       // what Clean ends
	cancelBackground context.CancelFunc
	running          sync.WaitGroup
	drained          atomic.Int64 // when a revoke or a periodic call ended last, in ns: see clean
	cleaned          sync.Once    // of a tainted mount: see clean
	disabled         atomic.Bool  // what no lease holds is being ended: see endKept
	told             sync.Map     // ids of damaged records that were logged
}

// Factory makes the engine for one mount. It does no I/O: Vault also calls it
// with an empty configuration, to learn the engine's type and version.
func Factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	b := newBackend(conf.StorageView, time.Now)
	if err := b.Setup(ctx, conf); err != nil {
		return nil, err
	}
	return b, nil
}

// Paths returns what the engine declares to Vault of its API, for those who
// describe it. Nothing may be called on it.
func Paths() []*framework.Path { return newBackend(nil, time.Now).Paths }

func newBackend(storage logical.Storage, now func() time.Time) *backend {
	b := &backend{
		now:     now,
		storage: storage,
		ledger:  ledger.New(logical.NewStorageView(storage, ledgerPrefix), now),
	}
	b.worker.turns(now())
	b.background, b.cancelBackground = context.WithCancel(context.Background())
	b.metrics = newMetrics(b)
	b.sites.observe = b.metrics.called
	b.Backend = &framework.Backend{
		BackendType:    logical.TypeLogical,
		RunningVersion: Version,
		Help:           strings.TrimSpace(backendHelp),
		Paths: []*framework.Path{
			b.pathConfig(),
			b.pathAccounts(),
			b.pathListAccounts(),
			b.pathAccountTokens(),
			b.pathRoles(),
			b.pathListRoles(),
			b.pathCheck(),
			b.pathCreds(),
			b.pathListTokens(),
			b.pathTokens(),
			b.pathRevokeToken(),
			b.pathMetrics(),
			b.pathStatus(),
			b.pathStaticRoles(),
			b.pathListStaticRoles(),
			b.pathStaticCreds(),
			b.pathRotateRoot(),
			b.pathRotateAccount(),
			b.pathRotateRole(),
			b.pathTidy(),
			b.pathTidyStatus(),
			b.pathTidyCancel(),
			b.pathAutoTidy(),
			b.pathRotateMountID(),
		},
		Secrets: b.secrets(),
		PathsSpecial: &logical.Paths{
			SealWrapStorage: []string{configKey, accountsPrefix, retiredPrefix, staticRolesPrefix},
		},
		InitializeFunc: b.initialize,
		PeriodicFunc:   b.periodic,
		Clean:          b.clean,
	}
	return b
}

// initialize starts the worker. Vault calls it wherever the mount comes to
// life: after mount, unseal, reload, crash, and a change of leader.
func (b *backend) initialize(context.Context, *logical.InitializationRequest) error {
	if b.WriteSafeReplicationState() { // else requests are forwarded to where it is
		b.startWorker()
	}
	return nil
}

const backendHelp = `
The Jira secrets engine hands out Jira credentials that end with their lease.

Configure the site with "config", the Jira users it may act for with
"accounts/", and what readers get with "roles/". Then a read of "creds/<role>"
makes a personal access token in Jira, and Vault deletes it there when the
lease expires or is revoked.
`
