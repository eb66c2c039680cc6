package rootcause_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
)

// rcaCase is one recorded fault injection.
type rcaCase struct {
	ID       string
	OnsetRow int         `json:"onset_row"`
	Graph    [][2]string `json:"graph"`
	Target   *struct {
		Node string `json:"node"`
	} `json:"target"`
	Truth []string `json:"truth_services"`

	columns []string
	rows    [][]float64
}

// readCases reads a set of recorded cases, or skips the test where the data
// are not there.
func readCases(t testing.TB, name string) []rcaCase {
	t.Helper()
	path := filepath.Join("..", "..", "..", "shared", "data", "rca", name+".tar.gz")
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("recorded cases are not here: no %s", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]*rcaCase{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		dir, base := filepath.Split(h.Name)
		if base != "metrics.csv" && base != "case.json" {
			continue
		}
		c := cases[dir]
		if c == nil {
			c = &rcaCase{}
			cases[dir] = c
		}
		if base == "case.json" {
			if err := json.NewDecoder(r).Decode(c); err != nil {
				t.Fatalf("%s: %v", h.Name, err)
			}
			continue
		}
		rec, err := csv.NewReader(r).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		c.columns = rec[0]
		for _, row := range rec[1:] {
			v := make([]float64, len(row))
			for i, s := range row {
				if v[i], err = strconv.ParseFloat(s, 64); err != nil {
					v[i] = math.NaN()
				}
			}
			c.rows = append(c.rows, v)
		}
	}
	var out []rcaCase
	for _, c := range cases {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b rcaCase) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// input is the case as a ranker may see it, with the onset off by some rows.
func (c *rcaCase) input(step time.Duration, late int) rootcause.Input {
	onset := max(0, min(c.OnsetRow+late, len(c.rows)-1))
	in := rootcause.Input{Start: t0, Step: step, Onset: t0.Add(time.Duration(onset) * step)}
	for col, name := range c.columns {
		service, metric, ok := strings.Cut(name, "|")
		if !ok {
			continue
		}
		v := make([]float64, len(c.rows))
		for r := range v {
			v[r] = c.rows[r][col]
		}
		in.Metrics = append(in.Metrics, rootcause.Metric{Service: service, Name: metric, Values: v})
	}
	for _, e := range c.Graph {
		in.Graph = append(in.Graph, rootcause.Edge{Caller: e[0], Callee: e[1]})
	}
	if c.Target != nil {
		in.Target = anomaly.SeriesID{Service: c.Target.Node}
	}
	return in
}

// accuracy is the share of cases whose culprit is among the first k.
func accuracy(t *testing.T, cases []rcaCase, step time.Duration, late, k int) float64 {
	t.Helper()
	right := 0
	for _, c := range cases {
		r, err := rootcause.Analyzer{}.Analyze(context.Background(), c.input(step, late))
		if err != nil {
			t.Fatalf("%s: %v", c.ID, err)
		}
		hit := false
		for _, v := range r.Services[:min(k, len(r.Services))] {
			hit = hit || slices.Contains(c.Truth, v.Service)
		}
		if hit {
			right++
		} else if k == 1 && testing.Verbose() {
			t.Logf("%s: onset row %d, found %v", c.ID, c.OnsetRow, r.Onset.Sub(t0)/step)
			for i, v := range r.Services[:min(4, len(r.Services))] {
				t.Logf("    %d %s score %.1f %q", i+1, v.Service, v.Score, v.Evidence)
			}
		}
	}
	return float64(right) / float64(len(cases))
}

func TestSockShop(t *testing.T) {
	cases := readCases(t, "rcd-sockshop")
	for _, tc := range []struct {
		name  string
		late  int
		floor float64
	}{
		{"onset exact", 0, 0.96},
		{"onset 60 s late", 60, 0.96},
		{"onset 60 s early", -60, 0.96},
	} {
		got := accuracy(t, cases, time.Second, tc.late, 1)
		t.Logf("%s: AC@1 %.2f of %d cases", tc.name, got, len(cases))
		if got < tc.floor {
			t.Errorf("%s: AC@1 %.2f, want at least %.2f", tc.name, got, tc.floor)
		}
	}
}
