package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/client"
	"github.com/hostler-project/hostler/inventory/ledger"
)

func (a *app) cert() *cobra.Command {
	return group("cert", "Sanitize certificates", a.certShow(), a.certVerify(), a.certKey())
}

func (a *app) certShow() *cobra.Command {
	wipe := int64(-1)
	c := &cobra.Command{Use: "show NODE", Short: "Show a node's newest certificate", Args: args(1, 1, "one node"), ValidArgsFunction: a.nodeNames,
		Example: "  hostler cert show gpu001 -o json > gpu001.cert"}
	c.Flags().Int64Var(&wipe, "wipe", -1, "that of this wipe number")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
		if wipe < 0 {
			l, err := cl.Certificates(c.Context(), args[0])
			if err != nil {
				return err
			}
			if len(l.Certificates) == 0 {
				return fail(exitFailed, "hostler why "+args[0], "%s has no certificate", args[0])
			}
			wipe = l.Certificates[len(l.Certificates)-1].Wipe
		}
		cert, err := cl.Certificate(c.Context(), args[0], wipe)
		if err != nil {
			return err
		}
		var body inventory.CertificateBody
		if err := json.Unmarshal(cert.Body, &body); err != nil {
			return fmt.Errorf("certificate of %s: %w", args[0], err)
		}
		return a.show(cert, func() {
			a.certText(body)
			field(a.out, "signature", "key "+cert.KeyID+", not checked here: hostler cert verify")
		})
	})
	return c
}

func (a *app) certText(b inventory.CertificateBody) {
	a.print("%s  wipe %d  %s", b.Name, b.Wipe, b.Finished.Format(time.RFC3339))
	field(a.out, "node", b.Node+" serial "+b.Serial+" generation "+fmt.Sprint(b.Generation))
	field(a.out, "site", b.Site)
	field(a.out, "instance", b.Instance)
	for _, m := range b.Media {
		verdict := "erased"
		if !m.Passed {
			verdict = "NOT PROVEN: " + strings.Join(m.Faults, "; ")
		}
		field(a.out, "medium", fmt.Sprintf("%s: %s by %s (%s)", m.Medium, verdict, m.Technique, m.Method))
		for _, n := range m.NotDone {
			field(a.out, "  not done", n)
		}
	}
	for _, n := range b.NotDone {
		field(a.out, "not done", n)
	}
	field(a.out, "fence", b.Fence)
}

func (a *app) certVerify() *cobra.Command {
	var key string
	c := &cobra.Command{Use: "verify FILE", Short: "Check a certificate without any server", Args: args(1, 1, "one file"),
		Example: "  hostler cert key > site.pub\n  hostler cert verify gpu001.cert --key site.pub"}
	c.Flags().StringVar(&key, "key", "", "the site's public key (hostler cert key), or a file with it")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if key == "" {
			return fail(exitUsage, "hostler cert key > site.pub", "--key is missing: a certificate proves nothing without the key that you trust")
		}
		pub, err := publicKey(key)
		if err != nil {
			return err
		}
		text, err := a.file(args[0])
		if err != nil {
			return err
		}
		var cert inventory.Certificate
		if err := json.Unmarshal(text, &cert); err != nil {
			return fail(exitFailed, "hostler cert show NODE -o json", "%s is no certificate: %v", args[0], err)
		}
		body, err := ledger.OpenCertificate(cert, pub)
		if err != nil {
			return fail(exitFailed, "compare the key id with hostler cert key; do not trust the file", "%s: %v", args[0], err)
		}
		for _, m := range body.Media {
			if !m.Passed {
				return fail(exitFailed, "", "%s: the signature holds, but %s is not proven erased", args[0], m.Medium)
			}
		}
		if len(body.Media) == 0 {
			return fail(exitFailed, "", "%s: the signature holds, but it names no medium", args[0])
		}
		return a.show(body, func() {
			a.certText(body)
			field(a.out, "signature", "good, key "+ledger.KeyID(pub))
		})
	}
	return c
}

// publicKey reads 32 bytes in base64, from the text itself or from a file.
func publicKey(key string) (ed25519.PublicKey, error) {
	if b, err := base64.StdEncoding.DecodeString(key); err == nil && len(b) == ed25519.PublicKeySize {
		return b, nil
	}
	text, err := os.ReadFile(key)
	if err != nil {
		return nil, fail(exitUsage, "hostler cert key > site.pub", "--key: neither a key nor a file: %v", errors.Unwrap(err))
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, fail(exitUsage, "hostler cert key > site.pub", "--key %s: not 32 bytes in base64", key)
	}
	return b, nil
}

func (a *app) certKey() *cobra.Command {
	return &cobra.Command{Use: "key", Short: "Print the public key that certificates are signed with", Args: args(0, 0, ""),
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, _ []string) error {
			k, err := cl.CertificateKey(c.Context())
			if err != nil {
				return err
			}
			return a.show(k, func() { a.print("%s", k.Key) })
		})}
}
