package bmc

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"time"

	ipmibmc "github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/hal/mock"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/types"
)

// A fake is a controller on go-ipmi's reference server, over real UDP, with
// behaviour that a decent controller does not have. Set the fields before the
// first request, or under mu.
type fake struct {
	hal.ChassisHAL // boot flags, from go-ipmi's mock
	addr, listen   string
	server         *ipmibmc.BMC
	store          hal.StorageHAL

	mu      sync.Mutex
	on      bool                                   // what the machine really does
	deaf    bool                                   // says yes to every order and does nothing
	cached  *bool                                  // if set, what it says about power, whatever the truth
	flicker int                                    // so many reads alternate after an order
	delay   time.Duration                          // each power act takes so long
	reads   int                                    // of the power state since the last order
	orders  []bool                                 // power orders carried out
	logins  int                                    // RAKP message 1 seen
	rakp1   []byte                                 // the last of them
	amend   func(*types.BootOptionParam_BootFlags) // what it makes of boot flags
	send    func(pkt []byte) [][]byte              // what it sends instead of a datagram
}

func startFake(t *testing.T, f *fake) *fake {
	t.Helper()
	h := mock.New()
	f.ChassisHAL, f.store = h.Chassis(), h.Storage()
	f.server = ipmibmc.New(ipmibmc.DeviceInfo{IPMIVersion: 0x20, FirmwareMajor: 1, ManufacturerID: 7154}, [16]byte{1, 2, 3}, fakeHAL{h, f})
	for i, u := range []struct {
		name string
		priv ipmibmc.PrivilegeLevel
	}{{simUser, ipmibmc.PrivilegeLevelAdministrator}, {"looker", ipmibmc.PrivilegeLevelUser}} {
		user, err := f.server.Users.Add(uint8(i+2), u.name)
		if err != nil {
			t.Fatal(err)
		}
		user.SetPassword([]byte(simPassword))
		user.Enabled = true
		user.ChannelAccess[1] = ipmibmc.UserChannelAccess{MaxPrivilege: u.priv, Enabled: true}
	}
	if f.listen == "" {
		f.listen = "127.0.0.1:0"
	}
	pc, err := net.ListenPacket("udp", f.listen)
	if err != nil {
		t.Fatal(err)
	}
	f.addr = pc.LocalAddr().String()
	srv := server.NewServer(f.server, &fakeSocket{pc, f})
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { defer close(done); _ = srv.Serve(ctx) }()
	t.Cleanup(func() { cancel(); _ = srv.Close(); <-done })
	return f
}

func (f *fake) target() Target {
	return Target{Addr: f.addr, User: simUser, Password: simPassword}
}

func (f *fake) open(t *testing.T, p pace) *Controller {
	t.Helper()
	c, err := open(t.Context(), f.target(), nil, p, &logins{now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// do runs g with the fake's state.
func (f *fake) do(g func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g()
}

// PowerState answers Get Chassis Status.
func (f *fake) PowerState(context.Context) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	if f.cached != nil {
		return *f.cached, nil
	}
	if f.flicker > 0 && len(f.orders) > 0 {
		f.flicker--
		return f.on != (f.flicker%2 == 0), nil
	}
	return f.on, nil
}

// SetPower answers Chassis Control.
func (f *fake) SetPower(_ context.Context, on bool) error {
	f.mu.Lock()
	delay := f.delay
	f.mu.Unlock()
	time.Sleep(delay)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.orders, f.reads = append(f.orders, on), 0
	if !f.deaf {
		f.on = on
	}
	return nil
}

// SetBootFlags answers Set System Boot Options.
func (f *fake) SetBootFlags(ctx context.Context, flags *types.BootOptionParam_BootFlags) error {
	if f.amend != nil {
		f.amend(flags)
	}
	return f.ChassisHAL.SetBootFlags(ctx, flags)
}

type fakeHAL struct {
	*mock.HAL
	f *fake
}

func (h fakeHAL) Chassis() hal.ChassisHAL { return h.f }

// A fakeSocket counts what comes in and does to what goes out as the fake says.
type fakeSocket struct {
	net.PacketConn
	f *fake
}

func (s *fakeSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, addr, err := s.PacketConn.ReadFrom(b)
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if n > atType && b[atType]&0x3f == byte(types.PayloadTypeRAKPMessage1) && !bytes.Equal(s.f.rakp1, b[:n]) {
		s.f.rakp1 = bytes.Clone(b[:n]) // sent again, it is the same login
		s.f.logins++
	}
	return n, addr, err
}

func (s *fakeSocket) WriteTo(b []byte, addr net.Addr) (int, error) {
	s.f.mu.Lock()
	send := s.f.send
	s.f.mu.Unlock()
	if send == nil {
		return s.PacketConn.WriteTo(b, addr)
	}
	for _, pkt := range send(b) {
		if _, err := s.PacketConn.WriteTo(pkt, addr); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
