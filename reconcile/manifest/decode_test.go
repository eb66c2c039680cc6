package manifest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

func TestDecodePositions(t *testing.T) {
	got, err := Decode("shop/cart.yaml", []byte(deployment))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Key.String() != "Deployment.apps/shop/cart" || got[1].Key.String() != "ConfigMap/shop/cart" {
		t.Fatalf("%v", got)
	}
	if d := cmp.Diff(reconcile.Origin{Path: "shop/cart.yaml", Line: 2, Column: 1}, got[0].Origin); d != "" {
		t.Error(d)
	}
	want := map[string]reconcile.Position{
		"apiVersion":          {Line: 2, Column: 1},
		"kind":                {Line: 3, Column: 1},
		"metadata":            {Line: 4, Column: 1},
		"metadata.name":       {Line: 5, Column: 3},
		"metadata.namespace":  {Line: 6, Column: 3},
		"metadata.labels":     {Line: 7, Column: 3},
		"metadata.labels.app": {Line: 7, Column: 12}, "metadata.labels.tier": {Line: 7, Column: 23},
		"spec":                          {Line: 8, Column: 1},
		"spec.replicas":                 {Line: 9, Column: 3},
		"spec.template":                 {Line: 10, Column: 3},
		"spec.template.spec":            {Line: 11, Column: 5},
		"spec.template.spec.containers": {Line: 12, Column: 7},
		"spec.template.spec.containers[name=cart]":                        {Line: 13, Column: 9},
		"spec.template.spec.containers[name=cart].name":                   {Line: 13, Column: 9},
		"spec.template.spec.containers[name=cart].image":                  {Line: 14, Column: 9},
		"spec.template.spec.containers[name=cart].args":                   {Line: 15, Column: 9},
		"spec.template.spec.containers[name=cart].args[0]":                {Line: 15, Column: 16},
		"spec.template.spec.containers[name=cart].args[1]":                {Line: 15, Column: 23},
		"spec.template.spec.containers[name=proxy]":                       {Line: 17, Column: 9},
		"spec.template.spec.containers[name=proxy].name":                  {Line: 17, Column: 9},
		"spec.template.spec.containers[name=proxy].image":                 {Line: 18, Column: 9},
		"spec.template.spec.containers[name=proxy].env":                   {Line: 19, Column: 9},
		"spec.template.spec.containers[name=proxy].env[name=LEVEL]":       {Line: 20, Column: 11},
		"spec.template.spec.containers[name=proxy].env[name=LEVEL].name":  {Line: 20, Column: 11},
		"spec.template.spec.containers[name=proxy].env[name=LEVEL].value": {Line: 21, Column: 11},
		"spec.strategy": {Line: 22, Column: 3},
	}
	if d := cmp.Diff(want, got[0].Fields); d != "" {
		t.Error(d)
	}
	// Every field has a place, and no place is of a field that is not there.
	for _, r := range got {
		for f := range r.Fields {
			p, err := reconcile.ParsePath(f)
			if err != nil {
				t.Error(err)
			} else if _, ok := p.Get(any(r.Object)); !ok {
				t.Errorf("no value at %s", f)
			}
		}
	}
}

func TestDecodeValues(t *testing.T) {
	const head = "kind: A\nmetadata: {name: b}\n"
	for text, want := range map[string]any{
		"1": int64(1), "-7": int64(-7), "+7": int64(7), "1_000": int64(1000), "0x1F": int64(31), "0b101": int64(5), "0777": int64(511), "0o17": int64(15),
		"9223372036854775807": int64(9223372036854775807), "-9223372036854775808": int64(-9223372036854775808),
		"1.5": 1.5, "1e3": 1000.0, ".5": .5, "-0.0": 0.0, "2.0": 2.0, "1.": 1.0, "0888": 888.0,
		"true": true, "yes": true, "On": true, "y": true, "no": false, "OFF": false, "n": false,
		"~": nil, "null": nil, "": nil, "Null": nil,
		"2026-01-02": "2026-01-02", "2026-01-02T03:04:05Z": "2026-01-02T03:04:05Z", "1:30": "1:30", "1.2.3": "1.2.3", "-": nil,
		"yEs": "yEs", `"yes"`: "yes", "'1'": "1", "!!str 1": "1", "!!int 1": int64(1), "!!float 1": 1.0, "! 1": "1", "!!null ''": nil,
		"|\n  a\n  b": "a\nb", "|\n  a\n": "a\n", ">-\n  a\n  b": "a b", "1e": "1e", "e1": "e1", "0x": "0x", "1,000": "1,000",
	} {
		if text == "-" {
			continue
		}
		got, err := Decode("a.yaml", []byte(head+"v: "+text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if v := got[0].Object["v"]; v != want {
			t.Errorf("%q is %#v, want %#v", text, v, want)
		}
	}
	for _, text := range []string{
		"9223372036854775808", "-9223372036854775809", "0xFFFFFFFFFFFFFFFFF", "1e999", ".nan", ".inf", "-.Inf", "!!binary aGk=", "!mine x", "!!set {a}", "!!int x", "!!bool 1", "!!omap []",
		"{1: a}", "{yes: a}", "{null: a}", "{[a]: b}", "{1.5: a}", "{2026: x}", "*nope", "{<<: 1}", "[", "{a: 1, a: 2}", "\xff", "\t- a",
	} {
		_, err := Decode("a.yaml", []byte(head+"v: "+text))
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, reconcile.ErrInvalid) || e.Path != "a.yaml" || e.Line < 3 {
			t.Errorf("%q: %#v", text, err)
		}
	}
}

func TestDecodeDocuments(t *testing.T) {
	doc := func(name string) string { return "kind: A\nmetadata:\n  name: " + name + "\n" }
	for name, tc := range map[string]struct {
		path, text string
		want       []string // key@line
	}{
		"empty":          {"a.yaml", "", nil},
		"comments":       {"a.yaml", "# x\n---\n# y\n", nil},
		"null":           {"a.yaml", "---\n~\n---\nnull\n", nil},
		"several":        {"a.yaml", "---\n" + doc("a") + "---\n---\n# c\n" + doc("b") + "...\n---\n" + doc("c"), []string{"A/a@2", "A/b@8", "A/c@13"}},
		"bom and crlf":   {"a.yaml", "\ufeff" + strings.ReplaceAll(doc("a")+"---\n"+doc("b"), "\n", "\r\n"), []string{"A/a@1", "A/b@5"}},
		"list":           {"a.yaml", "apiVersion: v1\nkind: List\nitems:\n- kind: A\n  metadata: {name: a}\n- kind: A\n  metadata: {name: b}\n", []string{"A/a@4", "A/b@6"}},
		"typed list":     {"a.yaml", "kind: AList\nmetadata: {}\nitems: [{kind: A, metadata: {name: a}}]\n", []string{"A/a@3"}},
		"named List":     {"a.yaml", "kind: AccessList\nmetadata: {name: x}\nitems: [1]\n", []string{"AccessList/x@1"}},
		"empty list":     {"a.yaml", "kind: List\nitems: []\n", nil},
		"json":           {"a.json", "{\"kind\":\"A\",\n\t\"metadata\":{\"name\":\"\\ud83d\\ude00\"}}", []string{"A/😀@1"}},
		"json list":      {"a.json", "\ufeff{\"kind\":\"List\",\"items\":[\n{\"kind\":\"A\",\"metadata\":{\"name\":\"a\"}}]}", []string{"A/a@2"}},
		"json stream":    {"a.json", "{\"kind\":\"A\",\"metadata\":{\"name\":\"a\"}}\n{\"kind\":\"A\",\"metadata\":{\"name\":\"b\"}}", []string{"A/a@1", "A/b@2"}},
		"json in a yaml": {"a.yaml", "{\"kind\":\"A\",\"metadata\":{\"name\":\"a\"}}", []string{"A/a@1"}},
		"json empty":     {"a.json", " \n", nil},
	} {
		got, err := Decode(tc.path, []byte(tc.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var keys []string
		for _, r := range got {
			keys = append(keys, fmt.Sprintf("%s@%d", r.Key, r.Origin.Line))
		}
		if d := cmp.Diff(tc.want, keys); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestDecodeAliases(t *testing.T) {
	const text = `kind: A
metadata: {name: b}
base: &base
  cpu: 1
  mem: 2
one: *base
two:
  <<: *base
  mem: 3
three:
  <<: [{cpu: 9, disk: 1}, *base]
`
	got, err := Decode("a.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	base := map[string]any{"cpu": int64(1), "mem": int64(2)}
	want := map[string]any{
		"kind": "A", "metadata": map[string]any{"name": "b"}, "base": base, "one": base,
		"two":   map[string]any{"cpu": int64(1), "mem": int64(3)},
		"three": map[string]any{"cpu": int64(9), "disk": int64(1), "mem": int64(2)},
	}
	if d := cmp.Diff(want, got[0].Object); d != "" {
		t.Error(d)
	}
	for path, line := range map[string]int{"one": 6, "one.cpu": 4, "two.cpu": 4, "two.mem": 9, "three.cpu": 11, "three.mem": 5} {
		if got[0].Fields[path].Line != line {
			t.Errorf("%s at %v, want line %d", path, got[0].Fields[path], line)
		}
	}
	got[0].Object["one"].(map[string]any)["cpu"] = int64(5)
	if base := got[0].Object["base"].(map[string]any); base["cpu"] != int64(1) {
		t.Error("an alias shares its map with the anchor")
	}
}

func TestDecodeAllErrors(t *testing.T) {
	const text = "kind: A\nmetadata: {name: a}\nx: {b: 1, b: 2}\ny: .nan\n---\nkind: B\n---\n- 1\n---\nmetadata: {name: a}\n---\nkind: A/B\nmetadata: {name: a}\n---\nkind: List\nitems: [1, {kind: List}]\n---\na: [\n"
	_, err := Decode("x.yaml", []byte(text))
	want := `x.yaml:3:11: x.b: duplicate key, first at line 3
x.yaml:4:1: key "y" is a boolean, not a string; quote it
x.yaml:6:1: reconcile: B has no metadata.name: invalid
x.yaml:8:1: a resource must be a map, not a list
x.yaml:10:1: reconcile: object has no kind: invalid
x.yaml:12:1: reconcile: A/B: name part "A/B" has a slash or white space: invalid
x.yaml:16:9: items[0]: a resource must be a map, not a number
x.yaml:16:12: items[1]: a List inside a List
x.yaml:19:1: while parsing a flow node: did not find expected node content`
	if err == nil {
		t.Fatal("no error")
	}
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Error(d)
	}
	for _, text := range []string{`{"a":1`, `{a:1}`, `{"a" 1}`, `[1,]`, `{"a":01}`, `{"a":tru}`, `{"a":"` + "\n" + `"}`, `{"a":"\x"}`, `x`, `{"a":1e999}`, `{"a":99999999999999999999}`, `{"kind":"A","metadata":{"name":"a"},"a":1,"a":2}`, strings.Repeat("[", 5000)} {
		_, err := Decode("x.json", []byte(text))
		var e *Error
		if !errors.As(err, &e) || e.Line != max(1, e.Line) || e.Column < 1 {
			t.Errorf("%.40s: %v", text, err)
		}
	}
}

func TestDecodeHostile(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("kind: A\nmetadata: {name: b}\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	for name, text := range map[string]string{
		"laughs":     laughs.String(),
		"merged":     strings.ReplaceAll(laughs.String(), "[x, x, x, x, x, x, x, x, x, x]", "{k: v}"),
		"self":       "a: &a [*a]\n",
		"self merge": "a: &a {<<: *a}\n",
		"deep flow":  strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
		"deep block": strings.Repeat("- ", 5000) + "x",
		"large":      strings.Repeat("#", MaxSize+1),
		"long alias": "kind: A\nmetadata: {name: b}\na: &a " + strings.Repeat("x", 1<<20) + "\nb: [" + strings.TrimSuffix(strings.Repeat("*a,", 100), ",") + "]\n",
	} {
		if _, err := Decode("a.yaml", []byte(text)); !errors.Is(err, reconcile.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		} else if len(err.Error()) > 2000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

// Every scalar of every test document is set to values of every type; the
// result must decode to the object with the field set, and all bytes outside
// one stretch must be the same.
func TestEditProperties(t *testing.T) {
	values := []any{nil, true, int64(7), 2.5, 1e300, "", "plain", "yes", "1", "a: b", "x #y", "- a", "é😀", "tab\there", "two\nlines", "trail\n", " lead", "'q'", `"q"\`, "\u2028", "\x7f", "<<", "key:", "[a]", "{", "@at", "%x", "null", "~", "0x1", "1e3", "2026-01-01", strings.Repeat("long ", 50),
		map[string]any{}, []any{}, map[string]any{"a b": "c", "l": []any{int64(1), map[string]any{"x": "y", "z": []any{}}}}, []any{"a", []any{"b"}}}
	docs := map[string]string{
		"a.yaml": deployment,
		"b.yaml": "kind: A\r\nmetadata:\r\n    name: b\r\n    \"q\": 'it''s' # c\r\nspec: {a: [1, {b: c}], d: \"e\\\"f\"}\r\nlist:\r\n    -   x: |-\r\n            t\r\n        w: >\r\n            folded\r\n            text\r\n    - - 1\r\n      - 2\r\n    -\r\n        z: 1\r\n",
		"c.yaml": "kind: A\nmetadata:\n  name: b\nkeep: |+\n  a\n\n\nafter: 1\nplain: multi\n  line\n\n  text # c\n? ex\n: plicit\nempty:\nlast: !!str 5",
		"d.json": "{\n  \"kind\": \"A\",\n  \"metadata\": {\"name\": \"b\"},\n  \"spec\": {\"a\": [1, \"x\", null], \"b\": {}}\n}\n",
		"e.json": `{"kind":"A","metadata":{"name":"b"},"spec":{"a":1}}`,
	}
	done, refused, turn := 0, 0, 0
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		data := []byte(docs[name])
		resources, err := Decode(name, data)
		if err != nil {
			t.Fatal(name, err)
		}
		for _, r := range resources {
			for _, field := range slices.Sorted(maps.Keys(r.Fields)) {
				paths := []string{field}
				if p, _ := reconcile.ParsePath(field); len(p) > 0 {
					if v, _ := p.Get(any(r.Object)); isMap(v) {
						paths = append(paths, reconcile.JoinField(field, "new key"))
					}
				}
				for _, path := range paths {
					if strings.HasPrefix(path, "kind") || strings.HasPrefix(path, "apiVersion") || path == "metadata" || strings.HasPrefix(path, "metadata.name") {
						continue
					}
					turn++
					for i := -1; i < len(values); i++ {
						// Each place gets another quarter of the values.
						if i >= 0 && (turn+i)%4 != 0 {
							continue
						}
						e := reconcile.Edit{Key: r.Key, Path: path, Remove: i < 0}
						if i >= 0 {
							e.Value = values[i]
						}
						out, err := Edit(name, data, []reconcile.Edit{e})
						if errors.Is(err, ErrNotEditable) {
							refused++
							if e.Path != "ex" { // the explicit "? key" of c.yaml
								t.Logf("%s: %s = %#v (remove %v): %v", name, path, e.Value, e.Remove, err)
							}
							continue
						}
						if err != nil {
							t.Errorf("%s: %s = %#v: %v", name, path, e.Value, err)
							continue
						}
						done++
						checkEdit(t, name, data, out, e)
					}
				}
			}
		}
	}
	t.Logf("%d edits, %d refused", done, refused)
	if refused*20 > done {
		t.Errorf("%d of %d edits refused", refused, done+refused)
	}
}

func isMap(v any) bool { _, ok := v.(map[string]any); return ok }

// checkEdit holds an edit's result to what it promises, with means of its own.
func checkEdit(t testing.TB, name string, in, out []byte, e reconcile.Edit) {
	t.Helper()
	before, err := Decode(name, in)
	if err != nil {
		t.Fatal(err)
	}
	after, err := Decode(name, out)
	if err != nil {
		t.Fatalf("%s = %#v: %v\n%s", e.Path, e.Value, err, out)
	}
	p, err := reconcile.ParsePath(e.Path)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range before {
		want := reconcile.CloneObject(r.Object)
		if r.Key == e.Key {
			if e.Remove {
				p.Delete(want)
			} else {
				old, _ := p.Get(any(want))
				v, err := normal(e.Value, old, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Set(want, v); err != nil {
					t.Fatal(err)
				}
			}
		}
		if d := cmp.Diff(want, after[i].Object); d != "" {
			t.Fatalf("%s = %#v: %s", e.Path, e.Value, d)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{deployment, "a: &a [*a]", "kind: List\nitems:\n- kind: A\n  metadata: {name: b}", "? a\n: b", "{<<: [*a]}", "--- |\n x", "\ufeffa: 1\r\nb: 'x'", "!!str 1: 2", "%YAML 1.1\n---\nkind: A\nmetadata: {name: b}"} {
		f.Add([]byte(s), false)
	}
	f.Add([]byte(`{"kind":"A","metadata":{"name":"b"},"l":[1,2.5,"\ud83d",null]}`), true)
	f.Fuzz(func(t *testing.T, data []byte, json bool) {
		name := "a.yaml"
		if json {
			name = "a.json"
		}
		got, err := Decode(name, data)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(got) > 0 {
				t.Fatalf("%d resources, %v", len(got), err)
			}
			return
		}
		lines := 1 + strings.Count(strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n").Replace(string(data)), "\n")
		for _, r := range got {
			if k, err := reconcile.KeyOf(r.Object); err != nil || k != r.Key {
				t.Fatal(k, err)
			}
			for path, pos := range r.Fields {
				p, err := reconcile.ParsePath(path)
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := p.Get(any(r.Object)); !ok || pos.Line < 1 || pos.Line > lines || pos.Column < 1 {
					t.Fatalf("%s at %v of %d lines", path, pos, lines)
				}
			}
		}
	})
}

func FuzzEdit(f *testing.F) {
	f.Add([]byte(deployment), "spec.replicas", "5", false, false)
	f.Add([]byte("kind: A\nmetadata: {name: b}\nspec: {a: [x, 'y']}\n"), "spec.a[1]", "a\nb", false, false)
	f.Add([]byte("kind: A\nmetadata:\n  name: b\nspec:\n"), `spec["x y"].z`, "no", false, false)
	f.Add([]byte(`{"kind":"A","metadata":{"name":"b"}}`), "spec.x", "1", false, true)
	f.Add([]byte("kind: A\nmetadata: &m\n  name: b\nx: *m\n"), "x.name", "1", true, false)
	f.Fuzz(func(t *testing.T, data []byte, path, value string, remove, json bool) {
		name := "a.yaml"
		if json {
			name = "a.json"
		}
		resources, err := Decode(name, data)
		if err != nil {
			return
		}
		for _, r := range resources {
			e := reconcile.Edit{Key: r.Key, Path: path, Value: value, Remove: remove}
			out, err := Edit(name, data, []reconcile.Edit{e})
			if err != nil {
				if !errors.Is(err, reconcile.ErrInvalid) && !errors.Is(err, ErrNotEditable) {
					t.Fatal(err)
				}
				continue
			}
			checkEdit(t, name, data, out, e)
		}
	})
}

func benchManifest() []byte {
	var b strings.Builder
	b.WriteString(deployment[:strings.Index(deployment, "  strategy:")])
	for i := 0; b.Len() < 2048; i++ {
		fmt.Fprintf(&b, "      - name: side%d\n        image: registry.example.org/side:%d\n        resources:\n          limits: {cpu: 100m, memory: 64Mi}\n", i, i)
	}
	return []byte(b.String())
}

func BenchmarkDecode(b *testing.B) {
	data := benchManifest()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode("a.yaml", data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEdit(b *testing.B) {
	data := benchManifest()
	k := reconcile.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "cart"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Set("a.yaml", data, k, "spec.replicas", int64(9)); err != nil {
			b.Fatal(err)
		}
	}
}
