package provisioner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/hostler-project/hostler/inventory"
)

// NoFence is the driver of a site without one. It does nothing, and its name is printed on certificates and public
// records, so that nobody takes it for a fence.
type NoFence struct{}

// Name is what certificates and public records print.
func (NoFence) Name() string { return "none" }

// Isolate leaves the machine on its network: a released tenant stays there until the power is off.
func (NoFence) Isolate(context.Context, inventory.NodeView) error { return nil }

// Provide leaves the machine where it is: there is one network.
func (NoFence) Provide(context.Context, inventory.NodeView) error { return nil }

// Attach leaves the machine where it is: the tenant's network is the one that it was provisioned on.
func (NoFence) Attach(context.Context, inventory.NodeView, string) error { return nil }

// ExecFence runs a program of the site's:
//
//	PROGRAM… isolate PORT
//	PROGRAM… attach PORT [INSTANCE]     without an instance: the provisioning network
//	PROGRAM… observe PORT               prints {"port": "isolated|provisioning|tenant", "instance": "…"}
//
// PORT is the node's first MAC. What the program says it did is not believed: each act is followed by observe.
type ExecFence struct{ Program []string }

// Name is what certificates and public records print.
func (f ExecFence) Name() string { return "exec" }

// Isolate cuts the machine off from every network.
func (f ExecFence) Isolate(ctx context.Context, v inventory.NodeView) error {
	return f.bring(ctx, v, place{Port: "isolated"}, "isolate")
}

// Provide puts it on the provisioning network.
func (f ExecFence) Provide(ctx context.Context, v inventory.NodeView) error {
	return f.bring(ctx, v, place{Port: "provisioning"}, "attach")
}

// Attach puts it on the network of an instance.
func (f ExecFence) Attach(ctx context.Context, v inventory.NodeView, instance string) error {
	if instance == "" {
		return errors.New("fence: attach needs an instance")
	}
	return f.bring(ctx, v, place{Port: "tenant", Instance: instance}, "attach", instance)
}

// place is where a port is.
type place struct {
	Port     string `json:"port"`
	Instance string `json:"instance"`
}

func (f ExecFence) bring(ctx context.Context, v inventory.NodeView, want place, verb string, more ...string) error {
	if len(v.Spec.V.MACs) == 0 {
		return fmt.Errorf("fence: node %s has no MAC to find its port by", v.Name())
	}
	port := v.Spec.V.MACs[0]
	if _, err := f.run(ctx, append([]string{verb, port}, more...)...); err != nil {
		return err
	}
	out, err := f.run(ctx, "observe", port)
	if err != nil {
		return err
	}
	var is place
	if err := json.Unmarshal(out, &is); err != nil {
		return fmt.Errorf("fence: observe %s: not the JSON it should be: %v", port, err)
	}
	if is != want {
		return fmt.Errorf("fence: %s of %s was accepted, but the port is %s %s, not %s %s", verb, port, is.Port, is.Instance, want.Port, want.Instance)
	}
	return nil
}

func (f ExecFence) run(ctx context.Context, args ...string) ([]byte, error) {
	words := append(append([]string{}, f.Program...), args...)
	var errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("fence: %s: %v: %s", strings.Join(words, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out, nil
}
