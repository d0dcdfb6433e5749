// Package bmc owns one management controller's conversation: power, boot
// device, identity, console.
//
// The flow of a request:
//
//	Pool.With        one line per controller address: waits for its turn, refuses while
//	                 backing off, keeps the session for a short while
//	Controller       the verified operations: look, act, observe until the reads agree
//	bmclib.Client    with its registry narrowed to one driver, ours
//	driver           IPMI 2.0 on go-ipmi: session, deadlines, typed errors, lost sessions reopened
//	wire             the datagrams: what is not authentic never reaches go-ipmi
//
// A controller's answer is a claim, not a fact (reliability F-31). SetPower and
// SetBootDevice therefore read back, and say Unconfirmed or Dropped where the
// controller did not follow; whether the machine really is off also needs a
// second witness (its agent is silent, its boot id changed), which is the
// caller's to ask. Clients and networks repeat datagrams, so every act here is
// safe to repeat and none toggles. A power cycle is SetPower(Off), then
// SetPower(On).
//
// The package does not know nodes, claims or images, keeps nothing on disk and
// runs no other program. Vendor oddities are rows in quirks.go.
package bmc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	bmclib "github.com/bmc-toolbox/bmclib/v2"
	"github.com/jacobweinstock/registrar"
)

// A Target says which controller to talk to, how, and as whom.
type Target struct {
	Addr        string // host or host:port; an IPv6 host with a port is written [host]:port. The port is 623 if not said.
	Protocol    string // "ipmi", which "" means too
	User        string // at most 16 bytes (IPMI v2.0 section 22.28)
	Password    Secret // at most 20 bytes (IPMI v2.0 section 22.30)
	CipherSuite int    // 3 or 17 (IPMI v2.0 table 22-20); 0 means 3. Never negotiated: that costs 10 s and can hang.
	Serial      string // product, chassis or board serial that the machine must have; acts are refused on any other. "" does not look.
	LegacyBoot  bool   // the machine boots the PC-compatible way (BIOS), so boot overrides ask for that; else UEFI
}

// defaultPort is where controllers listen for RMCP+ (IPMI v2.0 section 13.1.2).
const defaultPort = 623

// hostPort returns the controller's address in the one form that is used as a
// key and in messages.
func (t Target) hostPort() (string, error) {
	host, port, err := net.SplitHostPort(t.Addr)
	if err != nil { // no port, or an IPv6 address without brackets
		host, port = strings.Trim(t.Addr, "[]"), strconv.Itoa(defaultPort)
	}
	n, err := strconv.Atoi(port)
	if host == "" || strings.ContainsAny(host, " /") || err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("%q is no address of a controller: write HOST or HOST:PORT", t.Addr)
	}
	return net.JoinHostPort(strings.ToLower(host), strconv.Itoa(n)), nil
}

// normal returns the target with defaults filled in, or everything that is
// wrong with it.
func (t Target) normal() (Target, error) {
	var errs []error
	addr, err := t.hostPort()
	if err != nil {
		errs = append(errs, err)
	}
	if t.Protocol != "" && t.Protocol != "ipmi" {
		errs = append(errs, fmt.Errorf("protocol %q is not supported: only ipmi is", t.Protocol))
	}
	if t.CipherSuite == 0 {
		t.CipherSuite = 3
	}
	if _, ok := suites[t.CipherSuite]; !ok {
		errs = append(errs, fmt.Errorf("cipher suite %d is not supported: only 3 (SHA-1) and 17 (SHA-256) authenticate and encrypt well enough", t.CipherSuite))
	}
	if len(t.User) > 16 {
		errs = append(errs, fmt.Errorf("user name of %d bytes: IPMI allows 16", len(t.User)))
	}
	if n := len(t.Password); n > 20 {
		errs = append(errs, fmt.Errorf("password of %d bytes: IPMI allows 20", n))
	}
	t.Addr, t.Protocol = addr, "ipmi"
	return t, errors.Join(errs...)
}

// Power is a machine's power state as its controller tells it.
type Power string

const (
	On      Power = "on"
	Off     Power = "off"
	Unknown Power = "unknown" // the controller did not answer, or not clearly
)

// A pace says how patiently a controller is treated. Tests use a quicker one.
type pace struct {
	call     time.Duration // longest any single call may take, reopening a lost session included
	exchange time.Duration // wait for an answer before the same datagram is sent again
	resends  int           // how often it is sent again
	space    time.Duration // between two reads of the power state
	agree    int           // reads in a row that must agree
	again    time.Duration // wait after a power act before it is repeated
	acts     int           // power acts in all
	settle   time.Duration // longest a change of power may take
	idle     time.Duration // how long the pool keeps an unused session
}

// patient is the pace for real controllers. Three sends of one datagram (4.5 s)
// fit twice into a call: once on a session that the controller may have
// forgotten, once on a new one. Controllers have few sessions (4 to 16) and end
// unused ones after 60 s (IPMI v2.0 section 6.12.15).
func patient() pace {
	return pace{
		call: 10 * time.Second, exchange: 1500 * time.Millisecond, resends: 2,
		space: 500 * time.Millisecond, agree: 3, again: 10 * time.Second, acts: 3, settle: time.Minute, idle: 20 * time.Second,
	}
}

// A Controller is an open conversation with one management controller. It may
// be used by several goroutines; requests go out one at a time. A session that
// the controller forgot is reopened by the next call.
type Controller struct {
	target Target
	lib    *bmclib.Client
	drv    *driver
	pace   pace
	log    *slog.Logger
}

// open logs in. The error is an *Error. log may be nil.
func open(ctx context.Context, t Target, log *slog.Logger, p pace, l *logins) (*Controller, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	named, err := t.normal()
	if err != nil {
		return nil, &Error{Op: "open", Addr: t.Addr, Err: err}
	}
	log = log.With("bmc", named.Addr)
	drv := newDriver(named, p, l, log)

	// One driver in the registry: bmclib's Open tries all that it holds at
	// once, so each more would be another failed login with a bad password.
	// The password stays with the driver; bmclib itself needs none.
	reg := registrar.NewRegistry()
	reg.Register(driverName, "ipmi", driverFeatures(), nil, drv)
	c := &Controller{
		target: named, drv: drv, pace: p, log: log,
		lib: bmclib.NewClient(named.Addr, named.User, "", bmclib.WithRegistry(reg), bmclib.WithPerProviderTimeout(p.call)),
	}
	if err := c.ask(ctx, "open", c.lib.Open); err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the session, or lets the controller time it out if it does not
// answer. The Controller must not be used afterwards.
func (c *Controller) Close(ctx context.Context) error {
	return c.ask(ctx, "close", c.lib.Close)
}

// Power asks the controller for the power state, once.
func (c *Controller) Power(ctx context.Context) (Power, error) {
	state := string(Unknown)
	err := c.ask(ctx, "read power state", func(ctx context.Context) (err error) {
		state, err = c.lib.GetPowerState(ctx)
		return err
	})
	if err != nil {
		return Unknown, err
	}
	return Power(state), nil
}

// ask does one call through bmclib and returns the driver's own *Error. bmclib
// 2.3.5 wraps a driver's error in several layers and turns that of
// GetBootDeviceOverride into text, so the driver leaves it in the context too.
func (c *Controller) ask(ctx context.Context, op string, call func(context.Context) error) error {
	var said *Error
	err := call(context.WithValue(ctx, saidKey{}, &said))
	switch {
	case err == nil:
		return nil
	case said != nil:
		return said
	}
	return &Error{Op: op, Addr: c.target.Addr, Temporary: ctx.Err() != nil, Err: err}
}

// saidKey is the context key under which ask passes a **Error for the driver to fill.
type saidKey struct{}
