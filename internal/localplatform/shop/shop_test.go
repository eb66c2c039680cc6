package shop

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v4"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var monday = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

func TestDailyShape(t *testing.T) {
	quiet := Daily{Peak: 100, Noise: -1, Bursts: -1}
	for _, p := range dayShape {
		at := monday.Add(time.Duration(p.hour * float64(time.Hour)))
		if got := quiet.Rate(at); math.Abs(got-100*p.share) > 1e-9 {
			t.Errorf("at %v: %v, want %v", at, got, 100*p.share)
		}
	}
	top, low, rise := 0.0, math.Inf(1), 0.0
	last := quiet.Rate(monday.Add(-time.Minute))
	for m := range 3 * 1440 {
		v := quiet.Rate(monday.Add(time.Duration(m) * time.Minute))
		top, low, rise = max(top, v), min(low, v), max(rise, math.Abs(v-last))
		last = v
	}
	if top > 100+1e-9 || low < 14-1e-9 {
		t.Errorf("from %v to %v: the curve leaves its points", low, top)
	}
	if rise > 1 {
		t.Errorf("%v in a minute: the curve jumps, perhaps at midnight", rise)
	}
}

func TestDailyIsAFunctionOfTimeAndSeed(t *testing.T) {
	a, b, c := Daily{Peak: 70, Seed: 1}, Daily{Peak: 70, Seed: 1}, Daily{Peak: 70, Seed: 2}
	same := 0
	for m := range 1440 {
		at := monday.Add(time.Duration(m) * time.Minute)
		x, y := a.Rate(at), b.Rate(at.In(time.FixedZone("", 3600)))
		if x != y || x < 0 || x > 70*1.5*1.2 {
			t.Fatalf("at %v: %v and %v", at, x, y)
		}
		if x == c.Rate(at) {
			same++
		}
	}
	if same > 10 {
		t.Errorf("two seeds agree in %d minutes", same)
	}
}

func TestReadTrace(t *testing.T) {
	got, err := ReadTrace(strings.NewReader("# rps\n\n5\n 10 \n0\n"), monday, 40, 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float64{20, 40, 0}, got.Values); diff != "" {
		t.Error(diff)
	}
	for minutes, want := range map[float64]float64{0: 20, .5: 30, 1: 40, 2: 0, 2.5: 10, 3: 20, -1: 0, -2.5: 30} {
		if v := got.Rate(monday.Add(time.Duration(minutes * float64(time.Minute)))); math.Abs(v-want) > 1e-6 {
			t.Errorf("minute %v: %v, want %v", minutes, v, want)
		}
	}
	for in, want := range map[string]string{
		"1\n2\nx\n":                         "line 3",
		"1\n# c\n-1\n":                      "line 3",
		"NaN\n1\n":                          "line 1",
		"1\n":                               "1 values",
		"":                                  "0 values",
		"0\n0\n":                            "zero",
		"1\n1e999\n":                        "line 2",
		"1\n" + strings.Repeat("9", 100000): "line 2",
	} {
		if _, err := ReadTrace(strings.NewReader(in), monday, 1, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %s", in, err, want)
		}
	}
	if _, err := ReadTrace(strings.NewReader("1\n2\n"), monday, 0, 0); err == nil {
		t.Error("a peak of 0 passes")
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add("1\n2\n")
	f.Add("# x\n1e308\n1e-308\n")
	f.Fuzz(func(t *testing.T, s string) {
		tr, err := ReadTrace(strings.NewReader(s), monday, 80, 0)
		if err != nil {
			return
		}
		for m := range 10 {
			if v := tr.Rate(monday.Add(time.Duration(m) * 17 * time.Second)); !(v >= 0 && v <= 80) {
				t.Fatalf("rate %v", v)
			}
		}
	})
}

func FuzzParseFault(f *testing.F) {
	f.Add(`{"kind":"leak","mbPerSecond":4}`)
	f.Add(`{"kind":"stuck","workers":-1}`)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseFault(strings.NewReader(s))
		if err == nil && (got.MBPerSecond <= 0 || got.Rate <= 0 || got.Rate > 1 || got.MS <= 0 || got.Workers < 0) {
			t.Errorf("%+v", got)
		}
	})
}

func FuzzImageFile(f *testing.F) {
	for _, s := range []string{"registry.local/shop/cart:1.0.0", "../x:1", "a/..:1", "localhost:5000/a:b", "a:..", "a@sha256:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, image string) {
		name, err := imageFile("/d", image)
		if err == nil && (!strings.HasPrefix(name, "/d/registry/") || strings.Contains(name, "..")) && !strings.Contains(image, "..") {
			t.Errorf("%q is %s", image, name)
		}
		if err == nil && strings.Contains(name, "/../") {
			t.Errorf("%q leaves the registry: %s", image, name)
		}
	})
}

func TestPublishAndPull(t *testing.T) {
	dir := t.TempDir()
	want := Behaviour{ErrorRate: .3, ExtraMS: 150}
	if err := PublishImage(dir, ImageName("cart"), "1.1.0", want); err != nil {
		t.Fatal(err)
	}
	got, err := PullImage(dir, "registry.local/shop/cart:1.1.0")
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := PullImage(dir, "registry.local/shop/cart:1.1.1"); !errors.Is(err, ErrNoImage) || !strings.Contains(err.Error(), "cart:1.1.1") {
		t.Errorf("a tag that is not there: %v", err)
	}
	if err := PublishImage(dir, "a", "1", Behaviour{ErrorRate: 2}); err == nil {
		t.Error("an error rate of 2 passes")
	}
}

func TestPool(t *testing.T) {
	now := monday
	p := newPool(1, 1, func() time.Time { return now })
	ctx, cancel := context.WithCancel(context.Background())
	release, err := p.acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := p.acquire(ctx)
		waiting <- err
	}()
	for {
		if _, queued := p.state(); queued == 1 {
			break
		}
	}
	if _, err := p.acquire(ctx); !errors.Is(err, errFull) {
		t.Errorf("a full queue: %v", err)
	}
	// A worker that has not come back counts as busy all the same.
	now = now.Add(2 * time.Second)
	if busy, _ := p.state(); busy != 2 {
		t.Errorf("busy for %v s, want 2", busy)
	}
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that waited: %v", err)
	}
	release()
	if busy, queued := p.state(); busy != 2 || queued != 0 {
		t.Errorf("at the end: %v, %v", busy, queued)
	}
}

func TestMetricsAreInTheTextFormat(t *testing.T) {
	r := &registry{}
	r.counter("a_total", "A.", "code").add(2, `5"0`)
	h := r.histogram("h_seconds", "H.")
	h.observe(.004)
	h.observe(.005)
	h.observe(9)
	r.gauge("g", "G.").set(1.5)
	rec := httptest.NewRecorder()
	r.handler(nil)(rec, nil)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	got, err := parser.TextToMetricFamilies(bytes.NewReader(rec.Body.Bytes()))
	if err != nil {
		t.Fatalf("%v\n%s", err, rec.Body)
	}
	if m := got["a_total"].Metric[0]; m.Counter.GetValue() != 2 || m.Label[0].GetValue() != `5"0` {
		t.Errorf("%v", m)
	}
	if m := got["h_seconds"].Metric[0].Histogram; m.GetSampleCount() != 3 || m.Bucket[0].GetCumulativeCount() != 2 {
		t.Errorf("%v", m)
	}
}

// The manifests keep to what a baseline policy asks for.
func TestManifestsKeepTheBaseline(t *testing.T) {
	seen := map[string]bool{}
	for _, service := range Services() {
		data, err := fs.ReadFile(Manifests(), service+".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(data, []byte("# ")) {
			t.Errorf("%s: no comment says what it is", service)
		}
		_, doc, _ := bytes.Cut(data, []byte("\n---\n"))
		var d struct {
			Kind string
			Spec struct {
				Replicas int
				Template struct {
					Spec struct {
						HostNetwork     bool `yaml:"hostNetwork"`
						SecurityContext struct {
							RunAsNonRoot bool `yaml:"runAsNonRoot"`
						} `yaml:"securityContext"`
						Containers []struct {
							Image     string
							Resources struct {
								Requests, Limits map[string]string
							}
							SecurityContext struct {
								Privileged               bool
								AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
							} `yaml:"securityContext"`
						}
					}
				}
			}
		}
		if err := yaml.Unmarshal(doc, &d); err != nil {
			t.Fatalf("%s: %v", service, err)
		}
		pod := d.Spec.Template.Spec
		if d.Kind != "Deployment" || d.Spec.Replicas < 2 || len(pod.Containers) != 1 {
			t.Fatalf("%s: %+v", service, d)
		}
		c := pod.Containers[0]
		if c.Image != ImageName(service)+":"+BaseTag || seen[c.Image] {
			t.Errorf("%s: image %s", service, c.Image)
		}
		seen[c.Image] = true
		if c.Resources.Limits["memory"] == "" || c.Resources.Limits["cpu"] == "" || c.Resources.Requests["memory"] == "" || c.Resources.Requests["cpu"] == "" {
			t.Errorf("%s: resources %+v", service, c.Resources)
		}
		if esc := c.SecurityContext.AllowPrivilegeEscalation; c.SecurityContext.Privileged || esc == nil || *esc || !pod.SecurityContext.RunAsNonRoot || pod.HostNetwork {
			t.Errorf("%s: security context", service)
		}
	}
}

func TestLoadConfig(t *testing.T) {
	dir := t.TempDir()
	c := LoadConfig{SimStart: monday, WallStart: monday.Add(time.Hour), Speed: 1440, Daily: Daily{Peak: 70}}
	if err := SaveLoad(dir, c); err != nil {
		t.Fatal(err)
	}
	got, err := ReadLoad(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got); diff != "" {
		t.Error(diff)
	}
	wall := c.WallStart.Add(time.Minute)
	if sim := c.SimTime(wall); !sim.Equal(monday.AddDate(0, 0, 1)) {
		t.Errorf("a minute is %v", sim.Sub(monday))
	}
	if back := c.WallTime(c.SimTime(wall)); !back.Equal(wall) {
		t.Errorf("there and back: %v", back)
	}
	if _, err := ReadLoad(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	for _, bad := range []LoadConfig{{}, {Speed: 1}, {Speed: math.NaN(), Daily: Daily{Peak: 1}}, {Speed: 1, Daily: Daily{Peak: -1}}} {
		if err := SaveLoad(dir, bad); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
	c.TraceFile = dir + "/none"
	if _, err := c.Curve(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a trace that is not there: %v", err)
	}
}

func TestMainRefusesBadArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"service"}, {"service", "-nope"}, {"lb", "-dir", t.TempDir()}, {"other", "-dir", t.TempDir(), "-id", "x-1"}} {
		var out bytes.Buffer
		if code := Main(args, &out); code != 2 || out.Len() == 0 {
			t.Errorf("%q: %d, %s", args, code, &out)
		}
	}
}

func BenchmarkDailyRate(b *testing.B) {
	d := Daily{Peak: 70}
	b.ReportAllocs()
	for i := range b.N {
		d.Rate(monday.Add(time.Duration(i) * time.Second))
	}
}

// A process that was on its way when its controller was killed does not
// appear beside what the next controller started in its place.
func TestOrphanDoesNotRegister(t *testing.T) {
	dir := rundir.Dir(t.TempDir())
	if err := errors.Join(dir.Create(), dir.TouchLease(time.Now())); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(PublishBase(string(dir)), SaveLoad(string(dir), LoadConfig{SimStart: time.Now(), WallStart: time.Now(), Speed: 1, Daily: Daily{Peak: 1}})); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"lb", "load", "service"} {
		var errw bytes.Buffer
		args := []string{role, "-dir", string(dir), "-id", role + "-1", "-name", "cart", "-image", ImageName("cart") + ":" + BaseTag,
			"-controller", strconv.Itoa(os.Getpid())} // its own child it is not
		if code := Main(args, &errw); code != 3 {
			t.Errorf("%s: exit code %d, want 3: %s", role, code, &errw)
		}
	}
	if entries, err := (&rundir.Reader{Dir: dir}).Read(); err != nil || len(entries) > 0 {
		t.Errorf("entries %v, %v", entries, err)
	}
}
