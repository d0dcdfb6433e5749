package rack

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestConsoleLogLines(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	const at = "2026-01-02T03:04:05.006Z "
	tests := []struct {
		name   string
		pieces []string
		want   string
	}{
		{"plain", []string{"hello\r\nworld\r\n"}, at + "hello\n" + at + "world\n"},
		{"in pieces", []string{"hel", "lo\n"}, at + "hello\n"},
		{"a prompt shows before its line ends", []string{"login: "}, at + "login: "},
		{"empty lines are left out", []string{"\n\r\n\na\n"}, at + "a\n"},
		{"colours and cursor", []string{"\x1b[0;37;40mPXE\x1b[2", ";5H boot\n"}, at + "PXE boot\n"},
		{"title and charset", []string{"\x1b]0;title\x07\x1b(Bx\n"}, at + "x\n"},
		{"short escapes and bells", []string{"\x1b7a\x07\x1b8b\n"}, at + "ab\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c cleaner
			var got []byte
			for _, p := range tt.pieces {
				got = append(got, c.line([]byte(p), now)...)
			}
			if string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFindLineKnowsOldBootsFromNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	c, err := newConsole(path)
	if err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("Linux version 6.1\n"))
	time.Sleep(5 * time.Millisecond)
	second := time.Now()
	if _, ok, err := findLine(path, "Linux version", second); ok || err != nil {
		t.Errorf("found the first boot's line (%v, %v), want nothing yet", ok, err)
	}
	c.Write([]byte("Linux ver"))
	c.Write([]byte("sion 6.1"))
	at, ok, err := findLine(path, "Linux version", second)
	if !ok || err != nil || at.Before(second.Truncate(time.Millisecond)) {
		t.Errorf("got %v, %v, %v, want the second line", at, ok, err)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
}

type keyboard chan string

func (k keyboard) Write(p []byte) (int, error) { k <- string(p); return len(p), nil }

func TestAttachedConsolesSeeAndType(t *testing.T) {
	c, err := newConsole(filepath.Join(t.TempDir(), "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	keys := make(keyboard, 1)
	c.plug(keys)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go c.serve(l)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("root\r")); err != nil {
		t.Fatal(err)
	}
	if got := <-keys; got != "root\r" {
		t.Errorf("server read %q", got)
	}
	// What is typed has arrived, so the connection is attached to see this.
	c.Write([]byte("\x1b[1mlogin:"))
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "\x1b[1mlogin:" {
		t.Errorf("saw %q, %v: want what the server printed, unchanged", buf[:n], err)
	}
}
