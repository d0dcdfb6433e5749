package rack

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

func offNode() *Node {
	return &Node{Facts: facts(1, ""), boot: BootNone, log: slog.New(slog.DiscardHandler)}
}

func TestGlueOnAServerThatIsOff(t *testing.T) {
	tests := []struct {
		args []string
		want string
		err  string
	}{
		{[]string{"get", "power"}, "power:0\n", ""},
		{[]string{"get", "power", "boot"}, "power:0\nboot:none\n", ""},
		{[]string{"set", "power", "0"}, "", ""},
		{[]string{"set", "reset", "1"}, "", ""},
		{[]string{"set", "shutdown", "1"}, "", ""},
		{[]string{"set", "identify", "15 0"}, "", ""},
		{[]string{"set", "boot"}, "", "boot to what"},
		{[]string{"set", "boot", "floppy"}, "", `"floppy"`},
		{[]string{"set", "colour", "red"}, "", `"colour"`},
		{[]string{"get", "colour"}, "", `"colour"`},
		{[]string{"take", "power"}, "", "take"},
		{nil, "", "get or set"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			got, err := offNode().glue(tt.args)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %q, %v, want %q and an error with %q", got, err, tt.want, tt.err)
			}
		})
	}
}

// ipmi_sim passes on neither "once" nor "persistent": a setting holds.
func TestABootDeviceHoldsUntilTheNextOne(t *testing.T) {
	n := offNode()
	for _, b := range []string{"pxe", "default", "none"} {
		if _, err := n.glue([]string{"set", "boot", b}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := n.glue([]string{"get", "boot"}); got != "boot:"+b+"\n" || err != nil {
				t.Errorf("after set boot %s: %q, %v", b, got, err)
			}
		}
	}
}

func TestControlSocketAnswersAndRefuses(t *testing.T) {
	socket := t.TempDir() + "/c"
	if _, err := Ask(socket, Request{Op: "status"}); err == nil || !strings.Contains(err.Error(), "no rack runs") {
		t.Errorf("nobody there: %v", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := &Rack{Name: "x", Nodes: []*Node{offNode()}}
	go r.serveControl(l)
	a, err := Ask(socket, Request{Op: "glue", Node: "a", Args: []string{"get", "power"}})
	if err != nil || a.Glue != "power:0\n" {
		t.Errorf("got %+v, %v", a, err)
	}
	for _, q := range []Request{{Op: "explode", Node: "a"}, {Op: "press", Node: "z"}} {
		if _, err := Ask(socket, q); err == nil {
			t.Errorf("%+v: want an error", q)
		}
	}
}

func TestATakenPortIsNamedWithItsHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	_, _, err = openDoor(port)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf(":%d is taken by process", port)) {
		t.Errorf("got %v, want the port and the process", err)
	}
	free, got, err := openDoor(0)
	if err != nil || got == 0 {
		t.Fatalf("any port: %d, %v", got, err)
	}
	free.Close()
}

func TestMissingThingsAreOneLineWithPackages(t *testing.T) {
	err := missing(func(what string) bool { return !strings.HasPrefix(what, "ipmi") && !strings.Contains(what, "OVMF") })
	if err == nil || !strings.HasSuffix(err.Error(), "images/deps.sh, or apt-get install ovmf openipmi") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if err := missing(func(string) bool { return true }); err != nil {
		t.Errorf("nothing missing: %v", err)
	}
}

func TestStages(t *testing.T) {
	var s Stages
	t0 := time.Unix(100, 0)
	s.Add("boot", "a", FirmwareTime, t0, t0.Add(1500*time.Millisecond))
	var b strings.Builder
	if err := s.Table(&b); err != nil || !strings.Contains(b.String(), "boot   a     1.5      firmware") {
		t.Errorf("table: %v\n%s", err, b.String())
	}
	if err := s.WriteFile(t.TempDir() + "/out/stages.json"); err != nil {
		t.Error(err)
	}
}
