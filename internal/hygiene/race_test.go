package hygiene

import (
	"os"
	"os/exec"
	"testing"
)

// TestRace runs the tests of what runs concurrently once more, under the race
// detector, so that one command is enough. It needs a C compiler; where there
// is none, and with -short, it is skipped.
func TestRace(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short")
	}
	if raceEnabled {
		t.Skip("these tests run under the race detector already")
	}
	if os.Getenv("CGO_ENABLED") == "0" {
		t.Skip("CGO_ENABLED=0: no race detector")
	}
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "cc"
	}
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skipf("no C compiler (%s), which the race detector needs", compiler)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-race", "-short",
		"./reconcile/...", "./remediate", "./anomaly", "./internal/localplatform/...")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", cmd.Args, err, out)
	}
}
