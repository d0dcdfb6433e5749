package provisioner

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// fence writes a program that behaves like a switch with one port: it keeps where the port is in a file.
func fence(t *testing.T, script string) ExecFence {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "fence")
	text := "#!/bin/sh\nset -e\nstate=" + filepath.Join(dir, "state") + "\n" + script
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return ExecFence{Program: []string{"/bin/sh", path}}
}

const honest = `case $1 in
isolate) echo '{"port":"isolated"}' >$state ;;
attach) if [ -n "$3" ]; then echo "{\"port\":\"tenant\",\"instance\":\"$3\"}" >$state; else echo '{"port":"provisioning"}' >$state; fi ;;
observe) [ "$2" = 52:54:00:00:00:01 ]; cat $state ;;
*) exit 64 ;;
esac`

func TestExecFence(t *testing.T) {
	v := inventory.NodeView{Spec: exists(inventory.Spec{Name: "a", MACs: []string{"52:54:00:00:00:01"}})}
	for _, c := range []struct {
		name, script, want string // want "": all three work
	}{
		{"honest", honest, ""},
		{"says yes, does nothing", `[ $1 != observe ] || echo '{"port":"tenant","instance":"i-0"}'`, "was accepted, but the port is tenant i-0"},
		{"fails", `echo "no such port" >&2; exit 3`, "exit status 3: no such port"},
		{"prints no JSON", `[ $1 != observe ] || echo isolated`, "not the JSON it should be"},
		{"cannot observe", `[ $1 != observe ]`, "exit status 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := fence(t, c.script)
			for verb, do := range map[string]func() error{
				"isolate": func() error { return f.Isolate(t.Context(), v) },
				"provide": func() error { return f.Provide(t.Context(), v) },
				"attach":  func() error { return f.Attach(t.Context(), v, "i-1") },
			} {
				err := do()
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%s: got %v", verb, err)
				}
			}
		})
	}
	f := fence(t, honest)
	if err := f.Attach(t.Context(), v, ""); err == nil {
		t.Error("attached to nobody's network")
	}
	if err := f.Isolate(t.Context(), inventory.NodeView{}); err == nil || !strings.Contains(err.Error(), "no MAC") {
		t.Errorf("a node without a port: %v", err)
	}
	if err := (ExecFence{Program: []string{"/does/not/exist"}}).Isolate(t.Context(), v); err == nil || !strings.Contains(err.Error(), "/does/not/exist isolate") {
		t.Errorf("no program: %v", err)
	}
}

// The program gets the act's warrant, so that it can refuse a replica that was replaced.
func TestExecFenceKnowsTheTerm(t *testing.T) {
	f := fence(t, `echo "under $HOSTLER_TERM/$HOSTLER_GENERATION" >&2; exit 3`)
	v := inventory.NodeView{Spec: exists(inventory.Spec{Name: "a", MACs: []string{"52:54:00:00:00:01"}})}
	err := f.Isolate(context.WithValue(t.Context(), warrantKey{}, Warrant{Term: 77, Generation: 3}), v)
	if err == nil || !strings.Contains(err.Error(), "under 77/3") {
		t.Errorf("got %v", err)
	}
}

// A second daemon takes the shards; the first writes nothing more, whatever it still believes.
func TestTermOfAReplica(t *testing.T) {
	w := newWorld(t)
	leases := w.now // stands still: nobody renews anything here
	w.store.SetClock(func() time.Time { return leases })
	take := func(id string) *Elector {
		e := &Elector{Store: w.store, Me: inventory.Replica{ID: id, Place: id}, Now: w.clock, Log: slog.New(slog.DiscardHandler)}
		e.Keep(t.Context())
		e.Balance(t.Context())
		return e
	}
	mine := take("one").Conds(w.id)
	w.led.Term = func(string) []inventory.Cond { return mine }
	w.until(inventory.Inspecting)
	leases = leases.Add(2 * DefaultTTL)
	their := take("two").Conds(w.id)
	rev := w.store.Rev()
	for range 30 {
		w.turn()
	}
	if got := w.view().State; got.KV.Mod > rev {
		t.Errorf("the first still writes: %+v", got.V)
	}
	w.led.Term = func(string) []inventory.Cond { return their }
	w.restart()
	w.until(inventory.Ready)
	w.whole()
}
