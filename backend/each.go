package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// mostAtOnce is how many records of an account are settled at a time. The
// site's gate lets through fewer where it has to.
const mostAtOnce = 16

// each calls do for every record, several at a time, until an error halts it. A record
// that could not be written rests, and the others are done. Where the site was down the
// first goes alone: no other call is let in until that has succeeded.
func (b *backend) each(log hclog.Logger, records []*ledger.Record, do func(*ledger.Record) error) error {
	var (
		mu        sync.Mutex
		failed    error
		halted    bool
		unwritten streak
		places    = make(chan struct{}, mostAtOnce)
		all       sync.WaitGroup
		down      = b.sites.down()
	)
	for i, r := range records {
		if i == 1 && down {
			all.Wait()
		}
		places <- struct{}{}
		mu.Lock()
		stop := halted
		mu.Unlock()
		if stop {
			break
		}
		all.Go(func() {
			defer func() { <-places }()
			err := b.guard(log, func() error { return b.rested(r, do(r)) })
			mu.Lock()
			defer mu.Unlock()
			err = unwritten.after(err)
			if halts(err) && !halted { // it is what the caller has to know
				failed, halted = err, true
			}
			if failed == nil {
				failed = err
			}
		})
	}
	all.Wait()
	return failed
}

// mostUnwritten is how many records in a row that cannot be written make it likely
// that storage is away.
const mostUnwritten = 3

// streak is how many records in a row could not be written.
type streak int

// after counts err, of what was done for one record, and is err, or that storage is away.
func (s *streak) after(err error) error {
	if record := (*ledger.WriteError)(nil); !errors.As(err, &record) {
		*s = 0
	} else if *s++; *s >= mostUnwritten {
		return &storageAway{err}
	}
	return err
}

// storageAway is that so many could not be written.
type storageAway struct{ last error }

// Error says why the last could not.
func (s *storageAway) Error() string {
	return fmt.Sprintf("%d records in a row could not be written: %v", mostUnwritten, s.last)
}

// Unwrap is why the last could not.
func (s *storageAway) Unwrap() error { return s.last }

// rested is err, of what was done for r. A record that storage did not take rests, for
// others may fare better.
func (b *backend) rested(r *ledger.Record, err error) error {
	if record := (*ledger.WriteError)(nil); errors.As(err, &record) {
		b.ledger.Later(r.ID, backoff(b.now().Sub(sinceOf(r))))
	}
	return err
}

// halts tells whether err concerns more than one record: the site does not
// work, the account cannot log in, this node may not write, storage is away.
func halts(err error) bool {
	one, record, away := (*jira.Error)(nil), (*ledger.WriteError)(nil), (*storageAway)(nil)
	switch {
	case err == nil:
		return false
	case errors.As(err, &away):
		return true
	case errors.As(err, &one):
		return one.Kind != jira.Denied && one.Kind != jira.Nonsense
	case errors.As(err, &record): // as it is where the record alone cannot be stored
		return errors.Is(err, logical.ErrReadOnly) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	}
	return true
}
