package agentapi

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// CertLife is how long an agent's certificate lasts. It outlives any stay in the service OS, because what an agent may is
// decided by its session's record at every message, and a record can be closed at once.
const CertLife = 30 * 24 * time.Hour

// An Authority signs agents' certificates, and derives the tokens of boot sessions from the same key, so that no token
// is ever stored.
type Authority struct {
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	secret []byte // derives tokens
}

// NewAuthority makes an authority's key, as PKCS #8 in PEM, and its self-signed certificate.
func NewAuthority(site string, now time.Time) (keyPEM, certPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hostler agents of " + site},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(20, 0, 0), IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// OpenAuthority reads what NewAuthority made.
func OpenAuthority(keyPEM, certPEM []byte) (*Authority, error) {
	k, _ := pem.Decode(keyPEM)
	c, _ := pem.Decode(certPEM)
	if k == nil || c == nil {
		return nil, errors.New("ca.key or ca.crt is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(k.Bytes)
	if err != nil {
		return nil, fmt.Errorf("ca.key: %v", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("ca.key is a %T, not an ECDSA key", parsed)
	}
	cert, err := x509.ParseCertificate(c.Bytes)
	if err != nil {
		return nil, fmt.Errorf("ca.crt: %v", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("ca.key and ca.crt do not belong together")
	}
	mac := hmac.New(sha256.New, k.Bytes)
	mac.Write([]byte("hostler: tokens of boot sessions"))
	return &Authority{key: key, cert: cert, secret: mac.Sum(nil)}, nil
}

// Pin is what the boot script carries: "sha256:" and the hash of the authority's certificate (DER).
func (a *Authority) Pin() string {
	sum := sha256.Sum256(a.cert.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Pool holds the authority's certificate alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// Token is the secret of a boot session: 256 bits, a function of our key, the session and its nonce.
func (a *Authority) Token(session, nonce string) string {
	return base64.RawURLEncoding.EncodeToString(a.derive("token", session, nonce))
}

// TokenHash is what the record keeps of it.
func (a *Authority) TokenHash(session, nonce string) string {
	return HashToken(a.Token(session, nonce))
}

// HashToken hashes a token as the record keeps it.
func HashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// Path is a 128-bit path component for what only one machine should find: the session's files, an instance's phone-home.
func (a *Authority) Path(purpose, id string) string {
	return hex.EncodeToString(a.derive("path", purpose, id)[:16])
}

func (a *Authority) derive(words ...string) []byte {
	mac := hmac.New(sha256.New, a.secret)
	for _, w := range words {
		fmt.Fprintf(mac, "%d:%s", len(w), w)
	}
	return mac.Sum(nil)
}

// Issue signs the certificate of an agent for its session: for the key of the request, and nothing else of it.
func (a *Authority) Issue(csr *x509.CertificateRequest, session, node string, generation int64, now time.Time) ([]byte, error) {
	t := &x509.Certificate{Subject: pkix.Name{CommonName: session, OrganizationalUnit: []string{node, fmt.Sprintf("generation %d", generation)}},
		NotBefore: now.Add(-5 * time.Minute), NotAfter: now.Add(CertLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	return a.sign(t, csr.PublicKey)
}

// Server makes a certificate for the daemon itself, for the addresses that agents dial.
func (a *Authority) Server(addrs []net.IP, now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{Subject: pkix.Name{CommonName: "hostlerd"}, IPAddresses: addrs, DNSNames: []string{"hostlerd"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	p, err := a.sign(t, key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	b, _ := pem.Decode(p)
	return tls.Certificate{Certificate: [][]byte{b.Bytes, a.cert.Raw}, PrivateKey: key}, nil
}

// Replica makes a certificate for a replica to show other replicas, as server and as client. name is what only replicas'
// certificates have; agents' never name a host.
func (a *Authority) Replica(id, name string, now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{Subject: pkix.Name{CommonName: id, OrganizationalUnit: []string{"replica"}}, DNSNames: []string{name},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	p, err := a.sign(t, key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	b, _ := pem.Decode(p)
	return tls.Certificate{Certificate: [][]byte{b.Bytes, a.cert.Raw}, PrivateKey: key}, nil
}

func (a *Authority) sign(t *x509.Certificate, pub crypto.PublicKey) ([]byte, error) {
	var err error
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, pub, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
