package security

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
)

// goldenFindings evaluates testdata/manifests with the default rules and two
// exceptions, one of which has expired.
func goldenFindings(t *testing.T) []Finding {
	t.Helper()
	files, err := filepath.Glob("testdata/manifests/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var rs []reconcile.Resource
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		more, err := manifest.Decode("deploy/"+filepath.Base(f), data)
		if err != nil {
			t.Fatal(err)
		}
		for i := range more {
			more[i].Origin.Revision = "4f1d9c2a7b30c5e8"
		}
		rs = append(rs, more...)
	}
	sel := Selector{Kinds: []string{"DaemonSet"}, Names: []string{"node-agent"}}
	set := newSet(t, Config{Exceptions: []Exception{
		{Policy: "pod-host-path", Selector: sel, Owner: "platform", Reason: "reads the nodes' logs", Expires: now.AddDate(0, 1, 0)},
		{Policy: "pod-host-namespaces", Selector: sel, Owner: "platform", Reason: "until the agent has its own listener", Expires: now.AddDate(0, -1, 0),
			Origin: reconcile.Origin{Path: "policy/exceptions.yaml", Line: 9, Column: 3}},
	}})
	return set.Evaluate(state(t, rs))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (go test -update rewrites it):\n%s", name, d)
	}
}

func TestGoldenOutput(t *testing.T) {
	fs := goldenFindings(t)
	var table, js, lines bytes.Buffer
	if err := WriteTable(&table, fs); err != nil {
		t.Fatal(err)
	}
	if err := WriteJSON(&js, fs); err != nil {
		t.Fatal(err)
	}
	for _, f := range fs {
		lines.WriteString(f.String() + "\n")
	}
	golden(t, "findings.table", table.Bytes())
	golden(t, "findings.json", js.Bytes())
	golden(t, "findings.lines", lines.Bytes())

	var back []Finding
	if err := json.Unmarshal(js.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(fs, back); d != "" {
		t.Errorf("JSON does not give the findings back: %s", d)
	}
}

func TestOutputOfNothing(t *testing.T) {
	var b bytes.Buffer
	if err := errors.Join(WriteTable(&b, nil), WriteJSON(&b, nil)); err != nil || b.String() != "no findings\n[]\n" {
		t.Errorf("got %q, %v", b.String(), err)
	}
}

func TestTableIsSafeToPrint(t *testing.T) {
	var b bytes.Buffer
	f := Finding{Rule: "r", Severity: Low, Key: reconcile.Key{Kind: "Pod", Name: "a\x1b[2Jb"}, Origin: reconcile.Origin{Path: "x\ny"}, Message: "m\t\rn\u202e"}
	if err := WriteTable(&b, []Finding{f}); err != nil {
		t.Fatal(err)
	}
	out := b.String() + f.String()
	if strings.ContainsAny(out, "\x1b\r\t\u202e") || strings.Count(b.String(), "\n") != 4 {
		t.Errorf("got %q", out)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestWriteErrors(t *testing.T) {
	if err := WriteTable(full{}, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := WriteJSON(full{}, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
	f := []Finding{{Severity: Critical + 1, Exception: &AppliedException{Expires: time.Time{}}}}
	if err := WriteJSON(full{}, f); !errors.Is(err, reconcile.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}
