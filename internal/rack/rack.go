package rack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A Config says what rack to build. Name and Glue are needed.
type Config struct {
	Name  string // also names namespace (hostler-NAME) and run folder
	Nodes int    // 1 to 9; 0 means 2
	Dir   string // drives and logs; "" means /var/lib/hostler-rack/NAME. What an earlier run left there is removed.
	Ports Ports  // on the host's loopback; 0 means any free one
	Glue  string // the hostler-rack program, which ipmi_sim runs for power acts
	Log   *slog.Logger
}

// A Rack is a running virtual rack. Its methods may be used from any goroutine.
type Rack struct {
	Name  string
	Dir   string // drives, logs, the password file
	Ports Ports  // as opened
	Nodes []*Node

	log      *slog.Logger
	lock     *os.File
	ns       *namespace
	children *children
	closers  []func() error // undo steps, last first

	mu      sync.Mutex
	daemons []*Daemon
}

// Up builds a rack, all servers powered off. What a dead run of the same name
// left is removed first. An error leaves nothing behind.
func Up(ctx context.Context, c Config) (_ *Rack, err error) {
	if !nameOK.MatchString(c.Name) {
		return nil, badName(c.Name)
	}
	if c.Nodes == 0 {
		c.Nodes = 2
	}
	if c.Nodes < 1 || c.Nodes > maxNodes {
		return nil, fmt.Errorf("a rack of %d nodes: 1 to %d fit", c.Nodes, maxNodes)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Dir == "" {
		c.Dir = filepath.Join("/var/lib/hostler-rack", c.Name)
	}
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, fmt.Errorf("rack: %w", err)
	}
	if err := Preflight(); err != nil {
		return nil, err
	}
	r := &Rack{Name: c.Name, Dir: c.Dir, log: c.Log}
	if r.lock, err = lock(c.Name); err != nil {
		return nil, err
	}
	r.onDown(func() error { unlock(r.lock); return nil })
	defer func() {
		if err != nil {
			r.Down()
		}
	}()
	if err := sweep(c.Name); err != nil {
		return nil, err
	}
	return r, r.build(ctx, c)
}

func (r *Rack) onDown(f func() error) { r.closers = append(r.closers, f) }

// build makes everything in the order of need; Down undoes it in reverse.
func (r *Rack) build(ctx context.Context, c Config) error {
	doors, err := r.openDoors(c.Ports)
	if err != nil {
		return err
	}
	if err := r.makeFolders(); err != nil {
		return err
	}
	// The run file comes before what it lets a sweep find.
	me, err := identify("hostler-rack", os.Getpid())
	if err != nil {
		return fmt.Errorf("rack: %w", err)
	}
	record := runFile{Name: r.Name, Supervisor: me, Dir: r.Dir, Ports: r.Ports}
	if err := record.save(); err != nil {
		return err
	}
	if r.ns, err = newNamespace(netnsName(r.Name)); err != nil {
		return err
	}
	r.onDown(r.ns.close)
	for _, d := range doors {
		go r.ns.forward(d.listener, d.to)
	}
	r.children = &children{ns: r.ns, save: func(running []procID) error {
		now := record
		now.Children = running
		return now.save()
	}}
	r.onDown(func() error { r.children.kill(); return nil })

	var all []Facts
	for n := 1; n <= c.Nodes; n++ {
		all = append(all, facts(n, r.nodeDir(n)))
	}
	if err := r.ns.visit(func() error { return buildNetwork(all) }); err != nil {
		return err
	}
	for _, f := range all {
		n, err := newNode(f, r.nodeDir(f.Number), filepath.Join(runDir(r.Name), f.Name), r.children, r.log)
		if err != nil {
			return err
		}
		r.Nodes = append(r.Nodes, n)
		r.onDown(n.close)
	}
	if err := r.openControl(); err != nil {
		return err
	}
	return r.startBMCs(ctx, c.Glue)
}

func (r *Rack) nodeDir(number int) string {
	return filepath.Join(r.Dir, facts(number, "").Name)
}

// A door is a port of the host that leads into the namespace.
type door struct {
	listener net.Listener
	to       string
}

// openDoors takes the host's ports first: a port in use is the most common fault,
// and should cost nothing. Connections wait until the namespace is there.
func (r *Rack) openDoors(want Ports) ([]door, error) {
	var doors []door
	for _, d := range []struct {
		want int
		got  *int
		to   string
	}{{want.API, &r.Ports.API, insideAPI}, {want.Etcd, &r.Ports.Etcd, insideEtcd}} {
		l, port, err := openDoor(d.want)
		if err != nil {
			return nil, err
		}
		*d.got = port
		r.onDown(l.Close)
		doors = append(doors, door{l, d.to})
	}
	return doors, nil
}

// marker shows that a folder is a rack's, so that clearing it harms nobody.
const marker = ".hostler-rack"

// makeFolders makes the run folder and an empty work folder.
func (r *Rack) makeFolders() error {
	if err := os.MkdirAll(runDir(r.Name), 0o700); err != nil {
		return fmt.Errorf("rack: %w", err)
	}
	r.onDown(func() error { return os.RemoveAll(runDir(r.Name)) })
	old, err := os.ReadDir(r.Dir)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("rack: %w", err)
	}
	if _, err := os.Stat(filepath.Join(r.Dir, marker)); err != nil && len(old) > 0 {
		return fmt.Errorf("%s is not empty and not a rack's folder: choose another --dir", r.Dir)
	}
	for _, e := range old {
		if e.Name() == marker {
			continue // last to go, should this be cut short
		}
		if err := os.RemoveAll(filepath.Join(r.Dir, e.Name())); err != nil {
			return fmt.Errorf("rack: %w", err)
		}
	}
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return fmt.Errorf("rack: %w", err)
	}
	if err := os.WriteFile(filepath.Join(r.Dir, marker), nil, 0o600); err != nil {
		return fmt.Errorf("rack: %w", err)
	}
	r.onDown(func() error { return removeDrives(r.Dir) })
	return nil
}

func (r *Rack) openControl() error {
	l, err := net.Listen("unix", ControlSocket(r.Name))
	if err != nil {
		return fmt.Errorf("rack: control socket: %w", err)
	}
	if err := os.Chmod(ControlSocket(r.Name), 0o600); err != nil {
		return fmt.Errorf("rack: control socket: %w", err)
	}
	r.onDown(l.Close)
	go r.serveControl(l)
	return nil
}

// bmcPatience bounds the start of all controllers.
const bmcPatience = 15 * time.Second

func (r *Rack) startBMCs(ctx context.Context, program string) error {
	ctx, cancel := context.WithTimeout(ctx, bmcPatience)
	defer cancel()
	// ipmi_sim runs its glue through a shell: a link gives it a path without
	// anything that needs quoting.
	program, err := filepath.Abs(program)
	if err != nil {
		return fmt.Errorf("rack: %w", err)
	}
	link := filepath.Join(runDir(r.Name), "hostler-rack")
	if err := os.Symlink(program, link); err != nil {
		return fmt.Errorf("rack: %w", err)
	}
	password := newPassword()
	if err := os.WriteFile(r.BMCPasswordFile(), []byte(password), 0o600); err != nil {
		return fmt.Errorf("rack: %w", err)
	}
	for _, n := range r.Nodes {
		glue := fmt.Sprintf("%s glue --socket %s --node %s", link, ControlSocket(r.Name), n.Name)
		if err := n.startBMC(ctx, glue, password); err != nil {
			return err
		}
	}
	return nil
}

// BMCPasswordFile holds this run's password of BMCUser, without a newline, for
// ipmitool -f and for hostler bmc credential set.
func (r *Rack) BMCPasswordFile() string { return filepath.Join(r.Dir, "bmc.password") }

// Node finds a server by name, serial, MAC or UUID.
func (r *Rack) Node(word string) (*Node, error) {
	for _, n := range r.Nodes {
		if n.is(word) {
			return n, nil
		}
	}
	return nil, fmt.Errorf("rack %s has no node %q: say a name, serial, MAC or UUID (hostler-rack status)", r.Name, word)
}

// daemonGrace is what a daemon has to end by itself.
const daemonGrace = 10 * time.Second

// Down ends everything and removes it: daemons first, which may still have words
// for their servers; logs stay in Dir. It may be called again.
func (r *Rack) Down() error {
	r.mu.Lock()
	daemons := r.daemons
	r.daemons = nil
	r.mu.Unlock()
	for _, d := range daemons {
		d.Process().Stop(daemonGrace)
	}
	var errs []error
	for len(r.closers) > 0 {
		last := len(r.closers) - 1
		errs = append(errs, r.closers[last]())
		r.closers = r.closers[:last]
	}
	return errors.Join(errs...)
}

// Status is a rack at one moment.
type Status struct {
	Name  string       `json:"name"`
	Dir   string       `json:"dir"`
	Netns string       `json:"netns"`
	Ports Ports        `json:"ports"`
	Nodes []NodeStatus `json:"nodes"`
}

// NodeStatus is a server at one moment.
type NodeStatus struct {
	Facts
	Power    bool      `json:"power"`
	PowerOns int       `json:"power_ons"` // in this run
	Boot     Boot      `json:"boot"`
	Cable    PortState `json:"cable"`
	BMCAlive bool      `json:"bmc_alive"`
	Console  string    `json:"console"` // path of the log
}

// Status asks every server.
func (r *Rack) Status() (Status, error) {
	s := Status{Name: r.Name, Dir: r.Dir, Netns: netnsName(r.Name), Ports: r.Ports}
	for _, n := range r.Nodes {
		one, err := n.status()
		if err != nil {
			return s, err
		}
		s.Nodes = append(s.Nodes, one)
	}
	return s, nil
}
