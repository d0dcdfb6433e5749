package faults

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/provisioner/agentapi"
)

// Keys are the site's own, made before any daemon starts: all daemons read the same folder, and the run signs with them
// what a site would have signed before.
type Keys struct {
	Dir         string
	Certificate ed25519.PrivateKey
	Authority   *agentapi.Authority
	secrets     *age.X25519Identity
}

func newKeys(dir, site string) (*Keys, error) {
	k := &Keys{Dir: dir}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	k.Certificate = key
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	caKey, caCert, err := agentapi.NewAuthority(site, time.Now())
	if err != nil {
		return nil, err
	}
	if k.Authority, err = agentapi.OpenAuthority(caKey, caCert); err != nil {
		return nil, err
	}
	if k.secrets, err = age.GenerateX25519Identity(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for name, b := range map[string][]byte{
		"certificate.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"ca.key":          caKey, "ca.crt": caCert,
		"secrets.age": []byte(k.secrets.String() + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// seal seals a controller's login as the API does.
func (k *Keys) seal(l api.BMCLogin) ([]byte, error) {
	plain, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, k.secrets.Recipient())
	if err != nil {
		return nil, fmt.Errorf("faults: seal: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	err = w.Close() // writes the end
	return out.Bytes(), err
}

// issue gives a seeded agent the certificate that it would have redeemed.
func (k *Keys) issue(id *identity, session, node string) error {
	csr, err := x509.ParseCertificateRequest(id.csr)
	if err != nil {
		return err
	}
	cert, err := k.Authority.Issue(csr, session, node, 0, time.Now())
	if err != nil {
		return err
	}
	id.accept(cert)
	return nil
}
