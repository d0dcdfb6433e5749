package rack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

// bmcFiles are what ipmi_sim wants of one controller, by file name.
var bmcFiles = map[string]*template.Template{
	// ipmi_lan(5). Not in it: chassis_control and lan_config_program, shell commands
	// to which ipmi_sim adds "get power", "set boot pxe", "get mac_addr". Allowed authentication is for
	// IPMI 1.5; everybody here uses RMCP+ (cipher suite 3).
	"lan.conf": template.Must(template.New("lan.conf").Parse(`name "{{.Name}}"
set_working_mc 0x20
  startlan 1
    addr {{.BMC}} 623
    priv_limit admin
    allowed_auths_admin md5
    guid {{.GUID}}
    lan_config_program "{{.Glue}}"
  endlan
  chassis_control "{{.Glue}}"
  serial 15 127.0.0.1 {{.KCS}} codec VM
  sol "tcp:127.0.0.1:{{.SOL}}" 115200
  user 2 true "{{.User}}" "{{.Password}}" admin 10 md5
`)),
	// ipmi_sim_cmd(5). Sensor 0 must be the watchdog; sensor 1 reads a file.
	"node.emu": template.Must(template.New("node.emu").Parse(`mc_setbmc 0x20
mc_add 0x20 0x20 no-device-sdrs 0x01 2 10 0x9f 0x000137 0x0f02 persist_sdr
sel_enable 0x20 1000 0x0a
sensor_add 0x20 0 0 35 0x6f event-only
sensor_set_event_support 0x20 0 0 enable scanning per-state 000000000001111 000000000000000 000000000001111 000000000000000
sensor_add 0x20 0 1 0x01 0x01 poll 500 file "{{.Dir}}/inlet.temp"
sensor_set_threshold 0x20 0 1 settable 111000 0x5a 0x50 0x46 00 00 00
sensor_set_event_support 0x20 0 1 enable scanning per-state 000111111000000 000111111000000 000111111000000 000111111000000
mc_add_fru_data 0x20 0 {{.FRUBytes}} file 0 "{{.Dir}}/fru.bin"
mc_enable 0x20
`)),
	// Source of the sensor records, for sdrcomp.
	"node.sdrs": template.Must(template.New("node.sdrs").Parse(`sdr type 18
	device_slave_address 0x20
	device_channel_number 0
	chassis true
	ipmb_event_gen false
	ipmb_event_recv false
	fru_inventory true
	sel true
	sdr true
	sensor true
	entity_id system_board
	entity_instance 1
	id_string "rackbmc"
endsdr
sdr type 3
	sensor_owner_id 0x20
	sensor_owner_lun 0
	channel_number 0
	sensor_number 0
	entity_id system_board
	entity_instance 1
	sensor_type Watchdog_2
	event_reading_type_code 0x6f
	id_string "watchdog"
endsdr
sdr type 1
	sensor_owner_id 0x20
	sensor_owner_lun 0
	channel_number 0
	sensor_number 1
	entity_id system_board
	entity_instance 1
	sensor_type Temperature
	init_scanning true
	init_sensor_type true
	default_sensor_scan_on true
	event_reading_type_code 1
	analog_data_format unsigned
	rate_unit none
	modifier_unit none
	percentage false
	base_unit degrees_C
	modifier_unit_code unspecified
	linearization linear
	m 1
	tolerance 0
	b 0
	accuracy 1
	accuracy_exp 0
	sensor_direction input
	r_exp 0
	b_exp 0
	sensor_maximum 255
	sensor_minimum 0
	id_string "Inlet Temp"
endsdr
`)),
}

// newPassword makes a BMC password: 80 random bits in 16 characters, which is
// what IPMI 1.5 has room for and no shell or config file minds.
func newPassword() string {
	var b [10]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// renderBMC makes the text of a controller's files. The password stands in
// lan.conf and nowhere else.
func renderBMC(f Facts, dir, glue, password string) (map[string][]byte, error) {
	out := map[string][]byte{
		"fru.bin":    fru(f),
		"inlet.temp": []byte("24\n"),
	}
	for name, t := range bmcFiles {
		var b bytes.Buffer
		err := t.Execute(&b, map[string]any{
			"Name": f.Name, "Dir": dir, "BMC": f.BMC, "GUID": smbiosUUID(f.UUID),
			"Glue": glue, "KCS": f.kcsPort(), "SOL": f.solPort(),
			"User": BMCUser, "Password": password, "FRUBytes": fruBytes,
		})
		if err != nil {
			return nil, fmt.Errorf("rack: write %s of %s: %w", name, f.Name, err)
		}
		out[name] = b.Bytes()
	}
	return out, nil
}

// startBMC starts a server's controller and waits until it has its address.
func (n *Node) startBMC(ctx context.Context, glue, password string) error {
	dir := filepath.Join(n.dir, "bmc")
	// ipmi_sim looks for the sensor records under this very name.
	state := filepath.Join(dir, "state", "ipmi_sim", n.Name)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return fmt.Errorf("rack: %w", err)
	}
	files, err := renderBMC(n.Facts, dir, glue, password)
	if err != nil {
		return err
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return fmt.Errorf("rack: %w", err)
		}
	}
	sdr := exec.Command("sdrcomp", "-o", filepath.Join(state, "sdr.20.main"), filepath.Join(dir, "node.sdrs"))
	var said bytes.Buffer
	sdr.Stdout, sdr.Stderr = &said, &said
	if err := n.children.run(ctx, "sdrcomp "+n.Name, sdr); err != nil {
		return fmt.Errorf("rack: sdrcomp for %s: %w: %s", n.Name, err, said.Bytes())
	}

	if n.sol, err = n.children.ns.listen(fmt.Sprintf("127.0.0.1:%d", n.solPort())); err != nil {
		return fmt.Errorf("rack: serial-over-LAN of %s: %w", n.Name, err)
	}
	go n.console.serve(n.sol)

	if n.bmc, err = n.runBMC(dir); err != nil {
		return err
	}
	if err := n.waitBMC(ctx); err != nil {
		return err
	}
	go n.keepBMC(dir)
	return nil
}

// bmcLog is where ipmi_sim's own words go.
func (n *Node) bmcLog() string { return filepath.Join(n.dir, "bmc.log") }

// runBMC starts ipmi_sim on what startBMC laid out.
func (n *Node) runBMC(dir string) (*Process, error) {
	log, err := os.OpenFile(n.bmcLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("rack: %w", err)
	}
	defer log.Close()
	// A server that goes off closes its KCS connection; ipmi_sim dies of SIGPIPE
	// when it writes at that moment.
	sim := exec.Command("env", "--ignore-signal=PIPE", "ipmi_sim",
		"-c", filepath.Join(dir, "lan.conf"), "-f", filepath.Join(dir, "node.emu"), "-s", filepath.Join(dir, "state"), "-n")
	sim.Dir, sim.Env = dir, []string{"PATH=" + os.Getenv("PATH")}
	sim.Stdout, sim.Stderr = log, log
	return n.children.start("ipmi_sim "+n.Name, sim)
}

// bmcReboot is how long a crashed controller stays away.
const bmcReboot = time.Second

// keepBMC starts a controller that crashed again, as its watchdog would.
func (n *Node) keepBMC(dir string) {
	for {
		n.mu.Lock()
		p := n.bmc
		n.mu.Unlock()
		<-p.Done()
		if n.isClosed() {
			return
		}
		time.Sleep(bmcReboot)
		if err := n.reviveBMC(p, dir); err != nil {
			n.log.Error("bmc stays dead", "err", err)
			return
		}
	}
}

func (n *Node) reviveBMC(dead *Process, dir string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.log.Error("bmc ended, starting it again", "err", dead.Err(), "log", n.bmcLog())
	p, err := n.runBMC(dir)
	if err == nil {
		n.bmc = p
	}
	return err
}

func (n *Node) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
}

// presencePing asks whoever listens on UDP 623 whether it is a controller: RMCP
// header, ASF IANA number 4542, type 80h (IPMI 2.0, 13.2.3). Nobody logs in.
var presencePing = []byte{0x06, 0x00, 0xff, 0x06, 0x00, 0x00, 0x11, 0xbe, 0x80, 0x00, 0x00, 0x00}

// waitBMC waits until the controller answers on the network.
func (n *Node) waitBMC(ctx context.Context) error {
	for {
		if n.ping(ctx) {
			return nil
		}
		select {
		case <-n.bmc.Done():
			return fmt.Errorf("rack: ipmi_sim of %s ended at once (%v), see %s", n.Name, n.bmc.Err(), n.bmcLog())
		case <-ctx.Done():
			return fmt.Errorf("rack: ipmi_sim of %s does not answer, see %s: %w", n.Name, n.bmcLog(), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (n *Node) ping(ctx context.Context) bool {
	c, err := n.children.ns.dial(ctx, "udp", n.BMC.String()+":623")
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := c.Write(presencePing); err != nil {
		return false
	}
	_, err = c.Read(make([]byte, 64))
	return err == nil
}
