package backend

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

// What the model test puts around the engine: storage and a network that fail,
// and nodes that crash, or are paused and come back when another has taken over.

// disk is the storage that all nodes share. It fails as it is told.
type disk struct {
	logical.InmemStorage

	mu     sync.Mutex
	left   int  // until that many writes have come, of which the last fails
	lands  bool // it has its effect all the same
	away   away
	failed int // how many operations have
}

// away is what of storage does not work.
type away string

const (
	nothing away = ""
	writes  away = "writes"
	allOfIt away = "reads and writes"
)

// mishap tells how an operation goes: fails without effect, or with.
func (d *disk) mishap(write bool) (before, after error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if write && d.left > 0 {
		if d.left--; d.left == 0 {
			if d.lands {
				after = errStorage
			} else {
				before = errStorage
			}
		}
	}
	if d.away == allOfIt || d.away == writes && write {
		before = errStorage
	}
	if before != nil || after != nil {
		d.failed++
	}
	return before, after
}

func (d *disk) set(change func(*disk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *disk) failures() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// copied is what storage holds now, for a node that will see no change of it.
func (d *disk) copied() *logical.InmemStorage {
	ctx := context.Background()
	frozen := &logical.InmemStorage{}
	keys, err := logical.CollectKeys(ctx, &d.InmemStorage)
	for _, key := range keys {
		var entry *logical.StorageEntry
		if entry, err = d.Get(ctx, key); err == nil && entry != nil {
			err = frozen.Put(ctx, entry)
		}
	}
	if err != nil {
		panic(err)
	}
	return frozen
}

// network is what lies between the nodes and Jira. It is in memory, so that the
// bubble's clock runs while somebody waits for an answer.
type network struct {
	calls  chan net.Conn
	closed chan struct{}
	calm   func() // ends all faults of Jira's

	mu      sync.Mutex
	refuses bool
	mishap  mishap // of the next mint
	late    [][]byte
	came    int // how many mishaps
}

// mishap is what happens to a mint on its way to Jira.
type mishap string

const (
	none  mishap = ""
	late  mishap = "late"  // it is held up, and delivered when the engine has given up
	twice mishap = "twice" // it is delivered twice, and no answer comes back
)

func newNetwork() *network { return &network{calls: make(chan net.Conn), closed: make(chan struct{})} }

func (w *network) Accept() (net.Conn, error) {
	select {
	case c := <-w.calls:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *network) Close() error {
	close(w.closed)
	return nil
}

func (w *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080} }

func (w *network) dial() (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case w.calls <- there:
		return here, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *network) set(change func(*network)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

// befalls tells what happens to request.
func (w *network) befalls(request []byte) mishap {
	w.mu.Lock()
	defer w.mu.Unlock()
	what := w.mishap
	if what == none || !bytes.HasPrefix(request, []byte("POST ")) {
		return none
	}
	w.mishap = none
	w.came++
	if what == late {
		w.late = append(w.late, bytes.Clone(request))
	}
	return what
}

// deliver brings a request to Jira, whose answer nobody waits for.
func (w *network) deliver(request []byte) {
	c, err := w.dial()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write(request); err != nil {
		return
	}
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

// deliverLate brings to Jira what was held up.
func (w *network) deliverLate() int {
	w.mu.Lock()
	held := w.late
	w.late = nil
	w.mu.Unlock()
	for _, request := range held {
		w.deliver(request)
	}
	return len(held)
}

// fate is how a node fares.
type fate string

const (
	runs fate = "runs"
	// Storage stays as it is for it, and it cannot write. What it has under way
	// on the network stands still. It must not stand still in storage, for the
	// bubble's clock would with it: the engine holds locks there.
	paused  fate = "paused"
	deposed fate = "deposed" // the same, and the network goes on
	dead    fate = "dead"
)

// node is a process that runs the engine.
type node struct {
	*backend
	name  string
	wire  *network
	disk  *disk
	log   *logBuffer
	clock atomic.Int64 // what its clock is ahead of the true one, in ns
	asked atomic.Int64 // when it was looked at last
	times atomic.Int64 // how often since time has passed

	stopped chan struct{} // closed when it does not serve Vault any more

	mu     sync.Mutex
	fate   fate
	left   int  // until that many steps, into storage or the network, are made
	then   fate // what it is after them
	goesOn chan struct{}
	frozen *logical.InmemStorage
	conns  map[*nodeConn]bool
}

var errDead = errors.New("the process is dead")

// startNode brings the engine to life on a new node, as Vault does.
func startNode(name string, d *disk, w *network, system logical.SystemView, ahead time.Duration) (*node, error) {
	n := &node{name: name, wire: w, disk: d, log: &logBuffer{}, fate: runs, stopped: make(chan struct{}), goesOn: make(chan struct{}), conns: map[*nodeConn]bool{}}
	n.clock.Store(int64(ahead))
	n.backend = newBackend(view{n}, n.time)
	n.sites.dial = n.dial
	err := n.Setup(context.Background(), &logical.BackendConfig{
		StorageView: view{n}, System: system,
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: n.log, DisableTime: true}),
	})
	if err != nil {
		return nil, err
	}
	return n, n.Initialize(context.Background(), &logical.InitializationRequest{Storage: view{n}})
}

// time is the node's. It panics in an engine that goes round and round while no time passes.
func (n *node) time() time.Time {
	now := time.Now()
	if n.asked.Swap(now.UnixNano()) != now.UnixNano() {
		n.times.Store(0)
	} else if n.times.Add(1) == mostAtATime {
		panic("the engine turns without an end")
	}
	return now.Add(time.Duration(n.clock.Load()))
}

// mostAtATime is how often an engine that works may look at its clock in one moment.
const mostAtATime = 100_000

// ahead is what the node's clock is.
func (n *node) ahead() time.Duration { return time.Duration(n.clock.Load()) }

// arm stops the node after that many steps.
func (n *node) arm(steps int, then fate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.left, n.then = steps, then
}

// stop ends the node, or stops it for a while.
func (n *node) stop(how fate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.become(how)
}

// become does so with n.mu held.
func (n *node) become(how fate) {
	was := n.fate
	n.left = 0
	if was == dead || how == paused && was != runs || how == deposed && was != paused {
		return
	}
	n.fate = how
	if was == runs {
		close(n.stopped)
	}
	switch how {
	case paused:
		n.frozen = n.disk.copied()
	case dead:
		n.cancelBackground()
		for c := range n.conns {
			_ = c.Conn.Close()
		}
		fallthrough
	case deposed:
		if was == paused {
			close(n.goesOn)
		}
	}
}

// step is a moment at which a node can stop: on the way into storage and the
// network, and on the way out.
func (n *node) step(network bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.left > 0 {
		if n.left--; n.left == 0 {
			n.become(n.then)
		}
	}
	for network && n.fate == paused {
		n.mu.Unlock()
		<-n.goesOn
		n.mu.Lock()
	}
	if n.fate == dead {
		return errDead
	}
	return nil
}

func (n *node) is(f fate) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fate == f
}

// request sends a request to the engine, as Vault's core does.
func (n *node) request(ctx context.Context, req logical.Request) (*logical.Response, error) {
	req.ID, req.MountPoint, req.Storage = "req", "jira/", view{n}
	if req.Operation == logical.UpdateOperation {
		found, exists, err := n.HandleExistenceCheck(ctx, &req)
		if err != nil {
			return nil, err
		}
		if found && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	resp, err := n.HandleRequest(ctx, &req)
	if err == nil && resp.IsError() {
		err = resp.Error()
	}
	return resp, err
}

// view is storage as a node sees it.
type view struct{ *node }

// do does what a node wants of storage.
func (v view) do(write bool, op func(logical.Storage) error) error {
	if err := v.step(false); err != nil {
		return err
	}
	v.mu.Lock()
	frozen := v.frozen
	v.mu.Unlock()
	if frozen != nil {
		if write {
			return logical.ErrReadOnly
		}
		return op(frozen)
	}
	before, after := v.disk.mishap(write)
	if before != nil {
		return before
	}
	return errors.Join(op(&v.disk.InmemStorage), after, v.step(false))
}

func (v view) Get(ctx context.Context, key string) (entry *logical.StorageEntry, err error) {
	err = v.do(false, func(s logical.Storage) (err error) {
		entry, err = s.Get(ctx, key)
		return err
	})
	return entry, err
}

func (v view) List(ctx context.Context, prefix string) (keys []string, err error) {
	err = v.do(false, func(s logical.Storage) (err error) {
		keys, err = s.List(ctx, prefix)
		return err
	})
	return keys, err
}

func (v view) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return v.do(true, func(s logical.Storage) error { return s.Put(ctx, entry) })
}

func (v view) Delete(ctx context.Context, key string) error {
	return v.do(true, func(s logical.Storage) error { return s.Delete(ctx, key) })
}

// dial connects the node to Jira.
func (n *node) dial(context.Context, string, string) (net.Conn, error) {
	refused := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	if err := n.step(true); err != nil {
		return nil, refused(err)
	}
	n.wire.mu.Lock()
	refuses := n.wire.refuses
	n.wire.mu.Unlock()
	if refuses {
		return nil, refused(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	c, err := n.wire.dial()
	if err != nil {
		return nil, refused(err)
	}
	conn := &nodeConn{Conn: c, node: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[conn] = true
	return conn, nil
}

// hangUp cuts the node's connections.
func (n *node) hangUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		_ = c.Conn.Close()
	}
}

// nodeConn is a node's connection to Jira.
type nodeConn struct {
	net.Conn
	node *node
}

func (c *nodeConn) Write(p []byte) (int, error) {
	if err := c.node.step(true); err != nil {
		return 0, err
	}
	switch c.node.wire.befalls(p) {
	case late:
		_ = c.Conn.Close()
		return len(p), nil
	case twice:
		// Both at once: if one came when the other was settled, nobody but a
		// tidy could know of it.
		c.node.wire.calm()
		c.node.wire.deliver(p)
		c.node.wire.deliver(p)
		_ = c.Conn.Close()
		return len(p), nil
	}
	written, err := c.Conn.Write(p)
	return written, errors.Join(err, c.node.step(true))
}

func (c *nodeConn) Read(p []byte) (int, error) {
	read, err := c.Conn.Read(p)
	if err == nil {
		err = c.node.step(true)
	}
	return read, err
}

func (c *nodeConn) Close() error {
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	delete(c.node.conns, c)
	return c.Conn.Close()
}

// throughStorage is what becomes of a lease's data in Vault's storage.
func throughStorage(data map[string]any) map[string]any {
	raw, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	var kept map[string]any
	if err := json.Unmarshal(raw, &kept); err != nil {
		panic(err)
	}
	return kept
}

// trace is what happened, for whoever has to understand a failure.
type trace struct {
	mu    sync.Mutex
	lines []string
	at    time.Time // of the last call of Jira
	calls int       // at that moment
}

// mostCalls is how many calls Jira gets at one moment. Who makes more does so without an
// end: time does not pass for them, so nothing that stands in their way ever ends.
const mostCalls = 2000

// Write takes a line of the simulated Jira's log.
func (t *trace) Write(p []byte) (int, error) {
	t.mu.Lock()
	if now := time.Now(); now.Equal(t.at) {
		t.calls++
	} else {
		t.at, t.calls = now, 0
	}
	if t.calls > mostCalls { // whatever recovers a panic would wait for us
		fmt.Fprintf(os.Stderr, "Jira is called without an end:\n%s\n", strings.Join(t.lines, "\n"))
		os.Exit(1)
	}
	t.mu.Unlock()
	_, line, _ := strings.Cut(strings.TrimSpace(string(p)), " ") // its own time
	t.add("    Jira: %s", line)
	return len(p), nil
}

func (t *trace) add(format string, a ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf(format, a...))
}

// taken is what has come since it was asked last.
func (t *trace) taken() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	t.lines = nil
	return lines
}
