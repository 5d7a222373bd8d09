package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that runs beside the story.
type process struct {
	*exec.Cmd
	gone  chan struct{} // closed when it has ended
	guard *exec.Cmd     // ends it if we die before we could, as by a signal or a panic
}

// start starts a program in a home of its own, whose stderr goes to a file in w.dir, and whose stdout to nowhere if it
// is nil. It ends with w at the latest.
func (w *world) start(log string, stdout *os.File, path string, args ...string) (*process, error) {
	file, err := os.OpenFile(filepath.Join(w.dir, log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	home := filepath.Join(w.dir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(w.t.Context(), path, args...)
	cmd.Stderr = file
	// A plugin that is killed leaves its socket in TMPDIR.
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+suite.dir, "VAULT_DEV_ROOT_TOKEN_ID="+w.root)
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{Cmd: cmd, gone: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // that it was killed is no news
		close(p.gone)
	}()
	w.processes = append(w.processes, p)
	// Its input ends when we do. That reaches a program that was stopped, too.
	p.guard = exec.CommandContext(w.t.Context(), "sh", "-c", `read -r _; kill -CONT "$0"; kill "$0"`, strconv.Itoa(cmd.Process.Pid))
	if _, err = p.guard.StdinPipe(); err == nil {
		err = p.guard.Start()
	}
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, err
	}
	w.noteCommands()
	return p, nil
}

func (p *process) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// stop ends p and returns when it is gone. Vault ends its plugins when it is asked to end, not when it is killed.
func (p *process) stop() {
	p.unguard()
	_ = p.Process.Signal(syscall.SIGTERM)
	_ = p.Process.Signal(syscall.SIGCONT) // a story may have stopped it
	select {
	case <-p.gone:
	case <-time.After(10 * time.Second):
		_ = p.Process.Kill()
		<-p.gone
	}
}

// kill ends p as a crash does, and returns when it is gone.
func (p *process) kill() {
	p.unguard()
	_ = p.Process.Kill()
	<-p.gone
}

func (p *process) unguard() {
	_ = p.guard.Process.Kill()
	_ = p.guard.Wait()
}

// running is a process of this machine.
type running struct {
	pid, parent int
	name        string // which the system cuts
}

// listRunning returns the processes of this machine.
func listRunning(ctx context.Context) ([]running, error) {
	// Where there is /proc there may be no ps.
	list, err := exec.CommandContext(ctx, "sh", "-c", `
		cat /proc/[0-9]*/stat 2>/dev/null | sed -nE 's/^([0-9]+) \((.*)\) . ([0-9]+) .*/\1 \3 \2/p' | grep . || ps -A -o pid=,ppid=,ucomm=`).Output()
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var all []running
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		pid, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, fmt.Errorf("listing processes: %w", err)
		}
		parent, err := strconv.Atoi(f[1])
		if err != nil {
			return nil, fmt.Errorf("listing processes: %w", err)
		}
		all = append(all, running{pid, parent, f[2]})
	}
	return all, nil
}

// plugins returns the ids of the children of a Vault that run the plugin.
func (w *world) plugins(vault *process) []int {
	w.t.Helper()
	all, err := listRunning(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var pids []int
	for _, r := range all {
		if r.parent == vault.Process.Pid && strings.HasPrefix(pluginName, r.name) {
			pids = append(pids, r.pid)
		}
	}
	return pids
}

// noteCommands writes the command lines of w's processes into commands.log, where the search for secrets looks: of those
// it has started, of their children, and of what a script has left running in its folder.
func (w *world) noteCommands() {
	w.t.Helper()
	all, err := listRunning(w.t.Context())
	if err != nil {
		w.t.Error(err)
	}
	var ours []int
	for _, p := range w.processes {
		if !p.ended() {
			ours = append(ours, p.Process.Pid)
		}
	}
	for _, r := range all {
		folder, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", r.pid))
		if slices.Contains(ours, r.parent) || err == nil && folder == w.dir {
			ours = append(ours, r.pid)
		}
	}
	log, err := os.OpenFile(filepath.Join(w.dir, "commands.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer log.Close()
	for _, pid := range ours {
		fmt.Fprintln(log, pid, commandLine(w.t.Context(), pid))
	}
}

// commandLine is how the process was called, or "" if it is gone.
func commandLine(ctx context.Context, pid int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil { // no such process, or no such system
		line, _ = exec.CommandContext(ctx, "ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	}
	return strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
}
