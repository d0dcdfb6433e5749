package provisioner

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// What inspection must not let pass: the node ends in quarantine, and the reason says slot, expected, found.
func TestInspectionFindsWhatIsWrong(t *testing.T) {
	sku := func(edit func(*inventory.SKU)) func(*world) {
		return func(w *world) {
			s := w.view().SKU.V
			edit(&s)
			w.put(inventory.KeySKU("virtual"), s)
		}
	}
	answer := func(edit func(*inventory.Report)) func(*world) {
		return func(w *world) {
			w.answer = func(o inventory.Order, r *inventory.Report) {
				if o.Kind == inventory.OrderInspect {
					edit(r)
				}
			}
		}
	}
	for _, c := range []struct {
		name string
		edit func(*world)
		want []string
	}{
		{"a drive is missing", func(w *world) { w.disks = w.disks[:1] }, []string{"nvme1: expected", "found nothing"}},
		{"too little memory", func(w *world) { w.memory = 2 << 30 }, []string{"memory: expected at least 4096 MiB, found 2048 MiB"}},
		{"both", func(w *world) { w.disks, w.memory = w.disks[:1], 2<<30 }, []string{"nvme1", "memory"}},
		{"no answer about memory", func(w *world) { w.memory = 0 }, []string{"memory: expected", "found no answer"}},
		{"no medium at all, and none asked for", func(w *world) {
			w.disks = nil
			sku(func(s *inventory.SKU) { s.Media = nil })(w)
		}, []string{"no medium was ever recorded"}},
		{"another chassis", answer(func(r *inventory.Report) { r.Hardware.Serial = "SER-X" }), []string{"expected serial SER-A, found SER-X"}},
		{"no serial", answer(func(r *inventory.Report) { r.Hardware.Serial = "" }), []string{"expected serial SER-A, found "}},
		{"serial of another node", func(w *world) {
			v := w.view()
			spec := v.Spec.V
			spec.Serial = ""
			w.must(w.led.Edit(w.t.Context(), v, spec))
			_, err := w.led.Add(w.t.Context(), inventory.Spec{Name: "b", Serial: "SER-A"}, "test", "imported")
			w.must(err)
		}, []string{"serial SER-A belongs to node n-"}},
		{"no hardware in the report", answer(func(r *inventory.Report) { r.Hardware = nil }), []string{"reported no hardware"}},
		{"the agent gives up", answer(func(r *inventory.Report) { r.Error = "lspci burnt" }), []string{"could not be read: lspci burnt"}},
		{"the agent fails twice", answer(func(r *inventory.Report) { r.Error, r.Retry = "busy", true }), []string{"could not be read: busy"}},
		{"its SKU is gone", func(w *world) {
			w.until(inventory.Inspecting)
			_, err := w.store.Commit(w.t.Context(), inventory.Txn{Then: []inventory.Op{inventory.Delete(inventory.KeySKU("virtual"))}})
			w.must(err)
		}, []string{`its SKU "virtual" is not declared`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.edit(w)
			w.until(inventory.Quarantined)
			w.in(inventory.Quarantined, c.want...)
			if v := w.view(); v.State.V.Taint == "" || v.Avail.Exists() || v.Public.V.Health != "unhealthy" || w.entered(inventory.Ready) != 0 {
				t.Errorf("taint %q, public %+v", v.State.V.Taint, v.Public.V)
			}
			w.whole()
		})
	}
}

// A drive that held data and is gone is never "nothing to erase", even where the SKU does not ask for it.
func TestDriveGoneSinceLastTime(t *testing.T) {
	w := newWorld(t)
	s := w.view().SKU.V
	s.Media = s.Media[:1]
	w.put(inventory.KeySKU("virtual"), s)
	w.until(inventory.Ready)
	w.rent("r")
	w.until(inventory.InUse)
	gone := w.disks[1]
	w.disks = w.disks[:1]
	w.release("r")
	w.until(inventory.Quarantined)
	w.in(inventory.Quarantined, "slot 0000:00:05.0: expected nvme1 serial D1", "found nothing", "held data since the last certificate", "hostler node return")
	w.wish(inventory.WishReturn, "") // it does not help to ask again
	w.until(inventory.Quarantined)
	w.in(inventory.Quarantined, "serial D1")

	w.disks = append(w.disks, gone)
	w.wish(inventory.WishReturn, "")
	w.until(inventory.Ready)
	w.whole()
}

// A drive that was exchanged in the same slot is another drive.
func TestDriveExchanged(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	w.rent("r")
	w.until(inventory.InUse)
	w.disks[1].Serial = "NEW"
	w.release("r")
	w.until(inventory.Quarantined)
	w.in(inventory.Quarantined, "serial D1", "found nothing")
}

// What the agent reports of erasing decides; without every proof the taint stays.
func TestSanitizingNeedsEveryProof(t *testing.T) {
	for _, c := range []struct {
		name   string
		edit   func(*inventory.Report, int) // int: how often it was asked, from 1
		orders int                          // how many orders it took
		want   string                       // "": ready
	}{
		{"all proven", func(*inventory.Report, int) {}, 1, ""},
		{"one without proof", func(r *inventory.Report, _ int) { r.Proofs = r.Proofs[:1] }, 1, "no proof for nvme1 serial D1"},
		{"none", func(r *inventory.Report, _ int) { r.Proofs = nil }, 1, "no proof for nvme0"},
		{"one not passed", func(r *inventory.Report, _ int) {
			r.Proofs[1].Passed, r.Proofs[1].Faults = false, []string{"marker 3 is still there"}
		}, 1, "nvme1 serial D1 in slot 0000:00:05.0: marker 3 is still there"},
		{"proof of another drive", func(r *inventory.Report, _ int) { r.Proofs[1].Medium.Serial = "X" }, 1, "no proof for nvme1 serial D1"},
		{"an error beside good proofs", func(r *inventory.Report, _ int) { r.Error = "power loss" }, 1, "power loss"},
		{"once busy", func(r *inventory.Report, n int) {
			if n == 1 {
				r.Error, r.Retry, r.Proofs = "busy", true, nil
			}
		}, 2, ""},
		{"busy twice", func(r *inventory.Report, _ int) { r.Error, r.Retry, r.Proofs = "busy", true, nil }, 2, "busy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			var asked []string
			w.answer = func(o inventory.Order, r *inventory.Report) {
				if o.Kind == inventory.OrderSanitize {
					asked = append(asked, o.ID)
					c.edit(r, len(asked))
				}
			}
			end := inventory.Ready
			if c.want != "" {
				end = inventory.Quarantined
			}
			w.until(end)
			v := w.view()
			if c.want != "" {
				w.in(end, c.want)
				if v.State.V.Taint == "" || v.Certificate.Exists() {
					t.Errorf("taint %q, certificate %v", v.State.V.Taint, v.Certificate.Exists())
				}
			}
			if len(asked) != c.orders {
				t.Errorf("orders %v", asked)
			}
			w.whole()
		})
	}
}

// Only pass is a pass. A new node has one chance, a known one two.
func TestTestRuns(t *testing.T) {
	verdict := func(words ...string) func(*inventory.Report, int) {
		return func(r *inventory.Report, n int) {
			if n <= len(words) {
				r.Test.Verdict = words[n-1]
				r.Test.Results = []inventory.TestResult{{Test: "stream", Component: "dimm 3", Verdict: words[n-1], Reason: "1 bit"}}
			}
		}
	}
	for _, c := range []struct {
		name  string
		known bool // it was rented before: verifying, not burn-in
		edit  func(*inventory.Report, int)
		runs  int
		want  string // "": ready
	}{
		{"new, passes", false, verdict(), 1, ""},
		{"new, fails once", false, verdict(inventory.Fail), 1, "stream of dimm 3: fail (1 bit)"},
		{"new, inconclusive", false, verdict(inventory.Inconclusive), 1, "smoke: inconclusive"},
		{"known, fails once", true, verdict(inventory.Fail), 2, ""},
		{"known, fails twice", true, verdict(inventory.Fail, inventory.Fail), 2, "stream of dimm 3: fail (1 bit)"},
		{"known, aborted, then inconclusive", true, verdict(inventory.Aborted, inventory.Inconclusive), 2, "inconclusive"},
		{"known, no verdict at all", true, verdict("", ""), 2, "test profile smoke: "},
		{"known, no run in the report", true, func(r *inventory.Report, _ int) { r.Test, r.Error = nil, "no such tool" }, 2, "no test run: no such tool"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			if c.known {
				w.until(inventory.Ready)
				w.rent("r")
				w.until(inventory.InUse)
				w.release("r")
			}
			n := 0
			w.answer = func(o inventory.Order, r *inventory.Report) {
				if o.Kind == inventory.OrderTest {
					n++
					c.edit(r, n)
				}
			}
			if c.want == "" {
				w.until(inventory.Ready)
			} else {
				w.until(inventory.Quarantined)
				w.in(inventory.Quarantined, c.want)
			}
			if n != c.runs {
				t.Errorf("%d runs", n)
			}
			if c.known && w.entered(inventory.Verifying) != 1 || !c.known && w.entered(inventory.BurnIn) != 1 {
				t.Errorf("%d times verifying, %d times burn-in", w.entered(inventory.Verifying), w.entered(inventory.BurnIn))
			}
			w.whole()
		})
	}
}

// sessions lists the boot sessions that were made for a node in a state.
func (w *world) sessions(state inventory.State) []string {
	w.t.Helper()
	all, err := w.store.Since(1)
	w.must(err)
	var out []string
	for _, b := range all {
		for _, e := range b.Events {
			if e.KV.Key != inventory.KeySession(w.id) {
				continue
			}
			d, err := inventory.Decode[inventory.Session](e.KV)
			w.must(err)
			if d.V.Purpose == string(state) && !slices.Contains(out, d.V.ID) {
				out = append(out, d.V.ID)
			}
		}
	}
	return out
}

// An agent that falls silent, or a machine that boots again, in the middle of any work: a new session each time, at most
// two, then quarantine (fencing for what is half a tenant's).
func TestAgentLostInTheMiddle(t *testing.T) {
	trouble := map[string]func(w *world, kind string, times *int){
		"silent": func(w *world, kind string, times *int) {
			w.endless = func(o inventory.Order) bool {
				if o.Kind == kind && *times > 0 {
					*times--
					w.mute = true
				}
				return w.mute
			}
			w.bmc = func(a Act) error { // a new boot is a new agent
				if a == PowerOn {
					w.mute = false
				}
				return nil
			}
		},
		"boots again": func(w *world, kind string, times *int) {
			w.crash = func(o inventory.Order) bool {
				if o.Kind == kind && *times > 0 {
					*times--
					return true
				}
				return false
			}
		},
	}
	for _, c := range []struct {
		kind  string
		state inventory.State
		end   inventory.State
	}{
		{inventory.OrderInspect, inventory.Inspecting, inventory.Quarantined},
		{inventory.OrderSanitize, inventory.Sanitizing, inventory.Quarantined},
		{inventory.OrderTest, inventory.BurnIn, inventory.Quarantined},
		{inventory.OrderWrite, inventory.Provisioning, inventory.Fencing},
	} {
		for how, set := range trouble {
			for _, times := range []int{1, 2, 3} {
				t.Run(strings.Join([]string{c.kind, how, []string{"", "once", "twice", "for ever"}[times]}, " "), func(t *testing.T) {
					w := newWorld(t)
					good := inventory.Ready
					if c.state == inventory.Provisioning {
						w.until(inventory.Ready)
						w.rent("r")
						good = inventory.InUse
					}
					left := times
					if times == 3 {
						left = 1000
					}
					set(w, c.kind, &left)
					before := w.now
					if times < 3 {
						w.until(good)
					} else {
						w.until(c.end)
						if n := len(w.sessions(c.state)); n > 3 {
							t.Errorf("%d sessions", n)
						}
						if c.end == inventory.Fencing {
							if in := w.view().Instance.V; in.Phase != inventory.InstanceFailed || in.ReadyReason == "" {
								t.Errorf("the tenant was not told: %+v", in)
							}
						}
					}
					if took := w.now.Sub(before); took > 8*time.Minute {
						t.Errorf("it took %v to notice", took)
					}
					w.whole()
				})
			}
		}
	}
}

// A machine that never comes up is power-cycled once more, then quarantined; the reason says how far it came.
func TestMachineThatDoesNotBoot(t *testing.T) {
	w := newWorld(t)
	w.step, w.dead = 20*time.Second, true
	w.loop.Rules.Patience = 10 * time.Minute
	w.until(inventory.Quarantined)
	w.in(inventory.Quarantined, "no agent after 10m0s", "no DHCP request", "boot 2 of 2")
	if w.count(PowerOn) != 2 || len(w.sessions(inventory.Inspecting)) != 2 {
		t.Errorf("%d power-ons, sessions %v", w.count(PowerOn), w.sessions(inventory.Inspecting))
	}
	w.whole()
}

// A controller that fails now and then is asked again, later each time; one that refuses us is not.
func TestControllerTrouble(t *testing.T) {
	timeout := errors.New("timeout")
	for _, c := range []struct {
		name  string
		act   Act
		err   error
		times int
		tries int
		want  string // "": ready
	}{
		{"power off fails 7 times", PowerOff, timeout, 7, 8, ""},
		{"power off keeps failing", PowerOff, timeout, 1000, 8, "switching it off through its BMC: timeout"},
		{"boot device keeps failing", BootNetwork, timeout, 1000, 8, "setting the next boot to network: timeout"},
		{"power on keeps failing", PowerOn, timeout, 1000, 8, "switching it on through its BMC: timeout"},
		{"wrong credentials", PowerOff, errFatal, 1000, 1, "switching it off through its BMC: wrong credentials"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			left := c.times
			var at []time.Time
			w.bmc = func(a Act) error {
				if a != c.act {
					return nil
				}
				at = append(at, w.now)
				if left--; left >= 0 {
					return c.err
				}
				return nil
			}
			if c.want == "" {
				w.until(inventory.Ready)
			} else {
				w.until(inventory.Quarantined)
				w.in(inventory.Quarantined, c.want)
			}
			if len(at) != c.tries {
				t.Errorf("%d tries", len(at))
			}
			for i := 1; i+1 < len(at); i++ {
				if a, b := at[i].Sub(at[i-1]), at[i+1].Sub(at[i]); b < a || b > time.Minute+3*time.Second {
					t.Errorf("try %d came %v after the one before, the next after %v", i+1, a, b)
				}
			}
			w.whole()
		})
	}
}

// A machine that is on, or whose controller does not answer, is not taken by approve: auto.
func TestApproveAutoTakesOnlyMachinesThatAreOff(t *testing.T) {
	w := newWorld(t)
	w.power = "on"
	w.tenant = true // somebody's
	for range 100 {
		w.turn()
	}
	w.in(inventory.Discovered, "imported")
	if n := w.count(ReadPower); n < 2 || n > 5 || len(w.acts) != n {
		t.Errorf("acts %v", w.acts)
	}
	if say := w.loop.Live(w.id).Say; !strings.Contains(say, "approve it by hand") {
		t.Errorf("says %q", say)
	}
	w.bmc = func(Act) error { return errors.New("timeout") }
	w.power = "off"
	for range 100 {
		w.turn()
	}
	w.in(inventory.Discovered, "imported")
	w.bmc, w.tenant = nil, false
	w.until(inventory.Ready)
}

// While the store is away nothing is done to any machine, and afterwards work goes on by itself.
func TestNoActWhileTheStoreIsAway(t *testing.T) {
	w := newWorld(t)
	w.bmc = func(a Act) error {
		if a == PowerOff {
			return errors.New("timeout")
		}
		return nil
	}
	w.turns(100, "trying", func() bool { return w.count(PowerOff) == 2 })
	w.away = true
	rev, acts := w.store.Rev(), len(w.acts)
	for range 120 {
		w.turn()
	}
	if w.store.Rev() != rev || len(w.acts) != acts {
		t.Errorf("%d writes, acts %v", w.store.Rev()-rev, w.acts[acts:])
	}
	if say := w.loop.Live(w.id).Say; !strings.Contains(say, "not available") {
		t.Errorf("says %q", say)
	}
	w.away, w.bmc = false, nil
	w.until(inventory.Ready)
	w.whole()
}
