package bmc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/bmc-toolbox/bmclib/v2/providers"
	ipmi "github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/command/app"
	"github.com/bougou/go-ipmi/pkg/command/chassis"
	"github.com/bougou/go-ipmi/pkg/types"
	"github.com/jacobweinstock/registrar"
)

const driverName = "hostler-ipmi"

// driverFeatures says what the driver offers to bmclib.
func driverFeatures() registrar.Features {
	return registrar.Features{providers.FeaturePowerState, providers.FeaturePowerSet, providers.FeatureBootDeviceSet, providers.FeatureInventoryRead}
}

// A driver is our provider in bmclib's registry: IPMI 2.0 (RMCP+) on go-ipmi.
// bmclib 2.3.5's own provider runs ipmitool, with the password in the child's
// environment.
//
// It owns the session. Each call takes its turn, has a deadline, and is done
// once more on a new session when the controller does not answer on an old one:
// a controller that restarted has forgotten it and keeps silent.
type driver struct {
	target Target
	pace   pace
	logins *logins
	log    *slog.Logger
	turn   chan struct{} // holds one token while a call is running

	// Owned by whoever has the turn.
	client *ipmi.Client
	wire   *wire
	device *app.GetDeviceIDResponse // nil until asked for
	fault  string                   // what the last chassis status complained of
}

func newDriver(t Target, p pace, l *logins, log *slog.Logger) *driver {
	return &driver{target: t, pace: p, logins: l, log: log, turn: make(chan struct{}, 1)}
}

// Name names the driver in bmclib's messages.
func (d *driver) Name() string { return driverName }

// Open logs in.
func (d *driver) Open(ctx context.Context) error {
	return d.call(ctx, "open", func(context.Context) error { return nil })
}

// Close logs out, if there is a session.
func (d *driver) Close(ctx context.Context) error {
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return d.say(ctx, "close", ctx.Err())
	}
	defer func() { <-d.turn }()
	d.logout(ctx)
	return nil
}

// logout ends the session, if there is one.
func (d *driver) logout(ctx context.Context) {
	if d.client != nil {
		d.goodbye(ctx, d.client)
	}
	d.drop()
}

// goodbye asks the controller to end a session. It ends an unused one by
// itself, so do not insist.
func (d *driver) goodbye(ctx context.Context, c *ipmi.Client) {
	ctx, cancel := context.WithTimeout(ctx, d.pace.exchange)
	defer cancel()
	if err := unpanicked(func() error { return c.Close(ctx) }); err != nil {
		d.log.Debug("session left to time out", "err", err)
	}
}

// call runs one operation, which must be safe to repeat: in turn, within the
// call's deadline, on an open session.
func (d *driver) call(ctx context.Context, op string, do func(context.Context) error) error {
	return d.run(ctx, op, 2, do)
}

// once is call for an order to the machine. The datagram is sent once, and not
// again on a new session: a slow controller carries out each copy that it gets
// (ipmi_sim does, rack.md fact 7), perhaps when the machine has long been told
// otherwise. Whoever orders looks what became of it.
func (d *driver) once(ctx context.Context, op string, do func(context.Context) error) error {
	return d.run(ctx, op, 1, func(ctx context.Context) error {
		d.client.WithRetry(0).WithTimeout(d.pace.exchange * time.Duration(d.pace.resends+1))
		err := do(ctx)
		if err == nil || !unanswered(err) { // else the session is given up, its last read perhaps still waiting
			d.client.WithRetry(d.pace.resends).WithTimeout(d.pace.exchange)
		}
		return err
	})
}

func (d *driver) run(ctx context.Context, op string, tries int, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d.pace.call)
	defer cancel()
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return d.say(ctx, op, fmt.Errorf("another request is still running: %w", ctx.Err()))
	}
	defer func() { <-d.turn }()

	for {
		old := d.client != nil
		if !old {
			if err := d.login(ctx); err != nil {
				return d.say(ctx, op, err)
			}
		}
		d.wire.guard(guardOf(ctx))
		err := unpanicked(func() error { return do(ctx) })
		d.wire.guard(nil)
		if err == nil || !unanswered(err) {
			return d.say(ctx, op, err)
		}
		if silent(err) {
			d.drop()
		} else {
			d.logout(ctx) // it answered, with what makes no sense: its few sessions must not be used up by that
		}
		// Only an old session may be the reason for the silence.
		if tries--; tries == 0 || !old || ctx.Err() != nil {
			return d.say(ctx, op, err)
		}
		d.log.Debug("session lost", "err", err)
	}
}

// say types the error and leaves it where Controller.ask finds it.
func (d *driver) say(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	typed := explain(op, d.target.Addr, err)
	if said, ok := ctx.Value(saidKey{}).(**Error); ok {
		*said = typed
	}
	return typed
}

// drop forgets the session without a word to the controller, and who it was:
// another may answer next time.
func (d *driver) drop() {
	if d.wire != nil {
		_ = d.wire.Close()
	}
	d.client, d.wire, d.device = nil, nil, nil
}

// login opens a session: Open Session, RAKP 1 to 4, privilege (IPMI v2.0 section 13.15).
// go-ipmi's own Connect is not used: it turns the reason of a refusal into text,
// and leaves a goroutine behind that sends on its own every 30 s. Its first
// question, Get Channel Authentication Capabilities, has no use here.
func (d *driver) login(ctx context.Context) error {
	if err := d.logins.allow(d.target); err != nil {
		return err
	}
	w, err := dialWire(ctx, d.target.Addr, d.log)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	host, port, _ := net.SplitHostPort(d.target.Addr)
	n, _ := strconv.Atoi(port)
	c, err := ipmi.NewClient(host, n, d.target.User, d.target.Password.Reveal())
	if err != nil {
		_ = w.Close()
		return err
	}
	c.WithUDPProxy(w).WithTimeout(d.pace.exchange).WithRetry(d.pace.resends).
		WithCipherSuiteID(types.CipherSuiteID(d.target.CipherSuite)).WithMaxPrivilegeLevel(types.PrivilegeLevelAdministrator)

	err = unpanicked(func() error { return d.handshake(ctx, c, w) })
	if err != nil {
		if w.active() && !silent(err) { // it is open, only we have no use for it
			d.goodbye(ctx, c)
		}
		_ = w.Close()
		refused := explain("log in", d.target.Addr, w.refusal(err))
		if refused.Credentials {
			d.logins.refusedBy(d.target)
		}
		return refused
	}
	d.logins.acceptedBy(d.target)
	d.client, d.wire = c, w
	return nil
}

func (d *driver) handshake(ctx context.Context, c *ipmi.Client, w *wire) error {
	opened, err := c.OpenSession(ctx)
	if err != nil {
		return err
	}
	if s := suites[d.target.CipherSuite]; types.AuthAlg(opened.AuthAlg) != s.auth || types.IntegrityAlg(opened.IntegrityAlg) != s.integrity || types.CryptAlg(opened.CryptAlg) != s.crypt {
		return &Error{
			Op: "log in", Addr: d.target.Addr, Hint: "name the cipher suite that it supports",
			Err: fmt.Errorf("asked for cipher suite %d, it insists on algorithms %d/%d/%d", d.target.CipherSuite, opened.AuthAlg, opened.IntegrityAlg, opened.CryptAlg),
		}
	}
	rakp2, err := c.RAKPMessage1(ctx)
	if err != nil {
		return err
	}
	// The controller has now proved that it knows the password; a refusal of
	// RAKP message 3 is about something else.
	if _, err := c.RAKPMessage3(ctx); errors.Is(err, ipmi.ErrRAKPAuthentication) {
		return &Error{
			Op: "log in", Addr: d.target.Addr, Credentials: true, Err: err,
			Hint: "the password is right, but it has a BMC key (Kg) set, which is not supported: clear the key",
		}
	} else if err != nil {
		return err
	}
	if err := w.secure(d.target, opened.RemoteConsoleSessionID, rakp2.ManagedSystemRandomNumber[:]); err != nil {
		return err
	}
	granted, err := c.SetSessionPrivilegeLevel(ctx, types.PrivilegeLevelAdministrator)
	if err == nil && granted.PrivilegeLevel < uint8(types.PrivilegeLevelAdministrator) {
		err = types.NewResponseError(types.CodeInsufficientPrivilege, fmt.Sprintf("granted privilege level %d only", granted.PrivilegeLevel))
	}
	if code, ok := types.IsResponseError(err); ok && code.CompletionCode() != types.CodeOK {
		return &Error{Op: "log in", Addr: d.target.Addr, Credentials: true, Hint: notAdmin.hint, Err: err}
	}
	return err
}

// unpanicked turns a panic into an error: go-ipmi indexes into what
// controllers send.
func unpanicked(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("its answer cannot be read: %v", p)
		}
	}()
	return do()
}

// PowerStateGet implements bmclib's bmc.PowerStateGetter: "on" or "off".
func (d *driver) PowerStateGet(ctx context.Context) (state string, err error) {
	err = d.call(ctx, "read power state", func(ctx context.Context) error {
		s, err := d.client.GetChassisStatus(ctx)
		if err != nil {
			return err
		}
		state, d.fault = string(Off), chassisFault(s)
		if s.PowerIsOn {
			state = string(On)
		}
		return nil
	})
	return state, err
}

// chassisFault says in words why the machine may refuse to follow.
func chassisFault(s *chassis.GetChassisStatusResponse) string {
	for _, f := range []struct {
		set  bool
		text string
	}{
		{s.InterLock, "a chassis panel is open (interlock)"},
		{s.PowerOverload, "the power supply shut down on overload"},
		{s.PowerFault, "the main power has a fault"},
		{s.PowerControlFault, "the machine did not follow the power control"},
	} {
		if f.set {
			return f.text
		}
	}
	return ""
}

// PowerSet implements bmclib's bmc.PowerSetter for "on" and "off".
func (d *driver) PowerSet(ctx context.Context, state string) (ok bool, err error) {
	control, ok := map[string]chassis.ChassisControl{"on": chassis.ChassisControlPowerUp, "off": chassis.ChassisControlPowerDown}[state]
	err = d.once(ctx, "set power "+state, func(ctx context.Context) error {
		if !ok {
			return &Error{Op: "set power", Addr: d.target.Addr, Err: fmt.Errorf("%q is neither on nor off", state)}
		}
		_, err := d.client.ChassisControl(ctx, control)
		return err
	})
	return err == nil, err
}

// identify returns the controller's device id, asked once.
func (d *driver) identify(ctx context.Context) (*app.GetDeviceIDResponse, error) {
	if d.device == nil {
		id, err := d.client.GetDeviceID(ctx)
		if err != nil {
			return nil, err
		}
		d.device = id
	}
	return d.device, nil
}

// quirk returns the row of the controller, if it was identified.
func (d *driver) quirk() Quirk {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	return quirkOf(d.device)
}

// chassis returns what the last chassis status complained of.
func (d *driver) chassis() string {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	return d.fault
}
