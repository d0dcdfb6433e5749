package kmsg

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
)

// A cursor is how far the log was read: sequence numbers begin anew at each boot.
type cursor struct {
	boot string
	seq  uint64
}

func loadCursor(file string) (cursor, error) {
	if file == "" {
		return cursor{}, nil
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return cursor{}, nil
	}
	if err != nil {
		return cursor{}, err
	}
	boot, seq, ok := strings.Cut(strings.TrimSpace(string(b)), " ")
	n, err := strconv.ParseUint(seq, 10, 64)
	if !ok || err != nil {
		return cursor{}, fmt.Errorf("kmsg: %s holds %.60q, which is no boot and record", file, b)
	}
	return cursor{boot, n}, nil
}

// saveCursor replaces the file as a whole.
func saveCursor(file string, c cursor) error {
	if file == "" {
		return nil
	}
	return renameio.WriteFile(file, []byte(fmt.Sprintf("%s %d\n", c.boot, c.seq)), 0o600)
}
