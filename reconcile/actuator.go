package reconcile

import (
	"context"
	"time"
)

// Source tells what should run. Fetch gives the newest accepted desired
// state, at a revision; it returns an error rather than a partial State, and
// may return the same *State again when nothing changed, which lets the
// reconciler skip work. It ends with its ctx. Implementations are safe for
// concurrent use.
type Source interface {
	Fetch(ctx context.Context) (*State, error)
}

// Actuator is the platform: it tells what runs and makes single changes.
// Implementations are safe for concurrent use.
type Actuator interface {
	// Observe gives all live resources in the Actuator's scope, with Version
	// and, where it can tell, Health.
	Observe(ctx context.Context) (*State, error)
	// Apply makes one change. It honours Change.LiveVersion: a live object
	// whose version is another one gets [ErrConflict] and stays as it is
	// (empty means that the object must not exist for a Create, and that
	// there is no precondition otherwise). Creating what is there as desired
	// and deleting what is gone succeed, so that a change that was cut off by
	// a crash can be applied again. Apply does not wait for health; it ends
	// with its ctx, which also ends when a newer revision asks for something
	// else.
	//
	// A Delete may return as soon as the target has taken it on: the resource
	// counts as gone when Observe does not show it any more.
	//
	// Errors: [ErrConflict], [ErrTerminal], [ErrForbidden] and [ErrInvalid]
	// say that nothing was written; the change is not retried. After any other
	// the change may have been made, in part or as a whole; it is taken as
	// transient and retried.
	Apply(ctx context.Context, c Change) error
}

// Watcher is an optional ability of an [Actuator]: to tell of live changes
// when they happen, instead of at the next resync.
type Watcher interface {
	// Watch calls changed with the key of every live object that changed,
	// from one goroutine, until ctx ends; a zero key means "anything may have
	// changed". It returns ctx.Err() or the error that ended the watch.
	Watch(ctx context.Context, changed func(Key)) error
}

// DryRunner is an optional ability of an [Actuator]: to check a change on
// the target without making it ([Options].DryRun).
type DryRunner interface {
	// DryRun gives the error that Apply would, as far as the target can tell,
	// and changes nothing.
	DryRun(ctx context.Context, c Change) error
}

// HealthChecker is an optional ability of an [Actuator] that knows the
// health of its resources better than their objects tell.
type HealthChecker interface {
	CheckHealth(ctx context.Context, r Resource) Health
}

// Revisioner is an optional ability of a [Source]: to give an earlier
// revision again.
type Revisioner interface {
	// FetchRevision gives the desired state at a revision, or [ErrNotFound].
	FetchRevision(ctx context.Context, revision string) (*State, error)
}

// Clock is time as the loop sees it.
type Clock interface {
	Now() time.Time
	// After is as time.After; the channel may be dropped.
	After(d time.Duration) <-chan time.Time
}

// SystemClock is the machine's clock.
type SystemClock struct{}

// Now is time.Now in UTC.
func (SystemClock) Now() time.Time { return time.Now().UTC() }

// After is time.After.
func (SystemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
