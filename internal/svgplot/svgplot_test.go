package svgplot_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/svgplot"
)

func times(n int) []time.Time {
	t := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	out := make([]time.Time, n)
	for i := range out {
		out[i] = t.Add(time.Duration(i) * time.Hour)
	}
	return out
}

func render(t *testing.T, p svgplot.Plot) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(bytes.NewReader(b.Bytes()))
	for {
		if _, err := d.Token(); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			t.Fatalf("not well-formed: %v\n%s", err, b.String())
		}
	}
	for _, bad := range []string{"NaN", "Inf"} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("%s in output:\n%s", bad, b.String())
		}
	}
	return b.String()
}

func TestWriteSVG(t *testing.T) {
	nan := math.NaN()
	svg := render(t, svgplot.Plot{
		Title: "a < b & c", Unit: "requests/s",
		Curves: []svgplot.Curve{
			{Name: "observed", Times: times(5), Values: []float64{1, 2, nan, 4, 5}},
			{Name: "replicas", Times: times(2), Values: []float64{1, 3}, Step: true, Dashed: true},
		},
		Bands: []svgplot.Band{{Name: "80 %", Times: times(4), Lower: []float64{0, nan, 1, 1}, Upper: []float64{1, 2, 3, 3}}},
		Marks: []svgplot.Mark{{At: times(3)[2], Label: "alert <1>"}, {At: times(1)[0], End: times(2)[1]}},
	})
	// The NaN breaks the first curve in two strokes; the staircase has a
	// corner between its two points.
	if got := strings.Count(svg, "M"); got < 5 {
		t.Errorf("%d strokes, want at least 5: two for the broken curve, one for the steps, two for the broken band", got)
	}
	for _, want := range []string{"a &lt; b &amp; c", "alert &lt;1&gt;", "observed", "replicas", "80 %", "stroke-dasharray=\"5 4\""} {
		if !strings.Contains(svg, want) {
			t.Errorf("output lacks %q", want)
		}
	}
}

func TestWriteSVGDegenerate(t *testing.T) {
	for name, p := range map[string]svgplot.Plot{
		"empty":    {},
		"one":      {Curves: []svgplot.Curve{{Times: times(1), Values: []float64{3}}}},
		"constant": {Curves: []svgplot.Curve{{Times: times(3), Values: []float64{0, 0, 0}}}},
		"nan":      {Curves: []svgplot.Curve{{Times: times(2), Values: []float64{math.NaN(), math.Inf(1)}}}},
		"ragged":   {Bands: []svgplot.Band{{Times: times(3), Lower: []float64{1}, Upper: []float64{2, 3}}}},
	} {
		t.Run(name, func(t *testing.T) { render(t, p) })
	}
}
