package rack

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// netnsDir is where namespaces are kept by name, one mount each. Not ip(8)'s /run/netns: the first ip netns add of
// anybody mounts that folder over itself, and what was there before can no longer be removed.
const netnsDir = "/run/hostler-netns"

// A namespace is a named network namespace and the one thread of this process
// that lives in it. All children are started by that thread: they inherit the
// namespace, and the kernel kills them when the thread ends (PR_SET_PDEATHSIG
// counts threads, not processes), so that a killed supervisor takes them along.
type namespace struct {
	name string
	work chan func()
	quit chan struct{} // closed to end the thread
	end  chan struct{} // closed when the thread is gone

	mu   sync.Mutex
	file *os.File // the namespace itself, for setns; nil once closed
}

// newNamespace makes the namespace and its mount under netnsDir.
func newNamespace(name string) (*namespace, error) {
	ns := &namespace{name: name, work: make(chan func()), quit: make(chan struct{}), end: make(chan struct{})}
	ready := make(chan error)
	go func() {
		// Never unlocked: the Go runtime ends the thread with the goroutine.
		runtime.LockOSThread()
		defer close(ns.end)
		err := ns.enterNew()
		ready <- err
		if err != nil {
			return
		}
		for {
			select {
			case f := <-ns.work:
				f()
			case <-ns.quit:
				return
			}
		}
	}()
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("rack: make network namespace %s: %w", name, err)
	}
	return ns, nil
}

func (ns *namespace) path() string { return filepath.Join(netnsDir, ns.name) }

// enterNew moves the calling thread into a new namespace and pins it by name,
// so that nsenter --net=FILE works on it.
func (ns *namespace) enterNew() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	pin, err := os.OpenFile(ns.path(), os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	pin.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		os.Remove(ns.path())
		return fmt.Errorf("unshare: %w", err)
	}
	self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	if err := unix.Mount(self, ns.path(), "", unix.MS_BIND, ""); err != nil {
		os.Remove(ns.path())
		return fmt.Errorf("mount on %s: %w", ns.path(), err)
	}
	if ns.file, err = os.Open(ns.path()); err != nil {
		removeNamespace(ns.name)
		return err
	}
	return nil
}

// call runs f on the namespace's thread and waits for it. f must not block:
// everything else that wants to start a child waits behind it.
func (ns *namespace) call(f func() error) error {
	done := make(chan error, 1)
	select {
	case ns.work <- func() { done <- f() }:
		return <-done
	case <-ns.end:
		return ns.closed()
	}
}

func (ns *namespace) closed() error {
	return fmt.Errorf("rack: network namespace %s is closed", ns.name)
}

// visit runs f on a thread of its own inside the namespace; f may block, and
// what it opens stays usable afterwards.
func (ns *namespace) visit(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, as above
		if err := ns.enter(); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// enter moves the calling thread into the namespace.
func (ns *namespace) enter() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.file == nil {
		return ns.closed()
	}
	if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("rack: enter network namespace %s: %w", ns.name, err)
	}
	return nil
}

// dial connects from inside the namespace. The address is an IP literal: a name
// would be looked up on other threads.
func (ns *namespace) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var c net.Conn
	err := ns.visit(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// listen opens a TCP listener inside the namespace.
func (ns *namespace) listen(addr string) (net.Listener, error) {
	var l net.Listener
	err := ns.visit(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	return l, err
}

// close ends the thread, and with it every child that still runs, and removes
// the name. The kernel removes links and taps with the last user.
func (ns *namespace) close() error {
	close(ns.quit)
	<-ns.end
	ns.mu.Lock()
	ns.file.Close()
	ns.file = nil
	ns.mu.Unlock()
	return removeNamespace(ns.name)
}

// removeNamespace unpins a namespace; one that is not there is fine.
func removeNamespace(name string) error {
	p := filepath.Join(netnsDir, name)
	if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("rack: unmount %s: %w", p, err)
	}
	if err := os.Remove(p); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("rack: remove %s: %w", p, err)
	}
	return nil
}
