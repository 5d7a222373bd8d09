package backend

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// replaced knows the credentials that rotations have replaced, the last one first, by a
// salted hash of each. A declarative tool writes again and again what it was given once;
// by this the engine does not take it back. It is comparable.
type replaced string

// mostReplaced is how many of them are known.
const mostReplaced = 10

// with is r and one more secret.
func (r replaced) with(secret string) replaced {
	all := append([]string{fingerprint(secret)}, strings.Fields(string(r))...)
	return replaced(strings.Join(all[:min(len(all), mostReplaced)], " "))
}

// without is r less a secret that was taken back.
func (r replaced) without(secret string) replaced {
	var rest []string
	for _, one := range strings.Fields(string(r)) {
		if !isFingerprint(one, secret) {
			rest = append(rest, one)
		}
	}
	return replaced(strings.Join(rest, " "))
}

// has tells whether secret is one of them.
func (r replaced) has(secret string) bool { return r.without(secret) != r }

// fingerprint is a hash of a secret, under a salt of its own that it holds.
func fingerprint(secret string) string {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // which never fails
	return base64.RawURLEncoding.EncodeToString(append(salt, digest(salt, secret)...))
}

// isFingerprint tells whether stored is of secret.
func isFingerprint(stored, secret string) bool {
	raw, err := base64.RawURLEncoding.DecodeString(stored)
	return err == nil && len(raw) == 16+sha256.Size && hmac.Equal(raw[16:], digest(raw[:16], secret))
}

func digest(salt []byte, secret string) []byte {
	h := hmac.New(sha256.New, salt)
	h.Write([]byte(secret))
	return h.Sum(nil)
}

// notTaken is the warning about a write of a credential that a rotation has replaced.
func notTaken(kind string) (warnings []string) {
	if kind == "" {
		return nil
	}
	return []string{kind + " is one that a rotation has replaced: it was not taken, and the credential stays as it is; leave it out, or write it with force=true if Jira is to be asked with it again"}
}
