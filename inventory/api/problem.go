package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// A Problem is every answer that is not a success: RFC 9457, and what a person can do about it.
type Problem struct {
	huma.ErrorModel
	Fix string `json:"fix,omitempty" doc:"What to try next."`
}

func problem(status int, fix, format string, a ...any) *Problem {
	p := &Problem{Fix: fix}
	p.Status, p.Title, p.Detail = status, http.StatusText(status), fmt.Sprintf(format, a...)
	return p
}

// problem turns what a handler returned into an answer. Only what is nobody's fault but ours is logged.
func (s *Server) problem(who Identity, err error) *Problem {
	var p *Problem
	var refused *ledger.Refusal
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &refused):
		return problem(http.StatusConflict, refused.Fix, "%s", refused.Why)
	case errors.Is(err, inventory.ErrUnavailable):
		return problem(http.StatusServiceUnavailable, "wait, or look at etcd: nothing is started while it is away", "%v", err)
	case errors.Is(err, inventory.ErrNoSpace):
		return problem(http.StatusServiceUnavailable, "hostlerd store recover --config site.yaml gives it its space back; nothing is lost meanwhile", "%v", err)
	case errors.Is(err, inventory.ErrBehind):
		return problem(http.StatusServiceUnavailable, "hostlerd restore FILE, from a backup; or hostlerd store acknowledge", "%v", err)
	case errors.Is(err, ledger.ErrConflict):
		return problem(http.StatusConflict, "try again", "%v", err)
	}
	s.Log.Error("API request ended in a fault", "actor", who.Name, "err", err)
	if who.Role == RoleRental || who.Role == "" {
		return problem(http.StatusInternalServerError, "tell the operator of the site", "a fault of the server; its log has the reason")
	}
	return problem(http.StatusInternalServerError, "see hostlerd's log", "%v", err)
}

func (s *Server) write(w http.ResponseWriter, p *Problem) {
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		s.Log.Debug("a client went away before its answer", "err", err)
	}
}

// WriteProblem answers for a server that cannot be asked yet.
func WriteProblem(w http.ResponseWriter, status int, fix, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problem(status, fix, "%s", detail)) // the client went away: nobody to tell
}

// ours gives huma's own faults (bodies that do not fit their schema) our form, without the values: a body may hold a
// password or user data, and answers end in logs.
func ours(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := &Problem{ErrorModel: *m, Fix: "see docs/openapi.json for what this call takes"}
	p.Errors = nil
	for _, e := range m.Errors {
		if e != nil {
			p.Errors = append(p.Errors, &huma.ErrorDetail{Message: e.Message, Location: e.Location})
		}
	}
	return p, nil
}
