package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/forecast/scaling"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
)

var errStoryOver = errors.New("the story is over")

// fly builds everything, runs it through the story and reports. ok tells
// whether every step ended as it should.
func fly(ctx context.Context, cfg config, stdout, stderr io.Writer) (ok bool, err error) {
	dir := cfg.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "evenkeel-autopilot-"); err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	out := stdout
	if cfg.json == "-" {
		out = stderr
	}
	// The platform closes by itself when its context ends; here it is closed
	// last, so that the summary can still look at it.
	alive := context.WithoutCancel(ctx)
	a, err := build(alive, cfg, dir, out, stderr)
	if err != nil {
		return false, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(alive, 15*time.Second)
		defer cancel()
		err = errors.Join(err, a.close(closing))
	}()
	a.tl.say(wordStory, []string{
		"columns: simulated day and time, seconds since the start, what and why",
		"a day takes " + fmt.Sprintf("%.0f s", 86400/cfg.speed) + "; FAULT is injected, everything else is noticed, decided and done by the library",
	}, "desired state in %s", a.repositoryName())

	s := &story{a: a}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.run(gctx) })
	g.Go(func() error {
		if err := s.tell(gctx); err != nil {
			return err
		}
		if cfg.story == "none" {
			<-gctx.Done()
			return gctx.Err()
		}
		return errStoryOver
	})
	if err := g.Wait(); !errors.Is(err, errStoryOver) {
		return false, err
	}
	if err := a.platform.StopLoad(alive); err != nil {
		return false, err
	}
	sum, err := a.summarise(alive, s)
	if err != nil {
		return false, err
	}
	if err := sum.write(out); err != nil {
		return false, err
	}
	if cfg.json != "" {
		err = sum.writeJSON(cfg.json, stdout)
	}
	if cfg.report != "" {
		err = errors.Join(err, writeReport(alive, cfg.report, sum, a.sortedTracks(), a.tl.all(), a.clock))
		fmt.Fprintf(out, "\nreport: %s\n", cfg.report)
	}
	if cfg.dir == "" && cfg.repo == "" {
		fmt.Fprintf(out, "\nto keep repository and journal use -dir DIR; then: git -C DIR/desired.git log\n")
	}
	return sum.OK, err
}

func (a *autopilot) repositoryName() string {
	if a.cfg.repo != "" {
		return a.cfg.repo
	}
	return a.platform.Dir() + "/desired.git"
}

func (a *autopilot) sortedTracks() []*track {
	var out []*track
	for _, name := range shop.Services() {
		out = append(out, a.tracks[name])
	}
	return out
}

// summarise puts the figures together; the loop has ended.
func (a *autopilot) summarise(ctx context.Context, s *story) (summary, error) {
	sim, wall := a.clock.now()
	sum := summary{
		OK: s.ok(), Story: a.cfg.story, Seed: a.cfg.seed, Steps: s.steps, Release: s.release,
		WallSeconds: wall.Seconds(), SimulatedHours: sim.Sub(a.clock.load.SimStart).Hours(),
		Repairs: []repair{}, Commits: []commit{},
	}
	totals, err := shop.ReadTotals(a.platform.Dir())
	if err != nil {
		return sum, err
	}
	sum.RequestsSent, sum.RequestsFailed = totals.Sent, totals.Failed
	if totals.Sent > 0 {
		sum.FailedShare = float64(totals.Failed) / float64(totals.Sent)
	}
	for _, r := range a.incidents {
		sum.Repairs = append(sum.Repairs, r.repair())
	}
	slices.SortFunc(sum.Repairs, func(x, y repair) int { return strings.Compare(x.Incident, y.Incident) })
	slices.SortStableFunc(sum.Repairs, func(x, y repair) int { return int(a.incidents[x.Incident].onset - a.incidents[y.Incident].onset) })
	log, err := a.repo.Log(ctx, gitsource.LogOptions{Limit: gitsource.HistoryLimit})
	if err != nil {
		return sum, err
	}
	for _, c := range log {
		if c.Trailer(reconcile.TrailerAction) == "" {
			continue
		}
		out := commit{Revision: reconcile.ShortRevision(c.Revision), Subject: c.Subject()}
		for _, t := range c.Trailers {
			out.Trailers = append(out.Trailers, t.Key+": "+t.Value)
		}
		sum.Commits = append(sum.Commits, out)
	}
	return sum, a.compare(&sum)
}

// compare adds what a static fleet would have cost, and what the forecast and
// the HPA rule cost in a replay on the demand that was measured: the same
// simulator, so that only the rules differ. What was really used has rollouts,
// restarts and drift in it as well.
func (a *autopilot) compare(sum *summary) error {
	step, lead := scaleEvery*a.clock.step(), a.clock.sim(leadWall)
	var used, forecast, hpa fleet
	for _, fine := range a.sortedTracks() {
		t := fine.coarse(step)
		short, judged := t.short()
		used.add(t.replicaMinutes(step), float64(short), judged)
		sum.StaticMinutes += t.staticMinutes(step, hpaTarget)
		for _, p := range []struct {
			make func(float64, simClock) (scaling.Policy, error)
			sum  *fleet
		}{{newPolicy, &forecast}, {newHPA, &hpa}} {
			policy, err := p.make(t.Capacity, a.clock)
			if err != nil {
				return err
			}
			r, err := t.replayPolicy(policy, a.scalers[t.Service].start, step, lead)
			if err != nil {
				return err
			}
			p.sum.add(r.minutes, r.short*float64(judged), judged)
		}
	}
	sum.ReplicaMinutes, sum.ShortShare = used.minutes, used.share()
	sum.ForecastMinutes, sum.ForecastShortShare = forecast.minutes, forecast.share()
	sum.HPAMinutes, sum.HPAShortShare = hpa.minutes, hpa.share()
	return nil
}

// fleet adds up services.
type fleet struct {
	minutes, short float64
	judged         int
}

func (f *fleet) add(minutes, short float64, judged int) {
	f.minutes += minutes
	f.short += short
	f.judged += judged
}

func (f *fleet) share() float64 {
	if f.judged == 0 {
		return 0
	}
	return f.short / float64(f.judged)
}

func (r *incidentRecord) repair() repair {
	out := repair{Incident: r.id, Onset: seconds(r.onset.Seconds()), Status: string(r.status)}
	if out.Status == "" {
		out.Status = "not handled"
	}
	since := func(d time.Duration) seconds {
		if d == 0 {
			return 0
		}
		return seconds((d - r.onset).Seconds())
	}
	out.Detect, out.Cause, out.Act, out.Verify = since(r.alerted), since(r.named), since(r.actedAt), since(r.ended)
	if r.report != nil {
		out.Class = string(r.report.Class)
		if len(r.report.Services) > 0 {
			out.Service, out.Instance = r.report.Services[0].Service, r.report.Services[0].Instance
		}
		if r.report.Change != nil && r.report.Class == rootcause.RollBack {
			out.Commit = reconcile.ShortRevision(r.report.Change.Change.ID)
		}
	}
	return out
}
