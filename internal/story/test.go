package story

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hostler-project/hostler/internal/rack"
)

// A chapter is one part of the asserted story.
type chapter struct {
	title string
	tell  func(*Story, context.Context) error
}

// chapters, in order; each goes on from the one before.
var chapters = []chapter{
	{"hostlerd starts with nothing; a machine that nobody knows is listed and gets no boot file", (*Story).stranger},
	{"a manifest row, dry run first; hostlerd switches b on through its BMC; b lacks what its SKU calls for", (*Story).mismatch},
	{"approved and returned, both machines boot, are inspected, erased, tested and ready", (*Story).bothReady},
	{"the certificate holds offline, and not when changed", (*Story).certificate},
	{"the offer is in etcd and in the event stream", (*Story).offer},
	{"no token, no knowledge; traversal, no file; an unsigned image, no image", (*Story).badInput},
	{"50 claims at once for one node: one gets it", (*Story).claims},
	{"the image is written, read back, entered by kexec; the tenant's data has run", (*Story).rented},
	{"a reboot from inside comes up from disk, without us", (*Story).tenantReboots},
	{"released: fenced, power-cycled, erased, tested, ready; what the tenant wrote is gone from the disk files", (*Story).returned},
	{"the UEFI machine is rented and returned too", (*Story).uefiRented},
	{"history has no gap, and no secret is anywhere in clear", (*Story).audit},
}

// Test tells the whole story, asserted. The error says which chapter failed and why.
func (s *Story) Test(ctx context.Context) error {
	s.killAt = killable[rand.IntN(len(killable))]
	if k := os.Getenv("STORY_KILL"); k != "" {
		s.killAt = k
	}
	s.say("hostlerd will be killed (SIGKILL) in the middle of %s; STORY_KILL=%s repeats that", s.killAt, s.killAt)
	for i, c := range chapters {
		s.say("%d. %s", i+1, c.title)
		if err := c.tell(s, ctx); err != nil {
			return fmt.Errorf("chapter %d, %s:\n%w", i+1, c.title, err)
		}
	}
	if !s.killed {
		return fmt.Errorf("hostlerd was never killed: no node was seen in %s", s.killAt)
	}
	if err := s.measure(ctx); err != nil {
		return err
	}
	if s.Stages != "" {
		if err := s.stages.WriteFile(s.Stages); err != nil {
			return err
		}
	}
	return s.stages.Table(s.Out)
}

// killable are the states in which a run may kill hostlerd.
var killable = []string{"inspecting", "sanitizing", "provisioning", "fencing"}

// maybeKill kills hostlerd once, in the middle of the chosen state, and starts it again.
func (s *Story) maybeKill(ctx context.Context, rows map[string]Row) error {
	if s.killed || s.killAt == "" {
		return nil
	}
	for name, r := range rows {
		if r.State != s.killAt {
			continue
		}
		s.killed = true
		s.say("  kill -9 of hostlerd while %s is %s (%s)", name, r.State, r.Live.Say)
		s.daemon.Process().Kill()
		<-s.daemon.Process().Done()
		time.Sleep(time.Second)
		return s.start(ctx)
	}
	return nil
}

func (s *Story) stranger(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	password, err := os.ReadFile(s.Rack.BMCPasswordFile())
	if err != nil {
		return err
	}
	if _, err := s.hostler(ctx, password, "bmc", "credential", "set", "rack", "--user", rack.BMCUser); err != nil {
		return err
	}
	a, err := s.Rack.Node("a")
	if err != nil {
		return err
	}
	if err := a.Button(); err != nil {
		return err
	}
	defer s.stages.Time("unknown machine seen", "a", rack.FirmwareTime)()
	if err := s.state(ctx, "a", "discovered", 2*time.Minute); err != nil {
		return err
	}
	rows, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	if r := rows["a"]; r.Firmware != "uefi" || !strings.Contains(strings.ToLower(r.Why), strings.ToLower(a.UUID)) {
		return fmt.Errorf("a was listed as %q firmware with %q; want uefi and UUID %s", r.Firmware, r.Why, a.UUID)
	}
	tftp, http, err := s.served(ctx)
	if err != nil {
		return err
	}
	if tftp != 0 || http != 0 {
		return fmt.Errorf("an unknown machine was served: %v files by TFTP, %v by HTTP", tftp, http)
	}
	return nil
}

const manifestHead = "name,serial,sku,rack,slot,mac,ip,bmc_addr,bmc_protocol,credential,approve\n"

func (s *Story) manifest(ctx context.Context, sku string, more ...string) (string, error) {
	b, err := s.Rack.Node("b")
	if err != nil {
		return "", err
	}
	text := manifestHead + fmt.Sprintf("b,%s,%s,r1,2,%s,%s,%s,ipmi,rack,auto\n", b.Serial, sku, b.MAC, b.IP, b.BMC)
	if err := os.WriteFile(s.path("manifest.csv"), []byte(text), 0o600); err != nil {
		return "", err
	}
	return s.hostler(ctx, nil, append([]string{"manifest", "import", s.path("manifest.csv")}, more...)...)
}

func (s *Story) mismatch(ctx context.Context) error {
	out, err := s.manifest(ctx, "too-big", "--dry-run")
	if err != nil {
		return err
	}
	if rows, err := s.nodes(ctx); err != nil || rows["b"].ID != "" || !strings.Contains(out, "1 add") {
		return fmt.Errorf("a dry run said %q and left %+v (%v)", out, rows["b"], err)
	}
	if _, err := s.manifest(ctx, "too-big"); err != nil {
		return err
	}
	b, err := s.Rack.Node("b")
	if err != nil {
		return err
	}
	if err := s.until(ctx, "b", 4*time.Minute, "quarantined", func(r Row) bool { return r.State == "quarantined" }); err != nil {
		return err
	}
	if !b.Power() {
		return errors.New("b was never switched on")
	}
	rows, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	for _, want := range []string{"nvme2", "memory", "expected", "found"} {
		if !strings.Contains(rows["b"].Why, want) {
			return fmt.Errorf("b was quarantined with %q; want it to name %s", rows["b"].Why, want)
		}
	}
	return nil
}

func (s *Story) bothReady(ctx context.Context) error {
	if _, err := s.manifest(ctx, "virtual"); err != nil {
		return err
	}
	if _, err := s.hostler(ctx, nil, "node", "return", "b", "--reason", "the SKU was wrong", "--yes"); err != nil {
		return err
	}
	if err := s.approveA(ctx); err != nil {
		return err
	}
	for _, n := range []string{"b", "a"} {
		if err := s.state(ctx, n, "ready", 8*time.Minute); err != nil {
			return err
		}
	}
	// Both ways were just used: counters that stand at zero now would prove nothing elsewhere.
	if tftp, http, err := s.served(ctx); err != nil || tftp == 0 || http == 0 {
		return fmt.Errorf("two machines booted, and %v files by TFTP, %v by HTTP were counted (%v)", tftp, http, err)
	}
	return nil
}

func (s *Story) approveA(ctx context.Context) error {
	a, err := s.Rack.Node("a")
	if err != nil {
		return err
	}
	_, err = s.hostler(ctx, nil, "node", "approve", a.MAC, "--name", "a", "--sku", "virtual", "--bmc", a.BMC.String(), "--credential", "rack")
	return err
}

func (s *Story) certificate(ctx context.Context) error {
	pub, err := s.hostler(ctx, nil, "cert", "key")
	if err != nil {
		return err
	}
	cert, err := s.hostler(ctx, nil, "cert", "show", "b", "-o", "json")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"site.pub": pub, "b.cert": cert} {
		if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	out, err := s.hostler(ctx, nil, "cert", "verify", s.path("b.cert"), "--key", s.path("site.pub"))
	if err != nil {
		return err
	}
	for _, d := range s.Rack.Nodes[1].Drives {
		if !strings.Contains(out, d.Serial) {
			return fmt.Errorf("the certificate does not name drive %s:\n%s", d.Serial, out)
		}
	}
	var c map[string]any
	if err := json.Unmarshal([]byte(cert), &c); err != nil {
		return err
	}
	body, _ := c["body"].(string)
	if len(body) < 100 {
		return fmt.Errorf("the certificate has no body: %s", cert)
	}
	c["body"] = body[:60] + string(body[60]^1) + body[61:]
	changed, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("changed.cert"), changed, 0o600); err != nil {
		return err
	}
	if o, err := s.cli.Run(ctx, nil, "cert", "verify", s.path("changed.cert"), "--key", s.path("site.pub")); err != nil || o.Code == 0 {
		return fmt.Errorf("a changed certificate: exit %d, %v: %s", o.Code, err, o.Stdout)
	}
	return nil
}

func (s *Story) offer(ctx context.Context) error {
	out, err := s.etcdctl(ctx, "get", "--prefix", "--keys-only", "/hostler/v1/avail/")
	if err != nil {
		return err
	}
	if n := strings.Count(out, "/hostler/v1/avail/n-"); n != 2 {
		return fmt.Errorf("etcd has %d offers, want 2:\n%s", n, out)
	}
	text, err := s.watch(ctx, 2*time.Second)
	if err != nil {
		return err
	}
	if strings.Count(text, `"rentable":true`) != 2 || strings.Contains(text, "192.168.78.") {
		return fmt.Errorf("the event stream does not show two offers without their BMCs:\n%s", text)
	}
	return nil
}

// claimTry is one of many clients.
type claimTry struct {
	reservation string
	out         rack.Output
	err         error
}

func (s *Story) claims(ctx context.Context) error {
	const clients = 50
	tries := make([]claimTry, clients)
	var wg sync.WaitGroup
	for i := range tries {
		tries[i].reservation = fmt.Sprintf("race-%02d", i)
		wg.Go(func() {
			tries[i].out, tries[i].err = s.cli.Run(ctx, nil, "claim", "create", "--sku", "virtual", "--node", "b", "--reservation", tries[i].reservation)
		})
	}
	wg.Wait()
	codes := map[int]int{}
	for _, c := range tries {
		if c.err != nil {
			return c.err
		}
		codes[c.out.Code]++
		if c.out.Code == 0 {
			s.reservation = c.reservation
		} else if !strings.Contains(c.out.Stderr, "b") || len(c.out.Stderr) < 20 {
			return fmt.Errorf("a loser was not told why: %q", c.out.Stderr)
		}
	}
	if codes[0] != 1 || codes[3] != clients-1 {
		return fmt.Errorf("exit codes %v; want one 0 and %d times 3; one of the others: %q", codes, clients-1, tries[0].out.Stderr)
	}
	s.say("  %d claims: 1 exit 0, %d exit 3 (%s)", clients, clients-1, strings.TrimSpace(firstLoser(tries)))
	return nil
}

func firstLoser(tries []claimTry) string {
	i := slices.IndexFunc(tries, func(c claimTry) bool { return c.out.Code == 3 })
	text, _, _ := strings.Cut(tries[i].out.Stderr, "\n")
	return text
}

func (s *Story) importImage(ctx context.Context) error {
	defer s.stages.Time("import image", "-", rack.BytesTime)()
	_, err := s.hostler(ctx, nil, "image", "import", s.path("image"))
	return err
}

// userData proves that it ran, and carries the run's secret.
func (s *Story) userData() []byte {
	return fmt.Appendf(nil, "#!/bin/sh\n# %s\necho \"ran on $(hostname)\" > /root/user-data-ran\n", s.secret)
}

func (s *Story) rented(ctx context.Context) error {
	if err := s.importImage(ctx); err != nil {
		return err
	}
	var err error
	if s.tenant, err = s.newTenant(); err != nil {
		return err
	}
	if err := os.WriteFile(s.path("user-data"), s.userData(), 0o600); err != nil {
		return err
	}
	defer s.stages.Time("confirm to tenant ready", "b", rack.OursTime)()
	if _, err := s.hostler(ctx, nil, "claim", "confirm", s.reservation, "--image", "debian-12", "--hostname", "tenant-b",
		"--user-data", s.path("user-data"), "--ssh-key", s.path("tenant.pub")); err != nil {
		return err
	}
	return s.inHand(ctx, "b", "tenant-b")
}

// inHand waits until a server is its tenant's, and looks at it from inside.
func (s *Story) inHand(ctx context.Context, server, hostname string) error {
	if err := s.until(ctx, server, 6*time.Minute, "in use and answering", func(r Row) bool {
		return r.State == "in-use" && r.Live.Say == "in use by site"
	}); err != nil {
		return err
	}
	rows, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	s.tenant.addr = rows[server].IP
	if _, err := s.tenant.eventually(ctx, 2*time.Minute, "cat /root/user-data-ran", func(out string) bool {
		return strings.TrimSpace(out) == "ran on "+hostname
	}); err != nil {
		return err
	}
	n, err := s.Rack.Node(server)
	if err != nil {
		return err
	}
	if p, err := n.Port(); err != nil || p.Port != rack.Tenant || p.Instance == "" {
		return fmt.Errorf("%s is in use, but its cable is %+v (%v)", server, p, err)
	}
	return nil
}

// reboot has the tenant reboot its system, and wants it back from disk with nothing served by us.
func (s *Story) reboot(ctx context.Context, server string) error {
	boot, err := s.tenant.run(ctx, "cat /proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	tftp, http, err := s.served(ctx)
	if err != nil {
		return err
	}
	defer s.stages.Time("tenant's own reboot from disk", server, rack.FirmwareTime)()
	_, err = s.tenant.run(ctx, "systemctl reboot")
	if err != nil && !strings.Contains(err.Error(), "without exit") && !errors.Is(err, context.DeadlineExceeded) {
		s.say("  (the connection ended with: %v)", err)
	}
	if _, err := s.tenant.eventually(ctx, 5*time.Minute, "cat /proc/sys/kernel/random/boot_id", func(out string) bool { return out != "" && out != boot }); err != nil {
		return err
	}
	tftp2, http2, err := s.served(ctx)
	if err != nil {
		return err
	}
	if tftp2 != tftp || http2 != http {
		return fmt.Errorf("the tenant's reboot was served by us: %v files by TFTP, %v by HTTP", tftp2-tftp, http2-http)
	}
	return nil
}

func (s *Story) tenantReboots(ctx context.Context) error { return s.reboot(ctx, "b") }

// pattern is what the tenant leaves on both drives.
var pattern = []byte("TENANT-DATA-THAT-MUST-NOT-SURVIVE")

// plant has the tenant write the pattern to both drives, and sees it in the disk files from outside.
func (s *Story) plant(ctx context.Context, server string) error {
	p := string(pattern)
	if _, err := s.tenant.run(ctx, "yes "+p+" | head -c 8000000 > /root/data && sync && yes "+p+" | dd of=/dev/$(lsblk -dnbo NAME,SIZE | awk '$2 < 300000000 {print $1}') bs=1M count=8 iflag=fullblock conv=fsync 2>/dev/null && sync"); err != nil {
		return err
	}
	n, err := s.Rack.Node(server)
	if err != nil {
		return err
	}
	found, err := n.DiskContains(pattern)
	if err != nil {
		return err
	}
	if len(found) != len(n.Drives) {
		return fmt.Errorf("the tenant's pattern is on drives %v from outside, want all of %d", found, len(n.Drives))
	}
	return nil
}

// giveBack releases a server and wants it clean and ready.
func (s *Story) giveBack(ctx context.Context, server, reservation string) error {
	if err := s.plant(ctx, server); err != nil {
		return err
	}
	n, err := s.Rack.Node(server)
	if err != nil {
		return err
	}
	defer s.stages.Time("release to ready", server, rack.OursTime)()
	if _, err := s.hostler(ctx, nil, "claim", "release", reservation); err != nil {
		return err
	}
	if err := s.until(ctx, server, time.Minute, "leaving its tenant", func(r Row) bool { return r.State != "in-use" && r.State != "ready" }); err != nil {
		return err
	}
	if err := s.state(ctx, server, "ready", 8*time.Minute); err != nil {
		return err
	}
	found, err := n.DiskContains(pattern)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("the tenant's pattern is still on drives %v", found)
	}
	if p, err := n.Port(); err != nil || p.Port != rack.Provisioning {
		return fmt.Errorf("%s is ready, but its cable is %+v (%v)", server, p, err)
	}
	return nil
}

func (s *Story) returned(ctx context.Context) error { return s.giveBack(ctx, "b", s.reservation) }

func (s *Story) uefiRented(ctx context.Context) error {
	if _, err := s.hostler(ctx, nil, "claim", "create", "--sku", "virtual", "--node", "a", "--reservation", "uefi-1", "--image", "debian-12",
		"--hostname", "tenant-a", "--user-data", s.path("user-data"), "--ssh-key", s.path("tenant.pub")); err != nil {
		return err
	}
	if err := s.inHand(ctx, "a", "tenant-a"); err != nil {
		return err
	}
	if err := s.reboot(ctx, "a"); err != nil {
		return err
	}
	return s.giveBack(ctx, "a", "uefi-1")
}

// has reports which of the files hold a text.
func has(files []string, text []byte) []string {
	var out []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, text) {
			out = append(out, f)
		}
	}
	return out
}
