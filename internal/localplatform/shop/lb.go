package shop

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
)

const (
	// discoverEvery is how often the load balancer looks into DIR/run.
	discoverEvery = 100 * time.Millisecond
	// A backend that is not ready is probed at each look, one that is ready
	// every probeReady looks: a dead one is found by the request that fails.
	probeReady = 4
	// probeTimeout is generous: a slow answer is not an unready one.
	probeTimeout = time.Second
	// ingressTimeout is a little less than the patience of the clients.
	ingressTimeout = 1400 * time.Millisecond
	// ingressService is what answers at the front door.
	ingressService = "frontend"
	// IngressCaller is the caller that stands for the world outside.
	IngressCaller = "ingress"
)

type backend struct {
	id       string
	service  string
	url      string
	ready    atomic.Bool
	inflight atomic.Int64
	probing  atomic.Bool
}

type balancer struct {
	*process
	transport *http.Transport
	// table is replaced as a whole, so that requests read it without a lock.
	table atomic.Pointer[map[string][]*backend]
	turn  atomic.Uint64

	requests, edges, duration, backends *family
}

func runLB(ctx context.Context, p *process) error {
	b := &balancer{process: p, transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, IdleConnTimeout: time.Minute}}
	b.table.Store(&map[string][]*backend{})
	r := p.reg
	b.requests = r.counter("lb_requests_total", "Requests answered, by service and status code.", "service", "code")
	b.edges = r.counter("lb_edge_requests_total", "Requests answered, by caller, callee and status code.", "caller", "callee", "code")
	b.duration = r.histogram("lb_request_duration_seconds", "Time to answer, by service.", "service")
	b.backends = r.gauge("lb_backends_ready", "Replicas that take requests.", "service")

	// The port stays the same over a restart where it can: callers hold it.
	portFile := p.dir.Path("lb.port")
	want := 0
	if data, err := os.ReadFile(portFile); err == nil {
		want, _ = strconv.Atoi(strings.TrimSpace(string(data))) // else any port
	}
	l, err := listen(want)
	if err != nil {
		return err
	}
	_, port, _ := strings.Cut(l.Addr().String(), ":")
	if err := rundir.WriteFile(portFile, []byte(port+"\n")); err != nil {
		return err
	}

	var wg sync.WaitGroup
	defer wg.Wait()
	watch, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	wg.Go(func() { b.discover(watch, &wg) })

	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", r.handler(b.gauges))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/svc/{service}/", func(w http.ResponseWriter, req *http.Request) {
		service := req.PathValue("service")
		b.forward(w, req, service, strings.TrimPrefix(req.URL.Path, "/svc/"+service))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		req.Header.Set(headerCaller, IngressCaller)
		b.forward(w, req, ingressService, req.URL.Path)
	})
	return p.serve(ctx, l, mux, 0, 750*time.Millisecond)
}

func (b *balancer) gauges() {
	for service, list := range *b.table.Load() {
		n := 0
		for _, be := range list {
			if be.ready.Load() {
				n++
			}
		}
		b.backends.set(float64(n), service)
	}
}

// discover keeps the table as DIR/run says and probes the backends.
func (b *balancer) discover(ctx context.Context, wg *sync.WaitGroup) {
	reader := &rundir.Reader{Dir: b.dir}
	known := map[string]*backend{}
	for round := 0; ; round++ {
		entries, err := reader.Read()
		if err == nil {
			changed := false
			now := make(map[string]*backend, len(entries))
			for _, e := range entries {
				if e.Role != rundir.RoleService {
					continue
				}
				be, ok := known[e.ID]
				if !ok {
					be = &backend{id: e.ID, service: e.Service, url: strings.TrimPrefix(e.URL(), "http://")}
					changed = true
				}
				now[e.ID] = be
			}
			changed = changed || len(now) != len(known)
			known = now
			if changed {
				table := map[string][]*backend{}
				for service := range *b.table.Load() {
					table[service] = nil // so that its gauge falls to 0
				}
				for _, e := range entries {
					if be, ok := known[e.ID]; ok {
						table[e.Service] = append(table[e.Service], be)
					}
				}
				b.table.Store(&table)
			}
		}
		for _, be := range known {
			if be.ready.Load() && round%probeReady != 0 {
				continue
			}
			if be.probing.CompareAndSwap(false, true) {
				wg.Go(func() { b.probe(ctx, be) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-b.clock.After(discoverEvery):
		}
	}
}

func (b *balancer) probe(ctx context.Context, be *backend) {
	defer be.probing.Store(false)
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+be.url+"/readyz", nil)
	if err != nil {
		return
	}
	resp, err := b.transport.RoundTrip(req)
	if err != nil {
		be.ready.Store(false)
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body) // only the code counts
	resp.Body.Close()
	be.ready.Store(resp.StatusCode == http.StatusOK)
}

// pick gives the ready backend with the fewest requests under way, other
// than not; those that are equal take turns.
func (b *balancer) pick(service string, not *backend) *backend {
	list := (*b.table.Load())[service]
	if len(list) == 0 {
		return nil
	}
	var best *backend
	least := int64(0)
	start := int(b.turn.Add(1) % uint64(len(list)))
	for i := range list {
		be := list[(start+i)%len(list)]
		if be == not || !be.ready.Load() {
			continue
		}
		if n := be.inflight.Load(); best == nil || n < least {
			best, least = be, n
		}
	}
	return best
}

func (b *balancer) forward(w http.ResponseWriter, r *http.Request, service, path string) {
	start := b.clock.Now()
	caller := r.Header.Get(headerCaller)
	if caller == "" {
		caller = "unknown"
	}
	timeout := ingressTimeout
	if v, err := strconv.Atoi(r.Header.Get(headerTimeout)); err == nil && v > 0 {
		timeout = min(timeout, time.Duration(v)*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	code := b.try(ctx, w, r, service, path, caller, timeout)
	label := strconv.Itoa(code)
	b.requests.add(1, service, label)
	b.edges.add(1, caller, service, label)
	b.duration.observe(b.clock.Now().Sub(start).Seconds(), service)
}

// try sends the request to a backend, and once more to another where the
// first could not be reached, and gives the status code that was answered.
func (b *balancer) try(ctx context.Context, w http.ResponseWriter, r *http.Request, service, path, caller string, timeout time.Duration) int {
	fail := func(code int, why string) int {
		http.Error(w, why, code)
		return code
	}
	if path == "" {
		path = "/"
	}
	var last *backend
	for range 2 {
		be := b.pick(service, last)
		if be == nil {
			break
		}
		last = be
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+be.url+path, nil)
		if err != nil {
			return fail(http.StatusBadRequest, err.Error())
		}
		req.Header.Set(headerCaller, caller)
		req.Header.Set(headerTimeout, strconv.FormatInt(timeout.Milliseconds(), 10))
		be.inflight.Add(1)
		resp, err := b.transport.RoundTrip(req)
		be.inflight.Add(-1)
		if err != nil {
			if r.Context().Err() != nil {
				return fail(499, "client closed the request")
			}
			if ctx.Err() != nil {
				return fail(http.StatusGatewayTimeout, "no answer from "+be.id+" in time")
			}
			// Not reachable: out until a probe succeeds.
			be.ready.Store(false)
			continue
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body) // the caller went away
		resp.Body.Close()
		return resp.StatusCode
	}
	if last == nil {
		return fail(http.StatusServiceUnavailable, "no replica of "+service+" is ready")
	}
	return fail(http.StatusBadGateway, "no replica of "+service+" could be reached")
}
