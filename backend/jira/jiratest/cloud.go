package jiratest

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The hosts of Jira Cloud, beside that of the site. With [Options.Cloud] the simulator is an HTTP proxy that leads to itself
// under these names, so that a client calls them as it would call the true ones.
const (
	authHost    = "auth.atlassian.com"
	gatewayHost = "api.atlassian.com"
)

// Scopes of Jira Cloud.
const (
	readWork  = "read:jira-work"
	readUser  = "read:jira-user"
	writeWork = "write:jira-work"
)

// cloud is what Jira Cloud has and Data Center has not.
type cloud struct {
	cloudID   string
	orgKeys   map[string]bool // by secret, whether it is limited to scopes
	apiTokens map[string]*apiToken
	apiOrder  []string // their ids, deleted ones among them
}

func newCloud() cloud {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return cloud{
		cloudID: fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]),
		orgKeys: map[string]bool{}, apiTokens: map[string]*apiToken{},
	}
}

// siteHost is the host of the site itself.
func (s *Server) siteHost() string { return s.options.Cloud + ".atlassian.net" }

// CloudID is the id of the site behind the gateway.
func (s *Server) CloudID() string { return s.cloudID }

// Proxy is the address of the proxy that leads to Jira Cloud, or "" without [Options.Cloud].
func (s *Server) Proxy() string { return s.proxy }

// AddOrgKey makes an API key of the organisation; a scoped one cannot manage API tokens.
func (s *Server) AddOrgKey(scoped bool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw := "ATCTT3" + rand.Text() + rand.Text()
	s.orgKeys[raw] = scoped
	s.secret(raw)
	return raw
}

// RemoveOrgKey ends an API key of the organisation.
func (s *Server) RemoveOrgKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.orgKeys, key)
}

// tunnels is where connections come out that went through the proxy.
type tunnels struct {
	conns   chan net.Conn
	closing <-chan struct{}
	address net.Addr
}

func (l *tunnels) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closing:
		return nil, net.ErrClosed
	}
}

// Close does nothing: they end when the simulator does.
func (l *tunnels) Close() error { return nil }

func (l *tunnels) Addr() net.Addr { return l.address }

// connect opens a tunnel to one of Cloud's hosts, which is the simulator again, and refuses others.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil || port != "443" || !slices.Contains([]string{s.siteHost(), authHost, gatewayHost}, host) {
		http.Error(w, "The simulated proxy leads to Jira Cloud alone.", http.StatusForbidden)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = conn.SetDeadline(time.Time{})
	if _, err := conn.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		_ = conn.Close()
		return
	}
	select {
	case s.tunnels.conns <- conn:
	case <-s.closing:
		_ = conn.Close()
	}
}

// serveTunnels serves what comes through the proxy until s is closed. It returns the authority of Cloud's certificates.
func (s *Server) serveTunnels(proxy net.Addr) ([]byte, error) {
	s.proxy = "http://" + proxy.String()
	s.tunnels = &tunnels{conns: make(chan net.Conn), closing: s.closing, address: proxy}
	l, ca, err := secure(s.tunnels, nil, s.siteHost(), authHost, gatewayHost)
	if err != nil {
		return nil, err
	}
	s.inner = s.server()
	s.served.Go(func() { _ = s.inner.Serve(l) })
	return ca, nil
}

// gatewayError is how Atlassian's gateway says no.
func gatewayError(status int, text string) answer {
	return jsonAnswer(status, map[string]any{"code": status, "message": text})
}

func unauthorized() answer { return gatewayError(http.StatusUnauthorized, "Unauthorized") }

func wrongScope() answer {
	return gatewayError(http.StatusUnauthorized, "Unauthorized; scope does not match")
}

// answerCloud answers q as the host does that it was sent to.
func (s *Server) answerCloud(q *request) answer {
	if q.anonymous {
		q.header = q.header.Clone()
		q.header.Del("Authorization")
	}
	switch q.host {
	case s.siteHost():
		return s.answerSite(q)
	case authHost:
		if q.method == http.MethodPost && q.path == "/oauth/token" {
			return s.postCloudAccess(q)
		}
	case gatewayHost:
		if vars, ok := match("/users/{}/manage/api-tokens", q.path); ok {
			return s.manageAPITokens(q, vars[0], "")
		}
		if vars, ok := match("/users/{}/manage/api-tokens/{}", q.path); ok {
			return s.manageAPITokens(q, vars[0], vars[1])
		}
		if rest, ok := strings.CutPrefix(q.path, "/ex/jira/"); ok {
			return s.answerGateway(q, rest)
		}
	}
	return gatewayError(http.StatusNotFound, "Not Found")
}

// answerSite answers at the site's own host, where no service account gets in.
func (s *Server) answerSite(q *request) answer {
	switch {
	case q.method == http.MethodGet && q.path == "/_edge/tenant_info":
		return jsonAnswer(http.StatusOK, map[string]any{"cloudId": s.cloudID})
	case q.credential().kind != "":
		return unauthorized()
	case q.method == http.MethodGet && (q.path == "/rest/api/3/serverInfo" || q.path == "/rest/api/2/serverInfo"):
		return s.getServerInfo(q)
	case strings.HasPrefix(q.path, "/rest/"):
		return unauthorized()
	}
	return htmlAnswer(http.StatusNotFound, "Not found", "The page you asked for is not here.")
}

// answerGateway answers what is behind the gateway: rest begins with the id of the site.
func (s *Server) answerGateway(q *request, rest string) answer {
	account, scopes := s.cloudLogin(q)
	if account == nil {
		return unauthorized()
	}
	id, path, _ := strings.Cut(rest, "/")
	path, v3 := strings.CutPrefix(path, "rest/api/3/")
	if id != s.cloudID || !v3 {
		return gatewayError(http.StatusNotFound, "Not Found")
	}
	resource, _, _ := strings.Cut(path, "/")
	if !slices.Contains([]string{"myself", "mypermissions", "serverInfo", "issue", "project"}, resource) {
		return gatewayError(http.StatusNotFound, "Not Found")
	}
	scope := readWork
	switch {
	case resource == "myself":
		scope = readUser
	case q.method != http.MethodGet:
		scope = writeWork
	}
	if !slices.Contains(scopes, scope) {
		return wrongScope()
	}
	q.user = account.user
	limits, refusal := s.limit(q)
	if refusal == nil {
		a := s.answerJira(q, account, path)
		refusal = &a
	}
	a := *refusal
	if a.header == nil {
		a.header = http.Header{}
	}
	for name, values := range limits {
		a.header[name] = values
	}
	return a
}

// answerJira answers a call of Jira's API, version 3, as far as that is like version 2.
func (s *Server) answerJira(q *request, account *serviceAccount, path string) answer {
	switch {
	case path == "myself" && q.method == http.MethodGet && s.switches.ServiceMyself != 0:
		return gatewayError(s.switches.ServiceMyself, "There is no such user.")
	case path == "myself" && q.method == http.MethodGet:
		return jsonAnswer(http.StatusOK, map[string]any{
			"self":      "https://" + gatewayHost + "/ex/jira/" + s.cloudID + "/rest/api/3/user?accountId=" + url.QueryEscape(account.ID),
			"accountId": account.ID, "accountType": "app", "displayName": account.Name, "active": true,
		})
	case path == "mypermissions" && q.query.Get("permissions") == "":
		return messageAnswer(http.StatusBadRequest, "The 'permissions' query parameter is required.")
	case strings.HasPrefix(path, "myself"):
		return gatewayError(http.StatusNotFound, "Not Found")
	}
	q.path = "/rest/api/2/" + path
	return s.route(q)
}

// cloudLogin finds the service account whose access token or API token q carries, and what scopes that has.
func (s *Server) cloudLogin(q *request) (*serviceAccount, []string) {
	raw := q.credential().raw
	if t := s.access[raw]; s.valid(t) {
		return t.account, t.scopes
	}
	for _, k := range s.apiTokens {
		if k.raw == raw && s.apiWorks(k) {
			return k.account, k.scopes
		}
	}
	return nil, nil
}

// postCloudAccess gives an access token for client credentials.
func (s *Server) postCloudAccess(q *request) answer {
	refused := oauthError(http.StatusUnauthorized, "access_denied", "Unauthorized")
	body, ok := q.object()
	if !ok || !q.json() || q.rawQuery != "" || body.text("grant_type") != "client_credentials" {
		return oauthError(http.StatusBadRequest, "invalid_request", "The body must be JSON with a grant_type of client_credentials.")
	}
	account := s.accounts[body.text("client_id")]
	if account == nil || !account.proves(body.text("client_secret"), s.now()) {
		return refused
	}
	scopes, refusal := s.narrow(account, body.text("scope"))
	if refusal != nil {
		return *refusal
	}
	return s.grantAccess(account, scopes, "eyJ"+rand.Text()+"."+strings.Repeat(rand.Text(), 40)+"."+rand.Text())
}
