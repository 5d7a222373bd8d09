package backend

import (
	"regexp"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"

	"vault-plugin-secrets-jira/backend/fault"
)

// A person who may write roles decides what readers get, but not of everything that there is:
// an account says which roles may use it, and the config which may make administrators.
// Both are lists of names in which * stands for any characters, as in Vault's database
// engine. They are kept as one text, separated by blanks: accounts and configs are
// comparable.

// everyRole is a list that allows all.
const everyRole = "*"

// patternForm is what an item can be: a name, or static/ and the name of a static role,
// with * for any characters.
var patternForm = regexp.MustCompile(`^(static/)?[A-Za-z0-9_.*-]{1,255}$`)

// rolesField is the schema of such a list.
func rolesField(what string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeCommaStringSlice, Description: what + " In a name * stands for any characters."}
}

// changeRoles takes over the list that was sent for field.
func changeRoles(f fields, field string, to *string) error {
	items := strings.Fields(*to)
	if !change(f, field, &items) && !f.create {
		return nil
	}
	for _, item := range items {
		if !patternForm.MatchString(item) {
			return fault.Userf("%s holds %.64q, which cannot be the name of a role", field, item)
		}
	}
	*to = strings.Join(items, " ")
	return nil
}

// allows tells whether list has role.
func allows(list, role string) bool {
	for item := range strings.FieldsSeq(list) {
		if item == role || item == everyRole {
			return true
		}
		if !strings.Contains(item, "*") {
			continue
		}
		form := "^" + strings.ReplaceAll(regexp.QuoteMeta(item), `\*`, ".*") + "$"
		if regexp.MustCompile(form).MatchString(role) {
			return true
		}
	}
	return false
}

// allowedRoles is the account's list. One from before there were lists allows all.
func (a *account) allowedRoles() string {
	if a.AllowedRoles == "" {
		return everyRole
	}
	return a.AllowedRoles
}

// mayBeUsedBy refuses a role, or static/ and the name of a static one, that account a,
// called name, does not allow.
func (a *account) mayBeUsedBy(name, role string) error {
	if allows(a.allowedRoles(), role) {
		return nil
	}
	return fault.Userf("account %q does not allow role %q: add it to the account's allowed_roles", name, role)
}

// consents refuses that role r, called name, makes administrators, unless the config
// allows that.
func (c *config) consents(name string, r *role) error {
	if !r.AllowAdmin || allows(c.AllowAdminRoles, name) {
		return nil
	}
	return fault.Userf("allow_admin: the config does not allow role %q to make administrators: add it to allow_admin_roles of the config, or set allow_admin=false", name)
}

// mayGoUnseen refuses to take the word of role r, called name, that its users administer
// nothing, unless they may.
func (c *config) mayGoUnseen(name string) error {
	if allows(c.AllowAdminRoles, name) {
		return nil
	}
	return fault.Userf("verify=false: nobody would see whether a user with these groups and project_roles administers Jira; leave it out, or add role %q to allow_admin_roles of the config", name)
}
