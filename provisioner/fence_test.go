package provisioner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/memstore"
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

// A second daemon takes the shards; the first writes nothing more, whatever it still believes.
func TestTermOfAReplica(t *testing.T) {
	w := newWorld(t)
	mine, err := TakeTerm(t.Context(), w.store, "one")
	w.must(err)
	w.led.Term = mine.Conds
	w.until(inventory.Inspecting)
	theirs, err := TakeTerm(t.Context(), w.store, "two")
	w.must(err)
	rev := w.store.Rev()
	for range 30 {
		w.turn()
	}
	if got := w.view().State; got.KV.Mod > rev {
		t.Errorf("the first still writes: %+v", got.V)
	}
	w.led.Term = theirs.Conds
	w.restart()
	w.until(inventory.Ready)
	w.whole()
}

// Two that start at once: one gets the shards, whole; a third that keeps coming in between makes the other give up.
func TestTermsAtOnce(t *testing.T) {
	w := newWorld(t)
	coming := false
	w.fault = func(c memstore.Call, _ bool) error {
		if len(c.Txn.If) != inventory.Shards || c.After || coming { // about to take
			return nil
		}
		coming = true
		defer func() { coming = false }()
		_, err := TakeTerm(t.Context(), w.store, "rival")
		return err
	}
	if _, err := TakeTerm(t.Context(), w.store, "slow"); err == nil || !strings.Contains(err.Error(), "another hostlerd keeps starting") {
		t.Errorf("got %v", err)
	}
	w.sync()
	if v := w.copy.Under(inventory.PrefixShards); len(v) != inventory.Shards {
		t.Errorf("%d shards are held", len(v))
	}
}
