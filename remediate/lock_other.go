//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package remediate

import (
	"errors"
	"fmt"
	"io"
)

// lockFile fails: without a lock two processes could write one journal.
func lockFile(string) (io.Closer, error) {
	return nil, fmt.Errorf("this platform has no file locks: %w", errors.ErrUnsupported)
}
