package httpboot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/provisioner/dhcp"
	"github.com/prometheus/client_golang/prometheus"
)

// rack is Boot and Files: a machine per address.
type rack struct {
	Map
	plans map[string]Plan
	err   error
	asked []string
}

func (b *rack) Plan(_ context.Context, c Client) (Plan, error) {
	if b.err != nil {
		return Plan{}, b.err
	}
	p, ok := b.plans[c.IP.String()]
	if !ok {
		return Plan{}, fmt.Errorf("%v: %w", c.IP, ErrUnknown)
	}
	return p, nil
}

func (b *rack) Open(name string, client netip.Addr) (File, bool) {
	b.asked = append(b.asked, name)
	if name == "session/"+secret+"/session.cpio" && client.String() == "192.168.77.10" {
		return Bytes([]byte("token")), true
	}
	return b.Map.Open(name, client)
}

const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// site is a handler with one known machine, 192.168.77.10, and one image that
// it may read.
func site(t testing.TB) (*Handler, *rack) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("outside", "secret of the host")
	write("image/manifest.json", "{}")
	write("image/chunks/00", "chunk")
	if err := os.Symlink("../outside", filepath.Join(dir, "image/link")); err != nil {
		t.Fatal(err)
	}
	b := &rack{
		Map:   Map{"loader/snponly-x86_64.efi": write("snponly-x86_64.efi", "loader"), "boot/service/vmlinuz": write("vmlinuz", "0123456789"), "boot/gone": dir + "/gone", "boot/folder": dir},
		plans: map[string]Plan{"192.168.77.10": service()},
	}
	return &Handler{
		Boot: b, Files: b,
		Images: &Images{
			Open: func(d, name string) (*os.File, bool) {
				path, ok := map[string]string{"manifest.json": "image/manifest.json", "chunks/00": "image/chunks/00", "chunks": "image/chunks"}[name]
				f, err := os.Open(filepath.Join(dir, path))
				return f, ok && d == digest && err == nil
			},
			Allowed: func(c netip.Addr, d string) bool { return c.String() == "192.168.77.10" },
		},
	}, b
}

// ask sends the request line as it stands, from the given address.
func ask(h http.Handler, from, method, target string, head ...string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "/", nil)
	u, err := url.ParseRequestURI(target) // as net/http does
	if err != nil {
		w.Code = http.StatusBadRequest // net/http answers so before we see it
		return w
	}
	r.URL, r.RequestURI, r.RemoteAddr = u, target, from+":1234"
	for i := 0; i+1 < len(head); i += 2 {
		r.Header.Set(head[i], head[i+1])
	}
	at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.168.77.1:80"))
	h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(at))))
	return w
}

func TestRequests(t *testing.T) {
	const us, other = "192.168.77.10", "192.168.77.66"
	session := "/session/" + secret + "/session.cpio"
	tests := []struct {
		name, from, method, target string
		head                       []string
		status                     int
		body                       string
	}{
		{"loader", other, "GET", "/loader/snponly-x86_64.efi", nil, 200, "loader"},
		{"loader, UEFI asks first", other, "HEAD", "/loader/snponly-x86_64.efi", nil, 200, ""},
		{"kernel", us, "GET", "/boot/service/vmlinuz", nil, 200, "0123456789"},
		{"a range", us, "GET", "/boot/service/vmlinuz", []string{"Range", "bytes=2-4"}, 206, "234"},
		{"a range outside", us, "GET", "/boot/service/vmlinuz", []string{"Range", "bytes=99-"}, 416, "invalid range: failed to overlap\n"},
		{"session", us, "GET", session, nil, 200, "token"},
		{"another's session", other, "GET", session, nil, 404, "not found\n"},
		{"a short session", us, "GET", "/session/0123/session.cpio", nil, 404, "not found\n"},
		{"image", us, "GET", "/image/" + digest + "/manifest.json", nil, 200, "{}"},
		{"chunk", us, "GET", "/image/" + digest + "/chunks/00", nil, 200, "chunk"},
		{"image without an order", other, "GET", "/image/" + digest + "/manifest.json", nil, 404, "not found\n"},
		{"a link out of the image", us, "GET", "/image/" + digest + "/link", nil, 404, "not found\n"},
		{"a folder in the image", us, "GET", "/image/" + digest + "/chunks", nil, 404, "not found\n"},
		{"another image", us, "GET", "/image/" + strings.Repeat("0", 64) + "/manifest.json", nil, 404, "not found\n"},
		{"a name whose file is gone", us, "GET", "/boot/gone", nil, 404, "not found\n"},
		{"a name that is a folder", us, "GET", "/boot/folder", nil, 404, "not found\n"},
		{"no name", us, "GET", "/loader", nil, 404, "not found\n"},
		{"too many names", us, "GET", "/loader/a/b", nil, 404, "not found\n"},
		{"root", us, "GET", "/", nil, 404, "not found\n"},
		{"elsewhere", us, "GET", "/metrics", nil, 404, "not found\n"},
		{"a write", us, "POST", "/loader/snponly-x86_64.efi", nil, 405, "only GET and HEAD\n"},
		{"a stranger's script", other, "GET", "/ipxe", nil, 404, "not found\n"},
		{"another's MAC", us, "GET", "/ipxe?mac=52:54:00:12:34:02", nil, 404, "not found\n"},
		{"no MAC", us, "GET", "/ipxe?mac=hello", nil, 404, "not found\n"},
		{"an InfiniBand MAC", us, "GET", "/ipxe?mac=00:11:22:33:44:55:66:77", nil, 404, "not found\n"},
		{"two MACs", us, "GET", "/ipxe?mac=52:54:00:12:34:01&mac=52:54:00:12:34:01", nil, 404, "not found\n"},
		{"more than a MAC", us, "GET", "/ipxe?mac=52:54:00:12:34:01&x=1", nil, 404, "not found\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, _ := site(t)
			w := ask(h, tt.from, tt.method, tt.target, tt.head...)
			if body := w.Body.String(); w.Code != tt.status || tt.method != "HEAD" && body != tt.body {
				t.Errorf("got %d %q, want %d %q", w.Code, body, tt.status, tt.body)
			}
			if n := h.Counters().Requests[tt.status]; n != 1 {
				t.Errorf("counted %v", h.Counters())
			}
		})
	}
}

func TestScript(t *testing.T) {
	want, err := os.ReadFile("testdata/service.ipxe")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/ipxe", "/ipxe?mac=52:54:00:12:34:01", "/ipxe?mac=52-54-00-12-34-01", "/ipxe?mac=52%3A54%3A00%3A12%3A34%3A01"} {
		h, _ := site(t)
		w := ask(h, "192.168.77.10", "GET", target)
		if w.Code != 200 || w.Body.String() != string(want) || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d %v\n%s", target, w.Code, w.Header(), w.Body)
		}
	}
}

// When we cannot say what to boot, the machine waits: it does not fall through
// to its disk, and a half-made plan is not given out.
func TestTroubleMeansWait(t *testing.T) {
	h, b := site(t)
	broken := service()
	broken.Args[0].Value = "a b"
	for name, set := range map[string]func(){
		"no inventory":  func() { b.err = errors.New("etcd is away") },
		"a broken plan": func() { b.err, b.plans["192.168.77.10"] = nil, broken },
	} {
		set()
		w := ask(h, "192.168.77.10", "GET", "/ipxe?mac=52:54:00:12:34:01")
		for _, line := range []string{"#!ipxe\n", string(Reasons[Trouble]), "\nsleep 10\n", "chain --replace http://192.168.77.1/ipxe?mac=52:54:00:12:34:01 || goto again\n"} {
			if w.Code != 200 || !strings.Contains(w.Body.String(), line) {
				t.Errorf("%s: %d, no %q in\n%s", name, w.Code, line, w.Body)
			}
		}
		if strings.Contains(w.Body.String(), "kernel") || strings.Contains(w.Body.String(), "etcd") {
			t.Errorf("%s: the script says too much:\n%s", name, w.Body)
		}
	}
}

// hostile is what F-26 lists, and more.
var hostile = []string{
	"/loader/../outside", "/loader/..%2foutside", "/%2e%2e/outside", "/loader/%2e%2e/outside", "//outside", "/loader//snponly-x86_64.efi", "/./loader/snponly-x86_64.efi",
	"/loader/..\\outside", "/loader/..%5coutside", "/loader/snponly-x86_64.efi%00", "/loader/%00", "/loader/snponly-x86_64.efi/", "/loader/.hidden", "/loader/\u2024\u2024/x",
	"/loader/%E2%80%A4", "/image/" + digest + "/../outside", "/image/" + digest + "/..%2foutside", "/image/" + digest + "//etc/passwd", "/image/../../etc/passwd",
	"/session/" + strings.ToUpper(secret) + "/session.cpio", "/session/" + secret, "/loader/" + strings.Repeat("a", 64<<10), "/ipxe/", "/ipxe;x", "/LOADER/snponly-x86_64.efi",
	"/loader/sn%70only.efi", "/loader/%5c%5chost%5cshare", "/loader/..%c0%afoutside", "/loader/%uff0e%uff0e/x", "/loader/\uff0e\uff0e/outside", "/%252e%252e/outside",
	"/loader/snponly-x86_64.efi%0d%0aX:1", "/loader/c:%5cboot.ini", "/loader/snponly-x86_64.efi::$DATA", "/loader/~root", "/loader/snponly-x86_64.efi;v=1",
}

func TestHostilePaths(t *testing.T) {
	for _, target := range hostile {
		h, b := site(t)
		w := ask(h, "192.168.77.10", "GET", target)
		if w.Code != 404 && w.Code != 400 || w.Code == 404 && w.Body.String() != "not found\n" || w.Header().Get("Location") != "" {
			t.Errorf("%.60q: got %d %.60q", target, w.Code, w.Body)
		}
		if len(b.asked) != 0 {
			t.Errorf("%.60q: the map was asked for %q", target, b.asked)
		}
	}
}

// fromFile is a ResponseWriter that notes what net/http is given to send.
type fromFile struct {
	*httptest.ResponseRecorder
	file bool
}

func (w *fromFile) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		_, w.file = l.R.(*os.File)
	}
	return io.Copy(w.ResponseRecorder, r)
}

// Files must reach net/http as files, or sendfile is lost and the CPU per
// gigabyte trebles (performance.md section 3).
func TestFilesAreNotWrapped(t *testing.T) {
	h, _ := site(t)
	for _, target := range []string{"/boot/service/vmlinuz", "/image/" + digest + "/chunks/00"} {
		w := &fromFile{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest("GET", target, nil)
		r.RemoteAddr = "192.168.77.10:1"
		h.ServeHTTP(w, r)
		if w.Code != 200 || !w.file {
			t.Errorf("%s: status %d, sent as a file: %v", target, w.Code, w.file)
		}
	}
	if n := h.Counters().Bytes; n != 15 {
		t.Errorf("counted %d bytes, want 15", n)
	}
}

// One connection carries several requests, over a real socket, and a panic
// never looks like a whole file.
func TestServer(t *testing.T) {
	h, b := site(t)
	b.plans["127.0.0.1"] = service()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(h, nil)
	done := make(chan error)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	dials := 0
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, n, a string) (net.Conn, error) {
		dials++
		return (&net.Dialer{}).DialContext(ctx, n, a)
	}}}
	defer c.CloseIdleConnections()
	for _, path := range []string{"/ipxe", "/loader/snponly-x86_64.efi", "/none"} {
		r, err := c.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if want := map[bool]int{true: 404, false: 200}[path == "/none"]; r.StatusCode != want {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
	if dials != 1 {
		t.Errorf("%d connections for three requests", dials)
	}
	h.Render = func(Plan) ([]byte, error) { panic("bug") }
	if r, err := c.Get("http://" + l.Addr().String() + "/ipxe"); err == nil {
		t.Errorf("a panic was answered with %d", r.StatusCode)
	}
	if n := h.Counters().Requests[500]; n == 0 { // or more: the client may try again
		t.Error("no panic counted")
	}
}

// The URLs that DHCP gives out are ones that this package serves.
func TestDHCPNamesOurPaths(t *testing.T) {
	h, _ := site(t)
	g := dhcp.Segment{Address: netip.MustParseAddr("192.168.77.1")}
	for _, u := range []string{g.ScriptURL(macA.String()), g.LoaderURL("snponly-x86_64.efi")} {
		if w := ask(h, "192.168.77.10", "GET", strings.TrimPrefix(u, "http://192.168.77.1")); w.Code != 200 {
			t.Errorf("%s: %d", u, w.Code)
		}
	}
}

func TestMetrics(t *testing.T) {
	h, _ := site(t)
	ask(h, "192.168.77.10", "GET", "/ipxe")
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(h); err != nil {
		t.Fatal(err)
	}
	if m, err := reg.Gather(); err != nil || len(m) != 3 {
		t.Errorf("%d metrics, %v", len(m), err)
	}
}
