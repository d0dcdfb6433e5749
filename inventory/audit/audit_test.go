package audit_test

import (
	"testing"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
)

// A whole tenancy, as the product writes it, breaks nothing; and what began in the middle of it neither.
func TestAnHonestLifeHolds(t *testing.T) {
	s := newSite(t)
	id := s.node()
	s.walk(id, inventory.Fencing)
	s.again(id)
	broken, counts := s.broken(false)
	if broken != nil {
		t.Fatal(broken)
	}
	if counts.Revisions != s.store.Rev()-1 || counts.Transitions != 14 || counts.Nodes != 1 {
		t.Errorf("counts %+v of %d revisions", counts, s.store.Rev()-1)
	}
	all, err := s.store.Since(1)
	s.must(err)
	for _, b := range all {
		snap, err := s.store.List(t.Context(), inventory.Root, inventory.ListOptions{Rev: b.Rev})
		s.must(err)
		c := audit.New(audit.Options{CertificateKey: s.led.CertificateKey})
		if broken := c.Load(snap); broken != nil {
			t.Fatalf("loaded at revision %d: %v", b.Rev, broken)
		}
		for _, later := range all {
			if broken := c.Apply(later); broken != nil { // earlier ones are passed over
				t.Fatalf("loaded at revision %d: %v", b.Rev, broken)
			}
		}
	}
}
