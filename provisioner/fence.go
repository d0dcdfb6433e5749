package provisioner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
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
// PORT is the node's first MAC. HOSTLER_TERM and HOSTLER_GENERATION in its environment are the act's Warrant: a program that
// keeps the highest it has seen for a port can refuse what a replica that was replaced still asks. What the program says it did is not believed: each act is followed by observe.
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
type place struct{ Port, Instance string }

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
	is, err := observed(out)
	if err != nil {
		return fmt.Errorf("fence: observe %s: %w", port, err)
	}
	if is != want {
		return fmt.Errorf("fence: %s of %s was accepted, but the port is %s %s, not %s %s", verb, port, is.Port, is.Instance, want.Port, want.Instance)
	}
	return nil
}

// observed reads what observe printed: one object that says once where the port is, in the words that we know. A
// program that says it twice, or something else, does not know.
func observed(out []byte) (place, error) {
	d := json.NewDecoder(bytes.NewReader(out))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return place{}, errors.New("not the JSON it should be")
	}
	found := map[string]string{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return place{}, fmt.Errorf("not the JSON it should be: %v", err)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return place{}, fmt.Errorf("not the JSON it should be: %v", err)
		}
		name, _ := key.(string) // of an object, it always is
		if name != "port" && name != "instance" {
			continue
		}
		var text string
		if _, twice := found[name]; twice || json.Unmarshal(value, &text) != nil {
			return place{}, fmt.Errorf("%s is there twice, or is no text", name)
		}
		found[name] = text
	}
	if _, err := d.Token(); err != nil {
		return place{}, fmt.Errorf("not the JSON it should be: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return place{}, errors.New("not the JSON it should be: something follows it")
	}
	is := place{Port: found["port"], Instance: found["instance"]}
	known := is.Port == "isolated" || is.Port == "provisioning" || is.Port == "tenant"
	if !known || (is.Port == "tenant") != (is.Instance != "") {
		return place{}, fmt.Errorf("port %q of instance %q: isolated, provisioning, or tenant with an instance", inventory.Plain(is.Port, 40), inventory.Plain(is.Instance, 40))
	}
	return is, nil
}

// maxSaid is what is read of a fence program's output.
const maxSaid = 64 << 10

// said keeps the beginning of what a program prints. The rest is dropped, so that one that prints without end costs
// nothing but its time.
type said struct{ bytes.Buffer }

func (s *said) Write(p []byte) (int, error) {
	s.Buffer.Write(p[:min(len(p), max(0, maxSaid-s.Len()))])
	return len(p), nil
}

func (f ExecFence) run(ctx context.Context, args ...string) ([]byte, error) {
	if err := Allowed(ctx); err != nil {
		return nil, fmt.Errorf("fence: %s: %w", args[0], err)
	}
	words := append(append([]string{}, f.Program...), args...)
	var out, errOut said
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	w := WarrantOf(ctx)
	cmd.Env = append(os.Environ(), fmt.Sprintf("HOSTLER_TERM=%d", w.Term), fmt.Sprintf("HOSTLER_GENERATION=%d", w.Generation))
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("fence: %s: %v: %s", strings.Join(words, " "), err, inventory.Plain(strings.TrimSpace(errOut.String()), 1000))
	}
	return out.Bytes(), nil
}
