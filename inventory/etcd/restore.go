package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// A Peer is one member of a cluster that is made anew: its name, and the URL at which the others reach it.
type Peer struct{ Name, URL string }

// revisionBump is how far revisions jump at a restore: beyond all that the lost part of the history can have had, so
// that a watcher's last revision is always in the past, and compacted: it lists again.
const revisionBump = 1_000_000_000

// RestoreSnapshot makes the data folder of a lone member of a snapshot file whose digest is checked. dir must not exist,
// or be empty. Every revision of before counts as compacted, and the next is beyond all that were.
func RestoreSnapshot(path string, cfg EmbeddedConfig) error {
	cfg = cfg.filled()
	return restore(snapshot.RestoreConfig{SnapshotPath: path, Name: memberName, OutputDataDir: cfg.Dir,
		PeerURLs: []string{"http://" + cfg.ListenPeer}, InitialCluster: memberName + "=http://" + cfg.ListenPeer,
		InitialClusterToken: "hostler", RevisionBump: revisionBump, MarkCompacted: true})
}

// WriteMembers makes of a snapshot file a data folder for each member of a new cluster: dir/NAME, to be moved to that
// member's machine. Revisions stay as the file has them.
func WriteMembers(path, dir string, peers []Peer, token string) error {
	var all []string
	for _, p := range peers {
		all = append(all, p.Name+"="+p.URL)
	}
	for _, p := range peers {
		err := restore(snapshot.RestoreConfig{SnapshotPath: path, Name: p.Name, OutputDataDir: filepath.Join(dir, p.Name),
			PeerURLs: []string{p.URL}, InitialCluster: strings.Join(all, ","), InitialClusterToken: token})
		if err != nil {
			return err
		}
	}
	return nil
}

func restore(c snapshot.RestoreConfig) error {
	if err := snapshot.NewV3(zap.NewNop()).Restore(c); err != nil {
		return fmt.Errorf("etcd: restore %s into %s: %v", c.SnapshotPath, c.OutputDataDir, err)
	}
	return os.Chmod(c.OutputDataDir, 0o700)
}

// StartPrivate starts the member of a folder for this process alone: on loopback ports that are free, which nobody was
// told.
func StartPrivate(ctx context.Context, cfg EmbeddedConfig, log *slog.Logger) (*Embedded, error) {
	var err error
	for range 3 { // somebody else may take a port between our look and etcd's
		var ports [2]string
		for i := range ports {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, fmt.Errorf("etcd: %w", err)
			}
			ports[i] = l.Addr().String()
			if err := l.Close(); err != nil {
				return nil, fmt.Errorf("etcd: %w", err)
			}
		}
		cfg.ListenClient, cfg.ListenPeer = ports[0], ports[1]
		var e *Embedded
		if e, err = StartEmbedded(ctx, cfg, log); err == nil || ctx.Err() != nil {
			return e, errors.Join(err, ctx.Err())
		}
	}
	return nil, err
}
