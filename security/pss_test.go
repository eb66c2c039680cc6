package security

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPodSecurityStandards tells for each control what passes and what fails,
// on a pod that passes the restricted level otherwise.
func TestPodSecurityStandards(t *testing.T) {
	restricted := newSet(t, Config{Rules: Restricted()})
	const (
		c    = "spec.containers[name=a]"
		cs   = c + ".securityContext"
		ps   = "spec.securityContext"
		hard = "securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}"
	)
	// pod makes a pod of fields of its spec and fields of its container.
	pod := func(spec, container, sc string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n" + indent(spec, 2) + `
  containers:
  - name: a
` + indent(container, 4) + `
    securityContext:
      allowPrivilegeEscalation: false
      runAsNonRoot: true
      capabilities: {drop: [ALL]}
      seccompProfile: {type: RuntimeDefault}
` + indent(sc, 6) + "\n"
	}
	spec := func(s string) string { return pod(s, "", "") }
	cont := func(s string) string { return pod("", s, "") }
	sec := func(s string) string { return pod("", "", s) }
	bare := func(spec, sc string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n" + indent(spec, 2) + "\n  containers:\n  - name: a\n    securityContext:\n" + indent(sc, 6) + "\n"
	}
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"plain", spec(""), nil},

		{"privileged", sec("privileged: true"), []string{"pod-privileged " + cs + ".privileged"}},
		{"privileged false", sec("privileged: false"), nil},
		{"privileged null", sec("privileged: null"), nil},
		{"privileged as a string is refused by the API server", sec(`privileged: "true"`), nil},
		{"privileged init container", spec("initContainers:\n- {name: i, " + hard[:len(hard)-1] + ", privileged: true}}"),
			[]string{"pod-privileged spec.initContainers[name=i].securityContext.privileged"}},
		{"privileged ephemeral container", spec("ephemeralContainers:\n- {name: e, " + hard[:len(hard)-1] + ", privileged: true}}"),
			[]string{"pod-privileged spec.ephemeralContainers[name=e].securityContext.privileged"}},

		{"host process of the pod", spec("securityContext: {windowsOptions: {hostProcess: true}}"), []string{"pod-host-process " + ps + ".windowsOptions.hostProcess"}},
		{"host process", sec("windowsOptions: {hostProcess: true}"), []string{"pod-host-process " + cs + ".windowsOptions.hostProcess"}},
		{"no host process", sec("windowsOptions: {hostProcess: false}"), nil},

		{"host namespaces", spec("hostNetwork: true\nhostPID: true\nhostIPC: true"), []string{
			"pod-host-namespaces spec.hostIPC", "pod-host-namespaces spec.hostNetwork", "pod-host-namespaces spec.hostPID"}},
		{"no host namespaces", spec("hostNetwork: false\nhostPID: false\nhostIPC: false"), nil},

		{"hostPath", spec("volumes:\n- {name: v, hostPath: {path: /}}"), []string{"pod-host-path spec.volumes[name=v].hostPath"}},
		{"hostPath null", spec("volumes:\n- {name: v, hostPath: null, emptyDir: {}}"), nil},

		{"host port", cont("ports:\n- {containerPort: 80, hostPort: 8080}"), []string{"pod-host-port " + c + ".ports[containerPort=80].hostPort"}},
		{"host port 0", cont("ports:\n- {containerPort: 80, hostPort: 0}"), nil},
		{"host port by default on the host network", pod("hostNetwork: true", "ports:\n- {containerPort: 80}", ""), []string{
			"pod-host-namespaces spec.hostNetwork", "pod-host-port " + c + ".ports[containerPort=80].containerPort"}},

		{"added capability", bare("", "allowPrivilegeEscalation: false\nrunAsNonRoot: true\nseccompProfile: {type: Localhost, localhostProfile: x}\ncapabilities: {drop: [ALL], add: [NET_BIND_SERVICE, CHOWN, SYS_ADMIN]}"), []string{
			"pod-capabilities " + cs + ".capabilities.add[2]", "pod-drop-capabilities " + cs + ".capabilities.add[1]"}},
		{"capability names are exact", bare("", "allowPrivilegeEscalation: false\nrunAsNonRoot: true\nseccompProfile: {type: RuntimeDefault}\ncapabilities: {drop: [all], add: [chown, CAP_CHOWN]}"), []string{
			"pod-capabilities " + cs + ".capabilities.add[0]", "pod-capabilities " + cs + ".capabilities.add[1]", "pod-drop-capabilities " + cs + ".capabilities.drop"}},

		{"apparmor", sec("appArmorProfile: {type: Unconfined}"), []string{"pod-apparmor " + cs + ".appArmorProfile.type"}},
		{"apparmor of the pod", spec("securityContext: {appArmorProfile: {type: Unconfined}}"), []string{"pod-apparmor " + ps + ".appArmorProfile.type"}},
		{"apparmor ok", sec("appArmorProfile: {type: RuntimeDefault}"), nil},
		{"apparmor annotation", `{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {container.apparmor.security.beta.kubernetes.io/a: unconfined}}, spec: {containers: [{name: a, ` + hard + `}]}}`,
			[]string{`pod-apparmor metadata.annotations["container.apparmor.security.beta.kubernetes.io/a"]`}},
		{"apparmor annotation ok", `{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {container.apparmor.security.beta.kubernetes.io/a: localhost/x}}, spec: {containers: [{name: a, ` + hard + `}]}}`, nil},

		{"selinux", sec("seLinuxOptions: {type: spc_t, user: u, role: r}"), []string{
			"pod-selinux " + cs + ".seLinuxOptions.role", "pod-selinux " + cs + ".seLinuxOptions.type", "pod-selinux " + cs + ".seLinuxOptions.user"}},
		{"selinux ok", sec("seLinuxOptions: {type: container_kvm_t, level: s0}"), nil},
		{"selinux of the pod", spec("securityContext: {seLinuxOptions: {user: u}}"), []string{"pod-selinux " + ps + ".seLinuxOptions.user"}},

		{"proc mount", sec("procMount: Unmasked"), []string{"pod-proc-mount " + cs + ".procMount"}},
		{"proc mount default", sec("procMount: Default"), nil},
		{"proc mount in a user namespace is baseline", pod("hostUsers: false", "", "procMount: Unmasked"), []string{"pod-proc-mount-set " + cs + ".procMount"}},

		{"seccomp", bare("", "allowPrivilegeEscalation: false\nrunAsNonRoot: true\ncapabilities: {drop: [ALL]}\nseccompProfile: {type: Unconfined}"), []string{"pod-seccomp " + cs + ".seccompProfile.type"}},
		{"seccomp of the pod", spec("securityContext: {seccompProfile: {type: Unconfined}}"), []string{"pod-seccomp " + ps + ".seccompProfile.type"}},
		{"seccomp missing", bare("", "allowPrivilegeEscalation: false\nrunAsNonRoot: true\ncapabilities: {drop: [ALL]}"), []string{"pod-seccomp-set " + cs + ".seccompProfile"}},
		{"seccomp from the pod", bare("securityContext: {seccompProfile: {type: RuntimeDefault}}", "allowPrivilegeEscalation: false\nrunAsNonRoot: true\ncapabilities: {drop: [ALL]}"), nil},

		{"sysctls", spec("securityContext: {sysctls: [{name: net.ipv4.tcp_rmem, value: '1'}, {name: kernel.msgmax, value: '1'}]}"), []string{"pod-sysctls " + ps + ".sysctls[name=kernel.msgmax].name"}},

		{"probe host", cont("livenessProbe: {httpGet: {host: 169.254.169.254, port: 80}}\nlifecycle: {preStop: {tcpSocket: {host: x, port: 1}}}"), []string{
			"pod-probe-host " + c + ".lifecycle.preStop.tcpSocket.host", "pod-probe-host " + c + ".livenessProbe.httpGet.host"}},
		{"probe", cont("livenessProbe: {httpGet: {port: 80}}\nreadinessProbe: {tcpSocket: {host: '', port: 80}}"), nil},

		{"volume types", spec("volumes:\n- {name: w, nfs: {}}\n- {name: c, configMap: {}}\n- {name: i, image: {}}\n- {name: d}"), []string{"pod-volume-types spec.volumes[name=w].nfs"}},

		{"privilege escalation", bare("", "allowPrivilegeEscalation: true\nrunAsNonRoot: true\ncapabilities: {drop: [ALL]}\nseccompProfile: {type: RuntimeDefault}"), []string{"pod-privilege-escalation " + cs + ".allowPrivilegeEscalation"}},
		{"nothing set", bare("", "{}"), []string{
			"pod-drop-capabilities " + cs + ".capabilities.drop", "pod-privilege-escalation " + cs + ".allowPrivilegeEscalation",
			"pod-run-as-non-root " + cs + ".runAsNonRoot", "pod-seccomp-set " + cs + ".seccompProfile"}},
		{"nothing set on Windows", bare("os: {name: windows}", "runAsNonRoot: true"), nil},
		{"root allowed by the pod", spec("securityContext: {runAsNonRoot: false}"), []string{"pod-run-as-non-root " + ps + ".runAsNonRoot"}},
		{"root in a user namespace", bare("hostUsers: false", "runAsUser: 0\nallowPrivilegeEscalation: false\ncapabilities: {drop: [ALL]}\nseccompProfile: {type: RuntimeDefault}"), nil},
		{"user 0", pod("securityContext: {runAsUser: 0}", "", "runAsUser: 0"), []string{"pod-run-as-user " + cs + ".runAsUser", "pod-run-as-user " + ps + ".runAsUser"}},
		{"user 1000", pod("securityContext: {runAsUser: 1000}", "", "runAsUser: 1000"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == nil {
				tt.want = []string{}
			}
			if d := cmp.Diff(tt.want, rulePaths(t, restricted, tt.text)); d != "" {
				t.Error(d)
			}
		})
	}
}
