//go:build rack

package rack

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"testing"
	"time"
)

func TestTheFenceReallyCutsAndReconnects(t *testing.T) {
	r := startRack(t)
	b := r.Nodes[1]
	e := listenDHCP(t, r)
	fence := func(words ...string) PortState {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), program, append([]string{"--name", r.Name, "fence"}, words...)...).Output()
		if err != nil {
			t.Fatalf("fence %v: %v", words, err)
		}
		var s PortState
		if err := json.Unmarshal(out, &s); err != nil {
			t.Fatalf("fence %v: %v in %q", words, err, out)
		}
		return s
	}
	if s := fence("observe", "b"); s != (PortState{Port: Provisioning}) {
		t.Errorf("new server: %+v", s)
	}
	if s := fence("isolate", "b"); s != (PortState{Port: Isolated}) {
		t.Errorf("isolated: %+v", s)
	}
	fence("isolate", "b") // again
	if err := b.On(); err != nil {
		t.Fatal(err)
	}
	if m, err := e.discover(b, 15*time.Second); err == nil {
		t.Errorf("isolated, and hostlerd hears %v", m)
	}
	// hostlerd's exec driver names a port by its server's MAC.
	if s := fence("attach", b.MAC, "i-1"); s != (PortState{Tenant, "i-1"}) || fence("observe", b.MAC) != s {
		t.Errorf("attached to an instance: %+v, then %+v", s, fence("observe", b.MAC))
	}
	e.empty()
	ipmi(t, r, b, "power", "reset")
	if _, err := e.discover(b, time.Minute); err != nil {
		t.Errorf("on the tenant side hostlerd hears no DISCOVER: %v", err)
	}
	if s := fence("attach", "b"); s != (PortState{Port: Provisioning}) {
		t.Errorf("attached to provisioning: %+v", s)
	}
	e.empty()
	ipmi(t, r, b, "power", "reset")
	if _, err := e.discover(b, time.Minute); err != nil {
		t.Errorf("back on the provisioning side hostlerd hears no DISCOVER: %v", err)
	}
	if err := exec.Command(program, "--name", r.Name, "fence", "isolate", "nobody").Run(); err == nil {
		t.Error("fence isolate of an unknown server: exit 0")
	}
}

func TestDoorsLeadIntoTheNamespace(t *testing.T) {
	r := startRack(t)
	var inside net.Listener
	err := r.ns.visit(func() (err error) {
		inside, err = net.Listen("tcp", insideAPI)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	go func() {
		c, err := inside.Accept()
		if err != nil {
			return
		}
		io.Copy(c, c)
		c.Close()
	}()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.Ports.API))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("through the door: %q, %v", b, err)
	}
}

// A tenant must not reach the controllers, though its server's gateway has their
// addresses on another interface.
func TestServersDoNotReachControllers(t *testing.T) {
	r := startRack(t)
	for to, reachable := range map[string]bool{ServerIP: true, r.Nodes[0].BMC.String(): false, bmcHostIP: false} {
		o, err := r.Exec(t.Context(), nil, "ip", "route", "get", to, "from", r.Nodes[0].IP.String(), "iif", "br0")
		if err != nil || (o.Code == 0) != reachable {
			t.Errorf("a packet of a server to %s: %v, exit %d, %s%s", to, err, o.Code, o.Stdout, o.Stderr)
		}
	}
	if o, err := r.Exec(t.Context(), nil, "ip", "route", "get", r.Nodes[0].BMC.String()); err != nil || o.Code != 0 {
		t.Errorf("hostlerd's own way to a controller: %v, %+v", err, o)
	}
}
