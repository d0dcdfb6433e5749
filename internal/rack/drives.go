package rack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// makeDrives makes the drives of a new server: all holes, so an empty one takes
// no space and erased blocks give theirs back.
func makeDrives(drives []Drive) error {
	for _, d := range drives {
		f, err := os.OpenFile(d.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("rack: make drive: %w", err)
		}
		err = f.Truncate(d.Bytes)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("rack: make drive %s: %w", d.Path, err)
		}
	}
	return nil
}

// removeDrives removes all servers' drives under a rack's folder and leaves its
// logs, which are read after something went wrong.
func removeDrives(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*", "nvme*.raw"))
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		errs = append(errs, os.Remove(f))
	}
	return errors.Join(errs...)
}

// contains looks for a pattern in a sparse file, reading only what is data. A
// pattern of zeros has no place here: holes are not looked into.
func contains(path string, pattern []byte) (bool, error) {
	if len(pattern) == 0 {
		return false, errors.New("rack: an empty pattern is in every drive")
	}
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("rack: look into drive: %w", err)
	}
	defer f.Close()
	fd := int(f.Fd())
	buf := make([]byte, 1<<20+len(pattern)-1)
	for at := int64(0); ; {
		start, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return false, nil // no data from here on
		}
		if err != nil {
			return false, fmt.Errorf("rack: look into %s: %w", path, err)
		}
		end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil {
			return false, fmt.Errorf("rack: look into %s: %w", path, err)
		}
		found, err := containsIn(io.NewSectionReader(f, start, end-start), buf, pattern)
		if err != nil || found {
			return found, err
		}
		at = end
	}
}

// containsIn looks for a pattern in a stream, across the edges of buf.
func containsIn(r io.Reader, buf, pattern []byte) (bool, error) {
	kept := 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		if bytes.Contains(buf[:kept+n], pattern) {
			return true, nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("rack: look into drive: %w", err)
		}
		kept = copy(buf, buf[kept+n-(len(pattern)-1):kept+n])
	}
}
