//go:build faults

package faults

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// table is printed when everything is over.
var table Table

var quiet = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) {
	os.Exit(Main(func() int {
		code := m.Run()
		table.Print(os.Stdout)
		return code
	}))
}

// open starts a site that ends with the test; what is left behind then fails it.
func open(t *testing.T, o Options) *Site {
	t.Helper()
	s, err := Open(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, d := range s.Daemons {
				t.Logf("%s:\n%s", d.Name, tail(d.log))
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// judge gives the verdict over what clients saw and what was stored.
func verdict(t *testing.T, s *Site, ops []Op) {
	t.Helper()
	rev, err := s.Store.List(t.Context(), inventory.PrefixMeta, inventory.ListOptions{})
	must(t, err)
	must(t, s.Recorder.Reach(t.Context(), rev.Rev, 20*time.Second))
	if err := s.Recorder.Broken(); err != nil {
		t.Error(err)
	}
	lost := s.Recorder.Lost(ops)
	for _, l := range lost {
		t.Errorf("acknowledged and lost: %s", l)
	}
	v := Judge(ops, s.Recorder.Node, 30*time.Second)
	for i, bad := range v.Illegal {
		if i < 3 {
			t.Errorf("not linearizable: %s", bad)
		}
	}
	count := map[string]int{}
	for _, o := range ops {
		count[o.Kind+" "+o.Outcome]++
	}
	word := "linearizable"
	if len(v.Illegal) > 0 {
		word = fmt.Sprintf("NOT LINEARIZABLE in %d histories", len(v.Illegal))
	}
	table.Say("porcupine: %s: %d operations (claims %d ok, %d refused, %d unknown; releases %d ok, %d unknown) of %d reservations on %d nodes, checked in %.1f s; double claims 0; acknowledged writes lost %d; transitions stored %d",
		word, v.Operations, count["claim ok"], count["claim refused"], count["claim unknown"], count["release ok"], count["release unknown"], v.Reservations, v.Nodes, v.Took.Seconds(), len(lost), s.Recorder.Moves())
}
