package scaling

import (
	"fmt"
	"math"
	"time"
)

// HPAOptions are the settings of an [HPA] policy. Capacity and Max must be
// given; zero elsewhere is the default, which is that of Kubernetes.
type HPAOptions struct {
	// Capacity is the demand that one replica carries at full utilisation, in
	// the unit of the history.
	Capacity float64
	// Target is the wanted utilisation in (0, 1]; 0 is 0.8.
	Target float64
	// Min and Max limit the replicas; Min 0 is 1.
	Min, Max int
	// Tolerance is how far the ratio of utilisation and target may be from 1
	// with nothing done; 0 is 0.1, negative is none.
	Tolerance float64
	// Stabilization is the trailing window whose largest recommendation holds
	// off a scale-down; 0 is 300 s, negative is none.
	Stabilization time.Duration
	// UpPods and UpPercent are how far one UpPeriod may scale up, whichever is
	// more; 0 is 4 pods, 100 % and 15 s.
	UpPods    int
	UpPercent int
	UpPeriod  time.Duration
}

// HPA is the rule of Kubernetes' autoscaling/v2 HorizontalPodAutoscaler for
// one utilisation metric, to compare with: ceil(ready * utilisation / target),
// with its tolerance, its scale-down stabilisation and its default scale-up
// policies, and with replicas that are not ready counted as idle on the way up
// (as in k8s.io/kubernetes/pkg/controller/podautoscaler). The utilisation is
// the newest demand over the capacity of the ready replicas. It only reacts.
// It is not safe for concurrent use.
type HPA struct {
	opts  HPAOptions
	last  time.Time
	needs window
	ups   []up
}

// up is a scale-up that was decided.
type up struct {
	at    time.Time
	added int
}

// NewHPA checks the settings and fills in the defaults; an impossible setting
// is an [ErrInvalid].
func NewHPA(opts HPAOptions) (*HPA, error) {
	if opts.Target == 0 {
		opts.Target = 0.8
	}
	if opts.Min == 0 {
		opts.Min = 1
	}
	if opts.Tolerance == 0 {
		opts.Tolerance = 0.1
	}
	if opts.Stabilization == 0 {
		opts.Stabilization = 300 * time.Second
	}
	if opts.UpPods == 0 {
		opts.UpPods = 4
	}
	if opts.UpPercent == 0 {
		opts.UpPercent = 100
	}
	if opts.UpPeriod == 0 {
		opts.UpPeriod = 15 * time.Second
	}
	switch {
	case !(opts.Capacity > 0) || math.IsInf(opts.Capacity, 0):
		return nil, invalid("capacity %v is not above zero", opts.Capacity)
	case !(opts.Target > 0 && opts.Target <= 1):
		return nil, invalid("target utilisation %v is not in (0, 1]", opts.Target)
	case opts.Tolerance != opts.Tolerance || opts.Tolerance >= 1:
		return nil, invalid("tolerance %v is not below 1", opts.Tolerance)
	case opts.UpPods < 0 || opts.UpPods > maxReplicas:
		return nil, invalid("scale-up of %d pods is not in 0…%d", opts.UpPods, maxReplicas)
	case opts.UpPercent < 0 || opts.UpPercent > maxReplicas:
		return nil, invalid("scale-up of %d %% is not in 0…%d", opts.UpPercent, maxReplicas)
	case opts.UpPeriod < 0:
		return nil, invalid("scale-up period %v is below zero", opts.UpPeriod)
	}
	if err := checkLimits(opts.Min, opts.Max); err != nil {
		return nil, err
	}
	opts.Tolerance = max(opts.Tolerance, 0)
	opts.Stabilization = max(opts.Stabilization, 0)
	return &HPA{opts: opts}, nil
}

// Decide implements [Policy]. An input that makes no sense is an error; the
// Decision then holds what runs, within Min and Max, and can be used. Without
// a value in the last three steps, or without a ready replica, nothing changes,
// as in Kubernetes.
func (p *HPA) Decide(in Input) (Decision, error) {
	d := Decision{Time: in.Now, Bound: ByFallback}
	d.Replicas = min(max(in.Replicas, p.opts.Min), p.opts.Max)
	err := in.check()
	if err == nil && in.Now.Before(p.last) {
		err = invalid("time %v is before that of the last decision, %v", in.Now, p.last)
	}
	if err != nil {
		d.Reason = "holds what runs: " + err.Error()
		return d, err
	}
	if p.last.IsZero() {
		p.needs.add(held{at: in.Now, replicas: in.Replicas, demand: float64(in.Replicas) * p.perReplica()}, p.opts.Stabilization)
	}
	p.last = in.Now
	d.Replicas = in.Replicas

	demand, at, seen := newest(in.History, in.Now)
	switch {
	case !seen:
		d.Reason = "no demand has been seen: holds what runs"
		return clampDecision(d, p.opts.Min, p.opts.Max), nil
	case in.Now.Sub(at) > 3*in.History.Step:
		d.Reason = fmt.Sprintf("the newest demand is %v old: holds what runs", in.Now.Sub(at))
		return clampDecision(d, p.opts.Min, p.opts.Max), nil
	case in.Ready == 0 || in.Replicas == 0:
		d.Reason = "no replica is ready, so there is no utilisation: holds what runs"
		return clampDecision(d, p.opts.Min, p.opts.Max), nil
	}
	return p.decide(in, demand), nil
}

// perReplica is the demand that one replica is meant to carry.
func (p *HPA) perReplica() float64 { return p.opts.Capacity * p.opts.Target }

func (p *HPA) decide(in Input, demand float64) Decision {
	ratio := demand / (float64(in.Ready) * p.perReplica())
	d := Decision{Time: in.Now, Bound: ByDemand, Demand: demand, Replicas: in.Replicas}
	d.Reason = fmt.Sprintf("%d ready replicas run at %.0f %%, target %.0f %%", in.Ready, 100*ratio*p.opts.Target, 100*p.opts.Target)
	near := func(ratio float64) bool { return math.Abs(ratio-1) <= p.opts.Tolerance }
	if ratio > 1 && in.Ready < in.Replicas {
		// Replicas that are not ready yet will carry their share.
		ratio = demand / (float64(in.Replicas) * p.perReplica())
		if near(ratio) || ratio < 1 {
			d.Bound = ByTolerance
			d.Reason += ", and more are starting"
		} else {
			d.Replicas = max(replicasFor(demand, p.perReplica(), p.opts.Max), in.Replicas)
		}
	} else if near(ratio) {
		d.Bound = ByTolerance
		d.Reason += ": near enough"
	} else {
		d.Replicas = replicasFor(demand, p.perReplica(), p.opts.Max)
	}

	p.needs.add(held{in.Now, d.Replicas, d.Demand}, p.opts.Stabilization)
	if most := p.needs.most(); d.Replicas < in.Replicas && most.replicas > d.Replicas {
		d.Reason = fmt.Sprintf("%s; %d would do, but %d were recommended %v ago, within %v",
			d.Reason, d.Replicas, most.replicas, in.Now.Sub(most.at), p.opts.Stabilization)
		d.Bound, d.Demand = ByHold, most.demand
		d.Replicas = min(most.replicas, in.Replicas)
	}
	if limit := p.upLimit(in); d.Replicas > max(limit, in.Replicas) {
		d.Reason = fmt.Sprintf("%s; wants %d, goes up to at most %d in %v", d.Reason, d.Replicas, limit, p.opts.UpPeriod)
		d.Replicas, d.Bound = max(limit, in.Replicas), ByStep
	}
	d = clampDecision(d, p.opts.Min, p.opts.Max)
	if d.Replicas > in.Replicas {
		p.ups = append(p.ups, up{in.Now, d.Replicas - in.Replicas})
	}
	return d
}

// upLimit is how far this decision may scale up, given what was added within
// the current period.
func (p *HPA) upLimit(in Input) int {
	kept := p.ups[:0]
	added := 0
	for _, u := range p.ups {
		if in.Now.Sub(u.at) < p.opts.UpPeriod {
			kept = append(kept, u)
			added += u.added
		}
	}
	p.ups = kept
	start := max(in.Replicas-added, 0)
	byPercent := math.Ceil(float64(start) * (1 + float64(p.opts.UpPercent)/100))
	return int(math.Min(math.Max(float64(start+p.opts.UpPods), byPercent), maxReplicas))
}
