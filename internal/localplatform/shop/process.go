package shop

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// process is what the shop's processes have in common: a listener, an entry
// in DIR/run, a lease to watch and a way to end.
type process struct {
	dir   rundir.Dir
	entry rundir.Entry
	lease time.Duration
	// controller is the pid of whoever starts it, 0 where nobody said.
	controller int
	clock      reconcile.SystemClock
	log        *slog.Logger
	reg        *registry
}

// Main runs one of the platform's processes until it is told to end, and
// gives its exit code. Args are what follows the word that made the host call
// Main: the process's kind (service, lb or load) and its flags. The host's
// main is
//
//	if len(os.Args) > 1 && os.Args[1] == "_shop" {
//		os.Exit(shop.Main(os.Args[2:], os.Stderr))
//	}
//
// Exit codes: 0 told to end, 2 bad arguments, 3 no controller is there any
// more, 1 any other failure, 137 out of memory.
func Main(args []string, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprintln(stderr, "shop: want service, lb or load")
		return 2
	}
	p := &process{log: slog.New(slog.NewTextHandler(stderr, nil)), reg: &registry{}}
	var dir string
	flags := flag.NewFlagSet("_shop "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&dir, "dir", "", "the platform's directory")
	flags.StringVar(&p.entry.ID, "id", "", "unique id of the process")
	flags.StringVar(&p.entry.Service, "name", "", "service to be")
	flags.StringVar(&p.entry.Namespace, "namespace", "", "namespace of the service")
	flags.StringVar(&p.entry.Image, "image", "", "image to run")
	flags.StringVar(&p.entry.Template, "template", "", "hash of the pod template")
	flags.StringVar(&p.entry.Owner, "owner", rundir.OwnerPlatform, "who starts it")
	flags.StringVar(&p.entry.Action, "action", "", "restart that starts it")
	flags.StringVar(&p.entry.Replaces, "replaces", "", "process that it stands in for")
	flags.IntVar(&p.controller, "controller", 0, "pid of the process that starts it and waits for it to register")
	flags.DurationVar(&p.lease, "lease", 20*time.Second, "age of the lease at which to end")
	if err := flags.Parse(args[1:]); err != nil {
		return 2
	}
	if dir == "" || p.entry.ID == "" || p.lease <= 0 {
		fmt.Fprintln(stderr, "shop: -dir, -id and a -lease above zero are needed")
		return 2
	}
	p.dir = rundir.Dir(dir)
	p.entry.Role = args[0]

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go p.watchLease(ctx, cancel)

	var err error
	switch args[0] {
	case rundir.RoleService:
		err = runService(ctx, p)
	case rundir.RoleLB:
		err = runLB(ctx, p)
	case rundir.RoleLoad:
		err = runLoad(ctx, p)
	default:
		fmt.Fprintf(stderr, "shop: unknown process %q\n", args[0])
		return 2
	}
	if err == nil && errors.Is(context.Cause(ctx), errLease) {
		err = context.Cause(ctx)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errLease), errors.Is(err, errOrphan):
		p.log.Warn("ending", "cause", err)
		return 3
	default:
		p.log.Error("ending", "err", err)
		return 1
	}
}

var (
	errLease  = errors.New("no controller has renewed the lease")
	errOrphan = errors.New("the controller has ended before it knew of this process")
)

// orphaned tells whether the controller that started the process is gone. The
// next controller knows only what has registered by then: a process that
// comes later would stand beside the one that was started in its place.
func (p *process) orphaned() bool { return p.controller > 0 && os.Getppid() != p.controller }

// watchLease ends the process when no controller is there any more.
func (p *process) watchLease(ctx context.Context, end context.CancelCauseFunc) {
	every := min(2*time.Second, p.lease/4)
	stale := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.clock.After(every):
		}
		age, err := p.dir.LeaseAge(p.clock.Now())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			stale = 2
		case err == nil && age > p.lease:
			// Twice, because after the machine slept every lease looks old for
			// a moment.
			stale++
		default:
			stale = 0
		}
		if stale >= 2 {
			end(errLease)
			return
		}
	}
}

// listen opens a loopback port: the wanted one if it is free.
func listen(want int) (net.Listener, error) {
	if want > 0 {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", want)); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// serve registers the process, serves until ctx ends, unregisters, lets
// callers that still hold its address come in for linger, and then waits for
// what it has accepted up to drain.
func (p *process) serve(ctx context.Context, l net.Listener, h http.Handler, linger, drain time.Duration) error {
	if p.orphaned() {
		return errors.Join(errOrphan, l.Close())
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()

	p.entry.PID = os.Getpid()
	p.entry.StartTicks, _ = rundir.StartTicks(os.Getpid()) // 0 where the system does not tell
	p.entry.Port = l.Addr().(*net.TCPAddr).Port
	p.entry.Started = p.clock.Now()
	if err := p.dir.Register(p.entry); err != nil {
		srv.Close()
		return errors.Join(fmt.Errorf("shop: register %s: %w", p.entry.ID, err), ignoreClosed(<-done))
	}
	defer func() { _ = p.dir.Unregister(p.entry.ID) }() // a reader sees that the process is gone all the same
	if p.orphaned() {                                   // since the look before
		srv.Close()
		return errors.Join(errOrphan, ignoreClosed(<-done))
	}

	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if err := p.dir.Unregister(p.entry.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.log.Warn("unregister", "err", err)
	}
	<-p.clock.After(linger)
	end, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		srv.Close()
	}
	return ignoreClosed(<-done)
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
