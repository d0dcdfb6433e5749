package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/hostler-project/hostler/inventory"
)

// runCommand is hostlerd's command line with a configuration of its own.
func runCommand(t *testing.T, c Config, in string, args ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "site.yaml")
	b, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetIn(strings.NewReader(in))
	cmd.SetArgs(append(args, "--config", file))
	err = cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// fill writes to a running site's store until it refuses.
func fill(t *testing.T, c Config) {
	t.Helper()
	s, err := openRunning(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 1000 {
		_, err := s.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: fmt.Sprintf("/ballast/%d", i%5), Value: make([]byte, 200<<10)}}})
		switch {
		case errors.Is(err, inventory.ErrNoSpace):
			return
		case err != nil:
			t.Fatal(err)
		}
	}
	t.Fatal("the store does not get full")
}

// A daemon whose store is full goes on reading and says what is wrong and which command helps; that command, beside it,
// gives it its writes back. Started on a full store it comes up all the same.
func TestFullStore(t *testing.T) {
	c := config(t)
	c.Etcd.Quota = 16 << 20
	var log buffer
	stop := start(t, c, &log)
	admin := token(c)
	wish := func() (int, string) {
		return call(t, c, "POST", "/v1/tokens", `{"name":"kim","role":"technician","ttl":"1h"}`, admin)
	}
	if code, text := wish(); code != 200 {
		t.Fatalf("a write before: %d %s", code, text)
	}
	fill(t, c)
	for _, when := range []string{"running", "started again"} {
		if code, text := wish(); code != 503 || !strings.Contains(text, "NOSPACE") || !strings.Contains(text, "hostlerd store recover") {
			t.Errorf("%s: a write into the full store: %d %s", when, code, text)
		}
		if code, text := call(t, c, "GET", "/v1/nodes", "", admin); code != 200 {
			t.Errorf("%s: a read of the full store: %d %s", when, code, text)
		}
		if when == "running" {
			if err := stop(); err != nil {
				t.Errorf("it ended with %v", err)
			}
			stop = start(t, c, &log)
		}
	}
	if out, err := runCommand(t, c, "n\n", "store", "recover"); err == nil || !strings.Contains(out, "Go on?") || !strings.Contains(out, "NOSPACE") {
		t.Errorf("asked and told no: %s, %v", out, err)
	}
	out, err := runCommand(t, c, "", "store", "recover", "--yes")
	if err != nil || !strings.Contains(out, "takes writes") {
		t.Errorf("recover: %v, %s", err, out)
	}
	if code, text := wish(); code != 200 {
		t.Errorf("a write after the recovery: %d %s", code, text)
	}
	if err := stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := runCommand(t, c, "", "store", "recover", "--yes"); err == nil || !strings.Contains(err.Error(), "is hostlerd running?") {
		t.Errorf("without a daemon: %v", err)
	}
}
