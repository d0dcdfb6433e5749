package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A BMCLogin is what is sealed under the name of a credential, as JSON.
type BMCLogin struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// A CredentialInfo names a credential. What is in it is never given out.
type CredentialInfo struct {
	Ref     string    `json:"ref"`
	Changed time.Time `json:"changed"`
	Actor   string    `json:"actor"`
}

// A CredentialList are the names of all credentials.
type CredentialList struct {
	Credentials []CredentialInfo `json:"credentials"`
}

func (s *Server) listCredentials(ctx context.Context, _ *struct{}) (CredentialList, error) {
	out := CredentialList{Credentials: []CredentialInfo{}}
	r, err := s.read(ctx)
	if err != nil {
		return out, err
	}
	for _, kv := range r.Under(inventory.PrefixCredentials) {
		c, err := inventory.Decode[inventory.Credential](kv)
		if err != nil && !errors.Is(err, inventory.ErrNewer) {
			return out, err
		}
		out.Credentials = append(out.Credentials, CredentialInfo{inventory.Parts(kv.Key)[1], c.V.Changed, c.V.Actor})
	}
	return out, nil
}

type credentialInput struct {
	Ref  string `path:"ref" maxLength:"64"`
	Body BMCLogin
}

// putCredential seals. Its errors name no value: they end in terminals and logs.
func (s *Server) putCredential(ctx context.Context, in *credentialInput) (CredentialInfo, error) {
	info := CredentialInfo{Ref: in.Ref, Changed: s.Now(), Actor: caller(ctx).Actor()}
	switch l := in.Body; {
	case !idForm.MatchString(in.Ref):
		return info, problem(http.StatusUnprocessableEntity, "", "credential %s: %s", quote(in.Ref), idWords)
	case l.User == "" || l.Password == "":
		return info, problem(http.StatusUnprocessableEntity, "", "a credential needs a user and a password")
	case strings.ContainsAny(l.User+l.Password, "\x00\r\n"):
		return info, problem(http.StatusUnprocessableEntity, "", "user and password are one line each")
	}
	plain, err := json.Marshal(in.Body)
	if err != nil {
		return info, errors.New("api: credential: it cannot be encoded")
	}
	sealed, err := s.Sealer.Seal(plain)
	if err != nil {
		return info, err
	}
	err = inventory.Update(ctx, s.Store, inventory.KeyCredential(in.Ref), func(kv inventory.KV) ([]inventory.Cond, []inventory.Op, error) {
		d, err := inventory.Decode[inventory.Credential](kv)
		if err != nil {
			return nil, nil, err
		}
		d.KV.Key = inventory.KeyCredential(in.Ref)
		op, err := d.Put(inventory.Credential{Schema: inventory.Schema, Age: sealed, Changed: info.Changed, Actor: info.Actor})
		return nil, []inventory.Op{op}, err
	})
	return info, err
}
