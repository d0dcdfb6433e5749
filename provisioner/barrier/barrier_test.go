package barrier

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// short has a bug that depends on the packet.
func short(b []byte) byte { return b[7] }

func guarded(b *Barrier, log *slog.Logger, packet []byte, f func()) {
	defer func() {
		if p := recover(); p != nil {
			b.Caught(log, "test", p, packet, "from", "10.0.0.9")
		}
	}()
	f()
}

// Each panic is counted, each kind is told once, with the packet and where it began, and without what it says.
func TestCaught(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var b Barrier
	long := bytes.Repeat([]byte{0xab}, 5000)
	for range 3 {
		guarded(&b, log, []byte{1, 2, 3}, func() { short([]byte{1, 2, 3}) })
		guarded(&b, log, long, func() { panic("the password is hunter2") })
		guarded(&b, nil, nil, func() { var m map[string]int; m["x"] = 1 })
	}
	if b.Count() != 9 {
		t.Errorf("counted %d of 9", b.Count())
	}
	text := out.String()
	if n := strings.Count(text, "level=ERROR"); n != 2 {
		t.Errorf("%d lines for 2 kinds with a log:\n%s", n, text)
	}
	for _, want := range []string{"barrier.short:", "index out of range [7] with length 3", "bytes=3 packet=010203", "from=10.0.0.9", "bytes=5000 packet=" + strings.Repeat("ab", maxPacket) + " ", "panic=string"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "hunter2") {
		t.Errorf("it tells what was handled:\n%s", text)
	}
}

// Kinds are bounded: a log that anybody can fill is no log.
func TestKindsAreBounded(t *testing.T) {
	var out bytes.Buffer
	var b Barrier
	b.kinds = map[string]bool{}
	for i := range maxKinds {
		b.kinds[strings.Repeat("x", i+1)] = true
	}
	guarded(&b, slog.New(slog.NewTextHandler(&out, nil)), nil, func() { short(nil) })
	if out.Len() != 0 || b.Count() != 1 {
		t.Errorf("counted %d, said %s", b.Count(), out.String())
	}
}

// Over a real connection: the client of the panic gets nothing, the next one its answer; no path is told.
func TestHandler(t *testing.T) {
	var out, errs bytes.Buffer
	h := &Handler{Part: "web", Log: slog.New(slog.NewTextHandler(&out, nil)), Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/session/") {
			panic("secret of " + r.URL.Path)
		}
		w.Write([]byte("fine"))
	})}
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(&errs, nil), slog.LevelDebug)
	s.Start()
	defer s.Close()
	for range 2 {
		if r, err := http.Post(s.URL+"/session/0123456789abcdef", "text/plain", strings.NewReader("token")); err == nil {
			t.Errorf("a panic was answered with %d", r.StatusCode)
		}
		r, err := http.Get(s.URL + "/else")
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatal(r, err)
		}
		r.Body.Close()
	}
	text := out.String()
	if n := strings.Count(text, "level=ERROR"); n != 1 || !strings.Contains(text, "method=POST") {
		t.Errorf("%d lines:\n%s", n, text)
	}
	for _, secret := range []string{"0123456789abcdef", "token"} {
		if strings.Contains(text+errs.String(), secret) {
			t.Errorf("%q is told:\n%s%s", secret, text, errs.String())
		}
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(h, &Handler{Part: "other"})
	m, err := reg.Gather()
	if err != nil || len(m) != 1 || len(m[0].GetMetric()) != 2 {
		t.Fatalf("%v, %v", m, err)
	}
	for _, v := range m[0].GetMetric() {
		if v.GetLabel()[0].GetValue() == "web" && v.GetCounter().GetValue() != 2 {
			t.Errorf("got %v", v)
		}
	}
}
