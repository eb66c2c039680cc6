package remediate

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// manualClock stands still until it is told to go on.
type manualClock struct {
	mu     sync.Mutex
	now    time.Time
	timers []manualTimer
}

type manualTimer struct {
	at time.Time
	c  chan time.Time
}

func (c *manualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *manualClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := manualTimer{c.now.Add(d), make(chan time.Time, 1)}
	c.timers = append(c.timers, t)
	return t.c
}

func (c *manualClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	keep := c.timers[:0]
	for _, t := range c.timers {
		if t.at.After(c.now) {
			keep = append(keep, t)
			continue
		}
		t.c <- c.now
	}
	c.timers = keep
}

func worldOptions(w *world, j Journal, clock reconcile.Clock) Options {
	return Options{Journal: j, Verifier: w, Writer: w, Actor: w, Approver: w, Source: w, Notifier: w, Clock: clock}
}

// runUntil drives a Manager, with time going on, until cond or a deadline.
func runUntil(t *testing.T, m *Manager, clock *manualClock, step time.Duration, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	limit := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(limit) {
			t.Errorf("never came true; cases: %v", m.Cases())
			break
		}
		time.Sleep(50 * time.Microsecond)
		clock.advance(step)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
}

func final(m *Manager, id string) func() bool {
	return func() bool { c, err := m.Case(id); return err == nil && c.Status.Final() && c.Untold == "" }
}

func TestManagerRollsBackAndVerifies(t *testing.T) {
	w := newWorld()
	w.heals["inc-1.1"] = true
	clock := &manualClock{now: epoch}
	m, err := New(t.Context(), worldOptions(w, NewMemoryJournal(), clock))
	if err != nil {
		t.Fatal(err)
	}
	trig, rep := incident("inc-1", "checkout", rootcause.RollBack)
	id, err := m.Handle(t.Context(), trig, rep)
	if err != nil {
		t.Fatal(err)
	}
	runUntil(t, m, clock, time.Second, final(m, id))
	c, err := m.Case(id)
	if err != nil {
		t.Fatal(err)
	}
	if c.Status != Resolved || len(c.Attempts) != 1 || w.writes["inc-1.1"] != 1 {
		t.Errorf("case %v, writes %v", c, w.writes)
	}
	t.Log(c, c.Explain(), w.commits)
}
