// Package kmsg reads the kernel's log and says what its lines mean, as signals of package health.
//
// Reader.Run reads /dev/kmsg record by record, keeps which boot and which record it has come to in a file, so that a
// restart neither repeats nor skips, and gives the signals out in the log's order. It believes only what the kernel itself
// says (facility kern): any program may write to the log, with another facility. Records that were overwritten before they
// were read are counted and told; a reader that cannot read, or does not see the line that it wrote itself once an hour, is
// blind and says so (health-checks.md section 1.6 and 6). In a storm the first line of each kind is read, further ones are
// counted. Matcher is the table of lines. Nothing here judges what a line leads to.
package kmsg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostler-project/hostler/health"
)

const (
	device    = "/dev/kmsg"
	blindness = 30 * time.Second // how long the reader may be without proof that it reads
	proof     = time.Hour        // how often it writes a line to see whether it comes back
	largest   = 16 << 10         // of a record; the kernel's own limit is half of it
)

// A Reader reads the log of this machine's kernel.
type Reader struct {
	Boot       string              // id of this boot
	Cursor     string              // file that keeps how far it has read; empty: everything is new at each start
	AcceptUser bool                // believe programs too; for tests
	Emit       func(health.Signal) // called from one goroutine at a time, in order
	Log        *slog.Logger
	Lines      int // records a second that are looked at one by one; 0: 20,000

	// What a test replaces; nil is the real thing.
	Open   func() (io.ReadCloser, error)
	Mark   func(line string) error // writes a line into the log
	Now    func() time.Time        // wall clock
	Uptime func() time.Duration    // the clock of the log's time stamps
	Sleep  func(ctx context.Context, d time.Duration)

	mu      sync.Mutex
	match   *Matcher
	sampler sampler
	stats   Stats
	seq     uint64        // of the last record
	old     bool          // no record is known to be of after the start yet
	started time.Duration // Uptime at the start
	offset  time.Duration // how much the clock of the log's time stamps is behind Uptime
	known   bool          // seq was read from the file: a gap after it was lost
	file    io.Closer     // the log while it is open
	down    time.Time     // since when it cannot be read; zero: it can
	blind   bool
	marker  string // the line that was written and has not come back
	marked  time.Time
	saved   cursor
}

// Stats are counts since the start.
type Stats struct {
	Records int64 // read
	Signals int64 // of which meant something
	Lost    int64 // overwritten before they were read
	Sampled int64 // counted, not read one by one
	Skipped int64 // neither: too many kinds at once
	Broken  int64 // not records at all
	Reopens int64
	Blind   bool
}

// Stats tells the counts as they are now.
func (r *Reader) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Blind = r.blind
	return s
}

// Run reads until ctx ends. It returns an error only if it cannot begin.
func (r *Reader) Run(ctx context.Context) error {
	if r.Boot == "" || r.Emit == nil {
		return errors.New("kmsg: a reader needs a boot id and somebody who listens")
	}
	r.defaults()
	cursor, err := loadCursor(r.Cursor)
	if err != nil {
		r.Log.Warn("how far the kernel's log was read is not known: it is read from its beginning", "err", err)
	}
	r.begin(cursor)

	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			r.Sleep(ctx, time.Second)
			if ctx.Err() == nil {
				r.everySecond()
			}
		}
	}()
	backoff := 100 * time.Millisecond
	for ctx.Err() == nil {
		err := r.readOnce(ctx, &backoff)
		if ctx.Err() != nil {
			break
		}
		r.Log.Warn("the kernel's log cannot be read, trying again", "err", err, "after", backoff)
		r.mu.Lock()
		r.stats.Reopens++
		if r.down.IsZero() {
			r.down = r.Now()
		}
		r.mu.Unlock()
		r.Sleep(ctx, backoff)
		backoff = min(2*backoff, 5*time.Second)
	}
	<-done
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep()
	return nil
}

func (r *Reader) begin(c cursor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.boot == r.Boot {
		r.seq, r.known, r.saved = c.seq, true, c
	}
	r.down = r.Now()
	r.mark(r.down)
	r.old, r.started = true, r.Uptime()
}

func (r *Reader) defaults() {
	if r.Open == nil {
		r.Open = func() (io.ReadCloser, error) { return os.OpenFile(device, os.O_RDONLY|syscall.O_NONBLOCK, 0) }
	}
	if r.Mark == nil {
		r.Mark = func(line string) error { return os.WriteFile(device, []byte(line+"\n"), 0) } // a record is read when its line has ended
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	if r.Uptime == nil {
		r.Uptime = uptime
	}
	if r.Sleep == nil {
		r.Sleep = sleep
	}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	r.match = NewMatcher()
	r.sampler = sampler{limit: r.Lines}
	if r.sampler.limit == 0 {
		r.sampler.limit = 20000
	}
}

// readOnce reads from one opening of the log to its first error.
func (r *Reader) readOnce(ctx context.Context, backoff *time.Duration) error {
	f, err := r.Open()
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.file = f
	r.mu.Unlock()
	defer context.AfterFunc(ctx, r.close)()
	defer r.close()
	buf := make([]byte, largest)
	overrun := false
	for {
		n, err := f.Read(buf)
		switch {
		case errors.Is(err, syscall.EPIPE): // records were overwritten; the next read gives the oldest that is left
			overrun = true
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		*backoff = 100 * time.Millisecond
		r.take(buf[:n], overrun)
		overrun = false
	}
}

// isOld says whether a record is of before the start. The line that the reader wrote at its start divides the log; where it
// could not write one, the time stamps do, whose clock is not quite ours.
func (r *Reader) isOld(at time.Duration) bool {
	if r.old && r.marker == "" && at >= r.started {
		r.old = false
	}
	return r.old
}

func (r *Reader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// take handles one record.
func (r *Reader) take(b []byte, overrun bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, text, err := header(b)
	if err != nil {
		r.stats.Broken++
		return
	}
	now := r.Now()
	r.down = time.Time{}
	if r.known && rec.seq <= r.seq {
		return // read before: by an earlier start, or before the log was opened again
	}
	if r.known && rec.seq > r.seq+1 {
		r.lost(int64(rec.seq-r.seq-1), now)
	} else if overrun {
		r.lost(1, now) // how many is not known
	}
	r.seq, r.known = rec.seq, true
	r.stats.Records++
	if r.marker != "" && strings.Contains(string(text), r.marker) {
		r.marker, r.old = "", false
		r.offset = max(0, r.Uptime()-rec.at)
		return
	}
	if rec.facility != kern && !r.AcceptUser {
		return
	}
	s, ok := r.read(text, now)
	if !ok {
		return
	}
	s.Boot, s.Seq, s.Reader = r.Boot, rec.seq, "kmsg"
	s.At, s.Old = now.Add(min(0, rec.at+r.offset-r.Uptime())), r.isOld(rec.at)
	r.stats.Signals++
	r.sampler.remember(s)
	r.Emit(s)
}

// read tells what a line means, within the budget: of lines beyond it, those of a kind that was just read are counted.
func (r *Reader) read(text []byte, now time.Time) (health.Signal, bool) {
	switch r.sampler.judge(text, now, r.Emit) {
	case count:
		r.stats.Sampled++
		return health.Signal{}, false
	case skip:
		r.stats.Skipped++
		return health.Signal{}, false
	}
	return r.match.Match(unescape(text))
}

func (r *Reader) lost(n int64, now time.Time) {
	r.stats.Lost += n
	if r.marker != "" { // it may be among them
		r.mark(now)
	}
	r.Emit(r.own("lost", health.Event, fmt.Sprintf("%d records", n), now))
}

func (r *Reader) own(code string, m health.Mark, value string, now time.Time) health.Signal {
	return health.Signal{Check: "K", Code: code, Part: node(), Mark: m, Boot: r.Boot, At: now, Value: value, Reader: "kmsg"}
}

// keep gives out what was counted, and keeps the place.
func (r *Reader) keep() {
	r.sampler.flush(r.Emit)
	at := cursor{r.Boot, r.seq}
	if !r.known || at == r.saved {
		return
	}
	if err := saveCursor(r.Cursor, at); err != nil {
		r.Log.Warn("how far the kernel's log was read could not be kept", "err", err)
		return
	}
	r.saved = at
}

// everySecond keeps the place, writes a line of the reader's own when it is time, and asks whether it sees.
func (r *Reader) everySecond() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep()
	now := r.Now()
	if now.Sub(r.marked) >= proof {
		r.mark(now)
	}
	late := r.marker != "" && now.Sub(r.marked) > blindness
	ill := late || !r.down.IsZero() && now.Sub(r.down) > blindness
	switch {
	case ill && !r.blind:
		r.blind = true
		r.Log.Error("the kernel's log is not read: faults may go unseen")
		r.Emit(r.own("blind", health.Holds, "", now))
	case !ill && r.blind && r.down.IsZero():
		r.blind = false
		r.Log.Info("the kernel's log is read again")
		r.Emit(r.own("blind", health.Ended, "", now))
	}
	if late && r.file != nil { // a read that hangs: begin anew
		r.file.Close()
		r.file = nil
	}
}

// mark writes a line that has to come back. Where writing is not allowed, the log's own lines have to do as proof.
func (r *Reader) mark(now time.Time) {
	r.marked = now
	line := fmt.Sprintf("hostler: proof %016x that the log is read", rand.Uint64())
	if err := r.Mark(line); err != nil {
		r.Log.Info("no line can be written into the kernel's log: a reader that hangs is not noticed", "err", err)
		return
	}
	r.marker = line
}

func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
