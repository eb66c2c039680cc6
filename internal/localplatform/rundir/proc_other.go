//go:build !linux

package rundir

import (
	"os"
	"runtime"
	"syscall"
)

// StartTicks gives 0: the system does not tell in a portable way.
func StartTicks(pid int) (uint64, error) {
	if !Alive(pid, 0) {
		return 0, os.ErrProcessDone
	}
	return 0, nil
}

// Alive tells whether a process pid runs.
func Alive(pid int, _ uint64) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer p.Release()
	return p.Signal(syscall.Signal(0)) == nil
}

// ResidentBytes is the memory that this process has from the system, which
// is an upper bound of what it holds.
func ResidentBytes() (int64, error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased), nil
}
