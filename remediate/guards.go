package remediate

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// The guards, as [Refusal.Guard] names them.
const (
	// GuardTarget refuses an action without exactly one target.
	GuardTarget = "target"
	// GuardPause holds what a person paused, for as long as it is paused.
	GuardPause = "pause"
	// GuardInFlight bounds the actions under way, over all and per target.
	GuardInFlight = "in-flight"
	// GuardBudget bounds the actions per window, over all and per target.
	GuardBudget = "budget"
	// GuardRate keeps a distance between any two actions.
	GuardRate = "rate"
	// GuardCooldown keeps a growing distance between actions on one target.
	GuardCooldown = "cool-down"
)

// Refusal is a guard's no.
type Refusal struct {
	Guard string `json:"guard"`
	// Reason is one line for a person, with the numbers.
	Reason string `json:"reason"`
	// Until is when the guard opens by itself; zero where that depends on
	// other cases or on a person.
	Until time.Time `json:"until,omitzero"`
}

// String gives the guard and the reason.
func (r Refusal) String() string { return "guard " + r.Guard + ": " + r.Reason }

// Limits are the guards. Each is on by default: 0 takes the default, a
// negative value turns the limit off. An action counts for everything that it
// changes (see [Operation.Touches]): a target is one of these, whatever the
// instance. An action is in flight from its intent until its effect was
// verified or it was given up.
type Limits struct {
	// MaxInFlight bounds actions in flight over all targets; default 3.
	MaxInFlight int
	// MaxInFlightPerTarget bounds them per target; default 1.
	MaxInFlightPerTarget int
	// Window is the length of the sliding window of the next two; default an
	// hour, at most seven days.
	Window time.Duration
	// MaxPerWindow bounds the actions begun in a window; default 12.
	MaxPerWindow int
	// MaxPerTarget bounds them per target; default 4.
	MaxPerTarget int
	// MinInterval is the least time between any two begun actions; default 5s.
	MinInterval time.Duration
	// Cooldown is the least time between two actions on one target; default
	// 2 min. It doubles with every action on the target since the last one
	// that helped, up to MaxCooldown, default 30 min.
	Cooldown    time.Duration
	MaxCooldown time.Duration
	// MaxAttempts bounds the actions begun for one case, after which it
	// escalates; default 3.
	MaxAttempts int
}

// orDefault: 0 is the default, below 0 is off.
func orDefault[T int | time.Duration](v, def T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return -1
	}
	return v
}

func (l Limits) withDefaults() (Limits, error) {
	l.MaxInFlight = orDefault(l.MaxInFlight, 3)
	l.MaxInFlightPerTarget = orDefault(l.MaxInFlightPerTarget, 1)
	l.Window = orDefault(l.Window, time.Hour)
	l.MaxPerWindow = orDefault(l.MaxPerWindow, 12)
	l.MaxPerTarget = orDefault(l.MaxPerTarget, 4)
	l.MinInterval = orDefault(l.MinInterval, 5*time.Second)
	l.Cooldown = orDefault(l.Cooldown, 2*time.Minute)
	l.MaxCooldown = orDefault(l.MaxCooldown, max(30*time.Minute, l.Cooldown))
	l.MaxAttempts = orDefault(l.MaxAttempts, 3)
	if l.Window < 0 {
		return l, invalid("limits", "Window", "it cannot be off; turn off MaxPerWindow and MaxPerTarget")
	}
	if l.Window > historyKept {
		return l, invalid("limits", "Window", "%s is longer than seven days", l.Window)
	}
	if l.MaxCooldown >= 0 && l.Cooldown > l.MaxCooldown {
		return l, invalid("limits", "MaxCooldown", "%s is below Cooldown, %s", l.MaxCooldown, l.Cooldown)
	}
	return l, nil
}

// cooldown is the distance after the n-th action since the last that helped.
func (l Limits) cooldown(n int) time.Duration {
	d := l.Cooldown
	for i := 1; i < n && d < historyKept; i++ {
		d *= 2
	}
	if l.MaxCooldown > 0 {
		d = min(d, l.MaxCooldown)
	}
	return d
}

// pausedBy finds the pause that holds an action on the targets: one of them
// is enough.
func (s *state) pausedBy(targets []string) (Pause, bool) {
	if p, ok := s.pauses[Everything]; ok {
		return p, true
	}
	for _, t := range targets {
		if p, ok := s.pauses[t]; ok {
			return p, true
		}
	}
	return Pause{}, false
}

// guard tells which guard refuses to begin an action on the targets now, in a
// fixed order; nil for none. It only reads. reserved is the place that the
// case itself holds, or nil.
func (l Limits) guard(s *state, targets, reserved []string, now time.Time) *Refusal {
	if len(targets) == 0 {
		return &Refusal{Guard: GuardTarget, Reason: "the action has no target"}
	}
	if p, ok := s.pausedBy(targets); ok {
		scope := p.Scope
		if scope == Everything {
			scope = "everything"
		}
		return &Refusal{Guard: GuardPause, Reason: fmt.Sprintf("%s is paused by %s: %s", scope, p.By, p.Why)}
	}
	all := s.flying
	if reserved != nil {
		all--
	}
	if l.MaxInFlight >= 0 && all >= l.MaxInFlight {
		return &Refusal{Guard: GuardInFlight, Reason: fmt.Sprintf("%d of at most %d actions are in flight", all, l.MaxInFlight)}
	}
	for _, target := range targets {
		n := s.inFlight[target]
		if slices.Contains(reserved, target) {
			n--
		}
		if l.MaxInFlightPerTarget >= 0 && n >= l.MaxInFlightPerTarget {
			return &Refusal{Guard: GuardInFlight, Reason: fmt.Sprintf("%d of at most %d actions on %s are in flight", n, l.MaxInFlightPerTarget, target)}
		}
	}
	if r := l.budget(s, targets, now); r != nil {
		return r
	}
	if n := len(s.starts); l.MinInterval > 0 && n > 0 {
		if open := s.starts[n-1].at.Add(l.MinInterval); now.Before(open) {
			return &Refusal{Guard: GuardRate, Until: open, Reason: fmt.Sprintf("the last action began %s ago, at least %s apart", short(now.Sub(s.starts[n-1].at)), short(l.MinInterval))}
		}
	}
	if l.Cooldown <= 0 {
		return nil
	}
	for _, target := range targets {
		n := s.failures[target]
		last, ok := s.last[target]
		d := l.cooldown(n)
		if open := last.Add(d); ok && now.Before(open) {
			return &Refusal{Guard: GuardCooldown, Until: open, Reason: fmt.Sprintf("%s cools down for %s after action %d", target, short(d), max(n, 1))}
		}
	}
	return nil
}

// budget is the sliding window: an action counts for all of Window after it
// began.
func (l Limits) budget(s *state, targets []string, now time.Time) *Refusal {
	from := now.Add(-l.Window)
	// The first start inside the window (from, now].
	i := sort.Search(len(s.starts), func(i int) bool { return s.starts[i].at.After(from) })
	in := s.starts[i:]
	if n := len(in); l.MaxPerWindow >= 0 && n >= l.MaxPerWindow {
		r := &Refusal{Guard: GuardBudget, Reason: fmt.Sprintf("%d of at most %d actions in %s", n, l.MaxPerWindow, short(l.Window))}
		if l.MaxPerWindow > 0 {
			r.Until = in[n-l.MaxPerWindow].at.Add(l.Window)
		}
		return r
	}
	if l.MaxPerTarget < 0 {
		return nil
	}
	for _, target := range targets {
		var mine []time.Time
		for _, x := range in {
			if slices.Contains(x.targets, target) {
				mine = append(mine, x.at)
			}
		}
		if n := len(mine); n >= l.MaxPerTarget {
			r := &Refusal{Guard: GuardBudget, Reason: fmt.Sprintf("%d of at most %d actions on %s in %s", n, l.MaxPerTarget, target, short(l.Window))}
			if l.MaxPerTarget > 0 {
				r.Until = mine[n-l.MaxPerTarget].Add(l.Window)
			}
			return r
		}
	}
	return nil
}
