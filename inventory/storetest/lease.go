package storetest

import (
	"errors"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

var leaseCases = []testCase{
	{"lease: revoked, its keys go at one revision", func(e *env) {
		l := e.lessor()
		id := e.grant(l)
		with := func(op inventory.Op) inventory.Op { op.Lease = id; return op }
		rev := e.do(with(e.put("a", "1")), with(e.put("b", "1")), with(e.put("freed", "1")), e.put("never", "1"))
		e.same("revision", e.do(e.put("freed", "2")), rev+1)
		if err := l.KeepAlive(e.Context(), id); err != nil {
			e.Fatal(err)
		}
		if err := l.Revoke(e.Context(), id); err != nil {
			e.Fatal(err)
		}
		got := e.list(inventory.ListOptions{})
		e.same("names", e.names(got.KVs), []string{"freed", "never"})
		e.same("one revision", e.do(e.put("after", "1")), rev+3)
		if err := l.Revoke(e.Context(), id); err != nil {
			e.Errorf("revoked again: %v", err)
		}
		if err := l.KeepAlive(e.Context(), id); !errors.Is(err, inventory.ErrNoLease) {
			e.Errorf("kept alive after it was revoked: %v", err)
		}
		_, err := e.s.Commit(e.Context(), inventory.Txn{Then: []inventory.Op{with(e.put("late", "1")), e.put("never", "2")}})
		if !errors.Is(err, inventory.ErrNoLease) {
			e.Errorf("a write on a lease that is gone: %v", err)
		}
		e.same("late exists", e.get("late").Exists(), false)
		e.same("never", string(e.get("never").Value), "1")
	}},
	{"lease: renewed, it stays; not renewed, it ends", func(e *env) {
		l := e.lessor()
		id := e.grant(l)
		op := e.put("a", "1")
		op.Lease = id
		e.do(op)
		for range 6 { // three times its life
			time.Sleep(500 * time.Millisecond)
			if err := l.KeepAlive(e.Context(), id); err != nil {
				e.Fatal(err)
			}
		}
		e.same("kept", e.get("a").Exists(), true)
		begin := time.Now()
		for e.get("a").Exists() {
			if time.Since(begin) > patience {
				e.Fatal("the key outlives its lease")
			}
			time.Sleep(50 * time.Millisecond)
		}
		if took := time.Since(begin); took < 900*time.Millisecond {
			e.Errorf("it ended %v after it was renewed, its life is a second", took)
		}
	}},
}

func (e *env) lessor() inventory.Lessor {
	l, ok := e.s.(inventory.Lessor)
	if !ok {
		e.Fatalf("%T has no leases", e.s)
	}
	return l
}

func (e *env) grant(l inventory.Lessor) int64 {
	e.Helper()
	id, err := l.Grant(e.Context(), time.Second)
	if err != nil {
		e.Fatal(err)
	}
	return id
}
