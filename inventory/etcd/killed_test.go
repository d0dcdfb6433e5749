package etcd_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/etcd"
)

// childEnv makes this test binary a process that writes to an embedded etcd until it is killed: "dir client peer".
const childEnv = "HOSTLER_TEST_ETCD_CHILD"

func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(childEnv)); len(args) == 3 {
		fmt.Println("error", writeForEver(etcd.EmbeddedConfig{Dir: args[0], ListenClient: args[1], ListenPeer: args[2]}))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func writeForEver(cfg etcd.EmbeddedConfig) error {
	ctx := context.Background()
	e, err := etcd.StartEmbedded(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		key := fmt.Sprintf("/killed/%d", i)
		r, err := e.Commit(ctx, inventory.Txn{If: []inventory.Cond{inventory.Absent(key)}, Then: []inventory.Op{{Key: key, Value: []byte("x")}}})
		if err != nil || !r.Done {
			return fmt.Errorf("write %d: %+v, %v", i, r, err)
		}
		fmt.Println(key)
	}
}

// What was acknowledged before a SIGKILL is there after the next start, on the same folder and ports, at once.
func TestKilled(t *testing.T) {
	cfg := config(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{cfg.Dir, cfg.ListenClient, cfg.ListenPeer}, " "))
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var acked []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		acked = append(acked, lines.Text())
		if len(acked) == 50 {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); len(acked) < 50 {
		t.Fatalf("the child ended by itself: %v, %v", err, acked)
	}

	s := start(t, cfg)
	for _, key := range acked {
		if kv, err := s.Get(t.Context(), key); err != nil || !kv.Exists() {
			t.Errorf("%s was acknowledged and is gone: %v", key, err)
		}
	}
}
