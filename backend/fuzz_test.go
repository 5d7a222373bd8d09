package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/vault/sdk/helper/jsonutil"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
)

// alone mounts an engine that has no Jira to call.
func alone(t *testing.T) *engine {
	t.Helper()
	e := &engine{
		t:       t,
		storage: &storage{Storage: &logical.InmemStorage{}},
		system:  &logical.StaticSystemView{DefaultLeaseTTLVal: testDefaultTTL, MaxLeaseTTLVal: testMaxTTL},
		log:     &logBuffer{},
		clock:   &atomic.Int64{},
	}
	e.mount()
	return e
}

// object reads a JSON object as Vault reads a request's.
func object(raw string) (data map[string]any, ok bool) {
	return data, jsonutil.DecodeJSON([]byte(raw), &data) == nil && data != nil
}

// FuzzWrite: whatever is written, and changed then, is stored or refused with
// a reason; no secret in it is told, in an answer, an error or the log.
func FuzzWrite(f *testing.F) {
	const secret = "horse-battery-staple"
	for _, data := range []string{
		`{"url":"https://jira.example.com","token":"` + secret + `"}`,
		`{"url":"http://jira.example.com","allow_http":true,"username":"root","password":"` + secret + `","verify_connection":null}`,
		`{"url":"https://ci:` + secret + `@jira.example.com"}`,
		`{"url":"https://jira.example.com","proxy_url":"http://ci:` + secret + `@proxy.example.com:3128"}`,
		`{"url":"https://jira.example.com","client_key":"` + secret + `","client_cert":"-----BEGIN CERTIFICATE-----"}`,
		`{"url":"https://jira.example.com","token":["` + secret + `"],"password":{"x":"` + secret + `"}}`,
		`{"url":"https://jira.example.com","token":"` + secret + `","password":"` + secret + `"}`,
		`{"request_timeout":"1h","max_concurrent_requests":-1,"max_token_days":99999999999999999999,"url":7}`,
		`{"type":"user","username":"ci","token":"` + secret + `","max_tokens":1e3}`,
		`{"username":"ci:x","token":"` + secret + ` y"}`, `{"token":null}`, `{"token":""}`, `{"password":"` + secret + `\n"}`,
		`{"accounts":["a","b","a"],"ttl":"1h","max_ttl":9223372036854775807}`, `{"accounts":"a,b","ttl":-1,"max_ttl":"1d"}`, `{"accounts":{"a":1},"nonsense":[]}`,
		`{}`,
	} {
		for _, change := range []string{`{}`, `{"password":"` + secret + `"}`, `{"proxy_url":null,"url":null,"request_timeout":"5"}`} {
			for which := range 3 {
				f.Add(byte(which), data, change)
			}
		}
	}
	paths := []string{"config", "accounts/ci", "roles/readonly"}
	f.Fuzz(func(t *testing.T, which byte, write, change string) {
		e := alone(t)
		defer e.Cleanup(t.Context())
		at := paths[int(which)%len(paths)]
		for i, op := range []logical.Operation{logical.CreateOperation, logical.PatchOperation} {
			raw := []string{write, change}[i]
			data, ok := object(raw)
			if !ok {
				return
			}
			if at == "config" {
				data["verify_connection"] = false // there is nobody to ask
			}
			told := e.hears(t, op, at, data) + e.hears(t, logical.ReadOperation, at, nil)
			for _, secret := range secretsIn(data) {
				if strings.Contains(told, secret) {
					t.Errorf("%s of %s with %s: %q is told: %s", op, at, raw, secret, told)
				}
			}
		}
	})
}

// hears makes a request and returns all that anybody hears of it.
func (e *engine) hears(t *testing.T, op logical.Operation, at string, data map[string]any) string {
	t.Helper()
	req := &logical.Request{Operation: op, Path: at, Data: data, Storage: e.storage}
	_, _, checkErr := e.HandleExistenceCheck(t.Context(), req)
	resp, err := e.HandleRequest(t.Context(), req)
	var coded logical.HTTPCodedError
	if errors.As(err, &coded) && coded.Code() == 500 {
		t.Errorf("%s of %s: %v\n%s", op, at, err, e.log)
	}
	told := fmt.Sprint(checkErr, err, e.log)
	if resp != nil {
		told += fmt.Sprint(resp.Data, resp.Warnings)
	}
	return told
}

// secretsIn are the secrets in data that could be told from anything else.
func secretsIn(data map[string]any) (secrets []string) {
	rest := map[string]any{}
	for field, v := range data {
		rest[field] = v
	}
	var collect func(any)
	collect = func(v any) {
		switch v := v.(type) {
		case string:
			secrets = append(secrets, strings.TrimSpace(v))
		case json.Number:
			secrets = append(secrets, v.String())
		case []any:
			for _, one := range v {
				collect(one)
			}
		case map[string]any:
			for _, one := range v {
				collect(one)
			}
		}
	}
	for _, field := range []string{"token", "password", "client_key", "client_secret"} {
		collect(data[field])
		delete(rest, field)
	}
	for _, field := range []string{"url", "proxy_url"} {
		if raw, ok := data[field].(string); ok {
			if u, err := url.Parse(raw); err == nil && u.User != nil {
				password, _ := u.User.Password()
				secrets = append(secrets, password)
				delete(rest, field)
			}
		}
	}
	known, err := json.Marshal(rest)
	if err != nil {
		panic(err)
	}
	const words = "config account role url token password client_key proxy"
	found := secrets[:0]
	for _, secret := range secrets {
		if len(secret) >= 12 && !strings.Contains(string(known)+words, secret) {
			found = append(found, secret)
		}
	}
	return found
}

// FuzzName: a name that is taken can be stored, under itself and nothing else.
func FuzzName(f *testing.F) {
	for _, name := range []string{"ci-bot", "a.b", "..", ".", "a..b", "a/b", "ä", "A_0", strings.Repeat("x", 256), strings.Repeat("x", 1000), "a\x00"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if err := checkName("an account", name); err != nil {
			if !errors.As(err, new(fault.User)) || len(err.Error()) > 500 || !utf8.ValidString(err.Error()) {
				t.Errorf("%q: %v", name, err)
			}
			return
		}
		if key := accountsPrefix + name; name != "" && (path.Clean(key) != key || strings.Count(key, "/") != 1 || len(name) > mostName) {
			t.Errorf("%q is taken", name)
		}
		view := logical.NewStorageView(&logical.InmemStorage{}, accountsPrefix)
		if err := view.Put(t.Context(), &logical.StorageEntry{Key: name}); name != "" && err != nil {
			t.Errorf("%q is taken, and cannot be stored: %v", name, err)
		}
	})
}

// FuzzLease: a lease is read as it was written, through whatever types Vault's
// storage makes of its numbers.
func FuzzLease(f *testing.F) {
	f.Add("5b2tq6hznr4wjd7c", "412", "vault-k3xm2a-5b2tq6hznr4wjd7c-readonly", "https://jira.example.com", "ci", "ci-bot", "readonly", int64(3600), int64(86400), "2026-03-04T08:15:09Z", "", "", "")
	f.Add("a", "b", "", "", "c", "", "", int64(-1), int64(1)<<53, "", "ephemeral_user", "delete", "OPS/10101 DEV/10102")
	f.Fuzz(func(t *testing.T, id, tokenID, tokenName, site, account, username, role string, ttl, maxTTL int64, expires, kind, onRevoke, roles string) {
		want := lease{id, tokenID, tokenName, site, account, username, role, ttl, maxTTL, expires, maxTTL, kind, onRevoke, roles, roles}
		for _, s := range []string{id, tokenID, tokenName, site, account, username, role, expires, kind, onRevoke, roles} {
			if !utf8.ValidString(s) {
				t.Skip("no string that JSON can hold")
			}
		}
		const exact = 1 << 53 // the whole numbers that a float64 holds, which is all that Vault keeps
		if max(ttl, maxTTL) > exact || min(ttl, maxTTL) < -exact {
			t.Skip("no number that a lease has")
		}
		raw, err := json.Marshal(want.encode())
		if err != nil {
			t.Fatal(err)
		}
		var floats map[string]any
		if err := json.Unmarshal(raw, &floats); err != nil {
			t.Fatal(err)
		}
		numbers, _ := object(string(raw))
		for _, data := range []map[string]any{want.encode(), floats, numbers} {
			have, err := decodeLease(data)
			if whole := id != "" && tokenID != "" && account != ""; (err == nil) != whole || whole && *have != want {
				t.Errorf("%s is read as %+v, %v", raw, have, err)
			}
		}
	})
}

// FuzzLeaseData: a lease's data that is damaged is refused, and ends no
// process. The engine has neither config nor accounts, so nothing is called.
func FuzzLeaseData(f *testing.F) {
	good, err := json.Marshal((&lease{ID: "5b2tq6hznr4wjd7c", TokenID: "412", Account: "ci", TTL: 60, MaxTTL: 600, ExpiresAt: "2026-03-04T08:15:09Z"}).encode())
	if err != nil {
		f.Fatal(err)
	}
	for _, raw := range []string{
		string(good), `{}`, `{"id":7}`, `{"id":"a","token_id":"b","account":"c"}`, `{"id":"a","token_id":"b","account":"c","ttl":9223372036854775807,"max_ttl":1}`,
		`{"id":"a","token_id":"b","account":"c","ttl":1e3,"max_ttl":1.5}`, `{"id":"../x","token_id":"b","account":"../../config","role":"..","ttl":1,"max_ttl":1}`,
		`{"id":"a"}`, `{"id":"a","token_id":"b"}`, `{"id":"a","token_id":"b","account":"c","ttl":1}`, `{"id":"","ID":"a","token_id":["b"],"account":{}}`,
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		data, ok := object(raw)
		if !ok {
			return
		}
		if l, err := decodeLease(data); err == nil && (l.ID == "" || l.TokenID == "" || l.Account == "") {
			t.Errorf("%s is read as %+v", raw, l)
		}
		e := alone(t)
		defer e.Cleanup(t.Context())
		data["secret_type"] = patSecret
		for _, op := range []logical.Operation{logical.RenewOperation, logical.RevokeOperation} {
			resp, err := e.HandleRequest(t.Context(), &logical.Request{Operation: op, Storage: e.storage, Secret: &logical.Secret{InternalData: data}})
			if err != nil && strings.Contains(err.Error(), "internal error") {
				t.Errorf("%s of %s: %+v, %v\n%s", op, raw, resp, err, e.log)
			}
		}
		if ids := e.ledger.IDs(""); len(ids) > 0 {
			t.Errorf("the ledger has %v", ids)
		}
	})
}

// FuzzProxy: a proxy's address that is taken is read back as one that leads to
// the same proxy, and says nothing of who logs in there.
func FuzzProxy(f *testing.F) {
	for _, who := range []string{"", "ci", "ci:horse-battery", "ci:horse%2Fbattery", "horse:battery@staple", "a:b/c", "ci:1234/x", "ä:ö"} {
		for _, scheme := range []string{"http", "https", "socks5", "HTTP", "ftp", ""} {
			f.Add(scheme, who, "proxy.example.com:3128")
		}
	}
	f.Add("http", "ci:1", "[::1]:8080/")
	f.Add("http", "ci:1", "/h@h")
	f.Fuzz(func(t *testing.T, scheme, who, where string) {
		const secret = "horse-battery-staple"
		c := &config{ProxyURL: scheme + "://" + who + secret + "@" + where}
		u, err := c.proxy()
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%q: %v", c.ProxyURL, err)
			}
			return
		}
		shown, err := url.Parse(redacted(c.ProxyURL))
		if err != nil || shown.Host != u.Host || shown.Scheme != u.Scheme || strings.Contains(strings.ReplaceAll(shown.String(), where, ""), secret) {
			t.Errorf("%q is read back as %q", c.ProxyURL, redacted(c.ProxyURL))
		}
	})
}
