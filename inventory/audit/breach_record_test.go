package audit_test

import (
	"strings"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// phase has a node do something.
func phase(name, order string) func(*state, *history) {
	return func(st *state, _ *history) { st.Work = inventory.Work{Phase: name, Order: order} }
}

func session(s *site, id string, f func(*inventory.Session)) {
	edit(s, inventory.KeySession(id), f)
}

// records are the breaches of I4 to I15: sessions, orders, identities, counters, history, offers, public records.
var records = []breach{
	{invariant: "I4", name: "a session outlives its generation", from: inventory.BurnIn,
		broken: func(s *site, id string) { s.leap(id, lifecycle.Failed, nil) },
		honest: func(s *site, id string) { s.move(id, lifecycle.Failed, ledger.Change{}) }},
	{invariant: "I4", name: "a session is armed on a node in use", from: inventory.InUse,
		broken: func(s *site, id string) {
			session(s, id, func(sn *inventory.Session) { sn.Phase = inventory.SessionArmed })
		},
		honest: func(s *site, id string) {
			s.walk(id, inventory.Fencing)
			s.session(id)
		}},
	{invariant: "I4", name: "a burnt session keeps its certificate", from: inventory.BurnIn,
		broken: func(s *site, id string) {
			session(s, id, func(sn *inventory.Session) { sn.Phase = inventory.SessionBurnt })
		},
		honest: func(s *site, id string) {
			session(s, id, func(sn *inventory.Session) { sn.Phase, sn.Cert = inventory.SessionBurnt, nil })
		}},
	{invariant: "I4", name: "a session of another node", from: inventory.BurnIn,
		broken: func(s *site, id string) { session(s, id, func(sn *inventory.Session) { sn.Node = "n-other" }) },
		honest: func(s *site, id string) { session(s, id, func(sn *inventory.Session) { sn.Boots++ }) }},

	{invariant: "I5", name: "an order to erase in inspecting", from: inventory.Inspecting,
		broken: func(s *site, id string) { s.order(id, inventory.OrderSanitize) },
		honest: func(s *site, id string) { s.order(id, inventory.OrderInspect) }},
	{invariant: "I5", name: "an order of a stay before", from: inventory.Provisioning,
		broken: func(s *site, id string) {
			s.order(id, inventory.OrderWrite)
			w := s.view(id).State.V.Work
			s.move(id, lifecycle.Again, ledger.Change{})
			s.note(id, ledger.Change{Edit: func(st *state) { st.Work = w }})
		},
		honest: func(s *site, id string) {
			s.order(id, inventory.OrderWrite)
			s.move(id, lifecycle.Again, ledger.Change{})
			s.order(id, inventory.OrderWrite)
		}},
	{invariant: "I5", name: "an order from the future", from: inventory.BurnIn,
		broken: func(s *site, id string) { s.forge(id, phase(inventory.OrderTest, "test.900")) },
		honest: func(s *site, id string) { s.order(id, inventory.OrderTest) }},
	{invariant: "I5", name: "an order under another's number", from: inventory.Provisioning,
		broken: func(s *site, id string) {
			s.order(id, inventory.OrderWrite)
			s.note(id, ledger.Change{Edit: func(st *state) { st.Work.Phase = "enter" }})
		},
		honest: func(s *site, id string) {
			s.order(id, inventory.OrderHandoff)
			s.note(id, ledger.Change{Edit: func(st *state) { st.Work.Phase = "enter" }})
		}},

	{invariant: "I6", name: "a power phase on a node in use", from: inventory.InUse,
		broken: func(s *site, id string) { s.forge(id, phase("power-off", "")) },
		honest: func(s *site, id string) { s.forge(id, phase("running", "")) }},
	{invariant: "I6", name: "a boot phase on a draining node", from: inventory.Draining,
		broken: func(s *site, id string) { s.forge(id, phase("boot-device", "")) },
		honest: func(s *site, id string) {
			s.walk(id, inventory.Fencing)
			s.forge(id, phase("boot-device", ""))
		}},

	{invariant: "I7", name: "a spec names what is not registered", from: inventory.Discovered,
		broken: func(s *site, id string) {
			edit(s, inventory.KeySpec(id), func(sp *inventory.Spec) { sp.MACs = append(sp.MACs, "52:54:00:00:ff:ff") })
		},
		honest: func(s *site, id string) {
			v := s.view(id)
			v.Spec.V.MACs = append(v.Spec.V.MACs, "52:54:00:00:ff:ff")
			s.must(s.led.Edit(s.t.Context(), s.view(id), v.Spec.V))
		}},
	{invariant: "I7", name: "a registration is taken over", from: inventory.Discovered,
		broken: func(s *site, id string) {
			v := s.view(id)
			n := s.node()
			s.put(inventory.KeyID("serial", v.Spec.V.Serial), map[string]string{"node": n})
		},
		honest: func(s *site, id string) {
			v := s.view(id)
			s.put(inventory.KeyID("serial", v.Spec.V.Serial), map[string]string{"node": id})
		}},
	{invariant: "I7", name: "something else is registered for it", from: inventory.Discovered,
		broken: func(s *site, id string) {
			s.put(inventory.KeyID("uuid", "4c4c4544-0042-3510-8052-b7c04f4d3732"), map[string]string{"node": id})
		},
		honest: func(s *site, id string) {
			v := s.view(id)
			v.Spec.V.UUID = "4c4c4544-0042-3510-8052-b7c04f4d3732"
			s.must(s.led.Edit(s.t.Context(), s.view(id), v.Spec.V))
		}},

	{invariant: "I10", name: "a spec is deleted", from: inventory.Ready,
		broken: func(s *site, id string) { s.write(inventory.Delete(inventory.KeySpec(id))) },
		honest: func(s *site, id string) {
			s.move(id, lifecycle.Retire, ledger.Change{})
			s.move(id, lifecycle.Done, ledger.Change{})
		}},
	{invariant: "I10", name: "a state is deleted", from: inventory.Ready,
		broken: func(s *site, id string) { s.write(inventory.Delete(inventory.KeyState(id))) },
		honest: func(s *site, id string) { s.write(inventory.Delete(inventory.KeyHistory(id, 1))) }},
	{invariant: "I10", name: "facts are deleted", from: inventory.BurnIn,
		broken: func(s *site, id string) { s.write(inventory.Delete(inventory.KeyFacts(id))) },
		honest: func(s *site, id string) { s.write(s.test(id, inventory.Pass)) }},
	{invariant: "I10", name: "health is deleted", from: inventory.Discovered,
		broken: func(s *site, id string) {
			s.write(health(s, id, inventory.PreventAllocation))
			s.write(inventory.Delete(inventory.KeyHealth(id, "bmc")))
		},
		honest: func(s *site, id string) {
			s.write(health(s, id, inventory.PreventAllocation))
			s.write(health(s, id))
		}},
	{invariant: "I10", name: "records without a state", from: inventory.Discovered,
		broken: func(s *site, id string) { s.put(inventory.KeyPublic("n-2"), inventory.Public{Schema: 1, ID: "n-2"}) },
		honest: func(s *site, id string) { s.node() }, node: "n-2"},

	{invariant: "I11", name: "one boot more than the limit", from: inventory.Inspecting,
		broken: func(s *site, id string) { s.boots(id, false) },
		honest: func(s *site, id string) { s.boots(id, true) }},

	{invariant: "I12", name: "generation falls", from: inventory.Inspecting,
		broken: func(s *site, id string) { s.forge(id, func(st *state, _ *history) { st.Generation-- }) },
		honest: func(s *site, id string) { s.move(id, lifecycle.Failed, ledger.Change{}) }},
	{invariant: "I12", name: "wipe falls", from: inventory.Sanitizing,
		broken: func(s *site, id string) { s.forge(id, func(st *state, _ *history) { st.Wipe-- }) },
		honest: func(s *site, id string) { s.again(id) }},
	{invariant: "I12", name: "the era goes back", from: inventory.Discovered, site: true,
		broken: func(s *site, _ string) {
			s.put(inventory.KeyEra, map[string]any{"schema": 1, "era": "01B"})
			s.put(inventory.KeyEra, map[string]any{"schema": 1, "era": "01A"})
		},
		honest: func(s *site, _ string) {
			s.put(inventory.KeyEra, map[string]any{"schema": 1, "era": "01A"})
			s.put(inventory.KeyEra, map[string]any{"schema": 1, "era": "01B"})
		}},

	{invariant: "I13", name: "a number is left out", from: inventory.BurnIn,
		broken: func(s *site, id string) {
			s.forge(id, func(st *state, h *history) { st.Seq++; h.Seq++ })
		},
		honest: func(s *site, id string) { s.forge(id, func(*state, *history) {}) }},
	{invariant: "I13", name: "a state without its line", from: inventory.BurnIn,
		broken: func(s *site, id string) {
			edit(s, inventory.KeyState(id), func(st *state) { st.Alive = inventory.Silent })
		},
		honest: func(s *site, id string) { s.forge(id, func(st *state, _ *history) { st.Alive = inventory.Silent }) }},
	{invariant: "I13", name: "a line without its state", from: inventory.BurnIn,
		broken: func(s *site, id string) {
			st := s.view(id).State.V
			s.put(inventory.KeyHistory(id, st.Seq+1), history{Schema: 1, Seq: st.Seq + 1, Kind: "step", Generation: st.Generation, Wipe: st.Wipe})
		},
		honest: func(s *site, id string) { s.note(id, ledger.Change{}) }},
	{invariant: "I13", name: "a line is written over", from: inventory.BurnIn,
		broken: func(s *site, id string) { edit(s, inventory.KeyHistory(id, 3), func(h *history) { h.Reason = "no" }) },
		honest: func(s *site, id string) { s.write(inventory.Delete(inventory.KeyHistory(id, 2))) }},
	{invariant: "I13", name: "the newest line is deleted", from: inventory.BurnIn,
		broken: func(s *site, id string) {
			s.note(id, ledger.Change{})
			s.write(inventory.Delete(inventory.KeyHistory(id, s.view(id).State.V.Seq)))
		},
		honest: func(s *site, id string) { s.write(inventory.Delete(inventory.KeyHistory(id, 1))) }},
	{invariant: "I13", name: "a line under another number", from: inventory.BurnIn,
		broken: func(s *site, id string) {
			s.forge(id, func(_ *state, h *history) {}, encode(s, inventory.KeyHistory(id, s.view(id).State.V.Seq+2), history{Schema: 1, Seq: 7}))
		},
		honest: func(s *site, id string) { s.note(id, ledger.Change{}) }},
	{invariant: "I13", name: "a way that is no row", from: inventory.Inspecting,
		broken: func(s *site, id string) {
			s.leap(id, lifecycle.Done, func(st *state, h *history) { st.State, h.To = inventory.BurnIn, inventory.BurnIn })
		},
		honest: func(s *site, id string) { s.leap(id, lifecycle.Done, nil) }},
	{invariant: "I13", name: "a move from where it was not", from: inventory.Inspecting,
		broken: func(s *site, id string) {
			s.leap(id, lifecycle.Failed, func(st *state, h *history) { h.From = inventory.Firmware })
		},
		honest: func(s *site, id string) { s.move(id, lifecycle.Drift, ledger.Change{}) }},
	{invariant: "I13", name: "a move that is told as a step", from: inventory.Inspecting,
		broken: func(s *site, id string) {
			s.leap(id, lifecycle.Done, func(st *state, h *history) { h.Kind = "step" })
		},
		honest: func(s *site, id string) { s.leap(id, lifecycle.Done, nil) }},
	{invariant: "I13", name: "a quarantine that raises no generation", from: inventory.Inspecting,
		broken: func(s *site, id string) {
			s.leap(id, lifecycle.Failed, func(st *state, _ *history) { st.Generation-- })
		},
		honest: func(s *site, id string) { s.move(id, lifecycle.Failed, ledger.Change{}) }},
	{invariant: "I13", name: "a generation that rises by itself", from: inventory.Inspecting,
		broken: func(s *site, id string) {
			s.leap(id, lifecycle.Done, func(st *state, _ *history) { st.Generation++ })
		},
		honest: func(s *site, id string) { s.leap(id, lifecycle.Done, nil) }},
	{invariant: "I13", name: "sanitizing that raises no wipe", from: inventory.Inspecting,
		broken: func(s *site, id string) { s.leap(id, lifecycle.Done, func(st *state, _ *history) { st.Wipe-- }) },
		honest: func(s *site, id string) { s.leap(id, lifecycle.Done, nil) }},
	{invariant: "I13", name: "a taint that is forgotten", from: inventory.Fencing,
		broken: func(s *site, id string) {
			s.leap(id, lifecycle.Done, func(st *state, _ *history) { st.Taint = "" }, inventory.Delete(inventory.KeyClaim(id)), inventory.Delete(inventory.KeySealed(s.view(id).Claim.V.Instance)))
		},
		honest: func(s *site, id string) { s.walk(id, inventory.Sanitizing) }},
	{invariant: "I13", name: "a line that tells another generation", from: inventory.BurnIn,
		broken: func(s *site, id string) {
			st := s.view(id).State.V
			st.Seq++
			s.write(encode(s, inventory.KeyState(id), st), encode(s, inventory.KeyHistory(id, st.Seq), history{Schema: 1, Seq: st.Seq, Kind: "step", Generation: 99, Wipe: st.Wipe}))
		},
		honest: func(s *site, id string) { s.note(id, ledger.Change{}) }},
	{invariant: "I13", name: "a move that the public is not told", from: inventory.Inspecting,
		broken: func(s *site, id string) {
			st := s.view(id).State.V
			st.State, st.From, st.Seq, st.Wipe, st.Work = inventory.Sanitizing, inventory.Inspecting, st.Seq+1, st.Wipe+1, inventory.Work{}
			s.write(encode(s, inventory.KeyState(id), st), encode(s, inventory.KeyHistory(id, st.Seq), history{Schema: 1, Seq: st.Seq, Kind: "transition",
				From: inventory.Inspecting, To: inventory.Sanitizing, Event: string(lifecycle.Done), Generation: st.Generation, Wipe: st.Wipe}))
		},
		honest: func(s *site, id string) { s.walk(id, inventory.Sanitizing) }},

	{invariant: "I14", name: "offered, and not ready", from: inventory.BurnIn,
		broken: func(s *site, id string) { s.write(avail(s, id, nil)) },
		honest: func(s *site, id string) { onSale(s, id) }},
	{invariant: "I14", name: "offered, and claimed by hand", from: inventory.Ready,
		broken: func(s *site, id string) {
			onSale(s, id)
			s.leap(id, lifecycle.Recheck, nil)
		},
		honest: func(s *site, id string) {
			onSale(s, id)
			s.move(id, lifecycle.Recheck, ledger.Change{})
		}},
	{invariant: "I14", name: "offered, and silent", from: inventory.Ready,
		broken: func(s *site, id string) {
			onSale(s, id)
			s.forge(id, func(st *state, _ *history) { st.Alive = inventory.Silent })
		},
		honest: func(s *site, id string) {
			onSale(s, id)
			s.note(id, ledger.Change{Edit: func(st *state) { st.Alive = inventory.Silent }})
		}},
	{invariant: "I14", name: "offered under a hold", from: inventory.Ready,
		broken: func(s *site, id string) {
			onSale(s, id)
			edit(s, inventory.KeySpec(id), func(sp *inventory.Spec) { sp.Holds = []inventory.Hold{{Kind: "cordon", Actor: "kim"}} })
		},
		honest: func(s *site, id string) {
			onSale(s, id)
			v := s.view(id)
			v.Spec.V.Holds = []inventory.Hold{{Kind: "cordon", Actor: "kim", Until: s.now}}
			s.must(s.led.Edit(s.t.Context(), s.view(id), v.Spec.V))
			s.offer(id) // the hold is over
		}},
	{invariant: "I14", name: "offered against an alert", from: inventory.Ready,
		broken: func(s *site, id string) {
			onSale(s, id)
			s.write(health(s, id, inventory.HardwareAlert, inventory.PreventAllocation))
		},
		honest: func(s *site, id string) {
			onSale(s, id)
			s.write(health(s, id, inventory.TenantVisible))
		}},
	{invariant: "I14", name: "offered as of another wipe", from: inventory.Ready,
		broken: func(s *site, id string) { s.write(avail(s, id, func(a *inventory.Avail) { a.Wipe-- })) },
		honest: func(s *site, id string) { onSale(s, id) }},
	{invariant: "I14", name: "offered as another SKU", from: inventory.Ready,
		broken: func(s *site, id string) {
			onSale(s, id)
			edit(s, inventory.KeySpec(id), func(sp *inventory.Spec) { sp.SKU = "large" })
		},
		honest: func(s *site, id string) {
			onSale(s, id)
			v := s.view(id)
			v.Spec.V.SKU = "large"
			s.must(s.led.Edit(s.t.Context(), s.view(id), v.Spec.V))
		}},

	{invariant: "I15", name: "a public record that lags", from: inventory.Ready,
		broken: func(s *site, id string) {
			edit(s, inventory.KeyPublic(id), func(p *inventory.Public) { p.State = inventory.Verifying })
		},
		honest: func(s *site, id string) {
			edit(s, inventory.KeyPublic(id), func(p *inventory.Public) { p.Detail = "said otherwise" })
		}},
	{invariant: "I15", name: "no public record", from: inventory.Ready,
		broken: func(s *site, id string) { s.write(inventory.Delete(inventory.KeyPublic(id))) },
		honest: func(s *site, id string) { onSale(s, id) }},
	{invariant: "I15", name: "a public record that forgets the tenant", from: inventory.InUse,
		broken: func(s *site, id string) {
			edit(s, inventory.KeyPublic(id), func(p *inventory.Public) { p.Tenant = "" })
		},
		honest: func(s *site, id string) {
			edit(s, inventory.KeyPublic(id), func(p *inventory.Public) { p.Ready = true })
		}},
	{invariant: "I15", name: "rentable in use", from: inventory.InUse,
		broken: func(s *site, id string) {
			edit(s, inventory.KeyPublic(id), func(p *inventory.Public) { p.Rentable = true })
		},
		honest: func(s *site, id string) { s.note(id, ledger.Change{}) }},
	{invariant: "I15", name: "a public record that says sanitized while it is not", from: inventory.Ready,
		broken: func(s *site, id string) {
			s.move(id, lifecycle.Lost, ledger.Change{})
			s.move(id, lifecycle.Done, ledger.Change{})
			edit(s, inventory.KeyPublic(id), func(p *inventory.Public) { p.Sanitized = true })
		},
		honest: func(s *site, id string) {
			s.move(id, lifecycle.Lost, ledger.Change{})
			s.move(id, lifecycle.Done, ledger.Change{})
		}},
	{invariant: "I15", name: "another node's public record", from: inventory.Ready,
		broken: func(s *site, id string) {
			edit(s, inventory.KeyPublic(id), func(p *inventory.Public) { p.ID = "n-other" })
		},
		honest: func(s *site, id string) { edit(s, inventory.KeyPublic(id), func(p *inventory.Public) { p.Name = "b" }) }},
	{invariant: "I15", name: "on sale, and the public record says no", from: inventory.Ready,
		broken: func(s *site, id string) {
			onSale(s, id)
			edit(s, inventory.KeyPublic(id), func(p *inventory.Public) { p.Rentable = false })
		},
		honest: func(s *site, id string) {
			onSale(s, id)
			_, err := s.led.Withdraw(s.t.Context(), s.view(id))
			s.must(err)
		}},
	{invariant: "I15", name: "a public record of 3 KiB and a byte", from: inventory.Ready,
		broken: func(s *site, id string) { s.pad(id, 3<<10+1) },
		honest: func(s *site, id string) { s.pad(id, 3<<10) }},
	{invariant: "I15", name: "a record of more than 64 KiB", from: inventory.Discovered, site: true,
		broken: func(s *site, _ string) { s.put(inventory.KeyImage("x"), strings.Repeat("x", 64<<10)) },
		honest: func(s *site, _ string) { s.put(inventory.KeyImage("x"), strings.Repeat("x", 64<<10-2)) }},
}

// pad makes a public record of a size.
func (s *site) pad(id string, size int) {
	op := encode(s, inventory.KeyPublic(id), s.view(id).Public.V)
	op.Value = append(op.Value, strings.Repeat(" ", size-len(op.Value))...)
	s.write(op)
}

// boots has another node boot, and then this one, at a site that boots one at a time; in turn, or both at once.
func (s *site) boots(id string, inTurn bool) {
	limits := inventory.DefaultLimits()
	limits.Boot.Site = 1
	s.put(inventory.KeyLimits, limits)
	other := s.node()
	s.walk(other, inventory.Inspecting)
	s.forge(other, phase("power-on", ""))
	if inTurn {
		s.order(other, inventory.OrderInspect)
	}
	s.forge(id, phase("power-off", ""))
}
