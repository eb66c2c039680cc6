package crashtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/remediate"
)

// running gives the live processes that DIR/run tells of.
func running(dir rundir.Dir) ([]rundir.Entry, error) {
	entries, err := (&rundir.Reader{Dir: dir}).Read()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(entries, func(e rundir.Entry) bool { return !e.Alive() }), nil
}

// Processes gives the pids of all live processes that were started for a
// platform's directory, by the system's process table; none where there is no
// /proc.
func Processes(dir string) []int {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline"))
		if err != nil || pid == os.Getpid() {
			continue
		}
		args := strings.Split(string(line), "\x00")
		i := slices.Index(args, "-dir")
		if i < 0 || i+1 >= len(args) || args[i+1] != dir {
			continue
		}
		if _, err := rundir.StartTicks(pid); err == nil { // not a zombie
			out = append(out, pid)
		}
	}
	return out
}

func ready(ctx context.Context, client *http.Client, e rundir.Entry) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL()+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // only the code counts
	return resp.StatusCode == http.StatusOK
}

// asDeclared compares what runs with a desired state and tells all that
// differs. The controller's own pid is no process of the platform.
func (r *run) asDeclared(ctx context.Context, state *reconcile.State) []string {
	entries, err := running(r.dir)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	declared := map[string]bool{}
	for res := range state.All() {
		if res.Key.Kind != "Deployment" {
			continue
		}
		name := res.Key.Name
		declared[name] = true
		want, _ := value(res, "spec.replicas").(int64)
		image, _ := value(res, "spec.template.spec.containers[0].image").(string)
		n := 0
		for _, e := range entries {
			if e.Role != rundir.RoleService || e.Service != name {
				continue
			}
			n++
			switch {
			case e.Image != image:
				say("%s runs %s, and %s is declared", e.ID, e.Image, image)
			case e.Owner != rundir.OwnerPlatform:
				say("%s was started by %s", e.ID, e.Owner)
			case !ready(ctx, r.client, e):
				say("%s is not ready", e.ID)
			}
		}
		if n != int(want) {
			say("%s has %d processes, and %d are declared", name, n, want)
		}
	}
	roles := map[string]int{}
	known := map[int]bool{}
	for _, e := range entries {
		known[e.PID] = true
		roles[e.Role]++
		if e.Role == rundir.RoleService && !declared[e.Service] {
			say("%s runs and is not declared", e.ID)
		}
	}
	for _, role := range []string{rundir.RoleLB, rundir.RoleLoad} {
		if roles[role] != 1 {
			say("%d processes of role %s", roles[role], role)
		}
	}
	pid := r.ctl.pid()
	for _, p := range Processes(string(r.dir)) {
		if !known[p] && p != pid {
			say("process %d is not in DIR/run", p)
		}
	}
	return out
}

func (c *controller) pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cmd.Process.Pid
}

func value(r reconcile.Resource, path string) any {
	p, err := reconcile.ParsePath(path)
	if err != nil {
		return nil
	}
	v, _ := p.Get(r.Object)
	return v
}

// serving tells whether every service has a ready replica.
func (r *run) serving(ctx context.Context) bool {
	entries, err := running(r.dir)
	if err != nil {
		return false
	}
	up := map[string]bool{}
	for _, e := range entries {
		up[e.Role] = true
		if e.Role == rundir.RoleService && !up["service "+e.Service] && ready(ctx, r.client, e) {
			up["service "+e.Service] = true
		}
	}
	for _, s := range shop.Services() {
		if !up["service "+s] {
			return false
		}
	}
	return up[rundir.RoleLB] && up[rundir.RoleLoad]
}

// cases gives the records of the journal that begin and end cases, from a
// copy: the controller has the journal open.
func (r *run) cases(ctx context.Context) (map[string]remediate.RecordKind, error) {
	files, err := os.ReadDir(r.dir.Path("journal"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "evenkeel-journal-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".journal") {
			continue
		}
		b, err := os.ReadFile(r.dir.Path("journal", f.Name()))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(tmp, f.Name()), b, 0o600); err != nil {
			return nil, err
		}
	}
	j, err := remediate.OpenFileJournal(tmp, remediate.FileJournalOptions{NoSync: true})
	if err != nil {
		return nil, err
	}
	defer j.Close()
	out := map[string]remediate.RecordKind{}
	for rec, err := range j.Read(ctx, 1) {
		if err != nil {
			return nil, err
		}
		switch rec.Kind {
		case remediate.CaseOpened, remediate.CaseResolved, remediate.CaseEscalated, remediate.CaseDenied, remediate.CaseObserved:
			out[rec.Case] = rec.Kind
		case remediate.CaseReopened:
			out[rec.Case] = remediate.CaseOpened
		case remediate.ActionVerified: // the end of its case
			out[rec.Case] = remediate.CaseResolved
		}
	}
	return out, nil
}

// restarts gives the instances that automation set out to replace, one for
// each action, from the platform's records.
func restarts(dir rundir.Dir) ([]string, error) {
	files, err := filepath.Glob(dir.Path("actions", "*.json"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		var a struct {
			Instance string `json:"instance"`
		}
		if err := json.Unmarshal(b, &a); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		out = append(out, a.Instance)
	}
	return out, nil
}

// inject switches a fault on in a replica.
func (r *run) inject(ctx context.Context, e rundir.Entry, f shop.Fault) error {
	body, err := json.Marshal(f)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL()+"/fault", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("fault: %s", resp.Status)
	}
	return nil
}

// oldest gives the replica of a service that has run for longest: the last
// that scaling down would take.
func (r *run) oldest(service string) (rundir.Entry, error) {
	entries, err := running(r.dir)
	if err != nil {
		return rundir.Entry{}, err
	}
	var out rundir.Entry
	for _, e := range entries {
		if e.Service == service && (out.ID == "" || e.Started.Before(out.Started)) {
			out = e
		}
	}
	if out.ID == "" {
		return out, fmt.Errorf("no replica of %s runs", service)
	}
	return out, nil
}

// sweep ends whatever is left in the directory.
func sweep(dir rundir.Dir) {
	_ = os.Remove(dir.Path("lease")) // what is about to register ends by itself
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		entries, err := running(dir)
		if err != nil || len(entries) == 0 {
			return
		}
		for _, e := range entries {
			if p, err := os.FindProcess(e.PID); err == nil && e.Alive() {
				_ = p.Kill() // it may have ended meanwhile
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}
