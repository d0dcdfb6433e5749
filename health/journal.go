package health

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/google/renameio/v2"
)

// A journal keeps incidents and the past over a restart: one file, added to, each line with a checksum. What follows the
// first line that is not whole is cut off: a crash in the middle of a write leaves that. A transition is synced before it
// is reported; counts are not. A journal without a file keeps nothing.
type journal struct {
	file string
	f    *os.File
	size int64
	log  *slog.Logger
	bad  bool // the last write failed, and that was said
}

const maxJournal = 4 << 20

// A line of the journal is one of these.
type entry struct {
	Incident *incident   `json:"incident,omitempty"`
	Gone     string      `json:"gone,omitempty"`
	Past     string      `json:"past,omitempty"`
	Times    *occurrence `json:"times,omitempty"`
}

// openJournal reads a journal into a Judge.
func openJournal(file string, j *Judge, log *slog.Logger) (*journal, error) {
	jl := &journal{file: file, log: log}
	if file == "" {
		return jl, nil
	}
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("health: read the journal %s: %w", file, err)
	}
	whole := 0
	for whole < len(b) {
		n := bytes.IndexByte(b[whole:], '\n')
		if n < 0 {
			break
		}
		var e entry
		if !parse(b[whole:whole+n], &e) {
			break
		}
		j.replay(e)
		whole += n + 1
	}
	if whole < len(b) {
		log.Warn("the end of the health journal is not whole, and was cut off", "bytes", len(b)-whole)
	}
	return jl, jl.rewrite(j) // always begins tidy
}

func parse(line []byte, e *entry) bool {
	sum, body, ok := bytes.Cut(line, []byte{' '})
	return ok && string(sum) == checksum(body) && json.Unmarshal(body, e) == nil
}

func checksum(b []byte) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE(b)) }

func (j *Judge) replay(e entry) {
	switch {
	case e.Incident != nil:
		j.list[e.Incident.V.ID] = e.Incident
	case e.Gone != "":
		delete(j.list, e.Gone)
	case e.Past != "" && e.Times != nil:
		j.past.add(e.Past, *e.Times, 0, false)
	}
}

// rewrite replaces the file by what the Judge remembers now.
func (jl *journal) rewrite(j *Judge) error {
	var b bytes.Buffer
	for _, inc := range j.sorted() {
		b.Write(line(entry{Incident: inc}))
	}
	for k, t := range j.past {
		for _, o := range t.at {
			b.Write(line(entry{Past: k, Times: &o}))
		}
	}
	if err := renameio.WriteFile(jl.file, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("health: write the journal: %w", err)
	}
	f, err := os.OpenFile(jl.file, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("health: open the journal: %w", err)
	}
	if jl.f != nil {
		jl.f.Close()
	}
	jl.f = f
	jl.size, err = f.Seek(0, io.SeekEnd)
	return err
}

func line(e entry) []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // plain structs
	}
	return append([]byte(checksum(b)+" "), append(b, '\n')...)
}

// incident writes an incident; sync before it is reported.
func (jl *journal) incident(inc *incident, sync bool) { jl.write(entry{Incident: inc}, sync) }

func (jl *journal) gone(id string) { jl.write(entry{Gone: id}, true) }

func (jl *journal) past(key string, o occurrence) { jl.write(entry{Past: key, Times: &o}, false) }

func (jl *journal) write(e entry, sync bool) {
	if jl.f == nil {
		return
	}
	n, err := jl.f.Write(line(e))
	jl.size += int64(n)
	if err == nil && sync {
		err = jl.f.Sync()
	}
	if err != nil && !jl.bad { // judging goes on without it
		jl.log.Error("the health journal cannot be written: a restart will not know of this", "err", err)
	}
	jl.bad = err != nil
}

// tidy shortens a journal that has grown; a failed write is tried again this way.
func (jl *journal) tidy(j *Judge) {
	if jl.f == nil || jl.size < maxJournal && !jl.bad {
		return
	}
	if err := jl.rewrite(j); err != nil {
		if !jl.bad {
			jl.log.Error("the health journal cannot be tidied", "err", err)
		}
		jl.bad = true
		return
	}
	jl.bad = false
}

func (jl *journal) close() error {
	if jl.f == nil {
		return nil
	}
	err := errors.Join(jl.f.Sync(), jl.f.Close())
	jl.f = nil
	return err
}

// saved is when a time survives JSON unchanged: without the monotonic part.
func saved(t time.Time) time.Time { return t.Round(0).UTC() }
