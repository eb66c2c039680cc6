package localplatform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// ErrClosed says that the platform is closed or closing.
var ErrClosed = errors.New("localplatform: closed")

// Options configure a [Platform]. Only Dir is needed.
type Options struct {
	// Dir is where the platform lives; it is created. One controller at a
	// time uses it.
	Dir string
	// Executable is the program that becomes the processes; empty is this
	// one. ArgsPrefix comes before the arguments of [shop.Main] and tells the
	// program to call it; nil is "_shop".
	Executable string
	ArgsPrefix []string
	// Logger gets what the platform does; nil is silence.
	Logger *slog.Logger
	// Clock is the wall clock; nil is [reconcile.SystemClock]. Processes have
	// their own.
	Clock reconcile.Clock
	// Lease is the age of the lease at which processes end themselves because
	// no controller is there; 0 is 20 s.
	Lease time.Duration
	// Poll is how often reality is looked at; 0 is 150 ms.
	Poll time.Duration
	// RolloutTimeout is how long new replicas may take to get ready; 0 is 6 s.
	RolloutTimeout time.Duration
	// Grace is how long a Deployment may be short of ready replicas before it
	// is Degraded instead of Progressing; 0 is 4 s.
	Grace time.Duration
	// MaxStarts is how many processes start at the same time; 0 is 4.
	MaxStarts int
}

// Platform runs Deployments as processes of this machine. It implements
// [reconcile.Actuator] and [reconcile.Watcher] and is safe for concurrent use.
type Platform struct {
	opts   Options
	dir    rundir.Dir
	clock  reconcile.Clock
	log    *slog.Logger
	client *http.Client

	ctx    context.Context // ends when the platform closes
	cancel context.CancelFunc
	ended  chan struct{} // closed when nothing is left
	err    error         // of the shutdown; valid after ended
	kick   chan struct{} // asks for a look at reality now

	// gate is held for reading while a process is started and for writing to
	// close: after that no process is started any more.
	gate    sync.RWMutex
	closing bool
	starts  chan struct{} // bounds starts under way
	waits   sync.WaitGroup
	unlock  func() error

	lookMu sync.Mutex // one look at a time
	reader rundir.Reader

	mu        sync.Mutex
	records   map[reconcile.Key]*record
	procs     map[string]*proc
	children  map[string]chan struct{} // closed when our child has ended
	locks     map[reconcile.Key]chan struct{}
	unhealthy map[reconcile.Key]time.Time // since when
	failures  map[reconcile.Key]failure   // of the last Apply
	prints    map[reconcile.Key]string    // what watchers know
	watchers  map[*watcher]struct{}
	seq       map[string]int
	infra     map[string]bool // roles that are wanted
}

// proc is a process as the platform knows it.
type proc struct {
	entry    rundir.Entry
	ready    bool
	probed   time.Time
	seen     bool // in DIR/run by a look
	stopping bool
}

// failure is why an Apply failed.
type failure struct {
	why string
	at  time.Time
}

// Open makes or reopens the platform in a directory: live objects are read
// back and processes of an earlier controller are adopted. When ctx ends the
// platform closes itself as by [Platform.Close].
//
// Errors: [rundir.ErrLocked] where another controller has the directory.
func Open(ctx context.Context, o Options) (*Platform, error) {
	if o.Dir == "" {
		return nil, fmt.Errorf("localplatform: no directory: %w", reconcile.ErrInvalid)
	}
	if o.Lease < 0 || o.Poll < 0 || o.RolloutTimeout < 0 || o.Grace < 0 || o.MaxStarts < 0 {
		return nil, fmt.Errorf("localplatform: negative option: %w", reconcile.ErrInvalid)
	}
	abs, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("localplatform: %w", err)
	}
	if o.Executable == "" {
		if o.Executable, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("localplatform: %w", err)
		}
	}
	if o.ArgsPrefix == nil {
		o.ArgsPrefix = []string{"_shop"}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = reconcile.SystemClock{}
	}
	o.Lease = cmp.Or(o.Lease, 20*time.Second)
	o.Poll = cmp.Or(o.Poll, 150*time.Millisecond)
	o.RolloutTimeout = cmp.Or(o.RolloutTimeout, 6*time.Second)
	o.Grace = cmp.Or(o.Grace, 4*time.Second)
	o.MaxStarts = cmp.Or(o.MaxStarts, 4)

	dir := rundir.Dir(abs)
	if err := dir.Create(); err != nil {
		return nil, fmt.Errorf("localplatform: %w", err)
	}
	unlock, err := dir.Lock()
	if err != nil {
		return nil, fmt.Errorf("localplatform: %w", err)
	}
	p := &Platform{
		opts: o, dir: dir, clock: o.Clock, log: o.Logger, unlock: unlock,
		client:    &http.Client{Timeout: time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1, DisableCompression: true, IdleConnTimeout: 10 * time.Second}},
		ended:     make(chan struct{}),
		kick:      make(chan struct{}, 1),
		starts:    make(chan struct{}, o.MaxStarts),
		reader:    rundir.Reader{Dir: dir},
		records:   map[reconcile.Key]*record{},
		procs:     map[string]*proc{},
		children:  map[string]chan struct{}{},
		locks:     map[reconcile.Key]chan struct{}{},
		unhealthy: map[reconcile.Key]time.Time{},
		failures:  map[reconcile.Key]failure{},
		prints:    map[reconcile.Key]string{},
		watchers:  map[*watcher]struct{}{},
		seq:       map[string]int{},
		infra:     map[string]bool{},
	}
	if err := errors.Join(p.loadRecords(), p.loadSeq(), dir.TouchLease(p.clock.Now())); err != nil {
		return nil, errors.Join(fmt.Errorf("localplatform: open %s: %w", abs, err), unlock())
	}
	p.ctx, p.cancel = context.WithCancel(ctx)
	if err := p.look(p.ctx, true); err != nil {
		p.cancel()
		return nil, errors.Join(err, unlock())
	}
	p.mu.Lock()
	for _, pr := range p.procs {
		if pr.entry.Role != rundir.RoleService {
			p.infra[pr.entry.Role] = true
		}
		p.log.Info("adopted", "id", pr.entry.ID, "pid", pr.entry.PID)
	}
	p.mu.Unlock()
	go p.run()
	return p, nil
}

// Dir is the platform's directory, as an absolute path.
func (p *Platform) Dir() string { return string(p.dir) }

// run renews the lease and looks at reality until the platform closes.
func (p *Platform) run() {
	defer close(p.ended)
	touched := p.clock.Now()
	revived := touched
	for {
		select {
		case <-p.ctx.Done():
			p.err = p.shutdown()
			return
		case <-p.kick:
		case <-p.clock.After(p.opts.Poll):
		}
		now := p.clock.Now()
		if now.Sub(touched) >= min(time.Second, p.opts.Lease/8) {
			if err := p.dir.TouchLease(now); err != nil {
				p.log.Warn("lease", "err", err)
			}
			touched = now
		}
		if err := p.look(p.ctx, true); err != nil && p.ctx.Err() == nil {
			p.log.Warn("look", "err", err)
		}
		if now.Sub(revived) >= time.Second {
			revived = now
			p.revive()
		}
	}
}

// look compares what is known with what runs: new processes are taken up,
// dead ones dropped and their entries removed. With probe, readiness is asked
// for: at each look of those that were not ready, once a second of the rest.
func (p *Platform) look(ctx context.Context, probe bool) error {
	p.lookMu.Lock()
	defer p.lookMu.Unlock()
	entries, err := p.reader.Read()
	if err != nil {
		return fmt.Errorf("localplatform: look: %w", err)
	}
	now := p.clock.Now()
	alive := make(map[string]bool, len(entries))
	var ask []*proc
	p.mu.Lock()
	for _, e := range entries {
		if !e.Alive() {
			p.log.Info("died", "id", e.ID, "pid", e.PID)
			if err := p.dir.Unregister(e.ID); err != nil {
				p.log.Warn("unregister", "id", e.ID, "err", err)
			}
			continue
		}
		alive[e.ID] = true
		pr, ok := p.procs[e.ID]
		if !ok {
			pr = &proc{entry: e}
			p.procs[e.ID] = pr
		}
		pr.seen = true
		if e.Role == rundir.RoleService && !pr.stopping && (!pr.ready || now.Sub(pr.probed) >= time.Second) {
			ask = append(ask, pr)
		}
	}
	for id, pr := range p.procs {
		// One that registered after the directory was read is not gone.
		if !alive[id] && (pr.seen || !pr.entry.Alive()) {
			delete(p.procs, id)
		}
	}
	p.mu.Unlock()
	if probe && len(ask) > 0 {
		ready := make([]bool, len(ask))
		var wg sync.WaitGroup
		for i, pr := range ask {
			wg.Go(func() { ready[i] = p.probe(ctx, pr.entry) })
		}
		wg.Wait()
		p.mu.Lock()
		for i, pr := range ask {
			pr.ready, pr.probed = ready[i], now
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	p.tell(now)
	p.mu.Unlock()
	return nil
}

func (p *Platform) probe(ctx context.Context, e rundir.Entry) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL()+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // only the code counts
	return resp.StatusCode == http.StatusOK
}

// Observe gives all live objects. A Deployment is what was declared, overlaid
// with what runs: see the package's documentation.
func (p *Platform) Observe(ctx context.Context) (*reconcile.State, error) {
	if err := p.alive(ctx); err != nil {
		return nil, &reconcile.Error{Op: "observe", Err: err}
	}
	if err := p.look(ctx, false); err != nil {
		return nil, &reconcile.Error{Op: "observe", Err: err}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]reconcile.Resource, 0, len(p.records))
	for _, rec := range p.records {
		list = append(list, p.derive(rec))
	}
	s, err := reconcile.NewState("", list)
	if err != nil {
		return nil, &reconcile.Error{Op: "observe", Err: err}
	}
	return s, nil
}

func (p *Platform) alive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.ctx.Err() != nil {
		return ErrClosed
	}
	return nil
}

// watcher collects keys between two calls of its function.
type watcher struct {
	pending map[reconcile.Key]bool
	signal  chan struct{}
}

// Watch tells of live objects whose version or health changed, including
// Deployments whose processes changed; see [reconcile.Watcher].
func (p *Platform) Watch(ctx context.Context, changed func(reconcile.Key)) error {
	w := &watcher{pending: map[reconcile.Key]bool{}, signal: make(chan struct{}, 1)}
	p.mu.Lock()
	p.watchers[w] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.watchers, w)
		p.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ctx.Done():
			return ErrClosed
		case <-w.signal:
		}
		p.mu.Lock()
		keys := slices.SortedFunc(maps.Keys(w.pending), reconcile.Key.Compare)
		clear(w.pending)
		p.mu.Unlock()
		for _, k := range keys {
			changed(k)
		}
	}
}

// tell brings health up to date and wakes watchers of what changed. The
// caller holds mu.
func (p *Platform) tell(now time.Time) {
	prints := make(map[reconcile.Key]string, len(p.records))
	for key, rec := range p.records {
		if isDeployment(key) {
			if st := p.status(rec); st.ready >= st.desired && st.live == st.desired && st.updated == st.desired {
				delete(p.unhealthy, key)
				// Git may have gone back to what runs: then no Apply comes to
				// clear the failure of the one before.
				if f, ok := p.failures[key]; ok && now.Sub(f.at) > p.opts.Grace {
					delete(p.failures, key)
				}
			} else if _, ok := p.unhealthy[key]; !ok {
				p.unhealthy[key] = now
			}
		}
		r := p.derive(rec)
		prints[key] = r.Version + " " + string(r.Health.Status)
	}
	for key, print := range prints {
		if p.prints[key] != print {
			p.wake(key)
		}
	}
	for key := range p.prints {
		if _, ok := prints[key]; !ok {
			p.wake(key)
		}
	}
	p.prints = prints
}

func (p *Platform) wake(key reconcile.Key) {
	for w := range p.watchers {
		w.pending[key] = true
		select {
		case w.signal <- struct{}{}:
		default:
		}
	}
}

// Close ends all processes, those that were adopted and those that were
// started by hand too, and gives the directory back. It fails if one could
// not be ended, or if ctx ends first, in which case closing goes on. Closing
// again gives the same.
func (p *Platform) Close(ctx context.Context) error {
	p.cancel()
	select {
	case <-p.ended:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("localplatform: close: %w", ctx.Err())
	}
}

// Done is closed when the platform has closed and nothing of it is left.
func (p *Platform) Done() <-chan struct{} { return p.ended }

func (p *Platform) shutdown() error {
	p.gate.Lock()
	p.closing = true
	p.gate.Unlock()
	p.client.CloseIdleConnections()

	entries, err := (&rundir.Reader{Dir: p.dir}).Read()
	errs := []error{err}
	// The load first, or its last requests fail for no reason of the shop.
	for _, load := range []bool{true, false} {
		var group []rundir.Entry
		for _, e := range entries {
			if (e.Role == rundir.RoleLoad) == load {
				group = append(group, e)
			}
		}
		errs = append(errs, p.stop(group))
	}
	p.waits.Wait()
	// A process that is about to register finds no lease and ends.
	if err := os.Remove(p.dir.Path("lease")); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	p.client.CloseIdleConnections()
	return errors.Join(append(errs, p.unlock())...)
}

// Instance is one process of a service.
type Instance struct {
	ID      string    `json:"id"`
	Service string    `json:"service"`
	PID     int       `json:"pid"`
	URL     string    `json:"url"`
	Image   string    `json:"image"`
	Owner   string    `json:"owner"`
	Ready   bool      `json:"ready"`
	Started time.Time `json:"started"`
}

// Instances gives the live processes of a service, or of all services if the
// name is empty, oldest first. Readiness is as of the last look.
func (p *Platform) Instances(service string) []Instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Instance
	for _, pr := range p.procs {
		e := pr.entry
		if e.Role != rundir.RoleService || pr.stopping || (service != "" && e.Service != service) {
			continue
		}
		out = append(out, Instance{ID: e.ID, Service: e.Service, PID: e.PID, URL: e.URL(), Image: e.Image, Owner: e.Owner, Ready: pr.ready, Started: e.Started})
	}
	slices.SortFunc(out, func(a, b Instance) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), a.Started.Compare(b.Started), strings.Compare(a.ID, b.ID))
	})
	return out
}

// Endpoints are where the platform's infrastructure listens; empty where it
// does not run.
type Endpoints struct {
	// Ingress is the base URL of the shop, LB and Load those of the processes
	// whose /metrics tell of it.
	Ingress string `json:"ingress"`
	LB      string `json:"lb"`
	Load    string `json:"load"`
}

// Endpoints gives where the infrastructure listens.
func (p *Platform) Endpoints() Endpoints {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out Endpoints
	for _, pr := range p.procs {
		switch pr.entry.Role {
		case rundir.RoleLB:
			out.Ingress, out.LB = pr.entry.URL(), pr.entry.URL()
		case rundir.RoleLoad:
			out.Load = pr.entry.URL()
		}
	}
	return out
}

// StartInfrastructure starts the load balancer and, if load is not nil, the
// load generator, unless they run already; one that dies later is started
// again. A load generator that runs keeps the configuration that it has,
// which [shop.ReadLoad] gives.
func (p *Platform) StartInfrastructure(ctx context.Context, load *shop.LoadConfig) error {
	if err := p.look(ctx, false); err != nil {
		return err
	}
	if !p.runs(rundir.RoleLB) {
		if _, err := p.start(ctx, rundir.Entry{Role: rundir.RoleLB}, nil); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.infra[rundir.RoleLB] = true
	p.mu.Unlock()
	if load == nil {
		return nil
	}
	if !p.runs(rundir.RoleLoad) {
		if err := shop.SaveLoad(string(p.dir), *load); err != nil {
			return err
		}
		if _, err := p.start(ctx, rundir.Entry{Role: rundir.RoleLoad}, nil); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.infra[rundir.RoleLoad] = true
	p.mu.Unlock()
	return nil
}

// StopLoad ends the load generator; [shop.ReadTotals] then gives its final
// totals.
func (p *Platform) StopLoad(context.Context) error {
	p.mu.Lock()
	delete(p.infra, rundir.RoleLoad)
	var group []rundir.Entry
	for _, pr := range p.procs {
		if pr.entry.Role == rundir.RoleLoad {
			group = append(group, pr.entry)
		}
	}
	p.mu.Unlock()
	return p.stop(group)
}

func (p *Platform) runs(role string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pr := range p.procs {
		if pr.entry.Role == role && !pr.stopping {
			return true
		}
	}
	return false
}

// revive starts infrastructure that has died.
func (p *Platform) revive() {
	for _, role := range []string{rundir.RoleLB, rundir.RoleLoad} {
		p.mu.Lock()
		wanted := p.infra[role]
		p.mu.Unlock()
		if !wanted || p.runs(role) {
			continue
		}
		p.log.Warn("infrastructure died", "role", role)
		if _, err := p.start(p.ctx, rundir.Entry{Role: role}, nil); err != nil && p.ctx.Err() == nil {
			p.log.Error("infrastructure", "role", role, "err", err)
		}
	}
}
