package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A NodeRow is one node in a list. Rental gets what is in the public record.
type NodeRow struct {
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	SKU         string          `json:"sku"`
	Rack        string          `json:"rack,omitempty"`
	Slot        string          `json:"slot,omitempty"`
	State       inventory.State `json:"state"`
	Since       time.Time       `json:"since"`
	Rentable    bool            `json:"rentable"`
	Health      string          `json:"health"`
	Generation  int64           `json:"generation"`
	Tenant      string          `json:"tenant,omitempty"`
	Reservation string          `json:"reservation,omitempty"`
	Instance    string          `json:"instance,omitempty"`
	Ready       bool            `json:"ready,omitempty"`
	Why         string          `json:"why,omitempty" doc:"Why it is where it is, or cannot be rented."`
	Serial      string          `json:"serial,omitempty"`
	IP          string          `json:"ip,omitempty"`
	MACs        []string        `json:"macs,omitempty"`
	BMC         string          `json:"bmc,omitempty"`
	Firmware    string          `json:"firmware,omitempty"`
	Alive       string          `json:"alive,omitempty"`
	Taint       string          `json:"taint,omitempty"`
	Live        *Live           `json:"live,omitempty"`
}

// A NodeList is one page of nodes, by name as people count.
type NodeList struct {
	Nodes   []NodeRow `json:"nodes"`
	Total   int       `json:"total" doc:"How many nodes the selector means, on all pages."`
	Next    string    `json:"next,omitempty" doc:"Ask with after=this for the next page."`
	Unknown []string  `json:"unknown,omitempty" doc:"Names in the selector that no node has."`
}

type listNodesInput struct {
	Select string `query:"select" maxLength:"8192" doc:"Terms joined by commas: names, ids, serials, MACs, ranges like gpu[001-072], rack=, sku=, state=, health=, tenant=, rentable=."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	After  string `query:"after" maxLength:"64"`
}

func (s *Server) listNodes(ctx context.Context, in *listNodesInput) (NodeList, error) {
	out := NodeList{Nodes: []NodeRow{}}
	sel, err := ParseSelector(in.Select)
	if err != nil {
		return out, problem(http.StatusUnprocessableEntity, "hostler node ls --help", "%v", err)
	}
	r, err := s.read(ctx)
	if err != nil {
		return out, err
	}
	found, unknown := s.pick(r, caller(ctx), sel)
	out.Total, out.Unknown = len(found), unknown
	slices.SortFunc(found, func(a, b inventory.Public) int { return Natural(a.Name, b.Name) })
	from := 0
	if in.After != "" {
		from, _ = slices.BinarySearchFunc(found, in.After, func(p inventory.Public, after string) int {
			if Natural(p.Name, after) <= 0 {
				return -1
			}
			return 1
		})
	}
	for _, p := range found[from:] {
		if len(out.Nodes) == in.Limit {
			out.Next = out.Nodes[in.Limit-1].Name
			break
		}
		out.Nodes = append(out.Nodes, s.row(r, caller(ctx), p))
	}
	return out, nil
}

// pick gives the public records that the selector means, as the caller may see them, and the names nobody has.
func (s *Server) pick(r inventory.Reader, who Identity, sel Selector) (found []inventory.Public, unknown []string) {
	var kvs []inventory.KV
	if len(sel.Names) == 0 {
		kvs = r.Under(inventory.PrefixPublic)
	}
	seen := map[string]bool{}
	for _, name := range sel.Names {
		id, ok := find(r, who, name)
		switch {
		case !ok:
			unknown = append(unknown, name)
		case !seen[id]:
			seen[id] = true
			kvs = append(kvs, r.One(inventory.KeyPublic(id)))
		}
	}
	for _, p := range s.publics.of(kvs, len(sel.Names) == 0) {
		if p = redact(p, who); sel.matches(p) {
			found = append(found, p)
		}
	}
	return found, unknown
}

// row is a node's line in a list.
func (s *Server) row(r inventory.Reader, who Identity, p inventory.Public) NodeRow {
	row := NodeRow{ID: p.ID, Name: p.Name, SKU: p.SKU, Rack: p.Rack, Slot: p.Slot, State: p.State, Since: p.Since, Rentable: p.Rentable,
		Health: p.Health, Generation: p.Generation, Tenant: p.Tenant, Reservation: p.Reservation, Instance: p.Instance, Ready: p.Ready}
	if len(p.Reasons) > 0 {
		row.Why = p.Reasons[0]
	}
	if who.Role == RoleRental {
		return row
	}
	spec, _ := inventory.Decode[inventory.Spec](r.One(inventory.KeySpec(p.ID))) // unreadable: the row says less, why says more
	state, err := inventory.Decode[inventory.NodeState](r.One(inventory.KeyState(p.ID)))
	row.Serial, row.IP, row.MACs, row.BMC, row.Firmware = spec.V.Serial, spec.V.IP, spec.V.MACs, spec.V.BMC.Addr, spec.V.Firmware
	row.Alive, row.Taint = state.V.Alive, state.V.Taint
	if row.Why = state.V.Reason; err != nil {
		row.Why = err.Error()
	}
	row.Live = s.live(p.ID)
	return row
}

func (s *Server) live(node string) *Live {
	if s.Live == nil {
		return nil
	}
	l := s.Live(node)
	return &l
}

// A NodeDetail is all there is to know of one node. Rental gets Public, and its own claim and instance.
type NodeDetail struct {
	Public      inventory.Public         `json:"public"`
	Spec        *inventory.Spec          `json:"spec,omitempty"`
	State       *inventory.NodeState     `json:"state,omitempty"`
	Facts       *inventory.Facts         `json:"facts,omitempty"`
	Session     *SessionInfo             `json:"session,omitempty"`
	Claim       *inventory.Claim         `json:"claim,omitempty"`
	Reservation *inventory.Reservation   `json:"reservation,omitempty"`
	Instance    *inventory.Instance      `json:"instance,omitempty"`
	Certificate *CertificateInfo         `json:"certificate,omitempty"`
	Test        *inventory.TestRun       `json:"test,omitempty"`
	Health      []inventory.HealthReport `json:"health,omitempty"`
	Wishes      []inventory.Wish         `json:"wishes,omitempty" doc:"Not answered yet."`
	Live        *Live                    `json:"live,omitempty"`
	Broken      string                   `json:"broken,omitempty" doc:"A record that cannot be read: the node is read-only."`
}

// A SessionInfo is a boot session without what redeems it.
type SessionInfo struct {
	ID         string    `json:"id"`
	Generation int64     `json:"generation"`
	Purpose    string    `json:"purpose"`
	Phase      string    `json:"phase"`
	Boots      int       `json:"boots"`
	Created    time.Time `json:"created"`
	Expires    time.Time `json:"expires"`
	BootID     string    `json:"boot_id,omitempty"`
	Redeemed   time.Time `json:"redeemed,omitzero"`
	Reason     string    `json:"reason,omitempty"`
}

// A NodeRef names the node that a call is about. (Exported, like ClaimRef: huma reads embedded structs only then.)
type NodeRef struct {
	Node string `path:"node" maxLength:"100" doc:"Name, id, serial, MAC or UUID."`
}

func (s *Server) showNode(ctx context.Context, in *NodeRef) (NodeDetail, error) {
	v, err := s.node(ctx, in.Node)
	if err != nil {
		return NodeDetail{}, err
	}
	who := caller(ctx)
	d := NodeDetail{Public: v.Public.V}
	if !v.Public.Exists() {
		d.Public = v.Offer(s.Now())
	}
	if who.Role == RoleRental {
		d.Public = redact(d.Public, who)
		if v.Claim.Exists() && v.Claim.V.Tenant == who.Tenant {
			d.Claim, d.Reservation, d.Instance = value(v.Claim), value(v.Reservation), value(v.Instance)
		}
		return d, nil
	}
	d.Spec, d.State, d.Facts, d.Test = value(v.Spec), value(v.State), value(v.Facts), value(v.Test)
	d.Claim, d.Reservation, d.Instance = value(v.Claim), value(v.Reservation), value(v.Instance)
	if x := v.Session.V; v.Session.Exists() {
		d.Session = &SessionInfo{ID: x.ID, Generation: x.Generation, Purpose: x.Purpose, Phase: x.Phase, Boots: x.Boots,
			Created: x.Created, Expires: x.Expires, BootID: x.BootID, Redeemed: x.Redeemed, Reason: x.Reason}
	}
	if v.Certificate.Exists() {
		info := s.certificateInfo(v.Certificate.V)
		d.Certificate = &info
	}
	for _, h := range v.Health {
		d.Health = append(d.Health, h.V)
	}
	for _, w := range v.Wishes {
		d.Wishes = append(d.Wishes, w.V)
	}
	d.Live = s.live(v.ID)
	if v.Broken != nil {
		d.Broken = v.Broken.Error()
	}
	return d, nil
}

func value[T any](d inventory.Doc[T]) *T {
	if !d.Exists() {
		return nil
	}
	return &d.V
}

// A HistoryList is one page of a node's history, oldest first.
type HistoryList struct {
	Entries []inventory.History `json:"entries"`
	Next    int64               `json:"next,omitempty" doc:"Ask with after=this for the next page."`
}

type historyInput struct {
	NodeRef
	Limit int   `query:"limit" minimum:"1" maximum:"1000" default:"200"`
	After int64 `query:"after" minimum:"0" doc:"Only entries with a greater number."`
}

func (s *Server) history(ctx context.Context, in *historyInput) (HistoryList, error) {
	out := HistoryList{Entries: []inventory.History{}}
	v, err := s.node(ctx, in.Node)
	if err != nil {
		return out, err
	}
	snap, err := s.Store.List(ctx, inventory.PrefixHistory+v.ID+"/", inventory.ListOptions{Limit: in.Limit, After: inventory.KeyHistory(v.ID, in.After)})
	if err != nil {
		return out, err
	}
	for _, kv := range snap.KVs {
		h, err := inventory.Decode[inventory.History](kv)
		if err != nil && !errors.Is(err, inventory.ErrNewer) {
			return out, err
		}
		out.Entries = append(out.Entries, h.V)
	}
	if snap.More {
		out.Next = out.Entries[len(out.Entries)-1].Seq
	}
	return out, nil
}
