package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// userScope is what a throw-away user of a role is given, as part of the role.
type userScope struct {
	Groups              []string `json:"groups,omitempty"`
	ProjectRoles        []string `json:"project_roles,omitempty"` // as KEY:Role name
	ApplicationKeys     []string `json:"application_keys,omitempty"`
	UsernameTemplate    string   `json:"username_template,omitempty"`     // empty: the default
	EmailTemplate       string   `json:"email_template,omitempty"`        // likewise
	DisplayNameTemplate string   `json:"display_name_template,omitempty"` // likewise
	OnRevoke            string   `json:"on_revoke,omitempty"`
	AllowAdmin          bool     `json:"allow_admin,omitempty"`

	// ProjectRoleIDs are ProjectRoles in Jira's words, as KEY/id.
	ProjectRoleIDs []string `json:"project_role_ids,omitempty"`
}

// empty tells whether nothing of it was written.
func (s *userScope) empty() bool {
	return len(s.Groups)+len(s.ProjectRoles)+len(s.ApplicationKeys) == 0 && s.UsernameTemplate+s.EmailTemplate+s.DisplayNameTemplate == "" && s.OnRevoke == onRevokeDelete && !s.AllowAdmin
}

// What becomes of a throw-away user with his lease.
const (
	onRevokeDelete     = "delete"
	onRevokeDeactivate = "deactivate"
)

// The templates of a role that has none.
const (
	defaultUsername    = "vault-{{.MountID}}-{{.ID}}"
	defaultEmail       = "{{.Username}}@example.invalid" // which no mail ever reaches, by RFC 2606
	defaultDisplayName = "Vault {{.RoleName}} {{.ID}}"
)

// persona is what the templates can use.
type persona struct {
	ID          string // the ledger's, which a username has to hold
	MountID     string
	RoleName    string
	DisplayName string // of Vault's token that asks
	Username    string // not in the username's own
}

// mostUsername bounds a throw-away user's name, in bytes: what Jira's own
// directory stores of one.
const mostUsername = 255

// fill makes a user's names of the role's templates.
func (s *userScope) fill(p persona) (jira.NewUser, error) {
	u := jira.NewUser{ApplicationKeys: s.ApplicationKeys}
	p.DisplayName = strings.ToValidUTF8(p.DisplayName[:min(len(p.DisplayName), mostUsername)], "") // Vault does not bound it
	for _, one := range []struct {
		field, text, fallback string
		to                    *string
	}{
		{"username_template", s.UsernameTemplate, defaultUsername, &u.Name},
		{"email_template", s.EmailTemplate, defaultEmail, &u.Email},
		{"display_name_template", s.DisplayNameTemplate, defaultDisplayName, &u.DisplayName},
	} {
		text := one.text
		if text == "" {
			text = one.fallback
		}
		made, err := generate(text, p)
		if err != nil {
			return u, fault.Userf("%s: %.300s", one.field, err.Error())
		}
		if made == "" || strings.ContainsFunc(made, unicode.IsControl) {
			return u, fault.Userf("%s makes %.64q, which is empty or holds a control character", one.field, made)
		}
		*one.to = made
		if one.to == &u.Name {
			u.Name = strings.ToLower(u.Name) // as Jira does
			p.Username = u.Name
		}
	}
	switch {
	case !strings.Contains(u.Name, p.ID):
		return u, fault.Userf("username_template makes %.64q, which does not hold {{.ID}} whole: without it nobody could tell the user from somebody else's", u.Name)
	case len(u.Name) > mostUsername || strings.ContainsFunc(u.Name, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`<>&/\:,%`, r) }):
		return u, fault.Userf("username_template makes %.64q, which is longer than %d or holds a character that no login name should", u.Name, mostUsername)
	case !strings.Contains(u.Email, "@"):
		return u, fault.Userf("email_template makes %.64q, which is no address", u.Email)
	}
	return u, nil
}

// validate refuses what cannot work, whatever Jira says.
func (s *userScope) validate() error {
	if len(s.Groups)+len(s.ProjectRoles) == 0 {
		return fault.Userf("groups or project_roles is missing: what the user may do")
	}
	for _, g := range s.Groups {
		if g == "" || g != strings.TrimSpace(g) {
			return fault.Userf("groups holds %q, which is no name of a group", g)
		}
	}
	for _, r := range s.ProjectRoles {
		if key, name, ok := strings.Cut(r, ":"); !ok || key == "" || name == "" {
			return fault.Userf("project_roles holds %q: write the project's key, a colon and the role's name, as OPS:Developers", r)
		}
	}
	for _, names := range [][]string{s.Groups, s.ProjectRoles, s.ApplicationKeys} {
		if len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
			return fault.Userf("%q names one twice", strings.Join(names, ","))
		}
	}
	if s.OnRevoke != onRevokeDelete && s.OnRevoke != onRevokeDeactivate {
		return fault.Userf("on_revoke %q is not known: write delete or deactivate", s.OnRevoke)
	}
	_, err := s.fill(persona{ID: ledger.NewID(), MountID: "k3xm2a", RoleName: "readonly", DisplayName: "token-app"})
	return err
}

// resolve finds Jira's ids of the role's project roles.
func (s *userScope) resolve(ctx context.Context, admin *jira.Client) error {
	s.ProjectRoleIDs = nil
	known := map[string]map[string]string{}
	for _, r := range s.ProjectRoles {
		key, name, _ := strings.Cut(r, ":")
		if known[key] == nil {
			roles, err := admin.ProjectRoles(ctx, key)
			if err != nil {
				return fmt.Errorf("looking for the roles of project %q: %w", key, err)
			}
			known[key] = roles
		}
		id, ok := known[key][name]
		if !ok {
			return fault.Userf("project %q has no role %q; it has %s", key, name, strings.Join(slices.Sorted(maps.Keys(known[key])), ", "))
		}
		s.ProjectRoleIDs = append(s.ProjectRoleIDs, key+"/"+id)
	}
	return nil
}
