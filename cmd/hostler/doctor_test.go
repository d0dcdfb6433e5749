package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hostler-project/hostler/inventory/doctor"
)

// doctorCmd sets what the site's daemon knows: doctor well|full.
func doctorCmd(ts *testscript.TestScript, _ bool, args []string) {
	s, _ := theSite(ts)
	s.Server.Doctor = func(context.Context) doctor.Report {
		now := time.Now()
		f := doctor.Facts{Now: now, Started: now, Embedded: true, Config: " --config site.yaml", Write: doctor.Write{At: now, Took: time.Millisecond},
			Members: []doctor.Member{{Endpoint: "http://127.0.0.1:2379", Version: "3.7.3", Quota: 1 << 30}}, Shards: doctor.Shards{Held: 64, Total: 64},
			Disks: []doctor.Disk{{What: "data", Path: "/", Free: 1 << 40, Total: 1 << 41}}, Clock: doctor.Clock{Synchronised: true}, Backup: now}
		if args[0] == "full" {
			f.Write = doctor.Write{At: now, Err: "NOSPACE", Full: true, Since: now.Add(-time.Minute)}
		}
		return doctor.Examine(f)
	}
}

// Whoever answers in hostlerd's place, or does not: doctor says what can be done about it.
func TestDoctorWithoutADaemon(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>it works</html>") }))
	defer other.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	older := httptest.NewServer(http.NotFoundHandler())
	defer older.Close()
	starting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"detail":"hostlerd has started and not read the store yet","fix":"is etcd running?"}`)
	}))
	defer starting.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, url, found, fix string }{
		{"another program", other.URL, "something else", "ss -ltnp 'sport = :" + other.URL[strings.LastIndex(other.URL, ":")+1:]},
		{"an older hostlerd", older.URL, "cannot say how it is", "ss -ltnp"},
		{"a certificate that is not good", secure.URL, "x509", "TLS proxy"},
		{"https where http is spoken", strings.Replace(other.URL, "http:", "https:", 1), "HTTP response", "HOSTLER_URL=" + other.URL},
		{"still starting", starting.URL, "not read the store yet", "is etcd running?"},
		{"nobody", "http://127.0.0.1:1", "nothing listens", "hostlerd"},
		{"no answer", "http://" + mute.Addr().String(), "no answer", "journalctl"},
		{"no such machine", "http://no-such-machine.invalid", "no-such-machine", "HOSTLER_URL"},
		{"not an address", "8080", "not an address", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := map[string]string{"HOSTLER_URL": c.url, "HOSTLER_TOKEN_FILE": file}
			a := &app{getenv: func(n string) string { return env[n] }}
			ctx := t.Context()
			if c.name == "no answer" {
				var stop func()
				ctx, stop = context.WithTimeout(ctx, 300*time.Millisecond)
				defer stop()
			}
			r := a.examine(ctx)
			if r.Well || len(r.Rows) == 0 {
				t.Fatalf("got %+v", r)
			}
			if row := r.Rows[0]; row.Level != doctor.Fail || !strings.Contains(row.Found, c.found) || !strings.Contains(row.Fix, c.fix) {
				t.Errorf("got %+v, want %q → %q", row, c.found, c.fix)
			}
		})
	}
}

func TestClocks(t *testing.T) {
	begin := time.Now()
	end := begin.Add(100 * time.Millisecond)
	for _, c := range []struct {
		off   time.Duration // of the daemon's clock, from begin
		level string
	}{{50 * time.Millisecond, doctor.OK}, {-3 * time.Second, doctor.OK}, {-time.Minute, doctor.Warn}, {10 * 365 * 24 * time.Hour, doctor.Warn}} {
		if row := clocks(begin.Add(c.off), begin, end); row.Level != c.level {
			t.Errorf("%v off: %+v", c.off, row)
		}
	}
}
