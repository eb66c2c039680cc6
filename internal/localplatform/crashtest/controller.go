package crashtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
)

// controller is the program under test, over its restarts.
type controller struct {
	args []string
	out  io.Writer

	mu      sync.Mutex
	cmd     *exec.Cmd
	done    chan struct{} // closed when cmd has ended
	killed  bool          // cmd is to end
	since   time.Time     // of the start, or of serving where that is later
	uptime  time.Duration // while serving, of those that were killed
	serving bool
	starts  int
}

func (c *controller) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	cmd := exec.Command(c.args[0], c.args[1:]...)
	cmd.Stdout, cmd.Stderr = c.out, c.out
	cmd.SysProcAttr = rundir.Detached() // a Ctrl-C is for whoever runs the test
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("crashtest: start the controller: %w", err)
	}
	done := make(chan struct{})
	c.cmd, c.done, c.killed, c.since = cmd, done, false, time.Now()
	c.starts++
	go func() {
		_ = cmd.Wait() // its state tells
		close(done)
	}()
	return nil
}

// kill takes the controller away as a machine would that loses power, and
// returns when it is gone.
func (c *controller) kill() {
	c.mu.Lock()
	c.killed = true
	if c.serving {
		c.uptime += time.Since(c.since)
	}
	cmd, done := c.cmd, c.done
	c.mu.Unlock()
	_ = cmd.Process.Kill() // it may have ended, which ended tells
	<-done
}

// ended gives an error where the controller is gone and nobody killed it.
func (c *controller) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.done:
	default:
		return nil
	}
	if c.killed {
		return nil
	}
	return fmt.Errorf("the controller ended by itself: %s", c.cmd.ProcessState)
}

// serve begins the count of the time for which the shop has been served.
func (c *controller) serve() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving, c.since = true, time.Now()
}

// served is for how long the controller was there while the shop was served.
func (c *controller) served() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed {
		return c.uptime
	}
	return c.uptime + time.Since(c.since)
}

// interrupt ends the controller as Ctrl-C does, and gives its exit code.
func (c *controller) interrupt(ctx context.Context) (int, error) {
	c.mu.Lock()
	c.killed = true
	cmd, done := c.cmd, c.done
	c.mu.Unlock()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, err
	}
	select {
	case <-done:
		return cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		<-done
		return 0, ctx.Err()
	}
}

// tail keeps the last part of what is written to it.
type tail struct {
	next io.Writer

	mu  sync.Mutex
	buf []byte
}

const tailBytes = 16 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if n := len(t.buf) - tailBytes; n > 0 {
		t.buf = bytes.Clone(t.buf[n:])
	}
	if t.next == nil {
		return len(b), nil
	}
	return t.next.Write(b)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
