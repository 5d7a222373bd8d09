package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// commands are what a script can say besides testscript's own words:
//
//	vault ARGS                       run Vault's CLI
//	api STATUS METHOD PATH [BODY]    call Vault's HTTP API, once, with a JSON body; any other status fails
//	jira STATUS METHOD PATH CREDENTIAL [BODY]
//	                                 call Jira as an application does, with a token, or user:password, or - for nobody;
//	                                 the output starts with a line "user: " that tells whom Jira took it for
//	jsonfield NAME PATH              set $NAME to a field of the JSON in the last output, its path joined with dots
//	capture NAME REGEXP              set $NAME to what the group in REGEXP matches in the last output or errors
//	between LOW VALUE HIGH           compare numbers, all bounds included
//	wait-gone TOKEN-NAME             wait until no token of that name works in Jira
//	wait-no-lease PATH               wait until Vault holds no lease of that path
//	wait-for FILE REGEXP [COUNT]     wait until so many lines of a file match
//	wait-read REGEXP PATH            wait until "vault read PATH" prints a line that matches
//	wait-vault ARGS                  run Vault's CLI until it succeeds
//	poll PATH FILE                   from now on read a token at PATH, use it in Jira for a while, and begin anew, in the
//	                                 background; FILE gets a line "ID STATUS" for each call of Jira
//	poll-end                         end that; a token that Jira has refused, or a read that failed, fails the story, here
//	                                 or at its end
//	kill-plugin                      kill the plugin's processes with signal 9
//	sim …                            steer the simulator, see simVerbs
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"vault":         vaultCommand,
	"api":           apiCommand,
	"jira":          jiraCommand,
	"jsonfield":     jsonfieldCommand,
	"capture":       captureCommand,
	"between":       betweenCommand,
	"wait-gone":     waitGoneCommand,
	"wait-no-lease": waitNoLeaseCommand,
	"wait-for":      waitForCommand,
	"wait-read":     waitReadCommand,
	"wait-vault":    waitVaultCommand,
	"poll":          pollCommand,
	"poll-end":      pollEndCommand,
	"kill-plugin":   killPluginCommand,
	"sim":           simCommand,
}

// in returns the story's world, after a look at how the command was used.
func in(ts *testscript.TestScript, neg bool, args []string, least, most int) *world {
	if neg {
		ts.Fatalf("! means nothing here")
	}
	if len(args) < least || len(args) > most {
		ts.Fatalf("wrong number of arguments, see commands_test.go")
	}
	return ts.Value(worldKey{}).(*world)
}

func vaultCommand(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("vault", args...)
	if err == nil && neg {
		ts.Fatalf("vault should have failed")
	}
	if err != nil && !neg {
		ts.Fatalf("vault: %v", err)
	}
}

// call makes an HTTP request for a script and writes the answer to its output.
// The content is the body, if there is one.
func call(ts *testscript.TestScript, w *world, want, method, url string, content, headers []string) {
	var body any
	if len(content) > 0 {
		body = json.RawMessage(content[0])
	}
	status, header, answer := w.exchange(method, url, body, headers...)
	if user := header.Get("X-AUSERNAME"); user != "" {
		fmt.Fprintln(ts.Stdout(), "user:", user)
	}
	fmt.Fprintf(ts.Stdout(), "%s\n", answer)
	if strconv.Itoa(status) != want {
		ts.Fatalf("%s %s: the status is %d", method, url, status)
	}
}

func apiCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := in(ts, neg, args, 3, 4)
	contentType := "application/json"
	if args[1] == http.MethodPatch {
		contentType = "application/merge-patch+json"
	}
	headers := []string{"X-Vault-Token", ts.Getenv("VAULT_TOKEN"), "Content-Type", contentType}
	call(ts, w, args[0], args[1], w.addr+"/v1/"+args[2], args[3:], headers)
}

func jiraCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := in(ts, neg, args, 4, 5)
	// What every client of Jira's REST API sends, lest it is taken for a browser.
	headers := []string{"Accept", "application/json", "Content-Type", "application/json", "X-Atlassian-Token", "no-check"}
	if user, password, basic := strings.Cut(args[3], ":"); basic {
		req := http.Request{Header: http.Header{}}
		req.SetBasicAuth(user, password)
		headers = append(headers, "Authorization", req.Header.Get("Authorization"))
	} else if args[3] != "-" {
		headers = append(headers, "Authorization", "Bearer "+args[3])
	}
	call(ts, w, args[0], args[1], w.jira["JIRA_URL"]+args[2], args[4:], headers)
}

func jsonfieldCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := in(ts, neg, args, 2, 2)
	text := ts.ReadFile("stdout")
	if strings.HasPrefix(text, "user: ") { // what jira puts before the body
		_, text, _ = strings.Cut(text, "\n")
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		ts.Fatalf("the last output is not JSON: %v", err)
	}
	for _, field := range strings.Split(args[1], ".") {
		if list, ok := v.([]any); ok {
			if i, err := strconv.Atoi(field); err == nil && i < len(list) {
				v = list[i]
				continue
			}
		}
		object, _ := v.(map[string]any)
		var there bool
		if v, there = object[field]; !there {
			ts.Fatalf("there is no field %q of %s", field, args[1])
		}
	}
	if n, ok := v.(float64); ok {
		v = strconv.FormatFloat(n, 'f', -1, 64)
	}
	value := fmt.Sprint(v)
	switch path := "." + args[1]; {
	case strings.HasSuffix(path, ".token") && value != "":
		w.secrets = append(w.secrets, value)
	case strings.HasSuffix(path, ".token_name"): // vault-mount-id-role
		mount, _, _ := strings.Cut(strings.TrimPrefix(value, "vault-"), "-")
		w.mounts = append(w.mounts, "vault-"+mount+"-")
	}
	ts.Setenv(args[0], value)
}

func captureCommand(ts *testscript.TestScript, neg bool, args []string) {
	in(ts, neg, args, 2, 2)
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := pattern.FindStringSubmatch(ts.ReadFile("stdout") + "\n" + ts.ReadFile("stderr"))
	if len(m) != 2 {
		ts.Fatalf("%q does not match, or has not one group", args[1])
	}
	ts.Setenv(args[0], m[1])
}

func betweenCommand(ts *testscript.TestScript, neg bool, args []string) {
	in(ts, neg, args, 3, 3)
	var n [3]float64
	for i, arg := range args {
		var err error
		n[i], err = strconv.ParseFloat(arg, 64)
		ts.Check(err)
	}
	if n[1] < n[0] || n[1] > n[2] {
		ts.Fatalf("%s is not between %s and %s", args[1], args[0], args[2])
	}
}

func waitGoneCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := in(ts, neg, args, 1, 1)
	ts.Check(w.waitGone(args[0]))
}

// waitGone waits until no token of that name works in Jira. A real one tells nobody, so it is asked.
func (w *world) waitGone(name string) error {
	if w.sim == nil {
		return poll(func() bool { return !strings.Contains(" "+strings.Join(w.live(), " ")+" ", " "+name+" ") })
	}
	status, answer := w.send("POST", w.control+"wait-gone", map[string]string{"name": name, "timeout": most.String()})
	if status != http.StatusOK {
		return fmt.Errorf("waiting for the end of %q: %s", name, answer)
	}
	return nil
}

func waitNoLeaseCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := in(ts, neg, args, 1, 1)
	ts.Check(poll(func() bool {
		status, _ := w.send("LIST", w.addr+"/v1/sys/leases/lookup/"+args[0], nil, "X-Vault-Token", w.root)
		return status == http.StatusNotFound
	}))
}

func waitForCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := in(ts, neg, args, 2, 3)
	defer w.noteCommands() // of what the script has left running and will end
	count := 1
	if len(args) == 3 {
		var err error
		count, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	pattern, err := regexp.Compile("(?m)^.*" + args[1])
	ts.Check(err)
	ts.Check(poll(func() bool {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && len(pattern.FindAll(text, -1)) >= count
	}))
}

func waitReadCommand(ts *testscript.TestScript, neg bool, args []string) {
	in(ts, neg, args, 2, 2)
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	ts.Check(poll(func() bool {
		return ts.Exec("vault", "read", args[1]) == nil && pattern.MatchString(ts.ReadFile("stdout"))
	}))
}

// waitVaultCommand runs a vault command until it succeeds.
func waitVaultCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := in(ts, neg, args, 1, 10)
	defer w.noteCommands()
	ts.Check(poll(func() bool { return ts.Exec("vault", args...) == nil }))
}

func pollCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := in(ts, neg, args, 2, 2)
	calls, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	ctx, stop := context.WithCancel(w.t.Context())
	failed := make(chan error, 1)
	go func() {
		defer calls.Close()
		failed <- w.consume(ctx, args[0], calls)
	}()
	w.pollers = append(w.pollers, func() error {
		stop()
		return <-failed
	})
}

func pollEndCommand(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(in(ts, neg, args, 0, 0).endPolls())
}

// endPolls ends whoever polls, and returns what went wrong.
func (w *world) endPolls() error {
	var failed error
	for _, end := range w.pollers {
		failed = errors.Join(failed, end())
	}
	w.pollers = nil
	return failed
}

// consume is an application that cannot hold a lease. It uses what it has read in some calls of Jira, and reads again.
func (w *world) consume(ctx context.Context, path string, calls io.Writer) error {
	client := &http.Client{Timeout: most, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for {
		status, answer := ask(ctx, client, "GET", w.addr+"/v1/"+path, nil, "X-Vault-Token", w.root)
		if ctx.Err() != nil {
			return nil
		}
		var read struct {
			Data struct {
				Token string
				ID    string `json:"token_id"`
			}
		}
		if err := json.Unmarshal(answer, &read); err != nil || status != http.StatusOK {
			return fmt.Errorf("reading %s: %d %s (%w)", path, status, answer, err)
		}
		for range 5 {
			status, answer := ask(ctx, client, "GET", w.jira["JIRA_URL"]+"/rest/api/2/myself", nil, "Authorization", "Bearer "+read.Data.Token)
			if ctx.Err() != nil {
				return nil
			}
			fmt.Fprintln(calls, read.Data.ID, status)
			if status != http.StatusOK {
				return fmt.Errorf("token %s of %s is refused: %d %s", read.Data.ID, path, status, answer)
			}
			<-time.After(10 * time.Millisecond) // others want to be served, too
		}
	}
}

func killPluginCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := in(ts, neg, args, 0, 0)
	w.noteCommands()
	pids := w.plugins(w.vault)
	if len(pids) == 0 {
		ts.Fatalf("the plugin does not run")
	}
	for _, pid := range pids {
		ts.Check(syscall.Kill(pid, syscall.SIGKILL))
		// Vault has to notice, and tells nobody.
		ts.Check(poll(func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }))
	}
}

// simVerbs are what "sim" can do.
var simVerbs = map[string]func(ts *testscript.TestScript, w *world, args []string){
	// sim forget: count calls from here.
	"forget": func(_ *testscript.TestScript, w *world, _ []string) { w.must(200, "DELETE", w.control+"calls", nil) },
	// sim calls N METHOD PATH: exactly so many calls were made, any method for *, of any path that begins like that.
	"calls": func(ts *testscript.TestScript, w *world, args []string) {
		w.count(ts, args[0], func(c simCall) bool { return c.matches(args[1], args[2]) })
	},
	// sim bad-logins N: so many passwords were refused.
	"bad-logins": func(ts *testscript.TestScript, w *world, args []string) {
		w.count(ts, args[0], func(c simCall) bool { return c.Auth == "basic" && c.Status == http.StatusUnauthorized })
	},
	// sim wait N METHOD PATH: wait for so many calls to have been answered.
	"wait": func(ts *testscript.TestScript, w *world, args []string) {
		n, err := strconv.Atoi(args[0])
		ts.Check(err)
		w.must(200, "POST", w.control+"wait", map[string]any{"count": n, "method": args[1], "path": args[2], "answered": true})
	},
	// sim come N METHOD PATH: wait for so many calls to have come, answered or not.
	"come": func(ts *testscript.TestScript, w *world, args []string) {
		n, err := strconv.Atoi(args[0])
		ts.Check(err)
		w.must(200, "POST", w.control+"wait", map[string]any{"count": n, "method": args[1], "path": args[2]})
	},
	// sim fault JSON: make calls go wrong.
	"fault": func(_ *testscript.TestScript, w *world, args []string) {
		w.must(200, "POST", w.control+"fault", json.RawMessage(args[0]))
	},
	// sim heal: no call goes wrong any more.
	"heal": func(_ *testscript.TestScript, w *world, _ []string) { w.must(200, "DELETE", w.control+"faults", nil) },
	// sim switch JSON: change Jira's settings.
	"switch": func(_ *testscript.TestScript, w *world, args []string) {
		w.must(200, "PATCH", w.control+"switches", json.RawMessage(args[0]))
	},
	// sim project JSON: add a project, which with "restricted" only those see who have a role in it or are in its groups.
	"project": func(_ *testscript.TestScript, w *world, args []string) {
		w.must(200, "POST", w.control+"project", json.RawMessage(args[0]))
	},
	// sim service-account JSON: add a service account, which sees the "projects" alone if there are any; it is the output.
	"service-account": func(ts *testscript.TestScript, w *world, args []string) {
		fmt.Fprintf(ts.Stdout(), "%s", w.must(200, "POST", w.control+"service-account", json.RawMessage(args[0])))
	},
	// sim clock DURATION: set Jira's clock forward.
	"clock": func(_ *testscript.TestScript, w *world, args []string) {
		w.must(200, "POST", w.control+"clock", map[string]string{"advance": args[0]})
	},
	// sim backup: take a backup of Jira. sim restore: restore it, so that Jira gives the same ids out again.
	"backup":  func(_ *testscript.TestScript, w *world, _ []string) { w.must(200, "POST", w.control+"backup", nil) },
	"restore": func(_ *testscript.TestScript, w *world, _ []string) { w.must(200, "POST", w.control+"restore", nil) },
	// sim call STATUS METHOD URL TOKEN: call a host of Jira Cloud, through the simulator's proxy, with its authority's ca.pem.
	"call": func(ts *testscript.TestScript, w *world, args []string) {
		proxy, err := url.Parse(w.jira["JIRA_PROXY_URL"])
		ts.Check(err)
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(ts.ReadFile("ca.pem"))) {
			ts.Fatalf("ca.pem holds no certificate")
		}
		transport := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(w.t.Context(), args[1], args[2], nil)
		ts.Check(err)
		req.Header.Set("Authorization", "Bearer "+args[3])
		resp, err := transport.RoundTrip(req)
		ts.Check(err)
		ts.Check(resp.Body.Close())
		if strconv.Itoa(resp.StatusCode) != args[0] {
			ts.Fatalf("%s %s: the status is %d", args[1], args[2], resp.StatusCode)
		}
	},
	// sim people N: so many users who were made for leases are there, be they active or not.
	"people": func(ts *testscript.TestScript, w *world, args []string) {
		if active, inactive := w.people(); strconv.Itoa(len(active)+len(inactive)) != args[0] {
			ts.Fatalf("there are %q, and inactive are %q", active, inactive)
		}
	},
	// sim freeze: Jira takes calls but does not work on them. sim thaw: it goes on.
	"freeze": func(ts *testscript.TestScript, w *world, _ []string) { ts.Check(w.sim.Process.Signal(syscall.SIGSTOP)) },
	"thaw":   func(ts *testscript.TestScript, w *world, _ []string) { ts.Check(w.sim.Process.Signal(syscall.SIGCONT)) },
	// sim anew FLAG…: start the simulator anew, with these flags, before anything has called it. The variables are the new one's.
	"anew": func(ts *testscript.TestScript, w *world, args []string) {
		w.sim.stop()
		w.simulate(args...)
		for name, value := range w.jira {
			ts.Setenv(name, value)
		}
	},
	// sim another NAME: start a second Jira, whose users are called like the first's, and set $NAME to its address.
	"another": func(ts *testscript.TestScript, w *world, args []string) {
		_, printed := w.startSim("another.log")
		ts.Setenv(args[0], printed["JIRA_URL"])
	},
}

func simCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := in(ts, neg, args, 1, 5)
	if w.sim == nil {
		ts.Fatalf("this line needs the simulator: start it with [sim]")
	}
	verb := simVerbs[args[0]]
	if verb == nil {
		ts.Fatalf("sim cannot %s", args[0])
	}
	verb(ts, w, args[1:])
}

type simCall struct {
	Method, Path, Auth string
	Status             int
}

// matches tells whether a call is of a method, any for *, and its path begins like that.
func (c *simCall) matches(method, path string) bool {
	return (method == "*" || method == c.Method) && strings.HasPrefix(c.Path, path)
}

func (w *world) count(ts *testscript.TestScript, want string, matches func(simCall) bool) {
	var calls []simCall
	w.read(&calls, w.must(200, "GET", w.control+"calls", nil))
	n := 0
	for _, c := range calls {
		if matches(c) {
			n++
		}
	}
	if strconv.Itoa(n) != want {
		ts.Fatalf("there were %d such calls among %+v", n, calls)
	}
}
