package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"
)

// An identity is the key that this boot made in memory, and the certificate that the daemon gave for it.
type identity struct {
	mu    sync.Mutex
	key   ed25519.PrivateKey
	chain [][]byte
	leaf  *x509.Certificate
}

func newIdentity() (*identity, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return &identity{key: key}, nil
}

// request is the certificate signing request, in DER.
func (id *identity) request(node string) ([]byte, error) {
	b, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: node}}, id.key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return b, nil
}

// accept takes the chain if it is for our key and leads to the CA.
func (id *identity) accept(chain []byte, ca *x509.Certificate, now time.Time) error {
	var all [][]byte
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			all = append(all, block.Bytes)
		}
	}
	if len(all) == 0 {
		return errors.New("the server's answer holds no certificate")
	}
	leaf, err := x509.ParseCertificate(all[0])
	if err != nil {
		return fmt.Errorf("the server's certificate for us cannot be read: %w", err)
	}
	pub, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok || !bytes.Equal(pub, id.key.Public().(ed25519.PublicKey)) {
		return errors.New("the server's certificate is for another key")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca)
	for _, b := range all[1:] {
		if c, err := x509.ParseCertificate(b); err == nil {
			between.AddCert(c)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return fmt.Errorf("the server's certificate for us does not hold: %w", err)
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.chain, id.leaf = all, leaf
	return nil
}

// certificate is what TLS presents; empty before accept and after wipe.
func (id *identity) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.leaf == nil {
		return &tls.Certificate{}, nil
	}
	return &tls.Certificate{Certificate: id.chain, PrivateKey: id.key, Leaf: id.leaf}, nil
}

// wipe overwrites the key: what is started next on this machine must not find it in memory.
func (id *identity) wipe() {
	if id == nil {
		return
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	clear(id.key)
	id.chain, id.leaf = nil, nil
}
