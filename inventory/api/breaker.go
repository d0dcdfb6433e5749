package api

import (
	"context"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// A BreakerStatus is the site's breaker, how near it is to opening, and how much goes on at once.
type BreakerStatus struct {
	Breaker   inventory.Breaker `json:"breaker"`
	Unhealthy int               `json:"unhealthy" doc:"Nodes that became so a short while ago, after the last closing."`
	Allowed   int               `json:"allowed" doc:"More than so many open it."`
	Nodes     int               `json:"nodes" doc:"In the fleet."`
	Limits    inventory.Limits  `json:"limits"`
	AtOnce    []AtOnce          `json:"at_once"`
}

// AtOnce is how many nodes are in a budgeted activity.
type AtOnce struct {
	Activity string `json:"activity"`
	Nodes    int    `json:"nodes"`
	Limit    int    `json:"limit"`
}

// Breaker is the breaker as it is now.
func (s *Server) Breaker() inventory.Breaker {
	return inventory.BreakerIn(s.Copy.One(inventory.KeyBreaker))
}

func (s *Server) showBreaker(ctx context.Context, _ *struct{}) (BreakerStatus, error) {
	out := BreakerStatus{AtOnce: []AtOnce{}}
	if _, err := s.read(ctx); err != nil {
		return out, err
	}
	now, use := s.Now(), inventory.NewUsage()
	ids := s.Copy.Nodes()
	s.Copy.Frozen(func(r inventory.Reader) {
		out.Breaker, out.Limits = inventory.BreakerIn(r.One(inventory.KeyBreaker)), inventory.LimitsIn(r.One(inventory.KeyLimits))
		for _, id := range ids {
			st, err := inventory.Decode[inventory.NodeState](r.One(inventory.KeyState(id)))
			if err != nil {
				continue // shown as read-only elsewhere: nothing is done with it
			}
			use.SetState(id, st.V)
			if inventory.InFleet(st.V.State) {
				out.Nodes++
			}
			if out.Breaker.Counts(out.Limits.Breaker, st.V.Unwell, now) {
				out.Unhealthy++
			}
		}
	})
	out.Allowed = out.Limits.Breaker.Threshold(out.Nodes)
	for _, a := range inventory.ActivityList {
		out.AtOnce = append(out.AtOnce, AtOnce{a, use.Count(a), out.Limits.For(a).Site})
	}
	return out, nil
}

// mayStart refuses what would start something while the breaker is open; the provisioner refuses it as well.
func (s *Server) mayStart() error {
	if b := s.Breaker(); b.Open {
		return ledger.Refuse("find the cause, then: hostler breaker close --reason TEXT", "%s", b.Words())
	}
	return nil
}

type closeBreakerInput struct {
	Body struct {
		Reason string `json:"reason" maxLength:"500" doc:"What was found; the next person will ask."`
	}
}

func (s *Server) closeBreaker(ctx context.Context, in *closeBreakerInput) (inventory.Breaker, error) {
	return s.Ledger.CloseBreaker(ctx, caller(ctx).Actor(), in.Body.Reason)
}
