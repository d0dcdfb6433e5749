package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"time"
)

// Name is in the certificate of a replica and of nothing else: agents and listeners for agents have others.
const Name = "replica.hostler"

// ServerTLS asks who connects for a certificate of the authority that names a replica.
func ServerTLS(own tls.Certificate, authority *x509.CertPool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, ClientCAs: authority, ClientAuth: tls.RequireAndVerifyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !slices.Contains(s.PeerCertificates[0].DNSNames, Name) {
				return errors.New("the certificate is of no replica")
			}
			return nil
		}}
}

// NewClient reaches other replicas, and takes nobody else for one.
func NewClient(own tls.Certificate, authority *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, RootCAs: authority, ServerName: Name},
		TLSHandshakeTimeout: tryFor, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
	}}
}
