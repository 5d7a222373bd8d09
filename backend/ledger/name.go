package ledger

import (
	"crypto/rand"
	"encoding/base32"
	"strings"
)

// A name in Jira is "vault-", the mount's id, "-", the record's id, "-" and
// the start of the role's name: 40 characters at most, which is all a token's
// name may have by default.
const (
	namePrefix  = "vault-"
	mountIDSize = 6
	idSize      = 16
	nameSize    = 40
	handleSize  = len(namePrefix) + mountIDSize + 1 + idSize + 1 // all before the role
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID returns a new record's id: 16 characters that carry 80 random bits.
func NewID() string { return random(idSize) }

// NewMountID returns an id that keeps the tokens of one mount apart from
// those of others: 6 characters that carry 30 random bits.
func NewMountID() string { return random(mountIDSize) }

func random(size int) string {
	b := make([]byte, (size*5+7)/8)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	return base32Lower.EncodeToString(b)[:size]
}

// Name is what the credential of record id, made through mountID for role, is
// called in Jira. What of role is not an ASCII letter, digit, "_", "-" or "."
// becomes "_", and what is over 40 characters is cut.
func Name(mountID, id, role string) string {
	name := namePrefix + mountID + "-" + id + "-" + strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, role)
	return name[:min(len(name), nameSize)]
}

// Named tells whether name, from Jira, is that of r's credential. The role's
// part does not count, nor does the case of letters: whatever Jira did to a
// name, the mount's and the record's ids tell it apart.
func (r *Record) Named(name string) bool {
	return len(r.Name) >= handleSize && len(name) >= handleSize && strings.EqualFold(name[:handleSize], r.Name[:handleSize])
}

// ParseName takes a credential's name, from Jira, apart into the ids of the
// mount and the record that it was made for. It tells whether the name looks
// like one of [Name]'s at all.
func ParseName(name string) (mountID, id string, ok bool) {
	name = strings.ToLower(name)
	rest, ok := strings.CutPrefix(name, namePrefix)
	if !ok || len(name) < handleSize || rest[mountIDSize] != '-' || name[handleSize-1] != '-' {
		return "", "", false
	}
	mountID, id = rest[:mountIDSize], rest[mountIDSize+1:mountIDSize+1+idSize]
	return mountID, id, isRandom(mountID) && isRandom(id)
}

// isRandom tells whether s could have come from random.
func isRandom(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') })
}

// IsID tells whether s could be the id of a record.
func IsID(s string) bool { return len(s) == idSize && isRandom(s) }

// IsMountID tells whether s could be the id of a mount.
func IsMountID(s string) bool { return len(s) == mountIDSize && isRandom(s) }
