//go:build rack

package dhcp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	mdlayher "github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// TestMain runs these tests in a network namespace of their own, which has no
// name and ends with the process.
func TestMain(m *testing.M) {
	const mark = "HOSTLER_DHCP_TEST_NETNS"
	if os.Getenv(mark) != "" {
		os.Exit(m.Run())
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), mark+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := c.Run(); err != nil {
		if _, failed := errors.AsType[*exec.ExitError](err); !failed {
			os.Stderr.WriteString("dhcp: new network namespace: " + err.Error() + " (run as root)\n")
		}
		os.Exit(1)
	}
}

// A cable is a veth pair: our end here, the machine's in a namespace of its
// own, whose sockets are made by the functions given to there.
type cable struct {
	machine net.HardwareAddr
	there   func(func() error) // runs a function in the machine's namespace
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newCable(t *testing.T) *cable {
	jobs, results := make(chan func() error), make(chan error)
	thread := make(chan int)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		thread <- unix.Gettid()
		results <- err
		for job := range jobs {
			results <- job()
		}
	}()
	tid := <-thread
	must(t, <-results)
	t.Cleanup(func() { close(jobs) })
	c := &cable{there: func(job func() error) {
		t.Helper()
		jobs <- job
		must(t, <-results)
	}}

	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "hostler0", MTU: 1500, TxQLen: 1000}, PeerName: "machine0"}))
	ours0, err := netlink.LinkByName("hostler0")
	must(t, err)
	t.Cleanup(func() { netlink.LinkDel(ours0) })
	peer, err := netlink.LinkByName("machine0")
	must(t, err)
	must(t, netlink.LinkSetNsPid(peer, tid))
	must(t, netlink.AddrAdd(ours0, &netlink.Addr{IPNet: ipNet("192.168.77.1/24")}))
	must(t, netlink.LinkSetUp(ours0))
	c.there(func() error {
		link, err := netlink.LinkByName("machine0")
		if err != nil {
			return err
		}
		c.machine = link.Attrs().HardwareAddr
		return netlink.LinkSetUp(link)
	})
	for range 200 { // the kernel drops packets until it has noticed the carrier
		link, err := netlink.LinkByName("hostler0")
		must(t, err)
		up := link.Attrs().OperState == netlink.OperUp
		c.there(func() error {
			link, err := netlink.LinkByName("machine0")
			up = up && err == nil && link.Attrs().OperState == netlink.OperUp
			return err
		})
		if up {
			return c
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the cable does not come up")
	return nil
}

func ipNet(s string) *net.IPNet {
	ip, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	n.IP = ip
	return n
}

// give sets an address of the machine.
func (c *cable) give(prefix string) {
	c.there(func() error {
		link, err := netlink.LinkByName("machine0")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(prefix)})
	})
}

// serve answers on our end until the test ends.
func serve(t *testing.T, c *cable) *Server {
	f := newFleet()
	f.fixed[c.machine.String()] = Answer{Known: true, IP: netip.MustParseAddr("192.168.77.20"), Lease: time.Minute, Boot: true}
	return run(t, &Server{Directory: f, Segments: []Segment{
		{Name: "boot", Interface: "hostler0", Subnet: netip.MustParsePrefix("192.168.77.0/24"), Address: ours, Mode: Authoritative},
		{Name: "far", Subnet: netip.MustParsePrefix("10.9.0.0/24"), Address: ours, Mode: Authoritative, Relays: []netip.Addr{relay1}},
	}})
}

func run(t *testing.T, s *Server) *Server {
	l, err := s.Listen()
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the server does not end")
		}
	})
	return s
}

// client is nclient4 on the machine.
func (c *cable) client(t *testing.T) *nclient4.Client {
	var cl *nclient4.Client
	c.there(func() (err error) {
		cl, err = nclient4.New("machine0", nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
		return err
	})
	t.Cleanup(func() { cl.Close() })
	return cl
}

func modifiers(opts []dhcpv4.Option, more ...dhcpv4.Modifier) (m []dhcpv4.Modifier) {
	for _, o := range opts {
		if o.Code.Code() != 61 {
			m = append(m, dhcpv4.WithOption(o))
		}
	}
	return append(m, more...)
}

// The whole conversation, by a client that Linux tools use: broadcast answers,
// answers straight to the card, then a renewal from the address that it got.
func TestWireDORA(t *testing.T) {
	c := newCable(t)
	s := serve(t, c)
	for name, m := range map[string][]dhcpv4.Modifier{
		"unicast":   modifiers(clients["OVMF PXE"], dhcpv4.WithBroadcast(false)),
		"broadcast": modifiers(clients["OVMF PXE"], dhcpv4.WithBroadcast(true)),
	} {
		begin := time.Now()
		lease, err := c.client(t).Request(t.Context(), m...)
		if err != nil {
			t.Fatalf("%s: %v (%+v)", name, err, s.Counters())
		}
		if ip := lease.ACK.YourIPAddr.String(); ip != "192.168.77.20" || lease.ACK.BootFileName != "snponly-x86_64.efi" {
			t.Errorf("%s: got %s and %q", name, ip, lease.ACK.BootFileName)
		}
		t.Logf("%s: address after %v", name, time.Since(begin))
	}

	c.give("192.168.77.20/24")
	var conn *net.UDPConn
	c.there(func() (err error) {
		conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 168, 77, 20), Port: 68}, &net.UDPAddr{IP: net.IPv4(192, 168, 77, 1), Port: 67})
		return err
	})
	defer conn.Close()
	renew := ask(c.machine, dhcpv4.MessageTypeRequest)
	renew.ClientIPAddr = net.IPv4(192, 168, 77, 20)
	defer func() { t.Logf("%+v", s.Counters()) }()
	if r := exchange(t, conn, renew); r.MessageType() != dhcpv4.MessageTypeAck || !r.YourIPAddr.Equal(renew.ClientIPAddr) {
		t.Errorf("renewal: %v", r.Summary())
	}
}

// exchange sends d on a connected socket and waits for the reply.
func exchange(t *testing.T, conn *net.UDPConn, d *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	t.Helper()
	_, err := conn.Write(d.ToBytes())
	must(t, err)
	must(t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
	buf := make([]byte, 1500)
	n, err := conn.Read(buf)
	must(t, err)
	r, err := dhcpv4.FromBytes(buf[:n])
	must(t, err)
	return r
}

// stuck is a Directory whose store is away: enrolling hangs until the end.
type stuck struct {
	*fleet
	entered chan struct{}
}

func (d stuck) Answer(ctx context.Context, q Query) Answer {
	if !d.Knows(q) {
		d.entered <- struct{}{}
		<-ctx.Done()
	}
	return d.fleet.Answer(ctx, q)
}

// Strangers that cannot be written down do not keep known machines waiting.
func TestWireEnrolIsBesideTheLoop(t *testing.T) {
	c := newCable(t)
	f := newFleet()
	f.fixed[c.machine.String()] = Answer{Known: true, IP: netip.MustParseAddr("192.168.77.20"), Boot: true}
	d := stuck{f, make(chan struct{}, 1000)}
	s := run(t, &Server{Directory: d, Segments: []Segment{{Name: "new", Interface: "hostler0", Subnet: netip.MustParsePrefix("192.168.77.0/24"), Address: ours, Mode: Enrol}}})
	conn := c.listen(t, 0)
	for i := range 200 {
		b := ask(net.HardwareAddr{2, 9, 9, 9, 9, byte(i)}, dhcpv4.MessageTypeDiscover).ToBytes()
		_, err := conn.WriteTo(frame(c.machine, broadcastMAC, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), b), &mdlayher.Addr{HardwareAddr: broadcastMAC})
		must(t, err)
	}
	<-d.entered
	begin := time.Now()
	if _, err := c.client(t).Request(t.Context()); err != nil || time.Since(begin) > time.Second {
		t.Errorf("address after %v: %v, %+v", time.Since(begin), err, s.Counters())
	}
	if n := s.Counters().Outcomes["too-many"]; n < 130 {
		t.Errorf("%d strangers turned away, want all that find no place", n)
	}
}

// A relay hears back on its own address, with its own option.
func TestWireRelay(t *testing.T) {
	c := newCable(t)
	serve(t, c)
	c.give("192.168.77.20/24")
	c.give("10.9.0.1/24")
	link, err := netlink.LinkByName("hostler0")
	must(t, err)
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet("10.9.0.0/24"), Gw: net.IPv4(192, 168, 77, 20)}))
	var conn *net.UDPConn
	c.there(func() (err error) {
		conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 9, 0, 1), Port: 67}, &net.UDPAddr{IP: net.IPv4(192, 168, 77, 1), Port: 67})
		return err
	})
	defer conn.Close()
	d := ask(mac(3), dhcpv4.MessageTypeDiscover, append(clients["BIOS ROM"], raw(82, "\x01\x06port-7"))...)
	d.GatewayIPAddr = relay1.AsSlice()
	d.HopCount = 1
	r := exchange(t, conn, d)
	if r.MessageType() != dhcpv4.MessageTypeOffer || r.YourIPAddr.String() != "10.9.0.40" || string(r.Options[82]) != "\x01\x06port-7" || r.BootFileName != "undionly.kpxe" {
		t.Errorf("got %v", r.Summary())
	}
}

func TestWireRouterSolicitation(t *testing.T) {
	c := newCable(t)
	s := serve(t, c)
	conn := c.listen(t, etherIPv6)
	begin := time.Now()
	_, err := conn.WriteTo(solicit(t, c.machine, linkLocal(c.machine)), &mdlayher.Addr{HardwareAddr: allRouters})
	must(t, err)
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			t.Fatalf("no advertisement: %v, %+v", err, s.Counters())
		}
		if n < 70 || buf[54] != icmpRouterAdvert {
			continue
		}
		h, err := ipv6.ParseHeader(buf[14:n])
		must(t, err)
		if life := int(buf[54+6])<<8 | int(buf[54+7]); life != 0 || n != 78 || h.HopLimit != 255 {
			t.Errorf("lifetime %d, %d bytes, hop limit %d", life, n, h.HopLimit)
		}
		break
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("answered after %v", took)
	}
}

// listen opens a packet socket on the machine.
func (c *cable) listen(t *testing.T, protocol int) *mdlayher.Conn {
	var conn *mdlayher.Conn
	c.there(func() error {
		card, err := net.InterfaceByName("machine0")
		if err != nil {
			return err
		}
		conn, err = mdlayher.Listen(card, mdlayher.Raw, protocol, nil)
		return err
	})
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
	return conn
}

// A thousand packets of other networks get not one reply (F-21, F-22).
func TestWireForeignPackets(t *testing.T) {
	c := newCable(t)
	s := serve(t, c)
	conn := c.listen(t, etherIPv4)
	r := rand.New(rand.NewPCG(1, 1))
	good := ask(c.machine, dhcpv4.MessageTypeDiscover, clients["iPXE BIOS"]...).ToBytes()
	foreign := []func(i int) []byte{
		func(i int) []byte {
			return ask(net.HardwareAddr{2, 9, 9, 9, byte(i >> 8), byte(i)}, dhcpv4.MessageTypeDiscover, clients["OVMF PXE"]...).ToBytes()
		},
		func(i int) []byte {
			d := ask(c.machine, dhcpv4.MessageTypeRequest, dhcpv4.OptServerIdentifier(net.IP{192, 168, 77, byte(2 + i%200)}), dhcpv4.OptRequestedIPAddress(net.IP{192, 168, 77, 50}))
			return d.ToBytes()
		},
		func(i int) []byte {
			d := ask(c.machine, dhcpv4.MessageTypeDiscover)
			d.GatewayIPAddr = net.IP{10, 66, byte(i >> 8), byte(i)}
			return d.ToBytes()
		},
		func(int) []byte { return good[:r.IntN(len(good)-100)] },
		func(i int) []byte {
			return ask(mac(byte(0xc0+i%32)), []dhcpv4.MessageType{dhcpv4.MessageTypeInform, dhcpv4.MessageTypeDecline, dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeNak}[i%5]).ToBytes()
		},
	}
	total := func() (n uint64) {
		for _, v := range s.Counters().Outcomes {
			n += v
		}
		return n
	}
	from, to := netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67")
	for i := range 1000 {
		f := frame(c.machine, broadcastMAC, from, to, foreign[i%len(foreign)](i))
		_, err := conn.WriteTo(f, &mdlayher.Addr{HardwareAddr: broadcastMAC})
		must(t, err)
		if i%50 == 0 {
			time.Sleep(time.Millisecond) // the socket's buffer must not lose any
		}
	}
	for end := time.Now().Add(5 * time.Second); total() < 1000 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	counts := s.Counters()
	if n := total(); n != 1000 || counts.Offers+counts.Acks+counts.Outcomes["refused"]+counts.Outcomes["panicked"] != 0 {
		t.Errorf("%d packets seen: %+v", n, counts)
	}
	must(t, conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			break // silence
		}
		if n > 36 && buf[34] == 0 && buf[35] == serverPort {
			t.Fatalf("a reply: %x", buf[:n])
		}
	}
	t.Logf("%+v", counts.Outcomes)
}

// Strangers by the ten thousand do not keep a known machine from its address
// (P9, F-20).
func TestWireStorm(t *testing.T) {
	c := newCable(t)
	s := serve(t, c)
	storm := c.listen(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan int)
	go func() {
		n := 0
		f := frame(c.machine, broadcastMAC, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"),
			ask(mac(0), dhcpv4.MessageTypeDiscover, clients["iPXE BIOS"]...).ToBytes())
		const chaddr = 14 + 20 + 8 + 28
		f[40], f[41] = 0, 0 // no UDP checksum: the address changes
		for end := time.Now().Add(3 * time.Second); ctx.Err() == nil && time.Now().Before(end); {
			for range 20 {
				n++
				f[chaddr], f[chaddr+3], f[chaddr+4], f[chaddr+5] = 2, byte(n>>16), byte(n>>8), byte(n)
				if _, err := storm.WriteTo(f, &mdlayher.Addr{HardwareAddr: broadcastMAC}); err != nil {
					break
				}
			}
			time.Sleep(time.Millisecond)
		}
		sent <- n
	}()
	time.Sleep(500 * time.Millisecond)
	begin := time.Now()
	_, err := c.client(t).Request(t.Context(), modifiers(clients["iPXE BIOS"])...)
	took := time.Since(begin)
	time.Sleep(time.Second)
	cancel()
	n := <-sent
	if err != nil || took > 10*time.Second {
		t.Errorf("address after %v: %v", took, err)
	}
	t.Logf("%d strangers sent, address after %v: %v", n, took, s.Counters().Outcomes)
}

// trap is a Directory with a bug that one machine meets.
type trap struct {
	*fleet
	mac net.HardwareAddr
}

func (d trap) Answer(ctx context.Context, q Query) Answer {
	if bytes.Equal(q.MAC, d.mac) {
		var none map[string]Answer
		none[q.MAC.String()] = Answer{}
	}
	return d.fleet.Answer(ctx, q)
}

// A packet that makes us panic is lost, on the way in as on the way out, and the next is answered on the same socket;
// its kind is told once, with the packet.
func TestWirePanicIsOnePacketsLoss(t *testing.T) {
	c := newCable(t)
	f := newFleet()
	f.fixed[c.machine.String()] = Answer{Known: true, IP: netip.MustParseAddr("192.168.77.20"), Lease: time.Minute, Boot: true}
	bad := mac(0x66)
	f.fixed[bad.String()] = Answer{Known: true, IP: netip.MustParseAddr("192.168.77.66")}
	var out syncBuffer
	s := run(t, &Server{Directory: trap{f, bad}, Log: slog.New(slog.NewTextHandler(&out, nil)),
		Segments: []Segment{{Name: "boot", Interface: "hostler0", Subnet: netip.MustParsePrefix("192.168.77.0/24"), Address: ours, Mode: Authoritative}}})
	conn := c.listen(t, etherIPv4)
	killer := ask(bad, dhcpv4.MessageTypeDiscover, clients["iPXE BIOS"]...).ToBytes()
	for round := range 3 {
		for range 3 {
			_, err := conn.WriteTo(frame(c.machine, broadcastMAC, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), killer), &mdlayher.Addr{HardwareAddr: broadcastMAC})
			must(t, err)
		}
		if lease, err := c.client(t).Request(t.Context()); err != nil || lease.ACK.YourIPAddr.String() != "192.168.77.20" {
			t.Fatalf("round %d: the next packet is not answered: %v, %+v", round, err, s.Counters())
		}
	}
	if n := s.Counters(); n.Panics != 9 || n.Outcomes["panicked"] != 9 || n.Acks != 3 {
		t.Errorf("got %+v", n)
	}
	text := out.String()
	if strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "packet=010106") || !strings.Contains(text, "trap.Answer") {
		t.Errorf("told:\n%s", text)
	}
}

// syncBuffer is written by the server's goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Foreign packets by the hundred thousand: not one reply, and memory that does not grow (P9, F-20, F-21).
func TestWireForeignStormIsForgotten(t *testing.T) {
	c := newCable(t)
	s := serve(t, c)
	conn := c.listen(t, etherIPv4)
	from, to := netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67")
	const chaddr = 14 + 20 + 8 + 28
	discover := frame(c.machine, broadcastMAC, from, to, ask(mac(0), dhcpv4.MessageTypeDiscover, clients["iPXE BIOS"]...).ToBytes())
	elsewhere := ask(c.machine, dhcpv4.MessageTypeRequest, dhcpv4.OptServerIdentifier(net.IP{192, 168, 77, 9}), dhcpv4.OptRequestedIPAddress(net.IP{192, 168, 77, 50}))
	request := frame(c.machine, broadcastMAC, from, to, elsewhere.ToBytes())
	discover[40], discover[41] = 0, 0 // no UDP checksum: the address changes
	send := func(n int) {
		for i := range n {
			f := request
			if i%2 == 0 {
				f = discover
				f[chaddr], f[chaddr+2], f[chaddr+3], f[chaddr+4], f[chaddr+5] = 2, 0x77, byte(i>>16), byte(i>>8), byte(i)
			}
			if _, err := conn.WriteTo(f, &mdlayher.Addr{HardwareAddr: broadcastMAC}); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(300 * time.Millisecond)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	send(5_000) // what is kept for ever is kept now
	before := heap()
	send(100_000)
	after := heap()
	n := s.Counters()
	var seen uint64
	for _, v := range n.Outcomes {
		seen += v
	}
	if n.Offers+n.Acks+n.Outcomes["refused"] != 0 || n.Panics != 0 {
		t.Errorf("foreign packets were answered: %+v", n)
	}
	if seen < 60_000 {
		t.Errorf("only %d packets were seen: no storm", seen)
	}
	if after > before+8<<20 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
	t.Logf("%d packets seen, heap %d → %d KiB, %v", seen, before>>10, after>>10, n.Outcomes)
	if _, err := c.client(t).Request(t.Context()); err != nil {
		t.Errorf("a known machine afterwards: %v", err)
	}
}
