package imaging

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

const mib = 1 << 20

// A packer compresses chunks, each to a frame of its own. One per goroutine.
type packer struct{ enc *zstd.Encoder }

func newPacker() (*packer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(ChunkSize))
	return &packer{enc}, err
}

func (p *packer) pack(raw, into []byte) []byte { return p.enc.EncodeAll(raw, into[:0]) }

// An unpacker decompresses and checks chunks. One per goroutine.
type unpacker struct{ dec *zstd.Decoder }

func newUnpacker() (*unpacker, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(2*ChunkSize))
	return &unpacker{dec}, err
}

func (u *unpacker) close() { u.dec.Close() }

// ErrContent is in the chain of errors about bytes that are not what their digest says.
var ErrContent = errors.New("the bytes are not what the digest says")

// unpack decompresses a chunk into raw, which has the length that it must have, and compares its SHA-256: the only time
// that this chunk is hashed. No input makes it write or allocate more than len(raw).
func (u *unpacker) unpack(raw, packed []byte, digest string) error {
	out, err := u.open(raw, packed, digest)
	if err != nil {
		return err
	}
	if len(out) != len(raw) {
		return fmt.Errorf("imaging: chunk %.12s: %w: %d bytes instead of %d", digest, ErrContent, len(out), len(raw))
	}
	if &out[0] != &raw[0] { // the decoder chose another buffer
		copy(raw, out)
	}
	return nil
}

// open is unpack for a chunk whose length is not known: at most len(buf).
func (u *unpacker) open(buf, packed []byte, digest string) ([]byte, error) {
	out, err := u.dec.DecodeAll(packed, buf[:0:len(buf)])
	if err != nil {
		return nil, fmt.Errorf("imaging: chunk %.12s: %w: %v", digest, ErrContent, err)
	}
	if sum := sha256.Sum256(out); hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("imaging: chunk %.12s: %w", digest, ErrContent)
	}
	return out, nil
}
