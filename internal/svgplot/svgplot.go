package svgplot

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"math"
	"time"
)

// Curve is one line; Times and Values have the same length, and a NaN breaks
// the line.
type Curve struct {
	Name   string
	Color  string // CSS colour; empty picks one
	Times  []time.Time
	Values []float64
	// Step draws a staircase, for counts that hold until they change.
	Step bool
	// Dashed draws a dashed line.
	Dashed bool
}

// Band is the area between two curves on the same times.
type Band struct {
	Name         string
	Color        string
	Times        []time.Time
	Lower, Upper []float64
}

// Mark is a moment or, with End set, a stretch of time.
type Mark struct {
	At, End time.Time
	Label   string
	Color   string
}

// Plot is a chart over time.
type Plot struct {
	Title string
	// Unit labels the value axis.
	Unit   string
	Curves []Curve
	Bands  []Band
	Marks  []Mark
	// Top is the least that the value axis reaches up to.
	Top float64
	// Width and Height are in pixels; 0 means 960 and 260.
	Width, Height int
	// From and To limit the time axis; zero means what the data span.
	From, To time.Time
	// TimeFormat is for the time axis's labels; empty means "15:04".
	TimeFormat string
}

const (
	left, right, top, bottom = 56, 16, 44, 28
)

// palette is a colour-blind safe set (Okabe and Ito).
func palette(i int) string {
	return [...]string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}[i%7]
}

type frame struct {
	from, to time.Time
	lo, hi   float64
	w, h     float64
}

func (f frame) x(t time.Time) float64 {
	return left + f.w*float64(t.Sub(f.from))/float64(f.to.Sub(f.from))
}

func (f frame) y(v float64) float64 { return top + f.h*(1-(v-f.lo)/(f.hi-f.lo)) }

// WriteSVG writes the chart. It fails only where w does.
func (p Plot) WriteSVG(w io.Writer) error {
	out := bufio.NewWriter(w)
	width, height := p.Width, p.Height
	if width <= 0 {
		width = 960
	}
	if height <= 0 {
		height = 260
	}
	f := p.frame(float64(width-left-right), float64(height-top-bottom))
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s" font-family="system-ui,sans-serif" font-size="11">`+"\n",
		width, height, html.EscapeString(p.Title))
	fmt.Fprintf(out, `<rect width="%d" height="%d" fill="#fff"/><text x="%d" y="16" font-size="13" font-weight="600">%s</text>`+"\n",
		width, height, left, html.EscapeString(p.Title))
	p.axes(out, f)
	// Plots of one page share their ids: one that is used twice means the same.
	id := fmt.Sprintf("clip%.0fx%.0f", f.w, f.h)
	fmt.Fprintf(out, `<clipPath id="%s"><rect x="%d" y="%d" width="%.1f" height="%.1f"/></clipPath><g clip-path="url(#%s)">`+"\n", id, left, top, f.w, f.h, id)
	for i, b := range p.Bands {
		p.band(out, f, b, i)
	}
	for _, m := range p.Marks {
		p.mark(out, f, m)
	}
	for i, c := range p.Curves {
		p.curve(out, f, c, i)
	}
	fmt.Fprint(out, "</g>\n")
	free := math.Inf(-1) // labels that would lie on each other are left out
	for _, m := range p.Marks {
		if m.Label != "" && !m.At.Before(f.from) && !m.At.After(f.to) && f.x(m.At) >= free {
			free = f.x(m.At) + 6.4*float64(len([]rune(m.Label))) + 6
			fmt.Fprintf(out, `<text x="%.1f" y="%d" font-size="10" fill="%s">%s</text>`+"\n", f.x(m.At)+3, top+10, color(m.Color, "#888"), html.EscapeString(m.Label))
		}
	}
	p.legend(out)
	fmt.Fprint(out, "</svg>\n")
	return out.Flush()
}

func color(c, otherwise string) string {
	if c == "" {
		return otherwise
	}
	return html.EscapeString(c)
}

func (p Plot) frame(w, h float64) frame {
	f := frame{from: p.From, to: p.To, lo: 0, hi: math.Inf(-1), w: w, h: h}
	see := func(times []time.Time, values []float64) {
		for i, t := range times[:min(len(times), len(values))] {
			if p.From.IsZero() && (f.from.IsZero() || t.Before(f.from)) {
				f.from = t
			}
			if p.To.IsZero() && t.After(f.to) {
				f.to = t
			}
			if v := values[i]; !math.IsNaN(v) && !math.IsInf(v, 0) {
				f.lo, f.hi = min(f.lo, v), max(f.hi, v)
			}
		}
	}
	for _, c := range p.Curves {
		see(c.Times, c.Values)
	}
	for _, b := range p.Bands {
		see(b.Times, b.Lower)
		see(b.Times, b.Upper)
	}
	if !f.to.After(f.from) {
		f.to = f.from.Add(time.Second)
	}
	f.hi = max(f.hi, p.Top)
	if !(f.hi > f.lo) {
		f.hi = f.lo + 1
	}
	f.hi += (f.hi - f.lo) * 0.06
	return f
}

// ticks gives round values, about n of them, that cover [lo, hi].
func ticks(lo, hi float64, n int) []float64 {
	step := math.Pow(10, math.Floor(math.Log10((hi-lo)/float64(n))))
	for _, m := range []float64{1, 2, 5, 10} {
		if (hi-lo)/(step*m) <= float64(n) {
			step *= m
			break
		}
	}
	var out []float64
	for v := math.Ceil(lo/step) * step; v <= hi && len(out) <= 4*n; v += step {
		out = append(out, v)
	}
	return out
}

func (p Plot) axes(out io.Writer, f frame) {
	for _, v := range ticks(f.lo, f.hi, 5) {
		y := f.y(v)
		fmt.Fprintf(out, `<line x1="%d" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#e5e5e5"/><text x="%d" y="%.1f" text-anchor="end" fill="#555">%.4g</text>`+"\n",
			left, left+f.w, y, y, left-6, y+4, v)
	}
	format := p.TimeFormat
	if format == "" {
		format = "15:04"
	}
	for _, t := range timeTicks(f.from, f.to, 12) {
		fmt.Fprintf(out, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#bbb"/><text x="%.1f" y="%.1f" text-anchor="middle" fill="#555">%s</text>`+"\n",
			f.x(t), f.x(t), top+f.h, top+f.h+4, f.x(t), top+f.h+17, t.Format(format))
	}
	fmt.Fprintf(out, `<text x="%d" y="%d" fill="#555" text-anchor="start">%s</text>`+"\n", 4, 34, html.EscapeString(p.Unit))
}

func timeTicks(from, to time.Time, n int) []time.Time {
	span := to.Sub(from)
	var step time.Duration
	for _, s := range []time.Duration{time.Second, 5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute,
		30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour} {
		step = s
		if span/s <= time.Duration(n) {
			break
		}
	}
	var out []time.Time
	for t := from.Truncate(step); !t.After(to) && len(out) < 10*n; t = t.Add(step) {
		if !t.Before(from) {
			out = append(out, t)
		}
	}
	return out
}

func (p Plot) curve(out io.Writer, f frame, c Curve, i int) {
	dash := ""
	if c.Dashed {
		dash = ` stroke-dasharray="5 4"`
	}
	fmt.Fprintf(out, `<path fill="none" stroke="%s" stroke-width="1.5"%s d="`, color(c.Color, palette(i)), dash)
	pen := false
	last := 0.0
	for j, t := range c.Times[:min(len(c.Times), len(c.Values))] {
		v := c.Values[j]
		if math.IsNaN(v) || math.IsInf(v, 0) {
			pen = false
			continue
		}
		switch {
		case !pen:
			fmt.Fprintf(out, "M%.1f %.1f", f.x(t), f.y(v))
		case c.Step:
			fmt.Fprintf(out, "L%.1f %.1fL%.1f %.1f", f.x(t), f.y(last), f.x(t), f.y(v))
		default:
			fmt.Fprintf(out, "L%.1f %.1f", f.x(t), f.y(v))
		}
		pen, last = true, v
	}
	fmt.Fprint(out, `"/>`+"\n")
}

func (p Plot) band(out io.Writer, f frame, b Band, i int) {
	n := min(len(b.Times), len(b.Lower), len(b.Upper))
	ok := func(j int) bool { return !math.IsNaN(b.Lower[j]) && !math.IsNaN(b.Upper[j]) }
	for j := 0; j < n; {
		if !ok(j) {
			j++
			continue
		}
		k := j
		for k < n && ok(k) {
			k++
		}
		fmt.Fprintf(out, `<path fill="%s" fill-opacity="0.18" stroke="none" d="`, color(b.Color, palette(i)))
		for m := j; m < k; m++ {
			op := "L"
			if m == j {
				op = "M"
			}
			fmt.Fprintf(out, "%s%.1f %.1f", op, f.x(b.Times[m]), f.y(b.Upper[m]))
		}
		for m := k - 1; m >= j; m-- {
			fmt.Fprintf(out, "L%.1f %.1f", f.x(b.Times[m]), f.y(b.Lower[m]))
		}
		fmt.Fprint(out, `Z"/>`+"\n")
		j = k
	}
}

func (p Plot) mark(out io.Writer, f frame, m Mark) {
	x := f.x(m.At)
	if !m.End.IsZero() && m.End.After(m.At) {
		fmt.Fprintf(out, `<rect x="%.1f" y="%d" width="%.1f" height="%.1f" fill="%s" fill-opacity="0.10"/>`+"\n",
			x, top, f.x(m.End)-x, f.h, color(m.Color, "#888"))
	}
	fmt.Fprintf(out, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%.1f" stroke="%s" stroke-dasharray="2 3"/>`+"\n", x, x, top, top+f.h, color(m.Color, "#888"))
}

func (p Plot) legend(out io.Writer) {
	x := float64(left)
	item := func(name, c string, opacity float64) {
		if name == "" {
			return
		}
		fmt.Fprintf(out, `<rect x="%.1f" y="25" width="12" height="8" fill="%s" fill-opacity="%.2g"/><text x="%.1f" y="33">%s</text>`+"\n",
			x, c, opacity, x+16, html.EscapeString(name))
		x += 16 + 6.4*float64(len([]rune(name))) + 14
	}
	x += 60 // past the unit
	for i, c := range p.Curves {
		item(c.Name, color(c.Color, palette(i)), 1)
	}
	for i, b := range p.Bands {
		item(b.Name, color(b.Color, palette(i)), 0.25)
	}
}
