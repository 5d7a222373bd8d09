package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// What Jira's tokens of an account are to the engine.
const (
	classLease      = "lease"       // the ledger has it, and a lease holds it, or did
	classOwn        = "own"         // the engine logs in with it, or did until a moment ago
	classStatic     = "static"      // a static role's
	classOrphan     = "orphan"      // it bears this mount's name, and the ledger does not know it
	classSibling    = "sibling"     // somebody made it by hand, or with another, whatever it is called
	classOtherMount = "other_mount" // it bears the name of a mount that the operator has listed
)

func (b *backend) pathAccountTokens() *framework.Path {
	return &framework.Path{
		Pattern:      "accounts/(?P<name>[^/]+)/tokens",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"name":            nameField("account"),
			"unused_for":      {Type: framework.TypeDurationSecond, Description: "How long Jira has not seen one that is marked as unused.", Default: 30 * 24 * 3600, Query: true},
			"expiring_within": {Type: framework.TypeDurationSecond, Description: "How soon Jira ends one that is marked as expiring.", Default: 14 * 24 * 3600, Query: true},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.edge(b.readAccountTokens),
				Summary:  "Read which tokens Jira has of an account, whoever made them.",
				Responses: answered(map[string]*framework.FieldSchema{
					"tokens": {Type: framework.TypeSlice, Required: true, Description: "The tokens. Each has token_id, token_name, class (lease, own, static, orphan, sibling, other_mount), id (the ledger's, where its name tells it), state (the ledger's), created, expires, last_accessed_at (all RFC 3339 in UTC), and eternal, unused and expiring (not of a lease's, which is to)."},
					"counts": {Type: framework.TypeMap, Required: true, Description: "How many there are of each class, and that are eternal, unused and expiring."},
				}, &logical.Response{Data: map[string]any{
					"tokens": []map[string]any{{
						"token_id": "401", "token_name": "made by hand", "class": "sibling", "id": "", "state": "",
						"created": "2025-11-02T08:15:09Z", "expires": "", "last_accessed_at": "2025-12-24T17:00:00Z", "eternal": true, "unused": true, "expiring": false,
					}},
					"counts": map[string]any{"lease": 0, "own": 0, "static": 0, "orphan": 0, "sibling": 1, "other_mount": 0, "eternal": 1, "unused": 1, "expiring": 0},
				}}),
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "account-tokens"},
			},
		},
		HelpSynopsis: "Which tokens Jira has of an account, whoever made them.",
		HelpDescription: strings.TrimSpace(`
Asks Jira for all tokens of an account's user and says of each what it is: of a lease,
the engine's own, a static role's, one that bears this mount's name and is not known,
another mount's that the config lists, or one that somebody made. Those that never expire, that nobody has
used for long, and that are about to expire are marked. Nothing is changed.

    vault read -format=json jira/accounts/ci-bot/tokens
`),
	}
}

func (b *backend) readAccountTokens(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "an account")
	if err != nil {
		return nil, err
	}
	a, err := b.loadAccount(ctx, name)
	if err != nil {
		return nil, err
	}
	if a.traits().expiresOnly {
		return nil, fault.Userf("account %q is of type %s: Jira does not list access tokens", name, a.Type)
	}
	unused, expiring := time.Duration(d.Get("unused_for").(int))*time.Second, time.Duration(d.Get("expiring_within").(int))*time.Second //nolint:errcheck // the schema's type
	if unused <= 0 || expiring <= 0 {
		return nil, fault.Userf("unused_for and expiring_within must be more than zero")
	}
	if err := b.ledgerIsWhole(); err != nil {
		return nil, err
	}
	mounts, err := b.mountIDs(ctx)
	if err != nil {
		return nil, err
	}
	client, err := b.client(ctx, name)
	if err != nil {
		return nil, err
	}
	tokens, date, err := client.TokensDated(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the tokens of user %q: %w", client.Username(), err)
	}
	now := date // by Jira's clock, which has made the times
	if now.IsZero() {
		now = b.now()
	}
	return b.audit(ctx, mounts, a, tokens, now, unused, expiring)
}

// audit lists the tokens of account a by what they are, and counts them. Marked are those that
// never end, that were not used for so long by now, and that end so soon.
func (b *backend) audit(ctx context.Context, mounts *mountIDs, a *account, tokens []jira.Token, now time.Time, unused, expiring time.Duration) (*logical.Response, error) {
	counts := map[string]int{classLease: 0, classOwn: 0, classStatic: 0, classOrphan: 0, classSibling: 0, classOtherMount: 0, "eternal": 0, "unused": 0, "expiring": 0}
	list := make([]map[string]any, 0, len(tokens))
	for _, t := range tokens {
		class, id, state, err := b.classify(ctx, mounts, a, t)
		if err != nil {
			return nil, err
		}
		last := t.LastUsed
		if last.IsZero() {
			last = t.Created
		}
		marks := map[string]bool{
			"eternal": t.Expires.IsZero(),
			"unused":  !last.IsZero() && now.Sub(last) >= unused,
			// A lease's is to end soon.
			"expiring": class != classLease && !t.Expires.IsZero() && t.Expires.Sub(now) <= expiring,
		}
		counts[class]++
		one := map[string]any{
			"token_id": t.ID, "token_name": t.Name, "class": class, "id": id, "state": string(state),
			"created": rfc3339(t.Created), "expires": rfc3339(t.Expires), "last_accessed_at": rfc3339(t.LastUsed),
		}
		for mark, is := range marks {
			one[mark] = is
			if is {
				counts[mark]++
			}
		}
		list = append(list, one)
	}
	data := map[string]any{}
	for class, n := range counts {
		data[class] = n
	}
	return &logical.Response{Data: map[string]any{"tokens": list, "counts": data}}, nil
}

// classify tells what a token of account a is, by its name and the ledger, and the ledger's
// id and state of it if it has one.
func (b *backend) classify(ctx context.Context, mounts *mountIDs, a *account, t jira.Token) (class, id string, state ledger.State, err error) {
	ofMount, id, made := ledger.ParseName(t.Name)
	class = classSibling
	r, err := (*ledger.Record)(nil), ledger.ErrMissing
	if made {
		r, err = b.ledger.Read(ctx, id)
		if errors.Is(err, ledger.ErrUnreadable) { // it is known, whatever it says
			r, err = &ledger.Record{TokenID: t.ID}, nil
		}
		if err != nil && !errors.Is(err, ledger.ErrMissing) {
			return "", "", "", err
		}
	}
	switch {
	case t.ID == a.OwnTokenID || t.ID == a.PreviousTokenID:
		class = classOwn
	case !made:
	case err == nil && (r.TokenID == t.ID || r.NeverIssued() && r.Named(t.Name)):
		class, state = map[ledger.Keeping]string{"": classLease, ledger.KeptOwn: classOwn, ledger.KeptStatic: classStatic}[r.Kept], r.State
	case err == nil: // the ledger knows another of its name
		class = classOrphan
	default:
		class = mounts.class(ofMount)
	}
	return class, id, state, nil
}
