package jiratest

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// serve takes a call off the network. What is done about it, and whether Jira hears of it at all, is for [Server.act].
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.exit()
	if s.options.Control && strings.HasPrefix(r.URL.Path, "/_sim/") {
		s.control(w, r)
		return
	}
	if r.Method == http.MethodConnect && s.options.Cloud != "" {
		s.connect(w, r)
		return
	}
	// Read to the end first: net/http notices that a client has gone only after its body is read.
	const most = 1 << 20
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		panic(http.ErrAbortHandler) // the call was cut, or is an attack
	}
	path, inside := strings.CutPrefix(r.URL.EscapedPath(), s.base)
	if inside = inside && strings.HasPrefix(path, "/"); !inside {
		path = r.URL.EscapedPath()
	}
	q := &request{
		method: r.Method, path: path, query: r.URL.Query(), rawQuery: r.URL.RawQuery, header: r.Header, body: body,
		baseURL: s.url, headerBytes: headerBytes(r),
	}
	if r.TLS != nil {
		q.host = r.Host
	}
	c, f := s.arrive(q)
	if !inside {
		s.send(w, c, tomcatAnswer(http.StatusNotFound, "The requested resource is not available."))
		return
	}
	s.act(r.Context(), w, q, c, f)
}

// enter counts a call in, unless s is closed: Close waits for those that are in, and no other may have an effect.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closing:
		return false
	default:
		s.active++
		return true
	}
}

func (s *Server) exit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	s.wake()
}

// headerBytes is about what the head of r took on the wire.
func headerBytes(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Proto) + 4 + len("Host: \r\n") + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + 4
		}
	}
	return n
}

// act answers q truly, or as the fault f has it.
func (s *Server) act(ctx context.Context, w http.ResponseWriter, q *request, c *Call, f *Fault) {
	if f == nil {
		s.send(w, c, s.answer(*q))
		return
	}
	switch f.Do {
	case Answer:
		s.send(w, c, f.canned())
	case AnswerAfter:
		s.answer(*q)
		s.send(w, c, f.canned())
	case LoseCall:
		s.abort(c)
	case LoseAnswer:
		s.answer(*q)
		s.abort(c)
	case CutBody:
		s.cut(w, c, s.answer(*q))
	case Hang:
		s.gone(ctx)
		s.abort(c)
	case HangAfter:
		s.answer(*q)
		s.gone(ctx)
		s.abort(c)
	case LateEffect:
		s.land(ctx, q)
		s.abort(c)
	case Slow:
		a := s.answer(*q)
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			s.send(w, c, a)
		case <-ctx.Done():
			s.abort(c)
		case <-s.closing:
			s.abort(c)
		}
	case HTML200:
		s.send(w, c, htmlAnswer(http.StatusOK, "Log in", "Please log in to continue."))
	case HTML404:
		s.send(w, c, htmlAnswer(http.StatusNotFound, "Not found", "The page you asked for is not here."))
	case Anonymous:
		q.anonymous = true
		s.send(w, c, s.answer(*q))
	case Huge:
		s.huge(w, c, s.answer(*q))
	case Redirect:
		a := emptyAnswer(http.StatusTemporaryRedirect)
		a.header = http.Header{"Location": {strings.TrimSuffix(f.Target, "/") + q.uri()}}
		s.send(w, c, a)
	case Twice:
		a := s.answer(*q)
		s.answer(*q)
		s.send(w, c, a)
	}
}

// uri is path and query as they came.
func (q *request) uri() string {
	if q.rawQuery == "" {
		return q.path
	}
	return q.path + "?" + q.rawQuery
}

// canned is the answer that the fault brings along.
func (f *Fault) canned() answer {
	a := answer{status: cmp.Or(f.Status, http.StatusOK), header: f.Header.Clone(), body: []byte(f.Body)}
	if a.header == nil {
		a.header = http.Header{}
	}
	if a.header.Get("Content-Type") == "" && f.Body != "" {
		kind := "text/plain;charset=UTF-8"
		switch f.Body[0] {
		case '{', '[':
			kind = "application/json;charset=UTF-8"
		case '<':
			kind = "text/html;charset=UTF-8"
		}
		a.header.Set("Content-Type", kind)
	}
	return a
}

// send notes the answer, and then gives it.
func (s *Server) send(w http.ResponseWriter, c *Call, a answer) {
	s.head(w, a)
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	if a.status == http.StatusNoContent {
		w.Header().Del("Content-Length")
	}
	s.answered(c, a.status)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client may have gone
}

// head sets the headers of a on w, and Jira's clock.
func (s *Server) head(w http.ResponseWriter, a answer) {
	s.mu.Lock()
	now, date := s.now(), s.switches.Date
	s.mu.Unlock()
	h := w.Header()
	switch date {
	case "":
		h.Set("Date", now.Format(http.TimeFormat))
	case "absent":
		h["Date"] = nil // or net/http would set it
	default:
		h.Set("Date", date)
	}
	h["Content-Type"] = nil // an answer without one has none, and net/http must not guess it
	for name, values := range a.header {
		h[http.CanonicalHeaderKey(name)] = values
	}
}

// abort closes the connection without an answer. It does not return.
func (s *Server) abort(c *Call) {
	s.answered(c, 0)
	panic(http.ErrAbortHandler)
}

// cut gives the headers and half of the body. An answer without a body is lost altogether.
func (s *Server) cut(w http.ResponseWriter, c *Call, a answer) {
	if len(a.body) == 0 {
		s.abort(c)
	}
	s.head(w, a)
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	s.answered(c, a.status)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body[:len(a.body)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// gone waits until the client has given up, or s is being closed.
func (s *Server) gone(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.closing:
	}
}

// land lets q take effect when its client has gone.
func (s *Server) land(ctx context.Context, q *request) {
	s.mu.Lock()
	s.late++
	s.mu.Unlock()
	s.gone(ctx)
	s.answer(*q)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late--
	s.landed++
	s.wake()
}

// huge gives the true answer behind 100 MB of padding that belongs to the same JSON array or object.
// An answer without a body becomes a 200 with an object.
func (s *Server) huge(w http.ResponseWriter, c *Call, a answer) {
	const pieces, size = 100, 1 << 20
	first, last := []byte("{"), []byte("}")
	padding := []byte(`"padding":"` + strings.Repeat("x", size) + `"`)
	rest := bytes.TrimSpace(a.body)
	switch {
	case len(rest) > 1 && rest[0] == '[':
		first, rest = rest[:1], rest[1:]
		padding = append(append([]byte("{"), padding...), '}')
	case len(rest) > 1 && rest[0] == '{':
		rest = rest[1:]
	default:
		a.status, rest = http.StatusOK, last
	}
	s.head(w, a)
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	s.answered(c, a.status)
	w.WriteHeader(a.status)
	between := []byte(",")
	parts := [][]byte{first}
	for i := range pieces {
		if i > 0 {
			parts = append(parts, between)
		}
		parts = append(parts, padding)
	}
	if len(rest) > 1 {
		parts = append(parts, between)
	}
	for _, part := range append(parts, rest) {
		if _, err := w.Write(part); err != nil {
			return // the client has had enough
		}
	}
}
