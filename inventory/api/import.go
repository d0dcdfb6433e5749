package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// What importing does with a row.
const (
	RowAdd      = "add"
	RowChange   = "change"
	RowSame     = "same"
	RowConflict = "conflict"
)

// A ManifestRequest is a list of nodes as CSV; the first line names the columns.
type ManifestRequest struct {
	CSV    string `json:"csv" maxLength:"8000000"`
	DryRun bool   `json:"dry_run,omitempty" doc:"Only say what would be done."`
}

// A ManifestResult says for each row what was done, or would be.
type ManifestResult struct {
	DryRun bool          `json:"dry_run"`
	Rows   []ManifestRow `json:"rows"`
	Count  Counts        `json:"count"`
}

// Counts of rows by what is done with them.
type Counts struct {
	Add      int `json:"add"`
	Change   int `json:"change"`
	Same     int `json:"same"`
	Conflict int `json:"conflict"`
}

// A ManifestRow is one row compared with the record.
type ManifestRow struct {
	Line    int      `json:"line"`
	Name    string   `json:"name"`
	Node    string   `json:"node,omitempty" doc:"The node that the row is about."`
	Do      string   `json:"do" enum:"add,change,same,conflict"`
	Changes []string `json:"changes,omitempty" doc:"column: old → new"`
	Reason  string   `json:"reason,omitempty" doc:"Of a conflict."`
	Fix     string   `json:"fix,omitempty"`
	Warning string   `json:"warning,omitempty"`
}

type manifestInput struct{ Body ManifestRequest }

// importManifest does nothing at all while the file has a fault; a row in conflict with the record is left out and told.
func (s *Server) importManifest(ctx context.Context, in *manifestInput) (ManifestResult, error) {
	out := ManifestResult{DryRun: in.Body.DryRun, Rows: []ManifestRow{}}
	r, err := s.read(ctx)
	if err != nil {
		return out, err
	}
	rows, faults := parseManifest(in.Body.CSV)
	for _, row := range rows {
		if sku := row.spec.SKU; sku != "" && !r.One(inventory.KeySKU(sku)).Exists() {
			faults = append(faults, "line "+strconv.Itoa(row.line)+": SKU "+quote(sku)+" is not declared; have "+strings.Join(skuNames(r), ", "))
		}
	}
	if len(faults) > 0 {
		p := problem(http.StatusUnprocessableEntity, "correct the file; nothing was imported", "the manifest has %d faults", len(faults))
		for _, f := range faults {
			p.Errors = append(p.Errors, &huma.ErrorDetail{Message: f})
		}
		return out, p
	}
	for _, row := range rows {
		done, err := s.importRow(ctx, row, in.Body.DryRun)
		if err != nil {
			return out, err
		}
		out.Rows = append(out.Rows, done)
		switch done.Do {
		case RowAdd:
			out.Count.Add++
		case RowChange:
			out.Count.Change++
		case RowSame:
			out.Count.Same++
		default:
			out.Count.Conflict++
		}
	}
	return out, nil
}

// importRow compares one row with the record as it is now, and writes the difference.
func (s *Server) importRow(ctx context.Context, row manifestRow, dry bool) (ManifestRow, error) {
	for try := 0; ; try++ {
		out := ManifestRow{Line: row.line, Name: row.spec.Name}
		err := s.rowOnce(ctx, row, dry, &out)
		var no *ledger.Refusal
		switch {
		case errors.As(err, &no):
			out.Do, out.Reason, out.Fix = RowConflict, no.Why, no.Fix
			return out, nil
		case errors.Is(err, ledger.ErrConflict) && try < 8:
			continue
		}
		return out, err
	}
}

func (s *Server) rowOnce(ctx context.Context, row manifestRow, dry bool, out *ManifestRow) error {
	r := &inventory.Read{Ctx: ctx, Store: s.Store} // rows before this one must be seen
	id, err := owner(r, row.spec)
	if r.Err != nil {
		return r.Err
	}
	if err != nil {
		return err
	}
	if err := s.addressFree(id, row.spec); err != nil {
		return err
	}
	if c := row.spec.BMC.Credential; c != "" && !r.One(inventory.KeyCredential(c)).Exists() {
		out.Warning = "no credential " + quote(c) + " yet: hostler bmc credential set " + c
	}
	if id == "" {
		out.Do = RowAdd
		spec := row.spec
		spec.Source = "manifest"
		spec.BMC.Protocol = protocol(spec.BMC)
		if dry {
			return r.Err
		}
		out.Node, err = s.Ledger.Add(ctx, spec, caller(ctx).Actor(), "imported from a manifest")
		return cmp.Or(r.Err, err)
	}
	v := inventory.View(r, id)
	if r.Err != nil {
		return r.Err
	}
	spec, changes := merge(v.Spec.V, row.spec)
	out.Node, out.Changes, out.Do = id, changes, RowSame
	if len(changes) == 0 {
		return nil
	}
	out.Do = RowChange
	if err := mayChange(v, changes); err != nil || dry {
		return err
	}
	return s.Ledger.Edit(ctx, v, spec)
}

// owner finds the node that a row is about: by serial and MACs; the name must not be another's.
func owner(r inventory.Reader, s inventory.Spec) (string, error) {
	id, by := "", ""
	for _, u := range identitiesOf(s) {
		h := ledger.Holder(r, u[0], u[1])
		switch {
		case h == "" || h == id:
		case id != "":
			return id, ledger.Refuse("hostler node show "+id, "%s is node %s, but %s %s is node %s", by, id, u[0], u[1], h)
		default:
			id, by = h, u[0]+" "+u[1]
		}
	}
	if h := ledger.Holder(r, "name", s.Name); h != "" && h != id {
		return id, ledger.Refuse("hostler node show "+s.Name, "the name %s belongs to node %s, which has another serial and MAC", s.Name, h)
	}
	return id, nil
}

func identitiesOf(s inventory.Spec) [][2]string {
	var out [][2]string
	if s.Serial != "" && !ledger.Worthless("serial", s.Serial) {
		out = append(out, [2]string{"serial", s.Serial})
	}
	for _, m := range s.MACs {
		out = append(out, [2]string{"mac", m})
	}
	return out
}

// merge lays a row over a spec: an empty cell leaves what is there, MACs are added.
func merge(old, row inventory.Spec) (inventory.Spec, []string) {
	var changes []string
	next := old
	set := func(column string, to *string, v string) {
		if v != "" && v != *to {
			changes = append(changes, column+": "+cmp.Or(*to, "–")+" → "+v)
			*to = v
		}
	}
	set("name", &next.Name, row.Name)
	set("serial", &next.Serial, row.Serial)
	set("sku", &next.SKU, row.SKU)
	set("rack", &next.Rack, row.Rack)
	set("slot", &next.Slot, row.Slot)
	next.MACs = slices.Clone(old.MACs)
	for _, m := range row.MACs {
		if !next.HasMAC(m) {
			changes = append(changes, "mac: + "+m)
			next.MACs = append(next.MACs, m)
		}
	}
	set("ip", &next.IP, row.IP)
	set("bmc_addr", &next.BMC.Addr, row.BMC.Addr)
	set("bmc_protocol", &next.BMC.Protocol, protocol(row.BMC))
	set("credential", &next.BMC.Credential, row.BMC.Credential)
	set("approve", &next.Approve, row.Approve)
	return next, changes
}

func protocol(b inventory.BMCSpec) string {
	if b.Addr == "" {
		return b.Protocol
	}
	return cmp.Or(b.Protocol, "ipmi")
}

// mayChange keeps a manifest from pulling the ground from under a node at work: what its present work, its offer or its
// tenant rests on changes only where the node rests and is nobody's.
func mayChange(v inventory.NodeView, changes []string) error {
	switch v.State.V.State {
	case inventory.Discovered, inventory.Quarantined, inventory.Repair, inventory.Maintenance, inventory.Retired:
		if !v.Claim.Exists() {
			return nil
		}
	}
	for _, c := range changes {
		column, _, _ := strings.Cut(c, ":")
		if !slices.Contains([]string{"name", "rack", "slot", "approve"}, column) {
			return ledger.Refuse("quarantine or drain it first", "%s is %s: %s cannot change now", v.Name(), v.State.V.State, column)
		}
	}
	return nil
}
