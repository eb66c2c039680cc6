package security

import (
	"slices"
	"strings"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Baseline gives the controls of the Kubernetes Pod Security Standards at
// level baseline, as of v1.37, all enforced: what no ordinary workload needs
// and what breaks out of the container. They look at pods and at the pod
// templates of every workload kind, with API defaults applied.
func Baseline() []Rule {
	const std = "Pod Security Standards, baseline: "
	return []Rule{
		podRule(Enforce, "pod-privileged", "Privileged container", Critical, std+"Privileged Containers",
			"A privileged container has all rights of root on its node, and so all that runs there.", privileged),
		podRule(Enforce, "pod-host-process", "Windows host process", Critical, std+"HostProcess",
			"A host process container runs outside any isolation, with the rights of the Windows node.", hostProcess),
		podRule(Enforce, "pod-host-namespaces", "Host namespace", High, std+"Host Namespaces",
			"In the node's network, process or IPC namespace a pod sees, and can often disturb, the traffic and processes of all others.", hostNamespaces),
		podRule(Enforce, "pod-host-path", "hostPath volume", High, std+"HostPath Volumes",
			"A path of the node gives a pod the node's files, its credentials and its container runtime.", hostPath),
		podRule(Enforce, "pod-host-port", "Host port", High, std+"Host Ports",
			"A host port opens the workload on the node's address, past network policies, and keeps a second replica off the node.", hostPorts),
		podRule(Enforce, "pod-capabilities", "Added capability", High, std+"Capabilities",
			"Capabilities beyond the runtime's default ones give parts of root: raw network access, mounts, loading modules, tracing.", capabilities),
		podRule(Enforce, "pod-apparmor", "AppArmor switched off", High, std+"AppArmor",
			"Without the runtime's AppArmor profile a container can reach kernel interfaces that it has no use for.", appArmor),
		podRule(Enforce, "pod-selinux", "SELinux options", High, std+"SELinux",
			"A type, user or role of one's own steps out of the confinement that SELinux gives containers.", seLinux),
		podRule(Enforce, "pod-proc-mount", "Unmasked /proc", High, std+"/proc Mount Type",
			"An unmasked /proc shows and opens kernel settings of the node.", procMount),
		podRule(Enforce, "pod-seccomp", "Seccomp switched off", High, std+"Seccomp",
			"Unconfined, a container can use every system call, among them those that kernel exploits start with.", seccomp),
		podRule(Enforce, "pod-sysctls", "Unsafe sysctl", High, std+"Sysctls",
			"Sysctls outside the safe set act on the whole node or switch off protections.", sysctls),
		podRule(Enforce, "pod-probe-host", "Probe or hook to another host", High, std+"Host Probes / Lifecycle Hooks",
			"The node itself makes these requests: with a host set they reach what the pod cannot, past network policies.", probeHosts),
	}
}

// Restricted gives the Pod Security Standards at level restricted, as of
// v1.37, all enforced: [Baseline], and the hardening that well-behaved
// workloads can all have. Each fault is reported by one rule only: the
// restricted rules leave out what a baseline rule says already.
func Restricted() []Rule {
	const std = "Pod Security Standards, restricted: "
	return append(Baseline(),
		podRule(Enforce, "pod-volume-types", "Volume type", Medium, std+"Volume Types",
			"Volumes of other types bring the node's or the network's storage into the pod with the node's credentials.", volumeTypes),
		podRule(Enforce, "pod-privilege-escalation", "Privilege escalation", Medium, std+"Privilege Escalation",
			"Where escalation is allowed, a set-user-ID program in the image gives its caller more rights than the container started with.", privilegeEscalation),
		podRule(Enforce, "pod-run-as-non-root", "May run as root", Medium, std+"Running as Non-root",
			"Root in a container is root on the node as soon as anything else in the isolation fails.", runAsNonRoot),
		podRule(Enforce, "pod-run-as-user", "Runs as user 0", Medium, std+"Running as Non-root user",
			"Root in a container is root on the node as soon as anything else in the isolation fails.", runAsUser),
		podRule(Enforce, "pod-seccomp-set", "Seccomp profile not set", Medium, std+"Seccomp",
			"Without a profile the container can use every system call, as clusters do not default to one.", seccompSet),
		podRule(Enforce, "pod-drop-capabilities", "Capabilities not dropped", Medium, std+"Capabilities",
			"The runtime's default capabilities still allow forging packets, changing owners and more, which hardly a workload needs.", dropCapabilities),
		podRule(Enforce, "pod-proc-mount-set", "Unmasked /proc in a user namespace", Medium, std+"/proc Mount Type",
			"A user namespace softens an unmasked /proc but still shows more of the kernel than needed.", procMountSet),
	)
}

func podRule(m Mode, id, title string, s Severity, standard, why string, check func(*Pod) []Violation) Rule {
	return Rule{Policy: Policy{ID: id, Title: title, Severity: s, Why: why, Standard: standard, CheckPod: check}, Mode: m}
}

func privileged(p *Pod) (vs []Violation) {
	for _, c := range p.Containers {
		if isTrue(c.SecurityContext, "privileged") {
			vs = append(vs, Violation{c.At("securityContext", "privileged"), c.String() + " is privileged", "remove privileged, and add the one capability that is needed if any"})
		}
	}
	return vs
}

func hostProcess(p *Pod) (vs []Violation) {
	const remedy = "remove hostProcess"
	if isTrue(object(p.SecurityContext, "windowsOptions"), "hostProcess") {
		vs = append(vs, Violation{p.At("securityContext", "windowsOptions", "hostProcess"), "the pod runs as a process of the Windows host", remedy})
	}
	for _, c := range p.Containers {
		if isTrue(object(c.SecurityContext, "windowsOptions"), "hostProcess") {
			vs = append(vs, Violation{c.At("securityContext", "windowsOptions", "hostProcess"), c.String() + " runs as a process of the Windows host", remedy})
		}
	}
	return vs
}

func hostNamespaces(p *Pod) (vs []Violation) {
	for _, f := range [...]struct{ field, what string }{
		{"hostNetwork", "network"}, {"hostPID", "process"}, {"hostIPC", "IPC"},
	} {
		if isTrue(p.Spec, f.field) {
			vs = append(vs, Violation{p.At(f.field), "the pod shares the node's " + f.what + " namespace", "remove " + f.field})
		}
	}
	return vs
}

func hostPath(p *Pod) (vs []Violation) {
	volumes := list(p.Spec, "volumes")
	for i, e := range volumes {
		m, _ := e.(map[string]any)
		if m["hostPath"] == nil {
			continue
		}
		vs = append(vs, Violation{
			reconcile.JoinField(element(p.At("volumes"), volumes, i), "hostPath"),
			"volume " + quote(str(m, "name")) + " mounts " + quote(str(object(m, "hostPath"), "path")) + " of the node",
			"use a volume claim, emptyDir, configMap or projected volume",
		})
	}
	return vs
}

func hostPorts(p *Pod) (vs []Violation) {
	network := isTrue(p.Spec, "hostNetwork")
	for _, c := range p.Containers {
		ports := list(c.Object, "ports")
		for i, e := range ports {
			m, _ := e.(map[string]any)
			field := "hostPort"
			n, _ := number(m["hostPort"])
			if n == 0 && network {
				// The API server fills it in for pods on the node's network.
				field = "containerPort"
				n, _ = number(m["containerPort"])
			}
			if n == 0 {
				continue
			}
			why := " opens port "
			if field == "containerPort" {
				why = " on the node's network opens port "
			}
			vs = append(vs, Violation{
				reconcile.JoinField(element(c.At("ports"), ports, i), field),
				c.String() + why + itoa(n) + " on the node",
				"remove hostPort and reach the pod through a Service",
			})
		}
	}
	return vs
}

func capabilities(p *Pod) (vs []Violation) {
	for _, c := range p.Containers {
		for i, e := range list(object(c.SecurityContext, "capabilities"), "add") {
			name, isString := e.(string)
			if isString && baselineCapability(name) {
				continue
			}
			vs = append(vs, Violation{
				reconcile.JoinIndex(c.At("securityContext", "capabilities", "add"), i),
				c.String() + " adds capability " + quote(name),
				"remove the capability",
			})
		}
	}
	return vs
}

// baselineCapability tells whether the baseline level allows adding it.
func baselineCapability(name string) bool {
	switch name {
	case "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
		"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT":
		return true
	}
	return false
}

func appArmor(p *Pod) (vs []Violation) {
	const (
		remedy = "use RuntimeDefault or Localhost, or leave it out"
		prefix = "container.apparmor.security.beta.kubernetes.io/"
	)
	bad := func(sc map[string]any) (string, bool) {
		profile := object(sc, "appArmorProfile")
		t := str(profile, "type")
		return t, profile != nil && t != "RuntimeDefault" && t != "Localhost"
	}
	if t, is := bad(p.SecurityContext); is {
		vs = append(vs, Violation{p.At("securityContext", "appArmorProfile", "type"), "the pod's AppArmor profile is " + quote(t), remedy})
	}
	for _, c := range p.Containers {
		if t, is := bad(c.SecurityContext); is {
			vs = append(vs, Violation{c.At("securityContext", "appArmorProfile", "type"), c.String() + " has the AppArmor profile " + quote(t), remedy})
		}
	}
	for k, v := range object(p.Metadata, "annotations") {
		name, is := strings.CutPrefix(k, prefix)
		if s, isString := v.(string); is && isString && s != "" && s != "runtime/default" && !strings.HasPrefix(s, "localhost/") {
			vs = append(vs, Violation{join(p.metaPath, []string{"annotations", k}), "an annotation gives container " + quote(name) + " the AppArmor profile " + quote(s), remedy})
		}
	}
	// Annotations come in the map's random order.
	slices.SortStableFunc(vs, func(a, b Violation) int { return strings.Compare(a.Path, b.Path) })
	return vs
}

func seLinux(p *Pod) (vs []Violation) {
	check := func(sc map[string]any, who string, path func(...string) string) {
		options := object(sc, "seLinuxOptions")
		switch t := str(options, "type"); t {
		case "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t":
		default:
			vs = append(vs, Violation{path("securityContext", "seLinuxOptions", "type"), who + " sets the SELinux type " + quote(t), "use container_t or leave it out"})
		}
		for _, field := range [...]string{"user", "role"} {
			if v := str(options, field); v != "" {
				vs = append(vs, Violation{path("securityContext", "seLinuxOptions", field), who + " sets the SELinux " + field + " " + quote(v), "leave it out"})
			}
		}
	}
	if sc := p.SecurityContext; sc["seLinuxOptions"] != nil {
		check(sc, "the pod", p.At)
	}
	for _, c := range p.Containers {
		if c.SecurityContext["seLinuxOptions"] != nil {
			check(c.SecurityContext, c.String(), c.At)
		}
	}
	return vs
}

func procMount(p *Pod) []Violation {
	if p.userNamespace() {
		return nil
	}
	return unmaskedProc(p)
}

func procMountSet(p *Pod) []Violation {
	if !p.userNamespace() {
		return nil
	}
	return unmaskedProc(p)
}

func unmaskedProc(p *Pod) (vs []Violation) {
	for _, c := range p.Containers {
		if v, is := c.SecurityContext["procMount"].(string); is && v != "Default" {
			vs = append(vs, Violation{c.At("securityContext", "procMount"), c.String() + " mounts /proc as " + quote(v), "remove procMount"})
		}
	}
	return vs
}

// seccompType gives the type of a seccomp profile and whether there is one.
func seccompType(sc map[string]any) (string, bool) {
	profile := object(sc, "seccompProfile")
	return str(profile, "type"), profile != nil
}

func confined(t string) bool { return t == "RuntimeDefault" || t == "Localhost" }

func seccomp(p *Pod) (vs []Violation) {
	const remedy = "use RuntimeDefault"
	if t, is := seccompType(p.SecurityContext); is && !confined(t) {
		vs = append(vs, Violation{p.At("securityContext", "seccompProfile", "type"), "the pod's seccomp profile is " + quote(t), remedy})
	}
	for _, c := range p.Containers {
		if t, is := seccompType(c.SecurityContext); is && !confined(t) {
			vs = append(vs, Violation{c.At("securityContext", "seccompProfile", "type"), c.String() + " has the seccomp profile " + quote(t), remedy})
		}
	}
	return vs
}

func seccompSet(p *Pod) (vs []Violation) {
	if _, is := seccompType(p.SecurityContext); is || p.windows() {
		return nil // set, or wrong, which is the baseline rule's to say
	}
	for _, c := range p.Containers {
		if _, is := seccompType(c.SecurityContext); !is {
			vs = append(vs, Violation{c.At("securityContext", "seccompProfile"), c.String() + " has no seccomp profile, nor has the pod", "set seccompProfile.type to RuntimeDefault in the pod's securityContext"})
		}
	}
	return vs
}

func sysctls(p *Pod) (vs []Violation) {
	all := list(p.SecurityContext, "sysctls")
	for i, e := range all {
		m, _ := e.(map[string]any)
		switch name := str(m, "name"); name {
		case "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
			"net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start",
			"net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
			"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem",
			"net.ipv4.tcp_wmem", "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat":
		default:
			vs = append(vs, Violation{
				reconcile.JoinField(element(p.At("securityContext", "sysctls"), all, i), "name"),
				"the pod sets the sysctl " + quote(name) + ", which is not in the safe set", "remove it",
			})
		}
	}
	return vs
}

func probeHosts(p *Pod) (vs []Violation) {
	for _, c := range p.Containers {
		check := func(handler map[string]any, what string, path ...string) {
			for _, kind := range [...]string{"httpGet", "tcpSocket"} {
				if host := str(object(handler, kind), "host"); host != "" {
					vs = append(vs, Violation{c.At(append(path, kind, "host")...), "the " + what + " of " + c.String() + " goes to host " + quote(host), "remove host; the pod's own address is the default"})
				}
			}
		}
		for _, probe := range [...]string{"livenessProbe", "readinessProbe", "startupProbe"} {
			if h := object(c.Object, probe); h != nil {
				check(h, probe, probe)
			}
		}
		if lc := object(c.Object, "lifecycle"); lc != nil {
			for _, hook := range [...]string{"postStart", "preStop"} {
				check(object(lc, hook), hook+" hook", "lifecycle", hook)
			}
		}
	}
	return vs
}

func volumeTypes(p *Pod) (vs []Violation) {
	volumes := list(p.Spec, "volumes")
	for i, e := range volumes {
		m, _ := e.(map[string]any)
		var bad string
		ok := false
		for k, v := range m {
			switch k {
			case "name":
			case "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image",
				"persistentVolumeClaim", "projected", "secret", "hostPath": // hostPath is the baseline rule's to say
				ok = ok || v != nil
			default:
				if v != nil && (bad == "" || k < bad) {
					bad = k
				}
			}
		}
		// Without any source the API server makes it an emptyDir.
		if ok || bad == "" {
			continue
		}
		vs = append(vs, Violation{
			reconcile.JoinField(element(p.At("volumes"), volumes, i), bad),
			"volume " + quote(str(m, "name")) + " is of type " + quote(bad),
			"use a volume claim, emptyDir, configMap, secret, projected, csi or image volume",
		})
	}
	return vs
}

func privilegeEscalation(p *Pod) (vs []Violation) {
	if p.windows() {
		return nil
	}
	for _, c := range p.Containers {
		v, set := c.SecurityContext["allowPrivilegeEscalation"].(bool)
		if set && !v {
			continue
		}
		msg := c.String() + " does not forbid privilege escalation"
		if set {
			msg = c.String() + " allows privilege escalation"
		}
		vs = append(vs, Violation{c.At("securityContext", "allowPrivilegeEscalation"), msg, "set allowPrivilegeEscalation to false"})
	}
	return vs
}

func runAsNonRoot(p *Pod) (vs []Violation) {
	if p.userNamespace() {
		return nil
	}
	const remedy = "set runAsNonRoot to true in the pod's securityContext"
	ofPod, podSets := p.SecurityContext["runAsNonRoot"].(bool)
	if podSets && !ofPod {
		vs = append(vs, Violation{p.At("securityContext", "runAsNonRoot"), "the pod may run as root", remedy})
	}
	for _, c := range p.Containers {
		v, sets := c.SecurityContext["runAsNonRoot"].(bool)
		switch {
		case sets && !v:
			vs = append(vs, Violation{c.At("securityContext", "runAsNonRoot"), c.String() + " may run as root", "set runAsNonRoot to true, or leave it to the pod"})
		case !sets && !podSets:
			vs = append(vs, Violation{c.At("securityContext", "runAsNonRoot"), c.String() + " does not forbid running as root, nor does the pod", remedy})
		}
	}
	return vs
}

func runAsUser(p *Pod) (vs []Violation) {
	if p.userNamespace() {
		return nil
	}
	const remedy = "set another user id, or leave it to the image"
	if n, is := number(p.SecurityContext["runAsUser"]); is && n == 0 {
		vs = append(vs, Violation{p.At("securityContext", "runAsUser"), "the pod runs as user 0, which is root", remedy})
	}
	for _, c := range p.Containers {
		if n, is := number(c.SecurityContext["runAsUser"]); is && n == 0 {
			vs = append(vs, Violation{c.At("securityContext", "runAsUser"), c.String() + " runs as user 0, which is root", remedy})
		}
	}
	return vs
}

func dropCapabilities(p *Pod) (vs []Violation) {
	if p.windows() {
		return nil
	}
	for _, c := range p.Containers {
		caps := object(c.SecurityContext, "capabilities")
		dropsAll := false
		for _, e := range list(caps, "drop") {
			dropsAll = dropsAll || e == "ALL"
		}
		if !dropsAll {
			vs = append(vs, Violation{c.At("securityContext", "capabilities", "drop"), c.String() + " does not drop all capabilities", `set capabilities.drop to ["ALL"]`})
		}
		for i, e := range list(caps, "add") {
			name, _ := e.(string)
			if name == "NET_BIND_SERVICE" || !baselineCapability(name) { // others are the baseline rule's to say
				continue
			}
			vs = append(vs, Violation{
				reconcile.JoinIndex(c.At("securityContext", "capabilities", "add"), i),
				c.String() + " adds capability " + quote(name), "remove the capability; only NET_BIND_SERVICE may be added",
			})
		}
	}
	return vs
}
