package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Target is a [reconcile.Actuator] that keeps its objects in memory. Its zero
// value is an empty target, ready for use; it is safe for concurrent use and
// must not be copied.
type Target struct {
	// Fail, if set, is asked before each Apply; an error that it returns is
	// Apply's, and nothing is changed. Set it before the Target is used.
	Fail func(reconcile.Change) error
	// Health, if set, tells the health of an object; otherwise
	// [reconcile.CheckHealth] does. Set it before the Target is used.
	Health func(reconcile.Resource) reconcile.Health

	mu       sync.Mutex
	state    *reconcile.State // what Observe gives while nothing changes
	objects  map[reconcile.Key]stored
	version  uint64
	applied  []reconcile.Change
	watchers map[*watcher]struct{}
}

type stored struct {
	object  map[string]any
	version uint64
}

type watcher struct {
	keys chan reconcile.Key
	lost chan struct{} // has an element when keys had no room
}

var (
	_ reconcile.Actuator  = (*Target)(nil)
	_ reconcile.Watcher   = (*Target)(nil)
	_ reconcile.DryRunner = (*Target)(nil)
)

// Observe implements [reconcile.Actuator].
func (t *Target) Observe(ctx context.Context) (*reconcile.State, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	if t.state != nil && t.Health == nil {
		defer t.mu.Unlock()
		return t.state, nil
	}
	list := make([]reconcile.Resource, 0, len(t.objects))
	for k, s := range t.objects {
		list = append(list, reconcile.Resource{Key: k, Object: s.object, Version: strconv.FormatUint(s.version, 10)})
	}
	version := t.version
	t.mu.Unlock()
	for i, r := range list {
		if t.Health != nil {
			list[i].Health = t.Health(r)
		} else {
			list[i].Health = reconcile.CheckHealth(r.Object)
		}
	}
	state, err := reconcile.NewState(strconv.FormatUint(version, 10), list)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if version == t.version {
		t.state = state
	}
	return state, nil
}

// Apply implements [reconcile.Actuator]. Stored objects are never changed in
// place, so States that were observed before stay as they are.
func (t *Target) Apply(ctx context.Context, c reconcile.Change) error {
	return t.change(ctx, c, false)
}

// DryRun implements [reconcile.DryRunner]: it fails where Apply would.
func (t *Target) DryRun(ctx context.Context, c reconcile.Change) error {
	return t.change(ctx, c, true)
}

func (t *Target) change(ctx context.Context, c reconcile.Change, dry bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.Fail != nil {
		if err := t.Fail(c); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old, exists := t.objects[c.Key]
	if exists && c.LiveVersion != "" && c.LiveVersion != strconv.FormatUint(old.version, 10) {
		return fmt.Errorf("memory: %s is at version %d, planned for %s: %w", c.Key, old.version, c.LiveVersion, reconcile.ErrConflict)
	}
	var next map[string]any
	switch c.Action {
	case reconcile.Delete:
		if !exists {
			return nil
		}
	case reconcile.Create:
		if exists {
			if len(reconcile.Diff(nil, c.Desired, old.object)) == 0 {
				return nil
			}
			return fmt.Errorf("memory: %s exists already: %w", c.Key, reconcile.ErrConflict)
		}
		next = reconcile.CloneObject(c.Desired)
	case reconcile.Update:
		if !exists {
			return fmt.Errorf("memory: %s does not exist: %w", c.Key, reconcile.ErrConflict)
		}
		next = c.Merge(old.object)
	default:
		return fmt.Errorf("memory: %s: action %q: %w", c.Key, c.Action, reconcile.ErrTerminal)
	}
	if dry {
		return nil
	}
	t.applied = append(t.applied, c)
	t.store(c.Key, next)
	return nil
}

// store puts or, with a nil object, removes; the caller holds the lock.
func (t *Target) store(k reconcile.Key, object map[string]any) {
	t.version++
	t.state = nil
	if object == nil {
		delete(t.objects, k)
	} else {
		if t.objects == nil {
			t.objects = map[reconcile.Key]stored{}
		}
		t.objects[k] = stored{object, t.version}
	}
	for w := range t.watchers {
		select {
		case w.keys <- k:
		default:
			select {
			case w.lost <- struct{}{}:
			default:
			}
		}
	}
}

// Watch implements [reconcile.Watcher]. A receiver that is too slow is told
// with a zero key that it missed something.
func (t *Target) Watch(ctx context.Context, changed func(reconcile.Key)) error {
	w := &watcher{keys: make(chan reconcile.Key, 256), lost: make(chan struct{}, 1)}
	t.mu.Lock()
	if t.watchers == nil {
		t.watchers = map[*watcher]struct{}{}
	}
	t.watchers[w] = struct{}{}
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.watchers, w)
		t.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case k := <-w.keys:
			changed(k)
		case <-w.lost:
			changed(reconcile.Key{})
		}
	}
}

// Edit changes one live object behind the reconciler's back, as a person
// with access to the platform would. edit gets a copy that it may change and
// returns the new object; nil deletes it. A missing object is passed as nil.
// edit is called under the Target's lock and must not use it. An object
// without a valid key, or with another one, is refused.
func (t *Target) Edit(k reconcile.Key, edit func(object map[string]any) map[string]any) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := edit(reconcile.CloneObject(t.objects[k].object))
	if next != nil {
		got, err := reconcile.KeyOf(next)
		if err != nil {
			return err
		}
		if got != k {
			return fmt.Errorf("memory: edit of %s gave %s: %w", k, got, reconcile.ErrInvalid)
		}
	}
	t.store(k, reconcile.CloneObject(next))
	return nil
}

// Applied gives all changes that were made through Apply, in order.
func (t *Target) Applied() []reconcile.Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.applied)
}

// Keys gives the keys of all live objects, sorted.
func (t *Target) Keys() []reconcile.Key {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Keys(t.objects), reconcile.Key.Compare)
}

// Source is a [reconcile.Source] of a State that the test sets. Its zero
// value declares nothing.
type Source struct {
	mu    sync.Mutex
	state *reconcile.State
	err   error
}

var _ reconcile.Source = (*Source)(nil)

// Set replaces what Fetch gives. A nil error with a nil state declares nothing.
func (s *Source) Set(state *reconcile.State, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.err = state, err
}

// Fetch implements [reconcile.Source].
func (s *Source) Fetch(ctx context.Context) (*reconcile.State, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.err
}
