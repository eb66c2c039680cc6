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
	a.tl.say(wordStory, nil, "a day takes %.0f s; desired state in %s", 86400/cfg.speed, a.repositoryName())

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
		if err := sum.writeJSON(cfg.json, stdout); err != nil {
			return false, err
		}
	}
	if cfg.report != "" {
		if err := writeReport(alive, cfg.report, sum, a.sortedTracks(), a.tl.all(), a.clock); err != nil {
			return false, err
		}
		fmt.Fprintf(out, "\nreport written to %s\n", cfg.report)
	}
	return sum.OK, nil
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

// compare adds what a static fleet and the HPA rule would have cost.
func (a *autopilot) compare(sum *summary) error {
	step, lead := scaleEvery*a.clock.step(), a.clock.sim(leadWall)
	short, judged, hpaShort := 0, 0, 0.0
	for _, fine := range a.sortedTracks() {
		t := fine.coarse(step)
		sum.ReplicaMinutes += t.replicaMinutes(step)
		sum.StaticMinutes += t.staticMinutes(step, hpaTarget)
		hpa, err := scaling.NewHPA(scaling.HPAOptions{
			Capacity: t.Capacity, Target: hpaTarget, Min: minReplicas, Max: maxReplicas, Stabilization: a.clock.sim(3 * time.Second),
		})
		if err != nil {
			return err
		}
		r, err := t.replayPolicy(hpa, a.scalers[t.Service].start, step, lead)
		if err != nil {
			return err
		}
		sum.HPAMinutes += r.minutes
		n, m := t.short()
		short, judged = short+n, judged+m
		hpaShort += r.short * float64(m)
	}
	if judged > 0 {
		sum.ShortShare, sum.HPAShortShare = float64(short)/float64(judged), hpaShort/float64(judged)
	}
	return nil
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
