package gitsource

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// grace is how long an exchange may take to notice that its context ended.
const grace = time.Second

var errStuck = errors.New("an earlier connection to the server still hangs")

// take waits for the turn. It fails at once while a connection hangs that was
// given up, since that may still use the storage.
func (r *Repository) take(ctx context.Context) error {
	if err := r.turn.take(ctx); err != nil {
		return err
	}
	if err := r.unstuck(); err != nil {
		r.turn.done()
		return err
	}
	return nil
}

func (r *Repository) unstuck() error {
	if r.stuck == nil {
		return nil
	}
	select {
	case <-r.stuck:
		r.stuck = nil
		return nil
	default:
		return errStuck
	}
}

// network makes one exchange with the server, under Options.Timeout. go-git
// heeds a context everywhere but while it sets up an ssh or git connection. An
// exchange that does not end with its context is left behind, so that callers
// get their error; it ends when the connection does.
func (r *Repository) network(ctx context.Context, exchange func(context.Context) error) error {
	if err := r.unstuck(); err != nil {
		return err
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if r.opts.Timeout > 0 {
		limited, cancel = context.WithTimeout(ctx, r.opts.Timeout)
	}
	defer cancel()
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		err = exchange(limited)
	}()
	select {
	case <-ended:
	case <-limited.Done():
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case <-ended:
		case <-late.C:
			r.stuck = ended
			return r.timedOut(ctx, limited.Err())
		}
	}
	if err != nil && limited.Err() != nil {
		return r.timedOut(ctx, err)
	}
	return err
}

// timedOut tells the end of the caller's context from that of the timeout.
func (r *Repository) timedOut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctxFirst(ctx, err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer from the server within %s: %w", r.opts.Timeout, err)
	}
	return fmt.Errorf("no answer from the server within %s: %w: %w", r.opts.Timeout, context.DeadlineExceeded, err)
}
