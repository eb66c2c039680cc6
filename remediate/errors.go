package remediate

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrInvalid is a playbook, trigger, limit or option that can never work
	// as it stands; the error names the field.
	ErrInvalid = errors.New("invalid")
	// ErrTarget says that what an action is for could not be resolved to one
	// target: an empty or ambiguous selector is never "all".
	ErrTarget = errors.New("no single target")
	// ErrUnknownCase says that no case has that id.
	ErrUnknownCase = errors.New("unknown case")
	// ErrLocked says that another process, or another [FileJournal] of this
	// one, has the journal open.
	ErrLocked = errors.New("journal is in use")
	// ErrCorrupt says that a journal was changed after it was written; see
	// [*CorruptError] for the place.
	ErrCorrupt = errors.New("journal is corrupt")
	// ErrClosed says that the journal was closed.
	ErrClosed = errors.New("journal is closed")
	// ErrConflict says that a journal has grown by another writer's records
	// since its caller looked.
	ErrConflict = errors.New("another writer came between")
	// ErrRunning refuses a second [Manager.Run] beside the first.
	ErrRunning = errors.New("already running")
	// ErrTerminal, wrapped by an [Actor] or a [Writer], says that trying the
	// action again will not help.
	ErrTerminal = errors.New("terminal")
)

// Error says what was being done, with what, and why it failed.
type Error struct {
	// Op is what was being done: "handle", "recover", "playbook".
	Op string
	// Name is the case, playbook or option that it is about; may be empty.
	Name string
	// Err is the cause.
	Err error
}

func (e *Error) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("remediate: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("remediate: %s %q: %v", e.Op, e.Name, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

func invalid(op, name, format string, args ...any) error {
	return &Error{Op: op, Name: name, Err: fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrInvalid)}
}
