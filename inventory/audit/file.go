package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A history file is JSON, one object a line. First the store as it was at one revision, in one or more pieces, then
// every change after it, a line for each batch:
//
//	{"format":"hostler-history/1","snapshot":{"rev":12,"kvs":[{"key":"/hostler/v1/nodes/n-1/state","create":4,"mod":12,"value":{…}}],"more":true}}
//	{"snapshot":{"rev":12,"kvs":[…]}}
//	{"batch":{"rev":13,"events":[{"key":"…","create":4,"mod":13,"value":{…}},{"key":"…","mod":13,"deleted":true}]}}
//
// A value that is no compact JSON stands as base64 under "raw". Values under sealed/, credentials/ and tokens/ are
// secrets and are left out: there "left_out" is their length.
const format = "hostler-history/1"

// secrets are the prefixes whose values are in no file.
var secrets = []string{inventory.PrefixSealed, inventory.PrefixCredentials, inventory.PrefixTokens}

type fileLine struct {
	Format   string        `json:"format,omitempty"`
	Snapshot *fileSnapshot `json:"snapshot,omitempty"`
	Batch    *fileBatch    `json:"batch,omitempty"`
}

type fileSnapshot struct {
	Rev  int64    `json:"rev"`
	KVs  []fileKV `json:"kvs"`
	More bool     `json:"more,omitempty"`
}

type fileBatch struct {
	Rev    int64    `json:"rev"`
	Events []fileKV `json:"events"`
}

type fileKV struct {
	Key     string          `json:"key"`
	Create  int64           `json:"create,omitempty"`
	Mod     int64           `json:"mod"`
	Deleted bool            `json:"deleted,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"`
	Raw     []byte          `json:"raw,omitempty"`
	LeftOut int             `json:"left_out,omitempty"`
}

func toFile(kv inventory.KV, deleted bool) fileKV {
	f := fileKV{Key: kv.Key, Create: kv.Create, Mod: kv.Mod, Deleted: deleted}
	var compact bytes.Buffer
	switch {
	case deleted:
	case slices.ContainsFunc(secrets, func(p string) bool { return strings.HasPrefix(kv.Key, p) }):
		f.LeftOut = len(kv.Value)
	case json.Compact(&compact, kv.Value) == nil && bytes.Equal(compact.Bytes(), kv.Value):
		f.Value = kv.Value
	default:
		f.Raw = kv.Value
	}
	return f
}

func (f fileKV) kv() inventory.KV {
	kv := inventory.KV{Key: f.Key, Create: f.Create, Mod: f.Mod, Value: f.Raw}
	if f.Value != nil {
		kv.Value = f.Value
	}
	return kv
}

// A Writer writes a history file: first Snapshot (of an empty store, where a history begins with nothing), then batches.
type Writer struct {
	enc   *json.Encoder
	begun bool
}

// NewWriter writes to w.
func NewWriter(w io.Writer) *Writer {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &Writer{enc: enc}
}

func (w *Writer) line(l fileLine) error {
	if !w.begun {
		l.Format, w.begun = format, true
	}
	if err := w.enc.Encode(l); err != nil {
		return fmt.Errorf("audit: write the history: %w", err)
	}
	return nil
}

// Snapshot writes the store as of a revision, or a piece of it where More says so.
func (w *Writer) Snapshot(s inventory.Snapshot) error {
	out := fileSnapshot{Rev: s.Rev, KVs: []fileKV{}, More: s.More}
	for _, kv := range s.KVs {
		out.KVs = append(out.KVs, toFile(kv, false))
	}
	return w.line(fileLine{Snapshot: &out})
}

// Batch writes what changed.
func (w *Writer) Batch(b inventory.Batch) error {
	out := fileBatch{Rev: b.Rev, Events: []fileKV{}}
	for _, e := range b.Events {
		out.Events = append(out.Events, toFile(e.KV, e.Deleted))
	}
	return w.line(fileLine{Batch: &out})
}

// Check walks a history file to its end. An error says that it is none, or cut off.
func Check(r io.Reader, o Options) (Verdict, error) {
	c := New(o)
	v := Verdict{Began: time.Time{}}
	dec := json.NewDecoder(bufio.NewReaderSize(r, 1<<20))
	for line, loaded := 1, false; ; line++ {
		var l fileLine
		err := dec.Decode(&l)
		switch {
		case errors.Is(err, io.EOF) && loaded:
			v.take(c)
			return v, nil
		case errors.Is(err, io.EOF):
			return v, fmt.Errorf("audit: the history ends before its snapshot does: save it again")
		case err != nil:
			return v, fmt.Errorf("audit: line %d of the history: %w", line, err)
		case line == 1 && l.Format != format:
			return v, fmt.Errorf("audit: line 1 does not say %q: this is no history that this version knows", format)
		case l.Snapshot != nil && loaded, l.Batch != nil && !loaded, (l.Snapshot == nil) == (l.Batch == nil):
			return v, fmt.Errorf("audit: line %d of the history is out of place: a snapshot, then batches", line)
		}
		if s := l.Snapshot; s != nil {
			if line == 1 {
				c.begin()
				v.From = s.Rev
			}
			for _, kv := range s.KVs {
				c.take(inventory.Event{KV: kv.kv()})
			}
			if loaded = !s.More; loaded {
				v.note(c.loaded(s.Rev), time.Time{})
			}
			continue
		}
		b := inventory.Batch{Rev: l.Batch.Rev}
		for _, e := range l.Batch.Events {
			b.Events = append(b.Events, inventory.Event{KV: e.kv(), Deleted: e.Deleted})
		}
		v.note(c.all(b), time.Time{})
	}
}

// page is how many keys are read at once.
const page = 1000

// pages reads everything under inventory.Root as of a revision (0: the newest), piece by piece.
func pages(ctx context.Context, s inventory.Store, rev int64, each func(inventory.Snapshot) error) (int64, error) {
	for after := ""; ; {
		snap, err := s.List(ctx, inventory.Root, inventory.ListOptions{Rev: rev, After: after, Limit: page})
		if err != nil {
			return rev, err
		}
		if rev == 0 {
			rev = snap.Rev
		}
		snap.Rev = rev
		if err := each(snap); err != nil || !snap.More {
			return rev, err
		}
		after = snap.KVs[len(snap.KVs)-1].Key
	}
}

// quiet is how long a store must have nothing more to say before a saved history counts as complete.
const quiet = 2 * time.Second

// Save writes what the store still keeps: all as of the oldest revision that was not compacted, and every change up to
// revision until.
func Save(ctx context.Context, s inventory.Store, w io.Writer, until int64) error {
	out := NewWriter(w)
	oldest, err := kept(ctx, s, until)
	if err != nil {
		return err
	}
	if _, err := pages(ctx, s, oldest, out.Snapshot); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	batches := s.Watch(ctx, inventory.Root, oldest+1)
	for at := oldest; at < until; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quiet): // what is left up to until was none of ours
			return nil
		case b := <-batches:
			if b.Err != nil {
				return b.Err
			}
			if at = b.Rev; len(b.Events) > 0 {
				if err := out.Batch(b); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// kept is the oldest revision that can still be read.
func kept(ctx context.Context, s inventory.Store, newest int64) (int64, error) {
	low, high := int64(1), newest
	for low < high {
		mid := low + (high-low)/2
		_, err := s.List(ctx, inventory.Root, inventory.ListOptions{Rev: mid, Limit: 1, KeysOnly: true})
		switch {
		case errors.Is(err, inventory.ErrCompacted):
			low = mid + 1
		case err != nil:
			return 0, err
		default:
			high = mid
		}
	}
	return low, nil
}
