package anomaly_test

import (
	"encoding"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/evenkeel-go/evenkeel/anomaly"
)

var t0 = time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)

const step = 15 * time.Second

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type saver interface {
	anomaly.Detector
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
}

// kinds are all detectors, fresh.
func kinds() map[string]func() saver {
	return map[string]func() saver{
		"Level": func() saver {
			return must(anomaly.NewLevel(anomaly.Options{MinDeviation: 0.01, FlatLine: 12, Relearn: 90}))
		},
		"Seasonal": func() saver {
			return must(anomaly.NewSeasonal(anomaly.SeasonalOptions{Period: 30 * time.Minute, Buckets: 24,
				Options: anomaly.Options{Relearn: 90, FlatLine: 12}}))
		},
		"ChangePoint": func() saver {
			return must(anomaly.NewChangePoint(anomaly.ChangePointOptions{}))
		},
	}
}

// noisy is a stream with season, bursts, gaps, shifts and nonsense.
func noisy(rng *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	level := 10.0
	for i := range x {
		if rng.IntN(200) == 0 {
			level += 20 * rng.NormFloat64()
		}
		x[i] = level + 3*math.Sin(float64(i)/120*2*math.Pi) + rng.NormFloat64()
		switch rng.IntN(40) {
		case 0:
			x[i] = math.NaN()
		case 1:
			x[i] *= 10
		case 2:
			x[i] = math.Inf(1 - 2*rng.IntN(2))
		case 3:
			x[i] = 0
		case 4, 5, 6:
			if i > 0 {
				x[i] = x[i-1]
			}
		}
	}
	return x
}

func TestErrorRatioExactlyZeroThenJump(t *testing.T) {
	d := must(anomaly.NewLevel(anomaly.Options{Direction: anomaly.Up, MinDeviation: 0.05}))
	for i := range 500 {
		x := 0.0
		if i%37 == 0 {
			x = 0.03 // one failed request in thirty: below what counts
		}
		if r := d.Observe(t0.Add(time.Duration(i)*step), x); r.Score > 1 {
			t.Fatalf("value %d: score %v of an ordinary %v", i, r.Score, x)
		}
	}
	r := d.Observe(t0.Add(500*step), 0.2)
	want := anomaly.Result{Score: 4, Expected: 0, Lower: math.Inf(-1), Upper: 0.05, Kind: anomaly.Spike, Ready: true}
	if diff := cmp.Diff(want, r, cmpopts.EquateApprox(0, 1e-9), cmpopts.IgnoreFields(anomaly.Result{}, "P")); diff != "" {
		t.Errorf("jump to 0.2 (-want +got):\n%s", diff)
	}
	if r.P <= 0 || r.P > 1e-3 {
		t.Errorf("P = %v, want a small probability", r.P)
	}
}

// A latency quantile with bursts: single high values must not make an alert,
// a lasting threefold must, and quickly.
func TestNoisyLatency(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		d := must(anomaly.NewLevel(anomaly.Options{Direction: anomaly.Up, MinDeviation: 20, MinRelative: 0.5}))
		a := must(anomaly.NewAlerter(anomaly.AlertOptions{Raise: 4, Of: 6}))
		id := anomaly.SeriesID{Service: "shop", Metric: "latency_ms"}
		raised := -1
		for i := range 620 {
			x := 40 * math.Exp(0.15*rng.NormFloat64())
			if rng.IntN(60) == 0 {
				x *= 2 + 4*rng.Float64()
			}
			if i >= 600 {
				x *= 3
			}
			at := t0.Add(time.Duration(i) * step)
			if e, ok := a.Step(at, id, x, d.Observe(at, x)); ok && e.Type == anomaly.Raised {
				if i < 600 {
					t.Fatalf("seed %d: false alarm at %d: %v", seed, i, e)
				}
				raised = i
			}
		}
		if raised < 0 || raised > 606 {
			t.Errorf("seed %d: raised at %d, want within 6 values of 600", seed, raised)
		}
	}
}

// Memory that swings with load is ordinary; a leak that ramps is not.
func TestMemoryDriftAndLeak(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 2))
		d := must(anomaly.NewLevel(anomaly.Options{Direction: anomaly.Up}))
		a := must(anomaly.NewAlerter(anomaly.AlertOptions{}))
		id := anomaly.SeriesID{Service: "cart", Metric: "memory_mb"}
		at := t0
		memory := func(i int) float64 { return 200 + 40*math.Sin(float64(i)/240*2*math.Pi) + rng.NormFloat64() }
		for i := range 960 {
			at = at.Add(step)
			x := memory(i)
			if e, ok := a.Step(at, id, x, d.Observe(at, x)); ok {
				t.Fatalf("seed %d: swing: %v", seed, e)
			}
		}
		first := -1
		for i := range 60 {
			at = at.Add(step)
			x := memory(960+i) + 8*float64(i)
			if e, ok := a.Step(at, id, x, d.Observe(at, x)); ok && e.Type == anomaly.Raised {
				first = i
			}
		}
		if first < 0 || first > 25 {
			t.Errorf("seed %d: leak of 8 a value noticed after %d values", seed, first)
		}
	}
}

func TestSeasonal(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	d := must(anomaly.NewSeasonal(anomaly.SeasonalOptions{Period: time.Hour, Buckets: 48}))
	shape := func(i int) float64 {
		s := math.Max(0, math.Sin(float64(i)/240*2*math.Pi))
		return 100 + 400*s*s*s*s + 4*rng.NormFloat64()
	}
	at := t0
	alarms := 0
	for i := range 240 * 8 {
		at = at.Add(step)
		if r := d.Observe(at, shape(i)); r.Score > 1 && i > 240*2 {
			alarms++
		}
	}
	if alarms > 6 {
		t.Errorf("%d unusual of %d ordinary values", alarms, 240*6)
	}
	// The height of noon, at night: ordinary for a level, unusual for now.
	for i := range 180 {
		at = at.Add(step)
		d.Observe(at, shape(i))
	}
	if r := d.Observe(at.Add(step), 320); r.Score < 2 || r.Kind != anomaly.Spike {
		t.Errorf("noon at night: %+v", r)
	}
}

func TestChangePoint(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	d := must(anomaly.NewChangePoint(anomaly.ChangePointOptions{}))
	at := t0
	var found []int
	for i := range 3000 {
		at = at.Add(step)
		x := 50 + rng.NormFloat64()*3
		if i >= 1000 {
			x += 12
		}
		if i >= 2000 {
			x -= 24
		}
		if i%97 == 0 {
			x += 200 // no single value makes a shift
		}
		if r := d.Observe(at, x); r.Score > 1 {
			if r.Kind != anomaly.LevelShift {
				t.Errorf("kind %q", r.Kind)
			}
			found = append(found, i)
		}
	}
	if len(found) != 2 || found[0] < 1000 || found[0] > 1008 || found[1] < 2000 || found[1] > 2008 {
		t.Errorf("shifts found at %v, want soon after 1000 and 2000", found)
	}
}

func TestNotLearnedUntilConfirmed(t *testing.T) {
	for name, d := range map[string]anomaly.Detector{
		"Level": must(anomaly.NewLevel(anomaly.Options{Relearn: 100})),
		"Seasonal": must(anomaly.NewSeasonal(anomaly.SeasonalOptions{Options: anomaly.Options{Relearn: 100},
			Period: 20 * time.Minute, Buckets: 20})),
	} {
		rng := rand.New(rand.NewPCG(5, 5))
		at := t0
		for range 400 {
			at = at.Add(step)
			d.Observe(at, 100+rng.NormFloat64())
		}
		for i := 1; i <= 150; i++ {
			at = at.Add(step)
			r := d.Observe(at, 150+rng.NormFloat64())
			switch {
			case i <= 100 && r.Score <= 1:
				t.Fatalf("%s: value %d at the new level is taken as usual", name, i)
			case (i == 100) != r.Relearned:
				t.Fatalf("%s: value %d: Relearned = %v", name, i, r.Relearned)
			case i > 100 && r.Score > 1:
				t.Fatalf("%s: value %d is unusual after the new level was learned: %+v", name, i, r)
			case i >= 8 && i < 100 && r.Kind != anomaly.LevelShift:
				t.Fatalf("%s: value %d: kind %q", name, i, r.Kind)
			}
		}
	}
}

func TestDropoutAndFlatLine(t *testing.T) {
	type in struct {
		x float64
		n int
	}
	for _, tc := range []struct {
		name string
		opts anomaly.Options
		tail in
		want anomaly.Kind
	}{
		{"NaN run", anomaly.Options{}, in{math.NaN(), 5}, anomaly.Dropout},
		{"short NaN run", anomaly.Options{}, in{math.NaN(), 4}, ""},
		{"NaN run, off", anomaly.Options{Missing: -1}, in{math.NaN(), 50}, ""},
		{"zeros", anomaly.Options{}, in{0, 5}, anomaly.Dropout},
		{"zeros where only up counts", anomaly.Options{Direction: anomaly.Up}, in{0, 5}, ""},
		{"flat", anomaly.Options{FlatLine: 10}, in{100, 10}, anomaly.FlatLine},
		{"short flat", anomaly.Options{FlatLine: 10}, in{100, 9}, ""},
		{"flat, off", anomaly.Options{}, in{100, 50}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, d := range map[string]anomaly.Detector{
				"Level":       must(anomaly.NewLevel(tc.opts)),
				"Seasonal":    must(anomaly.NewSeasonal(anomaly.SeasonalOptions{Options: tc.opts})),
				"ChangePoint": must(anomaly.NewChangePoint(anomaly.ChangePointOptions{Options: tc.opts})),
			} {
				rng := rand.New(rand.NewPCG(6, 6))
				at := t0
				for range 100 {
					at = at.Add(step)
					d.Observe(at, 100+rng.NormFloat64())
				}
				var r anomaly.Result
				for range tc.tail.n {
					at = at.Add(step)
					r = d.Observe(at, tc.tail.x)
				}
				if r.Kind != tc.want || (r.Score > 1) != (tc.want != "") {
					t.Errorf("%s: got %+v, want kind %q", name, r, tc.want)
				}
			}
		})
	}
}

// Scores are finite whatever comes, and a result is in its documented ranges.
func checkResult(t *testing.T, i int, x float64, r anomaly.Result) {
	t.Helper()
	switch {
	case math.IsNaN(r.Score) || math.IsInf(r.Score, 0) || r.Score < 0,
		!(r.P >= 0 && r.P <= 1),
		!r.Ready && (r.Score != 0 || r.P != 1 || r.Kind != "" || !math.IsNaN(r.Expected)),
		(r.Score > 1) != (r.Kind != ""):
		t.Fatalf("value %d (%v): impossible %+v", i, x, r)
	}
	if r.Ready && r.Score <= 1 && !math.IsNaN(x) && !math.IsInf(x, 0) && (x < r.Lower || x > r.Upper) && math.Abs(x) < 1e150 {
		t.Fatalf("value %d (%v) is outside the band of %+v", i, x, r)
	}
}

func TestAnyValues(t *testing.T) {
	odd := []float64{0, 1, -1, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 1e-300, 1e149, math.Copysign(0, -1)}
	for _, fresh := range kinds() {
		for seed := range uint64(30) {
			rng := rand.New(rand.NewPCG(seed, 7))
			d := fresh()
			for i := range 400 {
				x := odd[rng.IntN(len(odd))]
				if rng.IntN(3) == 0 {
					x = odd[0]
				}
				at := t0.Add(time.Duration(i) * step)
				r := d.Observe(at, x)
				checkResult(t, i, x, r)
			}
		}
	}
}

func TestZeroValuesObserve(t *testing.T) {
	for _, d := range []saver{new(anomaly.Level), new(anomaly.Seasonal), new(anomaly.ChangePoint)} {
		b, err := d.MarshalBinary()
		if err != nil {
			t.Errorf("%T: %v", d, err)
		}
		if err := d.UnmarshalBinary(b); err != nil {
			t.Errorf("%T: %v", d, err)
		}
		if r := d.Observe(t0, 1); r.Ready {
			t.Errorf("%T: ready after one value", d)
		}
	}
}

// Two equal streams give equal results; a restored detector goes on bit for
// bit, wherever it was saved.
func TestSnapshotContinuation(t *testing.T) {
	for name, fresh := range kinds() {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(6) {
				rng := rand.New(rand.NewPCG(seed, 8))
				x := noisy(rng, 800)
				d := fresh()
				restored := map[int]saver{}
				for i, v := range x {
					if i%29 == 0 {
						b, err := d.MarshalBinary()
						if err != nil {
							t.Fatal(err)
						}
						n := fresh()
						if err := n.UnmarshalBinary(b); err != nil {
							t.Fatal(err)
						}
						if again := must(n.MarshalBinary()); string(again) != string(b) {
							t.Fatalf("saved at %d: the restored detector saves differently", i)
						}
						restored[i] = n
					}
					at := t0.Add(time.Duration(i) * step)
					want := bitsOf(d.Observe(at, v))
					for from, n := range restored {
						if got := bitsOf(n.Observe(at, v)); got != want {
							t.Fatalf("seed %d: saved at %d, differs at %d: %v, want %v", seed, from, i, got, want)
						}
					}
				}
			}
		})
	}
}

type resultBits struct {
	score, p, expected, lower, upper uint64
	kind                             anomaly.Kind
	ready, relearned                 bool
}

func bitsOf(r anomaly.Result) resultBits {
	b := math.Float64bits
	return resultBits{b(r.Score), b(r.P), b(r.Expected), b(r.Lower), b(r.Upper), r.Kind, r.Ready, r.Relearned}
}

func TestSnapshotErrors(t *testing.T) {
	for name, fresh := range kinds() {
		d := fresh()
		for i, v := range noisy(rand.New(rand.NewPCG(1, 9)), 300) {
			d.Observe(t0.Add(time.Duration(i)*step), v)
		}
		good := must(d.MarshalBinary())
		for n := range good {
			if err := fresh().UnmarshalBinary(good[:n]); !errors.Is(err, anomaly.ErrSnapshot) {
				t.Fatalf("%s: cut to %d bytes: %v", name, n, err)
			}
			bad := append([]byte(nil), good...)
			bad[n] ^= 0x40
			if err := fresh().UnmarshalBinary(bad); !errors.Is(err, anomaly.ErrSnapshot) {
				t.Fatalf("%s: byte %d flipped: %v", name, n, err)
			}
		}
		for other, make := range kinds() {
			if err := make().UnmarshalBinary(good); (err == nil) != (other == name) {
				t.Errorf("snapshot of %s into %s: %v", name, other, err)
			}
		}
	}
}

func TestBadOptions(t *testing.T) {
	nan := math.NaN()
	for name, o := range map[string]anomaly.Options{
		"Direction":    {Direction: 7},
		"Threshold":    {Threshold: -1},
		"MinDeviation": {MinDeviation: nan},
		"MinRelative":  {MinRelative: math.Inf(1)},
		"Window":       {Window: 2},
		"WarmUp":       {WarmUp: 61},
		"FlatLine":     {FlatLine: 1},
	} {
		_, err1 := anomaly.NewLevel(o)
		_, err2 := anomaly.NewSeasonal(anomaly.SeasonalOptions{Options: o})
		_, err3 := anomaly.NewChangePoint(anomaly.ChangePointOptions{Options: o})
		for _, err := range []error{err1, err2, err3} {
			if !errors.Is(err, anomaly.ErrOptions) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, o := range []anomaly.SeasonalOptions{{Period: -1}, {Buckets: -1}, {Buckets: 5000}, {Period: 10, Buckets: 11}} {
		if _, err := anomaly.NewSeasonal(o); !errors.Is(err, anomaly.ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for _, o := range []anomaly.ChangePointOptions{{Drift: -1}, {Limit: nan}, {Drift: 4}} {
		if _, err := anomaly.NewChangePoint(o); !errors.Is(err, anomaly.ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	for name, fresh := range kinds() {
		d := fresh()
		x := noisy(rand.New(rand.NewPCG(1, 10)), 5000)
		i := 0
		if n := testing.AllocsPerRun(4000, func() {
			d.Observe(t0.Add(time.Duration(i)*step), x[i])
			i++
		}); n != 0 {
			t.Errorf("%s: %v allocations a value", name, n)
		}
	}
}

// The decoder accepts no bytes that it would not itself write, and a detector
// restored from any bytes works.
func FuzzSnapshot(f *testing.F) {
	for _, fresh := range kinds() {
		d := fresh()
		f.Add(must(d.MarshalBinary()), 1.0)
		for i, v := range noisy(rand.New(rand.NewPCG(1, 11)), 200) {
			d.Observe(t0.Add(time.Duration(i)*step), v)
		}
		f.Add(must(d.MarshalBinary()), 2.0)
	}
	f.Fuzz(func(t *testing.T, b []byte, x float64) {
		for _, fresh := range kinds() {
			for _, in := range [][]byte{b, sealed(b)} {
				d := fresh()
				if err := d.UnmarshalBinary(in); err != nil {
					if !errors.Is(err, anomaly.ErrSnapshot) {
						t.Fatalf("%v is not an ErrSnapshot", err)
					}
					continue
				}
				if again := must(d.MarshalBinary()); string(again) != string(in) {
					t.Fatal("accepted bytes that it does not write")
				}
				for i := range 50 {
					d.Observe(t0.Add(time.Duration(i)*step), x)
				}
			}
		}
	})
}

// sealed puts the right checksum at the end, so that the fuzzer gets past it.
func sealed(b []byte) []byte {
	if len(b) < 4 {
		return b
	}
	b = b[: len(b)-4 : len(b)-4]
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func BenchmarkObserve(b *testing.B) {
	for _, name := range []string{"Level", "Seasonal", "ChangePoint"} {
		b.Run(name, func(b *testing.B) {
			d := kinds()[name]()
			x := noisy(rand.New(rand.NewPCG(1, 12)), 1<<12)
			at := t0
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				at = at.Add(step)
				d.Observe(at, x[i&(1<<12-1)])
				i++
			}
		})
	}
}
