package ledger

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// ErrGate wraps everything that keeps a node out of ready.
var ErrGate = errors.New("ledger: the gate to ready stays shut")

// gate is the only way to ready: no taint, a certificate of the present wipe that is signed by us and names every
// medium ever seen, and a passed test run of the same wipe. What it read must be unchanged when ready is written.
func (l *Ledger) gate(v inventory.NodeView) ([]inventory.Cond, error) {
	st := v.State.V
	deny := func(format string, a ...any) ([]inventory.Cond, error) {
		return nil, fmt.Errorf("%w for %s: %s", ErrGate, v.Name(), fmt.Sprintf(format, a...))
	}
	if st.Taint != "" {
		return deny("it is tainted")
	}
	if !v.Certificate.Exists() {
		return deny("no sanitize certificate for wipe %d", st.Wipe)
	}
	body, err := OpenCertificate(v.Certificate.V, l.CertificateKey)
	if err != nil {
		return deny("%v", err)
	}
	if body.Node != v.ID || body.Wipe != st.Wipe {
		return deny("the certificate is for node %s wipe %d, not wipe %d", body.Node, body.Wipe, st.Wipe)
	}
	if m, ok := Uncovered(body, v.Facts.V.MediaEver); ok {
		return deny("the certificate does not prove %s erased", m)
	}
	if !v.Facts.Exists() || len(v.Facts.V.Hardware.Media) == 0 {
		return deny("no hardware facts")
	}
	// A node that was reserved and given back unused is ready again under a later generation: nothing was written to it,
	// its wipe number says so. Every other way to ready is out of a test under the present generation.
	current := v.Test.V.Generation == st.Generation || st.State == inventory.Ready && v.Test.V.Generation < st.Generation
	if t := v.Test; !t.Exists() || t.V.Verdict != inventory.Pass || t.V.Wipe != st.Wipe || !current {
		return deny("no passed test run of wipe %d, generation %d", st.Wipe, st.Generation)
	}
	return []inventory.Cond{v.Certificate.Unchanged(), v.Test.Unchanged(), v.Facts.Unchanged()}, nil
}

// OpenCertificate checks the signature over the exact bytes and gives what the certificate says.
func OpenCertificate(c inventory.Certificate, key ed25519.PublicKey) (inventory.CertificateBody, error) {
	var body inventory.CertificateBody
	if len(key) != ed25519.PublicKeySize {
		return body, errors.New("certificate: no key to check it with")
	}
	if !ed25519.Verify(key, c.Body, c.Signature) {
		return body, fmt.Errorf("certificate: the signature does not hold for key %s (it names key %s)", KeyID(key), c.KeyID)
	}
	if err := json.Unmarshal(c.Body, &body); err != nil {
		return body, fmt.Errorf("certificate: signed, but not readable: %v", err)
	}
	return body, nil
}

// SignCertificate makes a certificate of a body.
func SignCertificate(body inventory.CertificateBody, key ed25519.PrivateKey) (inventory.Certificate, error) {
	body.Schema = inventory.Schema
	b, err := json.Marshal(body)
	if err != nil {
		return inventory.Certificate{}, fmt.Errorf("certificate: encode: %v", err)
	}
	return inventory.Certificate{Schema: inventory.Schema, Body: b, Signature: ed25519.Sign(key, b), KeyID: KeyID(key.Public().(ed25519.PublicKey))}, nil
}

// KeyID names a public key: the first 16 hex digits of its SHA-256.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// Uncovered finds a medium that a certificate does not prove erased.
func Uncovered(body inventory.CertificateBody, media []inventory.Medium) (inventory.Medium, bool) {
	proven := map[string]bool{}
	for _, p := range body.Media {
		if p.Passed {
			proven[p.Medium.Key()] = true
		}
	}
	for _, m := range media {
		if !proven[m.Key()] {
			return m, true
		}
	}
	return inventory.Medium{}, false
}

// Offer makes a ready node rentable: avail is created only if state, spec, certificate, test and the whole range of its
// health are as they were read. It returns ErrConflict when anything moved, and an error naming the reasons when the
// node may not be rented.
func (l *Ledger) Offer(ctx context.Context, v inventory.NodeView, rev int64) (int64, error) {
	now := l.Now()
	if why := v.Blocked(now); len(why) > 0 {
		return 0, fmt.Errorf("ledger: %s cannot be offered: %s", v.Name(), why[0])
	}
	conds, err := l.gate(v)
	if err != nil {
		return 0, err
	}
	t := inventory.Txn{If: append(conds, v.State.Unchanged(), v.Spec.Unchanged(), v.SKU.Unchanged(),
		inventory.Absent(inventory.KeyAvail(v.ID)), inventory.Absent(inventory.KeyClaim(v.ID)),
		inventory.Cond{Key: inventory.PrefixHealth + v.ID + "/", Prefix: true, Mod: rev})}
	t.If = append(t.If, l.term(v.ID)...)
	op, err := inventory.Encode(inventory.KeyAvail(v.ID), inventory.Avail{Schema: inventory.Schema, SKU: v.Spec.V.SKU,
		Rack: v.Spec.V.Rack, Wipe: v.State.V.Wipe, Tested: v.State.V.Tested, Since: now})
	if err != nil {
		return 0, err
	}
	t.Then = append(t.Then, op)
	return l.publish(ctx, t, v, now)
}

// Withdraw takes a ready node off the market and says why in its public record.
func (l *Ledger) Withdraw(ctx context.Context, v inventory.NodeView) (int64, error) {
	if err := writable(v); err != nil {
		return 0, err
	}
	t := inventory.Txn{If: append(l.term(v.ID), v.State.Unchanged(), v.Avail.Unchanged()),
		Then: []inventory.Op{inventory.Delete(v.Avail.KV.Key)}}
	return l.publish(ctx, t, v, l.Now())
}

func (l *Ledger) publish(ctx context.Context, t inventory.Txn, v inventory.NodeView, now time.Time) (int64, error) {
	op, err := v.Public.Put(v.Offer(now))
	if err != nil {
		return 0, err
	}
	op.Key = inventory.KeyPublic(v.ID)
	t.Then = append(t.Then, op)
	return l.commit(ctx, t)
}
