package jiratest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// control steers the simulator from another process, at paths outside the context path where no Jira is:
//
//	GET, DELETE /_sim/calls   the calls so far; forget them
//	GET /_sim/tokens          all tokens that were not deleted, without secrets
//	GET /_sim/access-tokens   all access tokens that were ever asked for, likewise
//	GET /_sim/api-tokens      all API tokens that were not deleted, likewise
//	GET /_sim/secrets         every secret ever made
//	GET /_sim/users           all users that were not deleted, without passwords
//	POST /_sim/project        add the project in the body: {"key", "name", "restricted", "groups"}
//	POST /_sim/service-account
//	                          add the ServiceAccount in the body: {"name", "scopes", "projects"}; answers it, its secret too
//	POST /_sim/fault          add the fault in the body, whose delay is a string like "2s"; answers {"id"}
//	DELETE /_sim/faults       remove all faults
//	DELETE /_sim/faults/{id}  remove one
//	PATCH /_sim/switches      set the fields of Switches in the body, durations as strings like "1m"
//	POST /_sim/clock          {"advance": "1h"}
//	POST /_sim/backup         take a Backup, and keep it instead of the one before
//	POST /_sim/restore        restore the Backup that is kept
//	POST /_sim/wait           {"method", "path", "count", "answered", "timeout"}: answer when that many calls have come
//	POST /_sim/wait-gone      {"name" or "id", "timeout"}: answer when no such token works any more
//
// Whoever waits in vain for timeout, a minute by default, gets 408. Errors are {"error"}.
func (s *Server) control(w http.ResponseWriter, r *http.Request) {
	var a any
	var err error
	switch what := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/_sim/"); {
	case what == "GET calls":
		a = append([]Call{}, s.Calls()...)
	case what == "DELETE calls":
		s.ResetCalls()
	case what == "GET tokens":
		a = append([]Token{}, s.Tokens("")...)
	case what == "GET access-tokens":
		a = append([]AccessToken{}, s.AccessTokens()...)
	case what == "GET api-tokens":
		a = append([]APIToken{}, s.APITokens()...)
	case what == "GET secrets":
		a = append([]string{}, s.Secrets()...)
	case what == "GET users":
		a = s.usersWithoutPasswords()
	case what == "POST project":
		err = s.controlProject(w, r)
	case what == "POST service-account":
		a, err = s.controlServiceAccount(w, r)
	case what == "POST fault":
		a, err = s.controlFault(w, r)
	case what == "DELETE faults":
		s.ClearFaults()
	case strings.HasPrefix(what, "DELETE faults/"):
		err = s.removeFault(strings.TrimPrefix(what, "DELETE faults/"))
	case what == "PATCH switches":
		a, err = s.controlSwitches(w, r)
	case what == "POST clock":
		a, err = s.controlClock(w, r)
	case what == "POST backup":
		s.keep(s.Backup())
	case what == "POST restore":
		err = s.controlRestore()
	case what == "POST wait":
		err = s.controlWait(w, r)
	case what == "POST wait-gone":
		err = s.controlWaitGone(w, r)
	default:
		err = fmt.Errorf("the simulator has no %s %s", r.Method, r.URL.Path)
	}
	status := http.StatusOK
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		status = http.StatusRequestTimeout
	case err != nil:
		status = http.StatusBadRequest
	}
	if err != nil {
		a = map[string]string{"error": err.Error()}
	}
	if a == nil {
		a = map[string]any{}
	}
	answer := jsonAnswer(status, a)
	w.Header().Set("Content-Type", answer.header.Get("Content-Type"))
	w.WriteHeader(status)
	_, _ = w.Write(append(answer.body, '\n')) // the client may have gone
}

// decode reads a JSON object without any field that v lacks.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	return nil
}

func (s *Server) usersWithoutPasswords() []User {
	list := s.Users()
	for i := range list {
		list[i].Password = ""
	}
	return list
}

func (s *Server) controlProject(w http.ResponseWriter, r *http.Request) error {
	var p Project
	if err := decode(w, r, &p); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addProject(p)
}

func (s *Server) controlServiceAccount(w http.ResponseWriter, r *http.Request) (any, error) {
	var a ServiceAccount
	if err := decode(w, r, &a); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addServiceAccount(a)
}

func (s *Server) controlFault(w http.ResponseWriter, r *http.Request) (any, error) {
	var f struct {
		Method, Path, User string
		Nth, Times         int
		Do                 Misbehaviour
		Status             int
		Header             http.Header
		Body               string
		Delay              string
		Target             string
	}
	if err := decode(w, r, &f); err != nil {
		return nil, err
	}
	delay, err := time.ParseDuration(cmp.Or(f.Delay, "0s"))
	if err != nil {
		return nil, err
	}
	if !slices.Contains(misbehaviours, f.Do) {
		return nil, fmt.Errorf("no fault does %q; there are %q", f.Do, misbehaviours)
	}
	t := s.set(Fault{
		Method: f.Method, Path: f.Path, User: f.User, Nth: f.Nth, Times: f.Times, Do: f.Do,
		Status: f.Status, Header: f.Header, Body: f.Body, Delay: delay, Target: f.Target,
	})
	return map[string]int{"id": t.id}, nil
}

func (s *Server) removeFault(id string) error {
	n, err := strconv.Atoi(id)
	if err != nil {
		return err
	}
	s.unset(n)
	return nil
}

// controlSwitches sets what the body names and answers all switches as they are then.
func (s *Server) controlSwitches(w http.ResponseWriter, r *http.Request) (any, error) {
	var fields map[string]json.RawMessage
	if err := decode(w, r, &fields); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.switches
	for name, value := range fields {
		if err := set.set(name, value); err != nil {
			return nil, err
		}
	}
	s.switches = set
	s.wake()
	return set, nil
}

// set sets one field, whose name may be spelt in any case.
func (sw *Switches) set(name string, value json.RawMessage) error {
	field := reflect.ValueOf(sw).Elem().FieldByNameFunc(func(f string) bool { return strings.EqualFold(f, name) })
	if !field.IsValid() {
		return fmt.Errorf("there is no switch %q", name)
	}
	if d, ok := field.Addr().Interface().(*time.Duration); ok {
		var text string
		if err := json.Unmarshal(value, &text); err != nil {
			return fmt.Errorf("switch %q: %w", name, err)
		}
		var err error
		*d, err = time.ParseDuration(text)
		return err
	}
	if err := json.Unmarshal(value, field.Addr().Interface()); err != nil {
		return fmt.Errorf("switch %q: %w", name, err)
	}
	return nil
}

func (s *Server) controlClock(w http.ResponseWriter, r *http.Request) (any, error) {
	var move struct{ Advance string }
	if err := decode(w, r, &move); err != nil {
		return nil, err
	}
	d, err := time.ParseDuration(move.Advance)
	if err != nil {
		return nil, err
	}
	s.Advance(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string]time.Time{"now": s.now()}, nil
}

func (s *Server) keep(b *Backup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = b
}

func (s *Server) controlRestore() error {
	s.mu.Lock()
	kept := s.kept
	s.mu.Unlock()
	if kept == nil {
		return errors.New("there is no backup to restore; POST /_sim/backup takes one")
	}
	s.Restore(kept)
	return nil
}

// patience bounds a wait by a duration that the caller named.
func patience(ctx context.Context, timeout string) (context.Context, context.CancelFunc, error) {
	d, err := time.ParseDuration(cmp.Or(timeout, "1m"))
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	return ctx, cancel, nil
}

func (s *Server) controlWait(w http.ResponseWriter, r *http.Request) error {
	var wait struct {
		Method, Path string
		Count        int
		Answered     bool // count only calls that were answered
		Timeout      string
	}
	if err := decode(w, r, &wait); err != nil {
		return err
	}
	ctx, cancel, err := patience(r.Context(), wait.Timeout)
	if err != nil {
		return err
	}
	defer cancel()
	return s.await(ctx, func() bool { return s.count(wait.Method, wait.Path, wait.Answered) >= max(wait.Count, 1) })
}

func (s *Server) controlWaitGone(w http.ResponseWriter, r *http.Request) error {
	var wait struct {
		Name    string
		ID      json.Number // a number, or a string of one
		Timeout string
	}
	if err := decode(w, r, &wait); err != nil {
		return err
	}
	if (wait.Name == "") == (wait.ID == "") {
		return errors.New("either name or id is needed")
	}
	ctx, cancel, err := patience(r.Context(), wait.Timeout)
	if err != nil {
		return err
	}
	defer cancel()
	return s.await(ctx, func() bool {
		return !s.alive(func(k *pat) bool {
			return wait.Name != "" && k.name == wait.Name || wait.ID != "" && strconv.FormatInt(k.id, 10) == wait.ID.String()
		})
	})
}
