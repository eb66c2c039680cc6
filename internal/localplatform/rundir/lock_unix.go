//go:build unix

package rundir

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Lock makes the caller the directory's one controller until release is
// called or the process ends. It gives [ErrLocked] where there is one.
func (d Dir) Lock() (release func() error, err error) {
	f, err := os.OpenFile(d.Path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("rundir: %s: %w", string(d), ErrLocked)
		}
		return nil, fmt.Errorf("rundir: lock %s: %w", string(d), err)
	}
	return f.Close, nil
}

// Detached gives the attributes of a process that a Ctrl-C on the
// controller's terminal does not reach: ending it is the controller's job.
func Detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
