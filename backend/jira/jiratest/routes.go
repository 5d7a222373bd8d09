package jiratest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// route is one call that Jira knows. A path's {} stands for one element.
type route struct {
	method, path string
	open         bool // anonymous may call it
	handle       func(*Server, *request) answer
}

// routes is all there is. Handlers run with s.mu held, after login, rate limit and XSRF check.
var routes = []route{
	{"GET", "/status", true, (*Server).getStatus},

	{"POST", "/rest/pat/{}/tokens", false, (*Server).postToken},
	{"GET", "/rest/pat/{}/tokens", false, (*Server).getTokens},
	{"GET", "/rest/pat/{}/tokens/{}", false, (*Server).getToken},
	{"DELETE", "/rest/pat/{}/tokens/{}", false, (*Server).deleteToken},

	{"GET", "/rest/api/2/serverInfo", true, (*Server).getServerInfo},
	{"GET", "/rest/api/2/myself", false, (*Server).getMyself},
	{"PUT", "/rest/api/2/myself/password", false, (*Server).putMyPassword},
	{"GET", "/rest/api/2/mypermissions", true, (*Server).getMyPermissions},

	{"POST", "/rest/api/2/user", false, (*Server).postUser},
	{"GET", "/rest/api/2/user", false, (*Server).getUser},
	{"PUT", "/rest/api/2/user", false, (*Server).putUser},
	{"DELETE", "/rest/api/2/user", false, (*Server).deleteUserCall},
	{"PUT", "/rest/api/2/user/password", false, (*Server).putPassword},
	{"POST", "/rest/api/2/group/user", false, (*Server).postMember},
	{"DELETE", "/rest/api/2/group/user", false, (*Server).deleteMember},

	{"GET", "/rest/api/2/project", true, (*Server).getProjects},
	{"GET", "/rest/api/2/project/{}", true, (*Server).getProject},
	{"GET", "/rest/api/2/project/{}/role", false, (*Server).getRoles},
	{"GET", "/rest/api/2/project/{}/role/{}", false, (*Server).getRole},
	{"POST", "/rest/api/2/project/{}/role/{}", false, (*Server).postRole},
	{"DELETE", "/rest/api/2/project/{}/role/{}", false, (*Server).deleteRole},

	{"POST", "/rest/api/2/issue", false, (*Server).postIssue},
	{"GET", "/rest/api/2/issue/{}", true, (*Server).getIssue},
	{"PUT", "/rest/api/2/issue/{}", false, (*Server).putIssue},
	{"DELETE", "/rest/api/2/issue/{}", false, (*Server).deleteIssue},
	{"GET", "/rest/api/2/search", true, (*Server).search},
	{"POST", "/rest/api/2/search", true, (*Server).search},
}

// answer lets Jira answer q, with all the effects that has.
func (s *Server) answer(q request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.options.Cloud != "" {
		return s.answerCloud(&q)
	}
	const most = 8 << 10 // of all headers together, as stock Tomcat has it
	if q.headerBytes > most {
		return tomcatAnswer(http.StatusBadRequest, "Request header is too large")
	}
	headers, refusal := s.authenticate(&q)
	if refusal == nil && strings.HasPrefix(q.path, "/rest/") {
		var limits http.Header
		limits, refusal = s.limit(&q)
		for name, values := range limits {
			headers[name] = values
		}
	}
	if refusal == nil {
		refusal = s.xsrf(&q)
	}
	var a answer
	if refusal != nil {
		a = *refusal
	} else {
		a = s.route(&q)
	}
	for name, values := range a.header {
		headers[name] = values
	}
	a.header = headers
	return a
}

// route hands q to the call it means.
func (s *Server) route(q *request) answer {
	if a, ok := s.oauth(q); ok {
		return a
	}
	for _, prefix := range s.switches.NotMounted {
		if strings.HasPrefix(q.path, prefix) {
			return jsonAnswer(http.StatusNotFound, map[string]any{"message": "null for uri: " + s.url + q.path, "status-code": http.StatusNotFound})
		}
	}
	var others []string
	for _, r := range routes {
		vars, ok := match(r.path, q.path)
		if !ok || strings.HasPrefix(r.path, "/rest/pat/") && !s.hasPATAPI(vars[0]) {
			continue
		}
		if r.method != q.method {
			others = append(others, r.method)
			continue
		}
		if !r.open && q.user == nil {
			return loginAnswer()
		}
		if (q.method == http.MethodPost || q.method == http.MethodPut) && !q.json() {
			return tomcatAnswer(http.StatusUnsupportedMediaType, "The body must be application/json.")
		}
		q.vars = vars
		return r.handle(s, q)
	}
	if others != nil {
		a := tomcatAnswer(http.StatusMethodNotAllowed, "Method Not Allowed")
		a.header.Set("Allow", strings.Join(others, ", "))
		return a
	}
	return tomcatAnswer(http.StatusNotFound, "The requested resource is not available.")
}

// hasPATAPI says that this Jira has the token API in that version.
func (s *Server) hasPATAPI(version string) bool {
	return s.hasPATs && (version == "latest" || version == "1.0" && !s.switches.NoVersion10)
}

// match compares an escaped path with a route's and returns the unescaped elements that its {} stand for.
func match(pattern, path string) (vars []string, ok bool) {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return nil, false
	}
	for i, element := range got {
		if want[i] == "{}" {
			v, err := url.PathUnescape(element)
			if err != nil || v == "" {
				return nil, false
			}
			vars = append(vars, v)
			continue
		}
		if want[i] != element {
			return nil, false
		}
	}
	return vars, true
}

// object decodes the body, or says that it is none.
func (q *request) object() (object, bool) {
	var o object
	if json.Unmarshal(q.body, &o) != nil || o == nil {
		return nil, false
	}
	return o, true
}

// number returns a query parameter that counts something, or otherwise if it is absent or no count.
func (q *request) number(name string, otherwise int) int {
	n, err := strconv.Atoi(q.query.Get(name))
	if err != nil || n < 0 {
		return otherwise
	}
	return n
}

// atLeast says that a version like "8.14.0" is major.minor or later. What is no version is not.
func atLeast(version string, major, minor int) bool {
	v := versionNumbers(version)
	return v[0] > major || v[0] == major && v[1] >= minor
}

// versionNumbers are the first three numbers of a version; 0 stands for what is no number.
func versionNumbers(version string) [3]int {
	var numbers [3]int
	for i, part := range strings.SplitN(version, ".", 3) {
		numbers[i], _ = strconv.Atoi(part)
	}
	return numbers
}
