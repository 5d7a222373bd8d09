package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

// Jira gives out each id of a token once, and each is higher than those before
// it. When its database is restored from a backup it starts again from the ids of
// that day. Then an id in a record may be that of another token, of another lease
// or of a person. The first mint after the restore shows it: its id is not higher
// than what the ledger knew when the mint began. From then on the records from
// before are doubted ([Ledger.Doubted]): only an id together with its name tells
// which token is theirs.

// restoredKey is where it is stored when a site was found to be restored. It is
// in no folder, so it is no record.
const restoredKey = "restored"

// sites is what is known of the ids that each site gives out. The zero value is
// ready for use.
type sites struct {
	mu       sync.Mutex
	restored map[string]Time   // when a restore was found out
	highest  map[string]uint64 // ids of tokens, where they are numbers
}

// load reads when sites were restored.
func (s *sites) load(ctx context.Context, storage logical.Storage) error {
	entry, err := storage.Get(ctx, restoredKey)
	if err != nil {
		return fmt.Errorf("reading when sites were restored: %w", err)
	}
	restored := map[string]Time{}
	if entry != nil {
		if err := json.Unmarshal(entry.Value, &restored); err != nil {
			return errors.New("what is stored of restored sites does not parse")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restored = restored
	return nil
}

// see notes the id of r's token, if r was made since its site was restored.
func (s *sites) see(r *Record) {
	id, ok := number(r.TokenID)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.IntendedAt <= s.restored[r.Site] || id <= s.highest[r.Site] {
		return
	}
	if s.highest == nil {
		s.highest = map[string]uint64{}
	}
	s.highest[r.Site] = id
}

// number is the id of a token where it is one. Jira Cloud's are not.
func number(tokenID string) (id uint64, ok bool) {
	id, err := strconv.ParseUint(tokenID, 10, 64)
	return id, err == nil
}

// Highest is the highest id of a token that the ledger knows of a site, be its
// record forgotten since; 0 if none. Ask before the mint whose id is to be
// compared: of two that run at a time the later id may come first.
func (l *Ledger) Highest(site string) uint64 {
	l.sites.mu.Lock()
	defer l.sites.mu.Unlock()
	return l.sites.highest[site]
}

// Known tells whether a record, be its credential ended, has this id of a token
// of this site. It is what this process knows; see [Ledger.Whole].
func (l *Ledger) Known(site, tokenID string) bool {
	return l.index.known(site, tokenID)
}

// Restored tells whether tokenID, the id of a token that a site has just made,
// shows that the site was restored from a backup: a record has the id, or it is
// not above highest, which is what [Ledger.Highest] was before the mint. If so, it
// does what [Ledger.Doubt] does.
func (l *Ledger) Restored(ctx context.Context, site, tokenID string, highest uint64) (bool, error) {
	if id, ok := number(tokenID); !l.Known(site, tokenID) && (!ok || id > highest) {
		return false, nil
	}
	return true, l.Doubt(ctx, site)
}

// Doubt writes that a site was found to be restored from a backup. Every record of it
// that is there now is [Ledger.Doubted] from then on, even where the write fails.
func (l *Ledger) Doubt(ctx context.Context, site string) error {
	l.sites.mu.Lock()
	restored := maps.Clone(l.sites.restored)
	if restored == nil {
		restored = map[string]Time{}
	}
	restored[site] = At(l.now())
	l.sites.restored = restored   // first in memory: until it is stored, too, nobody ends what may be another's
	delete(l.sites.highest, site) // what was known of it is of the time before
	l.sites.mu.Unlock()
	value, err := json.Marshal(restored)
	if err == nil {
		err = l.storage.Put(ctx, &logical.StorageEntry{Key: restoredKey, Value: value})
	}
	if err != nil {
		return fmt.Errorf("writing that a site was restored: %w", err)
	}
	return nil
}

// Doubted tells whether r's id may be that of another token by now: r was made
// before its site was restored, or the ledger knows nothing of when it was made.
func (l *Ledger) Doubted(r *Record) bool {
	l.sites.mu.Lock()
	defer l.sites.mu.Unlock()
	return r.IntendedAt == 0 || r.IntendedAt <= l.sites.restored[r.Site]
}
