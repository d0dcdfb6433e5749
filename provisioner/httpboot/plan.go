package httpboot

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// A Kind says what a plan makes of the machine.
type Kind string

// The kinds of plans.
const (
	Service Kind = "service" // boot Kernel with Initrds and Args
	Wait    Kind = "wait"    // say why, and ask again after Retry
	Disk    Kind = "disk"    // leave the network, the firmware's next boot device follows
	Refuse  Kind = "refuse"  // say why and stand still until the next power cycle
)

// A Reason is what the screen says while a machine waits or is refused. There
// is no free text in a script (CVE-2026-46447 was text that became commands),
// so it is one of Reasons.
type Reason string

// The reasons that exist.
const (
	Approval Reason = "approval"
	NoOrder  Reason = "no-order"
	Redeemed Reason = "redeemed"
	Burnt    Reason = "burnt"
	Retired  Reason = "retired"
	Trouble  Reason = "trouble"
)

// Reasons is what a person reads for each.
var Reasons = map[Reason]string{
	Approval: "this machine is new and waits for an operator to approve it",
	NoOrder:  "there is nothing to boot for this machine now",
	Redeemed: "this boot was used up already, a new one is being prepared",
	Burnt:    "somebody else used the boot token of this machine, an operator must look",
	Retired:  "this machine is retired",
	Trouble:  "the server cannot say what to boot just now",
}

// A Plan is what one machine boots. Each field has a strict grammar; a plan
// with a fault is not rendered.
type Plan struct {
	Kind   Kind
	MAC    net.HardwareAddr // of the machine that this plan is for
	Server netip.AddrPort   // our boot port, as the machine reaches it

	// For Service. Paths are below the root of the boot port, without a leading
	// slash: "boot/service/vmlinuz". The kernel gets the initrds in this order, one
	// behind the other; each file's size must be a multiple of 4, or Linux does
	// not find the next. The parts after the last slash must differ.
	Kernel  string
	Initrds []string
	Args    []Arg // of the kernel command line, in this order

	Retry  time.Duration // for Wait: 1 s to 1 h
	Reason Reason        // for Wait and Refuse
}

// An Arg is one word of the kernel command line: Key=Value, or Key alone.
type Arg struct{ Key, Value string }

// Limits of a plan's text. Linux on x86-64 cuts its command line at 2,047 bytes
// without a word.
const (
	maxArgs    = 1800
	maxInitrds = 8
)

// Check returns everything that is wrong with p.
func (p Plan) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(p.MAC) != 6 {
		bad("mac: need six bytes, have %d", len(p.MAC))
	}
	if !p.Server.IsValid() || !p.Server.Addr().Is4() || p.Server.Port() == 0 {
		bad("server %v: need an IPv4 address and a port", p.Server)
	}
	switch p.Kind {
	case Service:
		p.checkService(bad)
	case Wait:
		if p.Retry < time.Second || p.Retry > time.Hour {
			bad("retry %v: need 1s to 1h", p.Retry)
		}
	case Disk, Refuse:
	default:
		bad("kind %.40q: need service, wait, disk or refuse", p.Kind)
	}
	if _, known := Reasons[p.Reason]; !known && (p.Kind == Wait || p.Kind == Refuse) {
		bad("reason %.40q: not one of the known", p.Reason)
	}
	if len(errs) > 0 {
		return fmt.Errorf("boot plan: %w", errors.Join(errs...))
	}
	return nil
}

func (p Plan) checkService(bad func(string, ...any)) {
	if !pathOK(p.Kernel) {
		bad("kernel %.200q: not a path of ours", p.Kernel)
	}
	if len(p.Initrds) == 0 || len(p.Initrds) > maxInitrds {
		bad("initrds: need 1 to %d, have %d", maxInitrds, len(p.Initrds))
	}
	names := map[string]bool{}
	for _, i := range p.Initrds {
		if !pathOK(i) {
			bad("initrd %.200q: not a path of ours", i)
		}
		if names[base(i)] {
			bad("initrd %.200q: another has the same name", i)
		}
		names[base(i)] = true
	}
	total := 0
	for _, a := range p.Args {
		total += len(a.Key) + len(a.Value) + 2
		if a.Key == "" || len(a.Key) > 64 || !nameOK(a.Key) || a.Key == "initrd" {
			bad("argument %.80q: the key needs letters and digits, and dot, dash or underscore between them; initrd is ours", a.Key)
		}
		if len(a.Value) > 256 || !only(a.Value, "._,:/@=+-") {
			bad("argument %.80q: the value has a character that scripts may not carry, or is too long", a.Key)
		}
	}
	if total > maxArgs {
		bad("arguments: %d bytes, a kernel takes %d", total, maxArgs)
	}
}

// pathOK says whether s is a path that the handler would take.
func pathOK(s string) bool {
	if len(s) > 250 {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if !nameOK(part) {
			return false
		}
	}
	return true
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
