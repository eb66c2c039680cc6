package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// ErrNotEditable says that a field cannot be set by changing only its own
// text: it comes from an anchor that other fields share, for example. A
// person has to edit the file.
var ErrNotEditable = errors.New("not editable in place")

// Edit sets or removes fields of resources that the file declares, one edit
// after the other, and changes no byte that does not belong to those fields:
// comments, order, indentation, quoting and line ends of the rest stay. It
// returns data itself when nothing changes.
//
// A missing field is added at the end of its map, missing maps on the way are
// made, and a keyed list element that is missing is appended. A string keeps
// the quotes of the string that it replaces. Besides the scalars of
// [reconcile.Edit], a value may be nil, a map[string]any or a []any. A float64
// without fraction is written as an integer unless it replaces a float, since
// JSON cannot tell the two apart. Removing what is not there is no change.
//
// The result is decoded again and compared with what the edit asks for, so
// Edit either does exactly that or fails: with [reconcile.ErrNotFound] if the
// file does not declare the key, with [reconcile.ErrInvalid] for a bad path or
// value, with [ErrNotEditable], or with the errors of [Decode].
func Edit(path string, data []byte, edits []reconcile.Edit) ([]byte, error) {
	if len(edits) == 0 {
		return data, nil
	}
	units, err := parse(path, data)
	if err != nil {
		return nil, err
	}
	for _, e := range edits {
		out, after, err := edit(path, data, units, e)
		if err != nil {
			return nil, fmt.Errorf("edit %s in %s: set %s: %w", e.Key, path, e.Path, err)
		}
		data, units = out, after
	}
	return data, nil
}

// Set is [Edit] for one field.
func Set(path string, data []byte, key reconcile.Key, field string, value any) ([]byte, error) {
	return Edit(path, data, []reconcile.Edit{{Key: key, Path: field, Value: value}})
}

// Remove is [Edit] for taking one field away.
func Remove(path string, data []byte, key reconcile.Key, field string) ([]byte, error) {
	return Edit(path, data, []reconcile.Edit{{Key: key, Path: field, Remove: true}})
}

func edit(file string, data []byte, units []unit, e reconcile.Edit) ([]byte, []unit, error) {
	at := -1
	for i, u := range units {
		if u.res.Key != e.Key {
			continue
		}
		if at >= 0 {
			return nil, nil, fmt.Errorf("declared twice, at lines %d and %d: %w", units[at].res.Origin.Line, u.res.Origin.Line, reconcile.ErrInvalid)
		}
		at = i
	}
	if at < 0 {
		return nil, nil, fmt.Errorf("the file does not declare it: %w", reconcile.ErrNotFound)
	}
	p, err := reconcile.ParsePath(e.Path)
	if err != nil {
		return nil, nil, err
	}
	if len(p) == 0 {
		return nil, nil, fmt.Errorf("empty field path: %w", reconcile.ErrInvalid)
	}
	have := units[at].res.Object
	old, exists := p.Get(have)
	want := reconcile.CloneObject(have)
	if e.Remove {
		if !exists {
			return data, units, nil
		}
		p.Delete(want)
	} else {
		v, err := normal(e.Value, old, 0)
		if err != nil {
			return nil, nil, err
		}
		if exists && reflect.DeepEqual(old, v) {
			return data, units, nil
		}
		if err := p.Set(want, v); err != nil {
			return nil, nil, err
		}
	}
	s := newSource(data, isJSON(file))
	var out []byte
	if e.Remove {
		out, err = s.remove(units[at].node, p)
	} else {
		out, err = s.set(units[at].node, p, have, want)
	}
	if err != nil {
		return nil, nil, err
	}
	after, err := parse(file, out)
	if err != nil {
		return nil, nil, fmt.Errorf("the edited file would not parse: %w: %w", ErrNotEditable, err)
	}
	if len(after) != len(units) {
		return nil, nil, fmt.Errorf("the edit would change other resources: %w", ErrNotEditable)
	}
	for i, u := range after {
		expect := units[i].res.Object
		if i == at {
			expect = want
		}
		if !reflect.DeepEqual(u.res.Object, expect) {
			return nil, nil, fmt.Errorf("the edit would change more than this field: %w", ErrNotEditable)
		}
	}
	return out, after, nil
}

// normal turns a value into the types that Decode gives. old is the value
// that it replaces, if any.
func normal(v, old any, depth int) (any, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("value nested deeper than %d levels: %w", MaxDepth, reconcile.ErrInvalid)
	}
	switch v := v.(type) {
	case nil, bool, int64:
		return v, nil
	case string:
		if !utf8.ValidString(v) {
			return nil, fmt.Errorf("value %q is not UTF-8 text: %w", v, reconcile.ErrInvalid)
		}
		return v, nil
	case int:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("value %v is not a finite number: %w", v, reconcile.ErrInvalid)
		}
		if _, float := old.(float64); !float && v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v), nil
		}
		return v, nil
	case map[string]any:
		m := make(map[string]any, len(v))
		was, _ := old.(map[string]any)
		for k, e := range v {
			if !utf8.ValidString(k) {
				return nil, fmt.Errorf("key %q is not UTF-8 text: %w", k, reconcile.ErrInvalid)
			}
			n, err := normal(e, was[k], depth+1)
			if err != nil {
				return nil, err
			}
			m[k] = n
		}
		return m, nil
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			n, err := normal(e, nil, depth+1)
			if err != nil {
				return nil, err
			}
			l[i] = n
		}
		return l, nil
	}
	return nil, fmt.Errorf("value of type %T: %w", v, reconcile.ErrInvalid)
}

// source is a file's text with an index of its lines. Syntax nodes only tell
// where they start; source finds where they end by reading the text again.
type source struct {
	src   []byte
	base  int   // length of the byte order mark
	lines []int // offset of each line
	eol   string
	json  bool
	err   error // first place where text and syntax tree disagree
}

func newSource(src []byte, isJSON bool) *source {
	s := &source{src: src, eol: "\n", json: isJSON}
	if bytes.HasPrefix(src, []byte("\ufeff")) {
		s.base = 3
	}
	s.lines = []int{s.base}
	for i := s.base; i < len(src); {
		n := breakLen(src[i:], isJSON)
		if n == 0 {
			i++
			continue
		}
		if len(s.lines) == 1 && n == 2 && src[i] == '\r' {
			s.eol = "\r\n"
		}
		i += n
		s.lines = append(s.lines, i)
	}
	return s
}

// breakLen is the length of the line break at the start of b, or 0. YAML
// counts the Unicode breaks too.
func breakLen(b []byte, isJSON bool) int {
	switch {
	case len(b) == 0:
		return 0
	case b[0] == '\n':
		return 1
	case b[0] == '\r':
		if len(b) > 1 && b[1] == '\n' {
			return 2
		}
		return 1
	case isJSON:
		return 0
	case b[0] == 0xc2 && len(b) > 1 && b[1] == 0x85:
		return 2
	case b[0] == 0xe2 && len(b) > 2 && b[1] == 0x80 && (b[2] == 0xa8 || b[2] == 0xa9):
		return 3
	}
	return 0
}

func (s *source) lost(what string) int {
	if s.err == nil {
		s.err = fmt.Errorf("cannot find %s in the text: %w", what, ErrNotEditable)
	}
	return len(s.src)
}

// offset of a line and column, both from 1.
func (s *source) offset(line, column int) int {
	if line < 1 || line > len(s.lines) {
		return s.lost("a line")
	}
	i := s.lines[line-1]
	for c := 1; c < column; c++ {
		if i >= len(s.src) {
			return s.lost("a column")
		}
		_, n := utf8.DecodeRune(s.src[i:])
		i += n
	}
	return i
}

func (s *source) lineOf(off int) int {
	i, ok := slices.BinarySearch(s.lines, off)
	if !ok {
		i--
	}
	return max(i, 0)
}

func (s *source) lineStart(off int) int { return s.lines[s.lineOf(off)] }

// lineEnd is the offset of the break that ends off's line, or the file's end.
func (s *source) lineEnd(off int) int {
	next := s.nextLine(off)
	end := next
	for end > off && (s.src[end-1] == '\n' || s.src[end-1] == '\r') {
		end--
	}
	return end
}

func (s *source) nextLine(off int) int {
	if l := s.lineOf(off); l+1 < len(s.lines) {
		return s.lines[l+1]
	}
	return len(s.src)
}

// outer is where a node starts, with its anchor and tag.
func (s *source) outer(n *yaml.Node) int { return s.offset(n.Line, n.Column) }

// start is where a node's own text starts, after anchor and tag.
func (s *source) start(n *yaml.Node) int {
	i := s.outer(n)
	if n.Kind == yaml.AliasNode {
		return i
	}
	for i < len(s.src) && (s.src[i] == '&' || s.src[i] == '!') {
		for i < len(s.src) && !isSpace(s.src[i]) {
			i++
		}
		i = s.skip(i, true)
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// skip passes over white space and, with comments, over comments.
func (s *source) skip(i int, comments bool) int {
	for i < len(s.src) {
		switch {
		case isSpace(s.src[i]):
			i++
		case comments && s.src[i] == '#' && (i == 0 || isSpace(s.src[i-1])):
			i = s.lineEnd(i)
		default:
			return i
		}
	}
	return i
}

// empty tells whether a node has no text at all, as after "key:".
func empty(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "" && n.Anchor == "" &&
		n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0
}

// end is the offset just after a node's text. indent is the indentation of
// the map or list that holds it, -1 at the root.
func (s *source) end(n *yaml.Node, indent int) int {
	if empty(n) {
		return s.outer(n)
	}
	i := s.start(n)
	switch n.Kind {
	case yaml.AliasNode:
		return i + 1 + len(n.Value)
	case yaml.MappingNode, yaml.SequenceNode:
		if n.Style&yaml.FlowStyle != 0 {
			if i >= len(s.src) || s.src[i] != '{' && s.src[i] != '[' {
				return s.lost("a bracket")
			}
			i++
			if len(n.Content) > 0 {
				i = s.end(n.Content[len(n.Content)-1], indent)
			}
			i = s.skip(i, !s.json)
			// After the last value: its missing colon, a trailing comma.
			for i < len(s.src) && (s.src[i] == ',' || s.src[i] == ':') {
				i = s.skip(i+1, !s.json)
			}
			if i >= len(s.src) || s.src[i] != '}' && s.src[i] != ']' {
				return s.lost("a closing bracket")
			}
			return i + 1
		}
		if len(n.Content) == 0 {
			return s.lost("a block collection")
		}
		last := n.Content[len(n.Content)-1]
		inner := s.indentOf(n)
		if n.Kind == yaml.MappingNode && empty(last) {
			return s.colon(n.Content[len(n.Content)-2], inner)
		}
		return s.end(last, inner)
	}
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		for i++; i < len(s.src) && s.src[i] != '"'; i++ {
			if s.src[i] == '\\' {
				i++
			}
		}
		if i >= len(s.src) {
			return s.lost("a closing quote")
		}
		return i + 1
	case n.Style&yaml.SingleQuotedStyle != 0:
		for i++; i < len(s.src); i++ {
			if s.src[i] != '\'' {
				continue
			}
			if i+1 < len(s.src) && s.src[i+1] == '\'' {
				i++
				continue
			}
			return i + 1
		}
		return s.lost("a closing quote")
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return s.endBlockScalar(i, indent)
	}
	// A plain scalar: its value with line folds wherever it has space.
	for v := n.Value; v != ""; {
		r, size := utf8.DecodeRuneInString(v)
		if r == ' ' || r == '\t' || r == '\n' {
			if i >= len(s.src) || !isSpace(s.src[i]) {
				return s.lost("a plain scalar")
			}
			i = s.skip(i, false)
			v = strings.TrimLeft(v, " \t\n")
			continue
		}
		if !bytes.HasPrefix(s.src[min(i, len(s.src)):], []byte(v[:size])) {
			return s.lost("a plain scalar")
		}
		i += size
		v = v[size:]
	}
	return i
}

func (s *source) endBlockScalar(i, indent int) int {
	header := string(s.src[i:s.lineEnd(i)])
	header, _, _ = strings.Cut(header, "#")
	keep := strings.ContainsRune(header, '+')
	content := -1
	if d := strings.IndexAny(header, "123456789"); d >= 0 {
		content = max(indent, 0) + int(header[d]-'0')
	}
	end := s.lineEnd(i)
	for l := s.lineOf(i) + 1; l < len(s.lines); l++ {
		from := s.lines[l]
		to := s.lineEnd(from)
		text := s.src[from:to]
		lead := len(text) - len(bytes.TrimLeft(text, " "))
		if lead == len(text) {
			if keep && from < len(s.src) {
				end = to
			}
			continue
		}
		if content < 0 {
			if lead <= indent {
				break
			}
			content = lead
		}
		if lead < content {
			break
		}
		end = to
	}
	return end
}

// indentOf is the indentation of a block map's keys or a list's dashes.
func (s *source) indentOf(n *yaml.Node) int {
	if len(n.Content) == 0 || n.Style&yaml.FlowStyle != 0 {
		return -1
	}
	if n.Kind == yaml.MappingNode {
		off := s.outer(n.Content[0])
		return utf8.RuneCount(s.src[s.lineStart(off):off])
	}
	off := s.dash(n.Content[0])
	return utf8.RuneCount(s.src[s.lineStart(off):off])
}

// dash finds the "-" that introduces a block list's element.
func (s *source) dash(e *yaml.Node) int {
	i := min(s.outer(e), len(s.src)) - 1
	for ; i >= 0; i-- {
		switch c := s.src[i]; {
		case c == '-':
			return i
		case isSpace(c):
		default:
			// A comment between the dash and its element.
			l := s.lineStart(i)
			text := s.src[l : i+1]
			if h := bytes.IndexByte(text, '#'); h >= 0 {
				i = l + h
				continue
			}
			return s.lost("a list element")
		}
	}
	return s.lost("a list element")
}

// colon is the offset just after the colon that follows a key.
func (s *source) colon(key *yaml.Node, indent int) int {
	i := s.skip(s.end(key, indent), true)
	if i >= len(s.src) || s.src[i] != ':' {
		return s.lost("a colon")
	}
	return i + 1
}

func (s *source) splice(from, to int, text string) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	if from < 0 || to < from || to > len(s.src) {
		return nil, fmt.Errorf("text and syntax disagree: %w", ErrNotEditable)
	}
	out := make([]byte, 0, len(s.src)-(to-from)+len(text))
	out = append(out, s.src[:from]...)
	out = append(out, text...)
	return append(out, s.src[to:]...), nil
}

// place is a node with the collection that holds it.
type place struct {
	parent *yaml.Node // nil for the root
	index  int        // of node in parent.Content
	node   *yaml.Node
}

// step goes from a collection to one of its members. ok is false where there
// is none written there.
func step(n *yaml.Node, st reconcile.PathStep, v any) (place, bool) {
	switch n.Kind {
	case yaml.MappingNode:
		if st.Key != "" || st.Index >= 0 {
			return place{}, false
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if k := n.Content[i]; !isMerge(k) && follow(k).Value == st.Field {
				return place{n, i + 1, n.Content[i+1]}, true
			}
		}
	case yaml.SequenceNode:
		list, _ := v.([]any)
		for i := range min(len(list), len(n.Content)) {
			if st.Key == "" && st.Index != i {
				continue
			}
			if st.Key != "" {
				if _, ok := (reconcile.Path{st}).Get([]any{list[i]}); !ok {
					continue
				}
			}
			return place{n, i, n.Content[i]}, true
		}
	}
	return place{}, false
}

// set makes the text say at p what want holds there; have is what it says now.
func (s *source) set(root *yaml.Node, p reconcile.Path, have, want map[string]any) ([]byte, error) {
	at := place{node: root}
	for i, st := range p {
		n := at.node
		if n.Kind == yaml.AliasNode {
			return nil, fmt.Errorf("%s is the alias *%s: %w", p[:i], n.Value, ErrNotEditable)
		}
		now, _ := p[:i].Get(any(have))
		next, ok := step(n, st, now)
		if ok {
			at = next
			continue
		}
		now, _ = p[:i].Get(any(want))
		switch n.Kind {
		case yaml.MappingNode:
			v, _ := p[:i+1].Get(any(want))
			return s.insert(n, st.Field, v)
		case yaml.SequenceNode:
			list, _ := now.([]any)
			if len(list) == 0 {
				return nil, fmt.Errorf("%s: %w", p[:i], ErrNotEditable)
			}
			return s.appendElement(at, list[len(list)-1])
		}
		return s.replace(at, now)
	}
	v, ok := p.Get(any(want))
	if !ok {
		// The edit renames the list element that the path goes through.
		byIndex := slices.Clone(p)
		for i, st := range p {
			if st.Key == "" {
				continue
			}
			list, _ := byIndex[:i].Get(any(have))
			l, _ := list.([]any)
			j := slices.IndexFunc(l, func(e any) bool { _, ok := (reconcile.Path{st}).Get([]any{e}); return ok })
			if j < 0 {
				return nil, fmt.Errorf("%s: %w", p[:i+1], ErrNotEditable)
			}
			byIndex[i] = reconcile.PathStep{Index: j}
		}
		v, _ = byIndex.Get(any(want))
	}
	return s.replace(at, v)
}

func isFlow(n *yaml.Node) bool { return n != nil && n.Style&yaml.FlowStyle != 0 }

// replace writes v where a node stands.
func (s *source) replace(at place, v any) ([]byte, error) {
	if at.parent == nil {
		return nil, fmt.Errorf("the whole resource: %w", ErrNotEditable)
	}
	n := at.node
	indent := s.indentOf(at.parent)
	flow := s.json || isFlow(at.parent) || indent < 0
	if flow {
		text, err := s.flow(v, n.Style)
		if err != nil {
			return nil, err
		}
		if empty(n) {
			from := s.outer(n)
			return s.splice(from, from, " "+text)
		}
		return s.splice(s.from(n), s.end(n, indent), text)
	}
	// What introduces the value: the colon of its key or the dash.
	var after int
	if at.parent.Kind == yaml.MappingNode {
		after = s.colon(at.parent.Content[at.index-1], indent)
	} else {
		after = s.dash(n) + 1
	}
	if s.err != nil {
		return nil, s.err
	}
	oldBlock := (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode) && !isFlow(n)
	str, isString := v.(string)
	if !isCollection(v) && (!isString || !strings.Contains(str, "\n") || n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0) {
		text := s.scalar(v, n.Style, false)
		switch {
		case empty(n):
			return s.splice(after, after, " "+text)
		case oldBlock || n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
			return s.splice(after, s.end(n, indent), " "+text)
		}
		return s.splice(s.from(n), s.end(n, indent), text)
	}
	to := after
	if !empty(n) {
		to = s.end(n, indent)
	}
	if isString {
		return s.splice(after, to, " "+s.literal(str, indent+2))
	}
	return s.splice(after, to, s.block(v, indent, at.parent.Kind == yaml.SequenceNode))
}

// from is where the text to replace starts. A tag goes with the old value, an
// anchor stays.
func (s *source) from(n *yaml.Node) int {
	if n.Style&yaml.TaggedStyle != 0 && n.Anchor == "" {
		return s.outer(n)
	}
	return s.start(n)
}

func isCollection(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) > 0
	case []any:
		return len(v) > 0
	}
	return false
}

// insert adds a key at the end of a map.
func (s *source) insert(n *yaml.Node, field string, v any) ([]byte, error) {
	if s.json || isFlow(n) {
		key := s.scalar(field, s.keyStyle(n), true)
		text, err := s.flow(v, s.keyStyle(n))
		if err != nil {
			return nil, err
		}
		return s.addFlow(n, 2, key+": "+text)
	}
	if len(n.Content) == 0 {
		return nil, fmt.Errorf("a map without text: %w", ErrNotEditable)
	}
	indent := s.indentOf(n)
	text := strings.Repeat(" ", indent) + s.scalar(field, 0, false) + ":"
	if str, ok := v.(string); ok && strings.Contains(str, "\n") {
		text += " " + s.literal(str, indent+2)
	} else {
		text += s.block(v, indent, false)
	}
	return s.addLine(s.end(n, indent), text)
}

// keyStyle is how a flow map quotes its keys.
func (s *source) keyStyle(n *yaml.Node) yaml.Style {
	if len(n.Content) > 0 && n.Kind == yaml.MappingNode {
		return n.Content[0].Style
	}
	return 0
}

// addLine puts a line after the one where off is.
func (s *source) addLine(off int, text string) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	end := s.lineEnd(off)
	return s.splice(end, end, s.eol+text)
}

// addFlow adds a member to a flow collection that has stride nodes for each.
func (s *source) addFlow(n *yaml.Node, stride int, text string) ([]byte, error) {
	if len(n.Content) == 0 {
		i := s.start(n) + 1
		return s.splice(i, i, text)
	}
	last := n.Content[len(n.Content)-stride]
	end := s.end(n.Content[len(n.Content)-1], -1)
	if s.err != nil {
		return nil, s.err
	}
	sep := ", "
	from := s.outer(last)
	if line := s.lineStart(from); line > s.start(n) {
		if lead := s.src[line:from]; len(bytes.TrimSpace(lead)) == 0 {
			sep = "," + s.eol + string(lead)
		}
	} else if s.json && !bytes.Contains(s.src[s.start(n):end], []byte(", ")) && !bytes.Contains(s.src[s.start(n):end], []byte(": ")) {
		sep = "," // minified
		text = strings.Replace(text, "\": ", "\":", 1)
	}
	return s.splice(end, end, sep+text)
}

func (s *source) appendElement(at place, v any) ([]byte, error) {
	n := at.node
	if s.json || isFlow(n) {
		text, err := s.flow(v, 0)
		if err != nil {
			return nil, err
		}
		return s.addFlow(n, 1, text)
	}
	if len(n.Content) == 0 {
		return nil, fmt.Errorf("a list without text: %w", ErrNotEditable)
	}
	indent := s.indentOf(n)
	if s.err != nil {
		return nil, s.err
	}
	return s.addLine(s.end(n, indent), strings.Repeat(" ", indent)+"-"+s.block(v, indent, true))
}

// remove takes the member at p away.
func (s *source) remove(root *yaml.Node, p reconcile.Path) ([]byte, error) {
	at := place{node: root}
	chain := []place{at}
	object, err := (&decoder{}).plainValue(root)
	if err != nil {
		return nil, err
	}
	for i, st := range p {
		if at.node.Kind == yaml.AliasNode {
			return nil, fmt.Errorf("%s is the alias *%s: %w", p[:i], at.node.Value, ErrNotEditable)
		}
		now, _ := p[:i].Get(object)
		next, ok := step(at.node, st, now)
		if !ok {
			return nil, fmt.Errorf("%s comes from a merge key: %w", p[:i+1], ErrNotEditable)
		}
		at = next
		chain = append(chain, at)
	}
	n, parent := at.node, at.parent
	stride, first := 1, at.index
	if parent.Kind == yaml.MappingNode {
		stride, first = 2, at.index-1
	}
	indent := s.indentOf(parent)
	end := s.end(n, indent)
	if stride == 2 && empty(n) {
		end = s.colon(parent.Content[first], indent)
	}
	if s.json || isFlow(parent) {
		switch {
		case first+stride < len(parent.Content):
			return s.splice(s.outer(parent.Content[first]), s.outer(parent.Content[first+stride]), "")
		case first > 0:
			return s.splice(s.end(parent.Content[first-1], -1), end, "")
		}
		return s.splice(s.start(parent)+1, s.end(parent, -1)-1, "")
	}
	if len(parent.Content) == stride {
		if len(chain) < 3 {
			return nil, fmt.Errorf("the whole resource: %w", ErrNotEditable)
		}
		v := any(map[string]any{})
		if stride == 1 {
			v = []any{}
		}
		return s.replace(chain[len(chain)-2], v)
	}
	from := s.outer(parent.Content[first])
	if stride == 1 {
		from = s.dash(n)
	}
	if s.err != nil {
		return nil, s.err
	}
	line := s.lineStart(from)
	if len(bytes.TrimSpace(s.src[line:from])) > 0 {
		// After a dash: what follows moves up to its place.
		if first+stride >= len(parent.Content) {
			return nil, fmt.Errorf("%s shares its line: %w", p, ErrNotEditable)
		}
		next := s.outer(parent.Content[first+stride])
		if stride == 1 {
			next = s.dash(parent.Content[first+stride])
		}
		return s.splice(from, next, "")
	}
	next := s.nextLine(max(end, from))
	if next == len(s.src) && s.lineEnd(max(end, from)) == next && line > s.base {
		// The last line has no break: the one before it goes instead.
		line = s.lineEnd(line - 1)
	}
	return s.splice(line, next, "")
}

func (d *decoder) plainValue(n *yaml.Node) (any, error) {
	v := d.value(n, "", 0)
	if len(d.errs) > 0 {
		return nil, d.errs[0]
	}
	return v, nil
}

// block renders a value to stand after a colon or a dash whose map or list
// is indented by indent.
func (s *source) block(v any, indent int, afterDash bool) string {
	pad := strings.Repeat(" ", indent+2)
	var b strings.Builder
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			return " {}"
		}
		for i, k := range sortedKeys(v) {
			if i == 0 && afterDash {
				b.WriteString(" ")
			} else {
				b.WriteString(s.eol + pad)
			}
			b.WriteString(s.scalar(k, 0, false) + ":" + s.block(v[k], indent+2, false))
		}
		return b.String()
	case []any:
		if len(v) == 0 {
			return " []"
		}
		for i, e := range v {
			if i == 0 && afterDash {
				b.WriteString(" ")
			} else {
				b.WriteString(s.eol + pad)
			}
			b.WriteString("-" + s.block(e, indent+2, true))
		}
		return b.String()
	}
	return " " + s.scalar(v, 0, false)
}

// literal renders text with line breaks as a block scalar, or quoted where a
// block cannot hold it.
func (s *source) literal(text string, indent int) string {
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) || r == '\ufeff' {
			return s.scalar(text, yaml.DoubleQuotedStyle, false)
		}
	}
	body := strings.TrimRight(text, "\n")
	if body == "" || body[0] == ' ' || body[0] == '\n' {
		return s.scalar(text, yaml.DoubleQuotedStyle, false)
	}
	chomp := ""
	switch len(text) - len(body) {
	case 0:
		chomp = "-"
	case 1:
	default:
		return s.scalar(text, yaml.DoubleQuotedStyle, false)
	}
	var b strings.Builder
	b.WriteString("|" + chomp)
	for line := range strings.SplitSeq(body, "\n") {
		b.WriteString(s.eol)
		if line != "" {
			b.WriteString(strings.Repeat(" ", indent) + line)
		}
	}
	return b.String()
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// flow renders any value on one line.
func (s *source) flow(v any, style yaml.Style) (string, error) {
	if s.json {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(jsonValue(v)); err != nil {
			return "", fmt.Errorf("%w: %w", err, reconcile.ErrInvalid)
		}
		return strings.TrimSuffix(b.String(), "\n"), nil
	}
	switch v := v.(type) {
	case map[string]any:
		parts := make([]string, 0, len(v))
		for _, k := range sortedKeys(v) {
			t, err := s.flow(v[k], 0)
			if err != nil {
				return "", err
			}
			parts = append(parts, s.scalar(k, 0, true)+": "+t)
		}
		return "{" + strings.Join(parts, ", ") + "}", nil
	case []any:
		parts := make([]string, 0, len(v))
		for _, e := range v {
			t, err := s.flow(e, 0)
			if err != nil {
				return "", err
			}
			parts = append(parts, t)
		}
		return "[" + strings.Join(parts, ", ") + "]", nil
	}
	return s.scalar(v, style, true), nil
}

// jsonValue keeps a float a float: encoding/json writes 2.0 as 2.
func jsonValue(v any) any {
	switch v := v.(type) {
	case float64:
		return json.Number(formatFloat(v))
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = jsonValue(e)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = jsonValue(e)
		}
		return l
	}
	return v
}

func formatFloat(f float64) string {
	t := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(t, ".e") {
		t += ".0"
	}
	return t
}

// scalar renders a scalar on one line, with the quotes of style if it is a
// string that they can hold.
func (s *source) scalar(v any, style yaml.Style, flow bool) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return formatFloat(v)
	case map[string]any:
		return "{}"
	case []any:
		return "[]"
	case string:
		printable := true
		for _, r := range v {
			if !unicode.IsPrint(r) || r == '\ufeff' || r == '\u0085' {
				printable = false
			}
		}
		switch {
		case s.json || !printable || style&yaml.DoubleQuotedStyle != 0:
			return quote(v)
		case style&yaml.SingleQuotedStyle != 0:
			return "'" + strings.ReplaceAll(v, "'", "''") + "'"
		case safePlain(v, flow):
			return v
		}
		return quote(v)
	}
	return "null"
}

// quote renders a string in double quotes as both JSON and YAML read it.
func quote(v string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range v {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r == 0x7f || r < 0x10000 && r != ' ' && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// safePlain tells whether a printable string reads back as itself unquoted.
func safePlain(v string, flow bool) bool {
	if v == "" || strings.ContainsAny(v[:1], "-?:,[]{}#&*!|>'\"%@` =<") || strings.HasPrefix(v, "...") {
		return false
	}
	if r, err := plain(v); err != nil || r != any(v) {
		return false
	}
	if c := v[len(v)-1]; c == ' ' || c == ':' {
		return false
	}
	if strings.Contains(v, ": ") || strings.Contains(v, " #") {
		return false
	}
	return !flow || !strings.ContainsAny(v, ",[]{}:")
}
