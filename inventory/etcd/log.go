package etcd

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// routine are messages that every start or stop of a lone embedded server gives and that nobody can act on. Where one
// of them does tell of a fault, the same comes as an error from the call or from Failed.
var routine = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
	"setting up serving from embedded etcd failed.":                                        true,
	"stopping insecure grpc server due to error":                                           true,
	"stopped insecure grpc server due to error":                                            true,
	// At a first start, when etcd looks at its version before it has written its first term; it looks again.
	"Failed to detect schema version":  true,
	"failed to update storage version": true,
	// At a start after more than 5000 writes, hundreds of times, until etcd knows again how far it had applied them.
	"failed to publish local member to cluster through raft": true,
}

// bridge makes a zap logger for the server that hands warnings and worse to log. Less is dropped: etcd tells its whole
// configuration and every election.
func bridge(log *slog.Logger) *zap.Logger { return zap.New(&slogCore{log: log.With("from", "etcd")}) }

type slogCore struct{ log *slog.Logger }

func (c *slogCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }
func (c *slogCore) Sync() error                  { return nil }

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log.With(attrs(fields)...)}
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !routine[e.Message] {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, e.Message, attrs(fields)...)
	return nil
}

func attrs(fields []zapcore.Field) []any {
	m := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(m)
	}
	var list []any
	for _, k := range slices.Sorted(maps.Keys(m.Fields)) {
		list = append(list, slog.Any(k, m.Fields[k]))
	}
	return list
}
