package rack

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// A monitor is QEMU's control connection (QMP: one JSON object a line). It has
// one user at a time and one request under way.
type monitor struct {
	conn    net.Conn
	log     *slog.Logger
	mu      sync.Mutex // one request at a time
	answers chan qmpMessage
}

type qmpMessage struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// qmpPatience bounds a request. QEMU answers in milliseconds; ipmi_sim stands
// still while its glue waits for us.
const qmpPatience = 3 * time.Second

// openMonitor connects as soon as QEMU has made its socket. quit ends the wait.
func openMonitor(path string, log *slog.Logger, quit <-chan struct{}) (*monitor, error) {
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			m := &monitor{conn: conn, log: log, answers: make(chan qmpMessage)}
			go m.read()
			return m, m.do("qmp_capabilities", nil)
		}
		select {
		case <-quit:
			return nil, fmt.Errorf("rack: connect to %s: %w", path, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// read hands answers to do and events to the log, until QEMU ends.
func (m *monitor) read() {
	defer close(m.answers)
	for d := json.NewDecoder(m.conn); ; {
		var msg qmpMessage
		if err := d.Decode(&msg); err != nil {
			return
		}
		switch {
		case msg.Event != "":
			m.log.Debug("qemu event", "event", msg.Event, "data", string(msg.Data))
		case msg.Return != nil || msg.Error != nil:
			m.answers <- msg
		}
	}
}

// do executes one command and waits for its answer.
func (m *monitor) do(command string, args map[string]any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	req := map[string]any{"execute": command}
	if args != nil {
		req["arguments"] = args
	}
	m.conn.SetDeadline(time.Now().Add(qmpPatience))
	defer m.conn.SetDeadline(time.Time{})
	if err := json.NewEncoder(m.conn).Encode(req); err != nil {
		return fmt.Errorf("rack: qemu %s: %w", command, err)
	}
	a, ok := <-m.answers
	if !ok {
		return fmt.Errorf("rack: qemu %s: %w", command, errQEMUGone)
	}
	if a.Error != nil {
		return fmt.Errorf("rack: qemu %s: %s: %s", command, a.Error.Class, a.Error.Desc)
	}
	return nil
}

var errQEMUGone = errors.New("qemu ended, or does not answer")

// setBootOrder changes the order for the next reset: QEMU hands it to the
// firmware anew at every reset, so a reboot from inside follows it too.
func (m *monitor) setBootOrder(order []string) error {
	set := func(device string, index int) error {
		return m.do("qom-set", map[string]any{"path": "/machine/peripheral/" + device, "property": "bootindex", "value": index})
	}
	for _, d := range order { // an index can be taken once: free all of them first
		if err := set(d, -1); err != nil {
			return err
		}
	}
	for i, d := range order {
		if err := set(d, i); err != nil {
			return err
		}
	}
	return nil
}
