package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stepper drives the pure engine by hand.
type stepper struct {
	s   *applyState
	now time.Time
}

func (d *stepper) step(e applyEvent) string {
	e.now = d.now
	eff := d.s.step(e)
	var out []string
	for _, i := range eff.start {
		out = append(out, "start "+d.s.plan[i].Key.Name)
	}
	for _, i := range eff.cancel {
		out = append(out, "cancel "+d.s.plan[i].Key.Name)
	}
	if !eff.wake.IsZero() {
		out = append(out, "wake "+eff.wake.Sub(d.now).String())
	}
	if eff.over {
		out = append(out, "over")
	}
	return strings.Join(out, ", ")
}

func TestApplyEngine(t *testing.T) {
	transient := errors.New("try later")
	plan := func(waves ...string) *Plan {
		p := &Plan{}
		for _, w := range waves {
			var wave []Change
			for _, f := range strings.Fields(w) { // "b<a" depends on a
				name, on, _ := strings.Cut(f, "<")
				c := Change{Action: Create, Key: Key{Kind: "Job", Name: name}}
				if on != "" {
					c.DependsOn = []Key{{Kind: "Job", Name: on}}
				}
				wave = append(wave, c)
			}
			p.Waves = append(p.Waves, wave)
		}
		return p
	}
	type event struct {
		name string // change that ended; "" otherwise
		err  error
		stop error
		gone string // running change that is not wanted any more
		pass time.Duration
		want string
	}
	// Without jitter worth reading: the pauses below are 1 s, 2 s, less up to
	// a half, drawn from the key.
	retry := Retry{Attempts: 3, Base: time.Second, Max: 2 * time.Second}
	p1 := retry.pause(Key{Kind: "Job", Name: "a"}, 1)
	p2 := retry.pause(Key{Kind: "Job", Name: "a"}, 2)
	if p1 > time.Second || p1 <= time.Second/2 || p2 > 2*time.Second || p2 <= time.Second {
		t.Fatalf("pauses %v, %v", p1, p2)
	}
	tests := []struct {
		name   string
		plan   *Plan
		limit  int
		events []event
		want   []string // outcomes: name, attempts, error
	}{
		{name: "nothing to do", plan: plan(), events: []event{{want: "over"}}},
		{
			name: "waves, one after the other", plan: plan("a b", "c"), limit: 8,
			events: []event{{want: "start a, start b"}, {name: "b"}, {name: "a", want: "start c"}, {name: "c", want: "over"}},
			want:   []string{"a 1 <nil>", "b 1 <nil>", "c 1 <nil>"},
		},
		{
			name: "at most two at once", plan: plan("a b c"), limit: 2,
			events: []event{{want: "start a, start b"}, {name: "a", want: "start c"}, {name: "b"}, {name: "c", want: "over"}},
			want:   []string{"a 1 <nil>", "b 1 <nil>", "c 1 <nil>"},
		},
		{
			name: "passing failures are tried again", plan: plan("a"), limit: 1,
			events: []event{{want: "start a"}, {name: "a", err: transient, want: "wake " + p1.String()}, {pass: p1 / 2, want: "wake " + (p1 - p1/2).String()}, {pass: p1 - p1/2, want: "start a"},
				{name: "a", err: transient, want: "wake " + p2.String()}, {pass: p2, want: "start a"}, {name: "a", want: "over"}},
			want: []string{"a 3 <nil>"},
		},
		{
			name: "but not for ever", plan: plan("a"), limit: 1,
			events: []event{{want: "start a"}, {name: "a", err: transient, want: "wake " + p1.String()}, {pass: p1, want: "start a"}, {name: "a", err: transient, want: "wake " + p2.String()}, {pass: p2, want: "start a"}, {name: "a", err: transient, want: "over"}},
			want:   []string{"a 3 reconcile: apply Job/a: try later"},
		},
		{
			name: "who waits to try again leaves the place to others", plan: plan("a b"), limit: 1,
			events: []event{{want: "start a"}, {name: "a", err: transient, want: "start b, wake " + p1.String()}, {name: "b", want: "wake " + p1.String()}, {pass: p1, want: "start a"}, {name: "a", want: "over"}},
			want:   []string{"a 2 <nil>", "b 1 <nil>"},
		},
		{
			name: "final failures", plan: plan("a b c d"), limit: 4,
			events: []event{{want: "start a, start b, start c, start d"}, {name: "a", err: ErrConflict}, {name: "b", err: fmt.Errorf("x: %w", ErrTerminal)}, {name: "c", err: ErrForbidden}, {name: "d", err: ErrInvalid, want: "over"}},
			want:   []string{"a 1 reconcile: apply Job/a: conflict", "b 1 reconcile: apply Job/b: x: terminal", "c 1 reconcile: apply Job/c: forbidden", "d 1 reconcile: apply Job/d: invalid"},
		},
		{
			name: "dependents are skipped, others go on", plan: plan("a x", "b<a y<x", "c<b"), limit: 8,
			events: []event{{want: "start a, start x"}, {name: "a", err: ErrTerminal}, {name: "x", want: "start y"}, {name: "y", want: "over"}},
			want: []string{"a 1 reconcile: apply Job/a: terminal", "x 1 <nil>", "b 0 reconcile: apply Job/b: held: it depends on Job/a, which failed",
				"y 1 <nil>", "c 0 reconcile: apply Job/c: held: it depends on Job/b, which failed"},
		},
		{
			name: "called off", plan: plan("a b c", "d"), limit: 2,
			events: []event{{want: "start a, start b"}, {name: "a", err: transient, want: "start c, wake " + p1.String()}, {stop: context.Canceled}, {name: "b", err: transient}, {name: "c", want: "over"}},
			want:   []string{"a 1 reconcile: apply Job/a: try later", "b 1 reconcile: apply Job/b: try later", "c 1 <nil>", "d 0 reconcile: apply Job/d: held: context canceled"},
		},
		{
			name: "called off with some in the queue", plan: plan("a b"), limit: 1,
			events: []event{{want: "start a"}, {stop: context.Canceled}, {name: "a", want: "over"}},
			want:   []string{"a 1 <nil>", "b 0 reconcile: apply Job/b: held: context canceled"},
		},
		{
			name: "overtaken: what is running and still wanted goes on", plan: plan("a b", "c"), limit: 2,
			events: []event{{want: "start a, start b"}, {stop: ErrStale, gone: "a", want: "cancel a"}, {name: "a", err: transient}, {name: "b", want: "over"}},
			want:   []string{"a 1 reconcile: apply Job/a: try later", "b 1 <nil>", "c 0 reconcile: apply Job/c: held: stale plan"},
		},
		{
			name: "overtaken twice", plan: plan("a b c"), limit: 2,
			events: []event{{want: "start a, start b"}, {stop: ErrStale, gone: "c"}, {stop: ErrStale, gone: "b", want: "cancel b"}, {name: "b", err: transient}, {name: "a", want: "over"}},
			want:   []string{"a 1 <nil>", "b 1 reconcile: apply Job/b: try later", "c 0 reconcile: apply Job/c: held: stale plan"},
		},
		{
			name: "overtaken while waiting to try again", plan: plan("a"), limit: 1,
			events: []event{{want: "start a"}, {name: "a", err: transient, want: "wake " + p1.String()}, {stop: ErrStale, gone: "a", want: "over"}},
			want:   []string{"a 1 reconcile: apply Job/a: try later"},
		},
		{name: "called off before it began", plan: plan("a", "b"), limit: 1, events: []event{{stop: context.Canceled, want: "over"}},
			want: []string{"a 0 reconcile: apply Job/a: held: context canceled", "b 0 reconcile: apply Job/b: held: context canceled"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &stepper{s: newApplyState(tt.plan, retry, tt.limit), now: time.Unix(0, 0)}
			for i, e := range tt.events {
				d.now = d.now.Add(e.pass)
				ev := applyEvent{change: -1, err: e.err, stop: e.stop}
				if e.gone != "" {
					ev.obsolete = func(c Change) bool { return c.Key.Name == e.gone }
				}
				if e.name != "" {
					ev.change = d.s.index[Key{Kind: "Job", Name: e.name}]
				}
				if got := d.step(ev); got != e.want {
					t.Fatalf("event %d: got %q, want %q", i, got, e.want)
				}
			}
			var got []string
			for _, o := range d.s.outcomes() {
				got = append(got, fmt.Sprint(o.Change.Key.Name, " ", o.Attempts, " ", o.Err))
				if o.Attempts == 0 && !errors.Is(o.Err, ErrHeld) {
					t.Errorf("%v does not match ErrHeld", o.Err)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestRetryPause(t *testing.T) {
	for _, r := range []Retry{{}, {Base: time.Hour, Max: time.Minute}, {Base: 1, Max: 1<<63 - 1}, {Base: 1<<63 - 1, Max: 1<<63 - 1}} {
		for n := 1; n < 200; n++ {
			if d := r.pause(Key{}, n); d < 0 || d == 0 && r.Base != 1 {
				t.Fatalf("%+v.pause(%d) = %v", r, n, d)
			}
		}
	}
}

// leap is a clock that jumps to whatever is waited for.
type leap struct {
	mu  sync.Mutex
	now time.Time
}

func (c *leap) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *leap) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	ch := make(chan time.Time, 1)
	ch <- c.now
	return ch
}

type applyFunc func(ctx context.Context, c Change) error

func (f applyFunc) Apply(ctx context.Context, c Change) error { return f(ctx, c) }
func (f applyFunc) Observe(context.Context) (*State, error)   { return nil, nil }

func TestDriveApply(t *testing.T) {
	p := &Plan{Waves: [][]Change{nil, nil}}
	for i := range 50 {
		p.Waves[i%2] = append(p.Waves[i%2], Change{Action: Create, Key: Key{Kind: "Job", Name: fmt.Sprint(i)}})
	}
	var mu sync.Mutex
	tries := map[Key]int{}
	running, most := 0, 0
	act := applyFunc(func(_ context.Context, c Change) error {
		mu.Lock()
		tries[c.Key]++
		n := tries[c.Key]
		running++
		most = max(most, running)
		mu.Unlock()
		defer func() { mu.Lock(); running--; mu.Unlock() }()
		if n <= 2 && strings.HasSuffix(c.Key.Name, "7") {
			return errors.New("try later")
		}
		return nil
	})
	attempts := 0
	res := driveApply(t.Context(), p, act, Retry{}, 4, &leap{}, nil, func(Outcome) { attempts++ })
	if err := res.Err(); err != nil {
		t.Error(err)
	}
	if want := 50 + 2*5; attempts != want {
		t.Errorf("%d attempts, want %d", attempts, want)
	}
	if most > 4 {
		t.Errorf("%d changes at once", most)
	}
}

func TestDriveApplyCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	p := &Plan{Waves: [][]Change{{}}}
	for i := range 20 {
		p.Waves[0] = append(p.Waves[0], Change{Action: Create, Key: Key{Kind: "Job", Name: fmt.Sprint(i)}})
	}
	var mu sync.Mutex
	var asked []string
	res := driveApply(ctx, p, applyFunc(func(ctx context.Context, c Change) error {
		mu.Lock()
		asked = append(asked, c.Key.Name)
		mu.Unlock()
		cancel(why)
		<-ctx.Done()
		return ctx.Err()
	}), Retry{}, 3, &leap{}, nil, nil)
	if len(asked) > 3 {
		t.Errorf("%v were started after the end", asked)
	}
	held := 0
	for _, o := range res.Outcomes {
		if o.Attempts == 0 {
			held++
			if !errors.Is(o.Err, ErrHeld) || !errors.Is(o.Err, why) {
				t.Errorf("%v", o.Err)
			}
		} else if !slices.Contains(asked, o.Change.Key.Name) || !errors.Is(o.Err, context.Canceled) {
			t.Errorf("%v", o)
		}
	}
	if held+len(asked) != 20 {
		t.Errorf("%d asked, %d held", len(asked), held)
	}
}

func BenchmarkApply10k(b *testing.B) {
	p := &Plan{Waves: [][]Change{nil}}
	for i := range 10_000 {
		p.Waves[0] = append(p.Waves[0], Change{Action: Create, Key: Key{Kind: "Job", Name: fmt.Sprint(i)}})
	}
	act := applyFunc(func(context.Context, Change) error { return nil })
	b.ReportAllocs()
	for b.Loop() {
		driveApply(b.Context(), p, act, Retry{}, 8, SystemClock{}, nil, nil)
	}
}
