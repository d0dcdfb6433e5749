package rack

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// consoleTime is the format of the first word of each line in a console log,
// in UTC.
const consoleTime = "2006-01-02T15:04:05.000Z"

// A console is a server's serial port. What the server prints goes to a log, a
// time before each line and without terminal escapes, and as it is to everybody
// attached: ipmi_sim for serial-over-LAN, people with hostler-rack console.
type console struct {
	mu      sync.Mutex
	log     io.WriteCloser
	clean   cleaner
	readers map[chan []byte]bool
	input   io.Writer // of the running server; nil when it is off
}

func newConsole(path string) (*console, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("rack: open console log: %w", err)
	}
	return &console{log: f, readers: map[chan []byte]bool{}}, nil
}

// Write takes what the server prints. It never fails and never waits: a reader
// who does not keep up loses text, and so does a log on a full disk.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log.Write(c.clean.line(p, time.Now()))
	for r := range c.readers {
		select {
		case r <- append([]byte(nil), p...):
		default:
		}
	}
	return len(p), nil
}

// note writes a line of the rack's own, so that the log shows power-ons.
func (c *console) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log.Write(c.clean.line([]byte("\n*** "+fmt.Sprintf(format, args...)+"\n"), time.Now()))
}

// plug connects the keyboard side; nil unplugs it.
func (c *console) plug(input io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.input = input
}

// attach passes text both ways until the connection ends.
func (c *console) attach(conn net.Conn) {
	out := make(chan []byte, 256)
	c.mu.Lock()
	c.readers[out] = true
	c.mu.Unlock()
	end := make(chan struct{})
	go func() {
		defer close(end)
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			c.mu.Lock()
			in := c.input
			c.mu.Unlock()
			if in != nil {
				in.Write(buf[:n]) // typing into a server that just went off is lost
			}
		}
	}()
	defer func() {
		c.mu.Lock()
		delete(c.readers, out)
		c.mu.Unlock()
		conn.Close()
		<-end
	}()
	for {
		select {
		case p := <-out:
			if _, err := conn.Write(p); err != nil {
				return
			}
		case <-end:
			return
		}
	}
}

// serve attaches everybody who connects, until the listener is closed.
func (c *console) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go c.attach(conn)
	}
}

func (c *console) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.Close()
}

// A cleaner turns terminal output into log lines. Firmware draws its pages with
// cursor movements; only the text between them is kept.
type cleaner struct {
	inLine bool // something of the current line is written
	escape byte // 0 outside, else the last significant byte of an escape sequence
}

func (c *cleaner) line(p []byte, now time.Time) []byte {
	var out []byte
	for _, b := range p {
		switch {
		case c.escape == 0x1b && (b == '[' || b == '(' || b == ')' || b == ']'):
			c.escape = b
		case c.escape == '[':
			if b >= 0x40 && b <= 0x7e { // final byte of a control sequence, ECMA-48 5.4
				c.escape = 0
			}
		case c.escape == ']':
			if b == 0x07 || b == '\\' { // end of an operating system command
				c.escape = 0
			}
		case c.escape != 0:
			c.escape = 0
		case b == 0x1b:
			c.escape = b
		case b == '\n':
			if c.inLine {
				out = append(out, '\n')
			}
			c.inLine = false
		case b >= 0x20 && b != 0x7f || b == '\t':
			if !c.inLine {
				out = append(append(out, now.UTC().Format(consoleTime)...), ' ')
				c.inLine = true
			}
			out = append(out, b)
		}
	}
	return out
}

// findLine returns the time of the first line of a console log that contains
// text and was begun at since or later.
func findLine(path, text string, since time.Time) (time.Time, bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("rack: read console log: %w", err)
	}
	defer f.Close()
	since = since.Truncate(time.Millisecond) // no finer in the log
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadString('\n')
		stamp, said, _ := strings.Cut(line, " ")
		if at, bad := time.Parse(consoleTime, stamp); bad == nil && !at.Before(since) && strings.Contains(said, text) {
			return at, true, nil
		}
		if err == io.EOF {
			return time.Time{}, false, nil
		}
		if err != nil {
			return time.Time{}, false, fmt.Errorf("rack: read console log: %w", err)
		}
	}
}
