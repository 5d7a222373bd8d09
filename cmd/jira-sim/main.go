// Command jira-sim is a simulated Jira to try the engine on, and for its end-to-end stories.
//
// It makes up an administrator, three plain users with a token each, and a project DEMO. Once it listens it writes shell
// lines to standard output that tell how to get in, and a line "# ready" after the last of them. It serves until it gets
// SIGINT or SIGTERM. With -cloud it is a proxy that leads to a simulated Jira Cloud under the true names of its hosts, with a
// service account and an organisation's API key. Everything is in memory and gone afterwards. It is no Jira: never let anybody else reach it.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// version is set when a release is built.
var version = "v0.0.0-dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "jira-sim:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("jira-sim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on; port 0 takes a free one")
	allowRemote := flags.Bool("allow-remote", false, "allow an address that other machines can reach")
	contextPath := flags.String("context-path", "/jira", "path that Jira lives under; / for none")
	jiraVersion := flags.String("jira-version", "", "version that Jira claims to be")
	cloud := flags.String("cloud", "", "be the site of Jira Cloud with this name, behind a proxy; needs -ca-file")
	caFile := flags.String("ca-file", "", "with -cloud: where to write the certificate authority to, as PEM")
	control := flags.Bool("control", false, "serve /_sim/, which shows every secret to whoever asks")
	exitWithStdin := flags.Bool("exit-with-stdin", false, "end when standard input does")
	showVersion := flags.Bool("version", false, "print the version of jira-sim and end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("there is no argument %q", flags.Arg(0))
	}
	if *showVersion {
		_, err := fmt.Fprintln(stdout, "jira-sim", version)
		return err
	}
	if !*allowRemote && !loopback(*listen) {
		return fmt.Errorf("%q is no loopback address, and -allow-remote was not given", *listen)
	}
	if (*cloud == "") != (*caFile == "") {
		return errors.New("-cloud and -ca-file go together")
	}
	if *contextPath == "/" || *contextPath == "" {
		*contextPath = "-"
	}
	s, err := jiratest.Start(jiratest.Options{
		Listen: *listen, ContextPath: *contextPath, Version: *jiraVersion, Cloud: *cloud, Control: *control, Log: stderr,
	})
	if err != nil {
		return err
	}
	defer s.Close()
	lines := ""
	if *cloud == "" {
		lines = seed(s)
	} else {
		if err := os.WriteFile(*caFile, s.CA(), 0o600); err != nil {
			return fmt.Errorf("writing the certificate authority: %w", err)
		}
		lines = seedCloud(s)
	}
	if _, err := io.WriteString(stdout, lines+"# ready\n"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if *exitWithStdin {
		go func() {
			defer cancel()
			_, _ = io.Copy(io.Discard, stdin) // however it ends, it ended
		}()
	}
	<-ctx.Done()
	return nil
}

// loopback says that only this machine can reach an address. Names other than localhost may lead anywhere.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// seed fills s and returns shell lines that tell how to get in.
func seed(s *jiratest.Server) string {
	var lines strings.Builder
	export := func(name, value string) { fmt.Fprintf(&lines, "export %s='%s'\n", name, value) }
	export("JIRA_URL", s.URL())
	for _, seeded := range []struct {
		jiratest.User
		username, token, password string // names of the variables
	}{
		{jiratest.User{Name: "ci-bot", DisplayName: "CI"}, "JIRA_USERNAME", "JIRA_TOKEN", "JIRA_PASSWORD"},
		{jiratest.User{Name: "jira-admin", DisplayName: "Administrator", Admin: true}, "JIRA_ADMIN_USERNAME", "JIRA_ADMIN_TOKEN", "JIRA_ADMIN_PASSWORD"},
		{jiratest.User{Name: "release-bot", DisplayName: "Releases"}, "", "JIRA_TOKEN_RELEASE_BOT", "JIRA_PASSWORD_RELEASE_BOT"},
		{jiratest.User{Name: "reporter", DisplayName: "Reporter"}, "", "JIRA_TOKEN_REPORTER", "JIRA_PASSWORD_REPORTER"},
	} {
		seeded.Groups = []string{"jira-software-users"}
		u := s.AddUser(seeded.User)
		_, token := s.Mint(u.Name, "made by jira-sim", 0)
		export(cmp.Or(seeded.username, "JIRA_USERNAME_"+strings.TrimPrefix(seeded.token, "JIRA_TOKEN_")), u.Name)
		export(seeded.token, token)
		export(seeded.password, u.Password)
	}
	s.AddProject(jiratest.Project{Key: "DEMO", Name: "Demonstration"})
	s.AddIssue("DEMO", "reporter", "The build is red")
	s.AddIssue("DEMO", "reporter", "Release notes are missing")
	return lines.String()
}

// seedCloud does so for a site of Jira Cloud.
func seedCloud(s *jiratest.Server) string {
	a := s.AddServiceAccount(jiratest.ServiceAccount{Name: "deployer"})
	s.AddProject(jiratest.Project{Key: "DEMO", Name: "Demonstration"})
	var lines strings.Builder
	for _, v := range [][2]string{
		{"JIRA_URL", s.URL()},
		{"JIRA_PROXY_URL", s.Proxy()},
		{"JIRA_CLOUD_ID", s.CloudID()},
		{"JIRA_ACCOUNT_ID", a.ID},
		{"JIRA_CLIENT_ID", a.ClientID},
		{"JIRA_CLIENT_SECRET", a.ClientSecret},
		{"JIRA_ORG_KEY", s.AddOrgKey(false)},
	} {
		fmt.Fprintf(&lines, "export %s='%s'\n", v[0], v[1])
	}
	return lines.String()
}
