package metadata

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/provisioner"
)

// Service answers the tenant's systems on the boot port.
type Service struct {
	// At finds the instance whose address a request comes from.
	At func(ip string) (v inventory.NodeView, ok bool)
	// Secret is the path component of an instance's phone-home.
	Secret func(instance string) string
	// Home hears of a phone-home.
	Home func(node string, p provisioner.PhoneHome)
	// Patience is how long a phone-home waits for its record; 0: 5 s.
	Patience time.Duration
	Log      *slog.Logger
}

// maxForm is what a phone-home may weigh: a few host keys.
const maxForm = 32 << 10

// Handler serves GET /metadata and POST /phone-home/{instance}/{secret}.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metadata", s.metadata)
	mux.HandleFunc("POST /phone-home/{instance}/{secret}", s.phoneHome)
	return mux
}

// metadata tells a tenant's system who it is. No secret is among it.
func (s *Service) metadata(w http.ResponseWriter, r *http.Request) {
	v, ok := s.from(r)
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // a reader that is gone asks again
		"instance_id": v.Instance.V.ID, "hostname": v.Instance.V.Hostname, "node": v.Name(), "sku": v.Spec.V.SKU, "rack": v.Spec.V.Rack,
		"tenant": v.Claim.V.Tenant, "reservation": v.Claim.V.Reservation, "image": v.Instance.V.Image,
	})
}

func (s *Service) phoneHome(w http.ResponseWriter, r *http.Request) {
	v, ok := s.from(r)
	id := r.PathValue("instance")
	if !ok || v.Instance.V.ID != id || subtle.ConstantTimeCompare([]byte(r.PathValue("secret")), []byte(s.Secret(id))) != 1 {
		http.NotFound(w, r)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "not a form", http.StatusBadRequest)
		return
	}
	p := provisioner.PhoneHome{Instance: id, Address: v.Instance.V.Address}
	for field, values := range r.PostForm {
		if strings.HasPrefix(field, "pub_key_") && len(values) > 0 && len(values[0]) < 2048 {
			p.HostKeys = append(p.HostKeys, strings.TrimSpace(values[0]))
		}
	}
	slices.Sort(p.HostKeys) // a form has no order
	s.Home(v.ID, p)
	// A system that was thanked does not call again: only what is in the record survives us.
	if !s.recorded(r, id) {
		http.Error(w, "not written down yet: call again", http.StatusServiceUnavailable)
		return
	}
	s.Log.Info("tenant system phoned home", "node", v.ID, "instance", id)
	w.WriteHeader(http.StatusNoContent)
}

// recorded waits until the record says that the caller's instance is ready.
func (s *Service) recorded(r *http.Request, instance string) bool {
	ctx, stop := context.WithTimeout(r.Context(), cmp.Or(s.Patience, 5*time.Second))
	defer stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		if v, ok := s.from(r); ok && v.Instance.V.ID == instance && v.Instance.V.Ready {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-look.C:
		}
	}
}

// from is the node in use at the address that a request comes from.
func (s *Service) from(r *http.Request) (inventory.NodeView, bool) {
	ip, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return inventory.NodeView{}, false
	}
	v, ok := s.At(ip)
	return v, ok && v.State.V.State == inventory.InUse && v.Instance.Exists()
}
