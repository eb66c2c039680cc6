// Loop measures the closed loop as a whole, on the autopilot of the examples:
// real processes, a real repository, and nothing told to the program that
// is measured.
//
//	go run ./internal/bench/loop [-quick] [-json FILE]
//
// Three parts:
//
//   - releases: seeded runs with one bad release each, all services in turn
//     the culprit, with errors, latency or both. Was the culprit at rank 1 in
//     the first incident after the release, was the commit named, and how
//     long after the first bad sample was it reverted? A run that failed
//     counts as wrong and as never reverted.
//   - story: the whole default story: its time, the requests that failed, and
//     replica-minutes against a static fleet and against the HPA rule.
//   - crashes: runs in which the controller is killed with SIGKILL at seeded
//     moments; see package crashtest for what must hold then.
//
// It needs no recorded data. It exits with 1 if a run could not be made or the
// crash runs found something wrong, and with 130 when it is interrupted, in
// which case no process is left either.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

type config struct {
	data, json     string
	quick, story   bool
	runs, crashes  int
	parallel       int
	seed           uint64
	explicitCounts map[string]bool
}

func parse(args []string, errw io.Writer) (config, error) {
	c := config{explicitCounts: map[string]bool{}}
	f := flag.NewFlagSet("loop", flag.ContinueOnError)
	f.SetOutput(errw)
	f.StringVar(&c.data, "data", "", "directory of recorded data; this benchmark needs none")
	f.StringVar(&c.json, "json", "", "write the figures as one flat JSON object to this file")
	f.BoolVar(&c.quick, "quick", false, "a representative part in under 50 s: two releases and one crash at the same time, no story")
	f.BoolVar(&c.story, "story", true, "run the default story (not with -quick)")
	f.IntVar(&c.runs, "runs", 20, "number of bad releases")
	f.IntVar(&c.crashes, "crashes", 50, "number of crash runs")
	f.IntVar(&c.parallel, "parallel", 2, "runs at the same time")
	f.Uint64Var(&c.seed, "seed", 1, "the first seed")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	f.Visit(func(f *flag.Flag) { c.explicitCounts[f.Name] = true })
	if f.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if c.runs < 0 || c.crashes < 0 || c.parallel < 1 {
		return c, errors.New("-runs and -crashes must not be negative, and -parallel not below 1")
	}
	if c.quick {
		c.story = false
		for name, n := range map[string]*int{"runs": &c.runs, "crashes": &c.crashes, "parallel": &c.parallel} {
			if !c.explicitCounts[name] {
				*n = map[string]int{"runs": 2, "crashes": 1, "parallel": 3}[name]
			}
		}
	}
	return c, nil
}

func run(args []string, stdout, stderr io.Writer) int {
	c, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "loop:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := measure(ctx, c, stdout, stderr)
	switch {
	case err != nil && ctx.Err() != nil:
		fmt.Fprintln(stderr, "loop: interrupted; all processes have ended")
		return 130
	case err != nil:
		fmt.Fprintln(stderr, "loop:", err)
		return 1
	case !ok:
		return 1
	}
	return 0
}

// bench is one run of the benchmark.
type bench struct {
	config
	dir      string // temporary; removed at the end
	program  string
	progress io.Writer
	stderr   io.Writer
}

func measure(ctx context.Context, c config, stdout, stderr io.Writer) (ok bool, err error) {
	b := &bench{config: c, progress: io.Discard, stderr: stderr}
	if f, isFile := stderr.(*os.File); isFile && term.IsTerminal(int(f.Fd())) {
		b.progress = stderr
	}
	if c.data != "" {
		fmt.Fprintln(stdout, "-data is not used: the loop makes its own input")
	}
	if b.dir, err = os.MkdirTemp("", "evenkeel-loop-"); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.program = filepath.Join(b.dir, "autopilot")
	fmt.Fprintln(b.progress, "building the autopilot")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.program, "github.com/evenkeel-go/evenkeel/examples/autopilot")
	if out, err := build.CombinedOutput(); err != nil {
		return false, fmt.Errorf("build: %w\n%s", err, out)
	}

	var st *summary
	if c.story {
		if st, err = b.tellStory(ctx); err != nil {
			return false, err
		}
	}
	releases, crashes := make([]release, c.runs), make([]crash, c.crashes)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.parallel)
	for i := range releases {
		g.Go(func() (err error) { releases[i], err = b.release(gctx, i); return err })
	}
	for i := range crashes {
		g.Go(func() (err error) { crashes[i], err = b.crash(gctx, i); return err })
	}
	if err := g.Wait(); err != nil {
		return false, err
	}

	var f figures
	f.releases(releases)
	f.story(st)
	f.crashes(crashes)
	if err := writeTables(stdout, releases, f); err != nil {
		return false, err
	}
	if c.json != "" {
		text, err := json.MarshalIndent(f.flat(), "", "  ")
		if err != nil {
			return false, err
		}
		if err := os.WriteFile(c.json, append(text, '\n'), 0o644); err != nil {
			return false, err
		}
	}
	for _, r := range crashes {
		if !r.OK() {
			return false, nil
		}
	}
	return true, ctx.Err()
}

// autopilot runs the program to its end. What it printed is given back; err
// is set where it could not be run, or was interrupted.
func (b *bench) autopilot(ctx context.Context, name string, args ...string) (sum *summary, out string, err error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, "", err
	}
	file := filepath.Join(dir, "summary.json")
	cmd := exec.CommandContext(ctx, b.program, append(args, "-approve", "auto", "-json", file)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir) // what it leaves behind goes with ours
	cmd.SysProcAttr = rundir.Detached()           // Ctrl-C is for us, and we pass it on
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 20 * time.Second
	text, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return nil, "", ctx.Err()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, "", fmt.Errorf("%s: %w", name, err)
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, string(text), nil // it failed before it got to a summary
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: summary: %w", name, err)
	}
	sum = &summary{}
	if err := json.Unmarshal(data, sum); err != nil {
		return nil, "", fmt.Errorf("%s: summary: %w", name, err)
	}
	return sum, string(text), os.RemoveAll(dir)
}

// lastLines is what a failed run is shown by.
func lastLines(text string, n int) string {
	for i := len(text) - 2; i >= 0; i-- {
		if text[i] == '\n' {
			if n--; n == 0 {
				return text[i+1:]
			}
		}
	}
	return text
}
