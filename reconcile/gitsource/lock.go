package gitsource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// errMoved says that the branch is not where the write was made on.
var errMoved = errors.New("the branch moved")

// staleLock is how long a lock file must stand unchanged, while we watch,
// before it counts as left behind. Git holds such a lock for milliseconds.
const staleLock = 10 * time.Second

// moveLocal sets a reference of a local repository from old to new, or gives
// errMoved. It follows Git's own protocol, which every Git program obeys: the
// file NAME.lock, created exclusively, guards the reference; it gets the new
// content and becomes the reference by a rename. go-git's own update truncates
// the reference in place, which a crash can leave empty.
func (r *Repository) moveLocal(ctx context.Context, old, new plumbing.Hash) (err error) {
	target := filepath.Join(r.gitDir, filepath.FromSlash(string(r.ref)))
	if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
		return err
	}
	lock := target + ".lock"
	f, err := acquire(ctx, lock, staleLock)
	if err != nil {
		return err
	}
	held := true
	defer func() {
		if held {
			err = errors.Join(err, f.Close(), os.Remove(lock))
		}
	}()
	have, err := r.store.Reference(r.ref)
	switch {
	case errors.Is(err, plumbing.ErrReferenceNotFound):
		if old != plumbing.ZeroHash {
			return errMoved
		}
	case err != nil:
		return err
	case have.Type() != plumbing.HashReference:
		return fmt.Errorf("%s is a symbolic reference: %w", r.ref, reconcile.ErrInvalid)
	case have.Hash() != old:
		return errMoved
	}
	if _, err := f.WriteString(new.String() + "\n"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	held = false
	if err := f.Close(); err != nil {
		return errors.Join(err, os.Remove(lock))
	}
	if err := os.Rename(lock, target); err != nil {
		return errors.Join(err, os.Remove(lock))
	}
	return nil
}

// acquire creates a lock file, waiting for another holder. A lock that stays
// the same for the time stale is taken away.
func acquire(ctx context.Context, lock string, stale time.Duration) (*os.File, error) {
	var seen fs.FileInfo
	var waited time.Duration
	for {
		f, err := os.OpenFile(lock, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		now, err := os.Stat(lock)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return nil, err
		}
		if seen == nil || !sameFile(seen, now) {
			seen, waited = now, 0
		}
		if waited >= stale {
			if err := breakLock(lock, seen); err != nil {
				return nil, err
			}
			seen, waited = nil, 0
			continue
		}
		pause := time.Millisecond + rand.N(4*time.Millisecond)
		if err := sleep(ctx, pause); err != nil {
			return nil, fmt.Errorf("waiting for %s: %w", lock, err)
		}
		waited += pause
	}
}

func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// breakLock takes a stale lock away. Two processes may come to it at once, so
// it is moved aside first and put back if it turns out to be a fresh one.
func breakLock(lock string, seen fs.FileInfo) error {
	aside := fmt.Sprintf("%s.%d.stale", lock, os.Getpid())
	if err := os.Rename(lock, aside); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if now, err := os.Stat(aside); err == nil && !sameFile(seen, now) {
		if err := os.Link(aside, lock); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return os.Remove(aside)
}

// sleep waits in real time: what it waits for are other processes, whatever
// time the host's clock shows.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
