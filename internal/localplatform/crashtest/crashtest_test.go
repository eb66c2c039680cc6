package crashtest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPlan(t *testing.T) {
	const n = 1000
	count := map[string]int{}
	for seed := range uint64(n) {
		p := NewPlan(seed)
		if d := cmp.Diff(p, NewPlan(seed)); d != "" {
			t.Fatalf("seed %d gives two plans:\n%s", seed, d)
		}
		if !slices.Contains(shop.Services(), p.Service) || len(p.Kills) < 1 || len(p.Kills) > 2 {
			t.Fatalf("odd plan: %s", p)
		}
		count[string(p.Fault)]++
		count[string(p.Kills[0].Anchor)]++
		if len(p.Kills) == 2 {
			count["twice"]++
		}
		for i, k := range p.Kills {
			if (k.Anchor == Restarted) != (i == 1) || k.After < 0 || k.After > warmUp || k.Pause < 0 || k.Pause > 2*time.Second {
				t.Errorf("odd kill in %s", p)
			}
		}
	}
	for what, want := range map[string]float64{
		string(BadRelease): 0.8, string(Leak): 0.2, "twice": 1.0 / 3,
		string(Injected): 0.7 * 0.7, string(Deciding): 0.7 * 0.3, string(Started): 0.15, string(Serving): 0.15,
	} {
		if got := float64(count[what]) / n; got < want-0.05 || got > want+0.05 {
			t.Errorf("%s in %.3f of the plans, want about %.3f", what, got, want)
		}
	}
}

func TestProcesses(t *testing.T) {
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		t.Skip("no process table to read")
	}
	dir := t.TempDir()
	cmd := exec.Command("sh", "-c", "read line", "sh", "-dir", dir) // waits for its input
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Between fork and exec it has the arguments of this process.
	for deadline := time.Now().Add(5 * time.Second); ; {
		got := Processes(dir)
		if len(got) == 1 && got[0] == cmd.Process.Pid {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("processes of %s: %v, want %d", dir, got, cmd.Process.Pid)
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if got := Processes(dir + "/x"); len(got) > 0 {
		t.Errorf("another directory has processes %v", got)
	}
	in.Close()
	_ = cmd.Wait() // read fails at the end of input
	if got := Processes(dir); len(got) > 0 {
		t.Errorf("after its end: %v", got)
	}
}

// repository is the shop's, with a bad release of cart on top.
func repository(t *testing.T) (*run, *gitsource.Repository) {
	t.Helper()
	files := map[string][]byte{}
	err := fs.WalkDir(shop.Manifests(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[name], err = fs.ReadFile(shop.Manifests(), name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := rundir.Dir(t.TempDir())
	if err := dir.Create(); err != nil {
		t.Fatal(err)
	}
	if _, err := gitsource.Init(t.Context(), dir.Path("desired.git"), gitsource.CommitRequest{Message: "Declare", Files: files}); err != nil {
		t.Fatal(err)
	}
	repo, err := gitsource.Open(t.Context(), gitsource.Options{URL: dir.Path("desired.git")})
	if err != nil {
		t.Fatal(err)
	}
	r := &run{dir: dir, repo: repo, plan: Plan{Fault: BadRelease, Service: "cart"}, replaces: map[string]map[string]bool{}}
	if err := r.release(t.Context(), shop.LoadConfig{Speed: 1}); err != nil {
		t.Fatal(err)
	}
	return r, repo
}

func write(t *testing.T, repo *gitsource.Repository, req reconcile.WriteRequest) {
	t.Helper()
	if _, err := repo.Write(t.Context(), req); err != nil {
		t.Fatal(err)
	}
}

// What nobody should do is done here by hand, and must be seen.
func TestJudge(t *testing.T) {
	const image = "spec.template.spec.containers[name=cart].image"
	for _, tc := range []struct {
		name           string
		do             func(t *testing.T, r *run, repo *gitsource.Repository)
		doubles, wrong []string
	}{
		{name: "one revert", do: func(t *testing.T, r *run, repo *gitsource.Repository) {
			write(t, repo, reconcile.WriteRequest{ID: "a", Revert: r.bad})
		}},
		{name: "two reverts", do: func(t *testing.T, r *run, repo *gitsource.Repository) {
			write(t, repo, reconcile.WriteRequest{ID: "a", Revert: r.bad})
			if err := r.release(t.Context(), shop.LoadConfig{Speed: 1}); err != nil {
				t.Fatal(err)
			}
			write(t, repo, reconcile.WriteRequest{ID: "b", Message: "Go back", Edits: []reconcile.Edit{{Key: r.key(), Path: image, Value: shop.ImageName("cart") + ":1.0.0"}}})
		}, doubles: []string{"the release was taken back by"}},
		{name: "one id twice", do: func(t *testing.T, r *run, repo *gitsource.Repository) {
			for _, n := range []string{"5", "6"} {
				text, _, err := repo.ReadFile(t.Context(), "cart.yaml")
				if err != nil {
					t.Fatal(err)
				}
				_, err = repo.Commit(t.Context(), gitsource.CommitRequest{
					Message: "Scale", Trailers: []reconcile.Trailer{{Key: reconcile.TrailerAction, Value: "scale-1"}},
					Files: map[string][]byte{"cart.yaml": append(text, "# "+n+"\n"...)},
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		}, doubles: []string{"action scale-1 is in commits", "changes nothing", "changes nothing"}},
		{name: "another build", do: func(t *testing.T, r *run, repo *gitsource.Repository) {
			r.plan.Service = "stock"
			write(t, repo, reconcile.WriteRequest{ID: "a", Revert: r.bad})
		}, wrong: []string{"changes the build of Deployment.apps"}},
		{name: "two stand in", do: func(t *testing.T, r *run, repo *gitsource.Repository) {
			r.victim = "cart-1"
			r.replaces["cart-1"] = map[string]bool{"cart-3": true, "cart-4": true}
		}, doubles: []string{"2 processes stood in for cart-1"}},
		{name: "restarts of one instance", do: func(t *testing.T, r *run, repo *gitsource.Repository) {
			for _, id := range []string{"x", "y"} {
				if err := rundir.WriteFile(r.dir.Path("actions", id+".json"), []byte(`{"instance":"cart-1"}`)); err != nil {
					t.Fatal(err)
				}
			}
		}, doubles: []string{"two actions replace cart-1"}},
		{name: "a healthy one is replaced", do: func(t *testing.T, r *run, repo *gitsource.Repository) {
			r.replaces["cart-2"] = map[string]bool{"cart-3": true}
		}, wrong: []string{"cart-2 was replaced and had no fault"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, repo := repository(t)
			tc.do(t, r, repo)
			var res Result
			if err := r.judge(t.Context(), &res); err != nil {
				t.Fatal(err)
			}
			compare := func(what string, got, want []string) {
				if len(got) != len(want) {
					t.Errorf("%s: %q, want %q", what, got, want)
					return
				}
				for i := range want {
					if !strings.Contains(got[i], want[i]) {
						t.Errorf("%s %d: %q, want %q in it", what, i, got[i], want[i])
					}
				}
			}
			compare("doubles", res.Doubles, tc.doubles)
			compare("wrong", res.Wrong, tc.wrong)
		})
	}
}

func TestControllerThatEnds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shop")
	r, err := Run(t.Context(), Options{Command: []string{"sh", "-c", "echo no luck; exit 3"}, Dir: dir, Plan: Plan{
		Fault: BadRelease, Service: "cart", Kills: []Kill{{Anchor: Injected}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r.OK() || len(r.Wrong) != 1 || !strings.Contains(r.Wrong[0], "ended by itself: exit status 3") || !strings.Contains(r.Tail, "no luck") {
		t.Errorf("%s, tail %q", r, r.Tail)
	}
	if _, err := Run(t.Context(), Options{Command: []string{dir + "/nothing"}, Dir: dir}); err == nil {
		t.Error("a program that is not there is no error")
	}
	if _, err := Run(t.Context(), Options{Dir: dir}); err == nil {
		t.Error("no command is no error")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, Options{Command: []string{"sh", "-c", "exec sleep 30"}, Dir: dir, Seed: 3}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the end of its time: %v", err)
	}
}
