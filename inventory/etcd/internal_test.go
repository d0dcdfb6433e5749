package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hostler-project/hostler/inventory"
)

// Only an answer by which etcd says that it did nothing may come back as anything but ErrUnavailable.
func TestWrap(t *testing.T) {
	for _, c := range []struct {
		err  error
		want error // nil: a plain refusal
	}{
		{rpctypes.ErrCompacted, inventory.ErrCompacted},
		{rpctypes.ErrNoSpace, inventory.ErrNoSpace},
		{rpctypes.Error(rpctypes.ErrGRPCNoSpace), inventory.ErrNoSpace},
		{rpctypes.ErrNoLeader, inventory.ErrUnavailable},
		{rpctypes.ErrNotLeader, inventory.ErrUnavailable},
		{rpctypes.ErrLeaderChanged, inventory.ErrUnavailable},
		{rpctypes.ErrTimeout, inventory.ErrUnavailable},
		{rpctypes.ErrTimeoutDueToConnectionLost, inventory.ErrUnavailable},
		{rpctypes.ErrStopped, inventory.ErrUnavailable},
		{rpctypes.ErrTooManyRequests, inventory.ErrUnavailable},
		{context.DeadlineExceeded, inventory.ErrUnavailable},
		{fmt.Errorf("a call: %w", context.Canceled), inventory.ErrUnavailable},
		{status.Error(codes.Unavailable, "connection refused"), inventory.ErrUnavailable},
		{status.Error(codes.Internal, "stream broke"), inventory.ErrUnavailable},
		{errors.New("something new"), inventory.ErrUnavailable},
		{rpctypes.ErrDuplicateKey, nil},
		{rpctypes.ErrEmptyKey, nil},
		{rpctypes.ErrFutureRev, nil},
		{rpctypes.ErrPermissionDenied, nil},
		{rpctypes.ErrRequestTooLarge, nil},
		{status.Error(codes.ResourceExhausted, "message larger than max"), nil},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			got := wrap("commit", c.err)
			for _, meaning := range []error{inventory.ErrCompacted, inventory.ErrNoSpace, inventory.ErrUnavailable} {
				if errors.Is(got, meaning) != (meaning == c.want) {
					t.Errorf("got %v, want the meaning %v", got, c.want)
				}
			}
		})
	}
}

func TestBridge(t *testing.T) {
	var out bytes.Buffer
	log := bridge(slog.New(slog.NewTextHandler(&out, nil))).With(zap.String("member", "m1"))
	log.Info("elected")
	log.Warn("simple token is not cryptographically signed")
	if out.Len() > 0 {
		t.Errorf("it hands on what nobody needs: %s", out.String())
	}
	log.Warn("disk is slow", zap.Int("ms", 700))
	log.Error("disk is gone")
	for _, want := range []string{`level=WARN msg="disk is slow" from=etcd member=m1 ms=700`, `level=ERROR msg="disk is gone" from=etcd member=m1`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}
