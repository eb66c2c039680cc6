package localplatform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// Apply makes one change; see [reconcile.Actuator] for the contract. For a
// Deployment it starts and stops processes until they are what is declared,
// and waits for the readiness of new ones only in a rollout, where the old
// ones are kept until the new ones can take over.
//
// Errors: [reconcile.ErrConflict] where the live object is of another
// version, [reconcile.ErrTerminal] for an object or an image that cannot
// run; anything else may pass.
func (p *Platform) Apply(ctx context.Context, c reconcile.Change) error {
	err := p.apply(ctx, c)
	p.mu.Lock()
	switch {
	case err == nil:
		delete(p.failures, c.Key)
	case !errors.Is(err, reconcile.ErrConflict) && ctx.Err() == nil && p.ctx.Err() == nil && p.records[c.Key] != nil:
		p.failures[c.Key] = failure{err.Error(), p.clock.Now()}
	}
	p.tell(p.clock.Now())
	p.mu.Unlock()
	if err != nil {
		return &reconcile.Error{Op: "apply", Key: c.Key, Err: err}
	}
	return nil
}

func (p *Platform) apply(ctx context.Context, c reconcile.Change) error {
	if err := p.alive(ctx); err != nil {
		return err
	}
	unlock, err := p.lock(ctx, c.Key)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.look(ctx, false); err != nil {
		return err
	}
	p.mu.Lock()
	rec := p.records[c.Key]
	version := ""
	if rec != nil {
		version = p.derive(rec).Version
	}
	p.mu.Unlock()

	if c.Action == reconcile.Delete {
		if rec == nil {
			return nil
		}
		if c.LiveVersion != "" && c.LiveVersion != version {
			return moved(c, version)
		}
		return p.remove(c.Key)
	}
	if c.Action != reconcile.Create && c.Action != reconcile.Update {
		return fmt.Errorf("action %q: %w: %w", c.Action, reconcile.ErrInvalid, reconcile.ErrTerminal)
	}
	if key, err := reconcile.KeyOf(c.Desired); err != nil || key != c.Key {
		return fmt.Errorf("the object is not one of %s: %w: %w: %w", c.Key, err, reconcile.ErrInvalid, reconcile.ErrTerminal)
	}
	desired := reconcile.CloneObject(c.Desired)
	delete(desired, "status") // reality's, not the author's
	if rec != nil && isDeployment(c.Key) {
		keepReplicas(desired, rec.object)
	}
	same := rec != nil && reflect.DeepEqual(rec.object, desired)
	// The same change again, after its first try was cut off, is not a
	// conflict, although that try has moved the version.
	again := same && rec.from == c.LiveVersion
	switch {
	case again:
	case c.Action == reconcile.Create && rec != nil && !same:
		return fmt.Errorf("it exists already, in version %s: %w", version, reconcile.ErrConflict)
	case c.LiveVersion != "" && c.LiveVersion != version:
		return moved(c, version)
	}
	next := &record{key: c.Key, object: desired, from: c.LiveVersion, version: 1}
	if rec != nil {
		next.version = rec.version
		if !same {
			next.version++
		}
	}
	var d deployment
	if isDeployment(c.Key) {
		if d, err = parseDeployment(desired); err != nil {
			return fmt.Errorf("%w: %w", reconcile.ErrTerminal, err)
		}
		if err := p.checkImage(d.image); err != nil {
			if errors.Is(err, shop.ErrNoImage) {
				err = fmt.Errorf("%w: %w", reconcile.ErrTerminal, err)
			}
			return err
		}
		next.templates = map[string]any{d.hash: d.template}
		p.mu.Lock()
		for key := range p.records {
			if isDeployment(key) && key.Name == c.Key.Name && key.Namespace != c.Key.Namespace {
				p.mu.Unlock()
				return fmt.Errorf("the load balancer knows services by name, and %s has this one: %w", key, reconcile.ErrTerminal)
			}
		}
		// What can never run is not even written down: a terminal error says
		// that nothing was. A ConfigMap that is missing may still come.
		if _, err := p.environment(c.Key.Namespace, d.template); errors.Is(err, reconcile.ErrInvalid) {
			p.mu.Unlock()
			return fmt.Errorf("%w: %w", reconcile.ErrTerminal, err)
		}
		if rec != nil {
			for _, pr := range p.instances(c.Key) {
				if t, ok := rec.templates[pr.entry.Template]; ok {
					next.templates[pr.entry.Template] = t
				}
			}
		}
		p.mu.Unlock()
	}
	// What is wanted is on disk before anything is done for it: if this is
	// cut off, the live object is between the two and the next plan goes on.
	if err := p.save(next); err != nil {
		return err
	}
	p.mu.Lock()
	p.records[c.Key] = next
	p.mu.Unlock()
	if !isDeployment(c.Key) {
		return nil
	}
	return p.converge(ctx, c.Key, d)
}

func moved(c reconcile.Change, version string) error {
	if version == "" {
		return fmt.Errorf("planned for version %s, and it is gone: %w", c.LiveVersion, reconcile.ErrConflict)
	}
	return fmt.Errorf("planned for version %s, and it is %s: %w", c.LiveVersion, version, reconcile.ErrConflict)
}

// keepReplicas takes the number of replicas over where the new object leaves
// it to others.
func keepReplicas(desired, live map[string]any) {
	spec, _ := desired["spec"].(map[string]any)
	old, _ := live["spec"].(map[string]any)
	if _, ok := spec["replicas"]; !ok && spec != nil && old["replicas"] != nil {
		spec["replicas"] = old["replicas"]
	}
}

func (p *Platform) remove(key reconcile.Key) error {
	if isDeployment(key) {
		p.mu.Lock()
		group := entriesOf(p.instances(key))
		p.mu.Unlock()
		if err := p.stop(group); err != nil {
			return err
		}
	}
	if err := p.erase(key); err != nil {
		return err
	}
	p.mu.Lock()
	delete(p.records, key)
	delete(p.failures, key)
	delete(p.unhealthy, key)
	p.mu.Unlock()
	return nil
}

func entriesOf(procs []*proc) []rundir.Entry {
	out := make([]rundir.Entry, len(procs))
	for i, pr := range procs {
		out[i] = pr.entry
	}
	return out
}

// lock makes changes of one key wait for each other.
func (p *Platform) lock(ctx context.Context, key reconcile.Key) (unlock func(), err error) {
	p.mu.Lock()
	l, ok := p.locks[key]
	if !ok {
		l = make(chan struct{}, 1)
		p.locks[key] = l
	}
	p.mu.Unlock()
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.ctx.Done():
		return nil, ErrClosed
	}
}

// converge makes the processes of a Deployment what it declares. The caller
// holds the key's lock.
func (p *Platform) converge(ctx context.Context, key reconcile.Key, d deployment) error {
	p.mu.Lock()
	var current, old []*proc
	for _, pr := range p.instances(key) {
		if pr.entry.Template == d.hash {
			current = append(current, pr)
		} else {
			old = append(old, pr)
		}
	}
	env, err := p.environment(key.Namespace, d.template)
	surplus := entriesOf(victims(current, len(current)-d.replicas))
	previous := entriesOf(old)
	p.mu.Unlock()
	if err != nil {
		if errors.Is(err, reconcile.ErrInvalid) {
			err = fmt.Errorf("%w: %w", reconcile.ErrTerminal, err)
		}
		return err
	}
	if missing := d.replicas - len(current); missing > 0 {
		if err := p.startMany(ctx, key, d, env, missing); err != nil {
			return err
		}
	}
	if len(previous) > 0 && d.replicas > 0 {
		if err := p.waitReady(ctx, key, d); err != nil {
			return err
		}
	}
	return p.stop(append(previous, surplus...))
}

// victims chooses which of the processes, given oldest first, to stop: those
// started by hand, then those that are not ready, then the youngest.
func victims(procs []*proc, n int) []*proc {
	if n <= 0 {
		return nil
	}
	rank := func(pr *proc) int {
		switch {
		case pr.entry.Owner == rundir.OwnerHand:
			return 0
		case !pr.ready:
			return 1
		}
		return 2
	}
	order := slices.Clone(procs)
	slices.Reverse(order)
	slices.SortStableFunc(order, func(a, b *proc) int { return cmp.Compare(rank(a), rank(b)) })
	return order[:n]
}

func (p *Platform) startMany(ctx context.Context, key reconcile.Key, d deployment, env []string, n int) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, errs[i] = p.start(ctx, rundir.Entry{
				Role: rundir.RoleService, Service: key.Name, Namespace: key.Namespace,
				Image: d.image, Template: d.hash, Owner: rundir.OwnerPlatform,
			}, env)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// waitReady waits until as many processes of the new template are ready as
// are declared.
func (p *Platform) waitReady(ctx context.Context, key reconcile.Key, d deployment) error {
	timeout := p.clock.After(p.opts.RolloutTimeout)
	for {
		if err := p.look(ctx, true); err != nil {
			return err
		}
		p.mu.Lock()
		ready, live := 0, 0
		for _, pr := range p.instances(key) {
			if pr.entry.Template == d.hash {
				live++
				if pr.ready {
					ready++
				}
			}
		}
		p.mu.Unlock()
		switch {
		case ready >= d.replicas:
			return nil
		case live < d.replicas:
			return fmt.Errorf("rollout of %s: %d of %d new replicas have ended", d.image, d.replicas-live, d.replicas)
		}
		select {
		case <-timeout:
			return fmt.Errorf("rollout of %s: %d of %d new replicas are ready after %v; the old ones go on", d.image, ready, d.replicas, p.opts.RolloutTimeout)
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ctx.Done():
			return ErrClosed
		case <-p.clock.After(50 * time.Millisecond):
		}
	}
}

// find gives a live service process by ID.
func (p *Platform) find(id string) (rundir.Entry, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pr, ok := p.procs[id]
	if !ok || pr.entry.Role != rundir.RoleService || pr.stopping {
		return rundir.Entry{}, fmt.Errorf("localplatform: instance %q: %w", id, reconcile.ErrNotFound)
	}
	return pr.entry, nil
}

// deploymentOf gives the stored Deployment of a service.
func (p *Platform) deploymentOf(service string) (reconcile.Key, *record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range slices.SortedFunc(maps.Keys(p.records), reconcile.Key.Compare) {
		if isDeployment(key) && key.Name == service {
			return key, p.records[key], nil
		}
	}
	return reconcile.Key{}, nil, fmt.Errorf("localplatform: no Deployment of %q: %w", service, reconcile.ErrNotFound)
}
