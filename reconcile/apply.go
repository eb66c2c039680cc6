package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
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
		d *= 2
	}
	d = min(d, most)
	h := fnv.New32a()
	fmt.Fprintf(h, "%s#%d", k, n)
	return d - d/2*time.Duration(h.Sum32()%1024)/1024
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
	waiting applyStatus = iota
	running
	backingOff
	done
	failed
)

type applyState struct {
	retry   Retry
	plan    []Change
	wave    []int // wave of each change
	index   map[Key]int
	status  []applyStatus
	tries   []int
	err     []error
	again   []time.Time // when a backingOff change is due
	current int         // wave being worked on
	stopped error
}

func newApplyState(p *Plan, retry Retry) *applyState {
	s := &applyState{retry: retry, index: map[Key]int{}}
	for w, wave := range p.Waves {
		for _, c := range wave {
			s.index[c.Key] = len(s.plan)
			s.plan = append(s.plan, c)
			s.wave = append(s.wave, w)
		}
	}
	n := len(s.plan)
	s.status, s.tries, s.err, s.again = make([]applyStatus, n), make([]int, n), make([]error, n), make([]time.Time, n)
	return s
}

// applyEvent is what happened: a change ended, time passed, or the
// application was called off.
type applyEvent struct {
	now    time.Time
	change int // index, or -1
	err    error
	stop   error
}

// applyEffects are what to do next.
type applyEffects struct {
	start []int     // changes to ask the Actuator for
	wake  time.Time // when to send a time event at the latest; zero: never
	over  bool      // every change has ended
}

func (s *applyState) step(e applyEvent) applyEffects {
	if e.change >= 0 {
		s.ended(e)
	}
	if e.stop != nil && s.stopped == nil {
		s.stopped = e.stop
	}
	var out applyEffects
	for s.current <= s.lastWave() {
		settled := true
		for i := range s.plan {
			if s.wave[i] != s.current {
				continue
			}
			switch s.status[i] {
			case backingOff:
				if s.stopped != nil {
					s.status[i] = failed
					continue
				}
				if s.again[i].After(e.now) {
					if out.wake.IsZero() || s.again[i].Before(out.wake) {
						out.wake = s.again[i]
					}
					settled = false
					continue
				}
			case running:
				settled = false
				continue
			case done, failed:
				continue
			case waiting:
				if err := s.blocked(i); err != nil {
					s.status[i], s.err[i] = failed, err
					continue
				}
			}
			s.status[i] = running
			s.tries[i]++
			out.start = append(out.start, i)
			settled = false
		}
		if !settled {
			return out
		}
		s.current++
	}
	out.over = true
	return out
}

func (s *applyState) lastWave() int {
	if len(s.wave) == 0 {
		return -1
	}
	return s.wave[len(s.wave)-1]
}

func (s *applyState) ended(e applyEvent) {
	i := e.change
	if s.status[i] != running {
		return
	}
	if e.err == nil {
		s.status[i], s.err[i] = done, nil
		return
	}
	s.err[i] = &Error{Op: "apply", Key: s.plan[i].Key, Err: e.err}
	final := errors.Is(e.err, ErrConflict) || errors.Is(e.err, ErrTerminal) || errors.Is(e.err, ErrForbidden) ||
		errors.Is(e.err, ErrInvalid) || s.stopped != nil || s.tries[i] >= cmp.Or(s.retry.Attempts, 5)
	if final {
		s.status[i] = failed
		return
	}
	s.status[i] = backingOff
	s.again[i] = e.now.Add(s.retry.pause(s.plan[i].Key, s.tries[i]))
}

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

// driveApply runs the engine: at most limit changes at once, each in its own
// goroutine, none of which outlives the call.
func driveApply(ctx context.Context, p *Plan, act Actuator, retry Retry, limit int, clock Clock, ended func(Outcome)) *Result {
	s := newApplyState(p, retry)
	type end struct {
		change int
		err    error
	}
	ends := make(chan end)
	var queue []int
	inFlight := 0
	cancelled := ctx.Done()
	var wake <-chan time.Time
	event := applyEvent{now: clock.Now(), change: -1}
	for {
		effects := s.step(event)
		queue = append(queue, effects.start...)
		for len(queue) > 0 && inFlight < limit {
			i := queue[0]
			queue = queue[1:]
			inFlight++
			go func() { ends <- end{i, act.Apply(ctx, s.plan[i])} }()
		}
		if effects.over {
			return &Result{Plan: p, Outcomes: s.outcomes()}
		}
		wake = nil
		if !effects.wake.IsZero() {
			wake = clock.After(effects.wake.Sub(clock.Now()))
		}
		select {
		case e := <-ends:
			inFlight--
			event = applyEvent{now: clock.Now(), change: e.change, err: e.err}
			if ended != nil {
				o := Outcome{Change: s.plan[e.change], Attempts: s.tries[e.change], Err: e.err}
				if e.err != nil {
					o.Error = e.err.Error()
				}
				ended(o)
			}
		case <-wake:
			event = applyEvent{now: clock.Now(), change: -1}
		case <-cancelled:
			cancelled = nil
			// What is queued and not started ends here.
			event = applyEvent{now: clock.Now(), change: -1, stop: context.Cause(ctx)}
			for _, i := range queue {
				s.tries[i]--
				s.status[i] = waiting
			}
			queue = nil
		}
	}
}
