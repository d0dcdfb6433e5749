package rack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Ports are the doors from the host into the rack's namespace, on 127.0.0.1.
// They lead to hostlerd's own loopback ports.
type Ports struct {
	API  int `json:"api"`  // to 8080: API and dashboard
	Etcd int `json:"etcd"` // to 2379
}

// What hostlerd listens on inside the namespace (design.md section 16).
const (
	insideAPI  = "127.0.0.1:8080"
	insideEtcd = "127.0.0.1:2379"
)

// openDoor listens on a port of the host's loopback; 0 takes any free one. A
// taken port's error names who has it.
func openDoor(port int) (net.Listener, int, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, 0, fmt.Errorf("port 127.0.0.1:%d is taken by %s: end that, or choose another port (RACK=name takes free ones)", port, portHolder(port))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("rack: listen on port %d: %w", port, err)
	}
	return l, l.Addr().(*net.TCPAddr).Port, nil
}

// forward passes connections from a listener outside to an address inside the
// namespace, until the listener is closed. While nobody listens inside, a
// connection is closed at once, which clients see as a refusal.
func (ns *namespace) forward(l net.Listener, to string) {
	for {
		out, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer out.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			in, err := ns.dial(ctx, "tcp", to)
			if err != nil {
				return
			}
			defer in.Close()
			join(out, in)
		}()
	}
}

// join copies both ways and passes on each end of stream.
func join(a, b net.Conn) {
	done := make(chan struct{}, 2)
	half := func(to, from net.Conn) {
		io.Copy(to, from) // either end may go away at any time
		to.(*net.TCPConn).CloseWrite()
		done <- struct{}{}
	}
	go half(a, b)
	go half(b, a)
	<-done
	<-done
}

// portHolder says who listens on a TCP port of this host, as far as /proc tells.
func portHolder(port int) string {
	inode := ""
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if b, err := os.ReadFile(table); err == nil && inode == "" {
			inode = listenInode(string(b), port)
		}
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || inode == "" || to != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			break
		}
		return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name)))
	}
	return "another program"
}

// listenInode finds the socket that listens on a port in the text of
// /proc/net/tcp, proc_net_tcp(5): state 0A is listen, field 10 the inode.
func listenInode(table string, port int) string {
	for _, line := range strings.Split(table, "\n") {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != "0A" {
			continue
		}
		_, hexPort, _ := strings.Cut(f[1], ":")
		if p, err := strconv.ParseUint(hexPort, 16, 16); err == nil && int(p) == port {
			return f[9]
		}
	}
	return ""
}
