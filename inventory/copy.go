package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Reader is what views are built from: a watched Copy, or one consistent read of the store (Load).
type Reader interface {
	One(key string) KV     // Mod 0 when absent
	Under(dir string) []KV // the keys directly below dir (which ends in "/"), sorted
}

// A Copy follows the store in memory, so that boot answers, lists and the reconciler cost no read. It is a copy: what
// is written compares revisions, so a stale Copy makes a transaction fail, never succeed wrongly. History and sealed seeds stay out.
type Copy struct {
	mu   sync.RWMutex
	dirs map[string]*folder
	ids  []string  // of the nodes that have a record, sorted
	read *sync.Map // key → its Doc, as views read it last
	rev  int64
	at   time.Time // when the store last spoke
	subs map[chan Batch]struct{}
}

// NewCopy makes an empty copy; Run fills and follows.
func NewCopy() *Copy {
	return &Copy{dirs: map[string]*folder{}, read: &sync.Map{}, subs: map[chan Batch]struct{}{}}
}

// A folder is the keys directly below one place.
type folder struct {
	keys  map[string]KV
	names []string // of keys, in order
}

// How long the copy waits before it lists again: where a compaction overtook it, the store is there, and nothing that
// reads the copy goes on meanwhile.
const (
	pauseAway      = time.Second
	pauseCompacted = 20 * time.Millisecond
)

// Run lists, then watches, lists again after a compaction (nearly at once), and tries again (after a second) when the
// store is away. ready is called once, after the first list. It returns when ctx ends.
func (c *Copy) Run(ctx context.Context, s Store, ready func()) error {
	for ctx.Err() == nil {
		pause, err := pauseAway, c.follow(ctx, s, &ready)
		switch {
		case errors.Is(err, ErrCompacted):
			pause = pauseCompacted
		case err != nil && !errors.Is(err, ErrUnavailable) && ctx.Err() == nil:
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// absent are the prefixes that a Copy does not hold, in order: history is the largest part by far, sealed seeds are read
// by whoever needs one, and nobody reads either from here.
var absent = []string{PrefixHistory, PrefixSealed}

func held(key string) bool {
	return !slices.ContainsFunc(absent, func(p string) bool { return strings.HasPrefix(key, p) })
}

// Fill lists everything afresh, as of one revision; what follows it is to be watched from the next one. It asks as seldom
// as it can, because a compaction between two questions overtakes it: once for what lies before each prefix that is not
// held, and once for the rest.
func (c *Copy) Fill(ctx context.Context, s Store) (rev int64, err error) {
	var all []KV
	o := ListOptions{}
	for i := 0; i <= len(absent); i++ {
		if o.Before = ""; i < len(absent) {
			o.Before = absent[i]
		}
		snap, err := s.List(ctx, Root, o)
		if err != nil {
			return 0, err
		}
		all = append(all, snap.KVs...)
		if o.Rev = snap.Rev; i < len(absent) {
			o.After = absent[i] + "\xff"
		}
	}
	c.reset(all, o.Rev)
	return o.Rev, nil
}

func (c *Copy) follow(ctx context.Context, s Store, ready *func()) error {
	rev, err := c.Fill(ctx, s)
	if err != nil {
		return err
	}
	if *ready != nil {
		(*ready)()
		*ready = nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for b := range s.Watch(ctx, Root, rev+1) {
		if b.Err != nil {
			return b.Err
		}
		c.Apply(b)
	}
	return ErrUnavailable
}

func (c *Copy) reset(all []KV, rev int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.dirs
	c.dirs, c.ids, c.read = map[string]*folder{}, nil, &sync.Map{}
	b := Batch{Rev: rev}
	for _, kv := range all {
		c.put(kv)
		if was, ok := find(old, kv.Key); !ok || was.Mod != kv.Mod {
			b.Events = append(b.Events, Event{KV: kv})
		}
	}
	for _, f := range old {
		for _, k := range f.names {
			if _, ok := find(c.dirs, k); !ok {
				b.Events = append(b.Events, Event{KV: KV{Key: k, Mod: rev}, Deleted: true})
			}
		}
	}
	c.rev, c.at = rev, time.Now()
	c.tell(b)
}

// Apply takes one batch in; Run does it, and single-threaded simulations call it themselves. What the copy has seen
// already changes nothing: a change that is told again must not put back what was written after it.
func (c *Copy) Apply(b Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range b.Events {
		if e.KV.Mod <= c.rev || !held(e.KV.Key) {
			continue
		}
		if e.Deleted {
			c.drop(e.KV.Key)
		} else {
			c.put(e.KV)
		}
	}
	c.rev, c.at = max(c.rev, b.Rev), time.Now()
	c.tell(b)
}

func (c *Copy) put(kv KV) {
	d := dir(kv.Key)
	f := c.dirs[d]
	if f == nil {
		f = &folder{keys: map[string]KV{}}
		c.dirs[d] = f
	}
	if _, have := f.keys[kv.Key]; !have {
		i, _ := slices.BinarySearch(f.names, kv.Key)
		f.names = slices.Insert(f.names, i, kv.Key)
		if id, ok := strings.CutPrefix(d, PrefixNodes); ok && len(f.names) == 1 {
			c.setNode(strings.TrimSuffix(id, "/"), true)
		}
	}
	f.keys[kv.Key] = kv
}

func (c *Copy) drop(key string) {
	c.read.Delete(key)
	f := c.dirs[dir(key)]
	if f == nil || !f.keys[key].Exists() {
		return
	}
	delete(f.keys, key)
	i, _ := slices.BinarySearch(f.names, key)
	f.names = slices.Delete(f.names, i, i+1)
	if id, ok := strings.CutPrefix(dir(key), PrefixNodes); ok && len(f.names) == 0 {
		c.setNode(strings.TrimSuffix(id, "/"), false)
	}
}

func (c *Copy) setNode(id string, there bool) {
	switch i, have := slices.BinarySearch(c.ids, id); {
	case there && !have:
		c.ids = slices.Insert(c.ids, i, id)
	case !there && have:
		c.ids = slices.Delete(c.ids, i, i+1)
	}
}

func find(dirs map[string]*folder, key string) (KV, bool) {
	f := dirs[dir(key)]
	if f == nil {
		return KV{}, false
	}
	kv, ok := f.keys[key]
	return kv, ok
}

func (c *Copy) tell(b Batch) {
	for ch := range c.subs {
		select {
		case ch <- b:
		default: // too slow: it finds its channel closed, and begins again from a fresh read
			delete(c.subs, ch)
			close(ch)
		}
	}
}

// Subscribe gets every later batch until stop is called. A reader slower than 1,024 batches finds its channel closed
// and starts again.
func (c *Copy) Subscribe() (batches <-chan Batch, stop func()) {
	ch := make(chan Batch, 1024)
	c.mu.Lock()
	c.subs[ch] = struct{}{}
	c.mu.Unlock()
	return ch, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, ok := c.subs[ch]; ok {
			delete(c.subs, ch)
			close(ch)
		}
	}
}

// Rev is the revision the copy stands at, and Heard when the store last spoke.
func (c *Copy) Rev() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.rev
}

// One reads a key of the copy.
func (c *Copy) One(key string) (kv KV) {
	c.Frozen(func(r Reader) { kv = r.One(key) })
	return kv
}

// Under lists the keys directly below dir.
func (c *Copy) Under(dir string) (kvs []KV) {
	c.Frozen(func(r Reader) { kvs = r.Under(dir) })
	return kvs
}

// Reach waits until the copy stands at a revision or a later one.
func (c *Copy) Reach(ctx context.Context, rev int64) error {
	batches, stop := c.Subscribe()
	defer stop()
	for c.Rev() < rev {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the copy of the inventory has not reached revision %d: %w", rev, ctx.Err())
		case _, ok := <-batches:
			if !ok {
				return ErrUnavailable
			}
		}
	}
	return nil
}

// Frozen lets read see the copy as of one revision: a transaction that comes in meanwhile is seen whole or not at all.
// read must not keep the Reader.
func (c *Copy) Frozen(read func(Reader)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	read(frozen{c.dirs, c.read})
}

// frozen is the copy as of one revision. What views read of it is remembered until the record changes: a node is looked
// at far more often than it is written. So whoever has a view may replace what is in it, and must not write into its
// lists.
type frozen struct {
	dirs map[string]*folder
	read *sync.Map
}

func (f frozen) One(key string) KV {
	if kv, ok := find(f.dirs, key); ok {
		return kv
	}
	return KV{Key: key}
}

func (f frozen) Under(d string) []KV {
	dir := f.dirs[d]
	if dir == nil {
		return nil
	}
	kvs := make([]KV, 0, len(dir.names))
	for _, name := range dir.names {
		kvs = append(kvs, dir.keys[name])
	}
	return kvs
}

// Nodes lists the ids of all nodes.
func (c *Copy) Nodes() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Clone(c.ids)
}

// Node says whether a node has a record.
func (c *Copy) Node(id string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, there := slices.BinarySearch(c.ids, id)
	return there
}

// Below lists the names of the folders right below one: the tenants that have reservations, for one.
func (c *Copy) Below(folder string) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var names []string
	for d, f := range c.dirs {
		if name, ok := strings.CutPrefix(d, folder); ok && name != "" && len(f.names) > 0 {
			names = append(names, strings.TrimSuffix(name, "/"))
		}
	}
	slices.Sort(names)
	return names
}

func dir(key string) string { return key[:strings.LastIndexByte(key, '/')+1] }

// A Read is a Reader of keys and folders read from the store as they are asked for: always fresh, for transactions of
// the API. The first error is kept in Err, and everything reads as absent after it.
type Read struct {
	Ctx   context.Context
	Store Store
	Err   error
}

// One reads a key.
func (r *Read) One(key string) KV {
	if r.Err != nil {
		return KV{Key: key}
	}
	kv, err := r.Store.Get(r.Ctx, key)
	if err != nil {
		r.Err = err
		return KV{Key: key}
	}
	kv.Key = key
	return kv
}

// Under lists the keys directly below d.
func (r *Read) Under(d string) []KV {
	if r.Err != nil {
		return nil
	}
	s, err := r.Store.List(r.Ctx, d, ListOptions{})
	if err != nil {
		r.Err = err
		return nil
	}
	return slices.DeleteFunc(s.KVs, func(kv KV) bool { return dir(kv.Key) != d })
}
