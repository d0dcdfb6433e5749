package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A fakeMachine remembers what was done to it.
type fakeMachine struct {
	mu    sync.Mutex
	acts  []string
	clock time.Time
}

func (m *fakeMachine) note(act string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acts = append(m.acts, act)
	return errors.New("this machine is a fake")
}
func (m *fakeMachine) Restart() error  { return m.note("restart") }
func (m *fakeMachine) PowerOff() error { return m.note("power-off") }
func (m *fakeMachine) SetClock(t time.Time) error {
	m.clock = t
	return nil
}

// A screen is what a person would see.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newAgent is one that booted with the daemon's session and has not redeemed yet.
func newAgent(t *testing.T, d *fakeDaemon, orders map[string]orderFunc) (*agent, *screen, *fakeMachine) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "session.json")
	if err := os.WriteFile(file, d.session("127.0.0.1"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := readSession(file, d.pin())
	if err != nil {
		t.Fatal(err)
	}
	out, m := &screen{}, &fakeMachine{}
	log := slog.New(slog.NewTextHandler(out, nil))
	a := &agent{session: s, page: newPage(out, uptime), log: log, machine: m, clock: newClock(t.Context(), s, m.SetClock, log),
		orders: orders, self: self{bootID: "boot-1", hardware: inventory.Hardware{Serial: "SN-1", NICs: []inventory.NIC{{MAC: "52:54:00:00:00:01"}}}},
		digest: func() (string, error) { return "sha256:00", nil }, pause: 20 * time.Millisecond}
	return a, out, m
}

// start redeems and works in the background; the channel gives what work returned.
func start(t *testing.T, a *agent) <-chan error {
	t.Helper()
	if err := a.redeem(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { ended <- a.work(ctx) }()
	t.Cleanup(stop)
	return ended
}

// counting is an order that counts how often it was done.
func counting(n *atomic.Int32) orderFunc {
	return func(context.Context, inventory.Order) (result, error) {
		n.Add(1)
		return result{report: inventory.Report{Hardware: &inventory.Hardware{Serial: "SN-1"}}}, nil
	}
}

func results(d *fakeDaemon) []inventory.Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

func reports(d *fakeDaemon) []inventory.Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reports
}

func TestOrdersAreDoneAndReported(t *testing.T) {
	d := newDaemon(t, nil)
	d.orders = []inventory.Order{{ID: "o1", Kind: "inspect"}, {ID: "o2", Kind: "test"}}
	var inspected atomic.Int32
	var a *agent
	a, out, _ := newAgent(t, d, map[string]orderFunc{
		"inspect": counting(&inspected),
		"test": func(ctx context.Context, o inventory.Order) (result, error) {
			a.tell(inventory.Progress{What: "half way", Done: 1, Total: 2, Unit: "halves"})
			sleep(ctx, 150*time.Millisecond)
			return result{report: inventory.Report{Test: &inventory.TestRun{Verdict: inventory.Fail}}}, &retryable{errors.New("went wrong")}
		},
	})
	start(t, a)
	d.until("two results", 5*time.Second, func() bool { return len(d.done) == 2 })
	r := results(d)
	if r[0].Hardware == nil || r[0].Error != "" || r[0].Finished.Before(r[0].Started) || r[0].BootID != "boot-1" || inspected.Load() != 1 {
		t.Errorf("first %+v", r[0])
	}
	if r[1].Test == nil || r[1].Error != "went wrong" || !r[1].Retry {
		t.Errorf("second %+v", r[1])
	}
	beats := 0
	for _, q := range reports(d) {
		if q.Order == "o2" && !q.Done && q.Progress != nil && q.Progress.What == "half way" {
			beats++
		}
	}
	if beats == 0 {
		t.Error("no heartbeat told how far it is")
	}
	if text := out.String(); !strings.Contains(text, "testing this machine: half way, 50 % (1 of 2 halves)") || strings.Contains(text, testToken) {
		t.Errorf("console:\n%s", text)
	}
}

// A claim raises the generation of a warm node: the agent follows, and never goes back.
func TestTheGenerationRises(t *testing.T) {
	d := newDaemon(t, nil)
	d.orders = []inventory.Order{{ID: "o1", Kind: "inspect", Generation: 9}, {ID: "o2", Kind: "inspect", Generation: 8}}
	var n atomic.Int32
	a, _, _ := newAgent(t, d, map[string]orderFunc{"inspect": counting(&n)})
	start(t, a)
	d.until("two results", 5*time.Second, func() bool { return len(d.done) == 2 })
	if r := results(d); r[0].Error != "" || r[0].Generation != 9 || !strings.Contains(r[1].Error, "generation 8") || r[1].Generation != 9 || n.Load() != 1 {
		t.Errorf("done %d times: %+v", n.Load(), r)
	}
}

// The answer to the first redemption is lost: the second try uses the same key, so the daemon takes it for the same agent.
func TestALostRedemptionIsRepeatedWithTheSameKey(t *testing.T) {
	d := newDaemon(t, nil)
	d.drop = func(path string, _ []byte) bool { return strings.HasSuffix(path, "redeem") && d.redeems == 1 }
	a, _, _ := newAgent(t, d, nil)
	if err := a.redeem(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d.redeems != 2 || a.generation != 7 || a.session.Token != "" {
		t.Errorf("%d redemptions, generation %d", d.redeems, a.generation)
	}
	// Another boot with the same token has another key: refused for good.
	b, _, _ := newAgent(t, d, nil)
	var f *fault
	if err := b.redeem(t.Context()); !errors.As(err, &f) || !strings.Contains(err.Error(), "403") {
		t.Errorf("got %v", err)
	}
}

func TestTheTokenGoesToNoOtherServer(t *testing.T) {
	d, other := newDaemon(t, nil), newDaemon(t, nil)
	a, out, _ := newAgent(t, d, nil)
	a.session.Server = other.https.URL // the wire leads somewhere else, the CA is the pinned one
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	if err := a.redeem(ctx); err == nil || other.redeems != 0 {
		t.Errorf("got %v, the other server saw %d redemptions", err, other.redeems)
	}
	if !strings.Contains(out.String(), "waiting for the server") {
		t.Errorf("nothing on the console: %s", out)
	}
}

func TestTheSameOrderIsNotDoneTwice(t *testing.T) {
	d := newDaemon(t, nil)
	d.orders = []inventory.Order{{ID: "o1", Kind: "inspect"}}
	d.forget = 1
	var n atomic.Int32
	a, _, _ := newAgent(t, d, map[string]orderFunc{"inspect": counting(&n)})
	start(t, a)
	d.until("the result once more", 5*time.Second, func() bool { return len(d.done) == 2 })
	if r := results(d); n.Load() != 1 || r[1].Hardware == nil || !r[1].Started.Equal(r[0].Started) {
		t.Errorf("done %d times, last result %+v", n.Load(), r[1])
	}
}

func TestARevokedSessionStopsTheOrder(t *testing.T) {
	d := newDaemon(t, nil)
	d.orders = []inventory.Order{{ID: "o1", Kind: "sanitize"}}
	begun := make(chan bool)
	a, _, _ := newAgent(t, d, map[string]orderFunc{"sanitize": func(ctx context.Context, _ inventory.Order) (result, error) {
		close(begun)
		<-ctx.Done()
		return result{}, ctx.Err()
	}})
	ended := start(t, a)
	<-begun
	d.change(func() { d.revoked = "another boot session has begun" })
	var over *revoked
	if err := <-ended; !errors.As(err, &over) || !strings.Contains(err.Error(), "another boot session") {
		t.Fatalf("got %v", err)
	}
	a.identity.wipe()
	if c, _ := a.identity.certificate(nil); len(c.Certificate) != 0 || !bytes.Equal(a.identity.key, make([]byte, len(a.identity.key))) {
		t.Error("the key is still there")
	}
	if len(results(d)) != 0 {
		t.Error("a result was sent under a revoked session")
	}
}

func TestAnOrderGoesOnWhileTheServerIsAway(t *testing.T) {
	d := newDaemon(t, nil)
	d.orders = []inventory.Order{{ID: "o1", Kind: "write"}}
	var away atomic.Bool
	var missed atomic.Int32
	d.drop = func(path string, _ []byte) bool {
		if away.Load() {
			missed.Add(1)
		}
		return away.Load()
	}
	a, out, _ := newAgent(t, d, map[string]orderFunc{"write": func(ctx context.Context, _ inventory.Order) (result, error) {
		away.Store(true)
		for missed.Load() < 3 { // heartbeats fail
			if ctx.Err() != nil {
				return result{}, ctx.Err()
			}
			time.Sleep(10 * time.Millisecond)
		}
		return result{report: inventory.Report{Written: &inventory.Written{Bytes: 1}}}, nil
	}})
	start(t, a)
	d.until("results that arrive and are not acknowledged", 10*time.Second, func() bool { return len(d.done) >= 1 && missed.Load() >= 5 })
	away.Store(false)
	last := len(results(d))
	d.change(func() { d.orders = []inventory.Order{{ID: "o2", Kind: "write"}} })
	d.until("the next order", 20*time.Second, func() bool {
		for _, r := range d.done[last:] {
			if r.Order == "o2" && r.Error == "" {
				return true
			}
		}
		return missed.Add(1) < 0 // keeps o2's own wait short: its heartbeats do not fail
	})
	if r := results(d)[0]; r.Error != "" || r.Written == nil {
		t.Errorf("result %+v", r)
	}
	if text := out.String(); !strings.Contains(text, "the server does not answer") || !strings.Contains(text, "the server answers again") {
		t.Errorf("console:\n%s", text)
	}
}

func TestWhatIsNotOursIsRefusedAndSaid(t *testing.T) {
	for name, c := range map[string]struct {
		order inventory.Order
		want  string
	}{
		"another node":       {inventory.Order{Kind: "inspect", Node: "n-other", Session: testSession, Generation: 7}, "n-other"},
		"an older order":     {inventory.Order{Kind: "inspect", Node: testNode, Session: testSession, Generation: 6}, "generation 6"},
		"another boot":       {inventory.Order{Kind: "inspect", Node: testNode, Session: "s-0", Generation: 7}, "session s-0"},
		"an unknown kind":    {inventory.Order{Kind: "dance", Node: testNode, Session: testSession, Generation: 7}, "does not know"},
		"a fault of our own": {inventory.Order{Kind: "panics", Node: testNode, Session: testSession, Generation: 7}, "index out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			a, _, _ := newAgent(t, newDaemon(t, nil), map[string]orderFunc{"inspect": counting(&n),
				"panics": func(context.Context, inventory.Order) (result, error) { return result{}, []error{}[n.Load()] }})
			a.generation = 7
			if _, err := a.try(t.Context(), c.order); err == nil || !strings.Contains(err.Error(), c.want) || n.Load() != 0 {
				t.Errorf("got %v, done %d times", err, n.Load())
			}
		})
	}
}

func TestTheDaemonMayWantSomethingElse(t *testing.T) {
	d := newDaemon(t, nil)
	d.orders = []inventory.Order{{ID: "o1", Kind: "sanitize"}}
	begun := make(chan bool)
	var n atomic.Int32
	a, _, _ := newAgent(t, d, map[string]orderFunc{
		"sanitize": func(ctx context.Context, _ inventory.Order) (result, error) {
			close(begun)
			<-ctx.Done()
			return result{}, errors.New("cut short")
		},
		"inspect": counting(&n),
	})
	start(t, a)
	<-begun
	d.change(func() { d.orders = []inventory.Order{{ID: "o2", Kind: "inspect"}} })
	d.until("the other order", 5*time.Second, func() bool { return len(d.done) == 1 && d.done[0].Order == "o2" })
	told := false
	for _, q := range reports(d) {
		told = told || q.Order == "o1" && q.Done && strings.Contains(q.Error, "the daemon wants order o2 (inspect) instead")
	}
	if !told {
		t.Error("what became of the first order was not said")
	}
}

// Reboot and power-off happen when the daemon has the report, not before.
func TestPowerOrdersWaitForTheDaemon(t *testing.T) {
	for _, kind := range []string{inventory.OrderReboot, inventory.OrderPowerOff} {
		t.Run(kind, func(t *testing.T) {
			d := newDaemon(t, nil)
			d.orders = []inventory.Order{{ID: "o1", Kind: kind}}
			a, _, m := newAgent(t, d, nil)
			a.orders = a.table(&images{})
			err := <-start(t, a)
			if err == nil || len(results(d)) != 1 || len(m.acts) != 1 || !strings.Contains(kind, strings.TrimPrefix(m.acts[0], "re")[:2]) && m.acts[0] != "restart" {
				t.Errorf("err %v, %d results, acts %v", err, len(results(d)), m.acts)
			}
		})
	}
}

// A machine whose clock is years off: TLS is judged by the server's date, and the clock is set from the daemon's word.
func TestTheClockIsTheServers(t *testing.T) {
	far := func() time.Time { return time.Now().AddDate(9, 0, 0) }
	d := newDaemon(t, far)
	a, _, m := newAgent(t, d, nil)
	if err := a.redeem(t.Context()); err != nil {
		t.Fatal(err)
	}
	if off := m.clock.Sub(far()).Abs(); off > time.Minute {
		t.Errorf("the clock was set to %v", m.clock)
	}
	// Without a date from the server the session's own time does.
	d.http.Close()
	c := newClock(t.Context(), session{HTTP: a.session.HTTP, Now: far()}, m.SetClock, slog.New(slog.DiscardHandler))
	if c.Now().Sub(far()).Abs() > time.Minute {
		t.Errorf("now %v", c.Now())
	}
}

func TestSessionsAreCheckedBeforeUse(t *testing.T) {
	d := newDaemon(t, nil)
	good := string(d.session("127.0.0.1"))
	other := newDaemon(t, nil)
	for name, c := range map[string]struct{ text, pin, want string }{
		"good":               {good, d.pin(), ""},
		"not JSON":           {"{" + testToken, d.pin(), "not JSON"},
		"no token":           {strings.Replace(good, testToken, "", 1), d.pin(), "lacks its id, node or token"},
		"no TLS":             {strings.Replace(good, "https://", "http://", 1), d.pin(), "without TLS"},
		"no server":          {strings.Replace(good, "http://127", "127", 1), d.pin(), "names no server"},
		"no pin":             {good, "", "no usable hostler.ca"},
		"another CA":         {good, other.pin(), "hashes to"},
		"a pin of no kind":   {good, strings.TrimPrefix(d.pin(), "sha256:"), "no usable hostler.ca"},
		"two certificates":   {strings.Replace(good, `"ca_pem":"`, fmt.Sprintf(`"ca_pem":"%s`, strings.ReplaceAll(other.caPEM(), "\n", `\n`)), 1), d.pin(), "not one PEM"},
		"no certificate":     {strings.Replace(good, "BEGIN", "BEGUN", 1), d.pin(), "not one PEM"},
		"a file that is not": {"", d.pin(), "has no session"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "session.json")
			if c.text != "" {
				if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := readSession(file, c.pin)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), testToken) {
				t.Errorf("the error shows the token: %v", err)
			}
			if err == nil && (s.Node != testNode || s.ca == nil) {
				t.Errorf("session %+v", s)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("the file is still there")
			}
		})
	}
}
