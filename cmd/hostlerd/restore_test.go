package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/api/apitest"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/etcd"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/provisioner"
)

// everyState makes a site in memory with a node in each state, each brought there along the table, and gives the ids.
func everyState(t *testing.T) (*apitest.Site, map[inventory.State]string) {
	s := apitest.Start(t)
	t.Cleanup(s.Close)
	ids := map[inventory.State]string{}
	at := func(state inventory.State, events ...lifecycle.Event) string {
		id := s.Ready(t, string(state))
		for _, ev := range events {
			s.Move(t, id, ev, "for a test", nil)
		}
		ids[state] = id
		return id
	}
	claim := func(state inventory.State) string {
		id := at(state)
		if _, err := s.Ledger.Claim(t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: "r-" + string(state), Node: id, Actor: "test"}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	confirm := func(state inventory.State) string {
		id := claim(state)
		q := ledger.ConfirmRequest{Tenant: "acme", Reservation: "r-" + string(state), Image: strings.Repeat("a", 64), Sealed: []byte("sealed"), Actor: "test"}
		if _, err := s.Ledger.Confirm(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		return id
	}
	release := func(state inventory.State) {
		if _, err := s.Ledger.Release(t.Context(), "acme", "r-"+string(state), "test", "done"); err != nil {
			t.Fatal(err)
		}
	}
	ids[inventory.Discovered] = s.Discover(t, "discovered")
	at(inventory.Inspecting, lifecycle.Lost)
	at(inventory.Firmware, lifecycle.Rollout)
	at(inventory.Sanitizing, lifecycle.Lost, lifecycle.Done)
	at(inventory.BurnIn, lifecycle.Lost, lifecycle.Done, lifecycle.DoneBurnIn)
	at(inventory.Verifying, lifecycle.Recheck)
	at(inventory.Ready)
	claim(inventory.Reserved)
	confirm(inventory.Provisioning)
	s.HandOver(t, confirm(inventory.InUse))
	s.HandOver(t, confirm(inventory.Servicing))
	s.Move(t, ids[inventory.Servicing], lifecycle.Service, "for a test", nil)
	s.HandOver(t, confirm(inventory.Draining))
	s.Move(t, ids[inventory.Draining], lifecycle.DrainNow, "for a test", nil)
	confirm(inventory.Fencing)
	release(inventory.Fencing)
	at(inventory.Quarantined, lifecycle.Quarantine)
	at(inventory.Repair, lifecycle.Quarantine, lifecycle.ToRepair)
	at(inventory.Maintenance, lifecycle.Maintain)
	at(inventory.Retiring, lifecycle.Retire)
	at(inventory.Retired, lifecycle.Retire, lifecycle.Done)
	for _, row := range lifecycle.States {
		if got := s.View(t, ids[row.Name]).State.V.State; got != row.Name {
			t.Fatalf("the node that should be %s is %q", row.Name, got)
		}
	}
	return s, ids
}

// openStoreOf runs the store of a configuration, without a daemon that would move nodes.
func openStoreOf(t *testing.T, c Config) *etcd.Embedded {
	t.Helper()
	e, err := etcd.StartEmbedded(t.Context(), etcd.EmbeddedConfig{Dir: filepath.Join(c.Data, "etcd"), ListenClient: c.Etcd.Listen, ListenPeer: c.Etcd.Peer}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func everything(t *testing.T, s inventory.Store) inventory.Snapshot {
	t.Helper()
	all, err := s.List(t.Context(), inventory.Root, inventory.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func viewOf(t *testing.T, s inventory.Store, id string) inventory.NodeView {
	t.Helper()
	r := &inventory.Read{Ctx: t.Context(), Store: s}
	v := inventory.View(r, id)
	if r.Err != nil || v.Broken != nil {
		t.Fatal(r.Err, v.Broken)
	}
	return v
}

// A site with a node in every state is backed up and goes on: the ready node is rented and handed over, the node in use
// given back. Then its store is lost, and restored. Nothing of what must hold is broken; nobody gets a machine that
// somebody may have; no number of before comes again; no claim that ended or came since is revived.
func TestRestore(t *testing.T) {
	c := config(t)
	mem, ids := everyState(t)
	s := openStoreOf(t, c)
	if err := provisioner.Begin(t.Context(), s, c.Site, "01ERABEFORE"); err != nil {
		t.Fatal(err)
	}
	var ops []inventory.Op
	for _, kv := range everything(t, mem.Store).KVs {
		if !strings.HasPrefix(kv.Key, inventory.PrefixMeta) {
			ops = append(ops, inventory.Op{Key: kv.Key, Value: kv.Value})
		}
	}
	for n := range inventory.Shards {
		ops = append(ops, inventory.Op{Key: inventory.KeyShard(n), Value: []byte(`{"replica":"one"}`)})
	}
	ops = append(ops, inventory.Op{Key: inventory.Root + "leases4/row1/10.0.0.9", Value: []byte(`{"schema":1}`)})
	for chunk := range slices.Chunk(ops, inventory.MaxOps) {
		if _, err := s.Commit(t.Context(), inventory.Txn{Then: chunk}); err != nil {
			t.Fatal(err)
		}
	}
	link, err := api.NewToken(t.Context(), s, inventory.Token{Name: "kim", Role: api.RoleAdmin, Once: true})
	if err != nil || link == "" {
		t.Fatal(err)
	}
	pub := mem.Key.Public().(ed25519.PublicKey)
	if broken := audit.New(audit.Options{CertificateKey: pub}).Load(everything(t, s)); broken != nil {
		t.Fatalf("the site that is to be backed up: %v", broken)
	}
	file := filepath.Join(t.TempDir(), "site.snapshot")
	if out, err := runCommand(t, c, "", "backup", file); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	led := &ledger.Ledger{Store: s, Now: time.Now, NewID: newID, CertificateKey: pub}
	taken := ids[inventory.Ready]
	if _, err := led.Claim(t.Context(), ledger.ClaimRequest{Tenant: "rival", Reservation: "after", Node: taken, Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	if _, err := led.Confirm(t.Context(), ledger.ConfirmRequest{Tenant: "rival", Reservation: "after", Image: strings.Repeat("a", 64), Sealed: []byte("x"), Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	v := viewOf(t, s, taken)
	in := v.Instance.V
	in.Phase = inventory.InstanceRunning
	if _, err := led.Move(t.Context(), v, lifecycle.Done, ledger.Change{Actor: "hostlerd", Reason: "handed over", Instance: &in}); err != nil {
		t.Fatal(err)
	}
	if _, err := led.Release(t.Context(), "acme", "r-in-use", "test", "done"); err != nil {
		t.Fatal(err)
	}
	lost := map[string]inventory.NodeState{}
	for _, id := range ids {
		lost[id] = viewOf(t, s, id).State.V
	}
	lostRev := everything(t, s).Rev
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	folder := filepath.Join(c.Data, "etcd")
	if _, err := runCommand(t, c, "", "restore", file, "--yes"); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("over a store that is there: %v", err)
	}
	if err := os.Rename(folder, folder+".lost"); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{"a dry run": {"--dry-run"}, "told no": nil} {
		out, err := runCommand(t, c, "n\n", append([]string{"restore", file}, args...)...)
		for _, want := range []string{"1 ready: cut off", "1 in-use: stay their tenants'", "1 quarantined: stay there", "the breaker is left open"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s does not say %q: %s", name, want, out)
			}
		}
		if (err == nil) != (args != nil) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(folder); err == nil {
			t.Fatalf("%s restored", name)
		}
	}
	out, err := runCommand(t, c, "", "restore", file, "--yes")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Log(out)
	if files, err := filepath.Glob(folder + ".restoring*"); err != nil || len(files) > 0 {
		t.Errorf("left lying around: %v, %v", files, err)
	}

	s = openStoreOf(t, c)
	all := everything(t, s)
	if broken := audit.New(audit.Options{CertificateKey: pub}).Load(all); broken != nil {
		t.Errorf("after the restore: %v", broken)
	}
	if all.Rev <= lostRev {
		t.Errorf("revision %d, the lost store had reached %d", all.Rev, lostRev)
	}
	if _, err := s.List(t.Context(), inventory.PrefixMeta, inventory.ListOptions{Rev: lostRev}); err == nil {
		t.Error("a revision of before can still be read")
	}
	checkRestored(t, s, ids, lost)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	// A daemon goes on with it; whoever watched before must list again.
	var log buffer
	start(t, c, &log)
	code, text := call(t, c, "GET", "/v1/doctor", "", token(c))
	if code != 200 || !strings.Contains(text, "servicing") || !strings.Contains(text, "restored from the backup of") {
		t.Errorf("doctor after the restore: %d %s", code, text)
	}
	time.Sleep(2 * time.Second) // four rounds of a reconciler that may begin nothing
	r, err := openRunning(t.Context(), c)
	must(t, err)
	defer r.Close()
	for was, id := range ids {
		if st := viewOf(t, r, id).State.V; st.State == inventory.Fencing && st.Work.Phase != "" {
			t.Errorf("%s: the breaker is open, and it is %s in phase %s", was, st.State, st.Work.Phase)
		}
	}
}

// checkRestored holds each node against what it was in the store that was lost.
func checkRestored(t *testing.T, s inventory.Store, ids map[inventory.State]string, lost map[string]inventory.NodeState) {
	t.Helper()
	for was, id := range ids {
		v := viewOf(t, s, id)
		st, row := v.State.V, lifecycle.State{}
		row, _ = lifecycle.Get(was)
		if st.Generation <= lost[id].Generation || st.Wipe <= lost[id].Wipe || st.Taint != inventory.Taint {
			t.Errorf("%s: generation %d, wipe %d, taint %q; the lost record had %d, %d", was, st.Generation, st.Wipe, st.Taint, lost[id].Generation, lost[id].Wipe)
		}
		want := inventory.Fencing
		if row.Owned || row.Rest && was != inventory.Ready {
			want = was
		}
		if st.State != want || v.Avail.Exists() || v.Public.V.Rentable || v.Public.V.State != want {
			t.Errorf("%s became %s, offered: %v; want %s", was, st.State, v.Avail.Exists(), want)
		}
		if ses := v.Session.V; ses.Phase == inventory.SessionArmed || ses.Phase == inventory.SessionRedeemed {
			t.Errorf("%s: its boot session is %s", was, ses.Phase)
		}
		if row.Owned && (!v.Claim.Exists() || v.Reservation.V.Phase != inventory.Committed || v.Claim.V.Generation != st.Generation || v.Instance.V.Phase == inventory.InstanceEnded) {
			t.Errorf("%s: its tenant was touched: %+v, %+v, %+v", was, v.Claim.V, v.Reservation.V, v.Instance.V)
		}
		h, err := s.Get(t.Context(), inventory.KeyHistory(id, st.Seq))
		if err != nil || !strings.Contains(string(h.Value), "restored from the backup of") {
			t.Errorf("%s: its history does not tell: %s, %v", was, h.Value, err)
		}
	}
	for _, name := range []string{"r-reserved", "r-provisioning"} {
		kv, err := s.Get(t.Context(), inventory.KeyReservation("acme", name))
		if err != nil {
			t.Fatal(err)
		}
		if r, err := inventory.Decode[inventory.Reservation](kv); err != nil || r.V.Phase != inventory.Released || !strings.Contains(r.V.Reason, "restored from the backup") {
			t.Errorf("reservation %s: %+v, %v", name, r.V, err)
		}
	}
	for _, kv := range everything(t, s).KVs {
		for _, gone := range []string{inventory.PrefixAvail, inventory.PrefixShards, inventory.Root + "leases4/", inventory.KeyReservation("rival", ""), inventory.PrefixTokens} {
			if strings.HasPrefix(kv.Key, gone) {
				t.Errorf("%s is still there: %s", kv.Key, kv.Value)
			}
		}
		if kv.Key == inventory.KeyEra {
			e, err := inventory.Decode[inventory.Era](kv)
			if err != nil || e.V.Era == "01ERABEFORE" || len(e.V.Former) != 1 || e.V.Former[0].Era != "01ERABEFORE" || e.V.Former[0].Revision == 0 {
				t.Errorf("era %+v, %v", e.V, err)
			}
		}
		if kv.Key == inventory.KeyBreaker && !strings.Contains(string(kv.Value), `"open":true`) {
			t.Errorf("the breaker: %s", kv.Value)
		}
	}
	if kv, err := s.Get(context.Background(), inventory.KeyBreaker); err != nil || !kv.Exists() {
		t.Errorf("there is no breaker: %v", err)
	}
}

// What a restore must not take.
func TestRestoreRefuses(t *testing.T) {
	c := config(t)
	var log buffer
	stop := start(t, c, &log)
	dir := t.TempDir()
	file := filepath.Join(dir, "good.snapshot")
	if out, err := runCommand(t, c, "", "backup", file); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	to := config(t)
	for _, r := range []struct {
		name  string
		spoil func(file string, c *Config) []string
		want  string
	}{
		{"no manifest", func(f string, _ *Config) []string { must(t, os.Remove(f+".json")); return nil }, "manifest"},
		{"a damaged file", func(f string, _ *Config) []string { damage(t, f); return nil }, "damaged"},
		{"another site's", func(_ string, c *Config) []string { c.Site = "south"; return nil }, "is a backup of site"},
		{"a newer schema", func(f string, _ *Config) []string { edit(t, f+".json", `"schema": 1`, `"schema": 99`); return nil }, "schema 99"},
		{"another era in the manifest", func(f string, _ *Config) []string { edit(t, f+".json", `"era": "0`, `"era": "1`); return nil }, "the snapshot holds"},
		{"a cluster without members", func(_ string, c *Config) []string { c.Etcd.Endpoints = []string{"http://a:2379"}; return nil }, "--member"},
		{"members without a folder", func(string, *Config) []string { return []string{"--member", "a=http://a:2380"} }, "--out"},
		{"a member that is none", func(string, *Config) []string { return []string{"--member", "http", "--out", dir + "/x"} }, "NAME=http"},
		{"no file", func(f string, _ *Config) []string { must(t, os.Remove(f)); return nil }, "no such file"},
	} {
		t.Run(r.name, func(t *testing.T) {
			f := filepath.Join(t.TempDir(), "b.snapshot")
			for _, end := range []string{"", ".json"} {
				b, err := os.ReadFile(file + end)
				must(t, err)
				must(t, os.WriteFile(f+end, b, 0o600))
			}
			c := to
			args := r.spoil(f, &c)
			out, err := runCommand(t, c, "", append([]string{"restore", f, "--yes"}, args...)...)
			if err == nil || !strings.Contains(err.Error(), r.want) {
				t.Errorf("got %v, want %q: %s", err, r.want, out)
			}
			if _, err := os.Stat(filepath.Join(c.Data, "etcd")); err == nil {
				t.Error("there is a store now")
			}
		})
	}
	other := to
	other.Site = "south"
	if out, err := runCommand(t, other, "", "restore", file, "--yes", "--site", c.Site); err != nil {
		t.Errorf("another site's, as was asked for: %v: %s", err, out)
	}
}

// A restore for a cluster writes a folder for each member.
func TestRestoreOfACluster(t *testing.T) {
	c := config(t)
	var log buffer
	stop := start(t, c, &log)
	file := filepath.Join(t.TempDir(), "b.snapshot")
	if out, err := runCommand(t, c, "", "backup", file); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	out := filepath.Join(t.TempDir(), "members")
	args := []string{"restore", file, "--yes", "--out", out}
	for _, name := range []string{"a", "b", "c"} {
		args = append(args, "--member", fmt.Sprintf("%s=http://%s", name, freePort(t)))
	}
	if text, err := runCommand(t, c, "", args...); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, name := range []string{"a", "b", "c"} {
		if _, err := os.Stat(filepath.Join(out, name, "member", "snap", "db")); err != nil {
			t.Error(err)
		}
	}
}

// The store of a site is replaced by an older copy behind its daemon's back (a lone member that lost what it had not yet
// written to the disk looks the same): the daemon reads on and writes nothing, says why, and goes on when a person has
// acknowledged it, as after a restore. Nothing of what it did not see in the store is believed.
func TestStoreThatWentBack(t *testing.T) {
	c := config(t)
	var log buffer
	stop := start(t, c, &log)
	admin := token(c)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(c.Data, "etcd")
	older := filepath.Join(t.TempDir(), "older")
	must(t, os.CopyFS(older, os.DirFS(folder)))
	stop = start(t, c, &log)
	for i := range 3 {
		if code, text := call(t, c, "POST", "/v1/tokens", fmt.Sprintf(`{"name":"kim%d","role":"technician","ttl":"1h"}`, i), admin); code != 200 {
			t.Fatalf("%d %s", code, text)
		}
	}
	if out, err := runCommand(t, c, "", "store", "acknowledge", "--yes"); err == nil || !strings.Contains(err.Error(), "nothing to acknowledge") {
		t.Errorf("acknowledging what did not happen: %v: %s", err, out)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	must(t, os.RemoveAll(folder))
	must(t, os.CopyFS(folder, os.DirFS(older)))

	stop = start(t, c, &log) // reads are answered
	write := func() (int, string) {
		return call(t, c, "POST", "/v1/tokens", `{"name":"ann","role":"technician","ttl":"1h"}`, admin)
	}
	eventually(t, "safe mode", 10*time.Second, func() bool {
		code, text := write()
		return code == 503 && strings.Contains(text, "went back from revision") && strings.Contains(text, "hostlerd store acknowledge")
	})
	degraded(t, c, "went back from revision", "hostlerd store acknowledge")
	if code, _ := call(t, c, "GET", "/v1/nodes", "", admin); code != 200 {
		t.Errorf("a read in safe mode: %d", code)
	}
	s, err := openRunning(t.Context(), c)
	must(t, err)
	before := everything(t, s)
	if out, err := runCommand(t, c, "n\n", "store", "acknowledge"); err == nil || !strings.Contains(out, "went back from revision") {
		t.Errorf("told no: %v: %s", err, out)
	}
	if after := everything(t, s); after.Rev != before.Rev {
		t.Errorf("in safe mode the store went from revision %d to %d", before.Rev, after.Rev)
	}
	if out, err := runCommand(t, c, "", "store", "acknowledge", "--yes"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "it goes on by itself", 10*time.Second, func() bool { code, _ := write(); return code == 200 })
	kv, err := s.Get(t.Context(), inventory.KeyBreaker)
	if err != nil || !strings.Contains(string(kv.Value), `"open":true`) || !strings.Contains(string(kv.Value), "acknowledged") {
		t.Errorf("the breaker: %s, %v", kv.Value, err)
	}
	must(t, s.Close())
	if err := stop(); err != nil {
		t.Error(err)
	}
	start(t, c, &log)
	if code, text := write(); code != 200 && code != 409 {
		t.Errorf("after another start: %d %s", code, text)
	}
}

// An etcd folder that is gone is no new site.
func TestStoreThatIsEmpty(t *testing.T) {
	c := config(t)
	var log buffer
	stop := start(t, c, &log)
	must(t, stop())
	must(t, os.RemoveAll(filepath.Join(c.Data, "etcd")))
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, c, slog.New(slog.NewTextHandler(&log, nil))) }()
	eventually(t, "it says that the store is empty", 15*time.Second, func() bool {
		_, text := call(t, c, "GET", "/healthz", "", "")
		return strings.Contains(text, "the store is empty")
	})
	if _, err := runCommand(t, c, "", "store", "acknowledge", "--yes"); err == nil || !strings.Contains(err.Error(), "to begin from nothing") {
		t.Errorf("acknowledged: %v", err)
	}
	s, err := openRunning(t.Context(), c)
	must(t, err)
	if all := everything(t, s); len(all.KVs) > 0 {
		t.Errorf("%s was written into an empty store", all.KVs[0].Key)
	}
	must(t, s.Close())
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func damage(t *testing.T, file string) {
	b, err := os.ReadFile(file)
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(file, b, 0o600))
}

func edit(t *testing.T, file, old, with string) {
	b, err := os.ReadFile(file)
	must(t, err)
	text := strings.Replace(string(b), old, with, 1)
	if text == string(b) {
		t.Fatalf("%s has no %s", file, old)
	}
	must(t, os.WriteFile(file, []byte(text), 0o600))
}
