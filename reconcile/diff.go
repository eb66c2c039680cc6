package reconcile

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Diff compares three versions of one object and gives what has to change on
// the live one, in path order: every field that desired declares and live has
// otherwise, and every field that applied (what was declared when the object
// was last written; nil where unknown) had and desired no longer has. Fields
// that only live sets are somebody else's and are left alone.
//
// Lists of maps are compared element by element where [ListKey] finds their
// key, other lists by position, or as a whole where their lengths differ.
// Numbers compare by value, and under resources also quantities ("1" and
// "1000m"); a declared null, empty map or empty list equals a missing field.
//
// For the result holds that [Change.Merge] makes live equal to desired:
// a second Diff is empty. Diff allocates nothing where nothing differs and
// takes time linear in the size of the objects.
func Diff(applied, desired, live map[string]any) []FieldChange {
	d := differ{}
	d.maps(nil, applied, desired, live)
	slices.SortFunc(d.out, func(a, b FieldChange) int { return cmp.Compare(a.Path, b.Path) })
	return d.out
}

type differ struct {
	out []FieldChange
}

// trail is the way from the root to where the diff is. Paths are rendered
// only where something differs.
type trail struct {
	up    *trail
	field string // map key
	key   string // list key, with value
	value any
	index int
	kind  byte // 'f', 'k' or 'i'
}

func (t *trail) String() string {
	if t == nil {
		return ""
	}
	switch t.kind {
	case 'k':
		return JoinElement(t.up.String(), t.key, fmt.Sprint(t.value))
	case 'i':
		return JoinIndex(t.up.String(), t.index)
	default:
		return JoinField(t.up.String(), t.field)
	}
}

// quantities tells whether the values below t are Kubernetes quantities.
func (t *trail) quantities() bool {
	for ; t != nil; t = t.up {
		switch t.field {
		case "limits", "requests", "capacity", "hard":
			return true
		}
	}
	return false
}

func (d *differ) add(t *trail, from, to any) {
	d.out = append(d.out, FieldChange{Path: t.String(), From: from, To: to})
}

func (d *differ) maps(t *trail, applied, desired, live map[string]any) {
	for k, want := range desired {
		at := trail{up: t, field: k, kind: 'f'}
		have, ok := live[k]
		if !ok {
			if !blank(want) {
				d.add(&at, nil, want)
			}
			continue
		}
		var was any
		if applied != nil {
			was = applied[k]
		}
		d.values(&at, was, want, have)
	}
	for k := range applied {
		if _, ok := desired[k]; ok {
			continue
		}
		if have, ok := live[k]; ok {
			at := trail{up: t, field: k, kind: 'f'}
			d.removed(&at, applied[k], have)
		}
	}
}

// removed takes away what was applied, and leaves what others put beside it.
func (d *differ) removed(t *trail, applied, live any) {
	am, aok := applied.(map[string]any)
	lm, lok := live.(map[string]any)
	if !aok || !lok || len(am) == 0 {
		d.add(t, live, nil)
		return
	}
	for k := range lm {
		if _, ok := am[k]; !ok {
			// Somebody else put a field here: take away only ours.
			d.maps(t, am, nil, lm)
			return
		}
	}
	d.add(t, live, nil)
}

func (d *differ) values(t *trail, applied, desired, live any) {
	switch want := desired.(type) {
	case map[string]any:
		have, ok := live.(map[string]any)
		if !ok {
			if live != nil || len(want) > 0 {
				d.add(t, live, desired)
			}
			return
		}
		was, _ := applied.(map[string]any)
		d.maps(t, was, want, have)
	case []any:
		have, ok := live.([]any)
		if !ok {
			if live != nil || len(want) > 0 {
				d.add(t, live, desired)
			}
			return
		}
		was, _ := applied.([]any)
		d.lists(t, was, want, have)
	default:
		if !scalarEqual(t, desired, live) {
			d.add(t, live, desired)
		}
	}
}

func (d *differ) lists(t *trail, applied, desired, live []any) {
	key := ""
	if len(desired) > 0 || len(applied) > 0 {
		if _, isMap := first(desired, applied).(map[string]any); isMap {
			key = ListKey(desired, live, applied)
		}
	}
	if key == "" {
		if len(desired) != len(live) {
			d.add(t, live, desired)
			return
		}
		for i := range desired {
			at := trail{up: t, index: i, kind: 'i'}
			var was any
			if len(applied) == len(desired) {
				was = applied[i]
			}
			d.values(&at, was, desired[i], live[i])
		}
		return
	}
	for _, e := range desired {
		want := e.(map[string]any)
		at := trail{up: t, key: key, value: want[key], kind: 'k'}
		i := findElement(live, key, want[key])
		if i < 0 {
			d.add(&at, nil, want)
			continue
		}
		var was map[string]any
		if j := findElement(applied, key, want[key]); j >= 0 {
			was = applied[j].(map[string]any)
		}
		d.maps(&at, was, want, live[i].(map[string]any))
	}
	for _, e := range applied {
		v := e.(map[string]any)[key]
		if findElement(desired, key, v) >= 0 {
			continue
		}
		if i := findElement(live, key, v); i >= 0 {
			at := trail{up: t, key: key, value: v, kind: 'k'}
			d.add(&at, live[i], nil)
		}
	}
}

func first(lists ...[]any) any {
	for _, l := range lists {
		if len(l) > 0 {
			return l[0]
		}
	}
	return nil
}

// blank values mean the same as a missing field.
func blank(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

func scalarEqual(t *trail, a, b any) bool {
	switch a := a.(type) {
	case string:
		if b, ok := b.(string); ok && a == b {
			return true
		}
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	case nil:
		return blank(b)
	}
	if fa, ok := number(a); ok {
		if fb, ok := number(b); ok {
			return fa == fb
		}
	}
	if !t.quantities() {
		return false
	}
	qa, ok := quantity(a)
	if !ok {
		return false
	}
	qb, ok := quantity(b)
	return ok && qa == qb
}

// number gives the value of an int64 or a float64.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// quantity reads a Kubernetes quantity: a number with an SI suffix (n, u, m,
// k, M, G, T, P, E) or a binary one (Ki to Ei).
func quantity(v any) (float64, bool) {
	if f, ok := number(v); ok {
		return f, true
	}
	s, ok := v.(string)
	if !ok || s == "" {
		return 0, false
	}
	digits := strings.TrimRight(s, "numkKMGTPEi")
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return 0, false
	}
	suffix := s[len(digits):]
	// Scaled to billionths so that "0.1" and "100m" meet exactly.
	const one = 1e9
	scale, ok := map[string]float64{
		"n": 1, "u": 1e3, "m": 1e6, "": one,
		"k": one * 1e3, "M": one * 1e6, "G": one * 1e9, "T": one * 1e12, "P": one * 1e15, "E": one * 1e18,
		"Ki": one * (1 << 10), "Mi": one * (1 << 20), "Gi": one * (1 << 30),
		"Ti": one * (1 << 40), "Pi": one * (1 << 50), "Ei": one * (1 << 60),
	}[suffix]
	if !ok {
		return 0, false
	}
	return math.Round(f * scale), true
}

// Merge gives the object that an Actuator which replaces whole objects
// writes: live with the declared fields on top and the removed fields taken
// away, so that fields which only live has stay. live is not changed; with
// no live object it gives the declared one.
func (c Change) Merge(live map[string]any) map[string]any {
	if live == nil {
		return CloneObject(c.Desired)
	}
	out := overlay(CloneObject(live), c.Desired).(map[string]any)
	for _, f := range c.Fields {
		if f.To != nil {
			continue
		}
		if p, err := ParsePath(f.Path); err == nil {
			if v, ok := p.Get(c.Desired); ok && !blank(v) {
				continue // declared after all
			}
			p.Delete(out)
		}
	}
	return out
}

// overlay puts desired over live, which it may change.
func overlay(live, desired any) any {
	switch want := desired.(type) {
	case map[string]any:
		have, ok := live.(map[string]any)
		if !ok {
			return cloneValue(desired)
		}
		for k, v := range want {
			old, exists := have[k]
			if !exists && blank(v) {
				continue
			}
			have[k] = overlay(old, v)
		}
		return have
	case []any:
		have, ok := live.([]any)
		if !ok {
			return cloneValue(desired)
		}
		key := ""
		if _, isMap := first(want).(map[string]any); isMap {
			key = ListKey(want, have)
		}
		if key == "" {
			if len(have) != len(want) {
				return cloneValue(desired)
			}
			for i := range want {
				have[i] = overlay(have[i], want[i])
			}
			return have
		}
		for _, e := range want {
			m := e.(map[string]any)
			if i := findElement(have, key, m[key]); i >= 0 {
				have[i] = overlay(have[i], m)
			} else {
				have = append(have, cloneValue(m))
			}
		}
		return have
	default:
		return desired
	}
}
