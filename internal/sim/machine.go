package sim

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/cavaliergopher/cpio"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/provisioner/dhcp"
	"github.com/hostler-project/hostler/provisioner/httpboot"
)

// A disk is one medium, and what is truly on it: "" for nothing, an instance's id for its data, "before" for what was
// there when the machine came.
type disk struct {
	m        inventory.Medium
	data     string
	bootable bool // what is on it boots
	hidden   bool // it does not show, now
	deaf     bool // says that it was erased, and keeps all
	dying    bool // fails in the middle of an erase
}

// The places of a machine's port.
const (
	placeNone         = "isolated"
	placeProvisioning = "provisioning"
	placeTenant       = "tenant"
)

// What runs in a machine.
const (
	runsNothing = ""
	runsPost    = "post"
	runsAgent   = "agent"
	runsTenant  = "tenant"
)

// A machine is one server with its BMC and its port: the truth, whatever the record says.
type machine struct {
	s       *Sim
	i       int
	id      string // of its node; "" while nobody wrote it down
	name    string
	serial  string
	mac, ip string
	segment string
	unknown bool // nobody imported it: it shows up by itself

	power    bool
	boot     int    // number of the boot; part of the boot id
	epoch    int    // rises whenever what runs in it ends
	override string // of the next boot: "", network, disk
	sticky   bool   // the override stays
	order    string // of the firmware: network or disk first
	runs     string
	inst     string // whose system runs, where a tenant's does
	place    string
	placeOf  string // the instance whose network that is
	disks    []*disk
	own      []*disk // those that it came with
	moved    bool    // somebody put another disk in, and no agent has looked since
	agent    *agent

	mute time.Duration // its agent's messages are lost until then
	dead time.Duration // it does not boot until then
	bmc  bmcState
}

func (s *Sim) newMachine(i int) *machine {
	m := &machine{s: s, i: i, name: fmt.Sprintf("gpu%03d", i), serial: fmt.Sprintf("SER-%04d", i), mac: fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&255),
		ip: fmt.Sprintf("10.0.%d.%d", 1+i>>8, i&255), segment: "s", order: "network", place: placeProvisioning}
	m.unknown = !s.p.Calm && s.chance(0.1)
	for d := range 2 {
		m.disks = append(m.disks, &disk{data: "before", m: inventory.Medium{Slot: fmt.Sprintf("0000:00:0%d.0", d+4), Device: fmt.Sprintf("nvme%d", d), Kind: inventory.MediumNVMe,
			Serial: fmt.Sprintf("D%d-%04d", d, i), Size: 1 << 30}})
	}
	m.own = append(m.own, m.disks...)
	if m.unknown {
		m.segment, m.ip = "new", ""
	}
	return m
}

// arrive puts a machine into the site: imported, off; or switched on by somebody on the segment for new ones.
func (m *machine) arrive() {
	if m.unknown {
		m.powerUp()
		return
	}
	m.s.spawn(m.s.api, 0, func() {
		for {
			spec := inventory.Spec{Name: m.name, Serial: m.serial, SKU: "gpu", Approve: "auto", MACs: []string{m.mac}, IP: m.ip, Segment: m.segment, Rack: fmt.Sprintf("r%02d", m.i/m.s.p.Rack),
				BMC: inventory.BMCSpec{Addr: "bmc-" + m.name}}
			if _, err := m.s.led.Add(bg, spec, "test", "imported"); err == nil || !m.s.wait(m.s.upTo(20*time.Second)) {
				return
			}
		}
	})
}

// end is the end of whatever runs in it.
func (m *machine) end() {
	m.epoch++
	m.runs, m.inst, m.agent = runsNothing, "", nil
}

func (m *machine) powerDown() {
	m.end()
	m.power = false
}

func (m *machine) powerUp() {
	m.end()
	m.power, m.boot, m.runs = true, m.boot+1, runsPost
	m.later(m.s.between(5*time.Second, 40*time.Second), m.firmware)
}

// reset is a boot that nobody asked for.
func (m *machine) reset() {
	if m.power {
		m.powerUp()
	}
}

// later has f happen, unless what runs in the machine has ended by then.
func (m *machine) later(d time.Duration, f func()) {
	epoch := m.epoch
	m.s.after(d, func() {
		if m.epoch == epoch {
			f()
		}
	})
}

// firmware tries the boot devices in turn.
func (m *machine) firmware() {
	first := m.order
	if m.override != "" {
		if m.s.maybe("override ignored") {
			m.s.note("%s ignores its boot override %s", m.name, m.override)
		} else {
			first = m.override
		}
		if !m.sticky {
			m.override = ""
		}
	}
	switch {
	case m.dead > m.s.mono:
		m.later(m.dead-m.s.mono+time.Second, func() {}) // it hangs until somebody cycles it
	case first == "disk" && m.bootDisk():
	default:
		m.bootNetwork()
	}
}

// bootDisk enters what is on the first disk, where it boots.
func (m *machine) bootDisk() bool {
	d := m.disks[0]
	if d.hidden || !d.bootable {
		return false
	}
	m.enter(d.data)
	return true
}

// enter starts a tenant's system: it writes to every disk that it sees.
func (m *machine) enter(inst string) {
	m.agent, m.runs, m.inst = nil, runsTenant, inst
	if inst == m.s.instanceOf(m) {
		for _, d := range m.disks {
			if !d.hidden && d.data != "" && d.data != inst {
				m.s.fail("%s is entered by %s, and disk %s holds the data of %s", m.name, inst, d.m.Serial, d.data)
			}
		}
	}
	for _, d := range m.disks {
		if !d.hidden {
			d.data = inst
		}
	}
	m.s.act("%s runs the system of %s", m.name, inst)
	m.s.check(m)
	m.later(m.s.between(20*time.Second, 2*time.Minute), m.phoneHome)
}

// bootNetwork asks for an address, a boot plan, and does what it says.
func (m *machine) bootNetwork() {
	again := func() { m.later(m.s.between(4*time.Second, 15*time.Second), m.bootNetwork) }
	r := m.s.server(m.id)
	if m.place != placeProvisioning || r == nil || m.s.dark > m.s.mono && m.s.chance(0.5) {
		if !m.bootDisk() {
			again()
		}
		return
	}
	mac, _ := net.ParseMAC(m.mac)
	m.s.spawn(m.s.field, 0, func() {
		epoch := m.epoch
		a := r.dir.Answer(bg, dhcp.Query{Segment: m.segment, Type: dhcp.Discover, MAC: mac, Arch: 7, PXE: true})
		r.poke()
		if m.epoch != epoch {
			return
		}
		if a.Known && m.ip == "" {
			m.ip = a.IP.String()
			m.s.byIP[m.ip] = m
		}
		if !a.Boot {
			if !m.bootDisk() {
				again()
			}
			return
		}
		m.later(m.s.between(time.Second, 5*time.Second), m.script)
	})
}

// script is the boot loader's question what to boot.
func (m *machine) script() {
	r := m.s.server(m.id)
	again := func() { m.later(5*time.Second, m.script) }
	if r == nil {
		again()
		return
	}
	ip, _ := netip.ParseAddr(m.ip)
	p, err := r.dir.Plan(bg, httpboot.Client{IP: ip})
	r.poke()
	switch {
	case err != nil || p.Kind == httpboot.Wait:
		again()
	case p.Kind == httpboot.Disk:
		if !m.bootDisk() {
			m.later(m.s.between(4*time.Second, 15*time.Second), m.bootNetwork)
		}
	case p.Kind == httpboot.Service:
		m.later(m.s.between(3*time.Second, 20*time.Second), func() { m.fetch(p.Initrds[1]) })
	}
}

// fetch gets the session's own files, as the boot loader does, and starts the service OS.
func (m *machine) fetch(path string) {
	r := m.s.server(m.id)
	if r == nil {
		m.later(5*time.Second, func() { m.fetch(path) })
		return
	}
	ip, _ := netip.ParseAddr(m.ip)
	f, ok := r.dir.Open(path, ip)
	if !ok { // the plan changed meanwhile
		m.later(5*time.Second, m.bootNetwork)
		return
	}
	s, err := sessionOf(f)
	if err != nil {
		m.s.fail("%s: its session's files: %v", m.name, err)
		return
	}
	m.later(m.s.between(2*time.Second, 10*time.Second), func() { m.startAgent(s.Session, s.Token) })
}

type session struct{ Session, Token, Node string }

// sessionOf reads the second initrd, as the agent does.
func sessionOf(f httpboot.File) (session, error) {
	var s session
	defer f.Content.Close()
	for r := cpio.NewReader(f.Content); ; {
		h, err := r.Next()
		if err != nil {
			return s, err
		}
		if h.Name != "hostler/session.json" {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return s, err
		}
		return s, json.Unmarshal(b, &s)
	}
}
