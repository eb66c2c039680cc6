package rootcause

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	explainable  = 0.9 // share of a deviation that callees can explain at most
	crossKind    = 0.7 // share that a callee's deviation of another kind can
	inherit      = 0.5 // share of what it explains that a callee takes on itself
	maxHops      = 16
	unreachable  = 0.4 // factor for services that the target does not call, directly or not
	corroborates = 0.05
)

// propagates tells which kinds of metric show a callee's fault at its caller.
func propagates(k kind) bool {
	switch k {
	case errorKind, successKind, latencyKind, saturationKind, unknown:
		return true
	}
	return false
}

// rankServices combines how far each service is off with how much of that its
// callees explain: symptoms run from the callee to its callers, so blame runs
// the other way, along the calls, until it reaches a service whose deviation
// its own callees do not explain.
func (s *analysis) rankServices() {
	for _, v := range s.services {
		for _, m := range v.metrics {
			if m.weighted >= s.opts.MinScore || m.kind == demandKind {
				v.dev[m.kind] = max(v.dev[m.kind], m.weighted)
			}
		}
	}
	for _, v := range s.services {
		// The dead report nothing; what they did shows at their callers.
		if !s.silent(v) {
			continue
		}
		for _, c := range v.callers {
			caller := s.services[c]
			off := max(caller.dev[errorKind], caller.dev[successKind], caller.dev[latencyKind])
			if off >= s.opts.MinScore {
				v.gone = true
				v.dev[errorKind] = max(v.dev[errorKind], off)
			}
		}
	}
	for _, v := range s.services {
		s.explain(v)
	}
	s.flow()
	reach := s.reachable()
	for i, v := range s.services {
		if s.target >= 0 && len(s.in.Graph) > 0 && !reach[i] {
			v.score *= unreachable
		}
		if v.gone || slices.ContainsFunc(v.metrics, func(m *metric) bool { return m.weighted >= s.opts.MinScore }) {
			s.rankedServices = append(s.rankedServices, v)
		}
	}
	slices.SortFunc(s.rankedServices, func(a, b *service) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.name, b.name))
	})
	// Belief grows faster than the score, and some of it is kept for causes
	// that no metric shows.
	total := s.opts.MinScore * s.opts.MinScore
	for _, v := range s.rankedServices {
		total += v.score * v.score
	}
	for _, v := range s.rankedServices {
		v.conf = v.score * v.score / total
		v.instance = s.single(v)
		v.path = s.path(v)
	}
	if len(s.rankedServices) > 0 {
		s.demand = s.demanded(s.rankedServices[0])
	}
}

// silent tells whether a service reported before onset and nothing after it.
// A ratio or a latency alone proves nothing: they are missing as well where
// there are merely no requests.
func (s *analysis) silent(v *service) bool {
	alive := false
	for _, m := range v.metrics {
		if slices.ContainsFunc(m.Values[s.to:], usable) {
			return false
		}
		switch m.kind {
		case demandKind, memoryKind, cpuKind, saturationKind:
			n := 0
			for _, x := range m.Values[:s.from] {
				if usable(x) {
					n++
				}
			}
			alive = alive || n >= minBefore && 2*n >= s.from
		}
	}
	return alive && s.rows-s.to >= minAfter
}

// explain finds what of a service's deviation its callees explain.
func (s *analysis) explain(v *service) {
	v.blame = make([]float64, len(v.callees))
	weight := make([]float64, len(v.callees))
	for k := range kinds {
		v.residual[k] = v.dev[k]
		if v.dev[k] == 0 || !propagates(k) || len(v.callees) == 0 {
			continue
		}
		sum := 0.0
		for i, c := range v.callees {
			weight[i] = s.explains(s.services[c], v, k)
			sum += weight[i]
		}
		if sum == 0 {
			continue
		}
		share := explainable * min(1, sum)
		// A metric that leaves the callees out answers the question itself.
		if self, ok := v.self(k); ok {
			share = max(0, 1-self/v.dev[k])
		}
		v.residual[k] = v.dev[k] * (1 - share)
		for i := range v.callees {
			v.blame[i] = max(v.blame[i], share*weight[i]/sum)
		}
	}
	// Each kind has its own culprits; together they take no more than there is,
	// so that blame that goes round a cycle dies out.
	sum := 0.0
	for _, b := range v.blame {
		sum += b
	}
	if sum > explainable {
		for i := range v.blame {
			v.blame[i] *= explainable / sum
		}
	}
	for i, c := range v.callees {
		if v.blame[i] > 0.2 {
			v.explains = append(v.explains, s.services[c].name)
		}
	}
	top, rest := 0.0, 0.0
	for k := range kinds {
		top = max(top, v.residual[k])
		rest += v.residual[k]
	}
	v.own = top + corroborates*(rest-top)
}

// self is the deviation of the service's own share of a kind, if measured.
func (v *service) self(k kind) (score float64, ok bool) {
	for _, m := range v.metrics {
		if m.self && m.kind == k && !math.IsNaN(m.before) {
			score, ok = max(score, m.weighted), true
		}
	}
	return score, ok
}

// explains is the share of v's deviation of kind k that callee c explains:
// by the ratio of the changes where both have the same metric, as they add up
// along the call, and else by the ratio of the scores.
func (s *analysis) explains(c, v *service, k kind) float64 {
	if k == saturationKind {
		// Who waits for a slow callee holds what its own requests need, so its
		// queue grows by as much as there is demand, from a level of nothing:
		// how the changes or the scores compare says little. That the callee
		// is clearly slower says it all.
		slow := max(c.dev[latencyKind], c.dev[saturationKind])
		return min(1, slow/(2*s.opts.MinScore))
	}
	best := 0.0
	for _, a := range v.metrics {
		if a.kind != k || a.self || a.weighted < s.opts.MinScore {
			continue
		}
		for _, b := range c.metrics {
			if b.Name != a.Name || b.weighted < s.opts.MinScore || (b.after > b.before) != (a.after > a.before) {
				continue
			}
			d := math.Abs(a.after - a.before)
			best = max(best, min(1, math.Abs(b.after-b.before)/d))
		}
	}
	if best > 0 || v.dev[k] == 0 {
		return best
	}
	off := max(c.dev[errorKind], c.dev[successKind], c.dev[latencyKind], c.dev[unknown])
	return crossKind * min(1, off/v.dev[k])
}

// flow hands what callees explain down the calls. What reaches a service is
// kept as far as the service has a residual, and handed on for the rest.
func (s *analysis) flow() {
	n := len(s.services)
	in := make([]float64, n)
	now := make([]float64, n)
	next := make([]float64, n)
	for i, v := range s.services {
		now[i] = v.own
		for k := range kinds {
			if propagates(k) {
				now[i] = max(now[i], v.dev[k])
			}
		}
	}
	for range min(n, maxHops) {
		clear(next)
		moved := false
		for i, v := range s.services {
			for j, c := range v.callees {
				if f := now[i] * v.blame[j]; f > 0 {
					next[c] += f
					moved = true
				}
			}
		}
		if !moved {
			break
		}
		for i, v := range s.services {
			passed := 0.0
			for _, b := range v.blame {
				passed += b
			}
			in[i] += next[i] * max(0, 1-passed)
		}
		now, next = next, now
	}
	for i, v := range s.services {
		// Nobody inherits more than its own deviation can have caused.
		v.score = v.own + inherit*min(in[i], 2*v.own)
	}
}

// reachable marks the services that the target calls, directly or not.
func (s *analysis) reachable() []bool {
	reach := make([]bool, len(s.services))
	if s.target < 0 {
		return reach
	}
	queue := []int{s.target}
	reach[s.target] = true
	for len(queue) > 0 {
		v := s.services[queue[0]]
		queue = queue[1:]
		for _, c := range v.callees {
			if !reach[c] {
				reach[c] = true
				queue = append(queue, c)
			}
		}
	}
	return reach
}

// distances gives the number of calls from a service to all it reaches, along
// callees or along callers; -1 where there is no way.
func (s *analysis) distances(from int, callers bool) []int {
	dist := make([]int, len(s.services))
	for i := range dist {
		dist[i] = -1
	}
	dist[from] = 0
	queue := []int{from}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		along := s.services[i].callees
		if callers {
			along = s.services[i].callers
		}
		for _, c := range along {
			if dist[c] < 0 {
				dist[c] = dist[i] + 1
				queue = append(queue, c)
			}
		}
	}
	return dist
}

// path is the shortest way from the target to v along calls, the first in
// alphabetical order among equals.
func (s *analysis) path(v *service) []string {
	if s.target < 0 {
		return nil
	}
	to := s.index[v.name]
	dist := s.distances(to, true)
	if dist[s.target] < 0 {
		return nil
	}
	path := []string{s.services[s.target].name}
	for i := s.target; i != to; {
		for _, c := range s.services[i].callees {
			if dist[c] == dist[i]-1 {
				i = c
				break
			}
		}
		path = append(path, s.services[i].name)
	}
	return path
}

// single is the one instance that is off while its siblings are not. A sole
// instance counts where what is off is its own alone: its memory.
func (s *analysis) single(v *service) string {
	byName := map[string][]*metric{}
	var names []string
	for _, m := range v.metrics {
		if m.Instance != "" {
			if byName[m.Name] == nil {
				names = append(names, m.Name)
			}
			byName[m.Name] = append(byName[m.Name], m)
		}
	}
	slices.Sort(names)
	found, score := "", 0.0
	for _, name := range names {
		var first, second *metric
		for _, m := range byName[name] {
			switch {
			case first == nil || m.weighted > first.weighted:
				first, second = m, first
			case second == nil || m.weighted > second.weighted:
				second = m
			}
		}
		if first.weighted < s.opts.MinScore || first.kind == demandKind {
			continue
		}
		if second == nil {
			if first.kind == memoryKind && first.weighted >= v.own/2 && first.weighted > score {
				found, score = first.Instance, first.weighted
			}
			continue
		}
		if second.weighted >= max(s.opts.MinScore, first.weighted/3) {
			// Siblings are off alike: this metric clears no one.
			if first.weighted > score {
				found, score = "", first.weighted
			}
			continue
		}
		if first.weighted > score {
			found, score = first.Instance, first.weighted
		}
	}
	return found
}

// demanded tells, in words, how a rise of demand explains v, or gives "".
func (s *analysis) demanded(v *service) string {
	if v.dev[errorKind] > v.dev[saturationKind] && v.dev[errorKind] > v.dev[latencyKind] && v.dev[errorKind] > v.dev[cpuKind] {
		return ""
	}
	if max(v.dev[saturationKind], v.dev[latencyKind], v.dev[cpuKind]) < s.opts.MinScore {
		return ""
	}
	for _, m := range v.metrics {
		if m.kind == demandKind && m.Instance == "" && m.score >= s.opts.MinScore/2 && m.after > 1.25*m.before {
			return fmt.Sprintf("%s %s → %s", m.Name, number(m.before), number(m.after))
		}
	}
	return ""
}

// weightOfFields is how much the fields of a change can break.
func weightOfFields(fields []string) (weight float64, what string) {
	if len(fields) == 0 {
		return 0.7, ""
	}
	for _, f := range fields {
		w := 0.7
		l := strings.ToLower(f)
		has := func(words ...string) bool {
			return slices.ContainsFunc(words, func(x string) bool { return strings.Contains(l, x) })
		}
		switch {
		case has("image", "tag", "version", "digest"):
			w = 1
		case has("env", "config", "data", "args", "command", "flag", "secret", "feature"):
			w = 0.95
		case has("resources", "limits", "requests", "probe", "port"):
			w = 0.8
		case has("replicas"):
			w = 0.25
		case has("label", "annotation"):
			w = 0.1
		}
		if w > weight || w == weight && f < what {
			weight, what = w, f
		}
	}
	return weight, what
}

// rankChanges weighs the changes before onset: by how long before, what they
// changed, and how near their services are to the ranked ones.
func (s *analysis) rankChanges() {
	if len(s.rankedServices) == 0 {
		return
	}
	onset := s.time(s.onset)
	latest := s.time(s.to).Add(s.in.Step)
	none := 0.15
	total := none
	top := s.rankedServices[0]
	for _, c := range s.changes {
		age := onset.Sub(c.Time)
		if c.Time.After(latest) || age > s.opts.ChangeWindow || len(c.Services) == 0 {
			continue
		}
		prior := math.Exp2(-4 * max(0, age.Seconds()) / s.opts.ChangeWindow.Seconds())
		weight, what := weightOfFields(c.Fields)
		touched, how := s.relation(c)
		l := prior * weight * touched
		ev := []string{whenLine(age)}
		if how != "" {
			ev = append(ev, how)
		} else {
			ev = append(ev, fmt.Sprintf("touches %s, which does not call or serve %s", list(c.Services), top.name))
		}
		if what != "" {
			ev = append(ev, "changes "+what)
		}
		if c.Automatic {
			// Automation repeats what has worked before.
			l *= 0.5
			ev = append(ev, "made by automation")
		}
		if top.instance != "" && slices.Contains(c.Services, top.name) {
			l *= 0.15
			ev = append(ev, fmt.Sprintf("only instance %s of %s is off, a change reaches all", top.instance, top.name))
		}
		if s.demand != "" {
			l *= 0.5
			ev = append(ev, "demand rose: "+s.demand)
		}
		s.rankedChanges = append(s.rankedChanges, RankedChange{Change: c, Confidence: l, Evidence: ev})
		total += l
	}
	for i := range s.rankedChanges {
		s.rankedChanges[i].Confidence /= total
	}
	slices.SortStableFunc(s.rankedChanges, func(a, b RankedChange) int {
		return cmp.Compare(b.Confidence, a.Confidence)
	})
}

func whenLine(age time.Duration) string {
	if age < 0 {
		return "took effect at onset"
	}
	return fmt.Sprintf("took effect %s before onset", age.Round(100*time.Millisecond))
}

// relation is how much of the belief in the ranked services falls on what a
// change touched: fully on a service that it touched, less on one that calls
// it, and least on one that it calls, which sees only other requests.
func (s *analysis) relation(c Change) (float64, string) {
	sum, most, how := 0.0, 0.0, ""
	for _, name := range c.Services {
		from, ok := s.index[name]
		if !ok {
			continue
		}
		up, down := s.distances(from, true), s.distances(from, false)
		for rank, v := range s.rankedServices {
			i := s.index[v.name]
			w, line := 0.0, ""
			switch {
			case v.name == name:
				w, line = 1, fmt.Sprintf("touches %s, ranked %d", name, rank+1)
			case up[i] > 0:
				w, line = math.Exp2(-float64(up[i]))*0.6, fmt.Sprintf("touches %s, which %s (ranked %d) calls", name, v.name, rank+1)
			case down[i] > 0:
				w, line = math.Exp2(-float64(down[i]))*0.3, fmt.Sprintf("touches %s, which calls %s (ranked %d)", name, v.name, rank+1)
			}
			w *= v.conf
			sum += w
			if w > most {
				most, how = w, line
			}
		}
	}
	return min(1, sum), how
}
