package provisioner

import (
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/hostler-project/hostler/internal/frugal"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// FuzzObserve reads what a site's fence program printed. A port is where it should be only if the program says so in
// one place and nothing else: where the standard library, which takes the last of two, would read the same.
func FuzzObserve(f *testing.F) {
	for _, out := range []string{
		`{"port":"isolated"}`, `{"port":"provisioning","instance":""}`, `{"port":"tenant","instance":"i-1"}` + "\n", `{"vlan":[1,{"port":"tenant"}],"port":"isolated"}`,
		`{"port":"tenant","port":"isolated"}`, `{"por\u0074":"isolated","port":"tenant","instance":"x"}`, `{"port":"isolated"}{"port":"tenant","instance":"i-1"}`, `{"Port":"isolated"}`,
		`{"port":null}`, `{"port":"isolated","instance":"i-1"}`, `{"port":["isolated"]}`, `isolated`, "", `{`, `{"port":"isolated"`, `{"port":"isolated",}`, strings.Repeat(`{"port":`, 5000),
	} {
		f.Add([]byte(out))
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		var is place
		var err error
		size := uint64(len(out))
		frugal.Check(t, time.Millisecond+time.Duration(size)*time.Microsecond, 64<<10+64*size, func() { is, err = observed(out) })
		if err != nil {
			if is != (place{}) || len(err.Error()) > 1000 {
				t.Fatalf("%+v with an error of %d bytes", is, len(err.Error()))
			}
			return
		}
		switch {
		case is == place{Port: "isolated"}, is == place{Port: "provisioning"}, is.Port == "tenant" && is.Instance != "":
		default:
			t.Fatalf("%+v is no place", is)
		}
		var other map[string]any
		if err := json.Unmarshal(out, &other); err != nil || other["port"] != is.Port || is.Instance != "" && other["instance"] != is.Instance {
			t.Fatalf("%+v of %s, which reads %v, %v", is, out, other, err)
		}
	})
}

// orders are the works during which an agent reports, and what the record looks like then.
var orders = []struct {
	state inventory.State
	kind  string
}{
	{inventory.Inspecting, inventory.OrderInspect}, {inventory.Sanitizing, inventory.OrderSanitize}, {inventory.BurnIn, inventory.OrderTest}, {inventory.Verifying, inventory.OrderTest},
	{inventory.Provisioning, inventory.OrderWrite}, {inventory.Provisioning, inventory.OrderHandoff}, {inventory.Provisioning, "enter"}, {inventory.Ready, ""}, {inventory.InUse, ""}, {inventory.Fencing, inventory.OrderInspect},
}

// reported is a node whose agent holds an order, as the record says, and has just sent r.
func reported(at int, r *inventory.Report, rules *Rules) Input {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	o := orders[at%len(orders)]
	disks := []inventory.Medium{{Slot: "1", Device: "nvme0", Serial: "D0", Kind: inventory.MediumNVMe, Size: 1 << 30}, {Slot: "2", Device: "nvme1", Serial: "D1", Kind: inventory.MediumNVMe, Size: 1 << 30}}
	v := inventory.NodeView{ID: "n-1"}
	v.Spec = exists(inventory.Spec{Name: "a", Serial: "SER-A", SKU: "virtual", MACs: []string{"52:54:00:00:00:01"}})
	v.SKU = exists(inventory.SKU{Name: "virtual", MinMemory: 4 << 30, Media: []inventory.MediaSpec{{Slot: "nvme0", Kind: inventory.MediumNVMe, Boot: true}}})
	v.State = exists(inventory.NodeState{State: o.state, Generation: 3, Wipe: 2, Seq: 9, Taint: inventory.Taint, Alive: inventory.Alive, BootID: "b", Since: now.Add(-time.Minute),
		Allowed: inventory.Duration(time.Hour), Work: inventory.Work{Phase: o.kind, Order: "o.9", Since: now.Add(-time.Minute), Try: 1}})
	v.Session = exists(inventory.Session{ID: "s-1", Node: "n-1", Generation: 3, Purpose: string(o.state), Phase: inventory.SessionRedeemed, Redeemed: now.Add(-time.Minute), Boots: 1})
	v.Facts = exists(inventory.Facts{Hardware: inventory.Hardware{Serial: "SER-A", Media: disks}, MediaEver: disks})
	if o.state == inventory.Provisioning || o.state == inventory.InUse {
		v.Claim = exists(inventory.Claim{Tenant: "acme", Reservation: "r", Instance: "i-1", Generation: 3})
		v.Reservation = exists(inventory.Reservation{ID: "r", Phase: inventory.Committed})
		v.Instance = exists(inventory.Instance{ID: "i-1", Image: "img"})
	}
	in := Input{Now: now, Started: now.Add(-time.Hour), View: v, ID: "ID", Nonce: "NONCE", Rules: rules,
		Seen: Seen{Session: "s-1", Heard: now, BootID: "b", Progress: r.Progress, Results: map[Act]Result{}},
		Holder: func(kind, value string) string {
			return map[string]string{"serial SER-B": "n-2", "serial SER-A": "n-1"}[kind+" "+value]
		}}
	if r.Done {
		in.Seen.Report = r
	}
	return in
}

// FuzzReport has an agent say anything about its order, as JSON. The node moves on only by what is proven (F-37):
// hardware that its SKU calls for and that is its own, a passed proof for every medium, a passed test, the right image
// read back. What is written stays small, whatever the agent says: a record that cannot be written holds its node for
// ever.
func FuzzReport(f *testing.F) {
	good := []inventory.Report{
		{Hardware: &inventory.Hardware{Serial: "SER-A", MemoryBytes: 8 << 30, CPUs: 4, Firmware: "uefi", Media: reported(0, &inventory.Report{}, nil).View.Facts.V.MediaEver, NICs: []inventory.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01", Up: true}}}},
		{Hardware: &inventory.Hardware{Serial: "SER-A", Product: strings.Repeat("x", 300_000)}},
		{Hardware: &inventory.Hardware{Serial: "SER-B", Media: []inventory.Medium{{Serial: "D0", Kind: "nvme"}}}},
		{Proofs: []inventory.MediumProof{{Medium: inventory.Medium{Serial: "D0", Kind: "nvme"}, Passed: true, Technique: inventory.TechniqueFormatCrypto}, {Medium: inventory.Medium{Serial: "D1", Kind: "nvme"}, Passed: true}}},
		{Proofs: []inventory.MediumProof{{Medium: inventory.Medium{Serial: "D0", Kind: "nvme"}, Passed: true}, {Medium: inventory.Medium{Serial: "D1", Kind: "nvme"}, Faults: []string{"markers found"}}}},
		{Test: &inventory.TestRun{Verdict: inventory.Pass, Results: []inventory.TestResult{{Test: "cpu", Verdict: inventory.Pass, Values: map[string]float64{"ops": 1e300}}}}},
		{Written: &inventory.Written{Image: "img", Bytes: 1 << 30, ReadBack: 1 << 30, Seconds: 2}}, {Handoff: &inventory.HandoffResult{Method: "kexec", Passed: []string{"x"}}},
		{Error: "the drive said \x1b[2J no", Retry: true}, {Error: strings.Repeat("no ", 100_000)}, {Progress: &inventory.Progress{What: "erasing", Done: -1, Total: 1 << 62}},
	}
	for i, r := range good {
		r.Session, r.Order, r.Done = "s-1", "o.9", r.Progress == nil
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		for at := range orders {
			if i < 4 || at%3 == i%3 {
				f.Add(uint8(at), b)
			}
		}
	}
	_, key, _ := ed25519.GenerateKey(nil)
	rules := (&world{key: key}).rules()
	f.Fuzz(func(t *testing.T, at uint8, b []byte) {
		var r inventory.Report
		if json.Unmarshal(b, &r) != nil {
			return
		}
		r.Session, r.Order = "s-1", "o.9" // or it is nobody's report
		in := reported(int(at), &r, rules)
		var d Decision
		size := uint64(len(b))
		frugal.Check(t, 5*time.Millisecond+time.Duration(size)*5*time.Microsecond, 1<<20+200*size, func() { d = Decide(in) })
		small(t, d)
		st := in.View.State.V
		next := st
		if d.Change.Edit != nil {
			d.Change.Edit(&next)
		}
		switch {
		case d.Act != "" && d.Act != BootDisk && d.Act != FenceAttach && st.State != inventory.Ready && st.State != inventory.Fencing:
			t.Fatalf("a report led to %s", d.Act)
		case d.Event == lifecycle.Done && st.State == inventory.Inspecting:
			hw := r.Hardware
			if hw == nil || r.Error != "" || !strings.EqualFold(hw.Serial, "SER-A") || len(rules.Compare(in.View.SKU.V, *hw)) > 0 {
				t.Fatalf("the hardware %+v passed", hw)
			}
			for _, m := range in.View.Facts.V.MediaEver {
				if !slices.ContainsFunc(hw.Media, func(n inventory.Medium) bool { return n.Key() == m.Key() }) {
					t.Fatalf("%s vanished, and nobody minds", m)
				}
			}
		case (d.Event == lifecycle.Done || d.Event == lifecycle.DoneBurnIn) && st.State == inventory.Sanitizing:
			cert, err := inventory.Decode[inventory.Certificate](inventory.KV{Key: "k", Value: d.Change.Then[0].Value, Mod: 1, Create: 1})
			if err != nil {
				t.Fatal(err)
			}
			body, err := ledger.OpenCertificate(cert.V, key.Public().(ed25519.PublicKey))
			if err != nil || body.Node != "n-1" || body.Wipe != 2 || body.Generation != 3 || r.Error != "" {
				t.Fatalf("certificate %+v, %v, of a report with error %q", body, err, r.Error)
			}
			for _, m := range in.View.Facts.V.MediaEver {
				if !slices.ContainsFunc(r.Proofs, func(p inventory.MediumProof) bool { return p.Passed && p.Medium.Key() == m.Key() }) {
					t.Fatalf("%s has no proof", m)
				}
			}
		case d.Event == lifecycle.Done && (st.State == inventory.BurnIn || st.State == inventory.Verifying):
			t.Fatal("a test passed before it was written down")
		case next.Work.Phase == "boot-disk" && st.Work.Phase != "boot-disk":
			if r.Error != "" || r.Written == nil || r.Written.Image != "img" || r.Written.ReadBack < r.Written.Bytes {
				t.Fatalf("the image counts as written: %+v", r.Written)
			}
		case next.Work.Phase == "enter" && st.Work.Phase != "enter":
			if r.Error != "" || r.Handoff == nil {
				t.Fatalf("the agent may enter: %+v", r.Handoff)
			}
		}
		if next.Generation != st.Generation || next.Wipe != st.Wipe || next.Taint != st.Taint {
			t.Fatalf("a report changes what only the table may: %+v", next)
		}
	})
}

// small holds what a decision would write to what the store takes, and what it says to what can be shown.
func small(t *testing.T, d Decision) {
	for _, s := range []string{d.Say, d.Change.Reason} {
		if len(s) > 2000 || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("it says %d bytes: %.200q", len(s), s)
		}
	}
	total := 0
	for _, op := range d.Change.Then {
		total += len(op.Value)
		if len(op.Value) > inventory.MaxRecord {
			t.Fatalf("%s would have %d bytes", op.Key, len(op.Value))
		}
	}
	if in := d.Change.Instance; in != nil {
		op, err := inventory.Encode("k", *in)
		if err != nil || len(op.Value) > 8<<10 {
			t.Fatalf("the instance would have %d bytes, %v", len(op.Value), err)
		}
	}
	if total > 512<<10 {
		t.Fatalf("%d bytes in one transaction", total)
	}
}
