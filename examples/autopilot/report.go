package main

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"os"
	"slices"

	"github.com/evenkeel-go/evenkeel/internal/svgplot"
)

// marks gives the moments that every plot shows.
func marks(lines []line) []svgplot.Mark {
	var out []svgplot.Mark
	for _, l := range lines {
		switch l.Word {
		case wordFault:
			out = append(out, svgplot.Mark{At: l.Sim, Label: "fault", Color: "#a00"})
		case wordAlert:
			out = append(out, svgplot.Mark{At: l.Sim, Label: "alert", Color: "#d55e00"})
		case wordRepair:
			out = append(out, svgplot.Mark{At: l.Sim, Label: "repair", Color: "#009e73"})
		}
	}
	return out
}

const page = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>evenkeel autopilot</title>
<style>
body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1000px;color:#222}
h1{font-size:22px}h2{font-size:17px;margin-top:32px}
table{border-collapse:collapse;margin:8px 0}td,th{padding:3px 12px 3px 0;text-align:left;vertical-align:top;border-bottom:1px solid #eee}
.ok{color:#087}.bad{color:#b00;font-weight:600}.why{color:#666;white-space:pre-wrap}code{font-size:12px}
summary{font-size:16px;font-weight:600;margin:14px 0 4px;cursor:pointer}svg{width:100%;height:auto;border:1px solid #eee;margin:6px 0}
</style></head><body>
<h1>evenkeel autopilot: {{.Verdict}}</h1>
<p>{{.Intro}}</p>
<h2>Steps</h2>
<table><tr><th>step</th><th>result</th><th>what came of it</th></tr>
{{range .Summary.Steps}}<tr><td>{{.Name}}</td><td class="{{if .OK}}ok{{else}}bad{{end}}">{{if .OK}}ok{{else}}failed{{end}}</td><td>{{.Detail}}</td></tr>
{{end}}</table>
<h2>Figures</h2>
<table>{{range .Figures}}<tr><td>{{index . 0}}</td><td>{{index . 1}}</td></tr>{{end}}</table>
<h2>Timeline</h2>
<table><tr><th>simulated</th><th>wall</th><th></th><th>what and why</th></tr>
{{range .Lines}}<tr><td>{{.Sim.Format "Jan 2 15:04"}}</td><td>{{printf "+%.1f s" .At}}</td><td><b>{{.Word}}</b></td><td>{{.What}}{{range .Why}}<div class="why">{{.}}</div>{{end}}</td></tr>
{{end}}</table>
<h2>Services</h2>
<p>Dotted lines: <span class="bad">a fault is injected</span>, <span style="color:#d55e00">an alert is raised</span>, <span class="ok">a repair is made</span>. The x axes are simulated time.</p>
{{range .Plots}}<details{{if .Open}} open="open"{{end}}><summary>{{.Title}}</summary>
{{range .SVG}}{{.}}
{{end}}</details>
{{end}}
<h2>Commits that automation made</h2>
<table>{{range .Summary.Commits}}<tr><td><code>{{.Revision}}</code></td><td>{{.Subject}}</td><td class="why">{{range .Trailers}}{{.}}
{{end}}</td></tr>
{{end}}</table>
</body></html>
`

type plots struct {
	Title string
	Open  bool // something happened to it, or it is the front door
	SVG   []template.HTML
}

// writeReport writes the page; it is complete or not there.
func writeReport(ctx context.Context, file string, s summary, tracks []*track, lines []line, clock simClock) error {
	tpl, err := template.New("page").Parse(page)
	if err != nil {
		return err
	}
	data := struct {
		Verdict, Intro string
		Summary        summary
		Figures        [][2]string
		Plots          []plots
		Lines          []line
	}{Verdict: "every step ended as it should", Summary: s, Figures: s.figures(), Lines: lines}
	if !s.OK {
		data.Verdict = "a step did not end as it should"
	}
	data.Intro = fmt.Sprintf("%d simulated hours in %.0f seconds; seed %d.", int(s.SimulatedHours+0.5), s.WallSeconds, s.Seed)
	ms := marks(lines)
	for i, t := range tracks {
		p := plots{Title: t.Service, Open: i == 0 || slices.ContainsFunc(s.Repairs, func(r repair) bool { return r.Service == t.Service })}
		step := scaleEvery * clock.step()
		c := t.coarse(step)
		median, high, err := c.band(ctx, model(clock), int(clock.sim(leadWall)/step)+1)
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		for _, plot := range []svgplot.Plot{
			{Title: t.Service + ": demand and forecast", Unit: "req/s", Marks: ms,
				Bands: []svgplot.Band{{Name: "forecast, median to 90 %", Color: "#0072b2", Times: c.Times, Lower: median, Upper: high}},
				Curves: []svgplot.Curve{
					{Name: "demand", Times: c.Times, Values: c.Demand},
					{Name: "ready capacity", Times: t.Times, Values: scaled(t.Ready, t.Capacity), Step: true, Color: "#999"},
				}},
			{Title: t.Service + ": replicas", Unit: "replicas", Height: 160, Marks: ms,
				Curves: []svgplot.Curve{{Name: "replicas", Times: t.Times, Values: t.Replicas, Step: true}}},
			{Title: t.Service + ": latency, p90", Unit: "ms", Height: 180, Marks: ms,
				Curves: []svgplot.Curve{{Name: "latency", Times: t.Times, Values: t.Latency, Color: "#d55e00"}}},
			{Title: t.Service + ": failed share", Unit: "share", Height: 140, Top: 0.1, Marks: ms,
				Curves: []svgplot.Curve{{Name: "errors", Times: t.Times, Values: t.Errors, Color: "#a00"}}},
		} {
			var b bytes.Buffer
			plot.TimeFormat = "15:04"
			if err := plot.WriteSVG(&b); err != nil {
				return err
			}
			p.SVG = append(p.SVG, template.HTML(b.String())) // svgplot escapes what it is given
		}
		data.Plots = append(data.Plots, p)
	}
	var b bytes.Buffer
	if err := tpl.Execute(&b, data); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

func scaled(v []float64, by float64) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = x * by
	}
	return out
}
