package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/crashtest"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
)

var (
	crashRuns = flag.Int("crash.runs", 2, "how often TestKilledController kills the controller")
	update    = flag.Bool("update", false, "write the golden files anew")
)

// autopilotArg makes the test binary the autopilot.
const autopilotArg = "_autopilot"

// The test binary is the shop's processes and the autopilot too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case shopArg:
			os.Exit(shop.Main(os.Args[2:], os.Stderr))
		case autopilotArg:
			os.Exit(run(os.Args[2:], os.Stdout, os.Stderr))
		}
	}
	os.Exit(m.Run())
}

func TestBadFlags(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"-story short", `-story "short" is none of [full release none]`},
		{"-culprit cat", `-culprit "cat" is none of [frontend`},
		{"-defect odd", `-defect "odd" is none of [errors slow both]`},
		{"-speed 5", "-speed 5 is not in 60..4320"},
		{"-speed NaN", "-speed NaN is not in"},
		{"-peak 1000", "-peak 1000 is not in 5..200"},
		{"-approve perhaps", `-approve "perhaps" is none of`},
		{"-story none", "-story none needs -dir"},
		{"-seed -1", "invalid value"},
		{"-sped 60", "-sped"},
		{"now", `unexpected argument "now"`},
	} {
		t.Run(tc.args, func(t *testing.T) {
			var out, errw bytes.Buffer
			if code := run(strings.Fields(tc.args), &out, &errw); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			if !strings.Contains(errw.String(), tc.want) {
				t.Errorf("said %q, want %q in it", errw.String(), tc.want)
			}
			if out.Len() > 0 {
				t.Errorf("wrote %q to standard output", out.String())
			}
		})
	}
	var out, errw bytes.Buffer
	if code := run([]string{"-h"}, &out, &errw); code != 0 || !strings.Contains(errw.String(), "usage: autopilot") {
		t.Errorf("-h: code %d, said %q", code, errw.String())
	}
}

// repository makes one with the shop's manifests, after edit has changed them.
func repository(t *testing.T, edit func(files map[string][]byte)) string {
	t.Helper()
	files := map[string][]byte{}
	err := fs.WalkDir(shop.Manifests(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files["shop/"+name], err = fs.ReadFile(shop.Manifests(), name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	edit(files)
	dir := filepath.Join(t.TempDir(), "repo.git")
	if _, err := gitsource.Init(t.Context(), dir, gitsource.CommitRequest{Message: "Declare the shop", Author: developer(), Files: files}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBadInput(t *testing.T) {
	replace := func(file, old, with string) func(map[string][]byte) {
		return func(files map[string][]byte) {
			text := string(files[file])
			if !strings.Contains(text, old) {
				t.Fatalf("%s has no %q", file, old)
			}
			files[file] = []byte(strings.Replace(text, old, with, 1))
		}
	}
	trace := filepath.Join(t.TempDir(), "trace.txt")
	if err := os.WriteFile(trace, []byte("# requests\n10\n12\ntwelve\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		args []string
		want []string
	}{
		{"no such repository", []string{"-repo", "/nowhere/shop.git"}, []string{"/nowhere/shop.git"}},
		{"a service is missing", []string{"-repo", repository(t, func(f map[string][]byte) { delete(f, "shop/payment.yaml") })},
			[]string{"does not declare", "payment"}},
		{"broken YAML", []string{"-repo", repository(t, replace("shop/cart.yaml", "kind: Service\n", "kind: [Service\n"))},
			[]string{"shop/cart.yaml:"}},
		{"no capacity", []string{"-repo", repository(t, replace("shop/stock.yaml", "shop.example/capacity-rps: \"", "shop.example/capacity-rps: \"about "))},
			[]string{"shop/stock.yaml:", "not a number of requests a second"}},
		{"trace with a word", []string{"-trace", trace}, []string{"trace.txt", "line 4", "twelve"}},
		{"no such trace", []string{"-trace", trace + ".gz"}, []string{"trace.txt.gz"}},
		{"directory in a file", []string{"-dir", filepath.Join(trace, "dir")}, []string{"trace.txt"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			var out, errw bytes.Buffer
			if code := run(tc.args, &out, &errw); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			for _, want := range tc.want {
				if !strings.Contains(errw.String(), want) {
					t.Errorf("said %q, want %q in it", errw.String(), want)
				}
			}
			nothingLeft(t, tmp)
		})
	}
}

// nothingLeft holds that a directory for temporary files is empty and that no
// process runs for anything in it.
func nothingLeft(t *testing.T, tmp string) {
	t.Helper()
	left, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("%s is left behind", e.Name())
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is good
	for _, p := range procs {
		if line, err := os.ReadFile(p); err == nil && bytes.Contains(line, []byte(tmp)) {
			t.Errorf("%s is left behind: %q", filepath.Dir(p), line)
		}
	}
}

// output is what a process has printed so far.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func TestInterrupted(t *testing.T) {
	for _, tc := range []struct {
		name   string
		signal os.Signal
		when   func(out string, entries []rundir.Entry) bool
	}{
		{"during start-up", syscall.SIGINT, func(_ string, e []rundir.Entry) bool { return len(e) > 4 }},
		{"in the story", syscall.SIGINT, func(out string, _ []rundir.Entry) bool { return strings.Contains(out, "the shop is as declared") }},
		{"by SIGTERM", syscall.SIGTERM, func(_ string, e []rundir.Entry) bool { return len(e) > 0 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			out := &output{}
			cmd := exec.Command(os.Args[0], autopilotArg)
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			cmd.Stdout, cmd.Stderr = out, out
			cmd.SysProcAttr = rundir.Detached()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { defer close(done); _ = cmd.Wait() }() // its state tells
			defer func() { _ = cmd.Process.Kill(); <-done }() // it has ended where all is well
			var entries []rundir.Entry
			if !until(t.Context(), 30*time.Second, func() bool {
				dirs, _ := filepath.Glob(filepath.Join(tmp, "evenkeel-autopilot-*"))
				if len(dirs) == 1 {
					// Between the making of the directory and that of its
					// parts there is nothing to read yet.
					entries, _ = (&rundir.Reader{Dir: rundir.Dir(dirs[0])}).Read()
				}
				return tc.when(out.String(), entries)
			}) {
				t.Fatalf("it did not get there:\n%s", out)
			}
			if err := cmd.Process.Signal(tc.signal); err != nil {
				t.Fatal(err)
			}
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Fatalf("it does not end:\n%s", out)
			}
			if code := cmd.ProcessState.ExitCode(); code != 130 {
				t.Errorf("exit code %d, want 130:\n%s", code, out)
			}
			if want := "interrupted; all processes have ended"; !strings.Contains(out.String(), want) {
				t.Errorf("said nothing of %q:\n%s", want, out)
			}
			for _, e := range entries {
				if e.Alive() {
					t.Errorf("%s (pid %d) still runs", e.ID, e.PID)
				}
			}
			nothingLeft(t, tmp)
		})
	}
}

// A controller that is killed again and again while it starts leaves nothing
// half made that the next could not go on from.
func TestKilledDuringStartUp(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("starts some forty processes")
	}
	plan := crashtest.Plan{Fault: crashtest.NoFault}
	for i, ms := range []int{5, 15, 25, 40, 60, 90, 130, 180, 250, 350, 500, 700, 1000} {
		k := crashtest.Kill{Anchor: crashtest.Restarted, After: time.Duration(ms) * time.Millisecond}
		if i == 0 {
			k.Anchor = crashtest.Started
		}
		plan.Kills = append(plan.Kills, k)
	}
	dir := filepath.Join(t.TempDir(), "shop")
	r, err := crashtest.Run(t.Context(), crashtest.Options{Command: []string{os.Args[0], autopilotArg}, Dir: dir, Plan: plan})
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK() || r.Kills != len(plan.Kills) {
		t.Errorf("%d kills: %s\n%s", r.Kills, r, r.Tail)
	}
}

// The first two runs kill in the middle of a repair: of a bad release, twice,
// and of a leaking replica. internal/bench/loop makes fifty.
func TestKilledController(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("starts some forty processes a run")
	}
	seeds := []uint64{10, 15}
	for s := uint64(1); len(seeds) < *crashRuns; s++ {
		if !slices.Contains(seeds, s) {
			seeds = append(seeds, s)
		}
	}
	turns := make(chan struct{}, 2)
	for _, seed := range seeds[:*crashRuns] {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			turns <- struct{}{}
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			r, err := crashtest.Run(ctx, crashtest.Options{Command: []string{os.Args[0], autopilotArg}, Dir: filepath.Join(t.TempDir(), "shop"), Seed: seed})
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK() {
				t.Errorf("%s\n%s", r, r.Tail)
			}
			if r.Kills == 0 {
				t.Errorf("%s: nobody was killed", r.Plan)
			}
			if r.Commits == 0 {
				t.Errorf("%s: automation made no commit", r.Plan)
			}
		})
	}
}
