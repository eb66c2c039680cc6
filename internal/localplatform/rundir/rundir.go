package rundir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrLocked says that another controller holds the directory.
var ErrLocked = errors.New("directory is in use by another controller")

// The roles of processes.
const (
	RoleService = "service"
	RoleLB      = "lb"
	RoleLoad    = "load"
)

// The owners of processes.
const (
	// OwnerPlatform started it to satisfy what is declared.
	OwnerPlatform = "platform"
	// OwnerHand is somebody who bypassed the platform.
	OwnerHand = "hand"
)

// Entry is what a process tells of itself.
type Entry struct {
	// ID is unique over the life of the directory: "cart-7".
	ID string `json:"id"`
	// Role is one of the roles; Service and Namespace are set for services.
	Role      string `json:"role"`
	Service   string `json:"service,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	// PID and StartTicks name the process; StartTicks is 0 where the system
	// does not tell.
	PID        int    `json:"pid"`
	StartTicks uint64 `json:"startTicks,omitempty"`
	// Port is where it listens, on 127.0.0.1.
	Port int `json:"port"`
	// Image is what it runs, Template the hash of the pod template that it
	// was started from.
	Image    string `json:"image,omitempty"`
	Template string `json:"template,omitempty"`
	// Owner is who started it.
	Owner string `json:"owner,omitempty"`
	// Action is the restart that started it, and Replaces the ID of the
	// process that it stands in for.
	Action   string `json:"action,omitempty"`
	Replaces string `json:"replaces,omitempty"`
	// Started is when it began to listen.
	Started time.Time `json:"started"`
}

// Alive tells whether the process that wrote the entry still runs.
func (e Entry) Alive() bool { return Alive(e.PID, e.StartTicks) }

// URL is the base of its HTTP endpoints.
func (e Entry) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", e.Port) }

// Dir is a platform's directory.
type Dir string

// Path joins parts to the directory.
func (d Dir) Path(parts ...string) string {
	return filepath.Join(append([]string{string(d)}, parts...)...)
}

// Create makes the directory and its parts where they are missing.
func (d Dir) Create() error {
	for _, sub := range []string{"run", "live", "actions", "registry", "log"} {
		if err := os.MkdirAll(d.Path(sub), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// Register writes the entry, replacing one of the same ID.
func (d Dir) Register(e Entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return WriteFile(d.Path("run", e.ID+".json"), b)
}

// Unregister removes an entry; one that is gone is no error.
func (d Dir) Unregister(id string) error {
	err := os.Remove(d.Path("run", id+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Find gives the live process of a role that has only one, such as the load
// balancer; the youngest if there are several.
func (d Dir) Find(role string) (Entry, bool) {
	entries, err := (&Reader{Dir: d}).Read()
	if err != nil {
		return Entry{}, false
	}
	var found Entry
	for _, e := range entries {
		if e.Role == role && e.Alive() && !e.Started.Before(found.Started) {
			found = e
		}
	}
	return found, found.ID != ""
}

// TouchLease renews the lease.
func (d Dir) TouchLease(now time.Time) error {
	name := d.Path("lease")
	err := os.Chtimes(name, now, now)
	if errors.Is(err, fs.ErrNotExist) {
		return WriteFile(name, nil)
	}
	return err
}

// LeaseAge is how long ago the lease was renewed, or an error that is
// fs.ErrNotExist where there is none.
func (d Dir) LeaseAge(now time.Time) (time.Duration, error) {
	info, err := os.Stat(d.Path("lease"))
	if err != nil {
		return 0, err
	}
	return now.Sub(info.ModTime()), nil
}

// Reader reads the entries of a directory again and again and parses only the
// files that it has not seen: an ID is never used twice. It is not safe for
// concurrent use.
type Reader struct {
	Dir  Dir
	seen map[string]Entry
}

// Read gives the entries ordered by ID, those of dead processes included. It
// fails only where the directory cannot be read.
func (r *Reader) Read() ([]Entry, error) {
	f, err := os.Open(r.Dir.Path("run"))
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	now := make(map[string]Entry, len(names))
	out := make([]Entry, 0, len(names))
	for _, name := range names {
		id, ok := strings.CutSuffix(name, ".json")
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		e, ok := r.seen[name]
		if !ok {
			b, err := os.ReadFile(r.Dir.Path("run", name))
			if err != nil {
				continue // gone between the two calls
			}
			if e, err = ParseEntry(b); err != nil || e.ID != id {
				continue
			}
		}
		now[name] = e
		out = append(out, e)
	}
	r.seen = now
	return out, nil
}

// ParseEntry reads an entry. It refuses one without ID, role or pid: such a
// process could not be told apart or signalled safely.
func ParseEntry(b []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(b, &e); err != nil {
		return Entry{}, fmt.Errorf("rundir: entry: %w", err)
	}
	switch {
	case e.ID == "" || strings.ContainsAny(e.ID, "/\\") || strings.HasPrefix(e.ID, "."):
		return Entry{}, fmt.Errorf("rundir: entry: bad id %q", e.ID)
	case e.Role == "":
		return Entry{}, fmt.Errorf("rundir: entry %s: no role", e.ID)
	case e.PID <= 1:
		return Entry{}, fmt.Errorf("rundir: entry %s: bad pid %d", e.ID, e.PID)
	case e.Port < 0 || e.Port > 65535:
		return Entry{}, fmt.Errorf("rundir: entry %s: bad port %d", e.ID, e.Port)
	}
	return e, nil
}

// WriteFile writes a file so that readers see the old or the new content and
// nothing between, also if the writer is killed.
func WriteFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
