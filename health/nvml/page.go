package nvml

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Page is the worker's black box: one page of memory that both processes map. Before each call into the driver the
// worker notes which call, on which GPU, since when; after it, that it came back. So the supervisor sees exactly which
// call blocks and for how long, though the worker cannot say a word any more, and pays nothing while none does.
type Page struct {
	mem []byte
}

const pageSize = 4096

// pageLayout is the same in both processes: they ship together.
type pageLayout struct {
	seq   uint64 // odd while a call is under way
	since int64  // its start on CLOCK_MONOTONIC, which is the same clock in every process
	tid   int64  // the thread that calls
	call  [64]byte
	bus   [32]byte
}

// A Call is what the page says at one moment.
type Call struct {
	Seq   uint64
	Under bool // a call is under way
	For   time.Duration
	TID   int
	Name  string
	Bus   string
}

// NewPage makes a page and the file that the worker inherits.
func NewPage() (*Page, *os.File, error) {
	fd, err := unix.MemfdCreate("hostler-nvml", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("nvml: make a shared page: %w", err)
	}
	file := os.NewFile(uintptr(fd), "hostler-nvml page")
	if err := file.Truncate(pageSize); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("nvml: make a shared page: %w", err), file.Close())
	}
	p, err := MapPage(file)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return p, file, nil
}

// MapPage maps the page that the supervisor gave.
func MapPage(file *os.File) (*Page, error) {
	mem, err := unix.Mmap(int(file.Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("nvml: map the shared page: %w", err)
	}
	return &Page{mem: mem}, nil
}

// PrivatePage is a page that nobody else looks at.
func PrivatePage() *Page { return &Page{mem: make([]byte, pageSize)} }

// Close unmaps the page.
func (p *Page) Close() error { return unix.Munmap(p.mem) }

func (p *Page) layout() *pageLayout { return (*pageLayout)(unsafe.Pointer(&p.mem[0])) }

// Begin notes a call. Only one thread may use it.
func (p *Page) Begin(name, bus string) {
	l := p.layout()
	fill(l.call[:], name)
	fill(l.bus[:], bus)
	atomic.StoreInt64(&l.tid, int64(unix.Gettid()))
	atomic.StoreInt64(&l.since, monotonic())
	atomic.AddUint64(&l.seq, 1)
}

// End notes that it came back, and says how long it took.
func (p *Page) End() time.Duration {
	l := p.layout()
	took := monotonic() - atomic.LoadInt64(&l.since)
	atomic.AddUint64(&l.seq, 1)
	return time.Duration(took)
}

// Now is what the page says.
func (p *Page) Now() Call {
	l := p.layout()
	for range 100 { // the worker may be between two calls
		seq := atomic.LoadUint64(&l.seq)
		c := Call{Seq: seq, Under: seq%2 == 1, TID: int(atomic.LoadInt64(&l.tid)), Name: text(l.call[:]), Bus: text(l.bus[:])}
		c.For = time.Duration(monotonic() - atomic.LoadInt64(&l.since))
		if atomic.LoadUint64(&l.seq) == seq {
			return c
		}
		runtime.Gosched()
	}
	return Call{Seq: atomic.LoadUint64(&l.seq)} // it moves: it is not blocked
}

func fill(to []byte, s string) {
	n := copy(to[:len(to)-1], s)
	clear(to[n:])
}

func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // Linux always has it
	}
	return ts.Nano()
}
