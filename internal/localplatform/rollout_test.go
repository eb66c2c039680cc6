package localplatform_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

const image = "spec.template.spec.containers[name=stock].image"

func healthy(t testing.TB, p *localplatform.Platform, service string) {
	t.Helper()
	eventually(t, service+" is healthy", func() bool { return live(t, p, key(service)).Health.Status == reconcile.Healthy })
}

// stockShop opens a platform with a load balancer and stock alone.
func stockShop(t *testing.T, replicas int64) (p *localplatform.Platform, stock map[string]any) {
	t.Helper()
	dir := t.TempDir()
	if err := shop.PublishBase(dir); err != nil {
		t.Fatal(err)
	}
	p = open(t, dir)
	if err := p.StartInfrastructure(context10(t), nil); err != nil {
		t.Fatal(err)
	}
	settings, stock := small(t, "stock", replicas)
	create(t, p, settings)
	create(t, p, stock)
	healthy(t, p, "stock")
	return p, stock
}

// hammer asks for a service until it is told to end, and gives how many
// requests there were and how many failed.
func hammer(t *testing.T, url string) (end func() (sent, failed int64)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var sent, failed atomic.Int64
	done := make(chan struct{})
	client := &http.Client{Transport: &http.Transport{}}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			resp, err := client.Get(url)
			sent.Add(1)
			if err != nil {
				t.Log(err)
				failed.Add(1)
				continue
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Log(resp.Status, string(body))
				failed.Add(1)
			}
		}
	}()
	return func() (int64, int64) {
		cancel()
		<-done
		client.CloseIdleConnections()
		return sent.Load(), failed.Load()
	}
}

func TestRolloutAndScalingLoseNoRequest(t *testing.T) {
	t.Parallel()
	p, stock := stockShop(t, 2)
	url := p.Endpoints().LB + "/svc/stock/work"
	eventually(t, "stock answers", func() bool {
		resp, err := http.Get(url)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
	end := hammer(t, url)

	if err := shop.PublishImage(p.Dir(), shop.ImageName("stock"), "1.1.0", shop.Behaviour{}); err != nil {
		t.Fatal(err)
	}
	next := set(t, stock, image, shop.ImageName("stock")+":1.1.0")
	if err := update(t, p, next); err != nil {
		t.Fatal(err)
	}
	for _, in := range p.Instances("stock") {
		if !strings.HasSuffix(in.Image, ":1.1.0") || !in.Ready {
			t.Errorf("after the rollout: %+v", in)
		}
	}
	if err := update(t, p, set(t, next, "spec.replicas", int64(1))); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Instances("stock")); n != 1 {
		t.Errorf("%d instances after scaling down", n)
	}
	if err := p.RestartInstance(context10(t), "act-1", p.Instances("stock")[0].ID); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // some more requests
	sent, failed := end()
	http.DefaultClient.CloseIdleConnections()
	if failed != 0 || sent < 10 {
		t.Errorf("%d of %d requests failed", failed, sent)
	}
}

func TestImageThatIsNotThere(t *testing.T) {
	t.Parallel()
	p, stock := stockShop(t, 1)
	for _, bad := range []string{shop.ImageName("stock") + ":9.9.9", "stock", "../../etc:1", "a/../b:1", "x:y:"} {
		err := update(t, p, set(t, stock, image, bad))
		if !errors.Is(err, reconcile.ErrTerminal) || !errors.Is(err, shop.ErrNoImage) || !strings.Contains(err.Error(), fmt.Sprintf("%q", bad)) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	r := live(t, p, key("stock"))
	if r.Health.Status != reconcile.Degraded || !strings.Contains(r.Health.Reason, "image") {
		t.Errorf("health %s", r.Health)
	}
	if got := get(t, r.Object, image); got != shop.ImageName("stock")+":1.0.0" {
		t.Errorf("live image %v", got)
	}
	if err := update(t, p, stock); err != nil {
		t.Fatal(err)
	}
	healthy(t, p, "stock")
}

// A release that never gets ready leaves the old one serving, shows as a
// difference, and can be taken back.
func TestRolloutThatDoesNotGetReady(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := shop.PublishBase(dir); err != nil {
		t.Fatal(err)
	}
	if err := shop.PublishImage(dir, shop.ImageName("stock"), "2.0.0", shop.Behaviour{NeverReady: true}); err != nil {
		t.Fatal(err)
	}
	p, err := localplatform.Open(context.Background(), localplatform.Options{Dir: dir, RolloutTimeout: 400 * time.Millisecond, Poll: 50 * time.Millisecond, Lease: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(context10(t)); err != nil {
			t.Error(err)
		}
	}()
	settings, stock := small(t, "stock", 2)
	create(t, p, settings)
	create(t, p, stock)
	healthy(t, p, "stock")
	bad := set(t, stock, image, shop.ImageName("stock")+":2.0.0")
	version := live(t, p, key("stock")).Version
	change := reconcile.Change{Action: reconcile.Update, Key: key("stock"), Desired: bad, LiveVersion: version}
	for range 2 { // the same change again goes on and starts nothing more
		err = p.Apply(context10(t), change)
		if err == nil || errors.Is(err, reconcile.ErrTerminal) || errors.Is(err, reconcile.ErrConflict) {
			t.Fatalf("rollout: %v", err)
		}
		if n := len(p.Instances("stock")); n != 4 {
			t.Fatalf("%d instances, want 2 old and 2 new", n)
		}
	}
	r := live(t, p, key("stock"))
	if get(t, r.Object, image) != shop.ImageName("stock")+":1.0.0" || get(t, r.Object, "spec.replicas") != int64(4) || r.Health.Status != reconcile.Degraded {
		t.Errorf("live %v, %s", r.Object["spec"], r.Health)
	}
	// One of each is killed: as many run as were declared, of two templates.
	for _, i := range []int{0, 2} {
		if err := p.KillProcess(p.Instances("stock")[i].ID); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is gone", func() bool { return len(p.Instances("stock")) <= 4-i/2-1 })
	}
	if got := get(t, live(t, p, key("stock")).Object, "spec.replicas"); got == int64(2) {
		t.Error("a half-made rollout looks complete")
	}
	if err := update(t, p, stock); err != nil {
		t.Fatal(err)
	}
	healthy(t, p, "stock")
	for _, in := range p.Instances("stock") {
		if !strings.HasSuffix(in.Image, ":1.0.0") {
			t.Errorf("left of the bad release: %+v", in)
		}
	}
}

func TestRestartHappensOnce(t *testing.T) {
	t.Parallel()
	p, _ := stockShop(t, 2)
	ctx := context10(t)
	before := p.Instances("stock")
	old := before[0].ID
	if done, err := p.RestartDone(ctx, "inc-1/step-1"); done || err != nil {
		t.Fatal(done, err)
	}
	for i := range 3 {
		if err := p.RestartInstance(ctx, "inc-1/step-1", old); err != nil {
			t.Fatal(err)
		}
		after := p.Instances("stock")
		if len(after) != 2 || after[0].ID != before[1].ID || after[1].ID != "stock-3" {
			t.Fatalf("call %d: %+v", i, after)
		}
	}
	if done, err := p.RestartDone(ctx, "inc-1/step-1"); !done || err != nil {
		t.Error(done, err)
	}
	if err := p.RestartInstance(ctx, "inc-1/step-1", before[1].ID); !errors.Is(err, reconcile.ErrInvalid) {
		t.Errorf("the same action for another instance: %v", err)
	}
	if err := p.RestartInstance(ctx, "inc-2", old); !errors.Is(err, reconcile.ErrNotFound) {
		t.Errorf("an instance that is gone: %v", err)
	}
	if r := live(t, p, key("stock")); r.Health.Status != reconcile.Healthy {
		t.Errorf("health %s", r.Health)
	}
}

func TestDeleteStopsAll(t *testing.T) {
	t.Parallel()
	p, _ := stockShop(t, 2)
	ctx := context10(t)
	if err := p.Apply(ctx, reconcile.Change{Action: reconcile.Delete, Key: key("stock"), LiveVersion: "0.0.x"}); !errors.Is(err, reconcile.ErrConflict) {
		t.Errorf("stale delete: %v", err)
	}
	del := reconcile.Change{Action: reconcile.Delete, Key: key("stock"), LiveVersion: live(t, p, key("stock")).Version}
	for range 2 {
		if err := p.Apply(ctx, del); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(p.Instances("stock")); n != 0 {
		t.Errorf("%d instances left", n)
	}
}

func TestCancelEndsAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := shop.PublishBase(dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p, err := localplatform.Open(ctx, localplatform.Options{Dir: dir, Lease: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.StartInfrastructure(ctx, nil); err != nil {
		t.Fatal(err)
	}
	settings, stock := small(t, "stock", 2)
	create(t, p, settings)
	create(t, p, stock)
	if n := len(processes(t, dir)); n != 3 {
		t.Errorf("%d processes, want 3", n)
	}
	cancel()
	<-p.Done()
	if left := processes(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := p.Apply(context.Background(), reconcile.Change{Action: reconcile.Delete, Key: key("stock")}); !errors.Is(err, localplatform.ErrClosed) {
		t.Errorf("apply after the end: %v", err)
	}
}

func TestDirectoryThatVanishesEndsAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := shop.PublishBase(dir); err != nil {
		t.Fatal(err)
	}
	cmd := startController(t, dir, time.Second)
	_ = cmd.Process.Kill() // or it would bring the directory back
	_ = cmd.Wait()
	if err := removeAll(dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have ended", func() bool { return len(processes(t, dir)) == 0 })
}

func TestFaults(t *testing.T) {
	t.Parallel()
	p, _ := stockShop(t, 1)
	ctx := context10(t)
	id := p.Instances("stock")[0].ID
	url := p.Instances("stock")[0].URL
	ask := func() int {
		client := &http.Client{Timeout: 600 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get(url + "/work")
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	fault := func(f shop.Fault) {
		t.Helper()
		if err := p.InjectFault(ctx, id, f); err != nil {
			t.Fatal(err)
		}
	}
	if code := ask(); code != 200 {
		t.Fatalf("at first: %d", code)
	}
	fault(shop.Fault{Kind: shop.Errors, Rate: 1})
	if code := ask(); code != 500 {
		t.Errorf("errors: %d", code)
	}
	fault(shop.Fault{Kind: shop.Stuck})
	for range 2 { // two workers
		if code := ask(); code != 0 {
			t.Errorf("stuck: %d", code)
		}
	}
	if live := live(t, p, key("stock")); live.Health.Status != reconcile.Healthy {
		t.Errorf("a stuck replica is ready all the same, and it is %s", live.Health)
	}
	fault(shop.Fault{Kind: shop.NoFault})
	if code := ask(); code != 200 {
		t.Errorf("mended: %d", code)
	}
	before := metric(t, url, "process_resident_memory_bytes")
	fault(shop.Fault{Kind: shop.Leak, MBPerSecond: 200})
	eventually(t, "memory grows", func() bool { return metric(t, url, "process_resident_memory_bytes") > before+40<<20 })
	// The limit of the manifest is 512Mi: nobody mends it, so it dies of it.
	eventually(t, "it runs out of memory", func() bool { return len(p.Instances("stock")) == 0 })
	if err := p.InjectFault(ctx, id, shop.Fault{Kind: shop.Leak}); !errors.Is(err, reconcile.ErrNotFound) {
		t.Errorf("a fault in what is gone: %v", err)
	}
}

func metric(t *testing.T, url, name string) float64 {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	for line := range strings.SplitSeq(string(b), "\n") {
		var v float64
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

func TestBadObjects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := shop.PublishBase(dir); err != nil {
		t.Fatal(err)
	}
	p := open(t, dir)
	_, stock := small(t, "stock", 1)
	for path, v := range map[string]any{
		"spec.replicas":                 int64(-1),
		"spec.template.spec.containers": []any{},
		"spec.template.spec.containers[name=stock].resources.limits.memory": "lots",
		"spec.template.spec.containers[name=stock].env[0].name":             "A=B",
	} {
		o := set(t, stock, path, v)
		o = set(t, o, "spec.template.spec.containers[name=stock].envFrom", []any{})
		if path == "spec.template.spec.containers" {
			o = set(t, stock, path, v)
		}
		err := p.Apply(context10(t), reconcile.Change{Action: reconcile.Create, Key: key("stock"), Desired: o})
		if !errors.Is(err, reconcile.ErrTerminal) || !errors.Is(err, reconcile.ErrInvalid) {
			t.Errorf("%s: %v", path, err)
		}
		if s, err := p.Observe(context10(t)); err != nil || s.Len() != 0 {
			t.Errorf("%s: a terminal error left %d resources, %v", path, s.Len(), err)
		}
	}
	// A ConfigMap that is missing may come yet.
	if err := p.Apply(context10(t), reconcile.Change{Action: reconcile.Create, Key: key("stock"), Desired: stock}); !errors.Is(err, reconcile.ErrNotFound) || errors.Is(err, reconcile.ErrTerminal) {
		t.Errorf("without its ConfigMap: %v", err)
	}
	for _, o := range []localplatform.Options{{}, {Dir: dir, Poll: -1}} {
		if _, err := localplatform.Open(context.Background(), o); !errors.Is(err, reconcile.ErrInvalid) {
			t.Errorf("open %+v: %v", o, err)
		}
	}
}
