package audit_test

import (
	"crypto/ed25519"
	"encoding/json"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// tenancies are the breaches of I1 to I3: who has the node, and what it takes to sell it.
var tenancies = []breach{
	{invariant: "I1", name: "a claim over a claim", from: inventory.Reserved,
		broken: func(s *site, id string) { s.write(other(s, id, inventory.Pending)...) },
		honest: func(s *site, id string) {
			_, err := s.led.Release(s.t.Context(), "acme", "r-"+id, "acme", "")
			s.must(err)
			s.offer(id)
			_, err = s.led.Claim(s.t.Context(), ledger.ClaimRequest{Tenant: "bolt", Reservation: "r2", Node: id})
			s.must(err)
		}},
	{invariant: "I1", name: "a second live reservation", from: inventory.InUse,
		broken: func(s *site, id string) { s.write(other(s, id, inventory.Committed)[:1]...) },
		honest: func(s *site, id string) { s.write(other(s, id, inventory.Released)[:1]...) }},
	{invariant: "I1", name: "a reservation goes to another node", from: inventory.Reserved,
		broken: func(s *site, id string) {
			n := s.node()
			s.put(reservation(id), func() inventory.Reservation {
				r := get[inventory.Reservation](s, reservation(id))
				r.Node = n
				return r
			}())
		},
		honest: func(s *site, id string) {
			_, err := s.led.Renew(s.t.Context(), "acme", "r-"+id, time.Minute)
			s.must(err)
		}},
	{invariant: "I1", name: "an expired reservation of a node in use", from: inventory.InUse,
		broken: func(s *site, id string) {
			edit(s, reservation(id), func(r *inventory.Reservation) { r.Phase = inventory.Expired })
		},
		honest: func(s *site, id string) {
			_, err := s.led.Release(s.t.Context(), "acme", "r-"+id, "acme", "")
			s.must(err)
		}},
	{invariant: "I1", name: "an expired reservation lives again", from: inventory.Reserved,
		broken: func(s *site, id string) {
			s.move(id, lifecycle.Expire, ledger.Change{})
			edit(s, reservation(id), func(r *inventory.Reservation) { r.Phase = inventory.Pending })
		},
		honest: func(s *site, id string) {
			s.move(id, lifecycle.Expire, ledger.Change{})
			s.write(inventory.Delete(reservation(id)))
		}},
	{invariant: "I1", name: "reserved without a claim", from: inventory.Ready,
		broken: func(s *site, id string) { s.leap(id, lifecycle.Claim, nil) },
		honest: func(s *site, id string) { s.walk(id, inventory.Reserved) }},
	{invariant: "I1", name: "a claim goes while its node is in use", from: inventory.InUse,
		broken: func(s *site, id string) {
			edit(s, reservation(id), func(r *inventory.Reservation) { r.Phase = inventory.Committed })
			s.write(inventory.Delete(inventory.KeyClaim(id)))
		},
		honest: func(s *site, id string) {
			s.move(id, lifecycle.Emergency, ledger.Change{})
			_, err := s.led.EndClaim(s.t.Context(), s.view(id), ledger.Change{})
			s.must(err)
		}},
	{invariant: "I1", name: "a claim ends and the tenant's seed stays", from: inventory.Fencing,
		broken: func(s *site, id string) { s.leap(id, lifecycle.Done, nil, inventory.Delete(inventory.KeyClaim(id))) },
		honest: func(s *site, id string) {
			s.leap(id, lifecycle.Done, nil, inventory.Delete(inventory.KeyClaim(id)), inventory.Delete(inventory.KeySealed(s.view(id).Claim.V.Instance)))
		}},
	{invariant: "I1", name: "a claim of a node that is sanitized", from: inventory.Sanitizing,
		broken: func(s *site, id string) { s.write(other(s, id, inventory.Committed)...) },
		honest: func(s *site, id string) { s.order(id, inventory.OrderSanitize) }},
	{invariant: "I1", name: "a claim of an earlier generation", from: inventory.InUse,
		broken: func(s *site, id string) {
			s.forge(id, func(st *state, _ *history) { st.Generation++ })
		},
		honest: func(s *site, id string) { s.move(id, lifecycle.ForceReclaim, ledger.Change{}) }},

	{invariant: "I2", name: "ready without a certificate", from: inventory.BurnIn,
		broken: func(s *site, id string) {
			s.write(inventory.Delete(inventory.KeyCert(id, s.view(id).State.V.Wipe)), s.test(id, inventory.Pass))
			s.leap(id, lifecycle.Done, nil)
		},
		honest: func(s *site, id string) {
			s.write(s.test(id, inventory.Pass))
			s.leap(id, lifecycle.Done, nil)
		}},
	{invariant: "I2", name: "a certificate signed by another key", from: inventory.Sanitizing,
		broken: func(s *site, id string) {
			good := s.key
			_, s.key, _ = ed25519.GenerateKey(nil)
			op := s.certificate(id, nil)
			s.key = good
			s.leap(id, lifecycle.DoneBurnIn, nil, op)
			s.write(s.test(id, inventory.Pass))
			s.leap(id, lifecycle.Done, nil)
		},
		honest: func(s *site, id string) { s.walk(id, inventory.Ready) }},
	{invariant: "I2", name: "a certificate without one medium", from: inventory.Sanitizing,
		broken: func(s *site, id string) {
			s.move(id, lifecycle.DoneBurnIn, ledger.Change{Then: []inventory.Op{s.certificate(id, func(b *inventory.CertificateBody) { b.Media[1].Passed = false })}})
			s.write(s.test(id, inventory.Pass))
			s.leap(id, lifecycle.Done, nil)
		},
		honest: func(s *site, id string) { s.walk(id, inventory.Ready) }},
	{invariant: "I2", name: "a certificate for another wipe", from: inventory.Sanitizing,
		broken: func(s *site, id string) {
			op := s.certificate(id, func(b *inventory.CertificateBody) { b.Wipe-- })
			op.Key = inventory.KeyCert(id, s.view(id).State.V.Wipe)
			s.move(id, lifecycle.DoneBurnIn, ledger.Change{Then: []inventory.Op{op}})
			s.write(s.test(id, inventory.Pass))
			s.leap(id, lifecycle.Done, nil)
		},
		honest: func(s *site, id string) { s.walk(id, inventory.Ready) }},
	{invariant: "I2", name: "a medium turns up in a ready node", from: inventory.Ready,
		broken: func(s *site, id string) {
			edit(s, inventory.KeyFacts(id), func(f *inventory.Facts) {
				f.MediaEver = append(f.MediaEver, inventory.Medium{Kind: inventory.MediumNVMe, Serial: "NEW"})
			})
		},
		honest: func(s *site, id string) {
			edit(s, inventory.KeyFacts(id), func(f *inventory.Facts) { f.MediaEver[0].Device = "nvme7" })
		}},
	{invariant: "I2", name: "ready after a test that failed", from: inventory.BurnIn,
		broken: func(s *site, id string) {
			s.write(s.test(id, inventory.Inconclusive))
			s.leap(id, lifecycle.Done, nil)
		},
		honest: func(s *site, id string) {
			s.write(s.test(id, inventory.Fail))
			s.write(s.test(id, inventory.Pass))
			s.leap(id, lifecycle.Done, nil)
		}},
	{invariant: "I2", name: "ready without a test", from: inventory.BurnIn,
		broken: func(s *site, id string) { s.leap(id, lifecycle.Done, nil) },
		honest: func(s *site, id string) { s.walk(id, inventory.Ready) }},
	{invariant: "I2", name: "reserved at a wipe that nothing proves", from: inventory.Reserved,
		broken: func(s *site, id string) { s.forge(id, func(st *state, _ *history) { st.Wipe++ }) },
		honest: func(s *site, id string) { s.walk(id, inventory.Provisioning) }},
	{invariant: "I2", name: "a certificate is written over", from: inventory.BurnIn,
		broken: func(s *site, id string) { s.write(s.certificate(id, nil)) },
		honest: func(s *site, id string) {
			s.write(s.certificate(id, func(b *inventory.CertificateBody) { b.Wipe++ }))
		}},

	{invariant: "I3", name: "ready and tainted", from: inventory.Ready,
		broken: func(s *site, id string) { s.forge(id, func(st *state, _ *history) { st.Taint = inventory.Taint }) },
		honest: func(s *site, id string) {
			s.forge(id, func(st *state, _ *history) { st.Alive = inventory.Silent })
		}},
	{invariant: "I3", name: "from the tenant straight to ready, with papers", from: inventory.Fencing,
		broken: func(s *site, id string) {
			c := s.view(id).Claim.V
			s.forge(id, func(st *state, h *history) {
				h.Kind, h.Event, h.From, h.To = "transition", string(lifecycle.Done), inventory.Fencing, inventory.Ready
				st.State, st.Taint = inventory.Ready, ""
			}, s.certificate(id, nil), s.test(id, inventory.Pass), inventory.Delete(inventory.KeyClaim(id)), inventory.Delete(inventory.KeySealed(c.Instance)))
		},
		honest: func(s *site, id string) { s.again(id) }},
	{invariant: "I3", name: "sanitized in one generation, tested in another", from: inventory.BurnIn,
		broken: func(s *site, id string) {
			s.forge(id, func(st *state, _ *history) { st.Generation++ }) // told as I13; what follows is I3
			s.write(s.test(id, inventory.Pass))
			s.leap(id, lifecycle.Done, nil)
		},
		honest: func(s *site, id string) {
			s.move(id, lifecycle.Quarantine, ledger.Change{})
			s.move(id, lifecycle.Return, ledger.Change{})
			s.again(id)
		}, after: true},
	{invariant: "I3", name: "ready by the test of an earlier generation", from: inventory.BurnIn,
		broken: func(s *site, id string) {
			op := s.test(id, inventory.Pass)
			s.move(id, lifecycle.Abort, ledger.Change{})
			s.move(id, lifecycle.Return, ledger.Change{})
			s.walk(id, inventory.Sanitizing)
			s.order(id, inventory.OrderSanitize)
			s.move(id, lifecycle.Done, ledger.Change{Then: []inventory.Op{s.certificate(id, nil)}})
			var run inventory.TestRun
			s.must(json.Unmarshal(op.Value, &run))
			run.Wipe = s.view(id).State.V.Wipe
			s.put(op.Key, run)
			s.leap(id, lifecycle.Done, nil)
		},
		honest: func(s *site, id string) {
			s.walk(id, inventory.Reserved)
			s.move(id, lifecycle.Expire, ledger.Change{}) // ready again, a generation later
		}},
}
