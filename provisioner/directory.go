package provisioner

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/cavaliergopher/cpio"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/provisioner/dhcp"
	"github.com/hostler-project/hostler/provisioner/httpboot"
)

// Directory answers the boot protocols from the copy of the record: who is this, which address, what does it boot. It
// writes one thing: a machine that nobody knows, seen on an enrol segment, becomes a discovered node with an address of
// its own, in one transaction, before the address is offered.
type Directory struct {
	Copy     *inventory.Copy
	Ledger   *ledger.Ledger
	Loop     Sink
	Segments []dhcp.Segment
	Now      func() time.Time
	Log      *slog.Logger

	Service ServiceOS
	Loaders map[string]string // name → file on our disk
	Pin     string            // hash of the agents' authority
	CA      []byte            // its certificate, PEM
	Token   func(session, nonce string) string
	Path    func(session string) string // 128-bit path component of a session's files
	Agent   func(segment string) string // https URL of the agent listener, as machines of that segment reach it
}

// ServiceOS is where the service OS lies on our disk. Name is part of its URL, so that caches never mix two builds.
type ServiceOS struct {
	Name, Kernel, Initrd string
	Args                 []httpboot.Arg // for every machine: the console
}

// node finds the node of a MAC.
func (d *Directory) node(mac net.HardwareAddr) string {
	return ledger.Holder(d.Copy, "mac", mac.String())
}

// at finds the node that owns an address.
func (d *Directory) at(ip netip.Addr) (inventory.NodeView, bool) {
	id := ledger.Holder(d.Copy, "ip", ip.String())
	if id == "" {
		return inventory.NodeView{}, false
	}
	return inventory.View(d.Copy, id), true
}

// At is the node in use at an address, for the metadata service.
func (d *Directory) At(ip string) (inventory.NodeView, bool) {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return inventory.NodeView{}, false
	}
	return d.at(a)
}

// Knows implements dhcp.Directory.
func (d *Directory) Knows(q dhcp.Query) bool { return d.node(q.MAC) != "" }

// Answer implements dhcp.Directory.
func (d *Directory) Answer(ctx context.Context, q dhcp.Query) dhcp.Answer {
	id := d.node(q.MAC)
	if id == "" {
		return d.enrol(ctx, q)
	}
	v := inventory.View(d.Copy, id)
	ip, err := netip.ParseAddr(v.Spec.V.IP)
	if err != nil || v.Spec.V.Segment != "" && v.Spec.V.Segment != q.Segment || v.State.V.State == inventory.Retired {
		return dhcp.Answer{}
	}
	if q.Type == dhcp.Discover && (q.PXE || q.HTTP || q.IPXE) {
		d.Loop.AskedDHCP(id)
	}
	return dhcp.Answer{Known: true, IP: ip, Boot: bootFor(v).Kind != httpboot.Disk}
}

// enrol writes down a machine that nobody knows and gives it an address, without a boot file.
func (d *Directory) enrol(ctx context.Context, q dhcp.Query) dhcp.Answer {
	if q.Type != dhcp.Discover {
		return dhcp.Answer{}
	}
	for _, s := range d.Segments {
		if s.Name != q.Segment || s.Mode != dhcp.Enrol {
			continue
		}
		ip, ok := d.free(s)
		if !ok {
			d.Log.Warn("no address left for a new machine", "segment", s.Name, "mac", q.MAC.String())
			return dhcp.Answer{}
		}
		spec := inventory.Spec{MACs: []string{q.MAC.String()}, UUID: q.UUID, IP: ip.String(), Segment: s.Name, Firmware: firmware(q), Source: "dhcp"}
		ctx, stop := context.WithTimeout(ctx, 2*time.Second)
		defer stop()
		if _, err := d.Ledger.Add(ctx, spec, actor, fmt.Sprintf("asked for an address on segment %s: %s, UUID %s", s.Name, firmware(q), fallback(q.UUID, "not told"))); err != nil {
			d.Log.Warn("a new machine could not be written down", "segment", s.Name, "mac", q.MAC.String(), "err", err)
			return dhcp.Answer{}
		}
		return dhcp.Answer{Known: true, IP: ip}
	}
	return dhcp.Answer{}
}

// free is an address of a segment that no node owns, from its upper half: people give out the lower ones.
func (d *Directory) free(s dhcp.Segment) (netip.Addr, bool) {
	ones := s.Subnet.Bits()
	if ones > 30 {
		return netip.Addr{}, false
	}
	base := s.Subnet.Masked().Addr().As4()
	start := uint32(base[0])<<24 | uint32(base[1])<<16 | uint32(base[2])<<8 | uint32(base[3])
	size := uint32(1) << (32 - ones)
	for n := size / 2; n < size-1; n++ {
		a := start + n
		ip := netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
		if ip != s.Address && ledger.Holder(d.Copy, "ip", ip.String()) == "" {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// firmware says how a machine asked to be booted.
func firmware(q dhcp.Query) string {
	switch {
	case q.HTTP:
		return "uefi-http"
	case q.Arch == 0 && (q.PXE || q.IPXE):
		return "bios"
	case q.PXE || q.IPXE:
		return "uefi"
	}
	return "none"
}

// verdict of what a machine boots: a pure function of its record.
type bootVerdict struct {
	Kind   httpboot.Kind
	Reason httpboot.Reason
}

// bootFor says what a node's machine boots now. Disk means that it gets no boot file: a tenant's machine, a new one, one
// that is out of our hands.
func bootFor(v inventory.NodeView) bootVerdict {
	row, known := lifecycle.Get(v.State.V.State)
	s := v.Session.V
	switch {
	case !known || v.Broken != nil || row.Owned || row.Step == "" || row.Name == inventory.Discovered:
		return bootVerdict{Kind: httpboot.Disk}
	case v.State.V.Work.Phase == "enter":
		return bootVerdict{Kind: httpboot.Disk}
	case !v.Session.Exists() || s.Phase == inventory.SessionClosed:
		if row.Rest {
			return bootVerdict{Kind: httpboot.Disk}
		}
		return bootVerdict{httpboot.Wait, httpboot.NoOrder}
	case s.Phase == inventory.SessionBurnt:
		return bootVerdict{httpboot.Refuse, httpboot.Burnt}
	case s.Phase == inventory.SessionRedeemed:
		return bootVerdict{httpboot.Wait, httpboot.Redeemed}
	case s.Generation != v.State.V.Generation:
		return bootVerdict{httpboot.Wait, httpboot.NoOrder}
	case v.State.V.Work.Phase != phaseOn && v.State.V.Work.Phase != phaseBoot:
		// Armed, but its power was not confirmed off yet: what asks is what ran before, perhaps a tenant's system.
		return bootVerdict{httpboot.Wait, httpboot.NoOrder}
	}
	return bootVerdict{Kind: httpboot.Service}
}

// Plan implements httpboot.Boot.
func (d *Directory) Plan(_ context.Context, c httpboot.Client) (httpboot.Plan, error) {
	v, ok := d.at(c.IP)
	if !ok {
		return httpboot.Plan{}, httpboot.ErrUnknown
	}
	d.Loop.AskedBoot(v.ID)
	return d.plan(v)
}

// Preview is the boot script that a node would get now; it changes nothing.
func (d *Directory) Preview(node string) (string, error) {
	p, err := d.plan(inventory.View(d.Copy, node))
	if err != nil {
		return "", err
	}
	b, err := httpboot.IPXE(p)
	return string(b), err
}

func (d *Directory) plan(v inventory.NodeView) (httpboot.Plan, error) {
	if len(v.Spec.V.MACs) == 0 {
		return httpboot.Plan{}, fmt.Errorf("node %s has no MAC", v.Name())
	}
	mac, err := net.ParseMAC(v.Spec.V.MACs[0])
	if err != nil {
		return httpboot.Plan{}, fmt.Errorf("node %s: %v", v.Name(), err)
	}
	seg, ok := d.Segment(v)
	if !ok {
		return httpboot.Plan{}, fmt.Errorf("node %s is on segment %q, which is not declared", v.Name(), v.Spec.V.Segment)
	}
	port := seg.Port
	if port == 0 {
		port = 80
	}
	b := bootFor(v)
	p := httpboot.Plan{Kind: b.Kind, Reason: b.Reason, MAC: mac, Server: netip.AddrPortFrom(seg.Address, port), Retry: 5 * time.Second}
	if b.Kind == httpboot.Service {
		p.Kernel = "boot/" + d.Service.Name + "/vmlinuz"
		p.Initrds = []string{"boot/" + d.Service.Name + "/initrd.cpio", "session/" + d.Path(v.Session.V.ID) + "/session.cpio"}
		p.Args = append(append([]httpboot.Arg{}, d.Service.Args...), httpboot.Arg{Key: "hostler.ca", Value: d.Pin}, httpboot.Arg{Key: "hostler.mac", Value: mac.String()})
	}
	return p, nil
}

// Segment is where a node boots: the one that it names, or the one that its address is in.
func (d *Directory) Segment(v inventory.NodeView) (dhcp.Segment, bool) {
	ip, _ := netip.ParseAddr(v.Spec.V.IP) // an invalid one is in no subnet
	for _, s := range d.Segments {
		if s.Name == v.Spec.V.Segment || v.Spec.V.Segment == "" && s.Subnet.Contains(ip) {
			return s, true
		}
	}
	return dhcp.Segment{}, false
}

// Open implements httpboot.Files: loaders, the service OS, and the tiny second initrd of an armed session, given to the
// session's own machine alone.
func (d *Directory) Open(name string, client netip.Addr) (httpboot.File, bool) {
	switch name {
	case "boot/" + d.Service.Name + "/vmlinuz":
		return httpboot.Map{name: d.Service.Kernel}.Open(name, client)
	case "boot/" + d.Service.Name + "/initrd.cpio":
		return httpboot.Map{name: d.Service.Initrd}.Open(name, client)
	}
	if loader, ok := strings.CutPrefix(name, "loader/"); ok {
		return httpboot.Map(d.Loaders).Open(loader, client)
	}
	v, ok := d.at(client)
	if !ok || bootFor(v).Kind != httpboot.Service || name != "session/"+d.Path(v.Session.V.ID)+"/session.cpio" || d.Now().After(v.Session.V.Expires) {
		return httpboot.File{}, false
	}
	b, err := d.sessionInitrd(v)
	if err != nil {
		d.Log.Error("the session's initrd cannot be made", "node", v.ID, "err", err)
		return httpboot.File{}, false
	}
	return httpboot.Bytes(b), true
}

// sessionInitrd is a cpio archive (newc) with one file: what the agent needs to redeem its token.
func (d *Directory) sessionInitrd(v inventory.NodeView) ([]byte, error) {
	seg, _ := d.Segment(v)
	s := v.Session.V
	text, err := json.Marshal(map[string]any{
		"session": s.ID, "node": v.ID, "name": v.Name(), "token": d.Token(s.ID, s.Nonce),
		"server": d.Agent(seg.Name), "http": "http://" + seg.Address.String(), "ca_pem": string(d.CA), "now": d.Now().UTC(),
	})
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := cpio.NewWriter(&buf)
	for _, h := range []*cpio.Header{
		{Name: "hostler", Mode: cpio.TypeDir | 0o700},
		{Name: "hostler/session.json", Mode: cpio.TypeReg | 0o600, Size: int64(len(text))},
	} {
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	for buf.Len()%4 != 0 { // Linux looks for the next archive at a multiple of four
		buf.WriteByte(0)
	}
	return buf.Bytes(), nil
}

// MayRead says whether the machine at an address has an order for an image.
func (d *Directory) MayRead(client netip.Addr, image string) bool {
	v, ok := d.at(client)
	return ok && v.State.V.State == inventory.Provisioning && v.Instance.V.Image == image
}
