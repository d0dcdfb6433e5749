package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// find resolves what a person calls a node: id, name, or one of its identities.
func (s *Server) find(word string) (string, error) {
	if strings.ContainsRune(word, '/') {
		return "", noNode(word)
	}
	if s.API.Copy.One(inventory.KeyState(word)).Exists() {
		return word, nil
	}
	for _, kind := range []string{"name", "serial", "mac", "uuid"} {
		if id := ledger.Holder(s.API.Copy, kind, word); id != "" {
			return id, nil
		}
	}
	return "", noNode(word)
}

func noNode(word string) error { return notFound(fmt.Sprintf("There is no node called %.100q.", word)) }

// A headline is the top of a node's page.
type headline struct {
	line
	Means   string
	Blocked []string
	Serial  string
	Heard   string
	Holds   []inventory.Hold
	Broken  string
	Taint   bool
}

// A moment is what a node does at this moment, and what comes then.
type moment struct {
	Waits, Reason string
	Bar           *bar
	Deadline      *bar // how much of the state's time is used
	AtDeadline    inventory.State
	Next          []api.Exit
	Do            []string
	Wishes        []inventory.Wish
	Alerts        []inventory.Alert
}

func (s *Server) node(r *http.Request) func(context.Context) (view, error) {
	word := r.PathValue("node")
	before, _ := strconv.ParseInt(r.URL.Query().Get("before"), 10, 64) // not a number: from the newest on
	past := &past{before: before}
	return func(ctx context.Context) (view, error) {
		id, err := s.find(word)
		if err != nil {
			return view{}, err
		}
		v := inventory.View(s.API.Copy, id)
		if err := past.read(ctx, s.API.Store, v); err != nil {
			return view{}, err
		}
		return s.nodeView(v, past), nil
	}
}

func (s *Server) nodeView(v inventory.NodeView, h *past) view {
	at := s.API.Now()
	why := s.API.Explain(v)
	called := api.Handle(v.ID, v.Name())
	return view{Title: v.Name(), Nav: "fleet", Body: "node",
		CLI: []string{"hostler why " + called, "hostler node show " + called, "hostler node history " + called, "hostler watch " + called},
		Parts: []part{
			{ID: "head", Template: "head", Data: s.headline(v, why, at)},
			{ID: "way", Template: "way", Data: way(v.State.V, h.circle, at)},
			{ID: "now", Template: "now", Data: momentOf(v, why)},
			{ID: "media", Template: "media", Data: s.media(v)},
			{ID: "certificate", Template: "certificate", Data: s.proof(v)},
			{ID: "test", Template: "test", Data: testOf(v, at)},
			{ID: "use", Template: "use", Data: v},
			{ID: "machine", Template: "machine", Data: v},
			{ID: "boot", Template: "boot", Data: s.boot(v, at)},
			{ID: "history", Template: "history", Data: h.tell(nodePath(v.ID, v.Name()))},
		}}
}

func (s *Server) headline(v inventory.NodeView, why api.Why, at time.Time) headline {
	p := v.Public.V
	if !v.Public.Exists() {
		p = v.Offer(at)
	}
	h := headline{line: s.line(p, at), Means: why.Means, Blocked: why.Blocked, Serial: v.Spec.V.Serial, Taint: v.State.V.Taint != ""}
	h.Name, h.State, h.Ago, h.Stamp = v.Name(), why.State, ago(at, why.Since), stamp(why.Since)
	if !why.Heard.IsZero() {
		h.Heard = ago(at, why.Heard)
	}
	for _, hold := range v.Spec.V.Holds {
		if hold.Until.IsZero() || at.Before(hold.Until) {
			h.Holds = append(h.Holds, hold)
		}
	}
	if v.Broken != nil {
		h.Broken = v.Broken.Error()
	}
	return h
}

func momentOf(v inventory.NodeView, why api.Why) moment {
	n := moment{Waits: why.Waits, Reason: why.Reason, Bar: progress(why.Progress), Next: why.Next, Wishes: why.Wishes,
		Alerts: why.Alerts, AtDeadline: why.AtDeadline}
	for _, do := range why.Do {
		if !slices.ContainsFunc(why.Alerts, func(a inventory.Alert) bool { return a.Next == do }) { // the alert says it
			n.Do = append(n.Do, do)
		}
	}
	if why.Deadline {
		n.Deadline = &bar{Left: left(time.Duration(why.Left))}
		if why.Allowed > 0 {
			n.Deadline.Max = 1000
			n.Deadline.Value = min(1000, max(0, 1000-int64(1000*why.Left/why.Allowed)))
			n.Deadline.Amount = "of " + span(time.Duration(why.Allowed))
		}
	}
	return n
}

// A medium is one thing of the node that keeps data, with what became of the data.
type medium struct {
	inventory.Medium
	Proof *inventory.MediumProof // of the newest certificate
	Owed  bool                   // must be erased before the node can be ready
	Gone  bool                   // not there at the last inspection, but seen since the last certificate
}

func (s *Server) media(v inventory.NodeView) []medium {
	proof := s.proof(v)
	var out []medium
	add := func(m inventory.Medium, gone bool) {
		one := medium{Medium: m, Gone: gone, Owed: v.State.V.Taint != "" || !proof.Present}
		for i, p := range proof.Body.Media {
			if p.Medium.Key() == m.Key() {
				one.Proof = &proof.Body.Media[i]
			}
		}
		out = append(out, one)
	}
	for _, m := range v.Facts.V.Hardware.Media {
		add(m, false)
	}
	for _, m := range v.Facts.V.MediaEver {
		if !slices.ContainsFunc(out, func(o medium) bool { return o.Key() == m.Key() }) {
			add(m, true)
		}
	}
	return out
}

// A proof is the newest certificate of a node.
type proof struct {
	Exists  bool
	Present bool   // it is for the wipe that counts now
	Wipe    int64  // that counts now
	Fault   string // why its signature does not hold
	KeyID   string
	Body    inventory.CertificateBody
	Took    string
	Path    string // of its JSON
	Command string
}

func (s *Server) proof(v inventory.NodeView) proof {
	all := s.API.Copy.Under(inventory.PrefixCerts + v.ID + "/")
	out := proof{Wipe: v.State.V.Wipe, Command: "hostler cert show " + api.Handle(v.ID, v.Name())}
	if len(all) == 0 {
		return out
	}
	out.Exists = true
	c, err := inventory.Decode[inventory.Certificate](all[len(all)-1]) // numbers with leading zeros: the last is the newest
	if err == nil {
		out.Body, err = ledger.OpenCertificate(c.V, s.API.CertificateKey)
	}
	if err != nil {
		out.Fault = err.Error()
	}
	out.KeyID = c.V.KeyID
	out.Present = err == nil && out.Body.Wipe == v.State.V.Wipe
	out.Took = span(out.Body.Finished.Sub(out.Body.Started))
	out.Path = fmt.Sprintf("%s/certificates/%d", nodePath(v.ID, v.Name()), out.Body.Wipe)
	return out
}

// certificate gives a certificate as the API does: exactly as it was signed, for hostler cert verify.
func (h *handler) certificate(w http.ResponseWriter, r *http.Request, who api.Identity) {
	id, err := h.find(r.PathValue("node"))
	if err != nil {
		h.fail(w, r, who, err)
		return
	}
	wipe, err := strconv.ParseInt(r.PathValue("wipe"), 10, 64)
	if err != nil || wipe < 0 {
		h.fail(w, r, who, notFound("A certificate is named by the number of its wipe."))
		return
	}
	c, err := inventory.Decode[inventory.Certificate](h.API.Copy.One(inventory.KeyCert(id, wipe)))
	if err == nil && !c.Exists() {
		err = notFound(fmt.Sprintf("This node has no certificate of wipe %d.", wipe))
	}
	var body []byte
	if err == nil {
		body, err = json.MarshalIndent(c.V, "", "  ")
	}
	if err != nil {
		h.fail(w, r, who, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`inline; filename="%s-wipe-%d.json"`, id, wipe))
	if _, err := w.Write(append(body, '\n')); err != nil {
		h.API.Log.Debug("a browser went away before its certificate", "err", err)
	}
}

// A test is the newest run.
type test struct {
	inventory.TestRun
	Exists  bool
	Present bool // it is of the wipe that counts now
	Ago     string
	Took    string
}

func testOf(v inventory.NodeView, at time.Time) test {
	t := test{TestRun: v.Test.V, Exists: v.Test.Exists(), Present: v.Test.V.Wipe == v.State.V.Wipe}
	t.Ago, t.Took = ago(at, t.Finished), span(t.Finished.Sub(t.Started))
	return t
}

// A boot is how the node is reached, and the boot of the service OS that it has.
type boot struct {
	BMC        inventory.BMCSpec
	Facts      inventory.BMCFacts
	FactsAgo   string
	Session    inventory.Session
	Has        bool
	SessionAgo string
}

func (s *Server) boot(v inventory.NodeView, at time.Time) boot {
	b := boot{BMC: v.Spec.V.BMC, Facts: v.Facts.V.BMC, Session: v.Session.V, Has: v.Session.Exists(), SessionAgo: ago(at, v.Session.V.Created)}
	if !b.Facts.Read.IsZero() {
		b.FactsAgo = ago(at, b.Facts.Read)
	}
	return b
}
