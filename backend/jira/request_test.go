package jira

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// made counts ci's tokens of that name.
func made(s *jiratest.Server, name string) (n int) {
	for _, k := range s.Tokens("ci") {
		if k.Name == name {
			n++
		}
	}
	return n
}

// TestRepeats holds how often each call is sent, and what its error tells,
// when every try of it ends badly.
func TestRepeats(t *testing.T) {
	type outcome struct {
		calls int
		kind  Kind
	}
	answer := func(status int, body string) jiratest.Fault {
		return jiratest.Fault{Do: jiratest.Answer, Status: status, Body: body}
	}
	for name, test := range map[string]struct {
		fault     jiratest.Fault
		mint      outcome
		nothing   bool // certainly, the mint made nothing
		tokens    int  // that the mint made
		get       outcome
		deleted   outcome // no kind: success
		closesFor bool    // the next call with this login is not sent
	}{
		"429":         {answer(429, `{"message":"Rate limit exceeded."}`), outcome{3, Busy}, true, 0, outcome{3, Busy}, outcome{3, Busy}, false},
		"429 HTML":    {answer(429, "<html>"), outcome{3, Busy}, true, 0, outcome{3, Busy}, outcome{3, Busy}, false},
		"400":         {answer(400, `{"error":"no"}`), outcome{1, Denied}, true, 0, outcome{1, Denied}, outcome{1, Denied}, false},
		"400 HTML":    {answer(400, "<html>"), outcome{1, Nonsense}, false, 0, outcome{1, Nonsense}, outcome{1, Nonsense}, false},
		"403":         {answer(403, `{"error":"no"}`), outcome{1, Denied}, true, 0, outcome{1, Denied}, outcome{1, Denied}, false},
		"403 HTML":    {answer(403, "<html>"), outcome{1, Denied}, false, 0, outcome{1, Denied}, outcome{1, Denied}, false},
		"401":         {answer(401, `{"message":"no"}`), outcome{1, Refused}, true, 0, outcome{1, Refused}, outcome{1, Refused}, true},
		"401 HTML":    {answer(401, "<html>"), outcome{1, Refused}, false, 0, outcome{1, Refused}, outcome{1, Refused}, true},
		"408":         {answer(408, ""), outcome{1, Nonsense}, false, 0, outcome{1, Nonsense}, outcome{1, Nonsense}, false},
		"500":         {answer(500, `{"message":"no"}`), outcome{1, Down}, false, 0, outcome{1, Down}, outcome{1, Down}, false},
		"502":         {answer(502, "<html>"), outcome{1, Down}, false, 0, outcome{3, Down}, outcome{3, Down}, false},
		"503":         {answer(503, ""), outcome{1, Down}, false, 0, outcome{3, Down}, outcome{3, Down}, false},
		"504":         {answer(504, ""), outcome{1, Down}, false, 0, outcome{3, Down}, outcome{3, Down}, false},
		"202":         {answer(202, "{}"), outcome{1, Nonsense}, false, 0, outcome{1, Nonsense}, outcome{1, Nonsense}, false},
		"302":         {answer(302, ""), outcome{1, Nonsense}, false, 0, outcome{1, Nonsense}, outcome{1, Nonsense}, false},
		"empty 200":   {answer(200, ""), outcome{1, Nonsense}, false, 0, outcome{1, Nonsense}, outcome{1, Nonsense}, false},
		"plain 200":   {answer(200, "OK"), outcome{1, Nonsense}, false, 0, outcome{1, Nonsense}, outcome{1, Nonsense}, false},
		"HTML 200":    {jiratest.Fault{Do: jiratest.HTML200}, outcome{1, Nonsense}, false, 0, outcome{1, Nonsense}, outcome{1, Nonsense}, false},
		"HTML 404":    {jiratest.Fault{Do: jiratest.HTML404}, outcome{1, Nonsense}, false, 0, outcome{1, Nonsense}, outcome{1, Nonsense}, false},
		"lost call":   {jiratest.Fault{Do: jiratest.LoseCall}, outcome{1, Down}, false, 0, outcome{3, Down}, outcome{3, Down}, false},
		"lost answer": {jiratest.Fault{Do: jiratest.LoseAnswer}, outcome{1, Down}, false, 1, outcome{3, Down}, outcome{3, Down}, false},
		"cut":         {jiratest.Fault{Do: jiratest.CutBody}, outcome{1, Nonsense}, false, 1, outcome{1, Nonsense}, outcome{3, Down}, false},
		"huge":        {jiratest.Fault{Do: jiratest.Huge}, outcome{1, Nonsense}, false, 1, outcome{1, Nonsense}, outcome{1, Nonsense}, false},
		"502 after":   {jiratest.Fault{Do: jiratest.AnswerAfter, Status: 502}, outcome{1, Down}, false, 1, outcome{3, Down}, outcome{3, Down}, false},
		"anonymous":   {jiratest.Fault{Do: jiratest.Anonymous}, outcome{1, Refused}, true, 0, outcome{1, Refused}, outcome{1, Refused}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			// check makes one call, and another to see whether the login is
			// still in use.
			check := func(method string, want outcome, call func(*Client) error) error {
				t.Helper()
				c := bearer(t, s, "ci")
				test.fault.Method, test.fault.Path = method, tokensPath
				remove := s.Fault(test.fault)
				defer remove()
				s.ResetCalls()
				err := call(c)
				if want.kind == "" && err != nil || want.kind != "" && !Is(err, want.kind) {
					t.Errorf("%s: got %v, want %q", method, err, want.kind)
				}
				if n := s.Count(method, tokensPath); n != want.calls {
					t.Errorf("%s: %d calls, want %d", method, n, want.calls)
				}
				_, _ = c.Myself(t.Context())
				if have := s.Count("GET", myselfPath) == 0; have != test.closesFor {
					t.Errorf("%s: the login is closed afterwards: %v, want %v", method, have, test.closesFor)
				}
				return err
			}
			err := check("POST", test.mint, func(c *Client) error {
				_, _, err := c.CreateToken(t.Context(), "nightly", 1)
				return err
			})
			if NothingMade(err) != test.nothing {
				t.Errorf("nothing was made: %v, want %v", NothingMade(err), test.nothing)
			}
			if n := made(s, "nightly"); n != test.tokens {
				t.Errorf("%d tokens were made, want %d", n, test.tokens)
			}
			_ = check("GET", test.get, func(c *Client) error {
				_, err := c.Tokens(t.Context())
				return err
			})
			_ = check("DELETE", test.deleted, func(c *Client) error { return c.DeleteToken(t.Context(), "99") })
		})
	}
}

// TestTroubleThatPasses: what goes wrong once and may be repeated succeeds.
func TestTroubleThatPasses(t *testing.T) {
	for _, method := range []string{"POST", "GET", "DELETE"} {
		for name, fault := range map[string]jiratest.Fault{
			"429 without Retry-After": {Do: jiratest.Answer, Status: 429},
			"429 with 0":              {Do: jiratest.Answer, Status: 429, Header: http.Header{"Retry-After": {"0"}}},
			"429 with an hour":        {Do: jiratest.Answer, Status: 429, Header: http.Header{"Retry-After": {"3600"}}},
			"502":                     {Do: jiratest.Answer, Status: 502},
			"503 with a minute":       {Do: jiratest.Answer, Status: 503, Header: http.Header{"Retry-After": {"60"}}},
			"lost call":               {Do: jiratest.LoseCall},
			"lost answer":             {Do: jiratest.LoseAnswer},
		} {
			if method == "POST" && fault.Status != 429 {
				continue
			}
			t.Run(method+" "+name, func(t *testing.T) {
				s := newJira(t, jiratest.Options{})
				c := bearer(t, s, "ci")
				victim, _ := s.Mint("ci", "victim", 1)
				fault.Method, fault.Nth = method, 1
				s.Fault(fault)
				var err error
				switch method {
				case "POST":
					_, _, err = c.CreateToken(t.Context(), "nightly", 1)
					if made(s, "nightly") != 1 {
						t.Errorf("%d tokens were made", made(s, "nightly"))
					}
				case "GET":
					_, err = c.Tokens(t.Context())
				case "DELETE":
					err = c.DeleteToken(t.Context(), key(victim))
					if made(s, "victim") != 0 {
						t.Error("the token is still there")
					}
				}
				if err != nil || s.Count(method, "") != 2 {
					t.Errorf("%v, after %d calls", err, s.Count(method, ""))
				}
			})
		}
	}
}

// TestPauses: how long a call waits before it is sent again, on a site as New
// makes it.
func TestPauses(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	type span struct{ least, most time.Duration }
	for name, test := range map[string]struct {
		status     int // 0: no answer at all
		retryAfter string
		want       []span
	}{
		"no answer":              {0, "", []span{{100 * ms, 200 * ms}, {200 * ms, 400 * ms}}},
		"502":                    {502, "", []span{{100 * ms, 200 * ms}, {200 * ms, 400 * ms}}},
		"503 with 2":             {503, "2", []span{{2 * s, 2500 * ms}, {2 * s, 2500 * ms}}},
		"503 with nothing":       {503, "0", []span{{s, 1250 * ms}, {s, 1250 * ms}}},
		"503 with an hour":       {503, "3600", []span{{20 * s, 25 * s}, {20 * s, 25 * s}}},
		"429":                    {429, "", []span{{s, 1250 * ms}, {s, 1250 * ms}}},
		"429 with half a minute": {429, "30", []span{{30 * s, 37500 * ms}, {30 * s, 37500 * ms}}},
		"429 with an hour":       {429, "3600", []span{{300 * s, 375 * s}, {300 * s, 375 * s}}},
		"500":                    {500, "", nil},
		"400":                    {400, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent []time.Time
				jira := network(func(*http.Request) (*http.Response, error) {
					sent = append(sent, time.Now())
					if test.status == 0 {
						return nil, io.ErrUnexpectedEOF
					}
					resp := answered(test.status, "{}")
					resp.Header.Set("Retry-After", test.retryAfter)
					return resp, nil
				})
				_, err := jira.site(t).As(Login{Username: "ci", Token: "s3cret"}).Myself(t.Context())
				if err == nil || len(sent) != len(test.want)+1 {
					t.Fatalf("%v, after %d calls", err, len(sent))
				}
				for i, want := range test.want {
					if gap := sent[i+1].Sub(sent[i]); gap < want.least || gap > want.most {
						t.Errorf("before try %d it waited %v, want %v to %v", i+2, gap, want.least, want.most)
					}
				}
				if time.Since(sent[len(sent)-1]) != 0 {
					t.Error("it waited after the last try")
				}
			})
		})
	}
}

// TestMaintenanceThatIsOverEarly: a page that names an hour and is gone after 15 s keeps
// nobody out for longer than the hint is believed.
func TestMaintenanceThatIsOverEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := time.Now().Add(15 * time.Second)
		jira := network(func(*http.Request) (*http.Response, error) {
			if time.Now().Before(over) {
				resp := answered(http.StatusServiceUnavailable, "<html><title>Maintenance</title></html>")
				resp.Header.Set("Retry-After", "3600")
				return resp, nil
			}
			return answered(http.StatusOK, `{"name":"ci","key":"K1"}`), nil
		})
		c := jira.site(t).As(Login{Username: "ci", Token: "s3cret"})
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second) // as a reader's
			_, err := c.Myself(ctx)
			cancel()
			if err == nil {
				break
			}
			time.Sleep(time.Second)
		}
		if late, most := time.Since(over), longestHint+longestHint/4+time.Second; late > most {
			t.Errorf("the first call got in %v after the page was gone, want at most %v", late, most)
		}
	})
}

// TestMintThatWasSent is not sent again where it had no answer, however the connection
// ended.
func TestMintThatWasSent(t *testing.T) {
	for name, err := range map[string]error{
		"dial":        &net.OpError{Op: "dial", Err: errors.New("refused")}, // it would say so of another connection
		"certificate": &tls.CertificateVerificationError{Err: errors.New("unknown authority")},
		"read":        &net.OpError{Op: "read", Err: errors.New("reset")},
		"write":       &net.OpError{Op: "write", Err: errors.New("reset")},
		"end":         io.EOF,
	} {
		t.Run(name, func(t *testing.T) {
			sent := 0
			jira := network(func(*http.Request) (*http.Response, error) {
				sent++
				return nil, err
			})
			_, _, err := jira.site(t).As(Login{Username: "ci", Token: "s3cret"}).CreateToken(t.Context(), "nightly", 1)
			if sent != 1 || NothingMade(err) {
				t.Errorf("%v, after %d calls; nothing made: %v", err, sent, NothingMade(err))
			}
		})
	}
}

// TestMintThatWasNeverSent is one for which there never was a connection to Jira, whatever
// it failed for. It is tried again.
func TestMintThatWasNeverSent(t *testing.T) {
	answers := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, text)
		}
	}
	for name, test := range map[string]struct {
		url    string // empty: plain HTTP where the listener is
		proxy  bool   // the listener is one
		serve  func(net.Conn)
		unsent bool
	}{
		"CONNECT refused with 407":  {"https://jira.invalid", true, answers("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"), true},
		"CONNECT refused with 502":  {"https://jira.invalid", true, answers("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"), true},
		"CONNECT answered with 302": {"https://jira.invalid", true, answers("HTTP/1.1 302 Found\r\nLocation: http://login.invalid\r\nContent-Length: 0\r\n\r\n"), true},
		"CONNECT without an answer": {"https://jira.invalid", true, func(net.Conn) {}, true},
		"no TLS there":              {"https://{}", false, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, true},
		"TLS that breaks off":       {"https://{}", false, func(net.Conn) {}, true},
		"no answer":                 {"http://{}", false, answers(""), false},
		"half an answer":            {"http://{}", false, answers("HTTP/1.1 20"), false},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var came atomic.Int32
			var served sync.WaitGroup
			served.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					came.Add(1)
					test.serve(c)
					_ = c.Close()
				}
			})
			defer served.Wait()
			defer func() { _ = l.Close() }()
			o := Options{URL: strings.ReplaceAll(test.url, "{}", l.Addr().String())}
			if test.proxy {
				o.Proxy = &url.URL{Scheme: "http", Host: l.Addr().String()}
			}
			_, _, err = newSite(t, nil, o).As(Login{Username: "ci", Token: "s3cret"}).CreateToken(t.Context(), "nightly", 1)
			wants(t, err, Down)
			want := int32(1)
			if test.unsent {
				want = mostTries
			}
			if NothingMade(err) != test.unsent || came.Load() != want {
				t.Errorf("%v, after %d connections; nothing made: %v", err, came.Load(), NothingMade(err))
			}
		})
	}
}

// dyingConn takes nothing any more once it is dead.
type dyingConn struct {
	net.Conn
	dead *atomic.Bool
}

func (c dyingConn) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return 0, errors.New("reset")
	}
	return c.Conn.Write(p)
}

// TestMintOnAConnectionThatDied: the transport takes another, and where there is none
// nothing was sent.
func TestMintOnAConnectionThatDied(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	var dead atomic.Bool
	site := newSite(t, s, Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if dead.Load() {
			return nil, errors.New("refused")
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return dyingConn{c, &dead}, err
	}})
	c := site.As(Login{Username: "ci", Password: password})
	if _, err := c.Myself(t.Context()); err != nil { // whose connection stays
		t.Fatal(err)
	}
	dead.Store(true)
	_, _, err := c.CreateToken(t.Context(), "nightly", 1)
	wants(t, err, Down, "refused", "nothing was sent")
	if !NothingMade(err) {
		t.Error("a token may have been made")
	}
}

// TestGateHears of a site that does not answer, and nothing of a caller who
// does not wait for it.
func TestGateHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := network(func(*http.Request) (*http.Response, error) { return nil, io.EOF }).site(t)
		_, err := away.As(Login{Token: "s3cret"}).Myself(t.Context())
		wants(t, err, Down)
		if away.gate.limit != 1 {
			t.Errorf("it lets %d calls through to a site that is away", away.gate.limit)
		}
		slow := network(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}).site(t)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err = slow.As(Login{Token: "s3cret"}).Myself(ctx)
		wants(t, err, Down)
		if slow.gate.limit != slow.gate.most {
			t.Errorf("it lets %d calls through after somebody gave up", slow.gate.limit)
		}
	})
}

// TestGreatestList: of just the size that is read.
func TestGreatestList(t *testing.T) {
	for size, want := range map[int]Kind{mostBody: "", mostBody + 1: Nonsense} {
		jira := network(func(*http.Request) (*http.Response, error) {
			return answered(http.StatusOK, "[]"+strings.Repeat(" ", size-2)), nil
		})
		_, err := jira.site(t).As(Login{Username: "ci", Token: "s3cret"}).Tokens(t.Context())
		if want == "" && err != nil || want != "" && !Is(err, want) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestRedirectsOfAnyKind: the first and the last status of them, and those
// beside.
func TestRedirectsOfAnyKind(t *testing.T) {
	for status, want := range map[int]bool{299: false, 300: true, 399: true, 400: false} {
		jira := network(func(*http.Request) (*http.Response, error) {
			resp := answered(status, "")
			resp.Header.Set("Location", "https://sso.example.com/x")
			return resp, nil
		})
		_, err := jira.site(t).As(Login{Username: "ci", Token: "s3cret"}).Tokens(t.Context())
		if err == nil || strings.Contains(err.Error(), "a redirect to https://sso.example.com (") != want {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// TestRateLimited: by a Jira that says when to come back, says nothing, or
// says at once.
func TestRateLimited(t *testing.T) {
	for name, change := range map[string]func(*jiratest.Switches){
		"Retry-After":      func(*jiratest.Switches) {},
		"RetryAfterAbsent": func(s *jiratest.Switches) { s.RetryAfterAbsent = true },
		"RetryAfterZero":   func(s *jiratest.Switches) { s.RetryAfterZero = true },
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			s := newJira(t, jiratest.Options{Now: func() time.Time { return start }})
			c := bearer(t, s, "ci")
			s.SetSwitches(func(s *jiratest.Switches) {
				s.RateLimit, s.RateInterval = 1, time.Minute
				change(s)
			})
			if _, err := c.Myself(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, _, err := c.CreateToken(t.Context(), "nightly", 1)
			wants(t, err, Busy, "429", "Rate limit exceeded.", "come back after")
			if s.Count("POST", "") != 3 || !NothingMade(err) || failure(t, err).Until.IsZero() {
				t.Errorf("%+v, after %d calls", err, s.Count("POST", ""))
			}
			s.Advance(time.Minute)
			if _, _, err := c.CreateToken(t.Context(), "nightly", 1); err != nil || s.Count("POST", "") != 4 {
				t.Errorf("%v, after %d calls", err, s.Count("POST", ""))
			}
		})
	}
}

// TestSitesThatShareAGate: Jira's wish for a pause goes for all of them, and
// so does the bound.
func TestSitesThatShareAGate(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	gate := NewGate(2)
	_, secret := s.Mint("ci", "the engine's own", 30)
	var clients []*Client
	for range 2 {
		clients = append(clients, newSite(t, s, Options{Gate: gate}).As(Login{Username: "ci", Token: secret}))
	}
	remove := s.Fault(jiratest.Fault{Do: jiratest.Slow, Delay: 20 * time.Millisecond})
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			if _, err := clients[i%2].Myself(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	remove()
	if s.MaxInFlight() > 2 {
		t.Errorf("%d calls were under way at a time, want 2 at most", s.MaxInFlight())
	}

	s.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 429, Header: http.Header{"Retry-After": {"3600"}}})
	clients[0].site.pause.roof = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := clients[0].Myself(ctx)
	wants(t, err, Busy)
	s.ResetCalls()
	_, _, err = clients[1].CreateToken(ctx, "nightly", 1)
	wants(t, err, Busy, "pause")
	if len(s.Calls()) != 0 || !NothingMade(err) || !failure(t, err).Until.After(time.Now()) {
		t.Errorf("%+v, after %d calls", err, len(s.Calls()))
	}
}

// TestHugeList: what is read of an answer is bounded, whatever is sent.
func TestHugeList(t *testing.T) {
	sent := make(chan int, 1)
	jira := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n, chunk := 0, []byte(strings.Repeat(" ", 1<<20))
		for n < 100<<20 {
			m, err := w.Write(chunk)
			n += m
			if err != nil {
				break
			}
		}
		sent <- n
	}))
	defer jira.Close()
	site, err := New(Options{URL: jira.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, err = site.As(Login{Token: "t"}).Tokens(t.Context())
	wants(t, err, Nonsense, "200", "longer than 8388608 bytes")
	// What lies in buffers on the way comes on top of what is read.
	if n := <-sent; n > 50<<20 {
		t.Errorf("%d bytes were taken", n)
	}
}

// TestSwitchedProtocols: a 101 hands the connection over, and its body would
// never end.
func TestSwitchedProtocols(t *testing.T) {
	jira := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	}))
	t.Cleanup(jira.Close)
	site, err := New(Options{URL: jira.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = site.As(Login{Token: "t"}).CreateToken(t.Context(), "nightly", 1)
	wants(t, err, Nonsense, "101")
	if NothingMade(err) {
		t.Error("nothing can be told of what it made")
	}
}

// TestRequestsOnTheWire: what is sent, to a letter.
func TestRequestsOnTheWire(t *testing.T) {
	var have []string
	jira := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		line := r.Method + " " + r.URL.RequestURI()
		for _, name := range []string{"Accept", "Authorization", "Content-Type", "Cookie", "User-Agent", "X-Atlassian-Token"} {
			line += "|" + strings.Join(r.Header.Values(name), ",")
		}
		have = append(have, line+"|"+string(body))
		w.Header().Set("Set-Cookie", "JSESSIONID=x")
		w.WriteHeader(http.StatusTeapot)
	}))
	defer jira.Close()
	site, err := New(Options{URL: jira.URL + "/jira"})
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	ctx := t.Context()
	token, password, nobody := site.As(Login{Username: "ci", Token: "t"}), site.As(Login{Username: "ci", Password: "p"}), site.As(Login{Username: "ci"})
	_, _, err = token.CreateToken(ctx, `na"me`, 3)
	wants(t, err, Denied, "418")
	_, err = token.Tokens(ctx)
	wants(t, err, Denied)
	wants(t, password.DeleteToken(ctx, "412"), Denied)
	_, err = token.Administrator(ctx)
	wants(t, err, Denied)
	_, err = nobody.ServerInfo(ctx)
	wants(t, err, Denied)
	_, err = token.CreateUser(ctx, NewUser{Name: "te&mp", Password: `p"`, Email: "t@example.com", DisplayName: "T", ApplicationKeys: []string{"jira-software"}})
	wants(t, err, Denied)
	_, err = token.CreateUser(ctx, NewUser{Name: "temp"})
	wants(t, err, Denied)
	_, _, _, err = token.FindUser(ctx, "te&mp+/..")
	wants(t, err, Denied)
	wants(t, deleteUser(ctx, token, "te&mp"), Denied)
	wants(t, token.Deactivate(ctx, "te&mp"), Denied)
	wants(t, token.SetPassword(ctx, "te&mp", `p"`), Denied)
	wants(t, token.AddToGroup(ctx, "a/b", "temp"), Denied)
	wants(t, token.RemoveFromGroup(ctx, "a/b", "te&mp"), Denied)
	_, err = token.ProjectRoles(ctx, "OPS")
	wants(t, err, Denied)
	wants(t, token.AddToRole(ctx, "OPS", "10001", "temp"), Denied)
	wants(t, token.RemoveFromRole(ctx, "OPS", "10001", "te&mp"), Denied)
	_, err = token.Permissions(ctx, "OPS")
	wants(t, err, Denied)
	_, err = token.Permissions(ctx, "")
	wants(t, err, Denied)

	const ours = "|vault-plugin-secrets-jira"
	want := []string{
		`POST /jira/rest/pat/latest/tokens|application/json|Bearer t|application/json|` + ours + `|no-check|{"name":"na\"me","expirationDuration":3}`,
		`GET /jira/rest/pat/latest/tokens|application/json|Bearer t|application/json|` + ours + `|no-check|`,
		`DELETE /jira/rest/pat/latest/tokens/412|application/json|Basic Y2k6cA==|application/json|` + ours + `|no-check|`,
		`GET /jira/rest/api/2/mypermissions?permissions=ADMINISTER%2CSYSTEM_ADMIN|application/json|Bearer t|application/json|` + ours + `|no-check|`,
		`GET /jira/rest/api/2/serverInfo|application/json||application/json|` + ours + `|no-check|`,
	}
	for _, call := range []string{
		`POST /jira/rest/api/2/user%{"applicationKeys":["jira-software"],"displayName":"T","emailAddress":"t@example.com","name":"te\u0026mp","notification":false,"password":"p\""}`,
		`POST /jira/rest/api/2/user%{"applicationKeys":[],"displayName":"","emailAddress":"","name":"temp","notification":false,"password":""}`,
		`GET /jira/rest/api/2/user?expand=groups&username=te%26mp%2B%2F..%`,
		`DELETE /jira/rest/api/2/user?username=te%26mp%`,
		`PUT /jira/rest/api/2/user?username=te%26mp%{"active":false}`,
		`PUT /jira/rest/api/2/user/password?username=te%26mp%{"password":"p\""}`,
		`POST /jira/rest/api/2/group/user?groupname=a%2Fb%{"name":"temp"}`,
		`DELETE /jira/rest/api/2/group/user?groupname=a%2Fb&username=te%26mp%`,
		`GET /jira/rest/api/2/project/OPS/role%`,
		`POST /jira/rest/api/2/project/OPS/role/10001%{"user":["temp"]}`,
		`DELETE /jira/rest/api/2/project/OPS/role/10001?user=te%26mp%`,
		`GET /jira/rest/api/2/mypermissions?projectKey=OPS%`,
		`GET /jira/rest/api/2/mypermissions%`,
	} {
		last := strings.LastIndexByte(call, '%') // the last one stands between address and body
		want = append(want, call[:last]+`|application/json|Bearer t|application/json|`+ours+`|no-check|`+call[last+1:])
	}
	if !slices.Equal(have, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

// TestRedirects: nobody else hears of the credential.
func TestRedirects(t *testing.T) {
	s, other := newJira(t, jiratest.Options{}), newJira(t, jiratest.Options{})
	s.Fault(jiratest.Fault{Do: jiratest.Redirect, Target: other.URL()})
	for _, c := range []*Client{bearer(t, s, "ci"), basic(t, s, password)} {
		_, _, mintErr := c.CreateToken(t.Context(), "nightly", 1)
		_, listErr := c.Tokens(t.Context())
		_, selfErr := c.Myself(t.Context())
		for _, err := range []error{mintErr, listErr, selfErr, c.DeleteToken(t.Context(), "412")} {
			wants(t, err, Nonsense, "307", other.URL()[:len(other.URL())-len("/jira")], "set the site's url")
		}
		if NothingMade(mintErr) {
			t.Error("a redirect counts as Jira's word")
		}
	}
	if calls := other.Calls(); len(calls) != 0 {
		t.Errorf("the other host was called: %+v", calls)
	}
	if len(s.Calls()) != 8 {
		t.Errorf("%d calls, want 8", len(s.Calls()))
	}
}

// TestMintRunsToItsEnd: although its caller has gone.
func TestMintRunsToItsEnd(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	c := bearer(t, s, "ci")
	s.Fault(jiratest.Fault{Method: "POST", Do: jiratest.Slow, Delay: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.WaitCalls(t.Context(), "POST", "", 1); err != nil {
			t.Error(err)
		}
		cancel()
	})
	token, secret, err := c.CreateToken(ctx, "nightly", 1)
	if err != nil || token.ID == "" || secret == "" {
		t.Errorf("got %+v, %v", token, err)
	}
	running.Wait()
}

// TestTimeThatAMintNeeds: half a time-out, to the nanosecond; what can be
// repeated needs none.
func TestTimeThatAMintNeeds(t *testing.T) {
	for left, want := range map[time.Duration]bool{5*time.Second - 1: false, 5 * time.Second: true, 10 * time.Second: true} {
		synctest.Test(t, func(t *testing.T) {
			mints, lists := 0, 0
			c := network(func(req *http.Request) (*http.Response, error) {
				if req.Method == http.MethodPost {
					mints++
					return answered(http.StatusCreated, `{"id":412,"name":"nightly","rawToken":"x"}`), nil
				}
				lists++
				return answered(http.StatusOK, "[]"), nil
			}).site(t).As(Login{Username: "ci", Token: "s3cret"})
			ctx, cancel := context.WithTimeout(t.Context(), left)
			defer cancel()
			_, _, err := c.CreateToken(ctx, "nightly", 1)
			if (err == nil) != want || (mints == 1) != want || !want && (!Is(err, Busy) || !NothingMade(err)) {
				t.Errorf("with %v left: %v, after %d calls", left, err, mints)
			}
			if _, err := c.Tokens(ctx); err != nil || lists != 1 {
				t.Errorf("with %v left, a list: %v, after %d calls", left, err, lists)
			}
			if c.site.gate.underWay != 0 {
				t.Errorf("%d places are lost", c.site.gate.underWay)
			}
		})
	}
}

// TestCallerWhoHasGone: nothing is sent for him.
func TestCallerWhoHasGone(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	gone, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the reader went away")
	cancel(why)
	check := func(t *testing.T, c *Client, ctx context.Context) {
		t.Helper()
		_, _, mintErr := c.CreateToken(ctx, "nightly", 1)
		_, listErr := c.Tokens(ctx)
		for _, err := range []error{mintErr, listErr, c.DeleteToken(ctx, "412")} {
			if !Is(err, Busy) || !NothingMade(err) || !errors.Is(err, why) {
				t.Errorf("got %v", err)
			}
		}
	}
	for range 20 { // whichever is seen first, the place or the end
		check(t, bearer(t, s, "ci"), gone)
		check(t, basic(t, s, password), gone)
	}
	t.Run("while the gate is shut", func(t *testing.T) {
		c := bearer(t, s, "ci")
		c.site.gate.shutUntil = time.Now().Add(time.Hour)
		ctx, cancel := context.WithCancelCause(t.Context())
		go cancel(why)
		check(t, c, ctx)
	})
	if calls := s.Calls(); len(calls) != 0 {
		t.Errorf("there were calls: %+v", calls)
	}
}

func TestPauseAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that dates can be compared with now
		p := pause{floor: time.Second, roof: 5 * time.Minute}
		in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		for header, want := range map[string]time.Duration{
			"":                     time.Second,
			"0":                    time.Second,
			"-5":                   time.Second,
			"soon":                 time.Second,
			"1.5":                  time.Second,
			"1":                    time.Second,
			"20":                   20 * time.Second,
			"300":                  5 * time.Minute,
			"301":                  5 * time.Minute,
			"9223372037":           5 * time.Minute, // whose nanoseconds are negative
			"9223372036854775807":  5 * time.Minute,
			"99999999999999999999": time.Second,
			in(-time.Hour):         time.Second,
			in(40 * time.Second):   40 * time.Second,
			in(1000 * time.Hour):   5 * time.Minute,
		} {
			var waits []time.Duration
			for range 100 {
				waits = append(waits, p.after(header, p.roof))
			}
			if low, high := slices.Min(waits), slices.Max(waits); low < want || high > want+want/4 || low == high {
				t.Errorf("%q: from %v to %v, want %v and up to a quarter more", header, low, high, want)
			}
		}
	})
}
