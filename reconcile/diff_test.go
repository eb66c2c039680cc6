package reconcile

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	env := func(pairs ...string) list {
		var l list
		for i := 0; i < len(pairs); i += 2 {
			l = append(l, object{"name": pairs[i], "value": pairs[i+1]})
		}
		return l
	}
	long := func(n int, edit int) list {
		var l list
		for i := range n {
			v := "v"
			if i == edit {
				v = "edited"
			}
			l = append(l, object{"name": fmt.Sprint("e", i), "value": v})
		}
		return l
	}
	tests := []struct {
		name                   string
		applied, desired, live object
		want                   []FieldChange
		merged                 object // nil: not looked at
	}{
		{name: "all empty"},
		{name: "equal", desired: object{"a": int64(1), "b": object{"c": list{"x"}}}, live: object{"a": int64(1), "b": object{"c": list{"x"}}}},
		{
			name: "changed, added and live-only", desired: object{"a": int64(2), "b": "x"}, live: object{"a": int64(1), "z": true},
			want:   []FieldChange{{Path: "a", From: int64(1), To: int64(2)}, {Path: "b", To: "x"}},
			merged: object{"a": int64(2), "b": "x", "z": true},
		},
		{
			name: "removed since it was applied", applied: object{"a": "1", "b": "2"}, desired: object{"a": "1"}, live: object{"a": "1", "b": "3", "c": "4"},
			want:   []FieldChange{{Path: "b", From: "3"}},
			merged: object{"a": "1", "c": "4"},
		},
		{name: "removed and gone already", applied: object{"b": "2"}, desired: object{}, live: object{}},
		{
			name: "removed map of ours", applied: object{"m": object{"x": "1", "y": "2"}}, desired: object{}, live: object{"m": object{"x": "1", "y": "2"}},
			want:   []FieldChange{{Path: "m", From: object{"x": "1", "y": "2"}}},
			merged: object{},
		},
		{
			name: "removed map that others use", applied: object{"m": object{"x": "1", "y": "2"}}, desired: object{}, live: object{"m": object{"x": "1", "y": "2", "theirs": "3"}},
			want:   []FieldChange{{Path: "m.x", From: "1"}, {Path: "m.y", From: "2"}},
			merged: object{"m": object{"theirs": "3"}},
		},
		{
			name: "removed map that others use deeper", applied: object{"m": object{"x": object{"k": "1"}}}, desired: object{}, live: object{"m": object{"x": object{"k": "1", "theirs": "3"}}},
			want:   []FieldChange{{Path: "m.x.k", From: "1"}},
			merged: object{"m": object{"x": object{"theirs": "3"}}},
		},
		{
			name: "removed list that others use", applied: object{"env": env("a", "1")}, desired: object{}, live: object{"env": env("a", "1", "theirs", "2")},
			want:   []FieldChange{{Path: "env[name=a]", From: object{"name": "a", "value": "1"}}},
			merged: object{"env": env("theirs", "2")},
		},
		{
			name: "keyed list", applied: object{"env": env("gone", "0")}, desired: object{"env": env("a", "1", "b", "2")}, live: object{"env": env("theirs", "9", "b", "3", "gone", "0")},
			want: []FieldChange{
				{Path: "env[name=a]", To: object{"name": "a", "value": "1"}},
				{Path: "env[name=b].value", From: "3", To: "2"},
				{Path: "env[name=gone]", From: object{"name": "gone", "value": "0"}},
			},
			merged: object{"env": env("theirs", "9", "b", "2", "a", "1")},
		},
		{name: "keyed list in another order", desired: object{"env": env("a", "1", "b", "2")}, live: object{"env": env("b", "2", "a", "1")}},
		{
			name: "numeric list keys", desired: object{"ports": list{object{"containerPort": int64(80), "x": "1"}}}, live: object{"ports": list{object{"containerPort": 80.0, "x": "2"}}},
			want: []FieldChange{{Path: "ports[containerPort=80].x", From: "2", To: "1"}},
		},
		{
			name: "two elements of one key have positions", desired: object{"ports": list{object{"port": int64(53), "protocol": "UDP"}, object{"port": int64(53), "protocol": "TCP"}}},
			live: object{"ports": list{object{"port": int64(53), "protocol": "UDP"}, object{"port": int64(53), "protocol": "SCTP", "nodePort": int64(1)}}},
			want: []FieldChange{{Path: "ports[1].protocol", From: "SCTP", To: "TCP"}},
		},
		{
			name: "long keyed list", desired: object{"env": long(100, -1)}, live: object{"env": long(100, 70)},
			want: []FieldChange{{Path: "env[name=e70].value", From: "edited", To: "v"}},
		},
		{
			name: "plain list of another length is replaced", desired: object{"args": list{"a"}}, live: object{"args": list{"a", "b"}},
			want:   []FieldChange{{Path: "args", From: list{"a", "b"}, To: list{"a"}}},
			merged: object{"args": list{"a"}},
		},
		{
			name: "plain list of equal length", desired: object{"args": list{"a", "b"}}, live: object{"args": list{"a", "c"}},
			want: []FieldChange{{Path: "args[1]", From: "c", To: "b"}},
		},
		{
			name: "null in a list keeps its place", desired: object{"args": list{nil, "b"}}, live: object{"args": list{"a", "b"}},
			want:   []FieldChange{{Path: "args[0]", From: "a"}},
			merged: object{"args": list{nil, "b"}},
		},
		{name: "null, empty map and empty list are as missing", desired: object{"a": nil, "b": object{}, "c": list{}}, live: object{}},
		{name: "null is as null, empty map and empty list", desired: object{"a": nil, "b": nil, "c": nil}, live: object{"a": nil, "b": object{}, "c": list{}}},
		{
			name: "null removes", desired: object{"a": nil}, live: object{"a": "x", "b": "y"},
			want: []FieldChange{{Path: "a", From: "x"}}, merged: object{"b": "y"},
		},
		{
			name: "empty list empties", desired: object{"a": list{}}, live: object{"a": list{"x"}},
			want: []FieldChange{{Path: "a", From: list{"x"}, To: list{}}}, merged: object{"a": list{}},
		},
		{
			name:    "empty map is written with what it comes with",
			applied: object{"volumes": list{object{"name": "tmp", "hostPath": object{"path": "/x"}}}},
			desired: object{"volumes": list{object{"name": "tmp", "emptyDir": object{}}}},
			live:    object{"volumes": list{object{"name": "tmp", "hostPath": object{"path": "/x"}}}},
			want:    []FieldChange{{Path: "volumes[name=tmp].hostPath", From: object{"path": "/x"}}},
			merged:  object{"volumes": list{object{"name": "tmp", "emptyDir": object{}}}},
		},
		{
			name: "shapes change", desired: object{"a": object{"x": "1"}, "b": list{"1"}, "c": "1"}, live: object{"a": "1", "b": object{"x": "1"}, "c": list{"1"}},
			want: []FieldChange{
				{Path: "a", From: "1", To: object{"x": "1"}}, {Path: "b", From: object{"x": "1"}, To: list{"1"}}, {Path: "c", From: list{"1"}, To: "1"},
			},
		},
		{
			name: "quantities", desired: object{"limits": object{"cpu": int64(1), "memory": "1Gi", "a": "0.5", "b": "1e3", "c": "2"}},
			live: object{"limits": object{"cpu": "1000m", "memory": "1073741824", "a": "500m", "b": "1k", "c": "2000"}},
			want: []FieldChange{{Path: "limits.c", From: "2000", To: "2"}},
		},
		{
			name: "no quantities elsewhere", desired: object{"data": object{"limits": "1", "x": "1"}}, live: object{"data": object{"limits": "1000m", "x": "1.0"}},
			want: []FieldChange{{Path: "data.limits", From: "1000m", To: "1"}, {Path: "data.x", From: "1.0", To: "1"}},
		},
		{
			name: "numbers by value", desired: object{"a": int64(3), "b": 0.5, "c": math.NaN(), "d": int64(1<<53 + 1), "e": int64(7)}, live: object{"a": 3.0, "b": 0.5, "c": math.NaN(), "d": int64(1 << 53), "e": 7},
			want: []FieldChange{{Path: "d", From: int64(1 << 53), To: int64(1<<53 + 1)}},
		},
		{
			name: "text is not a number", desired: object{"a": "3"}, live: object{"a": int64(3)},
			want: []FieldChange{{Path: "a", From: int64(3), To: "3"}},
		},
		{
			name: "odd field names", desired: object{"a.b/c": "1", "": "2"}, live: object{},
			want: []FieldChange{{Path: `[""]`, To: "2"}, {Path: `["a.b/c"]`, To: "1"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := [3]object{CloneObject(tt.applied), CloneObject(tt.desired), CloneObject(tt.live)}
			got := Diff(tt.applied, tt.desired, tt.live)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("Diff (-want +got):\n%s", d)
			}
			merged := Change{Action: Update, Desired: tt.desired, Fields: got}.Merge(tt.live)
			if rest := Diff(tt.applied, tt.desired, merged); tt.live != nil && len(rest) > 0 {
				t.Errorf("after Merge there is still %v in %v", rest, merged)
			}
			if d := cmp.Diff(tt.merged, merged); tt.merged != nil && d != "" {
				t.Errorf("Merge (-want +got):\n%s", d)
			}
			after := [3]object{tt.applied, tt.desired, tt.live}
			if !same(list{before[0], before[1], before[2]}, list{after[0], after[1], after[2]}) {
				t.Errorf("input was changed:\n%v\n%v", before, after)
			}
		})
	}
}

func TestQuantity(t *testing.T) {
	for _, tt := range []struct {
		in   any
		want float64 // billionths
		ok   bool
	}{
		{"1", 1e9, true}, {int64(1), 1e9, true}, {0.5, 5e8, true}, {"100m", 1e8, true}, {"0.1", 1e8, true}, {"1n", 1, true}, {"1u", 1e3, true},
		{"1k", 1e12, true}, {"1Ki", 1024e9, true}, {"2Mi", 2 << 20 * 1e9, true}, {"1e3", 1e12, true}, {"1E", 1e27, true}, {"-1", -1e9, true}, {".5", 5e8, true},
		{"", 0, false}, {"m", 0, false}, {"1x", 0, false}, {"0x10", 0, false}, {"Inf", 0, false}, {"nan", 0, false}, {"1mi", 0, false}, {true, 0, false}, {nil, 0, false},
	} {
		got, ok := quantity(tt.in)
		if ok != tt.ok || got != tt.want {
			t.Errorf("quantity(%v) = %v, %v, want %v, %v", tt.in, got, ok, tt.want, tt.ok)
		}
	}
}

// random makes objects that have much in common: few names, small values.
type random struct{ *rand.Rand }

func (r random) object(depth int) object {
	o := object{}
	for range r.IntN(5) {
		o[[]string{"name", "a", "b", "c.d", "limits", "port"}[r.IntN(6)]] = r.value(depth)
	}
	return o
}

func (r random) value(depth int) any {
	if depth > 0 {
		switch r.IntN(6) {
		case 0, 1:
			return r.object(depth - 1)
		case 2:
			var l list
			for range r.IntN(4) {
				l = append(l, r.value(depth-1))
			}
			return l
		case 3:
			var l list
			for _, i := range r.Perm(4)[:r.IntN(4)] {
				e := r.object(depth - 1)
				e["name"] = fmt.Sprint("n", i)
				l = append(l, e)
			}
			return l
		}
	}
	switch r.IntN(6) {
	case 0:
		return nil
	case 1:
		return r.IntN(2) == 0
	case 2:
		return int64(r.IntN(3))
	case 3:
		return float64(r.IntN(3)) / 2
	}
	return []string{"x", "1", "1000m", ""}[r.IntN(4)]
}

// checkDiff holds Diff and Merge to what they promise.
func checkDiff(t *testing.T, applied, desired, live object) {
	t.Helper()
	before := CloneObject(object{"applied": applied, "desired": desired, "live": live})
	show := func(v any) string { b, _ := json.Marshal(v); return string(b) }
	fields := Diff(applied, desired, live)
	if !slices.IsSortedFunc(fields, func(a, b FieldChange) int { return cmpString(a.Path, b.Path) }) {
		t.Errorf("not in path order: %v", fields)
	}
	merged := Change{Action: Update, Desired: desired, Fields: fields}.Merge(live)
	if rest := Diff(desired, desired, merged); len(rest) > 0 {
		t.Errorf("applied %s\ndesired %s\nlive    %s\nfields  %s\nmerged  %s\nstill   %s", show(applied), show(desired), show(live), show(fields), show(merged), show(rest))
	}
	if len(fields) == 0 && len(Diff(nil, live, merged)) > 0 {
		t.Errorf("no difference, yet merging %s into %s gave %s", show(desired), show(live), show(merged))
	}
	if p, ok := lost(applied, desired, live, merged); ok {
		t.Errorf("applied %s\ndesired %s\nlive    %s\nmerged  %s\nlost    %s", show(applied), show(desired), show(live), show(merged), p)
	}
	if !same(before, object{"applied": applied, "desired": desired, "live": live}) {
		t.Errorf("input was changed: %s", show(before))
	}
	for _, f := range fields {
		if p, err := ParsePath(f.Path); err != nil || p.String() != f.Path {
			t.Errorf("path %q reads as %v, %v", f.Path, p, err)
		}
	}
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// lost finds a field of maps that only live has, and merged has lost.
func lost(applied, desired, live, merged object) (string, bool) {
	for k, v := range live {
		was, applies := applied[k]
		want, declares := desired[k]
		_, kept := merged[k]
		if !applies && !declares && !kept {
			return k, true
		}
		lm, ok := v.(object)
		if !ok {
			continue
		}
		am, aok := was.(object)
		dm, dok := want.(object)
		if applies && !aok || declares && !dok {
			continue // of another shape once or now
		}
		mm, _ := merged[k].(object)
		if p, bad := lost(am, dm, lm, mm); bad {
			return JoinField(k, "") + p, true
		}
	}
	return "", false
}

func TestDiffProperties(t *testing.T) {
	r := random{rand.New(rand.NewPCG(1, 2))}
	for range 20_000 {
		applied, desired, live := r.object(3), r.object(3), r.object(3)
		switch r.IntN(3) {
		case 0:
			applied = nil
		case 1:
			live = Change{Desired: applied}.Merge(live)
		}
		checkDiff(t, applied, desired, live)
		if len(Diff(applied, desired, desired)) != 0 {
			// What is live was applied and is declared no more: not here.
			t.Errorf("an object differs from itself: %v", desired)
		}
		if t.Failed() {
			return
		}
	}
}

func FuzzDiff(f *testing.F) {
	f.Add(`{}`, `{"a":1}`, `{"a":2,"b":[]}`)
	f.Add(`{"a":{"b":1}}`, `{}`, `{"a":{"b":1,"c":2}}`)
	f.Add(`null`, `{"l":[{"name":"x","v":1},{"name":"y"}]}`, `{"l":[{"name":"y","v":null},{"name":"z"}]}`)
	f.Add(`{"l":[null]}`, `{"l":[null]}`, `{"l":["x"]}`)
	f.Add(`{}`, `{"limits":{"cpu":"1"}}`, `{"limits":{"cpu":"1000m"}}`)
	f.Add(`{"l":[{"name":"1"}]}`, `{"l":[{"name":1}]}`, `{"l":[{"name":1.0},{"name":true}]}`)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		var o [3]object
		for i, s := range []string{a, b, c} {
			if err := decodeJSON([]byte(s), &o[i]); err != nil {
				t.Skip()
			}
			o[i] = plainObject(o[i])
		}
		if o[2] == nil {
			o[2] = object{}
		}
		checkDiff(t, o[0], o[1], o[2])
	})
}

func TestDiffAllocatesNothingWhenEqual(t *testing.T) {
	desired, live := deployment(), deployment()
	live["status"] = object{"readyReplicas": int64(3)}
	live["spec"].(object)["revisionHistoryLimit"] = int64(10)
	if n := testing.AllocsPerRun(100, func() { Diff(desired, desired, live) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// deployment is a Deployment of about 2.3 KiB as JSON.
func deployment() object {
	var o object
	if err := decodeJSON([]byte(deploymentJSON), &o); err != nil {
		panic(err)
	}
	return plainObject(o)
}

const deploymentJSON = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"checkout","namespace":"shop","labels":{"app.kubernetes.io/name":"checkout","app.kubernetes.io/part-of":"shop","team":"payments"},
"annotations":{"example.org/owner":"payments@example.org","example.org/runbook":"https://runbooks.example.org/checkout"}},
"spec":{"replicas":3,"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%","maxUnavailable":0}},"selector":{"matchLabels":{"app.kubernetes.io/name":"checkout"}},
"template":{"metadata":{"labels":{"app.kubernetes.io/name":"checkout","team":"payments"},"annotations":{"prometheus.io/scrape":"true","prometheus.io/port":"9090"}},
"spec":{"serviceAccountName":"checkout","terminationGracePeriodSeconds":30,"securityContext":{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}},
"initContainers":[{"name":"migrate","image":"registry.example.org/shop/checkout:1.42.0","args":["migrate","--wait"],"env":[{"name":"DB_HOST","value":"db.shop.svc"}]}],
"containers":[{"name":"checkout","image":"registry.example.org/shop/checkout:1.42.0","args":["serve","--listen=:8080"],"ports":[{"name":"http","containerPort":8080},{"name":"metrics","containerPort":9090}],
"env":[{"name":"DB_HOST","value":"db.shop.svc"},{"name":"DB_NAME","value":"checkout"},{"name":"LOG_LEVEL","value":"info"},{"name":"PAYMENT_URL","value":"http://payment.shop.svc:8080"},{"name":"DB_PASSWORD","valueFrom":{"secretKeyRef":{"name":"checkout-db","key":"password"}}}],
"resources":{"requests":{"cpu":"250m","memory":"256Mi"},"limits":{"cpu":"1","memory":"512Mi"}},
"readinessProbe":{"httpGet":{"path":"/ready","port":"http"},"periodSeconds":5},"livenessProbe":{"httpGet":{"path":"/live","port":"http"},"initialDelaySeconds":10,"periodSeconds":10},
"securityContext":{"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true,"capabilities":{"drop":["ALL"]}},
"volumeMounts":[{"name":"config","mountPath":"/etc/checkout"},{"name":"tmp","mountPath":"/tmp"}]}],
"volumes":[{"name":"config","configMap":{"name":"checkout"}},{"name":"tmp","emptyDir":{}}],
"topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"ScheduleAnyway","labelSelector":{"matchLabels":{"app.kubernetes.io/name":"checkout"}}}]}}}}`

func BenchmarkDiffEqual(b *testing.B) {
	desired, live := deployment(), deployment()
	b.ReportAllocs()
	for b.Loop() {
		Diff(desired, desired, live)
	}
}

func BenchmarkDiffChanged(b *testing.B) {
	applied, desired, live := deployment(), deployment(), deployment()
	containers, _ := mustPath(b, "spec.template.spec.containers").Get(desired)
	containers.([]any)[0].(object)["image"] = "registry.example.org/shop/checkout:1.43.0"
	desired["spec"].(object)["replicas"] = int64(5)
	b.ReportAllocs()
	for b.Loop() {
		Diff(applied, desired, live)
	}
}

func mustPath(t testing.TB, s string) Path {
	t.Helper()
	p, err := ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
