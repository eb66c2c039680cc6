package security

import (
	"strings"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Default gives the rules that suit most platforms: [Baseline], images that
// say which version they are, memory limits, and no plain secrets are
// enforced; the hardening of [Restricted], requests, CPU limits, service
// account tokens and wide RBAC rules are warned of.
func Default() []Rule {
	rules := Restricted()
	for i := len(Baseline()); i < len(rules); i++ {
		rules[i].Mode = Warn
	}
	return append(rules, Practices()...)
}

// Practices gives the rules of [Default] beyond the Pod Security Standards.
func Practices() []Rule {
	return []Rule{
		podRule(Enforce, "image-tag", "Mutable image tag", High, "",
			"What a moving tag names changes without a commit: Git no longer says what runs, a rollback does not roll back, and replicas differ.", imageTags),
		podRule(Enforce, "memory-limit", "No memory limit", High, "",
			"Without a limit a leak takes the node's memory, and the kernel kills whatever is largest, on this workload's behalf.", memoryLimit),
		podRule(Warn, "cpu-limit", "No CPU limit", Info, "",
			"Without a limit a busy container takes what its neighbours did not request; whether that is wanted depends on the platform.", cpuLimit),
		podRule(Warn, "resource-requests", "No resource requests", Low, "",
			"Without requests the scheduler places the pod blindly, and it is the first to be evicted.", requests),
		podRule(Enforce, "secret-env", "Secret in the environment", Critical, "",
			"What is committed is in every clone for good, and what is in a pod's environment is shown to whoever may read the pod.", secretEnv),
		resourceRule(Enforce, "secret-config-map", "Secret in a ConfigMap", Critical,
			"What is committed is in every clone for good, and ConfigMaps are neither encrypted nor guarded as Secrets are.", secretConfigMap),
		resourceRule(Enforce, "secret-manifest", "Secret in plain in Git", Critical,
			"The data of a Secret is encoded, not encrypted: what is committed is in every clone for good.", secretManifest),
		podRule(Warn, "service-account-token", "Service account token mounted", Info, "",
			"Most workloads never call the API server; a mounted token is a credential that an intruder finds at once.", serviceAccountToken),
		resourceRule(Warn, "rbac-wildcard", "Wildcard in an RBAC rule", Medium,
			"A star also grants what does not exist yet: every verb and resource that is added later.", rbacWildcard),
		resourceRule(Warn, "rbac-cluster-admin", "Binding to cluster-admin", High,
			"Whoever holds a token of the subject holds the whole cluster, or the whole namespace.", rbacClusterAdmin),
	}
}

func resourceRule(m Mode, id, title string, s Severity, why string, check func(reconcile.Resource) []Violation) Rule {
	return Rule{Policy: Policy{ID: id, Title: title, Severity: s, Why: why, Check: check}, Mode: m}
}

func imageTags(p *Pod) (vs []Violation) {
	for _, c := range p.Containers {
		image := str(c.Object, "image")
		if image == "" {
			continue // filled in by a controller or refused by the API server
		}
		if problem := mutableTag(image); problem != "" {
			vs = append(vs, Violation{c.At("image"), c.String() + ": image " + quote(image) + " " + problem, "pin a version tag or, better, a digest"})
		}
	}
	return vs
}

// mutableTag says in what way an image reference can change its meaning
// without a commit; empty for a digest and for a tag that names a version.
func mutableTag(image string) string {
	name, digest, hasDigest := strings.Cut(image, "@")
	if hasDigest {
		algorithm, sum, _ := strings.Cut(digest, ":")
		if algorithm == "" || len(sum) < 32 || strings.Trim(sum, "0123456789abcdef") != "" {
			return "has a malformed digest"
		}
		return ""
	}
	// A colon before the last slash belongs to the registry's port.
	i := strings.LastIndexByte(name, ':')
	if i < strings.LastIndexByte(name, '/') || i < 0 {
		return "has no tag, which means latest"
	}
	tag := name[i+1:]
	if tag == "" {
		return "has an empty tag"
	}
	if movingTag(tag) {
		return "has the moving tag " + quote(tag)
	}
	return ""
}

// movingTag tells whether a tag by its usual meaning is moved to each new
// version: one without any digit that has a word for "the newest" or the bare
// name of a base system in it, such as "latest-alpine" or "edge".
func movingTag(tag string) bool {
	if strings.ContainsAny(tag, "0123456789") {
		// "latest" moves even as "v1-latest" or "latest-arm64".
		return hasWord(tag, func(w string) bool { return w == "latest" })
	}
	return hasWord(tag, func(w string) bool {
		switch w {
		case "latest", "stable", "unstable", "edge", "main", "mainline", "master", "trunk", "head", "tip",
			"nightly", "daily", "weekly", "rolling", "current", "newest", "next", "canary", "snapshot",
			"dev", "devel", "develop", "development", "test", "testing", "staging", "prod", "production",
			"release", "beta", "alpha", "rc", "preview", "lts",
			"alpine", "slim", "debian", "ubuntu", "bullseye", "bookworm", "trixie", "focal", "jammy", "noble",
			"debug", "nonroot":
			return true
		}
		return false
	})
}

// hasWord splits at "-", "_" and "." and asks for each part in lower case.
func hasWord(s string, is func(string) bool) bool {
	for s != "" {
		i := strings.IndexAny(s, "-_.")
		word := s
		if i >= 0 {
			word, s = s[:i], s[i+1:]
		} else {
			s = ""
		}
		if is(strings.ToLower(word)) {
			return true
		}
	}
	return false
}

// given tells whether resources of a container, or of its pod, set a
// quantity other than zero in one of the lists.
func given(p *Pod, c *Container, resource string, lists ...string) bool {
	for _, m := range [...]map[string]any{c.Object, p.Spec} {
		res := object(m, "resources")
		for _, l := range lists {
			switch q := object(res, l)[resource].(type) {
			case string:
				// What is left of "0Mi" is nothing, of "10Mi" a one.
				if strings.Trim(q, "0.EPTGMKkimun ") != "" {
					return true
				}
			case nil:
			default:
				if n, is := number(q); !is || n != 0 {
					return true
				}
			}
		}
	}
	return false
}

// lacking reports containers for which none of the lists gives a resource.
// Ephemeral containers cannot have any.
func lacking(p *Pod, resource, message, remedy string, lists ...string) (vs []Violation) {
	for _, c := range p.Containers {
		if c.List != "ephemeralContainers" && !given(p, c, resource, lists...) {
			vs = append(vs, Violation{c.At("resources", lists[0], resource), c.String() + message, remedy})
		}
	}
	return vs
}

func memoryLimit(p *Pod) []Violation {
	return lacking(p, "memory", " has no memory limit", "set resources.limits.memory", "limits")
}

func cpuLimit(p *Pod) []Violation {
	return lacking(p, "cpu", " has no CPU limit", "set resources.limits.cpu, or except the namespace if bursts are wanted", "limits")
}

// requests takes a limit for a request, as the API server does.
func requests(p *Pod) []Violation {
	return append(
		lacking(p, "memory", " requests no memory", "set resources.requests.memory", "requests", "limits"),
		lacking(p, "cpu", " requests no CPU", "set resources.requests.cpu", "requests", "limits")...)
}

func serviceAccountToken(p *Pod) []Violation {
	if v, set := p.Spec["automountServiceAccountToken"].(bool); set && !v {
		return nil
	}
	return []Violation{{p.At("automountServiceAccountToken"), "the pod mounts a service account token", "set automountServiceAccountToken to false if the pod does not call the API server"}}
}

func rbac(r reconcile.Resource) bool { return r.Key.Group == "rbac.authorization.k8s.io" }

func rbacWildcard(r reconcile.Resource) (vs []Violation) {
	if !rbac(r) || r.Key.Kind != "Role" && r.Key.Kind != "ClusterRole" {
		return nil
	}
	rules := list(r.Object, "rules")
	for i, e := range rules {
		rule, _ := e.(map[string]any)
		for _, field := range [...]string{"apiGroups", "resources", "verbs"} {
			for j, v := range list(rule, field) {
				if v == "*" {
					vs = append(vs, Violation{
						reconcile.JoinIndex(reconcile.JoinField(element("rules", rules, i), field), j),
						"rule " + itoa(int64(i)) + " grants all " + field, "list the " + field + " that are needed",
					})
					break
				}
			}
		}
	}
	return vs
}

func rbacClusterAdmin(r reconcile.Resource) []Violation {
	if !rbac(r) || r.Key.Kind != "RoleBinding" && r.Key.Kind != "ClusterRoleBinding" {
		return nil
	}
	ref := object(r.Object, "roleRef")
	if str(ref, "kind") != "ClusterRole" || str(ref, "name") != "cluster-admin" || r.Key.Name == "cluster-admin" {
		return nil
	}
	return []Violation{{"roleRef.name", "binds its subjects to cluster-admin", "bind a role with the rights that are needed"}}
}
