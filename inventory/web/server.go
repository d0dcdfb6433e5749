package web

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"html/template"
	"net/http"
	"path"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
)

// A Server shows what API knows. Fields other than API may stay zero.
type Server struct {
	API        *api.Server   // its copy must be running; identities, live view and answers to why come from it
	Site       string        // shown beside the product's name
	SessionFor time.Duration // how long a login is good for; 0 means 12 h. Sessions end with the daemon, too
	Every      time.Duration // how often an open page looks for progress, which is in no record; 0 means 2 s

	sessions sessions
	pulse    pulse
	roll     roll
}

//go:embed pages
var pages embed.FS

//go:embed assets
var assets embed.FS

// templates are parsed once, by Handler; a fault in one is a fault of the build and found by any test.
func (s *Server) templates() *template.Template {
	return template.Must(template.New("").Funcs(words).ParseFS(pages, "pages/*.html"))
}

// Handler serves the pages at / and everything below. The daemon mounts the API beside it.
func (s *Server) Handler() http.Handler {
	h := &handler{Server: s, t: s.templates(), version: assetVersion()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /assets/{file}", h.asset)
	mux.HandleFunc("GET /login", h.loginPage)
	mux.HandleFunc("POST /login", h.login)
	mux.HandleFunc("POST /logout", h.logout)
	for _, p := range []struct {
		path string
		make builder
	}{
		{"/{$}", s.fleet},
		{"/nodes/{node}", s.node},
		{"/lifecycle", s.lifecycle},
	} {
		mux.HandleFunc("GET "+p.path, h.known(h.page(p.make)))
		mux.HandleFunc("GET /live"+p.path, h.known(h.live(p.make)))
	}
	mux.HandleFunc("GET /nodes/{node}/certificates/{wipe}", h.known(h.certificate))
	mux.HandleFunc("/", h.known(func(w http.ResponseWriter, r *http.Request, who api.Identity) {
		h.fail(w, r, who, notFound("There is no page at "+r.URL.Path+"."))
	}))
	return http.NewCrossOriginProtection().Handler(headers(mux))
}

type handler struct {
	*Server
	t       *template.Template
	version string // of the assets: an open page of another version loads itself anew
}

// policy allows our own files and nothing else: no inline script, no inline style, no frame around us.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer") // a login link must not travel on
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// known lets only people in who have logged in.
func (h *handler) known(next func(http.ResponseWriter, *http.Request, api.Identity)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, ok := h.sessions.who(r, h.API.Now())
		if !ok {
			h.door(w, http.StatusUnauthorized, door{Site: h.Site})
			return
		}
		next(w, r, who)
	}
}

func assetVersion() string {
	sum := sha256.New()
	files, err := assets.ReadDir("assets")
	if err != nil {
		panic(err) // built without its assets
	}
	for _, f := range files {
		b, err := assets.ReadFile("assets/" + f.Name())
		if err != nil {
			panic(err)
		}
		sum.Write(b)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}

func (h *handler) asset(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.PathValue("file"))
	if r.URL.Query().Get("v") == h.version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeFileFS(w, r, assets, "assets/"+name)
}

// A fault is what a page could not be made for, in words for the person who asked.
type fault struct {
	status     int
	what, next string
}

func (f fault) Error() string { return f.what }

func notFound(what string) error {
	return fault{http.StatusNotFound, what, "hostler node ls"}
}

// fail answers with a page that says what went wrong.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, who api.Identity, err error) {
	var f fault
	switch {
	case errors.As(err, &f):
	case errors.Is(err, inventory.ErrUnavailable):
		f = fault{http.StatusServiceUnavailable, "The store does not answer, so this page cannot be made: " + err.Error(), "hostler version"}
	case r.Context().Err() != nil:
		return // nobody is there any more
	default:
		h.API.Log.Error("a page could not be made", "path", r.URL.Path, "err", err)
		f = fault{http.StatusInternalServerError, "This page could not be made; hostlerd's log says why.", "hostler version"}
	}
	v := view{Title: http.StatusText(f.status), Body: "fault", CLI: []string{f.next}, Parts: []part{{ID: "fault-text", Template: "fault-text", Data: f.what}}}
	h.send(w, f.status, who, "", v)
}

// every is how often what is in no record is looked for.
func (s *Server) every() time.Duration {
	if s.Every > 0 {
		return s.Every
	}
	return 2 * time.Second
}

// pulse says whether the store answers, asking it at most once in a while however many pages are open.
type pulse struct {
	mu  sync.Mutex
	at  time.Time
	err error
}

func (p *pulse) check(ctx context.Context, store inventory.Store, every time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.at) < every {
		return p.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // one page that closes decides for no other
	defer cancel()
	_, err := store.List(ctx, inventory.PrefixMeta, inventory.ListOptions{Limit: 1, KeysOnly: true})
	p.at, p.err = time.Now(), err
	return err
}
