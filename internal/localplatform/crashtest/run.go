package crashtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
	"github.com/evenkeel-go/evenkeel/remediate"
)

// Options say what to run. Command and Dir are required.
type Options struct {
	// Command starts the autopilot: the program and its first arguments.
	Command []string
	// Dir is the platform's directory. It is made, and should not be there
	// yet; the caller removes it.
	Dir string
	// Seed gives the plan (see [NewPlan]) and the traffic.
	Seed uint64
	// Plan replaces the seed's where it has kills.
	Plan Plan
	// Peak is the traffic at the busiest time, in requests a second; 0 is 50.
	Peak float64
	// Warm is for how long the controller watches good service before the
	// fault; 0 is 12 s.
	Warm time.Duration
	// Within is how long everything may take from the fault, or from the last
	// restart where that is later; 0 is 60 s.
	Within time.Duration
	// Log gets what the controller prints; nil keeps only the end of it, for
	// Result.Tail.
	Log io.Writer
}

// Result is what came of a run. A run without Doubles and Wrong, and that
// Converged, went as if nobody had killed anything.
type Result struct {
	Plan Plan `json:"plan"`
	// Kills is how many were made; a run may be over before its second.
	Kills int `json:"kills"`
	// Converged: Git declares the good build, what runs is what Git declares,
	// and no case is open. If not, Missing tells what is not so.
	Converged bool     `json:"converged"`
	Missing   []string `json:"missing,omitempty"`
	// Seconds is how long that took since the fault.
	Seconds float64 `json:"seconds"`
	// Doubles are effects that were made twice.
	Doubles []string `json:"doubles,omitempty"`
	// Wrong is everything else that must not happen: history that is not one
	// line, a controller that ends by itself, processes left at the end.
	Wrong []string `json:"wrong,omitempty"`
	// Commits is how many automation made, Cases the end of each case.
	Commits int                             `json:"commits"`
	Cases   map[string]remediate.RecordKind `json:"cases"`
	// Tail is the end of what the controller printed.
	Tail string `json:"-"`
}

// OK tells whether nothing is to be said against the run.
func (r Result) OK() bool { return r.Converged && len(r.Doubles) == 0 && len(r.Wrong) == 0 }

// String gives the result as one line.
func (r Result) String() string {
	parts := []string{r.Plan.String()}
	if r.Converged {
		parts = append(parts, fmt.Sprintf("converged after %.1f s", r.Seconds))
	} else {
		parts = append(parts, "not converged: "+strings.Join(r.Missing, ", "))
	}
	for _, s := range r.Doubles {
		parts = append(parts, "TWICE: "+s)
	}
	for _, s := range r.Wrong {
		parts = append(parts, "WRONG: "+s)
	}
	return strings.Join(parts, "; ")
}

type run struct {
	opts   Options
	plan   Plan
	dir    rundir.Dir
	ctl    *controller
	client *http.Client
	repo   *gitsource.Repository
	bad    string // revision of the bad release
	victim string // instance that leaks

	mu       sync.Mutex
	anchors  map[Anchor]chan struct{}
	lastUp   time.Time // the last start, or the fault where that is later
	kills    int
	replaces map[string]map[string]bool // instance: those that stood in for it
}

// Run makes one run. An error says that the run could not be made; what the
// controller did wrong is in the result.
func Run(ctx context.Context, o Options) (_ Result, err error) {
	if len(o.Command) == 0 || o.Dir == "" {
		return Result{}, errors.New("crashtest: no command or no directory")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return Result{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Result{}, err
	}
	o.Peak, o.Warm, o.Within = cmp.Or(o.Peak, 50), cmp.Or(o.Warm, warmUp), cmp.Or(o.Within, time.Minute)
	plan := o.Plan
	if len(plan.Kills) == 0 {
		plan = NewPlan(o.Seed)
	}
	out := &tail{next: o.Log}
	args := append(slices.Clone(o.Command), "-story", "none", "-approve", "auto",
		"-dir", dir, "-seed", fmt.Sprint(o.Seed), "-peak", fmt.Sprint(o.Peak))
	r := &run{
		opts: o, plan: plan, dir: rundir.Dir(dir),
		ctl:     &controller{args: args, out: out},
		client:  &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		anchors: map[Anchor]chan struct{}{Started: make(chan struct{}), Serving: make(chan struct{}), Injected: make(chan struct{})},

		replaces: map[string]map[string]bool{},
	}
	if err := r.ctl.start(); err != nil {
		return Result{}, err
	}
	defer func() {
		r.ctl.kill()
		sweep(r.dir)
	}()
	close(r.anchors[Started])

	res := Result{Plan: plan}
	var self *selfEnd
	err = r.live(ctx, &res)
	if errors.As(err, &self) {
		res.Wrong, err = append(res.Wrong, self.Error()), nil
	}
	res.Kills, res.Tail = r.kills, out.String()
	return res, err
}

// selfEnd says that the controller ended and nobody had ended it, or that it
// never came up: what it did wrong, and not what kept it from being tried.
type selfEnd struct{ why string }

func (e *selfEnd) Error() string { return e.why }

func (r *run) live(ctx context.Context, res *Result) error {
	g, gctx := errgroup.WithContext(ctx)
	killed := make(chan struct{})
	g.Go(func() error { defer close(killed); return r.killer(gctx) })
	over, stop := context.WithCancel(gctx)
	g.Go(func() error { return r.watch(over) })
	g.Go(func() error {
		defer stop()
		if err := r.faulty(gctx); err != nil {
			return err
		}
		begun := time.Now()
		if err := r.converge(gctx, killed, res); err != nil {
			return err
		}
		res.Seconds = time.Since(begun).Seconds()
		// An effect that is made once more is made soon.
		return sleep(gctx, 1500*time.Millisecond)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if err := r.judge(ctx, res); err != nil {
		return err
	}
	return r.end(ctx, res)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// killer carries out the kills.
func (r *run) killer(ctx context.Context) error {
	for _, k := range r.plan.Kills {
		if at, ok := r.anchors[k.Anchor]; ok { // a restart has just been
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-at:
			}
		}
		if k.Anchor == Deciding {
			if ok, err := r.decision(ctx); err != nil || !ok {
				return err
			}
		}
		if err := sleep(ctx, k.After); err != nil {
			return err
		}
		r.ctl.kill()
		if err := sleep(ctx, k.Pause); err != nil {
			return err
		}
		if err := r.ctl.start(); err != nil {
			return err
		}
		r.mu.Lock()
		r.kills++
		r.lastUp = time.Now()
		r.mu.Unlock()
	}
	return nil
}

// decision waits for the first record after the fault, and tells whether one
// came.
func (r *run) decision(ctx context.Context) (bool, error) {
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-r.anchors[Injected]:
	}
	size := func() (n int64) {
		files, _ := filepath.Glob(r.dir.Path("journal", "*.journal")) // the pattern is good
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				n += info.Size()
			}
		}
		return n
	}
	before, deadline := size(), time.Now().Add(r.opts.Within)
	for size() == before {
		if time.Now().After(deadline) {
			return false, nil
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return false, err
		}
	}
	return true, nil
}

// watch looks for what is there only for a moment: processes that stand in
// for others, and a controller that ends by itself.
func (r *run) watch(ctx context.Context) error {
	reader := rundir.Reader{Dir: r.dir}
	for {
		if err := r.ctl.ended(); err != nil {
			return &selfEnd{err.Error()}
		}
		entries, err := reader.Read()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		r.mu.Lock()
		for _, e := range entries {
			if e.Replaces != "" {
				if r.replaces[e.Replaces] == nil {
					r.replaces[e.Replaces] = map[string]bool{}
				}
				r.replaces[e.Replaces][e.ID] = true
			}
		}
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil // told to stop looking
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// faulty waits until the shop has been served for long enough and injects the
// fault.
func (r *run) faulty(ctx context.Context) (err error) {
	deadline := time.Now().Add(r.opts.Within)
	for !r.serving(ctx) {
		if time.Now().After(deadline) {
			return &selfEnd{fmt.Sprintf("the shop was not served within %v", r.opts.Within)}
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	r.ctl.serve()
	close(r.anchors[Serving])
	for r.plan.Fault != NoFault && r.ctl.served() < r.opts.Warm {
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	load, err := shop.ReadLoad(string(r.dir))
	if err != nil {
		return err
	}
	r.repo, err = gitsource.Open(ctx, gitsource.Options{
		URL: r.dir.Path("desired.git"), Author: gitsource.Author{Name: "Dana Developer", Email: "dana@shop.example"},
	})
	if err != nil {
		return err
	}
	switch r.plan.Fault {
	case NoFault:
	case Leak:
		e, err := r.oldest(r.plan.Service)
		if err != nil {
			return err
		}
		r.victim = e.ID
		err = r.inject(ctx, e, shop.Fault{Kind: shop.Leak, MBPerSecond: 25})
		if err != nil {
			return fmt.Errorf("crashtest: leak in %s: %w", e.ID, err)
		}
	case BadRelease:
		if err := r.release(ctx, load); err != nil {
			return fmt.Errorf("crashtest: release: %w", err)
		}
	}
	r.mu.Lock()
	if now := time.Now(); now.After(r.lastUp) {
		r.lastUp = now
	}
	r.mu.Unlock()
	close(r.anchors[Injected])
	return nil
}

const badTag = "1.1.0"

// release pushes the bad build, as a developer does: without asking the
// controller, which may not even be there.
func (r *run) release(ctx context.Context, load shop.LoadConfig) error {
	name := shop.ImageName(r.plan.Service)
	if err := shop.PublishImage(string(r.dir), name, badTag, r.plan.Behaviour); err != nil {
		return err
	}
	for {
		state, err := r.repo.Fetch(ctx)
		if err != nil {
			return err
		}
		res, ok := state.Get(r.key())
		if !ok {
			return fmt.Errorf("%s: %w", r.key(), reconcile.ErrNotFound)
		}
		text, base, err := r.repo.ReadFile(ctx, res.Origin.Path)
		if err != nil {
			return err
		}
		next := strings.Replace(string(text), name+":"+shop.BaseTag, name+":"+badTag, 1)
		c, err := r.repo.Commit(ctx, gitsource.CommitRequest{
			Message: fmt.Sprintf("Release %s %s", r.plan.Service, badTag), Time: load.SimTime(time.Now()),
			Files: map[string][]byte{res.Origin.Path: []byte(next)}, Base: base,
		})
		if errors.Is(err, reconcile.ErrConflict) {
			continue // the controller scaled it meanwhile
		}
		r.bad = c.Revision
		return err
	}
}

func (r *run) key() reconcile.Key {
	return reconcile.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: r.plan.Service}
}

// converge waits until all kills are made and everything is as it should be.
func (r *run) converge(ctx context.Context, killed <-chan struct{}, res *Result) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-killed:
	}
	for good := 0; good < 2; {
		missing, err := r.missing(ctx)
		if err != nil {
			return err
		}
		res.Missing = missing
		if len(missing) == 0 {
			good++
		} else {
			good = 0
			r.mu.Lock()
			late := time.Since(r.lastUp) > r.opts.Within
			r.mu.Unlock()
			if late {
				return nil
			}
		}
		if err := sleep(ctx, 150*time.Millisecond); err != nil {
			return err
		}
	}
	res.Converged = true
	return nil
}

// missing tells what is not as it should be at the end.
func (r *run) missing(ctx context.Context) ([]string, error) {
	state, err := r.repo.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	if r.plan.Fault != NoFault {
		declared, _ := state.Get(r.key())
		image, _ := value(declared, "spec.template.spec.containers[0].image").(string)
		if !strings.HasSuffix(image, ":"+shop.BaseTag) {
			out = append(out, "Git declares "+image)
		}
	}
	out = append(out, r.asDeclared(ctx, state)...)
	cases, err := r.cases(ctx)
	if err != nil {
		return nil, err
	}
	resolved := 0
	for id, kind := range cases {
		switch kind {
		case remediate.CaseOpened:
			out = append(out, "case "+id+" is open")
		case remediate.CaseResolved:
			resolved++
		}
	}
	if resolved == 0 && r.plan.Fault != NoFault {
		out = append(out, "no case is resolved")
	}
	if r.victim != "" {
		entries, err := running(r.dir)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(entries, func(e rundir.Entry) bool { return e.ID == r.victim }) {
			out = append(out, r.victim+" still leaks")
		}
	}
	slices.Sort(out)
	return out, ctx.Err()
}

// judge looks for effects that were made twice.
func (r *run) judge(ctx context.Context, res *Result) error {
	var err error
	if res.Cases, err = r.cases(ctx); err != nil {
		return err
	}
	log, err := r.repo.Log(ctx, gitsource.LogOptions{Limit: gitsource.HistoryLimit})
	if err != nil {
		return err
	}
	twice := func(format string, args ...any) { res.Doubles = append(res.Doubles, fmt.Sprintf(format, args...)) }
	ids := map[string]string{}
	var images []string // commits of automation that change the build of the culprit
	for i, c := range log {
		if i < len(log)-1 && (len(c.Parents) != 1 || c.Parents[0] != log[i+1].Revision) || i == len(log)-1 && len(c.Parents) > 0 {
			res.Wrong = append(res.Wrong, fmt.Sprintf("commit %s has the parents %v", reconcile.ShortRevision(c.Revision), c.Parents))
		}
		id := c.Trailer(reconcile.TrailerAction)
		if id == "" {
			continue
		}
		res.Commits++
		if first, ok := ids[id]; ok {
			twice("action %s is in commits %s and %s", id, reconcile.ShortRevision(c.Revision), first)
		}
		ids[id] = reconcile.ShortRevision(c.Revision)
		changes, err := r.repo.Changes(ctx, c.Revision)
		if err != nil {
			return err
		}
		if len(changes) == 0 {
			twice("commit %s %q changes nothing", ids[id], c.Subject())
		}
		for _, ch := range changes {
			if slices.ContainsFunc(ch.Fields, func(f string) bool { return strings.HasSuffix(f, ".image") }) {
				images = append(images, fmt.Sprintf("%s %q", ids[id], c.Subject()))
				if ch.Key != r.key() || r.bad == "" {
					res.Wrong = append(res.Wrong, fmt.Sprintf("commit %s %q changes the build of %s", ids[id], c.Subject(), ch.Key))
				}
			}
		}
	}
	if len(images) > 1 {
		twice("the release was taken back by %s", strings.Join(images, " and "))
	}
	made, err := restarts(r.dir)
	if err != nil {
		return err
	}
	slices.Sort(made)
	for i := 1; i < len(made); i++ {
		if made[i] == made[i-1] {
			twice("two actions replace %s", made[i])
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for instance, by := range r.replaces {
		if len(by) > 1 {
			twice("%d processes stood in for %s", len(by), instance)
		}
		if instance != r.victim {
			res.Wrong = append(res.Wrong, instance+" was replaced and had no fault")
		}
	}
	if r.victim != "" && res.Converged && len(r.replaces[r.victim]) == 0 {
		res.Wrong = append(res.Wrong, "nothing stood in for "+r.victim)
	}
	slices.Sort(res.Doubles)
	slices.Sort(res.Wrong)
	return nil
}

// end stops the controller as a person would, and looks at what is left.
func (r *run) end(ctx context.Context, res *Result) error {
	ending, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	code, err := r.ctl.interrupt(ending)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		res.Wrong = append(res.Wrong, "the controller does not end: "+err.Error())
	case code != 130:
		res.Wrong = append(res.Wrong, fmt.Sprintf("the controller ended with code %d", code))
	}
	entries, err := running(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		res.Wrong = append(res.Wrong, e.ID+" is left behind")
	}
	for _, pid := range Processes(string(r.dir)) {
		res.Wrong = append(res.Wrong, fmt.Sprintf("process %d is left behind", pid))
	}
	return nil
}
