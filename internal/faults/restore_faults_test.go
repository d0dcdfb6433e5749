//go:build faults

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// etcd is lost and restored from a backup that is older than the newest claims (F-13): no counter falls, no node that was
// claimed after the backup is offered, watchers of before must list again.
func TestRestore(t *testing.T) {
	s := open(t, Options{Daemons: 1, Quick: 24})
	c := s.Clients(t.Context(), 8, Quick, false)
	must(t, c.Acked(t.Context(), 30*time.Second))
	file := filepath.Join(s.Dir, "backup.snapshot")
	if out, err := s.Daemons[0].Run(t.Context(), "backup", file); err != nil {
		t.Fatalf("hostlerd backup: %v\n%s", err, out)
	}
	rev := s.Recorder.Rev()
	time.Sleep(5 * time.Second) // what is lost
	ops := c.End()
	verdict(t, s, ops)
	lost := s.Recorder.Rev() - rev
	before := s.nodes(t)
	era, err := s.Store.Get(t.Context(), inventory.KeyEra)
	must(t, err)
	s.Recorder.stopRecording()

	began := time.Now()
	s.Daemons[0].Kill()
	out := filepath.Join(s.Dir, "restored")
	args := []string{"restore", file, "--yes", "--out", out}
	for _, m := range s.Cluster.Members {
		m.Kill()
		must(t, m.reset())
		args = append(args, "--member", m.Name+"=http://"+m.Peer.Addr)
	}
	if text, err := s.Daemons[0].Run(t.Context(), args...); err != nil {
		t.Fatalf("hostlerd restore: %v\n%s", err, text)
	}
	for _, m := range s.Cluster.Members {
		must(t, os.Rename(filepath.Join(out, m.Name), m.dir))
		must(t, m.Start())
	}
	_, err = s.Cluster.Leader(t.Context(), 20*time.Second)
	must(t, err)
	s.Recorder, err = record(t.Context(), s.Store, s.Keys) // the checker begins anew, and looks at what was restored
	must(t, err)
	must(t, s.Daemons[0].Start())
	_, err = s.Daemons[0].Serving(t.Context(), s.Admin, 30*time.Second)
	must(t, err)
	took := time.Since(began)
	time.Sleep(5 * time.Second) // agents speak, the reconciler looks

	now, err := s.Store.Get(t.Context(), inventory.KeyEra)
	must(t, err)
	if string(now.Value) == string(era.Value) {
		t.Error("the era is the same")
	}
	offered := 0
	for id, v := range s.nodes(t) {
		old := before[id].State.V
		if st := v.State.V; st.Generation <= old.Generation || st.Wipe < old.Wipe {
			t.Errorf("%s: generation %d → %d, wipe %d → %d", v.Name(), old.Generation, st.Generation, old.Wipe, st.Wipe)
		}
		if v.State.V.State == inventory.Ready || v.Avail.Exists() {
			offered++
		}
	}
	if offered > 0 {
		t.Errorf("%d nodes are ready or on offer after a restore", offered)
	}
	if len(before) == 0 || lost < 10 {
		t.Errorf("%d nodes, %d revisions lost: too little to show anything", len(before), lost)
	}
	if err := s.Recorder.Broken(); err != nil {
		t.Error(err)
	}
	table.Add(Row{"etcd restored from an older backup (F-13)", 1, 0, 0,
		fmt.Sprintf("%d revisions lost; serves again %.1f s after the loss; %d nodes: generation and wipe risen, none on offer, new era", lost, took.Seconds(), len(before))})
}

// nodes reads every node.
func (s *Site) nodes(t *testing.T) map[string]inventory.NodeView {
	t.Helper()
	snap, err := s.Store.List(t.Context(), inventory.Root, inventory.ListOptions{})
	must(t, err)
	reader := inventory.NewCopy()
	reader.Apply(inventory.Batch{Rev: snap.Rev, Events: events(snap)})
	out := map[string]inventory.NodeView{}
	for _, id := range reader.Nodes() {
		out[id] = inventory.View(reader, id)
	}
	return out
}
