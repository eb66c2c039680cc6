package reconcile

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A field path names one place in an object, as people write it:
//
//	spec.replicas
//	spec.template.spec.containers[name=web].image
//	spec.args[2]
//	metadata.annotations["example.org/owner"]
//
// Parts are joined by dots; a map key with anything but letters, digits, "_"
// and "-" is quoted in brackets; a list element is named by its key field
// where the list has one (see [ListKey]) and by its index, from 0, otherwise.

// PathStep is one step of a parsed [Path].
type PathStep struct {
	// Field is the map key to follow, when Key is empty and Index is -1.
	Field string
	// Key and Value select the list element whose field Key prints as Value.
	Key, Value string
	// Index selects a list element by position; -1 otherwise.
	Index int
}

// Path is a parsed field path.
type Path []PathStep

// ParsePath reads a field path. The empty string is the object itself.
func ParsePath(s string) (Path, error) {
	var p Path
	rest := s
	bad := func(why string) (Path, error) {
		return nil, fmt.Errorf("reconcile: field path %q: %s: %w", s, why, ErrInvalid)
	}
	for i := 0; rest != ""; i++ {
		switch {
		case rest[0] == '[':
			end := strings.IndexByte(rest, ']')
			if len(rest) > 1 && rest[1] == '"' {
				q, err := strconv.QuotedPrefix(rest[1:])
				if err != nil || len(rest) < len(q)+2 || rest[1+len(q)] != ']' {
					return bad("unterminated quote")
				}
				f, err := strconv.Unquote(q)
				if err != nil {
					return bad("bad quote")
				}
				p = append(p, PathStep{Field: f, Index: -1})
				rest = rest[len(q)+2:]
				continue
			}
			if key, after, ok := strings.Cut(rest[1:], "="); ok && strings.HasPrefix(after, `"`) && plainField(key) {
				q, err := strconv.QuotedPrefix(after)
				if err != nil || len(after) <= len(q) || after[len(q)] != ']' {
					return bad("unterminated quote")
				}
				v, err := strconv.Unquote(q)
				if err != nil {
					return bad("bad quote")
				}
				p = append(p, PathStep{Key: key, Value: v, Index: -1})
				rest = after[len(q)+1:]
				continue
			}
			if end < 0 {
				return bad("missing ]")
			}
			in := rest[1:end]
			if key, value, ok := strings.Cut(in, "="); ok {
				if !plainField(key) {
					return bad("bad list key")
				}
				p = append(p, PathStep{Key: key, Value: value, Index: -1})
			} else {
				n, err := strconv.Atoi(in)
				if err != nil || n < 0 {
					return bad("bad index")
				}
				p = append(p, PathStep{Index: n})
			}
			rest = rest[end+1:]
		default:
			if i > 0 {
				if rest[0] != '.' {
					return bad("missing dot")
				}
				rest = rest[1:]
			}
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			if !plainField(rest[:end]) {
				return bad("bad field name")
			}
			p = append(p, PathStep{Field: rest[:end], Index: -1})
			rest = rest[end:]
		}
	}
	return p, nil
}

// String gives the path in the form that [ParsePath] reads.
func (p Path) String() string {
	s := ""
	for _, step := range p {
		switch {
		case step.Key != "":
			s = JoinElement(s, step.Key, step.Value)
		case step.Index >= 0:
			s = JoinIndex(s, step.Index)
		default:
			s = JoinField(s, step.Field)
		}
	}
	return s
}

// JoinField appends a map key to a field path.
func JoinField(path, field string) string {
	if !plainField(field) {
		return path + "[" + strconv.Quote(field) + "]"
	}
	if path == "" {
		return field
	}
	return path + "." + field
}

// JoinElement appends a keyed list element to a field path.
func JoinElement(path, key, value string) string {
	if value == "" || strings.ContainsAny(value, `]"\`) || strconv.Quote(value) != `"`+value+`"` {
		value = strconv.Quote(value)
	}
	return path + "[" + key + "=" + value + "]"
}

// JoinIndex appends a list index to a field path.
func JoinIndex(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func plainField(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// parentPath drops the last step of a field path.
func parentPath(s string) string {
	p, err := ParsePath(s)
	if err != nil || len(p) == 0 {
		return ""
	}
	return p[:len(p)-1].String()
}

// Get follows the path into v. ok is false where a step leads nowhere.
func (p Path) Get(v any) (value any, ok bool) {
	for _, step := range p {
		if step.Key == "" && step.Index < 0 {
			m, isMap := v.(map[string]any)
			if !isMap {
				return nil, false
			}
			if v, ok = m[step.Field]; !ok {
				return nil, false
			}
			continue
		}
		l, isList := v.([]any)
		if !isList {
			return nil, false
		}
		i := step.find(l)
		if i < 0 {
			return nil, false
		}
		v = l[i]
	}
	return v, true
}

func (s PathStep) find(l []any) int {
	if s.Key == "" {
		if s.Index < len(l) {
			return s.Index
		}
		return -1
	}
	return findElement(l, s.Key, s.Value)
}

// keyValue gives the key of a new element of l: a number where the others
// have numbers.
func (s PathStep) keyValue(l []any) any {
	for _, e := range l {
		m, _ := e.(map[string]any)
		if _, ok := number(m[s.Key]); ok {
			if n, err := strconv.ParseInt(s.Value, 10, 64); err == nil {
				return n
			}
		}
	}
	return s.Value
}

// Set stores value at the path inside object, making the maps on the way; a
// missing keyed list element is appended. It is an error where a step meets
// a value of another shape. The object is changed in place.
func (p Path) Set(object map[string]any, value any) error {
	if len(p) == 0 {
		return fmt.Errorf("reconcile: set: empty field path: %w", ErrInvalid)
	}
	_, err := p.set(object, value, 0)
	return err
}

func (p Path) set(at any, value any, i int) (any, error) {
	if i == len(p) {
		return value, nil
	}
	step := p[i]
	wrong := func(want string) error {
		return fmt.Errorf("reconcile: set %s: %s is not a %s: %w", p, p[:i], want, ErrInvalid)
	}
	if step.Key == "" && step.Index < 0 {
		m, ok := at.(map[string]any)
		if at == nil {
			m, ok = map[string]any{}, true
		}
		if !ok {
			return nil, wrong("map")
		}
		v, err := p.set(m[step.Field], value, i+1)
		if err != nil {
			return nil, err
		}
		m[step.Field] = v
		return m, nil
	}
	l, ok := at.([]any)
	if !ok && at != nil {
		return nil, wrong("list")
	}
	j := step.find(l)
	if j < 0 {
		if step.Key == "" {
			if step.Index != len(l) {
				return nil, fmt.Errorf("reconcile: set %s: index %d past the end: %w", p, step.Index, ErrInvalid)
			}
			l = append(l, nil)
		} else {
			l = append(l, map[string]any{step.Key: step.keyValue(l)})
		}
		j = len(l) - 1
	}
	v, err := p.set(l[j], value, i+1)
	if err != nil {
		return nil, err
	}
	l[j] = v
	return l, nil
}

// Delete removes what is at the path inside object and reports whether there
// was anything. The object is changed in place.
func (p Path) Delete(object map[string]any) bool {
	if len(p) == 0 {
		return false
	}
	last := p[len(p)-1]
	parent, ok := p[:len(p)-1].Get(object)
	if !ok {
		return false
	}
	switch c := parent.(type) {
	case map[string]any:
		if last.Key != "" || last.Index >= 0 {
			return false
		}
		if _, ok := c[last.Field]; !ok {
			return false
		}
		delete(c, last.Field)
		return true
	case []any:
		if last.Key == "" && last.Index < 0 {
			return false
		}
		i := last.find(c)
		if i < 0 {
			return false
		}
		shorter := append(append(make([]any, 0, len(c)-1), c[:i]...), c[i+1:]...)
		return p[:len(p)-1].Set(object, shorter) == nil
	}
	return false
}

// listKeys are the fields that identify list elements, most telling first.
func listKeys() [8]string {
	return [...]string{"name", "key", "containerPort", "mountPath", "port", "ip", "type", "uid"}
}

// ListKey tells the field that identifies the elements of lists of maps, so
// that a diff follows an element that moved: the first of name, key,
// containerPort, mountPath, port, ip, type and uid that every element of
// every list has as a scalar, and no list twice. It is empty for all other
// lists, whose elements are known by position.
func ListKey(lists ...[]any) string {
next:
	for _, key := range listKeys() {
		some := false
		for _, l := range lists {
			if !identifies(key, l) {
				continue next
			}
			some = some || len(l) > 0
		}
		if some {
			return key
		}
	}
	return ""
}

// identifies tells whether every element of l is a map with its own scalar
// value of key.
func identifies(key string, l []any) bool {
	for _, e := range l {
		m, ok := e.(map[string]any)
		if !ok {
			return false
		}
		switch m[key].(type) {
		case string, bool:
		default:
			if _, ok := number(m[key]); !ok {
				return false
			}
		}
	}
	if len(l) > few { // pairwise comparison is cheaper below, this above
		seen := make(map[string]struct{}, len(l))
		for _, e := range l {
			seen[scalarText(e.(map[string]any)[key])] = struct{}{}
		}
		return len(seen) == len(l)
	}
	for i, e := range l {
		if findElement(l[:i], key, e.(map[string]any)[key]) >= 0 {
			return false
		}
	}
	return true
}

// findElement gives the index of the map in l whose field key is v, or -1.
func findElement(l []any, key string, v any) int {
	for i, e := range l {
		m, ok := e.(map[string]any)
		if !ok {
			continue
		}
		if sameScalar(m[key], v) {
			return i
		}
	}
	return -1
}

// sameScalar compares scalars as they print, so that 80, 80.0 and "80" are
// one list key.
func sameScalar(a, b any) bool {
	switch a := a.(type) {
	case nil:
		return false
	case string:
		if b, ok := b.(string); ok {
			return a == b
		}
	case int64:
		if b, ok := b.(int64); ok {
			return a == b
		}
	}
	return b != nil && scalarText(a) == scalarText(b)
}

// scalarText gives the one text of a scalar: whole numbers have no point and
// no exponent, whatever their type.
func scalarText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<63 {
			return strconv.FormatInt(int64(v), 10)
		}
	}
	return fmt.Sprint(v)
}
