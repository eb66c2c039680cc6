package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/forecast"
	"github.com/evenkeel-go/evenkeel/forecast/scaling"
	"github.com/evenkeel-go/evenkeel/internal/localplatform"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/scrape"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
	"github.com/evenkeel-go/evenkeel/remediate"
	"github.com/evenkeel-go/evenkeel/security"
)

// autopilot is everything that is wired together. Its loop owns all fields
// but those with a lock of their own.
type autopilot struct {
	cfg   config
	clock simClock
	tl    *timeline
	log   *slog.Logger

	platform *localplatform.Platform
	repo     *gitsource.Repository
	rec      *reconcile.Reconciler
	scraper  *scrape.Scraper
	history  *historyLog
	monitor  *anomaly.Monitor
	manager  *remediate.Manager
	journal  *remediate.FileJournal

	mail mailbox // what reconciler and manager tell, for the loop

	scalers   map[string]*scaler
	tracks    map[string]*track
	lastScale time.Time // wall
	instances map[string]map[string]bool
	refused   map[reconcile.Key]reconcile.Held // refusals that have no case yet
	told      map[string]bool                  // refusals that were told
	opened    time.Time                        // the first interval of service
	enough    int                              // intervals in a row with capacity for the demand

	mu        sync.Mutex // guards what the story looks at
	pending   []diagnosis
	incidents map[string]*incidentRecord
	held      map[reconcile.Key]reconcile.Held
	refusals  map[string]bool // "revision key" of what a gate ever refused
	synced    string          // revision of the last Synced event
	warm      time.Time       // wall time at which start-up is over
	watched   time.Time       // wall time since which detectors learn
	scaledUp  []scaling.Decision
}

// build makes the platform, the repository and everything between, in dir.
func build(ctx context.Context, cfg config, dir string, out, errw io.Writer) (_ *autopilot, err error) {
	a := &autopilot{
		cfg:       cfg,
		scalers:   map[string]*scaler{},
		tracks:    map[string]*track{},
		instances: map[string]map[string]bool{},
		incidents: map[string]*incidentRecord{},
		held:      map[reconcile.Key]reconcile.Held{},
		refusals:  map[string]bool{},
		refused:   map[reconcile.Key]reconcile.Held{},
		told:      map[string]bool{},
	}
	a.mail.init()
	a.log = slog.New(slog.DiscardHandler)
	if cfg.verbose {
		a.log = slog.New(slog.NewTextHandler(errw, nil))
	}
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()

	// Time: a run that goes on keeps the clock of the one that began.
	load, err := shop.ReadLoad(dir)
	if errors.Is(err, fs.ErrNotExist) {
		load, err = newLoad(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	a.clock = simClock{load}
	a.tl = &timeline{out: out, clock: a.clock}
	if f, ok := out.(*os.File); ok {
		a.tl.color = isTerminal(f)
	}

	// The platform: real processes behind a real load balancer.
	a.platform, err = localplatform.Open(ctx, localplatform.Options{Dir: dir, ArgsPrefix: []string{shopArg}, Logger: a.log})
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() { _ = a.platform.Close(context.WithoutCancel(ctx)) }) // the first error is the one to tell
	if err := shop.PublishBase(dir); err != nil {
		return nil, err
	}
	if err := errors.Join(shop.SaveLoad(dir, load), a.platform.StartInfrastructure(ctx, nil)); err != nil {
		return nil, err
	}

	// Git: what should run.
	if a.repo, err = openRepository(ctx, cfg, dir, a.clock, a.log); err != nil {
		return nil, err
	}

	// Policy: what may run.
	set, err := security.NewSet(security.Config{Rules: security.Default()})
	if err != nil {
		return nil, err
	}
	a.rec, err = reconcile.New(reconcile.Options{
		Target:   "shop",
		Source:   a.repo,
		Actuator: a.platform,
		Gates:    []reconcile.Gate{security.Gate{Set: set}},
		Store:    reconcile.FileStore{Path: filepath.Join(dir, "inventory.json")},
		Interval: 300 * time.Millisecond, // stands in for a webhook
		Observer: func(e reconcile.Event) { a.mail.put(e) },
		Logger:   a.log,
	})
	if err != nil {
		return nil, err
	}

	// Metrics, and the detectors that watch them.
	a.scraper, err = scrape.New(scrape.Options{Dir: dir, Step: a.clock.step(), Smooth: 2, Capacity: kept})
	if err != nil {
		return nil, err
	}
	undo = append(undo, a.scraper.Close)
	if a.monitor, err = newMonitor(a.clock); err != nil {
		return nil, err
	}
	if a.history, err = openHistory(filepath.Join(dir, "history.jsonl")); err != nil {
		return nil, err
	}
	undo = append(undo, func() { _ = a.history.close() })

	// Capacity, one scaler a service.
	state, err := a.repo.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range shop.Services() {
		if a.scalers[name], err = newScaler(name, state, a.clock); err != nil {
			return nil, err
		}
		a.tracks[name] = &track{Service: name, Capacity: a.scalers[name].capacity}
	}
	if err := writable(ctx, a.repo, state, a.scalers[shop.Services()[0]].key); err != nil {
		return nil, err
	}

	// Repair.
	a.journal, err = remediate.OpenFileJournal(filepath.Join(dir, "journal"), remediate.FileJournalOptions{})
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() { _ = a.journal.Close() })
	a.manager, err = remediate.New(ctx, remediate.Options{
		Journal:  a.journal,
		Verifier: remediate.VerifierFunc(a.recovered),
		Writer:   notifyingWriter{a.repo, a.rec.Trigger},
		Actor:    restarter{a.platform},
		Approver: newApprover(cfg, a.tl),
		Source:   a.repo,
		Playbooks: append([]remediate.Playbook{{
			Name:     "propose-revert-of-refused",
			Match:    remediate.Match{Kind: findingTrigger, Service: "*"},
			Actions:  []remediate.Action{{Type: remediate.RevertCommit}},
			Autonomy: remediate.ActWithApproval,
		}}, remediate.DefaultPlaybooks()...),
		Limits: remediate.Limits{MinInterval: 500 * time.Millisecond, Cooldown: 3 * time.Second},
		Timings: remediate.Timings{
			VerifyWithin: 25 * time.Second, VerifyHold: time.Second, VerifyEvery: 200 * time.Millisecond,
			ApprovalWithin: 30 * time.Second, GuardWithin: 15 * time.Second, RetryAfter: 300 * time.Millisecond,
		},
		Logger:   a.log,
		Observer: func(e remediate.Event) { a.mail.put(e) },
	})
	if err != nil {
		return nil, err
	}
	return a, a.replay()
}

func newLoad(ctx context.Context, cfg config) (shop.LoadConfig, error) {
	// A Monday at midnight, after all that a repository holds already; a
	// single bad release happens on a busy morning.
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	if cfg.repo != "" {
		newest, err := newestCommit(ctx, cfg.repo)
		if err != nil {
			return shop.LoadConfig{}, err
		}
		for start.Before(newest) {
			start = start.AddDate(0, 0, 7)
		}
	}
	if cfg.story != "full" {
		start = start.Add(9*time.Hour + 30*time.Minute)
	}
	load := shop.LoadConfig{
		SimStart: start, WallStart: time.Now(), Speed: cfg.speed,
		Daily: shop.Daily{Peak: cfg.peak, Seed: cfg.seed}, Seed: cfg.seed,
	}
	if cfg.trace != "" {
		abs, err := filepath.Abs(cfg.trace)
		if err != nil {
			return load, err
		}
		load.TraceFile = abs
		load.Play = 48 * time.Hour // as long as the story
	}
	_, err := load.Curve() // a bad trace is told before anything starts
	return load, err
}

func newestCommit(ctx context.Context, url string) (time.Time, error) {
	repo, err := gitsource.Open(ctx, gitsource.Options{URL: url})
	if err != nil {
		return time.Time{}, err
	}
	log, err := repo.Log(ctx, gitsource.LogOptions{Limit: 1})
	if err != nil || len(log) == 0 {
		return time.Time{}, err
	}
	return log[0].Time, nil
}

// writable fails where the repository takes no commits: it asks for one that
// changes nothing.
func writable(ctx context.Context, repo *gitsource.Repository, state *reconcile.State, k reconcile.Key) error {
	r, _ := state.Get(k)
	_, err := repo.Write(ctx, reconcile.WriteRequest{
		ID: "is-it-writable", Message: "Change nothing",
		Edits: []reconcile.Edit{{Key: k, Path: "spec.replicas", Value: lookup(r, "spec.replicas")}},
	})
	if errors.Is(err, reconcile.ErrNoChange) {
		return nil
	}
	return err
}

// openRepository opens the one that was named, or makes one from the embedded
// manifests.
func openRepository(ctx context.Context, cfg config, dir string, clock simClock, log *slog.Logger) (*gitsource.Repository, error) {
	opts := gitsource.Options{URL: cfg.repo, Clock: clock, Logger: log, Author: gitsource.Author{Name: "evenkeel", Email: "autopilot@shop.example"}}
	if cfg.repo != "" {
		return gitsource.Open(ctx, opts)
	}
	opts.URL = filepath.Join(dir, "desired.git")
	if _, err := os.Stat(filepath.Join(opts.URL, "HEAD")); err == nil {
		return gitsource.Open(ctx, opts)
	}
	files := map[string][]byte{}
	manifests := shop.Manifests()
	err := fs.WalkDir(manifests, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files["shop/"+name], err = fs.ReadFile(manifests, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	// A repository without its first commit, which a crash could leave, would
	// stop every later run: it gets its name when it is complete.
	unfinished := opts.URL + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return nil, err
	}
	_, err = gitsource.Init(ctx, unfinished, gitsource.CommitRequest{
		Message: "Declare the shop", Author: developer(), Time: clock.Now(), Files: files,
	})
	if err != nil {
		return nil, err
	}
	if err := os.Rename(unfinished, opts.URL); err != nil {
		return nil, err
	}
	return gitsource.Open(ctx, opts)
}

// developer is who pushes what automation did not decide.
func developer() gitsource.Author {
	return gitsource.Author{Name: "Dana Developer", Email: "dana@shop.example"}
}

// newMonitor watches what users feel, the errors and the latency of each
// service, and the memory of each instance. A service without requests has no
// ratios, which is no trouble.
func newMonitor(clock simClock) (*anomaly.Monitor, error) {
	return anomaly.NewMonitor(anomaly.MonitorOptions{
		Detector: func(id anomaly.SeriesID) (anomaly.Detector, error) {
			switch {
			case id.Service == scrape.Ingress:
				return nil, nil
			case id.Instance != "" && id.Metric == scrape.MemoryMB:
				return anomaly.NewLevel(anomaly.Options{Direction: anomaly.Up, MinDeviation: 24, MinRelative: 0.5, Window: 60, WarmUp: 8})
			case id.Instance == "" && id.Metric == scrape.ErrorRatio:
				return anomaly.NewLevel(anomaly.Options{Direction: anomaly.Up, MinDeviation: 0.08, Window: 120, WarmUp: 12, Missing: -1})
			case id.Instance == "" && id.Metric == scrape.LatencyMS:
				return anomaly.NewLevel(anomaly.Options{Direction: anomaly.Up, MinDeviation: 60, MinRelative: 0.8, Window: 120, WarmUp: 12, Missing: -1})
			}
			return nil, nil
		},
		Alerts: anomaly.AlertOptions{Raise: 3, Of: 4, Clear: 4, CoolDown: clock.sim(5 * time.Second)},
		Group:  anomaly.GroupOptions{Window: clock.sim(8 * time.Second), Quiet: clock.sim(2 * time.Second)},
	})
}

// scaler keeps one service's capacity ahead of its demand.
type scaler struct {
	key      reconcile.Key
	capacity float64
	policy   scaling.Policy
	start    int
}

// The limits that all services share; the lead time is that of a process with
// its warm-up, with room for a busy machine.
const (
	leadWall    = 2 * time.Second
	utilisation = 0.8 // a quantile of demand needs less slack than
	hpaTarget   = 0.7 // the rule that only reacts, here at its usual setting
	level       = 0.9
	minReplicas = 2
	maxReplicas = 12
	scaleEvery  = 2 // scrapes
)

func newScaler(name string, state *reconcile.State, clock simClock) (*scaler, error) {
	key := reconcile.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: name}
	r, ok := state.Get(key)
	if !ok {
		return nil, fmt.Errorf("the repository does not declare %s, which the shop needs: %w", key, reconcile.ErrNotFound)
	}
	const annotation = `metadata.annotations["shop.example/capacity-rps"]`
	s := &scaler{key: key, start: minReplicas}
	if _, ok := lookup(r, "spec.replicas").(int64); !ok {
		return nil, fmt.Errorf("%s: spec.replicas of %s is not a whole number", r.Locate("spec.replicas"), key)
	}
	text, _ := lookup(r, annotation).(string)
	var err error
	if s.capacity, err = strconv.ParseFloat(text, 64); err != nil || !(s.capacity > 0) {
		return nil, fmt.Errorf("%s: %s: %q is not a number of requests a second", r.Locate(annotation), annotation, text)
	}
	if n, ok := lookup(r, "spec.replicas").(int64); ok {
		s.start = int(n)
	}
	s.policy, err = newPolicy(s.capacity, clock)
	return s, err
}

func newPolicy(capacity float64, clock simClock) (scaling.Policy, error) {
	return scaling.NewQuantile(scaling.QuantileOptions{
		LeadTime: clock.sim(leadWall), Capacity: capacity, Target: utilisation, Level: level,
		Min: minReplicas, Max: maxReplicas, Hold: clock.sim(3 * time.Second),
		Model: model(clock),
	})
}

// newHPA is the rule that only reacts, to compare with.
func newHPA(capacity float64, clock simClock) (scaling.Policy, error) {
	return scaling.NewHPA(scaling.HPAOptions{
		Capacity: capacity, Target: hpaTarget, Min: minReplicas, Max: maxReplicas, Stabilization: clock.sim(3 * time.Second),
	})
}

// model is a season of a day at the scalers' step.
func model(clock simClock) forecast.Model {
	return forecast.Profile{Period: int(24 * time.Hour / (scaleEvery * clock.step()))}
}

func lookup(r reconcile.Resource, path string) any {
	p, err := reconcile.ParsePath(path)
	if err != nil {
		return nil
	}
	v, _ := p.Get(r.Object)
	return v
}

// close ends everything, the platform's processes first.
func (a *autopilot) close(ctx context.Context) error {
	err := a.platform.Close(ctx)
	a.scraper.Close()
	return errors.Join(err, a.history.close(), a.journal.Close())
}
