package burnin

import (
	"math/big"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The constants of knownAnswers, computed in another way: bit by bit, and with numbers that cannot overflow.
func TestKnownAnswersAreRight(t *testing.T) {
	at := func(i int) uint64 {
		var v uint64
		for b := range 8 {
			v |= uint64(block[i+b]) << (8 * b)
		}
		return v
	}
	two64 := new(big.Int).Lsh(big.NewInt(1), 64)
	fold := func(a, b func(i, j int) *big.Int) uint64 {
		f := new(big.Int)
		for i := range side {
			for j := range side {
				sum := new(big.Int)
				for k := range side {
					sum.Add(sum, new(big.Int).Mul(a(i, k), b(k, j)))
				}
				f.Add(f.Mul(f, big.NewInt(1099511628211)), sum)
				f.Mod(f, two64)
			}
		}
		return f.Uint64()
	}
	crc := ^uint32(0)
	for _, c := range block {
		crc ^= uint32(c)
		for range 8 {
			crc = crc>>1 ^ bits.Reverse32(0x1edc6f41)&-(crc&1)
		}
	}
	want := map[string]uint64{
		"crc32c": uint64(^crc),
		"matrix-integer": fold(
			func(i, j int) *big.Int { return new(big.Int).SetUint64(at((i*side + j) * 8)) },
			func(i, j int) *big.Int { return new(big.Int).SetUint64(at((j*side+i)*8 + side*side*8)) }),
		"matrix-float": fold(
			func(i, j int) *big.Int { return big.NewInt(int64(int8(block[i*side+j]))) },
			func(i, j int) *big.Int { return big.NewInt(int64(int8(block[j*side+i+side*side]))) }),
		"sha256": 0x6abae36373205a56, // sha256sum of the block, by coreutils
	}
	for _, k := range knownAnswers(0) {
		if k.answer != want[k.name] || k.run() != k.answer {
			t.Errorf("%s: constant %#x, kernel %#x, truth %#x", k.name, k.answer, k.run(), want[k.name])
		}
	}
}

func TestOnlineProcessors(t *testing.T) {
	for text, want := range map[string][]int{
		"0\n": {0}, "0-2,8\n": {0, 1, 2, 8}, "": nil, "3-1": nil, "0-x": nil,
	} {
		file := filepath.Join(t.TempDir(), "online")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := online(file)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}
