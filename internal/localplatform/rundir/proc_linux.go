package rundir

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// StartTicks gives when a process started, in clock ticks since boot. A
// zombie has ended: it gives an error.
func StartTicks(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The command name is in parentheses and may hold anything, so the fields
	// are counted from the last one.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, fmt.Errorf("rundir: /proc/%d/stat: no command", pid)
	}
	f := bytes.Fields(b[i+1:])
	if len(f) < 20 {
		return 0, fmt.Errorf("rundir: /proc/%d/stat: %d fields", pid, len(f))
	}
	if s := f[0][0]; s == 'Z' || s == 'X' {
		return 0, fmt.Errorf("rundir: process %d has ended", pid)
	}
	return strconv.ParseUint(string(f[19]), 10, 64)
}

// Alive tells whether the process pid that started at ticks still runs.
func Alive(pid int, ticks uint64) bool {
	t, err := StartTicks(pid)
	return err == nil && (ticks == 0 || t == ticks)
}

// ResidentBytes is the memory that this process holds.
func ResidentBytes() (int64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0, fmt.Errorf("rundir: /proc/self/statm: %d fields", len(f))
	}
	pages, err := strconv.ParseInt(string(f[1]), 10, 64)
	return pages * int64(os.Getpagesize()), err
}
