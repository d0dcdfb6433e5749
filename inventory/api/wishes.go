package api

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// A verb is one thing that people may wish of a node.
type verb struct {
	event  lifecycle.Event // the edge that it asks for; "" where it asks for an act
	args   []string
	reason bool // a reason must be given
}

// verbs are the wishes that the provisioner answers. Approve has its own call.
var verbs = map[string]verb{
	inventory.WishQuarantine: {event: lifecycle.Quarantine, reason: true},
	inventory.WishMaintain:   {event: lifecycle.Maintain, reason: true},
	inventory.WishReturn:     {event: lifecycle.Return},
	inventory.WishAbort:      {event: lifecycle.Abort},
	inventory.WishPower:      {args: []string{"on", "off", "cycle"}},
}

// wishLife is how long a wish waits for its answer: after that nobody may expect it to be done any more.
const wishLife = 15 * time.Minute

// A WishRequest says what is wanted of a node.
type WishRequest struct {
	Verb   string `json:"verb" enum:"quarantine,maintain,return,abort,power"`
	Arg    string `json:"arg,omitempty" doc:"Of power: on, off or cycle."`
	Reason string `json:"reason,omitempty" maxLength:"500"`
}

type wishInput struct {
	NodeRef
	Body WishRequest
}

func (s *Server) wish(ctx context.Context, in *wishInput) (inventory.Wish, error) {
	q := in.Body
	vb := verbs[q.Verb]
	switch {
	case vb.args == nil && q.Arg != "", vb.args != nil && !slices.Contains(vb.args, q.Arg):
		return inventory.Wish{}, problem(http.StatusUnprocessableEntity, "hostler node --help", "%s %s: have %q", q.Verb, q.Arg, vb.args)
	case vb.reason && strings.TrimSpace(q.Reason) == "":
		return inventory.Wish{}, problem(http.StatusUnprocessableEntity, "--reason TEXT", "%s needs a reason: the next person will ask", q.Verb)
	}
	v, err := s.node(ctx, in.Node)
	if err != nil {
		return inventory.Wish{}, err
	}
	if err := allowed(v, q, vb); err != nil {
		return inventory.Wish{}, err
	}
	if vb.event == "" || vb.event == lifecycle.Return {
		if err := s.mayStart(); err != nil {
			return inventory.Wish{}, err
		}
	}
	return s.putWish(ctx, v, q)
}

// allowed refuses at once what the table rules out; the provisioner decides the rest, and decides again.
func allowed(v inventory.NodeView, q WishRequest, vb verb) error {
	if vb.event == "" {
		if row, _ := lifecycle.Get(v.State.V.State); row.Owned || v.Claim.Exists() {
			return ledger.Refuse("release it first", "%s is a tenant's (%s): no power act without the holder's consent", v.Name(), v.State.V.State)
		}
		return nil
	}
	if _, err := lifecycle.Find(v.State.V.State, vb.event); err != nil {
		return ledger.Refuse("hostler why "+v.Name(), "%s is %s and cannot be asked to %s", v.Name(), v.State.V.State, q.Verb)
	}
	return nil
}

// putWish stores a wish; the same one, still open, is found again instead of being doubled.
func (s *Server) putWish(ctx context.Context, v inventory.NodeView, q WishRequest) (inventory.Wish, error) {
	for _, old := range v.Wishes {
		if old.V.Verb == q.Verb && old.V.Arg == q.Arg && old.V.Generation == v.State.V.Generation && s.Now().Before(old.V.Expires) {
			return old.V, nil
		}
	}
	now := s.Now()
	w := inventory.Wish{Schema: inventory.Schema, ID: s.Ledger.NewID(), Node: v.ID, Verb: q.Verb, Arg: q.Arg, Actor: caller(ctx).Actor(),
		Reason: q.Reason, Generation: v.State.V.Generation, Created: now, Expires: now.Add(wishLife)}
	op, err := inventory.Encode(inventory.KeyWish(v.ID, w.ID), w)
	if err != nil {
		return w, err
	}
	_, err = s.Store.Commit(ctx, inventory.Txn{Then: []inventory.Op{op}})
	return w, err
}

// A WishList are the wishes of a node, oldest first.
type WishList struct {
	Wishes []inventory.Wish `json:"wishes"`
}

func (s *Server) listWishes(ctx context.Context, in *NodeRef) (WishList, error) {
	out := WishList{Wishes: []inventory.Wish{}}
	v, err := s.node(ctx, in.Node)
	if err != nil {
		return out, err
	}
	for _, kv := range s.Copy.Under(inventory.PrefixWishes + v.ID + "/") {
		w, err := inventory.Decode[inventory.Wish](kv)
		if err != nil && !errors.Is(err, inventory.ErrNewer) {
			return out, err
		}
		out.Wishes = append(out.Wishes, w.V)
	}
	return out, nil
}

type showWishInput struct {
	NodeRef
	Wish string `path:"wish" maxLength:"64"`
}

func (s *Server) showWish(ctx context.Context, in *showWishInput) (inventory.Wish, error) {
	v, err := s.node(ctx, in.Node)
	if err != nil {
		return inventory.Wish{}, err
	}
	w, err := inventory.Decode[inventory.Wish](s.Copy.One(inventory.KeyWish(v.ID, in.Wish)))
	if err == nil && !w.Exists() {
		err = problem(http.StatusNotFound, "hostler why "+v.Name(), "%s has no wish %q", v.Name(), in.Wish)
	}
	return w.V, err
}

// An Approval says what a discovered node is. Empty fields stay as they are.
type Approval struct {
	SKU        string `json:"sku,omitempty"`
	BMC        string `json:"bmc,omitempty" doc:"Address of its controller, with a port where it is not the usual one."`
	Protocol   string `json:"protocol,omitempty" doc:"Of the BMC: ipmi, which is also the default. This version speaks no other."`
	Credential string `json:"credential,omitempty" doc:"Name of a sealed credential."`
	Name       string `json:"name,omitempty"`
	IP         string `json:"ip,omitempty"`
	Rack       string `json:"rack,omitempty"`
	Slot       string `json:"slot,omitempty"`
	Reason     string `json:"reason,omitempty" maxLength:"500"`
}

type approveInput struct {
	NodeRef
	Body Approval
}

func (s *Server) approve(ctx context.Context, in *approveInput) (inventory.Wish, error) {
	for try := 0; ; try++ {
		w, err := s.approveOnce(ctx, in)
		if !errors.Is(err, ledger.ErrConflict) || try == 7 {
			return w, err
		}
	}
}

func (s *Server) approveOnce(ctx context.Context, in *approveInput) (inventory.Wish, error) {
	var none inventory.Wish
	v, err := s.node(ctx, in.Node)
	if err != nil {
		return none, err
	}
	if _, err := lifecycle.Find(v.State.V.State, lifecycle.Approve); err != nil {
		return none, ledger.Refuse("hostler why "+v.Name(), "%s is %s: only a discovered node can be approved", v.Name(), v.State.V.State)
	}
	if err := s.mayStart(); err != nil {
		return none, err
	}
	q, spec := in.Body, v.Spec.V
	for _, f := range []struct {
		to   *string
		from string
	}{{&spec.SKU, q.SKU}, {&spec.BMC.Addr, q.BMC}, {&spec.BMC.Protocol, q.Protocol}, {&spec.BMC.Credential, q.Credential},
		{&spec.Name, q.Name}, {&spec.IP, q.IP}, {&spec.Rack, q.Rack}, {&spec.Slot, q.Slot}} {
		*f.to = cmp.Or(f.from, *f.to)
	}
	if spec.BMC.Addr != "" {
		spec.BMC.Protocol = cmp.Or(spec.BMC.Protocol, "ipmi")
	}
	if faults := specFaults(spec); len(faults) > 0 {
		return none, problem(http.StatusUnprocessableEntity, "hostler node approve --help", "%s", strings.Join(faults, "; "))
	}
	if err := s.fits(v.ID, spec); err != nil {
		return none, err
	}
	if err := s.Ledger.Edit(ctx, v, spec); err != nil {
		return none, err
	}
	return s.putWish(ctx, v, WishRequest{Verb: inventory.WishApprove, Reason: q.Reason})
}

// fits checks a spec that is about to be worked with against the rest of the record.
func (s *Server) fits(id string, spec inventory.Spec) error {
	name := cmp.Or(spec.Name, id)
	switch {
	case spec.SKU == "":
		return ledger.Refuse("--sku NAME, one of: "+strings.Join(skuNames(s.Copy), ", "), "%s has no SKU", name)
	case !s.Copy.One(inventory.KeySKU(spec.SKU)).Exists():
		return ledger.Refuse("declare it under skus: in site.yaml; have: "+strings.Join(skuNames(s.Copy), ", "), "SKU %q is not declared", spec.SKU)
	case spec.BMC.Addr == "":
		return ledger.Refuse("--bmc ADDR", "%s has no BMC address", name)
	case spec.BMC.Credential == "":
		return ledger.Refuse("--credential REF", "%s has no BMC credential", name)
	case !s.Copy.One(inventory.KeyCredential(spec.BMC.Credential)).Exists():
		return ledger.Refuse("hostler bmc credential set "+spec.BMC.Credential, "there is no credential %q", spec.BMC.Credential)
	}
	return s.addressFree(id, spec)
}

// addressFree refuses an address that another node has: two machines would answer to it.
func (s *Server) addressFree(id string, spec inventory.Spec) error {
	for _, other := range s.Copy.Nodes() {
		if other == id || spec.IP == "" && spec.BMC.Addr == "" {
			continue
		}
		d, err := inventory.Decode[inventory.Spec](s.Copy.One(inventory.KeySpec(other)))
		if err != nil {
			continue // unreadable records are told by why; they claim no address here
		}
		if spec.IP != "" && d.V.IP == spec.IP {
			return ledger.Refuse("hostler node show "+other, "address %s already belongs to %s", spec.IP, cmp.Or(d.V.Name, other))
		}
		if spec.BMC.Addr != "" && d.V.BMC.Addr == spec.BMC.Addr {
			return ledger.Refuse("hostler node show "+other, "BMC %s already belongs to %s", spec.BMC.Addr, cmp.Or(d.V.Name, other))
		}
	}
	return nil
}

// specFaults are the values of a spec that cannot be right, whatever the rest of the record says.
func specFaults(s inventory.Spec) []string {
	var out []string
	bad := func(what, value, want string) { out = append(out, what+" "+quote(value)+": "+want) }
	if s.Name != "" && !idForm.MatchString(s.Name) {
		bad("name", s.Name, idWords)
	}
	if s.SKU != "" && !idForm.MatchString(s.SKU) {
		bad("sku", s.SKU, idWords)
	}
	if s.BMC.Credential != "" && !idForm.MatchString(s.BMC.Credential) {
		bad("credential", s.BMC.Credential, idWords)
	}
	for _, f := range []struct{ what, value string }{{"serial", s.Serial}, {"rack", s.Rack}, {"slot", s.Slot}} {
		if len(f.value) > 128 || strings.ContainsFunc(f.value, func(r rune) bool { return !unicode.IsPrint(r) }) {
			bad(f.what, f.value, "at most 128 characters that can be printed")
		}
	}
	if s.IP != "" {
		if a, err := netip.ParseAddr(s.IP); err != nil || !a.Is4() {
			bad("ip", s.IP, "write an IPv4 address like 10.0.0.7")
		}
	}
	if a := s.BMC.Addr; a != "" && !reachable(a) {
		bad("bmc_addr", a, "write an address or name, with :port where it is not the usual one")
	}
	if p := s.BMC.Protocol; p != "" && p != "ipmi" {
		bad("bmc_protocol", p, "this version speaks ipmi only")
	}
	for _, m := range s.MACs {
		if hw, err := net.ParseMAC(m); err != nil || len(hw) != 6 {
			bad("mac", m, "write it like 52:54:00:12:34:56")
		}
	}
	return out
}

// reachable says whether a text is an address or a name that can be dialled, with or without a port.
func reachable(text string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = text, "623"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	a, noAddr := netip.ParseAddr(host)
	return err == nil && n > 0 && (noAddr == nil && a.Zone() == "" || hostForm.MatchString(host))
}
