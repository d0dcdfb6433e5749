package api

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// idForm is what a name given by a client may look like: it becomes part of a key.
var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// hostForm is a host name as a BMC may have.
var hostForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

const idWords = "letters, digits, '.', '_', '-'; at most 64"

// catchUp bounds the wait for the copy. A revision that touched none of our keys may never reach it, so it is short.
const catchUp = 250 * time.Millisecond

// read is a Reader as fresh as the store: one small read proves that the store answers and tells its revision, then the
// copy in memory is waited for. So lists cost the store nothing, a client reads what it has just written, and when the
// store is away a client is told so instead of being shown the past.
func (s *Server) read(ctx context.Context) (inventory.Reader, error) {
	rev, err := s.revision(ctx)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(catchUp); s.Copy.Rev() < rev && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(time.Millisecond)
	}
	return s.Copy, nil
}

func (s *Server) revision(ctx context.Context) (int64, error) {
	snap, err := s.Store.List(ctx, inventory.PrefixMeta, inventory.ListOptions{Limit: 1, KeysOnly: true})
	return snap.Rev, err
}

// find resolves what a person calls a node: name, id, and for our own people serial, MAC or UUID.
func find(r inventory.Reader, who Identity, word string) (string, bool) {
	if r.One(inventory.KeyState(word)).Exists() && idForm.MatchString(word) {
		return word, true
	}
	kinds := []string{"name", "serial", "mac", "uuid"}
	if who.Role == RoleRental {
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		if id := ledger.Holder(r, kind, word); id != "" {
			return id, true
		}
	}
	return "", false
}

// node reads one node by what the caller calls it.
func (s *Server) node(ctx context.Context, word string) (inventory.NodeView, error) {
	r, err := s.read(ctx)
	if err != nil {
		return inventory.NodeView{}, err
	}
	id, ok := find(r, caller(ctx), word)
	if !ok {
		return inventory.NodeView{}, noNode(word)
	}
	return inventory.View(r, id), nil
}

func noNode(word string) error {
	return problem(http.StatusNotFound, "hostler node ls", "there is no node called %.100q", word)
}

func skuNames(r inventory.Reader) []string {
	var names []string
	for _, kv := range r.Under(inventory.PrefixSKUs) {
		names = append(names, inventory.Parts(kv.Key)[1])
	}
	slices.Sort(names)
	return names
}
