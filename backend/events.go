package backend

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"vault-plugin-secrets-jira/backend/ledger"
)

// Events tell those who subscribe to them at Vault what becomes of credentials. Like
// those of Vault's own engines each is called after the engine and after what happened,
// with -fail behind it where that did not succeed: jira/creds-create and
// jira/creds-create-fail. They say what the log says, and never a secret.
//
// They are news, and no record: each is sent once, after what it tells of, and nothing
// fails for want of them. Who has to be certain reads the ledger.
const eventPrefix = "jira/"

// What is told. Of resources there are also -write, -create, -update and -delete, with
// what [resource] calls them in front.
const (
	eventCreate        = eventPrefix + "creds-create"
	eventRenew         = eventPrefix + "creds-renew"
	eventRevoke        = eventPrefix + "creds-revoke" // of what is proven gone
	eventDebtCreate    = eventPrefix + "debt-create"  // a credential has to go, and Jira has not ended it
	eventDebtPay       = eventPrefix + "debt-pay"
	eventRootRotate    = eventPrefix + "root-rotate"
	eventAccountRotate = eventPrefix + "account-rotate"
	eventStaticRotate  = eventPrefix + "rotate" // a static role's, as in the database engine
	eventTidy          = eventPrefix + "tidy"
)

// events is whether there is anybody to send them to. The zero value is ready for use.
type events struct {
	nobody atomic.Bool // found out by the first, and then for good
}

// event sends that what happened at the API's path or, with err, that it did not. It is
// told even if the request that it was for is over. pairs are names and values.
func (b *backend) event(what, path string, err error, pairs ...string) {
	if b.events.nobody.Load() {
		return
	}
	pairs = append(pairs, logical.EventMetadataPath, path, logical.EventMetadataOperation, strings.TrimPrefix(what, eventPrefix))
	if err != nil {
		what += "-fail"
		pairs = append(pairs, "error", err.Error())
	}
	// Vault does not wait for whoever listens. Some Vaults, and their kin, have no events,
	// and say so in one of two ways.
	err = b.SendEvent(b.background, logical.EventType(what), eventData(pairs))
	if errors.Is(err, framework.ErrNoEvents) || grpcstatus.Code(err) == codes.Unimplemented {
		b.events.nobody.Store(true)
	}
}

// mostOfAnEvent is how many names and values one of a credential has at most.
const mostOfAnEvent = 28

// eventData is what the SDK would make of pairs, in a handful of allocations in place of
// two for each of them, because every mint makes one.
func eventData(pairs []string) *logical.EventData {
	var event struct {
		logical.EventData

		metadata structpb.Struct
	}
	event.Id, event.Metadata = rand.Text(), &event.metadata
	values := make([]struct {
		structpb.Value

		text structpb.Value_StringValue
	}, len(pairs)/2)
	event.metadata.Fields = make(map[string]*structpb.Value, len(values))
	for i := range values {
		v := &values[i]
		v.text.StringValue, v.Kind = pairs[2*i+1], &v.text
		event.metadata.Fields[pairs[2*i]] = &v.Value
	}
	return &event.EventData
}

// eventOf is event of what became of the credential of r.
func (b *backend) eventOf(what, path string, r *ledger.Record, err error, more ...string) {
	if b.events.nobody.Load() { // so that nobody pays for the pairs
		return
	}
	pairs := append(make([]string, 0, mostOfAnEvent), more...)
	b.event(what, path, err, append(pairs,
		logical.EventMetadataModified, strconv.FormatBool(err == nil), logical.EventMetadataDataPath, tokenPath(r),
		"id", r.ID, "role", r.Role, "account", unretired(r.Account), "username", r.Username,
		"type", typeOf(r).is().name, "token_id", r.TokenID, "token_name", r.Name)...)
}

// tokenPath is where the API tells of r.
func tokenPath(r *ledger.Record) string { return "tokens/" + r.ID }

// eventOfLease is eventOf what l holds.
func (b *backend) eventOfLease(what string, l *lease, err error) {
	if r, e := l.record(); e == nil { // else the request itself has failed for it
		b.eventOf(what, "creds/"+l.Role, r, err)
	}
}

// eventOfRotation tells how a rotation of what k keeps went. Whoever reads data_path gets
// the new one, of a static role.
func (b *backend) eventOfRotation(k *keeper, err error) {
	what, path, data := eventAccountRotate, "rotate-account/"+k.account, accountsPrefix+k.account
	switch {
	case k.role != "":
		what, path, data = eventStaticRotate, "rotate-role/"+k.role, "static-creds/"+k.role
	case k.account == adminAccount:
		what, path, data = eventRootRotate, "rotate-root", configKey
	}
	b.event(what, path, err, logical.EventMetadataModified, strconv.FormatBool(err == nil), logical.EventMetadataDataPath, data)
}

// eventOfTidy tells what a tidy has found.
func (b *backend) eventOfTidy(s *tidyStatus) {
	var err error
	if s.State == tidyFailed {
		err = errors.New(s.Error)
	}
	b.event(eventTidy, "tidy", err,
		logical.EventMetadataModified, strconv.FormatBool(s.Orphans.Done+s.Lost.Done+s.Siblings.Done+s.OtherMounts.Done > 0), logical.EventMetadataDataPath, tidyStatusKey,
		"state", s.State, "dry_run", strconv.FormatBool(s.DryRun),
		"orphan_count", strconv.Itoa(s.Orphans.Count), "lost_count", strconv.Itoa(s.Lost.Count),
		"sibling_count", strconv.Itoa(s.Siblings.Count), "other_mount_count", strconv.Itoa(s.OtherMounts.Count))
}

// telling is handle, of a resource whose events start with name, which sends one where
// it has succeeded, and, of a delete, where read finds that there was something to delete.
func (b *backend) telling(name string, read, handle framework.OperationFunc) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		there := true
		if req.Operation == logical.DeleteOperation {
			have, err := read(ctx, req, d)
			there = err != nil || have != nil // else whoever deletes it finds out
		}
		resp, err := handle(ctx, req, d)
		if err == nil && there {
			what := eventPrefix + name + happened[req.Operation]
			if d.Schema["name"] == nil && req.Operation != logical.DeleteOperation { // there is but one
				what = eventPrefix + name + "-write"
			}
			b.event(what, req.Path, nil, logical.EventMetadataModified, "true", logical.EventMetadataDataPath, req.Path)
		}
		return resp, err
	}
}

// happened ends the name of what each operation did.
var happened = map[logical.Operation]string{
	logical.CreateOperation: "-create", logical.UpdateOperation: "-update", logical.PatchOperation: "-update", logical.DeleteOperation: "-delete",
}
