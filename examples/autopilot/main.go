// Autopilot is the whole loop in one program: a shop of real processes that
// Git declares, with traffic, metrics, forecasts, alerts, root causes,
// repairs and policy working together. Nothing has to be installed:
//
//	go run ./examples/autopilot
//
// It lives through a story of some two simulated days in two minutes. Only
// faults are injected; everything else that it prints was noticed, decided and
// done by the library, and what it decided is a commit in the repository.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
)

func main() {
	// The platform's processes are this program, started again.
	if len(os.Args) > 1 && os.Args[1] == shopArg {
		os.Exit(shop.Main(os.Args[2:], os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const shopArg = "_shop"

func run(args []string, stdout, stderr io.Writer) int {
	cfg, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "autopilot:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := fly(ctx, cfg, stdout, stderr)
	switch {
	case err != nil && ctx.Err() != nil:
		fmt.Fprintln(stderr, "autopilot: interrupted; all processes have ended")
		return 130
	case err != nil:
		fmt.Fprintln(stderr, "autopilot:", err)
		return 1
	case !ok:
		return 1
	}
	return 0
}
