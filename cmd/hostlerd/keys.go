package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/google/renameio/v2"

	"github.com/hostler-project/hostler/provisioner/agentapi"
)

// keys are the daemon's own secrets: files, made at the first start, never in etcd.
type keys struct {
	Certificate ed25519.PrivateKey // signs sanitize certificates
	Authority   *agentapi.Authority
	Secrets     *age.X25519Identity // BMC credentials and tenants' seeds are sealed to it
}

// loadKeys reads the folder of keys, and makes what is missing. A folder that others may read is refused.
func loadKeys(dir, site string) (keys, error) {
	var k keys
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return k, fmt.Errorf("keys: %v", err)
	}
	if st, err := os.Stat(dir); err != nil {
		return k, fmt.Errorf("keys: %v", err)
	} else if st.Mode().Perm()&0o077 != 0 {
		return k, fmt.Errorf("keys: others may look into %s (%v): chmod 700 it", dir, st.Mode().Perm())
	}
	b, err := keyFile(dir, "certificate.key", newCertificateKey)
	if err != nil {
		return k, err
	}
	if k.Certificate, err = parseCertificateKey(b); err != nil {
		return k, err
	}
	var crt []byte
	key, err := keyFile(dir, "ca.key", func() ([]byte, error) {
		key, cert, err := agentapi.NewAuthority(site, time.Now())
		crt = cert
		return key, errors.Join(err, renameio.WriteFile(filepath.Join(dir, "ca.crt"), cert, 0o600))
	})
	if err != nil {
		return k, err
	}
	if crt, err = os.ReadFile(filepath.Join(dir, "ca.crt")); err != nil {
		return k, fmt.Errorf("keys: %v", err)
	}
	if k.Authority, err = agentapi.OpenAuthority(key, crt); err != nil {
		return k, fmt.Errorf("keys: %v", err)
	}
	if b, err = keyFile(dir, "secrets.age", func() ([]byte, error) {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, err
		}
		return []byte(id.String() + "\n"), nil
	}); err != nil {
		return k, err
	}
	if k.Secrets, err = age.ParseX25519Identity(string(bytes.TrimSpace(b))); err != nil {
		return k, fmt.Errorf("keys: secrets.age is not an age identity") // never the text itself
	}
	return k, nil
}

// keyFile reads a key, or makes it once.
func keyFile(dir, name string, make func() ([]byte, error)) ([]byte, error) {
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = make(); err == nil {
			err = renameio.WriteFile(path, b, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("keys: %s: %v", path, err)
	}
	return b, nil
}

func newCertificateKey() ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseCertificateKey(b []byte) (ed25519.PrivateKey, error) {
	p, _ := pem.Decode(b)
	if p == nil {
		return nil, errors.New("keys: certificate.key is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(p.Bytes)
	if err != nil {
		return nil, fmt.Errorf("keys: certificate.key: %v", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("keys: certificate.key is a %T, not an Ed25519 key", parsed)
	}
	return key, nil
}

// Seal encrypts to the daemon's own key.
func (k keys) Seal(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, k.Secrets.Recipient())
	if err != nil {
		return nil, fmt.Errorf("seal: %v", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("seal: %v", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal: %v", err)
	}
	return out.Bytes(), nil
}

// Unseal decrypts what Seal made.
func (k keys) Unseal(sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), k.Secrets)
	if err != nil {
		return nil, fmt.Errorf("unseal: it was sealed to another key: %v", err)
	}
	return io.ReadAll(io.LimitReader(r, 1<<20))
}
