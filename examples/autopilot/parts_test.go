package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/forecast/scaling"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/scrape"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
)

var nan = math.NaN()

func midnight() time.Time { return time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC) }

// steps gives times that many minutes after midnight.
func steps(minutes ...int) []time.Time {
	out := make([]time.Time, len(minutes))
	for i, m := range minutes {
		out[i] = midnight().Add(time.Duration(m) * time.Minute)
	}
	return out
}

func TestCoarse(t *testing.T) {
	fine := &track{
		Service: "cart", Capacity: 10, Times: steps(0, 12, 36, 48, 60),
		Demand:   []float64{10, 20, 30, nan, nan},
		Latency:  []float64{100, nan, 80, 60, nan},
		Errors:   []float64{0, 0.5, nan, 0, 0},
		Ready:    []float64{2, 1, nan, nan, 3},
		Replicas: []float64{2, 3, 3, 4, 4},
	}
	// Steps of 24 minutes: {0, 12}, {36}, {48, 60}.
	want := &track{
		Service: "cart", Capacity: 10, Times: steps(0, 24, 48),
		Demand:   []float64{15, 30, nan},
		Latency:  []float64{100, 80, 60},
		Errors:   []float64{0.25, nan, 0},
		Ready:    []float64{1, nan, 3}, // the fewest
		Replicas: []float64{2.5, 3, 4},
	}
	if d := cmp.Diff(want, fine.coarse(24*time.Minute), cmpopts.EquateNaNs()); d != "" {
		t.Errorf("coarse (-want +got):\n%s", d)
	}
	if got := (&track{}).coarse(time.Minute); len(got.Times) != 0 {
		t.Errorf("coarse of nothing has %d steps", len(got.Times))
	}
}

func TestShortAndMinutes(t *testing.T) {
	tr := &track{
		Capacity: 10, Times: steps(0, 10, 20, 30, 40),
		Demand:   []float64{20, 21, nan, 40, 5},
		Latency:  make([]float64, 5),
		Errors:   make([]float64, 5),
		Ready:    []float64{2, 2, 2, nan, 0},
		Replicas: []float64{2, 2, nan, 4, 3},
	}
	// 20 of 20 is enough; 21 of 20 and 5 of 0 are not; two cannot be judged.
	if n, of := tr.short(); n != 2 || of != 3 {
		t.Errorf("short = %d of %d, want 2 of 3", n, of)
	}
	if got := tr.replicaMinutes(10 * time.Minute); got != 110 {
		t.Errorf("replicaMinutes = %v, want (2+2+4+3)*10", got)
	}
	// 40 req/s at 80 % of 10 are five replicas, over five steps.
	if got := tr.staticMinutes(10*time.Minute, 0.8); got != 250 {
		t.Errorf("staticMinutes = %v, want 250", got)
	}
	if got := (&track{Capacity: 10, Times: steps(0)}).staticMinutes(10*time.Minute, 0.8); got != 10*minReplicas {
		t.Errorf("staticMinutes without demand = %v, want the least fleet", got)
	}
	part := tr.between(midnight().Add(10*time.Minute), midnight().Add(30*time.Minute))
	if d := cmp.Diff(steps(10, 20), part.Times); d != "" {
		t.Errorf("between (-want +got):\n%s", d)
	}
}

// asked is a policy that asks for the next of a list.
type asked []int

func (a *asked) Decide(in scaling.Input) (scaling.Decision, error) {
	if len(*a) == 0 {
		return scaling.Decision{}, errors.New("nothing more to ask for")
	}
	n := (*a)[0]
	*a = (*a)[1:]
	return scaling.Decision{Time: in.Now, Replicas: n}, nil
}

func TestReplayPolicy(t *testing.T) {
	tr := &track{Service: "cart", Capacity: 10, Times: steps(0, 10, 20, 30, 40, 50), Demand: []float64{10, 35, 35, nan, 35, 15}}
	// It starts with 2. Asked for 4 at minute 10, paid from the step at 10 on,
	// ready a lead time of 15 minutes later, at 25: the step at 30.
	//
	//	step    0   10   20   30   40   50
	//	demand 10   35   35    ?   35   15
	//	ready   2    2    2    4    4    1
	//	paid    2    4    4    4    4    1
	//	short        x    x              x
	policy := asked{4, 4, 4, 4, 1, 1}
	got, err := tr.replayPolicy(&policy, 2, 10*time.Minute, 15*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if want := (2.0 + 4 + 4 + 4 + 4 + 1) * 10; got.minutes != want {
		t.Errorf("minutes = %v, want %v", got.minutes, want)
	}
	if want := 3.0 / 5; got.short != want { // 10 and 20, and 50: 15 of 10
		t.Errorf("short = %v, want %v", got.short, want)
	}

	// What is asked for and taken back before it is ready is paid and no more.
	policy = asked{6, 2, 2, 2, 2, 2}
	got, err = tr.replayPolicy(&policy, 2, 10*time.Minute, 15*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if want := (2.0 + 6 + 2 + 2 + 2 + 2) * 10; got.minutes != want {
		t.Errorf("minutes after taking back = %v, want %v", got.minutes, want)
	}
	policy = nil
	if _, err := tr.replayPolicy(&policy, 2, 10*time.Minute, 15*time.Minute); err == nil {
		t.Error("the policy's error is lost")
	}
}

func readAll(t *testing.T, name string) ([]scrape.Batch, []bool) {
	t.Helper()
	h, err := openHistory(name)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	var batches []scrape.Batch
	var watched []bool
	err = h.read(func(b scrape.Batch, w bool) error {
		batches, watched = append(batches, b), append(watched, w)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return batches, watched
}

func TestHistory(t *testing.T) {
	name := filepath.Join(t.TempDir(), "history.jsonl")
	series := anomaly.SeriesID{Service: "cart", Instance: "cart-1", Metric: scrape.MemoryMB}
	first := scrape.Batch{Time: midnight(), Samples: []scrape.Sample{{Series: series, Value: 12.5}, {Series: series, Value: nan}}}
	second := scrape.Batch{Time: midnight().Add(time.Minute)}
	h, err := openHistory(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.append(first, false), h.append(second, true), h.close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, want ...scrape.Batch) {
		t.Helper()
		got, watched := readAll(t, name)
		if d := cmp.Diff(want, got, cmpopts.EquateNaNs()); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
		for i, w := range watched {
			if w != (i > 0) {
				t.Errorf("%s: batch %d watched: %v", what, i, w)
			}
		}
	}
	check("round trip", first, second)

	// Cut off anywhere in the last line, the line before is what there is, and
	// what is appended then is whole.
	end := bytes.IndexByte(whole, '\n') + 1
	for cut := end; cut < len(whole); cut++ {
		if err := os.WriteFile(name, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		check("cut off", first)
	}
	h, err = openHistory(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.append(second, true), h.close()); err != nil {
		t.Fatal(err)
	}
	check("appended after a cut", first, second)

	// Damage that no crash makes is told, with its line.
	if err := os.WriteFile(name, []byte(string(whole)+"{]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err = openHistory(name)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	err = h.read(func(scrape.Batch, bool) error { return nil })
	if err == nil || !strings.Contains(err.Error(), name+":3:") {
		t.Errorf("damage in line 3: %v", err)
	}
}

// A run that was killed while it made the repository leaves one without a
// commit; the next starts anew.
func TestRepositoryCutOff(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"HEAD", "refs/heads/x.lock", "objects/ab/cut"} {
		file := filepath.Join(dir, "desired.git.new", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("ref: refs/he"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	clock := simClock{shop.LoadConfig{SimStart: midnight(), WallStart: time.Now(), Speed: 1440}}
	for range 2 { // made, and then opened
		repo, err := openRepository(t.Context(), config{}, dir, clock, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		log, err := repo.Log(t.Context(), gitsource.LogOptions{})
		if err != nil || len(log) != 1 || log[0].Subject() != "Declare the shop" {
			t.Errorf("log %v, %v", log, err)
		}
	}
}

func exampleSummary() summary {
	return summary{
		OK: false, Story: "release", Seed: 7, WallSeconds: 25.04, SimulatedHours: 10,
		Steps: []step{
			{"first sync", true, "7 services in 14 processes after 1.2 s"},
			{"bad release", false, "blamed <cart>"},
		},
		Release: &release{Culprit: "stock", Defect: "slow", Commit: "68efdb33de", Pushed: 16.25},
		Repairs: []repair{
			{Incident: "inc-1", Onset: 17, Service: "stock", Commit: "68efdb33de", Class: "RollBack", Status: "Resolved", Detect: 1, Cause: 2.04, Act: 2.1, Verify: 7.25},
			{Incident: "inc-2", Onset: 30, Service: "cart", Instance: "cart-3", Class: "Restart", Status: "Escalated", Detect: 1.5},
		},
		Commits: []commit{
			{"0a3fd78b09", `Revert 68efdb33de "Release stock 1.1.0" for stock`, []string{"Playbook: roll-back", "Action-Id: inc-1.1"}},
		},
		RequestsSent: 2000, RequestsFailed: 25, FailedShare: 0.0125,
		ReplicaMinutes: 900, StaticMinutes: 1200, HPAMinutes: 0,
		ShortShare: 0.01, HPAShortShare: 0.034,
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got), -update writes it anew:\n%s", file, d)
	}
}

func TestSummary(t *testing.T) {
	var text, printed bytes.Buffer
	s := exampleSummary()
	if err := s.write(&text); err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.txt", text.Bytes())
	if err := s.writeJSON("-", &printed); err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.json", printed.Bytes())
	var back summary
	if err := json.Unmarshal(printed.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, back); d != "" {
		t.Errorf("back from JSON (-want +got):\n%s", d)
	}
	file := filepath.Join(t.TempDir(), "summary.json")
	if err := s.writeJSON(file, io.Discard); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, printed.Bytes()) {
		t.Errorf("the file differs from what -json - prints (%v)", err)
	}
}

func TestReport(t *testing.T) {
	clock := simClock{shop.LoadConfig{SimStart: midnight(), WallStart: midnight(), Speed: 1440, Daily: shop.Daily{Peak: 50}}}
	var tracks []*track
	for _, name := range []string{"cart", "stock"} {
		tr := &track{Service: name, Capacity: 10}
		for i := range 300 {
			demand := 30 + 20*math.Sin(float64(i)*2*math.Pi/120)
			if i%50 == 7 {
				demand = nan
			}
			tr.add(midnight().Add(time.Duration(i)*12*time.Minute), demand, 80+float64(i%7), 0, 6, 6)
		}
		tracks = append(tracks, tr)
	}
	tracks = append(tracks, &track{Service: "idle", Capacity: 10}) // nothing was measured
	lines := []line{
		{Sim: midnight().Add(time.Hour), Word: wordFault, What: `<script>alert("1")</script> & more`},
		{Sim: midnight().Add(2 * time.Hour), Word: wordAlert, What: "cart/error_ratio", Why: []string{"a < b", "second"}},
		{Sim: midnight().Add(3 * time.Hour), Word: wordRepair, What: "revert"},
	}
	file := filepath.Join(t.TempDir(), "report.html")
	if err := writeReport(t.Context(), file, exampleSummary(), tracks, lines, clock); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)

	// The one element that HTML leaves open is closed, and then it is XML.
	dec := xml.NewDecoder(strings.NewReader(strings.Replace(page, `<meta charset="utf-8">`, `<meta charset="utf-8"/>`, 1)))
	elements := map[string]int{}
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			elements[e.Name.Local]++
			for _, a := range e.Attr {
				if name := a.Name.Local; name == "src" || name == "href" || strings.HasPrefix(name, "on") {
					t.Errorf("%s has %s=%q", e.Name.Local, name, a.Value)
				}
			}
		}
	}
	if elements["svg"] != 4*len(tracks) {
		t.Errorf("%d plots, want four for each of %d services", elements["svg"], len(tracks))
	}
	for _, name := range []string{"script", "link", "img", "iframe"} {
		if elements[name] > 0 {
			t.Errorf("%d elements %s", elements[name], name)
		}
	}
	rest := strings.NewReplacer(`xmlns="http://www.w3.org/2000/svg"`, "", "url(#", "").Replace(page)
	for _, s := range []string{"http:", "https:", "url(", "@import", "NaN", "Inf"} {
		if i := strings.Index(rest, s); i >= 0 {
			t.Errorf("%q in the page: …%s…", s, rest[max(0, i-40):min(len(rest), i+40)])
		}
	}
	for _, s := range []string{"a step did not end as it should", "blamed &lt;cart&gt;", "&lt;script&gt;", "a &lt; b", "Action-Id: inc-1.1", "cart: demand and forecast"} {
		if !strings.Contains(page, s) {
			t.Errorf("no %q in the page", s)
		}
	}
	if err := writeReport(t.Context(), filepath.Join(file, "x"), exampleSummary(), nil, nil, clock); err == nil {
		t.Error("a report to nowhere is no error")
	}
}
