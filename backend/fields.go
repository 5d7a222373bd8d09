package backend

import (
	"strings"

	"github.com/hashicorp/vault/sdk/framework"

	"vault-plugin-secrets-jira/backend/fault"
)

// fields is what a write sent. A partial write changes only that: a create
// starts from the defaults, an update from what is stored.
type fields struct {
	*framework.FieldData
	create bool // nothing is stored yet
}

// change sets *to to what was sent for field, and tells whether anything was.
// Sent as null, a field goes back to its default.
func change[T any](f fields, field string, to *T) (sent bool) {
	raw, sent := f.Raw[field]
	switch {
	case raw != nil:
		*to = f.Get(field).(T) //nolint:errcheck // the schema's type: a mismatch is a programming fault that every test of the path shows
	case sent || f.create:
		*to = f.GetDefaultOrZero(field).(T) //nolint:errcheck // as above
	}
	return sent
}

// changeSecret is change for a credential, which may be replaced but not
// taken away.
func changeSecret(f fields, field string, to *string) (sent bool, err error) {
	sent = change(f, field, to)
	if !sent {
		return false, nil
	}
	*to = strings.TrimRight(*to, "\r\n") // files end with a line break, which no credential does
	if *to == "" {
		return true, fault.Userf("%s is empty: a credential can be replaced, not cleared", field)
	}
	return true, checkText(field, *to)
}

// mostName bounds the name of a resource, in bytes.
const mostName = 255

// nameField is the schema of a resource's name in a path.
func nameField(what string) *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:        framework.TypeString,
		Description: "Name of the " + what + ": letters, digits, \"_\", \"-\" and \".\", at most 255.",
		Required:    true,
	}
}

// nameIn returns the name in the request's path, if it can be what's name.
func nameIn(d *framework.FieldData, what string) (string, error) {
	name, _ := d.Raw["name"].(string) // as the path's pattern caught it
	return name, checkName(what, name)
}

// checkName refuses what cannot be the name of an account or a role. The
// paths' patterns match more than that, so that the caller is told why.
func checkName(what, name string) error {
	shown := name[:min(len(name), 64)]
	bad := strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	switch {
	case bad:
		return fault.Userf("%q cannot be the name of %s: only ASCII letters, digits, \"_\", \"-\" and \".\" can", shown, what)
	case name == "." || strings.Contains(name, ".."): // Vault's storage refuses these
		return fault.Userf("%q cannot be the name of %s: two dots in a row, or a dot alone, cannot be stored", shown, what)
	case len(name) > mostName:
		return fault.Userf("%q cannot be the name of %s: it has %d characters, and %d is the most", shown, what, len(name), mostName)
	}
	return nil
}
