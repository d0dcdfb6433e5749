// Package story walks nodes of the virtual rack through Hostler with the programs that users have: hostlerd inside the
// rack, hostler outside. It owns the site that the rack is (configuration, keys, image), the waiting, and two ways to
// tell it: Demo for a person at a terminal (make rack) and Test, where everything is asserted (make rack-test).
//
// It knows no rule of the domain: what happens is read from hostler -o json, from the machines' disks and consoles.
package story

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hostler-project/hostler/internal/rack"
)

// Options say where things are.
type Options struct {
	Rack   *rack.Rack
	Bin    string // folder of our programs
	Images string // folder that make images laid out
	Out    io.Writer
	Live   bool   // Out is a terminal: redraw instead of adding lines
	Stages string // file for the stages; "" writes none
}

// A Story is one run.
type Story struct {
	Options
	dir    string // site: configuration, keys, image, logs
	daemon *rack.Daemon
	cli    rack.CLI
	secret string // in the tenant's user data; must be found nowhere in clear
	stages rack.Stages
	seen   map[string]string // what was last printed of each node

	killAt      string // the state in which hostlerd is killed; "": never
	killed      bool
	reservation string // that won b
	tenant      *tenant

	mu sync.Mutex // Out
}

// New makes the site of a rack: a folder, a signing key, a packed image, a configuration.
func New(ctx context.Context, o Options) (*Story, error) {
	s := &Story{Options: o, dir: filepath.Join(o.Rack.Dir, "site"), seen: map[string]string{}}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	b := make([]byte, 12)
	rand.Read(b) // never fails (crypto/rand)
	s.secret = "secret-" + hex.EncodeToString(b)
	s.cli = rack.CLI{Program: filepath.Join(o.Bin, "hostler"), TokenFile: s.path("data/admin.token"), Ports: o.Rack.Ports}
	s.daemon = &rack.Daemon{Program: filepath.Join(o.Bin, "hostlerd"), Args: []string{"--config", s.path("site.yaml")}, Log: s.path("hostlerd.log")}
	for _, f := range []string{"service-os/vmlinuz", "service-os/initrd.cpio", "loaders", "tenant/disk.raw"} {
		if _, err := os.Stat(filepath.Join(o.Images, f)); err != nil {
			return nil, fmt.Errorf("no images in %s (%v): make images builds them", o.Images, err)
		}
	}
	if _, err := s.hostler(ctx, nil, "image", "key", "new", s.path("image.key")); err != nil {
		return nil, err
	}
	if err := s.writeConfig(); err != nil {
		return nil, err
	}
	return s, s.pack(ctx)
}

func (s *Story) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Story) writeConfig() error {
	pub, err := os.ReadFile(s.path("image.key.pub"))
	if err != nil {
		return err
	}
	lines := strings.Fields(string(pub))
	images, err := filepath.Abs(s.Images)
	if err != nil {
		return err
	}
	return os.WriteFile(s.path("site.yaml"), fmt.Appendf(nil, siteYAML, s.Rack.Name, s.path("data"), rack.Subnet, rack.ServerIP,
		lines[len(lines)-1], images, images, filepath.Join(s.Bin, "hostler-rack"), s.Rack.Name), 0o600)
}

// siteYAML is a real site's configuration; only the patience is a rack's.
const siteYAML = `# made by hostler-rack; hostlerd config check --config FILE says what is wrong with one
site: %s
data: %s
segments:
  - {name: boot, interface: br0, subnet: %s, address: %s, mode: enrol}
skus:
  - name: virtual
    min_cpus: 2
    min_memory_bytes: 900000000
    min_nics: 1
    media:
      - {slot: nvme0, kind: nvme, min_bytes: 2000000000, boot: true}
      - {slot: nvme1, kind: nvme, min_bytes: 200000000}
    burnin_profile: smoke
    verify_profile: smoke
    trust: network
    boot: 1m
  - name: virtual-by-reboot
    min_cpus: 2
    min_memory_bytes: 900000000
    media:
      - {slot: nvme0, kind: nvme, min_bytes: 2000000000, boot: true}
      - {slot: nvme1, kind: nvme, min_bytes: 200000000}
    burnin_profile: smoke
    verify_profile: smoke
    trust: network
    boot: 1m
    handoff: reboot
  - name: too-big
    min_cpus: 2
    min_memory_bytes: 64000000000
    media:
      - {slot: nvme0, kind: nvme, min_bytes: 2000000000, boot: true}
      - {slot: nvme1, kind: nvme, min_bytes: 200000000}
      - {slot: nvme2, kind: nvme, min_bytes: 200000000}
    burnin_profile: smoke
    verify_profile: smoke
    trust: network
images:
  trusted_keys: [%s]
boot:
  service_os: %s/service-os
  loaders: %s/loaders
fence:
  driver: exec
  program: [%s, --name, %s, fence]
patience:
  boot: 3m
`

// pack packs the sample tenant image offline, as its author would.
func (s *Story) pack(ctx context.Context) error {
	dir := filepath.Join(s.Images, "tenant")
	b, err := os.ReadFile(filepath.Join(dir, "image.json"))
	if err != nil {
		return err
	}
	var im struct {
		Name, Arch, OS, Kernel, Initrd, Cmdline string
		Boot                                    []string `json:"boot_modes"`
	}
	if err := json.Unmarshal(b, &im); err != nil {
		return fmt.Errorf("image.json: %v", err)
	}
	args := []string{"image", "pack", "--disk", filepath.Join(dir, "disk.raw"), "--out", s.path("image"), "--name", im.Name, "--arch", im.Arch,
		"--os", im.OS, "--boot", strings.Join(im.Boot, ","), "--kernel", filepath.Join(dir, im.Kernel), "--cmdline", im.Cmdline, "--key", s.path("image.key")}
	if im.Initrd != "" {
		args = append(args, "--initrd", filepath.Join(dir, im.Initrd))
	}
	defer s.stages.Time("pack image", "-", rack.BytesTime)()
	_, err = s.hostler(ctx, nil, args...)
	return err
}

// start starts hostlerd, first or again, and waits until it serves.
func (s *Story) start(ctx context.Context) error {
	defer s.stages.Time("start hostlerd", "-", rack.OursTime)()
	if err := s.Rack.StartDaemon(s.daemon); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	if err := s.Rack.WaitAPI(ctx, s.daemon); err != nil {
		return err
	}
	for {
		if _, err := s.hostler(ctx, nil, "node", "ls"); err == nil {
			return nil
		}
		select {
		case <-s.daemon.Process().Done():
			return fmt.Errorf("hostlerd ended at its start: see %s", s.daemon.Log)
		case <-ctx.Done():
			return fmt.Errorf("hostlerd does not serve after a minute: see %s", s.daemon.Log)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// hostler runs the command line and wants exit 0.
func (s *Story) hostler(ctx context.Context, stdin []byte, args ...string) (string, error) {
	o, err := s.cli.Run(ctx, stdin, args...)
	if err != nil {
		return "", err
	}
	if o.Code != 0 {
		return o.Stdout, fmt.Errorf("hostler %s: exit %d: %s", strings.Join(args, " "), o.Code, strings.TrimSpace(o.Stderr))
	}
	return o.Stdout, nil
}

// ask runs the command line with -o json and decodes its answer.
func (s *Story) ask(ctx context.Context, into any, args ...string) error {
	out, err := s.hostler(ctx, nil, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("hostler %s -o json: %v", strings.Join(args, " "), err)
	}
	return nil
}

// say prints a line of the story.
func (s *Story) say(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear := ""
	if s.Live {
		clear = "\x1b[J"
	}
	fmt.Fprintf(s.Out, "%s%s  %s\n", clear, time.Now().Format(time.TimeOnly), fmt.Sprintf(format, a...))
}

// A Row is one node of hostler node ls.
type Row struct {
	ID, Name, State, Why, Firmware, IP string
	Rentable                           bool
	Since                              time.Time
	MACs                               []string
	Live                               struct {
		Say      string
		Progress *struct {
			What        string
			Done, Total int64
			LeftS       float64 `json:"left_s"`
		}
	}
}

// nodes lists the nodes by the server of the rack that they are.
func (s *Story) nodes(ctx context.Context) (map[string]Row, error) {
	var list struct{ Nodes []Row }
	if err := s.ask(ctx, &list, "node", "ls"); err != nil {
		return nil, err
	}
	out := map[string]Row{}
	for _, r := range list.Nodes {
		for _, n := range s.Rack.Nodes {
			if len(r.MACs) > 0 && r.MACs[0] == n.MAC {
				out[n.Name] = r
			}
		}
	}
	return out, nil
}

// until waits until a server's node satisfies want, telling its way. A quarantine that is not wanted ends it with the
// reason.
func (s *Story) until(ctx context.Context, server string, limit time.Duration, what string, want func(Row) bool) error {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	var last error
	for {
		rows, err := s.nodes(ctx)
		if err == nil {
			s.show(rows)
			if err := s.maybeKill(ctx, rows); err != nil {
				return err
			}
			r := rows[server]
			if want(r) {
				return nil
			}
			if r.State == "quarantined" {
				return fmt.Errorf("%s was quarantined while waiting for it to be %s: %s", server, what, r.Why)
			}
		} else if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			why, _ := s.cli.Run(context.WithoutCancel(ctx), nil, "why", s.Rack.Nodes[0].MAC) // decoration of an error
			return errors.Join(fmt.Errorf("%s is not %s after %v: it is %s", server, what, limit, s.seen[server]), last, errors.New(why.Stdout))
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// state waits for a state; ready also wants the offer.
func (s *Story) state(ctx context.Context, server, state string, limit time.Duration) error {
	return s.until(ctx, server, limit, state, func(r Row) bool { return r.State == state && (state != "ready" || r.Rentable) })
}

// show prints what has changed of each node.
func (s *Story) show(rows map[string]Row) {
	for _, n := range s.Rack.Nodes {
		r, ok := rows[n.Name]
		if !ok {
			continue
		}
		key := r.State + ": " + r.Live.Say
		if i := strings.IndexAny(key, ",;("); i > 0 { // progress and counters change all the time: the live view shows them
			key = key[:i]
		}
		if s.seen[n.Name] == key {
			continue
		}
		s.seen[n.Name] = key
		s.say("  %s  %-12s %s", n.Name, r.State, r.Live.Say)
	}
}
