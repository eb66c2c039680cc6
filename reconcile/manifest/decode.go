package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Limits of one file. They are far above what people write and low enough
// that a hostile file costs little.
const (
	// MaxSize is the largest file, in bytes, that Decode and Edit accept.
	MaxSize = 4 << 20
	// MaxDepth is how deep maps and lists may nest.
	MaxDepth = 100
	// MaxExpansion is how many nodes the aliases of one file may add; a
	// string counts as one node per 64 bytes.
	MaxExpansion = 100_000
)

// Error is one thing wrong with a file. errors.Is(err, reconcile.ErrInvalid)
// holds for every one.
type Error struct {
	// Path is the file as the caller named it.
	Path string
	// Line and Column count from 1, columns in characters; 0 is unknown.
	Line, Column int
	// Field is the field path it is about, or empty.
	Field string
	// Err says what is wrong.
	Err error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(reconcile.Origin{Path: e.Path, Line: e.Line, Column: e.Column}.String())
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if e.Field != "" {
		b.WriteString(e.Field)
		b.WriteString(": ")
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, reconcile.ErrInvalid) true.
func (e *Error) Is(target error) bool { return target == reconcile.ErrInvalid }

// Decode reads all resources of one file: YAML with any number of documents,
// or JSON when path ends in ".json". A List is replaced by its items, and
// documents without content are skipped, so the result may be empty. Each
// resource has Origin.Path (as given), Line and Column, and the position of
// every field.
//
// The error joins one [*Error] for each thing wrong in the file, in the
// file's order; with an error there are no resources. Decode keeps nothing
// of data.
func Decode(path string, data []byte) ([]reconcile.Resource, error) {
	units, err := parse(path, data)
	if err != nil {
		return nil, err
	}
	out := make([]reconcile.Resource, len(units))
	for i, u := range units {
		out[i] = u.res
	}
	return out, nil
}

// unit is one resource together with the syntax that declares it.
type unit struct {
	res  reconcile.Resource
	node *yaml.Node
}

func parse(file string, data []byte) ([]unit, error) {
	d := &decoder{path: file}
	if len(data) > MaxSize {
		return nil, &Error{Path: file, Err: fmt.Errorf("file has %d bytes, more than the limit of %d", len(data), MaxSize)}
	}
	if at := invalidUTF8(data); at >= 0 {
		return nil, &Error{Path: file, Line: 1 + bytes.Count(data[:at], []byte("\n")), Err: errors.New("not UTF-8 text")}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	var roots []*yaml.Node
	if isJSON(file) {
		nodes, err := parseJSON(data)
		roots = nodes
		if err != nil {
			err.Path = file
			d.errs = append(d.errs, err)
		}
	} else {
		roots = d.loadYAML(data)
	}
	var units []unit
	for _, root := range roots {
		units = append(units, d.document(root)...)
	}
	if len(d.errs) > 0 {
		// A syntax error is found before the errors of the documents above it.
		slices.SortStableFunc(d.errs, func(a, b *Error) int {
			if a.Line != b.Line {
				return a.Line - b.Line
			}
			return a.Column - b.Column
		})
		var errs []error
		for i, e := range d.errs {
			// What an alias repeats is wrong in one place only.
			if p := d.errs[max(i-1, 0)]; i > 0 && p.Line == e.Line && p.Column == e.Column && p.Err.Error() == e.Err.Error() {
				continue
			}
			errs = append(errs, e)
		}
		return nil, errors.Join(errs...)
	}
	return units, nil
}

func isJSON(file string) bool { return strings.EqualFold(path.Ext(file), ".json") }

func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

type decoder struct {
	path     string
	errs     []*Error
	expanded int // nodes added by aliases so far
	inAlias  int // depth of aliases being followed
	tooBig   bool
}

func (d *decoder) fail(n *yaml.Node, field, format string, args ...any) {
	e := &Error{Path: d.path, Field: field, Err: fmt.Errorf(format, args...)}
	if n != nil {
		e.Line, e.Column = n.Line, n.Column
	}
	d.errs = append(d.errs, e)
}

func (d *decoder) loadYAML(data []byte) []*yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		d.fail(nil, "", "%w", err)
		return nil
	}
	var roots []*yaml.Node
	for {
		doc := new(yaml.Node)
		err := loader.Load(doc)
		if errors.Is(err, io.EOF) {
			return roots
		}
		if err != nil {
			e := &Error{Path: d.path, Err: err}
			var le *yaml.LoadError
			if errors.As(err, &le) {
				e.Line, e.Column, e.Err = le.Mark.Line, le.Mark.Column, errors.New(le.Message)
				if le.ContextMsg != "" {
					e.Err = fmt.Errorf("%s: %s", le.ContextMsg, le.Message)
				}
			}
			d.errs = append(d.errs, e)
			return roots
		}
		if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
			roots = append(roots, doc.Content[0])
		}
	}
}

// document reads the resources that one document declares.
func (d *decoder) document(root *yaml.Node) []unit {
	if root.Kind == yaml.ScalarNode && root.Style == 0 && root.Value == "" {
		return nil // only comments
	}
	before := len(d.errs)
	v := d.value(root, "", 0)
	if v == nil && len(d.errs) == before {
		return nil // "null" or "~"
	}
	if len(d.errs) > before {
		return nil
	}
	return d.resources(root, v, "", 0)
}

func (d *decoder) resources(n *yaml.Node, v any, at string, depth int) []unit {
	object, ok := v.(map[string]any)
	if !ok {
		d.fail(n, at, "a resource must be a map, not %s", describe(v))
		return nil
	}
	n = follow(n)
	if items, ok := listItems(object); ok {
		if depth > 0 {
			d.fail(n, at, "a List inside a List")
			return nil
		}
		nodes := child(n, "items")
		var out []unit
		for i, item := range items {
			field := reconcile.JoinIndex("items", i)
			in := n
			if nodes != nil && nodes.Kind == yaml.SequenceNode && i < len(nodes.Content) {
				in = nodes.Content[i]
			}
			out = append(out, d.resources(in, item, field, depth+1)...)
		}
		return out
	}
	key, err := reconcile.KeyOf(object)
	if err != nil {
		d.fail(n, at, "%w", err)
		return nil
	}
	w := &walker{fields: make(map[string]reconcile.Position)}
	w.walk(n, object, "")
	return []unit{{
		res: reconcile.Resource{
			Key:    key,
			Object: object,
			Origin: reconcile.Origin{Path: d.path, Line: n.Line, Column: n.Column},
			Fields: w.fields,
		},
		node: n,
	}}
}

// listItems tells whether an object is a Kubernetes list: a kind List, or
// SomethingList without a name of its own.
func listItems(object map[string]any) ([]any, bool) {
	kind, _ := object["kind"].(string)
	if !strings.HasSuffix(kind, "List") {
		return nil, false
	}
	items, ok := object["items"].([]any)
	if kind == "List" {
		return items, ok || object["items"] == nil
	}
	meta, _ := object["metadata"].(map[string]any)
	_, named := meta["name"]
	return items, ok && !named
}

func describe(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case map[string]any:
		return "a map"
	case []any:
		return "a list"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	default:
		return "a number"
	}
}

func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

// child gives the value node of a map's own key, aliases followed.
func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key && !isMerge(n.Content[i]) {
			return follow(n.Content[i+1])
		}
	}
	return nil
}

func isMerge(key *yaml.Node) bool {
	return key.Kind == yaml.ScalarNode && key.Value == "<<" && (key.Style == 0 || key.Tag == "!!merge")
}

// value turns a node into plain values. After an error it goes on, so that
// all errors are found; what it returns is then of no use.
func (d *decoder) value(n *yaml.Node, field string, depth int) any {
	if d.tooBig {
		return nil
	}
	if depth > MaxDepth {
		d.fail(n, field, "nested deeper than %d levels", MaxDepth)
		d.tooBig = true
		return nil
	}
	if d.inAlias > 0 {
		d.expanded += 1 + len(n.Value)/64
		if d.expanded > MaxExpansion {
			d.fail(n, field, "aliases expand to more than %d nodes", MaxExpansion)
			d.tooBig = true
			return nil
		}
	}
	switch n.Kind {
	case yaml.ScalarNode:
		v, err := scalar(n)
		if err != nil {
			d.fail(n, field, "%w", err)
		}
		return v
	case yaml.AliasNode:
		if n.Alias == nil {
			d.fail(n, field, "unknown anchor %q", n.Value)
			return nil
		}
		d.inAlias++
		v := d.value(n.Alias, field, depth+1)
		d.inAlias--
		return v
	case yaml.SequenceNode:
		if tag := explicitTag(n); tag != "" && tag != "!!seq" {
			d.fail(n, field, "tag %s is not supported", tag)
		}
		list := make([]any, len(n.Content))
		for i, e := range n.Content {
			list[i] = d.value(e, reconcile.JoinIndex(field, i), depth+1)
		}
		return list
	case yaml.MappingNode:
		return d.mapping(n, field, depth)
	}
	d.fail(n, field, "unexpected syntax")
	return nil
}

func (d *decoder) mapping(n *yaml.Node, field string, depth int) any {
	if tag := explicitTag(n); tag != "" && tag != "!!map" {
		d.fail(n, field, "tag %s is not supported", tag)
	}
	m := make(map[string]any, len(n.Content)/2)
	var first map[string]*yaml.Node
	if len(n.Content) > 2*8 {
		first = make(map[string]*yaml.Node, len(n.Content)/2)
	}
	var merge *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if isMerge(k) {
			if merge != nil {
				d.fail(k, field, "duplicate key \"<<\"")
			}
			merge = v
			continue
		}
		name, ok := d.key(k, field)
		if !ok {
			continue
		}
		if _, dup := m[name]; dup {
			d.fail(k, reconcile.JoinField(field, name), "duplicate key, first at line %d", firstKey(n, first, name))
			continue
		}
		if first != nil {
			first[name] = k
		}
		m[name] = d.value(v, reconcile.JoinField(field, name), depth+1)
	}
	if merge != nil {
		for _, src := range mergeSources(merge) {
			from, ok := d.value(src, field, depth+1).(map[string]any)
			if !ok {
				if !d.tooBig {
					d.fail(merge, field, "a merge key needs a map or a list of maps")
				}
				continue
			}
			for k, v := range from {
				if _, has := m[k]; !has {
					m[k] = v
				}
			}
		}
	}
	return m
}

func firstKey(n *yaml.Node, first map[string]*yaml.Node, name string) int {
	if k := first[name]; k != nil {
		return k.Line
	}
	for i := 0; i < len(n.Content); i += 2 {
		if follow(n.Content[i]).Value == name {
			return n.Content[i].Line
		}
	}
	return 0
}

// mergeSources are the maps that a merge key brings in, strongest first.
func mergeSources(v *yaml.Node) []*yaml.Node {
	if t := follow(v); t.Kind == yaml.SequenceNode {
		return t.Content
	}
	return []*yaml.Node{v}
}

func (d *decoder) key(k *yaml.Node, field string) (string, bool) {
	t := follow(k)
	if t.Kind != yaml.ScalarNode {
		d.fail(k, field, "a key must be a string, not a collection")
		return "", false
	}
	v, err := scalar(t)
	if err != nil {
		d.fail(k, field, "key %q: %w", t.Value, err)
		return "", false
	}
	s, ok := v.(string)
	if !ok {
		d.fail(k, field, "key %s is %s, not a string; quote it", strconv.Quote(t.Value), describe(v))
		return "", false
	}
	return s, true
}

// explicitTag is the tag that the file itself gives, in short form.
func explicitTag(n *yaml.Node) string {
	if n.Tag == "!" {
		return "!"
	}
	if n.Style&yaml.TaggedStyle == 0 {
		return ""
	}
	return n.ShortTag()
}

func scalar(n *yaml.Node) (any, error) {
	tag := explicitTag(n)
	switch tag {
	case "":
		if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			return n.Value, nil
		}
		return plain(n.Value)
	case "!!str", "!", "!!timestamp":
		return n.Value, nil
	case "!!null", "!!bool", "!!int", "!!float":
		v, err := plain(n.Value)
		if err != nil {
			return nil, err
		}
		switch x := v.(type) {
		case nil:
			if tag == "!!null" {
				return nil, nil
			}
		case bool:
			if tag == "!!bool" {
				return x, nil
			}
		case int64:
			if tag == "!!int" {
				return x, nil
			}
			if tag == "!!float" {
				return float64(x), nil
			}
		case float64:
			if tag == "!!float" {
				return x, nil
			}
		}
		return nil, fmt.Errorf("%s is not a %s", strconv.Quote(n.Value), tag)
	}
	return nil, fmt.Errorf("tag %s is not supported", tag)
}

// plain resolves an unquoted scalar as the Kubernetes tools do.
func plain(s string) (any, error) {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil, nil
	case "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
		return true, nil
	case "n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		return false, nil
	case ".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF":
		return nil, fmt.Errorf("%s has no value in JSON", s)
	}
	c := s[0]
	if c != '+' && c != '-' && c != '.' && (c < '0' || c > '9') {
		return s, nil
	}
	num := s
	if c != '.' {
		if strings.IndexByte(s, '_') >= 0 {
			num = strings.ReplaceAll(s, "_", "")
		}
		i, err := strconv.ParseInt(num, 0, 64)
		if err == nil {
			return i, nil
		}
		if errors.Is(err, strconv.ErrRange) {
			return nil, fmt.Errorf("integer %s does not fit in 64 bits; quote it to keep it as text", s)
		}
	}
	if !floatSyntax(num) {
		return s, nil
	}
	f, err := strconv.ParseFloat(num, 64)
	if err != nil || math.IsInf(f, 0) {
		return nil, fmt.Errorf("number %s is out of range", s)
	}
	return f, nil
}

// floatSyntax matches [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?
func floatSyntax(s string) bool {
	digits := func() int {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		s = s[n:]
		return n
	}
	sign := func() {
		if s != "" && (s[0] == '-' || s[0] == '+') {
			s = s[1:]
		}
	}
	sign()
	whole, frac := digits(), 0
	if s != "" && s[0] == '.' {
		s = s[1:]
		frac = digits()
	}
	if whole == 0 && frac == 0 {
		return false
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s = s[1:]
		sign()
		if digits() == 0 {
			return false
		}
	}
	return s == ""
}

// walker records where fields are. It runs only on what was decoded without
// errors, whose expansion is therefore bounded.
type walker struct {
	fields map[string]reconcile.Position
}

func (w *walker) walk(n *yaml.Node, v any, field string) {
	n = follow(n)
	switch v := v.(type) {
	case map[string]any:
		w.mapping(n, v, field, nil)
	case []any:
		if n.Kind != yaml.SequenceNode || len(n.Content) != len(v) {
			return
		}
		key := reconcile.ListKey(v)
		for i, e := range n.Content {
			at := ""
			if m, ok := v[i].(map[string]any); ok && key != "" {
				at = reconcile.JoinElement(field, key, elementName(m[key]))
			} else {
				at = reconcile.JoinIndex(field, i)
			}
			w.fields[at] = reconcile.Position{Line: e.Line, Column: e.Column}
			w.walk(e, v[i], at)
		}
	}
}

func elementName(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return fmt.Sprint(v)
}

// mapping records the keys of n that are not in seen, then those that its
// merge key adds.
func (w *walker) mapping(n *yaml.Node, m map[string]any, field string, seen map[string]bool) {
	if n.Kind != yaml.MappingNode {
		return
	}
	var merge *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if isMerge(k) {
			merge = n.Content[i+1]
			continue
		}
		name := follow(k).Value
		if seen[name] {
			continue
		}
		at := reconcile.JoinField(field, name)
		w.fields[at] = reconcile.Position{Line: k.Line, Column: k.Column}
		w.walk(n.Content[i+1], m[name], at)
	}
	if merge == nil {
		return
	}
	known := make(map[string]bool, len(seen)+len(n.Content)/2)
	for k := range seen {
		known[k] = true
	}
	add := func(n *yaml.Node) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			known[follow(n.Content[i]).Value] = true
		}
	}
	add(n)
	for _, src := range mergeSources(merge) {
		src = follow(src)
		w.mapping(src, m, field, known)
		add(src)
	}
}
