package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"github.com/hostler-project/hostler/internal/version"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/provisioner"
	"github.com/hostler-project/hostler/provisioner/peer"
)

// A replicaLock is held for the life of the process: whoever has it knows that every former life on this folder is dead.
type replicaLock struct {
	id    string // <data>/replica.id, made at the first start
	place string // which lock it is: of this boot of this machine, on this file
	file  *os.File
}

// lockReplica takes the lock of a data folder and reads its id.
func lockReplica(c Config) (*replicaLock, error) {
	f, err := os.OpenFile(filepath.Join(c.Data, "replica.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	l := &replicaLock{file: f}
	if err := l.take(c); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func (l *replicaLock) take(c Config) error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) { // the one before may be ending
		err := syscall.Flock(int(l.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) {
			return fmt.Errorf("%s is locked (%v): does another hostlerd run on this data folder?", l.file.Name(), err)
		}
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(l.file.Fd()), &st); err != nil {
		return err
	}
	l.place = fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	if len(c.Etcd.Endpoints) > 0 { // else the store lies in the same folder, so a copy of it is another store
		boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return err
		}
		l.place = strings.TrimSpace(string(boot)) + ":" + l.place
	}
	path := filepath.Join(c.Data, "replica.id")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = []byte("r-" + newID() + "\n")
		err = renameio.WriteFile(path, b, 0o600)
	}
	if l.id = strings.TrimSpace(string(b)); err == nil && !strings.HasPrefix(l.id, "r-") {
		err = fmt.Errorf("%s does not hold an id: remove it", path)
	}
	return err
}

// elect wires who may move which node. The reconciler's writes compare its term; the API's need none.
func (d *daemon) elect(store inventory.Lessor, lock *replicaLock) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	d.elector = &provisioner.Elector{Store: store, TTL: time.Duration(d.cfg.Replica.Lease), Now: time.Now, Busy: d.loop.Busy, Wake: d.loop.Wake, Copy: d.copy, Log: d.log,
		Me: inventory.Replica{ID: lock.id, Host: host, Version: version.String(), API: d.cfg.API.Listen, Address: d.cfg.Replica.Address, Since: time.Now().UTC(), Place: lock.place}}
	d.loop.Owns, d.loop.Left, d.loop.Since = d.elector.Owns, d.elector.Left, d.elector.Since
	d.loop.Ledger.Term = d.elector.Conds
	return nil
}

// listenPeers opens what other replicas speak to, and makes what this one speaks to them with. Both need replica.listen.
func (d *daemon) listenPeers(parts []part) ([]part, error) {
	c := d.cfg.Replica
	if c.Listen == "" {
		return parts, nil
	}
	cert, err := d.keys.Authority.Replica(d.elector.Me.ID, peer.Name, time.Now())
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("replica.listen: %w", err)
	}
	d.router.Client = peer.NewClient(cert, d.keys.Authority.Pool())
	s := &http.Server{Handler: d.router.Handler(), TLSConfig: peer.ServerTLS(cert, d.keys.Authority.Pool()), ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet(d.log)}
	return append(parts, part{name: "other replicas", run: func(ctx context.Context) error { return run(ctx, s, func() error { return s.ServeTLS(l, "", "") }) }}), nil
}

// giveUp has others go on at once: acts that run were told to end with the reconciler and get a moment to do so.
func (d *daemon) giveUp() {
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Second)
	defer stop()
	for ctx.Err() == nil && d.loop.Acting() {
		time.Sleep(20 * time.Millisecond)
	}
	ctx, stop = context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	if err := d.elector.Release(ctx); err != nil {
		d.log.Warn("the shards are not given back; others wait for the lease to end", "err", err)
	}
}
