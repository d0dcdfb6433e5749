package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
)

// resumeConfig names the site.yaml that TestResumeDaemon serves, in a process of its own that can be killed.
const resumeConfig = "HOSTLERD_TEST_RESUME"

func TestResumeDaemon(t *testing.T) {
	path := os.Getenv(resumeConfig)
	if path == "" {
		return // run by hand it has nothing to serve
	}
	c, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(serve(context.Background(), c, slog.New(slog.NewTextHandler(os.Stderr, nil))))
}

// Killed in the middle of a step (reliability.md P3), a daemon that starts again goes on with the act that the record
// announces within 10 seconds, without asking for anything first and without beginning the step anew. The controller of
// the node is a socket that counts: nothing else has to tell that the daemon acts.
func TestResumesAfterAKill(t *testing.T) {
	const limit, kills = 10 * time.Second, 3
	controller, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer controller.Close()
	asked := make(chan struct{}, 1<<16)
	go func() {
		buf := make([]byte, 1500)
		for {
			if _, _, err := controller.ReadFrom(buf); err != nil {
				return
			}
			asked <- struct{}{}
		}
	}()

	c := config(t)
	site := file(t, fmt.Sprintf(`data: %s
keys: %s
api: {listen: %q}
etcd: {listen: %q, peer: %q}
skus: [{name: small, burnin_profile: smoke, verify_profile: smoke, trust: network, media: [{slot: nvme0, kind: nvme}]}]
`, c.Data, c.Keys, c.API.Listen, c.Etcd.Listen, c.Etcd.Peer))
	run := func() (kill func()) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run=^TestResumeDaemon$")
		cmd.Env = append(os.Environ(), resumeConfig+"="+site)
		var log buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end := make(chan error, 1)
		go func() { end <- cmd.Wait() }()
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			if t.Failed() {
				t.Log(log.String())
			}
		})
		return func() {
			t.Helper()
			select {
			case err := <-end:
				t.Fatalf("the daemon ended by itself: %v\n%s", err, log.String())
			default:
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-end
			time.Sleep(100 * time.Millisecond)
			for len(asked) > 0 { // what it had asked before it died does not count
				<-asked
			}
		}
	}
	next := func(within time.Duration) time.Duration {
		t.Helper()
		begun := time.Now()
		select {
		case <-asked:
			return time.Since(begun)
		case <-time.After(within):
			t.Fatalf("nothing was asked of the controller within %v", within)
			return 0
		}
	}
	ask := func(method, path, body string) (int, string) { return call(t, c, method, path, body, token(c)) }
	history := func() []inventory.History {
		t.Helper()
		code, text := ask("GET", "/v1/nodes/n1/history", "")
		var out api.HistoryList
		if err := json.Unmarshal([]byte(text), &out); code != http.StatusOK || err != nil || len(out.Entries) == 0 {
			t.Fatalf("history: %d %s", code, text)
		}
		return out.Entries
	}

	kill := run()
	eventually(t, "the daemon answers", 30*time.Second, func() bool { code, _ := ask("GET", "/v1/version", ""); return code == http.StatusOK })
	row := "name,serial,sku,rack,slot,mac,ip,bmc_addr,bmc_protocol,credential,approve\nn1,S1,small,r1,1,52:54:00:00:00:01,10.0.0.2," + controller.LocalAddr().String() + ",ipmi,rack,\n"
	manifest, _ := json.Marshal(map[string]any{"csv": row})
	for _, q := range []struct{ method, path, body string }{
		{"PUT", "/v1/credentials/rack", `{"user":"admin","password":"secret"}`},
		{"POST", "/v1/manifest", string(manifest)},
	} {
		if code, text := ask(q.method, q.path, q.body); code/100 != 2 {
			t.Fatalf("%s: %d %s", q.path, code, text)
		}
	}
	eventually(t, "approved", 10*time.Second, func() bool { code, _ := ask("POST", "/v1/nodes/n1/approve", `{}`); return code/100 == 2 })
	next(10 * time.Second)
	before := history()
	last := before[len(before)-1]
	if last.Kind != "step" || last.To != "inspecting" || last.Phase == "" {
		t.Fatalf("it acts, but the record announces nothing: %+v", last)
	}
	for n := range kills {
		kill()
		kill = run()
		took := next(limit)
		t.Logf("kill %d: the act of phase %s goes on after %v", n+1, last.Phase, took.Round(time.Millisecond))
	}
	eventually(t, "the daemon answers", 30*time.Second, func() bool { code, _ := ask("GET", "/v1/version", ""); return code == http.StatusOK })
	if after := history(); len(after) != len(before) {
		t.Errorf("the step began anew: %+v", after[len(before):])
	}
	kill()
}
