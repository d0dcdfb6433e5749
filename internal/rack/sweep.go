package rack

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// runRoot holds one folder per running rack: run file, control socket, QMP
// sockets. Short, because a unix socket's path has 108 bytes.
const runRoot = "/run/hostler-rack"

// A runFile is what a later start, or hostler-rack down, must know about a run.
type runFile struct {
	Name       string   `json:"name"`
	Supervisor procID   `json:"supervisor"`
	Dir        string   `json:"dir"`
	Ports      Ports    `json:"ports"`
	Children   []procID `json:"children"`
}

// nameOK keeps names usable in paths, in a namespace's name and in a shell word
// (ipmi_sim runs its glue through one).
var nameOK = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

func netnsName(rack string) string { return "hostler-" + rack }
func runDir(rack string) string    { return filepath.Join(runRoot, rack) }
func runPath(rack string) string   { return filepath.Join(runDir(rack), "run.json") }

// ControlSocket is where the supervisor of a rack answers.
func ControlSocket(rack string) string { return filepath.Join(runDir(rack), "control.sock") }

// save writes the file whole, or not at all. No fsync: it is about processes,
// and those do not survive a power cut either.
func (r runFile) save() error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := runPath(r.Name) + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("rack: write run file: %w", err)
	}
	if err := os.Rename(tmp, runPath(r.Name)); err != nil {
		return fmt.Errorf("rack: write run file: %w", err)
	}
	return nil
}

func loadRun(name string) (runFile, error) {
	r := runFile{Name: name}
	b, err := os.ReadFile(runPath(name))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("rack: %s: %w", runPath(name), err)
	}
	return r, nil
}

// lock makes sure that one process at a time builds, runs or sweeps a rack. The
// kernel drops the lock when its holder dies, and children do not inherit it.
func lock(name string) (*os.File, error) {
	if err := os.MkdirAll(runRoot, 0o700); err != nil {
		return nil, fmt.Errorf("rack: %w", err)
	}
	path := runDir(name) + ".lock"
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("rack: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, taken(name)
	}
	// The last holder removes the file: between our open and our lock another may
	// have made and locked a new one.
	var ours, named unix.Stat_t
	if unix.Fstat(int(f.Fd()), &ours) != nil || unix.Stat(path, &named) != nil || ours.Ino != named.Ino {
		f.Close()
		return nil, taken(name)
	}
	return f, nil
}

func taken(name string) error {
	who := "another hostler-rack"
	if r, err := loadRun(name); err == nil && r.Supervisor.alive() {
		who = fmt.Sprintf("process %d", r.Supervisor.PID)
	}
	return fmt.Errorf("rack %s is already running (%s): end it with hostler-rack down --name %s, or choose another --name", name, who, name)
}

// sweep removes what a dead run left: the children on record, by pid and start
// time; processes that live in its namespace (ours by construction, whether or
// not there was time to record them); the namespace with its links; the run
// folder. It wants the lock held.
func sweep(name string) error {
	r, err := loadRun(name)
	if err != nil && !os.IsNotExist(err) {
		r.Children = nil // a torn file: the namespace still tells
	}
	victims := append(r.Children, inNamespace(netnsName(name))...)
	var errs []error
	for _, v := range victims {
		errs = append(errs, v.signal(unix.SIGKILL))
	}
	for _, v := range victims {
		if !v.gone(5 * time.Second) {
			errs = append(errs, fmt.Errorf("rack: process %d (%s) does not end", v.PID, v.What))
		}
	}
	errs = append(errs, removeNamespace(netnsName(name)))
	if r.Dir != "" {
		errs = append(errs, removeDrives(r.Dir))
	}
	if err := os.RemoveAll(runDir(name)); err != nil {
		errs = append(errs, fmt.Errorf("rack: %w", err))
	}
	return errors.Join(errs...)
}

// inNamespace finds the processes in a named network namespace, by its inode.
// The calling process is not one of them, whatever its threads do.
func inNamespace(name string) []procID {
	var ns unix.Stat_t
	if err := unix.Stat(filepath.Join(netnsDir, name), &ns); err != nil {
		return nil
	}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []procID
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var its unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &its); err != nil {
			continue
		}
		if its.Ino == ns.Ino && its.Dev == ns.Dev {
			if p, err := identify("in namespace "+name, pid); err == nil {
				found = append(found, p)
			}
		}
	}
	return found
}

// Sweep removes what a rack's dead run left behind. It refuses while the rack
// runs.
func Sweep(name string) error {
	if !nameOK.MatchString(name) {
		return badName(name)
	}
	l, err := lock(name)
	if err != nil {
		return err
	}
	defer unlock(l)
	return sweep(name)
}

// unlock ends a hold and removes its file.
func unlock(l *os.File) {
	os.Remove(l.Name())
	l.Close()
}

// Racks lists the names that have a run folder, running or dead.
func Racks() ([]string, error) {
	dirs, err := os.ReadDir(runRoot)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("rack: %w", err)
	}
	var names []string
	for _, d := range dirs {
		if d.IsDir() && nameOK.MatchString(d.Name()) {
			names = append(names, d.Name())
		}
	}
	return names, nil
}

// Stop ends a running rack from another process: SIGTERM to its supervisor,
// SIGKILL after the grace time, then a sweep. A rack that does not run is fine.
func Stop(name string, grace time.Duration) error {
	if !nameOK.MatchString(name) {
		return badName(name)
	}
	r, err := loadRun(name)
	if err == nil && r.Supervisor.alive() {
		if err := r.Supervisor.signal(unix.SIGTERM); err != nil {
			return err
		}
		if !r.Supervisor.gone(grace) {
			if err := r.Supervisor.signal(unix.SIGKILL); err != nil {
				return err
			}
			r.Supervisor.gone(grace)
		}
	}
	return Sweep(name)
}

func badName(name string) error {
	return fmt.Errorf("rack name %q: use a-z, 0-9 and -, at most 31 characters, letter or digit first", name)
}
