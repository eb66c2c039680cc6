package gitsource

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// A repository of 2,000 manifests in 200 directories.
func bigRepo(b *testing.B) *Repository {
	files := make(map[string]string, 2000)
	for i := range 2000 {
		files[fmt.Sprintf("team%d/app%d/svc%d.yaml", i/100, i/10, i)] = deployment(fmt.Sprint("svc", i), 1, "x:1")
	}
	r, _ := newRepo(b, files, Options{})
	fetch(b, r)
	return r
}

func BenchmarkFetchUnchanged(b *testing.B) {
	r := bigRepo(b)
	b.ReportAllocs()
	for b.Loop() {
		fetch(b, r)
	}
}

func BenchmarkFetchOneFileOf2000(b *testing.B) {
	r := bigRepo(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		b.StopTimer()
		i++
		push(b, r, "Change", map[string]string{"team3/app33/svc333.yaml": deployment("svc333", 1+i, "x:1")})
		b.StartTimer()
		fetch(b, r)
	}
}

func BenchmarkWriteIn2000(b *testing.B) {
	r := bigRepo(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if _, err := r.Write(b.Context(), setReplicas(fmt.Sprint("bench-", i), "svc333", 1+i)); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{"Subject", "Subject\n\nBody: x\n", "a\n\nb\n\nKey: v\n  more\n", "Key: v", "\r\n\r\nA: b"} {
		f.Add(s, "Action-Id", "x 1")
	}
	f.Fuzz(func(t *testing.T, message, key, value string) {
		text, err := formatMessage(message, []reconcile.Trailer{{Key: "Incident-Id", Value: value}, {Key: key, Value: value}})
		if err != nil {
			return
		}
		body, trailers := parseMessage(text)
		if len(trailers) != 2 || trailers[1].Key != key || trailers[0].Value != trailers[1].Value {
			t.Fatalf("%q gave %q and %q", text, body, trailers)
		}
		if want := strings.TrimSpace(strings.ReplaceAll(message, "\r\n", "\n")); body != want {
			t.Fatalf("message %q, want %q", body, want)
		}
		_, _ = parseMessage(message)
	})
}

func FuzzMerge(f *testing.F) {
	f.Add("a\nb\nc\n", "a\nx\nc\n", "a\nb\nc\nd\n")
	f.Add("a\nb", "", "b\n")
	f.Fuzz(func(t *testing.T, base, other, tip string) {
		if len(base)+len(other)+len(tip) > 3000 {
			return
		}
		for _, tc := range []struct{ b, o, t, want string }{{base, other, base, other}, {base, base, tip, tip}, {base, other, other, other}} {
			got, ok := merge3([]byte(tc.b), []byte(tc.o), []byte(tc.t))
			if !ok || string(got) != tc.want {
				t.Fatalf("merge of %q: %q %v, want %q", tc, got, ok, tc.want)
			}
		}
		one, ok1 := merge3([]byte(base), []byte(other), []byte(tip))
		two, ok2 := merge3([]byte(base), []byte(tip), []byte(other))
		if ok1 != ok2 && bytes.Equal(one, two) {
			t.Fatal("a merge depends on the order of its sides")
		}
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("**/a*/?.yaml", "x/ab/c.yaml")
	f.Fuzz(func(t *testing.T, glob, name string) {
		m, err := newMatcher([]string{glob}, nil)
		if err != nil {
			return
		}
		if i := strings.LastIndex(name, "/"); m.file(name) && i > 0 && !m.dir(name[:i]) {
			t.Fatalf("%q reads %q but does not enter its directory", glob, name)
		}
	})
}

func BenchmarkLogUnchanged(b *testing.B) {
	r, _ := newRepo(b, map[string]string{"a.yaml": deployment("a", 1, "x"), "b.yaml": deployment("b", 1, "x")}, Options{})
	for i := range 300 {
		push(b, r, "Change", map[string]string{"a.yaml": deployment("a", 2+i, "x")})
	}
	for _, limit := range []int{50, 1000} {
		b.Run(fmt.Sprint(limit), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				log, err := r.Log(b.Context(), LogOptions{Limit: limit})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := r.Changes(b.Context(), log[0].Revision); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
