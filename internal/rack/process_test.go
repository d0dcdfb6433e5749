package rack

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStartTime(t *testing.T) {
	tail := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21"
	tests := []struct {
		name, stat string
		want       uint64
		ok         bool
	}{
		{"plain", "12 (sleep)" + tail, 4711, true},
		{"a name with blanks and brackets", "12 (a) S 1 (b)" + tail, 4711, true},
		{"cut short", "12 (sleep) S 1 2", 0, false},
		{"empty", "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := startTime(tt.stat)
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("got %d, %v", got, err)
			}
		})
	}
}

// A sweep must end the process it started and no other that got its pid.
func TestOnlyTheVeryProcessIsSignalled(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	it, err := identify("sleep", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	newcomer := it
	newcomer.Started++
	if newcomer.alive() {
		t.Error("a pid with another start time counts as alive")
	}
	if err := newcomer.signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if !it.alive() {
		t.Fatal("the process with that pid was killed, though it started at another time")
	}
	if err := it.signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if !it.gone(5 * time.Second) {
		t.Error("still alive after SIGKILL")
	}
	<-ended
	if err := it.signal(unix.SIGKILL); err != nil {
		t.Errorf("signal a process that is gone: %v, want nothing", err)
	}
}

func TestRunFileNamesProcessesByPidAndStart(t *testing.T) {
	me, err := identify("test", os.Getpid())
	if err != nil || !me.alive() {
		t.Fatalf("%+v, %v: this test runs", me, err)
	}
	b, err := json.Marshal(runFile{Name: "x", Supervisor: me, Children: []procID{{"qemu a", 7, 9}}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"children":[{"what":"qemu a","pid":7,"started":9}]`) {
		t.Errorf("run file: %s", b)
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{"rack": true, "t-17": true, "": false, "-x": false, "A": false, "a/b": false, "../x": false, "a b": false, strings.Repeat("a", 32): false} {
		if nameOK.MatchString(name) != ok {
			t.Errorf("name %q: usable is %v", name, !ok)
		}
	}
}
