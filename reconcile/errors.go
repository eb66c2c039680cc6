package reconcile

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is. What an [Actuator] returns
// decides how the loop goes on: see each one.
var (
	// ErrInvalid is input that can never succeed as it stands.
	ErrInvalid = errors.New("invalid")
	// ErrConflict says that the live object moved since it was planned: the
	// change is dropped and planned anew.
	ErrConflict = errors.New("conflict")
	// ErrTerminal says that trying again will not help: the change fails at
	// once and is tried again only when its inputs change.
	ErrTerminal = errors.New("terminal")
	// ErrForbidden says that the target's owner refuses; it is not retried.
	ErrForbidden = errors.New("forbidden")
	// ErrNotFound says that a resource, revision or commit does not exist.
	ErrNotFound = errors.New("not found")
	// ErrNoChange says that what a write asks for is so already, so that no
	// commit was made.
	ErrNoChange = errors.New("nothing to change")
	// ErrStale refuses a plan whose base has moved since it was made.
	ErrStale = errors.New("stale plan")
	// ErrHeld says that a plan was not applied because a brake or a gate
	// holds it.
	ErrHeld = errors.New("held")
	// ErrEmptySource refuses a source that declares nothing at all, which is
	// far more often a mistake than a wish.
	ErrEmptySource = errors.New("source declares no resources")
)

// Error says what was being done, to what, and why it failed.
type Error struct {
	// Op is what was being done: "fetch", "observe", "apply".
	Op string
	// Key is the resource, zero where the failure is not about one.
	Key Key
	// Err is the cause.
	Err error
}

func (e *Error) Error() string {
	if e.Key == (Key{}) {
		return fmt.Sprintf("reconcile: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("reconcile: %s %s: %v", e.Op, e.Key, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// ConflictError reports one key declared twice.
type ConflictError struct {
	Key           Key
	First, Second Origin
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("reconcile: %s is declared twice: %s and %s", e.Key, e.First, e.Second)
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *ConflictError) Is(target error) bool { return target == ErrInvalid }
