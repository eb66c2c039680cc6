package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
)

// config is what the flags say.
type config struct {
	story   string
	culprit string
	defect  string
	seed    uint64
	speed   float64
	trace   string
	repo    string
	dir     string
	approve string
	json    string
	report  string
	peak    float64
	verbose bool
}

func parseFlags(args []string, errw io.Writer) (config, error) {
	var c config
	f := flag.NewFlagSet("autopilot", flag.ContinueOnError)
	f.SetOutput(errw)
	f.StringVar(&c.story, "story", "full", "what to live through: full, release (one bad release), none (keep the platform until Ctrl-C)")
	f.StringVar(&c.culprit, "culprit", "payment", "service that gets the bad release: "+strings.Join(shop.Services(), ", "))
	f.StringVar(&c.defect, "defect", "both", "what the bad release does: errors, slow, both")
	f.Uint64Var(&c.seed, "seed", 1, "seed of traffic and noise")
	f.Float64Var(&c.speed, "speed", 1440, "simulated seconds per second: 1440 makes a day a minute (60 to 4320)")
	f.StringVar(&c.trace, "trace", "", "file with recorded traffic, one number a line, per minute, in any unit; its busiest minute becomes -peak (default: a built-in daily curve)")
	f.StringVar(&c.repo, "repo", "", "URL or path of an existing bare repository with the shop's manifests, to which the story commits faults and repairs (default: a new one from embedded manifests)")
	f.StringVar(&c.dir, "dir", "", "directory for repository, journal and processes; a run that was cut off goes on from it (default: temporary, removed)")
	f.StringVar(&c.approve, "approve", "", "who approves what needs a person: ask (on the terminal), auto, deny (default: ask on a terminal, auto elsewhere)")
	f.StringVar(&c.json, "json", "", "write the summary as JSON to this file, - for standard output instead of the timeline")
	f.StringVar(&c.report, "report", "", "write a self-contained HTML page with plots to this file")
	f.Float64Var(&c.peak, "peak", 100, "requests a second at the busiest time (5 to 200)")
	f.BoolVar(&c.verbose, "v", false, "give every reason, and log what the platform and the libraries say")
	f.Usage = func() {
		fmt.Fprint(errw, "usage: autopilot [flags]\n\nA shop of real processes, kept on an even keel through Git.\n\n")
		f.PrintDefaults()
		fmt.Fprint(errw, "\nexit status: 0 all steps ended as they should, 1 one did not or something failed, 2 bad flags, 130 interrupted\n")
	}
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return c, c.validate()
}

func (c *config) validate() error {
	if err := oneOf("-story", c.story, "full", "release", "none"); err != nil {
		return err
	}
	if err := oneOf("-culprit", c.culprit, shop.Services()...); err != nil {
		return err
	}
	if err := oneOf("-defect", c.defect, "errors", "slow", "both"); err != nil {
		return err
	}
	if !(c.speed >= 60 && c.speed <= 4320) {
		return fmt.Errorf("-speed %v is not in 60..4320", c.speed)
	}
	if !(c.peak >= 5 && c.peak <= 200) {
		return fmt.Errorf("-peak %v is not in 5..200", c.peak)
	}
	if c.approve == "" {
		c.approve = "auto"
		if isTerminal(os.Stdin) && isTerminal(os.Stdout) {
			c.approve = "ask"
		}
	}
	if err := oneOf("-approve", c.approve, "ask", "auto", "deny"); err != nil {
		return err
	}
	for _, file := range []string{c.json, c.report} {
		if file == "" || file == "-" {
			continue
		}
		if err := canWrite(file); err != nil {
			return err
		}
	}
	if c.story == "none" && c.dir == "" {
		return errors.New("-story none needs -dir, so that a later run can go on from it")
	}
	return nil
}

// canWrite tells before the story what a bad path would tell after it.
func canWrite(file string) error {
	if st, err := os.Stat(file); err == nil && !st.Mode().IsRegular() {
		if st.IsDir() {
			return fmt.Errorf("%s is a directory", file)
		}
		return nil // a device or a pipe
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".autopilot-*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func oneOf(name, got string, want ...string) error {
	for _, w := range want {
		if got == w {
			return nil
		}
	}
	return fmt.Errorf("%s %q is none of %v", name, got, want)
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// scrapeEvery is the wall time between two scrapes; at the default speed one
// is 12 simulated minutes, and a day has 120 of them.
const scrapeEvery = 500 * time.Millisecond

// kept is how many scrapes are remembered.
const kept = 4096
