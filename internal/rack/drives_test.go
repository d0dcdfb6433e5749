package rack

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDriveContains(t *testing.T) {
	const pattern = "TENANT-MARK"
	tests := []struct {
		name  string
		bytes int64
		write map[int64]string
		want  bool
	}{
		{"empty drive", 64 << 20, nil, false},
		{"other data", 64 << 20, map[int64]string{0: "TENANT-MAR", 5 << 20: "-MARK"}, false},
		{"at the start", 64 << 20, map[int64]string{0: pattern}, true},
		{"behind a long hole", 64 << 20, map[int64]string{48 << 20: pattern}, true},
		{"at the very end", 64 << 20, map[int64]string{64<<20 - int64(len(pattern)): pattern}, true},
		{"across the reader's buffer", 64 << 20, map[int64]string{0: string(make([]byte, 4<<20)), 1<<20 + 5: pattern}, true},
		{"across buffers, a megabyte on", 64 << 20, map[int64]string{0: string(make([]byte, 4<<20)), 2<<20 - 6: pattern}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Drive{Serial: "x", Bytes: tt.bytes, Path: filepath.Join(t.TempDir(), "nvme0.raw")}
			if err := makeDrives([]Drive{d}); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if long, ok := tt.write[0]; ok { // the rest is written over it
				if _, err := f.WriteAt([]byte(long), 0); err != nil {
					t.Fatal(err)
				}
			}
			for at, text := range tt.write {
				if at == 0 {
					continue
				}
				if _, err := f.WriteAt([]byte(text), at); err != nil {
					t.Fatal(err)
				}
			}
			got, err := contains(d.Path, []byte(pattern))
			if err != nil || got != tt.want {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
	if _, err := contains("/nonexistent", []byte("x")); err == nil {
		t.Error("a drive that is not there: want an error, not absence of the pattern")
	}
}
