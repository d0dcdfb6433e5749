package metadata_test

import (
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/provisioner"
	"github.com/hostler-project/hostler/provisioner/metadata"
)

var update = flag.Bool("update", false, "write the golden files")

var instance = inventory.Instance{ID: "i-01JABC", Hostname: "train-7"}

// The four files, as the tenant's system finds them.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		seed inventory.Seed
		net  metadata.Network
		home string
	}{
		{"full", inventory.Seed{UserData: "#cloud-config\nruncmd: [date]\n", SSHKeys: []string{"ssh-ed25519 AAAAC3Nz kim@desk", "ssh-rsa AAAAB3Nz"}, Hostname: "train-7"},
			metadata.Network{MAC: "52:54:00:00:00:01", Address: netip.MustParsePrefix("10.0.0.2/24"), Gateway: netip.MustParseAddr("10.0.0.1"), DNS: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}},
			"http://10.0.0.1/phone-home/i-01JABC/0123456789abcdef"},
		{"least", inventory.Seed{}, metadata.Network{}, ""},
	} {
		files, err := metadata.Render(instance, c.seed, c.net, c.home)
		if err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string][]byte{"meta-data": files.MetaData, "user-data": files.UserData, "network-config": files.NetworkConfig, "vendor-data": files.VendorData} {
			path := filepath.Join("testdata", c.name, name)
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Errorf("%s (-want +got); after a change on purpose: go test -update\n%s", path, d)
			}
		}
	}
}

// Host names that YAML reads as something else, or that try to be more than a value, arrive as they are.
func TestHostileHostnames(t *testing.T) {
	hosts := []string{"yes", "no", "on", "off", "y", "n", "true", "null", "~", "1", "007", "0x1f", "0o17", "1e3", "1.5", "12:30:45", "1_000", "2026-11-22", ".inf", "=", "<<", "-", "a: b", "a #b", "# a",
		"&a", "*a", "!a", "%a", "@a", "`a", "[a", "{a", "'", `"`, `\`, "a\nlocal-hostname: evil", "a\r\nb", "\ta", "a\t", " a ", "\u0085", "\u2028", "\ufeff", "\x00", "\x1b[2J", "ümlaut", "--- a", "...", "? a", "|", ">", ",", ""}
	for _, host := range hosts {
		if why := wrong(host, "key of "+host); why != "" {
			t.Errorf("%q: %s", host, why)
		}
	}
	if t.Failed() {
		return
	}
	rapid.Check(t, func(t *rapid.T) {
		if why := wrong(rapid.String().Draw(t, "host"), rapid.String().Draw(t, "key")); why != "" {
			t.Fatal(why)
		}
	})
}

func TestOnlyTextIsRendered(t *testing.T) {
	for _, seed := range []inventory.Seed{{Hostname: "a\xff"}, {SSHKeys: []string{"good", "\xc3"}}} {
		if _, err := metadata.Render(instance, seed, metadata.Network{}, ""); err == nil || !strings.Contains(err.Error(), "i-01JABC") {
			t.Errorf("%+v: got %v", seed, err)
		}
	}
	files, err := metadata.Render(instance, inventory.Seed{UserData: "\x1f\x8b\x00 gzip"}, metadata.Network{}, "")
	if err != nil || string(files.UserData) != "\x1f\x8b\x00 gzip" {
		t.Errorf("user data arrived as %q, %v", files.UserData, err)
	}
}

// A MAC of decimal digits is a number in base 60 to YAML 1.1, which cloud-init reads, unless it is quoted.
func TestNoValueIsPlain(t *testing.T) {
	files, err := metadata.Render(instance, inventory.Seed{Hostname: "yes"}, metadata.Network{MAC: "52:54:00:12:34:56", Address: netip.MustParsePrefix("10.0.0.2/24")}, "")
	if err != nil || !strings.Contains(string(files.NetworkConfig), `"52:54:00:12:34:56"`) || !strings.Contains(string(files.MetaData), `"yes"`) {
		t.Errorf("%v\n%s%s", err, files.MetaData, files.NetworkConfig)
	}
}

// wrong says what a reader of the meta-data finds amiss.
func wrong(host, key string) string {
	files, err := metadata.Render(instance, inventory.Seed{Hostname: host, SSHKeys: []string{key}}, metadata.Network{}, "")
	if err != nil {
		return err.Error()
	}
	var got map[string]any
	if err := yaml.Unmarshal(files.MetaData, &got); err != nil {
		return err.Error()
	}
	if host == "" {
		host = strings.ToLower(instance.ID)
	}
	want := map[string]any{"instance-id": instance.ID, "local-hostname": host, "public-keys": []any{key}}
	return cmp.Diff(want, got)
}

// site is the service, with one instance in use at 10.0.0.2.
type site struct {
	view  inventory.NodeView
	calls []provisioner.PhoneHome
	s     *metadata.Service

	unwritten bool // what is heard does not get into the record
}

func exists[T any](v T) inventory.Doc[T] {
	return inventory.Doc[T]{V: v, KV: inventory.KV{Key: "/k", Mod: 1}}
}

func newSite() *site {
	x := &site{view: inventory.NodeView{ID: "n-1",
		Spec:     exists(inventory.Spec{Name: "a", SKU: "small", Rack: "r1", BMC: inventory.BMCSpec{Addr: "10.9.9.9"}}),
		State:    exists(inventory.NodeState{State: inventory.InUse}),
		Claim:    exists(inventory.Claim{Tenant: "acme", Reservation: "r"}),
		Instance: exists(inventory.Instance{ID: "i-1", Hostname: "train-7", Image: "digest", Address: "10.0.0.2", SeedHash: "hash of the user data"})}}
	x.s = &metadata.Service{Log: slog.New(slog.DiscardHandler), Patience: 100 * time.Millisecond,
		At:     func(ip string) (inventory.NodeView, bool) { return x.view, ip == "10.0.0.2" },
		Secret: func(i string) string { return "secret-of-" + i },
		Home: func(_ string, p provisioner.PhoneHome) {
			x.calls = append(x.calls, p)
			x.view.Instance.V.Ready = !x.unwritten
		}}
	return x
}

func (x *site) call(method, path, from string, form url.Values) *http.Response {
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	r.RemoteAddr = from
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	x.s.Handler().ServeHTTP(w, r)
	return w.Result()
}

func TestMetadata(t *testing.T) {
	x := newSite()
	res := x.call("GET", "/metadata", "10.0.0.2:1234", nil)
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"instance_id": "i-1", "hostname": "train-7", "node": "a", "sku": "small", "rack": "r1", "tenant": "acme", "reservation": "r", "image": "digest"}
	if d := cmp.Diff(want, got); d != "" { // nothing else: no BMC, no hash of the seed, no secret
		t.Errorf("-want +got:\n%s", d)
	}
	for name, edit := range map[string]func(*site){
		"provisioning": func(x *site) { x.view.State.V.State = inventory.Provisioning },
		"draining":     func(x *site) { x.view.State.V.State = inventory.Draining },
		"ready":        func(x *site) { x.view.State.V.State = inventory.Ready },
		"no instance":  func(x *site) { x.view.Instance = inventory.Doc[inventory.Instance]{} },
	} {
		x := newSite()
		edit(x)
		if res := x.call("GET", "/metadata", "10.0.0.2:1234", nil); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: got %d", name, res.StatusCode)
		}
	}
	for _, from := range []string{"10.0.0.3:1", "nonsense", ""} {
		if res := x.call("GET", "/metadata", from, nil); res.StatusCode != http.StatusNotFound {
			t.Errorf("from %q: got %d", from, res.StatusCode)
		}
	}
}

// User data and keys travel in the seed alone: no path of the well-known ones, or of ours, has them.
func TestUserDataIsNeverServed(t *testing.T) {
	x := newSite()
	for _, path := range []string{"/user-data", "/metadata/user-data", "/latest/user-data", "/2009-04-04/user-data", "/seed", "/phone-home/i-1", "/phone-home/i-1/secret-of-i-1", "/openstack/latest/user_data", "/"} {
		if res := x.call("GET", path, "10.0.0.2:1", nil); res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: got %d", path, res.StatusCode)
		}
	}
}

func TestPhoneHome(t *testing.T) {
	form := url.Values{"pub_key_ed25519": {"ssh-ed25519 AAAA host\n"}, "pub_key_rsa": {"ssh-rsa BBBB host\n"}, "hostname": {"train-7"}, "instance_id": {"i-9"},
		"pub_key_huge": {strings.Repeat("a", 4000)}}
	for _, c := range []struct {
		name, path, from string
		form             url.Values
		edit             func(*site)
		code             int
	}{
		{"right", "/phone-home/i-1/secret-of-i-1", "10.0.0.2:1", form, nil, 204},
		{"heard, but not written down: it must call again", "/phone-home/i-1/secret-of-i-1", "10.0.0.2:1", form, func(x *site) { x.unwritten = true }, 503},
		{"wrong secret", "/phone-home/i-1/secret-of-i-2", "10.0.0.2:1", form, nil, 404},
		{"no secret", "/phone-home/i-1/", "10.0.0.2:1", form, nil, 404},
		{"another instance with its own secret", "/phone-home/i-2/secret-of-i-2", "10.0.0.2:1", form, nil, 404},
		{"another address", "/phone-home/i-1/secret-of-i-1", "10.0.0.3:1", form, nil, 404},
		{"not in use any more", "/phone-home/i-1/secret-of-i-1", "10.0.0.2:1", form, func(x *site) { x.view.State.V.State = inventory.Draining }, 404},
		{"too large", "/phone-home/i-1/secret-of-i-1", "10.0.0.2:1", url.Values{"pub_key_rsa": {strings.Repeat("a", 40<<10)}}, nil, 400},
	} {
		x := newSite()
		if c.edit != nil {
			c.edit(x)
		}
		res := x.call("POST", c.path, c.from, c.form)
		if res.StatusCode != c.code || (len(x.calls) == 1) != (c.code == 204 || c.code == 503) {
			t.Errorf("%s: got %d, %d calls", c.name, res.StatusCode, len(x.calls))
		}
		if c.code == 204 {
			p := x.calls[0]
			if p.Instance != "i-1" || p.Address != "10.0.0.2" || !slices.Equal(p.HostKeys, []string{"ssh-ed25519 AAAA host", "ssh-rsa BBBB host"}) {
				t.Errorf("%s: heard %+v", c.name, p)
			}
		}
	}
}
