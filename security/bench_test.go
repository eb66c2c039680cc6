package security

import "testing"

const benchPod = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      volumes:
      - {name: tmp, emptyDir: {}}
      containers:
      - name: web
        image: registry.example.org/shop/web:v1.2.3
        env:
        - {name: LOG_LEVEL, value: info}
        - {name: DB_HOST, value: db.shop.svc}
        - name: DB_PASSWORD
          valueFrom: {secretKeyRef: {name: db, key: password}}
        ports:
        - {containerPort: 8080}
        livenessProbe: {httpGet: {path: /, port: 8080}}
        resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {cpu: 500m, memory: 128Mi}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

// BenchmarkDefaultOnGoodPod is the common case: all default rules, nothing found.
func BenchmarkDefaultOnGoodPod(b *testing.B) {
	set, r := newSet(b, Config{}), decode(b, benchPod)[0]
	if fs := set.EvaluateResource(r); len(fs) > 0 {
		b.Fatal(fs)
	}
	b.ReportAllocs()
	for b.Loop() {
		set.EvaluateResource(r)
	}
}

// BenchmarkDefaultOnBadPod finds about fifteen faults, with their places.
func BenchmarkDefaultOnBadPod(b *testing.B) {
	set, r := newSet(b, Config{}), decode(b, "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {hostPID: true, containers: [{name: a, image: x, securityContext: {privileged: true}, ports: [{hostPort: 80}], env: [{name: TOKEN, value: abc}]}]}")[0]
	b.ReportAllocs()
	for b.Loop() {
		set.EvaluateResource(r)
	}
}
