package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/crashtest"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
)

// summary is what of the autopilot's JSON is used here.
type summary struct {
	OK    bool `json:"ok"`
	Steps []struct {
		Name   string `json:"name"`
		OK     bool   `json:"ok"`
		Detail string `json:"detail"`
	} `json:"steps"`
	Release *struct {
		Commit string  `json:"bad_commit"`
		Pushed float64 `json:"pushed_s"`
	} `json:"release"`
	Repairs []repair `json:"repairs"`

	WallSeconds    float64 `json:"wall_s"`
	FailedShare    float64 `json:"failed_request_share"`
	ReplicaMinutes float64 `json:"replica_minutes"`
	StaticMinutes  float64 `json:"static_replica_minutes"`
	HPAMinutes     float64 `json:"hpa_replica_minutes"`
	ShortShare     float64 `json:"short_share"`
	HPAShortShare  float64 `json:"hpa_short_share"`
}

// repair is one incident; Onset since the start, the rest since Onset, 0
// where it did not come to it.
type repair struct {
	Onset   float64 `json:"onset_s"`
	Service string  `json:"service"`
	Commit  string  `json:"blamed_commit"`
	Class   string  `json:"class"`
	Status  string  `json:"status"`
	Detect  float64 `json:"detect_s"`
	Cause   float64 `json:"cause_s"`
	Act     float64 `json:"act_s"`
	Verify  float64 `json:"verify_s"`
}

// release is what came of one bad release. Times are in seconds after the
// first bad sample, +Inf for what did not happen.
type release struct {
	Culprit, Defect string
	Seed            uint64
	OK              bool // the autopilot's own verdict
	Rank1, Named    bool
	Detect, Cause   float64
	Revert, Verify  float64
	// FromPush is the revert after the push, in which the rollout lies too.
	FromPush float64
	// Before is how many incidents there were before anything was wrong.
	Before int
}

// scrapeSeconds is the interval of the autopilot's samples: an onset is the
// beginning of an interval, which may lie before the push in the middle of it.
const scrapeSeconds = 0.5

func (b *bench) release(ctx context.Context, i int) (release, error) {
	services, defects := shop.Services(), []string{"both", "errors", "slow"}
	r := release{
		Culprit: services[i%len(services)], Defect: defects[i%len(defects)], Seed: b.seed + uint64(i),
		Detect: math.Inf(1), Cause: math.Inf(1), Revert: math.Inf(1), Verify: math.Inf(1), FromPush: math.Inf(1),
	}
	sum, out, err := b.autopilot(ctx, fmt.Sprintf("release-%d", i), "-story", "release",
		"-culprit", r.Culprit, "-defect", r.Defect, "-seed", fmt.Sprint(r.Seed))
	if err != nil {
		return r, err
	}
	if sum != nil {
		r.score(sum)
	}
	verdict := "ok"
	if !r.OK || !r.Rank1 || !r.Named {
		verdict = "NOT ok"
		fmt.Fprintf(b.stderr, "release %d, %s in %s, seed %d, did not go well:\n%s\n", i+1, r.Defect, r.Culprit, r.Seed, lastLines(out, 60))
	}
	fmt.Fprintf(b.progress, "release %d of %d: %s (%s), %s, reverted after %.1f s\n", i+1, b.runs, r.Culprit, r.Defect, verdict, r.Revert)
	return r, nil
}

// score compares what was found with what was wrong.
func (r *release) score(sum *summary) {
	r.OK = sum.OK
	if sum.Release == nil {
		return
	}
	first := -1 // the first incident after the push
	for i, p := range sum.Repairs {
		if p.Onset < sum.Release.Pushed-scrapeSeconds {
			r.Before++
		} else if first < 0 || p.Onset < sum.Repairs[first].Onset {
			first = i
		}
	}
	if first < 0 {
		return
	}
	since := func(t float64) float64 {
		if t == 0 {
			return math.Inf(1)
		}
		return t
	}
	p := sum.Repairs[first]
	r.Rank1 = p.Service == r.Culprit
	r.Named = p.Commit != "" && p.Commit == sum.Release.Commit
	r.Detect, r.Cause = since(p.Detect), since(p.Cause)
	// The revert may have been made for a later incident; the trouble began
	// with the first.
	for _, q := range sum.Repairs {
		if q.Commit == sum.Release.Commit && q.Act > 0 {
			later := q.Onset - p.Onset
			r.Revert = min(r.Revert, later+q.Act)
			r.Verify = min(r.Verify, later+since(q.Verify))
			r.FromPush = min(r.FromPush, q.Onset+q.Act-sum.Release.Pushed)
		}
	}
}

func (b *bench) tellStory(ctx context.Context) (*summary, error) {
	fmt.Fprintln(b.progress, "the story, about two minutes")
	sum, out, err := b.autopilot(ctx, "story", "-seed", fmt.Sprint(b.seed))
	if err != nil {
		return nil, err
	}
	if sum == nil {
		return nil, fmt.Errorf("the story did not come to its end:\n%s", lastLines(out, 60))
	}
	for _, s := range sum.Steps {
		if !s.OK {
			fmt.Fprintf(b.stderr, "story: %s did not end as it should: %s\n", s.Name, s.Detail)
		}
	}
	return sum, nil
}

// crash is what came of one crash run.
type crash struct{ crashtest.Result }

func (b *bench) crash(ctx context.Context, i int) (crash, error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("crash-%d", i))
	r, err := crashtest.Run(ctx, crashtest.Options{Command: []string{b.program}, Dir: dir, Seed: b.seed + uint64(i)})
	if err != nil {
		return crash{r}, errors.Join(fmt.Errorf("crash run %d (%s): %w", i+1, r.Plan, err), os.RemoveAll(dir))
	}
	fmt.Fprintf(b.progress, "crash %d of %d: %s\n", i+1, b.crashes, r)
	if !r.OK() {
		fmt.Fprintf(b.stderr, "crash %d: %s\n%s\n", i+1, r, strings.TrimRight(lastLines(r.Tail, 60), "\n"))
	}
	return crash{r}, os.RemoveAll(dir)
}
