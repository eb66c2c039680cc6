package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"time"
)

// Retry says how often and how fast a change that failed for a passing
// reason is tried again.
type Retry struct {
	// Attempts is how often a change is tried in all; 0 means 5.
	Attempts int
	// Base is the pause after the first failure, doubled after each further
	// one, up to Max, each shortened by up to a half so that many changes do
	// not come back at once; 0 means 200 ms and 10 s.
	Base, Max time.Duration
}

func (r Retry) validate() error {
	if r.Attempts < 0 || r.Base < 0 || r.Max < 0 {
		return fmt.Errorf("reconcile: Retry %+v has a negative field: %w", r, ErrInvalid)
	}
	return nil
}

// pause gives the wait after the n-th failure (from 1) of a change. The
// jitter is drawn from the key, so that a run can be repeated.
func (r Retry) pause(k Key, n int) time.Duration {
	d := cmp.Or(r.Base, 200*time.Millisecond)
	most := cmp.Or(r.Max, 10*time.Second)
	for i := 1; i < n && d < most; i++ {
		if d > math.MaxInt64/2 {
			d = most
			break
		}
		d *= 2
	}
	d = min(d, most)
	h := fnv.New32a()
	fmt.Fprintf(h, "%s#%d", k, n)
	return d - time.Duration(float64(d)/2*float64(h.Sum32()%1024)/1024)
}

// Outcome is how one change of a plan ended.
type Outcome struct {
	Change Change `json:"change"`
	// Attempts is how often the Actuator was asked; 0 where the change was
	// not tried.
	Attempts int `json:"attempts"`
	// Err is nil where the change was made. A change that was not tried
	// because another one failed has an error that names that one and
	// matches [ErrHeld].
	Err error `json:"-"`
	// Error is Err's text.
	Error string `json:"error,omitempty"`
}

// Result is how the application of a plan ended: one outcome a change, in
// plan order.
type Result struct {
	Plan     *Plan     `json:"-"`
	Outcomes []Outcome `json:"outcomes"`

	overtaken bool // by a newer revision, so that it ended early
}

// Err joins the errors of all outcomes; nil if every change was made.
func (r *Result) Err() error {
	var errs []error
	for _, o := range r.Outcomes {
		if o.Err != nil {
			errs = append(errs, o.Err)
		}
	}
	return errors.Join(errs...)
}

// The engine of an application is a pure state machine: step takes an event
// and gives effects; [driveApply] carries them out.

type applyStatus byte

const (
	waiting    applyStatus = iota // its wave has not come
	ready                         // waits for a free place
	running                       // the Actuator is at it
	backingOff                    // failed, waits to be tried again
	done
	failed
)

type applyState struct {
	retry   Retry
	limit   int // most changes running at once
	plan    []Change
	waves   []int // end of each wave in plan
	index   map[Key]int
	status  []applyStatus
	tries   []int
	err     []error
	again   []time.Time // when a backingOff change is due
	current int         // wave being worked on; -1 before the first
	open    int         // changes of the current wave that have not ended
	running int
	queue   []int // ready, first come first served
	resting []int // backingOff
	stopped error
}

func newApplyState(p *Plan, retry Retry, limit int) *applyState {
	s := &applyState{retry: retry, limit: limit, current: -1, index: map[Key]int{}}
	for _, wave := range p.Waves {
		for _, c := range wave {
			s.index[c.Key] = len(s.plan)
			s.plan = append(s.plan, c)
		}
		s.waves = append(s.waves, len(s.plan))
	}
	n := len(s.plan)
	s.status, s.tries, s.err, s.again = make([]applyStatus, n), make([]int, n), make([]error, n), make([]time.Time, n)
	return s
}

// applyEvent is what happened: a change ended, time passed, or the
// application was called off.
type applyEvent struct {
	now      time.Time
	change   int // index, or -1
	err      error
	stop     error
	obsolete func(Change) bool // with stop: what is not even wanted any more
}

// applyEffects are what to do next.
type applyEffects struct {
	start  []int     // changes to ask the Actuator for
	cancel []int     // running changes to cut off
	wake   time.Time // when to send a time event at the latest; zero: never
	over   bool      // every change has ended
}

func (s *applyState) step(e applyEvent) applyEffects {
	if e.change >= 0 {
		s.ended(e)
	}
	if e.stop != nil && s.stopped == nil {
		s.stop(e.stop)
	}
	var out applyEffects
	if e.obsolete != nil {
		for i, c := range s.plan {
			if s.status[i] == running && e.obsolete(c) {
				out.cancel = append(out.cancel, i)
			}
		}
	}
	s.resting = slices.DeleteFunc(s.resting, func(i int) bool {
		if s.again[i].After(e.now) {
			return false
		}
		s.status[i] = ready
		s.queue = append(s.queue, i)
		return true
	})
	for s.open == 0 && s.current < len(s.waves) {
		s.current++
		if s.current < len(s.waves) {
			s.enter(s.current)
		}
	}
	for len(s.queue) > 0 && s.running < s.limit {
		i := s.queue[0]
		s.queue = s.queue[1:]
		s.status[i] = running
		s.running++
		s.tries[i]++
		out.start = append(out.start, i)
	}
	for _, i := range s.resting {
		if out.wake.IsZero() || s.again[i].Before(out.wake) {
			out.wake = s.again[i]
		}
	}
	out.over = s.current == len(s.waves)
	return out
}

// enter begins a wave.
func (s *applyState) enter(wave int) {
	from := 0
	if wave > 0 {
		from = s.waves[wave-1]
	}
	for i := from; i < s.waves[wave]; i++ {
		if err := s.blocked(i); err != nil {
			s.status[i], s.err[i] = failed, err
			continue
		}
		s.status[i] = ready
		s.queue = append(s.queue, i)
		s.open++
	}
}

// stop ends everything that is not in the Actuator's hands.
func (s *applyState) stop(why error) {
	s.stopped = why
	for _, i := range append(s.queue, s.resting...) {
		s.status[i] = failed
		s.open--
		if s.err[i] == nil { // else the failure of its last attempt tells more
			s.err[i] = s.blocked(i)
		}
	}
	s.queue, s.resting = nil, nil
}

func (s *applyState) ended(e applyEvent) {
	i := e.change
	if s.status[i] != running {
		return
	}
	s.running--
	if e.err == nil {
		s.status[i], s.err[i] = done, nil
		s.open--
		return
	}
	s.err[i] = &Error{Op: "apply", Key: s.plan[i].Key, Err: e.err}
	if final(e.err) || s.stopped != nil || s.tries[i] >= cmp.Or(s.retry.Attempts, 5) {
		s.status[i] = failed
		s.open--
		return
	}
	s.status[i] = backingOff
	s.again[i] = e.now.Add(s.retry.pause(s.plan[i].Key, s.tries[i]))
	s.resting = append(s.resting, i)
}

// final tells an error that trying again at once cannot help.
func final(err error) bool {
	return errors.Is(err, ErrConflict) || errors.Is(err, ErrForbidden) || hopelessError(err)
}

// hopelessError tells an error that only other input can help.
func hopelessError(err error) bool { return errors.Is(err, ErrTerminal) || errors.Is(err, ErrInvalid) }

// blocked gives the reason not to start a change at all.
func (s *applyState) blocked(i int) error {
	if s.stopped != nil {
		return &Error{Op: "apply", Key: s.plan[i].Key, Err: fmt.Errorf("%w: %w", ErrHeld, s.stopped)}
	}
	for _, k := range s.plan[i].DependsOn {
		if j, ok := s.index[k]; ok && s.status[j] == failed {
			return &Error{Op: "apply", Key: s.plan[i].Key, Err: fmt.Errorf("%w: it depends on %s, which failed", ErrHeld, k)}
		}
	}
	return nil
}

func (s *applyState) outcomes() []Outcome {
	out := make([]Outcome, len(s.plan))
	for i, c := range s.plan {
		out[i] = Outcome{Change: c, Attempts: s.tries[i], Err: s.err[i]}
		if s.err[i] != nil {
			out[i].Error = s.err[i].Error()
		}
	}
	return out
}

// lookout is how an application learns that it has been overtaken.
type lookout struct {
	poke     <-chan struct{} // somebody asks for a look
	interval time.Duration   // the longest time between two looks
	// look tells what has come to take the plan's place; nil: nothing.
	look func(ctx context.Context) *overtaken
}

// overtaken is why a plan's application ends early, and which of its changes
// are not wanted any more.
type overtaken struct {
	why      error
	obsolete func(Change) bool
}

// driveApply runs the engine: at most limit changes at once, each in its own
// goroutine, none of which outlives the call.
func driveApply(ctx context.Context, p *Plan, act Actuator, retry Retry, limit int, clock Clock, l *lookout, ended func(Outcome)) *Result {
	s := newApplyState(p, retry, limit)
	type end struct {
		change int
		err    error
	}
	ends := make(chan end)
	cut := make([]context.CancelCauseFunc, len(s.plan))
	cancelled := ctx.Done()
	event := applyEvent{change: -1}
	res := &Result{Plan: p}

	looks := make(chan *overtaken)
	looking := false
	lookCtx, stopLooking := context.WithCancel(ctx)
	defer func() {
		stopLooking()
		if looking {
			<-looks
		}
	}()
	look := func() {
		looking = true
		go func() { looks <- l.look(lookCtx) }()
	}
	var tick <-chan time.Time

	for {
		event.now = clock.Now()
		// A context that is over stops the engine whatever woke it, so that
		// nothing is started under it.
		if ctx.Err() != nil {
			event.stop, cancelled = context.Cause(ctx), nil
		}
		effects := s.step(event)
		for _, i := range effects.cancel {
			cut[i](event.stop)
		}
		for _, i := range effects.start {
			one, cancel := context.WithCancelCause(ctx)
			cut[i] = cancel
			go func() {
				err := act.Apply(one, s.plan[i])
				if why := context.Cause(one); err != nil && ctx.Err() == nil && why != nil {
					err = fmt.Errorf("%w: %w", why, err)
				}
				cancel(nil)
				ends <- end{i, err}
			}()
		}
		if effects.over {
			res.Outcomes = s.outcomes()
			return res
		}
		var poke <-chan struct{}
		if l != nil && !looking {
			poke = l.poke
			if tick == nil {
				tick = clock.After(l.interval)
			}
		}
		var wake <-chan time.Time
		if !effects.wake.IsZero() {
			wake = clock.After(effects.wake.Sub(event.now))
		}
		event = applyEvent{change: -1}
		select {
		case e := <-ends:
			event.change, event.err = e.change, e.err
			if ended != nil {
				o := Outcome{Change: s.plan[e.change], Attempts: s.tries[e.change], Err: e.err}
				if e.err != nil {
					o.Error = e.err.Error()
				}
				ended(o)
			}
		case <-wake:
		case <-cancelled:
		case <-poke:
			look()
		case <-tick:
			tick = nil
			if !looking {
				look()
			}
		case o := <-looks:
			looking = false
			if o != nil {
				res.overtaken = true
				event.stop, event.obsolete = o.why, o.obsolete
			}
		}
	}
}
