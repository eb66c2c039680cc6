// Command remediate shows a repair from alarm to proof: a bad release is
// blamed for an incident, taken back by a real commit in a real repository,
// and the same measurement that raised the alarm confirms it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/evenkeel-go/evenkeel/anomaly"
	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
	"github.com/evenkeel-go/evenkeel/reconcile/gitsource"
	"github.com/evenkeel-go/evenkeel/remediate"
)

const manifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: checkout}
spec:
  image: shop/checkout:1
`

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tmp, err := os.MkdirTemp("", "remediate")
	check(err)
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, "shop.git")
	_, err = gitsource.Init(ctx, dir, gitsource.CommitRequest{Message: "Run checkout 1", Files: map[string][]byte{"checkout.yaml": []byte(manifest)}})
	check(err)
	repo, err := gitsource.Open(ctx, gitsource.Options{URL: dir})
	check(err)
	checkout := reconcile.Key{Group: "apps", Kind: "Deployment", Name: "checkout"}
	bad, err := repo.Write(ctx, reconcile.WriteRequest{ID: "release-2", Message: "Release checkout 2",
		Edits: []reconcile.Edit{{Key: checkout, Path: "spec.image", Value: "shop/checkout:2"}}})
	check(err)

	journal, err := remediate.OpenFileJournal(filepath.Join(tmp, "journal"), remediate.FileJournalOptions{})
	check(err)
	defer journal.Close()
	running, stop := context.WithCancel(ctx)
	m, err := remediate.New(ctx, remediate.Options{
		Journal: journal, Writer: repo, Source: repo, Approver: remediate.AutoApprove("the example"),
		// The service is slow wherever the second release is declared.
		Verifier: remediate.VerifierFunc(func(ctx context.Context, _ remediate.Case) (bool, string, error) {
			state, err := repo.Fetch(ctx)
			if err != nil {
				return false, "", err
			}
			res, _ := state.Get(checkout)
			image := res.Object["spec"].(map[string]any)["image"]
			return image != "shop/checkout:2", fmt.Sprintf("what runs is %v", image), nil
		}),
		Playbooks: []remediate.Playbook{{Name: "roll-back", Match: remediate.Match{Classes: []rootcause.Class{rootcause.RollBack}},
			Actions: []remediate.Action{{Type: remediate.RevertCommit}}}},
		Timings: remediate.Timings{VerifyEvery: 20 * time.Millisecond, VerifyHold: 100 * time.Millisecond},
		Observer: func(e remediate.Event) {
			if e.Case.Status.Final() {
				stop()
			}
		},
	})
	check(err)
	now := time.Now().UTC()
	incident := anomaly.Incident{ID: "inc-1", Opened: now, Alerts: []anomaly.Alert{{Series: anomaly.SeriesID{Service: "checkout", Metric: "latency"},
		Kind: anomaly.LevelShift, Onset: now, Raised: now, Value: 900, Expected: 80, Lower: 40, Upper: 160, Score: 7}}}
	report := &rootcause.Report{Onset: now, Class: rootcause.RollBack, Why: "latency shifted when release 2 came",
		Services: []rootcause.RankedService{{Service: "checkout", Confidence: 0.9, Evidence: []string{"latency from 80 to 900 ms"}}},
		Change:   &rootcause.RankedChange{Confidence: 0.9, Change: rootcause.Change{ID: bad.Revision, Time: bad.Time, Summary: bad.Subject()}}}
	id, err := m.Handle(ctx, remediate.FromIncident(incident), report)
	check(err)

	if err := m.Run(running); ctx.Err() != nil || !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
	c, err := m.Case(id)
	check(err)
	fmt.Printf("%s\n%s\ncommit: %s\n", c, c.Explain(), c.Attempts[0].Commit.Subject())
	for _, t := range c.Attempts[0].Commit.Trailers {
		fmt.Printf("  %s: %s\n", t.Key, t.Value)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
