package rack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"
)

// A Request is one line of JSON to a running rack's control socket. The answer
// is one line too; after "console" the connection is the server's serial port.
type Request struct {
	Op       string   `json:"op"`                 // a key of ops
	Node     string   `json:"node,omitempty"`     // name, serial, MAC or UUID
	Args     []string `json:"args,omitempty"`     // glue: what ipmi_sim said
	Instance string   `json:"instance,omitempty"` // attach: whose network; "" is the provisioning network
}

// A Reply answers a Request. Fields are set as the operation has use for them.
type Reply struct {
	Error  string     `json:"error,omitempty"`
	Glue   string     `json:"glue,omitempty"`
	Port   *PortState `json:"port,omitempty"`
	Status *Status    `json:"status,omitempty"`
}

// ops are all operations on one server.
var ops = map[string]func(*Node, Request, *Reply) error{
	"press": func(n *Node, _ Request, _ *Reply) error { return n.Button() },
	"hold":  func(n *Node, _ Request, _ *Reply) error { return n.Off() },
	"glue": func(n *Node, q Request, r *Reply) (err error) {
		r.Glue, err = n.glue(q.Args)
		return err
	},
	"isolate": func(n *Node, _ Request, r *Reply) error { return n.plugAndTell(PortState{Port: Isolated}, r) },
	"attach": func(n *Node, q Request, r *Reply) error {
		to := PortState{Port: Provisioning}
		if q.Instance != "" {
			to = PortState{Port: Tenant, Instance: q.Instance}
		}
		return n.plugAndTell(to, r)
	},
	"observe": func(n *Node, _ Request, r *Reply) error { return n.tellPort(r) },
	"console": func(*Node, Request, *Reply) error { return nil },
}

func (n *Node) plugAndTell(to PortState, r *Reply) error {
	if err := n.Plug(to); err != nil {
		return err
	}
	n.log.Info("cable moved", "port", to.Port, "instance", to.Instance)
	return n.tellPort(r)
}

func (n *Node) tellPort(r *Reply) error {
	s, err := n.Port()
	r.Port = &s
	return err
}

// glue does what ipmi_sim asks of its chassis: "get power boot" or "set power 1
// boot pxe", any number of names. The answer to get is a line "name:value" each.
func (n *Node) glue(args []string) (string, error) {
	if len(args) == 0 {
		return "", errors.New("rack: glue: say get or set")
	}
	var out strings.Builder
	for verb, rest := args[0], args[1:]; len(rest) > 0; rest = rest[1:] {
		name := rest[0]
		if verb == "set" {
			if len(rest) < 2 {
				return "", fmt.Errorf("rack: glue: set %s to what?", name)
			}
			rest = rest[1:]
			if err := n.glueSet(name, rest[0]); err != nil {
				return "", err
			}
			continue
		}
		value, err := n.glueGet(verb, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "%s:%s\n", name, value)
	}
	return out.String(), nil
}

func (n *Node) glueGet(verb, name string) (string, error) {
	value, ok := map[string]string{
		"power": map[bool]string{true: "1", false: "0"}[n.Power()],
		"boot":  string(n.Boot()),
		// What the controller's network card is set to; "set" of these is refused.
		"ip_addr": n.BMC.String(), "ip_addr_src": "static", "mac_addr": n.BMCMAC, "subnet_mask": "255.255.255.0",
		"default_gw_ip_addr": bmcHostIP, "default_gw_mac_addr": bmcBridge.mac,
		"backup_gw_ip_addr": "0.0.0.0", "backup_gw_mac_addr": "00:00:00:00:00:00",
	}[name]
	if verb != "get" || !ok {
		return "", fmt.Errorf("rack: glue: cannot %s %q", verb, name)
	}
	return value, nil
}

func (n *Node) glueSet(name, value string) error {
	switch name {
	case "power":
		if value == "0" {
			return n.Off()
		}
		return n.On()
	case "boot":
		return n.SetBoot(Boot(value))
	case "reset":
		return n.Reset()
	case "shutdown":
		return n.Shutdown()
	case "identify": // "seconds force"; the case's blue light is a line in the log
		n.log.Info("identify", "for", value)
		return nil
	}
	return fmt.Errorf("rack: glue: cannot set %q", name)
}

// serveControl answers requests until the listener is closed.
func (r *Rack) serveControl(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go r.answer(conn)
	}
}

func (r *Rack) answer(conn net.Conn) {
	defer conn.Close()
	var q Request
	var a Reply
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if err := json.NewDecoder(conn).Decode(&q); err != nil {
		return // nobody who speaks our language
	}
	conn.SetReadDeadline(time.Time{})
	n, err := r.control(q, &a)
	if err != nil {
		a.Error = err.Error()
	}
	if json.NewEncoder(conn).Encode(a) == nil && err == nil && q.Op == "console" {
		n.console.attach(conn)
	}
}

func (r *Rack) control(q Request, a *Reply) (*Node, error) {
	if q.Op == "status" {
		s, err := r.Status()
		a.Status = &s
		return nil, err
	}
	op, ok := ops[q.Op]
	if !ok {
		return nil, fmt.Errorf("rack: no operation %q", q.Op)
	}
	n, err := r.Node(q.Node)
	if err != nil {
		return nil, err
	}
	return n, op(n, q, a)
}

// Ask sends one request to the rack behind a control socket.
func Ask(socket string, q Request) (Reply, error) {
	conn, a, err := ask(socket, q)
	if err == nil {
		conn.Close()
	}
	return a, err
}

// Console connects to a server's serial port.
func Console(socket, node string) (net.Conn, error) {
	conn, _, err := ask(socket, Request{Op: "console", Node: node})
	return conn, err
}

// asking bounds a request; the longest is a power-on on a busy machine.
const asking = 20 * time.Second

func ask(socket string, q Request) (net.Conn, Reply, error) {
	var a Reply
	conn, err := net.Dial("unix", socket)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, a, fmt.Errorf("no rack runs at %s: start one with make rack or hostler-rack up", socket)
		}
		return nil, a, fmt.Errorf("rack: %w", err)
	}
	conn.SetDeadline(time.Now().Add(asking))
	if err = json.NewEncoder(conn).Encode(q); err == nil {
		a, err = readReply(conn)
	}
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	} else if err != nil {
		err = fmt.Errorf("rack: %s: %w", q.Op, err)
	}
	if err != nil {
		conn.Close()
		return nil, a, err
	}
	conn.SetDeadline(time.Time{})
	return conn, a, nil
}

// readReply reads one line and not a byte more: the console follows it.
func readReply(conn net.Conn) (Reply, error) {
	var a Reply
	var line []byte
	for b := make([]byte, 1); len(line) == 0 || line[len(line)-1] != '\n'; line = append(line, b[0]) {
		if _, err := conn.Read(b); err != nil {
			return a, err
		}
	}
	return a, json.Unmarshal(line, &a)
}
