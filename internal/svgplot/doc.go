// Package svgplot draws curves over time as self-contained SVG: lines, steps,
// bands and marked moments, on one or two value axes. It has no dependencies
// and its output is a pure function of its input, so that a plot can be
// compared with a golden file.
//
//	p := svgplot.Plot{Title: "demand", Unit: "requests/s"}
//	p.Curves = append(p.Curves, svgplot.Curve{Name: "observed", Times: t, Values: y})
//	err := p.WriteSVG(w)
package svgplot
