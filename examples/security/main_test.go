package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"
)

func TestSample(t *testing.T) {
	var out bytes.Buffer
	broken, err := check(sample, &out)
	if err != nil || !broken {
		t.Fatalf("broken %v, %v", broken, err)
	}
	for _, want := range []string{
		"pod-privileged", "manifests/web.yaml:17:13", "excepted by team-platform", "manifests/web.yaml:19:11", "8 findings:",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestBadManifest(t *testing.T) {
	_, err := check(fstest.MapFS{"a/b.yaml": {Data: []byte("kind: A\nkind: B\n")}}, new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), "a/b.yaml") {
		t.Errorf("got %v", err)
	}
}
