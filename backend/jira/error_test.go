package jira

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

func TestErrorText(t *testing.T) {
	full := &Error{
		Kind: Denied, Method: "POST", Path: tokensPath, Status: 403, Words: "You can't create more than 10 tokens.",
		Advice: "delete some", cause: context.Canceled,
	}
	const want = "Jira: POST /rest/pat/latest/tokens: 403 denied: You can't create more than 10 tokens. (delete some)"
	if full.Error() != want {
		t.Errorf("got  %s\nwant %s", full, want)
	}
	if !errors.Is(full, context.Canceled) {
		t.Error("the cause is lost")
	}
	bare := &Error{Kind: Down, Method: "GET", Path: "/status"}
	if bare.Error() != "Jira: GET /status: unavailable" {
		t.Errorf("got %s", bare)
	}
}

func TestNothingMade(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{&Error{Unsent: true}, true},
		{&Error{Refusing: true}, true},
		{fmt.Errorf("minting: %w", &Error{Refusing: true}), true},
		{&Error{Kind: Denied, Status: 403}, false},
		{context.Canceled, false},
		{nil, false},
	} {
		if NothingMade(test.err) != test.want {
			t.Errorf("%+v: %v", test.err, !test.want)
		}
	}
}

func TestWords(t *testing.T) {
	const html, text = "text/html;charset=UTF-8", "text/plain"
	for _, test := range []struct {
		kind, body, want string
	}{
		{"", `{"errorMessages":["One.","Two."],"errors":{"name":"taken","email":"wrong"}}`, "One.; Two.; email: wrong; name: taken"},
		{"", `{"errorMessages":[],"errors":{}}`, ""},
		{"", `{"message":"Rate limit exceeded.","status-code":429}`, "Rate limit exceeded."},
		{"", `{"exception":"com.atlassian.pats.X","error":"Nein."}`, "Nein."},
		{"", `{"message":"One.","errors":["not","an","object"]}`, "One."},
		{"", `{"message":7,"error":"Two."}`, "Two."},
		{"", `{"error":"invalid_client","error_description":"x"}`, "invalid_client; x"},
		{"", `["no","object"]`, ""},
		{"", `"a string"`, ""},
		{"", `{"message":`, ""},
		{"", ``, ""},
		{"", `no JSON, and nobody said so`, ""},
		{text, "XSRF check\r\n\tfailed\n", "XSRF check failed"},
		{text, "", ""},
		{html, "<html><head><TITLE lang=en>\n Unauthorized (401) &amp; &lt;so on&gt;</TITLE>", `a web page, titled "Unauthorized (401) & <so on>"`},
		{html, "<html><body>no title", "a web page"},
		{html, "not even a tag", "a web page"},
		{html, "", ""},
		{"application/json", "  \n<!doctype html><title>Log in</title>", `a web page, titled "Log in"`},
		{text, "<?xml version='1.0'?><status/>", "a web page"},
	} {
		a := &answer{status: 400, header: http.Header{"Content-Type": {test.kind}}, body: []byte(test.body)}
		if have := a.words(&login{}); have != test.want {
			t.Errorf("%s %q: got %q, want %q", test.kind, test.body, have, test.want)
		}
	}
	fine := &answer{status: 200, header: http.Header{}, body: []byte(`{"message":"hello","rawToken":"x"}`)}
	if have := fine.words(&login{}); have != "" {
		t.Errorf("of an answer that is none of an error: %q", have)
	}
}

func TestTidyWords(t *testing.T) {
	const token = "MzkwNTU4Mzk3OTA3OpDhaKBEU8TxqWoeq7YHb42pjeXs"
	for text, want := range map[string]string{
		"":                                  "",
		"plain words, as they are: 10 × ä!": "plain words, as they are: 10 × ä!",
		"  a \t b\r\n\nc ":                  "a b c",
		"a\x00b\x1b[31mc\x7fd":              "a b [31mc d",
		"a\u0085b\u009b31mc":                "a b 31mc",
		"a\u2028b\u2029c\u00a0d":            "a b c d",
		"a\u202eb\u2066c\ufeffd":            "a b c d",
		"a\xff\xfeb":                        "ab",
		"the token " + token + ".":          "the token [withheld].",
		token:                               "[withheld]",
		strings.Repeat("x", 31):             strings.Repeat("x", 31),
		strings.Repeat("x", 32):             "[withheld]",
		"TokenLimitExceededException":       "TokenLimitExceededException",
		strings.Repeat("日本 ", 100):          strings.Repeat("日本 ", 42) + "日本…",
		strings.Repeat("ab ", 99) + "abc":   strings.Repeat("ab ", 99) + "abc", // as long as can be
		strings.Repeat("ab ", 95) + token:   strings.Repeat("ab ", 95) + "[withheld]",
		strings.Repeat("ab ", 99) + token:   strings.Repeat("ab ", 99) + "[wi…",
		strings.Repeat(" ", 90_000) + token: "",
	} {
		if have := tidyWords(text); have != want {
			t.Errorf("%.60q: got %q, want %q", text, have, want)
		}
	}
}

// TestErrorsHoldNoSecret: whatever Jira, or what stands before it, says back
// to us. It says each secret in each place where words are taken from.
func TestErrorsHoldNoSecret(t *testing.T) {
	const (
		oddPassword = "p\"a  s&s:\t<ö>\\"
		newToken    = "NDEyNDEyNDEyNDEyOpDhaKBEU8TxqWoeq7YHb42pjeXs"
	)
	s := jiratest.New(t, jiratest.Options{})
	s.AddUser(jiratest.User{Name: "ci", Password: oddPassword})
	_, token := s.Mint("ci", "the engine's own", 30)
	basicPair := base64.StdEncoding.EncodeToString([]byte("ci:" + oddPassword))
	told := map[Login][]string{ // what Jira was told by whom, or tells him
		{Username: "ci", Token: token}:          {token, "Bearer " + token, newToken},
		{Username: "ci", Password: oddPassword}: {oddPassword, basicPair, "Basic " + basicPair, newToken},
	}
	site := newSite(t, s, Options{})

	inJSON := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for place, answer := range map[string]func(said string) jiratest.Fault{
		"errorMessages": func(said string) jiratest.Fault {
			return jiratest.Fault{Body: inJSON(map[string]any{"errorMessages": []string{"It was", said}})}
		},
		"errors": func(said string) jiratest.Fault {
			return jiratest.Fault{Body: inJSON(map[string]any{"errors": map[string]string{"It was": said}})}
		},
		"message": func(said string) jiratest.Fault {
			return jiratest.Fault{Body: inJSON(map[string]any{"message": "It was " + said})}
		},
		"error": func(said string) jiratest.Fault {
			return jiratest.Fault{Body: inJSON(map[string]any{"error": "It was " + said})}
		},
		"title": func(said string) jiratest.Fault {
			return jiratest.Fault{Body: "<html><title>It was " + html.EscapeString(said) + "</title>"}
		},
		"text":              func(said string) jiratest.Fault { return jiratest.Fault{Body: "It was " + said} },
		"where text is cut": func(said string) jiratest.Fault { return jiratest.Fault{Body: strings.Repeat("It was ", 42) + said} },
		"where words are cut": func(said string) jiratest.Fault {
			return jiratest.Fault{Body: inJSON(map[string]any{"message": strings.Repeat("It was ", 42) + said})}
		},
		"after much space": func(said string) jiratest.Fault {
			return jiratest.Fault{Body: "It was " + strings.Repeat(" ", 4*mostWords-12) + said}
		},
	} {
		for _, status := range []int{200, 202, 400, 401, 404, 503} {
			for l, secrets := range told {
				for _, said := range secrets {
					fault := answer(said)
					fault.Do, fault.Status = jiratest.Answer, status
					remove := s.Fault(fault)
					_, _, mintErr := site.As(l).CreateToken(t.Context(), "nightly", 1)
					_, listErr := site.As(l).Tokens(t.Context())
					for _, err := range []error{mintErr, listErr, site.As(l).DeleteToken(t.Context(), "412")} {
						if err == nil {
							continue // a DELETE with 200 and JSON, say
						}
						holdsNoSecret(t, place, err, token, oddPassword, basicPair, newToken)
						if !strings.Contains(err.Error(), fmt.Sprint(status)) {
							t.Errorf("%s: the status %d is lost: %v", place, status, err)
						}
						if status == 400 && !strings.Contains(err.Error(), "It was") {
							t.Errorf("%s: Jira's words are lost: %v", place, err)
						}
					}
					remove()
				}
			}
		}
	}
}

// TestHeadersHoldNoSecret: those whose values are quoted.
func TestHeadersHoldNoSecret(t *testing.T) {
	const newToken = "NDEyNDEyNDEyNDEyOpDhaKBEU8TxqWoeq7YHb42pjeXs"
	s := newJira(t, jiratest.Options{})
	for name, fault := range map[string]jiratest.Fault{
		"X-Authentication-Denied-Reason": {Status: 403},
		"Location":                       {Status: 307},
		"X-Ausername":                    {Status: 404},
		"Retry-After":                    {Status: 429},
	} {
		c := bearer(t, s, "ci")
		if name == "Location" { // a part of which is no port of an address
			c = newSite(t, s, Options{}).As(Login{Username: "ci", Token: "MzkwNTU4Mzk3OTA3/DhaKBEU8TxqWoeq7YHb42pjeXs"})
		}
		for _, secret := range []string{c.login.Token, newToken} {
			value := secret
			if name == "Location" {
				value = "https://ci:" + secret + "@" + secret + "/" + secret + "?" + secret
			}
			fault.Do, fault.Method, fault.Header = jiratest.Answer, http.MethodDelete, http.Header{name: {value}}
			remove := s.Fault(fault)
			err := c.DeleteToken(t.Context(), "412")
			if err == nil {
				t.Fatalf("%s: no error", name)
			}
			holdsNoSecret(t, name, err, c.login.Token, newToken)
			remove()
		}
	}
}

// TestJunkHoldsNoSecret: what is no HTTP at all, and says our own words back.
func TestJunkHoldsNoSecret(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = fmt.Fprintf(conn, "%s\r\n\r\n", r.Header.Get("Authorization"))
			}
			_ = conn.Close()
		}
	})
	site, err := New(Options{URL: "http://" + listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	for _, l := range []Login{{Token: "short-token"}, {Username: "ci", Password: "short"}} {
		_, _, err := site.As(l).CreateToken(t.Context(), "nightly", 1)
		wants(t, err, Down, "malformed HTTP", "[withheld]")
		holdsNoSecret(t, "junk", err, "short-token", "Y2k6c2hvcnQ=")
		if NothingMade(err) {
			t.Error("nothing is said to be made")
		}
	}
}

// TestOthersNamesHoldNoSecret: those that Jira gives to users and tokens.
func TestOthersNamesHoldNoSecret(t *testing.T) {
	const newToken = "NDEyNDEyNDEyNDEyOpDhaKBEU8TxqWoeq7YHb42pjeXs"
	s := newJira(t, jiratest.Options{})
	c := bearer(t, s, "ci")
	for _, secret := range []string{c.login.Token, newToken} {
		remove := s.Fault(jiratest.Fault{Do: jiratest.Answer, Body: `{"id":412,"name":"` + secret + `","key":"K","rawToken":"` + newToken + `"}`})
		_, _, mintErr := c.CreateToken(t.Context(), "nightly", 1)
		for _, err := range []error{mintErr, c.DeleteToken(t.Context(), "412")} {
			if err == nil {
				t.Error("no error")
				continue
			}
			holdsNoSecret(t, "name", err, c.login.Token, newToken)
		}
		remove()
	}
}

func holdsNoSecret(t *testing.T, place string, err error, secrets ...string) {
	t.Helper()
	text := err.Error()
	for _, secret := range secrets {
		// Ten characters are too much of one as well.
		for i := 0; i+10 <= len(secret); i++ {
			if strings.Contains(text, secret[i:i+10]) {
				t.Errorf("%s: %q holds a part of %q", place, text, secret)
				break
			}
		}
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%s: %q holds what cannot be printed", place, text)
	}
	if len(text) > 800 {
		t.Errorf("%s: an error of %d bytes", place, len(text))
	}
}

// TestBusySaysWhen: the error tells when to come back, whether Jira is busy
// or down.
func TestBusySaysWhen(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	for _, status := range []int{429, 503} {
		remove := s.Fault(jiratest.Fault{Do: jiratest.Answer, Status: status, Header: http.Header{"Retry-After": {"3600"}}})
		c := bearer(t, s, "ci")
		c.site.pause.roof, c.site.pause.hint = time.Hour, time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		s.ResetCalls()
		_, err := c.Myself(ctx)
		until := failure(t, err).Until
		wants(t, err, Busy, "Jira asked for a pause", until.UTC().Format(time.RFC3339))
		if s.Count("", "") != 1 || time.Until(until) < 50*time.Minute {
			t.Errorf("%d: %v, after %d calls", status, err, s.Count("", ""))
		}
		cancel()
		remove()
	}
}
