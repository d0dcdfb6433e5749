package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hostler-project/hostler/imaging"
	"github.com/hostler-project/hostler/imaging/disk"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/api/apitest"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hostler": main})
}

// Each script runs the program against a server of its own: gpu001 to gpu003 are ready, gpu004 was just discovered.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			t := scriptEnv{env}
			s := apitest.Start(t)
			env.Defer(s.Close)
			lib := &library{}
			lib.Root = filepath.Join(env.WorkDir, "library")
			s.Server.Images = lib
			s.Server.Preview = func(node string) (string, error) { return "#!ipxe\necho " + node + "\n", nil }
			env.Values[siteKey{}], env.Values[libKey{}] = s, lib
			for _, name := range []string{"gpu001", "gpu002", "gpu003"} {
				s.Ready(t, name)
			}
			s.Discover(t, "gpu004")
			s.Image(t, strings.Repeat("a", 64), "debian-12", time.Now())
			env.Setenv("HOSTLER_URL", s.URL)
			env.Setenv("SITE_URL", s.URL)
			for role, tenant := range map[string]string{api.RoleAdmin: "", api.RoleTechnician: "", api.RoleRental: "acme"} {
				path := filepath.Join(env.WorkDir, role+".token")
				if err := os.WriteFile(path, []byte(s.Token(t, role, tenant)+"\n"), 0o600); err != nil {
					return err
				}
			}
			env.Setenv("HOSTLER_TOKEN_FILE", filepath.Join(env.WorkDir, "admin.token"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"store": storeCmd, "handover": handoverCmd, "settle": settleCmd, "offer": offerCmd, "disk": diskCmd, "container": containerCmd,
			"trust": trustCmd, "spoil": spoilCmd, "edit": editCmd, "forge": forgeCmd, "unseen": unseenCmd, "hash": hashCmd, "doctor": doctorCmd,
			"audited": auditedCmd, "trip": tripCmd,
		},
	})
}

type siteKey struct{}
type libKey struct{}

// scriptEnv lets a Site fail a script's set-up.
type scriptEnv struct{ *testscript.Env }

func (e scriptEnv) Fatal(a ...any) { e.T().Fatal(a...) }

// script lets a Site fail a script.
type script struct{ *testscript.TestScript }

func (s script) Fatal(a ...any) { s.Fatalf("%s", fmt.Sprint(a...)) }

func theSite(ts *testscript.TestScript) (*apitest.Site, script) {
	return ts.Value(siteKey{}).(*apitest.Site), script{ts}
}

// store down|up: the store stops answering, and comes back.
func storeCmd(ts *testscript.TestScript, _ bool, args []string) {
	s, _ := theSite(ts)
	if args[0] == "up" {
		s.Store.SetFault(nil)
		return
	}
	s.Store.SetFault(func(memstore.Call) error { return fmt.Errorf("etcd at 127.0.0.1:2379: %w", inventory.ErrUnavailable) })
}

// trip CAUSE: the breaker opens.
func tripCmd(ts *testscript.TestScript, _ bool, args []string) {
	s, _ := theSite(ts)
	_, err := s.Server.Ledger.OpenBreaker(context.Background(), inventory.KV{}, inventory.Breaker{Since: time.Now(), Cause: args[0], By: "hostlerd", Counted: 7, Allowed: 5})
	ts.Check(err)
}

// handover NODE: the image is written and entered, the tenant's system answers.
func handoverCmd(ts *testscript.TestScript, _ bool, args []string) {
	s, t := theSite(ts)
	s.HandOver(t, nodeID(s, t, args[0]))
}

// offer NODE: hostlerd finds that it can be rented.
func offerCmd(ts *testscript.TestScript, _ bool, args []string) {
	s, t := theSite(ts)
	s.Offer(t, nodeID(s, t, args[0]))
}

// settle NODE: the tenant's notice and the fence are over.
func settleCmd(ts *testscript.TestScript, _ bool, args []string) {
	s, t := theSite(ts)
	id := nodeID(s, t, args[0])
	s.Move(t, id, lifecycle.Done, "notice over", nil)
	s.Move(t, id, lifecycle.Done, "fenced and power-cycled", nil)
}

func nodeID(s *apitest.Site, t apitest.TB, name string) string {
	r := &inventory.Read{Ctx: context.Background(), Store: s.Store}
	id := ledger.Holder(r, "name", name)
	if r.Err != nil || id == "" {
		t.Fatal("no node ", name, r.Err)
	}
	return id
}

// audited: hostlerd audits from now on. audited NODE: somebody writes over that node's state in the store.
func auditedCmd(ts *testscript.TestScript, _ bool, args []string) {
	s, t := theSite(ts)
	if len(args) == 0 {
		s.Audit()
		return
	}
	v := s.View(t, nodeID(s, t, args[0]))
	v.State.V.Taint = inventory.Taint
	op, err := v.State.Put(v.State.V)
	ts.Check(err)
	_, err = s.Store.Commit(context.Background(), inventory.Txn{Then: []inventory.Op{op}})
	ts.Check(err)
	for range 500 {
		if len(s.View(t, v.ID).Health) > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("the auditor has not noticed")
}

// disk FILE: a raw disk with a partition table and some bytes.
func diskCmd(ts *testscript.TestScript, _ bool, args []string) {
	const size = 12 << 20
	tab := disk.NewTable(size, 512)
	tab.Partitions = []disk.Partition{{Slot: 1, Type: disk.TypeESP, ID: disk.NewGUID(), First: 2048, Last: 4095, Name: "esp"},
		{Slot: 2, Type: disk.TypeRootX, ID: disk.NewGUID(), First: 4096, Last: 16384, Name: "root"}}
	b := make([]byte, size)
	noise := rand.NewChaCha8([32]byte{1}) // nothing to compress: every packed byte counts
	if _, err := noise.Read(b[3<<20 : 5<<20]); err != nil {
		ts.Fatalf("%v", err)
	}
	path := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(path, b, 0o600))
	d, err := disk.Open(path, disk.Options{})
	ts.Check(err)
	ts.Check(disk.WriteTable(d, tab))
	ts.Check(d.Close())
}

// container FILE: what qemu-img would make.
func containerCmd(ts *testscript.TestScript, _ bool, args []string) {
	b := make([]byte, 8<<20)
	copy(b, "QFI\xfb\x00\x00\x00\x03")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// trust FILE.pub: the site trusts this image key from now on.
func trustCmd(ts *testscript.TestScript, _ bool, args []string) {
	key, err := imaging.ParsePublicKey(ts.ReadFile(args[0]))
	ts.Check(err)
	lib := ts.Value(libKey{}).(*library)
	lib.Trusted = append(lib.Trusted, key)
}

// spoil GLOB: changes the byte in the middle of the largest file that matches.
func spoilCmd(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("%s matches no file", args[0])
	}
	path, b := "", []byte(nil)
	for _, f := range files {
		have, err := os.ReadFile(f)
		ts.Check(err)
		if len(have) > len(b) {
			path, b = f, have
		}
	}
	b[len(b)/2]++
	ts.Check(os.WriteFile(path, b, 0o600))
}

// edit FILE OLD NEW: replaces words in a file.
func editCmd(ts *testscript.TestScript, _ bool, args []string) {
	old := ts.ReadFile(args[0])
	changed := strings.ReplaceAll(old, args[1], args[2])
	if changed == old {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(changed), 0o600))
}

// forge IN OUT: a certificate that says another wipe number under the same signature.
func forgeCmd(ts *testscript.TestScript, _ bool, args []string) {
	var c inventory.Certificate
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &c))
	c.Body = bytes.Replace(c.Body, []byte(`"wipe":1`), []byte(`"wipe":9`), 1)
	b, err := json.Marshal(c)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

// unseen TEXT…: none of these words is anywhere in the store in clear.
func unseenCmd(ts *testscript.TestScript, _ bool, args []string) {
	s, _ := theSite(ts)
	all, err := s.Store.List(context.Background(), "/", inventory.ListOptions{})
	ts.Check(err)
	for _, kv := range all.KVs {
		for _, word := range args {
			if bytes.Contains(kv.Value, []byte(word)) {
				ts.Fatalf("%s holds %q in clear", kv.Key, word)
			}
		}
	}
}

// hash NAME: puts the hash of the token of that name into $hash.
func hashCmd(ts *testscript.TestScript, _ bool, args []string) {
	s, _ := theSite(ts)
	all, err := s.Store.List(context.Background(), inventory.PrefixTokens, inventory.ListOptions{})
	ts.Check(err)
	for _, kv := range all.KVs {
		t, err := inventory.Decode[inventory.Token](kv)
		ts.Check(err)
		if t.V.Name == args[0] {
			ts.Setenv("hash", strings.TrimPrefix(kv.Key, inventory.PrefixTokens)[:8])
			return
		}
	}
	ts.Fatalf("no token of %s", args[0])
}

// library is the daemon's image store, as hostlerd wires it.
type library struct{ imaging.Library }

func (l *library) Check(manifest, sig []byte) (string, api.Missing, error) {
	d, m, err := l.PutManifest(manifest, sig)
	out := api.Missing{Chunks: m.Chunks}
	for _, b := range m.Blobs {
		out.Blobs = append(out.Blobs, b.SHA256)
	}
	return d, out, refusal(err)
}

func (l *library) PutChunk(_, chunk string, r io.Reader) error {
	return refusal(l.Library.PutChunk(chunk, r))
}

func (l *library) PutBlob(image, blob string, r io.Reader) error {
	m, err := l.Manifest(image)
	if err != nil {
		return refusal(err)
	}
	for _, b := range m.Blobs() {
		if b.SHA256 == blob {
			return refusal(l.Library.PutBlob(b, r))
		}
	}
	return ledger.Refuse("", "image %s has no blob %s", m.Name, blob)
}

func (l *library) Finish(ctx context.Context, image string) (inventory.ImageRecord, error) {
	m, err := l.Library.Finish(ctx, image)
	if err != nil {
		return inventory.ImageRecord{}, refusal(err)
	}
	return inventory.ImageRecord{Name: m.Name, Size: m.Size, Arch: m.Arch, Boot: m.BootModes}, nil
}

func refusal(err error) error {
	var disk *os.PathError
	if err == nil || errors.As(err, &disk) {
		return err
	}
	return &ledger.Refusal{Why: err.Error()}
}

// Fifty people want the same node at once: one gets it, forty-nine are told why not.
func TestFiftyClaimsForOneNode(t *testing.T) {
	s := apitest.Start(t)
	defer s.Close()
	s.Ready(t, "gpu001")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(s.Token(t, api.RoleAdmin, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOSTLER_URL": s.URL, "HOSTLER_TOKEN_FILE": token}
	var all sync.WaitGroup
	var mu sync.Mutex
	codes, reasons := map[int]int{}, map[string]int{}
	for range 50 {
		all.Go(func() {
			var out, err bytes.Buffer
			code := run(t.Context(), []string{"claim", "create", "--node", "gpu001"},
				&app{in: strings.NewReader(""), out: &out, err: &err, getenv: func(k string) string { return env[k] }})
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
			if code != exitOK {
				reasons[err.String()]++
			}
		})
	}
	all.Wait()
	if codes[exitOK] != 1 || codes[exitRefused] != 49 {
		t.Errorf("exit codes %v, not one 0 and 49 times 3; %v", codes, reasons)
	}
	for r := range reasons {
		if !strings.Contains(r, "gpu001 cannot be claimed") || !strings.Contains(r, "try: ") {
			t.Errorf("a loser is not told why, or what to try: %q", r)
		}
	}
}

// Who waits goes on waiting while hostlerd is killed and started again.
func TestWaitOutlivesTheDaemon(t *testing.T) {
	s := apitest.Start(t)
	defer s.Close()
	id := s.Ready(t, "gpu001")
	s.Image(t, strings.Repeat("a", 64), "debian-12", time.Now())
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(s.Token(t, api.RoleAdmin, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOSTLER_URL": s.URL, "HOSTLER_TOKEN_FILE": token}
	var out bytes.Buffer
	says, tell := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"claim", "create", "--sku", apitest.SKU, "--image", "debian-12", "--wait", "--timeout", "30s"},
			&app{in: strings.NewReader(""), out: &out, err: tell, getenv: func(k string) string { return env[k] }})
		tell.Close()
	}()
	lines := bufio.NewScanner(says)
	expect := func(want string) {
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("it never said %q", want)
	}
	expect("gpu001 provisioning: the image is being written")
	s.Store.SetFault(func(memstore.Call) error { return inventory.ErrUnavailable })
	expect("no answer yet")
	s.Store.SetFault(nil)
	expect("gpu001 provisioning")
	s.HandOver(t, id)
	expect("gpu001 in-use")
	if c := <-code; c != exitOK || !strings.Contains(out.String(), "running debian-12, ready") {
		t.Errorf("exit %d, %s", c, out.String())
	}
}

// Exit codes are for scripts: 0 ok, 1 failed, 2 usage, 3 refused, 4 timeout.
func TestExitCodes(t *testing.T) {
	s := apitest.Start(t)
	defer s.Close()
	s.Ready(t, "gpu001")
	dir := t.TempDir()
	tokens := map[string]string{"admin": s.Token(t, api.RoleAdmin, ""), "rental": s.Token(t, api.RoleRental, "acme"), "wrong": strings.Repeat("A", 43)}
	for name, secret := range tokens {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		token, args string
		want        int
	}{
		{"admin", "node ls", exitOK},
		{"admin", "node show nobody", exitFailed},
		{"admin", "node ls gpu001 nobody", exitFailed},
		{"wrong", "node ls", exitFailed},
		{"admin", "node", exitOK},
		{"admin", "nood", exitUsage},
		{"admin", "node ls --nope", exitUsage},
		{"admin", "node ls a[", exitUsage},
		{"admin", "claim create", exitUsage},
		{"admin", "node power up gpu001", exitUsage},
		{"rental", "node quarantine gpu001 --reason x", exitRefused},
		{"admin", "node return gpu001", exitRefused},
		{"admin", "claim create --sku none", exitRefused},
		{"admin", "node power off gpu001 --wait --timeout 100ms", exitTimeout},
	} {
		var out, errs bytes.Buffer
		env := map[string]string{"HOSTLER_URL": s.URL, "HOSTLER_TOKEN_FILE": filepath.Join(dir, c.token)}
		got := run(t.Context(), strings.Fields(c.args), &app{in: strings.NewReader(""), out: &out, err: &errs, getenv: func(k string) string { return env[k] }})
		if got != c.want || got != exitOK && !strings.Contains(errs.String(), "try: ") {
			t.Errorf("hostler %s: %d, not %d, or nothing to try: %s", c.args, got, c.want, &errs)
		}
	}
}

// On a terminal of a phone, lines end at its edge.
func TestLinesAreCut(t *testing.T) {
	for _, c := range []struct {
		text string
		edge int
		want string
	}{{"gpu001  ready", 0, "gpu001  ready"}, {"gpu001  ready", 13, "gpu001  ready"}, {"gpu001  ready", 9, "gpu001  …"}, {"→ é", 2, "→…"}} {
		if got := cut(c.text, c.edge); got != c.want {
			t.Errorf("cut(%q, %d) = %q, not %q", c.text, c.edge, got, c.want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 25 * time.Hour: "25h0m", 50 * time.Hour: "2d2h"} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %s, not %s", d, got, want)
		}
	}
}

// A list of nothing is a list: scripts need not know of null.
func TestEmptyListsAreLists(t *testing.T) {
	s := apitest.Start(t)
	defer s.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(s.Token(t, api.RoleAdmin, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOSTLER_URL": s.URL, "HOSTLER_TOKEN_FILE": token}
	for _, args := range []string{"node ls", "claim ls", "claim ls --all", "image ls"} {
		for _, output := range []string{"json", "yaml"} {
			var out, errs bytes.Buffer
			code := run(t.Context(), strings.Fields(args+" -o "+output), &app{in: strings.NewReader(""), out: &out, err: &errs, getenv: func(k string) string { return env[k] }})
			if code != exitOK || strings.Contains(out.String(), "null") || !strings.Contains(out.String(), "[]") {
				t.Errorf("hostler %s -o %s: %d %q %q", args, output, code, &out, &errs)
			}
		}
	}
	s.Discover(t, "gpu001")
	list := filepath.Join(t.TempDir(), "list.csv")
	if err := os.WriteFile(list, []byte("name\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"manifest import " + list, "node power on gpu001", "node ls", "node show gpu001", "node history gpu001", "why gpu001", "token ls", "lifecycle show", "version"} {
		var out, errs bytes.Buffer
		code := run(t.Context(), strings.Fields(args+" -o json"), &app{in: strings.NewReader(""), out: &out, err: &errs, getenv: func(k string) string { return env[k] }})
		if code != exitOK || strings.Contains(out.String(), ": null") {
			t.Errorf("hostler %s: %d %q %q", args, code, &out, &errs)
		}
	}
}
