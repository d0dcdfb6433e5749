package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// config is a configuration of a site in a folder of its own, on ports that are free.
func config(t *testing.T) Config {
	t.Helper()
	c := defaults()
	c.Data = filepath.Join(t.TempDir(), "data")
	c.Keys = filepath.Join(c.Data, "keys")
	c.API.Listen, c.Etcd.Listen, c.Etcd.Peer = freePort(t), freePort(t), freePort(t)
	c.SKUs = []inventory.SKU{{Name: "small", MinCPUs: 2, BurnInProfile: "smoke", VerifyProfile: "smoke", Trust: "network", Media: []inventory.MediaSpec{{Slot: "nvme0", Kind: "nvme"}}}}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	return c
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs a daemon; stop ends it and says how it ended.
func start(t *testing.T, c Config, log io.Writer) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- serve(ctx, c, slog.New(slog.NewTextHandler(log, nil))) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() { cancel(); err = <-end })
		return err
	}
	t.Cleanup(func() { _ = stop() })
	deadline := time.Now().Add(30 * time.Second)
	for { // up when the reconciler has written the token and the API takes it
		if code, _ := call(t, c, "GET", "/v1/version", "", token(c)); code == http.StatusOK {
			return stop
		}
		select {
		case err := <-end:
			t.Fatalf("the daemon ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not answer")
		}
	}
}

func token(c Config) string {
	b, err := os.ReadFile(filepath.Join(c.Data, "admin.token"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// call asks the API; 0 when nobody listens.
func call(t *testing.T, c Config, method, path, body, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+c.API.Listen+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// A buffer that the daemon's goroutines write to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }
func (b *buffer) String() string              { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

// A daemon that was told nothing but where to be: etcd inside, API on loopback. Ended and started again on the same
// folder it is the same site, with the same keys and token.
func TestStartTwice(t *testing.T) {
	c := config(t)
	var log buffer
	stop := start(t, c, &log)
	secret := token(c)
	if st, err := os.Stat(filepath.Join(c.Data, "admin.token")); err != nil || st.Mode().Perm() != 0o600 || len(secret) < 40 {
		t.Errorf("admin.token: %v, %v", st, err)
	}
	for _, q := range []struct {
		path, token string
		code        int
		want        string
	}{
		{"/v1/nodes", secret, 200, "[]"},
		{"/v1/nodes", "", 401, ""},
		{"/v1/nodes", "wrong" + secret, 401, ""},
		{"/metrics", "", 200, "go_goroutines"},
	} {
		if code, text := call(t, c, "GET", q.path, "", q.token); code != q.code || !strings.Contains(text, q.want) {
			t.Errorf("%s with token %q: got %d %s", q.path, q.token, code, text)
		}
	}
	row := "name,serial,sku,rack,slot,mac,ip,bmc_addr,bmc_protocol,credential,approve\nn1,S1,small,r1,1,52:54:00:00:00:01,10.0.0.2,,,,\n"
	body, _ := json.Marshal(map[string]any{"csv": row})
	if code, text := call(t, c, "POST", "/v1/manifest", string(body), secret); code != 200 {
		t.Errorf("a node from a manifest: %d %s", code, text)
	}
	pin := func() string {
		k, err := loadKeys(c.Keys, c.Site)
		if err != nil {
			t.Fatal(err)
		}
		return k.Authority.Pin()
	}
	before := pin()

	// Another daemon on the same folder or ports is told so, and does not disturb.
	other := config(t)
	other.API.Listen = c.API.Listen
	if err := serve(t.Context(), other, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "is another hostlerd running?") {
		t.Errorf("a second daemon on the same port: %v", err)
	}
	if err := stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if code, _ := call(t, c, "GET", "/v1/version", "", secret); code != 0 {
		t.Errorf("after its end it still answers: %d", code)
	}

	stop = start(t, c, &log)
	if pin() != before || token(c) != secret {
		t.Error("the second start has other keys or another token")
	}
	if code, text := call(t, c, "GET", "/v1/nodes", "", secret); code != 200 || !strings.Contains(text, `"n1"`) {
		t.Errorf("after the second start: %d %s", code, text)
	}
	if err := stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if strings.Contains(log.String(), secret) {
		t.Error("the token is in the log")
	}
}

// inMemory is a daemon wired to a store in memory, with its copy running and its first writes done.
func inMemory(t *testing.T, edit func(*Config)) (*daemon, *memstore.Store) {
	t.Helper()
	c := config(t)
	if edit != nil {
		edit(&c)
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	k, err := loadKeys(c.Keys, c.Site)
	if err != nil {
		t.Fatal(err)
	}
	s := memstore.New()
	d := &daemon{cfg: c, log: slog.New(slog.DiscardHandler), keys: k, store: s, copy: inventory.NewCopy(), metrics: prometheus.NewRegistry()}
	if err := d.wire(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ready := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.copy.Run(ctx, s, func() { close(ready) }); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	<-ready
	if err := d.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	reach(t, d, s)
	return d, s
}

func reach(t *testing.T, d *daemon, s *memstore.Store) {
	t.Helper()
	if err := d.copy.Reach(t.Context(), s.Rev()); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, d *daemon, s *memstore.Store, key string, v any) {
	t.Helper()
	op, err := inventory.Encode(key, v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{op}}); err != nil {
		t.Fatal(err)
	}
	reach(t, d, s)
}

// While the store is away the API says so, and takes up work by itself when it is back.
func TestAPIWhileTheStoreIsAway(t *testing.T) {
	d, s := inMemory(t, nil)
	srv := httptest.NewServer(d.api())
	defer srv.Close()
	d.cfg.API.Listen = strings.TrimPrefix(srv.URL, "http://")
	claim := `{"reservation":"r1","sku":"small"}`
	if code, text := call(t, d.cfg, "POST", "/v1/claims", claim, token(d.cfg)); code != http.StatusConflict || !strings.Contains(text, "there is no node of SKU") {
		t.Errorf("before: %d %s", code, text)
	}
	s.SetFault(func(memstore.Call) error { return inventory.ErrUnavailable })
	if code, text := call(t, d.cfg, "POST", "/v1/claims", claim, token(d.cfg)); code != http.StatusServiceUnavailable || !strings.Contains(text, "the store is not available") {
		t.Errorf("away: %d %s", code, text)
	}
	s.SetFault(nil)
	s.SetFull(true)
	if code, text := call(t, d.cfg, "PUT", "/v1/credentials/rack", `{"user":"u","password":"swordfish"}`, token(d.cfg)); code != http.StatusServiceUnavailable || !strings.Contains(text, "full") || strings.Contains(text, "swordfish") {
		t.Errorf("full: %d %s", code, text)
	}
	s.SetFull(false)
	if code, text := call(t, d.cfg, "POST", "/v1/claims", claim, token(d.cfg)); code != http.StatusConflict {
		t.Errorf("afterwards: %d %s", code, text)
	}
}

// What the configuration declares is written where it differs, and once.
func TestDeclare(t *testing.T) {
	d, s := inMemory(t, nil)
	sku := func() inventory.SKU {
		v, err := inventory.Decode[inventory.SKU](d.copy.One(inventory.KeySKU("small")))
		if err != nil {
			t.Fatal(err)
		}
		return v.V
	}
	if sku().MinCPUs != 2 || sku().Schema != inventory.Schema {
		t.Errorf("declared %+v", sku())
	}
	rev := s.Rev()
	if err := d.declare(t.Context()); err != nil || s.Rev() != rev {
		t.Errorf("declared again: written %d times, %v", s.Rev()-rev, err)
	}
	d.cfg.SKUs[0].MinCPUs = 64
	if err := d.declare(t.Context()); err != nil {
		t.Fatal(err)
	}
	reach(t, d, s)
	if sku().MinCPUs != 64 {
		t.Errorf("changed: %+v", sku())
	}
	put(t, d, s, inventory.KeySKU("small"), map[string]any{"schema": 2})
	if err := d.declare(t.Context()); err == nil || !strings.Contains(err.Error(), "declare SKU small") {
		t.Errorf("over a newer version's: %v", err)
	}
}

// A controller's password is unsealed for one act; what is wrong with it is said without it.
func TestTarget(t *testing.T) {
	d, s := inMemory(t, nil)
	seal := func(d *daemon, text string) []byte {
		b, err := d.keys.Seal([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	foreign, _ := inMemory(t, nil)
	put(t, d, s, inventory.KeyCredential("good"), inventory.Credential{Schema: 1, Age: seal(d, `{"user":"admin","password":"swordfish"}`)})
	put(t, d, s, inventory.KeyCredential("text"), inventory.Credential{Schema: 1, Age: seal(d, `swordfish`)})
	put(t, d, s, inventory.KeyCredential("foreign"), inventory.Credential{Schema: 1, Age: seal(foreign, `{"user":"admin","password":"swordfish"}`)})
	view := func(addr, ref string) inventory.NodeView {
		v := inventory.NodeView{ID: "n-1"}
		v.Spec.V = inventory.Spec{Name: "a", Serial: "S", Firmware: "bios", BMC: inventory.BMCSpec{Addr: addr, Protocol: "ipmi", Credential: ref}}
		return v
	}
	got, err := d.target(view("10.0.0.9", "good"))
	if err != nil || got.Addr != "10.0.0.9" || got.User != "admin" || string(got.Password) != "swordfish" || got.Serial != "S" || !got.LegacyBoot {
		t.Errorf("got %+v, %v", got, err)
	}
	v := view("10.0.0.9", "good")
	v.Spec.V.Serial, v.Facts.V.Hardware.Serial = "", "MEASURED"
	if got, err := d.target(v); err != nil || got.Serial != "MEASURED" {
		t.Errorf("without a serial in the spec: %q, %v", got.Serial, err)
	}
	for ref, want := range map[string]string{"none": "hostler bmc credential set none", "text": "set it again", "foreign": "another key"} {
		if _, err := d.target(view("10.0.0.9", ref)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%s: got %v", ref, err)
		}
	}
	if _, err := d.target(view("", "good")); err == nil || !strings.Contains(err.Error(), "has no BMC address") {
		t.Errorf("no address: %v", err)
	}
}

// The tenant's seed is unsealed and rendered for its node's wire; what is wrong with it is said without it.
func TestSeed(t *testing.T) {
	boot := t.TempDir()
	for _, name := range []string{"vmlinuz", "initrd.cpio"} {
		if err := os.WriteFile(filepath.Join(boot, name), []byte("bytes"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, s := inMemory(t, func(c *Config) {
		c.Segments = []Segment{{Name: "rack", Interface: "lo", Subnet: "10.0.0.0/24", Address: "10.0.0.1", Mode: "enrol"}}
		c.Boot.ServiceOS, c.Boot.Loaders = boot, t.TempDir()
	})
	if d.dir.Service.Name == "" || !strings.HasPrefix(d.dir.Service.Name, "service-") || d.dir.Agent("rack") != "https://10.0.0.1:8443" || d.dir.Agent("other") != "" {
		t.Errorf("directory %+v", d.dir.Service)
	}
	seal := func(text string) {
		b, err := d.keys.Seal([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		put(t, d, s, inventory.KeySealed("i-1"), inventory.Sealed{Schema: 1, Age: b})
	}
	v := inventory.NodeView{ID: "n-1"}
	v.Spec.V = inventory.Spec{Name: "a", MACs: []string{"52:54:00:12:34:56"}, IP: "10.0.0.7", Segment: "rack"}
	v.Instance.V = inventory.Instance{ID: "i-1"}
	if _, err := d.seed(v); err == nil || !strings.Contains(err.Error(), "no sealed seed of instance i-1") {
		t.Errorf("none there: %v", err)
	}
	seal("{swordfish")
	if _, err := d.seed(v); err == nil || strings.Contains(err.Error(), "swordfish") {
		t.Errorf("not readable: %v", err)
	}
	seal(`{"user_data":"#!/bin/sh\necho swordfish","ssh_keys":["ssh-ed25519 AAAA"],"hostname":"train"}`)
	files, err := d.seed(v)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{string(files.UserData): "echo swordfish", string(files.MetaData): `"train"`, string(files.NetworkConfig): `"10.0.0.7/24"`,
		string(files.VendorData): "http://10.0.0.1/phone-home/i-1/" + d.keys.Authority.Path("phone-home", "i-1")} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	v.Spec.V.Segment = "gone"
	if _, err := d.seed(v); err == nil || !strings.Contains(err.Error(), "no declared segment") {
		t.Errorf("no segment: %v", err)
	}
}

// What the boot services need must be there before anything is served.
func TestWhatBootNeeds(t *testing.T) {
	c := config(t)
	c.Segments = []Segment{{Name: "rack", Interface: "lo", Subnet: "10.0.0.0/24", Address: "10.0.0.1", Mode: "enrol"}}
	c.Boot.ServiceOS, c.Boot.Loaders = filepath.Join(t.TempDir(), "none"), t.TempDir()
	for _, want := range []string{"boot.service_os", "boot.loaders"} {
		d := &daemon{cfg: c, log: slog.New(slog.DiscardHandler), store: memstore.New(), copy: inventory.NewCopy(), metrics: prometheus.NewRegistry()}
		var err error
		if d.keys, err = loadKeys(c.Keys, c.Site); err != nil {
			t.Fatal(err)
		}
		if err := d.wire(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "none") {
			t.Errorf("got %v", err)
		}
		c.Boot.ServiceOS, c.Boot.Loaders = t.TempDir(), filepath.Join(t.TempDir(), "none")
		for _, name := range []string{"vmlinuz", "initrd.cpio"} {
			if err := os.WriteFile(filepath.Join(c.Boot.ServiceOS, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
