package imaging

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"aead.dev/minisign"
	"github.com/google/renameio/v2"
)

// A PublicKey is a minisign public key; its text form ("RW…") is what sites list under images.trusted_keys.
type PublicKey = minisign.PublicKey

// A PrivateKey is a minisign private key.
type PrivateKey = minisign.PrivateKey

// GenerateKey makes a key without a password, writes it to path (0600, never over another file) and its public half to
// path.pub. minisign(1) understands both.
func GenerateKey(path string) (PublicKey, error) {
	pub, key, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		return pub, fmt.Errorf("imaging: make key: %w", err)
	}
	text, err := key.MarshalText()
	if err != nil {
		return pub, fmt.Errorf("imaging: make key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return pub, fmt.Errorf("imaging: make key: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return pub, fmt.Errorf("imaging: make key: %w", err)
	}
	half, err := pub.MarshalText()
	if err == nil {
		err = renameio.WriteFile(path+".pub", append(half, '\n'), 0o644, renameio.WithTempDir(filepath.Dir(path)))
	}
	return pub, err
}

// LoadKey reads a private key in minisign's format. password is nil for a key without one. A file that others may read
// is refused.
func LoadKey(path string, password []byte) (PrivateKey, error) {
	var key PrivateKey
	st, err := os.Stat(path)
	if err != nil {
		return key, fmt.Errorf("imaging: image key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return key, fmt.Errorf("imaging: image key %s may be read by others (%v): chmod 600 it, or make a new one", path, st.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return key, fmt.Errorf("imaging: image key: %w", err)
	}
	text = bytes.TrimSpace(text)
	switch {
	case !minisign.IsEncrypted(text):
		err = key.UnmarshalText(text)
	case password == nil:
		err = errors.New("it is protected by a password and none was given")
	default:
		key, err = minisign.DecryptKey(string(password), text)
	}
	if err != nil {
		return key, fmt.Errorf("imaging: image key %s: %w", path, err)
	}
	return key, nil
}

// ParsePublicKey reads a public key: a line of its own, or minisign's two-line file.
func ParsePublicKey(text string) (PublicKey, error) {
	var k PublicKey
	if err := k.UnmarshalText(bytes.TrimSpace([]byte(text))); err != nil {
		return k, fmt.Errorf("imaging: image public key: %w", err)
	}
	return k, nil
}

// ErrUntrusted is in the chain of Verify's error when no trusted key made the signature over these bytes.
var ErrUntrusted = errors.New("no trusted key made this signature over these bytes")

// Verify checks the signature over the manifest's exact bytes against every trusted key, and decodes the manifest.
func Verify(manifest, sig []byte, trusted []PublicKey) (*Manifest, error) {
	if len(manifest) > MaxManifest || len(sig) > 4096 {
		return nil, errors.New("imaging: manifest or signature is too long")
	}
	if len(trusted) == 0 {
		return nil, fmt.Errorf("imaging: %w: images.trusted_keys is empty", ErrUntrusted)
	}
	for _, k := range trusted {
		if minisign.Verify(k, manifest, sig) {
			return Decode(manifest)
		}
	}
	var s minisign.Signature
	if err := s.UnmarshalText(sig); err != nil {
		return nil, fmt.Errorf("imaging: signature: %w", err)
	}
	return nil, fmt.Errorf("imaging: %w (key id %X): add the author's key to images.trusted_keys, or the bytes were changed", ErrUntrusted, s.KeyID)
}
