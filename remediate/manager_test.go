package remediate

import (
	"context"
	"errors"
	"strconv"
	"strings"
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
// While a call of the Manager is under way time goes on slowly, so that a busy
// machine does not make it late.
func runUntil(t *testing.T, m *Manager, clock *manualClock, step time.Duration, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	limit := time.Now().Add(20 * time.Second)
	last := time.Now()
	for !cond() {
		if time.Now().After(limit) {
			t.Errorf("never came true; cases: %v", m.Cases())
			break
		}
		time.Sleep(50 * time.Microsecond)
		m.mu.Lock()
		busy := m.busy > 0
		m.mu.Unlock()
		if busy && time.Since(last) < 5*time.Millisecond {
			continue
		}
		last = time.Now()
		clock.advance(step)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
}

func final(m *Manager, id string) func() bool {
	return func() bool { c, err := m.Case(id); return err == nil && c.Status.Final() && len(c.Untold) == 0 }
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
}

// Run that is cut off in the middle of a write leaves it open; the next one
// asks the probe. The observer sees every event once, in order, and may call
// the Manager.
func TestManagerCutOff(t *testing.T) {
	w := newWorld()
	w.heals["inc-1.1"] = true
	clock := &manualClock{now: epoch}
	o := worldOptions(w, openJournal(t, t.TempDir()), clock)
	var m *Manager
	var seen []Record
	var seenMu sync.Mutex
	o.Observer = func(e Event) {
		seenMu.Lock()
		defer seenMu.Unlock()
		seen = append(seen, e.Record)
		if e.Record.Kind == CaseOpened {
			if err := m.Pause(context.Background(), "other", "observer", "to see that it can"); err != nil {
				t.Error(err)
			}
		}
	}
	blocking := &blockingWriter{world: w, entered: make(chan struct{})}
	o.Writer = blocking
	m, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	trig, rep := incident("inc-1", "checkout", rootcause.RollBack)
	if _, err := m.Handle(t.Context(), trig, rep); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	<-blocking.entered
	if err := m.Run(ctx); !errors.Is(err, ErrRunning) {
		t.Errorf("second Run = %v", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
	if c, _ := m.Case("inc-1"); c.Status != Acting {
		t.Errorf("after the cut: %v", c)
	}
	runUntil(t, m, clock, time.Second, final(m, "inc-1"))
	if c, _ := m.Case("inc-1"); c.Status != Resolved || w.writes["inc-1.1"] != 1 {
		t.Errorf("case %v, writes %v", c, w.writes)
	}
	seenMu.Lock()
	defer seenMu.Unlock()
	for i, r := range readAll(t, o.Journal, 1) {
		if i >= len(seen) || seen[i].Kind != r.Kind {
			t.Fatalf("record %d is %s; the observer saw %v", i, r.Kind, seen)
		}
	}
	if got := m.TrackRecord("roll-back", "revert commit", rootcause.RollBack); got != (TrackRecord{Verified: 1}) {
		t.Errorf("track record %+v", got)
	}
	if p := m.Pauses(); len(p) != 1 || p[0].By != "observer" {
		t.Errorf("pauses %v", p)
	}
}

// blockingWriter pushes, and then hangs the first time until its ctx ends.
type blockingWriter struct {
	*world
	entered chan struct{}
	once    sync.Once
}

func (b *blockingWriter) Write(ctx context.Context, r reconcile.WriteRequest) (reconcile.Commit, error) {
	c, err := b.world.Write(ctx, r)
	b.once.Do(func() {
		close(b.entered)
		<-ctx.Done()
		c, err = reconcile.Commit{}, ctx.Err()
	})
	return c, err
}

func (b *blockingWriter) Find(ctx context.Context, k, v string) (reconcile.Commit, bool, error) {
	if err := ctx.Err(); err != nil {
		return reconcile.Commit{}, false, err
	}
	return b.world.Find(ctx, k, v)
}

// A journal that fails stops everything before any effect.
func TestManagerJournalFails(t *testing.T) {
	w := newWorld()
	w.boom = func(where string) error {
		if where == "append ActionIntended" {
			return errors.New("disk full")
		}
		return nil
	}
	clock := &manualClock{now: epoch}
	m, err := New(t.Context(), worldOptions(w, crashJournal{NewMemoryJournal(), w}, clock))
	if err != nil {
		t.Fatal(err)
	}
	trig, rep := incident("inc-1", "checkout", rootcause.RollBack)
	if _, err := m.Handle(t.Context(), trig, rep); err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context()); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
	if _, err := m.Handle(t.Context(), trig, rep); err == nil {
		t.Error("Handle goes on without a journal")
	}
	if len(w.writes) != 0 {
		t.Errorf("writes %v", w.writes)
	}
}

// BenchmarkRecover recovers ten thousand open cases and works out what they
// want next.
func BenchmarkRecover(b *testing.B) {
	w := newWorld()
	j := NewMemoryJournal()
	o := worldOptions(w, j, &manualClock{now: epoch})
	m, err := New(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10_000 {
		trig, rep := incident("inc-"+strconv.Itoa(i), "s"+strconv.Itoa(i), rootcause.RollBack)
		h := event{now: epoch, handle: &handleEvent{trig, rep}}
		if err := j.Append(b.Context(), uint64(i), Record{Time: epoch, Kind: CaseOpened, Case: trig.ID, Trigger: &h.handle.trigger,
			Report: rep, Playbook: &m.d.engine.playbooks[0]}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		m, err := New(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		if err := m.dispatch(b.Context(), event{}); err != nil {
			b.Fatal(err)
		}
	}
}

// A trigger that no journal could hold is refused, and the next one is taken.
func TestManagerRefusesPoison(t *testing.T) {
	j := openJournal(t, t.TempDir())
	w := newWorld()
	m, err := New(t.Context(), worldOptions(w, j, &manualClock{now: epoch}))
	if err != nil {
		t.Fatal(err)
	}
	odd, oddReport := incident("odd", "checkout", rootcause.RollBack)
	odd.Incident.OnsetEarliest = time.Date(10001, 1, 1, 0, 0, 0, 0, time.UTC)
	good, late := incident("late", "checkout", rootcause.RollBack)
	late.Change.Change.Time = time.Date(10001, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, try := range map[string]func() (string, error){
		"long": func() (string, error) {
			return m.Handle(t.Context(), Trigger{Kind: "Finding", ID: "a", Summary: strings.Repeat("x", 5<<20)}, nil)
		},
		"alert's time":  func() (string, error) { return m.Handle(t.Context(), odd, oddReport) },
		"change's time": func() (string, error) { return m.Handle(t.Context(), good, late) },
		"pause": func() (string, error) {
			return "", m.Pause(t.Context(), "checkout", "ada", strings.Repeat("x", 17<<20))
		},
	} {
		if _, err := try(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := m.Handle(t.Context(), Trigger{Kind: "Finding", ID: "b"}, nil); err != nil {
		t.Errorf("a good trigger after them: %v", err)
	}
}

// What a host's parts give back cannot poison the journal either.
func TestManagerBoundsAnswers(t *testing.T) {
	w := newWorld()
	w.answers = func(r Request) (Approval, error) {
		return Approval{Answer: Approved, By: strings.Repeat("a", 17<<20), Reason: strings.Repeat("é", 17<<20), Digest: r.Digest}, nil
	}
	clock := &manualClock{now: epoch}
	o := worldOptions(w, openJournal(t, t.TempDir()), clock)
	o.Playbooks = []Playbook{{Name: "p", Match: Match{Service: "*"}, Actions: []Action{{Type: RevertCommit}}}}
	o.Timings.ApprovalWithin = 1000 * time.Hour // long answers take their time
	o.Writer = oddWriter{w}
	o.Verifier = VerifierFunc(func(context.Context, Case) (bool, string, error) { return true, strings.Repeat("x", 17<<20), nil })
	m, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	trig, rep := incident("inc-1", "checkout", rootcause.RollBack)
	if _, err := m.Handle(t.Context(), trig, rep); err != nil {
		t.Fatal(err)
	}
	runUntil(t, m, clock, time.Second, final(m, "inc-1"))
	c, err := m.Case("inc-1")
	if err != nil || c.Status != Resolved {
		t.Errorf("%v, %v", c.Status, err)
	}
}

type oddWriter struct{ *world }

func (o oddWriter) Write(ctx context.Context, r reconcile.WriteRequest) (reconcile.Commit, error) {
	c, err := o.world.Write(ctx, r)
	c.Time = time.Date(10001, 1, 1, 0, 0, 0, 0, time.UTC)
	return c, err
}

// A write that took too long is asked after in time of its own.
func TestManagerAsksAfterTimeout(t *testing.T) {
	w := newWorld()
	w.heals["inc-1.1"] = true
	clock := &manualClock{now: epoch}
	o := worldOptions(w, NewMemoryJournal(), clock)
	o.Limits.MaxAttempts = 1
	o.Timings.EffectTries = 1 // no second chance
	late := &lateWriter{blockingWriter{world: w, entered: make(chan struct{})}}
	o.Writer = late
	m, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	trig, rep := incident("inc-1", "checkout", rootcause.RollBack)
	if _, err := m.Handle(t.Context(), trig, rep); err != nil {
		t.Fatal(err)
	}
	runUntil(t, m, clock, time.Second, final(m, "inc-1"))
	if c, _ := m.Case("inc-1"); c.Status != Resolved || w.writes["inc-1.1"] != 1 {
		t.Errorf("writes %v\n%v", w.writes, c)
	}
}

// lateWriter hangs like its parent, and heeds its ctx in Find.
type lateWriter struct{ blockingWriter }

func (l *lateWriter) Find(ctx context.Context, key, value string) (reconcile.Commit, bool, error) {
	if err := ctx.Err(); err != nil {
		return reconcile.Commit{}, false, err
	}
	return l.blockingWriter.Find(ctx, key, value)
}

// A Manager whose journal another one has written to begins nothing more.
func TestManagerFenced(t *testing.T) {
	w := newWorld()
	o := worldOptions(w, NewMemoryJournal(), &manualClock{now: epoch})
	var m [2]*Manager
	for i := range m {
		var err error
		if m[i], err = New(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	trig, rep := incident("inc-1", "checkout", rootcause.RollBack)
	if _, err := m[0].Handle(t.Context(), trig, rep); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := m[1].Handle(t.Context(), trig, rep); !errors.Is(err, ErrConflict) {
			t.Errorf("err = %v", err)
		}
	}
	if got := readAll(t, o.Journal, 1); len(got) != 1 {
		t.Errorf("%d records", len(got))
	}
	if _, err := New(t.Context(), o); err != nil {
		t.Error(err)
	}
}
