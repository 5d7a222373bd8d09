package jiratest_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

func TestTokenFromMintToDelete(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	k := ci.want(201, "POST", patTokens, `{"name":"vault-x","expirationDuration":90}`)
	if k["name"] != "vault-x" || k["createdAt"] != "2026-03-02T08:15:09.417+00:00" || k["expiringAt"] != "2026-05-31T08:15:09.417+00:00" {
		t.Errorf("minted %v", k)
	}
	if _, ok := k["lastAccessedAt"]; ok {
		t.Errorf("was used before it was: %v", k)
	}
	raw, err := base64.StdEncoding.DecodeString(fmt.Sprint(k["rawToken"]))
	if err != nil || !regexp.MustCompile(`(?s)^\d{12}:.{20}$`).MatchString(latin(raw)) {
		t.Errorf("raw token %q, %v", raw, err)
	}
	with := as(t, s, fmt.Sprintf("Bearer %s", k["rawToken"]))
	if me := with.want(200, "GET", myself, ""); me["name"] != "ci" {
		t.Errorf("the token is %v", me)
	}
	path := fmt.Sprintf("%s/%v", patTokens, k["id"])
	if got := with.want(200, "GET", path, ""); got["rawToken"] != nil || got["name"] != "vault-x" {
		t.Errorf("GET answers %v", got)
	}
	if r := with.do("GET", patTokens, ""); strings.Contains(r.body, "rawToken") || !strings.HasPrefix(r.body, `[{"createdAt"`) {
		t.Errorf("the list is %s", r.body)
	}
	if list := s.Tokens("ci"); len(list) != 1 || !list[0].Live || list[0].User != "ci" || !list[0].LastUsed.Equal(start.Truncate(time.Millisecond)) {
		t.Errorf("tokens %v", list)
	}
	if r := with.do("DELETE", path, ""); r.status != 204 || r.body != "" || r.header.Get("Content-Type") != "" {
		t.Errorf("DELETE answers %v", r)
	}
	with.want(401, "GET", myself, "")
	if list := s.Tokens(""); len(list) != 0 {
		t.Errorf("still there: %v", list)
	}
}

// latin makes a string of which each character is one byte.
func latin(b []byte) string {
	r := make([]rune, len(b))
	for i, c := range b {
		r[i] = rune(c)
	}
	return string(r)
}

func TestTokenNames(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	mint := func(status int, name string) {
		t.Helper()
		ci.want(status, "POST", patTokens, fmt.Sprintf(`{"name":%q}`, name))
	}
	mint(400, "")
	mint(400, strings.Repeat("é", 41))
	mint(201, strings.Repeat("é", 40))
	mint(201, "twice")
	mint(201, "twice")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.NamesUnique, sw.NameLength = true, 10 })
	mint(400, "twice")
	mint(201, "once")
	mint(400, "eleven char")
	basic(t, s, "other").want(201, "POST", patTokens, `{"name":"twice"}`)
}

func TestTokenDays(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{MaxTokens: -1}})
	ci := basic(t, s, "ci")
	for _, c := range []struct {
		switches jiratest.Switches
		duration string
		status   int
		days     int // 0: for ever
	}{
		{jiratest.Switches{}, `1`, 201, 1},
		{jiratest.Switches{}, `365`, 201, 365},
		{jiratest.Switches{}, `366`, 400, 0},
		{jiratest.Switches{}, `0`, 400, 0},
		{jiratest.Switches{}, `-1`, 400, 0},
		{jiratest.Switches{}, `1.5`, 400, 0},
		{jiratest.Switches{}, `"1"`, 400, 0},
		{jiratest.Switches{}, `null`, 201, 0},
		{jiratest.Switches{EternalOff: true}, `null`, 400, 0},
		{jiratest.Switches{EternalOff: true}, `7`, 201, 7},
		{jiratest.Switches{MaxDays: 30}, `30`, 201, 30},
		{jiratest.Switches{MaxDays: 30}, `31`, 400, 0},
		{jiratest.Switches{ClampDays: true}, `366`, 201, 365},
		{jiratest.Switches{ClampDays: true}, `0`, 201, 1},
		{jiratest.Switches{ClampDays: true, MaxDays: 30}, `31`, 201, 30},
	} {
		s.SetSwitches(func(sw *jiratest.Switches) { *sw = c.switches; sw.MaxTokens = -1 })
		ci.want(c.status, "POST", patTokens, `{"name":"n","expirationDuration":`+c.duration+`}`)
		if c.status != 201 {
			continue
		}
		list := s.Tokens("ci")
		got := list[len(list)-1]
		if c.days == 0 && !got.Expires.IsZero() || c.days != 0 && !got.Expires.Equal(got.Created.Add(time.Duration(c.days)*24*time.Hour)) {
			t.Errorf("%s with %+v expires %v", c.duration, c.switches, got.Expires)
		}
	}
}

func TestHowTokensLook(t *testing.T) {
	const big = 1<<53 + 1 // no float64 holds it
	for _, c := range []struct {
		name     string
		switches jiratest.Switches
		body     string
		want     string
	}{
		{"default", jiratest.Switches{}, `{"name":"n"}`, `{"createdAt":"2026-03-02T08:15:09.417+00:00","expiringAt":null,"id":412,"name":"n"}`},
		{"string", jiratest.Switches{IDString: true, FirstID: big}, `{"name":"n"}`, `{"createdAt":"2026-03-02T08:15:09.417+00:00","expiringAt":null,"id":"9007199254740993","name":"n"}`},
		{"big", jiratest.Switches{FirstID: big}, `{"name":"n"}`, `{"createdAt":"2026-03-02T08:15:09.417+00:00","expiringAt":null,"id":9007199254740993,"name":"n"}`},
		{"absent", jiratest.Switches{Eternal: "absent"}, `{"name":"n"}`, `{"createdAt":"2026-03-02T08:15:09.417+00:00","id":412,"name":"n"}`},
		{"9999", jiratest.Switches{Eternal: "9999"}, `{"name":"n"}`, `{"createdAt":"2026-03-02T08:15:09.417+00:00","expiringAt":"9999-12-31T23:59:59.000+00:00","id":412,"name":"n"}`},
		{
			"no colon",
			jiratest.Switches{TimesNoColon: true},
			`{"name":"n","expirationDuration":1}`,
			`{"createdAt":"2026-03-02T08:15:09.417+0000","expiringAt":"2026-03-03T08:15:09.417+0000","id":412,"name":"n"}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newJira(t, jiratest.Options{Switches: c.switches})
			ci := basic(t, s, "ci")
			ci.want(201, "POST", patTokens, c.body)
			id := strconv.FormatInt(s.Tokens("ci")[0].ID, 10)
			if r := ci.do("GET", patTokens+"/"+id, ""); r.body != c.want {
				t.Errorf("shown as %s\nwant %s", r.body, c.want)
			}
			if r := ci.do("GET", patTokens, ""); r.body != "["+c.want+"]" {
				t.Errorf("listed as %s\nwant [%s]", r.body, c.want)
			}
		})
	}
}

// With OddRows the list alone is odd: a token by its id looks as ever.
func TestHowTokensLookInAnOddList(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{OddRows: true}})
	ci := basic(t, s, "ci")
	ci.want(201, "POST", patTokens, `{"name":"n","expirationDuration":1}`)
	list := ci.do("GET", patTokens, "").body
	if want := `{"createdAt":1772439309417,"expiringAt":1772525709417,"id":412,"name":"n"}]`; !strings.HasSuffix(list, want) || strings.Count(list, `"id":`) != 6 {
		t.Errorf("listed as %s", list)
	}
	id := strconv.FormatInt(s.Tokens("ci")[0].ID, 10)
	if r := ci.do("GET", patTokens+"/"+id, ""); !strings.Contains(r.body, `"createdAt":"2026-03-02T08:15:09.417+00:00"`) {
		t.Errorf("shown as %s", r.body)
	}
}

func TestLastAccessed(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	path, with := ci.mint(s, "n")
	shown := func() any { t.Helper(); return ci.want(200, "GET", path, "")["lastAccessedAt"] }
	with.want(200, "GET", myself, "")
	if at := shown(); at != nil {
		t.Errorf("shown at once: %v", at)
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.LastAccessedAtOnce = true })
	if at := shown(); at != "2026-03-02T08:15:09.417+00:00" {
		t.Errorf("not shown at once: %v", at)
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.LastAccessedAtOnce = false })
	s.Advance(time.Minute)
	with.want(200, "GET", myself, "") // the new use does not hide the one before
	if at := shown(); at != "2026-03-02T08:15:09.417+00:00" {
		t.Errorf("a minute later: %v", at)
	}
	s.Advance(time.Minute)
	if at := shown(); at != "2026-03-02T08:16:09.417+00:00" {
		t.Errorf("two minutes later: %v", at)
	}
}

func TestStatuses(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{MaxTokens: 1}})
	ci := basic(t, s, "ci")
	theirs, _ := s.Mint("other", "n", 0)
	check := func(minted, capped, unknown, foreign int) {
		t.Helper()
		k := ci.want(minted, "POST", patTokens, `{"name":"n"}`)
		if text := ci.want(capped, "POST", patTokens, `{"name":"n"}`)["error"]; text != "You can't create more than 1 tokens." {
			t.Errorf("the cap says %v", text)
		}
		mine := fmt.Sprintf("%s/%v", patTokens, k["id"])
		ci.want(204, "DELETE", mine, "")
		ci.want(unknown, "DELETE", mine, "")
		ci.want(unknown, "DELETE", patTokens+"/x", "")
		ci.want(foreign, "DELETE", fmt.Sprintf("%s/%d", patTokens, theirs.ID), "")
	}
	check(201, 403, 404, 403)
	s.SetSwitches(func(sw *jiratest.Switches) {
		sw.PostStatus, sw.CapStatus, sw.DeleteUnknownStatus, sw.DeleteForeignStatus = 200, 400, 204, 401
	})
	check(200, 400, 204, 401)
	if !s.Tokens("other")[0].Live {
		t.Error("somebody else's token was deleted")
	}
}

func TestCap(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	for range 10 {
		ci.want(201, "POST", patTokens, `{"name":"n"}`)
	}
	ci.want(403, "POST", patTokens, `{"name":"n"}`)
	basic(t, s, "other").want(201, "POST", patTokens, `{"name":"n"}`)
	s.Delete(s.Tokens("ci")[4].ID)
	ci.want(201, "POST", patTokens, `{"name":"n"}`)
	ci.want(403, "POST", patTokens, `{"name":"n"}`)
}

func TestExpiredTokens(t *testing.T) {
	const day = 24 * time.Hour
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{MaxTokens: 1}})
	ci := basic(t, s, "ci")
	path, with := ci.mint(s, "vault-short")
	s.Advance(day - time.Millisecond)
	with.want(200, "GET", myself, "")
	s.Advance(time.Millisecond)
	with.want(401, "GET", myself, "")
	if k := s.Tokens("ci")[0]; k.Live {
		t.Errorf("lives after its expiry: %v", k)
	}
	if ci.list() != "vault-short" {
		t.Error("an expired token is not listed")
	}
	ci.want(403, "POST", patTokens, `{"name":"next"}`)
	s.SetSwitches(func(sw *jiratest.Switches) { sw.ExpiredNotListed = true })
	if ci.list() != "" {
		t.Error("an expired token is listed")
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.ExpiredDoNotCount = true })
	next, _ := ci.mint(s, "next")
	ci.want(204, "DELETE", next, "")

	s.SetSwitches(func(sw *jiratest.Switches) { sw.ExpiredDoNotCount, sw.ExpiredNotListed = false, false })
	s.Advance(30*day - time.Millisecond)
	ci.want(200, "GET", path, "")
	ci.want(403, "POST", patTokens, `{"name":"next"}`)
	s.SetSwitches(func(sw *jiratest.Switches) { sw.ExpiredKept = 31 * day })
	s.Advance(time.Millisecond)
	ci.want(200, "GET", path, "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.ExpiredKept = 0 })
	ci.want(404, "GET", path, "")
	if ci.list() != "" {
		t.Error("an expired token is listed after 30 days")
	}
	ci.want(201, "POST", patTokens, `{"name":"next"}`)
}

func TestUnknownToken(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	theirs, _ := s.Mint("other", "n", 0)
	for _, id := range []string{"1", "x", "99999999999999999999", strconv.FormatInt(theirs.ID, 10)} {
		r := ci.do("GET", patTokens+"/"+id, "")
		if r.status != 404 || r.body != "" || r.header.Get("Content-Type") != "" || r.header.Get("X-Ausername") != "ci" {
			t.Errorf("GET of %s: %v", id, r)
		}
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.GetUnknownJSON = true })
	if e := ci.want(404, "GET", patTokens+"/1", ""); e["error"] == "" || e["exception"] == "" {
		t.Errorf("answered %v", e)
	}
}

func TestAdministratorAndOthersTokens(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	root := basic(t, s, "root")
	k, _ := s.Mint("ci", "n", 0)
	path := fmt.Sprintf("%s/%d", patTokens, k.ID)
	root.want(200, "GET", path, "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.AdminOwnTokensOnly = true })
	root.want(404, "GET", path, "")
	root.want(403, "DELETE", path, "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.AdminOwnTokensOnly = false })
	root.want(204, "DELETE", path, "")
	if root.list() != "" || len(s.Tokens("ci")) != 0 {
		t.Errorf("left: %v", s.Tokens(""))
	}
}

func TestSiblings(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	parent, withParent := ci.mint(s, "parent")
	child, withChild := withParent.mint(s, "child")
	withParent.want(204, "DELETE", parent, "")
	withChild.want(200, "GET", myself, "")

	second, withSecond := withChild.mint(s, "second")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.PATMayNotMint, sw.PATMayNotDelete = true, true })
	withChild.want(403, "POST", patTokens, `{"name":"n"}`)
	withChild.want(403, "DELETE", second, "")
	withSecond.want(204, "DELETE", second, "")
	ci.want(204, "DELETE", child, "")

	s.SetSwitches(func(sw *jiratest.Switches) { *sw = jiratest.Switches{DeleteTakesSiblings: true} })
	parent, withParent = ci.mint(s, "parent")
	_, withChild = withParent.mint(s, "child")
	_, _ = withChild.mint(s, "grandchild")
	ci.mint(s, "not of that family")
	ci.want(204, "DELETE", parent, "")
	withChild.want(401, "GET", myself, "")
	if got := ci.list(); got != "not of that family" {
		t.Errorf("left: %s", got)
	}
}

func TestLags(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{ListLag: time.Minute, DeleteLag: time.Second}})
	ci := basic(t, s, "ci")
	path, with := ci.mint(s, "vault-n")
	if got := ci.list(); got != "" {
		t.Errorf("listed at once: %q", got)
	}
	ci.want(200, "GET", path, "")
	s.Advance(time.Minute)
	if got := ci.list(); got != "vault-n" {
		t.Errorf("not listed after a minute: %q", got)
	}
	ci.want(204, "DELETE", path, "")
	ci.want(404, "GET", path, "")
	ci.want(404, "DELETE", path, "")
	with.want(200, "GET", myself, "")
	s.Advance(time.Second)
	with.want(401, "GET", myself, "")
	if got := ci.list(); got != "vault-n" || len(s.Tokens("ci")) != 0 {
		t.Errorf("gone from the list at once: %q; %v", got, s.Tokens("ci"))
	}
	s.Advance(time.Minute)
	if got := ci.list(); got != "" {
		t.Errorf("listed a minute after it was deleted: %q", got)
	}

	s.SetSwitches(func(sw *jiratest.Switches) { *sw = jiratest.Switches{} })
	path, with = ci.mint(s, "n")
	if got := ci.list(); got != "n" {
		t.Errorf("without lag the list is %q", got)
	}
	ci.want(204, "DELETE", path, "")
	with.want(401, "GET", myself, "")
	if got := ci.list(); got != "" {
		t.Errorf("without lag the list is %q", got)
	}

	ci.mint(s, "m")
	s.Advance(-time.Hour) // Jira's clock is set back
	if got := ci.list(); got != "m" {
		t.Errorf("after its clock was set back Jira lists %q", got)
	}
}

func TestVersion10(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	ci.want(200, "GET", "/rest/pat/1.0/tokens", "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.NoVersion10 = true })
	ci.want(404, "GET", "/rest/pat/1.0/tokens", "")
	ci.want(404, "GET", "/rest/pat/2.0/tokens", "")
	ci.want(200, "GET", patTokens, "")
}

func TestErrorShapes(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	refusal := func() map[string]any { t.Helper(); return ci.want(400, "POST", patTokens, `{}`) }
	if e := refusal(); e["error"] != "Token name is required." || !strings.HasPrefix(fmt.Sprint(e["exception"]), "com.atlassian.") {
		t.Errorf("answered %v", e)
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.ForeignTexts = true })
	if e := refusal(); strings.Contains(fmt.Sprint(e["error"]), "required") {
		t.Errorf("answered %v", e)
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.PATErrorsLikeRest, sw.ForeignTexts = true, false })
	if e := refusal(); fmt.Sprint(e["errorMessages"]) != "[Token name is required.]" {
		t.Errorf("answered %v", e)
	}
}

// A client with a misspelt field must not get what it means.
func TestFieldsAreSpeltExactly(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	ci.want(400, "POST", patTokens, `{"Name":"n"}`)
	ci.want(400, "POST", patTokens, `["name"]`)
	ci.want(400, "POST", patTokens, `{"name":"n"} trailing`)
	if k := ci.want(201, "POST", patTokens, `{"name":"n","expirationduration":7}`); k["expiringAt"] != nil {
		t.Errorf("a misspelt expirationDuration counts: %v", k)
	}
	ci.header.Set("Content-Type", "text/plain")
	ci.want(415, "POST", patTokens, `{"name":"n"}`)
}

func TestNoTokensInOldJira(t *testing.T) {
	for version, status := range map[string]int{"8.13.27": 404, "7.0": 404, "8.14.0": 200, "11.1.0": 200, "nonsense": 404} {
		s := newJira(t, jiratest.Options{Version: version})
		if r := basic(t, s, "ci").do("GET", patTokens, ""); r.status != status || status == 404 && !strings.Contains(r.body, "<html") {
			t.Errorf("%s answers %v", version, r)
		}
		_, raw := s.Mint("ci", "n", 0)
		if r := as(t, s, "Bearer "+raw).do("GET", myself, ""); (r.status == 200) != (status == 200) {
			t.Errorf("%s answers a token with %v", version, r)
		}
	}
}

func TestTokensSwitchedOff(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{PATsOff: true}})
	_, raw := s.Mint("ci", "n", 0)
	as(t, s, "Bearer "+raw).want(401, "GET", myself, "")
	ci := basic(t, s, "ci")
	ci.want(403, "GET", patTokens, "")
	ci.want(403, "POST", patTokens, `{"name":"n"}`)
}

func TestManyTokens(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{MaxTokens: -1}})
	var last jiratest.Token
	for range 100_000 {
		last, _ = s.Mint("ci", "vault-n", 1)
	}
	ci := basic(t, s, "ci")
	path, _ := ci.mint(s, "n")
	ci.want(204, "DELETE", path, "")
	ci.want(204, "DELETE", fmt.Sprintf("%s/%d", patTokens, last.ID), "")
	if n := len(s.Tokens("ci")); n != 99_999 {
		t.Errorf("%d tokens", n)
	}
	if r := ci.do(http.MethodGet, patTokens, ""); strings.Count(r.body, `"id"`) != 99_999 {
		t.Errorf("%d bytes of list", len(r.body))
	}
	s.Leave()
}
