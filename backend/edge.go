package backend

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// edge wraps a handler: what it returns crosses from here into Vault. An
// error gets its status, a panic ends the request and not the process, which
// other mounts share, no request waits for Jira longer than patience, and none is served
// from what a newer engine has stored.
func (b *backend) edge(handle framework.OperationFunc) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (resp *logical.Response, err error) {
		log := b.at(req.MountPoint)
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		err = b.guard(log, func() (err error) {
			if err := b.understood(ctx, req.MountPoint); err != nil {
				return err
			}
			resp, err = handle(ctx, req, d)
			return err
		})
		if errors.Is(err, errPanic) {
			log.Error("the panic was in a request", "operation", req.Operation, "path", req.Path)
		}
		if err != nil {
			return nil, coded(err)
		}
		if resp == nil && hasUnknownFields(req, d) {
			// The framework names unknown fields in a warning, if there is a
			// response to put it on. A misspelt field must not pass in silence.
			resp = &logical.Response{}
		}
		return resp, nil
	}
}

// guard runs f. A panic in it ends f and not the process, which other mounts
// share: it becomes an error, and the log tells where it was.
func (b *backend) guard(log hclog.Logger, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			b.metrics.panics.Inc()
			log.Error("panic", "panic", p, "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	return f()
}

var errPanic = errors.New("internal error: the engine's log has the details")

// HandleRequest is the framework's, but for fields that [backend.checkInput] refuses. It
// notes when Vault has last done what a disable does before Clean.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if err := b.checkInput(req); err != nil {
		return nil, coded(err)
	}
	if req.Operation == logical.RevokeOperation || req.Operation == logical.RollbackOperation {
		defer func() { b.drained.Store(b.now().UnixNano()) }()
	}
	return b.Backend.HandleRequest(ctx, req)
}

// HandleExistenceCheck is the framework's, as [backend.HandleRequest] is. Vault
// calls it before a write, and takes another type of error from it for a 400.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checked, exists bool, err error) {
	if err := b.checkInput(req); err != nil {
		return false, false, errutil.UserError{Err: err.Error()}
	}
	return b.Backend.HandleExistenceCheck(ctx, req)
}

func hasUnknownFields(req *logical.Request, d *framework.FieldData) bool {
	for field := range req.Data {
		if d.Schema[field] == nil {
			return true
		}
	}
	return false
}

// coded gives err the status that Vault's HTTP API answers with. Only the
// outermost error's type reaches Vault, so nothing may wrap the result.
//
// Jira's 401 and 403 become 400, never 429 or 5xx: Vault's own clients repeat
// those, and three wrong passwords lock a Jira user out.
func coded(err error) error {
	if errors.Is(err, logical.ErrReadOnly) {
		return logical.ErrReadOnly // how Vault knows that it must forward
	}
	return logical.CodedError(status(err), err.Error())
}

func status(err error) int {
	var (
		fromJira *jira.Error
		wrong    fault.User
		later    fault.Unavailable
		full     *fault.Capacity
		unknown  *inDoubt
		lie      fault.BadResponse
		state    *ledger.StateError
	)
	switch {
	case errors.As(err, &wrong), errors.As(err, &state):
		return http.StatusBadRequest
	case errors.As(err, &full):
		return http.StatusTooManyRequests
	case errors.As(err, &lie):
		return http.StatusBadGateway
	case errors.As(err, &later), errors.As(err, &unknown):
		return http.StatusServiceUnavailable
	case errors.As(err, &fromJira):
		switch fromJira.Kind {
		case jira.Refused, jira.Denied:
			return http.StatusBadRequest
		case jira.Busy, jira.Down:
			return http.StatusServiceUnavailable
		case jira.Nonsense:
			return http.StatusBadGateway
		}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable
	}
	switch grpcstatus.Code(err) { // storage, over the pipe, after the request's time was over
	case codes.DeadlineExceeded, codes.Canceled:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// undo returns a context for cleaning up after a request whose own context
// may be over.
func undo(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), undoing)
}

// mounted is a logger for the mount's path.
type mounted struct {
	path string
	hclog.Logger
}

// at notes where the engine is mounted, which only requests tell, and returns log.
func (b *backend) at(mount string) hclog.Logger {
	have := b.logger.Load()
	if have == nil || have.path != mount { // a mount has one path until it is moved
		have = &mounted{mount, b.Logger().With("mount", mount)}
		b.logger.Store(have)
	}
	return have
}

// log returns the engine's logger with the mount's path on each line: all
// mounts of a version share one process, and one logger's name. Before the first request
// it is the path where the engine was last, if it ever was.
func (b *backend) log() hclog.Logger {
	if have := b.logger.Load(); have != nil {
		return have
	}
	return b.Logger()
}

// mountPoint is the path of [backend.log], empty where there is none.
func (b *backend) mountPoint() string {
	if have := b.logger.Load(); have != nil {
		return have.path
	}
	return ""
}

// seconds is a duration as Vault's API tells it.
func seconds(d time.Duration) int64 { return int64(d / time.Second) }
