// Package apitest stands up an API server on a store in memory, with nodes that went the whole way of the lifecycle
// table, for tests of the API, its client, the command line and the dashboard. There is no provisioner behind it: the
// test moves the nodes.
package apitest

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/oklog/ulid/v2"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// TB is what a test or benchmark offers (testing.TB, or a testscript's environment).
type TB interface {
	Fatal(args ...any)
}

// A Site is a server and everything behind it.
type Site struct {
	Server *api.Server
	Store  *memstore.Store
	Ledger *ledger.Ledger
	URL    string
	Key    ed25519.PrivateKey // of certificates
	Age    *age.X25519Identity

	ctx   context.Context
	stop  func()
	http  *httptest.Server
	mu    sync.Mutex
	macs  int
	ready chan struct{}

	auditors sync.WaitGroup
}

// SKU is the SKU that a Site declares.
const SKU = "rack-small"

// Start makes a site with one SKU, one BMC credential and no nodes. End it with Close.
func Start(t TB) *Site {
	pub, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	sealer, err := age.GenerateX25519Identity()
	must(t, err)
	s := &Site{Store: memstore.New(), Key: key, Age: sealer, ready: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(context.Background())
	log := slog.New(slog.DiscardHandler)
	s.Ledger = &ledger.Ledger{Store: s.Store, Now: time.Now, CertificateKey: pub, NewID: func() string { return ulid.Make().String() }}
	watched := inventory.NewCopy()
	s.Server = &api.Server{Store: s.Store, Copy: watched, Ledger: s.Ledger, Images: &Images{}, Sealer: Seal{sealer.Recipient()},
		Now: time.Now, Log: log, CertificateKey: pub, Version: "test"}
	s.put(t, inventory.KeySKU(SKU), inventory.SKU{Schema: 1, Name: SKU, MinCPUs: 1})
	s.put(t, inventory.KeyCredential("rack-bmc"), inventory.Credential{Schema: 1, Age: []byte("sealed"), Actor: "test"})
	s.put(t, inventory.KeyEra, map[string]any{"schema": 1, "era": "e1"})
	first := make(chan struct{})
	go func() {
		defer close(s.ready)
		if err := watched.Run(s.ctx, s.Store, func() { close(first) }); err != nil {
			log.Error("the copy ended", "err", err)
		}
	}()
	<-first
	s.http = httptest.NewServer(s.Server.Handler())
	s.URL = s.http.URL
	return s
}

// Audit has the record audited from now on, as hostlerd does.
func (s *Site) Audit() *audit.Auditor {
	a := &audit.Auditor{Store: s.Store, Options: audit.Options{CertificateKey: s.Server.CertificateKey}, Now: time.Now, Log: s.Server.Log,
		Alert: func(ctx context.Context, b audit.Broken) error {
			return s.Ledger.Raise(ctx, b.Node, audit.Source, audit.Alert(b))
		}}
	s.Server.Audit = a.Verdict
	s.auditors.Go(func() {
		if err := a.Run(s.ctx); err != nil {
			s.Server.Log.Error("the auditor ended", "err", err)
		}
	})
	return a
}

// Close ends the site.
func (s *Site) Close() {
	s.stop() // streams end with the copy's store; connections with the server
	s.http.CloseClientConnections()
	s.http.Close()
	<-s.ready
	s.auditors.Wait()
}

// Cut breaks every connection to the server; it goes on serving.
func (s *Site) Cut() { s.http.CloseClientConnections() }

// Token makes a token and returns its secret.
func (s *Site) Token(t TB, role, tenant string) string {
	secret, err := api.NewToken(s.ctx, s.Store, inventory.Token{Name: "test-" + role, Role: role, Tenant: tenant, Expires: time.Now().Add(time.Hour)})
	must(t, err)
	return secret
}

// Discover adds a node that was just seen, and returns its id.
func (s *Site) Discover(t TB, name string) string {
	s.mu.Lock()
	s.macs++
	n := s.macs
	s.mu.Unlock()
	id, err := s.Ledger.Add(s.ctx, inventory.Spec{Name: name, MACs: []string{fmt.Sprintf("52:54:00:00:%02x:%02x", n/256, n%256)},
		Serial: fmt.Sprintf("SN%04d", n), Firmware: "uefi", Source: "dhcp"}, "hostlerd", "seen by DHCP")
	must(t, err)
	return id
}

// Ready adds a node and takes it the whole way to ready and on offer, and returns its id.
func (s *Site) Ready(t TB, name string) string {
	id := s.Discover(t, name)
	v := s.View(t, id)
	spec := v.Spec.V
	spec.SKU, spec.BMC = SKU, inventory.BMCSpec{Addr: "bmc-" + name, Protocol: "ipmi", Credential: "rack-bmc"}
	must(t, s.Ledger.Edit(s.ctx, v, spec))
	s.Move(t, id, lifecycle.Approve, "approved by a test", nil)
	drive := inventory.Medium{Slot: "0000:00:04.0", Device: "nvme0", Kind: inventory.MediumNVMe, Serial: "D-" + name, Size: 1 << 30}
	s.put(t, inventory.KeyFacts(id), inventory.Facts{Schema: 1, MediaEver: []inventory.Medium{drive},
		Hardware: inventory.Hardware{Firmware: "uefi", CPUs: 2, MemoryBytes: 2 << 30, Media: []inventory.Medium{drive}}})
	s.Move(t, id, lifecycle.Done, "inspected", nil)
	s.Certify(t, id)
	s.Move(t, id, lifecycle.DoneBurnIn, "erased", func(st *inventory.NodeState) { st.BurnInDue = false })
	v = s.View(t, id)
	s.put(t, inventory.KeyTest(id, s.Ledger.NewID()), inventory.TestRun{Schema: 1, Node: id, Profile: "smoke", Verdict: inventory.Pass,
		Generation: v.State.V.Generation, Wipe: v.State.V.Wipe, Started: time.Now().Add(-time.Minute), Finished: time.Now()})
	s.Move(t, id, lifecycle.Done, "tested", nil)
	_, err := s.Ledger.Note(s.ctx, s.View(t, id), ledger.Change{Actor: "hostlerd", Reason: "its agent answers",
		Edit: func(st *inventory.NodeState) { st.Alive = inventory.Alive }})
	must(t, err)
	s.Offer(t, id)
	return id
}

// Offer puts a ready node on offer.
func (s *Site) Offer(t TB, id string) {
	_, err := s.Ledger.Offer(s.ctx, s.View(t, id), s.Store.Rev())
	must(t, err)
}

// Certify stores a certificate of the node's present wipe.
func (s *Site) Certify(t TB, id string) inventory.Certificate {
	v := s.View(t, id)
	body := inventory.CertificateBody{Site: "test", Node: id, Name: v.Name(), Serial: v.Spec.V.Serial, Generation: v.State.V.Generation,
		Wipe: v.State.V.Wipe, Fence: "none", Agent: "test", Started: time.Now().Add(-time.Minute), Finished: time.Now(),
		NotDone: []string{"host memory was not overwritten"}}
	for _, m := range v.Facts.V.MediaEver {
		body.Media = append(body.Media, inventory.MediumProof{Medium: m, Method: inventory.MethodPurge, Technique: inventory.TechniqueFormatUserData, Passed: true})
	}
	c, err := ledger.SignCertificate(body, s.Key)
	must(t, err)
	s.put(t, inventory.KeyCert(id, v.State.V.Wipe), c)
	return c
}

// Move takes a node along an edge of the table, as the provisioner would.
func (s *Site) Move(t TB, id string, ev lifecycle.Event, reason string, edit func(*inventory.NodeState)) {
	_, err := s.Ledger.Move(s.ctx, s.View(t, id), ev, ledger.Change{Actor: "hostlerd", Reason: reason, Edit: edit})
	must(t, err)
}

// HandOver ends provisioning: the node is its tenant's, and answers.
func (s *Site) HandOver(t TB, id string) {
	v := s.View(t, id)
	in := v.Instance.V
	in.Phase, in.Ready, in.ReadyReason, in.Handoff, in.Address = inventory.InstanceRunning, true, "", "kexec", "10.0.0.7"
	in.HandedOver, in.ReadyAt = time.Now(), time.Now()
	_, err := s.Ledger.Move(s.ctx, v, lifecycle.Done, ledger.Change{Actor: "hostlerd", Reason: "handed over by kexec", Instance: &in})
	must(t, err)
}

// View reads a node, fresh.
func (s *Site) View(t TB, id string) inventory.NodeView {
	r := &inventory.Read{Ctx: s.ctx, Store: s.Store}
	v := inventory.View(r, id)
	must(t, r.Err)
	must(t, v.Broken)
	return v
}

// Image adds an image record, as an import leaves it.
func (s *Site) Image(t TB, digest, name string, imported time.Time) {
	s.put(t, inventory.KeyImage(digest), inventory.ImageRecord{Schema: 1, Digest: digest, Name: name, Size: 1 << 30, Arch: "amd64",
		Boot: []string{"uefi"}, Kexec: true, SignedBy: "test", Imported: imported})
}

func (s *Site) put(t TB, key string, v any) {
	op, err := inventory.Encode(key, v)
	must(t, err)
	_, err = s.Store.Commit(s.ctx, inventory.Txn{Then: []inventory.Op{op}})
	must(t, err)
}

func must(t TB, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// Seal encrypts with age, as hostlerd does.
type Seal struct{ To age.Recipient }

// Seal is api.Sealer.
func (s Seal) Seal(plain []byte) ([]byte, error) {
	var out writer
	w, err := age.Encrypt(&out, s.To)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	err = w.Close() // writes the rest
	return out, err
}

type writer []byte

func (w *writer) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}

// Images is an api.ImageStore in memory. It believes any manifest whose signature is "signed" and refuses all others;
// what the manifest lists, one digest a line, are its chunks.
type Images struct {
	mu   sync.Mutex
	has  map[string][]byte
	list map[string][]string
}

// Check is api.ImageStore.
func (m *Images) Check(manifest, signature []byte) (string, api.Missing, error) {
	miss := api.Missing{Chunks: []string{}, Blobs: []string{}}
	if string(signature) != "signed" {
		return "", miss, ledger.Refuse("sign it with a trusted key", "no trusted key made this signature")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	digest := sum(manifest)
	if m.list == nil {
		m.list, m.has = map[string][]string{}, map[string][]byte{}
	}
	m.list[digest] = lines(manifest)
	for _, c := range m.list[digest] {
		if m.has[c] == nil {
			miss.Chunks = append(miss.Chunks, c)
		}
	}
	return digest, miss, nil
}

// PutChunk is api.ImageStore.
func (m *Images) PutChunk(image, chunk string, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.list[image] == nil {
		return ledger.Refuse("check its manifest first", "there is no image %s", image)
	}
	if sum(b) != chunk {
		return ledger.Refuse("send it again", "these bytes are not chunk %s", chunk)
	}
	m.has[chunk] = b
	return nil
}

// PutBlob is api.ImageStore.
func (m *Images) PutBlob(image, blob string, r io.Reader) error { return m.PutChunk(image, blob, r) }

// Finish is api.ImageStore.
func (m *Images) Finish(_ context.Context, image string) (inventory.ImageRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return inventory.ImageRecord{Name: "test", Chunks: len(m.list[image]), SignedBy: "test"}, nil
}
