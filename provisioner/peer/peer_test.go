package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/provisioner"
	"github.com/hostler-project/hostler/provisioner/agentapi"
)

// loop is a reconciler that notes what it is told.
type loop struct {
	mu   sync.Mutex
	seen []provisioner.Event
}

func (l *loop) Take(e provisioner.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, e)
}

func (l *loop) Live(node string) provisioner.Live {
	return provisioner.Live{Say: "asked about " + node}
}

func (l *loop) kinds() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, e := range l.seen {
		out = append(out, string(e.Kind))
	}
	return strings.Join(out, " ")
}

// pair is a replica that sees, and one that owns every node, behind a real listener.
type pair struct {
	sees, owns *Router
	here       *loop
	there      *loop
	address    string
	holds      bool // the owner's hold
	authority  *agentapi.Authority
}

func newPair(t *testing.T) *pair {
	t.Helper()
	key, crt, err := agentapi.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{here: &loop{}, there: &loop{}, holds: true}
	if p.authority, err = agentapi.OpenAuthority(key, crt); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	p.owns = &Router{Loop: p.there, Holds: func(string) bool { return p.holds }, Now: time.Now, Log: log}
	srv := httptest.NewUnstartedServer(p.owns.Handler())
	srv.TLS = ServerTLS(p.replica(t, "r-owner"), p.authority.Pool())
	srv.StartTLS()
	t.Cleanup(srv.Close)
	p.address = srv.Listener.Addr().String()

	cp := inventory.NewCopy()
	b := inventory.Batch{Rev: 2}
	put := func(key string, v any) {
		op, err := inventory.Encode(key, v)
		if err != nil {
			t.Fatal(err)
		}
		b.Events = append(b.Events, inventory.Event{KV: inventory.KV{Key: key, Value: op.Value, Create: 2, Mod: 2}})
	}
	put(inventory.KeyReplica("r-owner"), inventory.Replica{Schema: 1, ID: "r-owner", Host: "h", Address: p.address})
	for n := range inventory.Shards {
		put(inventory.KeyShard(n), inventory.ShardOwner{Schema: 1, Replica: "r-owner"})
	}
	cp.Apply(b)
	p.sees = &Router{Loop: p.here, Holds: func(string) bool { return false }, Copy: cp, Now: time.Now, Log: log, Client: NewClient(p.replica(t, "r-sees"), p.authority.Pool())}
	return p
}

func (p *pair) replica(t *testing.T, id string) tls.Certificate {
	t.Helper()
	c, err := p.authority.Replica(id, Name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run delivers until the test ends.
func (p *pair) run(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.sees.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
}

func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestEventsReachTheOwner(t *testing.T) {
	p := newPair(t)
	p.run(t)
	p.sees.AskedDHCP("n-1")
	p.sees.AskedBoot("n-1")
	p.sees.Heard("n-1", inventory.Report{Session: "s", BootID: "b"})
	p.sees.Told("n-1")
	p.sees.PhonedHome("n-1", provisioner.PhoneHome{Instance: "i-1", HostKeys: []string{"k"}})
	wait(t, "not all came: "+p.there.kinds(), func() bool { return p.there.kinds() == "dhcp boot report told home" })
	p.there.mu.Lock()
	defer p.there.mu.Unlock()
	if r := p.there.seen[2].Report; r.Session != "s" || r.BootID != "b" {
		t.Errorf("the report came as %+v", r)
	}
	if h := p.there.seen[4].Home; h.Instance != "i-1" || len(h.HostKeys) != 1 {
		t.Errorf("phone-home came as %+v", h)
	}
	if p.here.kinds() != "" {
		t.Errorf("our own loop was told of another's node: %s", p.here.kinds())
	}
}

// Of each kind only the latest is kept, a finished report beside a later one under way; the number is bounded; what
// cannot be delivered is dropped after a while.
func TestQueue(t *testing.T) {
	p := newPair(t)
	now := time.Now()
	p.sees.Now = func() time.Time { return now }
	for i := range 3 {
		p.sees.Heard("n-1", inventory.Report{Order: fmt.Sprint(i)})
	}
	p.sees.Heard("n-1", inventory.Report{Order: "2", Done: true})
	p.sees.Heard("n-1", inventory.Report{Order: "3"})
	if n := len(p.sees.queue); n != 2 || !p.sees.queue[0].Report.Done || p.sees.queue[1].Report.Order != "3" {
		t.Fatalf("%d wait: %+v", n, p.sees.queue)
	}
	for i := range maxQueue + 10 {
		p.sees.Told(fmt.Sprint("n-", i))
	}
	if n := len(p.sees.queue); n != maxQueue {
		t.Errorf("%d wait, want %d", n, maxQueue)
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	p.sees.Client.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", dead.Addr().String())
	}
	if n := p.sees.deliver(t.Context()); n != maxQueue {
		t.Errorf("%d still wait after a try that failed", n)
	}
	now = now.Add(keepFor)
	if n := p.sees.deliver(t.Context()); n != 0 {
		t.Errorf("%d wait for ever", n)
	}
}

func TestLiveIsTheOwners(t *testing.T) {
	p := newPair(t)
	if got := p.sees.Live("n-1").Say; got != "asked about n-1" {
		t.Errorf("got %q", got)
	}
	p.holds = false
	if got := p.sees.Live("n-1").Say; !strings.Contains(got, "r-owner on h") || !strings.Contains(got, "not its owner any more") {
		t.Errorf("got %q", got)
	}
	p.sees.Client = nil
	if got := p.sees.Live("n-1").Say; !strings.Contains(got, "replica.address") {
		t.Errorf("got %q", got)
	}
}

// Only replicas speak to replicas: neither agents, nor the listener for agents, nor strangers are one.
func TestWhoIsAReplica(t *testing.T) {
	p := newPair(t)
	agents, err := p.authority.Server([]net.IP{net.IPv4(127, 0, 0, 1)}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, crt, err := agentapi.NewAuthority("other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := agentapi.OpenAuthority(key, crt)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := other.Replica("r-x", Name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, own := range map[string]tls.Certificate{"none": {}, "the agents' listener": agents, "another site": stranger} {
		p.sees.Client = NewClient(own, p.authority.Pool())
		if got := p.sees.Live("n-1").Say; !strings.Contains(got, "does not answer") {
			t.Errorf("%s was taken for a replica: %q", name, got)
		}
	}
	for name, own := range map[string]tls.Certificate{"the agents' listener": agents, "another site": stranger} {
		srv := httptest.NewUnstartedServer(p.owns.Handler())
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{own}}
		srv.StartTLS()
		c := NewClient(p.replica(t, "r-sees"), p.authority.Pool())
		if _, err := c.Get(srv.URL + "/v1/live?node=n-1"); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s as a server: %v", name, err)
		}
		srv.Close()
	}
	var leaf *x509.Certificate
	if leaf, err = x509.ParseCertificate(p.replica(t, "r-1").Certificate[0]); err != nil || leaf.Subject.CommonName != "r-1" || strings.HasPrefix(leaf.Subject.OrganizationalUnit[0], "n-") {
		t.Errorf("a replica's certificate is %v, %v: the agents' listener must find no node in it", leaf.Subject, err)
	}
}
