package frugal

import (
	"runtime"
	"testing"
	"time"
)

// failure is a TB that notes instead of ending the test.
type failure struct {
	testing.TB
	failed bool
}

func (f *failure) Helper()               {}
func (f *failure) Fatalf(string, ...any) { f.failed = true }

var sink []byte

func TestBoundsHold(t *testing.T) {
	burn := func(d time.Duration) func() {
		return func() {
			for begin := spent(); spent()-begin < d; {
			}
		}
	}
	slowOnce := 0
	for name, tt := range map[string]struct {
		f    func()
		fail bool
	}{
		"cheap":           {func() {}, false},
		"too long":        {burn(3 * time.Millisecond), true},
		"too much":        {func() { sink = make([]byte, 4<<20) }, true},
		"waiting is free": {func() { time.Sleep(3 * time.Millisecond) }, false},
		"dear only once": {func() {
			if slowOnce++; slowOnce == 1 {
				burn(3 * time.Millisecond)()
			}
		}, false},
	} {
		f := &failure{TB: t}
		Check(f, time.Millisecond, 1<<20, tt.f)
		if f.failed != tt.fail {
			t.Errorf("%s: refused %v, want %v", name, f.failed, tt.fail)
		}
	}
	runtime.KeepAlive(sink)
}
