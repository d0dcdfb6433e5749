package web

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
)

// sessions are who has logged in, by the hash of what their cookie holds. They live in memory alone: a daemon that
// starts again asks everybody to log in again, and logging out really ends a session.
type sessions struct {
	mu sync.Mutex
	of map[[sha256.Size]byte]session
}

type session struct {
	who   api.Identity
	until time.Time
}

const cookieName = "hostler_session"

// defaultSession is a working day.
const defaultSession = 12 * time.Hour

// staff are the roles that the pages are for: what they show of nodes is not for tenants, who are each other's
// competitors.
var staff = []string{api.RoleReadonly, api.RoleTechnician, api.RoleAdmin}

func (s *sessions) add(who api.Identity, now time.Time, lasts time.Duration) string {
	secret := rand.Text() // 130 bits
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[[sha256.Size]byte]session{}
	}
	maps.DeleteFunc(s.of, func(_ [sha256.Size]byte, old session) bool { return now.After(old.until) })
	s.of[sha256.Sum256([]byte(secret))] = session{who, now.Add(lasts)}
	return secret
}

func (s *sessions) who(r *http.Request, now time.Time) (api.Identity, bool) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return api.Identity{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.of[sha256.Sum256([]byte(c.Value))]
	return found.who, ok && now.Before(found.until)
}

func (s *sessions) end(r *http.Request) {
	if c, err := r.Cookie(cookieName); err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.of, sha256.Sum256([]byte(c.Value)))
	}
}

// A door is the page for those who are not in.
type door struct {
	Site, Version string
	Token         string // of the link that was opened: the page sends it on
	Fault         string
}

func (h *handler) door(w http.ResponseWriter, status int, d door) {
	d.Version = h.version
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := h.t.ExecuteTemplate(w, "door", d); err != nil {
		h.API.Log.Debug("a browser went away before its page", "err", err)
	}
}

// loginPage shows what a login link opens. It does not trade the token itself: mail and chat programs open links to
// show what is behind them, and would use it up. And a cookie set on the way from such a program would not be sent to
// the next page (SameSite=Strict), whereas our own form is the same site.
func (h *handler) loginPage(w http.ResponseWriter, r *http.Request) {
	h.door(w, http.StatusOK, door{Site: h.Site, Token: r.URL.Query().Get("token")})
}

// login trades a one-time token for a cookie.
func (h *handler) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	who, err := h.API.RedeemLogin(r.Context(), r.PostFormValue("token"))
	switch {
	case errors.Is(err, inventory.ErrUnavailable):
		h.door(w, http.StatusServiceUnavailable, door{Site: h.Site, Fault: "The store does not answer, so nobody can log in now. Look at etcd, then open the link again."})
		return
	case err != nil:
		h.door(w, http.StatusUnauthorized, door{Site: h.Site, Fault: "This link was used already, or is older than 10 minutes."})
		return
	case !slices.Contains(staff, who.Role):
		h.door(w, http.StatusForbidden, door{Site: h.Site, Fault: "A " + who.Role + " token may not look at the dashboard. Use hostler claim ls, or the API."})
		return
	}
	lasts := h.SessionFor
	if lasts <= 0 {
		lasts = defaultSession
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: h.sessions.add(who, h.API.Now(), lasts), Path: "/", MaxAge: int(lasts.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil})
	h.API.Log.Info("logged in to the dashboard", "actor", who.Actor(), "role", who.Role)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (h *handler) logout(w http.ResponseWriter, r *http.Request) {
	h.sessions.end(r)
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil})
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
