package shop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
)

// The headers by which services tell each other who calls and how long the
// caller waits, in milliseconds.
const (
	headerCaller  = "X-Caller"
	headerTimeout = "X-Timeout-Ms"
)

// Services gives the names of the shop's services, callers before callees.
func Services() []string {
	return []string{"frontend", "catalogue", "cart", "checkout", "stock", "payment", "shipping"}
}

// Routes gives the paths of the shop's front door.
func Routes() []string { return []string{"/browse", "/cart", "/checkout"} }

// callees are the calls that a service makes to answer a path, in order: the
// next is made when the one before has succeeded.
func callees(service, path string) []string {
	switch service {
	case "frontend":
		switch {
		case strings.HasPrefix(path, "/cart"):
			return []string{"cart", "catalogue"}
		case strings.HasPrefix(path, "/checkout"):
			return []string{"checkout"}
		default:
			return []string{"catalogue"}
		}
	case "catalogue":
		return []string{"stock"}
	case "checkout":
		return []string{"payment", "shipping"}
	}
	return nil
}

// FaultKind is a way in which one replica goes bad.
type FaultKind string

// The faults.
const (
	// NoFault ends a fault and frees what it held.
	NoFault FaultKind = "none"
	// Leak allocates memory and keeps it, and slows down as it grows.
	Leak FaultKind = "leak"
	// Stuck makes workers never come back.
	Stuck FaultKind = "stuck"
	// Errors fails a share of the requests.
	Errors FaultKind = "errors"
	// Slow adds time to each request.
	Slow FaultKind = "slow"
)

// Fault is a request to POST /fault.
type Fault struct {
	Kind FaultKind `json:"kind"`
	// MBPerSecond is how fast a Leak grows; 0 is 16. It stops at 1,024 MB,
	// if the memory limit has not ended the process before.
	MBPerSecond float64 `json:"mbPerSecond,omitempty"`
	// Workers is how many are Stuck; 0 is all.
	Workers int `json:"workers,omitempty"`
	// Rate is the share of Errors, in [0, 1]; 0 is 0.5.
	Rate float64 `json:"rate,omitempty"`
	// MS is what Slow adds, in milliseconds; 0 is 200.
	MS float64 `json:"ms,omitempty"`
}

type service struct {
	*process
	behaviour   Behaviour
	base        time.Duration // mean of the own work
	timeout     time.Duration // for calls
	warm        time.Time     // when it gets ready
	memoryLimit int64         // bytes; 0 is none
	leaving     atomic.Bool

	pool   *pool
	client *http.Client
	lbURL  atomic.Pointer[string]

	rngMu sync.Mutex
	rng   *rand.Rand

	fault faultState

	requests, failedOwn, clientRequests *family
	duration, self                      *family
	memory, busy, queue                 *family
}

// number reads a setting from the environment, which is how a manifest
// reaches a process.
func number(name string, fallback, low, high float64) (float64, error) {
	s := os.Getenv(name)
	if s == "" {
		return fallback, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= low && v <= high) {
		return 0, fmt.Errorf("shop: %s=%q: want a number from %v to %v", name, s, low, high)
	}
	return v, nil
}

func runService(ctx context.Context, p *process) error {
	if p.entry.Service == "" {
		return errors.New("shop: a service needs -name")
	}
	behaviour, err := PullImage(string(p.dir), p.entry.Image)
	if err != nil {
		return err
	}
	workers, err1 := number("WORKERS", 4, 1, 1000)
	queue, err2 := number("QUEUE", 4*workers, 0, 10000)
	base, err3 := number("SERVICE_MS", 20, 0, 10000)
	warmup, err4 := number("WARMUP_MS", 0, 0, 600000)
	timeout, err5 := number("CLIENT_TIMEOUT_MS", 1000, 1, 60000)
	limit, err6 := number("MEMORY_LIMIT_MB", 0, 0, 1<<20)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return err
	}
	seed := fnv.New64a()
	io.WriteString(seed, p.entry.ID)
	s := &service{
		process: p, behaviour: behaviour,
		base: ms(base), timeout: ms(timeout), warm: p.clock.Now().Add(ms(warmup)),
		memoryLimit: int64(limit) << 20,
		client:      &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, IdleConnTimeout: time.Minute}},
		rng:         rand.New(rand.NewPCG(seed.Sum64(), 1)),
	}
	s.pool = newPool(int(workers), int(queue), p.clock.Now)
	s.fault.stuckUntil = make(chan struct{})

	r := p.reg
	s.requests = r.counter("http_requests_total", "Requests answered, by status code.", "code")
	s.failedOwn = r.counter("http_requests_failed_own_total", "Requests that failed in this replica and not in one that it called.")
	s.clientRequests = r.counter("http_client_requests_total", "Calls to other services, by status code, 0 where there was no answer.", "callee", "code")
	s.duration = r.histogram("http_request_duration_seconds", "Time to answer, calls to other services included.")
	s.self = r.histogram("http_self_duration_seconds", "Own work, without waiting in the queue or for other services.")
	s.memory = r.gauge("process_resident_memory_bytes", "Resident memory.")
	s.busy = r.counter("worker_busy_seconds_total", "Time that workers were taken, summed over workers.")
	s.queue = r.gauge("queue_length", "Requests that wait for a worker.")
	r.gauge("workers", "Workers of this replica.").set(workers)
	r.gauge("build_info", "What runs here.", "service", "image").set(1, p.entry.Service, p.entry.Image)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /metrics", r.handler(s.gauges))
	mux.HandleFunc("POST /fault", s.setFault)
	mux.HandleFunc("GET /identity", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(p.entry) // the client went away
	})
	mux.HandleFunc("/", s.work)

	l, err := listen(0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		<-ctx.Done()
		s.leaving.Store(true)
	}()
	if d := ms(behaviour.CrashAfterMS); d > 0 {
		time.AfterFunc(d, func() {
			p.log.Error("crash", "image", p.entry.Image)
			os.Exit(1)
		})
	}
	if s.memoryLimit > 0 {
		go s.watchMemory(ctx)
	}
	defer s.fault.set(Fault{Kind: NoFault}, s)
	// The load balancer looks every 100 ms.
	return p.serve(ctx, l, mux, 150*time.Millisecond, 750*time.Millisecond)
}

func ms(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }

// watchMemory ends the process when it holds more than its limit, as the
// kernel would in a container.
func (s *service) watchMemory(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.clock.After(500 * time.Millisecond):
		}
		if b, err := rundir.ResidentBytes(); err == nil && b > s.memoryLimit {
			s.log.Error("out of memory", "resident", b, "limit", s.memoryLimit)
			os.Exit(137)
		}
	}
}

func (s *service) gauges() {
	if b, err := rundir.ResidentBytes(); err == nil {
		s.memory.set(float64(b))
	}
	busy, queued := s.pool.state()
	s.busy.set(busy)
	s.queue.set(float64(queued))
}

func (s *service) ready(w http.ResponseWriter, _ *http.Request) {
	switch {
	case s.leaving.Load():
		http.Error(w, "leaving", http.StatusServiceUnavailable)
	case s.behaviour.NeverReady:
		http.Error(w, "not ready", http.StatusServiceUnavailable)
	case s.clock.Now().Before(s.warm):
		http.Error(w, "warming up", http.StatusServiceUnavailable)
	default:
		fmt.Fprintln(w, "ok")
	}
}

// work answers one request: wait for a worker, work, call others.
func (s *service) work(w http.ResponseWriter, r *http.Request) {
	start := s.clock.Now()
	ctx := r.Context()
	if v, err := strconv.Atoi(r.Header.Get(headerTimeout)); err == nil && v > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(v)*time.Millisecond)
		defer cancel()
	}
	code, own := s.answer(ctx, r.URL.Path)
	s.requests.add(1, strconv.Itoa(code))
	if own {
		s.failedOwn.add(1)
	}
	s.duration.observe(s.clock.Now().Sub(start).Seconds())
	if code != http.StatusOK {
		http.Error(w, http.StatusText(code), code)
		return
	}
	_, _ = io.WriteString(w, "ok\n") // the caller went away
}

// answer gives the status code and whether a failure is this replica's own.
func (s *service) answer(ctx context.Context, path string) (code int, own bool) {
	release, err := s.pool.acquire(ctx)
	if err != nil {
		if errors.Is(err, errFull) {
			return http.StatusServiceUnavailable, true
		}
		return http.StatusGatewayTimeout, true
	}
	defer release()
	start := s.clock.Now()
	if !s.fault.pass(ctx) {
		s.self.observe(s.clock.Now().Sub(start).Seconds())
		return http.StatusGatewayTimeout, true
	}
	d, failed := s.draw()
	select {
	case <-s.clock.After(d):
	case <-ctx.Done():
		s.self.observe(s.clock.Now().Sub(start).Seconds())
		return http.StatusGatewayTimeout, true
	}
	s.self.observe(s.clock.Now().Sub(start).Seconds())
	if failed {
		return http.StatusInternalServerError, true
	}
	for _, callee := range callees(s.entry.Service, path) {
		code, err := s.call(ctx, callee)
		s.clientRequests.add(1, callee, strconv.Itoa(code))
		if err != nil || code >= 500 {
			return http.StatusBadGateway, false
		}
	}
	return http.StatusOK, false
}

// draw gives the time of the own work of one request, and whether it fails.
func (s *service) draw() (d time.Duration, failed bool) {
	const sigma = 0.35
	extra, rate := s.fault.load()
	s.rngMu.Lock()
	// The mean of a lognormal is exp(mu+sigma^2/2): corrected, so that
	// SERVICE_MS is the mean.
	factor := math.Exp(sigma*s.rng.NormFloat64() - sigma*sigma/2)
	u := s.rng.Float64()
	s.rngMu.Unlock()
	// Two independent ways to fail.
	rate = 1 - (1-rate)*(1-s.behaviour.ErrorRate)
	return time.Duration(float64(s.base)*factor) + ms(s.behaviour.ExtraMS*factor+extra), u < rate
}

// call asks another service through the load balancer. The code is 0 where
// there was no answer.
func (s *service) call(ctx context.Context, callee string) (int, error) {
	timeout := s.timeout
	if end, ok := ctx.Deadline(); ok {
		timeout = min(timeout, end.Sub(s.clock.Now()))
	}
	if timeout <= 0 {
		return 0, context.DeadlineExceeded
	}
	base := s.lbURL.Load()
	if base == nil {
		lb, ok := s.dir.Find(rundir.RoleLB)
		if !ok {
			return 0, errors.New("shop: no load balancer")
		}
		u := lb.URL()
		base = &u
		s.lbURL.Store(base)
	}
	// The load balancer gives up first, so that the answer says 504.
	ctx, cancel := context.WithTimeout(ctx, timeout+50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, *base+"/svc/"+callee+"/work", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set(headerCaller, s.entry.Service)
	req.Header.Set(headerTimeout, strconv.FormatInt(max(1, timeout.Milliseconds()), 10))
	resp, err := s.client.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			s.lbURL.Store(nil) // it may have come back elsewhere
		}
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func (s *service) setFault(w http.ResponseWriter, r *http.Request) {
	f, err := ParseFault(http.MaxBytesReader(w, r.Body, 1<<16))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.fault.set(f, s)
	s.log.Warn("fault", "kind", f.Kind)
	w.WriteHeader(http.StatusNoContent)
}

// ParseFault reads a fault from JSON and fills in its defaults. Unknown kinds
// and fields and numbers out of range are errors.
func ParseFault(r io.Reader) (Fault, error) {
	var f Fault
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return Fault{}, fmt.Errorf("shop: fault: %w", err)
	}
	switch f.Kind {
	case NoFault, Leak, Stuck, Errors, Slow:
	default:
		return Fault{}, fmt.Errorf("shop: fault: unknown kind %q", f.Kind)
	}
	if f.MBPerSecond < 0 || f.MBPerSecond > 1024 || f.Workers < 0 || f.Rate < 0 || f.Rate > 1 || f.MS < 0 || f.MS > 60000 {
		return Fault{}, fmt.Errorf("shop: fault: %+v is out of range", f)
	}
	if f.MBPerSecond == 0 {
		f.MBPerSecond = 16
	}
	if f.Rate == 0 {
		f.Rate = 0.5
	}
	if f.MS == 0 {
		f.MS = 200
	}
	return f, nil
}

// faultState is the fault that is switched on.
type faultState struct {
	mu         sync.Mutex
	fault      Fault
	stuck      int           // workers that are stuck now
	stuckUntil chan struct{} // closed when the fault ends
	leaked     [][]byte
	stopLeak   context.CancelFunc
}

func (f *faultState) set(next Fault, s *service) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.stuckUntil)
	f.stuckUntil = make(chan struct{})
	if f.stopLeak != nil {
		f.stopLeak()
		f.stopLeak = nil
	}
	f.fault, f.leaked, f.stuck = next, nil, 0
	if next.Kind == Stuck && next.Workers == 0 {
		f.fault.Workers = s.pool.size
	}
	if next.Kind == Leak {
		ctx, cancel := context.WithCancel(context.Background())
		f.stopLeak = cancel
		go f.leak(ctx, s, next.MBPerSecond)
	}
}

// leak allocates until ctx ends. Each page is written, or the system would
// not count it.
func (f *faultState) leak(ctx context.Context, s *service, mbPerSecond float64) {
	const every, most = 100 * time.Millisecond, 1 << 30
	page := os.Getpagesize()
	owed, held := 0.0, 0
	for held < most {
		select {
		case <-ctx.Done():
			return
		case <-s.clock.After(every):
		}
		owed += mbPerSecond * float64(1<<20) * every.Seconds()
		b := make([]byte, int(owed))
		owed -= float64(len(b))
		held += len(b)
		for i := 0; i < len(b); i += page {
			b[i] = 1
		}
		f.mu.Lock()
		if ctx.Err() == nil {
			f.leaked = append(f.leaked, b)
		}
		f.mu.Unlock()
	}
}

// load gives the milliseconds that the fault adds and the share that it fails.
func (f *faultState) load() (extraMS, errorRate float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch f.fault.Kind {
	case Slow:
		return f.fault.MS, 0
	case Errors:
		return 0, f.fault.Rate
	case Leak:
		n := 0
		for _, b := range f.leaked {
			n += len(b)
		}
		// One millisecond for each MB held.
		return float64(n) / (1 << 20), 0
	}
	return 0, 0
}

// pass lets a worker through, or, if it is one that gets stuck, holds it
// until the fault ends; the caller's deadline does not free it: that is what
// makes it stuck. It is false where the worker was held.
func (f *faultState) pass(ctx context.Context) bool {
	f.mu.Lock()
	if f.fault.Kind != Stuck || f.stuck >= f.fault.Workers {
		f.mu.Unlock()
		return true
	}
	f.stuck++
	until := f.stuckUntil
	f.mu.Unlock()
	<-until
	return ctx.Err() == nil
}

var errFull = errors.New("queue is full")

// pool is a bounded number of workers before which a bounded queue forms.
type pool struct {
	size, limit int
	slots       chan struct{}
	now         func() time.Time

	mu     sync.Mutex
	queued int
	taken  int
	spent  float64 // worker seconds until last
	last   time.Time
}

func newPool(size, limit int, now func() time.Time) *pool {
	return &pool{size: size, limit: limit, slots: make(chan struct{}, size), now: now, last: now()}
}

// account adds what the workers that are taken have spent since it was last
// called, so that one that never comes back counts as busy too.
func (p *pool) account() {
	t := p.now()
	p.spent += float64(p.taken) * t.Sub(p.last).Seconds()
	p.last = t
}

func (p *pool) acquire(ctx context.Context) (release func(), err error) {
	select {
	case p.slots <- struct{}{}:
	default:
		p.mu.Lock()
		if p.queued >= p.limit {
			p.mu.Unlock()
			return nil, errFull
		}
		p.queued++
		p.mu.Unlock()
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			err = ctx.Err()
		}
		p.mu.Lock()
		p.queued--
		p.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	p.account()
	p.taken++
	p.mu.Unlock()
	return func() {
		p.mu.Lock()
		p.account()
		p.taken--
		p.mu.Unlock()
		<-p.slots
	}, nil
}

// state gives the worker seconds spent so far and the length of the queue.
func (p *pool) state() (spent float64, queued int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.account()
	return p.spent, p.queued
}
