package faults

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// The SKUs of a run: nodes of Quick are claimed and given back, those of Whole go all the way to a tenant and back.
const (
	Quick = "quick"
	Whole = "whole"
	// Image is on record; the fake agents write nothing.
	Image = "sample"
)

var imageDigest = fmt.Sprintf("%064x", 0x5a)

// A Seed makes records of a site that has lived: by the ledger's own transactions, on a store in memory, from where they
// are copied into etcd. So a node is ready by proof, with the history that led there.
type Seed struct {
	store *memstore.Store
	led   *ledger.Ledger
	keys  *Keys
	n     int
	all   []inventory.KV
	now   time.Time // of the ledger; zero: the real one
}

func newSeed(k *Keys) *Seed { return &Seed{keys: k} }

// begin begins a node: on a store of its own, because a store in memory is not made for thousands.
func (s *Seed) begin(ctx context.Context) error {
	s.store, s.now = memstore.New(), time.Time{}
	s.led = &ledger.Ledger{Store: s.store, Now: s.clock, NewID: newID, CertificateKey: s.keys.Certificate.Public().(ed25519.PublicKey)}
	for _, k := range skus() {
		if err := s.put(ctx, inventory.KeySKU(k.Name), k); err != nil {
			return err
		}
	}
	return nil
}

// end takes over what was written since begin.
func (s *Seed) end(ctx context.Context) error {
	all, err := s.store.List(ctx, inventory.Root, inventory.ListOptions{})
	s.all = append(s.all, all.KVs...)
	return err
}

func (s *Seed) clock() time.Time {
	if s.now.IsZero() {
		return time.Now()
	}
	return s.now
}

func newID() string { return ulid.Make().String() }

func (s *Seed) put(ctx context.Context, key string, v any) error {
	op, err := inventory.Encode(key, v)
	if err != nil {
		return err
	}
	_, err = s.store.Commit(ctx, inventory.Txn{Then: []inventory.Op{op}})
	return err
}

// skus are what site.yaml declares as well; they are here for the deadlines of what the seed writes.
func skus() []inventory.SKU {
	var out []inventory.SKU
	for _, name := range []string{Quick, Whole} {
		out = append(out, inventory.SKU{Schema: inventory.Schema, Name: name, MinCPUs: 2, MinMemory: 1 << 30, BurnInProfile: "smoke", VerifyProfile: "smoke",
			Trust: "network", Media: []inventory.MediaSpec{{Slot: "nvme0", Kind: inventory.MediumNVMe, Boot: true}}})
	}
	return out
}

// site writes what belongs to no node.
func (s *Seed) site(ctx context.Context) error {
	return s.put(ctx, inventory.KeyImage(imageDigest), inventory.ImageRecord{Schema: inventory.Schema, Digest: imageDigest, Name: Image, Size: 1 << 20,
		Chunks: 1, Arch: "amd64", Boot: []string{"bios", "uefi"}, Kexec: true, SignedBy: "run", Imported: time.Now()})
}

// hardware is what a machine's agent reports.
func hardware(serial, mac string) inventory.Hardware {
	return inventory.Hardware{Serial: serial, Firmware: "uefi", Kernel: "6", Arch: "x86_64", CPUs: 2, MemoryBytes: 8 << 30,
		Media: []inventory.Medium{{Slot: "0000:00:04.0", Device: "nvme0", Kind: inventory.MediumNVMe, Serial: "D-" + serial, Size: 1 << 30}},
		NICs:  []inventory.NIC{{Name: "eth0", MAC: mac, Up: true}}}
}

// spec is the spec of the next node of a SKU.
func (s *Seed) spec(sku, bmcAddr, credential string) inventory.Spec {
	s.n++
	sp := inventory.Spec{Name: fmt.Sprintf("%s-%04d", sku, s.n), Serial: serial(s.n), SKU: sku, Segment: segment, Rack: fmt.Sprintf("r%d", s.n%4),
		MACs: []string{fmt.Sprintf("52:54:00:00:%02x:%02x", s.n>>8, s.n&255)}, IP: fmt.Sprintf("10.77.%d.%d", s.n/200, 10+s.n%200), Source: "manifest"}
	if bmcAddr != "" {
		sp.BMC = inventory.BMCSpec{Addr: bmcAddr, Protocol: "ipmi", Credential: credential}
	}
	return sp
}

// ready brings a new node along the table to ready; session is the boot that its agent runs in.
func (s *Seed) ready(ctx context.Context, sp inventory.Spec, session inventory.Session) (string, error) {
	id, err := s.led.Add(ctx, sp, "run", "imported")
	if err != nil {
		return "", err
	}
	hw := hardware(sp.Serial, sp.MACs[0])
	now := time.Now()
	steps := []struct {
		ev lifecycle.Event
		do func(v inventory.NodeView, c *ledger.Change) error
	}{
		{lifecycle.Approve, nil},
		{lifecycle.Done, func(v inventory.NodeView, c *ledger.Change) error {
			session.Node, session.Generation = id, v.State.V.Generation
			if err := s.put(ctx, inventory.KeySession(id), session); err != nil {
				return err
			}
			return s.put(ctx, inventory.KeyFacts(id), inventory.Facts{Schema: inventory.Schema, Hardware: hw, MediaEver: hw.Media, Inspected: now})
		}},
		{lifecycle.DoneBurnIn, func(v inventory.NodeView, c *ledger.Change) error {
			cert, err := ledger.SignCertificate(inventory.CertificateBody{Site: siteName, Node: id, Name: sp.Name, Serial: sp.Serial, Generation: v.State.V.Generation,
				Wipe: v.State.V.Wipe, Media: proofs(hw.Media, now), Fence: "exec", Agent: "run", Started: now, Finished: now}, s.keys.Certificate)
			if err != nil {
				return err
			}
			op, err := inventory.Encode(inventory.KeyCert(id, v.State.V.Wipe), cert)
			c.Then = append(c.Then, op)
			return err
		}},
		{lifecycle.Done, func(v inventory.NodeView, c *ledger.Change) error {
			t := newID()
			c.Edit = func(st *inventory.NodeState) { st.BurnInDue = false }
			return s.put(ctx, inventory.KeyTest(id, t), inventory.TestRun{Schema: inventory.Schema, ID: t, Node: id, Profile: "smoke", Verdict: inventory.Pass,
				Generation: v.State.V.Generation, Wipe: v.State.V.Wipe, Started: now, Finished: now})
		}},
	}
	for _, step := range steps {
		c := ledger.Change{Actor: "run", Reason: "seeded"}
		if step.do != nil {
			if err := step.do(s.view(ctx, id), &c); err != nil {
				return "", err
			}
		}
		if _, err := s.led.Move(ctx, s.view(ctx, id), step.ev, c); err != nil {
			return "", fmt.Errorf("faults: seed %s, %s: %w", sp.Name, step.ev, err)
		}
	}
	return id, nil
}

func (s *Seed) view(ctx context.Context, id string) inventory.NodeView {
	return inventory.View(&inventory.Read{Ctx: ctx, Store: s.store}, id)
}

// proofs say that every medium was erased.
func proofs(media []inventory.Medium, now time.Time) []inventory.MediumProof {
	var out []inventory.MediumProof
	for _, m := range media {
		out = append(out, inventory.MediumProof{Medium: m, Method: inventory.MethodPurge, Technique: inventory.TechniqueSanitizeCrypto, Passed: true, Start: now, End: now})
	}
	return out
}

// copyTo writes everything into a store.
func (s *Seed) copyTo(ctx context.Context, to inventory.Store) error {
	written := map[string]bool{} // SKUs are in the store of every node
	var t inventory.Txn
	for i, kv := range s.all {
		if !written[kv.Key] {
			written[kv.Key] = true
			t.Then = append(t.Then, inventory.Op{Key: kv.Key, Value: kv.Value})
		}
		if len(t.Then) < inventory.MaxOps && i < len(s.all)-1 || len(t.Then) == 0 {
			continue
		}
		if _, err := to.Commit(ctx, t); err != nil {
			return fmt.Errorf("faults: seed: %w", err)
		}
		t.Then = nil
	}
	return nil
}

// offered makes a ready node rentable, as if its agent had spoken.
func (s *Seed) offered(ctx context.Context, id string) error {
	c := ledger.Change{Actor: "run", Reason: "seeded", Edit: func(st *inventory.NodeState) { st.Alive, st.BootID = inventory.Alive, "seeded" }}
	if _, err := s.led.Note(ctx, s.view(ctx, id), c); err != nil {
		return err
	}
	_, err := s.led.Offer(ctx, s.view(ctx, id), s.store.Rev())
	return err
}

func serial(n int) string { return fmt.Sprintf("SER%05d", n) }

// nextSerial is the serial that the next spec will name: a controller tells it as well.
func (s *Seed) nextSerial() string { return serial(s.n + 1) }
