package provisioner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hostler-project/hostler/bmc"
	"github.com/hostler-project/hostler/inventory"
)

// A Fence cuts a machine off its networks, attaches it, and reads back where it is (design.md section 12).
type Fence interface {
	Name() string
	Isolate(ctx context.Context, v inventory.NodeView) error
	Provide(ctx context.Context, v inventory.NodeView) error // on the provisioning network, alone
	Attach(ctx context.Context, v inventory.NodeView, instance string) error
}

// Hands perform acts through the BMC and the fence.
type Hands struct {
	BMCs    *bmc.Pool
	Target  func(v inventory.NodeView) (bmc.Target, error) // address and unsealed credential
	Fence   Fence
	Timeout time.Duration // of one act; 0: 2 min
}

// actTable says how each act is done.
var actTable = map[Act]func(context.Context, *Hands, inventory.NodeView) Result{
	ReadPower: func(ctx context.Context, h *Hands, v inventory.NodeView) Result { return h.power(ctx, v) },
	PowerOff:  func(ctx context.Context, h *Hands, v inventory.NodeView) Result { return h.power(ctx, v, bmc.Off) },
	PowerOn:   func(ctx context.Context, h *Hands, v inventory.NodeView) Result { return h.power(ctx, v, bmc.On) },
	PowerCycle: func(ctx context.Context, h *Hands, v inventory.NodeView) Result {
		return h.power(ctx, v, bmc.Off, bmc.On)
	},
	BootNetwork: func(ctx context.Context, h *Hands, v inventory.NodeView) Result {
		return h.boot(ctx, v, bmc.PXE, false)
	},
	BootDisk: func(ctx context.Context, h *Hands, v inventory.NodeView) Result {
		return h.boot(ctx, v, bmc.Disk, true)
	},
	FenceIsolate: func(ctx context.Context, h *Hands, v inventory.NodeView) Result {
		return Result{Err: h.Fence.Isolate(ctx, v)}
	},
	FenceProvide: func(ctx context.Context, h *Hands, v inventory.NodeView) Result {
		return Result{Err: h.Fence.Provide(ctx, v)}
	},
	FenceAttach: func(ctx context.Context, h *Hands, v inventory.NodeView) Result {
		return Result{Err: h.Fence.Attach(ctx, v, v.Claim.V.Instance)}
	},
}

// Perform does one act and observes what came of it.
func (h *Hands) Perform(ctx context.Context, v inventory.NodeView, a Act) Result {
	do, ok := actTable[a]
	if !ok {
		return Result{Err: fmt.Errorf("act %q has no row", a), Fatal: true}
	}
	timeout := h.Timeout
	if timeout == 0 {
		timeout = 2 * time.Minute
	}
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	return do(ctx, h, v)
}

// power reads the power state, or brings it through the states wanted, each confirmed.
func (h *Hands) power(ctx context.Context, v inventory.NodeView, want ...bmc.Power) Result {
	return h.with(ctx, v, func(c *bmc.Controller) Result {
		for _, p := range want {
			if err := c.SetPower(ctx, p); err != nil {
				return Result{Err: err}
			}
			if p == bmc.Off && len(want) > 1 {
				select { // supplies need a moment without current to count as off
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
		}
		p, err := c.Power(ctx)
		return Result{Power: string(p), Err: err}
	})
}

// boot sets the boot device. One that the controller keeps for one boot only is told, not refused: the agent makes the
// disk first in band as well.
func (h *Hands) boot(ctx context.Context, v inventory.NodeView, dev bmc.Device, persistent bool) Result {
	return h.with(ctx, v, func(c *bmc.Controller) Result {
		err := c.SetBootDevice(ctx, dev, persistent)
		if d := (*bmc.Dropped)(nil); errors.As(err, &d) {
			return Result{Note: d.Error()}
		}
		return Result{Err: err}
	})
}

// with opens the node's controller. It refuses acts where the controller sits in another machine than the target names:
// an address may have moved (reliability.md F-36).
func (h *Hands) with(ctx context.Context, v inventory.NodeView, f func(*bmc.Controller) Result) Result {
	t, err := h.Target(v)
	if err != nil {
		return Result{Err: err, Fatal: true}
	}
	var r Result
	r.Err = h.BMCs.With(ctx, t, func(c *bmc.Controller) error {
		r = f(c)
		return r.Err
	})
	if e := (*bmc.Error)(nil); errors.As(r.Err, &e) {
		r.Fatal = e.Credentials || !e.Temporary && !e.Unconfirmed
	}
	return r
}
