package bmc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/bmc/bmctest"
)

// Controllers that lie (reliability F-31): what is said must be true, or said to
// be unconfirmed.
func TestPowerWithControllersThatLie(t *testing.T) {
	said := func(on bool) *bool { return &on }
	for _, row := range []struct {
		name   string
		fake   *fake
		want   Power
		orders []bool // carried out; nil: any number
		fails  bool   // with Unconfirmed
	}{
		{"does as told", &fake{}, On, []bool{true}, false},
		{"is on already", &fake{bmctest.Fake{On: true}}, On, []bool{}, false},
		{"says yes, stays on", &fake{bmctest.Fake{On: true, Deaf: true}}, Off, []bool{false, false, false}, true},
		{"says yes, stays off", &fake{bmctest.Fake{Deaf: true}}, On, []bool{true, true, true}, true},
		{"still says on from its cache", &fake{bmctest.Fake{On: true, Cached: said(true)}}, Off, []bool{false, false, false}, true},
		{"already said off from its cache", &fake{bmctest.Fake{On: true, Cached: said(false)}}, Off, []bool{false}, false},
		{"flickers before it settles", &fake{bmctest.Fake{On: true, Flicker: 6}}, Off, nil, false},
		{"takes longer than we wait for an answer", &fake{bmctest.Fake{Delay: time.Second}}, On, nil, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, row.fake)
			p := quick()
			p.again = 50 * time.Millisecond
			if row.fails {
				p.settle = time.Second
			}
			if row.fake.Delay > 0 {
				p.exchange, p.resends = 250*time.Millisecond, 1
			}
			err := f.open(t, p).SetPower(t.Context(), row.want)
			if row.fails {
				if e := asError(t, err); !e.Unconfirmed || e.Temporary {
					t.Errorf("got %+v, want unconfirmed", e)
				}
			} else if err != nil {
				t.Error(err)
			}
			f.Do(func() {
				if !row.fails && f.On != (row.want == On) {
					t.Errorf("the machine is on=%v after a confirmed SetPower(%s)", f.On, row.want)
				}
				if !row.fails && f.Reads < p.agree {
					t.Errorf("believed after %d reads, want %d after the last order", f.Reads, p.agree)
				}
				if row.orders != nil && !slices.Equal(f.Orders, row.orders) {
					t.Errorf("orders carried out: %v, want %v", f.Orders, row.orders)
				}
			})
		})
	}
}

func TestBootDeviceWithOddControllers(t *testing.T) {
	type flags = types.BootOptionParam_BootFlags
	for _, row := range []struct {
		name       string
		amend      func(*flags)
		dev        Device
		persistent bool
		dropped    *BootDevice // what Dropped.Kept must be
		unset      bool        // an *Error, for the device itself is not set
	}{
		{"keeps all", nil, Disk, true, nil, false},
		{"keeps all, once", nil, PXE, false, nil, false},
		{"clears", nil, None, false, nil, false},
		{"drops persistence", func(f *flags) { f.Persist = false }, Disk, true, &BootDevice{Device: Disk, EFI: true}, false},
		{"makes it persist for ever", func(f *flags) { f.Persist = true }, PXE, false, &BootDevice{Device: PXE, EFI: true, Persistent: true}, false},
		{"drops UEFI", func(f *flags) { f.BIOSBootType = types.BIOSBootTypeLegacy }, Disk, false, &BootDevice{Device: Disk}, false},
		{"says yes and forgets", func(f *flags) { *f = flags{} }, PXE, false, nil, true},
		{"keeps it invalid", func(f *flags) { f.BootFlagsValid = false }, PXE, false, nil, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, &fake{bmctest.Fake{Amend: row.amend}})
			err := f.open(t, quick()).SetBootDevice(t.Context(), row.dev, row.persistent)
			switch {
			case row.dropped != nil:
				lost, ok := errors.AsType[*Dropped](err)
				if !ok {
					t.Fatalf("got %v, want *Dropped", err)
				}
				if d := cmp.Diff(*row.dropped, lost.Kept); d != "" {
					t.Error(d)
				}
			case row.unset:
				if e := asError(t, err); !e.Unconfirmed {
					t.Errorf("got %+v", e)
				}
			case err != nil:
				t.Error(err)
			}
		})
	}
}

// What is not the controller's own message must neither be believed nor bring
// the program down, wherever it comes in.
func TestForgedAndBrokenDatagramsAreIgnored(t *testing.T) {
	// "Off", outside any session, for all sequence numbers: go-ipmi alone believes it.
	var forged [][]byte
	for seq := range byte(64) {
		msg := []byte{0x81, 0x01 << 2, 0, 0x20, seq << 2, 0x01, 0x00, 0x20, 0, 0x40, 0, 0}
		forged = append(forged, append([]byte{6, 0, 0xff, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(msg))}, msg...))
	}
	for _, row := range []struct {
		name string
		send func(pkt []byte) [][]byte
	}{
		{"forged outside the session", func(p []byte) [][]byte { return append(slices.Clone(forged), p) }},
		{"everything twice", func(p []byte) [][]byte { return [][]byte{p, p} }},
		{"empty and tiny before", func(p []byte) [][]byte { return [][]byte{{}, {6}, p[:4], p[:atPayload-1], p} }},
		{"cut anywhere before", func(p []byte) [][]byte {
			var all [][]byte
			for n := range p {
				all = append(all, p[:n])
			}
			return append(all, p)
		}},
		{"each byte changed before", func(p []byte) [][]byte {
			var all [][]byte
			for n := range p {
				if p[atType] < 0x40 && n >= atPayload {
					break // login messages are proved by what they carry
				}
				q := slices.Clone(p)
				q[n] ^= 0x5a
				all = append(all, q)
			}
			return append(all, p)
		}},
		{"an encrypted payload of nothing before", func(p []byte) [][]byte {
			q := slices.Clone(p[:atPayload])
			q[atType], q[atLength], q[atLength+1] = 0xc0, 0, 0
			return [][]byte{q, p}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, &fake{bmctest.Fake{On: true, Send: row.send}})
			c := f.open(t, quick())
			for range 3 {
				if got, err := c.Power(t.Context()); got != On || err != nil {
					t.Fatalf("Power() = %s, %v; the machine is on", got, err)
				}
			}
		})
	}
}

// A controller's own messages can be nonsense too, or come again.
func TestMessagesOfTheSession(t *testing.T) {
	s := &session{suite: suites[3], id: 7, k1: bytes.Repeat([]byte{1}, 20), k2: bytes.Repeat([]byte{2}, 20)}
	packet := func(seq byte, payload []byte) []byte {
		b := []byte{6, 0, 0xff, 7, 6, 0xc0, 7, 0, 0, 0, seq, 0, 0, 0, byte(len(payload)), byte(len(payload) >> 8)}
		b = append(append(b, payload...), 0, 7)
		mac, err := crypto.SessionIntegrityAuthCode(s.suite.integrity, b[atAuthType:], s.k1, "")
		if err != nil {
			t.Fatal(err)
		}
		return append(b, mac...)
	}
	good, err := crypto.EncryptAESPayload([]byte("an IPMI message"), s.k2, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	padding, err := crypto.EncryptAES(bytes.Repeat([]byte{0xff}, 16), s.k2[:16], make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{session: s}
	for _, row := range []struct {
		name string
		pkt  []byte
		says string // "" means accepted
	}{
		{"first", packet(5, good), ""},
		{"again", packet(5, good), "seen already"},
		{"late but new", packet(3, good), ""},
		{"late again", packet(3, good), "seen already"},
		{"next", packet(6, good), ""},
		{"much later", packet(200, good), ""},
		{"too old to tell", packet(100, good), "seen already"},
		{"nothing inside", packet(201, nil), "payload of 0 bytes"},
		{"no block inside", packet(202, good[:16]), "payload of 16 bytes"},
		{"half a block", packet(203, good[:24]), "payload of 24 bytes"},
		{"padding longer than all", packet(204, append(make([]byte, 16), padding...)), "pad length"},
		{"changed on the way", append(packet(205, good), 0), "does not match"},
		{"after all that", packet(206, good), ""},
	} {
		err := w.accept(row.pkt)
		if row.says == "" && err != nil || row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.says)
		}
	}
}

func TestLostAnswersAreAskedForAgain(t *testing.T) {
	var n atomic.Int32
	f := &fake{bmctest.Fake{On: true}}
	f.Send = func(p []byte) [][]byte {
		if n.Add(1)%3 == 0 { // every third answer is lost
			return nil
		}
		return [][]byte{p}
	}
	c := startFake(t, f).open(t, pace{
		call: 5 * time.Second, exchange: 100 * time.Millisecond, resends: 4,
		space: time.Millisecond, agree: 3, again: time.Second, acts: 3, settle: 20 * time.Second,
	})
	for _, want := range []Power{Off, On} {
		if err := c.SetPower(t.Context(), want); err != nil {
			t.Fatalf("SetPower(%s): %v", want, err)
		}
	}
}

func TestUserWithoutTheRights(t *testing.T) {
	f := startFake(t, &fake{})
	target := f.target()
	target.User = "looker"
	_, err := open(t.Context(), target, nil, quick(), &logins{now: time.Now})
	if e := asError(t, err); !e.Credentials || e.Hint != notAdmin.hint {
		t.Errorf("got %+v", e)
	}
}

// Makers write odd things into machines; what can be read is, and the rest is empty.
func TestIdentityWithOddFRU(t *testing.T) {
	good := []byte(fruImage(t))
	edit := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	chassis, product := int(good[2])*8, int(good[4])*8
	for _, row := range []struct {
		name string
		fru  []byte // nil means that there is none
		want string // serials of chassis, board, product
	}{
		{"good", good, "CH-0001 BD-0001 LAB-0001"},
		{"none", nil, "  "},
		{"blank", make([]byte, 256), "  "},
		{"noise", bytes.Repeat([]byte{0xff}, 256), "  "},
		{"chassis of no length", edit(func(b []byte) { b[chassis+1] = 0 }), " BD-0001 LAB-0001"},
		{"chassis field longer than the area", edit(func(b []byte) { b[chassis+3] = 0xff }), " BD-0001 LAB-0001"},
		{"no board", edit(func(b []byte) { b[3] = 0 }), "CH-0001  LAB-0001"},
		{"product far outside", edit(func(b []byte) { b[4] = 0xf0 }), "CH-0001 BD-0001 "},
		{"padded serial", edit(func(b []byte) { copy(b[bytes.Index(b, []byte("LAB-0001")):], "L1  \x00\x00\x00 ") }), "CH-0001 BD-0001 L1"},
		{"product beyond the end", edit(func(b []byte) { b[product+1] = 1 }), "CH-0001 BD-0001 "},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := startFake(t, &fake{})
			if row.fru != nil {
				if err := f.Store.FRU().Write(t.Context(), 0, row.fru); err != nil {
					t.Fatal(err)
				}
			}
			got, err := f.open(t, quick()).Identity(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if s := got.ChassisSerial + " " + got.BoardSerial + " " + got.ProductSerial; s != row.want {
				t.Errorf("serials are %q, want %q", s, row.want)
			}
			f.Do(func() {
				if f.Logins != 1 {
					t.Errorf("it took %d logins", f.Logins)
				}
			})
		})
	}
}

func TestIPv6(t *testing.T) {
	if probe, err := net.ListenPacket("udp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 loopback here: ", err)
	} else {
		probe.Close()
	}
	f := startFake(t, &fake{bmctest.Fake{On: true, Listen: "[::1]:0"}})
	if got, err := f.open(t, quick()).Power(t.Context()); got != On || err != nil {
		t.Errorf("Power() = %s, %v", got, err)
	}
}

func TestTargets(t *testing.T) {
	for _, row := range []struct {
		name string
		in   Target
		addr string // "" means refused
		says string
	}{
		{"host", Target{Addr: "10.0.0.7"}, "10.0.0.7:623", ""},
		{"host and port", Target{Addr: "BMC7.rack:1623"}, "bmc7.rack:1623", ""},
		{"IPv6", Target{Addr: "fd00::7"}, "[fd00::7]:623", ""},
		{"IPv6 and port", Target{Addr: "[fd00::7]:1623", Protocol: "ipmi"}, "[fd00::7]:1623", ""},
		{"nothing", Target{}, "", "no address"},
		{"a port that is none", Target{Addr: "a:99999"}, "", "no address"},
		{"a URL", Target{Addr: "https://bmc7"}, "", "no address"},
		{"another protocol", Target{Addr: "a", Protocol: "redfish"}, "", `"redfish" is not supported: only ipmi is`},
		{"no authentication", Target{Addr: "a", CipherSuite: 8}, "", "cipher suite 8"},
		{"long user", Target{Addr: "a", User: strings.Repeat("u", 17)}, "", "user name of 17 bytes"},
		{"long password", Target{Addr: "a", Password: Secret(strings.Repeat("p", 21))}, "", "password of 21 bytes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := row.in.normal()
			if (err == nil) != (row.addr != "") || got.Addr != row.addr && err == nil {
				t.Fatalf("got %q, %v; want %q", got.Addr, err, row.addr)
			}
			if err != nil {
				_, err = open(t.Context(), row.in, nil, patient(), &logins{now: time.Now})
				asError(t, err)
				if !strings.Contains(err.Error(), row.says) {
					t.Errorf("%q does not say %q", err, row.says)
				}
			}
		})
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	s := Secret("hunter2")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "a", s, "b", Target{Password: s})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "a", s, "b", Target{Password: s})
	enc, err := json.Marshal(map[string]any{"a": s, "b": Target{Password: s}})
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(enc) + s.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		all += fmt.Sprintf(strings.Replace(verb, "%T ", "", 1), s) + fmt.Sprintf("%v %+v %#v", Target{Password: s}, []Secret{s}, &Target{Password: s})
	}
	for _, leak := range []string{"hunter2", "68756e74657232", "68756E74657232", "aHVudGVyMg"} {
		if strings.Contains(all, leak) {
			t.Errorf("%q is in what was printed: %s", leak, all)
		}
	}
	if s.Reveal() != "hunter2" {
		t.Error("Reveal does not")
	}
}

func TestQuirksAreComplete(t *testing.T) {
	for i, q := range Quirks {
		if q.Maker == 0 || q.Name == "" || q.Odd == "" || q.Do == "" || q.Source == "" {
			t.Errorf("row %d (%s) leaves something out", i, q.Name)
		}
		if q.Firmware[0] > q.Firmware[1] {
			t.Errorf("%s: firmware from %d to %d", q.Name, q.Firmware[0], q.Firmware[1])
		}
	}
}
