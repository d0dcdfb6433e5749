package provisioner

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/provisioner/dhcp"
	"github.com/hostler-project/hostler/provisioner/httpboot"
)

// What a machine boots in each state, by the phase of its session: s service OS, w wait, r refuse, d disk (no boot file).
func TestBootTable(t *testing.T) {
	sessions := []string{"", inventory.SessionArmed, inventory.SessionRedeemed, inventory.SessionBurnt, inventory.SessionClosed}
	letter := map[httpboot.Kind]byte{httpboot.Service: 's', httpboot.Wait: 'w', httpboot.Refuse: 'r', httpboot.Disk: 'd'}
	want := map[inventory.State]string{ // none, armed, redeemed, burnt, closed
		inventory.Discovered:   "ddddd",
		inventory.Inspecting:   "wswrw",
		inventory.Firmware:     "ddddd",
		inventory.Sanitizing:   "wswrw",
		inventory.BurnIn:       "wswrw",
		inventory.Verifying:    "wswrw",
		inventory.Ready:        "dswrd",
		inventory.Reserved:     "wswrw",
		inventory.Provisioning: "wswrw",
		inventory.InUse:        "ddddd",
		inventory.Servicing:    "ddddd",
		inventory.Draining:     "ddddd",
		inventory.Fencing:      "wswrw",
		inventory.Quarantined:  "dswrd",
		inventory.Repair:       "ddddd",
		inventory.Maintenance:  "ddddd",
		inventory.Retiring:     "ddddd",
		inventory.Retired:      "ddddd",
		"orbiting":             "ddddd",
	}
	if len(want) != len(lifecycle.States)+1 {
		t.Errorf("%d rows for %d states", len(want), len(lifecycle.States))
	}
	for state, row := range want {
		got := ""
		for _, phase := range sessions {
			v := inventory.NodeView{State: exists(inventory.NodeState{State: state, Generation: 2, Work: inventory.Work{Phase: phaseBoot}})}
			if phase != "" {
				v.Session = exists(inventory.Session{Phase: phase, Generation: 2})
			}
			got += string(letter[bootFor(v).Kind])
		}
		if got != row {
			t.Errorf("%s: got %s, want %s", state, got, row)
		}
	}

	armed := inventory.NodeView{State: exists(inventory.NodeState{State: inventory.Fencing, Generation: 2, Work: inventory.Work{Phase: phaseBoot}}),
		Session: exists(inventory.Session{Phase: inventory.SessionArmed, Generation: 2})}
	for name, c := range map[string]struct {
		edit func(*inventory.NodeView)
		want httpboot.Kind
	}{
		"armed":                               {func(*inventory.NodeView) {}, httpboot.Service},
		"just switched on":                    {func(v *inventory.NodeView) { v.State.V.Work.Phase = phaseOn }, httpboot.Service},
		"not switched off yet":                {func(v *inventory.NodeView) { v.State.V.Work.Phase = phaseOff }, httpboot.Wait},
		"the tenant's system may still run":   {func(v *inventory.NodeView) { v.State.V.Work.Phase = "isolate" }, httpboot.Wait},
		"off, boot device not set":            {func(v *inventory.NodeView) { v.State.V.Work.Phase = "boot-device" }, httpboot.Wait},
		"session of another generation":       {func(v *inventory.NodeView) { v.Session.V.Generation = 1 }, httpboot.Wait},
		"a record that cannot be read":        {func(v *inventory.NodeView) { v.Broken = errors.New("newer") }, httpboot.Disk},
		"on its way into the tenant's system": {func(v *inventory.NodeView) { v.State.V.Work.Phase = "enter" }, httpboot.Disk},
	} {
		v := armed
		c.edit(&v)
		if got := bootFor(v).Kind; got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// directory is a world's directory, on two segments.
func (w *world) directory() *Directory {
	dir := w.t.TempDir()
	for _, name := range []string{"vmlinuz", "initrd.cpio", "snponly.efi"} {
		w.must(os.WriteFile(filepath.Join(dir, name), []byte("bytes of "+name), 0o600))
	}
	return &Directory{Copy: w.copy, Ledger: w.led, Loop: w.loop, Now: w.clock, Log: slog.New(slog.DiscardHandler),
		Segments: []dhcp.Segment{
			{Name: "s", Subnet: netip.MustParsePrefix("10.0.0.0/24"), Address: netip.MustParseAddr("10.0.0.1"), Mode: dhcp.Authoritative},
			{Name: "new", Subnet: netip.MustParsePrefix("10.0.1.0/29"), Address: netip.MustParseAddr("10.0.1.4"), Mode: dhcp.Enrol},
		},
		Service: ServiceOS{Name: "service-1", Kernel: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd.cpio"), Args: []httpboot.Arg{{Key: "quiet"}}},
		Loaders: map[string]string{"snponly.efi": filepath.Join(dir, "snponly.efi")}, Pin: "sha256:00", CA: []byte("PEM"),
		Token: func(s, n string) string { return "token of " + s + n }, Path: func(string) string { return strings.Repeat("a", 32) },
		Agent: func(string) string { return "https://10.0.0.1:8443" }}
}

var (
	macA = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
	macX = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0x99}
	ipA  = netip.MustParseAddr("10.0.0.2")
)

func discover(segment string, mac net.HardwareAddr) dhcp.Query {
	return dhcp.Query{Segment: segment, Type: dhcp.Discover, MAC: mac, PXE: true, Arch: 7, UUID: "11111111-2222-3333-4444-555555555555"}
}

// A machine that nobody knows gets an address and no boot file where people said that new ones may come, and is written
// down before it hears of the address. Elsewhere: silence.
func TestStrangers(t *testing.T) {
	w := newWorld(t)
	d := w.directory()
	rev := w.store.Rev()
	for name, q := range map[string]dhcp.Query{
		"on an authoritative segment": discover("s", macX),
		"on no segment":               discover("nowhere", macX),
		"a request before an offer":   {Segment: "new", Type: dhcp.Request, MAC: macX},
	} {
		if a := d.Answer(t.Context(), q); d.Knows(q) || a.Known || a.Boot || a.IP.IsValid() {
			t.Errorf("%s: answered %+v", name, a)
		}
	}
	if w.store.Rev() != rev {
		t.Error("strangers were written down")
	}

	q := discover("new", macX)
	a := d.Answer(t.Context(), q)
	if !a.Known || a.Boot || !d.Segments[1].Subnet.Contains(a.IP) || a.IP == d.Segments[1].Address {
		t.Errorf("offered %+v", a)
	}
	w.sync()
	id := d.node(macX)
	v := inventory.View(w.copy, id)
	if sp := v.Spec.V; v.State.V.State != inventory.Discovered || sp.IP != a.IP.String() || sp.UUID != q.UUID || sp.Firmware != "uefi" || sp.Source != "dhcp" || sp.Segment != "new" {
		t.Errorf("written down as %+v", sp)
	}
	q.Type = dhcp.Request
	if again := d.Answer(t.Context(), q); !d.Knows(q) || again.IP != a.IP || again.Boot {
		t.Errorf("asked again: %+v", again)
	}

	// A segment of 3 addresses in its upper half, one of them ours, has room for two machines.
	other := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0x98}
	q2 := discover("new", other)
	if got := d.Answer(t.Context(), q2); got.Known {
		t.Errorf("a second machine with the same UUID was enrolled: %+v", got)
	}
	q2.UUID = ""
	b := d.Answer(t.Context(), q2)
	w.sync()
	if !b.Known || b.IP == a.IP {
		t.Errorf("second machine: %+v, the first has %v", b, a.IP)
	}
	q3 := discover("new", net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0x97})
	q3.UUID = ""
	if got := d.Answer(t.Context(), q3); got.Known {
		t.Errorf("no address is left, but got %+v", got)
	}
}

func TestKnownMachinesGetTheirAddress(t *testing.T) {
	w := newWorld(t)
	d := w.directory()
	for _, c := range []struct {
		name string
		edit func(*inventory.Spec, *inventory.NodeState)
		seg  string
		want dhcp.Answer
	}{
		{"discovered: address, no boot file", func(*inventory.Spec, *inventory.NodeState) {}, "s", dhcp.Answer{Known: true, IP: ipA}},
		{"inspecting", func(_ *inventory.Spec, st *inventory.NodeState) { st.State = inventory.Inspecting }, "s", dhcp.Answer{Known: true, IP: ipA, Boot: true}},
		{"in use: no boot file", func(_ *inventory.Spec, st *inventory.NodeState) { st.State = inventory.InUse }, "s", dhcp.Answer{Known: true, IP: ipA}},
		{"retired: silence", func(_ *inventory.Spec, st *inventory.NodeState) { st.State = inventory.Retired }, "s", dhcp.Answer{}},
		{"on another segment: silence", func(*inventory.Spec, *inventory.NodeState) {}, "new", dhcp.Answer{}},
		{"without an address: silence", func(sp *inventory.Spec, _ *inventory.NodeState) { sp.IP = "" }, "s", dhcp.Answer{}},
	} {
		v := w.view()
		sp, st := v.Spec.V, v.State.V
		c.edit(&sp, &st)
		w.put(inventory.KeySpec(w.id), sp)
		w.put(inventory.KeyState(w.id), st)
		w.sync()
		rev := w.store.Rev()
		got := d.Answer(t.Context(), discover(c.seg, macA))
		if got.Known != c.want.Known || got.IP != c.want.IP || got.Boot != c.want.Boot {
			t.Errorf("%s: got %+v", c.name, got)
		}
		if w.store.Rev() != rev {
			t.Errorf("%s: an answer to a known machine wrote", c.name)
		}
		w.put(inventory.KeySpec(w.id), v.Spec.V)
		w.put(inventory.KeyState(w.id), v.State.V)
		w.sync()
	}
}

// The token of a boot reaches one address, only while it is armed and its machine was switched off for it.
func TestSessionFiles(t *testing.T) {
	w := newWorld(t)
	w.dead = true
	w.turns(200, "booting", func() bool { return w.view().State.V.Work.Phase == phaseBoot })
	d := w.directory()
	name := "session/" + strings.Repeat("a", 32) + "/session.cpio"
	f, ok := d.Open(name, ipA)
	if !ok {
		t.Fatal("the machine does not get its session's initrd")
	}
	b, err := io.ReadAll(f.Content)
	w.must(err)
	if len(b)%4 != 0 {
		t.Errorf("%d bytes: Linux would not find the next archive", len(b))
	}
	text, s := "", w.view().Session.V
	for r := cpio.NewReader(strings.NewReader(string(b))); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		w.must(err)
		if h.Name == "hostler/session.json" {
			all, err := io.ReadAll(r)
			w.must(err)
			text = string(all)
		}
	}
	for _, word := range []string{`"session":"` + s.ID + `"`, `"node":"` + w.id + `"`, `"token":"token of ` + s.ID + s.Nonce + `"`, `"server":"https://10.0.0.1:8443"`, `"ca_pem":"PEM"`} {
		if !strings.Contains(text, word) {
			t.Errorf("session.json has no %s: %s", word, text)
		}
	}

	refused := func(why, name string, client netip.Addr) {
		t.Helper()
		if _, ok := d.Open(name, client); ok {
			t.Errorf("%s: given", why)
		}
	}
	refused("another machine", name, netip.MustParseAddr("10.0.0.3"))
	refused("another path", "session/"+strings.Repeat("b", 32)+"/session.cpio", ipA)
	for why, edit := range map[string]func(*inventory.Session, *inventory.NodeState){
		"redeemed":                func(s *inventory.Session, _ *inventory.NodeState) { s.Phase = inventory.SessionRedeemed },
		"burnt":                   func(s *inventory.Session, _ *inventory.NodeState) { s.Phase = inventory.SessionBurnt },
		"closed":                  func(s *inventory.Session, _ *inventory.NodeState) { s.Phase = inventory.SessionClosed },
		"expired":                 func(s *inventory.Session, _ *inventory.NodeState) { s.Expires = w.now.Add(-time.Second) },
		"generation rose":         func(_ *inventory.Session, st *inventory.NodeState) { st.Generation++ },
		"in use":                  func(_ *inventory.Session, st *inventory.NodeState) { st.State = inventory.InUse },
		"not switched off for it": func(_ *inventory.Session, st *inventory.NodeState) { st.Work.Phase = phaseOff },
		"cut off, not off for now": func(_ *inventory.Session, st *inventory.NodeState) {
			st.State, st.Work.Phase = inventory.Fencing, "fenced-off"
		},
	} {
		v := w.view()
		s, st := v.Session.V, v.State.V
		edit(&s, &st)
		w.put(inventory.KeySession(w.id), s)
		w.put(inventory.KeyState(w.id), st)
		w.sync()
		refused(why, name, ipA)
		w.put(inventory.KeySession(w.id), v.Session.V)
		w.put(inventory.KeyState(w.id), v.State.V)
		w.sync()
	}
	for _, open := range []string{"boot/service-1/vmlinuz", "boot/service-1/initrd.cpio", "loader/snponly.efi"} {
		if f, ok := d.Open(open, netip.MustParseAddr("192.0.2.77")); !ok {
			t.Errorf("%s is for everybody", open)
		} else {
			w.must(f.Content.Close())
		}
	}
	for _, no := range []string{"boot/service-0/vmlinuz", "loader/../vmlinuz", "loader/", "", "/etc/passwd"} {
		refused("no such file", no, ipA)
	}
}

// A preview shows what a boot would get, and changes nothing; a real request is noted.
func TestPlanAndPreview(t *testing.T) {
	w := newWorld(t)
	d := w.directory()
	w.dead = true
	w.turns(200, "booting", func() bool { return w.view().State.V.Work.Phase == phaseBoot })
	rev, asked := w.store.Rev(), w.loop.node(w.id).seen.AskedBoot
	text, err := d.Preview(w.id)
	w.must(err)
	for _, word := range []string{"#!ipxe", "boot/service-1/vmlinuz", "session/" + strings.Repeat("a", 32) + "/session.cpio", "hostler.ca=sha256:00", "hostler.mac=52:54:00:00:00:01", "quiet"} {
		if !strings.Contains(text, word) {
			t.Errorf("no %q in\n%s", word, text)
		}
	}
	if strings.Contains(text, "token") {
		t.Errorf("a token in the script:\n%s", text)
	}
	if w.store.Rev() != rev || w.loop.node(w.id).seen.AskedBoot != asked {
		t.Error("the preview changed something")
	}

	p, err := d.Plan(t.Context(), httpboot.Client{IP: ipA})
	if err != nil || p.Kind != httpboot.Service || w.loop.node(w.id).seen.AskedBoot != w.now {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := d.Plan(t.Context(), httpboot.Client{IP: netip.MustParseAddr("10.0.0.77")}); !errors.Is(err, httpboot.ErrUnknown) {
		t.Errorf("a stranger: %v", err)
	}
	for name, edit := range map[string]func(*inventory.Spec){
		"no MAC":              func(s *inventory.Spec) { s.MACs = nil },
		"segment is gone":     func(s *inventory.Spec) { s.Segment = "old" },
		"address on no wire":  func(s *inventory.Spec) { s.Segment, s.IP = "", "192.0.2.5" },
		"no address, no wire": func(s *inventory.Spec) { s.Segment, s.IP = "", "" },
	} {
		v := w.view()
		sp := v.Spec.V
		sp.MACs = slices.Clone(sp.MACs)
		edit(&sp)
		v.Spec.V = sp
		if _, err := d.plan(v); err == nil || !strings.Contains(err.Error(), "node a") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Image bytes are for the machine that is being provisioned with that image.
func TestMayRead(t *testing.T) {
	w := newWorld(t)
	d := w.directory()
	w.until(inventory.Ready)
	w.rent("r")
	w.sync()
	if !d.MayRead(ipA, "img") || d.MayRead(ipA, "other") || d.MayRead(netip.MustParseAddr("10.0.0.9"), "img") {
		t.Error("provisioning")
	}
	w.until(inventory.InUse)
	if d.MayRead(ipA, "img") {
		t.Error("in use: the tenant may not read it any more")
	}
	if v, ok := d.At("10.0.0.2"); !ok || v.ID != w.id {
		t.Error("the metadata service does not find it")
	}
	if _, ok := d.At("no address"); ok {
		t.Error("found at no address")
	}
}
