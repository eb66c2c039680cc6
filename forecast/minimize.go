package forecast

import (
	"context"
	"slices"
)

// minimize moves x to a minimum of f by the simplex search of Nelder and Mead
// (Computer Journal 7, 1965) with the usual coefficients (1, 2, 1/2, 1/2),
// starting from a simplex of the given size. It stops after about evals calls
// of f, when the simplex has become flat, or with ctx. It is deterministic and
// never leaves x worse than it was.
func minimize(ctx context.Context, f func([]float64) float64, x []float64, size float64, evals int) error {
	const flat = 1e-7
	type vertex struct {
		x []float64
		f float64
	}
	n := len(x)
	simplex := make([]vertex, n+1)
	for i := range simplex {
		v := slices.Clone(x)
		if i > 0 {
			v[i-1] += size
		}
		simplex[i] = vertex{v, f(v)}
	}
	evals -= n + 1
	centre, probe, wide := make([]float64, n), make([]float64, n), make([]float64, n)
	// along writes the point at distance t from the centre, away from the worst
	// vertex, and evaluates it.
	along := func(dst []float64, t float64) float64 {
		for i := range dst {
			dst[i] = centre[i] + float64(t*(centre[i]-simplex[n].x[i]))
		}
		evals--
		return f(dst)
	}
	byValue := func(a, b vertex) int {
		switch {
		case a.f < b.f:
			return -1
		case a.f > b.f:
			return 1
		}
		return 0
	}
	for {
		slices.SortStableFunc(simplex, byValue)
		if err := ctx.Err(); err != nil {
			return err
		}
		if evals <= 0 || simplex[n].f-simplex[0].f < flat {
			break
		}
		for i := range centre {
			centre[i] = 0
			for _, v := range simplex[:n] {
				centre[i] += v.x[i] / float64(n)
			}
		}
		worst := &simplex[n]
		at := along(probe, 1)
		switch {
		case at < simplex[0].f:
			if further := along(wide, 2); further < at {
				copy(probe, wide)
				at = further
			}
		case n > 1 && at < simplex[n-1].f || n == 1 && at < worst.f:
		default:
			t := -0.5
			if at < worst.f {
				t = 0.5
			}
			if nearer := along(wide, t); nearer < min(at, worst.f) {
				copy(probe, wide)
				at = nearer
			} else {
				for k := 1; k <= n; k++ {
					for i := range x {
						simplex[k].x[i] = (simplex[k].x[i] + simplex[0].x[i]) / 2
					}
					simplex[k].f = f(simplex[k].x)
					evals--
				}
				continue
			}
		}
		copy(worst.x, probe)
		worst.f = at
	}
	copy(x, simplex[0].x)
	return nil
}
