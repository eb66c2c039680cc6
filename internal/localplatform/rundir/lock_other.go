//go:build !unix

package rundir

import (
	"errors"
	"fmt"
	"syscall"
)

// Lock fails: the system has no lock that a killed controller gives back.
func (d Dir) Lock() (release func() error, err error) {
	return nil, fmt.Errorf("rundir: lock %s: %w", string(d), errors.ErrUnsupported)
}

// Detached gives the default attributes.
func Detached() *syscall.SysProcAttr { return nil }
