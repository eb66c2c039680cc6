package security

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// The rules here say that there is a secret and of which sort, never what it
// is: no part of a value but a token's public prefix gets into a message.

const useSecretRef = "take the value from a Secret by secretKeyRef, and change it: what was committed is known"

func secretEnv(p *Pod) (vs []Violation) {
	for _, c := range p.Containers {
		env := list(c.Object, "env")
		for i, e := range env {
			m, _ := e.(map[string]any)
			value, name := str(m, "value"), str(m, "name")
			if what := plainSecret(name, value); what != "" {
				vs = append(vs, Violation{
					reconcile.JoinField(element(c.At("env"), env, i), "value"),
					c.String() + ": environment variable " + quote(name) + " holds " + what + " (" + mask(value) + ")", useSecretRef,
				})
			}
		}
		for _, field := range [...]string{"command", "args"} {
			for i, e := range list(c.Object, field) {
				s, _ := e.(string)
				if what := knownSecret(s); what != "" {
					vs = append(vs, Violation{
						reconcile.JoinIndex(c.At(field), i),
						c.String() + ": " + field + " hold " + what + " (" + mask(s) + ")", useSecretRef,
					})
				}
			}
		}
	}
	return vs
}

func secretConfigMap(r reconcile.Resource) (vs []Violation) {
	if r.Key.Kind != "ConfigMap" || r.Key.Group != "" {
		return nil
	}
	for _, field := range [...]string{"data", "binaryData"} {
		for k, v := range object(r.Object, field) {
			s, _ := v.(string)
			if field == "binaryData" {
				s = decoded(s)
			}
			if what := plainSecret(k, s); what != "" {
				vs = append(vs, Violation{reconcile.JoinField(field, k), "entry " + quote(k) + " holds " + what + " (" + mask(s) + ")", "move it to a Secret that is not committed in plain, and change it: what was committed is known"})
			}
		}
	}
	return byPath(vs)
}

// secretManifest reports Secrets that Git declares with their data. Live
// Secrets have a version and are as they should be.
func secretManifest(r reconcile.Resource) (vs []Violation) {
	if r.Key.Kind != "Secret" || r.Key.Group != "" || r.Version != "" {
		return nil
	}
	if str(object(r.Object, "sops"), "mac") != "" {
		return nil // encrypted in the file by SOPS
	}
	for _, field := range [...]string{"data", "stringData"} {
		for k, v := range object(r.Object, field) {
			s, _ := v.(string)
			if field == "data" {
				s = decoded(s)
			}
			if s != "" && !placeholder(s) {
				vs = append(vs, Violation{reconcile.JoinField(field, k), "entry " + quote(k) + " is committed in plain (" + mask(s) + ")", "commit it encrypted (SealedSecret, SOPS) or as a reference (ExternalSecret), and change it"})
			}
		}
	}
	return byPath(vs)
}

func byPath(vs []Violation) []Violation {
	slices.SortFunc(vs, func(a, b Violation) int { return strings.Compare(a.Path, b.Path) })
	return vs
}

// decoded takes base64 off a value, which is given back as it is if it has
// none: the API server would refuse it, yet it is there to read.
func decoded(s string) string {
	b, err := base64.StdEncoding.DecodeString(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == ' ' {
			return -1
		}
		return r
	}, s))
	if err != nil {
		return s
	}
	return string(b)
}

// mask tells how much there is, in steps that do not help to guess it.
func mask(s string) string {
	switch n := len(s); {
	case n < 8:
		return "masked, under 8 characters"
	case n < 32:
		return "masked, 8 to 31 characters"
	}
	return "masked, 32 characters or more"
}

// plainSecret says what secret a named value is, or "".
func plainSecret(name, value string) string {
	if value == "" || placeholder(value) {
		return ""
	}
	if what := knownSecret(value); what != "" {
		return what
	}
	if what := secretName(name); what != "" && literal(value) {
		return what
	}
	return ""
}

// placeholder tells values that stand for one that is filled in later:
// $(VAR), ${VAR}, {{ template }}, <path:vault#key>, ref+vault://, vault:path.
func placeholder(s string) bool {
	s = strings.TrimSpace(s)
	for _, p := range [...]struct{ prefix, suffix string }{
		{"$(", ")"}, {"${", "}"}, {"{{", "}}"}, {"<", ">"}, {"ref+", ""}, {"vault:", ""}, {"ENC[", "]"},
	} {
		if rest, ok := strings.CutPrefix(s, p.prefix); ok && strings.HasSuffix(rest, p.suffix) {
			inner := strings.TrimSuffix(rest, p.suffix)
			return p.suffix == "" || !strings.Contains(strings.TrimSuffix(inner, "}"), p.suffix)
		}
	}
	return false
}

// literal tells values that can be a secret, from switches and from the paths
// of files that hold one.
func literal(s string) bool {
	s = strings.TrimSpace(s)
	switch strings.ToLower(s) {
	case "", "true", "false", "yes", "no", "on", "off", "none", "null", "enabled", "disabled", "required", "optional":
		return false
	}
	return !strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "file:")
}

// secretName tells by a variable's name what secret it holds, or "".
func secretName(name string) string {
	if !hasSecretStem(name) {
		return ""
	}
	words := nameWords(name)
	if len(words) == 0 {
		return ""
	}
	switch words[len(words)-1] {
	case "file", "path", "dir", "name", "names", "url", "uri", "host", "port", "endpoint", "id", "ref", "type",
		"length", "len", "size", "min", "max", "ttl", "timeout", "seconds", "expiry", "expiration", "expires", "interval",
		"enabled", "disabled", "required", "policy", "algorithm", "alg", "issuer", "audience", "header", "prefix",
		"field", "column", "count", "limit", "limits", "rate", "version", "format", "class", "location", "provider",
		"store", "manager", "backend", "engine", "driver", "source", "service", "server", "client", "resource", "region", "arn",
		"domain", "realm", "scope", "scopes", "grant", "label", "index", "iterations", "rounds", "budget", "namespace", "user", "username", "bucket", "hint", "reset", "rotation", "mount", "mode":
		return ""
	}
	for i, w := range words {
		switch w {
		case "password", "passwd", "passphrase", "pwd", "passcode", "dbpassword", "pgpassword":
			return "a password"
		case "secret", "secrets", "secretkey", "clientsecret":
			return "a secret"
		case "token", "accesstoken", "authtoken", "bearer":
			return "a token"
		case "credential", "credentials":
			return "credentials"
		case "apikey", "accesskey", "privatekey", "sshkey", "keycontent":
			return "a key"
		case "key":
			for _, o := range words[:i] {
				switch o {
				case "api", "access", "private", "encryption", "decryption", "signing", "sign", "master", "account", "storage",
					"ssh", "auth", "license", "aws", "azure", "gcp", "google", "oci", "service", "jwt", "hmac", "session",
					"stripe", "app", "rsa", "ecdsa", "tls", "gpg", "pgp", "deploy", "root", "admin":
					if !slices.Contains(words, "public") {
						return "a key"
					}
				}
			}
		}
	}
	if squashed := strings.Join(words, ""); strings.HasSuffix(squashed, "password") {
		return "a password"
	}
	return ""
}

// hasSecretStem tells cheaply the few names that are worth a closer look.
func hasSecretStem(name string) bool {
	for i := range len(name) {
		switch name[i] | 0x20 { // lower case
		case 'p', 's', 't', 'k', 'c', 'b':
			for _, stem := range [...]string{"pass", "pwd", "secret", "token", "key", "credential", "bearer"} {
				if len(name)-i >= len(stem) && strings.EqualFold(name[i:i+len(stem)], stem) {
					return true
				}
			}
		}
	}
	return false
}

// nameWords splits DB_PASSWORD, db.password and dbPassword into their words,
// in lower case.
func nameWords(name string) []string {
	var words []string
	start, n := 0, len(name)
	cut := func(end int) {
		if end > start {
			words = append(words, strings.ToLower(name[start:end]))
		}
	}
	lower := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
	upper := func(c byte) bool { return c >= 'A' && c <= 'Z' }
	for i := 0; i < n; i++ {
		switch c := name[i]; {
		case !lower(c) && !upper(c):
			cut(i)
			start = i + 1
		case upper(c) && i > start && (lower(name[i-1]) || i+1 < n && lower(name[i+1])):
			cut(i)
			start = i
		}
	}
	cut(n)
	return words
}

// tokenShape is the look of one issuer's tokens.
type tokenShape struct {
	prefix string
	least  int    // characters after the prefix
	extra  string // beside letters and digits
	what   string
}

// knownSecret tells by its look what secret is in s, or "".
func knownSecret(s string) string {
	if len(s) < 12 {
		return ""
	}
	if i := strings.Index(s, "BEGIN "); i > 0 && s[i-1] == '-' {
		line, _, _ := strings.Cut(s[i:], "\n")
		if strings.Contains(line, "PRIVATE KEY") {
			return "a private key"
		}
	}
	for _, t := range [...]tokenShape{
		{"AKIA", 16, "", "an AWS access key (AKIA…)"},
		{"ASIA", 16, "", "an AWS access key (ASIA…)"},
		{"ghp_", 36, "", "a GitHub token (ghp_…)"},
		{"gho_", 36, "", "a GitHub token (gho_…)"},
		{"ghu_", 36, "", "a GitHub token (ghu_…)"},
		{"ghs_", 36, "", "a GitHub token (ghs_…)"},
		{"ghr_", 36, "", "a GitHub token (ghr_…)"},
		{"github_pat_", 22, "_", "a GitHub token (github_pat_…)"},
		{"glpat-", 20, "-_", "a GitLab token (glpat-…)"},
		{"xoxb-", 20, "-", "a Slack token (xoxb-…)"},
		{"xoxp-", 20, "-", "a Slack token (xoxp-…)"},
		{"xapp-", 20, "-", "a Slack token (xapp-…)"},
		{"sk_live_", 20, "", "a Stripe key (sk_live_…)"},
		{"rk_live_", 20, "", "a Stripe key (rk_live_…)"},
		{"AIza", 35, "-_", "a Google API key (AIza…)"},
		{"SG.", 60, "-_.", "a SendGrid key (SG.…)"},
		{"npm_", 36, "", "an npm token (npm_…)"},
		{"pypi-AgEI", 50, "-_", "a PyPI token (pypi-…)"},
		{"dop_v1_", 64, "", "a DigitalOcean token (dop_v1_…)"},
		{"hvs.", 24, "-_", "a Vault token (hvs.…)"},
		{"AGE-SECRET-KEY-1", 50, "", "an age key (AGE-SECRET-KEY-1…)"},
	} {
		if t.in(s) {
			return t.what
		}
	}
	if jwt(s) {
		return "a signed token (JWT)"
	}
	if urlPassword(s) {
		return "a URL with a password"
	}
	return ""
}

// in finds the shape anywhere in s, but not inside a longer word.
func (t tokenShape) in(s string) bool {
	for at := 0; ; {
		i := strings.Index(s[at:], t.prefix)
		if i < 0 {
			return false
		}
		start := at + i
		end := start + len(t.prefix)
		n := wordEnd(s[end:], t.extra)
		if n >= t.least && (start == 0 || !alphanumeric(s[start-1])) && (t.prefix[1:] != "KIA" && t.prefix[1:] != "SIA" || awsKey(s[end:end+n])) {
			return true
		}
		at = end
	}
}

// awsKey tells the sixteen capitals and digits of an access key id.
func awsKey(s string) bool {
	return len(s) == 16 && strings.ToUpper(s) == s
}

func wordEnd(s, extra string) int {
	for i := range len(s) {
		if !alphanumeric(s[i]) && strings.IndexByte(extra, s[i]) < 0 {
			return i
		}
	}
	return len(s)
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// jwt tells a signed JSON web token: three parts, the first two of which are
// JSON objects in base64, so that they start with `{"`.
func jwt(s string) bool {
	i := strings.Index(s, "eyJ")
	if i < 0 || i > 0 && alphanumeric(s[i-1]) {
		return false
	}
	parts := strings.SplitN(s[i:], ".", 4)
	return len(parts) >= 3 && len(parts[0]) >= 16 && strings.HasPrefix(parts[1], "eyJ") && wordEnd(parts[0], "-_") == len(parts[0]) &&
		wordEnd(parts[1], "-_") == len(parts[1]) && wordEnd(parts[2], "-_") >= 16
}

// urlPassword tells scheme://user:password@host with a literal password.
func urlPassword(s string) bool {
	for {
		_, rest, ok := strings.Cut(s, "://")
		if !ok {
			return false
		}
		end := strings.IndexAny(rest, "/?# \t\r\n\"'")
		if end < 0 {
			end = len(rest)
		}
		if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
			if _, password, ok := strings.Cut(rest[:at], ":"); ok && password != "" && !placeholder(password) && strings.Trim(password, "*xX") != "" {
				return true
			}
		}
		s = rest
	}
}
