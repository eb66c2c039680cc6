package remediate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// driver puts the engine's decisions into effect, one event at a time: it
// journals records before it lets any effect begin, and remembers what runs.
// It is not safe for concurrent use, starts no goroutine and reads no clock,
// so that tests can drive it through every interleaving.
type driver struct {
	engine  engine
	state   *state
	journal Journal
	seq     uint64 // of the journal's last record, as far as was seen
	// What follows is not journaled: a restart rightly forgets it.
	running map[string]running
	retry   map[string]time.Time // not before, by effect key
	fresh   map[string]bool      // intents of this run that were neither begun nor paused
	dead    error                // why nothing goes any more
	wanted  []effect
}

// running is an effect under way.
type running struct {
	effect   effect
	deadline time.Time
	cancel   context.CancelFunc
}

// task is an effect to perform now.
type task struct {
	effect effect
	probe  bool
	// deadline is when to give up on it.
	deadline time.Time
}

// newDriver folds the journal into a state.
func newDriver(ctx context.Context, e engine, j Journal) (*driver, error) {
	d := &driver{engine: e, state: newState(), journal: j,
		running: map[string]running{}, retry: map[string]time.Time{}, fresh: map[string]bool{}}
	for r, err := range j.Read(ctx, 1) {
		if err == nil {
			err = d.state.apply(r)
		}
		if err != nil {
			return nil, &Error{Op: "recover", Err: err}
		}
		d.seq = r.Seq
	}
	return d, nil
}

// dispatch folds an event in, journals what was decided and gives those
// records. When the journal fails, nothing was begun, and nothing ever will
// be: the state is ahead of what is durable.
func (d *driver) dispatch(ctx context.Context, ev event) ([]Record, error) {
	if d.dead != nil {
		return nil, d.dead
	}
	if ev.done != nil {
		d.ended(ev.now, ev.done)
	}
	recs, wanted, err := d.engine.step(d.state, ev)
	if err == nil && len(recs) > 0 {
		err = d.journal.Append(ctx, d.seq, recs...)
	}
	if err != nil {
		d.dead = &Error{Op: "journal", Err: err}
		return nil, d.dead
	}
	if ev.pause != nil {
		// What was intended before the pause is not what is wanted after it.
		clear(d.fresh)
	}
	for i := range recs {
		d.seq++
		recs[i].Seq = d.seq
	}
	for _, r := range recs {
		if r.Kind == ActionIntended || r.Kind == UndoIntended {
			d.fresh[freshKey(r.Action, r.Kind == UndoIntended)] = true
		}
	}
	d.wanted = wanted
	// An answer that nobody waits for any more is not worth waiting for.
	want := make(map[string]bool, len(wanted))
	for _, e := range wanted {
		want[e.key()] = true
	}
	for k, r := range d.running {
		if r.effect.kind == doApprove && !want[k] && r.cancel != nil {
			r.cancel()
		}
	}
	for k := range d.retry {
		if !want[k] {
			delete(d.retry, k)
		}
	}
	return recs, nil
}

func freshKey(action string, undo bool) string {
	if undo {
		return action + " undo"
	}
	return action
}

// ended notes that an effect is no longer under way, and when it may be
// wanted again.
func (d *driver) ended(now time.Time, o *outcome) {
	k := o.effect.key()
	delete(d.running, k)
	switch {
	case o.effect.kind == doVerify:
		d.retry[k] = now.Add(d.engine.timings.VerifyEvery)
	case o.effect.kind == doApprove || o.err != nil && !o.skip && o.effect.kind != doAct:
		// An approver whose answer did not count is not asked in a tight loop.
		d.retry[k] = now.Add(d.engine.timings.RetryAfter)
	default:
		delete(d.retry, k)
	}
}

// tasks gives the wanted effects that are not under way and may begin now,
// and takes them for under way: at most room of them, but all requests for
// approval, which wait for people. What was intended comes first, while what it
// was decided on is new; looking at the verifier comes last, longest not looked
// first.
func (d *driver) tasks(now time.Time, room int) []task {
	if d.dead != nil {
		return nil
	}
	var ready []effect
	for _, e := range d.wanted {
		k := e.key()
		if _, ok := d.running[k]; ok || now.Before(d.retry[k]) {
			continue
		}
		ready = append(ready, e)
	}
	slices.SortStableFunc(ready, func(a, b effect) int {
		if v := cmp.Compare(a.kind.rank(), b.kind.rank()); v != 0 || a.kind != doVerify {
			return v
		}
		return d.retry[a.key()].Compare(d.retry[b.key()])
	})
	var out []task
	for _, e := range ready {
		if e.kind != doApprove {
			if room <= 0 {
				continue
			}
			room--
		}
		k := e.key()
		t := task{effect: e, deadline: now.Add(d.engine.timings.EffectWithin)}
		if e.kind == doApprove {
			t.deadline = e.expires
		}
		t.effect.c = d.state.cases[e.caseID].clone()
		d.running[k] = running{effect: e, deadline: t.deadline}
		out = append(out, t)
	}
	return out
}

// rank orders the kinds of effects for tasks.
func (k effectKind) rank() int {
	switch k {
	case doAct:
		return 0
	case doVerify:
		return 2
	case doPrepare, doApprove, doNotify:
	}
	return 1
}

// begin is asked right before an effect is performed. It says no when an undo
// was paused meanwhile, and whether to ask the probe: for an undo before it,
// for an action instead of it. Only an action that was intended a moment ago,
// and not paused since, is done; any other is, where the probe says that it
// was not done, worked out anew.
func (d *driver) begin(t *task, now time.Time, cancel context.CancelFunc) bool {
	k := t.effect.key()
	if d.dead != nil {
		return false
	}
	if t.effect.kind == doAct {
		c := d.state.cases[t.effect.caseID]
		at := c.attempt()
		if at == nil || at.ID != t.effect.attempt || c.Status != t.effect.status {
			delete(d.running, k)
			return false
		}
		f := freshKey(at.ID, t.effect.undo)
		t.probe = !d.fresh[f]
		delete(d.fresh, f)
		_, paused := d.state.pausedBy(at.Operation.touches())
		if paused && t.effect.undo {
			delete(d.running, k)
			return false
		}
		if !t.effect.undo {
			tm := d.engine.timings
			old := now.Sub(at.Started) > tm.EffectWithin || at.Approval != nil && now.Sub(at.Approval.Time) > tm.ApprovalWithin
			t.probe = t.probe || paused || old
		}
	}
	r := d.running[k]
	r.cancel = cancel
	d.running[k] = r
	return true
}

// next is when dispatch should next be called with a tick, or tasks may have
// something; zero for not by time alone. It is always after now.
func (d *driver) next(now time.Time) time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if t.After(now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, id := range d.state.live {
		sooner(d.engine.wake(d.state, d.state.cases[id], now))
	}
	for _, e := range d.wanted {
		k := e.key()
		if _, ok := d.running[k]; !ok {
			sooner(d.retry[k])
		}
	}
	for _, r := range d.running {
		sooner(r.deadline)
	}
	return at
}

// expire cancels effects that took too long.
func (d *driver) expire(now time.Time) {
	for _, r := range d.running {
		if r.cancel != nil && !now.Before(r.deadline) {
			r.cancel()
		}
	}
}

func (d *driver) caseByID(id string) (Case, error) {
	c, ok := d.state.cases[id]
	if !ok {
		return Case{}, &Error{Op: "case", Name: id, Err: fmt.Errorf("%w", ErrUnknownCase)}
	}
	return c.clone(), nil
}
