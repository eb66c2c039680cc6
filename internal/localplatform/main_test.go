package localplatform_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
)

// The test binary is the shop's processes too, as a host's binary is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "_shop" {
		os.Exit(shop.Main(os.Args[2:], os.Stderr))
	}
	if dir := os.Getenv("LOCALPLATFORM_CONTROLLER"); dir != "" {
		os.Exit(controller(dir))
	}
	goleak.VerifyTestMain(m)
}
