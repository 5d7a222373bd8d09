package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/ledger"
)

// A token's name says which mount made it, and proves nothing: who holds a token of an
// account can give another of it any name. So only the operator says which mounts there
// are beside this one. Which ids were this one's own is stored.

// mostMountIDs bounds the ids that were once this mount's own.
const mostMountIDs = 100

// mountIDs are the ids of mounts that names can bear.
type mountIDs struct {
	own    string
	former []string // this mount's own, before it was given another
	others []string // of mounts that the operator has listed
}

// mountIDs reads them.
func (b *backend) mountIDs(ctx context.Context) (*mountIDs, error) {
	own, err := b.mount.get(ctx, &b.decoded, b.storage)
	if err != nil {
		return nil, err
	}
	former, err := load[[]string](ctx, &b.decoded, b.storage, formerMountIDsKey)
	if err != nil {
		return nil, err
	}
	c, err := load[config](ctx, &b.decoded, b.storage, configKey)
	if err != nil {
		return nil, err
	}
	m := &mountIDs{own: own}
	if former != nil {
		m.former = *former
	}
	if c != nil {
		m.others = strings.Fields(c.OtherMountIDs)
	}
	return m, nil
}

// class is what a token is that bears the id of a mount and that the ledger does not know.
func (m *mountIDs) class(id string) string {
	switch {
	case id == m.own:
		return classOrphan
	case slices.Contains(m.others, id):
		return classOtherMount
	case slices.Contains(m.former, id): // whose original may live on
		return classOrphan
	default:
		return classSibling
	}
}

// rotate gives the mount another id, and remembers the one that it had.
func (m *mountID) rotate(ctx context.Context, known *decoded, s logical.Storage) (was, id string, err error) {
	if was, err = m.get(ctx, known, s); err != nil {
		return "", "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	former, err := load[[]string](ctx, known, s, formerMountIDsKey)
	if err != nil {
		return "", "", err
	}
	var all []string
	if former != nil {
		all = slices.DeleteFunc(slices.Clone(*former), func(id string) bool { return id == was })
	}
	all = append(all, was)
	// First the former ones: the one that is in use is nobody else's meanwhile.
	if err := store(ctx, s, formerMountIDsKey, all[max(0, len(all)-mostMountIDs):]); err != nil {
		return "", "", err
	}
	id = ledger.NewMountID()
	if err := store(ctx, s, mountIDKey, id); err != nil {
		m.id = "" // storage may have it all the same
		return "", "", err
	}
	m.id = id
	return was, id, nil
}

// otherMountIDs are ids as an operator lists them, in one text: a config is comparable.
func otherMountIDs(ids []string) string {
	return strings.Join(strings.Fields(strings.ToLower(strings.Join(ids, " "))), " ")
}

// validateOthers refuses what cannot be the id of another mount.
func (b *backend) validateOthers(ctx context.Context, c *config) error {
	own, err := b.mount.get(ctx, &b.decoded, b.storage)
	if err != nil {
		return err
	}
	ids := strings.Fields(c.OtherMountIDs)
	for i, id := range ids {
		switch {
		case !ledger.IsMountID(id):
			return fault.Userf("other_mount_ids holds %.32q, which is not the id of a mount: it has 6 letters and digits from 2 to 7, and stands behind vault- in the names of its tokens", id)
		case id == own:
			return fault.Userf("other_mount_ids holds %q, which is this mount's own id", id)
		case slices.Contains(ids[:i], id):
			return fault.Userf("other_mount_ids names %q twice", id)
		}
	}
	return nil
}

// unlisted is what is noted of a token that bears the id of a mount that nobody has listed.
func unlisted(id string) string {
	return fmt.Sprintf("it bears the id of a mount, %s, that other_mount_ids of the config does not list", id)
}
