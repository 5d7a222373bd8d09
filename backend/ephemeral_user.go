package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-secure-stdlib/base62"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// A throw-away user is made for one lease, put where its role says, and ended
// with it:
//
//	ledger: intend → user → each group → each project role → his token → ledger: issue → lease
//
// His name is known before Jira is asked, and holds the ledger's id. So whatever
// step a crash comes after, the record leads to him: to end him is to delete him,
// which takes along his token and all that was made with it. Where Jira does not
// let go of a user, because he reported something, he is stripped of all he was
// given and deactivated, which stops his tokens.
//
// Nobody is ever deleted or deactivated whose name does not hold the id of the
// record that he is to be ended for.

// ephemeralUser is a personal access token of a user who is made for its lease.
type ephemeralUser struct{}

var ephemeralUserTraits = traits{name: "ephemeral_user", stored: "ephemeral_user", secretType: userSecret, throwAway: true}

// userSecret is the type of a lease that holds the token of a throw-away user.
const userSecret = "jira_ephemeral_user"

func (ephemeralUser) is() *traits { return &ephemeralUserTraits }

// adminAccount is who looks after throw-away users, where records name an
// account: the config's admin. No account can have this name.
const adminAccount = retiredMark + "admin"

// admin returns the client of the config's admin, who makes and ends throw-away
// users.
func (b *backend) admin(c *config) (*jira.Client, error) {
	if c.cloud() {
		return nil, fault.Userf("credential_type=ephemeral_user is for Jira Data Center: on Jira Cloud nobody can make users that log in with a password")
	}
	if c.Admin.kind() == "" {
		return nil, fault.Userf("credential_type=ephemeral_user needs the admin credential, to make and delete users: write config with username, and token or password, of a Jira administrator")
	}
	return b.sites.client(c, adminAccount, c.adminAsAccount())
}

// adminAsAccount is c's admin where an account is wanted.
func (c *config) adminAsAccount() *account {
	return &account{Type: accountTypeUser, credential: c.Admin}
}

// password makes one as the config's password_policy says. Where it names none
// that is some 166 bits, in letters and digits, with one of each kind at the end
// that Jira's own policies ask for.
func (b *backend) password(ctx context.Context, c *config) (string, error) {
	if c.PasswordPolicy == "" {
		p, err := base62.Random(28)
		return p + "-aA1", err
	}
	p, err := b.System().GeneratePasswordFromPolicy(ctx, c.PasswordPolicy)
	if err != nil {
		return "", fault.Userf("password_policy %q: %v", c.PasswordPolicy, err)
	}
	return p, nil
}

// make makes the user of m, puts him where his role says, and makes his token. Its error
// tells too, by made, whether he may be there, though nothing was made by the call that
// failed.
func (ephemeralUser) make(ctx context.Context, _ *backend, m *mint) (token jira.Token, secret string, made bool, err error) {
	user, err := m.client.CreateUser(ctx, m.user)
	if err != nil {
		made = !jira.NothingMade(err)
		if jira.Is(err, jira.Denied) && !made {
			// Somebody may have been made all the same, as where a seat was missing.
			_, _, found, unknown := m.client.FindUser(ctx, m.user.Name)
			made = found || unknown != nil
		}
		return token, "", made, fmt.Errorf("making user %q: %w", m.user.Name, err)
	}
	m.record.UserKey = user.Key
	for _, g := range m.scope.Groups {
		if err := join(ctx, m.client, g, m.user.Name); err != nil {
			return token, "", true, fmt.Errorf("putting user %q into group %q: %w", m.user.Name, g, err)
		}
	}
	for i, r := range m.scope.ProjectRoleIDs {
		key, id, _ := strings.Cut(r, "/")
		if err := m.client.AddToRole(ctx, key, id, m.user.Name); err != nil {
			return token, "", true, fmt.Errorf("giving user %q role %q: %w", m.user.Name, m.scope.ProjectRoles[i], err)
		}
	}
	he := m.client.As(jira.Login{Username: m.user.Name, Password: m.user.Password})
	token, secret, err = he.CreateToken(ctx, m.record.Name, days(m.max))
	if err != nil {
		err = fmt.Errorf("minting as user %q: %w", m.user.Name, err)
		if jira.Is(err, jira.Denied) || jira.Is(err, jira.Refused) {
			err = fmt.Errorf("%w; he logs in with his password: where Basic authentication is switched off in Jira, put the path /rest/pat on its allow-list (System, Security, Basic authentication, or /rest/basicauth/1.0/config)", err)
		}
	}
	return token, secret, true, err
}

// join puts a new user into a group, unless he is in it already, as a user of an
// application is in the application's.
func join(ctx context.Context, admin *jira.Client, group, name string) error {
	err := admin.AddToGroup(ctx, group, name)
	if !jira.Is(err, jira.Denied) {
		return err
	}
	if _, groups, found, e := admin.FindUser(ctx, name); e == nil && found && slices.ContainsFunc(groups, func(g string) bool { return strings.EqualFold(g, group) }) {
		return nil
	}
	return err
}

// end ends the throw-away user of r, and all that he could log in with. No
// error means that he is proven gone, or inactive and stripped of what he was
// given.
func (ephemeralUser) end(ctx context.Context, log hclog.Logger, b *backend, admin *jira.Client, r *ledger.Record) error {
	name := r.Username
	if r.ID == "" || !strings.Contains(name, r.ID) {
		return &jira.Error{Kind: jira.Nonsense, Words: fmt.Sprintf("user %q is none that was made for record %q: he is left alone", name, r.ID)}
	}
	log = log.With("username", name)
	if r.OnRevoke != onRevokeDeactivate {
		there, err := admin.DeleteUser(ctx, name)
		if err == nil && !there {
			return b.wasRenamed(ctx, admin, r)
		}
		if err == nil || !jira.Is(err, jira.Denied) {
			return err
		}
		log.Warn("Jira does not delete a throw-away user: he is stripped and deactivated instead", "error", err)
	}
	return b.deactivate(ctx, log, admin, r)
}

// deactivate strips the user of r of all that he was given, and deactivates him.
func (b *backend) deactivate(ctx context.Context, log hclog.Logger, admin *jira.Client, r *ledger.Record) error {
	name := r.Username
	u, groups, found, err := admin.FindUser(ctx, name)
	if err == nil && !found {
		err = b.wasRenamed(ctx, admin, r)
	}
	if err != nil || !found {
		return err
	}
	// First what stops him at once, then what he should not keep.
	if u.Active {
		if err := admin.Deactivate(ctx, name); err != nil {
			return fmt.Errorf("deactivating user %q: %w", name, err)
		}
	}
	var failed error
	for _, g := range groups {
		if err := admin.RemoveFromGroup(ctx, g, name); err != nil {
			failed = errors.Join(failed, fmt.Errorf("taking user %q out of group %q: %w", name, g, err))
		}
	}
	for role := range strings.FieldsSeq(r.ProjectRoles) {
		key, id, _ := strings.Cut(role, "/")
		if err := admin.RemoveFromRole(ctx, key, id, name); err != nil {
			failed = errors.Join(failed, fmt.Errorf("taking role %q from user %q: %w", role, name, err))
		}
	}
	if failed != nil {
		return failed
	}
	// His token is dead while he is inactive, and need not come back with him. In
	// another Jira than the one that made it, and in one that was restored, its id may
	// be somebody else's.
	if r.TokenID != "" && b.certain(admin, r) {
		if err := admin.DeleteToken(ctx, r.TokenID); err != nil {
			log.Warn("the token of a deactivated user could not be deleted: it would work again if he were activated", "token_id", r.TokenID, "error", err)
		}
	}
	u, _, found, err = admin.FindUser(ctx, name)
	if err == nil && found && u.Active {
		err = &jira.Error{Kind: jira.Nonsense, Words: fmt.Sprintf("user %q was deactivated, and Jira shows him as active", name)}
	}
	if err != nil {
		return err
	}
	log.Info("a throw-away user is deactivated")
	return nil
}

// wasRenamed fails if the user of r, of whose name there is nobody, has another name
// now and is active. They are left alone, for their name is not one that was made for r;
// only the token, whose name is, is ended.
func (b *backend) wasRenamed(ctx context.Context, admin *jira.Client, r *ledger.Record) error {
	if r.UserKey == "" {
		return nil
	}
	u, _, found, err := admin.FindUserByKey(ctx, r.UserKey)
	if err != nil {
		return fmt.Errorf("looking for user %q by his key: %w", r.Username, err)
	}
	if !found || !u.Active || strings.EqualFold(u.Name, r.Username) { // of that name, he is gone since
		return nil
	}
	// A Jira that was restored from a backup gives out keys and ids again. So this is the
	// user only if their name for people tells so, or the token that was made for them.
	same := strings.Contains(u.DisplayName, r.ID)
	became := "its token may live"
	if r.TokenID != "" && r.Site == admin.URL() {
		another := false
		err := admin.DeleteOthersToken(ctx, r.TokenID, func(t jira.Token) bool {
			another = !isOf(r, t)
			return !another
		})
		switch {
		case err != nil:
			became = "its token could not be ended: " + err.Error()
		case !another:
			same, became = true, "its token is ended"
		case !same:
			return nil
		}
	}
	if !same && !b.certain(admin, r) {
		return nil
	}
	return &jira.Error{Kind: jira.Nonsense, Words: fmt.Sprintf("somebody renamed user %q to %q", r.Username, u.Name), Advice: became + "; delete or deactivate the user in Jira, for the engine touches nobody whose name is not of its making"}
}

func (u ephemeralUser) settleLost(ctx context.Context, log hclog.Logger, b *backend, admin *jira.Client, r *ledger.Record, _ []jira.Token, clock clock) error {
	_, _, found, err := admin.FindUser(ctx, r.Username)
	if err != nil {
		return b.notEnded(log, r, r.TokenID, err)
	}
	if !found {
		since := clock.surely.Sub(r.IntendedAt.Time())
		switch {
		case r.State == ledger.Intended && since < ledger.LateLanding:
			return unlessSettled(b.ledger.Sought(ctx, r.ID))
		case since < listLag: // a node of Jira's may not show him yet
			b.ledger.Postpone(r.ID, listLag)
			return nil
		}
	} else {
		if err := b.ledger.Found(ctx, r.ID, r.TokenID); err != nil {
			return unlessSettled(err)
		}
		if err := u.end(ctx, log, b, admin, r); err != nil {
			return b.notEnded(log, r, r.TokenID, err)
		}
	}
	if err := b.ledger.Forget(ctx, r.ID); err != nil {
		return err
	}
	b.paid(r.ID)
	log.Info("a lost mint is settled", "id", r.ID, "username", r.Username, "user_ended", found)
	return nil
}

func (ephemeralUser) lookUp(ctx context.Context, admin *jira.Client, r *ledger.Record) (there bool, lastUsed time.Time, err error) {
	u, _, found, err := admin.FindUser(ctx, r.Username)
	return found && u.Active, time.Time{}, err
}

// probe makes a throw-away user as role name would, and ends him again: that
// shows that his groups are there, that users can be made and can mint, and
// whether they administer Jira.
func (b *backend) probe(ctx context.Context, by ledger.Reader, name string, r *role, c *config) error {
	return b.trial(ctx, by, name, c, r, func(m *mint, he *jira.Client) error {
		is, err := he.Administrator(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("asking what user %q may do: %w", m.user.Name, err)
		case is && !r.AllowAdmin:
			return fault.Userf("a user with these groups and project_roles administers Jira: take others, or set allow_admin=true")
		}
		return nil
	})
}

func (ephemeralUser) prepare(ctx context.Context, b *backend, m *mint, c *config, r *role, _ *account) (err error) {
	if err := c.consents(m.record.Role, r); err != nil {
		return err
	}
	if m.client, err = b.admin(c); err != nil {
		return err
	}
	m.api = m.client.Site()
	mount, _, _ := ledger.ParseName(m.record.Name)
	m.scope = &r.userScope
	m.user, err = r.fill(persona{ID: m.record.ID, MountID: mount, RoleName: m.record.Role, DisplayName: m.record.Reader.DisplayName})
	if err != nil {
		return err
	}
	if m.user.Password, err = b.password(ctx, c); err != nil {
		return err
	}
	m.record.Account, m.record.Site, m.record.Username = adminAccount, m.client.URL(), m.user.Name
	m.record.OnRevoke, m.record.ProjectRoles = r.OnRevoke, strings.Join(r.ProjectRoleIDs, " ")
	return nil
}

// enlist writes the intent for a throw-away user of role r. The error is an inDoubt
// where nobody knows what became of another, and a [fault.Capacity] where the role has as many
// as it may.
func (b *backend) enlist(ctx context.Context, m *mint, c *config, r *role) error {
	t := typeNamed(r.CredentialType)
	m.record.Type = t.is().stored
	if err := t.prepare(ctx, b, m, c, r, nil); err != nil {
		return err
	}
	if b.ledger.InDoubt(adminAccount) {
		return &inDoubt{[]string{adminAccount}}
	}
	err := b.ledger.Intend(ctx, m.record, ledger.Room{Role: r.MaxLeases, Reader: r.MaxPerEntity})
	if taken := (*ledger.FullError)(nil); errors.As(err, &taken) {
		return roleIsFull(m.record, taken, adminAccount)
	}
	return err
}
