package bmc

import "context"

type guardKey struct{}

// Guard has may asked right before every datagram that is sent to a controller under this context; an error of may is
// returned instead, and nothing is sent. It is for a caller that can lose the right to act between two orders, or while
// it waits for an answer: a context alone ends by a timer, which comes late in a process that was paused.
func Guard(ctx context.Context, may func() error) context.Context {
	return context.WithValue(ctx, guardKey{}, may)
}

func guardOf(ctx context.Context) func() error {
	may, _ := ctx.Value(guardKey{}).(func() error)
	return may
}
