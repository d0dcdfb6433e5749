package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hostler-project/hostler/imaging"
	"github.com/hostler-project/hostler/imaging/disk"
	"github.com/hostler-project/hostler/imaging/handoff"
	"github.com/hostler-project/hostler/imaging/sanitize"
	"github.com/hostler-project/hostler/inventory"
)

// A fakeKernel takes a kernel and is entered.
type fakeKernel struct {
	kernel  []byte
	cmdline string
	entered chan bool
	loads   int
}

func (k *fakeKernel) Load(kernel, _ *os.File, cmdline string) (err error) {
	k.kernel, err = io.ReadAll(kernel)
	k.cmdline = cmdline
	k.loads++
	return err
}
func (k *fakeKernel) Enter() error  { close(k.entered); return errors.New("this kernel is a fake") }
func (k *fakeKernel) Unload() error { k.kernel = nil; return nil }

type fakeHost struct{ secure bool }

func (h fakeHost) SecureBoot() (bool, error)  { return h.secure, nil }
func (h fakeHost) Modules() ([]string, error) { return []string{"virtio_net"}, nil }

// A store is an image folder as the daemon serves it; fakes change bytes on the way.
type store struct {
	base   string // …/image/<digest>
	digest string
	public string
	mu     sync.Mutex
	twist  string         // chunk, blob, or the name of a file: its bytes are changed on the way
	gets   map[string]int // how often each of these was asked for
}

const mib = 1 << 20

// newStore has an image of 12 MiB with that kernel and initrd ("" for none).
func newStore(t *testing.T, kernel, initrd, cmdline string) *store {
	t.Helper()
	dir := t.TempDir()
	const size = 12 * mib
	raw := make([]byte, size)
	copy(raw[3*mib:], bytes.Repeat([]byte("the tenant's system "), 20_000))
	tab := disk.NewTable(size, 512)
	tab.Partitions = []disk.Partition{
		{Slot: 1, Type: disk.TypeESP, ID: disk.NewGUID(), First: 2048, Last: 4095, Name: "esp"},
		{Slot: 2, Type: disk.TypeRootX, ID: disk.NewGUID(), First: 4096, Last: 20479, Name: "root"},
	}
	head := tab.Head()
	copy(head, "\xeb\x63\x90boot code")
	copy(raw, head)
	copy(raw[tab.TailOffset():], tab.Tail())
	put(t, dir, map[string]string{"raw": string(raw)})
	if kernel == "" {
		kernel = dir + "/vmlinuz"
		put(t, dir, map[string]string{"vmlinuz": "MZ the tenant's kernel"})
	}
	public, err := imaging.GenerateKey(dir + "/key")
	if err != nil {
		t.Fatal(err)
	}
	key, err := imaging.LoadKey(dir+"/key", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := imaging.Pack(t.Context(), imaging.PackOptions{Disk: dir + "/raw", Out: dir + "/image", Name: "debian", BootModes: []string{"uefi", "bios"},
		Kernel: kernel, Initrd: initrd, Cmdline: cmdline, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	s := &store{digest: p.Digest, public: public.String(), gets: map[string]int{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutPrefix(r.URL.Path, "/image/"+s.digest+"/")
		kind, sum, _ := strings.Cut(name, "/")
		s.mu.Lock()
		s.gets[kind]++
		twist := s.twist
		s.mu.Unlock()
		file := map[string]string{"chunk": "chunks/" + sum + ".zst", "blob": "blobs/" + sum}[kind]
		if file == "" {
			file = name
		}
		b, err := os.ReadFile(filepath.Join(dir, "image", file))
		if !ok || err != nil {
			http.NotFound(w, r)
			return
		}
		if twist != "" && kind == twist {
			b[len(b)/2] ^= 1
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(server.Close)
	s.base = server.URL + "/image/" + s.digest
	return s
}

// tenant is an images on a disk in a file.
func tenant(t *testing.T) (*images, *fakeKernel, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	put(t, filepath.Dir(file), map[string]string{"disk": ""})
	if err := os.Truncate(file, 64*mib); err != nil {
		t.Fatal(err)
	}
	k := &fakeKernel{entered: make(chan bool)}
	return &images{host: fakeHost{}, kernel: k, open: func(m inventory.Medium) (sanitize.Namespace, string, error) {
		if m.Serial != "DRIVE-0" {
			return nil, "", errors.New("no such drive")
		}
		d, err := disk.Open(file, disk.Options{})
		return d, "nvme0", err
	}}, k, file
}

var drive0 = inventory.Medium{Slot: "0000:00:04.0", Device: "nvme0", Kind: inventory.MediumNVMe, Serial: "DRIVE-0"}

func TestAnImageIsWrittenSeededAndEnteredOnlyWhenTold(t *testing.T) {
	d, s := newDaemon(t, nil), newStore(t, "", "", "root=LABEL=root")
	d.seed = inventory.SeedFiles{MetaData: []byte("instance-id: i-1\n"), UserData: []byte("#cloud-config\npassword: secret-of-the-tenant\n")}
	write := inventory.Order{ID: "o1", Kind: inventory.OrderWrite, Write: &inventory.WriteOrder{Image: s.digest, ChunkBase: s.base, Medium: drive0, TrustedKey: s.public}}
	again := write
	again.ID = "o2"
	hand := inventory.Order{ID: "o3", Kind: inventory.OrderHandoff, Handoff: &inventory.HandoffOrder{Image: s.digest, ChunkBase: s.base, Medium: drive0,
		Method: handoff.Kexec, Qualified: true, TrustedKey: s.public}}
	d.orders = []inventory.Order{write, again, hand}
	a, out, m := newAgent(t, d, nil)
	images, k, file := tenant(t)
	a.orders = a.table(images)
	ended := start(t, a)
	d.until("the hand-off's report", 10*time.Second, func() bool { return len(d.done) >= 3 })
	r := results(d)
	if w := r[0].Written; w == nil || w.Image != s.digest || w.Serial != "DRIVE-0" || w.ReadBack < w.Bytes || w.Bytes == 0 {
		t.Fatalf("written %+v, %s", w, r[0].Error)
	}
	if w := r[1].Written; w == nil || len(w.Fallbacks) == 0 || !strings.Contains(w.Fallbacks[0], "already written") || s.gets["chunk"] != 2 {
		t.Errorf("the second write was not a check: %+v, %v", w, s.gets)
	}
	h := r[2].Handoff
	if h == nil || h.Method != handoff.Kexec || len(h.Passed) != len(handoff.Checklist) || len(h.Why) != 0 {
		t.Fatalf("hand-off %+v, %s", h, r[2].Error)
	}
	if string(k.kernel) != "MZ the tenant's kernel" || k.cmdline != "root=LABEL=root" || d.seeds != 1 || k.loads != 1 {
		t.Errorf("loaded %q %q, seeds %d, loads %d", k.kernel, k.cmdline, d.seeds, k.loads)
	}
	raw, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(raw, []byte("secret-of-the-tenant")) || !bytes.Contains(raw, []byte("the tenant's system")) {
		t.Errorf("the disk lacks image or seed: %v", err)
	}
	// It asks again and again, and stays.
	seen := len(reports(d))
	d.change(func() {})
	select {
	case <-k.entered:
		t.Fatal("entered without being told")
	case <-time.After(300 * time.Millisecond):
	}
	d.change(func() { d.mayEnter = true })
	<-k.entered
	if err := <-ended; err == nil || len(reports(d)) < seen {
		t.Errorf("ended with %v", err)
	}
	if !bytes.Equal(a.identity.key, make([]byte, len(a.identity.key))) {
		t.Error("the key was not wiped before the jump")
	}
	if !slices.Equal(m.acts, []string{"restart"}) { // the fake kernel came back
		t.Errorf("acts %v", m.acts)
	}
	if strings.Contains(out.String(), "secret-of-the-tenant") {
		t.Error("the console shows the tenant's data")
	}
}

func TestHandoffByReboot(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *agent, w *images, h *inventory.HandoffOrder, s *store)
		why    string
	}{
		"ordered":       {func(_ *agent, _ *images, h *inventory.HandoffOrder, _ *store) { h.Method = handoff.Reboot }, "method: the daemon ordered a reboot"},
		"not qualified": {func(_ *agent, _ *images, h *inventory.HandoffOrder, _ *store) { h.Qualified = false }, "qualified"},
		"secure boot":   {func(_ *agent, w *images, _ *inventory.HandoffOrder, _ *store) { w.host = fakeHost{secure: true} }, "secure boot"},
		"a GPU": {func(a *agent, _ *images, _ *inventory.HandoffOrder, _ *store) {
			a.self.hardware.GPUs = make([]inventory.GPU, 1)
		}, "gpu reset"},
		"a watchdog": {func(_ *agent, w *images, _ *inventory.HandoffOrder, _ *store) {
			w.watchdog = func(context.Context) error { return errors.New("it runs") }
		}, "watchdog"},
		"changed kernel": {func(_ *agent, w *images, _ *inventory.HandoffOrder, s *store) { w.loaded, s.twist = "", "blob" }, "load"},
	} {
		t.Run(name, func(t *testing.T) {
			d, s := newDaemon(t, nil), newStore(t, "", "", "root=LABEL=root")
			d.seed = inventory.SeedFiles{MetaData: []byte("instance-id: i-1\n")}
			hand := inventory.HandoffOrder{Image: s.digest, ChunkBase: s.base, Medium: drive0, Method: handoff.Kexec, Qualified: true, TrustedKey: s.public}
			write := inventory.Order{ID: "o1", Kind: inventory.OrderWrite, Write: &inventory.WriteOrder{Image: s.digest, ChunkBase: s.base, Medium: drive0, TrustedKey: s.public}}
			d.orders = []inventory.Order{write}
			a, _, m := newAgent(t, d, nil)
			images, k, _ := tenant(t)
			a.orders = a.table(images)
			ended := start(t, a)
			d.until("the write", 10*time.Second, func() bool { return len(d.done) == 1 })
			c.change(a, images, &hand, s)
			d.change(func() {
				d.orders, d.mayEnter = []inventory.Order{{ID: "o2", Kind: inventory.OrderHandoff, Handoff: &hand}}, true
			})
			<-ended
			r := results(d)[1]
			if r.Handoff == nil || r.Handoff.Method != handoff.Reboot || len(r.Handoff.Why) != 1 || !strings.HasPrefix(r.Handoff.Why[0], c.why) {
				t.Errorf("hand-off %+v, %s", r.Handoff, r.Error)
			}
			if !slices.Equal(m.acts, []string{"restart"}) {
				t.Errorf("acts %v", m.acts)
			}
			select {
			case <-k.entered:
				t.Error("it was a kexec")
			default:
			}
			if k.kernel != nil {
				t.Error("the kernel stays loaded")
			}
		})
	}
}

func TestBadImagesAreRefused(t *testing.T) {
	s := newStore(t, "", "", "root=LABEL=root")
	for name, c := range map[string]struct {
		change func(s *store, w *inventory.WriteOrder)
		want   string
	}{
		"another digest":    {func(_ *store, w *inventory.WriteOrder) { w.Image = strings.Repeat("0", 64) }, "is not that image's"},
		"not a digest":      {func(_ *store, w *inventory.WriteOrder) { w.Image = "../x"; w.ChunkBase = "http://x/image/../x" }, "is not that image's"},
		"changed manifest":  {func(s *store, _ *inventory.WriteOrder) { s.twist = "manifest.json" }, "refused"},
		"changed signature": {func(s *store, _ *inventory.WriteOrder) { s.twist = "manifest.json.minisig" }, "signature"},
		"another key": {func(_ *store, w *inventory.WriteOrder) {
			k, err := imaging.GenerateKey(filepath.Join(t.TempDir(), "key"))
			if err != nil {
				t.Fatal(err)
			}
			w.TrustedKey = k.String()
		}, "no trusted key"},
		"no key":        {func(_ *store, w *inventory.WriteOrder) { w.TrustedKey = "" }, "public key"},
		"another drive": {func(_ *store, w *inventory.WriteOrder) { w.Medium.Serial = "DRIVE-9" }, "no such drive"},
		"no image":      {func(_ *store, w *inventory.WriteOrder) { *w = inventory.WriteOrder{} }, "public key"},
	} {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newAgent(t, newDaemon(t, nil), nil)
			w := inventory.WriteOrder{Image: s.digest, ChunkBase: s.base, Medium: drive0, TrustedKey: s.public}
			s.twist = ""
			c.change(s, &w)
			images, _, file := tenant(t)
			res, err := images.write(t.Context(), a, inventory.Order{Write: &w})
			if err == nil || !strings.Contains(err.Error(), c.want) || res.report.Written != nil {
				t.Errorf("got %v", err)
			}
			if raw, err := os.ReadFile(file); err != nil || !disk.IsZero(raw) {
				t.Errorf("something was written: %v", err)
			}
		})
	}
}
