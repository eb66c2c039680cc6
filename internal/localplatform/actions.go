package localplatform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/localplatform/rundir"
	"github.com/evenkeel-go/evenkeel/internal/localplatform/shop"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

// KillProcess ends an instance as somebody with a shell would: at once, and
// behind the platform's back. [reconcile.ErrNotFound] if there is none.
func (p *Platform) KillProcess(id string) error {
	e, err := p.find(id)
	if err != nil {
		return err
	}
	h, err := os.FindProcess(e.PID)
	if err != nil {
		return fmt.Errorf("localplatform: kill %s: %w", id, err)
	}
	defer h.Release()
	if !e.Alive() {
		return fmt.Errorf("localplatform: instance %q: %w", id, reconcile.ErrNotFound)
	}
	if err := h.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("localplatform: kill %s: %w", id, err)
	}
	return nil
}

// StartByHand starts one more process of a service, as somebody would who
// bypasses Git, and gives its ID.
func (p *Platform) StartByHand(ctx context.Context, service string) (string, error) {
	key, rec, err := p.deploymentOf(service)
	if err != nil {
		return "", err
	}
	d, err := parseDeployment(rec.object)
	if err != nil {
		return "", fmt.Errorf("localplatform: start %s by hand: %w", service, err)
	}
	e, err := p.startAs(ctx, key, rundir.Entry{Image: d.image, Template: d.hash, Owner: rundir.OwnerHand}, d.template)
	return e.ID, err
}

func (p *Platform) startAs(ctx context.Context, key reconcile.Key, e rundir.Entry, template any) (rundir.Entry, error) {
	p.mu.Lock()
	env, err := p.environment(key.Namespace, template)
	p.mu.Unlock()
	if err != nil {
		return e, err
	}
	if err := p.checkImage(e.Image); err != nil {
		return e, err
	}
	e.Role, e.Service, e.Namespace = rundir.RoleService, key.Name, key.Namespace
	return p.start(ctx, e, env)
}

// InjectFault switches a fault on in one instance, or off with
// [shop.NoFault].
func (p *Platform) InjectFault(ctx context.Context, instance string, f shop.Fault) error {
	e, err := p.find(instance)
	if err != nil {
		return err
	}
	body, err := json.Marshal(f)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL()+"/fault", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("localplatform: fault %s: %w", instance, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("localplatform: fault %s: %s: %w", instance, resp.Status, reconcile.ErrInvalid)
	}
	return nil
}

// restart is the record of one restart in DIR/actions.
type restart struct {
	Action   string    `json:"action"`
	Instance string    `json:"instance"`
	Service  string    `json:"service"`
	Done     bool      `json:"done"`
	By       string    `json:"by,omitempty"` // the instance that took over
	At       time.Time `json:"at"`
}

func (p *Platform) restartName(actionID string) string {
	return p.dir.Path("actions", url.PathEscape(actionID)+".json")
}

func (p *Platform) readRestart(actionID string) (restart, error) {
	var r restart
	b, err := os.ReadFile(p.restartName(actionID))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r)
}

func (p *Platform) writeRestart(r restart) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return rundir.WriteFile(p.restartName(r.Action), b)
}

// RestartDone tells whether the restart of that action has been made. An
// action of which nothing is known has not.
func (p *Platform) RestartDone(_ context.Context, actionID string) (bool, error) {
	r, err := p.readRestart(actionID)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("localplatform: restart %q: %w", actionID, err)
	}
	return r.Done, nil
}

// RestartInstance replaces one instance: a new one of the same template is
// started, and when it is ready the old one is stopped. The action's ID makes
// it happen once: called again, also by a controller that comes back after a
// crash, it goes on where it was cut off, and does nothing when it is done.
// If the new instance does not get ready within [Options.RolloutTimeout] it
// is stopped, and the old one stays.
//
// Errors: [reconcile.ErrNotFound] for an instance that is not there and that
// this action has not begun to replace; [reconcile.ErrInvalid] for an ID that
// is empty or was used for another instance.
func (p *Platform) RestartInstance(ctx context.Context, actionID, instance string) error {
	if err := p.restart(ctx, actionID, instance); err != nil {
		return fmt.Errorf("localplatform: restart %s (action %q): %w", instance, actionID, err)
	}
	return nil
}

func (p *Platform) restart(ctx context.Context, actionID, instance string) error {
	if actionID == "" || len(actionID) > 200 {
		return fmt.Errorf("bad action id: %w", reconcile.ErrInvalid)
	}
	if err := p.alive(ctx); err != nil {
		return err
	}
	r, err := p.readRestart(actionID)
	begun := err == nil
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e, err := p.find(instance)
		if err != nil {
			return err
		}
		r = restart{Action: actionID, Instance: instance, Service: e.Service, At: p.clock.Now()}
	case err != nil:
		return err
	case r.Instance != instance:
		return fmt.Errorf("the action is of instance %s: %w", r.Instance, reconcile.ErrInvalid)
	case r.Done:
		return nil
	}
	key, _, err := p.deploymentOf(r.Service)
	if err != nil {
		return err
	}
	unlock, err := p.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	_, rec, err := p.deploymentOf(r.Service) // as it is now that nobody changes it
	if err != nil {
		return err
	}
	if done, err := p.RestartDone(ctx, actionID); done || err != nil {
		return err // by another caller, while this one waited
	}
	if err := p.look(ctx, false); err != nil {
		return err
	}
	var next rundir.Entry
	p.mu.Lock()
	for _, pr := range p.instances(key) {
		if pr.entry.Action == actionID {
			next = pr.entry
		}
	}
	p.mu.Unlock()
	old, oldErr := p.find(instance)
	if oldErr != nil {
		if !begun {
			return oldErr
		}
		// The old one is gone. If the new one is not there either, whoever
		// keeps the replicas at their number makes up for it.
		r.Done, r.By = true, next.ID
		return p.writeRestart(r)
	}
	if !begun {
		if err := p.writeRestart(r); err != nil {
			return err
		}
	}
	if next.ID == "" {
		p.mu.Lock()
		template, ok := rec.templates[old.Template]
		p.mu.Unlock()
		if !ok {
			return fmt.Errorf("template %s is not known any more: %w", old.Template, reconcile.ErrNotFound)
		}
		next, err = p.startAs(ctx, key, rundir.Entry{
			Image: old.Image, Template: old.Template, Owner: rundir.OwnerPlatform, Action: actionID, Replaces: old.ID,
		}, template)
		if err != nil {
			return err
		}
	}
	timeout := p.clock.After(p.opts.RolloutTimeout)
	for !p.probe(ctx, next) {
		err := error(nil)
		select {
		case <-timeout:
			err = fmt.Errorf("%s is not ready after %v", next.ID, p.opts.RolloutTimeout)
		case <-ctx.Done():
			return ctx.Err() // the next call goes on
		case <-p.ctx.Done():
			return ErrClosed
		case <-p.clock.After(50 * time.Millisecond):
			if !next.Alive() {
				err = fmt.Errorf("%s has ended", next.ID)
			}
		}
		if err != nil {
			return errors.Join(err, p.stop([]rundir.Entry{next}))
		}
	}
	p.mu.Lock()
	if pr, ok := p.procs[next.ID]; ok {
		pr.ready = true
	}
	p.mu.Unlock()
	if err := p.stop([]rundir.Entry{old}); err != nil {
		return err
	}
	r.Done, r.By = true, next.ID
	if err := p.writeRestart(r); err != nil {
		return err
	}
	p.mu.Lock()
	p.tell(p.clock.Now())
	p.mu.Unlock()
	return nil
}
