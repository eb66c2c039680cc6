package localplatform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
)

const (
	// registerTimeout is how long a process may take until it listens.
	registerTimeout = 5 * time.Second
	// termTimeout is how long a process may take to end by itself.
	termTimeout = time.Second
	// loadTimeout is the same for the load generator, whose clients wait for
	// their answers first.
	loadTimeout = 2 * time.Second
	// killTimeout is how long the system may take to end it.
	killTimeout = 3 * time.Second
)

// loadSeq reads the counters from which processes get their names. They
// outlive the controller, because a name is never given twice.
func (p *Platform) loadSeq() error {
	b, err := os.ReadFile(p.dir.Path("seq.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &p.seq); err != nil {
		return fmt.Errorf("seq.json: %w", err)
	}
	return nil
}

func (p *Platform) nextID(name string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq[name]++
	b, err := json.Marshal(p.seq)
	if err != nil {
		return "", err
	}
	if err := rundir.WriteFile(p.dir.Path("seq.json"), b); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s-%d", name, p.seq[name]), nil
}

// start starts a process and waits until it has registered. On failure no
// process is left, and the error has the last line that it wrote.
func (p *Platform) start(ctx context.Context, e rundir.Entry, env []string) (rundir.Entry, error) {
	select {
	case p.starts <- struct{}{}:
		defer func() { <-p.starts }()
	case <-ctx.Done():
		return e, ctx.Err()
	}
	p.gate.RLock()
	defer p.gate.RUnlock()
	if p.closing || p.ctx.Err() != nil {
		return e, ErrClosed
	}
	name := e.Service
	if name == "" {
		name = e.Role
	}
	var err error
	if e.ID, err = p.nextID(name); err != nil {
		return e, fmt.Errorf("localplatform: start %s: %w", name, err)
	}
	logName := p.dir.Path("log", e.ID+".log")
	out, err := os.Create(logName)
	if err != nil {
		return e, fmt.Errorf("localplatform: start %s: %w", e.ID, err)
	}
	defer out.Close() // the process has its own
	args := append(append([]string{}, p.opts.ArgsPrefix...), e.Role,
		"-dir", string(p.dir), "-id", e.ID, "-lease", p.opts.Lease.String(), "-controller", strconv.Itoa(os.Getpid()))
	for _, f := range []struct{ flag, value string }{
		{"-name", e.Service}, {"-namespace", e.Namespace}, {"-image", e.Image}, {"-template", e.Template},
		{"-owner", e.Owner}, {"-action", e.Action}, {"-replaces", e.Replaces},
	} {
		if f.value != "" {
			args = append(args, f.flag, f.value)
		}
	}
	cmd := exec.Command(p.opts.Executable, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = rundir.Detached()
	procs := "1"
	if e.Role != rundir.RoleService {
		procs = "2"
	}
	// As in a container, a process sees the environment of its manifest and
	// not the controller's.
	cmd.Env = append([]string{"GOMAXPROCS=" + procs, "GOTRACEBACK=single"}, env...)
	for _, keep := range []string{"PATH", "HOME", "TMPDIR", "GOCOVERDIR", "SYSTEMROOT"} {
		if v, ok := os.LookupEnv(keep); ok {
			cmd.Env = append(cmd.Env, keep+"="+v)
		}
	}
	if err := cmd.Start(); err != nil {
		return e, fmt.Errorf("localplatform: start %s: %w", e.ID, err)
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.children[e.ID] = done
	p.mu.Unlock()
	p.waits.Go(func() {
		err := cmd.Wait()
		p.log.Debug("ended", "id", e.ID, "result", err)
		p.mu.Lock()
		delete(p.children, e.ID)
		p.mu.Unlock()
		close(done)
		select {
		case p.kick <- struct{}{}:
		default:
		}
	})
	fail := func(err error) (rundir.Entry, error) {
		_ = cmd.Process.Kill() // it may have ended
		<-done
		return e, errors.Join(err, p.dir.Unregister(e.ID))
	}
	timeout := p.clock.After(registerTimeout)
	for {
		b, err := os.ReadFile(p.dir.Path("run", e.ID+".json"))
		if err == nil {
			got, err := rundir.ParseEntry(b)
			if err != nil {
				return fail(fmt.Errorf("localplatform: start %s: %w", e.ID, err))
			}
			p.mu.Lock()
			if _, ok := p.procs[e.ID]; !ok {
				p.procs[e.ID] = &proc{entry: got}
			}
			p.mu.Unlock()
			p.log.Info("started", "id", e.ID, "pid", got.PID, "port", got.Port)
			return got, nil
		}
		select {
		case <-done:
			return fail(fmt.Errorf("localplatform: start %s: it ended: %s", e.ID, lastLine(logName)))
		case <-timeout:
			return fail(fmt.Errorf("localplatform: start %s: it does not listen after %v: %s", e.ID, registerTimeout, lastLine(logName)))
		case <-ctx.Done():
			return fail(ctx.Err())
		case <-p.ctx.Done():
			return fail(ErrClosed)
		case <-p.clock.After(5 * time.Millisecond):
		}
	}
}

func lastLine(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return "no log"
	}
	b = bytes.TrimSpace(b)
	s := string(b[bytes.LastIndexByte(b, '\n')+1:])
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	if s == "" {
		return "it wrote nothing"
	}
	return strings.ToValidUTF8(s, "?")
}

// stop ends processes side by side: SIGTERM, and SIGKILL after a second. It
// returns when they are gone, whatever happens to a context meanwhile: a
// second of waiting is better than a process of which nobody knows.
func (p *Platform) stop(entries []rundir.Entry) error {
	p.mu.Lock()
	for _, e := range entries {
		if pr, ok := p.procs[e.ID]; ok {
			pr.stopping = true
		}
	}
	p.mu.Unlock()
	errs := make([]error, len(entries))
	var wg sync.WaitGroup
	for i, e := range entries {
		wg.Go(func() { errs[i] = p.stopOne(e) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (p *Platform) stopOne(e rundir.Entry) error {
	patience := termTimeout
	if e.Role == rundir.RoleLoad {
		patience = loadTimeout
	}
	// A handle taken before the check cannot come to mean another process
	// after it, where the system has such handles.
	h, err := os.FindProcess(e.PID)
	if err == nil {
		defer h.Release()
	}
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, patience}, {syscall.SIGKILL, killTimeout}} {
		if err != nil || !e.Alive() || h.Signal(step.signal) != nil {
			break
		}
		if p.gone(e, step.wait) {
			break
		}
	}
	if e.Alive() {
		return fmt.Errorf("localplatform: process %d of %s does not end", e.PID, e.ID)
	}
	p.log.Info("stopped", "id", e.ID, "pid", e.PID)
	p.mu.Lock()
	delete(p.procs, e.ID)
	p.mu.Unlock()
	return p.dir.Unregister(e.ID)
}

// gone waits until a process has ended.
func (p *Platform) gone(e rundir.Entry, wait time.Duration) bool {
	p.mu.Lock()
	done := p.children[e.ID]
	p.mu.Unlock()
	timeout := p.clock.After(wait)
	for e.Alive() {
		select {
		case <-done:
			done = nil // from here on only the system is asked
		case <-timeout:
			return false
		case <-p.clock.After(20 * time.Millisecond):
		}
	}
	return true
}
