package web

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"html/template"
	"net/http"
	"strings"

	"github.com/hostler-project/hostler/inventory/api"
)

// A builder starts a page for a request and gives the function that makes it, now and whenever something may have
// changed; what it wants to remember between is its own.
type builder func(r *http.Request) func(context.Context) (view, error)

// A view is one page as it is now.
type view struct {
	Title string
	Nav   string   // which entry of the menu it belongs to
	Body  string   // the template that places the parts
	CLI   []string // the same in a terminal
	Parts []part
}

// A part is a piece of a page that changes by itself. It is made by a template from Data, or it is a list of parts.
type part struct {
	ID       string
	Template string
	Data     any
	List     []part
}

// A piece is a part as made: what is inside its element, and a hash that tells whether it changed.
type piece struct {
	ID   string        `json:"id"`
	Hash string        `json:"hash"`
	HTML template.HTML `json:"html"`
	tag  string
}

// An order is which pieces a list holds, in order. It is apart from them, so that one changed row costs one row.
type order struct {
	ID  string   `json:"id"`
	Has []string `json:"has"`
}

// made is a whole page, in pieces.
type made struct {
	pieces []piece
	orders []order
	byID   map[string]template.HTML // of the parts that are not rows, with their elements: for the page's body
}

// make executes the templates of all parts.
func (h *handler) make(v view) (made, error) {
	m := made{byID: map[string]template.HTML{}}
	for _, p := range v.Parts {
		if p.Template != "" {
			one, err := h.piece(p, "section")
			if err != nil {
				return m, err
			}
			m.pieces = append(m.pieces, one)
			m.byID[p.ID] = one.element()
			continue
		}
		o := order{ID: p.ID, Has: []string{}}
		var rows template.HTML
		for _, row := range p.List {
			one, err := h.piece(row, "li")
			if err != nil {
				return m, err
			}
			m.pieces = append(m.pieces, one)
			o.Has = append(o.Has, row.ID)
			rows += one.element()
		}
		m.orders = append(m.orders, o)
		m.byID[p.ID] = template.HTML(fmt.Sprintf(`<ul id="%s" class="list">%s</ul>`, template.HTMLEscapeString(p.ID), rows)) // rows are escaped
	}
	return m, nil
}

func (h *handler) piece(p part, tag string) (piece, error) {
	var b bytes.Buffer
	if err := h.t.ExecuteTemplate(&b, p.Template, p.Data); err != nil {
		return piece{}, fmt.Errorf("web: make %s: %w", p.ID, err)
	}
	sum := fnv.New64a()
	sum.Write(b.Bytes())
	return piece{ID: p.ID, Hash: fmt.Sprintf("%x", sum.Sum64()), HTML: template.HTML(b.String()), tag: tag}, nil // made by a template: escaped
}

func (p piece) element() template.HTML {
	return template.HTML(fmt.Sprintf(`<%s id="%s" data-hash="%s">%s</%s>`, p.tag, template.HTMLEscapeString(p.ID), p.Hash, p.HTML, p.tag))
}

// page serves a page whole.
func (h *handler) page(build builder) func(http.ResponseWriter, *http.Request, api.Identity) {
	return func(w http.ResponseWriter, r *http.Request, who api.Identity) {
		v, err := build(r)(r.Context())
		if err != nil {
			h.fail(w, r, who, err)
			return
		}
		h.send(w, http.StatusOK, who, "/live"+r.URL.RequestURI(), h.noticed(r.Context(), v))
	}
}

// noticed adds what a person must know before believing the page.
func (h *handler) noticed(ctx context.Context, v view) view {
	text := ""
	if err := h.pulse.check(ctx, h.API.Store, h.every()); err != nil {
		text = "The store does not answer. This is the record as it was when it last did; nothing new is started meanwhile."
	}
	if b := h.API.Breaker(); b.Open {
		text += " No power or destructive act starts: " + b.Words() + ". Only a person closes it: hostler breaker."
	}
	v.Parts = append(v.Parts, part{ID: "notice", Template: "notice", Data: strings.TrimSpace(text)})
	return v
}

// frame is what the layout shows around a page.
type frame struct {
	view
	Site, Version, Live string
	Who                 api.Identity
	Main, Notice        template.HTML
}

func (h *handler) send(w http.ResponseWriter, status int, who api.Identity, live string, v view) {
	m, err := h.make(v)
	var main, all bytes.Buffer
	if err == nil {
		err = h.t.ExecuteTemplate(&main, v.Body, m.byID)
	}
	if err == nil {
		err = h.t.ExecuteTemplate(&all, "layout", frame{v, h.Site, h.version, live, who, template.HTML(main.String()), m.byID["notice"]}) // made by templates: escaped
	}
	if err != nil {
		h.API.Log.Error("a page could not be made", "page", v.Title, "err", err)
		http.Error(w, "this page could not be made; hostlerd's log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if _, err := w.Write(all.Bytes()); err != nil {
		h.API.Log.Debug("a browser went away before its page", "err", err)
	}
}
