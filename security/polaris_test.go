package security

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/evenkeel-go/evenkeel/reconcile/manifest"
)

// TestPolarisFixtures holds the rules that polaris has too to its fixtures:
// a manifest that fails there has a finding here, one that passes has none.
// The archive is data beside the checkout; without it the test is skipped.
func TestPolarisFixtures(t *testing.T) {
	archive := filepath.Join("..", "..", "shared", "data", "security", "polaris-checks.tar.gz")
	f, err := os.Open(archive)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("%s is not there: the comparison with polaris is left out", archive)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	// What in each of polaris's checks is the same as here: the rule, and the
	// field where one rule covers several checks.
	same := map[string]struct{ rule, suffix string }{
		"runAsPrivileged":              {"pod-privileged", ""},
		"hostIPCSet":                   {"pod-host-namespaces", "hostIPC"},
		"hostPIDSet":                   {"pod-host-namespaces", "hostPID"},
		"hostNetworkSet":               {"pod-host-namespaces", "hostNetwork"},
		"hostPathSet":                  {"pod-host-path", ""},
		"hostPortSet":                  {"pod-host-port", ""},
		"hostProcess":                  {"pod-host-process", ""},
		"procMount":                    {"pod-proc-mount", ""},
		"dangerousCapabilities":        {"pod-capabilities", ""},
		"tagNotSpecified":              {"image-tag", ""},
		"memoryLimitsMissing":          {"memory-limit", ""},
		"cpuLimitsMissing":             {"cpu-limit", ""},
		"memoryRequestsMissing":        {"resource-requests", "memory"},
		"cpuRequestsMissing":           {"resource-requests", "cpu"},
		"privilegeEscalationAllowed":   {"pod-privilege-escalation", ""},
		"runAsRootAllowed":             {"pod-run-as-non-root", ""},
		"sensitiveContainerEnvVar":     {"secret-env", ""},
		"sensitiveConfigmapContent":    {"secret-config-map", ""},
		"automountServiceAccountToken": {"service-account-token", ""},
	}
	// Decided on purpose otherwise: a policy here sees one resource, and the
	// answer is in another one.
	differs := []string{"automountServiceAccountToken/success.serviceaccount.yaml"}

	set := newSet(t, Config{})
	agree, seen := 0, map[string]bool{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		check, base := path.Base(path.Dir(h.Name)), path.Base(h.Name)
		rule, mapped := same[check]
		failure := strings.HasPrefix(base, "failure")
		if name := check + "/" + base; !mapped || slices.Contains(differs, name) || !failure && !strings.HasPrefix(base, "success") {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		rs, err := manifest.Decode(base, data)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, res := range rs {
			for _, f := range set.EvaluateResource(res) {
				found = found || f.Rule == rule.rule && strings.HasSuffix(f.Path, rule.suffix)
			}
		}
		seen[check] = true
		if found != failure {
			t.Errorf("%s/%s: found %v", check, base, found)
		} else {
			agree++
		}
	}
	t.Logf("%d fixtures of %d polaris checks decided alike, %d on purpose otherwise", agree, len(seen), len(differs))
	if len(seen) != len(same) {
		t.Errorf("the archive has only %d of the %d checks", len(seen), len(same))
	}
}
