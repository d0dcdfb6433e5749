package etcd_test

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory/etcd"
)

// A member whose answers are lost from one moment on (it is frozen, or the network drops them) holds up calls and watches
// for a moment only, and is a member still.
func TestSilentMember(t *testing.T) {
	cfg := config(t)
	start(t, cfg)
	addr, lose := forward(t, cfg.ListenClient)
	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{"http://" + addr, "http://" + cfg.ListenClient}}, logTo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	from := put(t, s, "/silent/a", "1")
	ch := s.Watch(t.Context(), "/silent/", from)
	lease, err := s.Grant(t.Context(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // calls go to both in turn
		if _, err := s.Get(t.Context(), "/silent/a"); err != nil {
			t.Fatal(err)
		}
	}
	<-ch
	lose.Store(true)
	began := time.Now()
	for time.Since(began) < 6*time.Second {
		one := time.Now()
		_, err := s.Get(t.Context(), "/silent/a")
		if took := time.Since(one); err != nil || took > 2*time.Second || time.Since(began) > 3*time.Second && took > time.Second {
			t.Fatalf("%v after it fell silent a read took %v: %v", time.Since(began), took, err)
		}
		one = time.Now()
		err = s.KeepAlive(t.Context(), lease) // the first may have hung on the silent one; then it ends with it
		if took := time.Since(one); took > 2*time.Second || time.Since(began) > 3*time.Second && (err != nil || took > time.Second) {
			t.Fatalf("%v after it fell silent a lease's renewal took %v: %v", time.Since(began), took, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	last := put(t, s, "/silent/a", "2")
	select {
	case b := <-ch:
		if b.Err != nil || b.Rev != last {
			t.Errorf("the watch said %+v, want revision %d", b, last)
		}
	case <-time.After(3 * time.Second):
		t.Error("the watch still waits for the silent member")
	}
	lose.Store(false)
	if st := s.Status(t.Context()); len(st) != 2 {
		t.Errorf("status tells of %d members, want both", len(st))
	}
}

// forward is a line to a server, and a switch that loses what the server says.
func forward(t *testing.T, to string) (addr string, lose *atomic.Bool) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	lose = &atomic.Bool{}
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			go func() { defer b.Close(); _, _ = io.Copy(b, a) }()
			go func() { defer a.Close(); _, _ = io.Copy(lossy{a, lose}, b) }()
		}
	}()
	return l.Addr().String(), lose
}

type lossy struct {
	io.Writer
	lose *atomic.Bool
}

func (w lossy) Write(b []byte) (int, error) {
	if w.lose.Load() {
		return len(b), nil
	}
	return w.Writer.Write(b)
}
