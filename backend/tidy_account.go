package backend

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// tidyAccount tidies one account.
func (b *backend) tidyAccount(ctx context.Context, log hclog.Logger, s *tidyStatus, mounts *mountIDs, account string) error {
	log = log.With("account", account)
	now := b.now()
	client, err := b.client(ctx, account)
	if err != nil {
		return err
	}
	a, err := b.loginOf(ctx, account)
	if err != nil {
		return err
	}
	if a.traits().expiresOnly { // of which Jira lists nothing
		return nil
	}
	tokens, date, err := client.TokensDated(ctx)
	if err != nil {
		return err
	}
	received := b.now()
	s.Tokens += len(tokens)
	// The list, then a write that only the active node can make, then the
	// records, and only then a delete.
	if err := b.progress(ctx, s); err != nil {
		return err
	}
	// By how much Jira's clock is behind ours at most: what is new is rather taken for newer.
	behind := undatedMargin
	if !date.IsZero() {
		behind = received.Sub(date)
	}
	listed := map[string]jira.Token{} // what is there, by Jira's ids
	var orphans []orphan
	for _, t := range tokens {
		listed[t.ID] = t
		if t.ID == a.OwnTokenID {
			continue
		}
		o, err := b.tidyToken(ctx, log, s, client, mounts, account, a, t)
		if err != nil {
			return err
		}
		if o != nil {
			o.created = t.Created.Add(behind)
			orphans = append(orphans, *o)
		}
	}
	if err := b.tidyOrphans(ctx, log, s, client, orphans); err != nil {
		return err
	}
	return b.tidyLost(ctx, log, s, account, listed, now, behind)
}

// tidyToken looks at one token of the list of account a, and returns it if it is an orphan.
// What the engine did not make goes among s's findings.
func (b *backend) tidyToken(ctx context.Context, log hclog.Logger, s *tidyStatus, client *jira.Client, mounts *mountIDs, account string, a *account, t jira.Token) (*orphan, error) {
	found := finding{
		Account: account, TokenID: t.ID, TokenName: t.Name,
		Created: rfc3339(t.Created), Expires: rfc3339(t.Expires),
	}
	ofMount, id, ok := ledger.ParseName(t.Name)
	found.ID = id
	foreign := (*findings)(nil)
	switch {
	case !ok:
		foreign = &s.Siblings
		if a.Token != "" && a.OwnTokenID == "" && a.RecordID == "" {
			found.Note = "it may be the one that the engine logs in with"
		}
	case b.ledger.State(id) != "": // whatever mount it bears: an id can change
	case mounts.class(ofMount) == classOtherMount:
		foreign = &s.OtherMounts
	case mounts.class(ofMount) == classSibling:
		foreign, found.Note = &s.Siblings, unlisted(ofMount)
	}
	if foreign != nil {
		return nil, b.tidyForeign(ctx, log, s, client, account, a, t, found, foreign, ok)
	}
	r, err := b.ledger.Read(ctx, id)
	if errors.Is(err, ledger.ErrUnreadable) { // it is known, whatever it says
		return nil, nil
	}
	if err != nil && !errors.Is(err, ledger.ErrMissing) {
		return nil, err
	}
	if r == nil || r.State == ledger.Ended || r.TokenID != t.ID && !(r.NeverIssued() && r.Named(t.Name)) { // else the lease's, or the worker's
		return &orphan{found, time.Time{}, r != nil, r == nil && ofMount != mounts.own}, nil
	}
	return nil, nil
}

// tidyForeign adds found, a token t that the engine did not make, to foreign, and ends it if
// the account is exclusive. named tells whether it bears the name of one that an engine made.
func (b *backend) tidyForeign(ctx context.Context, log hclog.Logger, s *tidyStatus, client *jira.Client, account string, a *account, t jira.Token, found finding, foreign *findings, named bool) error {
	if a.Exclusive && !s.DryRun {
		unknown, err := b.strangers(ctx, account, []jira.Token{t}) // Jira may have changed a name
		if err != nil {
			return err
		}
		if len(unknown) == 0 {
			return nil
		}
		err = client.DeleteToken(ctx, t.ID)
		if found.Done = err == nil; err != nil {
			found.Note = err.Error()
		}
		log.Warn("a token of an exclusive account that the engine did not make", "token_id", t.ID, "token_name", t.Name, "deleted", found.Done, "note", found.Note)
	}
	if named && foreign == &s.Siblings && !found.Done {
		s.Unlisted++
		log.Warn("a token bears the name of a mount that is not listed", "token_id", t.ID, "token_name", t.Name)
	}
	foreign.add(found)
	return nil
}

// orphan is a token that bears our name and that the ledger does not know.
type orphan struct {
	finding
	created time.Time // by our clock
	double  bool      // the ledger knows another of its name
	former  bool      // it bears an id that this mount had before
}

// tidyOrphans deals with the orphans of client's user.
func (b *backend) tidyOrphans(ctx context.Context, log hclog.Logger, s *tidyStatus, client *jira.Client, orphans []orphan) error {
	if len(orphans) == 0 {
		return nil
	}
	// One whose lease ended while we looked was forgotten, and is gone.
	tokens, err := client.Tokens(ctx)
	if err != nil {
		return err
	}
	var unwritten error // that storage did not take one says nothing of the others
	for _, o := range orphans {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !slices.ContainsFunc(tokens, func(t jira.Token) bool { return t.ID == o.TokenID }) {
			continue
		}
		var failed error
		switch {
		case (s.DryRun || s.Automatic) && o.former:
			o.Note = "it bears an id that this mount had before: if the original of this Vault still uses that id, write it to other_mount_ids of the config; if not, delete the token with a tidy by hand"
		case s.DryRun || !s.TidyOrphans:
		case s.Automatic && (o.Created == "" || o.created.After(b.ledger.Newest())):
			// This may be a copy of the Vault that made it, which needs it still.
			o.Note = "it is newer than the ledger: if this Vault is not a copy of one that lives, delete it with a tidy by hand"
		default:
			failed = b.endOrphan(ctx, client, o)
			o.Done = failed == nil
			if failed != nil {
				o.Note = failed.Error()
			}
		}
		s.Orphans.add(o.finding)
		log.Warn("a token bears this mount's name, and the ledger does not know it", "token_id", o.TokenID, "token_name", o.TokenName, "deleted", o.Done, "note", o.Note)
		if halts(failed) {
			return failed
		}
		if record := (*ledger.WriteError)(nil); errors.As(failed, &record) {
			unwritten = failed
		}
	}
	return unwritten
}

// endOrphan deletes an orphan. It is owed first, so that the worker goes on
// where this fails, unless its record would be the other's: then the write of
// our progress was the fence.
func (b *backend) endOrphan(ctx context.Context, client *jira.Client, o orphan) error {
	if o.double {
		return client.DeleteToken(ctx, o.TokenID)
	}
	expires, _ := time.Parse(time.RFC3339, o.Expires) // zero if never
	kind := ""
	if client.APITokens() != nil {
		kind = cloudAPITokenTraits.stored
	}
	err := b.ledger.Adopt(ctx, &ledger.Record{
		Type: kind, ID: o.ID, Name: o.TokenName, TokenID: o.TokenID, Site: client.URL(), Account: o.Account,
		Username: client.Username(), IntendedAt: ledger.At(o.created), Expires: ledger.At(expires),
	})
	if state := (*ledger.StateError)(nil); err != nil && !errors.As(err, &state) {
		return err
	}
	if err := client.DeleteToken(ctx, o.TokenID); err != nil {
		return err
	}
	return b.ledger.Forget(ctx, o.ID)
}

// listLag is how long a new token may be missing from Jira's lists.
const listLag = 2 * time.Minute

// tidyLost deals with what a lease holds and Jira does not have any more. listed is
// what it has, by id, and behind by how much its clock is behind ours. An id that a
// younger token has, under another name, shows that Jira was restored from a backup.
func (b *backend) tidyLost(ctx context.Context, log hclog.Logger, s *tidyStatus, account string, listed map[string]jira.Token, now time.Time, behind time.Duration) error {
	for _, id := range b.records(account) {
		r, err := b.ledger.Read(ctx, id)
		if errors.Is(err, ledger.ErrMissing) || errors.Is(err, ledger.ErrUnreadable) {
			continue
		}
		if err != nil {
			return err
		}
		if r.State != ledger.Issued || r.IssuedAt.Time().After(now.Add(-listLag)) {
			continue
		}
		if t, ok := listed[r.TokenID]; ok {
			if isOf(r, t) || !t.Created.Add(behind).After(r.IssuedAt.Time().Add(listLag)) {
				continue
			}
			if !b.ledger.Doubted(r) {
				b.tellRestored(r.Site, account, t.ID, t.Name)
				if err := b.ledger.Doubt(ctx, r.Site); err != nil {
					return err
				}
			}
		}
		found := finding{Account: account, ID: r.ID, TokenID: r.TokenID, TokenName: r.Name, Expires: rfc3339(r.Expires.Time())}
		if !s.DryRun && s.TidyLost {
			if err := b.ledger.Forget(ctx, id); err != nil {
				return err
			}
			found.Done = true
		}
		log.Warn("a token was deleted in Jira while a lease held it", "id", r.ID, "role", r.Role, "token_id", r.TokenID, "token_name", r.Name, "forgotten", found.Done)
		s.Lost.add(found)
	}
	return nil
}
