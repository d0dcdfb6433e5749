package audit_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
)

// What is saved is checked as the store itself is, and holds no secret.
func TestSavedHistory(t *testing.T) {
	for _, c := range []struct {
		name    string
		compact func(*site)
		broken  string
	}{
		{"from the beginning", func(*site) {}, ""},
		{"what compaction left", func(s *site) { s.must(s.store.Compact(s.t.Context(), s.store.Rev()-7)) }, ""},
		{"with a breach", func(s *site) {
			s.forge(s.id(), func(st *state, _ *history) { st.Work = inventory.Work{Phase: "power-on"} })
		}, "I6"},
		{"a value that is no compact JSON", func(s *site) { s.pad(s.id(), 3<<10+1) }, "I15"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			id := s.node()
			s.put(inventory.KeyCredential("bmc"), inventory.Credential{Schema: 1, Age: []byte("CANARY")})
			s.put(inventory.KeyToken("abc"), inventory.Token{Schema: 1, Name: "CANARY"})
			s.walk(id, inventory.InUse)
			s.put(inventory.KeySealed("i-x"), inventory.Sealed{Schema: 1, Age: []byte("CANARY")})
			c.compact(s)
			var file bytes.Buffer
			s.must(audit.Save(t.Context(), s.store, &file, s.store.Rev()))
			for _, secret := range []string{"CANARY", "Q0FOQVJZ"} {
				if strings.Contains(file.String(), secret) {
					t.Error("a secret is in the file")
				}
			}
			v, err := audit.Check(bytes.NewReader(file.Bytes()), audit.Options{CertificateKey: s.led.CertificateKey})
			s.must(err)
			if v.OK != (c.broken == "") || v.Rev != s.store.Rev() || v.Counts.Nodes != 1 || len(v.Invariants) != len(audit.Invariants) {
				t.Errorf("%+v of %d revisions", v, s.store.Rev())
			}
			if !v.OK && (len(v.Broken) != 1 || v.Broken[0].Invariant != c.broken || v.Broken[0].Rev != s.store.Rev() || len(v.Broken[0].Before) != 8) {
				t.Errorf("broken: %+v", v.Broken)
			}
			for _, r := range v.Invariants {
				want := audit.RowOK
				if r.ID == c.broken {
					want = audit.RowBroken
				} else if r.Pending != "" {
					want = audit.RowPending
				}
				if r.State != want {
					t.Errorf("%s is %s", r.ID, r.State)
				}
			}
			if _, err := audit.Check(bytes.NewReader(file.Bytes()[:file.Len()-10]), audit.Options{}); err == nil {
				t.Error("a file that is cut off was taken")
			}
		})
	}
}

func TestCheckSaysWhatIsWrongWithAFile(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"nothing", "", "ends before its snapshot"},
		{"something else", `{"a":1}`, "no history that this version knows"},
		{"no JSON", "hello", "line 1"},
		{"another version", `{"format":"hostler-history/2","snapshot":{"rev":1,"kvs":[]}}`, "no history that this version knows"},
		{"changes first", `{"format":"hostler-history/1","batch":{"rev":1,"events":[]}}`, "line 1 of the history is out of place"},
		{"two snapshots", `{"format":"hostler-history/1","snapshot":{"rev":1,"kvs":[]}}` + "\n" + `{"snapshot":{"rev":2,"kvs":[]}}`, "line 2 of the history is out of place"},
		{"neither", `{"format":"hostler-history/1","snapshot":{"rev":1,"kvs":[]}}` + "\n" + `{}`, "line 2 of the history is out of place"},
		{"half a snapshot", `{"format":"hostler-history/1","snapshot":{"rev":1,"kvs":[],"more":true}}`, "ends before its snapshot"},
		{"an empty store", `{"format":"hostler-history/1","snapshot":{"rev":1,"kvs":[]}}`, ""},
	} {
		_, err := audit.Check(strings.NewReader(c.file), audit.Options{})
		if got := errorText(err); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// What a simulation writes with Writer is what Save writes.
func TestWriterIsWhatSaveWrites(t *testing.T) {
	s := newSite(t)
	s.walk(s.node(), inventory.Ready)
	var saved, written bytes.Buffer
	s.must(audit.Save(t.Context(), s.store, &saved, s.store.Rev()))
	w := audit.NewWriter(&written)
	s.must(w.Snapshot(inventory.Snapshot{Rev: 1}))
	all, err := s.store.Since(2)
	s.must(err)
	for _, b := range all {
		s.must(w.Batch(b))
	}
	var verdicts []audit.Verdict
	for _, file := range []*bytes.Buffer{&saved, &written} {
		v, err := audit.Check(file, audit.Options{CertificateKey: s.led.CertificateKey})
		s.must(err)
		verdicts = append(verdicts, v)
	}
	if d := cmp.Diff(verdicts[0], verdicts[1], cmpopts.IgnoreUnexported(audit.Invariant{})); d != "" || !verdicts[0].OK {
		t.Errorf("-saved +written:\n%s", d)
	}
}
