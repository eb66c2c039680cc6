package shop

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
)

// LoadConfig says what the load generator sends. It is kept in DIR, so that a
// controller that comes back goes on with the same demand.
type LoadConfig struct {
	// SimStart is the simulated time at WallStart; from there simulated time
	// runs Speed times as fast as wall time.
	SimStart  time.Time `json:"simStart"`
	WallStart time.Time `json:"wallStart"`
	Speed     float64   `json:"speed"`
	// Daily is the demand, unless TraceFile names a file of recorded demand,
	// whose largest value becomes Daily.Peak.
	Daily     Daily  `json:"daily"`
	TraceFile string `json:"traceFile,omitempty"`
	// Play is the part of the trace that counts for its largest value; 0 is
	// all of it.
	Play time.Duration `json:"play,omitempty"`
	// Seed chooses arrivals and routes.
	Seed uint64 `json:"seed,omitempty"`
	// Timeout is the clients' patience; 0 is 1.5 s.
	Timeout time.Duration `json:"timeout,omitempty"`
	// MaxInFlight bounds the requests under way; one more counts as failed.
	// 0 is 512.
	MaxInFlight int `json:"maxInFlight,omitempty"`
}

// SimTime is the simulated time at a wall time.
func (c LoadConfig) SimTime(wall time.Time) time.Time {
	return c.SimStart.Add(time.Duration(float64(wall.Sub(c.WallStart)) * c.Speed)).UTC()
}

// WallTime is the wall time at a simulated time.
func (c LoadConfig) WallTime(sim time.Time) time.Time {
	return c.WallStart.Add(time.Duration(float64(sim.Sub(c.SimStart)) / c.Speed)).UTC()
}

// Curve gives the demand, reading the trace file if there is one.
func (c LoadConfig) Curve() (Curve, error) {
	if c.TraceFile == "" {
		return c.Daily, nil
	}
	f, err := os.Open(c.TraceFile)
	if err != nil {
		return nil, fmt.Errorf("shop: trace: %w", err)
	}
	defer f.Close()
	t, err := ReadTrace(f, c.SimStart, c.Daily.Peak, c.Play)
	if err != nil {
		return nil, fmt.Errorf("%w (file %s)", err, c.TraceFile)
	}
	return t, nil
}

// Validate reports a speed or a peak that is not above zero.
func (c LoadConfig) Validate() error {
	if !(c.Speed > 0) || math.IsInf(c.Speed, 0) {
		return fmt.Errorf("shop: load: speed %v is not above zero", c.Speed)
	}
	if !(c.Daily.Peak > 0) || math.IsInf(c.Daily.Peak, 0) {
		return fmt.Errorf("shop: load: peak %v is not above zero", c.Daily.Peak)
	}
	return nil
}

// SaveLoad keeps the configuration in a platform's directory.
func SaveLoad(dir string, c LoadConfig) error {
	if err := c.Validate(); err != nil {
		return err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return rundir.WriteFile(rundir.Dir(dir).Path("load.json"), b)
}

// ReadLoad reads it back; the error is fs.ErrNotExist where there is none.
func ReadLoad(dir string) (LoadConfig, error) {
	var c LoadConfig
	b, err := os.ReadFile(rundir.Dir(dir).Path("load.json"))
	if err != nil {
		return c, fmt.Errorf("shop: load: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("shop: load.json: %w", err)
	}
	return c, c.Validate()
}

// Totals are what the load generator has seen, over its restarts.
type Totals struct {
	// Sent is OK + Failed + what is under way. Failed are answers of 500 and
	// above, timeouts, broken connections and requests above MaxInFlight.
	Sent   int64 `json:"sent"`
	OK     int64 `json:"ok"`
	Failed int64 `json:"failed"`
}

// ReadTotals reads the totals, which the load generator writes every half
// second and when it ends; zero where there are none yet.
func ReadTotals(dir string) (Totals, error) {
	var t Totals
	b, err := os.ReadFile(rundir.Dir(dir).Path("load-totals.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return t, fmt.Errorf("shop: load totals: %w", err)
	}
	return t, nil
}

type generator struct {
	*process
	cfg    LoadConfig
	curve  Curve
	client *http.Client
	lbURL  string

	mu     sync.Mutex
	totals Totals

	requests, duration, offered, inflight *family
}

func runLoad(ctx context.Context, p *process) error {
	cfg, err := ReadLoad(string(p.dir))
	if err != nil {
		return err
	}
	curve, err := cfg.Curve()
	if err != nil {
		return err
	}
	g := &generator{process: p, cfg: cfg, curve: curve}
	if g.totals, err = ReadTotals(string(p.dir)); err != nil {
		return err
	}
	g.client = &http.Client{
		Timeout:   cmp.Or(cfg.Timeout, 1500*time.Millisecond),
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, IdleConnTimeout: time.Minute},
	}
	r := p.reg
	g.requests = r.counter("load_requests_total", "Requests sent by the clients, by result and route.", "result", "route")
	g.duration = r.histogram("load_request_duration_seconds", "Time that clients waited.")
	g.offered = r.gauge("load_offered_rps", "Requests a second that the demand asks for now.")
	g.inflight = r.gauge("load_in_flight", "Requests under way.")

	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", r.handler(func() { g.offered.set(curve.Rate(cfg.SimTime(p.clock.Now()))) }))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	l, err := listen(0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { g.arrivals(ctx) })
	err = p.serve(ctx, l, mux, 0, 100*time.Millisecond)
	cancel() // it may have ended by itself
	wg.Wait()
	return errors.Join(err, g.save())
}

func (g *generator) save() error {
	g.mu.Lock()
	t := g.totals
	g.mu.Unlock()
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return rundir.WriteFile(g.dir.Path("load-totals.json"), b)
}

// arrivals sends requests as a Poisson process whose rate is the curve's: the
// next one is due when the integral of the rate reaches an exponential draw.
// The loop is open: a slow answer does not slow the arrivals.
func (g *generator) arrivals(ctx context.Context) {
	const tick = 5 * time.Millisecond
	// Arrivals of a restarted generator are others than those before.
	start := g.clock.Now()
	rng := rand.New(rand.NewPCG(g.cfg.Seed, uint64(start.UnixNano())))
	if g.totals.Sent == 0 {
		rng = rand.New(rand.NewPCG(g.cfg.Seed, 0))
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	// What is under way when the generator ends is finished, within the
	// clients' patience: cut-off requests would count as failures.
	slots := make(chan struct{}, cmp.Or(g.cfg.MaxInFlight, 512))
	due := rng.ExpFloat64()
	last, saved := start, start
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.clock.After(tick):
		}
		now := g.clock.Now()
		// A long pause, as after the machine slept, is not made up for.
		dt := min(now.Sub(last), 250*time.Millisecond)
		last = now
		for due -= g.curve.Rate(g.cfg.SimTime(now)) * dt.Seconds(); due <= 0; due += rng.ExpFloat64() {
			route := g.route(rng.Float64())
			g.count(func(t *Totals) { t.Sent++ })
			select {
			case slots <- struct{}{}:
				wg.Go(func() {
					defer func() { <-slots }()
					g.send(route)
				})
			default:
				g.requests.add(1, "dropped", route)
				g.count(func(t *Totals) { t.Failed++ })
			}
		}
		g.inflight.set(float64(len(slots)))
		if now.Sub(saved) > 500*time.Millisecond {
			saved = now
			if err := g.save(); err != nil {
				g.log.Warn("totals", "err", err)
			}
		}
	}
}

func (g *generator) route(u float64) string {
	switch {
	case u < .70:
		return "/browse"
	case u < .88:
		return "/cart"
	default:
		return "/checkout"
	}
}

func (g *generator) count(f func(*Totals)) {
	g.mu.Lock()
	f(&g.totals)
	g.mu.Unlock()
}

func (g *generator) base() (string, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lbURL == "" {
		if lb, ok := g.dir.Find(rundir.RoleLB); ok {
			g.lbURL = lb.URL()
		}
	}
	return g.lbURL, g.lbURL != ""
}

func (g *generator) send(route string) {
	start := g.clock.Now()
	result := "unreachable"
	if base, ok := g.base(); ok {
		result = g.get(base + route)
	}
	g.duration.observe(g.clock.Now().Sub(start).Seconds())
	g.requests.add(1, result, route)
	g.count(func(t *Totals) {
		if result == "ok" {
			t.OK++
		} else {
			t.Failed++
		}
	})
}

func (g *generator) get(url string) string {
	resp, err := g.client.Get(url)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	switch {
	case err == nil && resp.StatusCode < 400:
		return "ok"
	case err == nil:
		return "error"
	case os.IsTimeout(err):
		return "timeout"
	default:
		g.mu.Lock()
		g.lbURL = "" // it may have come back elsewhere
		g.mu.Unlock()
		return "unreachable"
	}
}
