package kmsg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hostler-project/hostler/health"
)

// A ring is a kernel log: it keeps the last records, gives each reader all of them in order, and says EPIPE to one that was
// overtaken.
type ring struct {
	mu     sync.Mutex
	size   int
	first  uint64 // sequence number of records[0]
	recs   []string
	more   chan struct{}
	begin  time.Time
	broken error // what opening says
	sick   error // what reading says
	stuck  bool  // reading gives nothing more
	opened int
}

func newRing(size int) *ring { return &ring{size: size, more: make(chan struct{}), begin: time.Now()} }

func (k *ring) uptime() time.Duration { return time.Since(k.begin) }

// say adds a record of the kernel, as says the same of another facility.
func (k *ring) say(format string, a ...any) { k.as(kern, fmt.Sprintf(format, a...)) }

func (k *ring) as(facility int, text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	text = strings.ReplaceAll(text, "\n", `\x0a`)
	k.recs = append(k.recs, fmt.Sprintf("%d,%d,%d,-;%s\n SUBSYSTEM=pci\n", facility<<3|4, k.first+uint64(len(k.recs)), k.uptime().Microseconds(), text))
	if n := len(k.recs) - k.size; n > 0 {
		k.recs, k.first = slices.Clone(k.recs[n:]), k.first+uint64(n)
	}
	close(k.more)
	k.more = make(chan struct{})
}

func (k *ring) open() (io.ReadCloser, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opened++
	if k.broken != nil {
		return nil, k.broken
	}
	return &ringReader{k: k, next: k.first, closed: make(chan struct{})}, nil
}

type ringReader struct {
	k      *ring
	next   uint64
	once   sync.Once
	closed chan struct{}
}

func (r *ringReader) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

func (r *ringReader) Read(b []byte) (int, error) {
	for {
		r.k.mu.Lock()
		more := r.k.more
		switch {
		case r.k.sick != nil:
			defer r.k.mu.Unlock()
			return 0, r.k.sick
		case r.k.stuck:
		case r.next < r.k.first:
			r.next = r.k.first
			r.k.mu.Unlock()
			return 0, &os.PathError{Op: "read", Path: device, Err: syscall.EPIPE}
		case r.next < r.k.first+uint64(len(r.k.recs)):
			n := copy(b, r.k.recs[r.next-r.k.first])
			r.next++
			r.k.mu.Unlock()
			return n, nil
		}
		r.k.mu.Unlock()
		select {
		case <-more:
		case <-r.closed:
			return 0, os.ErrClosed
		}
	}
}

// A listener collects what a reader says.
type listener struct {
	mu  sync.Mutex
	got []health.Signal
}

func (l *listener) hear(s health.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, s)
}

// heard is what was said since the last time, shortly.
func (l *listener) heard() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, s := range l.got {
		w := strings.TrimPrefix(s.Incident(), "xid/")
		w = strings.TrimSuffix(w, "@node")
		if s.Old {
			w += " old"
		}
		if s.Mark != health.Event {
			w += " " + string(s.Mark)
		}
		if s.Value != "" {
			w += " " + s.Value
		}
		if s.More > 0 {
			w += fmt.Sprintf(" +%d", s.More)
		}
		out = append(out, w)
	}
	l.got = nil
	return strings.Join(out, "; ")
}

// start runs a reader over a ring until stop.
func start(t *testing.T, k *ring, change func(*Reader)) (r *Reader, l *listener, stop func()) {
	t.Helper()
	l = &listener{}
	r = &Reader{Boot: "boot-1", Emit: l.hear, Open: k.open, Uptime: k.uptime, Mark: func(line string) error { k.as(1, line); return nil }}
	if change != nil {
		change(r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	synctest.Wait()
	return r, l, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func want(t *testing.T, l *listener, what string) {
	t.Helper()
	synctest.Wait()
	if got := l.heard(); got != what {
		t.Errorf("heard %q, want %q", got, what)
	}
}

const xid79 = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."

func TestReaderSaysWhatTheKernelSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newRing(100)
		k.say("NVRM: Xid (PCI:0000:3b:00): 31, pid=1, name=a, MMU Fault")
		time.Sleep(time.Minute)
		r, l, stop := start(t, k, nil)
		defer stop()
		want(t, l, "31@0000:3b:00.0 old")
		k.say(xid79)
		want(t, l, "79@0000:3b:00.0")
		k.as(1, xid79) // a program's forgery
		k.say("usb 1-1: new device")
		want(t, l, "")
		if s := r.Stats(); s.Signals != 2 || s.Lost != 0 || s.Blind {
			t.Errorf("%+v", s)
		}
	})
}

func TestReaderBelievesProgramsIfAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newRing(100)
		_, l, stop := start(t, k, func(r *Reader) { r.AcceptUser = true })
		defer stop()
		k.as(1, xid79)
		want(t, l, "79@0000:3b:00.0")
	})
}

func TestSignalsHaveTheTimeOfTheirLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newRing(100)
		at := time.Now()
		k.say(xid79)
		time.Sleep(time.Hour)
		_, l, stop := start(t, k, nil)
		defer stop()
		if s := l.got[0]; s.At.Sub(at).Abs() > time.Millisecond || s.Seq != 0 || s.Boot != "boot-1" || s.Reader != "kmsg" || s.Line != xid79 {
			t.Errorf("%+v", s)
		}
	})
}

// A restart neither repeats nor skips; a new boot begins anew.
func TestRestartGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, file := newRing(100), filepath.Join(t.TempDir(), "cursor")
		keep := func(r *Reader) { r.Cursor = file }
		_, l, stop := start(t, k, keep)
		k.say(xid79)
		want(t, l, "79@0000:3b:00.0")
		stop()
		k.say("NVRM: Xid (PCI:0000:3b:00): 31, MMU Fault")
		time.Sleep(time.Minute)
		_, l, stop = start(t, k, keep)
		k.say("NVRM: Xid (PCI:0000:3b:00): 43, x")
		want(t, l, "31@0000:3b:00.0 old; 43@0000:3b:00.0")
		stop()
		_, l, stop = start(t, k, func(r *Reader) { r.Cursor, r.Boot = file, "boot-2" })
		want(t, l, "79@0000:3b:00.0 old; 31@0000:3b:00.0 old; 43@0000:3b:00.0 old")
		stop()
		if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, l, stop = start(t, k, keep)
		want(t, l, "79@0000:3b:00.0 old; 31@0000:3b:00.0 old; 43@0000:3b:00.0 old")
		stop()
	})
}

func TestLostRecordsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, file := newRing(5), filepath.Join(t.TempDir(), "cursor")
		r, l, stop := start(t, k, func(r *Reader) { r.Cursor = file })
		k.say("one")
		synctest.Wait()
		k.mu.Lock()
		k.stuck = true
		k.mu.Unlock()
		for range 20 {
			k.say("noise")
		}
		k.mu.Lock()
		k.stuck = false
		k.mu.Unlock()
		k.say(xid79)
		want(t, l, "K/lost 16 records; 79@0000:3b:00.0")
		if n := r.Stats().Lost; n != 16 {
			t.Errorf("lost %d", n)
		}
		stop()
		for range 9 { // while nobody read
			k.say("noise")
		}
		_, l, stop = start(t, k, func(r *Reader) { r.Cursor = file })
		defer stop()
		want(t, l, "K/lost 5 records") // one more: the reader's own line
	})
}

func TestBlindnessIsTold(t *testing.T) {
	for _, c := range []struct {
		name        string
		break_, fix func(k *ring)
	}{
		{"it cannot be opened", func(k *ring) { k.broken, k.sick = errors.New("no such device"), io.ErrUnexpectedEOF }, func(k *ring) { k.broken, k.sick = nil, nil }},
		{"it opens, and reading fails", func(k *ring) { k.sick = syscall.EIO }, func(k *ring) { k.sick = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newRing(100)
				r, l, stop := start(t, k, nil)
				defer stop()
				time.Sleep(2 * time.Second)
				k.say("fine")
				want(t, l, "")
				set := func(f func(*ring)) {
					k.mu.Lock()
					f(k)
					close(k.more)
					k.more = make(chan struct{})
					k.mu.Unlock()
				}
				set(c.break_)
				time.Sleep(29 * time.Second)
				want(t, l, "")
				time.Sleep(3 * time.Second)
				want(t, l, "K/blind holds")
				if !r.Stats().Blind || k.opened > 30 {
					t.Errorf("%+v after %d openings", r.Stats(), k.opened)
				}
				set(c.fix)
				k.say(xid79)
				time.Sleep(7 * time.Second)
				want(t, l, "79@0000:3b:00.0; K/blind ended")
			})
		})
	}
}

// A reader that hangs notices, because its own line does not come back.
func TestReaderThatHangsIsBlind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newRing(100)
		r, l, stop := start(t, k, nil)
		defer stop()
		time.Sleep(59 * time.Minute)
		want(t, l, "")
		k.mu.Lock()
		k.stuck = true
		k.mu.Unlock()
		k.say(xid79)
		time.Sleep(2 * time.Minute)
		want(t, l, "K/blind holds")
		k.mu.Lock()
		k.stuck = false
		k.mu.Unlock()
		k.say("usb")
		time.Sleep(7 * time.Second)
		want(t, l, "79@0000:3b:00.0; K/blind ended")
		if k.opened < 2 {
			t.Error("it did not open the log again")
		}
		time.Sleep(25 * time.Hour)
		want(t, l, "")
		if s := r.Stats(); s.Signals != 1 || s.Blind {
			t.Errorf("%+v", s)
		}
	})
}

// Where writing into the log is not allowed, silence is no fault.
func TestReaderWithoutProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newRing(100)
		k.say("hello")
		_, l, stop := start(t, k, func(r *Reader) { r.Mark = func(string) error { return syscall.EPERM } })
		defer stop()
		time.Sleep(3 * time.Hour)
		want(t, l, "")
	})
}

// In a storm the first of each kind is read, the rest counted; what is of a new kind is read even then.
func TestStormIsSampledAndNothingIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newRing(100000)
		r, l, stop := start(t, k, func(r *Reader) { r.Lines = 100 })
		defer stop()
		for i := range 5000 {
			k.say("NVRM: Xid (PCI:0000:3b:00): 95, pid=%d, name=p%d, Uncontained: 0x%x", i, i, i)
		}
		k.say("NVRM: Xid (PCI:0000:86:00): 95, pid=7, Uncontained")
		k.say("NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x004525c6 0x00000000)")
		k.say("NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 10 (0x004525c6 0x00000000)")
		for range 50 {
			k.say("NVRM: Xid (PCI:0000:3b:00): 95, pid=1, name=x, Uncontained: 0x1")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		count := map[string]int64{}
		told := 0
		for _, s := range l.got {
			count[s.Incident()] += 1 + s.More
			told++
		}
		if len(count) != 4 || count["xid/95@0000:3b:00.0"] != 5050 || count["xid/95@0000:86:00.0"] != 1 || told > 110 {
			t.Errorf("%v in %d signals", count, told)
		}
		if s := r.Stats(); s.Sampled != 5053-int64(told)+1 && s.Sampled < 4900 || s.Skipped != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestRecords(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string
	}{
		{"6,339,5140900,-;NET: Registered\n SUBSYSTEM=acpi\n", "0 339 5.1409s NET: Registered"},
		{"12,7,1,-,caller=T1;from a program", "1 7 1µs from a program"},
		{`4,1,2,c;two\x0alines and a \x5c`, "0 1 2µs two\nlines and a \\"},
		{`4,1,2,c;cut \x5`, `0 1 2µs cut \x5`},
		{"4,1,2,-;", "0 1 2µs "},
		{"no record", "error"},
		{"4,1;x", "error"},
		{"a,b,c;x", "error"},
		{"99999999999999999999,1,2;x", "error"},
		{"", "error"},
	} {
		rec, text, err := header([]byte(c.in))
		got := fmt.Sprint(rec.facility, " ", rec.seq, " ", rec.at, " ", unescape(text))
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

// The real log of this machine, where it can be read: the reader's own line comes back.
func TestRealLog(t *testing.T) {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Skip("this machine's kernel log cannot be used: ", err)
	}
	f.Close()
	l := &listener{}
	r := &Reader{Boot: "boot-1", Emit: l.hear, AcceptUser: true}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %+v", what, r.Stats())
			}
		}
	}
	wait("the reader's own line did not come back", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return !r.marked.IsZero() && r.marker == ""
	})
	nonce := fmt.Sprintf("%x", time.Now().UnixNano())
	begin := time.Now()
	if err := os.WriteFile(device, []byte("<4>NVRM: Xid (PCI:0000:3b:00): 43, test "+nonce+"\n"), 0); err != nil {
		t.Fatal(err)
	}
	wait("the line did not come back", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		i := slices.IndexFunc(l.got, func(s health.Signal) bool { return strings.Contains(s.Line, nonce) })
		return i >= 0 && !l.got[i].Old && time.Since(l.got[i].At).Abs() < 5*time.Second
	})
	t.Logf("back after %v", time.Since(begin))
}
