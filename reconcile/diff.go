package reconcile

import (
	"cmp"
	"math"
	"reflect"
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
// key, whatever their order; other lists by position, or as a whole where
// their lengths differ. Numbers compare by value, and so do quantities
// ("1" and "1000m") directly under limits, requests, capacity and hard. A
// declared null, empty map or empty list equals a missing field.
//
// For the result holds that [Change.Merge] makes live equal to desired: a
// second Diff, with desired as what was applied, is empty. Diff allocates nothing where nothing differs
// (lists of more than 32 keyed elements apart) and takes time linear in the
// size of the objects. It changes none of them; the result shares their
// values.
func Diff(applied, desired, live map[string]any) []FieldChange {
	var d differ
	d.maps(applied, desired, live)
	slices.SortFunc(d.out, func(a, b FieldChange) int { return cmp.Compare(a.Path, b.Path) })
	return d.out
}

// differ holds the differences found and the way from the root to where the
// diff is. Paths are rendered only where something differs. The first steps
// are kept in place: a chain of pointers or a slice would be allocated.
type differ struct {
	out   []FieldChange
	depth int
	way   [24]trail
	deep  []trail // further steps
}

// trail is one step of the way.
type trail struct {
	field string // map key, or the name of the list key
	value any    // list key's value
	index int
	kind  byte // 'f', 'k' or 'i'
}

func (d *differ) push(t trail) {
	if d.depth < len(d.way) {
		d.way[d.depth] = t
	} else {
		d.deep = append(d.deep[:d.depth-len(d.way)], t)
	}
	d.depth++
}

func (d *differ) pop() { d.depth-- }

func (d *differ) step(i int) *trail {
	if i < len(d.way) {
		return &d.way[i]
	}
	return &d.deep[i-len(d.way)]
}

func (d *differ) path() string {
	s := ""
	for i := range d.depth {
		switch t := d.step(i); t.kind {
		case 'k':
			s = JoinElement(s, t.field, scalarText(t.value))
		case 'i':
			s = JoinIndex(s, t.index)
		default:
			s = JoinField(s, t.field)
		}
	}
	return s
}

// quantities tells whether the value at hand is a Kubernetes quantity: an
// entry of a resource list.
func (d *differ) quantities() bool {
	if d.depth < 2 || d.step(d.depth-1).kind != 'f' {
		return false
	}
	up := d.step(d.depth - 2)
	if up.kind != 'f' {
		return false
	}
	switch up.field {
	case "limits", "requests", "capacity", "hard":
		return true
	}
	return up.field == "emptyDir" && d.step(d.depth-1).field == "sizeLimit"
}

func (d *differ) add(from, to any) {
	d.out = append(d.out, FieldChange{Path: d.path(), From: from, To: to})
}

func (d *differ) maps(applied, desired, live map[string]any) {
	// Mostly, what is declared is the very map that was applied.
	as := oneMap(applied, desired)
	for k, want := range desired {
		have, ok := live[k]
		if !ok && blank(want) {
			continue
		}
		was := want
		if !as {
			was = applied[k]
		}
		d.push(trail{field: k, kind: 'f'})
		if ok {
			d.values(was, want, have)
		} else {
			d.add(nil, want)
		}
		d.pop()
	}
	if as {
		return
	}
	for k, was := range applied {
		if _, ok := desired[k]; ok {
			continue
		}
		if have, ok := live[k]; ok {
			d.push(trail{field: k, kind: 'f'})
			d.removed(was, have)
			d.pop()
		}
	}
}

// oneMap tells whether two maps are one.
func oneMap(a, b map[string]any) bool {
	return len(a) == len(b) && reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

// removed takes away what was applied, and leaves what others put beside it.
func (d *differ) removed(applied, live any) {
	switch was := applied.(type) {
	case map[string]any:
		have, ok := live.(map[string]any)
		if !ok {
			break
		}
		if foreign(was, have) {
			d.maps(was, nil, have)
			return
		}
	case []any:
		have, ok := live.([]any)
		if !ok {
			break
		}
		if foreign(was, have) {
			key := ListKey(was, have)
			find := elements(have, key)
			for _, e := range was {
				d.element(key, nil, nil, at(have, find(e.(map[string]any)[key])))
			}
			return
		}
	}
	d.add(live, nil)
}

// foreign tells whether live has a map key or a keyed list element, at any
// depth of maps, that applied has not.
func foreign(applied, live any) bool {
	switch have := live.(type) {
	case map[string]any:
		was, ok := applied.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range have {
			if old, ours := was[k]; !ours || foreign(old, v) {
				return true
			}
		}
	case []any:
		was, ok := applied.([]any)
		if !ok {
			return false
		}
		if key := ListKey(was, have); key != "" {
			find := elements(was, key)
			for _, e := range have {
				if find(e.(map[string]any)[key]) < 0 {
					return true
				}
			}
		}
	}
	return false
}

func (d *differ) values(applied, desired, live any) {
	switch want := desired.(type) {
	case map[string]any:
		have, ok := live.(map[string]any)
		if !ok {
			if live != nil || len(want) > 0 {
				d.add(live, desired)
			}
			return
		}
		was, _ := applied.(map[string]any)
		d.maps(was, want, have)
	case []any:
		have, ok := live.([]any)
		if !ok {
			if live != nil || len(want) > 0 {
				d.add(live, desired)
			}
			return
		}
		was, _ := applied.([]any)
		d.lists(was, want, have)
	default:
		if !d.scalarEqual(desired, live) {
			d.add(live, desired)
		}
	}
}

func (d *differ) lists(applied, desired, live []any) {
	// The key is chosen as Merge chooses it, which knows no applied list.
	key := ""
	if len(desired) > 0 {
		key = ListKey(desired, live)
	}
	if key != "" && !identifies(key, applied) {
		applied = nil
	}
	if key == "" {
		if len(desired) != len(live) {
			d.add(live, desired)
			return
		}
		for i := range desired {
			var was any
			if i < len(applied) {
				was = applied[i]
			}
			d.push(trail{index: i, kind: 'i'})
			d.values(was, desired[i], live[i])
			d.pop()
		}
		return
	}
	if max(len(applied), len(desired), len(live)) > few {
		d.longList(key, applied, desired, live)
		return
	}
	for n, e := range desired {
		want := e.(map[string]any)
		i, j := findNear(live, key, want[key], n), findNear(applied, key, want[key], n)
		d.element(key, at(applied, j), want, at(live, i))
	}
	for n, e := range applied {
		v := e.(map[string]any)[key]
		if findNear(desired, key, v, n) < 0 {
			d.element(key, nil, nil, at(live, findElement(live, key, v)))
		}
	}
}

// few is the length up to which a list is searched from its start, which
// allocates nothing; longer ones get an index.
const few = 32

// findNear is findElement for a list whose keys differ and where the element
// is likely at index i.
func findNear(l []any, key string, v any, i int) int {
	if i < len(l) && sameScalar(l[i].(map[string]any)[key], v) {
		return i
	}
	return findElement(l, key, v)
}

// longList is the second half of lists, in linear time.
func (d *differ) longList(key string, applied, desired, live []any) {
	inLive, inDesired, inApplied := elements(live, key), elements(desired, key), elements(applied, key)
	for _, e := range desired {
		want := e.(map[string]any)
		d.element(key, at(applied, inApplied(want[key])), want, at(live, inLive(want[key])))
	}
	for _, e := range applied {
		v := e.(map[string]any)[key]
		if inDesired(v) < 0 {
			d.element(key, nil, nil, at(live, inLive(v)))
		}
	}
}

// element compares one element of a keyed list; a nil desired one was removed.
func (d *differ) element(key string, applied, desired, live map[string]any) {
	var v any
	switch {
	case desired != nil:
		v = desired[key]
	case live != nil:
		v = live[key]
	default:
		return
	}
	d.push(trail{field: key, value: v, kind: 'k'})
	switch {
	case desired == nil:
		d.add(live, nil)
	case live == nil:
		d.add(nil, desired)
	default:
		d.maps(applied, desired, live)
	}
	d.pop()
}

// at gives the map at index i of a keyed list, nil for -1.
func at(l []any, i int) map[string]any {
	if i < 0 {
		return nil
	}
	return l[i].(map[string]any)
}

// elements gives a function like findElement for many lookups in one list.
func elements(l []any, key string) func(v any) int {
	if len(l) <= few {
		return func(v any) int { return findElement(l, key, v) }
	}
	index := make(map[string]int, len(l))
	for i, e := range l {
		index[scalarText(e.(map[string]any)[key])] = i
	}
	return func(v any) int {
		if i, ok := index[scalarText(v)]; ok {
			return i
		}
		return -1
	}
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

func (d *differ) scalarEqual(a, b any) bool {
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
	default:
		if equal, numbers := numbersEqual(a, b); numbers {
			return equal
		}
	}
	if !d.quantities() {
		return false
	}
	qa, ok := quantity(a)
	if !ok {
		return false
	}
	qb, ok := quantity(b)
	return ok && qa == qb
}

// numbersEqual compares two numbers by value: whole ones exactly, others as
// float64. NaN equals itself here, or an object with one would never settle.
func numbersEqual(a, b any) (equal, numbers bool) {
	if ia, ok := a.(int64); ok {
		if ib, ok := b.(int64); ok {
			return ia == ib, true
		}
	}
	fa, ok := number(a)
	if !ok {
		return false, false
	}
	fb, ok := number(b)
	if !ok {
		return false, false
	}
	return fa == fb || fa != fa && fb != fb, true
}

// number gives the value of a number. Objects hold int64 and float64; the
// other types are what Go literals and other decoders leave in them, and
// reading them here spares their authors a drift that never ends.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case int:
		return float64(v), true
	case int32:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float32:
		return float64(v), true
	}
	return 0, false
}

// quantity reads a Kubernetes quantity, in billionths: a number with an SI
// suffix (n, u, m, k, M, G, T, P, E) or a binary one (Ki to Ei).
func quantity(v any) (float64, bool) {
	const one = 1e9 // so that "0.1" and "100m" meet exactly
	if f, ok := number(v); ok {
		return math.Round(f * one), true
	}
	s, ok := v.(string)
	if !ok {
		return 0, false
	}
	n := len(s)
	for n > 0 && (s[n-1] < '0' || s[n-1] > '9') && s[n-1] != '.' {
		n--
	}
	digits := s[:n]
	if strings.ContainsFunc(digits, func(r rune) bool { return !strings.ContainsRune("0123456789.+-eE", r) }) {
		return 0, false
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return 0, false
	}
	scale := 0.0
	switch s[n:] {
	case "n":
		scale = 1
	case "u":
		scale = 1e3
	case "m":
		scale = 1e6
	case "":
		scale = one
	case "k":
		scale = one * 1e3
	case "M":
		scale = one * 1e6
	case "G":
		scale = one * 1e9
	case "T":
		scale = one * 1e12
	case "P":
		scale = one * 1e15
	case "E":
		scale = one * 1e18
	case "Ki":
		scale = one * (1 << 10)
	case "Mi":
		scale = one * (1 << 20)
	case "Gi":
		scale = one * (1 << 30)
	case "Ti":
		scale = one * (1 << 40)
	case "Pi":
		scale = one * (1 << 50)
	case "Ei":
		scale = one * (1 << 60)
	default:
		return 0, false
	}
	return math.Round(f * scale), true
}

// same tells whether two values are equal, to the last field; unlike Diff it
// knows no defaults.
func same(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		if oneMap(a, b) {
			return true
		}
		for k, v := range a {
			if w, ok := b[k]; !ok || !same(v, w) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !same(a[i], b[i]) {
				return false
			}
		}
		return true
	case string:
		b, ok := b.(string)
		return ok && a == b
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	case nil:
		return b == nil
	}
	equal, numbers := numbersEqual(a, b)
	return numbers && equal
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
		if p, err := ParsePath(f.Path); err == nil && len(p) > 0 {
			if last := p[len(p)-1]; last.Key == "" && last.Index >= 0 {
				continue // a null in a list keeps its place
			}
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
			if !exists && v == nil {
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
		if len(want) > 0 {
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
		find := elements(have, key)
		for _, e := range want {
			m := e.(map[string]any)
			if i := find(m[key]); i >= 0 {
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
