package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
)

func (s *Server) audit(context.Context, *struct{}) (audit.Verdict, error) {
	if s.Audit == nil {
		return audit.Verdict{}, problem(http.StatusServiceUnavailable, "ask the hostlerd of the site", "this server does not audit")
	}
	return s.Audited(), nil
}

// Audited is what the auditor found, with the nodes that an alert of an audit keeps from being rented: such an alert
// outlives the daemon that raised it.
func (s *Server) Audited() audit.Verdict {
	if s.Audit == nil {
		return audit.Verdict{OK: true}
	}
	v := s.Audit()
	nodes := s.Copy.Nodes()
	s.Copy.Frozen(func(r inventory.Reader) {
		for _, id := range nodes {
			h, err := inventory.Decode[inventory.HealthReport](r.One(inventory.KeyHealth(id, audit.Source)))
			if err == nil && len(h.V.Alerts) > 0 {
				spec, _ := inventory.Decode[inventory.Spec](r.One(inventory.KeySpec(id))) // unreadable: it goes by its id
				v.Standing = append(v.Standing, Handle(id, spec.V.Name))
			}
		}
	})
	v.OK = v.OK && len(v.Standing) == 0
	return v
}

// auditHistory streams what the store still keeps. A stream that cannot be finished is cut off, so that nobody takes half
// a history for a whole one.
func (s *Server) auditHistory(ctx context.Context, _ *struct{}) (func(huma.Context), error) {
	until, err := s.revision(ctx)
	if err != nil {
		return nil, err
	}
	return func(c huma.Context) {
		_, w := humago.Unwrap(c)
		if err := audit.Save(ctx, s.Store, w, until); err != nil {
			if ctx.Err() == nil {
				s.Log.Warn("a history could not be saved", "for", caller(ctx).Actor(), "err", err)
			}
			panic(http.ErrAbortHandler)
		}
	}, nil
}

// An AuditClearing says why a node's breach is no reason any more not to rent it.
type AuditClearing struct {
	Reason string `json:"reason" maxLength:"500"`
}

// AuditCleared answers it.
type AuditCleared struct {
	Node string `json:"node"`
	Name string `json:"name"`
	Note string `json:"note"`
}

type clearAuditInput struct {
	NodeRef
	Body AuditClearing
}

func (s *Server) clearAudit(ctx context.Context, in *clearAuditInput) (AuditCleared, error) {
	var out AuditCleared
	if strings.TrimSpace(in.Body.Reason) == "" {
		return out, problem(http.StatusUnprocessableEntity, "--reason TEXT", "it needs a reason: the next person will ask")
	}
	v, err := s.node(ctx, in.Node)
	if err != nil {
		return out, err
	}
	out = AuditCleared{Node: v.ID, Name: v.Name(), Note: "cleared by " + caller(ctx).Actor() + ": " + in.Body.Reason}
	if err := s.Ledger.Clear(ctx, v.ID, audit.Source, out.Note); err != nil {
		return out, err
	}
	s.Log.Info("an audit's alert was cleared", "node", v.ID, "name", v.Name(), "by", caller(ctx).Actor(), "reason", in.Body.Reason)
	return out, nil
}
