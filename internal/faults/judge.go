package faults

import (
	"crypto/ed25519"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
)

// A judge walks what was stored with the checker of inventory/audit, and keeps the first invariant that was broken.
type judge struct {
	c     *audit.Checker
	first *audit.Broken
}

func newJudge(k *Keys) *judge {
	return &judge{c: audit.New(audit.Options{CertificateKey: k.Certificate.Public().(ed25519.PublicKey)})}
}

func (j *judge) load(s inventory.Snapshot) error {
	if b := j.c.Load(s); b != nil {
		return b
	}
	return nil
}

func (j *judge) apply(b inventory.Batch) {
	if bad := j.c.Apply(b); bad != nil && j.first == nil {
		j.first = bad
	}
}

func (j *judge) broken() error {
	if j.first == nil {
		return nil
	}
	return j.first
}
