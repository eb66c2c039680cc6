package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/forecast/scaling"
	"github.com/evenkeel-go/evenkeel/internal/localplatform"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
	"github.com/evenkeel-go/evenkeel/remediate"
)

// story injects what can go wrong and looks at what the autopilot makes of
// it. It decides nothing and tells the autopilot nothing.
type story struct {
	a       *autopilot
	steps   []step
	release *release
}

func (s *story) done(name string, ok bool, format string, args ...any) {
	s.steps = append(s.steps, step{Name: name, OK: ok, Detail: fmt.Sprintf(format, args...)})
}

func (s *story) ok() bool {
	return len(s.steps) > 0 && !slices.ContainsFunc(s.steps, func(st step) bool { return !st.OK })
}

// until waits for a condition, at most so long of wall time.
func until(ctx context.Context, most time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(most)
	for !cond() {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
	return true
}

// sleepUntil waits for a time of a simulated day, counted from 0.
func (s *story) sleepUntil(ctx context.Context, day int, hour float64) error {
	at := s.a.clock.load.SimStart.Truncate(24 * time.Hour).Add(time.Duration(day)*24*time.Hour + time.Duration(hour*float64(time.Hour)))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(s.a.clock.load.WallTime(at))):
		return nil
	}
}

// tell runs the story that was asked for.
func (s *story) tell(ctx context.Context) error {
	if err := s.firstSync(ctx); err != nil || s.a.cfg.story == "none" {
		return err
	}
	var parts []func(context.Context) error
	if s.a.cfg.story == "release" {
		parts = append(parts, s.settle, s.badRelease)
	} else {
		parts = append(parts,
			func(ctx context.Context) error { return s.sleepUntil(ctx, 0, 4) }, s.drift,
			func(ctx context.Context) error { return s.sleepUntil(ctx, 1, 10) }, s.surge,
			func(ctx context.Context) error { return s.sleepUntil(ctx, 1, 10.5) }, s.badRelease,
			func(ctx context.Context) error { return s.sleepUntil(ctx, 1, 14.5) }, s.leak,
			func(ctx context.Context) error { return s.sleepUntil(ctx, 1, 18) }, s.badManifest,
			func(ctx context.Context) error { return s.sleepUntil(ctx, 2, 1) }, s.lull,
		)
	}
	for _, part := range parts {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// firstSync waits for the platform to be as Git declares, and for it to serve.
func (s *story) firstSync(ctx context.Context) error {
	start := time.Now()
	ready := func() bool {
		for _, name := range shop.Services() {
			if s.a.ready(name) == 0 {
				return false
			}
		}
		s.a.mu.Lock()
		defer s.a.mu.Unlock()
		return s.a.synced != ""
	}
	ok := until(ctx, 40*time.Second, ready)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// Now customers come; after a restart they have been there all the time.
	if err := s.a.platform.StartInfrastructure(context.WithoutCancel(ctx), &s.a.clock.load); err != nil {
		return err
	}
	s.a.mu.Lock()
	if s.a.warm.IsZero() {
		s.a.warm = time.Now().Add(1500 * time.Millisecond) // the first requests met a cold shop
	}
	s.a.mu.Unlock()
	n := len(s.a.platform.Instances(""))
	s.a.tl.say(wordSync, nil, "the shop is as declared: %d services, %d processes, ingress %s", len(shop.Services()), n, s.a.platform.Endpoints().Ingress)
	s.done("first sync", ok, "%d services in %d processes after %.1f s", len(shop.Services()), n, time.Since(start).Seconds())
	if !ok {
		return errors.New("the shop did not come up; run with -v to see why")
	}
	return nil
}

// settle waits until the detectors know what is usual.
func (s *story) settle(ctx context.Context) error {
	until(ctx, 30*time.Second, func() bool {
		s.a.mu.Lock()
		defer s.a.mu.Unlock()
		return !s.a.watched.IsZero() && time.Since(s.a.watched) > 12*time.Second
	})
	return ctx.Err()
}

func (s *story) declared(ctx context.Context, service string) int {
	state, err := s.a.repo.Fetch(ctx)
	if err != nil {
		return -1
	}
	r, _ := state.Get(s.a.scalers[service].key)
	n, _ := lookup(r, "spec.replicas").(int64)
	return int(n)
}

// drift kills a process and starts another by hand.
func (s *story) drift(ctx context.Context) error {
	const service = "cart"
	victim := s.a.platform.Instances(service)[0]
	s.a.tl.say(wordFault, nil, "somebody kills %s (pid %d)", victim.ID, victim.PID)
	if err := s.a.platform.KillProcess(victim.ID); err != nil {
		return err
	}
	start := time.Now()
	asDeclared := func() bool {
		list := s.a.platform.Instances(service)
		return len(list) == s.declared(ctx, service) && !slices.ContainsFunc(list, func(i localplatform.Instance) bool {
			return i.ID == victim.ID || i.Owner == "hand" || !i.Ready
		})
	}
	ok := until(ctx, 10*time.Second, asDeclared)
	s.done("killed process", ok, "%s replaced after %.1f s", victim.ID, time.Since(start).Seconds())

	extra, err := s.a.platform.StartByHand(ctx, service)
	if err != nil {
		return err
	}
	s.a.tl.say(wordFault, nil, "somebody starts %s by hand", extra)
	start = time.Now()
	ok = until(ctx, 10*time.Second, asDeclared)
	s.done("process started by hand", ok, "%s stopped after %.1f s", extra, time.Since(start).Seconds())
	return ctx.Err()
}

// surge looks back at the second day's morning: was capacity there first?
func (s *story) surge(ctx context.Context) error {
	day := s.a.clock.load.SimStart.Truncate(24 * time.Hour)
	window := func(day0 int) (from, to time.Time) {
		return day.Add(time.Duration(day0)*24*time.Hour + 5*time.Hour), day.Add(time.Duration(day0)*24*time.Hour + 10*time.Hour)
	}
	from, to := window(1)
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	ahead := 0
	for _, d := range s.a.scaledUp {
		if d.Bound == scaling.ByForecast && d.Time.After(from) && d.Time.Before(to) && d.Peak.After(d.Time) {
			ahead++
		}
	}
	short, judged := 0, 0
	for _, t := range s.a.tracks {
		n, m := t.between(from, to).short()
		short, judged = short+n, judged+m
	}
	// A busy machine may start a process late; more than a few steps short
	// means that the surge came first.
	ok := judged > 0 && (s.a.cfg.trace != "" || ahead > 0 && float64(short) <= 0.05*float64(judged))
	s.done("surge foreseen", ok, "%d scale-ups ahead of the morning; demand above ready capacity in %d of %d steps", ahead, short, judged)
	return nil
}

// badRelease publishes a build with a defect deep in the call graph and has
// Git declare it.
func (s *story) badRelease(ctx context.Context) error {
	culprit := s.a.cfg.culprit
	const tag = "1.1.0"
	b := shop.Behaviour{ErrorRate: 0.35, ExtraMS: 180}
	switch s.a.cfg.defect {
	case "errors":
		b.ExtraMS = 0
	case "slow":
		b.ErrorRate = 0
	}
	if err := shop.PublishImage(s.a.platform.Dir(), shop.ImageName(culprit), tag, b); err != nil {
		return err
	}
	key := s.a.scalers[culprit].key
	bad, err := s.push(ctx, key, fmt.Sprintf("Release %s %s", culprit, tag), func(text string) (string, error) {
		return strings.Replace(text, "/"+culprit+":1.0.0", "/"+culprit+":"+tag, 1), nil
	})
	if err != nil {
		return err
	}
	s.a.tl.say(wordFault, nil, "a developer releases %s %s, which has a defect (commit %s)", culprit, tag, reconcile.ShortRevision(bad.Revision))
	before := time.Now()
	s.release = &release{
		Culprit: culprit, Defect: s.a.cfg.defect, Commit: reconcile.ShortRevision(bad.Revision),
		Pushed: seconds(before.Sub(s.a.clock.load.WallStart).Seconds()),
	}
	var rec incidentRecord
	until(ctx, 45*time.Second, func() bool {
		rec = s.newest(func(r *incidentRecord) bool {
			return r.alerted > before.Sub(s.a.clock.load.WallStart) && r.status.Final()
		})
		return rec.id != ""
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	state, err := s.a.repo.Fetch(ctx)
	if err != nil {
		return err
	}
	r, _ := state.Get(key)
	image, _ := lookup(r, "spec.template.spec.containers[name="+culprit+"].image").(string)
	var wrong []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	check(rec.id != "", "no incident came to an end")
	if rec.report != nil {
		check(len(rec.report.Services) > 0 && rec.report.Services[0].Service == culprit, "blamed %s", first(rec.report))
		check(rec.report.Change != nil && rec.report.Change.Change.ID == bad.Revision, "blamed another commit")
	}
	check(rec.status == remediate.Resolved, "case is %s", rec.status)
	check(strings.HasSuffix(image, ":1.0.0"), "Git declares %s", image)
	if len(wrong) > 0 {
		s.done("bad release", false, "%s", strings.Join(wrong, "; "))
		return nil
	}
	s.done("bad release", true, "%s and commit %s named, reverted by %s %.1f s after the first bad sample (%.1f s after the release), verified",
		culprit, reconcile.ShortRevision(bad.Revision), reconcile.ShortRevision(rec.revert), (rec.actedAt - rec.onset).Seconds(),
		(rec.actedAt - before.Sub(s.a.clock.load.WallStart)).Seconds())
	return nil
}

func first(r *rootcause.Report) string {
	if len(r.Services) == 0 {
		return "nobody"
	}
	return r.Services[0].Service
}

// newest is a copy of the newest incident that matches.
func (s *story) newest(match func(*incidentRecord) bool) incidentRecord {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	var out incidentRecord
	for _, r := range s.a.incidents {
		if match(r) && (out.id == "" || r.alerted > out.alerted) {
			out = *r
		}
	}
	return out
}

// push commits a change of the file that declares a resource, as a developer
// does: where somebody changed it meanwhile, on what it is then.
func (s *story) push(ctx context.Context, k reconcile.Key, message string, change func(text string) (string, error)) (reconcile.Commit, error) {
	for {
		state, err := s.a.repo.Fetch(ctx)
		if err != nil {
			return reconcile.Commit{}, err
		}
		r, ok := state.Get(k)
		if !ok {
			return reconcile.Commit{}, fmt.Errorf("%s: %w", k, reconcile.ErrNotFound)
		}
		text, base, err := s.a.repo.ReadFile(ctx, r.Origin.Path)
		if err != nil {
			return reconcile.Commit{}, err
		}
		changed, err := change(string(text))
		if err != nil {
			return reconcile.Commit{}, fmt.Errorf("%s: %w", r.Origin.Path, err)
		}
		c, err := s.a.repo.Commit(ctx, gitsource.CommitRequest{
			Message: message, Author: developer(), Base: base, Files: map[string][]byte{r.Origin.Path: []byte(changed)},
		})
		if !errors.Is(err, reconcile.ErrConflict) {
			return c, err
		}
	}
}

// leak makes one replica lose memory.
func (s *story) leak(ctx context.Context) error {
	const service = "catalogue"
	victim := s.a.platform.Instances(service)[0]
	s.a.tl.say(wordFault, nil, "%s begins to leak memory", victim.ID)
	before := time.Now()
	if err := s.a.platform.InjectFault(ctx, victim.ID, shop.Fault{Kind: shop.Leak, MBPerSecond: 40}); err != nil {
		return err
	}
	var rec incidentRecord
	until(ctx, 40*time.Second, func() bool {
		rec = s.newest(func(r *incidentRecord) bool {
			return r.alerted > before.Sub(s.a.clock.load.WallStart) && r.status.Final()
		})
		return rec.id != ""
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	gone := !slices.ContainsFunc(s.a.platform.Instances(service), func(i localplatform.Instance) bool { return i.ID == victim.ID })
	named := rec.report != nil && len(rec.report.Services) > 0 && rec.report.Services[0].Instance == victim.ID
	ok := rec.status == remediate.Resolved && named && gone
	detail := fmt.Sprintf("%s named and restarted %.1f s after the first bad sample, verified", victim.ID, (rec.actedAt - rec.onset).Seconds())
	if !ok {
		detail = fmt.Sprintf("instance named: %v, replaced: %v, case %s", named, gone, rec.status)
	}
	s.done("memory leak", ok, "%s", detail)
	return nil
}

// badManifest pushes a manifest that breaks policy, beside a good change.
func (s *story) badManifest(ctx context.Context) error {
	const service = "shipping"
	key := s.a.scalers[service].key
	bad, err := s.push(ctx, key, "Debug shipping on the node", func(text string) (string, error) {
		const marker = "          securityContext:\n"
		i := strings.LastIndex(text, marker)
		if i < 0 {
			return "", errors.New("no container securityContext to break")
		}
		text = text[:i+len(marker)] + "            privileged: true # quick fix, to be removed\n" + text[i+len(marker):]
		return strings.Replace(text, "/"+service+":1.0.0", "/"+service+":latest", 1), nil
	})
	if err != nil {
		return err
	}
	s.a.tl.say(wordFault, nil, "a developer pushes a privileged container with a moving tag (commit %s)", reconcile.ShortRevision(bad.Revision))
	refused := until(ctx, 10*time.Second, func() bool {
		s.a.mu.Lock()
		defer s.a.mu.Unlock()
		return s.a.refusals[bad.Revision+" "+key.String()]
	})
	id := findingTrigger + "/" + reconcile.ShortRevision(bad.Revision) + "-" + service
	var c remediate.Case
	ended := until(ctx, 45*time.Second, func() bool {
		c, err = s.a.manager.Case(id)
		return err == nil && c.Status.Final()
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	touched := slices.ContainsFunc(s.a.platform.Instances(service), func(i localplatform.Instance) bool { return strings.HasSuffix(i.Image, ":latest") })
	want := remediate.Resolved
	said := ""
	for _, at := range c.Attempts {
		if at.Approval != nil {
			said = at.Approval.String()
			switch at.Approval.Answer {
			case remediate.NotApproved:
				want = remediate.Denied
			case remediate.Expired: // nobody was there: a person is called
				want = remediate.Escalated
			case remediate.Approved:
			}
		}
	}
	ok := refused && !touched && ended && c.Status == want && said != ""
	s.done("manifest against policy", ok, "refused, nothing touched; revert of %s: %s", reconcile.ShortRevision(bad.Revision), said)
	if !ok {
		s.steps[len(s.steps)-1].Detail = fmt.Sprintf("refused: %v, platform touched: %v, case %s, asked: %q", refused, touched, c.Status, said)
	}
	return nil
}

// lull looks at whether capacity left with the demand.
func (s *story) lull(ctx context.Context) error {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	most, now := 0.0, 0.0
	evening := s.a.clock.load.SimStart.Truncate(24 * time.Hour).Add(24*time.Hour + 17*time.Hour)
	for _, t := range s.a.tracks {
		w := t.between(evening, evening.Add(24*time.Hour))
		if len(w.Replicas) == 0 {
			continue
		}
		most += slices.Max(w.Replicas)
		now += w.Replicas[len(w.Replicas)-1]
	}
	s.done("lull", now < most || s.a.cfg.trace != "", "%.0f replicas at night, %.0f in the evening", now, most)
	return nil
}
