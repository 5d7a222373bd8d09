package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

func (b *backend) pathCheck() *framework.Path {
	return &framework.Path{
		Pattern:      "roles/(?P<name>[^/]+)/check",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       map[string]*framework.FieldSchema{"name": nameField("role")},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.edge(b.writeCheck),
				Summary:  "See what the credentials of a role can really do.",
				Examples: []framework.RequestExample{{Description: "See what the credentials of a role can really do.", Data: map[string]any{}}},
				Responses: answered(map[string]*framework.FieldSchema{
					"subjects":       {Type: framework.TypeSlice, Required: true, Description: "Whose credentials the role hands out. Each has account (empty for an ephemeral_user), username, administrator, and permissions: Jira's keys of those he has, by project, with Jira's own and those of any project under an empty key. Of a project that he does not see, or that is not there, the list is empty."},
					"not_allowed":    {Type: framework.TypeStringSlice, Required: true, Description: "The permissions that one of them has and the role's allowed_permissions do not name. All, where it names none."},
					"within_allowed": {Type: framework.TypeBool, Required: true, Description: "Nobody has more than allowed_permissions."},
				}, &logical.Response{Data: map[string]any{
					"subjects": []map[string]any{{
						"account": "ci-bot", "username": "ci-bot", "administrator": false,
						"permissions": map[string][]string{"": {"BROWSE_PROJECTS", "CREATE_ISSUES"}, "OPS": {"BROWSE_PROJECTS"}},
					}},
					"not_allowed": []string{"CREATE_ISSUES"}, "within_allowed": false,
				}}),
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "check", OperationSuffix: "role"},
			},
		},
		HelpSynopsis: "See what the credentials of a role can really do.",
		HelpDescription: strings.TrimSpace(`
Makes a credential as a reader of the role would get it, one for each of its
accounts, asks Jira with it what it may do, and ends it. Compare the answer with
what the role is for, and write what it should be at most as allowed_permissions:

    vault write -f jira/roles/readonly/check
    vault write jira/roles/readonly allowed_permissions=BROWSE_PROJECTS enforce_permissions=true

With enforce_permissions a write of the role is refused that hands out more, and
the engine looks again once a day.
`),
	}
}

// limits are what the credentials of a role should be able to do at most, as part
// of the role.
type limits struct {
	AllowedPermissions []string `json:"allowed_permissions,omitempty"`
	EnforcePermissions bool     `json:"enforce_permissions,omitempty"`
	CheckProjects      []string `json:"check_projects,omitempty"`
}

// permissionPattern is what Jira's keys of permissions look like, those of its
// apps among them.
var permissionPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.:-]*$`)

func (l *limits) validate() error {
	for _, p := range l.AllowedPermissions {
		if !permissionPattern.MatchString(p) {
			return fault.Userf("allowed_permissions holds %q, which is no key of a permission: they look like BROWSE_PROJECTS", p)
		}
	}
	for _, p := range l.CheckProjects {
		if !jira.IsProjectKey(p) {
			return fault.Userf("check_projects holds %q, which is no key of a project", p)
		}
	}
	if l.EnforcePermissions && len(l.AllowedPermissions) == 0 {
		return fault.Userf("enforce_permissions needs allowed_permissions: what a credential may be able to do at most")
	}
	return nil
}

// verdict is what the credentials of a role can do.
type verdict struct {
	subjects   []map[string]any
	notAllowed []string
}

func (b *backend) writeCheck(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "a role")
	if err != nil {
		return nil, err
	}
	r, err := b.loadRole(ctx, name)
	if err != nil {
		return nil, err
	}
	v, err := b.check(ctx, readerOf(req), name, r)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{
		"subjects": v.subjects, "not_allowed": append([]string{}, v.notAllowed...), "within_allowed": len(v.notAllowed) == 0,
	}}, nil
}

// check finds out what the credentials of role r, called name, can do, with one
// of each of its accounts.
func (b *backend) check(ctx context.Context, by ledger.Reader, name string, r *role) (*verdict, error) {
	c, err := b.loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	projects := append([]string{""}, r.CheckProjects...)
	for _, one := range r.ProjectRoles {
		key, _, _ := strings.Cut(one, ":")
		projects = append(projects, key)
	}
	slices.Sort(projects)
	projects = slices.Compact(projects)
	accounts := r.Accounts
	if r.traits().throwAway {
		accounts = []string{""}
	}
	v := &verdict{subjects: []map[string]any{}}
	more := map[string]bool{} // what they have, and are not allowed
	for _, account := range accounts {
		one := *r
		if account != "" {
			one.Accounts = []string{account}
		}
		subject := map[string]any{"account": account}
		err := b.trial(ctx, by, name, c, &one, func(m *mint, he *jira.Client) error {
			held := map[string][]string{}
			for _, project := range projects {
				held[project] = []string{}
				permissions, err := he.Permissions(ctx, project)
				if jira.Is(err, jira.Denied) && project != "" { // he does not see it
					continue
				}
				if err != nil {
					return fmt.Errorf("asking what user %q may do: %w", m.record.Username, err)
				}
				for _, key := range slices.Sorted(maps.Keys(permissions)) {
					if !permissions[key] {
						continue
					}
					held[project] = append(held[project], key)
					if !slices.Contains(r.AllowedPermissions, key) {
						more[key] = true
					}
				}
				if project == "" {
					subject["administrator"] = permissions["ADMINISTER"] || permissions["SYSTEM_ADMIN"]
				}
			}
			subject["username"], subject["permissions"] = m.record.Username, held
			return nil
		})
		if err != nil {
			return nil, err
		}
		v.subjects = append(v.subjects, subject)
	}
	v.notAllowed = slices.Sorted(maps.Keys(more))
	return v, nil
}

// enforce refuses a role whose credentials can do more than they are allowed.
func (b *backend) enforce(ctx context.Context, by ledger.Reader, name string, r *role) error {
	v, err := b.check(ctx, by, name, r)
	if err != nil {
		return fmt.Errorf("checking what the role's credentials can do: %w", err)
	}
	if len(v.notAllowed) > 0 {
		return fault.Userf("role %q hands out more than its allowed_permissions: %s; take other accounts or groups, or allow it", name, strings.Join(v.notAllowed, ", "))
	}
	return nil
}

// trial makes a credential as role r, called name, would, lets ask see what it
// can do, and ends it. Whatever comes in between, it is in the ledger like any
// other. ask is handed a client that logs in with the credential.
func (b *backend) trial(ctx context.Context, by ledger.Reader, name string, c *config, r *role, ask func(*mint, *jira.Client) error) error {
	alike := *r
	alike.MaxLeases, alike.MaxPerEntity, alike.OnRevoke = 0, 0, onRevokeDelete // nobody works with it
	m, err := b.draft(ctx, by, name, c, &alike, 0)
	if err != nil {
		return err
	}
	if err := b.placed(ctx, func() error { return b.placeTrial(ctx, m, c, &alike) }); err != nil {
		return err
	}
	defer b.ledger.Over(m.record.ID)
	token, secret, made, err := b.make(ctx, m)
	if err != nil {
		return b.notMinted(ctx, m, made, err)
	}
	m.record.TokenID = token.ID
	login := jira.Login{Token: secret, Username: m.record.Username}
	if is := typeOf(m.record).is(); !is.personal && !is.throwAway {
		login.Username = "" // it is no user
	}
	err = ask(m, m.api.As(login))
	if typeOf(m.record).is().orgKey && jira.Is(err, jira.Refused) {
		err = fmt.Errorf("%w; the first API token of a new service account may take a minute to work: try again then", err)
	}
	ctx, cancel := undo(ctx)
	defer cancel()
	err = errors.Join(err, m.endUnread(ctx, secret))
	if e := typeOf(m.record).end(ctx, b.log(), b, m.client, m.record); e != nil {
		b.debt(m.record, e.Error())
		if owed := b.ledger.Owe(ctx, m.record.ID, m.record.TokenID); owed != nil {
			e = errors.Join(e, owed)
		}
		return errors.Join(err, fmt.Errorf("ending what it was tried with, which the engine goes on trying: %w", e))
	}
	return errors.Join(err, b.ledger.Forget(ctx, m.record.ID))
}

// placeTrial is place where the config is still c: it was read before Jira was
// asked, and a credential must not be made at a site that is not ours any more.
func (b *backend) placeTrial(ctx context.Context, m *mint, c *config, r *role) error {
	b.resources.RLock()
	defer b.resources.RUnlock()
	now, err := b.loadConfig(ctx)
	if err != nil {
		return err
	}
	if *now != *c {
		return fault.Unavailable("the config was written meanwhile: try again")
	}
	return b.place(ctx, m, c, r, nil)
}

// place writes the intent of m, of whatever type. The caller holds b.resources.
func (b *backend) place(ctx context.Context, m *mint, c *config, r *role, passed []string) error {
	if r.MaxLeases+r.MaxPerEntity > 0 {
		if err := b.ledgerIsWhole(); err != nil { // else nobody knows how many there are
			return err
		}
	}
	if r.traits().throwAway {
		return b.enlist(ctx, m, c, r)
	}
	return b.takePlace(ctx, m, c, r, passed)
}
