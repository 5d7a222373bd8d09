package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

func (b *backend) pathListTokens() *framework.Path {
	operations := b.listing("tokens", "the tokens that the ledger knows of", true, b.listTokens, []string{"5b2tq6hznr4wjd7c"}, map[string]any{"5b2tq6hznr4wjd7c": recordExample()})
	list := operations[logical.ListOperation].(*framework.PathOperation) //nolint:errcheck // listing makes no other
	list.Responses[http.StatusOK][0].Fields["next"] = &framework.FieldSchema{Type: framework.TypeString, Description: "Where there may be more: after of the next request."}
	return &framework.Path{
		Pattern:      "tokens/?$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       tokenFilters(),
		Operations:   operations,
		HelpSynopsis: "List the tokens that the ledger knows of: who holds what.",
		HelpDescription: strings.TrimSpace(`
Lists the tokens that there are, or may be, by the ledger's ids, a page at a time,
with who asked for each and how long it lasts.

    vault list -detailed jira/tokens
    vault read -format=json jira/tokens/ list=true role=readonly expiring_within=24h

vault list sends no filters; vault read with list=true, and HTTP, do. Where next is
told there may be more: ask again with it as after.
`),
	}
}

// Who holds what, since when, and for what: the ledger, as security people ask of it.
// Nothing here tells a secret, for the ledger has none.

const (
	// defaultPage and mostPage are how many tokens a list has, in one answer.
	defaultPage = 100
	mostPage    = 1000
	// mostLooked is how many are looked at for one, where only storage knows which are
	// wanted: some four seconds' worth.
	mostLooked = 20 * mostPage
)

func tokenFilters() map[string]*framework.FieldSchema {
	fields := map[string]*framework.FieldSchema{
		"after":           {Type: framework.TypeString, Description: "Go on after this id: next of the answer before."},
		"limit":           {Type: framework.TypeInt, Description: fmt.Sprintf("How many to list, 1 to %d.", mostPage), Default: defaultPage},
		"role":            {Type: framework.TypeString, Description: "Only those of this role; of a static role with static/ before its name."},
		"account":         {Type: framework.TypeString, Description: "Only those of this account."},
		"state":           {Type: framework.TypeString, Description: "Only those that are intended, issued, owed or ended.", AllowedValues: []any{"intended", "issued", "owed", "ended"}},
		"entity_id":       {Type: framework.TypeString, Description: "Only those that this entity of Vault asked for."},
		"unused_for":      {Type: framework.TypeDurationSecond, Description: "Only those that Jira has not seen for so long. Jira is asked, for the tokens of each account."},
		"expiring_within": {Type: framework.TypeDurationSecond, Description: "Only those that Jira itself ends within this time."},
	}
	for _, f := range fields {
		f.Query = true
	}
	return fields
}

// wanted is what a list of tokens was asked for.
type wanted struct {
	ledger.Filter
	after, entity    string
	limit            int
	unused, expiring time.Duration
}

// wantedIn reads it.
func (b *backend) wantedIn(req *logical.Request, d *framework.FieldData) (w wanted, err error) {
	for field := range req.Data {
		if d.Schema[field] == nil && field != "list" {
			return w, fault.Userf("there is no filter %q: there are %s", field[:min(len(field), 64)], strings.Join(slices.Sorted(maps.Keys(tokenFilters())), ", "))
		}
	}
	text := func(field string) string { return d.Get(field).(string) } //nolint:errcheck // the schema's type
	w.after, w.entity = text("after"), text("entity_id")
	w.Account, w.Role, w.State = text("account"), text("role"), ledger.State(text("state"))
	w.limit = d.Get("limit").(int) //nolint:errcheck // the schema's type
	switch {
	case w.after != "" && !ledger.IsID(w.after):
		return w, fault.Userf("after is no id of the ledger's: take next of the answer before")
	case w.limit < 1 || w.limit > mostPage:
		return w, fault.Userf("limit must be 1 to %d", mostPage)
	case w.State != "" && !slices.Contains([]ledger.State{ledger.Intended, ledger.Issued, ledger.Owed, ledger.Ended}, w.State):
		return w, fault.Userf("state must be intended, issued, owed or ended")
	}
	for field, to := range map[string]*time.Duration{"unused_for": &w.unused, "expiring_within": &w.expiring} {
		if *to = time.Duration(d.Get(field).(int)) * time.Second; d.Raw[field] != nil && *to <= 0 { //nolint:errcheck // the schema's type
			return w, fault.Userf("%s must be more than zero", field)
		}
	}
	return w, nil
}

func (b *backend) listTokens(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	w, err := b.wantedIn(req, d)
	if err != nil {
		return nil, err
	}
	if err := b.ledgerIsWhole(); err != nil {
		return nil, err
	}
	ids, infos, next, err := b.find(ctx, &w)
	if err != nil {
		return nil, err
	}
	resp := logical.ListResponseWithInfo(ids, infos)
	if next != "" {
		resp.Data["next"] = next
	}
	return resp, nil
}

// find looks for the records that w wants. next is where to go on, empty at the end.
func (b *backend) find(ctx context.Context, w *wanted) (ids []string, infos map[string]any, next string, err error) {
	used := b.uses()
	infos = map[string]any{}
	// Where only some of a page are wanted, fewer and larger ones are looked at: each
	// goes through the whole index.
	size := w.limit
	if w.entity != "" || w.unused != 0 || w.expiring != 0 {
		size = mostPage
	}
	looked := 0
	for after, more := w.after, true; more && len(ids) < w.limit; {
		if looked >= mostLooked { // else it takes longer than a request may
			if len(ids) == 0 { // which Vault answers with 404, and no next
				return nil, nil, "", fault.Userf("there are none among %d tokens that were looked at: go on with after=%s, or narrow it down with role, account or state", looked, after)
			}
			next = after
			break
		}
		page := b.ledger.Page(w.Filter, after, size+1)
		if more = len(page) > size; more {
			page = page[:size]
		}
		looked += len(page)
		records, err := b.readAll(ctx, page)
		if err != nil {
			return nil, nil, "", err
		}
		for i, r := range records {
			after = page[i]
			if r == nil { // forgotten meanwhile
				continue
			}
			is, err := b.matches(ctx, w, r, used)
			if err != nil {
				return nil, nil, "", err
			}
			if is {
				ids = append(ids, r.ID)
				infos[r.ID] = recordData(r)
			}
			if len(ids) == w.limit {
				if more || i < len(page)-1 {
					next = r.ID
				}
				break
			}
		}
	}
	return ids, infos, next, nil
}

// readsAtOnce is how many records are read at a time: each takes a way to Vault and back.
const readsAtOnce = 16

// readAll reads the records called ids, in their order; nil is one that is missing, or
// damaged.
func (b *backend) readAll(ctx context.Context, ids []string) ([]*ledger.Record, error) {
	records, failed := make([]*ledger.Record, len(ids)), make([]error, len(ids))
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(readsAtOnce, len(ids)) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(ids) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				failed[i] = b.guard(b.log(), func() (err error) {
					if records[i], err = b.ledger.Read(ctx, ids[i]); errors.Is(err, ledger.ErrMissing) || errors.Is(err, ledger.ErrUnreadable) {
						return nil
					}
					return err
				})
			}
		})
	}
	all.Wait()
	return records, errors.Join(append(failed, context.Cause(ctx))...)
}

// matches tells whether r is wanted, by what only storage and Jira know.
func (b *backend) matches(ctx context.Context, w *wanted, r *ledger.Record, used func(context.Context, *ledger.Record) (time.Time, bool, error)) (bool, error) {
	now := b.now()
	if w.entity != "" && r.Reader.EntityID != w.entity || w.expiring > 0 && (r.Expires == 0 || r.Expires.Time().After(now.Add(w.expiring))) {
		return false, nil
	}
	if w.unused == 0 {
		return true, nil
	}
	if r.State != ledger.Issued {
		return false, nil
	}
	last, known, err := used(ctx, r)
	if err != nil {
		return false, fmt.Errorf("asking Jira what account %q uses: %w", r.Account, err)
	}
	if last.IsZero() {
		last = r.IssuedAt.Time()
	}
	return known && now.Sub(last) >= w.unused, nil
}

// uses tells when Jira has last seen a token, zero if never, and whether that is known.
// Each account is asked once.
func (b *backend) uses() func(context.Context, *ledger.Record) (time.Time, bool, error) {
	lists := map[string][]jira.Token{}
	return func(ctx context.Context, r *ledger.Record) (time.Time, bool, error) {
		if !typeOf(r).is().personal { // of which Jira does not tell
			return time.Time{}, false, nil
		}
		list, ok := lists[r.Account]
		if !ok {
			client, err := b.client(ctx, r.Account)
			if err != nil {
				return time.Time{}, false, err
			}
			if list, err = client.Tokens(ctx); err != nil {
				return time.Time{}, false, err
			}
			lists[r.Account] = list
		}
		i := slices.IndexFunc(list, func(t jira.Token) bool { return t.ID == r.TokenID })
		if i < 0 {
			return time.Time{}, false, nil
		}
		return list[i].LastUsed, true, nil
	}
}
