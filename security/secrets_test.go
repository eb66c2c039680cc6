package security

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// run is a stretch of token characters; tokens are put together here so that
// no file of the repository looks like one that holds a secret.
func run(n int) string { return strings.Repeat("a1B2c3D4", n/8+1)[:n] }

func TestPlainSecret(t *testing.T) {
	for _, tt := range []struct{ name, value, want string }{
		{"DB_PASSWORD", "hunter2", "a password"},
		{"dbPassword", "hunter2", "a password"},
		{"PGPASSWORD", "hunter2", "a password"},
		{"MYSQL_ROOT_PASSWORD", "12345", "a password"},
		{"api.token", "abc", "a token"},
		{"CLIENT_SECRET", "abc", "a secret"},
		{"AWS_SECRET_ACCESS_KEY", "xxx", "a secret"},
		{"STRIPE_API_KEY", "abc", "a key"},
		{"GOOGLE_APPLICATION_CREDENTIALS", "{}", "credentials"},
		{"ANY", "AKIA" + "Q3EGRSXYZ2345678", "an AWS access key (AKIA…)"},
		{"ANY", "id=ghp_" + run(36) + ";", "a GitHub token (ghp_…)"},
		{"ANY", "x\n-----BEGIN RSA " + "PRIVATE KEY-----\nabc", "a private key"},
		{"ANY", "eyJ" + run(20) + ".eyJ" + run(20) + "." + run(40), "a signed token (JWT)"},
		{"DATABASE_URL", "postgres://shop:hunter2@db:5432/shop", "a URL with a password"},

		{"DB_PASSWORD", "", ""},
		{"DB_PASSWORD", "$(OTHER)", ""},
		{"DB_PASSWORD", "${OTHER}", ""},
		{"DB_PASSWORD", "{{ .Values.password }}", ""},
		{"DB_PASSWORD", "<path:secret/db#password>", ""},
		{"DB_PASSWORD", "vault:secret/data/db#password", ""},
		{"DB_PASSWORD_FILE", "/run/secrets/db", ""},
		{"TLS_PRIVATE_KEY", "/etc/tls/tls.key", ""},
		{"PASSWORD_MIN_LENGTH", "12", ""},
		{"TOKEN_TTL", "3600", ""},
		{"MAX_TOKENS", "4096", ""},
		{"SECRET_NAME", "db", ""},
		{"REQUIRE_PASSWORD", "true", ""},
		{"PARTITION_KEY", "user", ""},
		{"JWT_PUBLIC_KEY", "abc", ""},
		{"MONKEY", "abc", ""},
		{"DATABASE_URL", "postgres://shop:$(DB_PASSWORD)@db:5432/shop", ""},
		{"DATABASE_URL", "postgres://shop@db:5432/shop", ""},
		{"LINK", "https://example.org/a:b@c", ""},
		{"ANY", "AKIA is a prefix", ""},
		{"ANY", "-----BEGIN CERTIFICATE-----\nabc", ""},
		{"GREETING", "hello", ""},
	} {
		if got := plainSecret(tt.name, tt.value); got != tt.want {
			t.Errorf("%s=%s: got %q, want %q", tt.name, tt.value, got, tt.want)
		}
	}
}

func TestSecretPolicies(t *testing.T) {
	set := newSet(t, Config{})
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"config map", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  DB_PASSWORD: hunter2\n  app.conf: token=ghp_" + run(36) + "\n  LOG_LEVEL: info\nbinaryData:\n  k: " + b64("-----BEGIN PRIVATE"+" KEY-----") + "\n", []string{
			"secret-config-map binaryData.k", "secret-config-map data.DB_PASSWORD", `secret-config-map data["app.conf"]`}},
		{"secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: c}\ndata:\n  a: " + b64("hunter2") + "\n  b: " + b64("${B}") + "\nstringData:\n  c: x\n  d: ''\n", []string{
			"secret-manifest data.a", "secret-manifest stringData.c"}},
		{"secret without data", "apiVersion: v1\nkind: Secret\nmetadata: {name: c}\ntype: kubernetes.io/service-account-token\n", nil},
		{"encrypted secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: c}\ndata: {a: abc}\nsops: {mac: 'ENC[x]'}\n", nil},
		{"sealed secret", "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: c}\nspec: {encryptedData: {a: abc}}\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == nil {
				tt.want = []string{}
			}
			if d := cmp.Diff(tt.want, rulePaths(t, set, tt.text)); d != "" {
				t.Error(d)
			}
		})
	}
	live := decode(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: c}\nstringData: {a: b}\n")[0]
	live.Version = "7"
	if fs := set.EvaluateResource(live); len(fs) > 0 {
		t.Errorf("a live Secret is reported: %v", fs)
	}
}

// TestSecretsAreNeverPrinted holds that no output has a secret's value, or
// four characters in a row of it beyond the public prefix.
func TestSecretsAreNeverPrinted(t *testing.T) {
	set := newSet(t, Config{})
	for _, secret := range []string{
		"Zq9!vWx7Kp2@", "ghp_" + run(36), "AKIA" + "Q3EGRSXYZ2345678",
		"https://u:Zq9vWx7Kp2@db", "-----BEGIN PRIVATE" + " KEY-----\nZq9vWx7Kp2",
	} {
		var rs []reconcile.Resource
		object := func(kind, field string, value map[string]any) {
			rs = append(rs, reconcile.Resource{Key: reconcile.Key{Kind: kind, Name: fmt.Sprint("x", len(rs))}, Object: map[string]any{field: value}})
		}
		object("Secret", "stringData", map[string]any{"a": secret})
		object("Secret", "data", map[string]any{"a": base64.StdEncoding.EncodeToString([]byte(secret))})
		object("ConfigMap", "data", map[string]any{"password": secret})
		object("Pod", "spec", map[string]any{"containers": []any{map[string]any{
			"name": "a", "args": []any{secret}, "env": []any{map[string]any{"name": "PASSWORD", "value": secret}},
		}}})
		fs := set.Evaluate(state(t, rs))
		var b bytes.Buffer
		if err := WriteJSON(&b, fs); err != nil {
			t.Fatal(err)
		}
		if err := WriteTable(&b, fs); err != nil {
			t.Fatal(err)
		}
		for _, f := range fs {
			fmt.Fprintln(&b, f, f.Remedy)
		}
		if n := strings.Count(b.String(), "masked"); n < 4 {
			t.Errorf("only %d of the secrets were found", n)
		}
		hidden := secret[4:]
		if i := strings.IndexAny(secret, "\n:"); i >= 0 {
			hidden = "Zq9vWx7Kp2"
		}
		for i := 0; i+4 <= len(hidden); i++ {
			if strings.Contains(b.String(), hidden[i:i+4]) {
				t.Fatalf("the output holds %q of a secret:\n%s", hidden[i:i+4], b.String())
			}
		}
	}
}
