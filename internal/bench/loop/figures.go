package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
)

// figure is one number of the result. Target is what it is held to, if
// anything.
type figure struct {
	name   string
	value  float64
	target string
	met    bool
}

type figures []figure

func (f *figures) add(name string, v float64) { f.held(name, v, "", true) }

// held adds a figure; what was not measured, or has no finite value, is left
// out.
func (f *figures) held(name string, v float64, target string, met bool) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	*f = append(*f, figure{name, v, target, met})
}

func (f figures) flat() map[string]float64 {
	out := make(map[string]float64, len(f))
	for _, x := range f {
		out[x.name] = x.value
	}
	return out
}

// quantile is the smallest value that at least the share q does not exceed.
// +Inf stands for what never happened and sorts last.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}

func share(n, of int) float64 { return float64(n) / float64(of) }

func count[T any](list []T, is func(T) bool) int {
	n := 0
	for _, x := range list {
		if is(x) {
			n++
		}
	}
	return n
}

func column[T any](list []T, get func(T) float64) []float64 {
	out := make([]float64, len(list))
	for i, x := range list {
		out[i] = get(x)
	}
	return out
}

func revertOf(r release) float64 { return r.Revert }

func (f *figures) releases(list []release) {
	if len(list) == 0 {
		return
	}
	rank1 := share(count(list, func(r release) bool { return r.Rank1 }), len(list))
	f.held("cause_rank1_share", rank1, ">= 0.95", rank1 >= 0.95)
	f.add("commit_named_share", share(count(list, func(r release) bool { return r.Named }), len(list)))
	f.add("release_runs", float64(len(list)))
	f.add("release_ok_share", share(count(list, func(r release) bool { return r.OK }), len(list)))
	reverts := column(list, revertOf)
	p50 := quantile(reverts, 0.5)
	f.held("bad_sample_to_revert_s_p50", p50, "< 5", p50 < 5)
	f.add("bad_sample_to_revert_s_p90", quantile(reverts, 0.9))
	f.add("bad_sample_to_revert_s_max", quantile(reverts, 1))
	f.add("push_to_revert_s_p50", quantile(column(list, func(r release) float64 { return r.FromPush }), 0.5))
	before := 0
	for _, r := range list {
		before += r.Before
	}
	f.add("incidents_before_release", float64(before))
}

func (f *figures) story(s *summary) {
	if s == nil {
		return
	}
	ok := share(count(s.Steps, func(st struct {
		Name   string `json:"name"`
		OK     bool   `json:"ok"`
		Detail string `json:"detail"`
	}) bool {
		return st.OK
	}), len(s.Steps))
	f.held("story_steps_ok_share", ok, "1", s.OK)
	f.held("story_wall_s", s.WallSeconds, "< 180", s.WallSeconds < 180)
	f.add("failed_request_share", s.FailedShare)
	f.add("replica_minutes_vs_static", s.ReplicaMinutes/s.StaticMinutes)
	f.add("replica_minutes_vs_hpa", s.ReplicaMinutes/s.HPAMinutes)
	f.add("short_share", s.ShortShare)
	f.add("hpa_short_share", s.HPAShortShare)
}

func (f *figures) crashes(list []crash) {
	if len(list) == 0 {
		return
	}
	doubles, wrong, kills := 0, 0, 0
	var took []float64
	for _, r := range list {
		doubles += len(r.Doubles)
		wrong += len(r.Wrong)
		kills += r.Kills
		if r.Converged {
			took = append(took, r.Seconds)
		}
	}
	lost := count(list, func(r crash) bool { return !r.Converged })
	f.add("crash_runs", float64(len(list)))
	f.add("crash_kills", float64(kills))
	f.held("crash_double_actions", float64(doubles), "0", doubles == 0)
	f.held("crash_not_converged", float64(lost), "0", lost == 0)
	f.held("crash_wrong", float64(wrong), "0", wrong == 0)
	f.add("crash_converged_s_p50", quantile(took, 0.5))
	f.add("crash_converged_s_max", quantile(took, 1))
}

func writeTables(w io.Writer, releases []release, f figures) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(releases) > 0 {
		fmt.Fprintln(t, "culprit\truns\trank 1\tcommit named\tdetected s\tcause s\treverted s\tverified s\t")
		for _, name := range append(shop.Services(), "all") {
			var rows []release
			for _, r := range releases {
				if name == "all" || r.Culprit == name {
					rows = append(rows, r)
				}
			}
			if len(rows) == 0 {
				continue
			}
			median := func(get func(release) float64) string {
				v := quantile(column(rows, get), 0.5)
				if math.IsInf(v, 0) {
					return "never"
				}
				return fmt.Sprintf("%.1f", v)
			}
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t\n", name, len(rows),
				count(rows, func(r release) bool { return r.Rank1 }), count(rows, func(r release) bool { return r.Named }),
				median(func(r release) float64 { return r.Detect }), median(func(r release) float64 { return r.Cause }),
				median(revertOf), median(func(r release) float64 { return r.Verify }))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(w, "(medians, wall time since the first bad sample)\n\n")
	}
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "figure\tvalue\ttarget\t")
	for _, x := range f {
		mark := ""
		if !x.met {
			mark = "MISSED"
		}
		fmt.Fprintf(t, "%s\t%.4g\t%s\t%s\n", x.name, x.value, x.target, mark)
	}
	return t.Flush()
}
