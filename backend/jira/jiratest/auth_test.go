package jiratest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// A dead token is not refused: the call goes on as anonymous.
func TestDeadBearerIsAnonymous(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.AddProject(jiratest.Project{Key: "DEMO"})
	s.AddIssue("demo", "ci", "broken")
	k, raw := s.Mint("ci", "n", 0)
	with := as(t, s, "Bearer "+raw)
	if found := with.want(200, "GET", search, ""); fmt.Sprint(found["total"]) != "1" {
		t.Errorf("a live token finds %v", found)
	}
	s.Delete(k.ID)
	for _, c := range []*client{with, as(t, s, "Bearer wrong"), as(t, s, ""), as(t, s, "Bearer"), as(t, s, "Digest x")} {
		for _, call := range []struct {
			path   string
			status int
			body   string
		}{
			{search, 200, `"total":0`},
			{"/rest/api/2/serverInfo", 200, `"version":"10.3.2"`},
			{"/rest/api/2/project", 200, `[]`},
			{"/rest/api/2/project/DEMO", 404, `No project could be found with key 'DEMO'.`},
			{"/rest/api/2/issue/DEMO-1", 401, `Login Required`},
			{myself, 401, `{"message":"Client must be authenticated to access this resource.","status-code":401}`},
			{patTokens, 401, `{"message":"Client must be authenticated to access this resource.","status-code":401}`},
		} {
			r := c.do("GET", call.path, "")
			if r.status != call.status || !strings.Contains(r.body, call.body) || r.header.Get("X-Ausername") != "anonymous" {
				t.Errorf("GET %s as %q: %v", call.path, c.header.Get("Authorization"), r)
			}
		}
		c.want(401, "POST", patTokens, `{"name":"n"}`)
		c.want(401, "POST", "/rest/api/2/issue", `{}`)
		if r := c.do("GET", "/rest/api/2/mypermissions", ""); r.status != 200 || strings.Contains(r.body, "true") {
			t.Errorf("anonymous may do %v", r)
		}
	}
}

func TestWrongPassword(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.AddUser(jiratest.User{Name: "gone", Password: "the password of gone", Inactive: true})
	for _, header := range []string{
		basicHeader("ci", "wrong"), basicHeader("nobody", "wrong"), basicHeader("gone", "the password of gone"), "Basic ???",
	} {
		r := as(t, s, header).do("GET", "/rest/api/2/serverInfo", "")
		if r.status != 401 || r.header.Get("X-Seraph-Loginreason") != "AUTHENTICATED_FAILED" || r.header.Get("X-Ausername") != "anonymous" ||
			!strings.HasPrefix(r.header.Get("WWW-Authenticate"), `OAuth realm="http%3A%2F%2F127.0.0.1`) || !strings.Contains(r.body, "<html") {
			t.Errorf("%s: %v", header, r)
		}
	}
	r := basic(t, s, "ci").do("GET", myself, "")
	if r.status != 200 || r.header.Get("X-Seraph-Loginreason") != "OK" || len(r.header.Values("Set-Cookie")) != 2 {
		t.Errorf("the right password: %v", r)
	}
}

func TestCaptcha(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	_, raw := s.Mint("ci", "n", 0)
	right, wrong, token := basic(t, s, "ci"), as(t, s, basicHeader("ci", "wrong")), as(t, s, "Bearer "+raw)
	wrong.want(401, "GET", myself, "")
	wrong.want(401, "GET", myself, "")
	right.want(200, "GET", myself, "") // starts the count again
	for range 9 {
		as(t, s, "Bearer wrong").want(401, "GET", myself, "") // does not count
	}
	for range 3 {
		wrong.want(401, "GET", myself, "")
	}
	r := right.do("GET", myself, "")
	if r.status != 403 || !strings.Contains(r.body, "<html") || r.header.Get("X-Ausername") != "anonymous" ||
		!strings.HasPrefix(r.header.Get("X-Authentication-Denied-Reason"), "CAPTCHA_CHALLENGE; login-url="+s.URL()) {
		t.Errorf("the right password after three wrong ones: %v", r)
	}
	token.want(200, "GET", myself, "")
	basic(t, s, "other").want(200, "GET", myself, "")
	s.LogIn("ci")
	right.want(200, "GET", myself, "")

	s.SetSwitches(func(sw *jiratest.Switches) { sw.CaptchaAfter = 1 })
	wrong.want(401, "GET", myself, "")
	wrong.want(403, "GET", myself, "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.CaptchaAfter = -1 })
	for range 5 {
		wrong.want(401, "GET", myself, "")
	}
	right.want(200, "GET", myself, "")
}

func TestBasicOff(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	_, raw := s.Mint("ci", "n", 0)
	ci := basic(t, s, "ci")
	ci.want(200, "GET", myself, "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.BasicOff, sw.BasicAllowed = true, []string{"root"} })
	for _, c := range []*client{ci, as(t, s, basicHeader("ci", "wrong")), as(t, s, basicHeader("nobody", "x"))} {
		if r := c.do("GET", myself, ""); r.status != 403 || r.body != `{"message":"Basic Authentication has been disabled on this instance."}` {
			t.Errorf("answered %v", r)
		}
	}
	basic(t, s, "root").want(200, "GET", myself, "")
	as(t, s, "Bearer "+raw).want(200, "GET", myself, "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.BasicPaths = []string{"/rest/pat"} })
	ci.want(200, "GET", patTokens, "")
	ci.want(403, "GET", myself, "")
}

func TestAUserName(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.AddUser(jiratest.User{Name: "José a@b", Password: "the password of José a@b"})
	_, raw := s.Mint("José a@b", "n", 0)
	for _, c := range []*client{as(t, s, "Bearer "+raw), basic(t, s, "José a@b")} {
		check := func(status int, path, want string) {
			t.Helper()
			r := c.do("GET", path, "")
			if got := r.header.Values("X-Ausername"); r.status != status || strings.Join(got, "|") != want {
				t.Errorf("GET %s: %d as %q, want %q", path, r.status, got, want)
			}
		}
		check(200, myself, "Jos%C3%A9+a%40b")
		check(404, patTokens+"/1", "Jos%C3%A9+a%40b")
		check(404, "/nowhere", "Jos%C3%A9+a%40b")
		s.SetSwitches(func(sw *jiratest.Switches) { sw.XAUserNameRaw = true })
		check(200, myself, "José a@b")
		s.SetSwitches(func(sw *jiratest.Switches) { sw.XAUserNameAbsent = true })
		check(200, myself, "")
		s.SetSwitches(func(sw *jiratest.Switches) { *sw = jiratest.Switches{} })
	}
	if r := as(t, s, "").do("GET", "/status", ""); r.header.Get("X-Ausername") != "anonymous" {
		t.Errorf("anonymous is %q", r.header.Get("X-Ausername"))
	}
}

func TestLoginCase(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	shouting := as(t, s, basicHeader("CI", "the password of ci"))
	if r := shouting.do("GET", myself, ""); r.status != 200 || r.header.Get("X-Ausername") != "ci" {
		t.Errorf("answered %v", r)
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.LoginCaseSensitive = true })
	shouting.want(401, "GET", myself, "")
	basic(t, s, "ci").want(200, "GET", myself, "")
}

// A client that keeps cookies takes a dead token for a live one.
func TestSessionOutlivesToken(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	cookie, _, _ := strings.Cut(basic(t, s, "ci").do("GET", myself, "").header.Get("Set-Cookie"), ";")
	c := as(t, s, "Bearer dead")
	c.header.Set("Cookie", cookie)
	if me := c.want(200, "GET", myself, ""); me["name"] != "ci" {
		t.Errorf("the session is %v", me)
	}
	remove := s.Fault(jiratest.Fault{Do: jiratest.Anonymous})
	c.want(401, "GET", myself, "") // that takes the cookie for nothing too
	remove()
	s.SetUser("ci", func(u *jiratest.User) { u.Inactive = true })
	c.want(401, "GET", myself, "")
	s.DeleteUser("ci")
	c.want(401, "GET", myself, "")
}

func TestXSRF(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	for _, c := range []struct {
		name    string
		method  string
		headers map[string]string
		status  int
	}{
		{"json", "POST", map[string]string{"X-Atlassian-Token": "", "Content-Type": "application/json"}, 201},
		{"form with proof", "POST", map[string]string{"Content-Type": "text/plain"}, 415},
		{"form", "POST", map[string]string{"X-Atlassian-Token": "", "Content-Type": "text/plain"}, 403},
		{"browser", "POST", map[string]string{"User-Agent": "Mozilla/5.0 (X11)"}, 403},
		{"delete", "DELETE", map[string]string{"X-Atlassian-Token": ""}, 403},
		{"delete with proof", "DELETE", map[string]string{"X-Atlassian-Token": "No-Check"}, 404},
		{"get", "GET", map[string]string{"X-Atlassian-Token": "", "User-Agent": "Mozilla/5.0 (X11)"}, 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			ci := basic(t, s, "ci")
			for name, value := range c.headers {
				ci.header.Set(name, value)
			}
			path, body := patTokens+"/1", ""
			if c.method == "POST" {
				path, body = patTokens, `{"name":"n"}`
			}
			r := ci.do(c.method, path, body)
			if r.status != c.status || r.status == 403 && r.body != "XSRF check failed" {
				t.Errorf("answered %v", r)
			}
		})
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.XSRFOff = true })
	ci := basic(t, s, "ci")
	ci.header.Set("User-Agent", "Mozilla/5.0 (X11)")
	ci.want(201, "POST", patTokens, `{"name":"n"}`)
}

func TestBigHeaders(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	c := as(t, s, "")
	c.header.Set("X-Padding", strings.Repeat("x", 7900))
	c.want(200, "GET", "/status", "")
	c.header.Set("X-Padding", strings.Repeat("x", 8192))
	if r := c.do("GET", "/status", ""); r.status != 400 || !strings.Contains(r.body, "HTTP Status 400") {
		t.Errorf("answered %v", r)
	}
}

func TestRateLimit(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{RateLimit: 2, RateFill: 1, RateInterval: 10 * time.Second}})
	ci := basic(t, s, "ci")
	check := func(status int, remaining, retry string) {
		t.Helper()
		r := ci.do("GET", patTokens, "")
		h := r.header
		if r.status != status || h.Get("X-Ratelimit-Remaining") != remaining || h.Get("Retry-After") != retry {
			t.Errorf("%d, %s remaining, retry after %q", r.status, h.Get("X-Ratelimit-Remaining"), h.Get("Retry-After"))
		}
		if h.Get("X-Ratelimit-Limit") != "2" || h.Get("X-Ratelimit-Fillrate") != "1" || h.Get("X-Ratelimit-Interval-Seconds") != "10" {
			t.Errorf("headers %v", h)
		}
		if status == 429 && r.fields(t)["message"] == "" {
			t.Errorf("body %s", r.body)
		}
	}
	check(200, "1", "0")
	check(200, "0", "10")
	s.Advance(1500 * time.Millisecond)
	check(429, "0", "9")
	ci.want(200, "GET", "/status", "")
	basic(t, s, "other").want(200, "GET", patTokens, "")
	s.Advance(8500 * time.Millisecond)
	check(200, "0", "10")
	s.Advance(time.Hour)
	check(200, "1", "0")
	check(200, "0", "10")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.RetryAfterAbsent = true })
	check(429, "0", "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.RetryAfterAbsent, sw.RetryAfterZero = false, true })
	check(429, "0", "0")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.RateLimit = 0 })
	if r := ci.do("GET", patTokens, ""); r.status != http.StatusOK || r.header.Get("Retry-After") != "" {
		t.Errorf("without a limit: %v", r)
	}
}

// A 429 on a mint makes nothing.
func TestRateLimitedMint(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{RateLimit: 1}})
	ci := basic(t, s, "ci")
	ci.want(201, "POST", patTokens, `{"name":"n"}`)
	ci.want(429, "POST", patTokens, `{"name":"n"}`)
	if n := len(s.Tokens("ci")); n != 1 {
		t.Errorf("%d tokens", n)
	}
}
