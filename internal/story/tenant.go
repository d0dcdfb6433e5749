package story

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// A tenant rents a node and looks at it from inside.
type tenant struct {
	s    *Story
	key  ssh.Signer
	addr string
}

// newTenant makes a key pair; its public half is in the file that hostler claim takes.
func (s *Story) newTenant() (*tenant, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, err
	}
	p, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "tenant of the virtual rack")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.path("tenant.key"), pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	return &tenant{s: s, key: signer}, os.WriteFile(s.path("tenant.pub"), ssh.MarshalAuthorizedKey(p), 0o600)
}

// run runs a command in the tenant's system, from inside the rack.
func (t *tenant) run(ctx context.Context, command string) (string, error) {
	c, err := t.dial(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	session, err := c.NewSession()
	if err != nil {
		return "", fmt.Errorf("ssh %s: %w", t.addr, err)
	}
	var out, errOut bytes.Buffer
	session.Stdout, session.Stderr = &out, &errOut
	if err := session.Run(command); err != nil {
		return out.String(), fmt.Errorf("ssh %s: %q: %w: %s", t.addr, command, err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

func (t *tenant) dial(ctx context.Context) (*ssh.Client, error) {
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	conn, err := t.s.Rack.Dial(ctx, "tcp", net.JoinHostPort(t.addr, "22"))
	if err != nil {
		return nil, fmt.Errorf("ssh %s: %w", t.addr, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	// The host key was made at the first boot; what is under test is who may log in.
	sc, chans, reqs, err := ssh.NewClientConn(conn, t.addr, &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(t.key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 20 * time.Second})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ssh %s: %w", t.addr, err), conn.Close())
	}
	conn.SetDeadline(time.Time{})
	return ssh.NewClient(sc, chans, reqs), nil
}

// eventually runs a command until it succeeds.
func (t *tenant) eventually(ctx context.Context, limit time.Duration, command string, good func(string) bool) (string, error) {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	for {
		out, err := t.run(ctx, command)
		if err == nil && good(out) {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return out, fmt.Errorf("%q in the tenant's system: not as expected after %v: %q (%w)", command, limit, out, err)
		case <-time.After(time.Second):
		}
	}
}
