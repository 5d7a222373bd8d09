package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// node is a Vault server that stores what it holds, with others of its cluster or alone. It can be killed and started
// again.
type node struct {
	*world
	*process
	name    string // also of its log, and of its folder
	addr    string // where it is called
	cluster string // where the other nodes call it
	others  bool   // whether there are any
}

// beginRaft starts Jira, and a cluster of so many Vaults that know the plugin. Whatever happens, end must be called.
func (w *world) beginRaft(size int) {
	w.t.Helper()
	w.beginJira()
	for i := range size {
		n := &node{world: w, name: fmt.Sprintf("vault-%d", i+1), addr: "http://" + lastingAddress(w.t), cluster: "http://" + lastingAddress(w.t), others: size > 1}
		w.nodes = append(w.nodes, n)
		n.start()
		if i == 0 {
			w.initialize(n)
		} else {
			w.must(200, "PUT", n.addr+"/v1/sys/storage/raft/join", map[string]any{"leader_api_addr": w.addr})
		}
		n.unseal()
		if i == 0 {
			n.waitActive()
			w.enableAudit()
			w.api("PUT", "sys/plugins/catalog/secret/"+pluginName, map[string]any{
				"command": pluginName, "sha256": suite.sha256, "version": suite.version,
			})
		}
	}
	w.waitVoters(size)
}

// initialize makes the keys of a new Vault.
func (w *world) initialize(n *node) {
	w.t.Helper()
	var keys struct {
		Keys  []string
		Token string `json:"root_token"`
	}
	w.read(&keys, w.must(200, "PUT", n.addr+"/v1/sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1}))
	w.addr, w.root, w.unsealKey = n.addr, keys.Token, keys.Keys[0]
}

// waitVoters waits until so many nodes have a say in who leads, so that one of them can be missed.
func (w *world) waitVoters(count int) {
	w.t.Helper()
	if count > 1 { // a new node has to be there for ten seconds, unless Vault is told otherwise
		w.api("PUT", "sys/storage/raft/autopilot/configuration", map[string]any{"server_stabilization_time": "1s"})
	}
	voters := 0
	if poll(func() bool {
		var raft struct {
			Data struct {
				Config struct{ Servers []struct{ Voter bool } }
			}
		}
		w.read(&raft, w.api("GET", "sys/storage/raft/configuration", nil))
		voters = 0
		for _, s := range raft.Data.Config.Servers {
			if s.Voter {
				voters++
			}
		}
		return voters == count
	}) != nil {
		w.t.Fatalf("%d nodes have a say instead of %d", voters, count)
	}
}

// api calls the API of Vault as root, for what has to work.
func (w *world) api(method, path string, body any) []byte {
	w.t.Helper()
	status, answer := w.send(method, w.addr+"/v1/"+path, body, "X-Vault-Token", w.root)
	if status/100 != 2 {
		w.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return answer
}

// start starts n on what it has stored.
func (n *node) start() {
	n.t.Helper()
	folder := filepath.Join(n.dir, n.name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		n.t.Fatal(err)
	}
	// How patient nodes are with each other: the default is five. With one, a busy machine makes them change leaders.
	multiplier := 1
	if n.others {
		multiplier = 2
	}
	config := fmt.Sprintf(`
		storage "raft" {
			path                   = %q
			node_id                = %q
			performance_multiplier = %d
		}
		listener "tcp" {
			address         = %q
			cluster_address = %q
			tls_disable     = true
		}
		api_addr             = %q
		cluster_addr         = %q
		plugin_directory     = %q
		disable_mlock        = true
		raw_storage_endpoint = true
		log_level            = "trace"
	`, folder, n.name, multiplier, strings.TrimPrefix(n.addr, "http://"), strings.TrimPrefix(n.cluster, "http://"), n.addr, n.cluster, suite.pluginDir)
	file := filepath.Join(n.dir, n.name+".hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		n.t.Fatal(err)
	}
	var err error
	if n.process, err = n.world.start(n.name+".log", nil, filepath.Join(suite.bin, "vault"), "server", "-config="+file); err != nil {
		n.t.Fatal(err)
	}
	if poll(func() bool {
		status, _ := n.send("GET", n.addr+"/v1/sys/seal-status", nil)
		return status == http.StatusOK || n.ended()
	}) != nil || n.ended() {
		n.t.Fatalf("%s did not start", n.name)
	}
}

// unseal opens n.
func (n *node) unseal() {
	n.t.Helper()
	// The key is given once: a Vault that is about to join others and gets it again has two minds from then on, of which
	// one does not notice that it leads no more.
	n.must(200, "PUT", n.addr+"/v1/sys/unseal", map[string]any{"key": n.unsealKey})
	if poll(func() bool {
		var seal struct{ Sealed bool }
		n.read(&seal, n.must(200, "GET", n.addr+"/v1/sys/seal-status", nil))
		return !seal.Sealed
	}) != nil {
		n.t.Fatalf("%s does not unseal", n.name)
	}
}

// health is what n says of itself: 200 if it leads, 429 if it stands by, 503 if it is sealed, 0 if it says nothing.
func (n *node) health() int {
	ctx, cancel := context.WithTimeout(n.t.Context(), impatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", n.addr+"/v1/sys/health", nil)
	if err != nil {
		n.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

func (n *node) waitActive() {
	n.t.Helper()
	if poll(func() bool { return n.health() == http.StatusOK }) != nil {
		n.t.Fatalf("%s does not become active", n.name)
	}
}

// kill ends n as a crash does. Its plugin lives on, an orphan that nobody calls any more, unless the whole machine is
// to go down.
func (n *node) kill(machine bool) {
	n.t.Helper()
	n.noteCommands()
	pids := n.plugins(n.process)
	n.process.kill()
	for _, pid := range pids {
		if machine {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// restart starts n again after kill, and opens it.
func (n *node) restart() {
	n.t.Helper()
	n.start()
	n.unseal()
}

// signalAll sends a signal to n and its plugin.
func (n *node) signalAll(s syscall.Signal) {
	n.t.Helper()
	for _, pid := range append(n.plugins(n.process), n.Process.Pid) {
		if err := syscall.Kill(pid, s); err != nil {
			n.t.Fatal(err)
		}
	}
}

// leader waits for a node other than besides to lead, and returns it.
func (w *world) leader(besides *node) *node {
	w.t.Helper()
	var found *node
	if poll(func() bool {
		for _, n := range w.nodes {
			if n != besides && n.health() == http.StatusOK {
				found = n
				return true
			}
		}
		return false
	}) != nil {
		w.t.Fatal("no node leads")
	}
	return found
}

// lastingAddress returns an address that is still free when a process that had it is started again: its port is none of
// those that the system gives to whoever asks for any.
func lastingAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(26000+rand.IntN(6000)))
		if l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}
