package apitest

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func lines(b []byte) []string { return strings.Fields(string(b)) }
