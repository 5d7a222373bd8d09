package backend

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
)

// mostListed bounds how many values the list of a field can have. A record of the ledger
// holds the project roles of its user, and has to stay small; a pool of accounts can be
// large, and so can the list of the roles that may use an account.
func mostListed(field string) int {
	switch field {
	case "accounts", "allowed_roles", "allow_admin_roles":
		return 1000
	}
	return 100
}

// mostBytes bounds the text of a field, or one value of a list, in bytes.
func mostBytes(field string) int {
	switch field {
	case "ca_cert", "client_cert", "client_key": // PEM
		return 128 << 10
	case "token", "password", "fallback_password", "client_secret": // more does not fit into a header that Jira's server reads
		return 4096
	case "url", "proxy_url", "token_url", "revocation_url", "username_template", "email_template", "display_name_template":
		return 4096
	case "metadata": // which has a bound of its own
		return math.MaxInt
	}
	return 255
}

// checkInput refuses a field that is not of its path's type, or is too large. The
// framework would refuse the former, too, but repeat the value, which may hold a secret;
// errors lie in the clear in Vault's audit log.
func (b *backend) checkInput(req *logical.Request) error {
	switch req.Operation {
	case logical.RenewOperation, logical.RevokeOperation, logical.RollbackOperation, logical.HelpOperation:
		return nil // their data is what was answered once, or nothing
	}
	if len(req.Data) == 0 {
		return nil
	}
	path := b.Route(req.Path)
	if path == nil {
		return nil
	}
	for field, raw := range req.Data {
		schema := path.Fields[field]
		if schema == nil || raw == nil {
			continue
		}
		if err := checkField(field, schema, raw); err != nil {
			return err
		}
	}
	return nil
}

// checkField is checkInput for one field. Its errors do not repeat the value.
func checkField(field string, schema *framework.FieldSchema, raw any) error {
	one := map[string]any{field: raw}
	value, _, err := (&framework.FieldData{Raw: one, Schema: map[string]*framework.FieldSchema{field: schema}}).GetOkErr(field)
	list, isList := value.([]string)
	switch {
	case err == nil && isList:
		if most := mostListed(field); len(list) > most {
			return fault.Userf("%s has %d values, and %d is the most", field, len(list), most)
		}
		for _, text := range list {
			if len(text) > mostBytes(field) {
				return fault.Userf("a value of %s is longer than %d bytes", field, mostBytes(field))
			}
		}
	case err == nil:
		if text, ok := value.(string); ok && len(text) > mostBytes(field) {
			return fault.Userf("%s is longer than %d bytes: was the right file given?", field, mostBytes(field))
		}
	case schema.Type == framework.TypeCommaStringSlice || schema.Type == framework.TypeStringSlice:
		return fault.Userf("%s is not a list of texts", field)
	case isCollection(raw):
		return fault.Userf("%s is not a single value: was it given twice?", field)
	case schema.Type == framework.TypeBool:
		return fault.Userf("%s is neither true nor false", field)
	case schema.Type == framework.TypeInt:
		return fault.Userf("%s is not a whole number", field)
	case schema.Type == framework.TypeDurationSecond:
		return fault.Userf("%s is not a duration, or is negative: write seconds, or a number with s, m, h or d", field)
	default:
		return fault.Userf("%s is not of the type %s", field, schema.Type)
	}
	return nil
}

func isCollection(raw any) bool {
	switch raw.(type) {
	case []any, map[string]any:
		return true
	}
	return false
}

// checkText refuses a password or a client secret that is not text as a person writes
// it: Jira would count it as a wrong one. Vault's client sends what is no UTF-8 as the
// replacement character.
func checkText(field, text string) error {
	switch {
	case strings.HasPrefix(text, "\ufeff"):
		return fault.Userf("%s begins with a byte-order mark: save the file as UTF-8 without one", field)
	case !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError):
		return fault.Userf("%s is not UTF-8: save the file as UTF-8", field)
	case strings.ContainsFunc(text, unicode.IsControl):
		return fault.Userf("%s holds a NUL, a line break or another control character: save the file as UTF-8, on one line", field)
	}
	return nil
}
