package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/hostler-project/hostler/inventory"
)

// seenFile is where the daemon keeps how far it saw the store get.
const seenFile = "seen.json"

// seenEvery is how often it is written while the store moves.
const seenEvery = 10 * time.Second

// A seen is the furthest point of the store's life that this daemon saw. A store that stands before it has lost writes
// that were acknowledged: to go on would bring back tenants that have left and lose ones that have come.
type seen struct {
	Era      string    `json:"era"`
	Revision int64     `json:"revision"`
	Time     time.Time `json:"time"`
}

// A witness is the store, with a memory across restarts of how far it got. Until that was compared, and while the store
// stands behind it (safe mode), it is read and never written.
type witness struct {
	inventory.Store
	path string
	now  func() time.Time
	log  *slog.Logger

	first    chan struct{} // closed by the first comparison
	mu       sync.Mutex
	compared bool
	back     string // how the store went back; "" while it did not
	last     seen
}

// Commit implements inventory.Store.
func (w *witness) Commit(ctx context.Context, t inventory.Txn) (inventory.Result, error) {
	w.mu.Lock()
	compared, back, first := w.compared, w.back, w.firstLocked()
	w.mu.Unlock()
	if !compared { // a moment after a start: whoever asks first need not be sent away
		select {
		case <-first:
		case <-ctx.Done():
		case <-time.After(patienceAtStart):
		}
		w.mu.Lock()
		compared, back = w.compared, w.back
		w.mu.Unlock()
	}
	switch {
	case !compared:
		return inventory.Result{}, fmt.Errorf("how far the store got is not compared yet: %w", inventory.ErrUnavailable)
	case back != "":
		return inventory.Result{}, fmt.Errorf("%w: %s", inventory.ErrBehind, back)
	}
	return w.Store.Commit(ctx, t)
}

// patienceAtStart is how long a write waits for the first comparison.
const patienceAtStart = 2 * time.Second

func (w *witness) firstLocked() chan struct{} {
	if w.first == nil {
		w.first = make(chan struct{})
	}
	return w.first
}

// check compares the store with what was seen; inventory.ErrBehind says how it went back.
func (w *witness) check(ctx context.Context) error {
	is, err := w.look(ctx)
	if err != nil {
		return err
	}
	was, err := w.read()
	if err != nil {
		return err
	}
	back := ""
	switch {
	case is.Era == "" && was.Era != "":
		back = fmt.Sprintf("the store is empty; on %s it was at revision %d", was.Time.Format(time.DateTime), was.Revision)
	case is.Era == was.Era && is.Revision < was.Revision:
		back = wentBack(was, is.seen)
	case is.Era != was.Era && was.Era != "" && !is.after(was):
		back = fmt.Sprintf("the store is of another life (era %s) than the one this daemon knew (%s)", is.Era, was.Era)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.compared {
		close(w.firstLocked())
	}
	w.compared, w.back, w.last = true, back, was
	if back != "" {
		return fmt.Errorf("%w: %s", inventory.ErrBehind, back)
	}
	return nil
}

func wentBack(was, is seen) string {
	return fmt.Sprintf("the store went back from revision %d (seen on %s) to %d: writes that were acknowledged are lost", was.Revision, was.Time.Format(time.DateTime), is.Revision)
}

// A point is where the store stands.
type point struct {
	seen
	former []inventory.FormerEra
}

// after says whether the store's own record tells that a restore ended the era that was seen.
func (p point) after(was seen) bool {
	for _, f := range p.former {
		if f.Era == was.Era {
			return true
		}
	}
	return false
}

func (w *witness) look(ctx context.Context) (point, error) {
	snap, err := w.List(ctx, inventory.KeyEra, inventory.ListOptions{})
	if err != nil {
		return point{}, err
	}
	p := point{seen: seen{Revision: snap.Rev, Time: w.now().UTC()}}
	for _, kv := range snap.KVs {
		if kv.Key != inventory.KeyEra {
			continue
		}
		d, err := inventory.Decode[inventory.Era](kv)
		if err != nil && !errors.Is(err, inventory.ErrNewer) {
			return p, err
		}
		p.Era, p.former = d.V.Era, d.V.Former
	}
	return p, nil
}

func (w *witness) read() (seen, error) {
	var s seen
	b, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return s, fmt.Errorf("%s, which says how far the store got: %w", w.path, err)
	}
	return s, nil
}

// note writes how far the store got, where that is further than what is written.
func (w *witness) note(ctx context.Context) error {
	is, err := w.look(ctx)
	if err != nil || is.Era == "" {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.compared || w.back != "" || is.Era == w.last.Era && is.Revision == w.last.Revision:
		return nil
	case is.Era == w.last.Era && is.Revision < w.last.Revision: // restored under our feet
		w.back = wentBack(w.last, is.seen)
		w.log.Error("safe mode: nothing is written any more", "why", w.back)
		return nil
	}
	b, err := json.Marshal(is.seen)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(w.path, append(b, '\n'), 0o600); err != nil {
		return err
	}
	w.last = is.seen
	return nil
}

// safeMode says how the store went back; "" while it did not.
func (w *witness) safeMode() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.back
}

// run notes now and then, and once more at the end.
func (w *witness) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			end, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer stop()
			_ = w.note(end) // the store may be gone already: then what was noted last stands
			return nil
		case <-time.After(seenEvery):
			if err := w.note(ctx); err != nil && !errors.Is(err, inventory.ErrUnavailable) && ctx.Err() == nil {
				w.log.Warn("how far the store got cannot be noted", "err", err) // a full disk ends no daemon
			}
		}
	}
}

func newWitness(c Config, s inventory.Store, log *slog.Logger) *witness {
	return &witness{Store: s, path: filepath.Join(c.Data, seenFile), now: time.Now, log: log}
}

// beneath is the store itself, for what it can tell beside an inventory.Store.
func beneath(s inventory.Store) inventory.Store {
	if w, ok := s.(*witness); ok {
		return w.Store
	}
	return s
}
