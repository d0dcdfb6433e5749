package api

import (
	"errors"
	"sync"

	"github.com/hostler-project/hostler/inventory"
)

// publics remembers public records decoded: a list of ten thousand nodes is mostly decoding, and between two lists few of
// them change. A record is known by key and revision, so nothing has to be told to it.
type publics struct {
	mu   sync.Mutex
	seen map[string]decoded
}

type decoded struct {
	mod int64
	p   inventory.Public
	ok  bool
}

// of decodes records, in order; one that cannot be read is left out. Reasons are shared: do not write to them. all says
// that these are all records there are: what else is remembered is gone.
func (c *publics) of(kvs []inventory.KV, all bool) []inventory.Public {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil || all && len(c.seen) > 2*len(kvs)+1024 {
		c.seen = map[string]decoded{}
	}
	out := make([]inventory.Public, 0, len(kvs))
	for _, kv := range kvs {
		d, known := c.seen[kv.Key]
		if !known || d.mod != kv.Mod {
			v, err := inventory.Decode[inventory.Public](kv)
			d = decoded{kv.Mod, v.V, v.Exists() && (err == nil || errors.Is(err, inventory.ErrNewer))}
			c.seen[kv.Key] = d
		}
		if d.ok {
			out = append(out, d.p)
		}
	}
	return out
}
