package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// SiteTenant is the tenant of claims that the site makes for itself: an admin's, who names no other.
const SiteTenant = "site"

// maxSeed bounds user data and keys together (design.md section 6).
const maxSeed = 48 << 10

// What is confirmed: image and seed.
type Confirmation struct {
	Image    string   `json:"image,omitempty" maxLength:"64" doc:"Name (the newest) or digest."`
	UserData string   `json:"user_data,omitempty" doc:"Cloud-init user data. With keys at most 48 KiB; kept sealed, deleted when the node comes back."`
	SSHKeys  []string `json:"ssh_keys,omitempty" doc:"Lines as in authorized_keys."`
	Hostname string   `json:"hostname,omitempty"`
}

// A ClaimRequest asks for one node. The same reservation id asked again gets the same answer.
type ClaimRequest struct {
	Reservation string             `json:"reservation" doc:"Made by you; makes it safe to ask again."`
	SKU         string             `json:"sku,omitempty"`
	Node        string             `json:"node,omitempty" doc:"This node and no other."`
	Project     string             `json:"project,omitempty" maxLength:"64"`
	Tenant      string             `json:"tenant,omitempty" doc:"Admins only: for whom. Empty means the site itself."`
	Hold        inventory.Duration `json:"hold,omitempty" doc:"How long to wait for confirm, such as 10m; at most 60m."`
	Confirmation
}

// A ClaimStatus is a reservation and what came of it.
type ClaimStatus struct {
	Reservation inventory.Reservation `json:"reservation"`
	NodeName    string                `json:"node_name,omitempty"`
	NodeState   inventory.State       `json:"node_state,omitempty" doc:"While the claim stands."`
	Instance    *inventory.Instance   `json:"instance,omitempty"`
	Live        *Live                 `json:"live,omitempty"`
}

type claimInput struct{ Body ClaimRequest }

func (s *Server) claim(ctx context.Context, in *claimInput) (ClaimStatus, error) {
	q, who := in.Body, caller(ctx)
	tenant, err := tenantOf(who, q.Tenant)
	if err != nil {
		return ClaimStatus{}, err
	}
	if !idForm.MatchString(q.Reservation) || q.SKU != "" && !idForm.MatchString(q.SKU) {
		return ClaimStatus{}, problem(http.StatusUnprocessableEntity, "", "reservation and SKU: %s", idWords)
	}
	if q.SKU == "" && q.Node == "" {
		return ClaimStatus{}, problem(http.StatusUnprocessableEntity, "--sku NAME or --node NODE", "say which SKU or which node")
	}
	r, err := s.read(ctx)
	if err != nil {
		return ClaimStatus{}, err
	}
	if q.Node != "" {
		id, ok := find(r, who, q.Node)
		if !ok {
			return ClaimStatus{}, noNode(q.Node)
		}
		q.Node = id
	}
	if q.Hold < 0 || q.Image == "" && (q.UserData != "" || len(q.SSHKeys) > 0 || q.Hostname != "") {
		return ClaimStatus{}, problem(http.StatusUnprocessableEntity, "--image NAME", "user data, keys and host name go with an image; a hold is a length of time")
	}
	var ready *ledger.ConfirmRequest
	if q.Image != "" { // everything that can be refused is refused before a node is taken
		if ready, err = s.confirmation(ctx, r, tenant, q.Reservation, q.Confirmation); err != nil {
			return ClaimStatus{}, err
		}
	}
	began := s.Now()
	res, err := s.Ledger.Claim(ctx, ledger.ClaimRequest{Tenant: tenant, Project: q.Project, Reservation: q.Reservation, SKU: q.SKU,
		Node: q.Node, Hold: time.Duration(q.Hold), Actor: who.Actor()})
	if err != nil {
		return ClaimStatus{}, err
	}
	if ready != nil {
		if _, err := s.Ledger.Confirm(ctx, *ready); err != nil {
			var no *ledger.Refusal
			if errors.As(err, &no) && res.Phase == inventory.Pending && !res.Created.Before(began) {
				// Taken by this very call and of no use: back at once, not when the reservation expires.
				if _, back := s.Ledger.Release(ctx, tenant, q.Reservation, who.Actor(), "not confirmed: "+no.Why); back != nil {
					return ClaimStatus{}, errors.Join(err, back)
				}
			}
			return ClaimStatus{}, err
		}
	}
	return s.status(ctx, tenant, q.Reservation)
}

// tenantOf says for whom a caller acts.
func tenantOf(who Identity, asked string) (string, error) {
	switch {
	case who.Role == RoleRental && (asked == "" || asked == who.Tenant):
		return who.Tenant, nil
	case who.Role == RoleRental:
		return "", problem(http.StatusForbidden, "leave tenant out", "a rental token acts for its own tenant only")
	}
	t := cmp.Or(asked, who.Tenant, SiteTenant)
	if !idForm.MatchString(t) {
		return "", problem(http.StatusUnprocessableEntity, "", "tenant: %s", idWords)
	}
	return t, nil
}

// confirmation checks image and seed, and seals the seed.
func (s *Server) confirmation(ctx context.Context, r inventory.Reader, tenant, reservation string, q Confirmation) (*ledger.ConfirmRequest, error) {
	m, err := s.image(r, q.Image)
	if err != nil {
		return nil, err
	}
	if n := len(q.UserData) + len(strings.Join(q.SSHKeys, "")); n > maxSeed {
		return nil, problem(http.StatusUnprocessableEntity, "fetch large things from the user data", "user data and keys are %d bytes; at most %d", n, maxSeed)
	}
	for i, k := range q.SSHKeys {
		if _, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(k)); err != nil || len(rest) > 0 {
			return nil, problem(http.StatusUnprocessableEntity, "give the public key, such as ~/.ssh/id_ed25519.pub", "SSH key %d is not one line as in authorized_keys", i+1)
		}
	}
	if q.Hostname != "" && (!hostForm.MatchString(q.Hostname) || len(q.Hostname) > 64) {
		return nil, problem(http.StatusUnprocessableEntity, "", "host name %s: letters, digits, '-', '.'; at most 64", quote(q.Hostname))
	}
	plain, err := json.Marshal(inventory.Seed{UserData: q.UserData, SSHKeys: q.SSHKeys, Hostname: q.Hostname})
	if err != nil {
		return nil, errors.New("api: seed: it cannot be encoded")
	}
	sealed, err := s.Sealer.Seal(plain)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(plain)
	return &ledger.ConfirmRequest{Tenant: tenant, Reservation: reservation, Image: m.Digest, ImageName: m.Name, Hostname: q.Hostname,
		SeedHash: hex.EncodeToString(sum[:]), Sealed: sealed, Actor: caller(ctx).Actor()}, nil
}

// A ClaimRef names the reservation that a call is about.
type ClaimRef struct {
	ID     string `path:"id" maxLength:"64" doc:"The reservation id."`
	Tenant string `query:"tenant" maxLength:"64" doc:"Whose, where two tenants use the same id. Not for rental."`
}

// which tells whose reservation is meant. Rental asks for its own; an id that is another's is as unknown as any.
func (s *Server) which(ctx context.Context, r inventory.Reader, ref ClaimRef) (tenant string, err error) {
	who := caller(ctx)
	if !idForm.MatchString(ref.ID) {
		return "", noClaim(ref.ID)
	}
	if who.Role == RoleRental || ref.Tenant != "" {
		if tenant, err = tenantOf(who, ref.Tenant); err != nil {
			return "", err
		}
		kv, err := s.Store.Get(ctx, inventory.KeyReservation(tenant, ref.ID))
		if err == nil && !kv.Exists() {
			err = noClaim(ref.ID)
		}
		return tenant, err
	}
	live := map[string]bool{}
	for _, kv := range r.Under(inventory.PrefixClaims) {
		if c, err := inventory.Decode[inventory.Claim](kv); err == nil && c.V.Reservation == ref.ID {
			live[c.V.Tenant] = true
		}
	}
	if len(live) == 0 {
		snap, err := s.Store.List(ctx, inventory.PrefixReservations, inventory.ListOptions{KeysOnly: true})
		if err != nil {
			return "", err
		}
		for _, kv := range snap.KVs {
			if p := inventory.Parts(kv.Key); len(p) == 3 && p[2] == ref.ID {
				live[p[1]] = true
			}
		}
	}
	if len(live) > 1 {
		return "", ledger.Refuse("name it TENANT/RESERVATION", "%d tenants have a reservation %s", len(live), ref.ID)
	}
	for t := range live {
		return t, nil
	}
	return "", noClaim(ref.ID)
}

func noClaim(id string) error {
	return problem(http.StatusNotFound, "hostler claim ls", "there is no reservation %s", quote(id))
}

type confirmInput struct {
	ClaimRef
	Body Confirmation
}

func (s *Server) confirmClaim(ctx context.Context, in *confirmInput) (ClaimStatus, error) {
	r, err := s.read(ctx)
	if err != nil {
		return ClaimStatus{}, err
	}
	tenant, err := s.which(ctx, r, in.ClaimRef)
	if err != nil {
		return ClaimStatus{}, err
	}
	q, err := s.confirmation(ctx, r, tenant, in.ID, in.Body)
	if err != nil {
		return ClaimStatus{}, err
	}
	if _, err := s.Ledger.Confirm(ctx, *q); err != nil {
		return ClaimStatus{}, err
	}
	return s.status(ctx, tenant, in.ID)
}

type renewInput struct {
	ClaimRef
	Body struct {
		Hold inventory.Duration `json:"hold" doc:"From now on, such as 10m."`
	}
}

func (s *Server) renewClaim(ctx context.Context, in *renewInput) (ClaimStatus, error) {
	r, err := s.read(ctx)
	if err != nil {
		return ClaimStatus{}, err
	}
	tenant, err := s.which(ctx, r, in.ClaimRef)
	if err != nil {
		return ClaimStatus{}, err
	}
	if _, err := s.Ledger.Renew(ctx, tenant, in.ID, time.Duration(in.Body.Hold)); err != nil {
		return ClaimStatus{}, err
	}
	return s.status(ctx, tenant, in.ID)
}

type releaseInput struct {
	ClaimRef
	Body struct {
		Reason string `json:"reason,omitempty" maxLength:"500"`
	}
}

func (s *Server) releaseClaim(ctx context.Context, in *releaseInput) (ClaimStatus, error) {
	r, err := s.read(ctx)
	if err != nil {
		return ClaimStatus{}, err
	}
	tenant, err := s.which(ctx, r, in.ClaimRef)
	if err != nil {
		return ClaimStatus{}, err
	}
	if _, err := s.Ledger.Release(ctx, tenant, in.ID, caller(ctx).Actor(), in.Body.Reason); err != nil {
		return ClaimStatus{}, err
	}
	return s.status(ctx, tenant, in.ID)
}

func (s *Server) showClaim(ctx context.Context, in *ClaimRef) (ClaimStatus, error) {
	r, err := s.read(ctx)
	if err != nil {
		return ClaimStatus{}, err
	}
	tenant, err := s.which(ctx, r, *in)
	if err != nil {
		return ClaimStatus{}, err
	}
	return s.status(ctx, tenant, in.ID)
}

// status reads a reservation and what came of it, from the store itself.
func (s *Server) status(ctx context.Context, tenant, id string) (ClaimStatus, error) {
	r := &inventory.Read{Ctx: ctx, Store: s.Store}
	res, err := inventory.Decode[inventory.Reservation](r.One(inventory.KeyReservation(tenant, id)))
	if err != nil || r.Err != nil {
		return ClaimStatus{}, cmp.Or(r.Err, err)
	}
	out, err := s.claimStatus(r, res.V)
	return out, cmp.Or(r.Err, err)
}

func (s *Server) claimStatus(r inventory.Reader, res inventory.Reservation) (ClaimStatus, error) {
	out := ClaimStatus{Reservation: res}
	in, err := inventory.Decode[inventory.Instance](r.One(inventory.KeyInstance(res.Instance)))
	if err != nil {
		return out, err
	}
	out.Instance = value(in)
	if out.Instance != nil {
		out.Instance.SeedHash = "" // a short seed could be guessed from it
	}
	p, err := inventory.Decode[inventory.Public](r.One(inventory.KeyPublic(res.Node)))
	if err != nil {
		return out, err
	}
	out.NodeName = p.V.Name
	if p.V.Tenant == res.Tenant && p.V.Reservation == res.ID {
		out.NodeState = p.V.State
		out.Live = s.live(res.Node)
	}
	return out, nil
}

// A ClaimList is one page of reservations, the live ones or all that are remembered.
type ClaimList struct {
	Claims []ClaimStatus `json:"claims"`
	Next   string        `json:"next,omitempty" doc:"Ask with after=this for the next page."`
}

type listClaimsInput struct {
	Tenant string `query:"tenant" maxLength:"64"`
	All    bool   `query:"all" doc:"Also those that are over."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	After  string `query:"after" maxLength:"140"`
}

func (s *Server) listClaims(ctx context.Context, in *listClaimsInput) (ClaimList, error) {
	out := ClaimList{Claims: []ClaimStatus{}}
	who := caller(ctx)
	prefix := inventory.PrefixReservations
	if who.Role == RoleRental || in.Tenant != "" {
		tenant, err := tenantOf(who, in.Tenant)
		if err != nil {
			return out, err
		}
		prefix = inventory.KeyReservation(tenant, "")
	}
	r, err := s.read(ctx)
	if err != nil {
		return out, err
	}
	after := ""
	if in.After != "" {
		after = inventory.PrefixReservations + in.After
	}
	for {
		snap, err := s.Store.List(ctx, prefix, inventory.ListOptions{After: after, Limit: in.Limit})
		if err != nil {
			return out, err
		}
		for _, kv := range snap.KVs {
			after = kv.Key
			res, err := inventory.Decode[inventory.Reservation](kv)
			if err != nil && !errors.Is(err, inventory.ErrNewer) {
				return out, err
			}
			if over := []string{inventory.Released, inventory.Expired}; !in.All && slices.Contains(over, res.V.Phase) {
				continue
			}
			c, err := s.claimStatus(r, res.V)
			if err != nil {
				return out, err
			}
			if out.Claims = append(out.Claims, c); len(out.Claims) == in.Limit {
				out.Next = strings.TrimPrefix(after, inventory.PrefixReservations)
				return out, nil
			}
		}
		if !snap.More {
			return out, nil
		}
	}
}
