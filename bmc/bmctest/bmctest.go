// Package bmctest is a management controller for tests: go-ipmi's reference server over real UDP, with behaviour that
// no decent controller has. It owns this one fake, and knows nothing of how package bmc asks.
package bmctest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"

	ipmibmc "github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/hal/mock"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/types"
)

// The administrator that every fake knows; Looker may only look.
const (
	User     = "admin"
	Password = "s3cret-in-the-rack"
	Looker   = "looker"
)

// A Fake is one controller and the machine that it switches. Set the fields before Start, or in Do.
type Fake struct {
	hal.ChassisHAL // boot flags, from go-ipmi's mock
	Addr, Listen   string
	Serial         string // of the machine, in the FRU data; "": it tells none
	Server         *ipmibmc.BMC
	Store          hal.StorageHAL

	On      bool                                   // what the machine really does
	Deaf    bool                                   // says yes to every order and does nothing
	Cached  *bool                                  // if set, what it says about power, whatever the truth
	Flicker int                                    // so many reads alternate after an order
	Delay   time.Duration                          // each power act takes so long
	Reads   int                                    // of the power state since the last order
	Orders  []bool                                 // power orders carried out
	Logins  int                                    // RAKP message 1 seen
	RAKP1   []byte                                 // the last of them
	Session uint32                                 // that the last message was for
	Amend   func(*types.BootOptionParam_BootFlags) // what it makes of boot flags
	Send    func(pkt []byte) [][]byte              // what it sends instead of a datagram
	Changed func(on bool, from net.Addr)           // told, outside the lock, of each power order; from sent the newest datagram

	mu   sync.Mutex
	from net.Addr
	stop func()
}

// Start opens the fake's port and serves until Close.
func (f *Fake) Start() error {
	h := mock.New()
	f.ChassisHAL, f.Store = h.Chassis(), h.Storage()
	f.Server = ipmibmc.New(ipmibmc.DeviceInfo{IPMIVersion: 0x20, FirmwareMajor: 1, ManufacturerID: 7154}, [16]byte{1, 2, 3}, fakeHAL{h, f})
	for i, u := range []struct {
		name string
		priv ipmibmc.PrivilegeLevel
	}{{User, ipmibmc.PrivilegeLevelAdministrator}, {Looker, ipmibmc.PrivilegeLevelUser}} {
		user, err := f.Server.Users.Add(uint8(i+2), u.name)
		if err != nil {
			return fmt.Errorf("bmctest: user %s: %w", u.name, err)
		}
		user.SetPassword([]byte(Password))
		user.Enabled = true
		user.ChannelAccess[1] = ipmibmc.UserChannelAccess{MaxPrivilege: u.priv, Enabled: true}
	}
	if f.Serial != "" {
		fru, err := types.PackFRUInventory(&types.FRU{ProductInfoArea: &types.FRUProductInfoArea{Manufacturer: []byte("LabWorks"), Name: []byte("VRACK"), SerialNumber: []byte(f.Serial)}})
		if err == nil {
			err = f.Store.FRU().Write(context.Background(), 0, fru)
		}
		if err != nil {
			return fmt.Errorf("bmctest: FRU data: %w", err)
		}
	}
	if f.Listen == "" {
		f.Listen = "127.0.0.1:0"
	}
	pc, err := net.ListenPacket("udp", f.Listen)
	if err != nil {
		return fmt.Errorf("bmctest: %w", err)
	}
	f.Addr = pc.LocalAddr().String()
	srv := server.NewServer(f.Server, &socket{pc, f})
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { defer close(done); _ = srv.Serve(ctx) }() // ends with Close
	f.stop = sync.OnceFunc(func() { cancel(); _ = srv.Close(); <-done })
	return nil
}

// Close ends it.
func (f *Fake) Close() { f.stop() }

// Do runs g with the fake's state.
func (f *Fake) Do(g func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g()
}

// PowerState answers Get Chassis Status.
func (f *Fake) PowerState(context.Context) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Reads++
	if f.Cached != nil {
		return *f.Cached, nil
	}
	if f.Flicker > 0 && len(f.Orders) > 0 {
		f.Flicker--
		return f.On != (f.Flicker%2 == 0), nil
	}
	return f.On, nil
}

// SetPower answers Chassis Control.
func (f *Fake) SetPower(_ context.Context, on bool) error {
	f.mu.Lock()
	delay, from := f.Delay, f.from
	f.mu.Unlock()
	time.Sleep(delay)
	f.mu.Lock()
	f.Orders, f.Reads = append(f.Orders, on), 0
	if !f.Deaf {
		f.On = on
	}
	f.mu.Unlock()
	if f.Changed != nil {
		f.Changed(on, from)
	}
	return nil
}

// SetBootFlags answers Set System Boot Options.
func (f *Fake) SetBootFlags(ctx context.Context, flags *types.BootOptionParam_BootFlags) error {
	if f.Amend != nil {
		f.Amend(flags)
	}
	return f.ChassisHAL.SetBootFlags(ctx, flags)
}

type fakeHAL struct {
	*mock.HAL
	f *Fake
}

func (h fakeHAL) Chassis() hal.ChassisHAL { return h.f }

// A socket counts what comes in and does to what goes out as the fake says.
type socket struct {
	net.PacketConn
	f *Fake
}

// Where payload type and session are in a datagram, behind RMCP and the session's authentication type.
const (
	atType    = 5
	atSession = 6
)

func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, addr, err := s.PacketConn.ReadFrom(b)
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if addr != nil {
		s.f.from = addr
	}
	if n > atType && b[atType]&0x3f == byte(types.PayloadTypeRAKPMessage1) && !bytes.Equal(s.f.RAKP1, b[:n]) {
		s.f.RAKP1 = bytes.Clone(b[:n]) // sent again, it is the same login
		s.f.Logins++
	}
	if n > atSession+4 && b[atType]&0xc0 == 0xc0 {
		s.f.Session = binary.LittleEndian.Uint32(b[atSession:])
	}
	return n, addr, err
}

func (s *socket) WriteTo(b []byte, addr net.Addr) (int, error) {
	s.f.mu.Lock()
	send := s.f.Send
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
