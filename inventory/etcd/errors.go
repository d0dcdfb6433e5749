package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hostler-project/hostler/inventory"
)

// refusals are the codes by which etcd says that it understood and did nothing. With any other the outcome is unknown.
var refusals = map[codes.Code]bool{
	codes.InvalidArgument:    true,
	codes.NotFound:           true,
	codes.AlreadyExists:      true,
	codes.PermissionDenied:   true,
	codes.Unauthenticated:    true,
	codes.ResourceExhausted:  true,
	codes.FailedPrecondition: true,
	codes.OutOfRange:         true,
	codes.Unimplemented:      true,
	codes.DataLoss:           true,
}

// passing are refusals that asking again later can cure.
var passing = []error{rpctypes.ErrNotLeader, rpctypes.ErrNotCapable, rpctypes.ErrTooManyRequests}

// wrap says what was tried and gives etcd's error the meaning that callers of inventory.Store know.
func wrap(what string, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("etcd: %s: %w", what, inventory.ErrCompacted)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("etcd: %s: %w", what, inventory.ErrNoLease)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("etcd: %s: %w", what, inventory.ErrNoSpace)
	case unavailable(err):
		return fmt.Errorf("etcd: %s: %w: %w", what, inventory.ErrUnavailable, err)
	}
	return fmt.Errorf("etcd: %s: %v", what, err)
}

func unavailable(err error) bool {
	for _, p := range passing {
		if errors.Is(err, p) {
			return true
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	code := status.Code(err)
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		code = known.Code()
	}
	return !refusals[code]
}
