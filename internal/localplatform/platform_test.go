package localplatform_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/evenkeel-go/evenkeel/internal/localplatform"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/scrape"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// objects reads the shop's manifests.
func objects(t testing.TB) map[reconcile.Key]map[string]any {
	t.Helper()
	out := map[reconcile.Key]map[string]any{}
	files, err := fs.Glob(shop.Manifests(), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		data, err := fs.ReadFile(shop.Manifests(), name)
		if err != nil {
			t.Fatal(err)
		}
		dec := yaml.NewDecoder(bytes.NewReader(data))
		for {
			var m map[string]any
			err := dec.Decode(&m)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			m = integers(m).(map[string]any)
			key, err := reconcile.KeyOf(m)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			out[key] = m
		}
	}
	return out
}

func integers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = integers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = integers(e)
		}
	case int:
		return int64(v)
	}
	return v
}

func key(service string) reconcile.Key {
	return reconcile.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: service}
}

func set(t testing.TB, object map[string]any, path string, v any) map[string]any {
	t.Helper()
	p, err := reconcile.ParsePath(path)
	if err != nil {
		t.Fatal(err)
	}
	object = reconcile.CloneObject(object)
	if err := p.Set(object, v); err != nil {
		t.Fatal(err)
	}
	return object
}

func get(t testing.TB, object map[string]any, path string) any {
	t.Helper()
	p, err := reconcile.ParsePath(path)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := p.Get(object)
	return v
}

func context10(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB, dir string) *localplatform.Platform {
	t.Helper()
	p, err := localplatform.Open(context.Background(), localplatform.Options{Dir: dir, Lease: 8 * time.Second, Poll: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context10(t)); err != nil {
			t.Error(err)
		}
		if left := processes(t, dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return p
}

// processes gives the pids of all processes that were started for a
// directory, whatever they say of themselves.
func processes(t testing.TB, dir string) []string {
	t.Helper()
	found, err := os.ReadDir("/proc")
	if err != nil {
		t.Skip("no /proc")
	}
	var out []string
	for _, f := range found {
		b, err := os.ReadFile("/proc/" + f.Name() + "/cmdline")
		if err == nil && strings.Contains(string(b), "_shop\x00") && strings.Contains(string(b), "\x00"+dir+"\x00") {
			out = append(out, f.Name())
		}
	}
	return out
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func create(t testing.TB, p *localplatform.Platform, object map[string]any) {
	t.Helper()
	k, err := reconcile.KeyOf(object)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(context10(t), reconcile.Change{Action: reconcile.Create, Key: k, Desired: object}); err != nil {
		t.Fatal(err)
	}
}

func live(t testing.TB, p *localplatform.Platform, k reconcile.Key) reconcile.Resource {
	t.Helper()
	s, err := p.Observe(context10(t))
	if err != nil {
		t.Fatal(err)
	}
	r, ok := s.Get(k)
	if !ok {
		t.Fatalf("%s is not live", k)
	}
	return r
}

func update(t testing.TB, p *localplatform.Platform, object map[string]any) error {
	t.Helper()
	k, err := reconcile.KeyOf(object)
	if err != nil {
		t.Fatal(err)
	}
	return p.Apply(context10(t), reconcile.Change{Action: reconcile.Update, Key: k, Desired: object, LiveVersion: live(t, p, k).Version})
}

// small gives the settings with a short warm-up, and one service.
func small(t testing.TB, service string, replicas int64) (settings, deployment map[string]any) {
	t.Helper()
	all := objects(t)
	settings = set(t, all[reconcile.Key{Kind: "ConfigMap", Namespace: "shop", Name: "shop-settings"}], "data.WARMUP_MS", "100")
	return settings, set(t, all[key(service)], "spec.replicas", replicas)
}

func TestShopEndToEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := shop.PublishBase(dir); err != nil {
		t.Fatal(err)
	}
	p := open(t, dir)
	ctx := context10(t)
	if err := p.StartInfrastructure(ctx, nil); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for k, o := range objects(t) {
		if k.Name == "shop-settings" {
			o = set(t, o, "data.WARMUP_MS", "200")
			create(t, p, o)
		}
	}
	for k, o := range objects(t) {
		if k.Name != "shop-settings" {
			if k.Kind == "Deployment" {
				o = set(t, o, "spec.replicas", int64(1))
			}
			wg.Go(func() { create(t, p, o) })
		}
	}
	wg.Wait()
	eventually(t, "all is healthy", func() bool {
		s, err := p.Observe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for r := range s.All() {
			if r.Health.Status != reconcile.Healthy {
				return false
			}
		}
		return s.Len() == 16
	})
	eventually(t, "the shop is open", func() bool {
		for _, route := range shop.Routes() {
			resp, err := http.Get(p.Endpoints().Ingress + route)
			if err != nil {
				return false
			}
			resp.Body.Close()
			if resp.StatusCode != 200 {
				return false
			}
		}
		return true
	})
	http.DefaultClient.CloseIdleConnections()

	now := time.Now()
	if err := p.StartInfrastructure(ctx, &shop.LoadConfig{SimStart: time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC), WallStart: now, Speed: 60, Daily: shop.Daily{Peak: 12, Bursts: -1}, Seed: 1}); err != nil {
		t.Fatal(err)
	}
	s, err := scrape.New(scrape.Options{Dir: dir, Step: time.Minute, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var batch scrape.Batch
	start := time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
	for i := range 5 {
		if batch, err = s.Tick(ctx, start.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
		if len(batch.Failed) > 0 || batch.Targets != 9 {
			t.Fatalf("tick %d: %d targets, failed %v", i, batch.Targets, batch.Failed)
		}
		if i < 4 {
			time.Sleep(600 * time.Millisecond)
		}
	}
	want := "[{catalogue stock} {checkout payment} {checkout shipping} {frontend cart} {frontend catalogue} {frontend checkout}]"
	if got := fmt.Sprint(s.Graph()); got != want {
		t.Errorf("graph %s, want %s", got, want)
	}
	series, err := s.Query(ctx, `request_rate{service="frontend"}`, start, start.Add(4*time.Minute), time.Minute)
	if err != nil || len(series) != 1 {
		t.Fatal(series, err)
	}
	t.Log(series[0])
	for _, x := range batch.Samples {
		if x.Series.Instance == "" && (x.Series.Service == "frontend" || x.Series.Service == "ingress") {
			t.Log(x.Series, x.Value)
		}
	}
	if err := p.StopLoad(ctx); err != nil {
		t.Fatal(err)
	}
	totals, err := shop.ReadTotals(dir)
	if err != nil || totals.Sent < 10 || totals.OK+totals.Failed != totals.Sent || totals.OK < totals.Sent*9/10 {
		t.Errorf("totals %+v, %v", totals, err)
	}
}

func TestDrift(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := shop.PublishBase(dir); err != nil {
		t.Fatal(err)
	}
	p := open(t, dir)
	ctx := context10(t)
	settings, cart := small(t, "cart", 2)
	create(t, p, settings)
	create(t, p, cart)
	eventually(t, "cart is healthy", func() bool { return live(t, p, key("cart")).Health.Status == reconcile.Healthy })
	before := live(t, p, key("cart"))

	events := make(chan reconcile.Key, 100)
	watch, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.Watch(watch, func(k reconcile.Key) { events <- k }) }()

	if err := p.KillProcess(p.Instances("cart")[0].ID); err != nil {
		t.Fatal(err)
	}
	if k := <-events; k != key("cart") {
		t.Errorf("watch told of %s", k)
	}
	r := live(t, p, key("cart"))
	if got := get(t, r.Object, "spec.replicas"); got != int64(1) {
		t.Errorf("killed: replicas %v", got)
	}
	if r.Version == before.Version {
		t.Error("killed: the version is the same")
	}
	if err := p.Apply(ctx, reconcile.Change{Action: reconcile.Update, Key: key("cart"), Desired: set(t, cart, "spec.replicas", int64(3)), LiveVersion: before.Version}); !errors.Is(err, reconcile.ErrConflict) {
		t.Errorf("stale update: %v", err)
	}
	if err := update(t, p, cart); err != nil {
		t.Fatal(err)
	}
	eventually(t, "cart is healthy again", func() bool { return live(t, p, key("cart")).Health.Status == reconcile.Healthy })

	hand, err := p.StartByHand(ctx, "cart")
	if err != nil {
		t.Fatal(err)
	}
	if got := get(t, live(t, p, key("cart")).Object, "spec.replicas"); got != int64(3) {
		t.Errorf("one by hand: replicas %v", got)
	}
	if err := update(t, p, cart); err != nil {
		t.Fatal(err)
	}
	for _, in := range p.Instances("cart") {
		if in.ID == hand {
			t.Error("the one by hand still runs")
		}
	}
	if diff := cmp.Diff(cart["spec"], live(t, p, key("cart")).Object["spec"]); diff != "" {
		t.Errorf("after the repair (-declared +live):\n%s", diff)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("watch: %v", err)
	}
}

// controller is a controller in a process of its own, to be killed.
func controller(dir string) int {
	ctx := context.Background()
	lease, err := time.ParseDuration(os.Getenv("LOCALPLATFORM_LEASE"))
	if err != nil {
		return 1
	}
	p, err := localplatform.Open(ctx, localplatform.Options{Dir: dir, Lease: lease, Poll: 50 * time.Millisecond})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := p.StartInfrastructure(ctx, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	object := map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"name": "stock", "namespace": "shop"},
		"spec": map[string]any{
			"replicas": int64(2),
			"template": map[string]any{"spec": map[string]any{"containers": []any{
				map[string]any{"name": "stock", "image": shop.ImageName("stock") + ":" + shop.BaseTag},
			}}},
		},
	}
	if err := p.Apply(ctx, reconcile.Change{Action: reconcile.Create, Key: key("stock"), Desired: object}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("up")
	if os.Getenv("LOCALPLATFORM_ROLL") == "" {
		select {}
	}
	for i := 0; ; i++ { // rollouts without end
		spec := object["spec"].(map[string]any)
		spec["template"].(map[string]any)["metadata"] = map[string]any{"annotations": map[string]any{"round": fmt.Sprint(i)}}
		spec["replicas"] = int64(1 + i%3)
		if err := p.Apply(ctx, reconcile.Change{Action: reconcile.Update, Key: key("stock"), Desired: object}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

// A controller that is killed in the middle of a rollout leaves a live object
// from which the next one gets to what is declared, and no further.
func TestKilledInARollout(t *testing.T) {
	t.Setenv("LOCALPLATFORM_ROLL", "1")
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 5 {
		dir := t.TempDir()
		if err := shop.PublishBase(dir); err != nil {
			t.Fatal(err)
		}
		cmd := startController(t, dir, 10*time.Second)
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		p := open(t, dir)
		settings, stock := small(t, "stock", 2)
		create(t, p, settings)
		// What was under way when it was killed may still come or go.
		eventually(t, "what is declared runs", func() bool {
			r := live(t, p, key("stock"))
			if cmp.Equal(stock["spec"], r.Object["spec"]) && r.Health.Status == reconcile.Healthy {
				return true
			}
			if err := update(t, p, stock); err != nil && !errors.Is(err, reconcile.ErrConflict) {
				t.Fatal(err)
			}
			return false
		})
		if in := p.Instances("stock"); len(in) != 2 || in[0].Image != in[1].Image {
			t.Errorf("round %d: %+v", round, in)
		}
		if err := p.Close(context10(t)); err != nil {
			t.Error(err)
		}
	}
}

func startController(t *testing.T, dir string, lease time.Duration) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LOCALPLATFORM_CONTROLLER="+dir, "LOCALPLATFORM_LEASE="+lease.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		_ = cmd.Process.Kill()
		t.Fatalf("controller: %q, %v", line, cmd.Wait())
	}
	return cmd
}

func TestKilledControllerLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := shop.PublishBase(dir); err != nil {
		t.Fatal(err)
	}
	cmd := startController(t, dir, 600*time.Millisecond)
	if got := processes(t, dir); len(got) != 3 {
		t.Errorf("processes %v", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	eventually(t, "the lease ends all", func() bool { return len(processes(t, dir)) == 0 })
	if left, _ := (&rundir.Reader{Dir: rundir.Dir(dir)}).Read(); len(left) != 0 {
		t.Errorf("entries left: %v", left)
	}
}

func TestControllerComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := shop.PublishBase(dir); err != nil {
		t.Fatal(err)
	}
	cmd := startController(t, dir, 10*time.Second)
	if _, err := localplatform.Open(context.Background(), localplatform.Options{Dir: dir}); !errors.Is(err, rundir.ErrLocked) {
		t.Errorf("second controller: %v", err)
	}
	before := processes(t, dir)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	p := open(t, dir)
	if diff := cmp.Diff(before, processes(t, dir)); diff != "" {
		t.Errorf("processes before and after:\n%s", diff)
	}
	r := live(t, p, key("stock"))
	if got := get(t, r.Object, "spec.replicas"); got != int64(2) {
		t.Errorf("adopted replicas %v", got)
	}
	if p.Endpoints().Ingress == "" {
		t.Error("the load balancer was not adopted")
	}
}

// removeAll removes a directory in which processes may still write.
func removeAll(dir string) error {
	var err error
	for range 20 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
	}
	return err
}
